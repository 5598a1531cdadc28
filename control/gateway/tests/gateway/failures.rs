//! Nodes that go away, full and overloaded houses, and objects that change under their readers.

use futures::StreamExt;
use penstock_gateway::GatewayOptions;
use penstock_gateway::api::{DeleteObject, PutObject};
use penstock_gateway::error::ErrorKind;
use penstock_meta::kv::{FaultPlan, FaultyKv};
use penstock_meta::tables::Tables;

use crate::house::{BUCKET, Held, House, MIB, Meta, NOTHING, code, get, kind, put, random_bytes, read};

fn delete(key: &str) -> DeleteObject {
    DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_m_nodes_may_be_lost_on_a_read() {
    for (k, m) in [(2, 1), (4, 2)] {
        let house = House::new(code(k, m)).await;
        let bytes = random_bytes(1, 9 * MIB + 5);
        house.put("k", &bytes).await.unwrap();
        for lost in 0..k + m {
            let lost: Vec<usize> = (0..m).map(|i| (lost + i) % (k + m)).collect();
            lost.iter().for_each(|node| house.lose(*node));
            assert!(house.get("k").await.unwrap() == bytes, "RS({k},{m}) without {lost:?}");
            lost.iter().for_each(|node| house.bring_back(*node));
        }
        (0..=m).for_each(|node| house.lose(node));
        let error = house.gateway.get_object(get("k")).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::ServiceUnavailable, "{error}");
        assert!(error.is_retryable());
        (0..=m).for_each(|node| house.bring_back(node));
        assert!(house.get("k").await.unwrap() == bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_needs_its_quorum_and_queues_what_is_missing_for_repair() {
    let house = House::new(code(4, 2)).await;
    let bytes = random_bytes(1, 9 * MIB);
    house.lose(3);
    house.put("k", &bytes).await.unwrap();
    assert!(house.get("k").await.unwrap() == bytes);
    let queue = Tables::new(house.kv.clone()).repair_queue(100).await.unwrap();
    assert_eq!(queue.len(), 3, "one entry for each stripe: {queue:?}");
    let shards = house.shards();

    house.lose(4);
    for (stored, size) in [("small", 5), ("large", 17 * MIB)] {
        let error = house.put(stored, &random_bytes(2, size)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ServiceUnavailable, "{error}");
        assert!(error.message.contains('5'), "the numbers are told: {error}");
        assert_eq!(kind(house.get(stored).await), ErrorKind::NoSuchKey);
    }
    // What the failed writes left on the nodes that answer is gone at once, the rest is for when they are back.
    let held = house.held_after_collecting().await;
    assert_eq!((held.shards, held.buffers, held.pending), (shards, 0, 0));
    assert!(held.garbage_rows > 0);
    house.bring_back(3);
    house.bring_back(4);
    assert_eq!(house.held_after_collecting().await, Held { shards, ..NOTHING });
    house.gateway.delete_object(delete("k")).await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
    assert!(Tables::new(house.kv.clone()).repair_queue(100).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_node_is_all_there_is() {
    let house = House::new(code(1, 0)).await;
    house.put("k", b"x").await.unwrap();
    house.lose(0);
    assert_eq!(kind(house.put("l", b"x").await), ErrorKind::ServiceUnavailable);
    assert_eq!(kind(house.get("k").await), ErrorKind::ServiceUnavailable);
    // Metadata does without nodes.
    assert_eq!(house.gateway.head_object(get("k")).await.unwrap().info.size_bytes, 1);
    house.put("empty", b"").await.unwrap();
    house.bring_back(0);
    assert_eq!(house.get("k").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_in_the_middle_ends_with_an_error() {
    let house = House::new(code(2, 1)).await;
    let bytes = random_bytes(1, 40 * MIB);
    house.put("k", &bytes).await.unwrap();
    let mut body = house.gateway.get_object(get("k")).await.unwrap().body.unwrap();
    let mut got = body.next().await.unwrap().unwrap().to_vec();
    house.lose(0);
    house.lose(1);
    let error = loop {
        match body.next().await {
            Some(Ok(piece)) => got.extend_from_slice(&piece),
            Some(Err(error)) => break error,
            None => panic!("the stream ends as if {} of {} bytes were all", got.len(), bytes.len()),
        }
    };
    assert_eq!(error.kind, ErrorKind::ServiceUnavailable, "{error}");
    assert!(bytes.starts_with(&got) && got.len() < bytes.len());
    assert!(body.next().await.is_none(), "nothing comes after an error");
    drop(body);
    let held = house.held_when_quiet().await;
    assert_eq!((held.buffers, held.leases, held.open_streams, held.requests), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_what_it_reads_and_its_neighbours_get_the_new() {
    let house = House::new(code(2, 1)).await;
    let (old, new) = (random_bytes(1, 30 * MIB), random_bytes(2, 30 * MIB));
    house.put("k", &old).await.unwrap();
    let shards = house.shards();
    let mut body = house.gateway.get_object(get("k")).await.unwrap().body.unwrap();
    let mut got = body.next().await.unwrap().unwrap().to_vec();

    house.put("k", &new).await.unwrap();
    // However long it takes: the grace is over, and the lease alone keeps the old bytes.
    house.collect().await;
    house.collect().await;
    assert_eq!(house.shards(), 2 * shards);
    assert!(house.get("k").await.unwrap() == new);
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == old);
    drop(body);
    assert_eq!(house.held_after_collecting().await, Held { shards, ..NOTHING });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overwrites_are_atomic_to_readers() {
    let eager = |options: &mut GatewayOptions| options.garbage_grace_ms = 0;
    let house = std::sync::Arc::new(House::with(code(2, 1), Meta::Mem, eager).await);
    let version = |seed: u64| random_bytes(seed, 4 * MIB + 4096 * seed as usize);
    let versions: Vec<Vec<u8>> = (0..6).map(version).collect();
    house.put("k", &versions[0]).await.unwrap();
    let writer = tokio::spawn({
        let (house, versions) = (house.clone(), versions.clone());
        async move {
            for round in 0..30 {
                house.put("k", &versions[round % versions.len()]).await.unwrap();
                // Without a grace, right behind the readers.
                house.gateway.collect_garbage_now().await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() || reads == 0 {
        let (answer, bytes) = read(house.gateway.get_object(get("k")).await.unwrap()).await.unwrap();
        let size = answer.info.size_bytes as usize;
        let expected = versions.iter().find(|version| version.len() == size).unwrap();
        assert!(bytes == *expected, "a mix of versions");
        reads += 1;
    }
    writer.await.unwrap();
    house.gateway.delete_object(delete("k")).await.unwrap();
    assert_eq!(house.held_after_collecting().await, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_bound_on_requests_the_answer_is_slow_down() {
    let few = |options: &mut GatewayOptions| options.requests_in_flight_max = 2;
    let house = House::with(code(2, 1), Meta::Mem, few).await;
    house.put("k", &random_bytes(1, 9 * MIB)).await.unwrap();
    let one = house.gateway.get_object(get("k")).await.unwrap();
    let two = house.gateway.get_object(get("k")).await.unwrap();
    assert_eq!(kind(house.gateway.get_object(get("k")).await), ErrorKind::SlowDown);
    assert_eq!(kind(house.put("l", b"x").await), ErrorKind::SlowDown);
    drop(one);
    house.put("l", b"x").await.unwrap();
    drop(two);
    let held = house.held_when_quiet().await;
    assert_eq!((held.requests, held.leases, held.buffers), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_shutdown_nothing_is_taken() {
    let house = House::new(code(1, 0)).await;
    house.put("k", b"x").await.unwrap();
    house.gateway.shutdown().await;
    assert_eq!(kind(house.get("k").await), ErrorKind::SlowDown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_conflicts_and_forgets_loses_nothing() {
    for seed in 0..4 {
        let house = House::new(code(1, 0)).await;
        let faulty = std::sync::Arc::new(FaultyKv::new(house.kv.clone(), FaultPlan::lively(seed)));
        let gateway = house.gateway_over(faulty.clone());
        let mut expected = std::collections::BTreeMap::new();
        for round in 0..60_u64 {
            let key = format!("k{}", round % 7);
            if round % 5 == 4 {
                let gone = gateway.delete_object(delete(&key)).await;
                gone.unwrap();
                expected.remove(&key);
            } else {
                let bytes = random_bytes(round, 100);
                gateway.put_object(PutObject { ..put(&key, &bytes) }).await.unwrap();
                expected.insert(key, bytes);
            }
        }
        assert!(faulty.injected() > 0);
        for (key, bytes) in &expected {
            assert_eq!(house.get(key).await.unwrap(), *bytes);
        }
        let held = house.held_after_collecting().await;
        assert_eq!((held.shards, held.garbage_rows), (expected.len() as u64, 0));
    }
}
