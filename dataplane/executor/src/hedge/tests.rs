//! Reads against simulated nodes, in simulated time: no runtime, no bytes, every promise checked.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use penstock_proto::Code;
use proptest::prelude::*;

use super::race::{HEDGE_SHARDS_MAX, HEDGES_MAX};
use super::*;
use crate::read_machine::{Ask, ReadEvent, ReadPlan, Step, Verdict};

const MS: Duration = Duration::from_millis(1);

/// The bits that tests draw.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

/// How nodes answer: a median, one answer in a hundred ten times slower, and what a story adds.
struct Nodes {
    random: Random,
    /// Added to every answer of a node.
    extra: Vec<Duration>,
    /// Answers so many times slower: everyone is.
    factor: u32,
}

impl Nodes {
    fn takes(&mut self, node: NodeId) -> Duration {
        let usual = MS + Duration::from_micros(self.random.below(1000));
        let usual = if self.random.below(100) == 0 { 10 * usual } else { usual };
        usual * self.factor + self.extra[usize::from(node.0)]
    }
}

#[derive(Default, Debug)]
struct Counts {
    asks: u64,
    hedges: u64,
    hedged_reads: u64,
}

struct House {
    hedger: Hedger,
    nodes: Nodes,
    now: Duration,
    counts: Counts,
    latencies: Vec<Duration>,
    hedging: bool,
}

impl House {
    fn new(nodes: usize, seed: u64) -> Self {
        let extra = vec![Duration::ZERO; nodes];
        Self {
            hedger: Hedger::new(100 * MS),
            nodes: Nodes { random: Random(seed | 1), extra, factor: 1 },
            now: Duration::ZERO,
            counts: Counts::default(),
            latencies: Vec::new(),
            hedging: true,
        }
    }

    /// One read of all data shards of a stripe on random nodes, from its first ask to its verdict.
    fn read(&mut self, code: Code) {
        let mut nodes: Vec<NodeId> = (0..self.nodes.extra.len() as u16).map(NodeId).collect();
        for i in 0..nodes.len() {
            let other = i + self.nodes.random.below((nodes.len() - i) as u64) as usize;
            nodes.swap(i, other);
        }
        nodes.truncate(code.n());
        let wanted = (1u64 << code.k()) - 1;
        let slow = if self.hedging { self.hedger.read_last_of(&nodes, wanted, self.now) } else { 0 };
        let plan = ReadPlan { code, wanted_whole: wanted, wanted_part: 0, known: 0, last_resort: slow };
        let began = self.now;
        let mut race = Race::new(plan);
        let mut hedges = 0;
        // What happens next: an answer (true) or a look at an ask, by time, then number.
        let mut events: BinaryHeap<Reverse<(Duration, u64, bool, usize)>> = BinaryHeap::new();
        let mut asked: Vec<(Ask, Duration, Duration, bool, bool)> = Vec::new();
        let mut struck = 0u64;
        let mut step = race.start();
        for number in 0u64.. {
            assert!(number < 10_000, "a read that does not end");
            for ask in std::mem::take(&mut step.asks) {
                let node = nodes[ask.shard];
                let hedge = race.hedged() >> ask.shard & 1 == 1;
                let delay = match hedge {
                    true => self.hedger.delay(node, 0, self.now),
                    false => self.hedger.asked(node, 0, self.now),
                };
                self.counts.asks += u64::from(!hedge);
                let index = asked.len();
                asked.push((ask, self.now, delay, false, true));
                events.push(Reverse((self.now + self.nodes.takes(node), number, true, index)));
                if self.hedging {
                    events.push(Reverse((self.now + delay, number, false, index)));
                }
            }
            match step.verdict {
                Some(Verdict::Fail) => panic!("nothing fails here"),
                Some(_) => break,
                None => {}
            }
            let Reverse((at, _, is_answer, index)) = events.pop().expect("a read never waits for nothing");
            self.now = at;
            let (ask, since, delay, late, outstanding) = asked[index];
            let node = nodes[ask.shard];
            if is_answer {
                asked[index].4 = false;
                if self.hedging {
                    self.hedger.answered(node, 0, at - since, late, at);
                }
                step = race.on(ReadEvent::Arrived(ask));
            } else if outstanding {
                match late {
                    true if struck >> ask.shard & 1 == 0 => {
                        struck |= u64::from(self.hedger.still_waiting(node, 0, at - since, at)) << ask.shard;
                    }
                    true => {}
                    false => self.hedger.late(node),
                }
                asked[index].3 = true;
                asked[index].2 = (2 * delay).min(DELAY_MAX);
                events.push(Reverse((at + asked[index].2, number, false, index)));
                let (overloaded, is_slow) = (self.hedger.is_overloaded(), self.hedger.is_slow(node));
                let targets = |asks: &[Ask]| asks.iter().map(|ask| nodes[ask.shard]).collect::<Vec<_>>();
                let hedger = &mut self.hedger;
                let (next, permit) = race.late(ask, is_slow, |asks| hedger.permit(&targets(asks)));
                if permit == Some(Permit::Granted) {
                    assert!(!overloaded, "a hedge under overload");
                    hedges += 1;
                    self.counts.hedges += next.asks.len() as u64;
                    assert!(hedges <= HEDGES_MAX && (next.asks.len() <= HEDGE_SHARDS_MAX || hedges == 1));
                }
                step = next;
            } else {
                step = Step::default();
            }
            // The promise, at every moment.
            let overall = u64::from(OVERALL_BURST) * 100 + u64::from(OVERALL_PERCENT) * self.counts.asks;
            assert!(self.counts.hedges * 100 <= overall, "{:?} is past the budget", self.counts);
        }
        self.counts.hedged_reads += u64::from(hedges > 0);
        if self.hedging {
            for (ask, _, _, late, outstanding) in asked {
                if late && outstanding && struck >> ask.shard & 1 == 0 {
                    self.hedger.passed_over(nodes[ask.shard], self.now);
                }
            }
        }
        self.latencies.push(self.now - began);
    }

