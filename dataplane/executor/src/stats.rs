//! What the executor has seen of each node, and which nodes are better not asked for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::NodeId;
use tokio::time::Instant;

use crate::error::FailureKind;

/// How long reads avoid a node that could not be reached, or was late, where others will do. Not an accusation: it is
/// asked again after that, and at once when nothing else is left; a success clears it.
pub const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// What was seen of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Shards that came with wrong bytes, or that the node itself found to be wrong.
    pub corrupt: u64,
    /// Other exchanges that failed, retries not counted.
    pub failed: u64,
    /// Reads that were finished without waiting for it.
    pub late: u64,
}

/// What was seen since the executor was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutorStats {
    /// By node; nodes without trouble may be absent.
    pub nodes: BTreeMap<NodeId, NodeCounters>,
    /// Stripes written with their quorum.
    pub stripes_written: u64,
    /// Shards of those that were not durable in time.
    pub shards_missing: u64,
    /// Stripes read, in whole or in part.
    pub stripes_read: u64,
    /// Of those, the ones that took a decode.
    pub stripes_decoded: u64,
    /// Asks to nodes beyond those that the fast path makes.
    pub further_asks: u64,
}

pub(crate) struct Watch {
    inner: Mutex<Inner>,
    suspect_for: Duration,
}

#[derive(Default)]
struct Inner {
    stats: ExecutorStats,
    suspect_until: BTreeMap<NodeId, Instant>,
}

impl Watch {
    pub(crate) fn new(suspect_for: Duration) -> Self {
        Self { inner: Mutex::default(), suspect_for }
    }

    pub(crate) fn snapshot(&self) -> ExecutorStats {
        self.inner.lock().stats.clone()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut ExecutorStats)) {
        change(&mut self.inner.lock().stats);
    }

    pub(crate) fn failed(&self, node: NodeId, kind: FailureKind) {
        let mut inner = self.inner.lock();
        let counters = inner.stats.nodes.entry(node).or_default();
        if kind == FailureKind::Corrupt {
            counters.corrupt += 1;
        } else if kind != FailureKind::Buffers {
            counters.failed += 1;
        }
        if matches!(kind, FailureKind::Unreachable | FailureKind::Deadline) {
            inner.suspect_until.insert(node, Instant::now() + self.suspect_for);
        }
    }

    pub(crate) fn late(&self, node: NodeId) {
        let mut inner = self.inner.lock();
        inner.stats.nodes.entry(node).or_default().late += 1;
        inner.suspect_until.insert(node, Instant::now() + self.suspect_for);
    }

    pub(crate) fn answered(&self, node: NodeId) {
        let mut inner = self.inner.lock();
        // Nearly always empty: the fast path pays one uncontended lock.
        if !inner.suspect_until.is_empty() {
            inner.suspect_until.remove(&node);
        }
    }

    /// Which of a stripe's nodes are under suspicion, as a bitmap over its shards.
    pub(crate) fn suspects(&self, nodes: &[NodeId]) -> u64 {
        let mut inner = self.inner.lock();
        if inner.suspect_until.is_empty() {
            return 0;
        }
        let now = Instant::now();
        inner.suspect_until.retain(|_, until| *until > now);
        let under = |node| inner.suspect_until.contains_key(node);
        nodes.iter().enumerate().fold(0, |set, (shard, node)| if under(node) { set | 1 << shard } else { set })
    }
}
