use std::sync::Arc;

use penstock_meta::kv::MemKv;
use penstock_meta::tables::Tables;
use penstock_proto::DataId;
use proptest::prelude::*;

use super::*;
use crate::derive::KeyBytes;

const CHUNK_BYTES: u32 = 4 << 20;

fn key(byte: u8) -> DataKey {
    DataKey::new(KeyBytes::new([byte; 32]))
}

/// All segments of `plain`, encrypted as a writer does it.
fn sealed(segments: &SegmentKey, plain: &[u8]) -> Vec<u8> {
    let total = plain.len() as u64;
    let (mut out, mut at) = (Vec::new(), 0);
    while at < total {
        let place = segments.geometry().place(at, total);
        assert_eq!(out.len() as u64, place.stored.start);
        let mut segment = plain[place.plain.start as usize..place.plain.end as usize].to_vec();
        let tag = segments.seal(place.index, place.last.then_some(total), &mut segment);
        out.extend_from_slice(&segment);
        out.extend_from_slice(&tag);
        at = place.plain.end;
    }
    assert_eq!(out.len() as u64, segments.geometry().stored_bytes(total));
    out
}

/// What a reader gets that takes the run to have `total` bytes.
fn opened(segments: &SegmentKey, stored: &[u8], total: u64) -> Result<Vec<u8>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < total {
        let place = segments.geometry().place(at, total);
        let bytes = stored.get(place.stored.start as usize..place.stored.end as usize).ok_or(VaultError::Tampered)?;
        let (text, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(VaultError::Tampered)?;
        let mut text = text.to_vec();
        segments.open(place.index, place.last.then_some(total), &mut text, *tag)?;
        out.extend_from_slice(&text);
        at = place.plain.end;
    }
    Ok(out)
}

#[test]
fn golden_bytes() {
    let envelope = key(7).seal_with_salt(&[9; 32], b"s3", &[3; 32]);
    assert_eq!(envelope.len(), SEALED_KEY_BYTES);
    assert_eq!(hex::encode(&envelope), GOLDEN_ENVELOPE);
    let segments = SegmentKey::new(&key(7), DataId(0x0102_0304), CHUNK_BYTES).unwrap();
    assert_eq!(hex::encode(sealed(&segments, b"penstock")), GOLDEN_SEGMENT);
    let mut first = *b"penstock";
    let tag = segments.seal(0, None, &mut first);
    assert_eq!(hex::encode([first.as_slice(), &tag].concat()), GOLDEN_NOT_LAST);
    assert_eq!(hex::encode(key(7).opaque_etag([1; 16])), GOLDEN_ETAG);
}

// By another program (Python's cryptography).
const GOLDEN_ENVELOPE: &str = "0103030303030303030303030303030303030303030303030303030303030303033c460af5064a61f0985c0cbabfca42c14db3d281fc6b68f241f5d2e3e1e2014fd63333e7b026f2edd5df7eee40f9fb34";
const GOLDEN_SEGMENT: &str = "6ac95888df032fa0aca9d3fd4b975d0d852de7c8131713f5";
const GOLDEN_NOT_LAST: &str = "111ac963eb873ac72eef3f253f3fdd9245d8124ba371e24c";
const GOLDEN_ETAG: &str = "d1e1e45a3a0dd384c07281ca40c45cbd";

#[test]
fn a_chunk_is_filled_to_the_byte_and_lengths_invert() {
    let geometry = Geometry::new(CHUNK_BYTES).unwrap();
    assert_eq!(geometry.plain_chunk_bytes(), (4 << 20) - 64 * 16);
    let chunk = geometry.plain_chunk_bytes();
    for plain in [0, 1, 65_535, 65_536, 65_537, chunk - 1, chunk, chunk + 1, 3 * chunk, 3 * chunk + 65_536, 1 << 40] {
        assert_eq!(geometry.plain_of_stored(geometry.stored_bytes(plain)), Some(plain), "{plain}");
    }
    assert_eq!(geometry.stored_bytes(chunk), u64::from(CHUNK_BYTES));
    for stored in [1, 16, 65_552 + 1, 65_552 + 16, u64::from(CHUNK_BYTES) + 3] {
        assert_eq!(geometry.plain_of_stored(stored), None, "{stored}");
    }
    for bad in [0, 1, 16, 65_552 + 1, 65_552 + 16] {
        assert_eq!(Geometry::new(bad), None, "{bad}");
    }
    assert!(Geometry::new(17).is_some() && Geometry::new(65_552 + 17).is_some());
}

