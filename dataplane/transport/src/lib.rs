//! How an executor and a storage node talk: two small traits, and what implements them.
//!
//! **What.** [`Messenger`] is the executor's side: send a header and payload to a node, get a header and payload back.
//! [`Handler`] is the node's side: it is given the header, and reaches for the caller's memory through [`OneSided`],
//! when it wants it: after it has checked the capability and has a buffer. Over TCP [`OneSided::pull`] and
//! [`OneSided::push`] move bytes on the connection; over RDMA they are READ and WRITE.
//!
//! **Who implements it.** [`MemTransport`] (nodes in this process), [`TcpMessenger`] with [`serve_tcp`]
//! (`docs/formats/tcp-transport.md`). [`Faulty`] and [`Throttled`] wrap any of them, so that production code runs
//! unmodified under faults. Each passes the same suite, [`conformance`].
//!
//! **What callers may rely on.** A call ends within its deadline. A call that ends in an error, or is cancelled, may or
//! may not have been executed, once or (a stale connection, a duplicated message) twice: **every request must be safe to
//! send again**. Ours are: a put of the same bytes, a get, a delete and a status. Payload is moved, not checked: CRC64s
//! in the headers do that, end to end.
//!
//! **How it fails.** [`TransportError`]. The landing buffer of a failed call goes back to its pool when nothing writes
//! to it any more; it is not given back to the caller.
#![forbid(unsafe_code)]

mod beside;
pub mod conformance;
mod dial;
mod error;
mod faulty;
mod mem;
mod tcp;
mod throttled;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{Buf, BufMut};
use penstock_proto::{NodeId, limits};

pub use beside::Beside;
pub use dial::{Dialer, NotReady, TcpDialer, Way};
pub use error::TransportError;
pub use faulty::{FaultCounts, FaultOptions, Faulty, Partition};
pub use mem::MemTransport;
pub use tcp::{TcpMessenger, TcpOptions, TcpServerCounts, TcpServerOptions, TcpServerStats, TcpStats, serve_tcp};
pub use throttled::{ThrottleOptions, Throttled};

/// Longest payload of one message, either way.
pub const PAYLOAD_BYTES_MAX: usize = limits::SHARD_BYTES_MAX;

/// What is sent to a node.
#[derive(Debug)]
pub struct Call {
    /// The request, encoded; at most [`limits::MESSAGE_HEADER_BYTES_MAX`] bytes.
    pub header: Bytes,
    /// Its payload: the pieces, one after the other; at most [`PAYLOAD_BYTES_MAX`] bytes together.
    pub outgoing: Vec<Buf>,
    /// Where the answer's payload lands. Its length is the most that may come.
    pub landing: Option<BufMut>,
    /// How long the call may take, from now, waiting for a connection included.
    pub deadline: Duration,
}

impl Call {
    /// A call without payload.
    pub fn new(header: Bytes, deadline: Duration) -> Self {
        Self { header, outgoing: Vec::new(), landing: None, deadline }
    }

    /// Bytes of its payload.
    pub fn outgoing_bytes(&self) -> usize {
        self.outgoing.iter().map(Buf::len).sum()
    }

    /// Whether it is within the bounds that every transport keeps.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] that names the bound.
    pub fn check(&self) -> Result<(), TransportError> {
        check_header(&self.header)?;
        let payload = self.outgoing_bytes();
        if payload > PAYLOAD_BYTES_MAX {
            return Err(TransportError::protocol(format!(
                "a payload of {payload} bytes is past the limit of {PAYLOAD_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }
}

/// A header that is short enough to send.
pub(crate) fn check_header(header: &Bytes) -> Result<(), TransportError> {
    if header.len() > limits::MESSAGE_HEADER_BYTES_MAX {
        return Err(TransportError::protocol(format!(
            "a header of {} bytes is past the limit of {} bytes",
            header.len(),
            limits::MESSAGE_HEADER_BYTES_MAX
        )));
    }
    Ok(())
}

/// What a node answered.
#[derive(Debug)]
pub struct Answer {
    /// The reply, encoded.
    pub header: Bytes,
    /// The call's landing buffer, truncated to what came. `None` when the call had none.
    pub landed: Option<BufMut>,
}

/// What a node answered a caller that only reads what came.
#[derive(Debug)]
pub struct Reading {
    /// The reply, encoded.
    pub header: Bytes,
    /// What came; it may be memory of the sender's that both only read. `None` when the call had no landing buffer.
    pub bytes: Option<Buf>,
}

/// The caller's side.
#[async_trait]
pub trait Messenger: Send + Sync + 'static {
    /// Sends `call` to `node` and waits for its answer. Dropping the future abandons the call: the node may or may not
    /// have executed it.
    ///
    /// # Errors
    /// [`TransportError`]; see the crate's page on what it says of whether the call was executed.
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError>;

    /// As [`Messenger::call`], for a caller that does not mind where the answer's payload lies: a transport within one
    /// process hands on the sender's buffer instead of copying it. The call's landing buffer bounds the answer all the
    /// same.
    ///
    /// # Errors
    /// As [`Messenger::call`].
    async fn call_to_read(&self, node: NodeId, call: Call) -> Result<Reading, TransportError> {
        let Answer { header, landed } = self.call(node, call).await?;
        Ok(Reading { header, bytes: landed.map(BufMut::freeze) })
    }
}

#[async_trait]
impl<M: Messenger + ?Sized> Messenger for Arc<M> {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        (**self).call(node, call).await
    }

    async fn call_to_read(&self, node: NodeId, call: Call) -> Result<Reading, TransportError> {
        (**self).call_to_read(node, call).await
    }
}

/// The node's side of one call: the caller's memory.
#[async_trait]
pub trait OneSided: Send {
    /// Bytes of payload that the caller has for us.
    fn outgoing_bytes(&self) -> usize;

    /// Bytes of payload that the caller still has room for.
    fn landing_bytes(&self) -> usize;

    /// Fetches the caller's payload. Once at most; a handler that does not want it need not.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when `into` is not exactly `outgoing_bytes` long or the payload was fetched before;
    /// [`TransportError::Closed`] when the caller has gone or stalls.
    async fn pull(&mut self, into: &mut BufMut) -> Result<(), TransportError>;

    /// Places payload in the caller's memory, after what was pushed before. It is sure to be there when the caller has
    /// the answer, not before.
    ///
    /// # Errors
    /// [`TransportError::Protocol`] when there is less room than `from` is long: nothing is placed.
    async fn push(&mut self, from: Buf) -> Result<(), TransportError>;
}

/// The node's side: what answers calls.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one call with a header of at most [`limits::MESSAGE_HEADER_BYTES_MAX`] bytes. Runs to its end even when
    /// the caller has gone; only a shutdown past its grace stops it.
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes;
}
