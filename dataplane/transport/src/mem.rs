//! Nodes in this process. Payload is copied into the receiver's buffer, as a network would: what the node stores is
//! never the caller's memory.
//!
//! A handler runs in a task of its own, as it does behind a connection: a caller that gives up does not stop it, and a
//! handler that panics is an error to its caller and nothing more.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use penstock_buf::{Buf, BufMut};
use penstock_proto::NodeId;

use crate::{Answer, Call, Handler, Messenger, OneSided, TransportError, check_header};

/// Calls handlers in this process. Clones share the nodes.
#[derive(Clone, Default)]
pub struct MemTransport {
    nodes: Arc<RwLock<HashMap<NodeId, Arc<dyn Handler>>>>,
}

impl MemTransport {
    /// Without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// `node` is reachable from now on, and `handler` answers for it (instead of whoever did).
    pub fn attach(&self, node: NodeId, handler: Arc<dyn Handler>) {
        self.nodes.write().insert(node, handler);
    }

    /// `node` is unreachable from now on. Calls under way finish.
    pub fn detach(&self, node: NodeId) {
        self.nodes.write().remove(&node);
    }
}

#[async_trait]
impl Messenger for MemTransport {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        call.check()?;
        let handler = self.nodes.read().get(&node).cloned();
        let Some(handler) = handler else {
            return Err(TransportError::Unreachable { node, reason: "no such node in this process".to_owned() });
        };
        let deadline = call.deadline;
        let task = tokio::spawn(async move {
            let mut memory = Memory { outgoing: call.outgoing, pulled: false, landing: call.landing, landed_bytes: 0 };
            let header = handler.handle(call.header, &mut memory).await;
            check_header(&header)?;
            let landed = memory.landing.map(|mut landing| {
                landing.truncate(memory.landed_bytes);
                landing
            });
            Ok(Answer { header, landed })
        });
        match tokio::time::timeout(deadline, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(stopped)) => Err(TransportError::closed(format!("the handler of {node} stopped: {stopped}"))),
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}

/// The caller's memory, moved to the handler for the time of the call.
struct Memory {
    outgoing: Vec<Buf>,
    pulled: bool,
    landing: Option<BufMut>,
    landed_bytes: usize,
}

#[async_trait]
impl OneSided for Memory {
    fn outgoing_bytes(&self) -> usize {
        self.outgoing.iter().map(Buf::len).sum()
    }

    fn landing_bytes(&self) -> usize {
        self.landing.as_ref().map_or(0, |landing| landing.len() - self.landed_bytes)
    }

    async fn pull(&mut self, into: &mut BufMut) -> Result<(), TransportError> {
        check_pull(self.pulled, self.outgoing_bytes(), into.len())?;
        self.pulled = true;
        let mut at = 0;
        for piece in &self.outgoing {
            into[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Ok(())
    }

    async fn push(&mut self, from: Buf) -> Result<(), TransportError> {
        check_push(self.landing_bytes(), from.len())?;
        if let Some(landing) = &mut self.landing {
            landing[self.landed_bytes..self.landed_bytes + from.len()].copy_from_slice(&from);
            self.landed_bytes += from.len();
        }
        Ok(())
    }
}

/// What [`OneSided::pull`] refuses, in every transport.
pub(crate) fn check_pull(pulled: bool, outgoing_bytes: usize, into_bytes: usize) -> Result<(), TransportError> {
    if pulled {
        return Err(TransportError::protocol("the payload was pulled before"));
    }
    if into_bytes != outgoing_bytes {
        return Err(TransportError::protocol(format!(
            "a payload of {outgoing_bytes} bytes can't be pulled into a buffer of {into_bytes} bytes"
        )));
    }
    Ok(())
}

/// What [`OneSided::push`] refuses, in every transport.
pub(crate) fn check_push(landing_bytes: usize, from_bytes: usize) -> Result<(), TransportError> {
    if from_bytes > landing_bytes {
        return Err(TransportError::protocol(format!(
            "{from_bytes} bytes don't fit in the {landing_bytes} bytes that the caller has room for"
        )));
    }
    Ok(())
}