proptest! {
    /// Small chunks, so that there are many of them and many segments' ends.
    #[test]
    fn ranges_are_covered_by_whole_segments(chunk_bytes in 17u32..400_000, total in 1u64..2_000_000, ends: [u64; 2]) {
        let Some(geometry) = Geometry::new(chunk_bytes) else { return Ok(()) };
        let (mut start, mut end) = (ends[0] % total, ends[1] % total);
        if start > end {
            std::mem::swap(&mut start, &mut end);
        }
        let cover = geometry.cover(&(start..end + 1), total);
        prop_assert!(cover.end <= geometry.stored_bytes(total));
        let first = geometry.place(start, total);
        prop_assert_eq!(first.stored.start, cover.start);
        prop_assert_eq!(geometry.plain_at(cover.start), first.plain.start);
        prop_assert!(first.plain.contains(&start));
        let (mut at, mut stored) = (first.plain.start, cover.start);
        while at <= end {
            let place = geometry.place(at, total);
            prop_assert_eq!(place.stored.start, stored);
            prop_assert_eq!(geometry.plain_at(stored), at);
            prop_assert_eq!(place.stored.end - place.stored.start, place.plain.end - place.plain.start + 16);
            prop_assert_eq!(place.stored.start / u64::from(chunk_bytes), (place.stored.end - 1) / u64::from(chunk_bytes));
            (at, stored) = (place.plain.end, place.stored.end);
        }
        prop_assert_eq!(stored, cover.end);
    }

    #[test]
    fn what_is_sealed_opens(len in 0usize..300_000, byte: u8) {
        let segments = SegmentKey::new(&key(byte), DataId(u128::from(byte)), 200_000).unwrap();
        let plain: Vec<u8> = (0..len).map(|at| (at * 31 + at / 256) as u8).collect();
        let stored = sealed(&segments, &plain);
        prop_assert_eq!(opened(&segments, &stored, len as u64).unwrap(), plain);
    }
}

#[test]
fn nothing_but_what_was_sealed_opens() {
    let segments = SegmentKey::new(&key(1), DataId(5), CHUNK_BYTES).unwrap();
    let plain: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    let total = plain.len() as u64;
    let stored = sealed(&segments, &plain);
    assert_eq!(opened(&segments, &stored, total).unwrap(), plain);
    let refused = |segments: &SegmentKey, stored: &[u8], total: u64, what: &str| {
        assert!(matches!(opened(segments, stored, total), Err(VaultError::Tampered)), "{what}");
    };
    for at in [0, 65_535, 65_536, 65_551, 65_552, stored.len() - 1] {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        refused(&segments, &changed, total, "a bit");
    }
    let mut swapped = stored.clone();
    let (one, other) = swapped.split_at_mut(65_552);
    one.swap_with_slice(&mut other[..65_552]);
    refused(&segments, &swapped, total, "segments in another order");
    // Cut at a segment's end, with a length that says so.
    refused(&segments, &stored[..2 * 65_552], 2 * 65_536, "cut off");
    refused(&segments, &stored[..stored.len() - 1], total - 1, "cut within a segment");
    let longer = [stored.as_slice(), &stored[65_552 * 3..]].concat();
    refused(&segments, &longer, total + 3, "made longer");
    refused(&SegmentKey::new(&key(2), DataId(5), CHUNK_BYTES).unwrap(), &stored, total, "another object's key");
    refused(&SegmentKey::new(&key(1), DataId(6), CHUNK_BYTES).unwrap(), &stored, total, "another run");
    refused(&SegmentKey::new(&key(1), DataId(5), 1 << 20).unwrap(), &stored, total, "other chunks");
    // Every segment but the last of a longer run is none of a shorter one's.
    let twice = sealed(&segments, &plain[..131_072]);
    assert!(opened(&segments, &twice, 131_072).is_ok());
    refused(&segments, &twice[..65_552], 65_536, "the first segment alone");
}

#[test]
fn envelopes_open_with_their_own_key_and_purpose_alone() {
    let data = key(4);
    let sealed = data.seal(&[1; 32], b"about").unwrap();
    assert_ne!(sealed, data.seal(&[1; 32], b"about").unwrap(), "salts are random");
    assert_eq!(DataKey::open(&sealed, &[1; 32], b"about").unwrap().bytes(), data.bytes());
    let refused = |sealed: &[u8], under: u8, about: &[u8]| {
        assert!(matches!(DataKey::open(sealed, &[under; 32], about), Err(VaultError::Tampered)));
    };
    refused(&sealed, 2, b"about");
    refused(&sealed, 1, b"other");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        refused(&changed, 1, b"about");
    }
    refused(&sealed[..sealed.len() - 1], 1, b"about");
    refused(&[], 1, b"about");
    let (mine, yours) = (CustomerKey::new([1; 32]), CustomerKey::new([2; 32]));
    let sealed = mine.seal(&data).unwrap();
    assert_eq!(mine.open(&sealed).unwrap().bytes(), data.bytes());
    assert!(matches!(yours.open(&sealed), Err(VaultError::Tampered)));
    for shown in [format!("{data:?}"), format!("{mine:?}"), format!("{:?}", MasterKey::new([7; 32]))] {
        assert!(shown.ends_with("(..)"), "{shown}");
    }
}

