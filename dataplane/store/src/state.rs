//! What is where: the index of live shards, the extents with their live bytes, and the tombstones that still matter.
//! All in memory, rebuilt at the start; the committer alone changes the index.
//!
//! **Tombstones.** A tombstone must outlive every older put record of its data that is still on the device, or a start
//! would bring deleted data back. So each one knows its *holders*: the extents that have such records. They are the
//! extents of the shards it killed, and every extent with superseded copies (compaction moved shards away from it, or
//! a rotten shard was stored again), for which we don't remember whose the copies were. A holder that is freed is
//! struck off; a tombstone without holders is needed no more. An extent that is freed while a tombstone in it still
//! has other holders is asked for first to carry it forward.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use penstock_proto::{DataId, ShardKey};

use crate::format::Epoch;
use crate::format::record::Record;

/// Deleted data ids that are remembered, to refuse late puts, after their tombstones are needed no more.
pub(crate) const DELETED_REMEMBERED_MAX: usize = 64 << 10;

/// Broken shards that are remembered.
pub(crate) const BROKEN_REMEMBERED_MAX: usize = 64 << 10;

/// Number of one use of a slot.
pub(crate) type ExtentId = u64;

/// An extent as locations refer to it. While one reference is out, its slot is not used anew: a reader that looked up
/// a location may finish.
#[derive(Debug)]
pub(crate) struct ExtentRef {
    pub(crate) id: ExtentId,
    /// Where its slot begins on the device.
    pub(crate) base: u64,
}

/// Where a live shard is.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) extent: Arc<ExtentRef>,
    /// The shard's record; its payload offset counts from the extent's start.
    pub(crate) record: Record,
    /// A read found it broken: a put of the same shard replaces it.
    pub(crate) broken: AtomicBool,
}

impl Location {
    pub(crate) fn new(extent: Arc<ExtentRef>, record: Record) -> Arc<Self> {
        Arc::new(Self { extent, record, broken: AtomicBool::new(false) })
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// What may happen to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentState {
    /// Takes frames.
    Open,
    /// Full, or given up.
    Sealed,
    /// Nothing in it is needed; waits for its last readers.
    Retired,
}

/// An extent in use.
#[derive(Debug)]
pub(crate) struct Extent {
    pub(crate) slot: u32,
    pub(crate) epoch: Epoch,
    pub(crate) state: ExtentState,
    pub(crate) reference: Arc<ExtentRef>,
    pub(crate) frames_bytes: u64,
    pub(crate) footer_bytes: u32,
    pub(crate) root: u64,
    pub(crate) live_shards: u64,
    /// Live records and payloads as they would be, packed well.
    pub(crate) live_bytes: u64,
    /// Holds copies of shards that live elsewhere now, or did.
    pub(crate) superseded: bool,
    /// Compaction met a shard here that it could not read.
    pub(crate) pinned: bool,
    /// Data whose tombstones have this extent as holder.
    pub(crate) holds: HashSet<DataId>,
    /// Data whose tombstones, needed still, are in this extent.
    pub(crate) homes: HashSet<DataId>,
}

impl Extent {
    pub(crate) fn new(slot: u32, epoch: Epoch, state: ExtentState, reference: Arc<ExtentRef>) -> Self {
        Self {
            slot,
            epoch,
            state,
            reference,
            frames_bytes: 0,
            footer_bytes: 0,
            root: 0,
            live_shards: 0,
            live_bytes: 0,
            superseded: false,
            pinned: false,
            holds: HashSet::new(),
            homes: HashSet::new(),
        }
    }
}

#[derive(Debug)]
struct Tombstone {
    home: ExtentId,
    holders: HashSet<ExtentId>,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct State {
    index: BTreeMap<ShardKey, Arc<Location>>,
    pub(crate) extents: BTreeMap<ExtentId, Extent>,
    tombstones: HashMap<DataId, Tombstone>,
    remembered: HashSet<DataId>,
    remembered_order: VecDeque<DataId>,
    /// Slots without an extent.
    pub(crate) free: VecDeque<u32>,
    /// A free slot, allocated already, that client puts may not open.
    pub(crate) reserve: Option<u32>,
    live_bytes: u64,
    /// Shards that were found broken; those that were replaced or deleted since may be among them.
    broken: Mutex<BTreeSet<ShardKey>>,
}

impl State {
    pub(crate) fn get(&self, key: &ShardKey) -> Option<&Arc<Location>> {
        self.index.get(key)
    }

