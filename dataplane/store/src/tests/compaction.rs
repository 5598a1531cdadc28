//! Room comes back, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_proto::DataId;

use super::{MIB, SMALL_BYTES, get, key, open_disk, open_on, put, quiet};
use crate::testing::FaultDisk;
use crate::{ShardStore, StoreError, StoreOptions};

const LENGTH: usize = 300_000;

/// Fills four extents with many data ids, each with one shard.
async fn fill(store: &ShardStore) -> u128 {
    let count = 4 * 16 * MIB as u128 / LENGTH as u128;
    for data in 0..count {
        put(store, key(data, 0, 0), LENGTH).await.unwrap();
    }
    count
}

#[tokio::test]
async fn live_shards_move_and_space_comes_back() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    let count = fill(&store).await;
    let full = store.status().free_bytes;
    for data in (0..count).filter(|data| data % 4 != 0) {
        store.delete(DataId(data)).await.unwrap();
    }
    assert!(store.compact().await.unwrap() >= 3);
    let stats = store.stats();
    assert!(stats.moved_shards > 0 && stats.extents_freed >= 3);
    assert!(store.status().free_bytes >= full + 2 * 16 * MIB);
    for round in 0..3 {
        let store = if round == 0 { store.clone() } else { open_disk(&disk).await };
        for data in 0..count {
            let expected = if data % 4 == 0 { Ok(()) } else { Err(StoreError::NoSuchShard) };
            assert_eq!(get(&store, key(data, 0, 0), LENGTH).await, expected);
        }
        assert_eq!(store.stats().corrupt_reads, 0);
    }
}

#[tokio::test]
async fn there_is_an_end_to_it() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    let mut stored = 0;
    // As full as it gets, with shards that leave a good part of every extent unused.
    while put(&store, key(stored, 0, 0), 4 << 20).await.is_ok() {
        stored += 1;
    }
    for data in (0..stored).step_by(5) {
        store.delete(DataId(data)).await.unwrap();
    }
    store.compact().await.unwrap();
    let moved = store.stats().moved_bytes;
    for _ in 0..5 {
        store.compact().await.unwrap();
    }
    assert_eq!(store.stats().moved_bytes, moved, "nothing is gained by moving on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_get_right_bytes_while_extents_come_and_go() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store =
        open_on(disk.attach(), StoreOptions { compaction_bytes_per_s: u64::MAX >> 20, compaction: true, ..quiet() })
            .await
            .unwrap();
    let count = fill(&store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4u128)
        .map(|reader| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut reads = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    for data in (0..count).filter(|data| data % 8 == reader % 2 * 4) {
                        get(&store, key(data, 0, 0), LENGTH).await.unwrap();
                        reads += 1;
                    }
                }
                reads
            })
        })
        .collect();
    // Each round kills what the last one put, so that slots are used anew under the readers.
    let mut young: Vec<u128> = (0..count).filter(|data| data % 4 != 0).collect();
    for round in 1..=4u128 {
        for data in young.drain(..) {
            store.delete(DataId(data)).await.unwrap();
        }
        store.compact().await.unwrap();
        for data in 0..60 {
            let data = (round << 64) + data;
            put(&store, key(data, 0, 0), LENGTH).await.unwrap();
            young.push(data);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let stats = store.stats();
    assert!(stats.extents_freed >= 4, "{stats:?}");
    assert_eq!(stats.corrupt_reads + stats.read_errors, 0);
    store.close().await;
}

#[tokio::test]
async fn tombstones_outlive_the_extents_they_were_written_to() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    // Long-lived shards with one short-lived each among them, in one extent after the other.
    for data in 0..150u128 {
        put(&store, key(data, 0, 0), LENGTH).await.unwrap();
        put(&store, key(1000 + data, 0, 0), 5000).await.unwrap();
    }
    for data in 0..150u128 {
        store.delete(DataId(1000 + data)).await.unwrap();
    }
    // The extent that holds the tombstones fills up with what is deleted soon, and is emptied.
    for round in 0..3u128 {
        for data in 0..80 {
            put(&store, key((round << 64) + 2000 + data, 0, 0), LENGTH).await.unwrap();
        }
        for data in 0..80 {
            store.delete(DataId((round << 64) + 2000 + data)).await.unwrap();
        }
        store.compact().await.unwrap();
    }
    assert!(store.stats().extents_freed > 3);
    for _ in 0..2 {
        let store = open_disk(&disk).await;
        for data in 0..150u128 {
            assert!(!store.contains(key(1000 + data, 0, 0)), "deleted data came back");
            get(&store, key(data, 0, 0), LENGTH).await.unwrap();
        }
        assert_eq!(store.status().shards, 150);
        assert_eq!(put(&store, key(1007, 0, 0), 64).await, Err(StoreError::DataDeleted));
    }
}

#[tokio::test]
async fn a_broken_shard_stays_where_it_is_and_says_so() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(0, 0, 0), LENGTH).await.unwrap();
    let last = disk.used_blocks().into_iter().filter(|offset| *offset < SMALL_BYTES - 4096).max().unwrap();
    for data in 1..110u128 {
        put(&store, key(data, 0, 0), LENGTH).await.unwrap();
    }
    for data in 2..110u128 {
        store.delete(DataId(data)).await.unwrap();
    }
    disk.flip(last, 0);
    store.compact().await.unwrap();
    assert!(matches!(get(&store, key(0, 0, 0), LENGTH).await, Err(StoreError::Corrupt { .. })));
    get(&store, key(1, 0, 0), LENGTH).await.unwrap();
    put(&store, key(0, 0, 0), LENGTH).await.unwrap();
    get(&store, key(0, 0, 0), LENGTH).await.unwrap();
    store.compact().await.unwrap();
    let store = open_disk(&disk).await;
    get(&store, key(0, 0, 0), LENGTH).await.unwrap();
    get(&store, key(1, 0, 0), LENGTH).await.unwrap();
}

#[tokio::test]
async fn a_slot_is_not_used_anew_under_a_reader() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    for data in 0..110u128 {
        put(&store, key(data, 0, 0), LENGTH).await.unwrap();
    }
    let reader = store.hold(key(3, 0, 0)).unwrap();
    for data in 0..50u128 {
        store.delete(DataId(data)).await.unwrap();
    }
    assert_eq!(store.compact().await, Ok(0), "the reader may still be reading");
    assert!(!store.contains(key(3, 0, 0)));
    drop(reader);
    assert_eq!(store.compact().await, Ok(1));
}