#[test]
fn names_of_keys() {
    let name = |text: &str| KeyName::parse(text).map(|name| name.as_str().to_owned()).ok();
    for text in ["k1", "alias/k1", "arn:aws:kms:eu-west-1:000000000000:key/k1", "arn:aws:kms:::alias/k1"] {
        assert_eq!(name(text).as_deref(), Some("k1"), "{text}");
    }
    assert_eq!(name("alias/aws/s3").as_deref(), Some(AWS_MANAGED_KEY));
    for text in ["", "alias/", "arn:aws:kms", "a b", "a\0b", "ü", "arn:aws:kms:r:a:key/"] {
        assert_eq!(name(text), None, "{text:?}");
    }
    assert_eq!(name(&"k".repeat(257)), None);
}

fn store(tables: &Tables, master: u8) -> KeyStore {
    KeyStore::new(tables.clone(), &MasterKey::new([master; 32]))
}

#[tokio::test]
async fn keys_are_made_used_rotated_disabled_and_kept() {
    let tables = Tables::new(Arc::new(MemKv::default()));
    let keys = store(&tables, 1);
    keys.check().await.unwrap();
    let name = KeyName::parse("k1").unwrap();
    let data = key(9);
    let absent = keys.seal_kms(&name, "", &data, 5).await;
    assert!(matches!(absent, Err(VaultError::NoSuchKey(name)) if name == "k1"));
    let info = KeyInfo { name: "k1".into(), created_unix_ms: 5, enabled: true, versions: 1 };
    assert_eq!(keys.create(&name, 5).await.unwrap(), info);
    assert!(matches!(keys.create(&name, 6).await, Err(VaultError::KeyExists(_))));
    let (version, old) = keys.seal_kms(&name, "{}", &data, 5).await.unwrap();
    assert_eq!(version, 0);
    assert_eq!(keys.rotate(&name).await.unwrap().versions, 2);
    let (version, new) = keys.seal_kms(&name, "{}", &data, 5).await.unwrap();
    assert_eq!(version, 1);
    // Another process's view, later.
    let again = store(&tables, 1);
    again.check().await.unwrap();
    for (version, sealed) in [(0, &old), (1, &new)] {
        assert_eq!(again.open_kms(&name, version, "{}", sealed).await.unwrap().bytes(), data.bytes());
        let context = again.open_kms(&name, version, "{\"a\":\"b\"}", sealed).await;
        assert!(matches!(context, Err(VaultError::Tampered)));
    }
    assert!(matches!(again.open_kms(&name, 0, "{}", &new).await, Err(VaultError::Tampered)));
    assert!(matches!(again.open_kms(&name, 7, "{}", &new).await, Err(VaultError::Tampered)));
    assert!(!again.set_enabled(&name, false).await.unwrap().enabled);
    assert!(matches!(again.open_kms(&name, 0, "{}", &old).await, Err(VaultError::Disabled(_))));
    assert!(matches!(again.seal_kms(&name, "{}", &data, 5).await, Err(VaultError::Disabled(_))));
    again.set_enabled(&name, true).await.unwrap();
    assert!(again.open_kms(&name, 0, "{}", &old).await.is_ok());
    // The default key makes itself.
    let default = KeyName::parse(AWS_MANAGED_KEY).unwrap();
    let (_, sealed) = again.seal_kms(&default, "", &data, 8).await.unwrap();
    assert_eq!(again.open_kms(&default, 0, "", &sealed).await.unwrap().bytes(), data.bytes());
    let names: Vec<String> = again.list().await.unwrap().into_iter().map(|key| key.name).collect();
    assert_eq!(names, [AWS_MANAGED_KEY, "k1"]);
}

#[tokio::test]
async fn another_master_key_is_refused_and_opens_nothing() {
    let tables = Tables::new(Arc::new(MemKv::default()));
    let right = store(&tables, 1);
    right.check().await.unwrap();
    let name = KeyName::parse("k").unwrap();
    right.create(&name, 1).await.unwrap();
    let sealed = right.seal_s3(&key(3)).unwrap();
    assert_eq!(right.open_s3(&sealed).unwrap().bytes(), key(3).bytes());
    let wrong = store(&tables, 2);
    assert!(matches!(wrong.check().await, Err(VaultError::WrongMasterKey)));
    assert!(matches!(wrong.open_s3(&sealed), Err(VaultError::Tampered)));
    assert!(matches!(wrong.seal_kms(&name, "", &key(3), 1).await, Err(VaultError::Tampered)));
    right.check().await.unwrap();
    // What is stored shows no key.
    for (_, bytes) in tables.vault_rows("").await.unwrap() {
        assert!(!bytes.windows(32).any(|window| window == [1; 32]));
    }
}
