//! The schema: buckets, objects, uploads and the data behind them as rows of the [`crate::kv`] store, and what one S3
//! operation changes, in one transaction.
//!
//! **Decisions are made inside the transaction that acts on them**: that the bucket is (still) there, that conditions
//! hold, that it is empty, that the parts are the ones that were seen. The KV store's strict serialisability does the
//! rest; nothing here locks.
//!
//! # Life of data
//! A [`DataId`](penstock_proto::DataId) names a run of shards on the nodes. At every moment the rows say exactly one
//! thing of it:
//!
//! ```text
//!              begin_writes                commit_object, put_part            overwrite, delete, abort_upload, complete without it
//! (unknown) ───────────────▶ pending (W) ──────────────────────▶ reachable ──────────────────────────────┐
//!                              │  abort_writes, or the lease runs out     (O, or P under O, or T under U)   ▼
//!                              └───────────────────────────────────────────────────────────▶ garbage (G) ──▶ (gone)
//!                                                                                            finish_garbage
//! ```
//!
//! * **Pending data is never collected by mistake.** The writer registers an id ([`Tables::begin_writes`]: many ids in
//!   one transaction, so that small PUTs can share its cost) *before the first shard goes out*, and renews its lease
//!   while it writes ([`Tables::renew_writes`]). The collector only touches what has a `G` row. The step from `W` to `G`
//!   and the step from `W` to reachable both read and clear the `W` row, so of a commit and an expiry at the same time
//!   exactly one happens; the other sees no row. A writer that lost gets [`TablesError::WriteExpired`] and must write
//!   again under a new id: nothing half-collected ever becomes visible.
//! * **Aborted data always is.** A writer that fails calls [`Tables::abort_writes`]; one that dies leaves its `W` row,
//!   whose lease runs out, and [`Tables::next_garbage`] turns it into a `G` row. A shard that arrives at a node after
//!   that is refused by the node, whose tombstone outlives it. A commit whose outcome is unknown is answered by aborting:
//!   if it did commit, the `W` row is gone and the abort does nothing.
//! * **Garbage stays garbage.** No operation makes an id with a `G` row reachable again, so a collector may act on a row
//!   that it read a while ago, twice, or together with another collector. The `G` row goes last, after the nodes
//!   confirmed.
//! * **Readers get a grace**: `garbage_not_before_unix_ms` of every operation that unlinks data is how long those who
//!   read the row just before may go on to read its shards.
//!
//! # Long lists
//! A transaction holds 1 MiB, a completed upload up to 10,000 parts. Its part list is written ahead in chunks, under a
//! `W` row of its own; the last transaction then only points to it. If that never happens the lease runs out and the list
//! rows are removed, *without* touching the data they name, which the upload's part rows still own. Deleting such an
//! object puts one `G` row that names the list; [`Tables::next_garbage`] expands it row by row, each step a transaction
//! that moves one list row's parts to `G` rows and removes that row. Aborted uploads go the same way over their part rows.
//! (Short lists, the usual case, are written by the completing transaction itself.)
//!
//! # Extents
//! Small objects share *extents* (`extents.rs`): an extent is one data id, reachable by its own `E` row from before its
//! first shard goes out until its objects are gone or it is written anew under another id. Objects refer to bytes of it.
//!
//! # How it fails
//! [`TablesError`]: typed outcomes (no such bucket, a condition that does not hold) or the KV store's error. No
//! operation leaves part of its work visible.

/// Runs a body in a transaction of the tables, again while that may help; see [`crate::kv::transact`]. What the body uses
/// is captured by copy: owned values are named behind `txn` and come as references.
macro_rules! transaction {
    ($tables:expr, |$txn:ident $(, $owned:ident)*| $body:expr) => {{
        $(let $owned = &$owned;)*
        $tables.transact(move |$txn| Box::pin(async move { $body }))
    }};
}

mod bucket_settings;
mod buckets;
mod error;
mod extent_rows;
mod extents;
mod garbage;
mod identities;
mod keys;
mod listing;
mod lists;
mod manifests;
mod objects;
mod outbox;
mod preconditions;
mod rename;
mod rollup;
mod rows;
mod settings;
mod strays;
mod upkeep;
mod uploads;
mod vault;
mod version_listing;
mod versions;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;

