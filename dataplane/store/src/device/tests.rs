//! The conformance suite of devices, on both engines and on the fault-injecting device.

use std::path::Path;
use std::sync::Arc;

use penstock_buf::{Buf, BufPool, PoolOptions};

use super::{Device, DeviceError, EngineKind, open, open_with};
use crate::testing::FaultDisk;

const MIB: u64 = 1 << 20;
const DEVICE_BYTES: u64 = 64 * MIB;

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap()
}

fn filled(pool: &BufPool, bytes: usize, seed: u8) -> Buf {
    let mut buffer = pool.try_acquire(bytes).unwrap();
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index / 7) as u8 ^ seed ^ (index >> 12) as u8;
    }
    buffer.freeze()
}

async fn read(device: &dyn Device, pool: &BufPool, offset: u64, bytes: usize) -> Vec<u8> {
    device.read(offset, pool.try_acquire(bytes).unwrap()).await.unwrap().to_vec()
}

/// What every device must do.
async fn conforms(device: Arc<dyn Device>) {
    let pool = pool();
    assert_eq!(device.geometry().bytes, DEVICE_BYTES);
    assert_eq!(read(&*device, &pool, 5 * MIB, 8192).await, vec![0; 8192], "a new device is blank");

    // One piece, many pieces, and past what one system call takes.
    let one = filled(&pool, 4 << 20, 1);
    device.write(MIB, vec![one.clone()]).await.unwrap();
    assert_eq!(read(&*device, &pool, MIB, 4 << 20).await, one.to_vec());
    let pieces: Vec<Buf> = (0..1500).map(|index| one.slice((index % 64) * 4096..(index % 64 + 1) * 4096)).collect();
    let expected: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
    device.write(20 * MIB, pieces).await.unwrap();
    device.flush().await.unwrap();
    assert_eq!(read(&*device, &pool, 20 * MIB, expected.len()).await, expected);

    // Many at a time, in any order.
    let tasks: Vec<_> = (0..64u64)
        .map(|index| {
            let (device, pool) = (Arc::clone(&device), pool.clone());
            tokio::spawn(async move {
                let data = filled(&pool, 16384, index as u8);
                let offset = 40 * MIB + index * 16384;
                device.write(offset, vec![data.clone()]).await.unwrap();
                device.flush().await.unwrap();
                assert_eq!(read(&*device, &pool, offset, 16384).await, data.to_vec());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }

    // Dropped operations run to their end, and give their buffers back.
    for _ in 0..16 {
        let operation = device.read(MIB, pool.try_acquire(1 << 20).unwrap());
        let _ = tokio::time::timeout(std::time::Duration::ZERO, operation).await;
    }
    device.allocate(50 * MIB, MIB).await.unwrap();
    device.discard(20 * MIB, MIB).await.unwrap();
    assert_eq!(read(&*device, &pool, 21 * MIB, 4096).await, expected[1 << 20..(1 << 20) + 4096]);
    device.flush().await.unwrap();

    assert!(matches!(
        device.read(DEVICE_BYTES - 4096, pool.try_acquire(8192).unwrap()).await,
        Err(DeviceError::Io { .. })
    ));
    device.close().await;
    drop(one);
    while pool.stats().in_use_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

fn open_file(directory: &Path, engine: EngineKind, direct: bool) -> Arc<dyn Device> {
    open(&directory.join("device.pst"), DEVICE_BYTES, engine, direct).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pread_conforms() {
    let directory = tempfile::tempdir().unwrap();
    for direct in [false, true] {
        let device = open_file(directory.path(), EngineKind::Pread, direct);
        assert_eq!(device.geometry().engine, "pread");
        conforms(device).await;
        std::fs::remove_file(directory.path().join("device.pst")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn io_uring_conforms() {
    let directory = tempfile::tempdir().unwrap();
    for direct in [false, true] {
        let device = open_file(directory.path(), EngineKind::IoUring, direct);
        assert_eq!(device.geometry().engine, "io_uring");
        conforms(device).await;
        std::fs::remove_file(directory.path().join("device.pst")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fault_device_conforms() {
    conforms(FaultDisk::new(DEVICE_BYTES, 1).attach()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_devices_say_so() {
    let directory = tempfile::tempdir().unwrap();
    for engine in [EngineKind::Pread, EngineKind::IoUring] {
        let device = open_file(directory.path(), engine, true);
        device.close().await;
        device.close().await;
        assert_eq!(device.flush().await, Err(DeviceError::Closed));
        let buffer = pool().try_acquire(4096).unwrap();
        assert_eq!(device.read(0, buffer).await.map(|_| ()), Err(DeviceError::Closed));
    }
}

#[tokio::test]
async fn without_io_uring_blocking_calls_serve() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.pst");
    let missing = |_| Err(std::io::Error::from_raw_os_error(libc::ENOSYS));
    let device = open_with(&path, DEVICE_BYTES, EngineKind::Auto, true, missing).unwrap();
    assert_eq!(device.geometry().engine, "pread");
    conforms(device).await;
    let refused = open_with(&path, DEVICE_BYTES, EngineKind::IoUring, true, missing);
    assert!(matches!(refused.map(|_| ()), Err(DeviceError::Io { operation: "starting io_uring", .. })));
}

#[tokio::test]
async fn a_device_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let _device = open_file(directory.path(), EngineKind::Pread, false);
    let second = open(&directory.path().join("device.pst"), DEVICE_BYTES, EngineKind::Pread, false);
    assert!(matches!(second.map(|_| ()), Err(DeviceError::Io { operation: "locking the device", .. })));
}

#[tokio::test]
async fn without_o_direct_the_page_cache_serves() {
    // tmpfs takes O_DIRECT since Linux 6.6; either way the device must serve.
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    for engine in [EngineKind::Pread, EngineKind::IoUring] {
        conforms(open_file(directory.path(), engine, true)).await;
        std::fs::remove_file(directory.path().join("device.pst")).unwrap();
    }
}

#[tokio::test]
async fn power_cuts_lose_only_what_was_not_flushed() {
    let pool = pool();
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = FaultDisk::new(DEVICE_BYTES, seed);
        let device = disk.attach();
        let (old, new) = (filled(&pool, 4096, 1), filled(&pool, 4096, 2));
        device.write(0, vec![old.clone()]).await.unwrap();
        device.flush().await.unwrap();
        device.write(0, vec![new.clone()]).await.unwrap();
        disk.cut_power();
        assert!(device.flush().await.is_err(), "a device attached before the cut is dead");
        let found = read(&*disk.attach(), &pool, 0, 4096).await;
        for (index, sector) in found.chunks(512).enumerate() {
            let range = index * 512..(index + 1) * 512;
            assert!(sector == &old[range.clone()] || sector == &new[range]);
        }
        if found == old.to_vec() {
            lost += 1;
        } else if found == new.to_vec() {
            kept += 1;
        } else {
            torn += 1;
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "every fate happens: {kept} {lost} {torn}");
}
