//! A set of keys given as disjoint half-open ranges.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// Disjoint, non-touching ranges: begin -> end.
#[derive(Debug, Default)]
pub(super) struct RangeSet(BTreeMap<Bytes, Bytes>);

impl RangeSet {
    /// Adds `begin..end`, merging it with what it overlaps or touches. An empty range adds nothing.
    pub(super) fn insert(&mut self, mut begin: Bytes, mut end: Bytes) {
        if begin >= end {
            return;
        }
        // Everything that starts at or before the new end and ends at or after the new begin melts into one. The ranges
        // are disjoint, so walking back from the end meets them in descending order of both ends.
        while let Some((other_begin, other_end)) =
            self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(end.as_ref()))).next_back()
        {
            if *other_end < begin {
                break;
            }
            let key = other_begin.clone();
            if key < begin {
                begin = key.clone();
            }
            if *other_end > end {
                end = other_end.clone();
            }
            self.0.remove(&key);
        }
        self.0.insert(begin, end);
    }

    /// Whether `key` lies in one of the ranges.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| end.as_ref() > key)
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::random::SplitMix;

    #[test]
    fn agrees_with_a_bitmap() {
        let mut random = SplitMix::new(7);
        for _ in 0..300 {
            let mut set = RangeSet::default();
            let mut bitmap = [false; 64];
            for _ in 0..random.below(12) {
                let (begin, end) = (random.below(64) as u8, random.below(64) as u8);
                set.insert(Bytes::copy_from_slice(&[begin]), Bytes::copy_from_slice(&[end]));
                for key in begin..end {
                    bitmap[usize::from(key)] = true;
                }
                for (key, inside) in bitmap.iter().enumerate() {
                    assert_eq!(set.contains(&[key as u8]), *inside, "key {key}");
                }
            }
            let runs = (0..64).filter(|at| bitmap[*at] && (*at == 0 || !bitmap[at - 1])).count();
            assert_eq!(set.len(), runs, "ranges that overlap or touch are one");
        }
    }
}
