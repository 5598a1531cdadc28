//! When to ask a second time: hedged reads within a budget.
//!
//! **What.** A request whose answer has not begun after `max(p95, 3 x p50)` of what answers have taken lately is sent once more, on
//! another connection; the first good answer wins and the other is dropped with its connection, before a byte of its
//! body was read. So no two attempts ever write to the same memory. A body that stands still in its middle is asked for again,
//! from where it stands, by the same rule.
//!
//! **Why a budget.** A fixed delay doubles the load of a server that is slow for everybody, and makes it slower. Each request
//! earns a twentieth of a hedge; when there is none to spend, nobody hedges.
//!
//! Pure: it is handed the time. How it fails: it does not; without enough samples there is no delay, and no hedge.

use std::time::Duration;

use parking_lot::Mutex;

/// How reads are hedged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeOptions {
    /// Which share of answers is in time: the delay is at least this quantile.
    pub quantile: f64,
    /// Answers that must have been seen before anything is hedged.
    pub samples_min: u64,
    /// Hedges per request, at most, in the long run.
    pub budget: f64,
    /// The least delay: below it a second request costs more than it brings.
    pub delay_min: Duration,
}

impl Default for HedgeOptions {
    fn default() -> Self {
        Self { quantile: 0.95, samples_min: 100, budget: 0.05, delay_min: Duration::from_millis(2) }
    }
}

/// The most hedges that are saved up.
const TOKENS_MAX: f64 = 20.0;
/// Answers that one window takes before the older one is forgotten.
const WINDOW_SAMPLES: u64 = 4096;
/// How long a window lasts, at most, while answers come.
const WINDOW_MAX: Duration = Duration::from_secs(30);
/// The delay is computed anew after so many answers.
const DELAY_EVERY: u64 = 32;
/// Least time that a body stands still before the rest of it is asked for elsewhere.
const STALL_MIN: Duration = Duration::from_millis(250);
/// Buckets for each doubling of the time, from 1 us on: a quantile is known to an eighth.
const STEPS: usize = 8;
const DOUBLINGS: usize = 32;

/// One window of a rotating histogram.
struct Window {
    counts: [u32; STEPS * DOUBLINGS],
    samples: u64,
    since: Duration,
}

impl Window {
    fn new(since: Duration) -> Self {
        Self { counts: [0; STEPS * DOUBLINGS], samples: 0, since }
    }
}

struct State {
    now: Window,
    before: Window,
    tokens: f64,
    /// As of the last few answers.
    delay: Option<Duration>,
}

/// Decides.
pub(crate) struct Hedger {
    options: HedgeOptions,
    state: Mutex<State>,
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = us.ilog2() as usize;
    // The three bits below the highest.
    let step = if doubling >= 3 {
        (us >> (doubling - 3)) as usize & (STEPS - 1)
    } else {
        (us << (3 - doubling)) as usize & (STEPS - 1)
    };
    (doubling * STEPS + step).min(STEPS * DOUBLINGS - 1)
}

/// The upper end of a bucket.
fn upper(bucket: usize) -> Duration {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    Duration::from_micros(((1u64 << doubling) as f64 * (1.0 + (step + 1) as f64 / STEPS as f64)) as u64)
}

impl Hedger {
    pub(crate) fn new(options: HedgeOptions) -> Self {
        let zero = Duration::ZERO;
        Self {
            options,
            state: Mutex::new(State { now: Window::new(zero), before: Window::new(zero), tokens: 0.0, delay: None }),
        }
    }

    /// An answer began `took` after it was asked for; `now` is the time since some beginning.
    pub(crate) fn seen(&self, took: Duration, now: Duration) {
        let mut state = self.state.lock();
        if state.now.samples >= WINDOW_SAMPLES || now.saturating_sub(state.now.since) > WINDOW_MAX {
            state.before = std::mem::replace(&mut state.now, Window::new(now));
        }
        state.now.counts[bucket(took)] += 1;
        state.now.samples += 1;
        let samples = state.now.samples + state.before.samples;
        if samples <= DELAY_EVERY || samples.is_multiple_of(DELAY_EVERY) {
            state.delay = self.delay_of(&state);
        }
    }

