//! Compaction: getting room back.
//!
//! An extent that holds nothing live is freed. One that is less than [`LIVE_PERCENT_MIN`] live has its shards moved
//! into the open extent through the committer's queue, like any other put, and is freed then. When room is short, the
//! emptiest extent that gives back a worthwhile part is taken, whatever it holds.
//!
//! A move is a compare-and-swap: the committer writes the copy only if the shard still lives where it was copied from.
//! A reader that looked up the old place holds a reference to the extent; the slot is used anew only after the last
//! one is gone. A shard that can't be read is left where it is, and pins its extent until it is deleted or replaced.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::StoreError;
use crate::disk::Disk;
use crate::format::record::RecordKind;
use crate::format::table::SlotEntry;
use crate::group::Op;
use crate::recover::read_sealed;
use crate::state::{Extent, ExtentId, ExtentRef, ExtentState, Location, State};

/// Extents with less of their room taken by live shards are compacted.
const LIVE_PERCENT_MIN: u64 = 60;
/// Least part of an extent that must be dead; when room is short, extents with that much dead are compacted.
const DEAD_PERCENT_MIN: u64 = 10;
/// This part of an extent is left for tombstones when the room that is there is used for moves.
const ROOM_KEPT_DIVISOR: u64 = 16;
/// Bytes of shards being moved at a time.
const MOVE_BYTES_MAX: usize = 4 << 20;
/// Shards being moved at a time.
const MOVE_SHARDS_MAX: usize = 256;
/// How long a finished compaction waits for the readers of what it emptied, before it leaves that to the next one.
const READERS_WAIT: Duration = Duration::from_millis(5);
const READERS_TRIES: u32 = 4;
/// How often the background looks for work that nobody told it of (readers that are gone).
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// What compaction works with.
pub(crate) struct Compactor {
    pub(crate) disk: Arc<Disk>,
    pub(crate) state: Arc<RwLock<State>>,
    /// Weak, so that a store that is dropped without being closed ends its committer.
    pub(crate) queue: mpsc::WeakSender<Op>,
    pub(crate) bytes_per_s: u64,
    pub(crate) closed: Arc<std::sync::atomic::AtomicBool>,
    /// One pass at a time.
    pub(crate) turn: Mutex<()>,
}

/// The background task: a pass whenever something may have become free.
pub(crate) async fn run(compactor: Arc<Compactor>, wake: Arc<Notify>) {
    loop {
        // Either way there may be work; a timeout is no error.
        let _ = tokio::time::timeout(IDLE_INTERVAL, wake.notified()).await;
        if compactor.is_stopped() {
            return;
        }
        match compactor.pass(true).await {
            Ok(_) => {}
            Err(StoreError::Closed) => return,
            // The committer says so to whoever writes; waiting for room or a new device is all that can be done.
            Err(error) => tracing::debug!(%error, "compaction stopped short"),
        }
    }
}

impl Compactor {
    fn is_stopped(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.queue.strong_count() == 0
    }

    /// Frees what is empty, and compacts until there is nothing worth it. Answers the extents freed.
    pub(crate) async fn pass(&self, paced: bool) -> Result<u32, StoreError> {
        let _turn = self.turn.lock().await;
        let mut freed = self.free_empty().await?;
        // Every round takes another extent: the bound is their number.
        for _ in 0..self.disk.layout.extents {
            if self.is_stopped() {
                return Err(StoreError::Closed);
            }
            let Some(victim) = self.choose() else { break };
            let emptied = self.empty(victim, paced).await?;
            self.disk.counters.compactions.add(1);
            freed += self.free_empty().await?;
            if !emptied {
                break;
            }
        }
        Ok(freed)
    }

    /// The emptiest extent, if compacting it gains anything and what lives in it finds room elsewhere.
    fn choose(&self) -> Option<ExtentId> {
        let extent_bytes = self.disk.layout.extent_bytes;
        let state = self.state.read();
        let short = state.free.is_empty();
        let open = state.extents.values().find(|extent| extent.state == ExtentState::Open);
        let room = open.map_or(0, |open| extent_bytes - open.frames_bytes) + state.free_slots() as u64 * extent_bytes;
        let worthwhile = |extent: &Extent| {
            let live = extent.live_bytes * 100 / extent_bytes;
            let dead = extent.frames_bytes.saturating_sub(extent.live_bytes) * 100 / extent_bytes;
            // Room behind the last frame is no gain: the next extent will have as much, and compacting would not end.
            let sparse = dead >= DEAD_PERCENT_MIN || extent.frames_bytes < extent_bytes / 2;
            (live < LIVE_PERCENT_MIN && sparse) || (short && dead >= DEAD_PERCENT_MIN)
        };
        let candidates = state.extents.iter().filter(|(_, extent)| {
            extent.state == ExtentState::Sealed
                && !extent.pinned
                && worthwhile(extent)
                && extent.live_bytes + extent_bytes / ROOM_KEPT_DIVISOR <= room
        });
        candidates.min_by_key(|(_, extent)| extent.live_bytes).map(|(id, _)| *id)
    }

