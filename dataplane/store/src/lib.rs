//! Shards on a device: log-structured extents, checksummed, group-committed.
//!
//! A store takes shards (up to [`penstock_proto::limits::SHARD_BYTES_MAX`]), makes them durable, gives back ranges of
//! them verified, and deletes all shards of a data id at once. It knows neither stripes nor codes, and decides nothing.
//!
//! # How it is built
//! - [`device`]: a flat device, with two engines (io_uring, pread). The fault-injecting device of the tests is a third
//!   (`testing`, behind the feature of that name).
//! - `format`: superblock, extent table, frames, records, footers, as bytes (`docs/formats/extent.md`).
//! - `commit`: one task drains a queue, writes frames and flushes; `group` decides what needs a record.
//! - `state`: the index and the books, in memory. `recover` and `scan` rebuild them. `compact` gets room back.
//!
//! # What holds
//! - A put or a delete that was answered is durable: it survives a power cut at any moment after.
//! - A get gives out right bytes or an error. Bytes are checked against CRC32Cs of 64 KiB that were computed before the
//!   shard was written and are kept in memory; they come from the index footer or the frame's head at a start.
//! - A put that is not answered is there whole or not at all.
//! - Deleted data does not come back, as long as the tombstones' own frames are not rotten. (Rot in the head of a frame
//!   that holds a tombstone, before its extent is sealed, is counted as a lost frame at the next start, and may show
//!   shards again that nothing refers to.)
//! - Blocks that were acknowledged are not written again before their extent is freed.
//!
//! # Deviations from `engine.md`, and why
//! - *Frames of up to 8 MiB* ([`limits`]), not 1 MiB: a shard does not span frames, and one copy on one node makes a
//!   shard of 4 MiB. A frame that is torn is found by its payload's checksums, whatever its length.
//! - *A frame says how much of its extent was durable when it was written.* So the scan after a crash knows which
//!   frames were acknowledged, and tells rot (counted, the rest is read) from a torn tail (the end), also when a group
//!   is several frames with one flush.
//! - *The state of extents is in a table in two copies*, not in their own headers: one block says what counts, a torn
//!   or rotten copy is harmless, and nothing in an extent but frames and a footer.
//! - *An extent that was open is appended to again after a restart*, behind its last good frame, so that restarts don't
//!   cost extents. Frames of a torn group that may lie beyond can't be taken for new ones: the chain of hashes breaks.
//! - *Hashes of frames are CRC64NVME*: they are to find rot and mix-ups, not forgery.
//! - *A put of a shard that a read found broken replaces it*, so that repair is an ordinary put.
#![deny(unsafe_code)]

mod commit;
mod compact;
pub mod device;
mod disk;
mod error;
mod format;
mod group;
mod options;
mod recover;
mod scan;
mod state;
mod stats;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upkeep;

pub use device::{Device, DeviceError, EngineKind, Geometry};
pub use error::StoreError;
pub use options::StoreOptions;
pub use stats::StoreStats;
pub use store::ShardStore;
pub use upkeep::ScrubStep;

/// The store's own bounds.
pub mod limits {
    /// Longest frame.
    pub const FRAME_BYTES_MAX: usize = crate::format::frame::FRAME_BYTES_MAX;
    /// Most records of one frame.
    pub const FRAME_RECORDS_MAX: usize = crate::format::frame::FRAME_RECORDS_MAX;
    /// Operations that wait for the committer; past it, callers wait to get in.
    pub const QUEUE_OPERATIONS_MAX: usize = crate::commit::QUEUE_OPERATIONS_MAX;
    /// Deleted data ids that are remembered, to refuse late puts, after their tombstones are needed no more.
    pub const DELETED_REMEMBERED_MAX: usize = crate::state::DELETED_REMEMBERED_MAX;
}
