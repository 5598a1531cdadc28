//! The rows: what is stored, as plain data.
//!
//! A row's bytes are a version byte and the struct in postcard (fields in the order they have here: it is part of the
//! format, as is the order of enum variants). `docs/formats/metadata.md` describes them; `tests/golden.rs` pins them.
//! The KV layer adds a CRC32C to each, so what comes back is what was written; a version this program doesn't know, or
//! bytes left over, is [`TablesError::Unreadable`], never a guess.

use penstock_proto::{Code, DataId, MapEpoch, NodeId, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::extent_rows::PackedRow;
use super::{Owner, TablesError};

/// Version byte of every row.
pub const ROW_VERSION: u8 = 1;
/// Stripes of one manifest row.
pub const MANIFEST_STRIPES_MAX: usize = 64;
/// Encoded length up to which a manifest stands inside its [`DataRow`] of an object; beyond, in rows of its own.
pub const INLINE_MANIFEST_BYTES_MAX: usize = 16 << 10;
/// The same for uploaded parts: smaller, since a completed upload's list copies up to 10,000 of them.
pub const INLINE_PART_MANIFEST_BYTES_MAX: usize = 4 << 10;
/// Most bytes of a part list row.
pub const PART_LIST_ROW_BYTES_MAX: usize = 48 << 10;

/// A bucket. At `B | name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    /// Its id: random, never used again. Keys of what is in it start with it.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_unix_ms: u64,
    /// The LocationConstraint it was made with; empty for none.
    pub region: String,
    /// Whether overwriting and deleting make versions.
    pub versioning: Versioning,
    /// Whether versions can be locked.
    pub lock: ObjectLockRow,
    /// Which settings it has: bit `n` is the [`super::BucketSetting`] of number `n`. Their documents are in rows of
    /// their own, so that the hot path reads none that is not there.
    pub settings: u64,
    /// Changes with every change of a setting: what was parsed from one may be kept by (bucket id, this).
    pub settings_version: u64,
    /// The account that owns it; empty for the store's own.
    pub owner: String,
}

/// Whether a bucket makes versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// It never did: every object is the null version of its key.
    #[default]
    Off,
    /// Every write makes one.
    Enabled,
    /// Writes make (and replace) the null version; those of before stay.
    Suspended,
}

/// A bucket's object lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectLockRow {
    /// It has none.
    #[default]
    Off,
    /// Versions can be locked.
    On {
        /// What new objects get that come without a retention.
        default: Option<DefaultRetentionRow>,
    },
}

/// The retention that new objects get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRetentionRow {
    /// COMPLIANCE, else GOVERNANCE.
    pub compliance: bool,
    /// `count` is of years (of 365 days), else of days.
    pub years: bool,
    /// For how long.
    pub count: u32,
}

/// Until when a version may not be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRow {
    /// COMPLIANCE, which nobody gets around; else GOVERNANCE.
    pub compliance: bool,
    /// Until when.
    pub until_unix_ms: u64,
}

/// What keeps a version from being destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRow {
    /// Until when.
    pub retention: Option<RetentionRow>,
    /// Until somebody says otherwise, if it says yes; none when nobody ever said.
    pub legal_hold: Option<bool>,
}

/// Which version of its key a row is. `versions.rs` says what holds of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Later versions of a key have larger ones: 65,536 to the millisecond of its commit, or more when the clock stood still.
    #[serde(with = "postcard::fixint::le")]
    pub stamp: u64,
    /// Random, so that ids can't be guessed and don't come back; 0 in a bucket without versions.
    pub salt: u64,
    /// It is the null version.
    pub null: bool,
    /// It is a delete marker.
    pub marker: bool,
    /// When another version took its place; 0 while it is the current one.
    pub superseded_unix_ms: u64,
}