    /// The p99 of `reads` further reads.
    fn p99_of(&mut self, reads: usize, code: Code) -> Duration {
        self.latencies.clear();
        for _ in 0..reads {
            self.read(code);
        }
        self.latencies.sort_unstable();
        self.latencies[reads * 99 / 100]
    }
}

fn rs() -> Code {
    Code::new(10, 4).unwrap()
}

#[test]
fn a_slow_node_is_hedged_then_read_last_and_taken_back_when_it_is_well() {
    let mut house = House::new(14, 7);
    let healthy = house.p99_of(2000, rs());
    house.nodes.extra[3] = 50 * MS;
    let (asks, hedges) = (house.counts.asks, house.counts.hedges);
    let slow = house.p99_of(2000, rs());
    let (asks, hedges) = (house.counts.asks - asks, house.counts.hedges - hedges);
    assert!(slow <= 2 * healthy, "p99 {slow:?} with a slow node, {healthy:?} without");
    assert!(hedges * 20 <= asks, "{hedges} hedges of {asks} asks");
    assert_eq!(house.hedger.slow_nodes(), [NodeId(3)]);
    house.nodes.extra[3] = Duration::ZERO;
    house.now += SLOW_PAUSE_MAX;
    house.p99_of(200, rs());
    assert_eq!(house.hedger.slow_nodes(), []);
}

#[test]
fn a_node_that_hangs_is_found_out_and_costs_no_more_than_a_few_reads() {
    let mut house = House::new(14, 9);
    let healthy = house.p99_of(1000, rs());
    house.nodes.extra[5] = Duration::from_secs(3600);
    assert!(house.p99_of(2000, rs()) <= 2 * healthy);
    // And a rack of four, all at once, though that is more than a tenth of the nodes: they are read last.
    let mut house = House::new(16, 11);
    let lrc = Code::lrc(12, 2, 2).unwrap();
    let healthy = house.p99_of(1000, rs());
    for node in 0..3 {
        house.nodes.extra[node] = Duration::from_secs(3600);
    }
    let slow = house.p99_of(3000, lrc);
    assert!(slow <= 3 * healthy, "{slow:?} {healthy:?} {:?}", house.hedger.slow_nodes());
}

#[test]
fn when_everyone_is_slow_nothing_more_is_asked_and_nobody_is_blamed() {
    let mut house = House::new(14, 5);
    house.p99_of(1000, rs());
    house.nodes.factor = 40;
    let before = house.counts.hedges;
    house.p99_of(100, rs());
    // Until the first answers show that it is everyone.
    assert!(house.counts.hedges - before <= u64::from(OVERALL_BURST), "{:?}", house.counts);
    assert!(house.hedger.slow_nodes().len() <= 1, "{:?}", house.hedger.slow_nodes());
}

