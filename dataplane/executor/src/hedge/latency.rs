//! How long a node's answers take, of late: a histogram of two windows, of which the older is dropped as time goes on.

use std::time::Duration;

/// Buckets per doubling: a quantile is at most an eighth too high.
const STEPS: u32 = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^28 microseconds, four and a half minutes; what is longer counts as that.
const BUCKETS: usize = ((28 - STEP_BITS + 1) * STEPS) as usize;
/// Quantiles are computed anew after so many samples: a scan of the buckets costs as much as a small message.
const REFRESH_SAMPLES: u32 = 16;

/// How long a window is.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

struct Window {
    counts: [u32; BUCKETS],
    samples: u32,
}

impl Window {
    const EMPTY: Self = Self { counts: [0; BUCKETS], samples: 0 };
}

/// What is known of a node's answers of one class.
pub(crate) struct Latency {
    windows: Box<[Window; 2]>,
    /// When the younger window began.
    began: Duration,
    since_refresh: u32,
    p50: Duration,
    p95: Duration,
}

fn bucket_of(micros: u64) -> usize {
    if micros < u64::from(STEPS) {
        return micros as usize;
    }
    let exponent = 63 - micros.leading_zeros();
    let step = (micros >> (exponent - STEP_BITS)) as u32 & (STEPS - 1);
    (((exponent - STEP_BITS + 1) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The longest time that is in the bucket.
fn upper_bound(bucket: usize) -> Duration {
    let bucket = bucket as u32;
    if bucket < STEPS {
        return Duration::from_micros(u64::from(bucket));
    }
    let (exponent, step) = (bucket / STEPS - 1 + STEP_BITS, bucket % STEPS);
    Duration::from_micros((u64::from(STEPS + step + 1) << (exponent - STEP_BITS)) - 1)
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            windows: Box::new([Window::EMPTY; 2]),
            began: Duration::ZERO,
            since_refresh: 0,
            p50: Duration::ZERO,
            p95: Duration::ZERO,
        }
    }

    /// Samples of both windows.
    pub(crate) fn samples(&self) -> u32 {
        self.windows[0].samples + self.windows[1].samples
    }

    /// Half of the answers took no longer.
    pub(crate) fn p50(&self) -> Duration {
        self.p50
    }

    /// All but a twentieth of the answers took no longer.
    pub(crate) fn p95(&self) -> Duration {
        self.p95
    }

    pub(crate) fn record(&mut self, took: Duration, now: Duration) {
        self.rotate(now);
        let window = &mut self.windows[0];
        window.counts[bucket_of(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))] += 1;
        window.samples += 1;
        self.since_refresh += 1;
        if self.since_refresh >= REFRESH_SAMPLES || self.samples() <= REFRESH_SAMPLES {
            self.refresh();
        }
    }

    /// Forgets windows whose time is over.
    pub(crate) fn rotate(&mut self, now: Duration) {
        let age = now.saturating_sub(self.began);
        if age < WINDOW {
            return;
        }
        self.windows.swap(0, 1);
        self.windows[0] = Window::EMPTY;
        if age >= 2 * WINDOW {
            self.windows[1] = Window::EMPTY;
        }
        self.began = now;
        self.refresh();
    }

    fn refresh(&mut self) {
        self.since_refresh = 0;
        self.p50 = self.quantile(50);
        self.p95 = self.quantile(95);
    }

    fn quantile(&self, percent: u64) -> Duration {
        let wanted = (u64::from(self.samples()) * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for bucket in 0..BUCKETS {
            seen += u64::from(self.windows[0].counts[bucket]) + u64::from(self.windows[1].counts[bucket]);
            if seen >= wanted {
                return upper_bound(bucket);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        let mut before = None;
        for bucket in 0..BUCKETS {
            let upper = upper_bound(bucket).as_micros() as u64;
            assert_eq!(bucket_of(upper), bucket, "{upper} us");
            assert!(before.is_none_or(|before| bucket_of(before + 1) == bucket));
            before = Some(upper);
        }
        for micros in [9u64, 100, 1000, 12_345, 1_000_000] {
            let upper = upper_bound(bucket_of(micros)).as_micros() as u64;
            assert!(upper >= micros && upper <= micros + micros / 8 + 1, "{micros} reads as {upper}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_last_windows() {
        let mut latency = Latency::new();
        let at = Duration::from_secs;
        for i in 1..=100u64 {
            latency.record(Duration::from_millis(i), at(1));
        }
        let near = |time: Duration, millis: u64| {
            let exact = Duration::from_millis(millis);
            time >= exact && time <= exact * 9 / 8 + Duration::from_micros(1)
        };
        latency.refresh();
        assert!(near(latency.p50(), 50) && near(latency.p95(), 95), "{:?} {:?}", latency.p50(), latency.p95());
        // One window later they still count; two later they don't.
        latency.rotate(at(11));
        assert_eq!(latency.samples(), 100);
        for _ in 0..32 {
            latency.record(Duration::from_millis(7), at(21));
        }
        assert_eq!(latency.samples(), 32);
        assert!(near(latency.p95(), 7));
        latency.rotate(at(60));
        assert_eq!((latency.samples(), latency.p50()), (0, Duration::ZERO));
    }
}
