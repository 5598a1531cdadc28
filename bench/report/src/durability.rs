//! How likely data is lost in a year, on paper: independent failures by a chain of states, correlated ones by simulation.
//!
//! **Independent.** Nodes fail at a constant rate and are rebuilt at a constant rate, each failed one by itself. A stripe is lost when the
//! failed ones can't be decoded around. With failures rare against repairs the rate of loss is a product
//! of rates ([`stripe_loss_per_year`]); which patterns can't be decoded is asked of `penstock-erasure` itself.
//!
//! **Correlated.** After a power loss a share of nodes never comes back (1 % in engine.md, 4, after Cidon et al., "Copysets",
//! USENIX ATC 2013), or a rack burns. Then what counts is which sets of nodes hold stripes together: few sets a node lose rarely, and
//! much at once. Nodes are cut into sets by random permutations, as the placement does, and failures are drawn ([`event_loss`]).
//!
//! What is left out: failures of single drives within a node, latent errors that scrub has not found yet, people and software. Real losses come from those.

use penstock_erasure::{ErasureError, Lrc, ReedSolomon};
use penstock_harness::Order;

use crate::ReportError;

const HOURS_PER_YEAR: f64 = 8766.0;
/// Shards of a stripe beyond which patterns are not counted out.
const SHARDS_MAX: usize = 24;

/// A way to keep stripes.
#[derive(Clone, Debug)]
pub struct Policy {
    /// "RS(10,4)".
    pub name: &'static str,
    /// Shards of a stripe.
    pub shards: usize,
    /// Bytes on disks per byte of users.
    pub expansion: f64,
    /// Shards read to rebuild one data shard.
    pub repair_reads: usize,
    code: Code,
}

#[derive(Clone, Debug)]
enum Code {
    /// Any `m` may be lost.
    Any {
        m: usize,
    },
    Lrc(std::rc::Rc<Lrc>),
}

impl Policy {
    /// The policies of the house.
    ///
    /// # Errors
    /// [`ReportError::Assumption`] if the codes can't be made, which would be a fault of ours.
    pub fn all() -> Result<Vec<Self>, ReportError> {
        let failed = |error: ErasureError| ReportError::Assumption(error.to_string());
        let rs = |name, k: usize, m: usize| {
            let code = ReedSolomon::new(k, m).map_err(failed)?;
            let reads = code.repair_plan(&[0], 1).map_err(failed)?.reads.len();
            Ok(Self {
                name,
                shards: k + m,
                expansion: (k + m) as f64 / k as f64,
                repair_reads: reads,
                code: Code::Any { m },
            })
        };
        let lrc = Lrc::new(12, 2, 2).map_err(failed)?;
        let reads = lrc.repair_plan(&[0], 1).map_err(failed)?.reads.len();
        let replicas =
            Self { name: "3 replicas", shards: 3, expansion: 3.0, repair_reads: 1, code: Code::Any { m: 2 } };
        let lrc = Self {
            name: "LRC(12,2,2)",
            shards: 16,
            expansion: 16.0 / 12.0,
            repair_reads: reads,
            code: Code::Lrc(std::rc::Rc::new(lrc)),
        };
        Ok(vec![replicas, rs("RS(4,2)", 4, 2)?, rs("RS(10,4)", 10, 4)?, lrc, rs("RS(20,4)", 20, 4)?])
    }

    /// Whether the stripe is lost without these shards.
    #[must_use]
    pub fn is_lost(&self, failed: &[usize]) -> bool {
        match &self.code {
            Code::Any { m } => failed.len() > *m,
            Code::Lrc(code) => !failed.is_empty() && code.repair_plan(failed, 1).is_err(),
        }
    }

