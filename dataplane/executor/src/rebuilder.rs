//! The executor beside a node: takes rebuilds for itself, and hands everything else on to the node.
//!
//! It stands in front of the node's handler as a handler of its own; the node knows nothing of it, and it reaches the
//! node as it reaches every other: through the transport. What it may do is in the capability, which the gateway signed
//! and which it passes on to the nodes that it reads from and stores at.
//!
//! How it fails: a rebuild that can't be done is refused with the reason; more than [`limits::REBUILDS_MAX`] at a time
//! are refused as Busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use penstock_proto::upkeep::Rebuilt;
use penstock_proto::wire::{NodeErrorCode, NodeReply, NodeRequest};
use penstock_proto::{Clock, ClusterKey, NodeId, Rights, ShardKey, limits};
use penstock_transport::{Handler, OneSided};
use tokio::sync::Semaphore;

use crate::{Executor, ExecutorError, FailureKind};

/// What the executor beside a node did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuilderStats {
    /// Rebuilds done, some of them in part.
    pub rebuilds: u64,
    /// Rebuilds that could not be done, or were refused.
    pub failed: u64,
    /// Shards read from nodes.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Shards stored.
    pub shards: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Rebuilds under way.
    pub in_flight: usize,
}

#[derive(Debug, Default)]
struct Counters {
    rebuilds: AtomicU64,
    failed: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    shards: AtomicU64,
    written_bytes: AtomicU64,
}

/// An executor in front of a node's handler.
pub struct Rebuilder {
    node: NodeId,
    executor: Executor,
    key: ClusterKey,
    clock: Arc<dyn Clock>,
    behind: Arc<dyn Handler>,
    places: Semaphore,
    counters: Counters,
}

impl Rebuilder {
    /// In front of `behind`, the handler of `node`. `executor` must reach that node and its peers; its pool must have room
    /// for a rebuild: every shard of a stripe and one more for each that is lost, some 6 MiB.
    pub fn new(
        node: NodeId,
        executor: Executor,
        key: ClusterKey,
        clock: Arc<dyn Clock>,
        behind: Arc<dyn Handler>,
    ) -> Self {
        let (places, counters) = (Semaphore::new(limits::REBUILDS_MAX), Counters::default());
        Self { node, executor, key, clock, behind, places, counters }
    }

    /// What it did.
    pub fn stats(&self) -> RebuilderStats {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counters { rebuilds, failed, reads, read_bytes, shards, written_bytes } = &self.counters;
        RebuilderStats {
            rebuilds: of(rebuilds),
            failed: of(failed),
            reads: of(reads),
            read_bytes: of(read_bytes),
            shards: of(shards),
            written_bytes: of(written_bytes),
            in_flight: limits::REBUILDS_MAX.saturating_sub(self.places.available_permits()),
        }
    }

    async fn rebuild(&self, header: &[u8]) -> Result<Rebuilt, (NodeErrorCode, String)> {
        let request = NodeRequest::decode(header).map_err(|error| (NodeErrorCode::BadRequest, error.to_string()))?;
        let NodeRequest::Rebuild { capability, rebuild } = request else {
            return Err((NodeErrorCode::BadRequest, "no rebuild".to_owned()));
        };
        // Of the last shard: a scope is of the shards below a number.
        let last = ShardKey { data: rebuild.data, stripe: rebuild.stripe, shard: (rebuild.shards.len() - 1) as u8 };
        let rights = Rights::REBUILD.and(Rights::GET).and(Rights::PUT);
        capability
            .check_shard(&self.key, rights, last, &*self.clock)
            .map_err(|error| (NodeErrorCode::Forbidden, error.to_string()))?;
        let _place = self.places.try_acquire().map_err(|_| {
            let max = limits::REBUILDS_MAX;
            (NodeErrorCode::Busy, format!("{max} rebuilds are under way, which is the limit; try again soon"))
        })?;
        self.executor.rebuild(capability, &rebuild).await.map_err(|error| {
            let code = match &error {
                ExecutorError::Busy(_) => NodeErrorCode::Busy,
                ExecutorError::TooFewShards { .. } => NodeErrorCode::NoSuchShard,
                ExecutorError::Corrupt { .. } => NodeErrorCode::Corrupt,
                ExecutorError::BadPlan(_) => NodeErrorCode::BadRequest,
                ExecutorError::NoSpace => NodeErrorCode::NoSpace,
                ExecutorError::Node { kind: FailureKind::Busy, .. } => NodeErrorCode::Busy,
                _ => NodeErrorCode::Internal,
            };
            (code, error.to_string())
        })
    }
}

#[async_trait]
impl Handler for Rebuilder {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        if !NodeRequest::is_rebuild(&header) {
            return self.behind.handle(header, memory).await;
        }
        let add = |count: &AtomicU64, by: u64| count.fetch_add(by, Ordering::Relaxed);
        let reply = match self.rebuild(&header).await {
            Ok(rebuilt) => {
                add(&self.counters.rebuilds, 1);
                add(&self.counters.reads, u64::from(rebuilt.reads));
                add(&self.counters.read_bytes, rebuilt.read_bytes);
                add(&self.counters.shards, u64::from(rebuilt.stored.count_ones()));
                add(&self.counters.written_bytes, rebuilt.written_bytes);
                NodeReply::Rebuilt(rebuilt)
            }
            Err((code, message)) => {
                add(&self.counters.failed, 1);
                tracing::debug!(node = %self.node, ?code, message, "a rebuild is refused");
                NodeReply::refused(code, format!("{}: {message}", self.node))
            }
        };
        reply.encode()
    }
}
