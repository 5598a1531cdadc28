//! The extents that this gateway adds batches to: one for each code that extents are to get.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use penstock_meta::tables::{EXTENT_BATCHES_MAX, ExtentRow, ExtentState};
use penstock_placement::place;
use penstock_proto::{Code, DataId, Rights, limits};

use super::stats::Counts;
use super::{PackOptions, internal};
use crate::error::Result;
use crate::gateway::Inner;
use crate::pending::WRITE_LEASE_MS;
use crate::write::Signed;

/// Copies of what is packed, where there are nodes for them.
pub(super) const COPIES: usize = 3;
/// Objects up to this long are not laid across the ends of fragments: a read of one asks one node, once it is encoded.
const UNDIVIDED_BYTES_MAX: usize = 64 << 10;
/// An extent whose batches lack copies is left for another, on other nodes, when it is this old.
const LACKING_AGE_MS: u64 = 1000;

#[derive(Default)]
pub(super) struct Lanes {
    open: Mutex<HashMap<Code, OpenExtent>>,
    /// Not added to any more; sealed when no batch is under way.
    retired: Mutex<Vec<Arc<Extent>>>,
}

/// What batches know of their extent. Whoever holds one is writing to it.
pub(super) struct Extent {
    pub(super) id: DataId,
    pub(super) row: ExtentRow,
    /// A node failed in it: no more batches.
    spent: AtomicBool,
}

struct OpenExtent {
    extent: Arc<Extent>,
    next_offset: u64,
    next_batch: u32,
    signed: Signed,
}

/// Where a batch goes.
pub(super) struct Place {
    pub(super) extent: Arc<Extent>,
    /// Its number.
    pub(super) batch: u32,
    pub(super) offset: u64,
    pub(super) capability: penstock_proto::Capability,
    /// Of each member, in the extent.
    pub(super) offsets: Vec<u64>,
    /// Of the stripe.
    pub(super) bytes: usize,
}

impl Extent {
    /// No batch after those under way.
    pub(super) fn spend(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }

    /// A batch was written without all of its copies: others are written elsewhere, where there is an elsewhere.
    pub(super) fn lacks_copies(&self, inner: &Inner) {
        let old = inner.clock.now_unix_ms().saturating_sub(self.row.opened_unix_ms) > LACKING_AGE_MS;
        if old && inner.options.cluster_map.nodes.len() > self.row.nodes.len() {
            self.spend();
        }
    }
}

impl Lanes {
    /// A place for the longest run of `sizes`, from its first, that one batch holds: at least the first, and at most
    /// `max`. `all` of them, however they lie, on a second try.
    ///
    /// # Errors
    /// When an extent has to be opened and can't be.
    pub(super) async fn place(&self, inner: &Inner, target: Code, sizes: &[usize], all: bool) -> Result<Place> {
        let options = inner.packer.options.clone().unwrap_or_default();
        loop {
            self.retire_if_done(inner, target, &options);
            if let Some(place) = self.reserve(inner, target, sizes, all) {
                return Ok(place);
            }
            let fresh = open(inner, target).await?;
            Counts::one(&inner.packer.counts.extents_opened);
            // Another batch's second try may have been faster; then there is one more to seal.
            let other = self.open.lock().insert(target, fresh);
            self.retired.lock().extend(other.map(|open| open.extent));
        }
    }

    fn reserve(&self, inner: &Inner, target: Code, sizes: &[usize], all: bool) -> Option<Place> {
        let mut open = self.open.lock();
        let open = open.get_mut(&target)?;
        let start = open.next_offset;
        let (mut offsets, mut end) = (Vec::with_capacity(sizes.len()), start);
        for &size in sizes {
            let offset = if all { end } else { undivided(end, size, target) };
            let new_end = offset + size as u64;
            if !all && !offsets.is_empty() && new_end - start > limits::CHUNK_BYTES as u64 {
                break;
            }
            offsets.push(offset);
            end = new_end;
        }
        // The first member's offset is the batch's: what is skipped before it is in no batch.
        let offset = offsets.first().copied().unwrap_or(start);
        let batch = open.next_batch;
        open.next_offset = end;
        open.next_batch += 1;
        let capability = open.signed.get(inner);
        let bytes = (end - offset) as usize;
        Some(Place { extent: Arc::clone(&open.extent), batch, offset, capability, offsets, bytes })
    }

    fn retire_if_done(&self, inner: &Inner, target: Code, options: &PackOptions) {
        let mut open = self.open.lock();
        if open.get(&target).is_some_and(|open| open.is_done(inner, options)) {
            self.retired.lock().extend(open.remove(&target).map(|open| open.extent));
        }
    }

