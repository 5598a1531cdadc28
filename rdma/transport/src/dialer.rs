//! Nodes whose addresses come with plans: each is dialed when it is first named, all over the same ports.
//!
//! Unlike [`crate::RdmaMessenger`] a way never goes over TCP by itself: it says that it can't be gone, and why, and whoever
//! asked takes the next. So what is counted as RDMA was RDMA.

use std::sync::Arc;

use async_trait::async_trait;
use penstock_proto::NodeId;
use penstock_transport::{Answer, Call, Dialer, Messenger, NotReady, TcpDialer, TransportError, Way};
use penstock_verbs::{Domain, VerbsError};

use crate::messenger::{RdmaCounts, RdmaMode, RdmaOptions, Shared};
use crate::peer::{NoConnection, Peer};

/// Dials nodes over RDMA. On a machine without a device it dials too: every way then says why it can't be gone.
pub struct RdmaDialer {
    shared: Arc<Shared>,
    obstacle: Option<String>,
}

impl RdmaDialer {
    /// Over the ports that [`crate::rails`] has found; or not, for the reason that it gave. `options.mode` has no effect.
    ///
    /// # Errors
    /// When there is no memory for messages.
    pub fn new(rails: Result<Vec<Domain>, VerbsError>, options: RdmaOptions) -> std::io::Result<Self> {
        let (rails, obstacle) = match rails {
            Ok(rails) => (rails, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let shared = Shared::new(rails, RdmaOptions { mode: RdmaMode::Require, ..options })?;
        Ok(Self { shared, obstacle })
    }

    /// Why there is no RDMA on this machine, and what to do; `None` when there is.
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// The counts now, of all ways.
    pub fn counts(&self) -> RdmaCounts {
        self.shared.counts()
    }
}

impl Dialer for RdmaDialer {
    fn transport(&self) -> &'static str {
        "rdma"
    }

    /// `address` is the node's TCP address: connections are arranged there.
    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Way> {
        // Offers and what they come to, nothing else.
        let tcp = TcpDialer::default().dial(node, address);
        let peer = Peer::new(node, tcp, Arc::clone(&self.shared));
        Arc::new(RdmaWay { peer, obstacle: self.obstacle.clone() })
    }
}

struct RdmaWay {
    peer: Peer,
    obstacle: Option<String>,
}

#[async_trait]
impl Messenger for RdmaWay {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        if node != self.peer.node() {
            let reason = format!("this is the way to {}", self.peer.node());
            return Err(TransportError::Unreachable { node, reason });
        }
        if let Some(obstacle) = &self.obstacle {
            let reason = format!("RDMA is required, and there is none here: {obstacle}");
            return Err(TransportError::Unreachable { node, reason });
        }
        self.peer.call(call).await
    }
}

#[async_trait]
impl Way for RdmaWay {
    async fn ready(&self) -> Result<(), NotReady> {
        if let Some(obstacle) = &self.obstacle {
            return Err(NotReady::Declined(obstacle.clone()));
        }
        self.peer.ready().await.map_err(|why| match why {
            NoConnection::Declined(reason) => NotReady::Declined(reason),
            NoConnection::Error(error) => NotReady::Failed(error),
        })
    }
}
