//! For what runs beside a node: its neighbour is reached in this process, every other node as ever.

use std::sync::Arc;

use async_trait::async_trait;
use penstock_proto::NodeId;

use crate::{Answer, Call, Handler, MemTransport, Messenger, Reading, TransportError};

/// Calls one node in this process, and the others through another messenger.
#[derive(Clone)]
pub struct Beside {
    node: NodeId,
    near: MemTransport,
    far: Arc<dyn Messenger>,
}

impl Beside {
    /// Beside `node`, which `handler` answers for.
    pub fn new(node: NodeId, handler: Arc<dyn Handler>, far: Arc<dyn Messenger>) -> Self {
        let near = MemTransport::new();
        near.attach(node, handler);
        Self { node, near, far }
    }
}

#[async_trait]
impl Messenger for Beside {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        if node == self.node { self.near.call(node, call).await } else { self.far.call(node, call).await }
    }

    async fn call_to_read(&self, node: NodeId, call: Call) -> Result<Reading, TransportError> {
        if node == self.node {
            self.near.call_to_read(node, call).await
        } else {
            self.far.call_to_read(node, call).await
        }
    }
}
