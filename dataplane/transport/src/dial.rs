//! Ways to nodes whose addresses are only learned on the way, from plans: by whichever transport both sides have.
//!
//! **What.** A [`Dialer`] is one transport: given a node and its address it makes a [`Way`], which is a messenger of that
//! one node and can say beforehand whether calls can go that way. [`TcpDialer`] is built in; a program that has another
//! transport hands its dialer to whoever carries out plans, who need not know what it is.
//!
//! **How it fails.** [`NotReady`]: nothing was sent, so that the same call, with its landing buffer, can go another way.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use penstock_proto::NodeId;

use crate::error::TransportError;
use crate::tcp::{TcpMessenger, TcpOptions};
use crate::{Answer, Call, Messenger, Reading};

/// Why calls can't go a way. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// One side does not have this transport, or packets do not get through: another one may do. Says why, and what to do.
    #[error("{0}")]
    Declined(String),
    /// The node itself can't be reached now.
    #[error(transparent)]
    Failed(#[from] TransportError),
}

/// One node, by one transport.
#[async_trait]
pub trait Way: Messenger {
    /// Connects, if that is not done, and says whether calls can go this way now. Bounded in time by the transport's own
    /// limit on connecting.
    ///
    /// # Errors
    /// [`NotReady`].
    async fn ready(&self) -> Result<(), NotReady>;
}

/// One transport by which nodes may be reached.
pub trait Dialer: Send + Sync + 'static {
    /// Its name, as plans have it: `tcp`, `rdma`.
    fn transport(&self) -> &'static str;

    /// The way to `node` at `address` (`host:port`). Connects when it is first needed.
    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Way>;
}

/// Dials by TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer {
    /// How its connections behave.
    pub options: TcpOptions,
}

struct TcpWay(TcpMessenger);

impl Dialer for TcpDialer {
    fn transport(&self) -> &'static str {
        "tcp"
    }

    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Way> {
        Arc::new(TcpWay(TcpMessenger::new(HashMap::from([(node, address.to_owned())]), self.options)))
    }
}

#[async_trait]
impl Messenger for TcpWay {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        self.0.call(node, call).await
    }

    async fn call_to_read(&self, node: NodeId, call: Call) -> Result<Reading, TransportError> {
        self.0.call_to_read(node, call).await
    }
}

#[async_trait]
impl Way for TcpWay {
    /// Always: a node that TCP does not reach is reached by nothing, and the call says so itself.
    async fn ready(&self) -> Result<(), NotReady> {
        Ok(())
    }
}
