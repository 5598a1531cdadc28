//! The store that is measured: `penstock serve` as a process of its own, over a folder that goes with it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use penstock_client::Credentials;
use tempfile::TempDir;

use crate::RdmaBenchError;

/// How long it may take to start, in an emulated guest.
const START_MAX: Duration = Duration::from_secs(120);
/// How long it may take to end when it is told to.
const STOP_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A running store.
pub(crate) struct Store {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) keys: Credentials,
    folder: TempDir,
}

fn setup(what: String) -> RdmaBenchError {
    RdmaBenchError::Setup(what)
}

/// The program that serves.
fn program(named: Option<&Path>) -> Result<PathBuf, RdmaBenchError> {
    let program = match named {
        Some(named) => named.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| setup(format!("finding out where this program is: {error}")))?
            .with_file_name("penstock"),
    };
    match program.is_file() {
        true => Ok(program),
        false => Err(setup(format!(
            "{} is not there: build it (cargo build --bin penstock) or name it with --penstock",
            program.display()
        ))),
    }
}

impl Store {
    /// Starts it in a folder of its own in `data`, one node, without payload that travels with plans.
    pub(crate) fn start(named: Option<&Path>, data: &Path, device: &str) -> Result<Self, RdmaBenchError> {
        let program = program(named)?;
        let folder = tempfile::Builder::new()
            .prefix("penstock-bench-rdma-")
            .tempdir_in(data)
            .map_err(|error| setup(format!("a folder in {}: {error}; name another with --data", data.display())))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| setup(format!("no free port: {error}")))?;
        let log = folder.path().join("serve.log");
        let errors = std::fs::File::create(&log).map_err(|error| setup(format!("{}: {error}", log.display())))?;
        let mut process = Command::new(&program)
            .args(["serve", "--nodes", "1", "--node-capacity", "1GiB", "--plan-inline", "0"])
            .arg("--listen")
            .arg(address.to_string())
            .arg("--data")
            .arg(folder.path().join("store"))
            .env("PENSTOCK_RDMA_DEVICE", device)
            .env("PENSTOCK_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| setup(format!("{}: {error}", program.display())))?;
        let out = process.stdout.take().ok_or_else(|| setup("the store has no standard output".to_owned()))?;
        let mut store = Self { process, address, keys: Credentials::new("", ""), folder };
        // It prints its keys first; whether it answers is seen by connecting.
        let (mut id, mut secret) = (None, None);
        for line in BufReader::new(out).lines().map_while(Result::ok).take(2) {
            if let Some(value) = line.strip_prefix("AWS_ACCESS_KEY_ID=") {
                id = Some(value.to_owned());
            } else if let Some(value) = line.strip_prefix("AWS_SECRET_ACCESS_KEY=") {
                secret = Some(value.to_owned());
            }
        }
        let (Some(id), Some(secret)) = (id, secret) else { return Err(store.broken("it names no keys", &log)) };
        store.keys = Credentials::new(id, secret);
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until || !matches!(store.process.try_wait(), Ok(None)) {
                return Err(store.broken("it does not answer", &log));
            }
            std::thread::sleep(POLL);
        }
        Ok(store)
    }

    fn broken(&self, what: &str, log: &Path) -> RdmaBenchError {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        setup(format!("penstock serve in {}: {what}\n{last}", self.folder.path().display()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // In order first: it gives back what it has pinned.
        let pid = self.process.id().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
