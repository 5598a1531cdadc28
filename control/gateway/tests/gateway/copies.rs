//! CopyObject and UploadPartCopy.

use penstock_digest::{ChecksumAlgorithm, Md5Hasher};
use penstock_gateway::api::{
    CompleteUpload, CompletedPart, Conditions, CopyObject, CopySource, EtagCondition, MetadataDirective, ObjectHeaders,
    PutObject, RangeSpec, UploadPartCopy,
};
use penstock_gateway::error::ErrorKind;

use crate::house::{BUCKET, House, MIB, code, get, kind, put, random_bytes};

fn copy(from: &str, to: &str) -> CopyObject {
    CopyObject {
        source: CopySource { bucket: BUCKET.into(), key: from.into(), ..CopySource::default() },
        bucket: BUCKET.into(),
        key: to.into(),
        metadata: MetadataDirective::Copy,
        checksum: None,
        storage_class: String::new(),
        conditions: Conditions::default(),
        tags: None,
        lock: Default::default(),
        encryption: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_an_object_of_its_own() {
    let house = House::new(code(4, 2)).await;
    house.gateway.create_bucket("other", "").await.unwrap();
    let headers = ObjectHeaders { content_type: Some("a/b".into()), ..ObjectHeaders::default() };
    for size in [0, 5, 9 * MIB + 1] {
        let bytes = random_bytes(1, size);
        house.gateway.put_object(PutObject { headers: headers.clone(), ..put("from", &bytes) }).await.unwrap();
        let done =
            house.gateway.copy_object(CopyObject { bucket: "other".into(), ..copy("from", "to") }).await.unwrap();
        assert_eq!(done.etag, hex::encode(Md5Hasher::of(&bytes)));
        house.put("from", b"changed").await.unwrap();
        house.collect().await;
        let to = penstock_gateway::api::GetObject { bucket: "other".into(), ..get("to") };
        let (head, got) = crate::house::read(house.gateway.get_object(to).await.unwrap()).await.unwrap();
        assert!(got == bytes);
        assert_eq!(head.info.headers, headers);
    }
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let house = House::new(code(2, 1)).await;
    house.put("k", b"x").await.unwrap();
    assert_eq!(kind(house.gateway.copy_object(copy("k", "k")).await), ErrorKind::InvalidRequest);
    let headers = ObjectHeaders { user_metadata: vec![("a".into(), "b".into())], ..ObjectHeaders::default() };
    let replace = CopyObject { metadata: MetadataDirective::Replace(headers.clone()), ..copy("k", "k") };
    house.gateway.copy_object(replace).await.unwrap();
    let checksum = CopyObject { checksum: Some(ChecksumAlgorithm::Sha256), ..copy("k", "k") };
    let done = house.gateway.copy_object(checksum).await.unwrap();
    assert_eq!(done.checksum.unwrap().value.algorithm(), ChecksumAlgorithm::Sha256);
    assert_eq!(house.get("k").await.unwrap(), b"x");
    assert_eq!(house.gateway.head_object(get("k")).await.unwrap().info.headers, headers);
    // The algorithm stays with the copy.
    let done = house.gateway.copy_object(copy("k", "l")).await.unwrap();
    assert_eq!(done.checksum.unwrap().value.algorithm(), ChecksumAlgorithm::Sha256);
}

#[tokio::test]
async fn conditions_on_both_sides() {
    let house = House::new(code(2, 1)).await;
    let done = house.put("k", b"x").await.unwrap();
    let is = |etag: &str| Some(EtagCondition::OneOf(vec![etag.into()]));
    let source = |conditions| {
        let request = copy("k", "l");
        CopyObject { source: CopySource { conditions, ..request.source.clone() }, ..request }
    };
    let failed = ErrorKind::PreconditionFailed;
    let differs = source(Conditions { if_match: is("1"), ..Conditions::default() });
    assert_eq!(kind(house.gateway.copy_object(differs).await), failed);
    let same = source(Conditions { if_none_match: is(&done.etag), ..Conditions::default() });
    assert_eq!(kind(house.gateway.copy_object(same).await), failed);
    let both = Conditions { if_match: is(&done.etag), if_unmodified_since: Some(0), ..Conditions::default() };
    house.gateway.copy_object(source(both)).await.unwrap();
    let new = Conditions { if_none_match: Some(EtagCondition::Any), ..Conditions::default() };
    assert_eq!(kind(house.gateway.copy_object(CopyObject { conditions: new, ..copy("k", "l") }).await), failed);
    assert_eq!(kind(house.gateway.copy_object(copy("none", "l")).await), ErrorKind::NoSuchKey);
    let nowhere = CopyObject { bucket: "nowhere".into(), ..copy("k", "l") };
    assert_eq!(kind(house.gateway.copy_object(nowhere).await), ErrorKind::NoSuchBucket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_from_ranges_of_objects() {
    let house = House::new(code(2, 1)).await;
    let bytes = random_bytes(1, 11 * MIB);
    house.put("from", &bytes).await.unwrap();
    let upload = house.upload("to").await;
    let part_copy = |part_number, range| UploadPartCopy {
        source: copy("from", "").source,
        range,
        bucket: BUCKET.into(),
        key: "to".into(),
        upload_id: upload.clone(),
        part_number,
        customer_key: None,
    };
    let ranges = [Some(RangeSpec::FromTo(3, 6 * MIB as u64)), None, Some(RangeSpec::FromTo(0, 0))];
    let mut parts = Vec::new();
    for (number, range) in (1..).zip(ranges) {
        let info = house.gateway.upload_part_copy(part_copy(number, range)).await.unwrap();
        parts.push(CompletedPart { part_number: number, etag: info.etag, checksum: info.checksum });
    }
    let bad = [RangeSpec::FromTo(0, 11 * MIB as u64), RangeSpec::From(0), RangeSpec::Last(1)];
    for range in bad {
        assert_eq!(kind(house.gateway.upload_part_copy(part_copy(4, Some(range))).await), ErrorKind::InvalidArgument);
    }
    let complete = CompleteUpload {
        bucket: BUCKET.into(),
        key: "to".into(),
        upload_id: upload.clone(),
        parts,
        ..CompleteUpload::default()
    };
    house.gateway.complete_upload(complete).await.unwrap();
    let expected = [&bytes[3..=6 * MIB], &bytes, &bytes[..1]].concat();
    assert!(house.get("to").await.unwrap() == expected);
    assert_eq!(kind(house.gateway.upload_part_copy(part_copy(1, None)).await), ErrorKind::NoSuchUpload);
    // A copy of an object of parts has one part.
    let done = house.gateway.copy_object(copy("to", "plain")).await.unwrap();
    assert_eq!(done.etag, hex::encode(Md5Hasher::of(&expected)));
}
