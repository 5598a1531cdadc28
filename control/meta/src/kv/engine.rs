//! What the optimistic layer asks of a storage engine: snapshots, reads, and one durable batch at a time.
//!
//! An engine knows nothing of transactions. It is written by one thread, the group committer, and read by many.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::KvError;

/// Rows to write (`Some`) and to remove (`None`): ascending keys, each at most once.
pub(crate) type Batch = Vec<(Bytes, Option<Bytes>)>;

/// How much room an engine's device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough for any batch.
    Plenty,
    /// What was kept back: for transactions that make room, and no others.
    Reserve,
    /// Not even that.
    None,
}

/// An ordered store of rows with snapshots.
pub(crate) trait Engine: Send + Sync + 'static {
    /// What a snapshot is.
    type Snapshot: EngineSnapshot;

    /// Its name, for logs.
    fn name(&self) -> &'static str;
    /// The version of the last batch applied before this engine was opened; 0 for a new one.
    fn opened_at_version(&self) -> u64;
    /// The state after the last applied batch. Sees every batch whose [`Engine::apply`] has returned, and every batch
    /// whole or not at all.
    fn snapshot(&self) -> Self::Snapshot;
    /// How much room there is for the next batch. Asked before each.
    fn room(&self) -> Room;
    /// Applies a batch. When it returns, the batch is durable and visible. After an error it may or may not be there
    /// when the store is next opened, and the caller applies no further batch.
    fn apply(&self, version: u64, batch: Batch) -> Result<(), KvError>;
}

/// One consistent state of the engine.
pub(crate) trait EngineSnapshot: Send + Sync + 'static {
    /// A row's value.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;
    /// Visits the rows of `begin..end` (not empty) in order, or in reverse order, until `visit` breaks.
    fn scan(
        &self,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(Bytes, Bytes) -> ControlFlow<()>,
    ) -> Result<(), KvError>;
}
