//! The group committer: one thread per store, the only writer.
//!
//! It drains a bounded queue, judges each transaction against the commits since its snapshot *and* against the
//! transactions before it in the same group, and gives the accepted ones to the engine as one batch with one fsync.
//! While that fsync runs the queue fills, so groups grow with the load and nobody waits for a timer.
//!
//! An error of the engine's leaves the group's outcome unknown: its members are told so, and the store fails closed.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use crossbeam_channel::Receiver;
use penstock_proto::limits;
use tokio::sync::oneshot;

use super::buffer::{Pending, Stamped, WriteBuffer, counter, counter_bytes};
use super::resolver::{ReadSet, Resolver};
use super::{OccOptions, Shared};
use crate::kv::engine::{Engine, EngineSnapshot, Room};
use crate::kv::{CLEARED_ROWS_MAX, CommitVersion, KvError};

/// Most bytes written by one group.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A transaction that wants to commit.
pub(super) struct CommitRequest {
    pub(super) read_version: u64,
    pub(super) began: Instant,
    pub(super) reads: ReadSet,
    pub(super) writes: WriteBuffer,
    pub(super) makes_room: bool,
    pub(super) reply: oneshot::Sender<Result<CommitVersion, KvError>>,
}

/// What the committer's queue carries.
pub(super) enum Message {
    Commit(Box<CommitRequest>),
    /// Everything before this has been committed; stop.
    Close(oneshot::Sender<()>),
}

/// The rows that the group being put together changes.
type Overlay = BTreeMap<Bytes, Option<Bytes>>;

/// The engine's state before the group, taken only if somebody needs it.
struct Base<'a, E: Engine> {
    engine: &'a E,
    snapshot: Option<E::Snapshot>,
}

impl<E: Engine> Base<'_, E> {
    fn snapshot(&mut self) -> &E::Snapshot {
        let engine = self.engine;
        self.snapshot.get_or_insert_with(|| engine.snapshot())
    }
}

/// The committer's own state.
pub(super) struct Committer<E: Engine> {
    shared: Arc<Shared<E>>,
    queue: Receiver<Message>,
    resolver: Resolver,
    version: u64,
    options: OccOptions,
}

impl<E: Engine> Committer<E> {
    pub(super) fn new(shared: Arc<Shared<E>>, queue: Receiver<Message>, version: u64, options: OccOptions) -> Self {
        let resolver = Resolver::new(version, options.lifetime);
        Self { shared, queue, resolver, version, options }
    }

