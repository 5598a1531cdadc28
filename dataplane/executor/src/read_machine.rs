//! Which shards a read asks for: a pure state machine. Events go in (a shard arrived, an ask failed, one is late), asks and at last one verdict come out; time, nodes and bytes are someone else's.
//!
//! All sets are bitmaps over the shards of one stripe, at most 48.
//!
//! - The fast path asks for the *wanted* data shards alone, each whole or in part, and is done when all are in hand.
//! - When a wanted shard fails, is late or is better not asked, the read is *degraded*: it asks for the fewest further
//!   **whole** shards that are enough ([`Code::choose`]): those that make k for RS, the rest of its group for a single
//!   loss of an LRC. A part is no use for decoding, so a shard asked for in part may be
//!   asked for once more, whole; no ask is ever made twice.
//! - Shards of *last resort* (marked missing when written, on a node that failed a moment ago) are asked for only when
//!   the others are no longer enough.
//! - An ask that is late is no longer counted on, and so what a decode without it takes is asked for. At most as many
//!   are ever late as the code survives losses, and none is when more are outstanding: slowness of everyone is not cured by
//!   more load. When an ask is late, and whether more may be asked for, [`crate::hedge`] says.
//! - Shards *known* without asking (data shards wholly past the end of a short chunk are zeros) count as in hand.
//!
//! It fails as soon as neither all wanted shards nor enough whole ones can come any more, and always ends: each ask is
//! answered once, and there are at most `n` whole asks and one in part for each wanted shard.

use penstock_proto::Code;

/// What a read starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPlan {
    /// How the stripe is coded.
    pub(crate) code: Code,
    /// Data shards to be asked for whole. Disjoint from `wanted_part` and from `known`.
    pub(crate) wanted_whole: u64,
    /// Data shards of which a part is enough.
    pub(crate) wanted_part: u64,
    /// Shards whose bytes are known without asking.
    pub(crate) known: u64,
    /// Shards that are better not asked.
    pub(crate) last_resort: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadEvent {
    /// An ask was answered with verified bytes.
    Arrived(Ask),
    /// An ask was answered with anything else.
    Failed(Ask),
    /// An ask takes longer than it should.
    Late(Ask),
}

/// One request to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    /// Which shard.
    pub(crate) shard: usize,
    /// Whole, or the wanted part.
    pub(crate) whole: bool,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every wanted shard is in hand, in part or whole.
    Direct,
    /// Enough whole shards are in hand: the wanted ones that aren't can be computed.
    Decode,
    /// Neither can happen any more.
    Fail,
}

/// What to do next: make the asks; with a verdict, stop and cancel what is outstanding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) asks: Vec<Ask>,
    pub(crate) verdict: Option<Verdict>,
}

/// The state of one read.
#[derive(Clone, Debug)]
pub(crate) struct ReadMachine {
    plan: ReadPlan,
    /// In hand.
    part: u64,
    whole: u64,
    /// An ask failed: nothing more is asked of it.
    failed: u64,
    /// Outstanding.
    flying_part: u64,
    flying_whole: u64,
    /// Ever asked for whole.
    asked_whole: u64,
    /// Declared late; those that are still outstanding are not counted on.
    late: u64,
}

fn count(set: u64) -> usize {
    set.count_ones() as usize
}

/// The members of a set, lowest first.
pub(crate) fn members(set: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |shard| set >> shard & 1 == 1)
}

impl ReadMachine {
    pub(crate) fn new(plan: ReadPlan) -> Self {
        let asked = plan.wanted_whole | plan.wanted_part;
        assert!(
            asked >> plan.code.k() == 0 && plan.known >> plan.code.k() == 0,
            "wanted and known shards are data shards of the code: {plan:?}"
        );
        assert!(
            plan.wanted_whole & plan.wanted_part == 0 && asked & plan.known == 0,
            "a shard is wanted whole, wanted in part or known: {plan:?}"
        );
        Self {
            plan,
            part: 0,
            whole: plan.known,
            failed: 0,
            flying_part: 0,
            flying_whole: 0,
            asked_whole: plan.known,
            late: 0,
        }
    }

    /// The first asks. Call once, before any event.
    pub(crate) fn start(&mut self) -> Step {
        let code = self.plan.code;
        let wanted = self.plan.wanted_whole | self.plan.wanted_part;
        let avoidable = code.recovers(code.all() & !self.plan.last_resort | self.plan.known, wanted);
        let avoided = if avoidable { self.plan.last_resort } else { 0 };
        let mut asks = Vec::new();
        for shard in members(wanted & !avoided) {
            let whole = self.plan.wanted_whole >> shard & 1 == 1;
            self.ask(Ask { shard, whole }, &mut asks);
        }
        self.step(asks)
    }

