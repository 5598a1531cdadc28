//! What a client has beyond GET and PUT: uploads bit by bit, streams, copies, deletes by the thousand, conditions, shares, hedges.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use penstock_client::{
    ByteRange, ClientError, ClientOptions, CopyOptions, CopySource, DeleteKey, ErrorKind, GetOptions, HedgeOptions,
    ListEntry, ListOptions, PutOptions, UploadId,
};
use penstock_digest::crc64nvme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{BUCKET, House, MIB, by_plan, bytes, client_of, over_http};

async fn keys(client: &penstock_client::Client) -> Vec<String> {
    let entries: Vec<ListEntry> = client.list(BUCKET, ListOptions::default()).try_collect().await.unwrap();
    let key = |entry| match entry {
        ListEntry::Object { key, .. } => key,
        ListEntry::Prefix(prefix) => panic!("{prefix}"),
    };
    entries.into_iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_bit_by_bit_is_one_object_when_it_is_finished() {
    let house = House::new(0, true).await;
    for (options, split) in [(over_http(), 0), (by_plan(), 0)] {
        let client = house.client(options);
        for length in [0, 10, 5 * MIB, 17 * MIB + 3] {
            let body = bytes(length, 7);
            let put = PutOptions { part_bytes: Some(5 << 20), ..PutOptions::default() };
            let mut upload = client.upload(BUCKET, "bits", put.clone());
            for piece in body.chunks(777_777) {
                upload.write(piece).await.unwrap();
            }
            assert_eq!(upload.bytes(), length as u64);
            let done = upload.finish().await.unwrap();
            assert_eq!(done.crc64, Some(crc64nvme(&body)));
            assert!(client.get(BUCKET, "bits").await.unwrap().body.to_vec() == body);
            let done = client.put_reader(BUCKET, "read", &body[..], put.clone()).await.unwrap();
            assert_eq!(done.crc64, Some(crc64nvme(&body)));
            let pieces = body.chunks(100_000).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
            client.put_stream(BUCKET, "streamed", stream::iter(pieces), put).await.unwrap();
            for key in ["read", "streamed"] {
                let (info, range, pieces) = client.get_stream(BUCKET, key, &GetOptions::default()).await.unwrap();
                assert_eq!((info.size_bytes, range), (length as u64, 0..length as u64));
                let pieces: Vec<_> = pieces.try_collect().await.unwrap();
                assert!(pieces.iter().flat_map(|piece| piece.iter().copied()).eq(body.iter().copied()));
            }
        }
        assert_eq!(client.stats().split_reads, split);
    }
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    let put = PutOptions { part_bytes: Some(5 << 20), ..PutOptions::default() };
    let mut upload = client.upload(BUCKET, "k", put.clone());
    upload.write(&bytes(11 * MIB, 1)).await.unwrap();
    assert_eq!(client.list_uploads(BUCKET, "k").await.unwrap().len(), 1);
    upload.abort().await;
    assert!(client.list_uploads(BUCKET, "").await.unwrap().is_empty());
    let broken = stream::iter([Ok(Bytes::from(bytes(11 * MIB, 1))), Err(std::io::Error::other("the disk is gone"))]);
    let error = client.put_stream(BUCKET, "k", broken, put).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("the disk is gone"), "{error}");
    assert!(client.list_uploads(BUCKET, "").await.unwrap().is_empty());
    assert!(keys(&client).await.is_empty());
}

