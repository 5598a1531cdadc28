//! The executor: turns a plan (which shards, where, how coded, with which capability) into bytes in a buffer, and bytes
//! in a buffer into shards on nodes. The gateway decides, **the executor moves**, the node obeys.
//!
//! **What.** [`Executor::chunk_buffer`] gives the memory of one stripe; [`Executor::write_stripe`] encodes it and stores
//! its shards until the quorum is durable; [`Executor::read_stripe`] reads any range of it back, from the data shards
//! alone when all is well and from others that are enough (any k of RS, the rest of its group for one shard of an LRC) when it isn't; [`Executor::delete_data`] and [`Executor::node_status`] do what
//! they say. It runs in the gateway, in clients and beside nodes, unchanged.
//!
//! **How.** Pure state machines decide: `write_machine` when a stripe counts as written, `read_machine` which shards to
//! ask for, `hedge` when a shard is late and whether more may be asked for, `breaker` which nodes are left in peace. Around them are exchanges with nodes, each with a deadline and bounded retries, all
//! concurrent in one task, all cancelled when the caller drops the future. Coding and checksums of more than a little
//! run on threads for blocking work.
//!
//! **What is promised.** Bytes that are returned are those that were written: each is checked against what its node says
//! it sent, and whole shards, fetched or computed, against the metadata. A write never succeeds below its quorum. Every
//! wait is bounded; no buffer outlives its stripe.
//!
//! **How it fails.** [`ExecutorError`], with what each node said. After a failed write the caller deletes the data.
#![forbid(unsafe_code)]

mod breaker;
mod chunk;
mod coding;
mod error;
mod exchange;
mod hedge;
mod layout;
mod plan;
mod read;
mod read_machine;
mod rebuild;
mod rebuilder;
mod stats;
mod upkeep;
mod write;
mod write_machine;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use penstock_buf::{Buf, BufError, BufPool};
use penstock_proto::wire::{NodeReply, NodeRequest, NodeStatus};
use penstock_proto::{Capability, Code, DataId, NodeId, limits};
use penstock_transport::Messenger;

pub use breaker::{BREAKER_FAILURES_MAX, BREAKER_PAUSE_MAX, BREAKER_PAUSE_MIN};
pub use chunk::{ChunkBuf, SealedChunk};
pub use error::{ExecutorError, FailureKind, Failures, ShardFailure};
pub use exchange::{BUSY_PAUSE, BUSY_TRIES_MAX};
pub use plan::{StripeStored, StripeTarget, StripeWritten};
pub use rebuilder::{Rebuilder, RebuilderStats};
pub use stats::{ExecutorStats, NodeCounters, SUSPECT_FOR, UNFIT_FOR};

use crate::coding::Codes;
use crate::exchange::Exchange;
use crate::stats::Watch;

/// How long a write waits for the nodes that have not answered once its quorum is durable. A repair costs k shards;
/// a quarter of a second, now and then, costs less.
pub const STRAGGLER_GRACE: Duration = Duration::from_millis(250);
/// After how long a shard is late while too little is known of how long answers take. (Then: past max(p95, 3 x p50) of its
/// node's answers.)
pub const HEDGE_DELAY: Duration = Duration::from_millis(100);
/// How long a stripe that too few nodes answered for waits for its second and last try, when a node could not be
/// reached: longer than a transport takes a node for gone after a failure (250 ms over TCP).
pub const READ_AGAIN_PAUSE: Duration = Duration::from_millis(300);
/// Shards up to this long are read whole: it is the unit in which nodes check what they read, and whole shards can be
/// checked against the metadata.
pub const PART_READ_SHARD_BYTES: usize = 64 << 10;
/// Nodes that one delete talks to at a time.
pub const DELETE_NODES_AT_A_TIME: usize = 64;
/// Up to this many bytes are coded on the async thread: handing over would take longer.
const CODING_INLINE_BYTES_MAX: usize = 64 << 10;
/// Up to this many bytes are checked on the async thread: a CRC of a whole chunk takes some 100 microseconds, as long as
/// writing it to a socket; waking another thread for it and being woken by it costs the caches as well.
const CHECK_INLINE_BYTES_MAX: usize = limits::CHUNK_BYTES;

