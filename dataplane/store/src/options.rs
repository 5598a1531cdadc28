//! How a store is opened.

use std::path::PathBuf;

use crate::device::EngineKind;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The device file, made if absent, or a block device.
    pub path: PathBuf,
    /// Size of a device file that is made now. A sparse file: extents take room as they are opened. Of a file that is
    /// there, or a block device, the whole is used.
    pub capacity_bytes: u64,
    /// Size of an extent when the device is formatted now: a power of two from 16 MiB to 1 GiB. 0: a 64th of the
    /// device, 256 MiB at most.
    pub extent_bytes: u64,
    /// Who moves the bytes.
    pub engine: EngineKind,
    /// Whether to pass by the page cache, where the filesystem can.
    pub direct: bool,
    /// Whether extents are compacted in the background. Without it space comes back as extents empty out, or by
    /// [`crate::ShardStore::compact`].
    pub compaction: bool,
    /// How fast compaction may move shards while there is room; it is not held back when there is none.
    pub compaction_bytes_per_s: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            path: PathBuf::from("device.pst"),
            capacity_bytes: 16 << 30,
            extent_bytes: 0,
            engine: EngineKind::Auto,
            direct: true,
            compaction: true,
            compaction_bytes_per_s: 64 << 20,
        }
    }
}
