//! What a node answers to whoever keeps the store: which shards it has, and in what state those are that it should have.

use penstock_proto::ShardKey;
use penstock_proto::limits::UPKEEP_SHARDS_MAX;
use penstock_proto::upkeep::{ListedShard, ShardClaim};
use penstock_proto::wire::NodeReply;
use penstock_transport::OneSided;

use crate::StorageNode;
use crate::refusal::Refusal;

impl StorageNode {
    /// As many shards as the caller has room for.
    pub(crate) async fn list(
        &self,
        after: Option<ShardKey>,
        broken: bool,
        memory: &mut dyn OneSided,
    ) -> Result<NodeReply, Refusal> {
        let max = (memory.landing_bytes() / ListedShard::ENCODED_BYTES).min(UPKEEP_SHARDS_MAX);
        if max == 0 {
            return Err(Refusal::bad_request("a list needs room for one shard at least"));
        }
        let (shards, more) = if broken { self.store.list_broken(after, max) } else { self.store.list(after, max) };
        self.push(&ListedShard::encode_all(&shards), memory).await?;
        Ok(NodeReply::Listed { shards: shards.len() as u32, more })
    }

    /// A byte for each shard asked about.
    pub(crate) async fn check(&self, shards: u32, memory: &mut dyn OneSided) -> Result<NodeReply, Refusal> {
        let bytes = shards as usize * ShardClaim::ENCODED_BYTES;
        if memory.outgoing_bytes() != bytes {
            let come = memory.outgoing_bytes();
            return Err(Refusal::bad_request(format!("{shards} shards are {bytes} bytes, and {come} come")));
        }
        if memory.landing_bytes() < shards as usize {
            return Err(Refusal::bad_request("a check needs room for a byte for each shard"));
        }
        let mut buffer = self.pool.acquire(bytes, self.options.buffer_wait).await?;
        memory.pull(&mut buffer).await?;
        let claims = ShardClaim::decode_all(&buffer)?;
        let states: Vec<u8> = claims.iter().map(|claim| self.store.check(claim) as u8).collect();
        self.push(&states, memory).await?;
        Ok(NodeReply::Checked { shards })
    }

    async fn push(&self, bytes: &[u8], memory: &mut dyn OneSided) -> Result<(), Refusal> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut buffer = self.pool.acquire(bytes.len(), self.options.buffer_wait).await?;
        buffer.copy_from_slice(bytes);
        Ok(memory.push(buffer.freeze()).await?)
    }
}
