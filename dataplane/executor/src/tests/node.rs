//! A node that keeps shards in memory, as a real one would answer, and misbehaves on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use penstock_buf::{Buf, BufPool};
use penstock_digest::crc64nvme;
use penstock_proto::ShardKey;
use penstock_proto::wire::{NodeErrorCode, NodeReply, NodeRequest, NodeStatus};
use penstock_transport::{Handler, OneSided};
use tokio::sync::Semaphore;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Answers nothing until it is released.
    Hang,
    /// Sends bytes with one bit flipped, and the checksum of the right ones.
    Flip,
    /// Sends other bytes with a checksum that matches them.
    Lie,
    /// Says that it sent what it did not send in full.
    Short,
    /// Says that the shard has another length.
    WrongLength,
    /// Answers everything with a refusal.
    Refuse(NodeErrorCode),
    /// Answers so many requests with Busy, then none.
    Busy(u32),
    /// Answers a get as if it were a put.
    Confused,
    /// Answers with bytes that are no reply.
    Gibberish,
}

pub(super) struct TestNode {
    pub(super) shards: Mutex<HashMap<ShardKey, Vec<u8>>>,
    fault: Mutex<Fault>,
    gets: AtomicU32,
    puts: AtomicU32,
    gate: Semaphore,
    pool: BufPool,
}

impl TestNode {
    pub(super) fn new(pool: BufPool) -> Self {
        Self {
            shards: Mutex::default(),
            fault: Mutex::new(Fault::None),
            gets: AtomicU32::new(0),
            puts: AtomicU32::new(0),
            gate: Semaphore::new(0),
            pool,
        }
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// Lets every request that hangs, and every later one, go on.
    pub(super) fn release(&self) {
        self.gate.close();
    }

    pub(super) fn gets(&self) -> u32 {
        self.gets.load(Ordering::SeqCst)
    }

    pub(super) fn puts(&self) -> u32 {
        self.puts.load(Ordering::SeqCst)
    }

    async fn put(&self, key: ShardKey, shard_bytes: u32, crc64: u64, memory: &mut dyn OneSided) -> NodeReply {
        if memory.outgoing_bytes() != shard_bytes as usize {
            return NodeReply::refused(NodeErrorCode::BadRequest, "the payload is not as long as the header says");
        }
        let mut buffer = self.pool.try_acquire(shard_bytes as usize).expect("the nodes' pool is large");
        if let Err(error) = memory.pull(&mut buffer).await {
            return NodeReply::refused(NodeErrorCode::Internal, error.to_string());
        }
        if crc64nvme(&buffer) != crc64 {
            return NodeReply::refused(NodeErrorCode::Corrupt, "the payload is not what the header says");
        }
        self.shards.lock().insert(key, buffer.to_vec());
        NodeReply::Stored
    }

    async fn get(
        &self,
        (key, crc64, offset, length): (ShardKey, u64, u32, u32),
        fault: Fault,
        memory: &mut dyn OneSided,
    ) -> NodeReply {
        let Some(shard) = self.shards.lock().get(&key).cloned() else {
            return NodeReply::refused(NodeErrorCode::NoSuchShard, "no such shard");
        };
        if crc64nvme(&shard) != crc64 {
            return NodeReply::refused(NodeErrorCode::Corrupt, "the shard has another checksum");
        }
        let range = offset as usize..(offset + length) as usize;
        let Some(right) = shard.get(range) else {
            return NodeReply::refused(NodeErrorCode::BadRequest, "past the end of the shard");
        };
        let mut sent = right.to_vec();
        let mut shard_bytes = shard.len() as u32;
        match fault {
            Fault::Flip | Fault::Lie => sent[length as usize / 2] ^= 0x10,
            Fault::Short => sent.truncate(length as usize - 1),
            Fault::WrongLength => shard_bytes += 64,
            Fault::Confused => return NodeReply::Stored,
            _ => {}
        }
        let crc64 = crc64nvme(if fault == Fault::Flip { right } else { &sent });
        if let Err(error) = memory.push(Buf::from(sent)).await {
            return NodeReply::refused(NodeErrorCode::Internal, error.to_string());
        }
        NodeReply::Sent { crc64, shard_bytes }
    }
}

#[async_trait]
impl Handler for TestNode {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        let request = NodeRequest::decode(&header).expect("the executor sends requests that can be read");
        match &request {
            NodeRequest::Get { .. } => self.gets.fetch_add(1, Ordering::SeqCst),
            NodeRequest::Put { .. } => self.puts.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        let fault = *self.fault.lock();
        match fault {
            Fault::Hang => drop(self.gate.acquire().await),
            Fault::Refuse(code) => return NodeReply::refused(code, "as it was told").encode(),
            Fault::Busy(times) if times > 0 => {
                self.set(Fault::Busy(times - 1));
                return NodeReply::refused(NodeErrorCode::Busy, "a lot to do").encode();
            }
            Fault::Gibberish => return Bytes::from_static(b"?"),
            _ => {}
        }
        let reply = match request {
            NodeRequest::Put { key, shard_bytes, crc64, .. } => self.put(key, shard_bytes, crc64, memory).await,
            NodeRequest::Get { key, crc64, offset, length, .. } => {
                self.get((key, crc64, offset, length), fault, memory).await
            }
            NodeRequest::Delete { data, .. } => {
                let mut shards = self.shards.lock();
                let before = shards.len();
                shards.retain(|key, _| key.data != data);
                NodeReply::Deleted { shards: (before - shards.len()) as u32 }
            }
            NodeRequest::Status { .. } => {
                NodeReply::Status(NodeStatus { shards: self.shards.lock().len() as u64, ..NodeStatus::default() })
            }
            _ => NodeReply::refused(NodeErrorCode::BadRequest, "nothing for this node"),
        };
        reply.encode()
    }
}
