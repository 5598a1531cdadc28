//! Keys: a letter for the table, then fields whose bytes sort as their values do.
//!
//! No key is a prefix of another table's, and a range over one bucket, upload, list or data id is one prefix. Object
//! keys stand last and raw, so that a listing's order is bytewise, as S3 has it. Where something follows an object key
//! (uploads), each of its bytes is stored plus one and a zero ends it: UTF-8 has no byte above 0xF4, so nothing
//! overflows, nothing needs escaping (an escape could double a 1,024-byte key past the KV's limit), and the order stays.

use penstock_proto::{DataId, limits};

use super::TablesError;
use crate::kv::prefix_end;

/// `A | extent`: bytes of it that objects refer to; a counter.
pub(super) const EXTENT_LIVE: u8 = b'A';
/// `B | name`.
pub(super) const BUCKETS: u8 = b'B';
/// `C | name`: counters, 8 bytes little-endian.
pub(super) const COUNTERS: u8 = b'C';
/// `D | extent | offset, u64`: whose bytes begin there.
pub(super) const PACKED: u8 = b'D';
/// `E | extent`.
pub(super) const EXTENTS: u8 = b'E';
/// `G | not before, u64 | data id`.
pub(super) const GARBAGE: u8 = b'G';
/// `I | name`.
pub(super) const IDENTITIES: u8 = b'I';
/// `J | extent | offset, u64`: the batch of an extent that begins there.
pub(super) const BATCHES: u8 = b'J';
/// `K | bucket id, u64 | kind, u16 | index, u32`.
pub(super) const BUCKET_SETTINGS: u8 = b'K';
/// `L | not before, u64 | id`.
pub(super) const GARBAGE_LISTS: u8 = b'L';
/// `M | data id | index, u32`.
pub(super) const MANIFESTS: u8 = b'M';
/// `N | bucket id, u64 | key + 1 | 0 | version, 16 bytes`.
pub(super) const NONCURRENT: u8 = b'N';
/// `O | bucket id, u64 | key`.
pub(super) const OBJECTS: u8 = b'O';
/// `P | list id | index, u32`.
pub(super) const PART_LISTS: u8 = b'P';
/// `Q | target | 0 | commit version, 10 bytes | index, u16`.
pub(super) const EVENTS: u8 = b'Q';
/// `R | data id | stripe, u32`.
pub(super) const REPAIRS: u8 = b'R';
/// `S | name`.
pub(super) const SETTINGS: u8 = b'S';
/// `T | upload id, 24 bytes | number, u32`.
pub(super) const PARTS: u8 = b'T';
/// `U | bucket id, u64 | key + 1 | 0 | upload id, 24 bytes`.
pub(super) const UPLOADS: u8 = b'U';
/// `V | upload id, 24 bytes`: how often the upload's parts changed; a counter.
pub(super) const PARTS_VERSIONS: u8 = b'V';
/// `W | id`.
pub(super) const WRITES: u8 = b'W';
/// `X | bucket id, u64 | key`: where the null version is, if it is at `N`.
pub(super) const NULL_VERSIONS: u8 = b'X';
/// `H | name`.
pub(super) const VAULT: u8 = b'H';

/// `Z | bucket id, u64 | token, 16 bytes`: renames that came with a client's token.
pub(super) const RENAME_TOKENS: u8 = b'Z';

/// `Y | node, u16 | data id`.
pub(super) const STRAYS: u8 = b'Y';

/// A binary upload id: initiation time in ms, big-endian, then 16 random bytes.
pub(super) type UploadKey = [u8; 24];

/// Where a version stands among those of its key, newest first: its stamp, inverted, then its salt, both big-endian.
pub(super) type VersionKey = [u8; 16];

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.push(table);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

pub(super) fn table(table: u8) -> Vec<u8> {
    vec![table]
}

pub(super) fn bucket(name: &str) -> Vec<u8> {
    key(BUCKETS, &[name.as_bytes()])
}

pub(super) fn counter(name: &str) -> Vec<u8> {
    key(COUNTERS, &[name.as_bytes()])
}

/// Where the events of a target wait.
pub(super) fn events(target: &str) -> Vec<u8> {
    key(EVENTS, &[target.as_bytes(), &[0]])
}

/// The counter of events that wait for a target.
pub(super) fn events_queued(target: &str) -> Vec<u8> {
    counter(&format!("events-queued/{target}"))
}

/// The counter of events of a target that were dropped.
pub(super) fn events_dropped(target: &str) -> Vec<u8> {
    counter(&format!("events-dropped/{target}"))
}

pub(super) fn setting(name: &str) -> Vec<u8> {
    key(SETTINGS, &[name.as_bytes()])
}

pub(super) fn identity(name: &str) -> Vec<u8> {
    key(IDENTITIES, &[name.as_bytes()])
}