    /// Which share of the patterns of so many failed shards loses the stripe: all patterns are tried.
    #[must_use]
    pub fn lost_share(&self, failures: usize) -> f64 {
        if let Code::Any { m } = &self.code {
            return if failures > *m { 1.0 } else { 0.0 };
        }
        let (mut lost, mut all) = (0u64, 0u64);
        for pattern in 0u32..1 << self.shards.min(SHARDS_MAX) {
            if pattern.count_ones() as usize == failures {
                let failed: Vec<usize> = (0..self.shards).filter(|shard| pattern >> shard & 1 == 1).collect();
                all += 1;
                lost += u64::from(self.is_lost(&failed));
            }
        }
        lost as f64 / all.max(1) as f64
    }

    /// Most failures that some pattern survives.
    fn failures_max(&self) -> usize {
        match &self.code {
            Code::Any { m } => *m,
            Code::Lrc(code) => code.parity_shards(),
        }
    }
}

/// How things fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Failures {
    /// Nodes.
    pub nodes: usize,
    /// Nodes of a rack.
    pub rack_nodes: usize,
    /// Stripes that the nodes hold.
    pub stripes: f64,
    /// Share of nodes that fail in a year, for good.
    pub annual_failure_rate: f64,
    /// Hours until a failed node's shards are rebuilt.
    pub repair_hours: f64,
    /// Share of nodes that don't come back from a loss of power.
    pub dead_after_power: f64,
    /// Losses of power of the whole site, per year.
    pub power_losses_per_year: f64,
    /// Racks that burn, per year.
    pub rack_losses_per_year: f64,
    /// Events drawn for each policy and placement.
    pub trials: usize,
    /// Makes draws repeatable.
    pub seed: u64,
}

impl Default for Failures {
    /// engine.md, 4: 10,000 nodes, 2 % a year, 6 hours, 1 % dead.
    fn default() -> Self {
        Self {
            nodes: 10_000,
            rack_nodes: 20,
            stripes: 1e10,
            annual_failure_rate: 0.02,
            repair_hours: 6.0,
            dead_after_power: 0.01,
            power_losses_per_year: 0.5,
            rack_losses_per_year: 0.1,
            trials: 100_000,
            seed: 1,
        }
    }
}

impl Failures {
    /// Whether they make sense.
    ///
    /// # Errors
    /// [`ReportError::Assumption`] that says what doesn't.
    pub fn check(&self) -> Result<(), ReportError> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let not_negative = |rate: f64| rate.is_finite() && rate >= 0.0;
        let complaint = if self.nodes < 100 || self.nodes > 1_000_000 {
            "nodes: from 100 to 1,000,000"
        } else if self.rack_nodes == 0 || self.rack_nodes > self.nodes {
            "nodes of a rack: at least 1, at most all of them"
        } else if !share(self.annual_failure_rate) || !share(self.dead_after_power) {
            "a share of nodes is between 0 and 1"
        } else if !(self.repair_hours > 0.0 && self.repair_hours < HOURS_PER_YEAR) {
            "hours of repair: more than 0, and less than a year"
        } else if !(self.stripes >= 1.0 && self.stripes.is_finite()) {
            "stripes: at least 1"
        } else if !not_negative(self.power_losses_per_year) || !not_negative(self.rack_losses_per_year) {
            "events per year: not negative"
        } else if self.trials == 0 || self.trials > 100_000_000 {
            "trials: from 1 to 100,000,000"
        } else {
            return Ok(());
        };
        Err(ReportError::Assumption(complaint.to_owned()))
    }
}

/// The rate at which one stripe is lost to independent failures, per year.
///
/// With j failed, another of n - j fails at rate (n - j) l, and one of the j is rebuilt at rate j / repair: the chain comes to j failures
/// at the rate n l x the product of (n - i) l / (i / repair). Of those arrivals the share that can't be decoded is loss.
#[must_use]
pub fn stripe_loss_per_year(policy: &Policy, failures: &Failures) -> f64 {
    let n = policy.shards as f64;
    let rate = failures.annual_failure_rate / HOURS_PER_YEAR;
    let mut arrivals = n * rate;
    let (mut lost_before, mut sum) = (0.0, 0.0);
    for failed in 1..=policy.failures_max() + 1 {
        if failed > 1 {
            let before = (failed - 1) as f64;
            arrivals *= (n - before) * rate * failures.repair_hours / before;
        }
        let lost = policy.lost_share(failed);
        let newly = if lost_before < 1.0 { (lost - lost_before) / (1.0 - lost_before) } else { 0.0 };
        sum += arrivals * newly;
        arrivals *= 1.0 - newly;
        lost_before = lost;
    }
    sum * HOURS_PER_YEAR
}

