//! Listings as the gateway hands them on. What rolls up is tested in the tables and, at random, in `model`.

use penstock_digest::ChecksumAlgorithm;
use penstock_gateway::api::{ChecksumType, ListObjects, ListUploads};
use penstock_gateway::error::ErrorKind;

use crate::house::{BUCKET, House, Meta, code, kind, list};

#[tokio::test]
async fn keys_come_in_order_and_in_pages() {
    let house = House::with(code(1, 0), Meta::Fjall, |_| {}).await;
    for key in ["a/1", "a/2", "a-", "b", "é", "B", "a/2/x"] {
        house.put(key, key.as_bytes()).await.unwrap();
    }
    let page = house.gateway.list_objects(list("", "")).await.unwrap();
    let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["B", "a-", "a/1", "a/2", "a/2/x", "b", "é"]);
    assert_eq!(page.objects[1].size_bytes, 2);
    assert_eq!(page.objects[1].checksum, Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject)));
    assert_eq!(page.next_after, None);

    let page = house.gateway.list_objects(ListObjects { max_keys: 2, ..list("a", "/") }).await.unwrap();
    assert_eq!((page.objects[0].key.as_str(), page.common_prefixes.as_slice()), ("a-", &["a/".to_owned()][..]));
    assert_eq!(page.next_after, None);
    let page = house.gateway.list_objects(ListObjects { max_keys: 2, ..list("", "/") }).await.unwrap();
    assert_eq!(page.next_after.as_deref(), Some("a-"));
    let nowhere = ListObjects { bucket: "nowhere".into(), ..list("", "") };
    assert_eq!(kind(house.gateway.list_objects(nowhere).await), ErrorKind::NoSuchBucket);
    let none = house.gateway.list_objects(ListObjects { max_keys: 0, ..list("", "") }).await.unwrap();
    assert!(none.objects.is_empty() && none.next_after.is_none());
}

#[tokio::test]
async fn a_listing_shows_what_was_written_before_it_and_no_more() {
    let house = House::new(code(2, 1)).await;
    for i in 0..50 {
        let key = format!("k{i:02}");
        house.put(&key, b"x").await.unwrap();
        let page = house.gateway.list_objects(list("", "")).await.unwrap();
        assert_eq!(page.objects.len(), i + 1);
        assert_eq!(page.objects[i].key, key);
        assert_eq!(house.get(&key).await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn uploads_come_by_key_and_age() {
    let house = House::new(code(1, 0)).await;
    let mut expected = Vec::new();
    for key in ["a/1", "a/2", "b", "b"] {
        expected.push((key.to_owned(), house.upload(key).await));
        house.clock.advance_ms(1);
    }
    let request = ListUploads { bucket: BUCKET.into(), max_uploads: 1000, ..ListUploads::default() };
    let uploads = |page: &penstock_gateway::api::UploadPage| -> Vec<(String, String)> {
        page.uploads.iter().map(|upload| (upload.key.clone(), upload.upload_id.clone())).collect()
    };
    let page = house.gateway.list_uploads(request.clone()).await.unwrap();
    assert_eq!((uploads(&page), page.next), (expected.clone(), None));
    let mut paged = Vec::new();
    let mut next = Some((String::new(), String::new()));
    while let Some((key_marker, upload_id_marker)) = next {
        let request = ListUploads { key_marker, upload_id_marker, max_uploads: 1, ..request.clone() };
        let page = house.gateway.list_uploads(request).await.unwrap();
        paged.extend(uploads(&page));
        next = page.next;
    }
    assert_eq!(paged, expected);
    let rolled = ListUploads { delimiter: "/".into(), ..request };
    let page = house.gateway.list_uploads(rolled).await.unwrap();
    assert_eq!((page.common_prefixes, page.uploads.len()), (vec!["a/".to_owned()], 2));
}
