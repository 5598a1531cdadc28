//! A whole store in a temporary directory, with handles on everything that a test wants to break or count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions, Rebuilder};
use penstock_gateway::api::{
    BodyDigests, ByteStream, Conditions, CreateUpload, GetObject, ListObjects, Lock, ObjectHeaders, ObjectRead,
    PartInfo, PutDone, PutObject, RangeSpec, UploadPart,
};
use penstock_gateway::error::{ErrorKind, Result};
use penstock_gateway::upkeep::UpkeepOptions;
use penstock_gateway::{Gateway, GatewayOptions, Packed};
use penstock_meta::kv::{FjallKv, Kv, MemKv};
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::{Clock, ClusterKey, Code, ManualClock, MapEpoch, NodeId};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::{MemTransport, Messenger};
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const MIB: usize = 1 << 20;
/// The default grace, and a little.
const PAST_GRACE_MS: u64 = 61_000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Meta {
    Mem,
    Fjall,
}

pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pool: BufPool,
    pub(crate) kv: Arc<dyn Kv>,
    executor: Executor,
    options: GatewayOptions,
    transport: MemTransport,
    pub(crate) nodes: Vec<(Arc<StorageNode>, ShardStore)>,
    node_pool: BufPool,
    pub(crate) directory: TempDir,
}

/// What a gateway holds, but for what is meant to stay.
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

pub(crate) fn code(k: usize, m: usize) -> Code {
    Code::new(k, m).unwrap()
}

impl House {
    pub(crate) async fn new(code: Code) -> Self {
        Self::with(code, Meta::Mem, |_| {}).await
    }

    pub(crate) async fn with(code: Code, meta: Meta, change: impl FnOnce(&mut GatewayOptions)) -> Self {
        Self::with_nodes(code.n(), code, meta, change).await
    }

    /// More nodes than the code has shards.
    pub(crate) async fn with_nodes(
        count: usize,
        code: Code,
        meta: Meta,
        change: impl FnOnce(&mut GatewayOptions),
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let key = ClusterKey::random();
        let transport = MemTransport::new();
        let node_pool = BufPool::new(PoolOptions { capacity_bytes: 256 * MIB, huge_pages: false }).unwrap();
        let mut nodes = Vec::new();
        for id in (0..count as u16).map(NodeId) {
            let store = open_store(directory.path(), id, &node_pool).await;
            let clock: Arc<dyn Clock> = clock.clone();
            let options = NodeOptions::default();
            let node = StorageNode::new(id, store.clone(), key.clone(), clock, node_pool.clone(), options);
            nodes.push((Arc::new(node), store));
        }
        let kv: Arc<dyn Kv> = match meta {
            Meta::Mem => Arc::new(MemKv::new()),
            Meta::Fjall => Arc::new(FjallKv::open(&directory.path().join("meta")).unwrap()),
        };
        let pool = BufPool::new(PoolOptions { capacity_bytes: 256 * MIB, huge_pages: false }).unwrap();
        let executor = Executor::new(Arc::new(transport.clone()), pool.clone(), ExecutorOptions::default());
        let entries = nodes.iter().map(|(node, _)| NodeEntry { id: node.id(), weight: 1, domain: Vec::new() });
        let map = ClusterMap { epoch: MapEpoch(1), nodes: entries.collect() };
        let mut options = GatewayOptions {
            garbage_interval: None,
            lifecycle_interval: None,
            upkeep: UpkeepOptions { interval: None, ..UpkeepOptions::default() },
            buffers: Some(pool.clone()),
            master_key: Some(penstock_vault::MasterKey::new([7; 32])),
            ..GatewayOptions::new(code, map, key)
        };
        change(&mut options);
        options.check().unwrap();
        let gateway = Gateway::new(kv.clone(), executor.clone(), clock.clone(), options.clone());
        gateway.create_bucket(BUCKET, "").await.unwrap();
        let house = Self { gateway, clock, pool, kv, executor, options, transport, nodes, node_pool, directory };
        (0..count).for_each(|node| house.bring_back(node));
        house
    }