    /// Takes in what happened. Events about asks that are not outstanding change nothing.
    pub(crate) fn on(&mut self, event: ReadEvent) -> Step {
        match event {
            ReadEvent::Arrived(ask) => {
                if self.land(ask) {
                    if ask.whole {
                        self.whole |= 1 << ask.shard;
                    } else {
                        self.part |= 1 << ask.shard;
                    }
                }
            }
            ReadEvent::Failed(ask) => {
                if self.land(ask) {
                    self.failed |= 1 << ask.shard;
                }
            }
            ReadEvent::Late(ask) => self.declare_late(ask.shard),
        }
        self.step(Vec::new())
    }

    /// Whole shards in hand, those known included.
    pub(crate) fn whole_in_hand(&self) -> usize {
        count(self.whole)
    }

    fn flying(&self) -> u64 {
        self.flying_part | self.flying_whole
    }

    fn wanted_unfinished(&self) -> u64 {
        (self.plan.wanted_whole | self.plan.wanted_part) & !(self.part | self.whole)
    }

    fn ask(&mut self, ask: Ask, asks: &mut Vec<Ask>) {
        if ask.whole {
            self.flying_whole |= 1 << ask.shard;
            self.asked_whole |= 1 << ask.shard;
        } else {
            self.flying_part |= 1 << ask.shard;
        }
        asks.push(ask);
    }

    /// Whether the ask was outstanding; it no longer is.
    fn land(&mut self, ask: Ask) -> bool {
        let set = if ask.whole { &mut self.flying_whole } else { &mut self.flying_part };
        let outstanding = *set >> ask.shard & 1 == 1;
        *set &= !(1 << ask.shard);
        outstanding
    }

    fn declare_late(&mut self, shard: usize) {
        let survived = self.plan.code.losses_survived();
        let punctual = self.flying() & !self.late;
        if count(punctual) > survived || count(self.late) >= survived {
            return;
        }
        self.late |= punctual & 1 << shard;
    }

    fn step(&mut self, mut asks: Vec<Ask>) -> Step {
        if self.wanted_unfinished() == 0 {
            return Step { asks, verdict: Some(Verdict::Direct) };
        }
        let code = self.plan.code;
        if code.recovers(self.whole, self.wanted_unfinished()) {
            return Step { asks, verdict: Some(Verdict::Decode) };
        }
        let candidates = code.all() & !self.asked_whole & !self.failed & !self.flying_part;
        let direct_possible = self.wanted_unfinished() & !self.flying() == 0;
        // What flies in part may be asked for again, whole, once it has landed.
        let may_come = self.whole | self.flying_whole | self.flying_part | candidates;
        let decode_possible = code.recovers(may_come, self.wanted_unfinished());
        if !direct_possible && !decode_possible {
            return Step { asks, verdict: Some(Verdict::Fail) };
        }
        if self.wanted_unfinished() & !(self.flying() & !self.late) != 0 && decode_possible {
            self.ask_further(candidates, direct_possible, &mut asks);
        }
        Step { asks, verdict: None }
    }

    /// Asks for the whole shards that a decode takes, not counting on late ones. A mere hedge does so only where it can
    /// help: without shards of last resort, and with enough of the others.
    fn ask_further(&mut self, candidates: u64, hedge: bool, asks: &mut Vec<Ask>) {
        let counted_on = self.whole | self.flying_whole & !self.late;
        let lost = self.wanted_unfinished() & !(self.flying() & !self.late);
        let (last, first) = (candidates & self.plan.last_resort, candidates & !self.plan.last_resort);
        let mut order: Vec<usize> = members(first & !self.part).chain(members(first & self.part)).collect();
        let enough = self.plan.code.choose(counted_on, &order, lost);
        if hedge && enough.is_none() {
            return;
        }
        // Where even all of them are not enough, late ones must come as well: then everything is asked.
        let further = enough.unwrap_or_else(|| {
            order.extend(members(last));
            self.plan.code.choose(counted_on, &order, lost).unwrap_or(order)
        });
        for shard in further {
            self.ask(Ask { shard, whole: true }, asks);
        }
    }
}

#[cfg(test)]
mod tests;
