//! Multipart uploads.

use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, Md5Hasher};
use penstock_gateway::api::{
    BodyDigests, ChecksumType, CompleteUpload, CompletedPart, Conditions, CreateUpload, EtagCondition, GetObject,
    ListParts, ObjectHeaders, PartInfo, RangeSpec, UploadPart,
};
use penstock_gateway::error::ErrorKind;
use penstock_meta::tables::Tables;

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, code, get, kind, part, random_bytes, read};

const PART: usize = 5 * MIB;

fn named(info: &PartInfo) -> CompletedPart {
    CompletedPart { part_number: info.part_number, etag: info.etag.clone(), checksum: info.checksum }
}

pub(crate) fn complete(key: &str, upload_id: &str, parts: &[&PartInfo]) -> CompleteUpload {
    CompleteUpload {
        bucket: BUCKET.into(),
        key: key.into(),
        upload_id: upload_id.into(),
        parts: parts.iter().map(|info| named(info)).collect(),
        ..CompleteUpload::default()
    }
}

fn checksum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> ChecksumValue {
    let mut hasher = ChecksumHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn parts_etag(parts: &[&[u8]]) -> String {
    let md5s: Vec<u8> = parts.iter().flat_map(|part| Md5Hasher::of(part)).collect();
    format!("{}-{}", hex::encode(Md5Hasher::of(&md5s)), parts.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_become_an_object() {
    let house = House::with(code(4, 2), Meta::Fjall, |_| {}).await;
    let bytes = random_bytes(1, 3 * PART + 77);
    let (a, b, c) = (&bytes[..PART + 5], &bytes[PART + 5..2 * PART + 10], &bytes[2 * PART + 10..]);
    let headers = ObjectHeaders { content_type: Some("x/y".into()), ..ObjectHeaders::default() };
    let create =
        CreateUpload { bucket: BUCKET.into(), key: "k".into(), headers: headers.clone(), ..Default::default() };
    let upload = house.gateway.create_upload(create).await.unwrap();
    // Out of order, one of them twice, and one that is not used.
    house.part("k", &upload, 30, &random_bytes(2, PART)).await.unwrap();
    let third = house.part("k", &upload, 30, c).await.unwrap();
    let first = house.part("k", &upload, 10, a).await.unwrap();
    let second = house.part("k", &upload, 20, b).await.unwrap();
    house.part("k", &upload, 40, b"not used").await.unwrap();
    assert_eq!(first.etag, hex::encode(Md5Hasher::of(a)));
    assert_eq!(kind(house.get("k").await), ErrorKind::NoSuchKey);

    let list = ListParts { bucket: BUCKET.into(), key: "k".into(), upload_id: upload.clone(), after: 0, max_parts: 3 };
    let page = house.gateway.list_parts(list.clone()).await.unwrap();
    let numbers: Vec<u32> = page.parts.iter().map(|part| part.part_number).collect();
    assert_eq!((numbers, page.more), (vec![10, 20, 30], true));
    assert_eq!((page.parts[2].size_bytes, &page.parts[2].etag), (c.len() as u64, &third.etag));
    let page = house.gateway.list_parts(ListParts { after: 30, ..list }).await.unwrap();
    assert_eq!((page.parts.len(), page.more), (1, false));

    let request = complete("k", &upload, &[&first, &second, &third]);
    let done = house.gateway.complete_upload(request.clone()).await.unwrap();
    assert_eq!((done.etag.clone(), done.size_bytes), (parts_etag(&[a, b, c]), bytes.len() as u64));
    assert_eq!(done.checksum.as_ref().unwrap().value, checksum(ChecksumAlgorithm::Crc64Nvme, &bytes));
    assert!(house.get("k").await.unwrap() == bytes);
    let head = house.gateway.head_object(get("k")).await.unwrap().info;
    assert_eq!((head.parts, head.headers), (Some(3), headers));

    for (from, to) in [(0, 0), (PART + 4, PART + 5), (100, 2 * PART + 20), (2 * PART + 10, bytes.len() - 1)] {
        let got = house.get_range("k", RangeSpec::FromTo(from as u64, to as u64)).await.unwrap();
        assert!(got == bytes[from..=to], "{from}-{to}");
    }
    for (number, expected) in [(10, a), (20, b), (30, c)] {
        let request = GetObject { part_number: Some(number), ..get("k") };
        let (answer, got) = read(house.gateway.get_object(request).await.unwrap()).await.unwrap();
        assert!(got == expected && answer.partial);
        assert_eq!(answer.info.parts, Some(3));
    }
    let missing = GetObject { part_number: Some(40), ..get("k") };
    assert_eq!(kind(house.gateway.get_object(missing).await), ErrorKind::InvalidPartNumber);

    // Once more answers the same; with other parts it does not.
    let again = house.gateway.complete_upload(request.clone()).await.unwrap();
    assert_eq!((again.etag, again.modified_unix_ms), (done.etag, done.modified_unix_ms));
    let other = complete("k", &upload, &[&first, &third]);
    assert_eq!(kind(house.gateway.complete_upload(other).await), ErrorKind::InvalidPart);
    assert_eq!(kind(house.part("k", &upload, 1, b"x").await), ErrorKind::NoSuchUpload);
    assert_eq!(kind(house.gateway.abort_upload(BUCKET, "k", &upload).await), ErrorKind::NoSuchUpload);

    house.put("k", b"").await.unwrap();
    assert_eq!(kind(house.gateway.complete_upload(request).await), ErrorKind::NoSuchUpload);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_complete_leaves_the_upload_open() {
    let house = House::new(code(2, 1)).await;
    let upload = house.upload("k").await;
    let large = house.part("k", &upload, 1, &random_bytes(1, PART)).await.unwrap();
    let small = house.part("k", &upload, 2, b"small").await.unwrap();
    let last = house.part("k", &upload, 3, b"last").await.unwrap();
    let other = PartInfo { etag: last.etag.clone(), ..large.clone() };
    let absent = PartInfo { part_number: 4, ..last.clone() };
    let past = PartInfo { part_number: 10_001, ..last.clone() };
    let lied = PartInfo { checksum: last.checksum, ..large.clone() };
    let request = |parts: &[&PartInfo]| complete("k", &upload, parts);
    let cases = [
        (request(&[]), ErrorKind::InvalidRequest),
        (request(&[&last, &large]), ErrorKind::InvalidPartOrder),
        (request(&[&large, &large]), ErrorKind::InvalidPartOrder),
        (request(&[&large, &small, &last]), ErrorKind::EntityTooSmall),
        (request(&[&other, &last]), ErrorKind::InvalidPart),
        (request(&[&lied, &last]), ErrorKind::InvalidPart),
        (request(&[&large, &absent]), ErrorKind::InvalidPart),
        (request(&[&large, &past]), ErrorKind::InvalidArgument),
        (CompleteUpload { object_bytes: Some(7), ..request(&[&large, &last]) }, ErrorKind::InvalidRequest),
        (CompleteUpload { checksum: large.checksum, ..request(&[&large, &last]) }, ErrorKind::BadDigest),
        (CompleteUpload { upload_id: "none".into(), ..request(&[&large]) }, ErrorKind::NoSuchUpload),
        (CompleteUpload { key: "other".into(), ..request(&[&large]) }, ErrorKind::NoSuchUpload),
    ];
    for (request, expected) in cases {
        assert_eq!(kind(house.gateway.complete_upload(request).await), expected);
    }
    let bad_number = part("k", &upload, 10_001, b"x");
    assert_eq!(kind(house.gateway.upload_part(bad_number).await), ErrorKind::InvalidArgument);
    assert_eq!(kind(house.get("k").await), ErrorKind::NoSuchKey);
    let right = CompleteUpload { object_bytes: Some(PART as u64 + 4), ..request(&[&large, &last]) };
    house.gateway.complete_upload(right).await.unwrap();
    assert_eq!(house.get("k").await.unwrap().len(), PART + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_and_empty_parts() {
    let house = House::new(code(2, 1)).await;
    for bytes in [&b""[..], b"tiny"] {
        let upload = house.upload("k").await;
        let only = house.part("k", &upload, 7, bytes).await.unwrap();
        let done = house.gateway.complete_upload(complete("k", &upload, &[&only])).await.unwrap();
        assert_eq!((done.etag, done.size_bytes), (parts_etag(&[bytes]), bytes.len() as u64));
        assert_eq!(house.get("k").await.unwrap(), bytes);
    }
    let upload = house.upload("k").await;
    let large = random_bytes(1, PART);
    let (first, last) =
        (house.part("k", &upload, 1, &large).await.unwrap(), house.part("k", &upload, 2, b"").await.unwrap());
    house.gateway.complete_upload(complete("k", &upload, &[&first, &last])).await.unwrap();
    assert!(house.get("k").await.unwrap() == large);
    let empty = GetObject { part_number: Some(2), ..get("k") };
    assert!(read(house.gateway.get_object(empty).await.unwrap()).await.unwrap().1.is_empty());
    house.put("k", b"").await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_of_every_kind() {
    let house = House::new(code(2, 1)).await;
    let bytes = random_bytes(1, PART + 1000);
    let (a, b) = bytes.split_at(PART);
    let mut kinds = vec![None];
    for algorithm in ChecksumAlgorithm::ALL {
        kinds.push(Some((algorithm, ChecksumType::FullObject)));
        kinds.push(Some((algorithm, ChecksumType::Composite)));
    }
    for checksum_of in kinds {
        let create =
            CreateUpload { bucket: BUCKET.into(), key: "k".into(), checksum: checksum_of, ..Default::default() };
        let upload = match (house.gateway.create_upload(create).await, checksum_of) {
            (Ok(upload), _) => upload,
            (Err(error), Some((algorithm, kind))) => {
                assert_eq!(error.kind, ErrorKind::InvalidRequest);
                assert!(
                    algorithm.is_crc() != (kind == ChecksumType::FullObject)
                        || algorithm == ChecksumAlgorithm::Crc64Nvme
                );
                continue;
            }
            (Err(error), None) => panic!("{error}"),
        };
        let (algorithm, kind_of) = checksum_of.unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
        let (of_a, of_b) = (checksum(algorithm, a), checksum(algorithm, b));
        // One part says what it is, the other leaves it to us.
        let says = BodyDigests { checksum: Some(of_a), ..BodyDigests::default() };
        let first = house.gateway.upload_part(UploadPart { digests: says, ..part("k", &upload, 1, a) }).await.unwrap();
        let second = house.part("k", &upload, 2, b).await.unwrap();
        assert_eq!((first.checksum, second.checksum), (Some(of_a), Some(of_b)));
        let other =
            if algorithm == ChecksumAlgorithm::Crc32 { ChecksumAlgorithm::Sha1 } else { ChecksumAlgorithm::Crc32 };
        if checksum_of.is_some() {
            let wrong = BodyDigests { checksum: Some(checksum(other, a)), ..BodyDigests::default() };
            let request = UploadPart { digests: wrong, ..part("k", &upload, 1, a) };
            assert_eq!(kind(house.gateway.upload_part(request).await), ErrorKind::InvalidRequest);
        }
        let expected = match kind_of {
            ChecksumType::FullObject => checksum(algorithm, &bytes),
            ChecksumType::Composite => checksum(algorithm, &[of_a.as_bytes(), of_b.as_bytes()].concat()),
        };
        let request = CompleteUpload { checksum: Some(expected), ..complete("k", &upload, &[&first, &second]) };
        let bad = CompleteUpload { checksum: Some(of_a), ..request.clone() };
        assert_eq!(kind(house.gateway.complete_upload(bad).await), ErrorKind::BadDigest);
        let done = house.gateway.complete_upload(request).await.unwrap();
        let stored = house.gateway.head_object(get("k")).await.unwrap().info.checksum.unwrap();
        assert_eq!(done.checksum.as_ref(), Some(&stored));
        assert_eq!((stored.value, stored.kind), (expected, kind_of));
        assert_eq!(stored.parts, (kind_of == ChecksumType::Composite).then_some(2));
    }
    house.put("k", b"").await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_upload_leaves_nothing() {
    let house = House::new(code(2, 1)).await;
    let upload = house.upload("k").await;
    for number in 1..=5 {
        house.part("k", &upload, number, &random_bytes(1, MIB)).await.unwrap();
    }
    assert_eq!(house.shards(), 15);
    house.gateway.abort_upload(BUCKET, "k", &upload).await.unwrap();
    assert_eq!(kind(house.gateway.abort_upload(BUCKET, "k", &upload).await), ErrorKind::NoSuchUpload);
    assert_eq!(kind(house.part("k", &upload, 1, b"x").await), ErrorKind::NoSuchUpload);
    let list = ListParts { bucket: BUCKET.into(), key: "k".into(), upload_id: upload, after: 0, max_parts: 3 };
    assert_eq!(kind(house.gateway.list_parts(list).await), ErrorKind::NoSuchUpload);
    assert_eq!(house.held_after_collecting().await, NOTHING);
    house.gateway.delete_bucket(BUCKET).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_are_decided_at_the_end() {
    let house = House::new(code(2, 1)).await;
    let new = || Conditions { if_none_match: Some(EtagCondition::Any), ..Conditions::default() };
    let upload = house.upload("k").await;
    let only = house.part("k", &upload, 1, b"multipart").await.unwrap();
    house.put("k", b"came before").await.unwrap();
    let request = CompleteUpload { conditions: new(), ..complete("k", &upload, &[&only]) };
    assert_eq!(kind(house.gateway.complete_upload(request.clone()).await), ErrorKind::PreconditionFailed);
    assert_eq!(house.get("k").await.unwrap(), b"came before");
    let gone = penstock_gateway::api::DeleteObject { bucket: BUCKET.into(), key: "k".into(), ..Default::default() };
    house.gateway.delete_object(gone).await.unwrap();
    house.gateway.complete_upload(request.clone()).await.unwrap();
    // The condition was for the first time: it does not make a repetition fail.
    house.gateway.complete_upload(request).await.unwrap();
    assert_eq!(house.get("k").await.unwrap(), b"multipart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_many_parts_is_read_while_it_is_replaced() {
    let house = House::new(code(2, 1)).await;
    let upload = house.upload("k").await;
    let mut bytes = Vec::new();
    let mut infos = Vec::new();
    for number in 1..=9 {
        let part = random_bytes(u64::from(number), PART);
        infos.push(house.part("k", &upload, number, &part).await.unwrap());
        bytes.extend_from_slice(&part);
    }
    let infos: Vec<&PartInfo> = infos.iter().collect();
    house.gateway.complete_upload(complete("k", &upload, &infos)).await.unwrap();
    let mut body = house.gateway.get_object(get("k")).await.unwrap().body.unwrap();
    use futures::StreamExt;
    let mut got = body.next().await.unwrap().unwrap().to_vec();
    house.put("k", b"").await.unwrap();
    house.collect().await;
    house.collect().await;
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == bytes);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_parts() {
    let house = House::new(code(1, 0)).await;
    let upload = house.upload("k").await;
    // Parts as small as these can't be completed together; what is tested is that their number alone does no harm.
    let tables = Tables::new(house.kv.clone());
    let mut puts = futures::stream::FuturesUnordered::new();
    use futures::StreamExt;
    for number in 1..=10_000_u32 {
        let request = part("k", &upload, number, b"");
        puts.push(house.gateway.upload_part(request));
        if puts.len() == 64 {
            puts.next().await.unwrap().unwrap();
        }
    }
    while let Some(put) = puts.next().await {
        put.unwrap();
    }
    drop(puts);
    let info = |number| PartInfo {
        part_number: number,
        etag: hex::encode(Md5Hasher::of(b"")),
        size_bytes: 0,
        modified_unix_ms: 0,
        checksum: None,
        source_version_id: None,
        encryption: None,
    };
    let infos: Vec<PartInfo> = (1..=10_000).map(info).collect();
    let infos: Vec<&PartInfo> = infos.iter().collect();
    assert_eq!(kind(house.gateway.complete_upload(complete("k", &upload, &infos)).await), ErrorKind::EntityTooSmall);
    house.gateway.complete_upload(complete("k", &upload, &infos[9_999..])).await.unwrap();
    assert!(house.get("k").await.unwrap().is_empty());
    assert_eq!(house.held_after_collecting().await, NOTHING);
    assert!(tables.repair_queue(1).await.unwrap().is_empty());
}