pub(super) fn rename_token(bucket: u64, token: &[u8; 16]) -> Vec<u8> {
    key(RENAME_TOKENS, &[&bucket.to_be_bytes(), token])
}

pub(super) fn vault(name: &str) -> Vec<u8> {
    key(VAULT, &[name.as_bytes()])
}

pub(super) fn bucket_settings(bucket: u64) -> Vec<u8> {
    key(BUCKET_SETTINGS, &[&bucket.to_be_bytes()])
}

pub(super) fn bucket_setting(bucket: u64, kind: u16) -> Vec<u8> {
    key(BUCKET_SETTINGS, &[&bucket.to_be_bytes(), &kind.to_be_bytes()])
}

pub(super) fn bucket_setting_chunk(bucket: u64, kind: u16, index: u32) -> Vec<u8> {
    key(BUCKET_SETTINGS, &[&bucket.to_be_bytes(), &kind.to_be_bytes(), &index.to_be_bytes()])
}

pub(super) fn objects(bucket: u64) -> Vec<u8> {
    key(OBJECTS, &[&bucket.to_be_bytes()])
}

pub(super) fn object(bucket: u64, name: &str) -> Result<Vec<u8>, TablesError> {
    check_name(name)?;
    Ok(key(OBJECTS, &[&bucket.to_be_bytes(), name.as_bytes()]))
}

pub(super) fn manifests(data: DataId) -> Vec<u8> {
    key(MANIFESTS, &[&data.to_bytes()])
}

pub(super) fn manifest(data: DataId, index: u32) -> Vec<u8> {
    key(MANIFESTS, &[&data.to_bytes(), &index.to_be_bytes()])
}

pub(super) fn part_lists(list: DataId) -> Vec<u8> {
    key(PART_LISTS, &[&list.to_bytes()])
}

pub(super) fn part_list(list: DataId, index: u32) -> Vec<u8> {
    key(PART_LISTS, &[&list.to_bytes(), &index.to_be_bytes()])
}

pub(super) fn repairs(data: DataId) -> Vec<u8> {
    key(REPAIRS, &[&data.to_bytes()])
}

pub(super) fn repair(data: DataId, stripe: u32) -> Vec<u8> {
    key(REPAIRS, &[&data.to_bytes(), &stripe.to_be_bytes()])
}

/// The inverse of [`repair`].
pub(super) fn parse_repair(key: &[u8]) -> Option<(DataId, u32)> {
    let (data, stripe) = key.strip_prefix(&[REPAIRS])?.split_first_chunk::<16>()?;
    Some((DataId::from_bytes(*data), u32::from_be_bytes(stripe.try_into().ok()?)))
}

pub(super) fn stray(node: u16, data: DataId) -> Vec<u8> {
    key(STRAYS, &[&node.to_be_bytes(), &data.to_bytes()])
}

/// The inverse of [`stray`].
pub(super) fn parse_stray(key: &[u8]) -> Option<(u16, DataId)> {
    let (node, data) = key.strip_prefix(&[STRAYS])?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*node), DataId::from_bytes(data.try_into().ok()?)))
}

pub(super) fn write(id: DataId) -> Vec<u8> {
    key(WRITES, &[&id.to_bytes()])
}

/// The inverse of [`write`].
pub(super) fn parse_write(key: &[u8]) -> Option<DataId> {
    Some(DataId::from_bytes(key.strip_prefix(&[WRITES])?.try_into().ok()?))
}

pub(super) fn extent(extent: DataId) -> Vec<u8> {
    key(EXTENTS, &[&extent.to_bytes()])
}

/// The inverse of [`extent`].
pub(super) fn parse_extent(key: &[u8]) -> Option<DataId> {
    Some(DataId::from_bytes(key.strip_prefix(&[EXTENTS])?.try_into().ok()?))
}

pub(super) fn extent_live(extent: DataId) -> Vec<u8> {
    key(EXTENT_LIVE, &[&extent.to_bytes()])
}

pub(super) fn batches(extent: DataId) -> Vec<u8> {
    key(BATCHES, &[&extent.to_bytes()])
}

pub(super) fn batch(extent: DataId, offset: u64) -> Vec<u8> {
    key(BATCHES, &[&extent.to_bytes(), &offset.to_be_bytes()])
}

pub(super) fn packed_of(extent: DataId) -> Vec<u8> {
    key(PACKED, &[&extent.to_bytes()])
}

pub(super) fn packed(extent: DataId, offset: u64) -> Vec<u8> {
    key(PACKED, &[&extent.to_bytes(), &offset.to_be_bytes()])
}

