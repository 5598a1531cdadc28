//! A gateway and its nodes as processes.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use penstock_buf::{BufPool, PoolOptions};
use penstock_store::{ShardStore, StoreOptions};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::CrashError;

/// For a process to listen after its start: it reads its index first.
const START_WAIT: Duration = Duration::from_secs(120);
/// For a process to end by itself.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// One process: its arguments, its life.
pub(crate) struct Process {
    pub(crate) name: String,
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    fn failed(&self, why: impl std::fmt::Display) -> CrashError {
        CrashError::Dead { name: self.name.clone(), why: why.to_string(), log: self.log.display().to_string() }
    }

    /// Starts it, and waits until it listens.
    pub(crate) async fn start(&mut self) -> Result<(), CrashError> {
        let open = || File::options().create(true).append(true).open(&self.log);
        let (out, err) = (open().map_err(|error| self.failed(error))?, open().map_err(|error| self.failed(error))?);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdout(out).stderr(err).stdin(Stdio::null()).kill_on_drop(true);
        self.child = Some(command.spawn().map_err(|error| self.failed(error))?);
        let until = Instant::now() + START_WAIT;
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().transpose());
            if let Some(status) = ended {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(match status {
                    Ok(status) => self.failed(format!("it ended with {status}: {last}")),
                    Err(error) => self.failed(error),
                });
            }
            if Instant::now() > until {
                return Err(self.failed(format!("nothing listens on {} after {START_WAIT:?}", self.address)));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// SIGKILL: no destructor, no last write.
    pub(crate) async fn kill(&mut self) -> Result<(), CrashError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL when that does not help in time.
    async fn stop(&mut self) -> Result<(), CrashError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(pid) = child.id() {
            let told = Command::new("kill").arg(pid.to_string()).status().await;
            told.map_err(|error| self.failed(error))?;
        }
        if tokio::time::timeout(STOP_WAIT, child.wait()).await.is_err() {
            child.kill().await.map_err(|error| self.failed(error))?;
            return Err(self.failed(format!("it did not stop within {STOP_WAIT:?} of SIGTERM")));
        }
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) gateway: Process,
    pub(crate) nodes: Vec<Process>,
    pub(crate) folder: PathBuf,
}

/// The root keys that a gateway keeps in its folder.
#[derive(Debug, Deserialize)]
pub(crate) struct Keys {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

fn free_address() -> Result<SocketAddr, CrashError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map_err(|error| CrashError::doing("finding a free port", error))
}

impl Cluster {
    /// Writes the configuration, and starts everything.
    pub(crate) async fn start(program: &Path, folder: &Path, nodes: u16) -> Result<Self, CrashError> {
        let key = folder.join("cluster.key");
        let made = Command::new(program).arg("cluster-key").arg("--out").arg(&key).output().await;
        let made = made.map_err(|error| CrashError::doing(program.display(), error))?;
        if !made.status.success() {
            return Err(CrashError::doing("cluster-key", String::from_utf8_lossy(&made.stderr)));
        }
        let gateway_address = free_address()?;
        let addresses = (0..nodes).map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
        let mut text = format!(
            "[cluster]\nkey_file = \"cluster.key\"\nrdma = \"off\"\n\n[gateway]\nlisten = \"{gateway_address}\"\ndata = \"gateway\"\ngarbage_grace_seconds = 0\n"
        );
        for (id, address) in addresses.iter().enumerate() {
            text.push_str(&format!(
                "\n[[node]]\nid = {id}\naddress = \"{address}\"\ndata = \"node-{id}\"\ncapacity = \"2GiB\"\n"
            ));
        }
        let config = folder.join("cluster.toml");
        std::fs::write(&config, text).map_err(|error| CrashError::doing(config.display(), error))?;
        let config = config.display().to_string();
        let process = |name: String, arguments: Vec<String>, address| Process {
            log: folder.join(format!("{name}.log")),
            name,
            program: program.to_owned(),
            arguments,
            address,
            child: None,
        };
        let arguments = |kind: &str, more: &[String]| {
            [kind.to_owned(), "--config".to_owned(), config.clone()].into_iter().chain(more.iter().cloned()).collect()
        };
        let mut cluster = Self {
            gateway: process("gateway".to_owned(), arguments("gateway", &[]), gateway_address),
            nodes: addresses
                .into_iter()
                .enumerate()
                .map(|(id, address)| {
                    process(format!("node-{id}"), arguments("node", &["--id".to_owned(), id.to_string()]), address)
                })
                .collect(),
            folder: folder.to_owned(),
        };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Starts whatever does not run: nodes first.
    pub(crate) async fn start_all(&mut self) -> Result<(), CrashError> {
        for process in self.nodes.iter_mut().chain([&mut self.gateway]) {
            if !process.is_running() {
                process.start().await?;
            }
        }
        Ok(())
    }

    /// Stops everything in order.
    pub(crate) async fn stop(&mut self) -> Result<(), CrashError> {
        self.gateway.stop().await?;
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.gateway.address)
    }

    /// The root keys.
    pub(crate) fn keys(&self) -> Result<Keys, CrashError> {
        let path = self.folder.join("gateway/root-credentials.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| CrashError::doing(path.display(), error))?;
        toml::from_str(&text).map_err(|error| CrashError::doing(path.display(), error))
    }

    /// Shards that a stopped node's store holds.
    pub(crate) async fn shards(&self, node: usize) -> Result<u64, CrashError> {
        let path = self.folder.join(format!("node-{node}/device.pst"));
        let failed = |error: &dyn std::fmt::Display| CrashError::doing(path.display(), error);
        let pool = BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false })
            .map_err(|error| failed(&error))?;
        let options = StoreOptions { path: path.clone(), compaction: false, ..StoreOptions::default() };
        let store = ShardStore::open(options, pool).await.map_err(|error| failed(&error))?;
        let shards = store.status().shards;
        store.close().await;
        Ok(shards)
    }
}
