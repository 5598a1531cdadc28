//! The file or block device beneath both engines: opened once, locked against a second process, past the page cache
//! where the filesystem takes that.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use penstock_proto::limits::BLOCK_BYTES;

use super::{DeviceError, Geometry};

pub(super) struct DeviceFile {
    pub(super) file: File,
    bytes: u64,
    direct: bool,
}

/// How long the lock of a device is waited for: a process that was killed with operations in its ring holds its files
/// until the kernel has ended those, which is after its parent has seen it end.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn lock(file: &File, path: &Path) -> Result<(), DeviceError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_PAUSE),
            Err(error) => {
                return Err(DeviceError::Io {
                    operation: "locking the device",
                    reason: format!("{error}; does another process serve {}?", path.display()),
                });
            }
        }
    }
}

impl DeviceFile {
    pub(super) fn open(path: &Path, capacity_bytes: u64, direct: bool) -> Result<Self, DeviceError> {
        let fail = |operation| move |error: io::Error| DeviceError::from_io(operation, &error);
        let (mut file, direct) = open_maybe_direct(path, direct).map_err(fail("opening the device"))?;
        lock(&file, path)?;
        let metadata = file.metadata().map_err(fail("looking at the device"))?;
        let bytes = if metadata.file_type().is_block_device() {
            file.seek(SeekFrom::End(0)).map_err(fail("measuring the device"))?
        } else {
            if metadata.len() == 0 {
                file.set_len(capacity_bytes).map_err(fail("sizing the device file"))?;
                file.sync_all().map_err(fail("sizing the device file"))?;
                sync_parent(path).map_err(fail("making the device file durable"))?;
            }
            file.metadata().map_err(fail("measuring the device"))?.len()
        };
        Ok(Self { file, bytes: bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64, direct })
    }

    pub(super) fn geometry(&self, engine: &'static str) -> Geometry {
        Geometry { bytes: self.bytes, block_bytes: BLOCK_BYTES, direct: self.direct, engine }
    }

    /// Lets another owner open the device, though this one still has it open.
    pub(super) fn unlock(&self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the device can't be unlocked before it is let go of");
        }
    }

    /// `fallocate(2)`. A filesystem without it can't promise room: then writes meet the full disk, which is handled.
    pub(super) fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        ignore_unsupported(fallocate(&self.file, 0, offset, bytes))
    }

    /// Punches a hole, where the filesystem can.
    pub(super) fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        ignore_unsupported(fallocate(&self.file, mode, offset, bytes))
    }
}

fn open_maybe_direct(path: &Path, direct: bool) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    if direct {
        match options.clone().custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => return Ok((file, true)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(path = %path.display(), "the filesystem takes no O_DIRECT: reads and writes go through the page cache");
            }
            Err(error) => return Err(error),
        }
    }
    options.open(path).map(|file| (file, false))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn ignore_unsupported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn fallocate(file: &File, mode: i32, offset: u64, bytes: u64) -> io::Result<()> {
    let (Ok(offset), Ok(bytes)) = (libc::off_t::try_from(offset), libc::off_t::try_from(bytes)) else {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    };
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
        if unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, bytes) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}