#[tokio::test]
async fn an_upload_goes_on_where_another_program_left_it() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    let body = bytes(12 * MIB, 3);
    let parts: Vec<&[u8]> = body.chunks(5 * MIB).collect();
    let begun = client.create_upload(BUCKET, "k", &PutOptions::default()).await.unwrap();
    client.upload_part(BUCKET, "k", &begun, 2, &[parts[1]]).await.unwrap();
    // Another process knows the key alone.
    let other = house.client(over_http());
    let open = other.list_uploads(BUCKET, "k").await.unwrap();
    assert_eq!((open.len(), open[0].key.as_str(), open[0].upload.to_string()), (1, "k", begun.to_string()));
    let upload = UploadId::from(begun.to_string().as_str());
    let mut have = other.list_parts(BUCKET, "k", &upload).await.unwrap();
    assert_eq!((have[0].number, have[0].crc64), (2, Some(crc64nvme(parts[1]))));
    for number in [1, 3] {
        have.push(other.upload_part(BUCKET, "k", &upload, number, &[parts[number as usize - 1]]).await.unwrap());
    }
    have.sort_by_key(|part| part.number);
    let done = other.complete_upload(BUCKET, "k", &upload, &have, &PutOptions::default()).await.unwrap();
    assert_eq!(done.crc64, Some(crc64nvme(&body)));
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
    // When the answer was lost, a second try finds what the first has made; and of another object it makes nothing.
    let again = other.complete_upload(BUCKET, "k", &upload, &have, &PutOptions::default()).await.unwrap();
    assert_eq!(again, done);
    client.put(BUCKET, "k", b"another", PutOptions::default()).await.unwrap();
    let error = other.complete_upload(BUCKET, "k", &upload, &have, &PutOptions::default()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn objects_are_copied_and_deleted_by_the_server() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    let put = PutOptions {
        content_type: Some("text/x".to_owned()),
        headers: vec![("Cache-Control".to_owned(), "no-store".to_owned())],
        user_metadata: vec![("A".to_owned(), "b".to_owned())],
        tags: vec![("t +".to_owned(), "v=".to_owned())],
        ..PutOptions::default()
    };
    client.put(BUCKET, "a b+ü", b"hello", put).await.unwrap();
    let from = CopySource::new(BUCKET, "a b+ü");
    client.copy(&from, BUCKET, "copy", &CopyOptions::default()).await.unwrap();
    let info = client.head(BUCKET, "copy").await.unwrap();
    assert_eq!((info.content_type.as_str(), info.header("cache-control")), ("text/x", Some("no-store")));
    assert_eq!(info.user_metadata, [("a".to_owned(), "b".to_owned())]);
    let plain = CopyOptions { replace: Some(PutOptions::default()), ..CopyOptions::default() };
    client.copy(&from, BUCKET, "plain", &plain).await.unwrap();
    assert!(client.head(BUCKET, "plain").await.unwrap().user_metadata.is_empty());
    let missing = client.copy(&CopySource::new(BUCKET, "no"), BUCKET, "x", &CopyOptions::default()).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
    let many: Vec<DeleteKey> = ["a b+ü", "copy", "never <was>"].into_iter().map(DeleteKey::from).collect();
    let outcomes = client.delete_many(BUCKET, &many).await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.outcome.is_ok()) && outcomes.len() == 3, "{outcomes:?}");
    assert_eq!(keys(&client).await, ["plain"]);
    client.create_bucket("another").await.unwrap();
    client.head_bucket("another").await.unwrap();
    let names: Vec<String> = client.list_buckets().await.unwrap().into_iter().map(|bucket| bucket.name).collect();
    assert_eq!(names, ["another", BUCKET]);
    client.delete_bucket("another").await.unwrap();
    assert!(client.head_bucket("another").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn conditions_hold_or_are_errors() {
    let house = House::new(0, true).await;
    for options in [over_http(), by_plan()] {
        let client = house.client(options);
        let body = bytes(300_000, 5);
        let done = client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
        let once = PutOptions { if_none_match: true, ..PutOptions::default() };
        let error = client.put(BUCKET, "k", &body, once).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::Precondition, Some(412)));
        let same = GetOptions { if_none_match: Some(done.etag.clone()), ..GetOptions::default() };
        let error = client.get_opts(BUCKET, "k", &same).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::Precondition, Some(304)));
        let last = GetOptions { range: Some(ByteRange::Last(10)), ..GetOptions::default() };
        assert!(client.get_opts(BUCKET, "k", &last).await.unwrap().body.to_vec() == body[299_990..]);
        let from = GetOptions { range: Some(ByteRange::From(299_000)), ..GetOptions::default() };
        let object = client.get_opts(BUCKET, "k", &from).await.unwrap();
        assert!(object.body.to_vec() == body[299_000..] && object.range == (299_000..300_000));
        let past = client.get_range(BUCKET, "k", 400_000..400_001).await.unwrap_err();
        assert_eq!(past.kind(), ErrorKind::InvalidRange, "{past}");
        // Into memory that the caller makes once the length is known, and into the pool's.
        let whole = GetOptions::default();
        let (info, range, into) = client.get_with(BUCKET, "k", &whole, |_, length| Ok(vec![1; length])).await.unwrap();
        assert!(into == body && info.size_bytes == 300_000 && range == (0..300_000));
        let before = client.stats().copied_bytes;
        let buffer = client.buffer(body.len()).await.unwrap();
        let address = buffer.as_ptr();
        let (_, buffer) = client.get_into_buffer(BUCKET, "k", &whole, buffer).await.unwrap();
        assert!(buffer[..] == body && buffer.as_ptr() == address);
        assert_eq!(client.stats().copied_bytes, before, "nothing was copied");
        let wrong = client.get_into_buffer(BUCKET, "k", &whole, client.buffer(5).await.unwrap()).await.unwrap_err();
        assert!(matches!(wrong, ClientError::Size { destination_bytes: 5, object_bytes: 300_000 }), "{wrong}");
        // What has landed in one piece may be written to.
        let mut mine = client.get(BUCKET, "k").await.unwrap().body.try_into_mut().unwrap();
        mine[0] ^= 1;
    }
}

