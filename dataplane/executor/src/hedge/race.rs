//! One read with its hedges: the read machine, and how far it may be made to ask for more.

use super::Permit;
use crate::read_machine::{Ask, ReadEvent, ReadMachine, ReadPlan, Step};

/// Hedges of one read.
pub(crate) const HEDGES_MAX: u32 = 2;
/// A hedge that asks for more shards than this (the rebuild of a part, say) is a read's only one.
pub(crate) const HEDGE_SHARDS_MAX: usize = 2;

/// The machine of one read, and what was hedged of it.
#[derive(Clone, Debug)]
pub(crate) struct Race {
    machine: ReadMachine,
    hedges: u32,
    /// Asked for by a hedge.
    hedged: u64,
}

impl Race {
    pub(crate) fn new(plan: ReadPlan) -> Self {
        Self { machine: ReadMachine::new(plan), hedges: 0, hedged: 0 }
    }

    /// As [`ReadMachine::start`].
    pub(crate) fn start(&mut self) -> Step {
        self.machine.start()
    }

    /// As [`ReadMachine::on`].
    pub(crate) fn on(&mut self, event: ReadEvent) -> Step {
        self.machine.on(event)
    }

    /// Whole shards in hand, those known included.
    pub(crate) fn whole_in_hand(&self) -> usize {
        self.machine.whole_in_hand()
    }

    /// Shards that a hedge asked for.
    pub(crate) fn hedged(&self) -> u64 {
        self.hedged
    }

    /// An outstanding ask is late. Asks for what a decode without it takes, if `permit` grants that; `slow` says that its
    /// node is known to be read last, so that asking others instead is no hedge (unless it takes many). The answer is what
    /// `permit` said, if it was asked.
    pub(crate) fn late(
        &mut self,
        ask: Ask,
        slow: bool,
        permit: impl FnOnce(&[Ask]) -> Permit,
    ) -> (Step, Option<Permit>) {
        let mut then = self.machine.clone();
        let step = then.on(ReadEvent::Late(ask));
        let many = step.asks.len() > HEDGE_SHARDS_MAX;
        if step.asks.is_empty() && step.verdict.is_none() {
            return (Step::default(), None);
        }
        if slow && !many {
            self.machine = then;
            return (step, None);
        }
        if self.hedges >= HEDGES_MAX || many && self.hedges > 0 {
            return (Step::default(), None);
        }
        match permit(&step.asks) {
            Permit::Granted => {
                self.hedges = if many { HEDGES_MAX } else { self.hedges + 1 };
                self.hedged |= step.asks.iter().fold(0, |set, ask| set | 1 << ask.shard);
                self.machine = then;
                (step, Some(Permit::Granted))
            }
            refused => (Step::default(), Some(refused)),
        }
    }
}
