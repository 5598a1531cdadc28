//! Bits that flip on a closed device: right bytes or an error, never wrong bytes.

use penstock_proto::DataId;

use super::{SMALL_BYTES, get, key, open_disk, open_on, put, quiet};
use crate::StoreError;
use crate::testing::FaultDisk;

const LENGTHS: [usize; 6] = [64, 5000, 40_000, 65_536, 200_000, 1_000_000];

/// A device with sealed extents (footers) and an open one, closed.
async fn rich_device() -> FaultDisk {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    for data in 0..26 {
        for (stripe, length) in (0..).zip(LENGTHS) {
            put(&store, key(data, stripe, 0), length).await.unwrap();
        }
    }
    store.delete(DataId(25)).await.unwrap();
    store.close().await;
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_never_make_wrong_bytes() {
    let disk = rich_device().await;
    let mut random = 7u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let mut noticed = 0;
    // Superblock and table have copies: with one flip in them, nothing may be refused. (Two could meet both copies.)
    let (structures, extents): (Vec<u64>, Vec<u64>) =
        disk.used_blocks().into_iter().partition(|offset| *offset < 1 << 20 || *offset == SMALL_BYTES - 4096);
    for round in 0..60 {
        let disk = disk.copy(round);
        for flip in 0..40 {
            let from = if flip == 0 { &structures } else { &extents };
            let offset = from[next() % from.len()] + (next() % 4096) as u64;
            disk.flip(offset, (next() % 8) as u8);
        }
        let store = open_on(disk.attach(), quiet()).await.unwrap();
        for data in 0..25 {
            for (stripe, length) in (0..).zip(LENGTHS) {
                let (from, to) = (length / 5, length / 5 + next() % (length / 2) + 1);
                let bytes = super::bytes_of(key(data, stripe, 0), length);
                let crc64 = penstock_digest::crc64nvme(&bytes);
                if let Ok((part, _)) = store.get(key(data, stripe, 0), from as u32, (to - from) as u32, crc64).await {
                    assert!(part[..] == bytes[from..to], "wrong bytes in a range");
                }
                // `get` panics on wrong bytes.
                match get(&store, key(data, stripe, 0), length).await {
                    Ok(()) => {}
                    Err(StoreError::Corrupt { .. } | StoreError::NoSuchShard) => noticed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    assert!(noticed > 100, "the flips hit something: {noticed}");
}

#[tokio::test]
async fn rot_is_counted_and_repaired_by_a_put() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 200_000).await.unwrap();
    let last = disk.used_blocks().into_iter().filter(|offset| *offset < SMALL_BYTES - 4096).max().unwrap();
    put(&store, key(1, 1, 0), 200_000).await.unwrap();
    disk.flip(last, 3);
    let crc64 = penstock_digest::crc64nvme(&super::bytes_of(key(1, 0, 0), 200_000));
    store.get(key(1, 0, 0), 0, 65_536, crc64).await.expect("the rot is in another block");
    assert!(matches!(get(&store, key(1, 0, 0), 200_000).await, Err(StoreError::Corrupt { .. })));
    assert!(matches!(store.get(key(1, 0, 0), 199_999, 1, crc64).await, Err(StoreError::Corrupt { .. })));
    assert_eq!(store.stats().corrupt_reads, 2);
    get(&store, key(1, 1, 0), 200_000).await.unwrap();
    put(&store, key(1, 0, 0), 200_000).await.unwrap();
    get(&store, key(1, 0, 0), 200_000).await.unwrap();
    assert_eq!(store.status().shards, 2);
    let store = open_disk(&disk).await;
    get(&store, key(1, 0, 0), 200_000).await.expect("the newer copy counts");
    assert_eq!(store.delete(DataId(1)).await, Ok(2));
    let store = open_disk(&disk).await;
    assert_eq!(store.status().shards, 0, "neither copy comes back");
}

#[tokio::test]
async fn an_acknowledged_frame_that_rots_is_counted_and_the_rest_is_read() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    let mut ends = Vec::new();
    for stripe in 0..6 {
        put(&store, key(1, stripe, 0), 10_000).await.unwrap();
        ends.push(disk.used_blocks().into_iter().filter(|offset| *offset < SMALL_BYTES - 4096).max().unwrap());
    }
    // The head of the third frame.
    disk.flip(ends[1] + 4096 + 40, 0);
    // Not closed: the frames themselves say what was acknowledged.
    let store = open_disk(&disk).await;
    assert_eq!(store.stats().frames_lost, 1);
    for stripe in 0..6 {
        let expected = if stripe == 2 { Err(StoreError::NoSuchShard) } else { Ok(()) };
        assert_eq!(get(&store, key(1, stripe, 0), 10_000).await, expected);
    }
    put(&store, key(1, 2, 0), 10_000).await.unwrap();
    let store = open_disk(&disk).await;
    for stripe in 0..6 {
        get(&store, key(1, stripe, 0), 10_000).await.unwrap();
    }
}

#[tokio::test]
async fn the_last_frame_of_a_closed_store_is_rot_not_a_torn_tail() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 10_000).await.unwrap();
    store.close().await;
    let first = *disk.used_blocks().iter().find(|offset| **offset >= 1 << 20).unwrap();
    disk.flip(first + 4096, 0);
    let store = open_disk(&disk).await;
    assert!(matches!(get(&store, key(1, 0, 0), 10_000).await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_rotten_footer_costs_time_not_shards() {
    let disk = rich_device().await;
    // Footers begin on blocks with their magic.
    let pool = super::pool();
    let device = disk.attach();
    let mut footers = Vec::new();
    for offset in disk.used_blocks() {
        let block = device.read(offset, pool.try_acquire(4096).unwrap()).await.unwrap();
        if block.starts_with(b"PSTINDEX") {
            footers.push(offset);
        }
    }
    assert!(!footers.is_empty());
    for offset in &footers {
        disk.flip(offset + 200, 1);
    }
    let store = open_disk(&disk).await;
    assert_eq!(store.stats().footers_lost, footers.len() as u64);
    assert_eq!(store.stats().frames_lost, 0);
    for data in 0..25 {
        for (stripe, length) in (0..).zip(LENGTHS) {
            get(&store, key(data, stripe, 0), length).await.unwrap();
        }
    }
    assert!(!store.contains(key(25, 0, 0)));
}

#[tokio::test]
async fn a_table_that_is_lost_in_both_copies_is_refused_loudly() {
    let disk = rich_device().await;
    for copy in [128 << 10, (128 << 10) + 4096] {
        disk.flip(copy + 100, 0);
    }
    let refused = open_on(disk.attach(), quiet()).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Format { what }) if what.contains("extent table")));
}

#[tokio::test]
async fn a_rotten_copy_does_not_outlive_the_tombstone() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    put(&store, key(1, 0, 0), 300_000).await.unwrap();
    let last = disk.used_blocks().into_iter().filter(|offset| *offset < SMALL_BYTES - 4096).max().unwrap();
    // An extent of shards that stay, but for that one.
    for data in 2..60 {
        put(&store, key(data, 0, 0), 300_000).await.unwrap();
    }
    disk.flip(last, 0);
    get(&store, key(1, 0, 0), 300_000).await.unwrap_err();
    put(&store, key(1, 0, 0), 300_000).await.unwrap();
    assert_eq!(store.delete(DataId(1)).await, Ok(1));
    // The extent of the good copy and of the tombstone is emptied and freed.
    for data in 1000..1060 {
        put(&store, key(data, 0, 0), 300_000).await.unwrap();
    }
    for data in 1000..1060 {
        store.delete(DataId(data)).await.unwrap();
    }
    assert!(store.compact().await.unwrap() > 0);
    let store = open_disk(&disk).await;
    assert!(!store.contains(key(1, 0, 0)), "the rotten copy came back");
    get(&store, key(2, 0, 0), 300_000).await.unwrap();
}
