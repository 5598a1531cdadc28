//! `penstock-bench`: benchmarks of Penstock against its peers, and against what the machine can do at all.
//!
//! People call it as `penstock bench`, which finds this program beside itself. Each subcommand measures one thing, with
//! everything that shares a table measured in one process, interleaved (see `penstock-harness`).
//!
//! Unsafe code is here for two things: calling ISA-L, and the loops that find the machine's limits.
#![allow(clippy::print_stdout, reason = "a program for people: it prints its results")]

mod all;
mod arena;
mod disk;
mod isal;
mod kernels;
mod limits;
mod node;
mod report;
mod s3;
mod slices;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use penstock_harness::HarnessError;
use penstock_report::ReportError;

/// Benchmarks of Penstock against its peers and against what the machine can do at all.
///
/// Results are tables on standard output, and files where you ask for them; progress is on standard error. Ctrl-C ends a
/// run early, with what has been measured until then. docs/BENCHMARKS.md says what the figures mean.
#[derive(Debug, Parser)]
#[command(name = "penstock bench", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Erasure codes, checksums and hashes: one core, in memory.
    Kernels(kernels::Arguments),
    /// Checksums and hashes of many streams: one core, in memory.
    Digest(kernels::Arguments),
    /// A disk: our engines beside fio, by size and queue depth.
    Disk(disk::Arguments),
    /// A storage node: shards written and read, over memory and TCP.
    Node(node::Arguments),
    /// Load on any S3 endpoint: ours, AWS, RGW, MinIO.
    S3(Box<s3::Arguments>),
    /// Every benchmark, one after the other, and the page.
    All(all::Arguments),
    /// A page with plots of what was measured.
    Report(report::ReportArguments),
    /// What changed between two runs, beyond the noise.
    Compare(report::CompareArguments),
    /// What a fleet needs, on paper.
    Model(report::ModelArguments),
    /// How likely data is lost, on paper, by policy.
    Durability(report::DurabilityArguments),
    /// S3 over RDMA beside perftest, on one device.
    Rdma(penstock_bench_rdma::Arguments),
}

/// A run that could not be made: a sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The harness can't write or read.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// Results that can't be made into anything.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Of the benchmark of RDMA.
    #[error(transparent)]
    Rdma(#[from] penstock_bench_rdma::RdmaBenchError),
    /// Something that the run needs, and can't have.
    #[error("{0}")]
    Setup(String),
    /// A contender computed something else than it should have: its speed would mean nothing.
    #[error("wrong result: {0}")]
    Wrong(String),
}

/// Status of `compare --fail` when something became worse.
const STATUS_WORSE: u8 = 3;

/// What machine facts say of something that was not measured.
pub(crate) fn not_measured(what: &str, why: &str) -> serde_json::Value {
    serde_json::json!({ "what": what, "why": why })
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Kernels(arguments) => kernels::run(&arguments, kernels::Part::All),
        Command::Digest(arguments) => kernels::run(&arguments, kernels::Part::Digests),
        Command::Disk(arguments) => disk::run(&arguments),
        Command::Node(arguments) => node::run(&arguments),
        Command::S3(arguments) => s3::run(&arguments),
        Command::All(arguments) => all::run(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::Compare(arguments) => match report::compare(&arguments) {
            Ok(true) => return ExitCode::from(STATUS_WORSE),
            other => other.map(drop),
        },
        Command::Model(arguments) => report::model(&arguments),
        Command::Durability(arguments) => report::durability(&arguments),
        Command::Rdma(arguments) => penstock_bench_rdma::run(&arguments).map_err(BenchError::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock bench: {error}");
            ExitCode::FAILURE
        }
    }
}
