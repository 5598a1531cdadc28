//! An ordered, transactional key-value store, shaped like FoundationDB's.
//!
//! **What.** [`Kv`] begins a [`Transaction`]; a transaction reads from one consistent snapshot plus its own writes,
//! buffers what it writes, and commits all of it or nothing. Committed transactions are *strictly serialisable*: there
//! is one order of them that explains every read, and a transaction that begins after another's commit was
//! acknowledged sees it. [`transact`] runs a closure until it commits.
//!
//! **Why this shape.** Every limit is FoundationDB's kind of limit (small keys, small values, small and short
//! transactions: `penstock_proto::limits`), so a cluster that outgrows the embedded engine changes the engine and not
//! the code above. Engines: [`MemKv`] (the model) and [`FjallKv`] (one machine's disk); [`FaultyKv`] is a decorator that
//! injects what a distributed engine may do to its callers.
//!
//! **How it fails.** By value: see [`KvError`]. A write that is not durable is never acknowledged; after an error of the
//! disk the store takes no more commits and goes on serving reads.
//!
//! **Keys.** 1 to `ROW_KEY_BYTES_MAX` bytes, ordered bytewise. Keys from [`SYSTEM_FROM`] (`0xFF`) on are not for tables:
//! the tokens of [`transact`] live there, and everything from [`RESERVED_FROM`] (`0xFF 0xFF`) on is the engine's own and
//! refused.

/// The writes of a [`Transaction`], and what it says of itself, handed on to the transaction within: for a decorator, which then writes
/// out what it changes. `pass_writes_through!(self => self.inner);` within its `impl Transaction`.
#[macro_export]
macro_rules! pass_writes_through {
    ($this:ident => $inner:expr) => {
        fn set(&mut $this, key: &[u8], value: &[u8]) -> Result<(), $crate::kv::KvError> {
            $inner.set(key, value)
        }

        fn clear(&mut $this, key: &[u8]) -> Result<(), $crate::kv::KvError> {
            $inner.clear(key)
        }

        fn clear_range(&mut $this, begin: &[u8], end: &[u8]) -> Result<(), $crate::kv::KvError> {
            $inner.clear_range(begin, end)
        }

        fn atomic_add(&mut $this, key: &[u8], delta: i64) -> Result<(), $crate::kv::KvError> {
            $inner.atomic_add(key, delta)
        }

        fn set_versionstamped(&mut $this, prefix: &[u8], suffix: &[u8], value: &[u8]) -> Result<(), $crate::kv::KvError> {
            $inner.set_versionstamped(prefix, suffix, value)
        }

        fn makes_room(&mut $this) {
            $inner.makes_room();
        }

        fn is_read_only(&$this) -> bool {
            $inner.is_read_only()
        }
    };
}

mod disk;
mod engine;
mod error;
mod faulty;
mod mem;
mod occ;
mod random;
mod transact;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;

pub use disk::{FjallKv, FjallOptions};
pub use error::KvError;
pub use faulty::{FaultPlan, FaultyKv};
pub use mem::MemKv;
pub use occ::StoreStats;
pub use transact::{BodyFuture, TransactError, transact};

/// First byte of the keys that belong to this layer. Tables use keys below it.
pub const SYSTEM_FROM: &[u8] = &[0xFF];
/// Keys from here on are the engine's own; reads are clipped below them and writes refused.
pub const RESERVED_FROM: &[u8] = &[0xFF, 0xFF];
/// Most bytes of keys and values in one page of a range read; a page that would grow beyond ends early, with `more` set.
pub const RANGE_PAGE_BYTES_MAX: usize = 4 << 20;
/// Most single keys and ranges that one transaction may read with conflict checks.
pub const READ_CONFLICTS_MAX: usize = 16_384;
/// Most rows that the `clear_range`s of one transaction may remove: recursive deletes are resumable jobs.
pub const CLEARED_ROWS_MAX: usize = 16_384;

/// Where in the one order of commits a transaction stands: by group, then by place in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitVersion {
    /// The group commit's version; rises by at least one per group.
    pub version: u64,
    /// The place of the transaction in its group.
    pub order: u16,
}

