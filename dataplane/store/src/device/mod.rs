//! A flat device: numbered bytes that can be read, written, flushed and discarded.
//!
//! One trait serves a file, a block device, and the fault-injecting device of the tests; the store above knows no
//! other. Two engines move the bytes of files and block devices: [`uring`] (one ring thread per device) and [`pread`]
//! (a bounded number of blocking calls). Operations own their buffers, so a future that is dropped leaves nothing
//! dangling: the operation runs to its end and the buffer goes back to its pool then.
//!
//! How it fails: every call answers a [`DeviceError`]; no engine retries, since what an error means is the store's to
//! decide (a failed flush is final, a failed write is not).

mod file;
mod pread;
#[cfg(test)]
mod tests;
mod uring;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use penstock_buf::{Buf, BufMut};

use file::DeviceFile;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes from its start to its end.
    pub bytes: u64,
    /// Every offset, length and buffer address must be a multiple of this.
    pub block_bytes: usize,
    /// Whether the page cache is passed by.
    pub direct: bool,
    /// Who moves the bytes.
    pub engine: &'static str,
}

/// Why a device says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// `ENOSPC` or `EDQUOT`: the filesystem beneath is full.
    #[error("the filesystem beneath the device is full")]
    NoSpace,
    /// Any other error.
    #[error("{operation}: {reason}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The device was closed.
    #[error("the device is closed")]
    Closed,
}

impl DeviceError {
    pub(crate) fn from_io(operation: &'static str, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            _ => Self::Io { operation, reason: error.to_string() },
        }
    }
}

/// A flat device. Offsets, lengths and addresses are multiples of [`Geometry::block_bytes`].
#[async_trait]
pub trait Device: Send + Sync + 'static {
    /// What it is.
    fn geometry(&self) -> Geometry;

    /// Fills `buffer` from `offset` on, and gives it back.
    ///
    /// # Errors
    /// [`DeviceError`] when not all of it could be read.
    async fn read(&self, offset: u64, buffer: BufMut) -> Result<BufMut, DeviceError>;

    /// Writes the pieces one after the other, from `offset` on. Not durable before [`Device::flush`].
    ///
    /// # Errors
    /// [`DeviceError`] when not all of it could be written; what lies there then is undefined.
    async fn write(&self, offset: u64, pieces: Vec<Buf>) -> Result<(), DeviceError>;

    /// Makes every write that was answered before this call durable.
    ///
    /// # Errors
    /// [`DeviceError`]: any write since the last flush may be lost, now or later.
    async fn flush(&self) -> Result<(), DeviceError>;

    /// Makes sure that there is room for `bytes` from `offset` on, so that later writes there don't meet a full disk.
    ///
    /// # Errors
    /// [`DeviceError::NoSpace`] when there is none.
    async fn allocate(&self, offset: u64, bytes: u64) -> Result<(), DeviceError>;

    /// Says that these bytes are not needed; they may read as anything afterwards.
    ///
    /// # Errors
    /// [`DeviceError`]; the bytes are as undefined as without the error.
    async fn discard(&self, offset: u64, bytes: u64) -> Result<(), DeviceError>;

    /// Waits for what is in flight and lets go of the device. Later calls answer [`DeviceError::Closed`].
    async fn close(&self);
}

/// Which engine moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// io_uring, and pread where the kernel has none; the reason is logged.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// Blocking calls.
    Pread,
}

/// Opens the file or block device at `path`; makes a sparse file of `capacity_bytes` where there is nothing.
///
/// # Errors
/// [`DeviceError`]: it can't be opened, another process has it, or the engine asked for is missing.
pub fn open(
    path: &Path,
    capacity_bytes: u64,
    engine: EngineKind,
    direct: bool,
) -> Result<Arc<dyn Device>, DeviceError> {
    open_with(path, capacity_bytes, engine, direct, |file| {
        uring::UringDevice::start(file).map(|device| Arc::new(device) as Arc<dyn Device>)
    })
}

/// As [`open`], with the ring's start handed in: that is how a test takes io_uring away.
fn open_with(
    path: &Path,
    capacity_bytes: u64,
    engine: EngineKind,
    direct: bool,
    start_ring: impl FnOnce(Arc<DeviceFile>) -> std::io::Result<Arc<dyn Device>>,
) -> Result<Arc<dyn Device>, DeviceError> {
    let file = Arc::new(DeviceFile::open(path, capacity_bytes, direct)?);
    if engine == EngineKind::Pread {
        return Ok(Arc::new(pread::PreadDevice::new(file)));
    }
    match start_ring(Arc::clone(&file)) {
        Ok(device) => Ok(device),
        Err(error) if engine == EngineKind::Auto => {
            tracing::warn!(path = %path.display(), %error, "io_uring is not to be had, blocking calls serve this device");
            Ok(Arc::new(pread::PreadDevice::new(file)))
        }
        Err(error) => Err(DeviceError::from_io("starting io_uring", &error)),
    }
}
