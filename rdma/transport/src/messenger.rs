//! The caller's side: a few connections to each node, made when they are needed; TCP where RDMA does not get through.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use penstock_buf::{BufPool, PoolOptions};
use penstock_proto::NodeId;
use penstock_transport::{Answer, Call, Messenger, TransportError};
use penstock_verbs::Domain;

use crate::peer::Peer;

/// Whether RDMA must be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdmaMode {
    /// Where both sides have it; else TCP, with the reason logged once and counted.
    Auto,
    /// Or the call fails.
    Require,
}

/// How an [`RdmaMessenger`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct RdmaOptions {
    /// Whether TCP will do.
    pub mode: RdmaMode,
    /// Queue pairs to one node.
    pub connections_per_node_max: usize,
    /// Calls to one node, under way and waiting; past it, [`TransportError::Overloaded`].
    pub calls_per_node_max: usize,
    /// How long an offer may take.
    pub connect_timeout: Duration,
    /// A connection that had no call for so long is closed.
    pub idle_max: Duration,
    /// How long a call that was given up may keep its memory: then its connection is fenced.
    pub abandoned_grace: Duration,
    /// After a node declined, or its packets did not get through, how long it is called over TCP.
    pub declined_for: Duration,
    /// Bytes of the pool that messages (not payload) are received in and sent from.
    pub message_pool_bytes: usize,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        Self {
            mode: RdmaMode::Auto,
            connections_per_node_max: 4,
            calls_per_node_max: 4096,
            connect_timeout: Duration::from_secs(5),
            idle_max: Duration::from_secs(60),
            abandoned_grace: Duration::from_secs(5),
            declined_for: Duration::from_secs(30),
            message_pool_bytes: 64 << 20,
        }
    }
}

/// What an [`RdmaMessenger`] has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaCounts {
    /// Connections made.
    pub connected: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Calls sent again on a fresh connection.
    pub retried: u64,
    /// Calls answered over RDMA.
    pub calls_rdma: u64,
    /// Calls that went over TCP instead.
    pub calls_tcp: u64,
    /// Times that a node declined, or could not be reached over RDMA.
    pub declined: u64,
    /// Payload of calls over RDMA, both ways.
    pub payload_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connected: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) calls_rdma: AtomicU64,
    pub(crate) calls_tcp: AtomicU64,
    pub(crate) declined: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Calls nodes over RDMA.
pub struct RdmaMessenger {
    shared: Arc<Shared>,
    peers: HashMap<NodeId, Peer>,
}

/// What all peers have in common.
pub(crate) struct Shared {
    pub(crate) rails: Vec<Domain>,
    pub(crate) pool: BufPool,
    pub(crate) options: RdmaOptions,
    pub(crate) counters: Counters,
}

impl Shared {
    pub(crate) fn new(rails: Vec<Domain>, options: RdmaOptions) -> std::io::Result<Arc<Self>> {
        let pool = BufPool::new(PoolOptions { capacity_bytes: options.message_pool_bytes, huge_pages: false })?;
        Ok(Arc::new(Self { rails, pool, options, counters: Counters::default() }))
    }

    pub(crate) fn counts(&self) -> RdmaCounts {
        let counters = &self.counters;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RdmaCounts {
            connected: of(&counters.connected),
            broken: of(&counters.broken),
            retried: of(&counters.retried),
            calls_rdma: of(&counters.calls_rdma),
            calls_tcp: of(&counters.calls_tcp),
            declined: of(&counters.declined),
            payload_bytes: of(&counters.payload_bytes),
        }
    }
}

impl RdmaMessenger {
    /// Calls `nodes`, each reachable by `tcp`, over the ports of `rails` in turn.
    ///
    /// # Errors
    /// When there is no memory for messages.
    pub fn new(
        tcp: Arc<dyn Messenger>,
        nodes: impl IntoIterator<Item = NodeId>,
        rails: Vec<Domain>,
        options: RdmaOptions,
    ) -> std::io::Result<Self> {
        let shared = Shared::new(rails, options)?;
        let peer = |node| (node, Peer::new(node, Arc::clone(&tcp), Arc::clone(&shared)));
        Ok(Self { peers: nodes.into_iter().map(peer).collect(), shared })
    }

    /// The counts now.
    pub fn counts(&self) -> RdmaCounts {
        self.shared.counts()
    }
}

#[async_trait]
impl Messenger for RdmaMessenger {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        match self.peers.get(&node) {
            Some(peer) => peer.call(call).await,
            None => {
                call.check()?;
                let reason = "it has no address in the configuration".to_owned();
                Err(TransportError::Unreachable { node, reason })
            }
        }
    }
}
