//! What the store's upkeep asks: which shards are here, whether a given one is, and whether the bytes of all are still
//! what was written.
//!
//! A scrub reads whole shards in the order of their keys and checks them as every read does. It goes through buffers of
//! the store's own, so that it never competes with clients for theirs. What it finds damaged is marked: a put of the same
//! shard replaces it, which is all that a repair is.
//!
//! How it fails: a scrub step that can't get a buffer, or whose store is closed, says so and has done nothing; a shard
//! that can't be read is not an error but a finding.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use penstock_proto::ShardKey;
use penstock_proto::upkeep::{ListedShard, ShardClaim, ShardState};

use crate::state::Location;
use crate::{ShardStore, StoreError};

/// Shards of one step of a scrub.
const STEP_SHARDS_MAX: usize = 256;

/// What a step of a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Where the next step goes on; none when this one reached the end.
    pub next: Option<ShardKey>,
    /// Shards read.
    pub shards: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that could not be read or are damaged.
    pub bad: Vec<ShardKey>,
}

fn listed(location: &Arc<Location>) -> ListedShard {
    ListedShard { key: location.record.key, crc64: location.record.crc64, broken: location.is_broken() }
}

impl ShardStore {
    /// The shards after `after` in the order of their keys, at most `max`; and whether there are more.
    pub fn list(&self, after: Option<ShardKey>, max: usize) -> (Vec<ListedShard>, bool) {
        let state = self.inner.state.read();
        let mut shards: Vec<_> = state.after(after).take(max + 1).map(listed).collect();
        let more = shards.len() > max;
        shards.truncate(max);
        (shards, more)
    }

    /// As [`ShardStore::list`], of those that were found damaged and not replaced since.
    pub fn list_broken(&self, after: Option<ShardKey>, max: usize) -> (Vec<ListedShard>, bool) {
        let broken = self.inner.state.read().broken();
        let mut shards: Vec<_> =
            broken.iter().map(listed).filter(|shard| Some(shard.key) > after).take(max + 1).collect();
        let more = shards.len() > max;
        shards.truncate(max);
        (shards, more)
    }

    /// What is known of a shard that should be here, without reading it.
    pub fn check(&self, claim: &ShardClaim) -> ShardState {
        match self.inner.state.read().get(&claim.key) {
            None => ShardState::Missing,
            Some(location) if location.record.crc64 != claim.crc64 => ShardState::Other,
            Some(location) if location.is_broken() => ShardState::Broken,
            Some(_) => ShardState::Sound,
        }
    }

    /// Reads and checks shards from the first after `after` on, until `bytes_max` bytes were read (one shard at least).
    ///
    /// # Errors
    /// [`StoreError::Closed`]; [`StoreError::Buffers`] when no buffer came free.
    pub async fn scrub_step(&self, after: Option<ShardKey>, bytes_max: u64) -> Result<ScrubStep, StoreError> {
        let mut room = bytes_max;
        let batch: Vec<Arc<Location>> = {
            let state = self.inner.state.read();
            let fits = |location: &&Arc<Location>| {
                let fits = room > 0;
                room = room.saturating_sub(u64::from(location.record.length));
                fits
            };
            state.after(after).take(STEP_SHARDS_MAX).take_while(fits).cloned().collect()
        };
        let mut step = ScrubStep { next: batch.last().map(|location| location.record.key), ..ScrubStep::default() };
        let disk = &self.inner.disk;
        for location in batch {
            if self.inner.closed.load(Ordering::Acquire) {
                return Err(StoreError::Closed);
            }
            let length = location.record.length as usize;
            step.shards += 1;
            step.bytes += length as u64;
            match self.read_verified(&disk.pool, &location, 0, length).await {
                Ok(_) => {}
                Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => step.bad.push(location.record.key),
                Err(error) => return Err(error),
            }
        }
        disk.counters.scrubbed_shards.add(step.shards);
        disk.counters.scrubbed_bytes.add(step.bytes);
        disk.counters.scrubbed_bad.add(step.bad.len() as u64);
        Ok(step)
    }
}
