//! `cargo xtask crash`: kills processes of a real cluster at random, under load, and proves that nothing was lost.
//!
//! **What.** A gateway and storage nodes run as processes of their own. Writers put, overwrite, delete, copy and upload in parts, on keys of
//! their own, over plain HTTP and by plan; readers read everybody's keys meanwhile. Every now and then a process is killed
//! (SIGKILL) and started again. In the end all processes run, and every key must hold what was acknowledged.
//!
//! **What counts as lost.** See [`history`]: an acknowledged object that is gone or holds other bytes, a deleted one that came back, bytes
//! that nobody ever wrote, a listing that disagrees with the objects.
//!
//! **How it ends.** The last line is `K kills, O objects verified, lost 0, seed S`; status 1 if anything was lost, 2 if the
//! storm itself could not be made. The same seed gives the same kills and the same operations, not the same interleaving.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for people: it prints its results")]

mod cluster;
mod history;
mod load;
mod storm;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks for developers that run whole clusters.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Random kills of any process under mixed load; nothing acknowledged may be lost.
    Crash(CrashArguments),
}

/// How the storm is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CrashArguments {
    /// How long to kill, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Stop after so many kills, if that comes first.
    #[arg(long)]
    kills: Option<u64>,
    /// What is killed when, and what is written; random without it, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Storage nodes.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Nodes that are down together at most: fewer than the code's parity shards, or writes stop.
    #[arg(long, default_value_t = 1)]
    down: usize,
    /// Writers at a time; as many readers.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    writers: u16,
    /// In the end delete everything, wait until the garbage is collected (write leases of killed gateways run for 15 minutes)
    /// and look into the stores for shards that nobody owns.
    #[arg(long)]
    orphans: bool,
    /// The program; built without it.
    #[arg(long, value_name = "FILE")]
    penstock: Option<PathBuf>,
    /// Where the cluster lives (a new folder within it, kept if something was lost): a real file system.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Why there was no storm, or none to the end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrashError {
    /// Something that it needs.
    #[error("{0}")]
    Setup(String),
    /// A process that does not come back.
    #[error("{name} does not start again: {why}; its log is {log}")]
    Dead {
        /// Which.
        name: String,
        /// What it said, or did.
        why: String,
        /// Where it says more.
        log: String,
    },
}

impl CrashError {
    pub(crate) fn doing(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::Setup(format!("{what}: {error}"))
    }
}

/// Status when something was lost, and when the storm could not be made.
const STATUS_LOST: u8 = 1;
const STATUS_NO_STORM: u8 = 2;

fn main() -> ExitCode {
    let Command::Crash(arguments) = Arguments::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("crash: threads can't be started: {error}");
            return ExitCode::from(STATUS_NO_STORM);
        }
    };
    match runtime.block_on(storm::run(&arguments)) {
        Ok(outcome) => {
            for lost in &outcome.lost {
                println!("LOST {lost}");
            }
            println!("{outcome}");
            if outcome.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(STATUS_LOST) }
        }
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::from(STATUS_NO_STORM)
        }
    }
}
