//! A breaker per node: a pure machine that is handed the time.
//!
//! A node that could not be reached, or did not answer in time, several times in a row is *open*: writes don't wait for it
//! (its shards are noted as missing, for repair) and new data is placed around it. After a pause one write may try it
//! (*half-open*); an answer of any kind closes the breaker, another failure opens it for twice as long, up to a bound.

use std::time::Duration;

/// Failures in a row that open a breaker.
pub const BREAKER_FAILURES_MAX: u32 = 3;
/// How long a breaker is open at first.
pub const BREAKER_PAUSE_MIN: Duration = Duration::from_secs(1);
/// How long a breaker is open at most.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The breaker of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breaker {
    failures: u32,
    last_failure: Duration,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    until: Duration,
    pause: Duration,
    /// Somebody tries it.
    probing: bool,
}

impl Breaker {
    pub(crate) const CLOSED: Self = Self { failures: 0, last_failure: Duration::ZERO, open: None };

    /// It answered.
    pub(crate) fn on_answer(&mut self) {
        *self = Self::CLOSED;
    }

    /// It could not be reached, or did not answer in time.
    pub(crate) fn on_failure(&mut self, now: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
        match &mut self.open {
            Some(open) if open.until <= now || open.probing => {
                let pause = (2 * open.pause).min(BREAKER_PAUSE_MAX);
                *open = Open { until: now + pause, pause, probing: false };
            }
            Some(_) => {}
            None if self.failures >= BREAKER_FAILURES_MAX => {
                self.open = Some(Open { until: now + BREAKER_PAUSE_MIN, pause: BREAKER_PAUSE_MIN, probing: false });
            }
            None => {}
        }
    }

    /// Whether it failed the last time, and not longer ago than `within`.
    pub(crate) fn is_suspect(&self, within: Duration, now: Duration) -> bool {
        self.failures > 0 && now.saturating_sub(self.last_failure) < within || self.is_open(now)
    }

    /// Whether it is better not asked. Not while it may be tried again.
    pub(crate) fn is_open(&self, now: Duration) -> bool {
        self.open.is_some_and(|open| now < open.until)
    }

    /// Whether a write may ask it. When the pause is over one may, and the next only when that one has not come back
    /// within another pause.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        match &mut self.open {
            Some(open) if now < open.until => false,
            Some(open) => {
                open.until = now + open.pause;
                open.probing = true;
                true
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn opens_after_failures_in_a_row_and_is_tried_once_at_a_time() {
        let mut breaker = Breaker::CLOSED;
        breaker.on_failure(ms(0));
        breaker.on_failure(ms(1));
        assert!(breaker.admits(ms(2)) && !breaker.is_open(ms(2)) && breaker.is_suspect(ms(5), ms(2)));
        breaker.on_answer();
        assert!(!breaker.is_suspect(ms(5), ms(2)));
        for _ in 0..3 {
            breaker.on_failure(ms(10));
        }
        assert!(breaker.is_open(ms(1009)) && !breaker.admits(ms(1009)));
        assert!(!breaker.is_open(ms(1010)));
        assert!(breaker.admits(ms(1010)) && !breaker.admits(ms(1011)));
        // It fails again: twice as long.
        breaker.on_failure(ms(1020));
        assert!(breaker.is_open(ms(3019)) && breaker.admits(ms(3020)));
        // Whoever tried it never came back: another may, later.
        assert!(!breaker.admits(ms(5019)) && breaker.admits(ms(5020)));
        breaker.on_answer();
        assert_eq!(breaker, Breaker::CLOSED);
    }

    proptest! {
        #[test]
        fn what_is_admitted_while_nothing_answers_is_bounded(steps in prop::collection::vec((0u64..400, 0u8..3), 1..300)) {
            let (mut breaker, mut now, mut admitted) = (Breaker::CLOSED, Duration::ZERO, 0u64);
            for _ in 0..BREAKER_FAILURES_MAX {
                breaker.on_failure(now);
            }
            for (millis, what) in steps {
                now += ms(millis);
                if what > 0 && breaker.admits(now) {
                    admitted += 1;
                    if what == 2 {
                        breaker.on_failure(now);
                    }
                }
                prop_assert!(admitted <= now.as_millis() as u64 / BREAKER_PAUSE_MIN.as_millis() as u64);
            }
            // And it always closes again.
            prop_assert!(breaker.admits(now + 2 * BREAKER_PAUSE_MAX));
            breaker.on_answer();
            prop_assert!(breaker.admits(now));
        }
    }
}
