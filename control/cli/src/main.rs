//! `penstock`: the one binary. It puts the house together and starts it; every decision is made in other rooms.
#![forbid(unsafe_code)]

mod admin;
mod admin_keep;
mod arguments;
mod assemble;
mod bench;
mod config;
mod direct;
mod doctor;
mod exercise;
mod identity;
mod keep;
mod metrics;
mod objects;
mod packing;
mod placement;
mod rails;
mod rdma;
mod rdma_limits;
mod run;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// A failure that ends the program: a sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fatal(pub(crate) String);

impl Fatal {
    /// `doing: why`.
    pub(crate) fn doing(doing: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {why}"))
    }
}

/// What is logged unless `PENSTOCK_LOG` says otherwise. s3s is silent: it takes every client's mistake for an error, and
/// writes signatures down; control/s3 logs each request itself.
const DEFAULT_LOG: &str = "info,s3s=off,fjall=warn,lsm_tree=warn";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Bench(bench) = &arguments.command {
        eprintln!("penstock: {}", bench::run(&bench.arguments));
        return ExitCode::FAILURE;
    }
    if let Command::Doctor(arguments) = &arguments.command {
        return if doctor::run(arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("PENSTOCK_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(DEFAULT_LOG)),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A log that can't be written (its disk is full, its reader is gone) is no reason to fail a request: without
        // this the subscriber complains by eprintln!, which panics then.
        .log_internal_errors(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("penstock: the runtime can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Command::Objects(what) = arguments.command {
        let code = runtime.block_on(objects::run(what));
        runtime.shutdown_timeout(run::SHUTDOWN_BLOCKING_WAIT);
        return code;
    }
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Serve(serve) => run::serve(*serve).await,
            Command::Gateway(gateway) => run::gateway(gateway).await,
            Command::Node(node) => run::node(node).await,
            Command::Admin(arguments) => admin::run(arguments).await,
            Command::ClusterKey(key) => identity::make_cluster_key_file(&key.out),
            Command::Exercise(arguments) => exercise::run(arguments).await,
            Command::Doctor(_) => unreachable!("the doctor has been"),
            Command::Objects(_) => unreachable!("objects have been seen to"),
            Command::Bench(_) => unreachable!("the benchmarks have been run"),
        }
    });
    // Blocking tasks (a hash, a read of a slow disk) get a moment; they never decide whether we end.
    runtime.shutdown_timeout(run::SHUTDOWN_BLOCKING_WAIT);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock: {error}");
            ExitCode::FAILURE
        }
    }
}
