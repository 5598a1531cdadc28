//! A token bucket: what may be asked beyond what must be. Whole numbers only, so that what it promises is exact.

/// What one further ask costs, in the unit in which asks earn: a percent of an ask.
const ASK: u64 = 100;

/// Earns `percent` hundredths of an ask for each ask, holds at most `burst` asks, and never gives more than it has.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    percent: u64,
    full: u64,
    held: u64,
}

impl Budget {
    /// Full to start with: the first trouble is often the first thing there is.
    pub(crate) fn new(percent: u32, burst: u32) -> Self {
        let full = u64::from(burst) * ASK;
        Self { percent: u64::from(percent), full, held: full }
    }

    /// An ask was made.
    pub(crate) fn earn(&mut self) {
        self.held = (self.held + self.percent).min(self.full);
    }

    pub(crate) fn has(&self, asks: usize) -> bool {
        self.held >= asks as u64 * ASK
    }

    /// Takes what `has` says is there.
    ///
    /// # Panics
    /// When it isn't.
    pub(crate) fn take(&mut self, asks: usize) {
        assert!(self.has(asks), "invariant: looked at before");
        self.held -= asks as u64 * ASK;
    }
}
