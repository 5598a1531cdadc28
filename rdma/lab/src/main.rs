//! The soft-RoCE lab: QEMU guests whose kernel has rdma_rxe, so that RDMA is tested where the machine has none.
//!
//! Guests boot the distribution's own kernel with an initramfs made here, see the host's files read-only (so that any
//! program built on the host runs in them as it is), and carry an RDMA device `rxe0`. docs/LAB.md says how it is used,
//! docs/adr/0008-lab.md why it is so.
//!
//! A lab that can't start is an error, never a success; everything is bounded in time; guests die with this process.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "clusters, which use the rest, come with the next commit")]
#![allow(clippy::print_stdout, reason = "a program for people: it prints")]

mod agent;
mod build;
mod cpio;
mod error;
mod folders;
mod guest;
mod initramfs;
mod kernel;
mod lab;
mod protocol;
mod topology;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use error::{LabError, Result};
use folders::{Folders, Lock};
use lab::{Lab, Size};
use topology::Topology;

#[derive(Parser)]
#[command(about = "The soft-RoCE lab: programs and tests in guests with an RDMA device (docs/LAB.md)")]
struct Arguments {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Run one program of this machine in a guest; its output and its status become this program's.
    Run(Run),
    /// Internal: the program in a guest that obeys the lab.
    #[command(hide = true)]
    Agent {
        /// The device of the control channel.
        channel: PathBuf,
    },
}

#[derive(Args)]
struct Common {
    /// The guests: one, pair, cluster (3 nodes), cluster:N.
    #[arg(long, default_value = "one")]
    topology: Topology,
    /// MiB of memory per guest.
    #[arg(long, default_value_t = 512)]
    memory: u32,
    /// Emulated CPUs per guest.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds until the command is killed; the guests a minute and a half later, whatever happens.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Seconds to wait for another lab on this machine.
    #[arg(long, default_value_t = 900)]
    wait: u64,
}

impl Common {
    fn size(&self) -> Size {
        Size { memory_mib: self.memory, cpus: self.cpus, limit_s: self.timeout + 90 }
    }
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// The guest to run in.
    #[arg(long, default_value = "one")]
    guest: String,
    /// A variable for the program: NAME=VALUE; may be given more than once.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Build this package's tests and run those (its unit tests, or --test's); the words after it go to the test program.
    #[arg(long, value_name = "PACKAGE")]
    tests_of: Option<String>,
    /// With --tests-of: the integration test's name.
    #[arg(long, value_name = "NAME", requires = "tests_of")]
    test: Option<String>,
    /// The program, as it is called on this machine, and its arguments.
    #[arg(required_unless_present = "tests_of", trailing_var_arg = true, allow_hyphen_values = true)]
    argv: Vec<String>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Sub::Run(arguments) => run(&arguments),
        Sub::Agent { channel } => {
            return match agent::serve(&channel) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("agent: {}: {error}", channel.display());
                    agent::power_off();
                    ExitCode::FAILURE
                }
            };
        }
    };
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            eprintln!("lab: {error}");
            if error.is_retryable() {
                eprintln!("lab: a busy machine can be the reason; try again, or with a longer --timeout");
            }
            ExitCode::FAILURE
        }
    }
}

/// A program's path as the guest sees it: the same, but absolute; a bare name is looked for in the guest's PATH.
fn resolved(argv: &[String]) -> Result<Vec<String>> {
    let [program, rest @ ..] = argv else { return Err(LabError::Setup("no program given".to_owned())) };
    let mut all = vec![program.clone()];
    if program.contains('/') {
        let path = std::fs::canonicalize(program).map_err(|error| LabError::Setup(format!("{program}: {error}")))?;
        all[0] = path.display().to_string();
    }
    all.extend_from_slice(rest);
    Ok(all)
}

fn variables(given: &[String]) -> Result<Vec<(String, String)>> {
    let split = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(LabError::Setup(format!("--env {text}: NAME=VALUE is wanted"))),
    };
    given.iter().map(split).collect()
}

fn run(arguments: &Run) -> Result<i32> {
    let variables = variables(&arguments.variables)?;
    let here = std::env::current_dir().map_err(|error| LabError::Setup(format!("the current folder: {error}")))?;
    let folders = Folders::find()?;
    let argv = match &arguments.tests_of {
        Some(package) => {
            let what = arguments
                .test
                .as_ref()
                .map_or(build::What::UnitTests(package), |test| build::What::Test(package, test));
            let program = build::program(what, &folders.tree)?.display().to_string();
            [&[program], arguments.argv.as_slice()].concat()
        }
        None => resolved(&arguments.argv)?,
    };
    let _lock = Lock::take(arguments.common.wait)?;
    folders.sweep()?;
    let lab = Lab::boot(&folders, arguments.common.topology, arguments.common.size())?;
    let guest = lab.guest(&arguments.guest)?;
    let run = guest.start(&argv, &variables, &here.display().to_string(), arguments.common.timeout, false)?;
    let ending = run.stream()?;
    match &ending {
        protocol::Ending::Exit(_) => {}
        protocol::Ending::Signal(signal) => eprintln!("lab: {} was ended by signal {signal}", argv[0]),
        protocol::Ending::TimedOut => {
            eprintln!("lab: {} ran past {} s and was killed", argv[0], arguments.common.timeout);
        }
        protocol::Ending::NotStarted(why) => eprintln!("lab: can't be started: {why}"),
    }
    Ok(ending.status())
}
