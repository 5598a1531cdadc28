//! What every store does, whatever is beneath: on both engines and on the fault-injecting device.

use std::future::Future;
use std::pin::Pin;

use penstock_buf::Buf;
use penstock_proto::DataId;
use penstock_proto::limits::SHARD_BYTES_MAX;

use super::{MIB, SMALL_BYTES, aligned, bytes_of, get, key, open_disk, pool, put, quiet};
use crate::testing::FaultDisk;
use crate::{EngineKind, ShardStore, StoreError, StoreOptions};

type Opened<'a> = Pin<Box<dyn Future<Output = ShardStore> + Send + 'a>>;

/// `reopen` opens the same device again.
async fn conforms<'a>(reopen: impl Fn() -> Opened<'a>) {
    let store = reopen().await;
    let lengths = [1, 64, 4095, 4096, 32_767, 32_768, 65_536, 65_600, 419_456, 1 << 20, SHARD_BYTES_MAX];
    everything_comes_back(&store, &lengths).await;
    ranges(&store, &lengths).await;
    refusals(&store).await;
    aligned_payloads(&store).await;
    deletes(&store).await;
    let status = store.status();
    assert_eq!(status.shards, lengths.len() as u64 + 3);
    assert_eq!(status.open_extents, 1);
    assert!(!status.failed && status.free_bytes > 0 && status.free_bytes < status.capacity_bytes);
    store.close().await;
    store.close().await;
    assert_eq!(put(&store, key(9, 0, 0), 64).await, Err(StoreError::Closed));
    assert_eq!(get(&store, key(1, 0, 0), lengths[0]).await, Err(StoreError::Closed));

    for _ in 0..2 {
        let store = reopen().await;
        assert_eq!(store.status().shards, status.shards);
        assert_eq!(store.status().live_bytes, status.live_bytes);
        for (stripe, length) in (0..).zip(lengths) {
            get(&store, key(1, stripe, 0), length).await.unwrap();
        }
        ranges(&store, &lengths).await;
        assert_eq!(get(&store, key(2, 0, 0), 64).await, Err(StoreError::NoSuchShard));
        assert_eq!(put(&store, key(2, 0, 0), 64).await, Err(StoreError::DataDeleted));
        let stats = store.stats();
        assert_eq!((stats.frames_lost, stats.torn_tails, stats.footers_lost, stats.corrupt_reads), (0, 0, 0, 0));
        store.close().await;
    }
}

async fn everything_comes_back(store: &ShardStore, lengths: &[usize]) {
    for (stripe, length) in (0..).zip(lengths) {
        assert!(!store.contains(key(1, stripe, 0)));
        put(store, key(1, stripe, 0), *length).await.unwrap();
        assert!(store.contains(key(1, stripe, 0)));
        get(store, key(1, stripe, 0), *length).await.unwrap();
    }
}

async fn ranges(store: &ShardStore, lengths: &[usize]) {
    for (stripe, length) in (0..).zip(lengths) {
        let key = key(1, stripe, 0);
        let bytes = bytes_of(key, *length);
        let crc64 = penstock_digest::crc64nvme(&bytes);
        for (from, to) in [(0, 1), (length / 2, *length), (length - 1, *length), (length / 3, length / 3 + length / 4)]
        {
            if from < to {
                let (found, shard_bytes) = store.get(key, from as u32, (to - from) as u32, crc64).await.unwrap();
                assert_eq!(shard_bytes as usize, *length);
                assert!(found[..] == bytes[from..to], "bytes {from}..{to} of {length}");
            }
        }
        let past = store.get(key, 1, *length as u32, crc64).await;
        assert_eq!(past.map(|_| ()), Err(StoreError::OutOfRange { shard_bytes: *length as u64 }));
        assert!(matches!(store.get(key, 0, 0, crc64).await, Err(StoreError::OutOfRange { .. })));
        assert!(matches!(store.get(key, u32::MAX, 1, crc64).await, Err(StoreError::OutOfRange { .. })));
    }
}

async fn refusals(store: &ShardStore) {
    let shard = key(1, 1, 0);
    put(store, shard, 64).await.expect("the same shard again");
    let other = Buf::from(vec![7; 64]);
    let crc64 = penstock_digest::crc64nvme(&other);
    assert_eq!(store.put(shard, other.clone(), crc64).await, Err(StoreError::Conflict));
    let wrong = store.put(key(8, 0, 0), other.clone(), crc64 ^ 1).await;
    assert_eq!(wrong, Err(StoreError::ChecksumMismatch { expected: crc64 ^ 1, actual: crc64 }));
    assert!(!store.contains(key(8, 0, 0)));
    assert_eq!(store.get(key(8, 0, 0), 0, 1, crc64).await.map(|_| ()), Err(StoreError::NoSuchShard));
    assert!(matches!(store.get(shard, 0, 64, crc64).await, Err(StoreError::Corrupt { .. })), "another checksum");
    get(store, shard, 64).await.expect("asking for another checksum breaks nothing");
    for length in [0, SHARD_BYTES_MAX + 1] {
        let put = put(store, key(8, 0, 0), length).await;
        assert_eq!(put, Err(StoreError::OutOfRange { shard_bytes: length as u64 }));
    }
}

