//! What the keepers of a store ask of nodes: lists of shards, checks of what should be there, scrubs, rebuilds.

use penstock_proto::limits::UPKEEP_SHARDS_MAX;
use penstock_proto::upkeep::{ListedShard, Rebuild, Rebuilt, ShardClaim, ShardState};
use penstock_proto::wire::{NodeReply, NodeRequest};
use penstock_proto::{Capability, NodeId, ShardKey};

use crate::error::{ExecutorError, FailureKind};
use crate::exchange::Exchange;
use crate::{Executor, unexpected};

impl Executor {
    /// Shards that `node` has, from the first after `after` on, or of those the ones that it knows to be damaged; and
    /// whether there are more.
    ///
    /// # Errors
    /// [`ExecutorError::Node`].
    pub async fn list_shards(
        &self,
        node: NodeId,
        capability: Capability,
        after: Option<ShardKey>,
        broken: bool,
    ) -> Result<(Vec<ListedShard>, bool), ExecutorError> {
        let request = NodeRequest::List { capability, after, broken };
        let landing_bytes = UPKEEP_SHARDS_MAX * ListedShard::ENCODED_BYTES;
        let exchange = Exchange { node, request: &request, outgoing: &[], landing_bytes, landing: None };
        match self.ask(exchange).await? {
            (NodeReply::Listed { shards, more }, bytes) => {
                let listed = ListedShard::decode_all(&bytes).map_err(|error| nonsense(node, &error))?;
                if listed.len() != shards as usize || (more && listed.is_empty()) {
                    return Err(nonsense(node, &format!("lists {} shards and says {shards}", listed.len())));
                }
                Ok((listed, more))
            }
            (other, _) => Err(unexpected(node, "list", &other)),
        }
    }

    /// The states of shards that `node` should have, in order; at most [`UPKEEP_SHARDS_MAX`].
    ///
    /// # Errors
    /// [`ExecutorError::Node`]; [`ExecutorError::Busy`] when no buffer comes free.
    pub async fn check_shards(
        &self,
        node: NodeId,
        capability: Capability,
        claims: &[ShardClaim],
    ) -> Result<Vec<ShardState>, ExecutorError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = ShardClaim::encode_all(claims);
        let mut outgoing = self.inner.pool.acquire(bytes.len(), self.inner.options.buffer_wait).await?;
        outgoing.copy_from_slice(&bytes);
        let request = NodeRequest::Check { capability, shards: claims.len() as u32 };
        let outgoing = [outgoing.freeze()];
        let exchange =
            Exchange { node, request: &request, outgoing: &outgoing, landing_bytes: claims.len(), landing: None };
        match self.ask(exchange).await? {
            (NodeReply::Checked { .. }, states) if states.len() == claims.len() => {
                states.iter().map(|byte| ShardState::from_byte(*byte).map_err(|error| nonsense(node, &error))).collect()
            }
            (other, _) => Err(unexpected(node, "check", &other)),
        }
    }

    /// Has `node` begin a scrub of all that it has, now.
    ///
    /// # Errors
    /// [`ExecutorError::Node`].
    pub async fn scrub_node(
        &self,
        node: NodeId,
        capability: Capability,
        bytes_per_s: u64,
    ) -> Result<(), ExecutorError> {
        let request = NodeRequest::Scrub { capability, bytes_per_s: bytes_per_s.max(1) };
        match self.ask_node(node, &request, 0).await? {
            NodeReply::Scrubbing => Ok(()),
            other => Err(unexpected(node, "scrub", &other)),
        }
    }

    /// Has the executor beside `node` rebuild shards.
    ///
    /// # Errors
    /// [`ExecutorError::Node`].
    pub async fn rebuild_at(
        &self,
        node: NodeId,
        capability: Capability,
        rebuild: Rebuild,
    ) -> Result<Rebuilt, ExecutorError> {
        let salt = rebuild.data.0 as u64 ^ u64::from(rebuild.stripe);
        match self.ask_node(node, &NodeRequest::Rebuild { capability, rebuild }, salt).await? {
            NodeReply::Rebuilt(rebuilt) => Ok(rebuilt),
            other => Err(unexpected(node, "rebuild", &other)),
        }
    }

    async fn ask(&self, exchange: Exchange<'_>) -> Result<(NodeReply, penstock_buf::Buf), ExecutorError> {
        let node = exchange.node;
        match self.exchange(exchange, u64::from(node.0)).await {
            Ok((reply, landed)) => Ok((reply, landed.unwrap_or_default())),
            Err(trouble) => Err(ExecutorError::Node { node, kind: trouble.kind, message: trouble.message }),
        }
    }
}

fn nonsense(node: NodeId, what: &dyn std::fmt::Display) -> ExecutorError {
    ExecutorError::Node { node, kind: FailureKind::Refused, message: format!("an answer that can't be read: {what}") }
}