pub use bucket_settings::{BUCKET_SETTING_BYTES_MAX, BucketSetting};
pub use error::TablesError;
pub use extent_rows::{
    EXTENT_BATCHES_MAX, ExtentPlace, ExtentRow, ExtentState, NewBatch, PackedDone, PackedObject, PackedOwnerRow,
    PackedRow, PackedWrite,
};
pub use garbage::{GarbageToken, NewWrite};
pub use listing::{ListPage, ListedUpload, UploadsPage};
pub use objects::Committed;
pub use outbox::{
    Cause, EVENTS_QUEUED_MAX, EventKind, EventPlace, EventRow, NOTIFICATION_RULES_MAX, NotificationRule,
    TARGET_BYTES_MAX, TargetKind, Way, cause, caused,
};
pub use preconditions::{EtagSet, PreconditionFailure, Preconditions};
pub use rename::{ObjectCondition, Rename, RenameToken, Renamed};
pub use rows::{
    BucketRow, ChecksumRow, DataRow, DefaultRetentionRow, EncryptionKind, EncryptionRow, GarbageRow, HeadersRow,
    INLINE_MANIFEST_BYTES_MAX, INLINE_PART_MANIFEST_BYTES_MAX, Layout, ListedRow, LockRow, MANIFEST_STRIPES_MAX,
    ManifestPlace, ManifestRow, ObjectLockRow, ObjectRow, PART_LIST_ROW_BYTES_MAX, PartListRow, PartRow, PartSpan,
    ROW_VERSION, RepairRow, RetentionRow, StripeRow, UploadRow, VersionRow, Versioning,
};
pub use strays::Stray;
pub use upkeep::{Owner, StripeRun, WalkPage, WalkPlace};
pub use uploads::{CompleteUpload, Completed, NewUpload, PartsPage};
pub use version_listing::{ListVersions, VersionsPage};
pub use versions::{Deleted, LockPass, ObjectChange, VersionName};

use crate::kv::{BodyFuture, Kv, RangePage, RangeRead, Transaction, transact};
use rows::{Row, decode, encode};

/// What operations return.
pub type Result<T, E = TablesError> = std::result::Result<T, E>;

/// The tables of one store. Clones share it.
#[derive(Clone)]
pub struct Tables {
    kv: Arc<dyn Kv>,
    /// Where the sweep for expired writes goes on: a key of the `W` table.
    sweep_from: Arc<Mutex<Vec<u8>>>,
}

impl Tables {
    /// The tables in `kv`.
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv, sweep_from: Arc::new(Mutex::new(keys::table(keys::WRITES))) }
    }

    async fn transact<'scope, R, F>(&self, body: F) -> Result<R>
    where
        F: for<'a> FnMut(&'a mut (dyn Transaction + 'scope)) -> BodyFuture<'a, R, TablesError>,
    {
        transact(&*self.kv, body).await
    }

    /// A page of a range, read by itself.
    async fn page(&self, range: &RangeRead) -> Result<RangePage> {
        transaction!(self, |txn| Ok(txn.get_range(range.clone()).await?)).await
    }

    /// The store below.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }
}

/// Reads a row.
async fn read<R: Row>(txn: &mut dyn Transaction, key: &[u8]) -> Result<Option<R>> {
    txn.get(key).await?.map(|value| decode(&value)).transpose()
}

/// Writes a row.
fn write<R: Row>(txn: &mut dyn Transaction, key: &[u8], row: &R) -> Result<()> {
    Ok(txn.set(key, &encode(row)?)?)
}

/// Reads a counter.
async fn counter(txn: &mut dyn Transaction, key: &[u8]) -> Result<u64> {
    match txn.get(key).await? {
        None => Ok(0),
        Some(value) => value.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| TablesError::Unreadable {
            row: "counter",
            why: format!("it has {} bytes, not 8", value.len()),
        }),
    }
}