    /// The live shards after `after`, in the order of their keys.
    pub(crate) fn after(&self, after: Option<ShardKey>) -> impl Iterator<Item = &Arc<Location>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.index.range((from, Bound::Unbounded)).map(|(_, location)| location)
    }

    /// A read found it broken.
    pub(crate) fn mark_broken(&self, location: &Location) {
        location.broken.store(true, Ordering::Relaxed);
        let mut broken = self.broken.lock();
        // Past the bound it is found again, by the next read or scrub.
        if broken.len() < BROKEN_REMEMBERED_MAX {
            broken.insert(location.record.key);
        }
    }

    /// The shards that live and are broken.
    pub(crate) fn broken(&self) -> Vec<Arc<Location>> {
        let mut broken = self.broken.lock();
        broken.retain(|key| self.index.get(key).is_some_and(|location| location.is_broken()));
        broken.iter().filter_map(|key| self.index.get(key).cloned()).collect()
    }

    /// Whether any shard of this data lives.
    pub(crate) fn has_shards(&self, data: DataId) -> bool {
        let last = ShardKey { data, stripe: u32::MAX, shard: u8::MAX };
        self.index.range(ShardKey { data, stripe: 0, shard: 0 }..=last).next().is_some()
    }

    /// The live shards in one extent, by a walk over all.
    pub(crate) fn live_in(&self, id: ExtentId) -> Vec<Arc<Location>> {
        self.index.values().filter(|location| location.extent.id == id).cloned().collect()
    }

