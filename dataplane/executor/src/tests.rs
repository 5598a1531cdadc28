//! The executor against nodes that live in memory and misbehave on demand.

mod bounds;
mod faulty;
mod losses;
mod node;
mod read;
mod rebuild;
mod round_trip;
mod tail;
mod write;

use std::sync::Arc;
use std::time::Duration;

use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_proto::{Capability, ClusterKey, Code, DataId, NodeId, Rights, ShardKey};
use penstock_transport::{MemTransport, Messenger};

use self::node::TestNode;
use crate::*;

/// Longer than any test: what waits for it hangs, and is seen to.
const NEVER: Duration = Duration::from_secs(600);
const POOL_BYTES: usize = 64 << 20;

/// Nodes, a transport to them and an executor.
struct Cluster {
    transport: MemTransport,
    nodes: Vec<Arc<TestNode>>,
    pool: BufPool,
    executor: Executor,
}

/// Neither hedges nor gives up on stragglers: what happens depends on the answers alone, on a slow machine too.
fn patient() -> ExecutorOptions {
    let at_once = Duration::from_millis(1);
    ExecutorOptions {
        straggler_grace: NEVER,
        hedging: false,
        hedge_delay: NEVER,
        suspect_for: NEVER,
        read_again_pause: at_once,
        ..ExecutorOptions::default()
    }
}

fn pool(capacity_bytes: usize) -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes, huge_pages: false }).unwrap()
}

impl Cluster {
    fn new(nodes: usize, options: ExecutorOptions) -> Self {
        Self::over(nodes, options, |transport| Arc::new(transport))
    }

    /// With `wrap` between executor and nodes.
    fn over(nodes: usize, options: ExecutorOptions, wrap: impl FnOnce(MemTransport) -> Arc<dyn Messenger>) -> Self {
        let transport = MemTransport::new();
        let nodes_pool = pool(POOL_BYTES);
        let nodes: Vec<_> = (0..nodes).map(|_| Arc::new(TestNode::new(nodes_pool.clone()))).collect();
        for (id, node) in nodes.iter().enumerate() {
            transport.attach(NodeId(id as u16), Arc::clone(node) as _);
        }
        let pool = pool(POOL_BYTES);
        let executor = Executor::new(wrap(transport.clone()), pool.clone(), options);
        Self { transport, nodes, pool, executor }
    }

    /// The same nodes and pool, and an executor that has seen nothing yet.
    fn fresh_executor(&mut self, options: ExecutorOptions) {
        self.executor = Executor::new(Arc::new(self.transport.clone()), self.pool.clone(), options);
    }

    async fn chunk(&self, code: Code, data: &[u8]) -> ChunkBuf {
        let mut chunk = self.executor.chunk_buffer(code, data.len()).await.unwrap();
        assert_eq!(chunk.extend_from_slice(data), data.len());
        chunk
    }

    async fn write(&self, target: &StripeTarget, data: &[u8]) -> Result<StripeWritten, ExecutorError> {
        self.executor.write_stripe(target, self.chunk(target.code, data).await).await
    }

    /// Writes and expects nothing to be missing; returns what the metadata would have.
    async fn store(&self, target: &StripeTarget, data: &[u8]) -> StripeStored {
        let written = self.write(target, data).await.unwrap();
        assert_eq!(written.missing, 0);
        stored(written, data)
    }

    async fn read(
        &self,
        target: &StripeTarget,
        stored: &StripeStored,
        range: std::ops::Range<usize>,
    ) -> Result<Vec<u8>, ExecutorError> {
        let pieces = self.executor.read_stripe(target, stored, range.start as u32..range.end as u32).await?;
        Ok(joined(&pieces))
    }

    fn shard(&self, target: &StripeTarget, shard: usize) -> Option<Vec<u8>> {
        let key = ShardKey { data: target.data, stripe: target.stripe, shard: shard as u8 };
        self.nodes[usize::from(target.nodes[shard].0)].shards.lock().get(&key).cloned()
    }

    fn gets(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.gets()).collect()
    }

    /// Waits until every buffer is back: what was cancelled may still be running to its end somewhere.
    async fn expect_no_buffers_in_use(&self) {
        for _ in 0..6000 {
            if self.pool.stats().in_use_bytes == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("buffers are not given back: {:?}", self.pool.stats());
    }
}

fn joined(pieces: &[Buf]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.iter().copied()).collect()
}

fn stored(written: StripeWritten, data: &[u8]) -> StripeStored {
    StripeStored { shard_crc64s: written.shard_crc64s, missing: written.missing, chunk_bytes: data.len() as u32 }
}

fn capability() -> Capability {
    let rights = Rights::GET.and(Rights::PUT).and(Rights::DELETE).and(Rights::STATUS);
    Capability::sign(&ClusterKey::new([7; 32]), rights, DataId(0), u64::MAX)
}

fn code(k: usize, m: usize) -> Code {
    Code::new(k, m).unwrap()
}

fn azure() -> Code {
    Code::lrc(12, 2, 2).unwrap()
}

/// Shard `j` on node `j`.
fn target(code: Code) -> StripeTarget {
    StripeTarget {
        data: DataId(0xda7a),
        stripe: 5,
        code,
        nodes: (0..code.n() as u16).map(NodeId).collect(),
        capability: capability(),
    }
}

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_9abc_def0u64 ^ len as u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
