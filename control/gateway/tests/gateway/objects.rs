//! Put, get, head, delete and buckets, with every code and both engines.

use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, Md5Hasher};
use penstock_gateway::api::{DeleteObject, GetObject, ListBuckets, ObjectHeaders, PutObject, RangeSpec};
use penstock_gateway::error::ErrorKind;

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, body, code, get, kind, put, random_bytes, read};

/// Around every boundary that there is: nothing, a byte, shards, hashing inline or not, chunks.
const SIZES: [usize; 9] = [0, 1, 63, 4096, 65_537, MIB, 4 * MIB, 4 * MIB + 1, 13 * MIB + 7];

async fn what_is_put_is_got(house: &House) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = random_bytes(seed as u64, size);
        let key = format!("size/{size}");
        let done = house.put(&key, &bytes).await.unwrap();
        assert_eq!(done.etag, hex::encode(Md5Hasher::of(&bytes)), "{size}");
        assert_eq!(done.size_bytes, size as u64);
        let mut crc64 = ChecksumHasher::new(ChecksumAlgorithm::Crc64Nvme);
        crc64.update(&bytes);
        assert_eq!(done.checksum.as_ref().unwrap().value, crc64.finish(), "{size}");

        let (answer, got) = read(house.gateway.get_object(get(&key)).await.unwrap()).await.unwrap();
        assert!(got == bytes, "{size}");
        assert_eq!((answer.range, answer.partial), (0..size as u64, false));
        assert_eq!((answer.info.etag, answer.info.checksum), (done.etag, done.checksum));
        let head = house.gateway.head_object(get(&key)).await.unwrap();
        assert!(head.body.is_none());
        assert_eq!(head.info.size_bytes, size as u64);
    }
}

async fn every_range(house: &House) {
    let size = 9 * MIB + 100;
    let bytes = random_bytes(99, size);
    house.put("ranges", &bytes).await.unwrap();
    let chunk = 4 * MIB;
    for (first, last) in [
        (0, 0),
        (0, size - 1),
        (1, 100),
        (chunk - 1, chunk),
        (chunk, chunk),
        (chunk - 70_000, 2 * chunk + 70_000),
        (size - 1, size - 1),
        (2 * chunk + 5, 2 * size),
    ] {
        let got = house.get_range("ranges", RangeSpec::FromTo(first as u64, last as u64)).await.unwrap();
        assert!(got == bytes[first..(last + 1).min(size)], "{first}-{last}");
    }
    assert!(house.get_range("ranges", RangeSpec::Last(5)).await.unwrap() == bytes[size - 5..]);
    assert!(house.get_range("ranges", RangeSpec::From(size as u64 - 9)).await.unwrap() == bytes[size - 9..]);
    assert_eq!(kind(house.get_range("ranges", RangeSpec::From(size as u64)).await), ErrorKind::InvalidRange);
}

