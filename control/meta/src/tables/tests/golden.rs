//! The bytes of every row and key: what is stored can't drift. See `docs/formats/metadata.md`.

use penstock_proto::{Code, DataId, MapEpoch, NodeId};

use super::support::{data_row, manifest, object_row, part_row};
use crate::tables::rows::{GarbageEntry, GarbageList, Row, WriteKind, WriteRow, decode, decode_listed, encode};
use crate::tables::{
    BucketRow, BucketSetting, ChecksumRow, DefaultRetentionRow, EncryptionKind, EncryptionRow, EventKind, EventRow,
    ExtentRow, ExtentState, HeadersRow, Layout, LockRow, ManifestPlace, ObjectLockRow, ObjectRow, PackedOwnerRow,
    PackedRow, PartListRow, PartRow, PartSpan, RepairRow, RetentionRow, TablesError, UploadRow, VersionName,
    VersionRow, Versioning, keys,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden<R: Row + PartialEq + std::fmt::Debug>(row: &R, expected: &str) {
    let bytes = encode(row).unwrap();
    assert_eq!(hex(&bytes), expected, "{}", R::NAME);
    assert_eq!(decode::<R>(&bytes).as_ref(), Ok(row));
    for end in 0..bytes.len() {
        assert!(decode::<R>(&bytes[..end]).is_err(), "{} cut at {end}", R::NAME);
    }
    let long = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(decode::<R>(&long), Err(TablesError::Unreadable { .. })));
    let mut newer = bytes;
    newer[0] = 2;
    let error = decode::<R>(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}

fn bucket_row() -> BucketRow {
    BucketRow {
        id: 300,
        name: "abc".into(),
        created_unix_ms: 5,
        region: "eu".into(),
        versioning: Versioning::Suspended,
        lock: ObjectLockRow::On { default: Some(DefaultRetentionRow { compliance: true, years: false, count: 300 }) },
        settings: BucketSetting::Tagging.bit() | BucketSetting::Lifecycle.bit(),
        settings_version: 300,
        owner: "o".into(),
    }
}

fn lock() -> LockRow {
    LockRow { retention: Some(RetentionRow { compliance: true, until_unix_ms: 300 }), legal_hold: Some(true) }
}

fn checksum() -> Option<ChecksumRow> {
    Some(ChecksumRow { algorithm: 5, bytes: vec![0xaa, 0xbb], composite_parts: Some(2) })
}

fn headers() -> HeadersRow {
    HeadersRow {
        content_type: Some("t".into()),
        content_encoding: None,
        content_disposition: None,
        content_language: Some("l".into()),
        cache_control: None,
        expires: Some("e".into()),
        user_metadata: vec![("n".into(), "v".into())],
    }
}

fn kms() -> EncryptionRow {
    let kind = EncryptionKind::Kms {
        key: "k".into(),
        named: "n".into(),
        version: 300,
        context: "{}".into(),
        bucket_key: true,
    };
    EncryptionRow { kind, sealed_key: vec![1, 2] }
}

fn object() -> ObjectRow {
    ObjectRow {
        checksum: checksum(),
        version: VersionRow { stamp: 0x0102, salt: 300, null: true, marker: false, superseded_unix_ms: 300 },
        parts: Some(3),
        headers: headers(),
        tags: vec![("k".into(), "v".into())],
        lock: lock(),
        encryption: Some(kms()),
        upload_id: Some("u".into()),
        ..object_row("etag", Layout::Parts { list: DataId(7), count: 300 })
    }
}

#[test]
fn rows() {
    let data = data_row(DataId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), 2).0;
    let in_rows = crate::tables::DataRow { manifest: ManifestPlace::Rows { count: 9 }, ..data.clone() };
    golden(&bucket_row(), BUCKET);
    golden(&object(), OBJECT_PARTS);
    golden(&object_row("e", Layout::Empty), OBJECT_EMPTY);
    golden(&object_row("e", Layout::Single(in_rows.clone())), OBJECT_SINGLE);
    golden(&manifest(64, 2), MANIFEST);
    let span = PartSpan {
        number: 1,
        offset: 2,
        size_bytes: 3,
        etag_md5: [4; 16],
        checksum: checksum(),
        data: Some(data.clone()),
    };
    let empty = PartSpan { number: 2, data: None, checksum: None, ..span.clone() };
    golden(&PartListRow { spans: vec![span, empty] }, PART_LIST);
    let upload = UploadRow {
        upload_id: "i".into(),
        key: "k".into(),
        initiated_unix_ms: 300,
        storage_class: "S".into(),
        headers: headers(),
        checksum: Some((5, true)),
        tags: vec![("k".into(), "v".into())],
        lock: lock(),
        encryption: Some(EncryptionRow { kind: EncryptionKind::Customer, sealed_key: vec![3; 4] }),
    };
    golden(&upload, UPLOAD);
    golden(&PartRow { checksum: checksum(), ..part_row(9, Some(in_rows)) }, PART);
    golden(&GarbageEntry::Data { nodes: vec![NodeId(1), NodeId(300)], manifest_rows: 2 }, "01000201ac0202");
    golden(&GarbageEntry::Manifests { count: 300 }, "0101ac02");
    golden(&GarbageList::Parts { next: 1, count: 300 }, "010001ac02");
    golden(&GarbageList::Upload { upload: [7; 24] }, &format!("0101{}", "07".repeat(24)));
    golden(&WriteRow { expires_unix_ms: 300, kind: WriteKind::Data { nodes: vec![NodeId(2)] } }, "01ac02000102");
    golden(&WriteRow { expires_unix_ms: 300, kind: WriteKind::List }, "01ac0201");
    let packed = PackedRow { extent: DataId(7), offset: 300, size_bytes: 4096, crc64: 0x1122_3344_5566_7788 };
    golden(&object_row("e", Layout::Packed(packed)), OBJECT_PACKED);
    let extent = |state| ExtentRow {
        opened_unix_ms: 300,
        target: Code::new(4, 2).unwrap(),
        epoch: MapEpoch(1),
        copies: Code::new(1, 2).unwrap(),
        nodes: vec![NodeId(3), NodeId(1), NodeId(2)],
        state,
    };
    golden(&extent(ExtentState::Open { expires_unix_ms: 300 }), &format!("{EXTENT}00ac02"));
    golden(&extent(ExtentState::Sealed { length_bytes: 300 }), &format!("{EXTENT}01ac02"));
    let encoded = crate::tables::DataRow { manifest: ManifestPlace::Rows { count: 9 }, ..data };
    golden(&extent(ExtentState::Encoded(encoded)), &format!("{EXTENT}02{EXTENT_DATA}"));
    let owner = PackedOwnerRow { bucket_id: 300, key: "k".into(), null: true, version: [7; 16] };
    golden(&owner, &format!("01ac02016b01{}", "07".repeat(16)));
    let stripe = manifest(0, 2).stripes[1].clone();
    let (code, owner) = (penstock_proto::Code::new(2, 1).unwrap(), crate::tables::Owner::of(b"Ok"));
    golden(&RepairRow { nodes: vec![NodeId(1)], stripe, code, owner }, REPAIR);
}

