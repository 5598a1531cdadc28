//! Every way in which a node says no: the code that programs act on, and what people are told to do.

use penstock_buf::BufError;
use penstock_proto::wire::{NodeErrorCode, NodeReply, WireError};
use penstock_proto::{CapabilityError, NodeId};
use penstock_store::StoreError;
use penstock_transport::TransportError;

/// A no, before it is sent.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: NodeErrorCode,
    message: String,
}

impl Refusal {
    fn new(code: NodeErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(NodeErrorCode::BadRequest, message)
    }

    pub(crate) fn busy(operations_max: usize) -> Self {
        let message = format!("{operations_max} operations are under way, which is the limit; try again soon");
        Self::new(NodeErrorCode::Busy, message)
    }

    /// A put whose payload does not have the announced checksum is the sender's trouble, not the device's.
    pub(crate) fn of_put(error: StoreError) -> Self {
        match error {
            StoreError::ChecksumMismatch { .. } => Self::bad_request(format!(
                "{error}: it was changed on the way, or the checksum is wrong; nothing was stored, send it again"
            )),
            other => other.into(),
        }
    }

    pub(crate) fn code(&self) -> NodeErrorCode {
        self.code
    }

    /// What an operator should see. Strangers and callers' mistakes are counted, and logged only for who looks closely.
    pub(crate) fn log(&self, node: NodeId) {
        match self.code {
            NodeErrorCode::Corrupt | NodeErrorCode::DeviceFailed | NodeErrorCode::Internal => {
                tracing::error!(%node, code = ?self.code, message = self.message, "an operation failed");
            }
            NodeErrorCode::NoSpace => tracing::warn!(%node, message = self.message, "an operation was refused"),
            _ => tracing::debug!(%node, code = ?self.code, message = self.message, "an operation was refused"),
        }
    }

    pub(crate) fn into_reply(self, node: NodeId) -> NodeReply {
        NodeReply::refused(self.code, format!("{node}: {}", self.message))
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<CapabilityError> for Refusal {
    fn from(error: CapabilityError) -> Self {
        Self::new(NodeErrorCode::Forbidden, error.to_string())
    }
}

impl From<BufError> for Refusal {
    fn from(error: BufError) -> Self {
        let code = if error.is_retryable() { NodeErrorCode::Busy } else { NodeErrorCode::Internal };
        Self::new(code, error.to_string())
    }
}

/// The caller's memory could not be reached: the answer will hardly arrive, but the counts are right.
impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        use NodeErrorCode as Code;
        let (code, advice) = match &error {
            StoreError::NoSuchShard => (Code::NoSuchShard, "read the stripe's other shards"),
            StoreError::Corrupt { .. } | StoreError::ChecksumMismatch { .. } => {
                (Code::Corrupt, "read the stripe's other shards; repair will replace this one")
            }
            StoreError::NoSpace => (Code::NoSpace, "add nodes or delete data"),
            StoreError::DeviceFailed { .. } => (Code::DeviceFailed, "replace the device"),
            StoreError::DataDeleted => (Code::DataDeleted, "a data id is never used again: write under a fresh one"),
            StoreError::Conflict => (Code::BadRequest, "a data id is never used again: write under a fresh one"),
            StoreError::OutOfRange { .. } => (Code::BadRequest, "ask for a range within the shard"),
            StoreError::Closed => (Code::Internal, "the node is shutting down: use others meanwhile"),
            StoreError::Buffers(inner) if inner.is_retryable() => (Code::Busy, "try again soon"),
            _ => (Code::Internal, "the node's log says more"),
        };
        Self::new(code, format!("{error}; {advice}"))
    }
}
