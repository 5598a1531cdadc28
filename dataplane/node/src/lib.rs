//! The storage node: a transport in front, a store behind. It obeys.
//!
//! **What.** [`StorageNode`] is a [`Handler`]: it reads a [`NodeRequest`], checks its capability, takes one of a bounded
//! number of places, moves the payload through a buffer of its pool, and lets the [`ShardStore`] do the rest.
//!
//! **Why so.** A node knows neither users nor placement nor metadata; what it may do is in the capability, which the
//! gateway signed. The capability is checked before a byte of payload is taken and before a place is, so that a stranger
//! can use up neither buffers nor places.
//!
//! **How it fails.** With [`NodeReply::Refused`]: a code for programs (`refusal.rs` has the mapping) and a message that
//! says what to do. It never panics on what comes in, and holds nothing of a request that failed: a put is either
//! durable when it is answered with `Stored`, or leaves nothing that a read could find.
#![forbid(unsafe_code)]

mod refusal;
mod scrub;
mod stats;
mod upkeep;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::BufPool;
use penstock_proto::wire::{NodeReply, NodeRequest, NodeStatus};
use penstock_proto::{Clock, ClusterKey, DataId, NodeId, Receipt, Rights, ShardKey, StoredShard, limits};
use penstock_store::{ShardStore, StoreStats};
use penstock_transport::{Handler, OneSided};
use tokio::sync::Semaphore;

pub use scrub::{SCRUB_PERIOD, ScrubOptions};
pub use stats::NodeStats;

use refusal::Refusal;
use scrub::Scrub;
use stats::Counters;

/// The data id in the capability of a status request and of the upkeep's, which are about no data.
pub const STATUS_DATA: DataId = DataId(0);

/// How a node behaves.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// Operations at a time; past it, Busy.
    pub operations_max: usize,
    /// How long a put waits for a buffer; past it, Busy. Less than the executor's patience.
    pub buffer_wait: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { operations_max: limits::NODE_OPERATIONS_MAX, buffer_wait: limits::SHARD_DEADLINE / 4 }
    }
}

/// One storage node.
pub struct StorageNode {
    node: NodeId,
    store: ShardStore,
    key: ClusterKey,
    clock: Arc<dyn Clock>,
    pool: BufPool,
    options: NodeOptions,
    places: Semaphore,
    counters: Counters,
    scrub: Scrub,
}

