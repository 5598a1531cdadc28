//! The engine that needs nothing of the kernel: pread, pwrite and fdatasync on tokio's blocking threads, at most
//! [`CALLS_IN_FLIGHT_MAX`] at a time for one device. It costs about three times the CPU of io_uring per operation.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use penstock_buf::{Buf, BufMut};
use tokio::sync::Semaphore;

use super::file::DeviceFile;
use super::{Device, DeviceError, Geometry};

/// Blocking calls of one device at a time.
const CALLS_IN_FLIGHT_MAX: u32 = 16;

pub(super) struct PreadDevice {
    file: Arc<DeviceFile>,
    permits: Arc<Semaphore>,
    closed: AtomicBool,
}

impl PreadDevice {
    pub(super) fn new(file: Arc<DeviceFile>) -> Self {
        let permits = Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX as usize));
        Self { file, permits, closed: AtomicBool::new(false) }
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&DeviceFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| DeviceError::Closed)?;
        if self.closed.load(Ordering::Acquire) {
            return Err(DeviceError::Closed);
        }
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&file);
            drop(permit);
            result
        });
        match done.await {
            Ok(result) => result.map_err(|error| DeviceError::from_io(operation, &error)),
            Err(join) => Err(DeviceError::Io { operation, reason: join.to_string() }),
        }
    }
}

#[async_trait]
impl Device for PreadDevice {
    fn geometry(&self) -> Geometry {
        self.file.geometry("pread")
    }

    async fn read(&self, offset: u64, mut buffer: BufMut) -> Result<BufMut, DeviceError> {
        self.call("reading the device", move |file| {
            file.file.read_exact_at(&mut buffer, offset)?;
            Ok(buffer)
        })
        .await
    }

    async fn write(&self, offset: u64, pieces: Vec<Buf>) -> Result<(), DeviceError> {
        self.call("writing the device", move |file| {
            let mut at = offset;
            for piece in &pieces {
                file.file.write_all_at(piece, at)?;
                at += piece.len() as u64;
            }
            Ok(())
        })
        .await
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        self.call("flushing the device", |file| file.file.sync_data()).await
    }

    async fn allocate(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        self.call("allocating on the device", move |file| file.allocate(offset, bytes)).await
    }

    async fn discard(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        self.call("discarding on the device", move |file| file.discard(offset, bytes)).await
    }

    async fn close(&self) {
        let closed_before = self.closed.swap(true, Ordering::AcqRel);
        // Holding every permit means that no call is in flight; later calls see `closed`.
        let _all = self.permits.acquire_many(CALLS_IN_FLIGHT_MAX).await;
        if !closed_before {
            self.file.unlock();
        }
    }
}
