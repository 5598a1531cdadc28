//! When a read may ask for more than it needs: a pure machine that is handed the time.
//!
//! It is told of every ask to a node and of what came of it, and answers three questions.
//!
//! - *How long is too long?* An ask is **late** past max(p95, 3 x p50) of what that node's answers of that size took in
//!   the last windows; past those of all nodes while the node has too few samples; past a fixed time while all have.
//! - *May it be hedged?* Further shards are asked for within a token bucket, of the nodes that are asked (5 % of the asks
//!   to each) and of all (2 %). None are under correlated slowness, when more than a tenth of the nodes (and more than
//!   one) answer past their own p95: load is what is wrong then, and more of it no cure.
//! - *Who is to be read last?* A node whose median is 5 x that of its peers, or that reads had to finish without three
//!   times in a row. It is asked again, one read at a time, after a pause that doubles; an answer in time ends it. Never
//!   more than a third of the nodes, and none while more than a third suffer: when most are slow, none is slower than its
//!   peers. A read that already waits for
//!   such a node no longer counts on it, and what it asks for instead is no hedge and costs no token.
//!
//! A cluster that misbehaves as a whole thus costs at most the tokens in hand, and one node at most a handful of reads.

mod budget;
mod latency;
mod race;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_proto::NodeId;

use self::budget::Budget;
use self::latency::Latency;
pub(crate) use self::race::{HEDGE_SHARDS_MAX, Race};

/// Answers of one node, of one class, that its own quantiles take.
pub(crate) const SAMPLES_MIN: u32 = 20;
/// Hedges' share of the asks to one node, in percent.
pub(crate) const NODE_PERCENT: u32 = 5;
/// Hedges' share of all asks, in percent.
pub(crate) const OVERALL_PERCENT: u32 = 2;
/// Hedges that a node's bucket holds.
pub(crate) const NODE_BURST: u32 = 8;
/// Hedges that the bucket of all holds.
pub(crate) const OVERALL_BURST: u32 = 32;
/// A node so many times slower than the median of its peers is read last.
pub(crate) const SLOW_FACTOR: u32 = 5;
/// Reads in a row that finish without a node before it is read last.
pub(crate) const STRIKES_MAX: u32 = 3;
/// How long a node is read last before one read tries it again; doubles up to the longest.
pub(crate) const SLOW_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`SLOW_PAUSE_MIN`].
pub(crate) const SLOW_PAUSE_MAX: Duration = Duration::from_secs(30);
/// No ask is late before.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// Every ask is late after.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(2);
/// A node answers past its p95 when it did so in this share of its last answers (which weigh less the older they are).
const PAST_P95_PERCENT: u32 = 30;
/// Weight of the last answer in that share: one in so many.
const PAST_P95_MEMORY: u32 = 8;
/// Fixed point of that share.
const WHOLE: u32 = 1 << 16;

/// Answers are compared with those of like length.
const CLASSES: usize = 3;
const CLASS_BYTES: [usize; CLASSES - 1] = [64 << 10, 512 << 10];

/// Which answers an answer of `bytes` is compared with.
pub(crate) fn class_of(bytes: usize) -> usize {
    CLASS_BYTES.iter().position(|up_to| bytes <= *up_to).unwrap_or(CLASSES - 1)
}

/// Whether further shards may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// They may, and the tokens are taken.
    Granted,
    /// The budget does not allow it now.
    Budget,
    /// Too many nodes are slow at the same time.
    Overload,
}

struct Node {
    latency: [Latency; CLASSES],
    budget: Budget,
    /// Of [`WHOLE`], how many of the last answers were past the p95 of their time.
    past_p95: u32,
    /// Reads in a row that finished without it.
    strikes: u32,
    slow: Option<Slow>,
}

/// A node that is read last.
#[derive(Clone, Copy)]
struct Slow {
    until: Duration,
    pause: Duration,
}

/// See the module.
pub(crate) struct Hedger {
    /// Past which an ask is late while nothing is known.
    delay_unknown: Duration,
    nodes: BTreeMap<NodeId, Node>,
    all: [Latency; CLASSES],
    budget: Budget,
}

impl Node {
    fn new() -> Self {
        Self {
            latency: std::array::from_fn(|_| Latency::new()),
            budget: Budget::new(NODE_PERCENT, NODE_BURST),
            past_p95: 0,
            strikes: 0,
            slow: None,
        }
    }

    fn note_past_p95(&mut self, past: bool) {
        self.past_p95 -= self.past_p95 / PAST_P95_MEMORY;
        if past {
            self.past_p95 += WHOLE / PAST_P95_MEMORY;
        }
    }

    fn suffers(&self) -> bool {
        self.slow.is_none() && u64::from(self.past_p95) * 100 > u64::from(PAST_P95_PERCENT) * u64::from(WHOLE)
    }
}

fn delay_of(latency: &Latency) -> Duration {
    latency.p95().max(3 * latency.p50()).clamp(DELAY_MIN, DELAY_MAX)
}

impl Hedger {
    pub(crate) fn new(delay_unknown: Duration) -> Self {
        Self {
            delay_unknown,
            nodes: BTreeMap::new(),
            all: std::array::from_fn(|_| Latency::new()),
            budget: Budget::new(OVERALL_PERCENT, OVERALL_BURST),
        }
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.entry(node).or_insert_with(Node::new)
    }

    /// A shard that a read needs is asked for. Says after how long it will be late.
    pub(crate) fn asked(&mut self, node: NodeId, class: usize, now: Duration) -> Duration {
        self.budget.earn();
        self.node(node).budget.earn();
        self.delay(node, class, now)
    }

