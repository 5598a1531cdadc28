//! The soft-RoCE lab: QEMU guests whose kernel has rdma_rxe, so that RDMA is tested where the machine has none.
//!
//! Guests boot the distribution's own kernel with an initramfs made here, see the host's files read-only (so that any
//! program built on the host runs in them as it is), and carry an RDMA device `rxe0`. docs/LAB.md says how it is used,
//! docs/adr/0008-lab.md why it is so.
//!
//! A lab that can't start is an error, never a success; everything is bounded in time; guests die with this process.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for people: it prints")]

mod agent;
mod bench;
mod build;
mod cpio;
mod end_to_end;
mod error;
mod folders;
mod guest;
mod host;
mod initramfs;
mod kernel;
mod lab;
mod perftest;
mod protocol;
mod suite;
mod switch;
mod table;
mod task;
mod tests_of_lab;
mod topology;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use error::{LabError, Result};
use folders::{Folders, Lock};
use guest::Program;
use lab::{Lab, On, Size};
use protocol::Ending;
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
    /// A shell in a guest: of the lab that is up, or of one booted for it.
    Shell(Shell),
    /// Boot guests that stay until `down` or Ctrl-C; `run` and `shell` use them meanwhile.
    Up(Common),
    /// Switch off the guests that are up.
    Down,
    /// Run the tests that need an RDMA device.
    Test(Test),
    /// S3 over RDMA beside perftest, on the lab's device (`penstock bench rdma`).
    Bench(Bench),
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
    /// Where: on this machine's own kernel, in guests, or what can be had (`auto`).
    #[arg(long, value_enum, default_value_t = On::Auto)]
    on: On,
    /// MiB of memory per guest.
    #[arg(long, default_value_t = 512)]
    memory: u32,
    /// Emulated CPUs per guest.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds until the command is killed; the guests some minutes later, whatever happens.
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Seconds to wait for another lab on this machine.
    #[arg(long, default_value_t = 900)]
    wait: u64,
}

/// How much longer than its program a guest may live: it has to boot first.
const BOOT_GRACE_S: u64 = 240;