/// One stripe as it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRow {
    /// Bytes of object data in it.
    pub chunk_bytes: u32,
    /// Bitmap of the shards that were not durable when it was written: bit j is shard j.
    pub missing: u64,
    /// CRC64NVME of each shard, `n` of them.
    #[serde(with = "fixed_u64s")]
    pub shard_crc64s: Vec<u64>,
}

/// A run of at most [`MANIFEST_STRIPES_MAX`] stripes on the same nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRow {
    /// Number of its first stripe: 64 times its index.
    pub first_stripe: u32,
    /// Shard j of each of these stripes is on `nodes[j]`.
    pub nodes: Vec<NodeId>,
    /// The stripes.
    pub stripes: Vec<StripeRow>,
}

impl ManifestRow {
    /// Bytes of data in its stripes.
    pub fn bytes(&self) -> u64 {
        self.stripes.iter().map(|stripe| u64::from(stripe.chunk_bytes)).sum()
    }

    /// Length of its encoding: what to compare with [`INLINE_MANIFEST_BYTES_MAX`].
    pub fn encoded_bytes(&self) -> usize {
        // Upper bound, cheap: 5 and 10 are the longest varints of 32 and 64 bits.
        let stripes: usize = self.stripes.iter().map(|s| 5 + 10 + 5 + 8 * s.shard_crc64s.len()).sum();
        5 + 5 + 3 * self.nodes.len() + 5 + stripes
    }
}

/// Where a manifest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestPlace {
    /// Here.
    Inline(ManifestRow),
    /// At `M | data id | 0..count`; row `i` has the stripes from `64 * i`.
    Rows {
        /// How many rows.
        count: u32,
    },
}

/// One run of data: the bytes of a PUT body or of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRow {
    /// Its id.
    pub data: DataId,
    /// Its length, as it is stored: of encrypted data that of the ciphertext.
    pub size_bytes: u64,
    /// Bytes of each chunk but the last.
    pub chunk_bytes: u32,
    /// Its code.
    pub code: Code,
    /// The map by which its nodes were chosen.
    pub epoch: MapEpoch,
    /// CRC64NVME of all its bytes; of encrypted data, as they were before.
    #[serde(with = "postcard::fixint::le")]
    pub crc64: u64,
    /// Where its shards are.
    pub manifest: ManifestPlace,
}

/// A stored checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksumRow {
    /// Its algorithm, by penstock-digest's stable number.
    pub algorithm: u8,
    /// Its value.
    pub bytes: Vec<u8>,
    /// For composite checksums (of the parts' checksums), the number of parts.
    pub composite_parts: Option<u32>,
}

/// Headers that are stored with an object and returned as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadersRow {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`.
    pub expires: Option<String>,
    /// User metadata: name without prefix, value.
    pub user_metadata: Vec<(String, String)>,
}

/// How an object's bytes are encrypted. All of its runs are, under keys derived from one data key (penstock-vault).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRow {
    /// Who opens the envelope.
    pub kind: EncryptionKind,
    /// The data key in its envelope.
    pub sealed_key: Vec<u8>,
}

/// Under which key a data key is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncryptionKind {
    /// SSE-S3: the store's own.
    S3,
    /// SSE-KMS: a named key's.
    Kms {
        /// Its name.
        key: String,
        /// How the request named it, which answers repeat.
        named: String,
        /// Which version of it.
        version: u32,
        /// The encryption context: JSON with sorted keys; empty for none.
        context: String,
        /// Whether the request asked for an S3 Bucket Key.
        bucket_key: bool,
    },
    /// SSE-C: one that the client sends with each request.
    Customer,
}

