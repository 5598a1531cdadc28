//! The measurement: rounds in which every contender has its turn, in random order.
//!
//! First each contender is warmed up and calibrated: it is called twice as often, and again, until a turn takes long enough
//! to be timed well. Then rounds go on until the time is used up, at least `rounds_min` and at most `rounds_max`.

use std::time::{Duration, Instant};

use crate::clock::{Elapsed, Stopwatch};
use crate::{Order, Stop};

/// Most calls in one turn: a contender that does nothing must not be called for ever.
const CALLS_MAX: u64 = 1 << 24;

/// A contender's turn: so many calls on the context.
type Turn<'a, C> = Box<dyn FnMut(&mut C, u64) + 'a>;

/// One way to do the work. All contenders are handed the same context: the data, and whatever they leave in it.
pub struct Contender<'a, C> {
    name: String,
    turn: Turn<'a, C>,
}

impl<C> std::fmt::Debug for Contender<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contender({})", self.name)
    }
}

impl<'a, C> Contender<'a, C> {
    /// A contender that does the work once per call.
    pub fn new(name: impl Into<String>, mut call: impl FnMut(&mut C) + 'a) -> Self {
        Self::looping(name, move |context, calls| {
            for _ in 0..calls {
                call(context);
            }
        })
    }

    /// A contender that does the work as often as it is told: it may prepare something once for all these calls.
    pub fn looping(name: impl Into<String>, turn: impl FnMut(&mut C, u64) + 'a) -> Self {
        Self { name: name.into(), turn: Box::new(turn) }
    }

    /// What it is called in results.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How long a turn should take at least, in CPU time. A single call may take longer.
    pub turn_min: Duration,
    /// How long all rounds should take together, in wall time.
    pub budget: Duration,
    /// Rounds to make even when that takes longer than the budget.
    pub rounds_min: usize,
    /// Rounds after which to be content.
    pub rounds_max: usize,
}

impl Plan {
    /// Three rounds of next to nothing: to see that things work.
    #[must_use]
    pub const fn for_tests() -> Self {
        Self { turn_min: Duration::ZERO, budget: Duration::ZERO, rounds_min: 3, rounds_max: 3 }
    }
}

/// What one contender took, a sample per round.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// The contender's.
    pub name: String,
    /// Calls per turn.
    pub calls: u64,
    /// CPU time per call, in seconds, by round.
    pub cpu_seconds: Vec<f64>,
    /// Wall time per call, in seconds, by round.
    pub wall_seconds: Vec<f64>,
}

fn timed<C>(contender: &mut Contender<'_, C>, context: &mut C, calls: u64) -> Elapsed {
    let watch = Stopwatch::start();
    (contender.turn)(context, calls);
    watch.elapsed()
}

/// Calls per turn, found by trying; which warms up, too.
fn calibrated<C>(contender: &mut Contender<'_, C>, context: &mut C, turn_min: Duration) -> u64 {
    // The first call pays for what is only made once.
    timed(contender, context, 1);
    let mut calls = 1;
    loop {
        let took = timed(contender, context, calls).cpu;
        if took >= turn_min || calls >= CALLS_MAX {
            return calls;
        }
        // Straight to the aim where the time can be told, by twos where it is too short for that.
        let aim = turn_min.as_nanos() / took.as_nanos().max(1) + 1;
        calls = calls.saturating_mul(u64::try_from(aim).unwrap_or(CALLS_MAX).clamp(2, 16)).min(CALLS_MAX);
    }
}

/// Measures all contenders on one context. Samples are in the order of the contenders, and all have the same number of
/// rounds, which is 0 when `stop` was asked before the first one ended.
pub fn interleave<C>(
    context: &mut C,
    contenders: &mut [Contender<'_, C>],
    plan: &Plan,
    order: &mut Order,
    stop: &Stop,
) -> Vec<Samples> {
    let mut all = Vec::with_capacity(contenders.len());
    for contender in contenders.iter_mut() {
        let calls = if stop.asked() { 1 } else { calibrated(contender, context, plan.turn_min) };
        let name = contender.name.clone();
        all.push(Samples { name, calls, cpu_seconds: Vec::new(), wall_seconds: Vec::new() });
    }
    let started = Instant::now();
    for round in 0..plan.rounds_max.max(plan.rounds_min) {
        let enough = round >= plan.rounds_min && started.elapsed() >= plan.budget;
        if enough || contenders.is_empty() {
            break;
        }
        let mut samples = vec![Elapsed::default(); contenders.len()];
        for index in order.shuffled(contenders.len()) {
            if stop.asked() {
                return all;
            }
            samples[index] = timed(&mut contenders[index], context, all[index].calls);
        }
        // Only whole rounds count.
        for (of_one, sample) in all.iter_mut().zip(samples) {
            of_one.cpu_seconds.push(sample.cpu.as_secs_f64() / of_one.calls as f64);
            of_one.wall_seconds.push(sample.wall.as_secs_f64() / of_one.calls as f64);
        }
    }
    all
}