/// The times and sizes that tests change, and maybe operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Longest wait for one shard, retries included.
    pub shard_deadline: Duration,
    /// Longest wait for a stripe.
    pub stripe_deadline: Duration,
    /// Longest wait for a buffer.
    pub buffer_wait: Duration,
    /// See [`STRAGGLER_GRACE`].
    pub straggler_grace: Duration,
    /// Whether reads ask for more than they need when a node is late, and read slow nodes last.
    pub hedging: bool,
    /// See [`HEDGE_DELAY`]. At least a millisecond.
    pub hedge_delay: Duration,
    /// See [`READ_AGAIN_PAUSE`].
    pub read_again_pause: Duration,
    /// See [`SUSPECT_FOR`].
    pub suspect_for: Duration,
    /// See [`PART_READ_SHARD_BYTES`].
    pub part_read_shard_bytes: usize,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self {
            shard_deadline: limits::SHARD_DEADLINE,
            stripe_deadline: limits::STRIPE_DEADLINE,
            buffer_wait: limits::BUFFER_WAIT,
            straggler_grace: STRAGGLER_GRACE,
            hedging: true,
            hedge_delay: HEDGE_DELAY,
            read_again_pause: READ_AGAIN_PAUSE,
            suspect_for: SUSPECT_FOR,
            part_read_shard_bytes: PART_READ_SHARD_BYTES,
        }
    }
}

/// Moves stripes. Clones share everything.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    messenger: Arc<dyn Messenger>,
    pool: BufPool,
    options: ExecutorOptions,
    codes: Codes,
    watch: Watch,
    /// Held while the buffers of one chunk are taken: at most one task has some of what it needs and waits for more.
    door: tokio::sync::Mutex<()>,
}

impl Executor {
    /// An executor that reaches nodes through `messenger` and lives on the memory of `pool`. The pool must have room for
    /// some chunks: 6 MiB each with RS(10,4) and RS(4,2), 4 MiB each when read.
    pub fn new(messenger: Arc<dyn Messenger>, pool: BufPool, options: ExecutorOptions) -> Self {
        let delay_unknown = options.hedge_delay.max(Duration::from_millis(1));
        let watch = Watch::new(options.suspect_for, options.hedging, delay_unknown);
        let (codes, door) = (Codes::default(), tokio::sync::Mutex::new(()));
        Self { inner: Arc::new(Inner { messenger, pool, options, codes, watch, door }) }
    }

    /// The memory of one stripe of up to `chunk_bytes_max` bytes ([`limits::CHUNK_BYTES`] at most), its parity included.
    ///
    /// # Errors
    /// [`ExecutorError::Busy`] when it does not come free in time; [`ExecutorError::BadPlan`] for a length of 0 or past
    /// the limit.
    pub async fn chunk_buffer(&self, code: Code, chunk_bytes_max: usize) -> Result<ChunkBuf, ExecutorError> {
        if chunk_bytes_max == 0 || chunk_bytes_max > limits::CHUNK_BYTES {
            let max = limits::CHUNK_BYTES;
            return Err(ExecutorError::BadPlan(format!("a chunk has 1 to {max} bytes, not {chunk_bytes_max}")));
        }
        let wanted_bytes = code.n() * code.shard_bytes(chunk_bytes_max);
        self.at_the_door(wanted_bytes, ChunkBuf::acquire(&self.inner.pool, code, chunk_bytes_max)).await
    }

    /// A stripe of bytes that are there already, 1 to [`limits::CHUNK_BYTES`]: they are read where they are, and nothing
    /// is copied. Takes memory for its parity alone.
    ///
    /// # Errors
    /// As of [`Executor::chunk_buffer`].
    pub async fn chunk_over(&self, code: Code, data: Buf) -> Result<SealedChunk, ExecutorError> {
        if data.is_empty() || data.len() > limits::CHUNK_BYTES {
            let (max, bytes) = (limits::CHUNK_BYTES, data.len());
            return Err(ExecutorError::BadPlan(format!("a chunk has 1 to {max} bytes, not {bytes}")));
        }
        let wanted_bytes = code.m() * code.shard_bytes(data.len());
        self.at_the_door(wanted_bytes, SealedChunk::over(&self.inner.pool, code, data)).await
    }

