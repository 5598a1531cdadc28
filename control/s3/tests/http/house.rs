//! A whole store with a front before it, and handles on what could leak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions};
use penstock_gateway::{Gateway, GatewayOptions};
use penstock_identity::{Identities, MasterKey, RootAccount, Secret};
use penstock_meta::kv::MemKv;
use penstock_meta::tables::Tables;
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::{Clock, ClusterKey, Code, ManualClock, MapEpoch, NodeId};
use penstock_s3::{FrontOptions, serve};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::MemTransport;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{ACCESS_KEY, Connection, OTHER_ACCESS_KEY, Reply, Request, SECRET_KEY};

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const MIB: usize = 1 << 20;
const PAST_GRACE_MS: u64 = 61_000;

pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    clock: Arc<ManualClock>,
    stores: Vec<ShardStore>,
    _directory: TempDir,
}

/// What may leak, counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) requests: usize,
    pub(crate) open_streams: usize,
    pub(crate) puts: usize,
    pub(crate) pending: usize,
    pub(crate) leases: usize,
    pub(crate) garbage_rows: u64,
    pub(crate) buffers: usize,
    pub(crate) shards: u64,
}

pub(crate) const NOTHING: Held =
    Held { requests: 0, open_streams: 0, puts: 0, pending: 0, leases: 0, garbage_rows: 0, buffers: 0, shards: 0 };

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(FrontOptions::default()).await
    }

    pub(crate) async fn with(options: FrontOptions) -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let code = Code::new(2, 1).unwrap();
        let key = ClusterKey::random();
        let transport = MemTransport::new();
        let pool = || BufPool::new(PoolOptions { capacity_bytes: 128 * MIB, huge_pages: false }).unwrap();
        let node_pool = pool();
        let mut stores = Vec::new();
        for id in (0..code.n() as u16).map(NodeId) {
            let options = StoreOptions {
                path: directory.path().join(format!("{id}")),
                capacity_bytes: 1 << 30,
                extent_bytes: 64 << 20,
                direct: false,
                ..StoreOptions::default()
            };
            let store = ShardStore::open(options, node_pool.clone()).await.unwrap();
            let clock: Arc<dyn Clock> = clock.clone();
            let node =
                StorageNode::new(id, store.clone(), key.clone(), clock, node_pool.clone(), NodeOptions::default());
            transport.attach(id, Arc::new(node));
            stores.push(store);
        }
        let pool = pool();
        let executor = Executor::new(Arc::new(transport), pool.clone(), ExecutorOptions::default());
        let entries = (0..code.n() as u16).map(|id| NodeEntry { id: NodeId(id), weight: 1, domain: Vec::new() });
        let map = ClusterMap { epoch: MapEpoch(1), nodes: entries.collect() };
        let gateway_options =
            GatewayOptions { garbage_interval: None, buffers: Some(pool), ..GatewayOptions::new(code, map, key) };
        let kv = Arc::new(MemKv::new());
        let other = Some((OTHER_ACCESS_KEY.to_owned(), Secret::new(SECRET_KEY)));
        let root = RootAccount { other, ..RootAccount::new(ACCESS_KEY, Secret::new(SECRET_KEY)) };
        let identities = Identities::open(Tables::new(kv.clone()), root, &MasterKey::new([7; 32])).await.unwrap();
        let gateway = Gateway::new(kv.clone(), executor, clock.clone(), gateway_options);
        gateway.create_bucket(BUCKET, "").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, gateway.clone(), identities, options, shutdown.clone()));
        Self { gateway, address, shutdown, serving, clock, stores, _directory: directory }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await
    }

    /// Sends a request on a connection of its own, signed, and reads the answer.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        let mut connection = self.connect().await;
        connection.write(&request.signed()).await;
        connection.reply(&request.method).await
    }

    /// Sends it and expects this status.
    #[track_caller]
    pub(crate) fn expect(&self, request: Request, status: u16) -> impl Future<Output = Reply> {
        let place = std::panic::Location::caller();
        async move {
            let what = format!("{} {} {:?}", request.method, request.path, request.query);
            let reply = self.send(request).await;
            assert_eq!(reply.status, status, "{what} at {place}: {}", reply.text());
            reply
        }
    }

    /// Sends it and expects this error.
    #[track_caller]
    pub(crate) fn refused(&self, request: Request, status: u16, code: &'static str) -> impl Future<Output = Reply> {
        let place = std::panic::Location::caller();
        async move {
            let what = format!("{} {} {:?}", request.method, request.path, request.query);
            let reply = self.send(request).await;
            assert_eq!((reply.status, reply.code()), (status, code.to_owned()), "{what} at {place}: {}", reply.text());
            reply
        }
    }

    async fn held(&self) -> Held {
        let usage = self.gateway.usage().await.unwrap();
        Held {
            requests: usage.requests,
            open_streams: usage.open_streams,
            puts: usage.puts_in_flight,
            pending: usage.pending_data,
            leases: usage.read_leases,
            garbage_rows: usage.garbage_rows,
            buffers: usage.pool.unwrap().buffers_out,
            shards: self.stores.iter().map(|store| store.status().shards).sum(),
        }
    }

    /// Waits until nothing is under way, collects garbage, and says what is held.
    pub(crate) async fn held_after_collecting(&self) -> Held {
        for _ in 0..500 {
            let held = self.held().await;
            if held.puts == 0 && held.buffers == 0 && held.pending == 0 && held.requests == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.clock.advance_ms(PAST_GRACE_MS);
        self.gateway.collect_garbage_now().await.unwrap();
        self.held().await
    }

    /// Nothing is stored and nothing is held.
    pub(crate) async fn assert_empty(&self) {
        let listing = self.expect(Request::new("GET", "/bucket"), 200).await;
        assert!(!listing.text().contains("<Contents>"), "{}", listing.text());
        let uploads = self.expect(Request::new("GET", "/bucket").query("uploads", ""), 200).await;
        assert!(!uploads.text().contains("<Upload>"), "{}", uploads.text());
        assert_eq!(self.held_after_collecting().await, NOTHING);
    }
}
