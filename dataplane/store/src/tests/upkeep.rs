//! Listing, checking and scrubbing.

use penstock_proto::DataId;
use penstock_proto::upkeep::{ShardClaim, ShardState};

use super::{MIB, SMALL_BYTES, bytes_of, get, key, open_disk, put};
use crate::testing::FaultDisk;

fn claim(stripe: u32, length: usize) -> ShardClaim {
    let key = key(1, stripe, 0);
    ShardClaim { key, crc64: penstock_digest::crc64nvme(&bytes_of(key, length)) }
}

#[tokio::test]
async fn every_shard_is_listed_once_in_pages() {
    let store = open_disk(&FaultDisk::new(SMALL_BYTES, 1)).await;
    for stripe in 0..25 {
        put(&store, key(1, stripe, 0), 100).await.unwrap();
    }
    put(&store, key(2, 0, 0), 100).await.unwrap();
    store.delete(DataId(2)).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, more) = store.list(after, 7);
        after = page.last().map(|shard| shard.key);
        seen.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(seen.iter().map(|shard| shard.key.stripe).collect::<Vec<_>>(), (0..25).collect::<Vec<_>>());
    assert!(seen.iter().all(|shard| !shard.broken && shard.crc64 == claim(shard.key.stripe, 100).crc64));
    assert_eq!(store.check(&claim(3, 100)), ShardState::Sound);
    assert_eq!(store.check(&claim(3, 99)), ShardState::Other);
    assert_eq!(store.check(&claim(25, 100)), ShardState::Missing);
    assert_eq!(store.list(Some(key(1, 24, 0)), 7), (vec![], false));
}

#[tokio::test]
async fn a_scrub_finds_every_flip_and_a_put_mends_it() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    for stripe in 0..12 {
        put(&store, key(1, stripe, 0), 100_000).await.unwrap();
    }
    let clean = scrub(&store, 250_000).await;
    assert_eq!((clean.0, clean.1, clean.2), (12, 1_200_000, vec![]));
    // The payload of a shard of 100,000 bytes is 25 blocks behind a head of one.
    let first = *disk.used_blocks().iter().find(|offset| **offset >= MIB).unwrap();
    for stripe in [2u64, 7] {
        disk.flip(first + stripe * 26 * 4096 + 4096 + 50_000, 3);
    }
    let (_, _, bad) = scrub(&store, 250_000).await;
    assert_eq!(bad, [key(1, 2, 0), key(1, 7, 0)]);
    assert_eq!(store.stats().scrubbed_bad, 2);
    assert_eq!(store.status().broken_shards, 2);
    assert_eq!(store.check(&claim(2, 100_000)), ShardState::Broken);
    let (listed, more) = store.list_broken(Some(key(1, 2, 0)), 5);
    assert_eq!((listed.len(), listed[0].key, more), (1, key(1, 7, 0), false));
    for stripe in [2, 7] {
        put(&store, key(1, stripe, 0), 100_000).await.unwrap();
        get(&store, key(1, stripe, 0), 100_000).await.unwrap();
    }
    assert_eq!(scrub(&store, 1).await.2, []);
    assert_eq!(store.status().broken_shards, 0);
}

/// A whole scrub: shards, bytes, findings.
async fn scrub(store: &crate::ShardStore, step_bytes: u64) -> (u64, u64, Vec<penstock_proto::ShardKey>) {
    let (mut shards, mut bytes, mut bad, mut after) = (0, 0, Vec::new(), None);
    loop {
        let step = store.scrub_step(after, step_bytes).await.unwrap();
        shards += step.shards;
        bytes += step.bytes;
        bad.extend(step.bad);
        match step.next {
            Some(next) => after = Some(next),
            None => return (shards, bytes, bad),
        }
    }
}

#[tokio::test]
async fn a_bad_sector_is_found_and_written_elsewhere() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 100_000).await.unwrap();
    put(&store, key(1, 1, 0), 100_000).await.unwrap();
    let first = *disk.used_blocks().iter().find(|offset| **offset >= MIB).unwrap();
    disk.fail_reads(first + 8192, 4096);
    assert_eq!(scrub(&store, MIB).await.2, [key(1, 0, 0)]);
    put(&store, key(1, 0, 0), 100_000).await.unwrap();
    get(&store, key(1, 0, 0), 100_000).await.unwrap();
    assert_eq!(scrub(&store, MIB).await.2, []);
}

#[tokio::test]
async fn a_device_that_disappears_fails_and_says_so() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 5000).await.unwrap();
    // Every operation fails from here on, as of an unplugged device.
    disk.cut_power();
    get(&store, key(1, 0, 0), 5000).await.unwrap_err();
    put(&store, key(1, 1, 0), 5000).await.unwrap_err();
    put(&store, key(1, 2, 0), 5000).await.unwrap_err();
    let status = store.status();
    assert!(status.failed, "{status:?}");
    assert_eq!(status.broken_shards, 1, "what can't be read is to be repaired");
    let store = open_disk(&disk).await;
    get(&store, key(1, 0, 0), 5000).await.expect("it is back, with what it had");
    assert!(!store.status().failed);
}

#[tokio::test]
async fn the_device_s_times_are_known() {
    let store = open_disk(&FaultDisk::new(SMALL_BYTES, 1)).await;
    put(&store, key(1, 0, 0), 5000).await.unwrap();
    get(&store, key(1, 0, 0), 5000).await.unwrap();
    let status = store.status();
    assert!(status.read_us > 0 && status.flush_us > 0, "{status:?}");
}