    /// Serves the queue until it is closed or every handle to the store is gone.
    pub(super) fn run(mut self) {
        while let Ok(message) = self.queue.recv() {
            let mut group = Vec::new();
            let (mut operations, mut bytes) = (0, 0);
            let mut next = Some(message);
            let mut close = None;
            while let Some(message) = next {
                match message {
                    Message::Commit(request) => {
                        operations += request.writes.operations();
                        bytes += request.writes.bytes();
                        group.push(*request);
                    }
                    Message::Close(reply) => close = Some(reply),
                }
                let full = operations >= limits::GROUP_COMMIT_OPERATIONS_MAX || bytes >= GROUP_BYTES_MAX;
                next = if full || close.is_some() { None } else { self.queue.try_recv().ok() };
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.commit_group(group);
            if let Some(reply) = close {
                let _ = reply.send(());
                return;
            }
        }
    }

    fn commit_group(&mut self, group: Vec<CommitRequest>) {
        let version = self.version + 1;
        let shared = Arc::clone(&self.shared);
        let mut base = Base { engine: &shared.engine, snapshot: None };
        let mut overlay = Overlay::new();
        let mut accepted = Vec::with_capacity(group.len());
        let room = shared.engine.room();
        for request in group {
            let CommitRequest { read_version, began, reads, writes, makes_room, reply } = request;
            // A group has at most GROUP_COMMIT_OPERATIONS_MAX members (each writes something), which fits.
            let at = CommitVersion { version, order: accepted.len() as u16 };
            let effects = self
                .judge(read_version, began, &reads)
                .and_then(|()| admit(room, makes_room))
                .and_then(|()| effects(writes, at, &overlay, &mut base));
            match effects {
                Ok(effects) => {
                    for (key, value) in effects {
                        self.resolver.record(&key, version);
                        overlay.insert(key, value);
                    }
                    accepted.push((reply, at));
                }
                Err(error) => {
                    if error == KvError::Conflict {
                        shared.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    }
                    // The transaction's owner may have gone; then nobody wants to know.
                    let _ = reply.send(Err(error));
                }
            }
        }
        drop(base);
        if accepted.is_empty() {
            return;
        }
        self.resolver.end_group(version, overlay.keys().cloned().collect(), Instant::now());
        shared.counters.group_commits.fetch_add(1, Ordering::Relaxed);
        match shared.engine.apply(version, overlay.into_iter().collect()) {
            Ok(()) => {
                self.version = version;
                // Before anybody hears of it: who begins after the acknowledgement must read at this version or later.
                shared.version.store(version, Ordering::Release);
                shared.counters.committed.fetch_add(accepted.len() as u64, Ordering::Relaxed);
                for (reply, at) in accepted {
                    let _ = reply.send(Ok(at));
                }
            }
            Err(error) => {
                tracing::error!(%error, version, "a group commit failed: the store takes no more commits");
                // Before anybody hears of it: who is told "unknown" and tries again must be refused.
                let _ = shared.failed.set(error.to_string());
                for (reply, _) in accepted {
                    let _ = reply.send(Err(KvError::CommitUnknown));
                }
            }
        }
    }

    fn judge(&self, read_version: u64, began: Instant, reads: &ReadSet) -> Result<(), KvError> {
        if let Some(error) = self.shared.failed.get() {
            return Err(super::failed_closed(error));
        }
        if began.elapsed() > self.options.lifetime {
            return Err(KvError::TooOld);
        }
        self.resolver.validate(read_version, reads)
    }
}

/// Refuses before the engine is touched what a full disk would fail in the middle of: after a failed batch the store
/// takes no commit any more, after a refusal it goes on as soon as there is room.
fn admit(room: Room, makes_room: bool) -> Result<(), KvError> {
    match room {
        Room::Plenty => Ok(()),
        Room::Reserve if makes_room => Ok(()),
        Room::Reserve | Room::None => Err(KvError::NoSpace),
    }
}

/// What a transaction's writes come to, as rows, given the members of the group before it.
fn effects<E: Engine>(
    writes: WriteBuffer,
    at: CommitVersion,
    overlay: &Overlay,
    base: &mut Base<'_, E>,
) -> Result<Overlay, KvError> {
    let mut effects = Overlay::new();
    for (begin, end) in writes.cleared.iter() {
        clear_range(begin, end, overlay, base, &mut effects)?;
    }
    for (key, pending) in writes.points {
        let value = match pending {
            Pending::Set(value) => Some(value),
            Pending::Clear => None,
            Pending::Add(delta) => {
                let before = match overlay.get(&key) {
                    Some(value) => value.clone(),
                    None => base.snapshot().get(&key)?,
                };
                let before = before.map_or(Ok(0), |value| counter(&key, &value))?;
                Some(counter_bytes(before.wrapping_add(delta)))
            }
        };
        effects.insert(key, value);
    }
    for Stamped { prefix, suffix, value } in writes.stamped {
        let mut key = BytesMut::with_capacity(prefix.len() + CommitVersion::BYTES + suffix.len());
        key.extend_from_slice(&prefix);
        key.extend_from_slice(&at.to_bytes());
        key.extend_from_slice(&suffix);
        effects.insert(key.freeze(), Some(value));
    }
    Ok(effects)
}

/// Turns a cleared range into removals of the rows that are there now, which is all that clearing can change.
fn clear_range<E: Engine>(
    begin: &Bytes,
    end: &Bytes,
    overlay: &Overlay,
    base: &mut Base<'_, E>,
    effects: &mut Overlay,
) -> Result<(), KvError> {
    let too_large = |size| KvError::TooLarge { what: "rows cleared by ranges", size, max: CLEARED_ROWS_MAX };
    base.snapshot().scan(begin, end, false, &mut |key, _| {
        effects.insert(key, None);
        if effects.len() > CLEARED_ROWS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let bounds = (Bound::Included(begin.as_ref()), Bound::Excluded(end.as_ref()));
    for (key, value) in overlay.range::<[u8], _>(bounds) {
        if value.is_some() {
            effects.insert(key.clone(), None);
        }
    }
    if effects.len() > CLEARED_ROWS_MAX { Err(too_large(effects.len())) } else { Ok(()) }
}
