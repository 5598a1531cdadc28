//! What the executor has seen of each node: the counters, the breakers and the hedger, behind one lock.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::NodeId;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::error::FailureKind;
use crate::hedge::{Hedger, Permit};
use crate::read_machine::Ask;

/// How long reads avoid a node that could not be reached, where others will do. Not an accusation: it is asked again
/// after that, and at once when nothing else is left; a success clears it.
pub const SUSPECT_FOR: Duration = Duration::from_secs(5);
/// How long new data is placed around a node that said that it is full, or that its device has failed.
pub const UNFIT_FOR: Duration = Duration::from_secs(30);

/// What was seen of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    /// Shards that came with wrong bytes, or that the node itself found to be wrong.
    pub corrupt: u64,
    /// Other exchanges that failed, retries not counted.
    pub failed: u64,
    /// Reads that were finished without waiting for it, though it was asked and late.
    pub late: u64,
    /// Shards that were not sent to it because its breaker was open.
    pub skipped: u64,
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
    /// Asks for shards by reads, all of them.
    pub asks: u64,
    /// Asks to nodes beyond those that the fast path makes.
    pub further_asks: u64,
    /// Of those, asks that were hedges.
    pub hedges_asked: u64,
    /// Reads that a hedge finished.
    pub hedges_won: u64,
    /// Hedges that the budget refused.
    pub hedges_refused_budget: u64,
    /// Hedges that were refused because too many nodes were slow at the same time.
    pub hedges_refused_overload: u64,
    /// Nodes that are read last at the moment, because they are much slower than their peers.
    pub slow_nodes: Vec<NodeId>,
    /// Nodes whose breaker is open at the moment.
    pub open_nodes: Vec<NodeId>,
}

pub(crate) struct Watch {
    inner: Mutex<Inner>,
    began: Instant,
    suspect_for: Duration,
    hedging: bool,
}

struct Inner {
    stats: ExecutorStats,
    /// Absent: closed.
    breakers: BTreeMap<NodeId, Breaker>,
    unfit_until: BTreeMap<NodeId, Duration>,
    hedger: Hedger,
}

