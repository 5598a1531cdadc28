//! Optimistic transactions over an [`Engine`]: snapshot reads, a read set, a write buffer, and one committer thread
//! that judges and writes.
//!
//! A transaction reads the version *before* it takes its snapshot. The snapshot may therefore be a little newer than
//! the version says, which can only cause a needless conflict, never a missed one.

mod buffer;
mod committer;
mod ranges;
mod resolver;
mod txn;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::engine::Engine;
use super::{CommitVersion, KvError, Transaction};
use committer::{CommitRequest, Committer, Message};
use txn::OccTransaction;

/// Most transactions waiting for the committer; past it, [`KvError::Busy`].
const COMMIT_QUEUE_TRANSACTIONS_MAX: usize = 8192;
/// Most bytes written by the transactions that wait for the committer; past it, [`KvError::Busy`].
const COMMIT_QUEUE_BYTES_MAX: usize = 32 << 20;
/// How long a transaction waits for its commit's outcome; past it, [`KvError::CommitUnknown`].
const COMMIT_WAIT: Duration = Duration::from_secs(30);

/// How a store behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OccOptions {
    /// How long a transaction lives.
    pub(crate) lifetime: Duration,
}

impl Default for OccOptions {
    fn default() -> Self {
        Self { lifetime: penstock_proto::limits::TRANSACTION_LIFETIME }
    }
}

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions committed that wrote something.
    pub committed: u64,
    /// Batches given to the engine, each with one fsync where the engine has a disk.
    pub group_commits: u64,
    /// Transactions refused with [`KvError::Conflict`].
    pub conflicts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    committed: AtomicU64,
    group_commits: AtomicU64,
    conflicts: AtomicU64,
}

/// What transactions and the committer share.
struct Shared<E: Engine> {
    engine: E,
    /// The last version that is durable and visible.
    version: AtomicU64,
    /// Set once a commit failed in the engine: why.
    failed: OnceLock<String>,
    closed: AtomicBool,
    queued_bytes: AtomicUsize,
    counters: Counters,
    lifetime: Duration,
}

impl<E: Engine> Shared<E> {
    fn submit(&self, queue: &Sender<Message>, request: Box<CommitRequest>) -> Result<(), KvError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(KvError::Closed);
        }
        if let Some(error) = self.failed.get() {
            return Err(failed_closed(error));
        }
        let bytes = request.writes.bytes();
        if self.queued_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > COMMIT_QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return Err(KvError::Busy);
        }
        queue.try_send(Message::Commit(request)).map_err(|error| {
            self.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => KvError::Busy,
                TrySendError::Disconnected(_) => KvError::Closed,
            }
        })
    }
}

/// What a commit meets after another one failed in the engine.
fn failed_closed(error: &str) -> KvError {
    KvError::Engine(format!("the store takes no more commits since one failed: {error}"))
}

/// A transactional store over an engine.
pub(crate) struct OccStore<E: Engine> {
    shared: Arc<Shared<E>>,
    /// `None` only while being dropped: the committer ends when the last sender goes.
    queue: Option<Sender<Message>>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl<E: Engine> OccStore<E> {
    /// Starts the committer over an open engine. Fails if the thread can't be started.
    pub(crate) fn start(engine: E, options: OccOptions) -> Result<Self, KvError> {
        let version = engine.opened_at_version();
        let shared = Arc::new(Shared {
            engine,
            version: AtomicU64::new(version),
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            queued_bytes: AtomicUsize::new(0),
            counters: Counters::default(),
            lifetime: options.lifetime,
        });
        let (queue, receiver) = crossbeam_channel::bounded(COMMIT_QUEUE_TRANSACTIONS_MAX);
        let committer = Committer::new(Arc::clone(&shared), receiver, version, options);
        let handle = std::thread::Builder::new()
            .name("meta-commit".into())
            .spawn(move || committer.run())
            .map_err(|error| KvError::Engine(format!("can't start the committer's thread: {error}")))?;
        Ok(Self { shared, queue: Some(queue), committer: Mutex::new(Some(handle)) })
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(KvError::Closed);
        }
        let queue = self.queue.clone().ok_or(KvError::Closed)?;
        // First the version, then the snapshot: see the module's documentation.
        let read_version = self.shared.version.load(Ordering::Acquire);
        let snapshot = self.shared.engine.snapshot();
        Ok(Box::new(OccTransaction::new(Arc::clone(&self.shared), queue, snapshot, read_version, Instant::now())))
    }

    /// Waits for the commits under way and stops the committer.
    pub(crate) async fn close(&self) -> Result<(), KvError> {
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (reply, done) = oneshot::channel();
        if let Some(queue) = &self.queue {
            let mut message = Message::Close(reply);
            // The queue may be full; the committer drains it. A committer that is gone needs no telling.
            loop {
                match queue.try_send(message) {
                    Ok(()) => break,
                    Err(TrySendError::Disconnected(_)) => return Ok(()),
                    Err(TrySendError::Full(back)) => {
                        message = back;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        }
        match tokio::time::timeout(COMMIT_WAIT, done).await {
            Ok(_) => Ok(()),
            Err(_) => Err(KvError::Engine("the committer did not stop in time".into())),
        }
    }

    /// The engine's name.
    pub(crate) fn engine_name(&self) -> &'static str {
        self.shared.engine.name()
    }

    #[cfg(test)]
    pub(crate) fn engine(&self) -> &E {
        &self.shared.engine
    }

    /// How many transactions wait for the committer.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }

    /// What has been done so far.
    pub(crate) fn stats(&self) -> StoreStats {
        let counters = &self.shared.counters;
        StoreStats {
            committed: counters.committed.load(Ordering::Relaxed),
            group_commits: counters.group_commits.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
        }
    }
}

impl<E: Engine> Drop for OccStore<E> {
    fn drop(&mut self) {
        // Without open transactions this is the last sender, and the committer finishes its queue and ends: waited for,
        // so that the engine's files are free when the drop returns. With open transactions the committer lives on
        // until the last of them is gone.
        let queue = self.queue.take();
        let last = Arc::strong_count(&self.shared) <= 2;
        drop(queue);
        if last && let Some(handle) = self.committer.lock().take() {
            let _ = handle.join();
        }
    }
}

/// Waits for the committer's word.
async fn outcome(reply: oneshot::Receiver<Result<CommitVersion, KvError>>) -> Result<CommitVersion, KvError> {
    match tokio::time::timeout(COMMIT_WAIT, reply).await {
        Ok(Ok(result)) => result,
        // The committer died with the request in hand, or is stuck in the engine.
        Ok(Err(_)) | Err(_) => Err(KvError::CommitUnknown),
    }
}
