//! The plan of a stripe: made by whoever decides (the gateway), carried out here.

use penstock_proto::{Capability, Code, DataId, NodeId, Receipt, ShardKey};

use crate::error::ExecutorError;

/// Which stripe, how coded, on which nodes, with what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeTarget {
    /// Whose bytes.
    pub data: DataId,
    /// Which stripe (chunk) of them, from 0.
    pub stripe: u32,
    /// How they are coded.
    pub code: Code,
    /// Shard `j` lives on `nodes[j]`; all n, distinct.
    pub nodes: Vec<NodeId>,
    /// The right to do it, signed by the gateway. Passed through.
    pub capability: Capability,
}

/// What came of a write. Its fields belong into the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeWritten {
    /// CRC64NVME of each of the n shards, pad included.
    pub shard_crc64s: Vec<u64>,
    /// Shards that are not known to be durable, as a bitmap.
    pub missing: u64,
    /// CRC64NVME of the chunk, pad excluded.
    pub chunk_crc64: u64,
    /// The nodes' receipts by shard, where the capability asks for them.
    pub receipts: Vec<Option<Receipt>>,
}

/// What the metadata has of a stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeStored {
    /// As in [`StripeWritten::shard_crc64s`].
    pub shard_crc64s: Vec<u64>,
    /// As in [`StripeWritten::missing`], less what was repaired since.
    pub missing: u64,
    /// Bytes of the chunk, pad excluded; at least 1.
    pub chunk_bytes: u32,
}

impl StripeTarget {
    /// Whether there is one node for each shard, and no node twice.
    pub(crate) fn check(&self) -> Result<(), ExecutorError> {
        if self.nodes.len() != self.code.n() {
            return Err(ExecutorError::BadPlan(format!(
                "{} needs {} nodes, not {}",
                self.code,
                self.code.n(),
                self.nodes.len()
            )));
        }
        let mut sorted = self.nodes.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ExecutorError::BadPlan(format!("two shards of one stripe on {}", pair[0]))),
            None => Ok(()),
        }
    }
}

/// Something that differs between shards, for jitter.
pub(crate) fn salt(key: ShardKey) -> u64 {
    (key.data.0 as u64) ^ (u64::from(key.stripe) << 8) ^ u64::from(key.shard)
}
