//! Where the lab keeps things: everything below `target/lab`, but for the lock, which is the machine's.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{LabError, OnPath, Result};

/// The lab's folders.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Kernels, unpacked.
    pub(crate) kernels: PathBuf,
    /// Logs of the last run: one console per guest, one file per command.
    pub(crate) logs: PathBuf,
    /// Sockets, disks and initramfs of the guests that run; emptied at the start.
    pub(crate) run: PathBuf,
    /// The root of the source tree.
    pub(crate) tree: PathBuf,
}

impl Folders {
    /// Finds the folders: below CARGO_TARGET_DIR, else the tree's `target`.
    pub(crate) fn find() -> Result<Folders> {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("rdma/lab is two levels deep");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree.join("target"), PathBuf::from);
        let target = std::path::absolute(&target).on(&target)?;
        let lab = target.join("lab");
        let folders = Folders {
            kernels: lab.join("kernels"),
            logs: lab.join("logs"),
            run: lab.join("run"),
            tree: tree.to_owned(),
        };
        for folder in [&folders.kernels, &folders.logs, &folders.run] {
            std::fs::create_dir_all(folder).on(folder)?;
        }
        Ok(folders)
    }

    /// Removes an earlier run's logs. Only the holder of the lock may.
    pub(crate) fn empty_logs(&self) -> Result<()> {
        empty(&self.logs)
    }

    /// Removes an earlier run's sockets and disks. Only the holder of the lock may.
    pub(crate) fn empty_run(&self) -> Result<()> {
        empty(&self.run)
    }
}

fn empty(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).on(folder)?;
    std::fs::create_dir_all(folder).on(folder)
}

/// The right to run guests on this machine: emulated CPUs take all the cores there are, so two labs at a time would
/// only run into each other's limits. Ends with the process, however that ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock for `wait_s` seconds at most.
    pub(crate) fn take(wait_s: u64) -> Result<Lock> {
        let path = std::env::temp_dir().join("penstock-lab.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).on(&path)?;
        let deadline = Instant::now() + Duration::from_secs(wait_s);
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(error).on(&path),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    if !told {
                        eprintln!("lab: another lab runs on this machine; waiting for it, {wait_s} s at most");
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(LabError::TimedOut {
                        what: format!("waiting for the other lab on this machine (its lock: {})", path.display()),
                        limit_s: wait_s,
                    });
                }
            }
        }
    }
}
