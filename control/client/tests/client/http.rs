//! Over plain HTTP, as against any S3 server.

use futures::TryStreamExt;
use penstock_client::{ClientError, ListEntry, ListOptions, PutOptions};
use penstock_digest::crc64nvme;

use crate::house::{BUCKET, House, MIB, bytes, over_http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_back_as_they_went() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    for length in [0, 1, 100_000, 9 * MIB] {
        let body = bytes(length, 2);
        let done = client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
        assert_eq!(done.crc64, Some(crc64nvme(&body)));
        let object = client.get(BUCKET, "k").await.unwrap();
        assert!(object.body.to_vec() == body);
        assert_eq!(client.head(BUCKET, "k").await.unwrap(), object.info);
        let mut into = vec![0; length];
        client.get_into(BUCKET, "k", &mut into).await.unwrap();
        assert!(into == body);
        let wrong = client.get_into(BUCKET, "k", &mut vec![0; length + 1]).await.unwrap_err();
        assert!(matches!(wrong, ClientError::Size { .. }), "{wrong}");
    }
    let body = bytes(9 * MIB, 2);
    let range = client.get_range(BUCKET, "k", 5..1_000_000).await.unwrap();
    assert!(range.body.to_vec() == body[5..1_000_000]);
    assert_eq!((range.range, range.info.size_bytes), (5..1_000_000, 9 * MIB as u64));
    let (mut a, mut b) = (vec![0; 10], vec![0; 20]);
    client.get_ranges_into(BUCKET, "k", vec![(0, &mut a[..]), (7 * MIB as u64, &mut b[..])]).await.unwrap();
    assert!(a == body[..10] && b == body[7 * MIB..7 * MIB + 20]);
    let stats = client.stats();
    assert_eq!((stats.copied_bytes, stats.by_plan, stats.fallbacks.len()), (0, 0, 0));
    assert!(stats.connections * 2 < stats.requests, "connections are kept: {stats:?}");
    client.delete(BUCKET, "k").await.unwrap();
    assert!(client.get(BUCKET, "k").await.unwrap_err().is_not_found());
    client.delete(BUCKET, "k").await.unwrap();
}

#[tokio::test]
async fn listings_go_on_and_many_are_read_at_a_time() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    let mut keys: Vec<String> = (0..12).map(|i| format!("a/{i:02} &<\"ü")).collect();
    keys.push("b".to_owned());
    for key in &keys {
        client.put(BUCKET, key, key.as_bytes(), PutOptions::default()).await.unwrap();
    }
    let all: Vec<ListEntry> = client.list(BUCKET, ListOptions::default()).try_collect().await.unwrap();
    let listed: Vec<&str> = all
        .iter()
        .map(|entry| match entry {
            ListEntry::Object { key, size_bytes, .. } => {
                assert_eq!(*size_bytes, key.len() as u64);
                key.as_str()
            }
            ListEntry::Prefix(prefix) => panic!("{prefix}"),
        })
        .collect();
    assert_eq!(listed, keys);
    let rolled = ListOptions { delimiter: "/".to_owned(), ..ListOptions::default() };
    let rolled: Vec<ListEntry> = client.list(BUCKET, rolled).try_collect().await.unwrap();
    assert_eq!(rolled[0], ListEntry::Prefix("a/".to_owned()));
    assert_eq!(rolled.len(), 2);
    keys.push("missing".to_owned());
    let many = client.get_many(BUCKET, &keys, 4).await;
    for (key, object) in keys.iter().zip(&many) {
        match key.as_str() {
            "missing" => assert!(object.as_ref().unwrap_err().is_not_found()),
            key => assert_eq!(object.as_ref().unwrap().body.to_vec(), key.as_bytes()),
        }
    }
}

#[tokio::test]
async fn a_url_is_good_for_who_has_it() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    client.put(BUCKET, "a b", b"hello", PutOptions::default()).await.unwrap();
    let url = client.presign("GET", BUCKET, "a b", std::time::Duration::from_secs(60)).await.unwrap();
    let path = url.strip_prefix(&format!("http://{}", house.address)).unwrap();
    let mut stream = tokio::net::TcpStream::connect(house.address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", house.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    assert!(client.presign("GET", BUCKET, "k", std::time::Duration::ZERO).await.is_err());
}