    /// Moves away all that is needed of an extent. Answers whether nothing is left.
    async fn empty(&self, id: ExtentId, paced: bool) -> Result<bool, StoreError> {
        let Some((live, carry)) = self.needed(id).await else { return Ok(false) };
        let mut rest = live.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest
                .iter()
                .take(MOVE_SHARDS_MAX)
                .take_while(|location| {
                    let fits = bytes < MOVE_BYTES_MAX;
                    bytes += location.record.length as usize;
                    fits
                })
                .count();
            let (batch, after) = rest.split_at(count);
            rest = after;
            let moved = self.move_shards(id, batch).await?;
            if paced && !self.state.read().free.is_empty() {
                tokio::time::sleep(Duration::from_micros(moved * 1_000_000 / self.bytes_per_s.max(1))).await;
            }
            if self.is_stopped() {
                return Err(StoreError::Closed);
            }
        }
        drop(live);
        let mut waiting = Vec::new();
        for data in carry {
            waiting.push(self.ask(|reply| Op::Carry { data, home: id, reply }).await?);
            if waiting.len() >= MOVE_SHARDS_MAX {
                settle(&mut waiting).await?;
            }
        }
        settle(&mut waiting).await?;
        let state = self.state.read();
        Ok(state.extents.get(&id).is_none_or(|extent| extent.live_shards == 0))
    }

    /// The live shards of a sealed extent, and the tombstones to be carried.
    async fn needed(&self, id: ExtentId) -> Option<(Vec<Arc<Location>>, Vec<penstock_proto::DataId>)> {
        // A copy of what is needed to read it, so that the lock is not held over reads. The reference in it keeps the
        // slot, as any reader's does.
        let extent = {
            let state = self.state.read();
            let extent = state.extents.get(&id).filter(|extent| extent.state == ExtentState::Sealed)?;
            let mut copy = Extent::new(extent.slot, extent.epoch, extent.state, Arc::clone(&extent.reference));
            copy.frames_bytes = extent.frames_bytes;
            copy.footer_bytes = extent.footer_bytes;
            copy.root = extent.root;
            copy
        };
        let found = read_sealed(&self.disk, &extent).await;
        let state = self.state.read();
        let mut live: Vec<_> = found
            .entries
            .iter()
            .filter(|entry| entry.record.kind == RecordKind::Put)
            .filter_map(|entry| state.get(&entry.record.key).filter(|now| now.extent.id == id).cloned())
            .collect();
        live.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let complete = live.len() as u64 == state.extents.get(&id)?.live_shards;
        let carry = state.tombstones_to_carry(id);
        drop(state);
        if !complete {
            // The footer or a frame rotted since the start: what is live is known to the index alone.
            live = self.state.read().live_in(id);
        }
        Some((live, carry))
    }

    async fn move_shards(&self, id: ExtentId, batch: &[Arc<Location>]) -> Result<u64, StoreError> {
        let mut waiting = Vec::new();
        let mut moved = 0;
        for from in batch {
            let offset = from.extent.base + u64::from(from.record.payload_offset);
            let read = self.disk.read_span(&self.disk.pool, offset, from.record.length as usize).await;
            let payload = match read {
                Ok(payload) if from.record.matches(&payload) => payload,
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                other => {
                    self.disk.counters.corrupt_reads.add(1);
                    self.state.read().mark_broken(from);
                    tracing::error!(key = %from.record.key, offset, unreadable = other.is_err(), "compaction leaves a broken shard where it is");
                    if let Some(extent) = self.state.write().extents.get_mut(&id) {
                        extent.pinned = true;
                    }
                    continue;
                }
            };
            moved += payload.len() as u64;
            let from = Arc::clone(from);
            waiting.push(self.ask(|reply| Op::Move { from, payload, reply }).await?);
        }
        settle(&mut waiting).await?;
        Ok(moved)
    }

    async fn ask(
        &self,
        make: impl FnOnce(crate::group::Reply) -> Op,
    ) -> Result<oneshot::Receiver<Result<u32, StoreError>>, StoreError> {
        let queue = self.queue.upgrade().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        Ok(answer)
    }

    /// Frees the extents in which nothing is needed.
    async fn free_empty(&self) -> Result<u32, StoreError> {
        let retired: Vec<ExtentId> = {
            let mut state = self.state.write();
            let sealed: Vec<_> = state.extents.keys().copied().collect();
            for id in sealed {
                state.retire(id);
            }
            let retired = state.extents.iter().filter(|(_, extent)| extent.state == ExtentState::Retired);
            retired.map(|(id, _)| *id).collect()
        };
        let mut freed = 0;
        for id in retired {
            for _ in 0..READERS_TRIES {
                if self.state.read().is_unread(id) {
                    self.free(id).await?;
                    freed += 1;
                    break;
                }
                tokio::time::sleep(READERS_WAIT).await;
            }
        }
        Ok(freed)
    }

    async fn free(&self, id: ExtentId) -> Result<(), StoreError> {
        let (slot, reference): (u32, ExtentRef) = {
            let state = self.state.read();
            let Some(extent) = state.extents.get(&id) else { return Ok(()) };
            (extent.slot, ExtentRef { id, base: extent.reference.base })
        };
        // The number stays, so that the next one is higher; the state is what counts.
        self.disk.set_entry(slot, SlotEntry { extent: id, ..SlotEntry::default() }).await?;
        let keep = {
            let mut state = self.state.write();
            state.remove(id);
            // Room that is ours already: better kept than given back and asked for again.
            let keep = state.reserve.is_none();
            if keep {
                state.reserve = Some(slot);
            }
            keep
        };
        if !keep {
            if let Err(error) = self.disk.device.discard(reference.base, self.disk.layout.extent_bytes).await {
                tracing::warn!(%error, slot, "a freed extent could not be discarded");
            }
            self.state.write().free.push_back(slot);
        }
        self.disk.counters.extents_freed.add(1);
        Ok(())
    }
}

async fn settle(waiting: &mut Vec<oneshot::Receiver<Result<u32, StoreError>>>) -> Result<(), StoreError> {
    for answer in waiting.drain(..) {
        answer.await.map_err(|_| StoreError::Closed)??;
    }
    Ok(())
}
