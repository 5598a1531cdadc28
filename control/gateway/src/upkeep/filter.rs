//! What the metadata refers to, as a Bloom filter: of what a node holds and the filter does not know, nothing refers to it;
//! of what it knows, something probably does. It errs on the side of keeping.

use std::hash::BuildHasher;
use std::hash::RandomState;

use penstock_proto::{DataId, NodeId};

/// Bits for each entry: about one in 100 strays is kept until the next survey, whose hashes differ.
const BITS_PER_ENTRY: u64 = 10;
const HASHES: u64 = 7;
/// Largest filter: 64 MiB. With more entries than that is good for, more is kept.
const BYTES_MAX: u64 = 64 << 20;
const BYTES_MIN: u64 = 64 << 10;

pub(crate) struct Filter {
    words: Vec<u64>,
    seeds: [RandomState; 2],
}

impl Filter {
    /// For about so many entries.
    pub(crate) fn new(entries: u64) -> Self {
        let bytes = (entries.saturating_mul(BITS_PER_ENTRY) / 8).clamp(BYTES_MIN, BYTES_MAX);
        Self { words: vec![0; (bytes / 8) as usize], seeds: [RandomState::new(), RandomState::new()] }
    }

    /// Data that may be on any node.
    pub(crate) fn add_anywhere(&mut self, data: DataId) {
        self.add(data, None);
    }

    /// Data of which this node should hold shards.
    pub(crate) fn add_on(&mut self, data: DataId, node: NodeId) {
        self.add(data, Some(node));
    }

    /// Whether data on that node is, or may be, there for a reason.
    pub(crate) fn knows(&self, data: DataId, node: NodeId) -> bool {
        self.has(data, Some(node)) || self.has(data, None)
    }

    fn bits(&self, data: DataId, node: Option<NodeId>) -> impl Iterator<Item = u64> + use<> {
        let [one, two] = [0, 1].map(|seed: usize| self.seeds[seed].hash_one((data, node)));
        let bits = self.words.len() as u64 * 64;
        (0..HASHES).map(move |i| one.wrapping_add(i.wrapping_mul(two | 1)) % bits)
    }

    fn add(&mut self, data: DataId, node: Option<NodeId>) {
        for bit in self.bits(data, node) {
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    fn has(&self, data: DataId, node: Option<NodeId>) -> bool {
        self.bits(data, node).all(|bit| self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_and_little_else() {
        let mut filter = Filter::new(40_000);
        for data in 0..20_000 {
            filter.add_on(DataId(data), NodeId((data % 5) as u16));
            filter.add_anywhere(DataId(1 << 100 | data));
        }
        for data in 0..20_000 {
            assert!(filter.knows(DataId(data), NodeId((data % 5) as u16)));
            assert!(filter.knows(DataId(1 << 100 | data), NodeId(9)));
        }
        let wrong = (0..20_000).filter(|data| filter.knows(DataId(*data), NodeId(7))).count();
        assert!(wrong < 1000, "{wrong} of 20,000 strays would be kept");
    }
}
