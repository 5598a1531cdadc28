//! One injected fault at a time.

use penstock_proto::DataId;

use super::{MIB, SMALL_BYTES, get, key, open_disk, open_on, put, quiet};
use crate::testing::FaultDisk;
use crate::{ShardStore, StoreError};

#[tokio::test]
async fn a_failed_flush_fails_the_device_for_good() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 5000).await.unwrap();
    disk.fail_flushes(1);
    assert!(matches!(put(&store, key(1, 1, 0), 5000).await, Err(StoreError::DeviceFailed { .. })));
    let flushes = disk.flushes();
    for _ in 0..3 {
        assert!(matches!(put(&store, key(1, 2, 0), 64).await, Err(StoreError::DeviceFailed { .. })));
        assert!(matches!(store.delete(DataId(1)).await, Err(StoreError::DeviceFailed { .. })));
    }
    assert_eq!(disk.flushes(), flushes, "no second try");
    assert!(store.status().failed);
    get(&store, key(1, 0, 0), 5000).await.expect("reads go on");
    assert!(!store.contains(key(1, 1, 0)), "what was not flushed does not show");
}

#[tokio::test]
async fn a_failed_write_moves_on_to_another_extent() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 5000).await.unwrap();
    disk.fail_writes(1);
    put(&store, key(1, 1, 0), 100_000).await.unwrap();
    put(&store, key(1, 2, 0), 64).await.unwrap();
    assert_eq!(store.stats().write_errors, 1);
    assert!(!store.status().failed);
    for round in 0..2 {
        let store = if round == 0 { store.clone() } else { open_disk(&disk).await };
        for (stripe, length) in [(0, 5000), (1, 100_000), (2, 64)] {
            get(&store, key(1, stripe, 0), length).await.unwrap();
        }
        assert_eq!(store.status().shards, 3);
        assert_eq!(store.stats().frames_lost, 0);
    }
}

#[tokio::test]
async fn a_second_failed_write_fails_the_device() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 5000).await.unwrap();
    disk.fail_writes(100);
    assert!(matches!(put(&store, key(1, 1, 0), 64).await, Err(StoreError::DeviceFailed { .. })));
    assert!(store.status().failed);
    get(&store, key(1, 0, 0), 5000).await.expect("reads go on");
    disk.fail_writes(0);
    let store = open_disk(&disk).await;
    get(&store, key(1, 0, 0), 5000).await.unwrap();
    put(&store, key(1, 2, 0), 64).await.expect("a restart on a device that works again");
}

#[tokio::test]
async fn a_read_error_is_an_error_and_no_other_shard_suffers() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 100_000).await.unwrap();
    let data = disk.used_blocks().into_iter().max().unwrap();
    put(&store, key(1, 1, 0), 100_000).await.unwrap();
    // Among the used blocks is the last superblock, at the end.
    assert_eq!(data, SMALL_BYTES - 4096);
    let first = *disk.used_blocks().iter().find(|offset| **offset >= MIB).unwrap();
    disk.fail_reads(first + 8192, 4096);
    assert!(matches!(get(&store, key(1, 0, 0), 100_000).await, Err(StoreError::Io { .. })));
    assert_eq!(store.stats().read_errors, 1);
    get(&store, key(1, 1, 0), 100_000).await.unwrap();
    store.close().await;
    let store = open_disk(&disk).await;
    assert!(matches!(get(&store, key(1, 0, 0), 100_000).await, Err(StoreError::Io { .. })));
    get(&store, key(1, 1, 0), 100_000).await.unwrap();
}