/// What happens to many nodes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A share of all nodes doesn't come back from a loss of power.
    Power,
    /// A rack burns; stripes are placed without regard to racks.
    RackUnheeded,
    /// A rack burns; no two nodes of a set are in one rack.
    RackHeeded,
}

/// Nodes cut into sets: `sets_per_node` permutations, each cut into pieces of a stripe's width.
struct Sets {
    /// Of each set, its nodes in the order of their shards.
    members: Vec<u32>,
    width: usize,
    /// By node: the sets it is in, and its place there.
    of_node: Vec<Vec<(u32, u8)>>,
}

impl Sets {
    fn new(
        nodes: usize,
        rack_nodes: usize,
        width: usize,
        sets_per_node: usize,
        heed_racks: bool,
        order: &mut Order,
    ) -> Self {
        let mut sets = Self { members: Vec::new(), width, of_node: vec![Vec::new(); nodes] };
        for _ in 0..sets_per_node {
            let permutation = order.shuffled(nodes);
            let mut left: Vec<usize> = permutation;
            while left.len() >= width {
                let mut set: Vec<usize> = Vec::with_capacity(width);
                let mut racks: Vec<usize> = Vec::with_capacity(width);
                let mut index = left.len();
                while set.len() < width && index > 0 {
                    index -= 1;
                    let rack = left[index] / rack_nodes;
                    if heed_racks && racks.contains(&rack) {
                        continue;
                    }
                    racks.push(rack);
                    set.push(left.swap_remove(index));
                    index = index.min(left.len());
                }
                if set.len() < width {
                    break;
                }
                let number = (sets.members.len() / width) as u32;
                for (place, node) in set.iter().enumerate() {
                    sets.of_node[*node].push((number, place as u8));
                    sets.members.push(*node as u32);
                }
            }
        }
        sets
    }

    fn count(&self) -> usize {
        self.members.len() / self.width
    }
}

/// The probability that an event loses anything at all, by drawing events: the share of draws with a lost set, and how
/// many draws lost one.
#[must_use]
pub fn event_loss(policy: &Policy, failures: &Failures, sets_per_node: usize, event: Event) -> (f64, usize) {
    let mut order = Order::seeded(failures.seed);
    let heed = event == Event::RackHeeded;
    let sets = Sets::new(failures.nodes, failures.rack_nodes, policy.shards, sets_per_node, heed, &mut order);
    let mut failed: Vec<Vec<usize>> = vec![Vec::new(); sets.count()];
    let mut touched: Vec<u32> = Vec::new();
    let racks = failures.nodes.div_ceil(failures.rack_nodes);
    let dead = (failures.dead_after_power * failures.nodes as f64).round() as usize;
    let mut is_dead = vec![false; failures.nodes];
    let mut lost_events = 0;
    for _ in 0..failures.trials {
        let mut nodes: Vec<usize> = Vec::new();
        if event == Event::Power {
            while nodes.len() < dead {
                let node = (order.next_u64() % failures.nodes as u64) as usize;
                if !is_dead[node] {
                    is_dead[node] = true;
                    nodes.push(node);
                }
            }
        } else {
            let rack = (order.next_u64() % racks as u64) as usize;
            nodes.extend(rack * failures.rack_nodes..((rack + 1) * failures.rack_nodes).min(failures.nodes));
        }
        for node in &nodes {
            is_dead[*node] = false;
            for (set, place) in &sets.of_node[*node] {
                let of_set = &mut failed[*set as usize];
                if of_set.is_empty() {
                    touched.push(*set);
                }
                of_set.push(usize::from(*place));
            }
        }
        let mut lost = false;
        for set in touched.drain(..) {
            let of_set = &mut failed[set as usize];
            lost = lost || policy.is_lost(of_set);
            of_set.clear();
        }
        lost_events += usize::from(lost);
    }
    (lost_events as f64 / failures.trials as f64, lost_events)
}

