//! Tests of the store as a whole. Every suite says on which devices it runs.

mod compaction;
mod conformance;
mod faults;
mod model;
mod rot;
mod upkeep;

use std::sync::Arc;

use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_proto::{DataId, ShardKey};

use crate::testing::FaultDisk;
use crate::{Device, ShardStore, StoreError, StoreOptions};

const MIB: u64 = 1 << 20;
/// Seven extents of 16 MiB.
const SMALL_BYTES: u64 = 8 * 16 * MIB;

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap()
}

fn key(data: u128, stripe: u32, shard: u8) -> ShardKey {
    ShardKey { data: DataId(data), stripe, shard }
}

/// Bytes that depend on the key in every 8 bytes, so that no mix-up can pass.
fn bytes_of(key: ShardKey, length: usize) -> Vec<u8> {
    let seed = (key.data.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (u64::from(key.stripe) << 8 | u64::from(key.shard)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let words = (0..length.div_ceil(8) as u64).flat_map(|word| {
        let mixed = (seed ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 29)).to_le_bytes()
    });
    words.take(length).collect()
}

/// As a transport hands it over: aligned, from the pool.
fn aligned(pool: &BufPool, bytes: &[u8]) -> Buf {
    let mut buffer = pool.try_acquire(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    buffer.freeze()
}

async fn put(store: &ShardStore, key: ShardKey, length: usize) -> Result<u64, StoreError> {
    let bytes = bytes_of(key, length);
    let crc64 = penstock_digest::crc64nvme(&bytes);
    store.put(key, Buf::from(bytes), crc64).await.map(|()| crc64)
}

/// The whole shard, checked against what was put.
async fn get(store: &ShardStore, key: ShardKey, length: usize) -> Result<(), StoreError> {
    let bytes = bytes_of(key, length);
    let crc64 = penstock_digest::crc64nvme(&bytes);
    let (found, shard_bytes) = store.get(key, 0, length as u32, crc64).await?;
    assert_eq!(shard_bytes as usize, length);
    assert!(found[..] == bytes[..], "wrong bytes of {key}");
    Ok(())
}

fn quiet() -> StoreOptions {
    StoreOptions { compaction: false, extent_bytes: 16 * MIB, ..StoreOptions::default() }
}

async fn open_on(device: Arc<dyn Device>, options: StoreOptions) -> Result<ShardStore, StoreError> {
    ShardStore::open_on(device, options, pool()).await
}

async fn open_disk(disk: &FaultDisk) -> ShardStore {
    open_on(disk.attach(), quiet()).await.unwrap()
}