impl Common {
    fn size(&self, limit_s: u64) -> Size {
        Size {
            memory_mib: self.memory,
            client_memory_mib: self.memory,
            cpus: self.cpus,
            limit_s: limit_s + BOOT_GRACE_S,
        }
    }
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// The guest to run in; without it the topology's first: `one`, `a`, `client`.
    #[arg(long)]
    guest: Option<String>,
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

#[derive(Args)]
struct Shell {
    #[command(flatten)]
    common: Common,
    /// The guest; without it the topology's first: `one`, `a`, `client`.
    #[arg(long)]
    guest: Option<String>,
}

#[derive(Args)]
struct Bench {
    #[command(flatten)]
    common: Common,
    /// Print the figures as a JSON line too.
    #[arg(long)]
    json: bool,
    /// The device alone, by perftest.
    #[arg(long)]
    device_only: bool,
    /// For `penstock bench rdma`: `-- --quick`, `-- --rounds 3`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Args)]
struct Test {
    /// Only tests whose names contain one of these.
    filters: Vec<String>,
    /// List the tests and end.
    #[arg(long)]
    list: bool,
    /// Seconds until tests that have not begun fail.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// Seconds to wait for another lab on this machine.
    #[arg(long, default_value_t = 900)]
    wait: u64,
}

/// Guests of a cluster are many and small.
fn size_for_tests(topology: Topology) -> Size {
    let (memory_mib, client_memory_mib, cpus) = match topology {
        Topology::One => (512, 512, 2),
        Topology::Pair => (384, 384, 1),
        // Twice 256 MiB of object.
        Topology::Cluster { .. } => (256, 1024, 1),
    };
    Size { memory_mib, client_memory_mib, cpus, limit_s: TEST_GUEST_MAX_S }
}

/// Seconds that a guest of the tests may live, should everything else that ends it fail.
const TEST_GUEST_MAX_S: u64 = 3600;

fn test(arguments: &Test) -> Result<i32> {
    if arguments.list {
        for test in table::TESTS {
            println!("{:10} {}", test.topology.to_string(), test.name);
        }
        return Ok(0);
    }
    let folders = Folders::find()?;
    let _lock = Lock::take(arguments.wait)?;
    folders.empty_logs()?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(arguments.limit);
    let (_, failed) = suite::run(table::TESTS, &arguments.filters, &folders, size_for_tests, deadline)?;
    Ok(i32::from(failed > 0))
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Sub::Run(arguments) => run(&arguments),
        Sub::Test(arguments) => test(&arguments),
        Sub::Bench(arguments) => run_bench(&arguments),
        Sub::Shell(arguments) => shell(&arguments),
        Sub::Up(common) => up(&common),
        Sub::Down => Folders::find().and_then(|folders| up::down(&folders)).map(|()| 0),
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

fn here() -> Result<String> {
    let folder = std::env::current_dir().map_err(|error| LabError::Setup(format!("the current folder: {error}")))?;
    Ok(folder.display().to_string())
}

fn run(arguments: &Run) -> Result<i32> {
    let variables = variables(&arguments.variables)?;
    let folders = Folders::find()?;
    let argv = match &arguments.tests_of {
        Some(package) => {
            let unit = build::What::UnitTests(package);
            let what = arguments.test.as_ref().map_or(unit, |test| build::What::Test(package, test));
            let program = build::program(what, &folders.tree)?.display().to_string();
            [&[program], arguments.argv.as_slice()].concat()
        }
        None => resolved(&arguments.argv)?,
    };
    let limit_s = arguments.common.timeout;
    let folder = here()?;
    let program = Program { argv: &argv, variables: &variables, folder: &folder, limit_s, wants_input: false };
    let ending = in_guest(arguments.guest.as_deref(), &arguments.common, &folders, program)?;
    match &ending {
        Ending::Exit(_) => {}
        Ending::Signal(signal) => eprintln!("lab: {} was ended by signal {signal}", argv[0]),
        Ending::TimedOut => eprintln!("lab: {} ran past {limit_s} s and was killed", argv[0]),
        Ending::NotStarted(why) => eprintln!("lab: {why}"),
    }
    Ok(ending.status())
}

/// Runs a program in a guest of the lab that is up, or of one booted for it alone.
fn in_guest(guest: Option<&str>, common: &Common, folders: &Folders, program: Program<'_>) -> Result<Ending> {
    if let Some(lab) = up::connect(folders) {
        return up::run_in(lab, guest, program);
    }
    let _lock = Lock::take(common.wait)?;
    folders.empty_logs()?;
    let lab = Lab::boot(folders, common.topology, common.size(program.limit_s), common.on)?;
    let roles = common.topology.roles();
    let run = lab.launch(guest.unwrap_or(&roles[0].name), program)?;
    if program.wants_input {
        up::type_into_run(&run);
    }
    run.stream()
}

fn run_bench(arguments: &Bench) -> Result<i32> {
    let (folders, common) = (Folders::find()?, &arguments.common);
    let _lock = Lock::take(common.wait)?;
    folders.empty_logs()?;
    let programs = match arguments.device_only {
        true => None,
        false => Some(bench::Programs::build(&folders)?),
    };
    let size = Size { memory_mib: common.memory.max(bench::MEMORY_MIB_MIN), ..common.size(bench::RUN_MAX_S) };
    let lab = Lab::boot(&folders, Topology::One, size, common.on)?;
    match programs {
        None => bench::device(&lab, "one", arguments.json)?,
        Some(programs) => bench::store(&lab, "one", &programs, arguments.json, &arguments.arguments)?,
    }
    Ok(0)
}

fn shell(arguments: &Shell) -> Result<i32> {
    let folders = Folders::find()?;
    let (argv, variables) = (up::shell_argv(), [("TERM".to_owned(), std::env::var("TERM").unwrap_or_default())]);
    let _terminal = up::RawTerminal::enter();
    let folder = here()?;
    let program = up::shell_program(&argv, &variables, &folder);
    Ok(in_guest(arguments.guest.as_deref(), &arguments.common, &folders, program)?.status())
}

fn up(common: &Common) -> Result<i32> {
    let folders = Folders::find()?;
    let _lock = Lock::take(common.wait)?;
    folders.empty_logs()?;
    let lab = Lab::boot(&folders, common.topology, common.size(UP_MAX_S), common.on)?;
    println!("up: {}; in another terminal:", lab.names().collect::<Vec<_>>().join(", "));
    for name in lab.names() {
        println!("  ./dev lab shell --guest {name}      ({})", lab.address(name)?);
    }
    println!("  ./dev lab run --guest NAME -- PROGRAM ARGS...\n  ./dev lab down      (or Ctrl-C here)");
    up::serve(lab, &folders)?;
    Ok(0)
}

/// Guests that stay up do so for at most a day.
const UP_MAX_S: u64 = 24 * 3600;
