//! A whole store: gateway, front, and nodes that listen; with a client beside it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_buf::{BufPool, PoolOptions};
use penstock_client::{Client, ClientOptions, Credentials, CredentialsProvider, Endpoint};
use penstock_executor::{Executor, ExecutorOptions};
use penstock_gateway::{Gateway, GatewayOptions};
use penstock_identity::{Identities, MasterKey, RootAccount, Secret};
use penstock_meta::kv::MemKv;
use penstock_meta::tables::Tables;
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::plan::NodeAddress;
use penstock_proto::{Clock, ClusterKey, Code, ManualClock, MapEpoch, NodeId, SystemClock};
use penstock_s3::{FrontOptions, serve};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::{MemTransport, TcpServerOptions, serve_tcp};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const MIB: usize = 1 << 20;
const KEYS: (&str, &str) = ("ACCESSKEY", "a secret of some length");

pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) nodes: Vec<Arc<StorageNode>>,
    /// Stops a node's listener.
    listeners: Vec<(CancellationToken, JoinHandle<()>)>,
    pub(crate) executor: Executor,
    _directory: TempDir,
}

impl House {
    /// RS(2,1) on three nodes; plans for every length if `inline_bytes_max` is 0.
    pub(crate) async fn new(inline_bytes_max: u64, addresses: bool) -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(SystemClock.now_unix_ms()));
        let (code, key) = (Code::new(2, 1).unwrap(), ClusterKey::random());
        let pool = || BufPool::new(PoolOptions { capacity_bytes: 128 * MIB, huge_pages: false }).unwrap();
        let (transport, node_pool) = (MemTransport::new(), pool());
        let (mut nodes, mut listeners, mut node_addresses) = (Vec::new(), Vec::new(), HashMap::new());
        for id in (0..code.n() as u16).map(NodeId) {
            let path = directory.path().join(format!("{id}"));
            let options = StoreOptions { path, capacity_bytes: 1 << 30, direct: false, ..StoreOptions::default() };
            let store = ShardStore::open(options, node_pool.clone()).await.unwrap();
            let shared: Arc<dyn Clock> = clock.clone();
            let node = StorageNode::new(id, store, key.clone(), shared, node_pool.clone(), NodeOptions::default());
            let node = Arc::new(node);
            transport.attach(id, node.clone());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let address =
                |transport: &str| NodeAddress { transport: transport.to_owned(), address: format!(":{port}") };
            node_addresses.insert(id, vec![address("rdma"), address("tcp")]);
            let stop = CancellationToken::new();
            let options = TcpServerOptions { shutdown_grace: Duration::from_millis(10), ..TcpServerOptions::new(id) };
            let serving = serve_tcp(listener, node.clone(), stop.clone(), options);
            let serving = tokio::spawn(async move { serving.await.unwrap() });
            listeners.push((stop, serving));
            nodes.push(node);
        }
        let executor = Executor::new(Arc::new(transport), pool(), ExecutorOptions::default());
        let entries = (0..code.n() as u16).map(|id| NodeEntry { id: NodeId(id), weight: 1, domain: Vec::new() });
        let map = ClusterMap { epoch: MapEpoch(1), nodes: entries.collect() };
        let options = GatewayOptions {
            garbage_interval: None,
            garbage_grace_ms: 0,
            node_addresses: if addresses { node_addresses } else { HashMap::new() },
            plan_inline_bytes_max: inline_bytes_max,
            ..GatewayOptions::new(code, map, key)
        };
        let kv = Arc::new(MemKv::new());
        let root = RootAccount::new(KEYS.0, Secret::new(KEYS.1));
        let identities = Identities::open(Tables::new(kv.clone()), root, &MasterKey::new([7; 32])).await.unwrap();
        let gateway = Gateway::new(kv, executor.clone(), clock.clone(), options);
        gateway.create_bucket(BUCKET, "").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, gateway.clone(), identities, FrontOptions::default(), CancellationToken::new()));
        Self { gateway, address, clock, nodes, listeners, executor, _directory: directory }
    }

    pub(crate) fn client(&self, options: ClientOptions) -> Client {
        client_of(self.address, options)
    }

    /// A node goes away for clients.
    pub(crate) async fn stop_node(&mut self, index: usize) {
        let (stop, serving) = &mut self.listeners[index];
        stop.cancel();
        serving.await.unwrap();
    }
}

pub(crate) fn client_of(address: SocketAddr, options: ClientOptions) -> Client {
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    let keys = CredentialsProvider::fixed(Credentials::new(KEYS.0, KEYS.1));
    Client::new(endpoint, keys, options).unwrap()
}

/// Options for tests: everything by plan, little memory.
pub(crate) fn by_plan() -> ClientOptions {
    ClientOptions { inline_bytes_max: 0, require_plan: true, pool_bytes: 128 * MIB, ..ClientOptions::default() }
}

pub(crate) fn over_http() -> ClientOptions {
    ClientOptions { mode: penstock_client::Mode::Http, pool_bytes: 128 * MIB, ..ClientOptions::default() }
}

pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}
