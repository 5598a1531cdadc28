//! Server-side encryption, end to end below HTTP.

use std::collections::HashMap;

use futures::StreamExt;
use penstock_digest::{ChecksumValue, Md5Hasher, crc64nvme};
use penstock_gateway::api::{
    BodyDigests, CompleteUpload, CompletedPart, CopyObject, CopySource, CreateUpload, CustomerKey, Encrypt,
    EncryptionInfo, GetObject, KmsKey, MetadataDirective, ObjectName, PutObject, RangeSpec, UploadPart, UploadPartCopy,
};
use penstock_gateway::error::ErrorKind;
use penstock_gateway::plan::{Declined, PlanPut};
use penstock_meta::tables::Tables;
use penstock_proto::NodeId;
use penstock_proto::plan::NodeAddress;
use penstock_vault::{KeyName, MasterKey};

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, code, get, kind, part, put, random_bytes, read};

/// Plaintext of a chunk of 4 MiB.
const CHUNK: usize = 4 * MIB - 64 * 16;

fn customer(byte: u8) -> CustomerKey {
    CustomerKey::new([byte; 32])
}

fn kms(key: Option<&str>) -> Encrypt {
    Encrypt::Kms(KmsKey { key: key.map(str::to_owned), context: "{\"a\":\"b\"}".to_owned(), bucket_key: true })
}

/// Each way, the key to read it with, and whether the ETag is the MD5.
fn ways() -> [(Encrypt, Option<CustomerKey>, bool); 3] {
    [(Encrypt::S3, None, true), (kms(None), None, false), (Encrypt::Customer(customer(1)), Some(customer(1)), false)]
}

