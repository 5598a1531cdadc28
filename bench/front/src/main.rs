//! What the S3 front costs per request: the CPU time that a server spends on a signed GET of 4 KiB, for
//!
//! - `hyper`: bare hyper that answers from memory, no authentication: the floor;
//! - `s3s`: hyper and s3s 0.17 with one key pair and an object in memory: what the library costs;
//! - `penstock`: `penstock serve`, the object on disk, checksums verified: the whole house.
//!
//! Each contender is a process of its own; rounds are interleaved in random order; figures are medians of CPU time read
//! from the scheduler's own account (`/proc/PID/task/*/schedstat`), so a busy machine disturbs them little. Ratios in one
//! run are what travels; absolute figures belong to the machine, whose facts are printed beside them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for people: it prints")]

mod client;
mod servers;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use rand::seq::SliceRandom;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Bytes of the object that is read.
pub(crate) const OBJECT_BYTES: usize = 4096;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "CPU time per signed GET of 4 KiB: bare hyper, s3s alone, penstock")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Sub>,
    /// The penstock binary to measure.
    #[arg(long, default_value = "target/release/penstock")]
    penstock: PathBuf,
    /// Requests per round and contender.
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
    /// Rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Print the figures as JSON too.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Sub {
    /// Internal: be one of the small servers.
    Server {
        /// hyper or s3s.
        which: String,
    },
}

/// A server under measurement.
struct Contender {
    name: &'static str,
    process: Child,
    target: client::Target,
    cpu_us_per_request: Vec<f64>,
    requests_per_second: Vec<f64>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &arguments.command {
        Some(Sub::Server { which }) => runtime.block_on(servers::serve(which)),
        None => runtime.block_on(measure(&arguments)),
    }
}

async fn start_small(which: &'static str) -> Result<Contender, Failure> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(["server", which])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let out = process.stdout.take().ok_or("the server's output")?;
    let address = BufReader::new(out).lines().next_line().await?.ok_or("the server ended at once")?;
    let keys = (servers::ACCESS_KEY.to_owned(), servers::SECRET_KEY.to_owned());
    Ok(contender(which, process, client::Target { address, keys }))
}

fn contender(name: &'static str, process: Child, target: client::Target) -> Contender {
    Contender { name, process, target, cpu_us_per_request: Vec::new(), requests_per_second: Vec::new() }
}

async fn start_penstock(binary: &Path, folder: &Path) -> Result<Contender, Failure> {
    let address = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0")?;
        probe.local_addr()?.to_string()
    };
    let mut process = Command::new(binary)
        .args(["serve", "--listen", &address, "--data"])
        .arg(folder)
        .env("PENSTOCK_LOG", "warn")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}; build it first: cargo build --release", binary.display()))?;
    let mut lines = BufReader::new(process.stdout.take().ok_or("penstock's output")?).lines();
    let mut key = async |name: &str| -> Result<String, Failure> {
        let line = lines.next_line().await?.ok_or("penstock ended at once")?;
        Ok(line.strip_prefix(name).ok_or("penstock prints its new keys first")?.to_owned())
    };
    let keys = (key("AWS_ACCESS_KEY_ID=").await?, key("AWS_SECRET_ACCESS_KEY=").await?);
    let target = client::Target { address, keys };
    client::once(&target, "PUT", "/bench", &[]).await?;
    client::once(&target, "PUT", "/bench/object", &vec![b'x'; OBJECT_BYTES]).await?;
    Ok(contender("penstock", process, target))
}

/// CPU time that all threads of a process have had, by the scheduler's account.
fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let mut total_ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total_ns += text.split(' ').next().ok_or("schedstat has fields")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total_ns))
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let mut contenders = vec![
        start_small("hyper").await?,
        start_small("s3s").await?,
        start_penstock(&arguments.penstock, folder.path()).await?,
    ];
    for contender in &contenders {
        client::load(&contender.target, arguments.requests / 10 + 1, arguments.connections).await?;
    }
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 0..arguments.rounds {
        order.shuffle(&mut rand::rng());
        for &index in &order {
            let contender = &mut contenders[index];
            let pid = contender.process.id().ok_or("the server runs")?;
            let (cpu_before, before) = (cpu_time(pid)?, Instant::now());
            client::load(&contender.target, arguments.requests, arguments.connections).await?;
            let (cpu, took) = (cpu_time(pid)? - cpu_before, before.elapsed());
            contender.cpu_us_per_request.push(cpu.as_secs_f64() * 1e6 / arguments.requests as f64);
            contender.requests_per_second.push(arguments.requests as f64 / took.as_secs_f64());
        }
        eprintln!("round {} of {}", round + 1, arguments.rounds);
    }
    report(&mut contenders, arguments.json);
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}, Linux {}", cores, model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

fn report(contenders: &mut [Contender], as_json: bool) {
    let floor = median(&mut contenders[0].cpu_us_per_request);
    println!("signed GET of {OBJECT_BYTES} bytes; {}", machine());
    println!("{:10} {:>16} {:>10} {:>10}  {:>12}", "server", "CPU us/request", "min..max", "to hyper", "requests/s");
    let mut rows = Vec::new();
    for contender in contenders {
        let cpu = median(&mut contender.cpu_us_per_request);
        let rate = median(&mut contender.requests_per_second);
        let (min, max) =
            (contender.cpu_us_per_request[0], contender.cpu_us_per_request[contender.cpu_us_per_request.len() - 1]);
        println!(
            "{:10} {cpu:16.1} {:>10} {:10.2}  {rate:12.0}",
            contender.name,
            format!("{min:.1}..{max:.1}"),
            cpu / floor
        );
        rows.push(json!({"server": contender.name, "cpu_us_per_request": cpu, "min": min, "max": max, "ratio_to_hyper": cpu / floor, "requests_per_second": rate}));
    }
    if as_json {
        println!("{}", json!({"bench": "front-get-4k", "machine": machine(), "results": rows}));
    }
}