const BUCKET: &str = "01ac0203616263050265750201010100ac028202ac02016f";
const OBJECT_PARTS: &str = "0100046574616780d095ffbc31085354414e44415244010502aabb01020201000000000000ac020100ac020103010174000001016c0001016501016e017601016b01760101ac0201010101016b016eac02027b7d010201020101750207ac02";
const OBJECT_EMPTY: &str =
    "0100016580d095ffbc31085354414e44415244000000000000000000000000000000000000000000000000000000";
const OBJECT_SINGLE: &str = "0180808004016580d095ffbc31085354414e44415244000000000000000000000000000000000000000000000000000001909eb8e8c0e1828589909cb0d080c181820280808004808080020201000188776655443322110109";
const MANIFEST: &str = "01400303010202808080020018080706050403020108070605040302010807060504030201808080020018080706050403020108070605040302010807060504030201";
const PART_LIST: &str = "010201020304040404040404040404040404040404010502aabb010201909eb8e8c0e1828589909cb0d080c1818202808080048080800202010001887766554433221100000303010202808080020018080706050403020108070605040302010807060504030201808080020418080706050403020108070605040302010807060504030201020203040404040404040404040404040404040000";
const UPLOAD: &str = "010169016bac020153010174000001016c0001016501016e017601050101016b01760101ac02010101020403030303";
const PART: &str = "0109808080040909090909090909090909090909090980d095ffbc31010502aabb010201909eb8e8c0e1828589909cb0d080c181820280808004808080020201000188776655443322110109";
const OBJECT_PACKED: &str = "018020016580d095ffbc31085354414e4441524400000000000000000000000000000000000000000000000000000307ac0280208877665544332211";
const EXTENT: &str = "01ac020402000101020003030102";
const EXTENT_DATA: &str = "909eb8e8c0e1828589909cb0d080c181820280808004808080020201000188776655443322110109";
const REPAIR: &str = "010101808080020418080706050403020108070605040302010807060504030201020100024f6b";

#[test]
fn where_a_packed_object_is_takes_64_bytes_at_most() {
    let (extent, offset) = (DataId(u128::MAX), u64::from(u32::MAX));
    let packed = PackedRow { extent, offset, size_bytes: 4 << 20, crc64: u64::MAX };
    let bytes = |layout| encode(&object_row("e", layout)).unwrap().len();
    assert!(bytes(Layout::Packed(packed)) - bytes(Layout::Empty) <= 64);
}

#[test]
fn what_a_listing_shows_is_the_beginning_of_an_object() {
    let object = object();
    let listed = decode_listed(&encode(&object).unwrap()).unwrap();
    assert_eq!((listed.size_bytes, listed.modified_unix_ms), (object.size_bytes, object.modified_unix_ms));
    assert_eq!((listed.etag, listed.storage_class), (object.etag, object.storage_class));
    assert_eq!((listed.checksum, listed.version), (object.checksum, object.version));
}