async fn the_rounds(house: House) {
    what_is_put_is_got(&house).await;
    every_range(&house).await;
    let deletes = SIZES.map(|size| DeleteObject { key: format!("size/{size}"), ..DeleteObject::default() });
    let deleted = house.gateway.delete_objects(BUCKET, deletes.to_vec()).await.unwrap();
    assert!(deleted.len() == SIZES.len() && deleted.iter().all(Result::is_ok));
    house.gateway.delete_object(delete("ranges")).await.unwrap();
    assert_eq!(kind(house.get("ranges").await), ErrorKind::NoSuchKey);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

fn delete(key: &str) -> DeleteObject {
    DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_and_metadata_in_memory() {
    the_rounds(House::new(code(1, 0)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_and_one_and_metadata_on_disk() {
    the_rounds(House::with(code(2, 1), Meta::Fjall, |_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_and_two_and_metadata_on_disk() {
    the_rounds(House::with(code(4, 2), Meta::Fjall, |_| {}).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_of_many_rows() {
    // 66 stripes are two manifest rows, on two sets of nodes.
    let house = House::new(code(2, 1)).await;
    let size = 65 * 4 * MIB + 17;
    let bytes = random_bytes(5, size);
    for content_bytes in [Some(size as u64), None] {
        let request = PutObject { content_bytes, ..put("long", &bytes) };
        house.gateway.put_object(request).await.unwrap();
        assert!(house.get("long").await.unwrap() == bytes);
        let last = house.get_range("long", RangeSpec::Last(4 * MIB as u64 + 30)).await.unwrap();
        assert!(last == bytes[size - 4 * MIB - 30..]);
        house.gateway.delete_object(delete("long")).await.unwrap();
        assert_eq!(house.held_after_collecting().await, NOTHING);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_come_back_and_bad_requests_store_nothing() {
    let house = House::new(code(2, 1)).await;
    let headers = ObjectHeaders {
        content_type: Some("text/plain".into()),
        content_encoding: Some("gzip".into()),
        content_disposition: Some("inline".into()),
        content_language: Some("de".into()),
        cache_control: Some("no-store".into()),
        expires: Some("whenever".into()),
        user_metadata: vec![("a".into(), "1".into()), ("b".into(), "ü".into())],
    };
    house.gateway.put_object(PutObject { headers: headers.clone(), ..put("h", b"x") }).await.unwrap();
    let head = house.gateway.head_object(get("h")).await.unwrap();
    assert_eq!(head.info.headers, headers);
    assert_eq!(head.info.storage_class, "STANDARD");
    house.gateway.delete_object(delete("h")).await.unwrap();

    let big = ObjectHeaders { user_metadata: vec![("a".into(), "b".repeat(3000))], ..ObjectHeaders::default() };
    let cases = [
        (PutObject { bucket: "nowhere".into(), ..put("k", b"x") }, ErrorKind::NoSuchBucket),
        (put(&"k".repeat(1025), b"x"), ErrorKind::KeyTooLongError),
        (PutObject { headers: big, ..put("k", b"x") }, ErrorKind::MetadataTooLarge),
        (PutObject { storage_class: "GLACIER".into(), ..put("k", b"x") }, ErrorKind::InvalidStorageClass),
        (PutObject { content_bytes: Some(6 << 30), ..put("k", b"x") }, ErrorKind::EntityTooLarge),
        (PutObject { content_bytes: Some(2), body: body(b"x"), ..put("k", b"") }, ErrorKind::IncompleteBody),
        (PutObject { content_bytes: Some(0), body: body(b"x"), ..put("k", b"") }, ErrorKind::InvalidRequest),
    ];
    for (request, expected) in cases {
        assert_eq!(kind(house.gateway.put_object(request).await), expected);
    }
    assert_eq!(kind(house.get("k").await), ErrorKind::NoSuchKey);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test]
async fn every_byte_that_a_key_may_have() {
    let house = House::new(code(1, 0)).await;
    let mut keys: Vec<String> =
        (1..=0x10ffff_u32).step_by(997).filter_map(char::from_u32).map(|c| format!("k{c}")).collect();
    keys.extend(["/".into(), "//".into(), "a/../b".into(), "\u{0}".into(), "\u{10ffff}".into(), "k".repeat(1024)]);
    for key in &keys {
        house.put(key, b"").await.unwrap();
    }
    for key in &keys {
        assert_eq!(house.gateway.head_object(get(key)).await.unwrap().info.key, *key);
    }
}

#[tokio::test]
async fn part_numbers_of_objects_without_parts() {
    let house = House::new(code(1, 0)).await;
    house.put("k", b"hello").await.unwrap();
    let part = |number| GetObject { part_number: Some(number), ..get("k") };
    let (answer, bytes) = read(house.gateway.get_object(part(1)).await.unwrap()).await.unwrap();
    assert_eq!((answer.partial, answer.info.parts, bytes.as_slice()), (true, None, &b"hello"[..]));
    assert_eq!(kind(house.gateway.get_object(part(2)).await), ErrorKind::InvalidPartNumber);
    let both = GetObject { range: Some(RangeSpec::From(1)), ..part(1) };
    assert_eq!(kind(house.gateway.get_object(both).await), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn buckets() {
    let house = House::with(code(1, 0), Meta::Fjall, |_| {}).await;
    let gateway = &house.gateway;
    for name in ["beta", "alpha", "gamma"] {
        gateway.create_bucket(name, "eu-1").await.unwrap();
    }
    assert_eq!(kind(gateway.create_bucket("beta", "").await), ErrorKind::BucketAlreadyOwnedByYou);
    assert_eq!(kind(gateway.create_bucket("Beta", "").await), ErrorKind::InvalidBucketName);
    assert_eq!(gateway.head_bucket("beta").await.unwrap().region, "eu-1");
    assert_eq!(kind(gateway.head_bucket("delta").await), ErrorKind::NoSuchBucket);

    let names = |page: penstock_gateway::api::BucketPage| {
        (page.buckets.into_iter().map(|bucket| bucket.name).collect::<Vec<_>>(), page.next_after)
    };
    let (all, next) = names(gateway.list_buckets(ListBuckets::default()).await.unwrap());
    assert_eq!((all, next), (vec!["alpha".into(), "beta".into(), BUCKET.into(), "gamma".into()], None));
    let page = ListBuckets { max: Some(2), ..ListBuckets::default() };
    let (first, next) = names(gateway.list_buckets(page.clone()).await.unwrap());
    assert_eq!((first, next.as_deref()), (vec!["alpha".to_owned(), "beta".to_owned()], Some("beta")));
    let (second, next) = names(gateway.list_buckets(ListBuckets { after: next, ..page }).await.unwrap());
    assert_eq!((second, next), (vec![BUCKET.to_owned(), "gamma".to_owned()], None));
    let prefixed = ListBuckets { prefix: "b".into(), ..ListBuckets::default() };
    assert_eq!(names(gateway.list_buckets(prefixed).await.unwrap()).0, ["beta", BUCKET]);

    house.put("k", b"x").await.unwrap();
    assert_eq!(kind(gateway.delete_bucket(BUCKET).await), ErrorKind::BucketNotEmpty);
    gateway.delete_object(delete("k")).await.unwrap();
    let upload = house.upload("k").await;
    assert_eq!(kind(gateway.delete_bucket(BUCKET).await), ErrorKind::BucketNotEmpty);
    gateway.abort_upload(BUCKET, "k", &upload).await.unwrap();
    gateway.delete_bucket(BUCKET).await.unwrap();
    assert_eq!(kind(gateway.delete_bucket(BUCKET).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(house.put("k", b"x").await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(house.get("k").await), ErrorKind::NoSuchBucket);
}

#[tokio::test]
async fn deletes() {
    let house = House::new(code(1, 0)).await;
    house.put("k", b"x").await.unwrap();
    house.gateway.delete_object(delete("never was")).await.unwrap();
    let keys = ["k", "never was", &"k".repeat(1025)];
    let requests: Vec<_> = keys.iter().map(|key| delete(key)).collect();
    let results = house.gateway.delete_objects(BUCKET, requests).await.unwrap();
    assert!(results[0].is_ok() && results[1].is_ok());
    assert_eq!(results[2].as_ref().unwrap_err().kind, ErrorKind::KeyTooLongError);
    assert_eq!(kind(house.get("k").await), ErrorKind::NoSuchKey);
    assert_eq!(kind(house.gateway.delete_objects(BUCKET, vec![delete("k"); 1001]).await), ErrorKind::InvalidRequest);
    assert_eq!(kind(house.gateway.delete_objects("nowhere", vec![delete("k")]).await), ErrorKind::NoSuchBucket);
}
