//! How often an access key may ask: a token bucket for each, so that one client's loop does not starve the others.

use std::num::NonZeroU32;

use governor::clock::DefaultClock;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

/// Keys are authenticated before they are counted, so there are no more buckets than access keys; past this many, those
/// that are full again are let go of.
const BUCKETS_KEPT_MAX: usize = 10_000;

/// A bucket for each access key.
pub(crate) struct RateLimits {
    limiter: RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock>,
}

impl RateLimits {
    /// `per_second` requests a second on average, and as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { limiter: RateLimiter::keyed(Quota::per_second(per_second)) }
    }

    /// Whether this key may ask now.
    pub(crate) fn admit(&self, access_key: &str) -> bool {
        if self.limiter.len() > BUCKETS_KEPT_MAX {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&access_key.to_owned()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_is_past_it_does_not_and_keys_do_not_share() {
        let limits = RateLimits::new(NonZeroU32::new(1).unwrap());
        assert!(limits.admit("a"));
        let refused = (0..3).filter(|_| !limits.admit("a")).count();
        // A second may pass between two of them on a machine that stands still, not between all.
        assert!(refused >= 1, "all of four requests passed at once");
        assert!(limits.admit("b"));
    }
}