    /// Opens the node's device anew: what is in memory of it is lost.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node].1.close().await;
        let id = NodeId(node as u16);
        let store = open_store(self.directory.path(), id, &self.node_pool).await;
        let (key, clock): (_, Arc<dyn Clock>) = (self.options.cluster_key.clone(), self.clock.clone());
        let node_pool = self.node_pool.clone();
        let handler = StorageNode::new(id, store.clone(), key, clock, node_pool, NodeOptions::default());
        self.nodes[node] = (Arc::new(handler), store);
        self.bring_back(node);
    }

    /// The node's device is a new one.
    pub(crate) async fn replace_device(&mut self, node: usize) {
        self.nodes[node].1.close().await;
        std::fs::remove_file(self.device(node)).unwrap();
        self.restart(node).await;
    }

    pub(crate) fn device(&self, node: usize) -> std::path::PathBuf {
        self.directory.path().join(NodeId(node as u16).to_string())
    }

    /// Another gateway of the same house, over this metadata.
    pub(crate) fn gateway_over(&self, kv: Arc<dyn Kv>) -> Gateway {
        Gateway::new(kv, self.executor.clone(), self.clock.clone(), self.options.clone())
    }

    /// Another gateway of the same house, with other options.
    pub(crate) fn gateway_with(&self, change: impl FnOnce(&mut GatewayOptions)) -> Gateway {
        let mut options = self.options.clone();
        change(&mut options);
        Gateway::new(self.kv.clone(), self.executor.clone(), self.clock.clone(), options)
    }

    /// The beginning of a node's device, as far as small tests write.
    pub(crate) fn device_bytes(&self, node: usize) -> Vec<u8> {
        use std::io::Read as _;
        let path = self.directory.path().join(NodeId(node as u16).to_string());
        let mut bytes = Vec::new();
        std::fs::File::open(path).unwrap().take(160 << 20).read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Changes bytes of a row behind everybody's back. Both are of one length.
    pub(crate) async fn replace_in_row(&self, key: &[u8], from: &[u8], to: &[u8]) {
        let mut txn = self.kv.begin().await.unwrap();
        let mut value = txn.get(key).await.unwrap().unwrap().to_vec();
        let at = value.windows(from.len()).position(|window| window == from).unwrap();
        value[at..at + to.len()].copy_from_slice(to);
        txn.set(key, &value).unwrap();
        txn.commit().await.unwrap();
    }

    /// Another gateway of the same house, over this metadata and this network.
    pub(crate) fn gateway_through(&self, kv: Arc<dyn Kv>, messenger: Arc<dyn Messenger>) -> Gateway {
        // Without hedges, what is read can be counted.
        let options = ExecutorOptions { hedging: false, ..ExecutorOptions::default() };
        let executor = Executor::new(messenger, self.pool.clone(), options);
        Gateway::new(kv, executor, self.clock.clone(), self.options.clone())
    }

    pub(crate) fn transport(&self) -> &MemTransport {
        &self.transport
    }

    /// The gateway is gone, and another one stands in its place that knows nothing of it.
    pub(crate) async fn restart_gateway(&mut self) {
        let new = self.gateway_over(self.kv.clone());
        let old = std::mem::replace(&mut self.gateway, new);
        old.shutdown().await;
    }

    /// Seals the open extents and looks after all of them.
    pub(crate) async fn pack(&self) -> Packed {
        self.gateway.seal_extents_now().await.unwrap();
        self.gateway.run_packing_now().await.unwrap()
    }

    /// The node can't be reached.
    pub(crate) fn lose(&self, node: usize) {
        self.transport.detach(NodeId(node as u16));
    }

    /// The node is back, with what it had, and with an executor beside it.
    pub(crate) fn bring_back(&self, node: usize) {
        let (id, key, clock) = (NodeId(node as u16), self.options.cluster_key.clone(), self.clock.clone());
        let executor =
            Executor::new(Arc::new(self.transport.clone()), self.node_pool.clone(), ExecutorOptions::default());
        let beside = Rebuilder::new(id, executor, key, clock, self.nodes[node].0.clone());
        self.transport.attach(id, Arc::new(beside));
    }

    /// Shards that live on one node.
    pub(crate) fn shards_on(&self, node: usize) -> u64 {
        self.nodes[node].1.status().shards
    }

    /// Ranges that nodes have sent.
    pub(crate) fn gets(&self) -> u64 {
        self.nodes.iter().map(|(node, _)| node.stats().gets).sum()
    }

    /// Shards that live on all nodes.
    pub(crate) fn shards(&self) -> u64 {
        self.nodes.iter().map(|(_, store)| store.status().shards).sum()
    }

    /// Collects all garbage there is now, however young.
    pub(crate) async fn collect(&self) {
        self.clock.advance_ms(PAST_GRACE_MS);
        self.gateway.collect_garbage_now().await.unwrap();
    }

    /// What is held once everything that was dropped has ended. Waits for that, without bound on a slow machine but for
    /// the test's own.
    pub(crate) async fn held_when_quiet(&self) -> Held {
        let mut before = self.held().await;
        for _ in 0..500 {
            let quiet = before.puts == 0 && before.buffers == 0 && before.pending == 0 && before.requests == 0;
            if quiet {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            before = self.held().await;
        }
        before
    }

    pub(crate) async fn held(&self) -> Held {
        let usage = self.gateway.usage().await.unwrap();
        Held {
            requests: usage.requests,
            open_streams: usage.open_streams,
            puts: usage.puts_in_flight,
            pending: usage.pending_data,
            leases: usage.read_leases,
            garbage_rows: usage.garbage_rows,
            buffers: usage.pool.unwrap().buffers_out,
            shards: self.shards(),
        }
    }

    /// Collects until nothing changes, then says what is held.
    pub(crate) async fn held_after_collecting(&self) -> Held {
        self.held_when_quiet().await;
        self.collect().await;
        self.held().await
    }

    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) -> Result<PutDone> {
        self.gateway.put_object(put(key, bytes)).await
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Vec<u8>> {
        Ok(read(self.gateway.get_object(get(key)).await?).await?.1)
    }

    pub(crate) async fn get_range(&self, key: &str, range: RangeSpec) -> Result<Vec<u8>> {
        Ok(read(self.gateway.get_object(GetObject { range: Some(range), ..get(key) }).await?).await?.1)
    }

    pub(crate) async fn upload(&self, key: &str) -> String {
        self.gateway
            .create_upload(CreateUpload { bucket: BUCKET.into(), key: key.into(), ..CreateUpload::default() })
            .await
            .unwrap()
    }

    pub(crate) async fn part(&self, key: &str, upload_id: &str, number: u32, bytes: &[u8]) -> Result<PartInfo> {
        self.gateway.upload_part(part(key, upload_id, number, bytes)).await
    }
}

async fn open_store(folder: &std::path::Path, id: NodeId, pool: &BufPool) -> ShardStore {
    let options = StoreOptions {
        path: folder.join(format!("{id}")),
        capacity_bytes: 1 << 30,
        extent_bytes: 64 << 20,
        direct: false,
        ..StoreOptions::default()
    };
    ShardStore::open(options, pool.clone()).await.unwrap()
}

pub(crate) fn part(key: &str, upload_id: &str, number: u32, bytes: &[u8]) -> UploadPart {
    UploadPart {
        bucket: BUCKET.into(),
        key: key.into(),
        upload_id: upload_id.into(),
        part_number: number,
        body: body(bytes),
        content_bytes: Some(bytes.len() as u64),
        digests: BodyDigests::default(),
        customer_key: None,
    }
}

pub(crate) fn put(key: &str, bytes: &[u8]) -> PutObject {
    PutObject {
        bucket: BUCKET.into(),
        key: key.into(),
        body: body(bytes),
        content_bytes: Some(bytes.len() as u64),
        digests: BodyDigests::default(),
        headers: ObjectHeaders::default(),
        storage_class: String::new(),
        conditions: Conditions::default(),
        tags: Vec::new(),
        lock: Lock::default(),
        encryption: None,
    }
}

pub(crate) fn get(key: &str) -> GetObject {
    GetObject { bucket: BUCKET.into(), key: key.into(), ..GetObject::default() }
}

pub(crate) fn list(prefix: &str, delimiter: &str) -> ListObjects {
    ListObjects {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        delimiter: delimiter.into(),
        after: String::new(),
        max_keys: 1000,
    }
}

/// A body that comes in pieces that fit no chunk.
pub(crate) fn body(bytes: &[u8]) -> ByteStream {
    let bytes = Bytes::copy_from_slice(bytes);
    let pieces: Vec<Result<Bytes>> =
        (0..bytes.len()).step_by(100_003).map(|at| Ok(bytes.slice(at..bytes.len().min(at + 100_003)))).collect();
    Box::pin(stream::iter(pieces))
}

/// Bytes that differ by seed and everywhere.
pub(crate) fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The answer's head and all of its bytes.
pub(crate) async fn read(mut answer: ObjectRead) -> Result<(ObjectRead, Vec<u8>)> {
    let body = answer.body.take().unwrap_or_else(|| stream::empty().boxed());
    let bytes = body.try_fold(Vec::new(), |mut all, piece| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    let bytes = bytes.await?;
    Ok((answer, bytes))
}

pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind,
    }
}
