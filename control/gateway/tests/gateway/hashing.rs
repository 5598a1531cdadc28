//! Hashes of bodies through the real PUT path: right, shared between requests, and gone with a client that goes.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use md5::Digest as _;
use penstock_digest::{HashScheduler, HashTier};
use penstock_gateway::api::{BodyDigests, PutObject};
use penstock_gateway::error::ErrorKind;
use tokio::sync::Barrier;

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, body, code, get, kind, part, put, random_bytes};

fn md5_hex(bytes: &[u8]) -> String {
    hex::encode(md5::Md5::digest(bytes))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

fn signed(hash: [u8; 32]) -> BodyDigests {
    BodyDigests { payload_sha256: Some(hash), ..BodyDigests::default() }
}

/// Around every border: hashed inline, one block of lanes, one chunk, several.
const SIZES: [usize; 9] = [0, 1, 4096, 4097, 65_536, 100_001, MIB, 4 * MIB, 9 * MIB + 77];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etags_and_signed_hashes_are_those_of_the_libraries() {
    let house = House::new(code(2, 1)).await;
    for (seed, size) in (1..).zip(SIZES) {
        let bytes = random_bytes(seed, size);
        let request = PutObject { digests: signed(sha256(&bytes)), ..put("good", &bytes) };
        assert_eq!(house.gateway.put_object(request).await.unwrap().etag, md5_hex(&bytes), "{size} bytes");
        assert!(house.get("good").await.unwrap() == bytes);

        let request = PutObject { digests: signed(sha256(b"something else")), ..put("bad", &bytes) };
        assert_eq!(kind(house.gateway.put_object(request).await), ErrorKind::ContentSha256Mismatch, "{size} bytes");
        assert_eq!(kind(house.gateway.get_object(get("bad")).await), ErrorKind::NoSuchKey);

        let upload = house.upload("parts").await;
        let mut request = part("parts", &upload, 1, &bytes);
        request.digests = signed(sha256(&bytes));
        assert_eq!(house.gateway.upload_part(request).await.unwrap().etag, md5_hex(&bytes));
        house.gateway.abort_upload(BUCKET, "parts", &upload).await.unwrap();
    }
    house.put("good", b"").await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bodies_in_flight_share_lanes_and_stay_apart() {
    const BODIES: usize = 16;
    let hashes = HashScheduler::new(HashTier::detect(), 1);
    let house = House::with(code(2, 1), Meta::Mem, |options| options.hashes = Some(hashes.clone())).await;
    let house = Arc::new(house);
    // Chunks meet in the worker when they come together; a machine that is busy with something else may need some tries.
    for round in 0..50 {
        let barrier = Arc::new(Barrier::new(BODIES));
        let puts = (0..BODIES).map(|number| {
            let (house, barrier) = (house.clone(), barrier.clone());
            tokio::spawn(async move {
                let bytes = random_bytes((round * BODIES + number) as u64, 2 * MIB + number);
                let shared = Bytes::from(bytes.clone());
                let stream = stream::once(async move {
                    barrier.wait().await;
                    Ok(shared)
                });
                let key = format!("{number}");
                let digests = signed(sha256(&bytes));
                let request = PutObject { body: stream.boxed(), digests, ..put(&key, &bytes) };
                let done = house.gateway.put_object(request).await.unwrap();
                assert_eq!(done.etag, md5_hex(&bytes));
                assert!(house.get(&key).await.unwrap() == bytes);
            })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await.unwrap();
        }
        let counts = house.gateway.hash_counts();
        assert_eq!(counts, hashes.counts(), "the scheduler that was handed in is the one in use");
        if counts.lanes_grouped > 4 * counts.steps_grouped && counts.steps_grouped > 0 {
            return;
        }
    }
    panic!("bodies never shared lanes: {:?}", house.gateway.hash_counts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_leaves_nothing_with_the_hashes() {
    let hashes = HashScheduler::new(HashTier::detect(), 1);
    let house = House::with(code(2, 1), Meta::Mem, |options| options.hashes = Some(hashes.clone())).await;
    let bytes = random_bytes(1, 9 * MIB);
    for pieces in [1, 45, 90] {
        // So much of the body comes, and then nothing more.
        let begun = body(&bytes).take(pieces).chain(stream::pending()).boxed();
        let request = PutObject { body: begun, digests: signed(sha256(&bytes)), ..put("k", &bytes) };
        let mut putting = Box::pin(house.gateway.put_object(request));
        for _ in 0..200 {
            assert!((&mut putting).now_or_never().is_none(), "the body has not ended");
            tokio::task::yield_now().await;
        }
        drop(putting);
        assert_eq!(house.held_after_collecting().await, NOTHING, "after {pieces} pieces");
    }
    house.put("k", &bytes).await.unwrap();
    assert!(house.get("k").await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_body_alone_is_one_stream() {
    let hashes = HashScheduler::new(HashTier::detect(), 1);
    let house = House::with(code(1, 0), Meta::Mem, |options| options.hashes = Some(hashes.clone())).await;
    house.put("small", &random_bytes(1, 4096)).await.unwrap();
    let counts = hashes.counts();
    assert_eq!((counts.chunks_inline, counts.steps_alone, counts.steps_grouped), (1, 0, 0), "hashed where it is");
    house.put("large", &random_bytes(2, 9 * MIB)).await.unwrap();
    let counts = hashes.counts();
    assert!(counts.steps_alone > 0, "{counts:?}");
    assert_eq!((counts.steps_grouped, counts.company_waits), (0, 0), "nobody is waited for: {counts:?}");
}
