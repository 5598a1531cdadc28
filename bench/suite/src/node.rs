//! `penstock-bench node`: one storage node, its store on a real disk, through both transports of this process: shards written
//! (answered after the fsync that many share) and read (checked before they leave).

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_digest::crc64nvme;
use penstock_harness::{Order, Stop, Table};
use penstock_node::{NodeOptions, StorageNode};
use penstock_proto::wire::{NodeReply, NodeRequest};
use penstock_proto::{Capability, Clock, ClusterKey, DataId, NodeId, Rights, ShardKey, SystemClock};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::{Call, MemTransport, Messenger, TcpMessenger, TcpOptions, TcpServerOptions, serve_tcp};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::BenchError;
use crate::slices::{Contender, Medians, Requests, Run, Slice, at_depth};

const NODE: NodeId = NodeId(1);
/// Shards that reads choose from, of each size.
const SHARDS: u32 = 64;
/// The store's file: sparse, and as large as a full run may fill it.
const STORE_BYTES: u64 = 24 << 30;
const POOL_BYTES: usize = 256 << 20;
const DEADLINE: Duration = Duration::from_secs(30);
/// Capabilities outlive the run.
const CAPABILITY_MS: u64 = 6 * 3600 * 1000;

/// A storage node: shards written and read, over memory and TCP.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A folder to put the store's file in (a new folder within it, removed at the end): on the disk that counts.
    #[arg(long, value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Write results as a JSON list to FILE, and what they were measured on to FILE with the extension .machine.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write results as CSV to FILE.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Under a minute.
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    put: bool,
    bytes: usize,
    queue_depth: usize,
}

impl Cell {
    const fn op(self) -> &'static str {
        if self.put { "put" } else { "get" }
    }
}

fn cells(quick: bool) -> Vec<Cell> {
    let depths: &[usize] = if quick { &[1, 32] } else { &[1, 4, 16, 64] };
    let sizes: &[usize] = if quick { &[4 << 10, 1 << 20] } else { &[4 << 10, 64 << 10, 410 << 10, 1 << 20] };
    let mut cells = Vec::new();
    for put in [true, false] {
        for &bytes in sizes {
            cells.extend(depths.iter().map(|&queue_depth| Cell { put, bytes, queue_depth }));
        }
    }
    cells
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Setup(format!("{what}: {error}"))
}