/// The extent and offset of a key of [`batch`] or [`packed`].
pub(super) fn parse_in_extent(key: &[u8]) -> Option<(DataId, u64)> {
    let (extent, offset) = key.get(1..)?.split_first_chunk::<16>()?;
    Some((DataId::from_bytes(*extent), u64::from_be_bytes(offset.try_into().ok()?)))
}

pub(super) fn garbage(not_before_unix_ms: u64, id: DataId) -> Vec<u8> {
    key(GARBAGE, &[&not_before_unix_ms.to_be_bytes(), &id.to_bytes()])
}

pub(super) fn garbage_list(not_before_unix_ms: u64, id: DataId) -> Vec<u8> {
    key(GARBAGE_LISTS, &[&not_before_unix_ms.to_be_bytes(), &id.to_bytes()])
}

/// The inverse of [`garbage`] and of [`garbage_list`].
pub(super) fn parse_garbage(key: &[u8]) -> Option<(u64, DataId)> {
    let (not_before, id) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*not_before), DataId::from_bytes(id.try_into().ok()?)))
}

pub(super) fn parts(upload: &UploadKey) -> Vec<u8> {
    key(PARTS, &[upload])
}

pub(super) fn part(upload: &UploadKey, number: u32) -> Vec<u8> {
    key(PARTS, &[upload, &number.to_be_bytes()])
}

pub(super) fn parts_version(upload: &UploadKey) -> Vec<u8> {
    key(PARTS_VERSIONS, &[upload])
}

pub(super) fn uploads(bucket: u64) -> Vec<u8> {
    key(UPLOADS, &[&bucket.to_be_bytes()])
}

pub(super) fn upload(bucket: u64, name: &str, upload: &UploadKey) -> Result<Vec<u8>, TablesError> {
    check_name(name)?;
    Ok(key(UPLOADS, &[&bucket.to_be_bytes(), &shifted(name.as_bytes()), &[0], upload]))
}

pub(super) fn noncurrents(bucket: u64) -> Vec<u8> {
    key(NONCURRENT, &[&bucket.to_be_bytes()])
}

pub(super) fn noncurrents_of(bucket: u64, name: &str) -> Vec<u8> {
    key(NONCURRENT, &[&bucket.to_be_bytes(), &shifted(name.as_bytes()), &[0]])
}

pub(super) fn noncurrent(bucket: u64, name: &str, version: &VersionKey) -> Vec<u8> {
    key(NONCURRENT, &[&bucket.to_be_bytes(), &shifted(name.as_bytes()), &[0], version])
}

/// The object key and version of a noncurrent row's key without its `N | bucket id`.
pub(super) fn parse_noncurrent(key: &[u8]) -> Option<(String, VersionKey)> {
    let (rest, version) = key.split_last_chunk::<16>()?;
    Some((unshifted(rest)?, *version))
}

pub(super) fn null_version(bucket: u64, name: &str) -> Vec<u8> {
    key(NULL_VERSIONS, &[&bucket.to_be_bytes(), name.as_bytes()])
}

/// Every byte plus one.
pub(super) fn shifted(name: &[u8]) -> Vec<u8> {
    // Names are UTF-8 (or what follows a UTF-8 prefix: at most 0xF5), so nothing wraps.
    name.iter().map(|byte| byte.wrapping_add(1)).collect()
}

/// The object key and upload id of an upload row's key without its `U | bucket id`.
pub(super) fn parse_upload(key: &[u8]) -> Option<(String, UploadKey)> {
    let (rest, upload) = key.split_last_chunk::<24>()?;
    Some((unshifted(rest)?, *upload))
}

/// The object key that, shifted and with a zero behind it, is `bytes`.
fn unshifted(bytes: &[u8]) -> Option<String> {
    let (end, name) = bytes.split_last()?;
    (*end == 0).then_some(())?;
    String::from_utf8(name.iter().map(|byte| byte.wrapping_sub(1)).collect()).ok()
}

/// The binary form of an upload id; `None` for what can't be one.
pub(super) fn upload_key(upload_id: &str) -> Option<UploadKey> {
    unhex(upload_id)
}

/// The `N` bytes that these hex digits are.
pub(super) fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    (pairs.len() == N && rest.is_empty()).then_some(())?;
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(pairs) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

/// The text form of an upload id.
pub(super) fn upload_id(upload: &UploadKey) -> String {
    hex(upload)
}

/// As hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
    }
    out
}

/// Lower case alone: one id has one spelling.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The first key after `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    let mut out = key.to_vec();
    out.push(0);
    out
}

/// The first key after everything that starts with `prefix`.
pub(super) fn past(prefix: &[u8]) -> Vec<u8> {
    prefix_end(prefix)
}

pub(super) fn check_name(name: &str) -> Result<(), TablesError> {
    if name.is_empty() || name.len() > limits::KEY_BYTES_MAX { Err(TablesError::KeyLength) } else { Ok(()) }
}