    fn delay_of(&self, state: &State) -> Option<Duration> {
        let samples = state.now.samples + state.before.samples;
        if samples < self.options.samples_min.max(1) {
            return None;
        }
        let quantile = |share: f64| {
            let want = ((samples as f64 * share).ceil() as u64).clamp(1, samples);
            let mut seen = 0;
            let found = (0..STEPS * DOUBLINGS).find(|at| {
                seen += u64::from(state.now.counts[*at]) + u64::from(state.before.counts[*at]);
                seen >= want
            });
            upper(found.unwrap_or(STEPS * DOUBLINGS - 1))
        };
        let delay = quantile(self.options.quantile).max(quantile(0.5) * 3);
        Some(delay.max(self.options.delay_min))
    }

    /// A request is about to be sent: it earns its share of a hedge. How long to wait before another is sent beside it;
    /// `None` while too little is known.
    pub(crate) fn request(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        state.tokens = (state.tokens + self.options.budget).min(TOKENS_MAX);
        state.delay
    }

    /// How long a body may stand still before the rest of it is asked for elsewhere.
    pub(crate) fn stall(&self) -> Option<Duration> {
        self.state.lock().delay.map(|delay| delay.max(STALL_MIN))
    }

    /// Whether a hedge may be sent now. It is paid for then.
    pub(crate) fn spend(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.tokens >= 1.0;
        if may {
            state.tokens -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn options() -> HedgeOptions {
        HedgeOptions { samples_min: 10, delay_min: Duration::ZERO, ..HedgeOptions::default() }
    }

    #[test]
    fn a_time_falls_in_its_bucket() {
        for us in (1..5000).chain([1 << 20, (1 << 30) + 12345]) {
            let took = Duration::from_micros(us);
            let (at, above) = (bucket(took), upper(bucket(took)));
            assert!(above >= took, "{took:?} in {at} below {above:?}");
            assert!(us < 8 || above.as_micros() as u64 <= us + us / 8 + 1, "{took:?} in {at} below {above:?}");
        }
        assert_eq!(bucket(Duration::from_secs(1_000_000)), STEPS * DOUBLINGS - 1);
    }

    #[test]
    fn the_delay_is_the_later_of_p95_and_three_times_p50() {
        let hedger = Hedger::new(options());
        for _ in 0..9 {
            hedger.seen(MS, Duration::ZERO);
        }
        assert_eq!((hedger.request(), hedger.stall()), (None, None), "too little is known");
        for _ in 0..87 {
            hedger.seen(MS, Duration::ZERO);
        }
        let near = |delay: Duration, want: Duration| delay >= want && delay <= want * 9 / 8 + Duration::from_micros(3);
        assert!(near(hedger.request().unwrap(), 3 * MS));
        for _ in 0..32 {
            hedger.seen(100 * MS, Duration::ZERO);
        }
        assert!(near(hedger.request().unwrap(), 100 * MS), "{:?}", hedger.request());
        let least = Hedger::new(HedgeOptions { delay_min: Duration::from_secs(1), ..options() });
        (0..20).for_each(|_| least.seen(MS, Duration::ZERO));
        assert_eq!(least.request(), Some(Duration::from_secs(1)));
        assert!(hedger.stall() >= Some(STALL_MIN));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let hedger = Hedger::new(options());
        (0..128).for_each(|_| hedger.seen(500 * MS, Duration::ZERO));
        (0..128).for_each(|_| hedger.seen(MS, 2 * WINDOW_MAX));
        assert!(hedger.request().unwrap() > 100 * MS, "the older window still counts");
        (0..128).for_each(|_| hedger.seen(MS, 4 * WINDOW_MAX));
        assert!(hedger.request().unwrap() < 10 * MS);
    }

    #[test]
    fn hedges_keep_to_the_budget() {
        let hedger = Hedger::new(options());
        let mut hedges = 0;
        for _ in 0..10_000 {
            hedger.request();
            hedges += u64::from(hedger.spend());
        }
        assert!((490..=500).contains(&hedges), "{hedges}");
        // What is saved up is bounded.
        (0..10_000).for_each(|_| assert_eq!(hedger.request(), None));
        assert_eq!((0..100).filter(|_| hedger.spend()).count(), TOKENS_MAX as usize);
    }
}