    pub(crate) fn shards(&self) -> u64 {
        self.index.len() as u64
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Free slots, the reserve among them.
    pub(crate) fn free_slots(&self) -> usize {
        self.free.len() + usize::from(self.reserve.is_some())
    }

    /// Whether puts of this data are to be refused.
    pub(crate) fn is_deleted(&self, data: &DataId) -> bool {
        self.tombstones.contains_key(data) || self.remembered.contains(data)
    }

    /// A put became durable in `location`, or a move did.
    pub(crate) fn insert(&mut self, location: Arc<Location>) {
        let extent = self.extent(location.extent.id);
        extent.live_shards += 1;
        extent.live_bytes += location.record.footprint_bytes();
        self.live_bytes += u64::from(location.record.length);
        if let Some(old) = self.index.insert(location.record.key, location) {
            self.forget(&old);
            self.extent(old.extent.id).superseded = true;
        }
    }

    /// A tombstone became durable in `home`. Answers how many shards it killed.
    pub(crate) fn delete(&mut self, data: DataId, home: ExtentId) -> u32 {
        if self.tombstones.contains_key(&data) {
            self.carry(data, home);
            return 0;
        }
        let last = ShardKey { data, stripe: u32::MAX, shard: u8::MAX };
        let keys: Vec<_> =
            self.index.range(ShardKey { data, stripe: 0, shard: 0 }..=last).map(|(key, _)| *key).collect();
        let mut holders: HashSet<ExtentId> =
            self.extents.iter().filter(|(_, extent)| extent.superseded).map(|(id, _)| *id).collect();
        for key in &keys {
            if let Some(old) = self.index.remove(key) {
                self.forget(&old);
                holders.insert(old.extent.id);
            }
        }
        self.remember(data);
        self.need(data, home, holders);
        keys.len() as u32
    }

    /// Puts a tombstone on the books, unless nobody needs it.
    pub(crate) fn need(&mut self, data: DataId, home: ExtentId, holders: HashSet<ExtentId>) {
        if holders.is_empty() {
            return;
        }
        for holder in &holders {
            self.extent(*holder).holds.insert(data);
        }
        self.extent(home).homes.insert(data);
        self.tombstones.insert(data, Tombstone { home, holders });
    }

    /// A copy of a tombstone became durable in `home`.
    fn carry(&mut self, data: DataId, home: ExtentId) {
        if let Some(tombstone) = self.tombstones.get_mut(&data) {
            let before = std::mem::replace(&mut tombstone.home, home);
            if let Some(extent) = self.extents.get_mut(&before) {
                extent.homes.remove(&data);
            }
            self.extent(home).homes.insert(data);
        }
    }

    /// Remembers a deleted id, and forgets the oldest past the limit.
    pub(crate) fn remember(&mut self, data: DataId) {
        if self.remembered.insert(data) {
            self.remembered_order.push_back(data);
            if self.remembered_order.len() > DELETED_REMEMBERED_MAX
                && let Some(oldest) = self.remembered_order.pop_front()
            {
                self.remembered.remove(&oldest);
            }
        }
    }

    /// Tombstones in `id` that must be written elsewhere before it may be freed.
    pub(crate) fn tombstones_to_carry(&self, id: ExtentId) -> Vec<DataId> {
        let Some(extent) = self.extents.get(&id) else { return Vec::new() };
        let elsewhere = |data: &&DataId| {
            self.tombstones.get(data).is_some_and(|tombstone| tombstone.holders.iter().any(|holder| *holder != id))
        };
        extent.homes.iter().filter(elsewhere).copied().collect()
    }

    /// Whether the needed tombstone of `data` is in extent `home`.
    pub(crate) fn tombstone_is_in(&self, data: DataId, home: ExtentId) -> bool {
        self.tombstones.get(&data).is_some_and(|tombstone| tombstone.home == home)
    }

    /// Takes a sealed extent in which nothing is needed out of use.
    pub(crate) fn retire(&mut self, id: ExtentId) -> bool {
        let carry = !self.tombstones_to_carry(id).is_empty();
        match self.extents.get_mut(&id) {
            Some(extent) if extent.state == ExtentState::Sealed && extent.live_shards == 0 && !carry => {
                extent.state = ExtentState::Retired;
                true
            }
            _ => false,
        }
    }

    /// Whether nobody reads from a retired extent any more.
    pub(crate) fn is_unread(&self, id: ExtentId) -> bool {
        self.extents.get(&id).is_some_and(|extent| {
            // Ours is the last reference, and new ones come only from the index, where none is left.
            extent.state == ExtentState::Retired && Arc::strong_count(&extent.reference) == 1
        })
    }

    /// Strikes off an extent whose slot is free on the device.
    pub(crate) fn remove(&mut self, id: ExtentId) {
        let Some(extent) = self.extents.remove(&id) else { return };
        for data in extent.holds {
            let Some(tombstone) = self.tombstones.get_mut(&data) else { continue };
            tombstone.holders.remove(&id);
            if tombstone.holders.is_empty() {
                let home = tombstone.home;
                self.tombstones.remove(&data);
                if let Some(home) = self.extents.get_mut(&home) {
                    home.homes.remove(&data);
                }
            }
        }
    }

    fn forget(&mut self, old: &Location) {
        self.live_bytes -= u64::from(old.record.length);
        let footprint = old.record.footprint_bytes();
        let extent = self.extent(old.extent.id);
        extent.live_shards -= 1;
        extent.live_bytes -= footprint;
        extent.pinned = false;
    }

    fn extent(&mut self, id: ExtentId) -> &mut Extent {
        self.extents.get_mut(&id).expect("invariant: an extent stays on the books while anything refers to it")
    }
}
