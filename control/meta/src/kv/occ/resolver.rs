//! Who wrote what lately: decides whether a transaction's reads still hold.
//!
//! A transaction that read at version `r` conflicts if anything it read was written at a version above `r`. The window
//! of remembered writes is bounded in time, keys and bytes; a transaction whose read version lies before the window is
//! too old to be judged. Pure: time is handed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ranges::RangeSet;
use crate::kv::KvError;

/// Most keys remembered.
const WINDOW_KEYS_MAX: usize = 131_072;
/// Most bytes of keys remembered.
const WINDOW_KEY_BYTES_MAX: usize = 16 << 20;

/// What a transaction read with conflict checks.
#[derive(Debug, Default)]
pub(super) struct ReadSet {
    pub(super) points: BTreeSet<Bytes>,
    pub(super) ranges: RangeSet,
}

#[derive(Debug)]
struct Group {
    version: u64,
    at: Instant,
    keys: Vec<Bytes>,
    key_bytes: usize,
}

/// The window of recent writes.
#[derive(Debug)]
pub(super) struct Resolver {
    last_write: BTreeMap<Bytes, u64>,
    groups: VecDeque<Group>,
    /// Reads below this version can't be judged any more.
    floor: u64,
    keys: usize,
    key_bytes: usize,
    lifetime: Duration,
}

impl Resolver {
    /// An empty window: the store stands at `version`. Groups older than `lifetime` are forgotten.
    pub(super) fn new(version: u64, lifetime: Duration) -> Self {
        Self { last_write: BTreeMap::new(), groups: VecDeque::new(), floor: version, keys: 0, key_bytes: 0, lifetime }
    }

    /// Whether reads made at `read_version` still hold.
    pub(super) fn validate(&self, read_version: u64, reads: &ReadSet) -> Result<(), KvError> {
        if read_version < self.floor {
            return Err(KvError::TooOld);
        }
        let written_since = |version: &u64| *version > read_version;
        let point = reads.points.iter().any(|key| self.last_write.get(key).is_some_and(written_since));
        let range = || {
            reads.ranges.iter().any(|(begin, end)| {
                let bounds = (Bound::Included(begin.as_ref()), Bound::Excluded(end.as_ref()));
                self.last_write.range::<[u8], _>(bounds).any(|(_, version)| written_since(version))
            })
        };
        if point || range() { Err(KvError::Conflict) } else { Ok(()) }
    }

    /// Remembers a write of the group that is being put together, so that later members of the group see it.
    pub(super) fn record(&mut self, key: &Bytes, version: u64) {
        self.last_write.insert(key.clone(), version);
    }

    /// Ends the group: `keys` are all that were recorded at `version`, each once.
    pub(super) fn end_group(&mut self, version: u64, keys: Vec<Bytes>, now: Instant) {
        let key_bytes = keys.iter().map(Bytes::len).sum();
        self.keys += keys.len();
        self.key_bytes += key_bytes;
        self.groups.push_back(Group { version, at: now, keys, key_bytes });
        while let Some(oldest) = self.groups.front() {
            let fits = self.keys <= WINDOW_KEYS_MAX && self.key_bytes <= WINDOW_KEY_BYTES_MAX;
            if fits && now.duration_since(oldest.at) <= self.lifetime {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(group) = self.groups.pop_front() else { return };
        for key in &group.keys {
            // A later group may have written the key again.
            if self.last_write.get(key) == Some(&group.version) {
                self.last_write.remove(key);
            }
        }
        self.keys -= group.keys.len();
        self.key_bytes -= group.key_bytes;
        self.floor = group.version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(key: &'static str) -> ReadSet {
        ReadSet { points: [Bytes::from(key)].into(), ..ReadSet::default() }
    }

    fn range(begin: &'static str, end: &'static str) -> ReadSet {
        let mut reads = ReadSet::default();
        reads.ranges.insert(Bytes::from(begin), Bytes::from(end));
        reads
    }

    fn write(resolver: &mut Resolver, version: u64, keys: &[&'static str], now: Instant) {
        let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::from(*key)).collect();
        for key in &keys {
            resolver.record(key, version);
        }
        resolver.end_group(version, keys, now);
    }

    #[test]
    fn later_writes_conflict_and_earlier_ones_do_not() {
        let now = Instant::now();
        let mut resolver = Resolver::new(10, Duration::from_secs(1));
        write(&mut resolver, 11, &["b"], now);
        assert_eq!(resolver.validate(10, &point("b")), Err(KvError::Conflict));
        assert_eq!(resolver.validate(11, &point("b")), Ok(()));
        assert_eq!(resolver.validate(10, &point("a")), Ok(()));
        assert_eq!(resolver.validate(10, &range("a", "b")), Ok(()), "the end is not in the range");
        assert_eq!(resolver.validate(10, &range("b", "c")), Err(KvError::Conflict), "the begin is");
        assert_eq!(resolver.validate(9, &point("a")), Err(KvError::TooOld), "opened at 10: nothing is known before");
    }

    #[test]
    fn the_window_is_bounded_by_time_and_by_size() {
        let start = Instant::now();
        let mut resolver = Resolver::new(0, Duration::from_secs(1));
        write(&mut resolver, 1, &["a", "b"], start);
        write(&mut resolver, 2, &["b"], start + Duration::from_millis(900));
        write(&mut resolver, 3, &["c"], start + Duration::from_millis(1100));
        assert_eq!(resolver.floor, 1, "the first group is forgotten");
        assert_eq!(resolver.validate(0, &point("z")), Err(KvError::TooOld));
        assert_eq!(resolver.validate(1, &point("b")), Err(KvError::Conflict), "rewritten later: still remembered");
        assert_eq!(resolver.validate(1, &point("a")), Ok(()));
        let many: Vec<Bytes> = (0..WINDOW_KEYS_MAX as u32).map(|n| Bytes::copy_from_slice(&n.to_be_bytes())).collect();
        for key in &many {
            resolver.record(key, 4);
        }
        resolver.end_group(4, many, start + Duration::from_millis(1100));
        assert_eq!((resolver.floor, resolver.keys), (3, WINDOW_KEYS_MAX));
        assert_eq!(resolver.last_write.len(), WINDOW_KEYS_MAX, "nothing leaks");
    }
}
