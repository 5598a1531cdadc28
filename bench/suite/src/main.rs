//! `penstock-bench`: benchmarks of Penstock against its peers, and against what the machine can do at all.
//!
//! People call it as `penstock bench`, which finds this program beside itself. Each subcommand measures one thing, with
//! everything that shares a table measured in one process, interleaved (see `penstock-harness`).
//!
//! Unsafe code is here for two things: calling ISA-L, and the loops that find the machine's limits.
#![allow(clippy::print_stdout, reason = "a program for people: it prints its results")]

mod arena;
mod isal;
mod kernels;
mod limits;
mod s3;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use penstock_harness::HarnessError;

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
    /// Load on any S3 endpoint: ours, AWS, RGW, MinIO.
    S3(Box<s3::Arguments>),
}

/// A run that could not be made: a sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The harness can't write or read.
    #[error(transparent)]
    Harness(#[from] HarnessError),
    /// Something that the run needs, and can't have.
    #[error("{0}")]
    Setup(String),
    /// A contender computed something else than it should have: its speed would mean nothing.
    #[error("wrong result: {0}")]
    Wrong(String),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Kernels(arguments) => kernels::run(&arguments),
        Command::S3(arguments) => s3::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock bench: {error}");
            ExitCode::FAILURE
        }
    }
}
