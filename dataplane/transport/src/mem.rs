//! Nodes in this process. Payload is copied into the receiver's buffer, as a network would: what the node stores is
//! never the caller's memory. Only a caller that says that it will do with reading ([`Messenger::call_to_read`]) is
//! handed the node's own buffer, which nobody writes to any more.
//!
//! A handler runs in a task of its own, as it does behind a connection: a caller that gives up does not stop it, and a
//! handler that panics is an error to its caller and nothing more.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use penstock_buf::{Buf, BufMut};
use penstock_proto::NodeId;

use crate::{Answer, Call, Handler, Messenger, OneSided, Reading, TransportError, check_header};

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

impl MemTransport {
    /// Lets the handler answer, in a task of its own.
    async fn serve(&self, node: NodeId, call: Call, lend: bool) -> Result<(Bytes, Memory), TransportError> {
        call.check()?;
        let handler = self.nodes.read().get(&node).cloned();
        let Some(handler) = handler else {
            return Err(TransportError::Unreachable { node, reason: "no such node in this process".to_owned() });
        };
        let deadline = call.deadline;
        let task = tokio::spawn(async move {
            let mut memory = Memory {
                outgoing: call.outgoing,
                pulled: false,
                landing: call.landing,
                landed_bytes: 0,
                lend,
                lent: None,
            };
            let header = handler.handle(call.header, &mut memory).await;
            check_header(&header)?;
            Ok((header, memory))
        });
        match tokio::time::timeout(deadline, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(stopped)) => Err(TransportError::closed(format!("the handler of {node} stopped: {stopped}"))),
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}

#[async_trait]
impl Messenger for MemTransport {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        let (header, memory) = self.serve(node, call, false).await?;
        Ok(Answer { header, landed: memory.into_landed() })
    }

    async fn call_to_read(&self, node: NodeId, call: Call) -> Result<Reading, TransportError> {
        let (header, mut memory) = self.serve(node, call, true).await?;
        let bytes = match memory.lent.take() {
            Some(lent) => Some(lent),
            None => memory.into_landed().map(BufMut::freeze),
        };
        Ok(Reading { header, bytes })
    }
}

/// The caller's memory, moved to the handler for the time of the call.
struct Memory {
    outgoing: Vec<Buf>,
    pulled: bool,
    landing: Option<BufMut>,
    landed_bytes: usize,
    /// The caller will do with reading what is pushed.
    lend: bool,
    /// All that was pushed, while that is one buffer.
    lent: Option<Buf>,
}

impl Memory {
    fn into_landed(self) -> Option<BufMut> {
        self.landing.map(|mut landing| {
            landing.truncate(self.landed_bytes);
            landing
        })
    }

    fn copy_in(&mut self, from: &[u8], at: usize) {
        if let Some(landing) = &mut self.landing {
            landing[at..at + from.len()].copy_from_slice(from);
        }
    }
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
        if self.landing.is_none() {
            return Ok(());
        }
        let at = self.landed_bytes;
        self.landed_bytes += from.len();
        if self.lend && at == 0 {
            self.lent = Some(from);
            return Ok(());
        }
        // More than one piece: all of it where the caller has room for it.
        if let Some(first) = self.lent.take() {
            self.copy_in(&first, 0);
        }
        self.copy_in(&from, at);
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
