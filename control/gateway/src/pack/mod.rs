//! Small objects: packed together into extents of the cluster, written as whole copies, encoded later.
//!
//! **What.** A body of up to [`PackOptions::object_bytes_max`] is taken into memory (`body`), hashed and verified, and joins
//! whatever other small bodies wait (`queue`). They are written as one *batch*: one stripe of `RS(1,2)`, so one shard on
//! each of three nodes, one fsync each, and one metadata transaction that makes all of them visible. Nobody waits for
//! company: a batch leaves as soon as fewer than [`BATCHES_IN_FLIGHT`] are under way, with what is there.
//!
//! Batches go to an open *extent* (`open`), a data id of its own, until that is full or old. The background (`worker`) seals
//! it, writes it anew in the code of its policy with offsets kept, reads all of that back, and only then swaps the two in the
//! one row that says where the extent's bytes are. Extents with much that is dead are emptied into the open one and
//! dropped. Which row says what is `penstock_meta::tables`' `extents`; a read is in `read`.
//!
//! **What is promised.** As without packing: an object is visible if and only if its row is committed, and then its bytes are
//! on two nodes at least (on one in a house of one). No object's row changes when its extent is encoded.
//!
//! **How it fails.** A batch whose nodes fail is written to another extent, on other nodes, a bounded number of times; then all of
//! its members fail. Its bytes, as those of members whose conditions don't hold, are dead room in the extent. A gateway that dies
//! leaves an open extent, whose time runs out. Every step of the background is one transaction or can be lost without harm.

mod body;
mod open;
mod queue;
mod read;
mod stats;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_meta::tables::{Committed, PackedDone, PackedObject, PackedOwnerRow, PackedRow, TablesError};
use penstock_proto::{Code, DataId};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;

pub(crate) use body::{SmallBody, store_object};
pub(crate) use read::PackedRead;
pub use stats::PackStats;
pub use worker::Packed;

use open::Lanes;
use queue::Waiting;
use stats::Counts;

/// Batches that are written and committed at a time. Few: what waits meanwhile shares the next one.
const BATCHES_IN_FLIGHT: usize = 2;
/// Most objects of one batch: their rows share a transaction.
const BATCH_OBJECTS_MAX: usize = 64;
/// Small bodies that wait for a batch.
const WAITING_MAX: usize = 4096;
/// Bytes of small bodies in memory, from their first byte till they are committed.
const BODIES_BYTES_MAX: usize = 32 << 20;
/// How long an extent is left alone with which something failed.
const REST_MS: u64 = 5 * 60_000;
/// Extents that are left alone at a time; with more, some are tried again at once.
const RESTING_MAX: usize = 4096;
/// Extents that a batch is tried in.
const EXTENTS_TRIED_MAX: u32 = 3;

/// How small objects are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Bodies up to this long are packed; at most 1 MiB makes sense, 4 MiB is the limit.
    pub object_bytes_max: usize,
    /// An extent is sealed once it is this long; it may end a batch (4 MiB) later.
    pub extent_bytes_max: u64,
    /// An extent is sealed once it is this old.
    pub extent_age_max: Duration,
    /// How often extents are looked after; `None` leaves it to [`crate::Gateway::run_packing_now`].
    pub interval: Option<Duration>,
    /// An extent of which fewer per cent are alive is emptied.
    pub live_percent_min: u64,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            object_bytes_max: 1 << 20,
            extent_bytes_max: 256 << 20,
            extent_age_max: Duration::from_secs(300),
            interval: Some(Duration::from_secs(15)),
            live_percent_min: 60,
        }
    }
}

/// The packing of one gateway.
pub(crate) struct Packer {
    options: Option<PackOptions>,
    queue: mpsc::Sender<Waiting>,
    /// Till the background takes it.
    receiver: Mutex<Option<mpsc::Receiver<Waiting>>>,
    /// By KiB.
    room: Arc<Semaphore>,
    lanes: Lanes,
    counts: Counts,
    /// Extents with which something failed, and when.
    resting: Mutex<HashMap<DataId, u64>>,
    /// One pass of the worker at a time.
    pass: tokio::sync::Mutex<()>,
}

/// Why a member of a batch failed.
#[derive(Clone, Debug)]
pub(crate) enum PackFailure {
    /// The metadata's word on it.
    Tables(TablesError),
    /// Its bytes could not be stored.
    Other(Error),
}

