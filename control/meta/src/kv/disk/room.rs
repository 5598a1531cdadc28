//! Room kept back on a disk that others fill: a preallocated file, given up when the disk is full, so that deletes can
//! still be committed and give room back. Without it a full disk could not be emptied through the store.
//!
//! A batch that fails for want of room leaves the engine's log in an unknown state, and the store would have to be opened
//! again; so the committer asks before each batch, and refuses in time.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::kv::engine::Room;

/// Length of the file that keeps room back: some hundred thousand deletes.
const RESERVE_BYTES: u64 = 64 << 20;
/// With less than this free beside the reserve the disk counts as full. More than a group commit and the engine's own
/// files in the background take at a time.
const FREE_BYTES_MIN: u64 = 24 << 20;
/// With less than this free once the reserve is given up, nothing is committed.
const LAST_BYTES_MIN: u64 = 12 << 20;

/// Watches the room of a directory's file system, and keeps some.
pub(super) struct RoomKeeper {
    directory: PathBuf,
    /// Whether the reserve is held.
    held: Mutex<bool>,
}

impl RoomKeeper {
    /// Takes the reserve, or finds it taken. A disk without room for it starts without.
    pub(super) fn new(directory: &Path) -> Self {
        let keeper = Self { directory: directory.to_owned(), held: Mutex::new(false) };
        *keeper.held.lock() = keeper.hold();
        keeper
    }

    fn reserve_path(&self) -> PathBuf {
        self.directory.join("reserve")
    }

    /// Allocates the reserve. On a file system that can't allocate, the file is empty and keeps nothing back.
    fn hold(&self) -> bool {
        let allocate = |file: File| match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => true,
            Err(_full) => false,
        };
        let held =
            OpenOptions::new().create(true).truncate(false).write(true).open(self.reserve_path()).is_ok_and(allocate);
        if !held {
            self.give_up();
        }
        held
    }

    fn give_up(&self) {
        // What can't be removed is still held, as the room that is free will show.
        let _ = std::fs::remove_file(self.reserve_path());
    }

    /// The room there is now.
    pub(super) fn room(&self) -> Room {
        // A file system that can't say is not taken for full.
        let Ok(stat) = statvfs(&self.directory) else { return Room::Plenty };
        let mut held = self.held.lock();
        let mut free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
        if *held {
            if free_bytes >= FREE_BYTES_MIN {
                return Room::Plenty;
            }
            tracing::error!(
                free_bytes,
                "the disk that holds the metadata is full: only deletes are taken until there is room"
            );
            self.give_up();
            *held = false;
            free_bytes = statvfs(&self.directory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        } else if free_bytes >= RESERVE_BYTES + 2 * FREE_BYTES_MIN && self.hold() {
            tracing::info!(free_bytes, "the disk that holds the metadata has room again");
            *held = true;
            return Room::Plenty;
        }
        if free_bytes >= LAST_BYTES_MIN { Room::Reserve } else { Room::None }
    }
}
