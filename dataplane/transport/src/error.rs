//! What can go wrong between an executor and a node.

use std::time::Duration;

use penstock_proto::NodeId;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The node can't be reached: the call was not sent.
    #[error("{node} can't be reached: {reason}")]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// What was tried and what came of it.
        reason: String,
    },
    /// No answer in time. The call may have been executed.
    #[error("{node} has not answered within {} ms", after.as_millis())]
    Deadline {
        /// Which node.
        node: NodeId,
        /// The deadline that passed.
        after: Duration,
    },
    /// More calls to the node than may wait: the call was not sent.
    #[error("{calls} calls to {node} are under way or waiting, which is the limit; try again later")]
    Overloaded {
        /// Which node.
        node: NodeId,
        /// Calls under way and waiting.
        calls: usize,
    },
    /// One side breaks the protocol, or the call is out of bounds. Sending the same again won't help.
    #[error("protocol error: {reason}")]
    Protocol {
        /// What is wrong.
        reason: String,
    },
    /// The connection went away. The call may have been executed.
    #[error("the connection was closed: {reason}")]
    Closed {
        /// By what.
        reason: String,
    },
}

impl TransportError {
    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }

    pub(crate) fn closed(reason: impl Into<String>) -> Self {
        Self::Closed { reason: reason.into() }
    }

    /// Whether the same call may succeed on the same node.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Protocol { .. })
    }
}