#[test]
fn a_tenth_of_the_nodes_past_their_p95_turn_hedging_off() {
    let mut hedger = Hedger::new(100 * MS);
    for i in 0..30 {
        for node in 0..20 {
            hedger.answered(NodeId(node), 0, MS, false, i * MS);
        }
    }
    let suffer = |hedger: &mut Hedger, node| (0..4).for_each(|_| hedger.late(NodeId(node)));
    suffer(&mut hedger, 1);
    suffer(&mut hedger, 2);
    assert!(!hedger.is_overloaded() && hedger.permit(&[NodeId(9)]) == Permit::Granted);
    suffer(&mut hedger, 3);
    assert!(hedger.is_overloaded());
    assert_eq!(hedger.permit(&[NodeId(9)]), Permit::Overload);
    for _ in 0..8 {
        hedger.answered(NodeId(3), 0, MS, false, 50 * MS);
    }
    assert_eq!(hedger.permit(&[NodeId(9)]), Permit::Granted);
}

#[test]
fn delays_are_learnt_by_node_and_size() {
    let mut hedger = Hedger::new(100 * MS);
    let delay = |hedger: &mut Hedger, node, class| hedger.delay(NodeId(node), class, MS);
    assert_eq!(delay(&mut hedger, 1, 0), 100 * MS);
    for _ in 0..SAMPLES_MIN {
        hedger.answered(NodeId(1), 0, 4 * MS, false, MS);
    }
    let own = delay(&mut hedger, 1, 0);
    assert!(own >= 12 * MS && own <= 14 * MS, "3 x p50: {own:?}");
    assert_eq!(delay(&mut hedger, 2, 0), own, "what is not known of a node is as of all");
    assert_eq!(delay(&mut hedger, 1, 2), 100 * MS);
    assert_eq!([class_of(1), class_of(65_536), class_of(65_537), class_of(4 << 20)], [0, 0, 1, 2]);
    // The tail decides where it is longer.
    for i in 0..100 {
        hedger.answered(NodeId(3), 0, if i % 10 == 0 { 30 * MS } else { MS }, false, MS);
    }
    assert!(delay(&mut hedger, 3, 0) >= 30 * MS);
}

#[test]
fn a_median_of_five_times_the_peers_is_read_last() {
    let mut hedger = Hedger::new(100 * MS);
    for _ in 0..SAMPLES_MIN {
        for node in 0..6 {
            hedger.answered(NodeId(node), 0, if node == 4 { 9 * MS } else { MS }, false, MS);
        }
    }
    assert_eq!(hedger.slow_nodes(), [NodeId(4)]);
    let nodes: Vec<NodeId> = (0..6).map(NodeId).collect();
    assert_eq!(hedger.read_last_of(&nodes, 0b111111, 2 * MS), 1 << 4);
    // One read tries it again when the pause is over, and only if it wants it.
    assert_eq!(hedger.read_last_of(&nodes, 0b1111, 2 * SLOW_PAUSE_MIN), 1 << 4);
    assert_eq!(hedger.read_last_of(&nodes, 0b111111, 2 * SLOW_PAUSE_MIN), 0);
    assert_eq!(hedger.read_last_of(&nodes, 0b111111, 2 * SLOW_PAUSE_MIN), 1 << 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever nodes do, every read ends, and what is promised of hedges holds at every moment (see [`House::read`]).
    #[test]
    fn whatever_nodes_do(
        seed in any::<u64>(),
        story in prop::collection::vec((0usize..20, 0u64..400, 1u32..30, any::<bool>()), 1..12),
        code in prop::sample::select(vec!["RS(10,4)", "RS(4,2)", "LRC(12,2,2)", "3x", "RS(2,1)"]),
    ) {
        let mut house = House::new(20, seed);
        for (node, extra_ms, factor, all) in story {
            house.nodes.factor = if all { factor } else { 1 };
            house.nodes.extra[node] = Duration::from_millis(extra_ms);
            for _ in 0..60 {
                house.read(code.parse().unwrap());
            }
            prop_assert!(house.hedger.slow_nodes().len() <= 7);
        }
    }
}