    /// Takes every extent that is full, old or spent out of use.
    pub(super) fn retire_done(&self, inner: &Inner, options: &PackOptions) {
        let targets: Vec<Code> = self.open.lock().keys().copied().collect();
        for target in targets {
            self.retire_if_done(inner, target, options);
        }
    }

    /// Takes every extent out of use.
    pub(super) fn retire_all(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        self.retired.lock().extend(open.into_values().map(|open| open.extent));
    }

    /// Extents out of use to which nothing is being written.
    pub(super) fn take_retired(&self) -> Vec<Arc<Extent>> {
        let mut retired = self.retired.lock();
        let (quiet, busy) = retired.drain(..).partition(|extent| Arc::strong_count(extent) == 1);
        *retired = busy;
        quiet
    }

    /// Extents that could not be sealed now.
    pub(super) fn put_back(&self, extent: Arc<Extent>) {
        self.retired.lock().push(extent);
    }
}

impl OpenExtent {
    fn is_done(&self, inner: &Inner, options: &PackOptions) -> bool {
        let age_ms = inner.clock.now_unix_ms().saturating_sub(self.extent.row.opened_unix_ms);
        // Well before its time runs out, whatever the setting.
        let age_ms_max = (options.extent_age_max.as_millis() as u64).min(WRITE_LEASE_MS / 2);
        age_ms >= age_ms_max
            || self.next_offset >= options.extent_bytes_max
            || self.next_batch >= EXTENT_BATCHES_MAX
            || self.extent.spent.load(Ordering::Relaxed)
    }
}

/// Registers a fresh extent.
async fn open(inner: &Inner, target: Code) -> Result<OpenExtent> {
    let id = DataId::random();
    let map = &inner.options.cluster_map;
    let copies = copies_for(map.nodes.len());
    let nodes = place(map, id, 0, copies.n()).map_err(internal)?;
    let now_unix_ms = inner.clock.now_unix_ms();
    let state = ExtentState::Open { expires_unix_ms: now_unix_ms + WRITE_LEASE_MS };
    let row = ExtentRow { opened_unix_ms: now_unix_ms, target, epoch: map.epoch, copies, nodes, state };
    inner.tables.open_extent(id, &row).await?;
    let extent = Arc::new(Extent { id, row, spent: AtomicBool::new(false) });
    Ok(OpenExtent { extent, next_offset: 0, next_batch: 0, signed: Signed::new(inner, Rights::PUT, id) })
}

/// As many copies as a house of that many nodes has places for.
fn copies_for(nodes: usize) -> Code {
    Code::new(1, nodes.clamp(1, COPIES) - 1).unwrap_or(Code::ONE_COPY)
}

/// Where an object of that size goes if it is not to go before `at`: past the end of the fragment if it is small and would
/// lie across it.
fn undivided(at: u64, size: usize, target: Code) -> u64 {
    if size > UNDIVIDED_BYTES_MAX {
        return at;
    }
    let chunk_bytes = limits::CHUNK_BYTES as u64;
    let fragment_bytes = target.shard_bytes(limits::CHUNK_BYTES) as u64;
    let within = at % chunk_bytes;
    let fragment_end = ((within / fragment_bytes + 1) * fragment_bytes).min(chunk_bytes);
    if within + size as u64 > fragment_end { at - within + fragment_end } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_objects_lie_in_one_fragment() {
        for (k, m) in [(1, 2), (2, 1), (4, 2), (10, 4), (20, 4)] {
            let code = Code::new(k, m).unwrap();
            let fragment = code.shard_bytes(limits::CHUNK_BYTES) as u64;
            let (mut at, mut skipped) = (0, 0);
            for i in 0..4000_usize {
                let size = 1 + (i * 7919) % UNDIVIDED_BYTES_MAX;
                let offset = undivided(at, size, code);
                skipped += offset - at;
                let of = |byte: u64| (byte >> 22, (byte & ((4 << 20) - 1)) / fragment);
                assert_eq!(of(offset), of(offset + size as u64 - 1), "{code} at {at}");
                at = offset + size as u64;
            }
            assert!(skipped * 4 < at, "{code} skips {skipped} of {at}");
        }
        assert_eq!(undivided(5, UNDIVIDED_BYTES_MAX + 1, Code::new(20, 4).unwrap()), 5);
    }

    #[test]
    fn a_house_has_as_many_copies_as_places() {
        let n = [0, 1, 2, 3, 4, 100].map(|nodes| copies_for(nodes).n());
        assert_eq!(n, [1, 1, 2, 3, 3, 3]);
    }
}
