//! When a stripe counts as written: a pure state machine over the answers of its n nodes.
//!
//! It ends with success when all n have answered and at least the quorum is durable, or when the quorum is durable and
//! the grace for stragglers is over (they are then marked missing, for repair); with failure as soon as the quorum is
//! out of reach. It never ends with success below the quorum.

use penstock_proto::Code;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteVerdict {
    /// Below the quorum, which can still be reached.
    Waiting,
    /// The quorum is durable; others may still become so within the grace.
    Grace,
    /// Written; `missing` are the shards that are not known to be durable.
    Durable {
        /// Bitmap over the shards.
        missing: u64,
    },
    /// The quorum can't be reached any more.
    Failed,
}

/// The state of one write.
#[derive(Clone, Debug)]
pub(crate) struct WriteMachine {
    n: usize,
    quorum: usize,
    stored: u64,
    failed: u64,
    grace_over: bool,
}

impl WriteMachine {
    pub(crate) fn new(code: Code) -> Self {
        Self { n: code.n(), quorum: code.write_quorum(), stored: 0, failed: 0, grace_over: false }
    }

    /// Shard `shard` is durable.
    pub(crate) fn on_stored(&mut self, shard: usize) -> WriteVerdict {
        self.stored |= 1 << shard;
        self.verdict()
    }

    /// Shard `shard` won't be.
    pub(crate) fn on_failed(&mut self, shard: usize) -> WriteVerdict {
        self.failed |= 1 << shard;
        self.verdict()
    }

    /// The grace, counted from when the quorum was reached, has passed.
    pub(crate) fn on_grace_over(&mut self) -> WriteVerdict {
        self.grace_over = true;
        self.verdict()
    }

    /// Shards known to be durable.
    pub(crate) fn durable(&self) -> usize {
        self.stored.count_ones() as usize
    }

    fn verdict(&self) -> WriteVerdict {
        let (durable, failed) = (self.durable(), self.failed.count_ones() as usize);
        if durable >= self.quorum {
            if self.grace_over || durable + failed == self.n {
                return WriteVerdict::Durable { missing: ((1u64 << self.n) - 1) & !self.stored };
            }
            return WriteVerdict::Grace;
        }
        if self.n - failed < self.quorum { WriteVerdict::Failed } else { WriteVerdict::Waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(k: usize, m: usize) -> Code {
        Code::new(k, m).unwrap()
    }

    /// Every outcome of every shard, in order, then the end of the grace.
    #[test]
    fn success_is_exactly_the_quorum() {
        for (k, m) in [(1, 0), (1, 2), (2, 1), (3, 0), (4, 2), (6, 3)] {
            let code = code(k, m);
            for outcomes in 0u64..1 << code.n() {
                let mut machine = WriteMachine::new(code);
                let mut verdict = WriteVerdict::Waiting;
                for shard in 0..code.n() {
                    if matches!(verdict, WriteVerdict::Failed | WriteVerdict::Durable { .. }) {
                        break;
                    }
                    verdict =
                        if outcomes >> shard & 1 == 1 { machine.on_stored(shard) } else { machine.on_failed(shard) };
                }
                let enough = outcomes.count_ones() as usize >= code.write_quorum();
                match verdict {
                    WriteVerdict::Durable { missing } => {
                        assert!(enough);
                        assert_eq!(missing, !outcomes & ((1 << code.n()) - 1));
                    }
                    WriteVerdict::Failed => assert!(!enough),
                    other => panic!("{code} {outcomes:b} ends as {other:?}"),
                }
            }
        }
    }

    #[test]
    fn stragglers_get_their_grace_and_no_more() {
        let mut machine = WriteMachine::new(code(4, 2));
        for shard in 0..4 {
            assert_eq!(machine.on_stored(shard), WriteVerdict::Waiting);
        }
        assert_eq!(machine.on_stored(4), WriteVerdict::Grace);
        assert_eq!(machine.on_grace_over(), WriteVerdict::Durable { missing: 1 << 5 });
        assert_eq!(machine.durable(), 5);
    }

    #[test]
    fn failure_is_known_early() {
        let mut machine = WriteMachine::new(code(4, 2));
        assert_eq!(machine.on_failed(0), WriteVerdict::Waiting);
        assert_eq!(machine.on_failed(1), WriteVerdict::Failed);
    }
}