#[tokio::test]
async fn readers_who_keep_what_they_read_do_not_bring_reads_to_a_halt() {
    let house = House::new(0, true).await;
    let body = bytes(MIB, 5);
    house.client(over_http()).put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    let client = house.client(ClientOptions { pool_bytes: 4 * MIB, ..over_http() });
    let kept: Vec<_> = client.get_many(BUCKET, &vec!["k".to_owned(); 9], 3).await;
    assert!(kept.iter().all(|object| object.as_ref().unwrap().body.to_vec() == body));
    assert_eq!(client.stats().heap_bytes, 5 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_objects_are_read_in_shares_when_connections_are_idle() {
    let house = House::new(0, true).await;
    let client = house.client(ClientOptions { split_bytes_min: 2 << 20, hedge: None, ..over_http() });
    let body = bytes(11 * MIB + 5, 9);
    client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    assert!(client.get(BUCKET, "k").await.unwrap().body.to_vec() == body);
    assert_eq!(client.stats().split_reads, 0, "only one connection was ever needed");
    // Several at a time: then there are several.
    let _ = client.get_many(BUCKET, &vec!["k".to_owned(); 3], 3).await;
    let before = client.stats().split_reads;
    let object = client.get(BUCKET, "k").await.unwrap();
    assert!(object.body.to_vec() == body);
    assert_eq!(client.stats().split_reads, before + 1);
    let _ = client.get_many(BUCKET, &vec!["k".to_owned(); 3], 3).await;
    let mut into = vec![0; body.len()];
    client.get_into(BUCKET, "k", &mut into).await.unwrap();
    assert!(into == body);
    assert_eq!(client.stats().corrupt, 0, "the shares' checksums make the object's");
}

/// A go-between that lets every answer but those to connection number `slow` through; that one's never come.
async fn stalling(server: std::net::SocketAddr, slow: usize, after_bytes: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let (mut room, mut passed) = (vec![0; 16 << 10], 0);
                while let Ok(got @ 1..) = from_server.read(&mut room).await {
                    let may = if number == slow { after_bytes.saturating_sub(passed).min(got) } else { got };
                    if to_client.write_all(&room[..may]).await.is_err() {
                        return;
                    }
                    passed += may;
                    if may < got {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_late_is_asked_a_second_time_within_the_budget() {
    let house = House::new(0, true).await;
    let body = bytes(3 * MIB, 9);
    let plain = house.client(over_http());
    plain.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    plain.put(BUCKET, "small", b"hello", PutOptions::default()).await.unwrap();
    let hedge =
        HedgeOptions { samples_min: 32, budget: 0.1, delay_min: Duration::from_millis(20), ..HedgeOptions::default() };
    // The first connection stands still for ever, in the middle of the long object's body, or before an answer begins: nothing but
    // a second request can end this test before the silence timeout, an hour.
    for key in ["k", "small"] {
        let address = stalling(house.address, 0, 64 << 10).await;
        let hour = Duration::from_secs(3600);
        let client = client_of(
            address,
            ClientOptions { hedge: Some(hedge), silence_timeout: hour, operation_timeout: 2 * hour, ..over_http() },
        );
        let mut want: &[u8] = b"hello";
        let mut reads = 0;
        // Answers of some hundred bytes: it learns what is usual, and earns its budget, before the connection stalls.
        while client.stats().hedges_won == 0 {
            if key == "k" && reads == 64 {
                want = &body;
            }
            let now = if reads >= 64 { key } else { "small" };
            assert!(client.get(BUCKET, now).await.unwrap().body.to_vec() == want);
            reads += 1;
        }
        let stats = client.stats();
        assert!(stats.hedges_won >= 1 && stats.hedges <= 1 + reads / 10, "{stats:?}");
        assert_eq!(stats.corrupt, 0);
    }
}

#[tokio::test]
async fn many_are_read_into_memory_of_ones_own() {
    let house = House::new(0, true).await;
    let client = house.client(over_http());
    for key in ["a", "b", "c"] {
        client.put(BUCKET, key, key.repeat(5).as_bytes(), PutOptions::default()).await.unwrap();
    }
    let (mut a, mut b, mut c) = ([0; 5], [0; 5], [0; 6]);
    let into: Vec<(&str, &mut [u8])> = vec![("a", &mut a), ("b", &mut b), ("c", &mut c)];
    let outcomes = client.get_many_into(BUCKET, into, 2).await;
    assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
    assert!(matches!(outcomes[2], Err(ClientError::Size { .. })));
    assert_eq!((&a, &b), (b"aaaaa", b"bbbbb"));
    let ranges = client.get_ranges(BUCKET, "a", &[0..2, 3..5]).await;
    assert!(ranges.iter().all(|range| range.as_ref().unwrap().body.to_vec() == b"aa"));
    let page = ListOptions { page_entries: 2, ..ListOptions::default() };
    let first = client.list_page(BUCKET, &page, None).await.unwrap();
    assert_eq!(first.entries.len(), 2);
    let second = client.list_page(BUCKET, &page, first.next.as_deref()).await.unwrap();
    assert_eq!((second.entries.len(), second.next), (1, None));
}
