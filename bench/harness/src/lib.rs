//! What every benchmark of ours shares.
//!
//! **What.** [`interleave`] runs *contenders*, who all do the same work, in rounds: in each round every contender once,
//! in random order, so that whatever else the machine does meets all of them alike. It counts the CPU time of the
//! process and wall time. [`Summary`] makes medians and spreads of the samples, [`median_ratio`] compares two contenders
//! round by round. [`Machine`] says what the figures were measured on, [`Recorder`] keeps results as a list in JSON and as CSV,
//! [`Progress`] tells on standard error how far it is and how long it will take, [`Stop`] turns Ctrl-C into an end with
//! valid partial results, and [`Table`] is for people.
//!
//! **Why.** Absolute figures depend on the machine, its clock and its neighbours; ratios of contenders in one run travel.
//! A figure without its machine is an anecdote, so that facts are written beside every result file.
//!
//! **How it fails.** [`HarnessError`]: a file that can't be written, or a signal that can't be caught. A contender that
//! panics ends the program: it gave a wrong result, which no figure should be made of. What a machine doesn't tell of itself
//! is `None` in its facts.
//!
//! ```
//! use penstock_harness::{Contender, Order, Plan, Stop, Summary, interleave};
//! let mut data = vec![1u64; 1000];
//! let mut contenders = vec![
//!     Contender::new("sum", |data: &mut Vec<u64>| { std::hint::black_box(data.iter().sum::<u64>()); }),
//!     Contender::new("product", |data: &mut Vec<u64>| { std::hint::black_box(data.iter().product::<u64>()); }),
//! ];
//! let samples = interleave(&mut data, &mut contenders, &Plan::for_tests(), &mut Order::seeded(1), &Stop::never());
//! assert_eq!(samples[1].name, "product");
//! let per_call = Summary::of(&samples[0].cpu_seconds).expect("there were rounds");
//! assert!(per_call.lower <= per_call.median && per_call.median <= per_call.upper);
//! ```
#![forbid(unsafe_code)]

mod clock;
mod interleave;
mod machine;
mod order;
mod progress;
mod record;
mod stop;
mod summary;
mod table;

#[cfg(test)]
mod tests;

pub use clock::{Elapsed, Stopwatch};
pub use interleave::{Contender, Plan, Samples, interleave};
pub use machine::{Cache, Machine};
pub use order::Order;
pub use progress::Progress;
pub use record::{Recorder, beside, write_csv, write_json};
pub use stop::Stop;
pub use summary::{Summary, median_ratio};
pub use table::Table;

/// A failure of the harness itself. Never one of what is measured.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// A result file can't be written.
    #[error("results can't be written to {path}: {why}; give another path")]
    Write {
        /// Which file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// A result file can't be read.
    #[error("results can't be read from {path}: {why}")]
    Read {
        /// Which file.
        path: String,
        /// What the system or the parser said.
        why: String,
    },
    /// Ctrl-C can't be caught.
    #[error("the handler of Ctrl-C can't be installed: {0}")]
    Signal(std::io::Error),
}

impl HarnessError {
    /// Whether trying again, without changing anything, may help. It won't.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
