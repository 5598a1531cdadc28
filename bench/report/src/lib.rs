//! What is made of results once they are measured.
//!
//! **What.** [`Results`] reads what `penstock bench ... --json FILE` wrote, one file or a folder of them. [`compare`] says
//! what changed between two such runs beyond the noise. [`figures`] makes plots of them after definitions that are data
//! (`figures.toml`), [`page`] one self-contained page of the plots, and [`model`] computes what a fleet needs from measured
//! costs and stated hardware; [`durability`] how likely data is lost.
//!
//! **Why.** A storage engineer decides by looking. A page that needs no server, no network and no script can be sent
//! around, and reads the same in ten years. Nothing here measures: all of it is pure, from rows to text.
//!
//! **How it fails.** [`ReportError`]: a folder without results, a file that is no list of rows, an assumption of the model
//! that nobody knows. A benchmark that could not run is no failure: its file says why, and the page shows that.
#![forbid(unsafe_code)]

pub mod compare;
pub mod durability;
pub mod figures;
pub mod fleet;
pub mod page;
pub mod plot;
mod results;

#[cfg(test)]
mod tests;

pub use fleet as model;
pub use results::{NotMeasured, ResultFile, Results, Row};

/// Why there is no report, no comparison or no model.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder that can't be read.
    #[error("{path} can't be read: {why}")]
    Read {
        /// Which.
        path: String,
        /// What the system or the parser said.
        why: String,
    },
    /// A folder that has no results.
    #[error(
        "{0} has no results (files that `penstock bench ... --json FILE` wrote); run `penstock bench all --out {0}` first"
    )]
    Empty(String),
    /// Two runs without a row in common.
    #[error("{a} and {b} have no figure in common: they are results of different benchmarks, or of different settings")]
    NothingInCommon {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
    /// The definitions of figures are wrong.
    #[error("figures.toml: {0}")]
    Figures(String),
    /// An assumption of the model that is not known, or makes no sense.
    #[error("{0}")]
    Assumption(String),
}

impl ReportError {
    /// Whether trying again, without changing anything, may help. It won't.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