async fn aligned_payloads(store: &ShardStore) {
    let pool = pool();
    for (shard, length) in [(0, 40_000), (1, 65_536), (2, 1_000_000)] {
        let key = key(3, 0, shard);
        let bytes = bytes_of(key, length);
        let crc64 = penstock_digest::crc64nvme(&bytes);
        store.put(key, aligned(&pool, &bytes), crc64).await.unwrap();
        get(store, key, length).await.unwrap();
    }
    assert_eq!(pool.stats().in_use_bytes, 0, "payloads go back to their pool");
}

async fn deletes(store: &ShardStore) {
    for stripe in 0..5 {
        for shard in 0..3 {
            put(store, key(2, stripe, shard), 64).await.unwrap();
        }
    }
    let neighbours = [key(1, 0, 0), key(3, 0, 0)];
    assert_eq!(store.delete(DataId(2)).await, Ok(15));
    assert_eq!(store.delete(DataId(2)).await, Ok(0), "again");
    assert_eq!(store.delete(DataId(77)).await, Ok(0), "never there");
    assert_eq!(get(store, key(2, 4, 2), 64).await, Err(StoreError::NoSuchShard));
    assert_eq!(put(store, key(2, 0, 0), 64).await, Err(StoreError::DataDeleted));
    assert_eq!(put(store, key(77, 0, 0), 64).await, Err(StoreError::DataDeleted));
    assert!(neighbours.iter().all(|neighbour| store.contains(*neighbour)));
}

async fn conforms_on_file(engine: EngineKind, direct: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.pst");
    let options = StoreOptions { path, capacity_bytes: 1 << 30, engine, direct, ..quiet() };
    conforms(|| Box::pin(async { ShardStore::open(options.clone(), pool()).await.unwrap() })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_pread() {
    conforms_on_file(EngineKind::Pread, true).await;
    conforms_on_file(EngineKind::Pread, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_io_uring() {
    conforms_on_file(EngineKind::IoUring, true).await;
    conforms_on_file(EngineKind::IoUring, false).await;
}

#[tokio::test]
async fn on_the_fault_device() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    conforms(|| Box::pin(open_disk(&disk))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_not_closed_recovers() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    everything_comes_back(&store, &[64, 70_000, 1 << 20]).await;
    // The process dies; the old store can't reach the disk any more.
    let again = open_disk(&disk).await;
    for (stripe, length) in [(0, 64), (1, 70_000), (2, 1 << 20)] {
        get(&again, key(1, stripe, 0), length).await.unwrap();
    }
    assert_eq!(again.stats().frames_lost, 0);
}

#[tokio::test]
async fn strange_devices_are_refused() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    disk.flip(10, 0);
    let refused = super::open_on(disk.attach(), quiet()).await;
    assert!(matches!(refused, Err(StoreError::Format { .. })), "somebody else's bytes are not overwritten");
    let tiny = super::open_on(FaultDisk::new(20 * MIB, 1).attach(), quiet()).await;
    assert!(matches!(tiny, Err(StoreError::Format { .. })));
    let options = StoreOptions { extent_bytes: 1000, ..quiet() };
    let odd = super::open_on(FaultDisk::new(SMALL_BYTES, 1).attach(), options).await;
    assert!(matches!(odd, Err(StoreError::Format { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_share_flushes() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    let before = disk.flushes();
    let puts: Vec<_> = (0..400u32)
        .map(|stripe| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, key(5, stripe, 0), 1024).await.unwrap() })
        })
        .collect();
    for put in puts {
        put.await.unwrap();
    }
    let flushes = disk.flushes() - before;
    let stats = store.stats();
    assert_eq!(stats.puts, 400);
    assert!(flushes < 200, "{flushes} flushes for 400 puts");
    assert!(stats.frames < 200 && stats.commits <= flushes);
    for stripe in 0..400 {
        get(&store, key(5, stripe, 0), 1024).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_nobody_waits_for_is_whole_or_absent() {
    let disk = FaultDisk::new(SMALL_BYTES, 1);
    let store = open_disk(&disk).await;
    for stripe in 0..50 {
        let putting = put(&store, key(6, stripe, 0), 100_000);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(u64::from(stripe) * 20), putting).await;
    }
    put(&store, key(7, 0, 0), 64).await.expect("the store goes on");
    let store = open_disk(&disk).await;
    for stripe in 0..50 {
        if store.contains(key(6, stripe, 0)) {
            get(&store, key(6, stripe, 0), 100_000).await.unwrap();
        }
    }
}