/// What a member of a batch comes to.
type Outcome<T> = std::result::Result<T, PackFailure>;

/// What a member of a batch is.
pub(crate) enum Work {
    /// A new object; its row's layout is filled in.
    Object(Box<PackedObject>),
    /// Bytes that were somewhere else.
    Move { owner: PackedOwnerRow, from: PackedRow },
}

impl Packer {
    pub(crate) fn new(options: Option<PackOptions>) -> Self {
        let (queue, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            options,
            queue,
            receiver: Mutex::new(Some(receiver)),
            room: Arc::new(Semaphore::new(BODIES_BYTES_MAX >> 10)),
            lanes: Lanes::default(),
            counts: Counts::default(),
            resting: Mutex::default(),
            pass: tokio::sync::Mutex::default(),
        }
    }

    /// Whether a body of that length, which is to have that code, is packed. Not if it is to have more copies than a batch has.
    pub(crate) fn takes(&self, content_bytes: u64, code: Code) -> bool {
        let max = self.options.as_ref().map_or(0, |options| options.object_bytes_max as u64);
        (1..=max).contains(&content_bytes) && (code.k() > 1 || code.n() <= open::COPIES)
    }

    /// Leaves an extent alone for a while: what failed now would fail again, after as much work.
    fn rest(&self, extent: DataId, now_unix_ms: u64) {
        let mut resting = self.resting.lock();
        resting.retain(|_, since| now_unix_ms.saturating_sub(*since) < REST_MS);
        if resting.len() < RESTING_MAX {
            resting.insert(extent, now_unix_ms);
        }
    }

    fn rests(&self, extent: DataId, now_unix_ms: u64) -> bool {
        self.resting.lock().get(&extent).is_some_and(|since| now_unix_ms.saturating_sub(*since) < REST_MS)
    }

    pub(crate) fn stats(&self) -> PackStats {
        self.counts.read()
    }

    /// Hands a body over and waits until it is visible, or is not going to be. Dropping the future before its batch leaves
    /// takes the body out.
    async fn submit(&self, target: Code, body: SmallBody, work: Work) -> Outcome<PackedDone> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { target, body, work, answer }).map_err(|_full_or_closed| {
            PackFailure::Other(Error::new(
                ErrorKind::SlowDown,
                format!("{WAITING_MAX} small objects wait to be stored, or the gateway stops; try again in a moment."),
            ))
        })?;
        answered.await.unwrap_or_else(|_dropped| {
            Err(PackFailure::Other(Error::new(
                ErrorKind::ServiceUnavailable,
                "The gateway stopped before the object was stored; try again.",
            )))
        })
    }

    /// Stores a small body and makes `object`, whose layout is filled in, visible.
    pub(crate) async fn commit(&self, target: Code, body: SmallBody, object: PackedObject) -> Outcome<Committed> {
        match self.submit(target, body, Work::Object(Box::new(object))).await? {
            PackedDone::Object(committed) => Ok(*committed),
            PackedDone::Moved(_) => Err(PackFailure::Other(internal("a new object was answered as a moved one"))),
        }
    }
}

/// Starts what writes batches, and what looks after extents.
pub(crate) fn start(inner: &Arc<Inner>) {
    let Some(options) = inner.packer.options.clone() else { return };
    let Some(receiver) = inner.packer.receiver.lock().take() else { return };
    inner.spawn_background(move |inner, stopping| queue::run(inner, receiver, stopping));
    if let Some(interval) = options.interval {
        worker::start(inner, interval);
    }
}

impl crate::Gateway {
    /// Looks after all extents once: seals those that are full or old, encodes what is sealed, empties what is mostly dead,
    /// drops what is empty. For tests and for people; the gateway does so by itself at its interval.
    ///
    /// # Errors
    /// When the metadata can't be read or written. An extent that can't be read or encoded now is counted and left.
    pub async fn run_packing_now(&self) -> Result<Packed> {
        worker::pass(&self.inner).await
    }

    /// Seals every open extent of this gateway that nothing is being written to, whatever its age.
    ///
    /// # Errors
    /// When the metadata can't be written.
    pub async fn seal_extents_now(&self) -> Result<u64> {
        self.inner.packer.lanes.retire_all();
        worker::seal_retired(&self.inner).await
    }

    /// What packing did since the start.
    pub fn pack_stats(&self) -> PackStats {
        self.inner.packer.stats()
    }
}

fn internal(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InternalError, message.to_string())
}