/// An object or a version of one, or a delete marker. The current object is at `O | bucket id | key`, other versions and all
/// markers at `N`. The fields before `parts` are what a listing shows ([`ListedRow`]): they are decoded without the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRow {
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it became visible.
    pub modified_unix_ms: u64,
    /// `STANDARD`.
    pub storage_class: String,
    /// Its checksum.
    pub checksum: Option<ChecksumRow>,
    /// Which version it is. Filled in by the transaction that makes it visible, but for `marker`.
    pub version: VersionRow,
    /// For objects from multipart uploads, how many parts.
    pub parts: Option<u32>,
    /// Its headers.
    pub headers: HeadersRow,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// What keeps it from being destroyed.
    pub lock: LockRow,
    /// How its bytes are encrypted, if they are: then `layout` has ciphertext, and its runs' lengths are those of it.
    pub encryption: Option<EncryptionRow>,
    /// The upload that it was completed from: a repeated Complete is answered by it.
    pub upload_id: Option<String>,
    /// Where its bytes are.
    pub layout: Layout,
}

/// What a listing shows of an object: a prefix of [`ObjectRow`]'s fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRow {
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    pub etag: String,
    /// When it became visible.
    pub modified_unix_ms: u64,
    /// `STANDARD`.
    pub storage_class: String,
    /// Its checksum.
    pub checksum: Option<ChecksumRow>,
    /// Which version it is.
    pub version: VersionRow,
}

/// Where an object's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// It has none.
    Empty,
    /// In one run.
    Single(DataRow),
    /// In one run per part; the list is at `P | list id | 0..count`.
    Parts {
        /// The list's id.
        list: DataId,
        /// How many rows the list has (not how many parts).
        count: u32,
    },
    /// Beside those of other objects in an extent.
    Packed(PackedRow),
}

/// One part of a completed object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSpan {
    /// Its number in the upload.
    pub number: u32,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its size.
    pub size_bytes: u64,
    /// MD5 of its bytes (of data that is encrypted with KMS or the client's key, something else): its ETag.
    pub etag_md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<ChecksumRow>,
    /// Its bytes; `None` for an empty part.
    pub data: Option<DataRow>,
}

/// A row of a part list. At `P | list id | index`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartListRow {
    /// Parts, ascending by number and offset.
    pub spans: Vec<PartSpan>,
}

/// An open upload. At `U | bucket id | key, each byte + 1 | 0 | upload id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// Its id: 48 hex digits, of the initiation time and 128 random bits; ids sort as they were begun.
    pub upload_id: String,
    /// The key of the object to be.
    pub key: String,
    /// When it was begun.
    pub initiated_unix_ms: u64,
    /// `STANDARD`.
    pub storage_class: String,
    /// Headers of the object to be.
    pub headers: HeadersRow,
    /// Algorithm of its checksums and whether the object's will be composite.
    pub checksum: Option<(u8, bool)>,
    /// Tags of the object to be.
    pub tags: Vec<(String, String)>,
    /// Lock of the object to be.
    pub lock: LockRow,
    /// Encryption of the object to be.
    pub encryption: Option<EncryptionRow>,
}

/// An uploaded part. At `T | upload id | number`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// Its number.
    pub number: u32,
    /// Its size.
    pub size_bytes: u64,
    /// MD5 of its bytes (of data that is encrypted with KMS or the client's key, something else): its ETag.
    pub md5: [u8; 16],
    /// When it came.
    pub modified_unix_ms: u64,
    /// Its checksum.
    pub checksum: Option<ChecksumRow>,
    /// Its bytes; `None` for an empty part.
    pub data: Option<DataRow>,
}

/// Data that nothing refers to any more, as the collector sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageRow {
    /// Which data.
    pub data: DataId,
    /// The nodes that may hold shards of it. **Empty: any node of the cluster may.**
    pub nodes: Vec<NodeId>,
    /// How many manifest rows it has, for information.
    pub manifest_rows: u32,
    /// Readers may still be reading it until then.
    pub not_before_unix_ms: u64,
}

/// What a garbage row holds. At `G | not before | data id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GarbageEntry {
    /// Data whose nodes are known; none means any.
    Data { nodes: Vec<NodeId>, manifest_rows: u32 },
    /// Data whose nodes are in its manifest rows.
    Manifests { count: u32 },
}

