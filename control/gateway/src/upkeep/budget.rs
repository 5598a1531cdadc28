//! The bandwidth that repairs may take: a token bucket of bytes that may go into debt. Whoever comes while it is in debt
//! waits until it is paid; so one large repair goes at once, and the next ones pay for it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What accumulates while nobody spends: so many seconds' worth.
const BURST_SECONDS: f64 = 1.0;

/// The bucket, with the time handed in.
#[derive(Debug)]
struct Bucket {
    bytes_per_s: f64,
    tokens: f64,
}

impl Bucket {
    /// After `elapsed` more, whether `bytes` may be spent now; else how long to wait before asking again.
    fn spend(&mut self, elapsed: Duration, bytes: u64) -> Result<(), Duration> {
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.bytes_per_s).min(self.bytes_per_s * BURST_SECONDS);
        if self.tokens < 0.0 {
            let wait = Duration::from_secs_f64((-self.tokens / self.bytes_per_s).min(3600.0));
            return Err(wait.max(Duration::from_millis(1)));
        }
        self.tokens -= bytes as f64;
        Ok(())
    }
}

/// A bucket that tasks share.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<(Bucket, Instant)>);

impl Budget {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        let bytes_per_s = bytes_per_s.max(1) as f64;
        Self(Mutex::new((Bucket { bytes_per_s, tokens: bytes_per_s * BURST_SECONDS }, Instant::now())))
    }

    /// Waits until `bytes` may be spent, and spends them.
    pub(crate) async fn take(&self, bytes: u64) {
        loop {
            let wait = {
                let mut state = self.0.lock();
                let now = Instant::now();
                let elapsed = now.duration_since(state.1);
                state.1 = now;
                match state.0.spend(elapsed, bytes) {
                    Ok(()) => return,
                    Err(wait) => wait,
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_what_the_rate_allows() {
        let mut bucket = Bucket { bytes_per_s: 100.0, tokens: 100.0 };
        assert_eq!(bucket.spend(Duration::ZERO, 250), Ok(()), "into debt");
        assert_eq!(bucket.spend(Duration::ZERO, 1), Err(Duration::from_millis(1500)));
        assert_eq!(bucket.spend(Duration::from_secs(1), 1), Err(Duration::from_millis(500)));
        assert_eq!(bucket.spend(Duration::from_millis(500), 100), Ok(()));
        // A long rest gives a second's worth, no more.
        assert_eq!(bucket.spend(Duration::from_secs(1000), 101), Ok(()));
        assert!(bucket.spend(Duration::ZERO, 1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn ten_seconds_worth_takes_nine_after_the_burst() {
        let (budget, began) = (Budget::new(1000), Instant::now());
        for _ in 0..100 {
            budget.take(100).await;
        }
        budget.take(0).await;
        let took = began.elapsed();
        assert!((8900..=9200).contains(&took.as_millis()), "{took:?}");
    }
}