/// Puts shards of data `from` and on until there is no room. Answers how many there were.
async fn fill(store: &ShardStore, from: u128, length: usize) -> u32 {
    for count in 0..100_000 {
        match put(store, key(from + u128::from(count), 0, 0), length).await {
            Ok(_) => {}
            Err(StoreError::NoSpace) => return count,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the device is endless")
}

async fn full_and_empty_again(disk: &FaultDisk) {
    let store = open_disk(disk).await;
    let length = 1_000_000;
    let stored = fill(&store, 0, length).await;
    assert!(stored > 30, "only {stored} shards fit");
    assert_eq!(put(&store, key(1 << 100, 0, 0), length).await, Err(StoreError::NoSpace));
    assert!(!store.status().failed);
    for shard in 0..stored {
        get(&store, key(u128::from(shard), 0, 0), length).await.expect("reads go on");
    }
    for shard in 0..stored / 2 {
        assert_eq!(store.delete(DataId(u128::from(shard))).await, Ok(1), "deletes go on");
    }
    store.compact().await.unwrap();
    for shard in 0..stored / 4 {
        put(&store, key(u128::from(shard), 1 << 20, 0), length).await.expect_err("deleted data stays so");
        put(&store, key(u128::from(shard) + (1 << 64), 0, 0), length).await.expect("there is room again");
    }
    let store = open_disk(disk).await;
    for shard in stored / 2..stored {
        get(&store, key(u128::from(shard), 0, 0), length).await.unwrap();
    }
    for shard in 0..stored / 2 {
        assert!(!store.contains(key(u128::from(shard), 0, 0)));
    }
    // Another round, for what the first may have used up for good.
    assert!(fill(&store, 1 << 65, length).await > 0);
    for shard in stored / 2..stored {
        store.delete(DataId(u128::from(shard))).await.unwrap();
    }
    store.compact().await.unwrap();
    put(&store, key(1 << 101, 0, 0), length).await.unwrap();
}

#[tokio::test]
async fn a_full_device_refuses_puts_and_recovers() {
    full_and_empty_again(&FaultDisk::new(SMALL_BYTES, 1)).await;
}

#[tokio::test]
async fn a_full_filesystem_refuses_puts_and_recovers() {
    // The sparse file could hold 15 extents, the filesystem beneath 5.
    let disk = FaultDisk::new(2 * SMALL_BYTES, 1);
    disk.limit_room(5 * 16 * MIB + MIB);
    full_and_empty_again(&disk).await;
    assert!(disk.allocated_bytes() <= 5 * 16 * MIB + MIB);
}

#[tokio::test]
async fn room_on_the_filesystem_is_given_back() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    let before = disk.allocated_bytes();
    let stored = fill(&store, 0, 1_000_000).await;
    for shard in 0..stored {
        store.delete(DataId(u128::from(shard))).await.unwrap();
    }
    store.compact().await.unwrap();
    assert_eq!(store.status().live_bytes, 0);
    assert!(disk.allocated_bytes() <= before + 2 * 16 * MIB, "{} MiB remain", disk.allocated_bytes() / MIB);
}

#[tokio::test]
async fn a_format_that_was_cut_off_starts_over() {
    let mut formatted_twice = 0;
    for operations in 0..40 {
        let disk = FaultDisk::new(SMALL_BYTES, operations);
        disk.cut_power_after(operations);
        let first = open_on(disk.attach(), quiet()).await;
        formatted_twice += u32::from(first.is_err());
        if let Ok(store) = first {
            let _ = put(&store, key(1, 0, 0), 64).await;
        }
        disk.cut_power();
        let store = open_on(disk.attach(), quiet()).await.unwrap_or_else(|error| panic!("{operations}: {error}"));
        put(&store, key(2, 0, 0), 64).await.unwrap();
    }
    assert!(formatted_twice > 5);
}

#[tokio::test]
async fn what_a_start_shows_is_durable() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 64).await.unwrap();
    // The frame is written; the process dies in the flush, so nobody is answered and nothing is durable.
    disk.die_after(1);
    put(&store, key(1, 1, 0), 100_000).await.unwrap_err();
    let store = open_disk(&disk).await;
    get(&store, key(1, 1, 0), 100_000).await.expect("the whole frame is in the disk's cache");
    put(&store, key(1, 1, 0), 100_000).await.expect("so that the same shard again is answered without a write");
    disk.cut_power();
    let store = open_disk(&disk).await;
    get(&store, key(1, 1, 0), 100_000).await.expect("what was acknowledged stays");
}