/// Measures and shows it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let stop = Stop::on_signals()?;
    let folder = tempfile::Builder::new()
        .prefix("penstock-bench-node-")
        .tempdir_in(&arguments.path)
        .map_err(|error| failed(&format!("a folder in {}", arguments.path.display()), &error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = Arc::new(runtime.map_err(|error| failed("starting threads", &error))?);
    let house = Arc::new(runtime.block_on(House::build(folder.path().join("device.pst"), STORE_BYTES))?);
    let mut contenders: Vec<Box<dyn Contender<Cell>>> = vec![
        Box::new(Over {
            name: "penstock mem",
            messenger: Arc::clone(&house.mem),
            house: Arc::clone(&house),
            runtime: Arc::clone(&runtime),
        }),
        Box::new(Over {
            name: "penstock tcp",
            messenger: Arc::clone(&house.tcp),
            house: Arc::clone(&house),
            runtime: Arc::clone(&runtime),
        }),
    ];
    let (rounds, slice) = if arguments.quick { (3, Duration::from_millis(500)) } else { (5, Duration::from_secs(1)) };
    let missing =
        vec![("penstock rdma".to_owned(), "RDMA needs a device or the lab: `penstock bench rdma`".to_owned())];
    let run = Run {
        rounds,
        slice,
        json: arguments.json.clone(),
        csv: arguments.csv.clone(),
        quick: arguments.quick,
        missing,
    };
    let words = |cell: Cell| format!("{} {} B x {}", cell.op(), cell.bytes, cell.queue_depth);
    let rows = run.all(&cells(arguments.quick), &mut contenders, &stop, words, cell_rows)?;
    runtime.block_on(house.store.close());
    let _ignored = std::io::stdout().write_all(format!("{}{}", text(&rows), run.missing_text()).as_bytes());
    Ok(())
}

fn cell_rows(cell: Cell, names: &[&str], slices: &[Vec<Slice>]) -> Vec<Value> {
    let row = |(name, slices): (&&str, &Vec<Slice>)| {
        let medians = Medians::of(slices)?;
        Some(json!({
            "bench": "node", "op": cell.op(), "bytes": cell.bytes, "queue_depth": cell.queue_depth, "contender": name,
            "ops_per_s": medians.ops_per_s,
            "mb_per_s": medians.ops_per_s * cell.bytes as f64 / 1e6,
            "cpu_us_per_op": medians.cpu_us_per_op,
            "p50_us": medians.p50_us,
            "p99_us": medians.p99_us,
        }))
    };
    names.iter().zip(slices).filter_map(row).collect()
}

fn text(rows: &[Value]) -> String {
    let mut table =
        Table::new(["transport", "op", "bytes", "depth", "shards/s", "MB/s", "CPU us/shard", "p50 us", "p99 us"]);
    for row in rows {
        let number = |key: &str, digits: usize| match row[key].as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let plain = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
        let numbers = [
            number("ops_per_s", 0),
            number("mb_per_s", 1),
            number("cpu_us_per_op", 1),
            number("p50_us", 0),
            number("p99_us", 0),
        ];
        table.row([plain("contender"), plain("op"), plain("bytes"), plain("queue_depth")].into_iter().chain(numbers));
    }
    table.text()
}

/// A node with its store, reachable both ways.
struct House {
    store: ShardStore,
    pool: BufPool,
    mem: Arc<dyn Messenger>,
    tcp: Arc<dyn Messenger>,
    key: ClusterKey,
    /// Data ids are never used again.
    next_data: AtomicU64,
    _server: DropGuard,
}

impl House {
    async fn build(path: PathBuf, capacity_bytes: u64) -> Result<Self, BenchError> {
        let pool = || {
            let options = PoolOptions { capacity_bytes: POOL_BYTES, huge_pages: true };
            BufPool::new(options).map_err(|error| failed("mapping buffers", &error))
        };
        let (node_pool, key) = (pool()?, ClusterKey::random());
        let options = StoreOptions { path, capacity_bytes, ..StoreOptions::default() };
        let store =
            ShardStore::open(options, node_pool.clone()).await.map_err(|error| failed("opening the store", &error))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let node =
            Arc::new(StorageNode::new(NODE, store.clone(), key.clone(), clock, node_pool, NodeOptions::default()));
        let mem = MemTransport::new();
        mem.attach(NODE, Arc::clone(&node) as _);
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed("listening", &error))?;
        let address = listener.local_addr().map_err(|error| failed("listening", &error))?.to_string();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve_tcp(listener, node as _, shutdown.clone(), TcpServerOptions::new(NODE)));
        let tcp = TcpMessenger::new(HashMap::from([(NODE, address)]), TcpOptions::default());
        Ok(Self {
            store,
            pool: pool()?,
            mem: Arc::new(mem),
            tcp: Arc::new(tcp),
            key,
            next_data: AtomicU64::new(1),
            _server: shutdown.drop_guard(),
        })
    }

    fn capability(&self, rights: Rights, data: DataId) -> Capability {
        Capability::sign(&self.key, rights, data, SystemClock.now_unix_ms() + CAPABILITY_MS)
    }

    async fn put(
        &self,
        messenger: &dyn Messenger,
        key: ShardKey,
        capability: Capability,
        bytes: &Buf,
        crc64: u64,
    ) -> Result<(), BenchError> {
        let request = NodeRequest::Put { capability, key, shard_bytes: bytes.len() as u32, crc64 };
        let call = Call { header: request.encode(), outgoing: vec![bytes.clone()], landing: None, deadline: DEADLINE };
        let answer = messenger.call(NODE, call).await.map_err(|error| failed("a put", &error))?;
        accepted(&answer.header)
    }
}

fn accepted(header: &[u8]) -> Result<(), BenchError> {
    match NodeReply::decode(header) {
        Ok(NodeReply::Refused { message, .. }) => Err(BenchError::Setup(format!("the node refuses: {message}"))),
        Ok(_) => Ok(()),
        Err(error) => Err(failed("the node's answer", &error)),
    }
}

