//! Counters: what the store did since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        /// What a store did since it was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct StoreStats { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> StoreStats {
                StoreStats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Shards stored.
    puts,
    /// Bytes of shards stored.
    put_bytes,
    /// Reads answered.
    gets,
    /// Bytes of reads answered.
    get_bytes,
    /// Deletes acknowledged.
    deletes,
    /// Frames written.
    frames,
    /// Bytes of frames written.
    frame_bytes,
    /// Flushes asked of the device, those for the extent table among them.
    flushes,
    /// Commits: groups of operations that one flush made durable.
    commits,
    /// Reads refused for bytes that don't match their checksums.
    corrupt_reads,
    /// Reads that the device refused.
    read_errors,
    /// Frames that could not be written.
    write_errors,
    /// Shards read by scrubs.
    scrubbed_shards,
    /// Their bytes.
    scrubbed_bytes,
    /// Of those, the ones that could not be read or were damaged.
    scrubbed_bad,
    /// Extents emptied by compaction.
    compactions,
    /// Shards moved by compaction.
    moved_shards,
    /// Bytes of shards moved by compaction.
    moved_bytes,
    /// Extents freed.
    extents_freed,
    /// Places where a start found acknowledged frames missing or broken.
    frames_lost,
    /// Index footers that a start could not read; the frames were read instead.
    footers_lost,
    /// Logs that ended in a frame that was never acknowledged.
    torn_tails,
    /// Blocks of the extent table whose copies differed at the start.
    table_repairs,
}
