//! Digests that are promised with a body, before it or behind it, and clients that stop in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, Md5Hasher};
use penstock_gateway::api::{BodyDigests, ByteStream, PutObject, TrailingChecksum};
use penstock_gateway::error::{Error, ErrorKind};

use crate::house::{House, MIB, Meta, NOTHING, code, kind, put, random_bytes};

fn checksum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> ChecksumValue {
    let mut hasher = ChecksumHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promised_digests_are_kept_or_nothing_is() {
    let house = House::new(code(2, 1)).await;
    for size in [0, 10, 5 * MIB] {
        let (bytes, other) = (random_bytes(1, size), random_bytes(2, size + 1));
        for algorithm in ChecksumAlgorithm::ALL {
            let (right, wrong) = (checksum(algorithm, &bytes), checksum(algorithm, &other));
            let header = |value| BodyDigests { checksum: Some(value), ..BodyDigests::default() };
            let trailer = |value: ChecksumValue| BodyDigests {
                trailing: Some(TrailingChecksum { algorithm, value: Arc::new(move || Ok(value)) }),
                ..BodyDigests::default()
            };
            let compute = BodyDigests { compute: Some(algorithm), ..BodyDigests::default() };
            for digests in [header(right), trailer(right), compute] {
                let done = house.gateway.put_object(PutObject { digests, ..put("good", &bytes) }).await.unwrap();
                assert_eq!(done.checksum.unwrap().value, right, "{algorithm} of {size}");
            }
            for digests in [header(wrong), trailer(wrong)] {
                let request = PutObject { digests, ..put("bad", &bytes) };
                assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::BadDigest);
            }
        }
        let md5 = |bytes: &[u8]| BodyDigests { md5: Some(Md5Hasher::of(bytes)), ..BodyDigests::default() };
        house.gateway.put_object(PutObject { digests: md5(&bytes), ..put("good", &bytes) }).await.unwrap();
        let request = PutObject { digests: md5(&other), ..put("bad", &bytes) };
        assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::BadDigest);
    }
    assert_eq!(kind(house.get("bad").await), ErrorKind::NoSuchKey);
    house.put("good", b"").await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test]
async fn a_trailer_is_asked_for_once_and_after_the_body() {
    let house = House::new(code(1, 0)).await;
    let (read, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body: ByteStream = Box::pin(stream::iter(0..3).map({
        let read = read.clone();
        move |_| {
            read.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(b"abc"))
        }
    }));
    let value = {
        let asked = asked.clone();
        Arc::new(move || {
            assert_eq!(read.load(Ordering::SeqCst), 3);
            asked.fetch_add(1, Ordering::SeqCst);
            Err(Error::new(ErrorKind::InvalidRequest, "there is no trailer"))
        })
    };
    let trailing = Some(TrailingChecksum { algorithm: ChecksumAlgorithm::Crc32, value });
    let digests = BodyDigests { trailing, ..BodyDigests::default() };
    let request = PutObject { body, content_bytes: None, digests, ..put("k", b"") };
    assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::InvalidRequest);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let house = House::new(code(2, 1)).await;
    for before in [0, 1, 9 * MIB] {
        let broken = || -> ByteStream {
            let first = Ok(Bytes::from(random_bytes(3, before)));
            Box::pin(stream::iter([first, Err(Error::new(ErrorKind::IncompleteBody, "the connection is gone"))]))
        };
        for content_bytes in [None, Some(20 * MIB as u64)] {
            let request = PutObject { body: broken(), content_bytes, ..put("k", b"") };
            assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::IncompleteBody);
        }
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test]
async fn a_client_that_falls_silent_is_not_waited_for() {
    let quick = |options: &mut penstock_gateway::GatewayOptions| {
        options.body_idle_timeout = Duration::from_millis(20);
    };
    let house = House::with(code(2, 1), Meta::Mem, quick).await;
    let first = Bytes::from(random_bytes(3, 5 * MIB));
    let body: ByteStream = Box::pin(stream::iter([Ok(first)]).chain(stream::pending()));
    let request = PutObject { body, content_bytes: None, ..put("k", b"") };
    assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::RequestTimeout);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_put_leaves_nothing() {
    let house = House::new(code(2, 1)).await;
    house.put("k", b"before").await.unwrap();
    let shards = house.shards();
    for stored in [1, MIB, 9 * MIB, 17 * MIB] {
        let (all_taken, taken) = tokio::sync::oneshot::channel::<()>();
        let mut all_taken = Some(all_taken);
        let first = stream::iter([Ok(Bytes::from(random_bytes(3, stored)))]);
        let body: ByteStream = Box::pin(first.chain(stream::poll_fn(move |_| {
            all_taken.take();
            std::task::Poll::Pending
        })));
        let gateway = house.gateway.clone();
        let request = PutObject { body, content_bytes: None, ..put("k", b"") };
        let client = tokio::spawn(async move { gateway.put_object(request).await });
        // The sender is dropped when the body has been read as far as it goes.
        assert!(taken.await.is_err());
        assert_eq!(house.gateway.usage().await.unwrap().puts_in_flight, 1);
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        let held = house.held_after_collecting().await;
        assert_eq!(held, crate::house::Held { shards, ..NOTHING }, "{stored}");
        assert_eq!(house.get("k").await.unwrap(), b"before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_takes_few_buffers() {
    let house = House::new(code(2, 1)).await;
    let piece = Bytes::from(random_bytes(4, MIB));
    let body: ByteStream = Box::pin(stream::iter(vec![Ok(piece); 120]));
    house.gateway.put_object(PutObject { body, content_bytes: Some(120 * MIB as u64), ..put("k", b"") }).await.unwrap();
    // Three chunks of 4 MiB, with a parity shard of half that (2 MiB and a pad, in blocks of powers of two).
    let peak = house.pool.stats().peak_bytes;
    assert!(peak <= 3 * (4 + 4) * MIB, "{peak}");
    let mut read = house.gateway.get_object(crate::house::get("k")).await.unwrap().body.unwrap();
    let mut bytes = 0;
    while let Some(piece) = read.next().await {
        bytes += piece.unwrap().len();
    }
    assert_eq!(bytes, 120 * MIB);
    let peak = house.pool.stats().peak_bytes;
    assert!(peak <= 3 * (4 + 4) * MIB, "{peak}");
}
