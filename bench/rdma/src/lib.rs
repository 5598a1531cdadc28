//! S3 and its transport over an RDMA device, beside linux-rdma's perftest on the same device in the same run.
//!
//! **What.** In rounds, each in another order: perftest (`ib_write_bw`, `ib_read_lat`); our transport alone (a node's handler
//! that WRITEs from memory); and whole S3 operations against a `penstock serve` that is started for it, by plan over RDMA, by
//! plan over TCP, and over HTTP. Figures are medians over the rounds, and shares of perftest's.
//!
//! **Why so.** On soft-RoCE every packet is made by the CPU, so absolute figures say nothing of hardware; what share of the
//! device's own speed is left, and what CPU a byte costs beside TCP, does travel.
//!
//! **How it fails.** [`RdmaBenchError`]. Without a device it says so, and what to do. A client whose payload went another way
//! than its row says ends the run: a wrong figure is worse than none.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for people: it prints its results")]

mod cpu;
mod device;
mod perftest;
mod report;
mod run;
mod s3;
mod serve;
mod wire;

use std::path::PathBuf;

use penstock_harness::HarnessError;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum RdmaBenchError {
    /// Something that the run needs, and can't have: says what to do.
    #[error("{0}")]
    Setup(String),
    /// An operation failed.
    #[error("{0}")]
    Failed(String),
    /// Something was measured that is not what its row would say.
    #[error("wrong result: {0}")]
    Wrong(String),
    /// Results can't be written.
    #[error(transparent)]
    Harness(#[from] HarnessError),
}

impl RdmaBenchError {
    /// Whether the same run may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// S3 over RDMA beside perftest, on one device.
///
/// Starts a `penstock serve` of its own and moves objects of several sizes by plan over RDMA, by plan over TCP and over HTTP;
/// between them perftest's ib_write_bw and ib_read_lat run on the same device.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// The RDMA device; the first with an active port by default.
    #[arg(long, value_name = "NAME", env = "PENSTOCK_RDMA_DEVICE")]
    pub device: Option<String>,
    /// Where the store keeps its data while it runs; a folder in it is made, and removed at the end.
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub data: PathBuf,
    /// The `penstock` that serves; by default the one beside this program.
    #[arg(long, value_name = "PROGRAM")]
    pub penstock: Option<PathBuf>,
    /// Write results as a JSON list to FILE, and what they were measured on to FILE with the extension .machine.json.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Seconds of each measurement in each round.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Two rounds of half a second each.
    #[arg(long)]
    pub quick: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of 0.05 to 600".to_owned()),
    }
}

/// Measures, prints a table, and writes what was asked for.
///
/// # Errors
/// [`RdmaBenchError`].
pub fn run(arguments: &Arguments) -> Result<(), RdmaBenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| RdmaBenchError::Setup(format!("the runtime can't be started: {error}")))?;
    let outcome = runtime.block_on(run::all(arguments));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}