    /// Takes the buffers of one chunk, one task at a time, within the wait of the options.
    async fn at_the_door<T>(
        &self,
        wanted_bytes: usize,
        taking: impl Future<Output = Result<T, ExecutorError>>,
    ) -> Result<T, ExecutorError> {
        let wait = self.inner.options.buffer_wait;
        let taking = async {
            let _turn = self.inner.door.lock().await;
            taking.await
        };
        tokio::time::timeout(wait, taking).await.unwrap_or_else(|_elapsed| {
            let stats = self.inner.pool.stats();
            Err(ExecutorError::Busy(BufError::Exhausted {
                wanted_bytes,
                in_use_bytes: stats.in_use_bytes,
                capacity_bytes: stats.capacity_bytes,
                waiters: stats.waiters,
                waited: wait,
            }))
        })
    }

    /// Deletes every shard of `data` on each of `nodes`, [`DELETE_NODES_AT_A_TIME`] at a time. Each answer is how many
    /// shards there were, in the order of `nodes`; a node that failed is to be asked again later, which is safe.
    pub async fn delete_data(
        &self,
        data: DataId,
        capability: Capability,
        nodes: &[NodeId],
    ) -> Vec<(NodeId, Result<u32, ExecutorError>)> {
        let request = &NodeRequest::Delete { capability, data };
        let deletes = nodes.iter().map(|&node| async move {
            let outcome = match self.ask_node(node, request, data.0 as u64).await {
                Ok(NodeReply::Deleted { shards }) => Ok(shards),
                Ok(other) => Err(unexpected(node, "delete", &other)),
                Err(error) => Err(error),
            };
            (node, outcome)
        });
        let deletes: Vec<_> = deletes.collect();
        futures::stream::iter(deletes).buffered(DELETE_NODES_AT_A_TIME).collect().await
    }

    /// How `node` is.
    ///
    /// # Errors
    /// [`ExecutorError::Node`].
    pub async fn node_status(&self, node: NodeId, capability: Capability) -> Result<NodeStatus, ExecutorError> {
        match self.ask_node(node, &NodeRequest::Status { capability }, 0).await? {
            NodeReply::Status(status) => Ok(status),
            other => Err(unexpected(node, "status", &other)),
        }
    }

    /// Nodes around which new data is better placed: those that can't be reached (their breaker is open) and those that
    /// are full or have lost their device. Ascending; a node that answers again leaves it by itself.
    pub fn unfit_nodes(&self) -> Vec<NodeId> {
        self.inner.watch.unfit()
    }

    /// Nodes that are much slower than their peers, and read last.
    pub fn slow_nodes(&self) -> Vec<NodeId> {
        self.inner.watch.slow_nodes()
    }

    /// What this executor has seen so far.
    pub fn stats(&self) -> ExecutorStats {
        self.inner.watch.snapshot()
    }

    async fn ask_node(&self, node: NodeId, request: &NodeRequest, salt: u64) -> Result<NodeReply, ExecutorError> {
        let exchange = Exchange { node, request, outgoing: &[], landing_bytes: 0, landing: None };
        match self.exchange(exchange, salt ^ u64::from(node.0)).await {
            Ok((reply, _)) => Ok(reply),
            Err(trouble) => Err(ExecutorError::Node { node, kind: trouble.kind, message: trouble.message }),
        }
    }

    fn code(&self, code: Code) -> Result<Arc<dyn penstock_erasure::Code>, ExecutorError> {
        self.inner.codes.get(code).map_err(|error| ExecutorError::Internal(error.to_string()))
    }

    async fn within_stripe_deadline<T>(
        &self,
        target: &StripeTarget,
        work: impl Future<Output = Result<T, ExecutorError>>,
    ) -> Result<T, ExecutorError> {
        let after = self.inner.options.stripe_deadline;
        tokio::time::timeout(after, work).await.unwrap_or_else(|_elapsed| {
            let after_ms = after.as_millis();
            Err(ExecutorError::Deadline { data: target.data, stripe: target.stripe, after_ms })
        })
    }
}

fn unexpected(node: NodeId, request: &str, reply: &NodeReply) -> ExecutorError {
    let message = format!("answers a {request} with {reply:?}");
    ExecutorError::Node { node, kind: FailureKind::Refused, message }
}