/// Garbage that has yet to be expanded to one garbage row per data id. At `L | not before | id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GarbageList {
    /// Every part of the part list `id`, whose rows `next..count` are left.
    Parts { next: u32, count: u32 },
    /// Every part row of an upload (`id` is random).
    Upload { upload: [u8; 24] },
}

/// What is being written. At `W | id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WriteRow {
    /// When it is garbage unless it was committed or renewed.
    pub(super) expires_unix_ms: u64,
    /// What it is.
    pub(super) kind: WriteKind,
}

/// What is being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WriteKind {
    /// Shards on these nodes; none means any.
    Data { nodes: Vec<NodeId> },
    /// Rows of a part list, which own nothing until an object refers to them.
    List,
}

/// A stripe that lacks shards. At `R | data id | stripe`. Holds what a rebuild needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRow {
    /// Shard j is (or belongs) on `nodes[j]`.
    pub nodes: Vec<NodeId>,
    /// The stripe as it was written.
    pub stripe: StripeRow,
    /// How it is coded.
    pub code: Code,
    /// The row that held its manifest when it was queued; another one may by now.
    pub owner: Owner,
}

/// A row type: its name in errors.
pub(super) trait Row: Serialize + DeserializeOwned {
    const NAME: &'static str;
}

macro_rules! rows {
    ($($row:ty => $name:literal),+ $(,)?) => { $(impl Row for $row { const NAME: &'static str = $name; })+ };
}
rows! {
    BucketRow => "bucket",
    ObjectRow => "object",
    ManifestRow => "manifest",
    PartListRow => "part list",
    UploadRow => "upload",
    PartRow => "part",
    GarbageEntry => "garbage",
    GarbageList => "garbage list",
    WriteRow => "write",
    RepairRow => "repair",
    super::EventRow => "event",
}

/// A row's bytes.
pub(super) fn encode<R: Row>(row: &R) -> Result<Vec<u8>, TablesError> {
    let bytes = postcard::to_extend(row, vec![ROW_VERSION])
        .map_err(|error| TablesError::Unreadable { row: R::NAME, why: error.to_string() })?;
    if bytes.len() > limits::ROW_VALUE_BYTES_MAX {
        return Err(TablesError::RowTooLarge { row: R::NAME, bytes: bytes.len(), max: limits::ROW_VALUE_BYTES_MAX });
    }
    Ok(bytes)
}

/// The row that [`encode`] made these bytes of.
pub(super) fn decode<R: Row>(bytes: &[u8]) -> Result<R, TablesError> {
    let (row, rest) = decode_prefix(R::NAME, bytes)?;
    if !rest.is_empty() {
        return Err(TablesError::Unreadable { row: R::NAME, why: format!("{} bytes are left over", rest.len()) });
    }
    Ok(row)
}

/// The listing's part of an object row.
pub(super) fn decode_listed(bytes: &[u8]) -> Result<ListedRow, TablesError> {
    Ok(decode_prefix(ObjectRow::NAME, bytes)?.0)
}

fn decode_prefix<'a, T: Deserialize<'a>>(row: &'static str, bytes: &'a [u8]) -> Result<(T, &'a [u8]), TablesError> {
    match bytes.split_first() {
        Some((&ROW_VERSION, body)) => {
            postcard::take_from_bytes(body).map_err(|error| TablesError::Unreadable { row, why: error.to_string() })
        }
        Some((other, _)) => Err(TablesError::Unreadable {
            row,
            why: format!("it has version {other}, this program reads version {ROW_VERSION}"),
        }),
        None => Err(TablesError::Unreadable { row, why: "it is empty".into() }),
    }
}

/// Checksums are random bits: as varints they would take 10 bytes instead of 8.
mod fixed_u64s {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Vec<u64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a multiple of 8 bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u64>, E> {
                let (chunks, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