impl CommitVersion {
    /// Length of [`CommitVersion::to_bytes`].
    pub const BYTES: usize = 10;

    /// Version and order, both big-endian: bytewise order is commit order.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.version.to_be_bytes());
        bytes[8..].copy_from_slice(&self.order.to_be_bytes());
        bytes
    }

    /// The inverse of [`CommitVersion::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self { version: u64::from_be_bytes([a, b, c, d, e, f, g, h]), order: u16::from_be_bytes([i, j]) }
    }
}

/// What to read of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRead {
    /// First key of the range.
    pub begin: Vec<u8>,
    /// The key after the range. A range with `end <= begin` is empty.
    pub end: Vec<u8>,
    /// Most rows to return; 0 for as many as a page holds ([`RANGE_PAGE_BYTES_MAX`]).
    pub limit: usize,
    /// Last rows first.
    pub reverse: bool,
    /// Don't conflict with later writes to the range.
    pub snapshot: bool,
}

impl RangeRead {
    /// All rows whose keys start with `prefix`, in order.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { begin: prefix.to_vec(), end: prefix_end(prefix), ..Self::default() }
    }

    /// All rows of `begin..end`, in order.
    pub fn between(begin: &[u8], end: &[u8]) -> Self {
        Self { begin: begin.to_vec(), end: end.to_vec(), ..Self::default() }
    }

    /// At most `limit` rows.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Last rows first.
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }
}

/// The first key after all keys that start with `prefix`; [`RESERVED_FROM`] where there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xFF) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => RESERVED_FROM.to_vec(),
    }
}

/// One page of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangePage {
    /// Keys and values, in the asked order.
    pub rows: Vec<(Bytes, Bytes)>,
    /// Whether there may be more rows in the range behind the last of `rows`. A page may be shorter than its limit and
    /// still have `more` set (but is never empty then).
    pub more: bool,
}

/// A store. Shared as `Arc<dyn Kv>`; dropping the last handle without [`Kv::close`] loses nothing that was
/// acknowledged.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Begins a transaction that sees everything acknowledged so far. Fails with [`KvError::Closed`] after a close.
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError>;
    /// Waits for the commits under way, then takes no more. Open transactions may still read. Closing twice is fine.
    async fn close(&self) -> Result<(), KvError>;
    /// The engine's name, for logs.
    fn engine_name(&self) -> &'static str;
}

/// A transaction. Dropping it without a commit undoes it.
#[async_trait]
pub trait Transaction: Send {
    /// The value of a row, own writes included. Conflicts with later writes to the key.
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError>;
    /// A page of rows, own writes included (but no versionstamped rows, which have no key yet). Conflicts with later
    /// writes, inserts and clears between the range's start and the last row returned, or its end if `more` is unset.
    async fn get_range(&mut self, range: RangeRead) -> Result<RangePage, KvError>;
    /// Writes a row.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError>;
    /// Removes a row, if it is there.
    fn clear(&mut self, key: &[u8]) -> Result<(), KvError>;
    /// Removes the rows of `begin..end` that exist when the transaction commits; at most [`CLEARED_ROWS_MAX`] of them.
    fn clear_range(&mut self, begin: &[u8], end: &[u8]) -> Result<(), KvError>;
    /// Adds to a counter (8 bytes, little-endian, wrapping; a missing row counts as 0) without reading it, hence without
    /// conflicts among adders.
    fn atomic_add(&mut self, key: &[u8], delta: i64) -> Result<(), KvError>;
    /// Writes the row `prefix + CommitVersion::to_bytes + suffix`. Applied after the transaction's other writes.
    fn set_versionstamped(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) -> Result<(), KvError>;
    /// Says that this transaction is what gives room back (a delete, a collection): it is still committed when the disk
    /// is so full that others get [`KvError::NoSpace`].
    fn makes_room(&mut self);
    /// Whether nothing has been written so far.
    fn is_read_only(&self) -> bool;
    /// Makes the writes durable and visible, all or none. A transaction that wrote nothing always succeeds; its reads
    /// were of one moment after its begin.
    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError>;
}