/// The node over one transport.
struct Over {
    name: &'static str,
    messenger: Arc<dyn Messenger>,
    house: Arc<House>,
    runtime: Arc<tokio::runtime::Runtime>,
}

impl Contender<Cell> for Over {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, cell: Cell, slice: Duration, seed: u64) -> Result<Slice, BenchError> {
        let house = Arc::clone(&self.house);
        let mut content = vec![0; cell.bytes];
        Order::seeded(seed).fill(&mut content);
        let (crc64, content) = (crc64nvme(&content), Buf::from(content));
        let data = DataId(u128::from(house.next_data.fetch_add(1, Ordering::Relaxed)) << 64 | u128::from(seed));
        let (put, get) = (house.capability(Rights::PUT, data), house.capability(Rights::GET, data));
        self.runtime.block_on(async {
            if !cell.put {
                for stripe in 0..SHARDS {
                    house.put(&*self.messenger, ShardKey { data, stripe, shard: 0 }, put, &content, crc64).await?;
                }
            }
            let stripes = Arc::new(AtomicU64::new(0));
            let requests = |_task, order| OnNode {
                house: Arc::clone(&house),
                messenger: Arc::clone(&self.messenger),
                cell,
                data,
                capability: if cell.put { put } else { get },
                content: content.clone(),
                crc64,
                stripes: Arc::clone(&stripes),
                order,
            };
            at_depth(cell.queue_depth, slice, seed, requests).await
        })
    }
}

struct OnNode {
    house: Arc<House>,
    messenger: Arc<dyn Messenger>,
    cell: Cell,
    data: DataId,
    capability: Capability,
    content: Buf,
    crc64: u64,
    /// The next stripe to be put: no shard is put twice.
    stripes: Arc<AtomicU64>,
    order: Order,
}

impl Requests for OnNode {
    async fn one(&mut self) -> Result<(), BenchError> {
        if self.cell.put {
            let stripe = self.stripes.fetch_add(1, Ordering::Relaxed) as u32;
            let key = ShardKey { data: self.data, stripe, shard: 0 };
            return self.house.put(&*self.messenger, key, self.capability, &self.content, self.crc64).await;
        }
        let key = ShardKey { data: self.data, stripe: (self.order.next_u64() % u64::from(SHARDS)) as u32, shard: 0 };
        let request = NodeRequest::Get {
            capability: self.capability,
            key,
            crc64: self.crc64,
            offset: 0,
            length: self.cell.bytes as u32,
        };
        let landing =
            self.house.pool.acquire(self.cell.bytes, DEADLINE).await.map_err(|error| failed("a buffer", &error))?;
        let call = Call { header: request.encode(), outgoing: Vec::new(), landing: Some(landing), deadline: DEADLINE };
        let answer = self.messenger.call_to_read(NODE, call).await.map_err(|error| failed("a get", &error))?;
        accepted(&answer.header)?;
        match answer.bytes {
            Some(bytes) if bytes.len() == self.cell.bytes => Ok(()),
            other => Err(BenchError::Wrong(format!(
                "a get brought {:?} of {} bytes",
                other.map(|bytes| bytes.len()),
                self.cell.bytes
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_put_and_read_over_both_transports() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
        let house = Arc::new(runtime.block_on(House::build(folder.path().join("d"), 1 << 30)).unwrap());
        for (name, messenger) in [("penstock mem", &house.mem), ("penstock tcp", &house.tcp)] {
            let mut over = Over {
                name,
                messenger: Arc::clone(messenger),
                house: Arc::clone(&house),
                runtime: Arc::clone(&runtime),
            };
            for put in [true, false] {
                let cell = Cell { put, bytes: 10_000, queue_depth: 3 };
                let slice = over.work(cell, Duration::from_millis(30), 7).unwrap();
                assert!(slice.ops > 0 && slice.p50_us <= slice.p99_us, "{name} {put}: {slice:?}");
            }
        }
        runtime.block_on(house.store.close());
    }
}