/// One figure of the table.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Answer {
    /// "durability".
    pub bench: &'static str,
    /// The policy.
    pub code: &'static str,
    /// "one stripe, a year", "power loss", "rack loss, racks ignored", "rack loss, racks heeded", "anything, a year".
    pub op: &'static str,
    /// Sets that a node is in, where that matters.
    pub sets_per_node: Option<usize>,
    /// The probability of loss; 0 where none was drawn.
    pub probability: f64,
    /// Its nines, -log10; where nothing was lost in any draw, those that the draws can vouch for.
    pub nines: f64,
    /// Whether nothing was lost, so that there may be more nines.
    pub at_least: bool,
    /// Bytes on disks per byte of users.
    pub expansion: f64,
    /// Shards read to rebuild a data shard.
    pub repair_reads: usize,
}

/// Everything: all policies, with 10 and 100 sets a node.
///
/// # Errors
/// [`ReportError::Assumption`]. `doing` is told what is being computed, and which share is done.
pub fn table(failures: &Failures, mut doing: impl FnMut(&str, f64)) -> Result<Vec<Answer>, ReportError> {
    failures.check()?;
    let policies = Policy::all()?;
    let mut answers = Vec::new();
    const SETS: [usize; 2] = [10, 100];
    let events = [
        (Event::Power, "power loss"),
        (Event::RackUnheeded, "rack loss, racks ignored"),
        (Event::RackHeeded, "rack loss, racks heeded"),
    ];
    let steps = (policies.len() * SETS.len() * events.len()) as f64;
    let mut done = 0.0;
    for policy in &policies {
        let independent = stripe_loss_per_year(policy, failures);
        let mut say = |op, sets_per_node, probability: f64, least: f64| {
            answers.push(Answer {
                bench: "durability",
                code: policy.name,
                op,
                sets_per_node,
                probability,
                nines: -probability.max(least).max(1e-300).log10(),
                at_least: probability < least,
                expansion: policy.expansion,
                repair_reads: policy.repair_reads,
            });
        };
        say("one stripe, a year", None, independent, 0.0);
        for sets in SETS {
            // With few sets, the stripes of a set are lost together: as many chances as sets, not as stripes.
            let chances = failures.stripes.min((failures.nodes * sets) as f64 / policy.shards as f64);
            let mut rate = independent * chances;
            // Three over the draws: the bound of a probability of which none was drawn, with 95 % confidence.
            let least = 3.0 / failures.trials as f64;
            for (event, name) in events {
                doing(&format!("{} with {sets} sets a node: {name}", policy.name), done / steps);
                let (probability, _) = event_loss(policy, failures, sets, event);
                say(name, Some(sets), probability, least);
                done += 1.0;
                rate += probability
                    * match event {
                        Event::Power => failures.power_losses_per_year,
                        Event::RackHeeded => failures.rack_losses_per_year,
                        Event::RackUnheeded => 0.0,
                    };
            }
            say("anything, a year", Some(sets), 1.0 - (-rate).exp(), 0.0);
        }
    }
    Ok(answers)
}

/// The table for a terminal, with its inputs.
#[must_use]
pub fn text(failures: &Failures, answers: &[Answer]) -> String {
    let mut table = penstock_harness::Table::new([
        "policy",
        "x bytes",
        "repair reads",
        "loss of",
        "sets/node",
        "probability",
        "nines",
    ]);
    for each in answers {
        table.row([
            each.code.to_owned(),
            format!("{:.2}", each.expansion),
            each.repair_reads.to_string(),
            each.op.to_owned(),
            each.sets_per_node.map_or("-".to_owned(), |sets| sets.to_string()),
            format!("{:.1e}", each.probability),
            format!("{}{:.1}", if each.at_least { "> " } else { "" }, each.nines),
        ]);
    }
    format!("Inputs: {failures:?}\n\n{}", table.text())
}
