//! Decode matrices, kept by what was chosen and wanted: while a node is down, every stripe is read by the same few.

use penstock_gf256::Coefficients;
use smallvec::SmallVec;
use std::sync::Arc;

/// Most decode matrices that one code keeps.
pub const DECODE_PLANS_MAX: usize = 64;

/// Most memory that one code's decode matrices hold together, in bytes. (Of RS(10,4), 64 take about 80 KiB; of the
/// largest code, a single one takes half a MiB.)
pub const DECODE_PLAN_BYTES_MAX: usize = 4 << 20;

/// Shard indices: what is read or may be read, then what is wanted, in a form that the code chooses.
pub(crate) type PlanKey = SmallVec<[u8; 32]>;

/// How to rebuild some shards.
pub(crate) struct Plan {
    /// Indices of the shards to read, in the order of the matrix' columns.
    pub(crate) sources: SmallVec<[u8; 32]>,
    /// A row per wanted shard.
    pub(crate) coefficients: Coefficients,
}

impl Plan {
    pub(crate) fn heap_bytes(&self) -> usize {
        self.sources.len() + self.coefficients.heap_bytes()
    }
}

/// The least recently used go first. A list in order of use: short enough to be searched from the front.
#[derive(Default)]
pub(crate) struct PlanCache {
    entries: Vec<(PlanKey, Arc<Plan>)>,
    bytes: usize,
}

impl PlanCache {
    pub(crate) fn get(&mut self, key: &PlanKey) -> Option<Arc<Plan>> {
        let at = self.entries.iter().position(|(of, _)| of == key)?;
        self.entries[..=at].rotate_right(1);
        Some(Arc::clone(&self.entries[0].1))
    }

    pub(crate) fn insert(&mut self, key: PlanKey, plan: &Arc<Plan>) {
        if self.get(&key).is_some() {
            return; // another thread computed it meanwhile
        }
        self.bytes += plan.heap_bytes();
        self.entries.insert(0, (key, Arc::clone(plan)));
        while self.entries.len() > DECODE_PLANS_MAX || self.bytes > DECODE_PLAN_BYTES_MAX {
            let Some((_, oldest)) = self.entries.pop() else { break };
            self.bytes -= oldest.heap_bytes();
        }
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}