impl StorageNode {
    /// A node that serves `store`, with payload buffers of `pool`, to bearers of capabilities signed with `key`.
    pub fn new(
        node: NodeId,
        store: ShardStore,
        key: ClusterKey,
        clock: Arc<dyn Clock>,
        pool: BufPool,
        options: NodeOptions,
    ) -> Self {
        let places = Semaphore::new(options.operations_max);
        Self { node, store, key, clock, pool, options, places, counters: Counters::default(), scrub: Scrub::default() }
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// What it did since its start.
    pub fn stats(&self) -> NodeStats {
        self.counters.read(self.options.operations_max.saturating_sub(self.places.available_permits()))
    }

    /// How it is, as it answers to those who ask.
    pub fn status(&self) -> NodeStatus {
        NodeStatus { scrub: self.scrub.progress(), ..self.store.status() }
    }

    /// What its store did since it was opened.
    pub fn store_stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Reads every shard once a period, for ever: until the store is closed, or the future is dropped.
    pub async fn scrub_forever(&self, options: ScrubOptions) {
        self.scrub.run(&self.store, &*self.clock, &options).await;
    }

    async fn serve(&self, header: &[u8], memory: &mut dyn OneSided) -> Result<NodeReply, Refusal> {
        let request = NodeRequest::decode(header)?;
        let (capability, clock) = (request.capability(), &*self.clock);
        match &request {
            NodeRequest::Put { key, .. } => capability.check_shard(&self.key, Rights::PUT, *key, clock)?,
            NodeRequest::Get { key, .. } => capability.check_shard(&self.key, Rights::GET, *key, clock)?,
            NodeRequest::Delete { data, .. } => capability.check(&self.key, Rights::DELETE, *data, clock)?,
            NodeRequest::Status { .. } => capability.check(&self.key, Rights::STATUS, STATUS_DATA, clock)?,
            NodeRequest::List { .. } | NodeRequest::Check { .. } | NodeRequest::Scrub { .. } => {
                capability.check(&self.key, Rights::UPKEEP, STATUS_DATA, clock)?;
            }
            NodeRequest::Rebuild { .. } => {
                return Err(Refusal::bad_request("no executor is beside this node to rebuild shards"));
            }
        }
        let _place = self.places.try_acquire().map_err(|_| Refusal::busy(self.options.operations_max))?;
        match request {
            NodeRequest::Put { capability, key, shard_bytes, crc64 } => {
                let stored = StoredShard { key, shard_bytes, crc64 };
                self.put(stored, memory).await?;
                if !capability.wants_receipts() {
                    return Ok(NodeReply::Stored);
                }
                self.counters.receipts.add(1);
                let expires_unix_ms = self.clock.now_unix_ms() + limits::RECEIPT_LIFETIME.as_millis() as u64;
                Ok(NodeReply::Receipted(Receipt::sign(&self.key, &stored, self.node, expires_unix_ms)))
            }
            NodeRequest::Get { key, crc64, offset, length, .. } => self.get(key, crc64, offset, length, memory).await,
            NodeRequest::Delete { data, .. } => {
                let shards = self.store.delete(data).await?;
                self.counters.deletes.add(1);
                Ok(NodeReply::Deleted { shards })
            }
            NodeRequest::Status { .. } => {
                self.counters.statuses.add(1);
                Ok(NodeReply::Status(self.status()))
            }
            NodeRequest::List { after, broken, .. } => self.list(after, broken, memory).await,
            NodeRequest::Check { shards, .. } => self.check(shards, memory).await,
            NodeRequest::Scrub { bytes_per_s, .. } => {
                self.scrub.begin(bytes_per_s, self.clock.now_unix_ms());
                Ok(NodeReply::Scrubbing)
            }
            NodeRequest::Rebuild { .. } => unreachable!("refused above"),
        }
    }

    async fn put(&self, stored: StoredShard, memory: &mut dyn OneSided) -> Result<(), Refusal> {
        let StoredShard { key, shard_bytes, crc64 } = stored;
        let bytes = shard_bytes as usize;
        if memory.outgoing_bytes() != bytes {
            return Err(Refusal::bad_request(format!(
                "the request declares a shard of {bytes} bytes and comes with a payload of {} bytes",
                memory.outgoing_bytes()
            )));
        }
        let mut buffer = self.pool.acquire(bytes, self.options.buffer_wait).await?;
        memory.pull(&mut buffer).await?;
        self.store.put(key, buffer.freeze(), crc64).await.map_err(Refusal::of_put)?;
        self.counters.puts.add(1);
        self.counters.put_bytes.add(u64::from(shard_bytes));
        Ok(())
    }

    async fn get(
        &self,
        key: ShardKey,
        shard_crc64: u64,
        offset: u32,
        length: u32,
        memory: &mut dyn OneSided,
    ) -> Result<NodeReply, Refusal> {
        if memory.landing_bytes() < length as usize {
            return Err(Refusal::bad_request(format!(
                "the request asks for {length} bytes and has room for {}",
                memory.landing_bytes()
            )));
        }
        let (range, shard_bytes) = self.store.get(key, offset, length, shard_crc64).await?;
        // Of a whole shard the store has checked the sum already.
        let whole = offset == 0 && length == shard_bytes;
        let crc64 = if whole { shard_crc64 } else { penstock_digest::crc64nvme(&range) };
        memory.push(range).await?;
        self.counters.gets.add(1);
        self.counters.get_bytes.add(u64::from(length));
        Ok(NodeReply::Sent { crc64, shard_bytes })
    }
}

#[async_trait]
impl Handler for StorageNode {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        let reply = match self.serve(&header, memory).await {
            Ok(reply) => reply,
            Err(refusal) => {
                self.counters.count_refusal(&refusal);
                refusal.log(self.node);
                refusal.into_reply(self.node)
            }
        };
        reply.encode()
    }
}