fn with(key: &str, customer_key: Option<CustomerKey>) -> GetObject {
    GetObject { customer_key, ..get(key) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_length_and_range_comes_back() {
    let house = House::new(code(4, 2)).await;
    let sizes = [0, 1, 65_535, 65_536, 65_537, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 65_536, 11 * MIB];
    for (way, (encryption, customer_key, etag_is_md5)) in ways().into_iter().enumerate() {
        for (at, size) in sizes.into_iter().enumerate() {
            let bytes = random_bytes(at as u64, size);
            let request = PutObject {
                encryption: Some(encryption.clone()),
                content_bytes: (at % 2 == 0).then_some(size as u64),
                ..put("k", &bytes)
            };
            let done = house.gateway.put_object(request).await.unwrap();
            assert_eq!(done.encryption, Some(encryption.info()));
            assert_eq!(done.size_bytes, size as u64);
            assert_eq!(done.checksum.unwrap().value, ChecksumValue::from_crc64nvme(crc64nvme(&bytes)), "{size}");
            assert_eq!(done.etag == hex::encode(Md5Hasher::of(&bytes)), etag_is_md5, "way {way}, {size} bytes");
            let (found, all) =
                read(house.gateway.get_object(with("k", customer_key.clone())).await.unwrap()).await.unwrap();
            let info = found.info;
            assert!(all == bytes, "{size} bytes came back as {}", all.len());
            assert_eq!((info.size_bytes, info.encryption), (size as u64, Some(encryption.info())));
            for (from, to) in
                [(0, 0), (0, 65_535), (65_535, 65_536), (CHUNK - 1, CHUNK), (70_000, 5_000_000), (size / 2, size)]
            {
                if from >= size {
                    continue;
                }
                let range = Some(RangeSpec::FromTo(from as u64, to as u64));
                let request = GetObject { range, ..with("k", customer_key.clone()) };
                let (_, some) = read(house.gateway.get_object(request).await.unwrap()).await.unwrap();
                assert!(some == bytes[from..(to + 1).min(size)], "{from}-{to} of {size}");
            }
        }
    }
    house
        .gateway
        .delete_object(penstock_gateway::api::DeleteObject {
            bucket: BUCKET.into(),
            key: "k".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_ranges_of_many_chunks() {
    let house = House::new(code(2, 1)).await;
    let bytes = random_bytes(9, 3 * CHUNK + 12_345);
    let request = PutObject { encryption: Some(Encrypt::S3), ..put("k", &bytes) };
    house.gateway.put_object(request).await.unwrap();
    let mut seed = 88_172_645_463_325_252u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for round in 0..200 {
        let from = next(bytes.len());
        let len = 1 + next([10, 70_000, 6_000_000][round % 3]);
        let to = (from + len).min(bytes.len()) - 1;
        let some = house.get_range("k", RangeSpec::FromTo(from as u64, to as u64)).await.unwrap();
        assert!(some == bytes[from..=to], "{from}-{to}");
    }
    house.lose(0);
    assert!(house.get("k").await.unwrap() == bytes, "decoded, then decrypted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_are_of_the_plaintext() {
    let house = House::new(code(1, 0)).await;
    let bytes = random_bytes(3, 200_000);
    let digests = |md5| BodyDigests { md5: Some(md5), ..BodyDigests::default() };
    let request = |md5| PutObject { encryption: Some(Encrypt::S3), digests: digests(md5), ..put("k", &bytes) };
    house.gateway.put_object(request(Md5Hasher::of(&bytes))).await.unwrap();
    assert_eq!(kind(house.gateway.put_object(request([0; 16])).await), ErrorKind::BadDigest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customers_key_is_needed_and_no_other_will_do() {
    let house = House::new(code(1, 0)).await;
    let gateway = &house.gateway;
    let request = |encryption| PutObject { encryption, ..put("k", b"secret") };
    gateway.put_object(request(Some(Encrypt::Customer(customer(1))))).await.unwrap();
    let name = ObjectName { bucket: BUCKET.into(), key: "k".into(), version_id: None };
    for (key, want) in [(None, ErrorKind::InvalidRequest), (Some(customer(2)), ErrorKind::AccessDenied)] {
        assert_eq!(kind(gateway.get_object(with("k", key.clone())).await), want);
        assert_eq!(kind(gateway.head_object(with("k", key.clone())).await), want);
        assert_eq!(kind(gateway.object_attributes(&name, 0, 9, key.as_ref()).await), want);
        assert_eq!(kind(gateway.copy_object(copy("k", key, None)).await), want);
    }
    assert!(gateway.head_object(with("k", Some(customer(1)))).await.is_ok());
    assert!(gateway.object_attributes(&name, 0, 9, Some(&customer(1))).await.is_ok());
    // Copies are encrypted as they ask, not as their source is.
    for (encryption, key) in [
        (None, None),
        (Some(Encrypt::S3), None),
        (Some(kms(None)), None),
        (Some(Encrypt::Customer(customer(3))), Some(customer(3))),
    ] {
        let done = gateway.copy_object(copy("k", Some(customer(1)), encryption.clone())).await.unwrap();
        assert_eq!(done.encryption, encryption.as_ref().map(Encrypt::info));
        let (found, bytes) = read(gateway.get_object(with("copy", key)).await.unwrap()).await.unwrap();
        assert_eq!((found.info.encryption, bytes.as_slice()), (encryption.map(|e| e.info()), b"secret".as_slice()));
    }
    for encryption in [None, Some(Encrypt::S3)] {
        gateway.put_object(request(encryption)).await.unwrap();
        assert_eq!(kind(gateway.get_object(with("k", Some(customer(1)))).await), ErrorKind::InvalidRequest);
        assert_eq!(kind(gateway.head_object(with("k", Some(customer(1)))).await), ErrorKind::InvalidRequest);
    }
    // To encrypt an object otherwise is reason enough to copy it onto itself.
    let onto_itself = |encryption| CopyObject { key: "k".into(), ..copy("k", None, encryption) };
    assert_eq!(kind(gateway.copy_object(onto_itself(None)).await), ErrorKind::InvalidRequest);
    gateway.copy_object(onto_itself(Some(kms(None)))).await.unwrap();
    assert_eq!(house.get("k").await.unwrap(), b"secret");
}

fn copy(from: &str, customer_key: Option<CustomerKey>, encryption: Option<Encrypt>) -> CopyObject {
    CopyObject {
        source: CopySource { bucket: BUCKET.into(), key: from.into(), customer_key, ..CopySource::default() },
        bucket: BUCKET.into(),
        key: "copy".into(),
        metadata: MetadataDirective::Copy,
        checksum: None,
        storage_class: String::new(),
        conditions: Default::default(),
        tags: None,
        lock: Default::default(),
        encryption,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_are_encrypted_part_by_part() {
    let house = House::new(code(4, 2)).await;
    let gateway = &house.gateway;
    for (encryption, customer_key, etag_is_md5) in ways() {
        let source = random_bytes(77, 6 * MIB);
        gateway
            .put_object(PutObject { encryption: Some(Encrypt::Customer(customer(9))), ..put("source", &source) })
            .await
            .unwrap();
        let create = CreateUpload {
            bucket: BUCKET.into(),
            key: "k".into(),
            encryption: Some(encryption.clone()),
            ..CreateUpload::default()
        };
        let upload = gateway.create_upload(create).await.unwrap();
        let (first, last) = (random_bytes(1, 5 * MIB + 17), random_bytes(2, 100_000));
        let (mut parts, mut all) = (Vec::new(), Vec::new());
        for (number, bytes) in [(1, &first), (3, &last)] {
            let with = |customer_key| UploadPart { customer_key, ..part("k", &upload, number, bytes) };
            let wrong = if customer_key.is_some() { None } else { Some(customer(1)) };
            assert_eq!(kind(gateway.upload_part(with(wrong)).await), ErrorKind::InvalidRequest);
            let info = gateway.upload_part(with(customer_key.clone())).await.unwrap();
            assert_eq!(info.encryption, Some(encryption.info()));
            assert_eq!(info.etag == hex::encode(Md5Hasher::of(bytes)), etag_is_md5);
            parts.push((number, info.etag));
        }
        if customer_key.is_some() {
            let other = UploadPart { customer_key: Some(customer(8)), ..part("k", &upload, 3, &last) };
            assert_eq!(kind(gateway.upload_part(other).await), ErrorKind::InvalidRequest);
        }
        let copied = UploadPartCopy {
            source: copy("source", Some(customer(9)), None).source,
            range: Some(RangeSpec::FromTo(10, 10 + 5 * MIB as u64)),
            bucket: BUCKET.into(),
            key: "k".into(),
            upload_id: upload.clone(),
            part_number: 2,
            customer_key: customer_key.clone(),
        };
        let info = gateway.upload_part_copy(copied).await.unwrap();
        parts.insert(1, (2, info.etag));
        all.extend_from_slice(&first);
        all.extend_from_slice(&source[10..=10 + 5 * MIB]);
        all.extend_from_slice(&last);
        let complete = CompleteUpload {
            bucket: BUCKET.into(),
            key: "k".into(),
            upload_id: upload,
            parts: parts
                .into_iter()
                .map(|(part_number, etag)| CompletedPart { part_number, etag, checksum: None })
                .collect(),
            object_bytes: Some(all.len() as u64),
            ..CompleteUpload::default()
        };
        let done = gateway.complete_upload(complete).await.unwrap();
        assert_eq!(done.encryption, Some(encryption.info()));
        assert_eq!(done.checksum.unwrap().value, ChecksumValue::from_crc64nvme(crc64nvme(&all)));
        assert!(done.etag.ends_with("-3"));
        let (found, bytes) = read(gateway.get_object(with("k", customer_key.clone())).await.unwrap()).await.unwrap();
        assert!(bytes == all && found.info.parts == Some(3));
        let join = first.len() as u64;
        for range in [RangeSpec::FromTo(join - 3, join + 70_000), RangeSpec::Last(100_001), RangeSpec::FromTo(0, 0)] {
            let request = GetObject { range: Some(range), ..with("k", customer_key.clone()) };
            let found = gateway.get_object(request).await.unwrap();
            let wanted = found.range.start as usize..found.range.end as usize;
            assert!(read(found).await.unwrap().1 == all[wanted], "{range:?}");
        }
        let request = GetObject { part_number: Some(3), ..with("k", customer_key.clone()) };
        assert!(read(gateway.get_object(request).await.unwrap()).await.unwrap().1 == last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_keys() {
    let house = House::new(code(1, 0)).await;
    let gateway = &house.gateway;
    let keys = gateway.key_store().unwrap();
    let name = KeyName::parse("finance").unwrap();
    let request = |key: &str| PutObject { encryption: Some(kms(Some(key))), ..put("k", b"numbers") };
    assert_eq!(kind(gateway.put_object(request("finance")).await), ErrorKind::KmsNotFound);
    assert_eq!(kind(gateway.put_object(request("not a name")).await), ErrorKind::InvalidArgument);
    keys.create(&name, 1).await.unwrap();
    let arn = "arn:aws:kms:us-east-1:000000000000:key/finance";
    let done = gateway.put_object(request(arn)).await.unwrap();
    let info = EncryptionInfo::Kms { key: arn.to_owned(), context: "{\"a\":\"b\"}".to_owned(), bucket_key: true };
    assert_eq!(done.encryption, Some(info));
    keys.rotate(&name).await.unwrap();
    assert_eq!(house.get("k").await.unwrap(), b"numbers");
    keys.set_enabled(&name, false).await.unwrap();
    assert_eq!(kind(gateway.get_object(get("k")).await), ErrorKind::KmsDisabled);
    assert_eq!(kind(gateway.put_object(request("finance")).await), ErrorKind::KmsDisabled);
    // Another envelope for the same bytes.
    let object = ObjectName { bucket: BUCKET.into(), key: "k".into(), version_id: None };
    let other = KmsKey { key: None, context: String::new(), bucket_key: false };
    assert_eq!(kind(gateway.update_object_encryption(&object, other.clone()).await), ErrorKind::KmsDisabled);
    // What is said of it takes no key.
    assert!(gateway.head_object(get("k")).await.is_ok());
    keys.set_enabled(&name, true).await.unwrap();
    assert_eq!(house.get("k").await.unwrap(), b"numbers");
    gateway.update_object_encryption(&object, other.clone()).await.unwrap();
    keys.set_enabled(&name, false).await.unwrap();
    let found = gateway.head_object(get("k")).await.unwrap().info;
    assert_eq!((found.etag, found.encryption), (done.etag, Some(Encrypt::Kms(other.clone()).info())));
    assert_eq!(house.get("k").await.unwrap(), b"numbers");
    house.put("k", b"plain").await.unwrap();
    assert_eq!(kind(gateway.update_object_encryption(&object, other).await), ErrorKind::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_the_disks_is_ciphertext_and_is_not_taken_for_another_objects() {
    let house = House::new(code(1, 0)).await;
    let marker = b"this text is easy to find on a disk";
    let bytes = marker.repeat(5000);
    for key in ["a", "b"] {
        let request = PutObject { encryption: Some(Encrypt::S3), ..put(key, &bytes) };
        house.gateway.put_object(request).await.unwrap();
    }
    let found = |house: &House| {
        let stored = house.device_bytes(0);
        stored.windows(marker.len()).any(|window| window == marker)
    };
    assert!(!found(&house), "plaintext is on the disk");
    house.gateway.put_object(put("plain", &bytes)).await.unwrap();
    assert!(found(&house), "the search finds what is there");
    // The envelope of another object, put in the place of its own, opens, but not this object's bytes.
    let tables = Tables::new(house.kv.clone());
    let bucket = tables.bucket(BUCKET).await.unwrap().unwrap();
    let mut rows = Vec::new();
    for key in ["a", "b"] {
        rows.push(tables.object(bucket.id, key).await.unwrap().unwrap().encryption.unwrap().sealed_key);
    }
    assert_ne!(rows[0], rows[1]);
    house.replace_in_row(&[b"O", bucket.id.to_be_bytes().as_slice(), b"a"].concat(), &rows[0], &rows[1]).await;
    let error = house.get("a").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InternalError);
    assert!(error.message.contains("can't be decrypted"), "{error}");
    assert!(house.get("b").await.unwrap() == bytes);
    // An envelope that was changed.
    let mut changed = rows[1].clone();
    changed[40] ^= 1;
    house.replace_in_row(&[b"O", bucket.id.to_be_bytes().as_slice(), b"b"].concat(), &rows[1], &changed).await;
    assert_eq!(kind(house.gateway.get_object(get("b")).await), ErrorKind::InternalError);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_key_and_none() {
    let house = House::new(code(1, 0)).await;
    house.gateway.check_master_key().await.unwrap();
    house.gateway.put_object(PutObject { encryption: Some(Encrypt::S3), ..put("k", b"x") }).await.unwrap();
    let other = house.gateway_with(|options| options.master_key = Some(MasterKey::new([99; 32])));
    let error = other.check_master_key().await.unwrap_err();
    assert!(error.message.contains("restore the file"), "{error}");
    assert_eq!(kind(other.get_object(get("k")).await), ErrorKind::InternalError);
    let none = house.gateway_with(|options| options.master_key = None);
    none.check_master_key().await.unwrap();
    assert_eq!(kind(none.get_object(get("k")).await), ErrorKind::NotImplemented);
    let request = PutObject { encryption: Some(Encrypt::S3), ..put("k", b"x") };
    assert_eq!(kind(none.put_object(request).await), ErrorKind::NotImplemented);
    for gateway in [other, none] {
        gateway.shutdown().await;
    }
}

fn plan_put(key: &str, part: Option<(String, u32)>, encrypted: bool) -> PlanPut {
    PlanPut {
        access_key: "a".into(),
        bucket: BUCKET.into(),
        key: key.into(),
        part,
        headers: Default::default(),
        storage_class: String::new(),
        conditions: Default::default(),
        digests: BodyDigests::default(),
        tags: Vec::new(),
        lock: Default::default(),
        encrypted,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_are_declined_and_the_bytes_come_decrypted() {
    let addresses = |node| (NodeId(node), vec![NodeAddress { transport: "tcp".into(), address: "localhost:1".into() }]);
    let house = House::with(code(1, 0), Meta::Mem, |options| {
        options.node_addresses = HashMap::from([addresses(0)]);
    })
    .await;
    let bytes = random_bytes(5, MIB);
    let size = bytes.len() as u64;
    house.gateway.put_object(PutObject { encryption: Some(Encrypt::S3), ..put("k", &bytes) }).await.unwrap();
    let planned = house.gateway.plan_get(get("k")).await.unwrap();
    assert_eq!(planned.plan, Err(Declined::Encrypted));
    let pieces: Vec<_> = planned.read.body.unwrap().collect().await;
    let all: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
    assert!(all == bytes);
    house.gateway.put_object(put("plain", &bytes)).await.unwrap();
    assert!(house.gateway.plan_get(get("plain")).await.unwrap().plan.is_ok());
    let plan = house.gateway.plan_put(plan_put("new", None, true), size).await.unwrap();
    assert_eq!(plan, Err(Declined::Encrypted));
    assert!(house.gateway.plan_put(plan_put("new", None, false), size).await.unwrap().is_ok());
    let create = CreateUpload {
        bucket: BUCKET.into(),
        key: "up".into(),
        encryption: Some(Encrypt::S3),
        ..CreateUpload::default()
    };
    let upload = house.gateway.create_upload(create).await.unwrap();
    let plan = house.gateway.plan_put(plan_put("up", Some((upload, 1)), false), size).await.unwrap();
    assert_eq!(plan, Err(Declined::Encrypted));
}