impl Watch {
    pub(crate) fn new(suspect_for: Duration, hedging: bool, delay_unknown: Duration) -> Self {
        let inner = Inner {
            stats: ExecutorStats::default(),
            breakers: BTreeMap::new(),
            unfit_until: BTreeMap::new(),
            hedger: Hedger::new(delay_unknown),
        };
        Self { inner: Mutex::new(inner), began: Instant::now(), suspect_for, hedging }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn snapshot(&self) -> ExecutorStats {
        let now = self.now();
        let inner = self.inner.lock();
        let open_nodes = inner.breakers.iter().filter(|(_, breaker)| breaker.is_open(now));
        ExecutorStats {
            slow_nodes: inner.hedger.slow_nodes(),
            open_nodes: open_nodes.map(|(node, _)| *node).collect(),
            ..inner.stats.clone()
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut ExecutorStats)) {
        change(&mut self.inner.lock().stats);
    }

    pub(crate) fn failed(&self, node: NodeId, kind: FailureKind) {
        let now = self.now();
        let mut inner = self.inner.lock();
        let counters = inner.stats.nodes.entry(node).or_default();
        if kind == FailureKind::Corrupt {
            counters.corrupt += 1;
        } else if kind != FailureKind::Buffers {
            counters.failed += 1;
        }
        match kind {
            FailureKind::Unreachable | FailureKind::Deadline => {
                inner.breakers.entry(node).or_insert(Breaker::CLOSED).on_failure(now);
            }
            // The rest are answers, but for a lack of buffers here.
            FailureKind::Buffers => {}
            _ => drop(inner.breakers.remove(&node)),
        }
        if matches!(kind, FailureKind::NoSpace | FailureKind::DeviceFailed) {
            inner.unfit_until.insert(node, now + UNFIT_FOR);
        }
    }

    pub(crate) fn answered(&self, node: NodeId) {
        let mut inner = self.inner.lock();
        // Nearly always empty: the fast path pays one uncontended lock.
        if let Some(breaker) = inner.breakers.get_mut(&node) {
            breaker.on_answer();
            inner.breakers.remove(&node);
        }
    }

    /// Which of a stripe's shards are on nodes that failed a moment ago, as a bitmap. One read is let through to a node
    /// whose breaker may be tried.
    pub(crate) fn suspects(&self, nodes: &[NodeId], wanted: u64) -> u64 {
        let now = self.now();
        let mut inner = self.inner.lock();
        if inner.breakers.is_empty() {
            return 0;
        }
        let mut set = 0;
        for (shard, node) in nodes.iter().enumerate() {
            let Some(breaker) = inner.breakers.get_mut(node) else { continue };
            let asked = wanted >> shard & 1 == 1;
            if breaker.is_suspect(self.suspect_for, now) || asked && !breaker.admits(now) {
                set |= 1 << shard;
            }
        }
        set
    }

    /// Which of a stripe's shards are not worth sending, as a bitmap: those of nodes with an open breaker, as long as
    /// `quorum` others are left. One write is let through to a node whose breaker may be tried.
    pub(crate) fn skips(&self, nodes: &[NodeId], quorum: usize) -> u64 {
        let now = self.now();
        let mut inner = self.inner.lock();
        if inner.breakers.is_empty() {
            return 0;
        }
        let open = |node: &&NodeId| inner.breakers.get(node).is_some_and(|breaker| breaker.is_open(now));
        if nodes.len() - nodes.iter().filter(open).count() < quorum {
            return 0;
        }
        let mut set = 0;
        for (shard, node) in nodes.iter().enumerate() {
            if inner.breakers.get_mut(node).is_some_and(|breaker| !breaker.admits(now)) {
                set |= 1 << shard;
                inner.stats.nodes.entry(*node).or_default().skipped += 1;
            }
        }
        set
    }

    /// Nodes around which new data is better placed.
    pub(crate) fn unfit(&self) -> Vec<NodeId> {
        let now = self.now();
        let mut inner = self.inner.lock();
        if inner.breakers.is_empty() && inner.unfit_until.is_empty() {
            return Vec::new();
        }
        inner.unfit_until.retain(|_, until| *until > now);
        let open = inner.breakers.iter().filter(|(_, breaker)| breaker.is_open(now)).map(|(node, _)| *node);
        let mut unfit: Vec<NodeId> = open.chain(inner.unfit_until.keys().copied()).collect();
        unfit.sort_unstable();
        unfit.dedup();
        unfit
    }

    // Below: what the hedger is told and asked, unless hedging is off.

    /// Which of a stripe's nodes are so slow that they are read last.
    pub(crate) fn slow(&self, nodes: &[NodeId], wanted: u64) -> u64 {
        if !self.hedging {
            return 0;
        }
        let now = self.now();
        self.inner.lock().hedger.read_last_of(nodes, wanted, now)
    }

    pub(crate) fn slow_nodes(&self) -> Vec<NodeId> {
        self.inner.lock().hedger.slow_nodes()
    }

    /// A shard is asked for. Says after how long it is late, if ever.
    pub(crate) fn asked(&self, node: NodeId, class: usize, hedge: bool) -> Option<Duration> {
        let now = self.now();
        let mut inner = self.inner.lock();
        inner.stats.asks += 1;
        match (self.hedging, hedge) {
            (false, _) => None,
            (true, false) => Some(inner.hedger.asked(node, class, now)),
            (true, true) => Some(inner.hedger.delay(node, class, now)),
        }
    }

    pub(crate) fn answered_read(&self, node: NodeId, class: usize, took: Duration, late: bool) {
        let now = self.now();
        self.inner.lock().hedger.answered(node, class, took, late, now);
    }

    pub(crate) fn late(&self, node: NodeId) {
        self.inner.lock().hedger.late(node);
    }

    pub(crate) fn still_waiting(&self, node: NodeId, class: usize, waited: Duration) -> bool {
        let now = self.now();
        self.inner.lock().hedger.still_waiting(node, class, waited, now)
    }

    pub(crate) fn passed_over(&self, node: NodeId) {
        let now = self.now();
        let mut inner = self.inner.lock();
        inner.stats.nodes.entry(node).or_default().late += 1;
        inner.hedger.passed_over(node, now);
    }

    pub(crate) fn is_slow(&self, node: NodeId) -> bool {
        self.inner.lock().hedger.is_slow(node)
    }

    /// May these be asked for as well?
    pub(crate) fn permit(&self, asks: &[Ask], nodes: &[NodeId]) -> Permit {
        let targets: Vec<NodeId> = asks.iter().map(|ask| nodes[ask.shard]).collect();
        let mut inner = self.inner.lock();
        let permit = inner.hedger.permit(&targets);
        match permit {
            Permit::Granted => inner.stats.hedges_asked += targets.len() as u64,
            Permit::Budget => inner.stats.hedges_refused_budget += 1,
            Permit::Overload => inner.stats.hedges_refused_overload += 1,
        }
        permit
    }
}