    /// After how long an ask is late.
    pub(crate) fn delay(&mut self, node: NodeId, class: usize, now: Duration) -> Duration {
        self.all[class].rotate(now);
        let own = &mut self.node(node).latency[class];
        own.rotate(now);
        if own.samples() >= SAMPLES_MIN {
            return delay_of(own);
        }
        let all = &self.all[class];
        if all.samples() >= SAMPLES_MIN { delay_of(all) } else { self.delay_unknown }
    }

    /// An answer came, good or bad, `late` or not.
    pub(crate) fn answered(&mut self, node: NodeId, class: usize, took: Duration, late: bool, now: Duration) {
        self.all[class].record(took, now);
        let known = self.node(node);
        let own = &mut known.latency[class];
        let past = own.samples() >= SAMPLES_MIN && took > own.p95();
        own.record(took, now);
        let check = own.samples().is_multiple_of(SAMPLES_MIN);
        if !late {
            // What was late has been noted when it became so.
            known.note_past_p95(past);
            known.strikes = 0;
            if known.slow.take().is_some() {
                // It was slow: what it took then says nothing of what it takes now.
                known.latency = std::array::from_fn(|_| Latency::new());
                known.past_p95 = 0;
                return;
            }
        }
        if check && self.is_slower_than_peers(node, class) {
            self.read_last(node, now);
        }
    }

    /// An ask is late.
    pub(crate) fn late(&mut self, node: NodeId) {
        self.node(node).note_past_p95(true);
    }

    /// An ask that was late is still waited for. A strike, when the wait is out of all proportion to what peers take: so
    /// a node that hangs is found out even where nothing may be hedged.
    /// Says whether it was one: an ask is one strike at most.
    pub(crate) fn still_waiting(&mut self, node: NodeId, class: usize, waited: Duration, now: Duration) -> bool {
        let usual = self.all[class].p50().max(DELAY_MIN);
        let strike = self.all[class].samples() >= SAMPLES_MIN && waited >= 4 * SLOW_FACTOR * usual;
        if strike {
            self.passed_over(node, now);
        }
        strike
    }

    /// A read is finished without an ask that was late.
    pub(crate) fn passed_over(&mut self, node: NodeId, now: Duration) {
        let known = self.node(node);
        known.strikes += 1;
        if known.strikes >= STRIKES_MAX || known.slow.is_some() {
            self.read_last(node, now);
        }
    }

    fn is_slower_than_peers(&self, node: NodeId, class: usize) -> bool {
        let known = |id: &NodeId| &self.nodes[id].latency[class];
        let own = known(&node);
        let mut peers: Vec<Duration> = self
            .nodes
            .iter()
            .filter(|(id, peer)| **id != node && peer.slow.is_none() && peer.latency[class].samples() >= SAMPLES_MIN)
            .map(|(_, peer)| peer.latency[class].p50())
            .collect();
        if own.samples() < SAMPLES_MIN || peers.len() < 2 {
            return false;
        }
        peers.sort_unstable();
        let median = peers[peers.len() / 2].max(DELAY_MIN / 2);
        own.p50() >= SLOW_FACTOR * median
    }

    fn read_last(&mut self, node: NodeId, now: Duration) {
        let slow = self.nodes.values().filter(|known| known.slow.is_some()).count();
        let suffering = self.nodes.values().filter(|known| known.suffers()).count();
        let most = (self.nodes.len() / 3).max(1);
        let known = self.node(node);
        known.slow = match known.slow {
            // Tried again, and no better.
            Some(slow) if slow.until <= now => {
                let pause = (2 * slow.pause).min(SLOW_PAUSE_MAX);
                Some(Slow { until: now + pause, pause })
            }
            Some(slow) => Some(slow),
            None if slow < most && suffering <= most => {
                tracing::warn!(%node, "a node is much slower than its peers: it is read last");
                Some(Slow { until: now + SLOW_PAUSE_MIN, pause: SLOW_PAUSE_MIN })
            }
            None => None,
        };
    }

    /// Which of a stripe's nodes are to be read last, as a bitmap over its shards. One read is let through to a node
    /// whose pause is over; the others wait for what comes of it, or for another pause.
    pub(crate) fn read_last_of(&mut self, nodes: &[NodeId], wanted: u64, now: Duration) -> u64 {
        let mut set = 0;
        for (shard, node) in nodes.iter().enumerate() {
            let Some(known) = self.nodes.get_mut(node) else { continue };
            let Some(slow) = &mut known.slow else { continue };
            if slow.until <= now && wanted >> shard & 1 == 1 {
                slow.until = now + slow.pause;
            } else {
                set |= 1 << shard;
            }
        }
        set
    }

    /// Whether a node is read last.
    pub(crate) fn is_slow(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.slow.is_some())
    }

    /// The nodes that are read last.
    pub(crate) fn slow_nodes(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, known)| known.slow.is_some()).map(|(node, _)| *node).collect()
    }

    /// Whether too many nodes are slow at the same time for more load to be a cure.
    pub(crate) fn is_overloaded(&self) -> bool {
        let suffering = self.nodes.values().filter(|known| known.suffers()).count();
        suffering > 1 && suffering * 10 > self.nodes.len()
    }

    /// May one shard each be asked of `targets`, in the hope that they are faster? Takes the tokens when they may.
    pub(crate) fn permit(&mut self, targets: &[NodeId]) -> Permit {
        if self.is_overloaded() {
            return Permit::Overload;
        }
        let affordable =
            self.budget.has(targets.len()) && targets.iter().all(|target| self.node(*target).budget.has(1));
        if !affordable {
            return Permit::Budget;
        }
        self.budget.take(targets.len());
        for target in targets {
            self.node(*target).budget.take(1);
        }
        Permit::Granted
    }
}
