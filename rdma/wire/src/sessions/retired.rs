//! Packet numbers of connections that have ended. A packet of an old connection that arrives late must not fit a new one
//! with the same queue pair number: (qpn, psn) pairs rest for a while before they may be used again.

use std::collections::{HashSet, VecDeque};

use crate::error::WireError;

/// A bounded ring of pairs, oldest first.
#[derive(Debug)]
pub struct Retired {
    rest_ms: u64,
    pairs_max: usize,
    ring: VecDeque<(u64, u32, u32)>,
    pairs: HashSet<(u32, u32)>,
}

impl Retired {
    /// Pairs rest for `rest_ms`, so many at a time at most.
    #[must_use]
    pub fn new(rest_ms: u64, pairs_max: usize) -> Self {
        Self { rest_ms, pairs_max, ring: VecDeque::new(), pairs: HashSet::new() }
    }

    /// Forgets what has rested long enough; then, whether another connection may be made: a full ring could not take its
    /// numbers when it ends.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn check(&mut self, now_ms: u64) -> Result<(), WireError> {
        while let Some(&(since_ms, qpn, psn)) = self.ring.front() {
            if now_ms.saturating_sub(since_ms) < self.rest_ms {
                break;
            }
            self.ring.pop_front();
            self.pairs.remove(&(qpn, psn));
        }
        if self.ring.len() >= self.pairs_max {
            return Err(WireError::Full { what: "connections that have just ended" });
        }
        Ok(())
    }

    /// Whether a new connection may use these.
    #[must_use]
    pub fn may_use(&self, qpn: u32, psn: u32) -> bool {
        !self.pairs.contains(&(qpn, psn))
    }

    /// A connection that used these has ended.
    pub fn retire(&mut self, now_ms: u64, qpn: u32, psn: u32) {
        if self.pairs.insert((qpn, psn)) {
            self.ring.push_back((now_ms, qpn, psn));
        }
    }

    /// How many are resting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}