#[test]
fn the_manifest_bound_is_one() {
    for stripes in [1, 2, 64] {
        let row = manifest(0, stripes);
        let bytes = encode(&row).unwrap().len();
        assert!((bytes..=bytes + 20 * stripes + 30).contains(&row.encoded_bytes()));
    }
    // The widest code's full row fits.
    let mut widest = manifest(0, 64);
    widest.nodes = vec![NodeId(u16::MAX); 48];
    widest.stripes.iter_mut().for_each(|stripe| stripe.shard_crc64s = vec![u64::MAX; 48]);
    assert!(encode(&widest).unwrap().len() < 32 << 10);
}

#[test]
fn keys_have_golden_bytes() {
    let upload: keys::UploadKey = std::array::from_fn(|at| at as u8);
    let id = DataId(0x0a);
    let ten = "0000000000000000000000000000000a";
    let table = [
        (keys::bucket("ab"), "426162".to_owned()),
        (keys::counter("c"), "4363".into()),
        (keys::bucket_setting_chunk(258, 8, 1), "4b0000000000000102000800000001".into()),
        (keys::batch(id, 258), format!("4a{ten}0000000000000102")),
        (keys::extent(id), format!("45{ten}")),
        (keys::extent_live(id), format!("41{ten}")),
        (keys::packed(id, 258), format!("44{ten}0000000000000102")),
        (keys::garbage(258, id), format!("470000000000000102{ten}")),
        (keys::garbage_list(258, id), format!("4c0000000000000102{ten}")),
        (keys::manifest(id, 3), format!("4d{ten}00000003")),
        (keys::noncurrent(258, "k\0", &[7; 16]), format!("4e00000000000001026c0100{}", "07".repeat(16))),
        (keys::null_version(258, "k\0"), "5800000000000001026b00".into()),
        (keys::object(258, "k\0").unwrap(), "4f00000000000001026b00".into()),
        (keys::part_list(id, 3), format!("50{ten}00000003")),
        (keys::repair(id, 3), format!("52{ten}00000003")),
        (keys::setting("s"), "5373".into()),
        (keys::vault("v"), "4876".into()),
        (keys::rename_token(258, &[7; 16]), format!("5a0000000000000102{}", "07".repeat(16))),
        (keys::part(&upload, 3), "54000102030405060708090a0b0c0d0e0f101112131415161700000003".into()),
        (
            keys::upload(258, "k\0\u{10ffff}", &upload).unwrap(),
            "5500000000000001026c01f590c0c000000102030405060708090a0b0c0d0e0f1011121314151617".into(),
        ),
        (keys::parts_version(&upload), "56000102030405060708090a0b0c0d0e0f1011121314151617".into()),
        (keys::write(id), format!("57{ten}")),
    ];
    for (key, expected) in table {
        assert_eq!(hex(&key), expected);
    }
    assert_eq!(
        keys::parse_upload(&keys::upload(1, "k\0\u{10ffff}", &upload).unwrap()[9..]),
        Some(("k\0\u{10ffff}".into(), upload))
    );
    assert_eq!(
        keys::parse_noncurrent(&keys::noncurrent(1, "k\0\u{10ffff}", &[7; 16])[9..]),
        Some(("k\0\u{10ffff}".into(), [7; 16]))
    );
    let version = VersionRow { stamp: 1, salt: 2, ..VersionRow::default() };
    assert_eq!(version.id(), "fffffffffffffffe0000000000000002");
    assert_eq!(VersionName::parse(&version.id()), Some(VersionName::Id(version.key())));
    assert_eq!(VersionName::parse("null"), Some(VersionName::Null));
    for bad in ["", "Null", "ff", "FFFFFFFFFFFFFFFE0000000000000002", "fffffffffffffffe00000000000000021"] {
        assert_eq!(VersionName::parse(bad), None);
    }
    assert_eq!(keys::upload_key(&keys::upload_id(&upload)), Some(upload));
    assert_eq!(keys::parse_garbage(&keys::garbage(258, id)), Some((258, id)));
    assert_eq!(keys::parse_repair(&keys::repair(id, 3)), Some((id, 3)));
    assert_eq!(keys::parse_write(&keys::write(id)), Some(id));
    assert_eq!(keys::parse_extent(&keys::extent(id)), Some(id));
    assert_eq!(keys::parse_in_extent(&keys::batch(id, 258)), Some((id, 258)));
}

#[test]
fn events() {
    let row = EventRow {
        kind: EventKind::CreatedCopy as u8,
        time_unix_ms: 5,
        bucket: "b".into(),
        bucket_owner: "o".into(),
        key: "k".into(),
        size_bytes: Some(300),
        etag: Some("e".into()),
        version_id: None,
        rule_id: "r".into(),
        principal: "p".into(),
        source_ip: "i".into(),
        request_id: "q".into(),
    };
    golden(&row, "0103050162016f016b01ac02010165000172017001690171");
    assert_eq!(hex(&keys::events("arn")), "5161726e00");
    for (kind, number) in EventKind::ALL.iter().zip(0..) {
        assert_eq!(*kind as u8, number, "numbers are stored");
    }
}
