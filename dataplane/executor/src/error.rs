//! What can go wrong with a stripe, and with each of its shards.

use std::fmt;

use penstock_buf::BufError;
use penstock_proto::{DataId, NodeId};
use penstock_transport::TransportError;

/// The kinds of trouble with one shard on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The node can't be reached, or the connection went away.
    Unreachable,
    /// No answer in time.
    Deadline,
    /// The node has too much to do, and still had after every retry.
    Busy,
    /// No room on the node.
    NoSpace,
    /// The node does not have the shard.
    NoSuchShard,
    /// The bytes are not those that were stored.
    Corrupt,
    /// No buffer came free here for the shard to land in.
    Buffers,
    /// The node's device has failed.
    DeviceFailed,
    /// Anything else that the node answers or that the protocol forbids.
    Refused,
}

impl FailureKind {
    /// Whether the same request may succeed soon.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Deadline | Self::Busy | Self::Buffers)
    }
}

/// Why one shard could not be stored or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFailure {
    /// Which shard of the stripe.
    pub shard: usize,
    /// On which node.
    pub node: NodeId,
    /// What kind of trouble.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

impl fmt::Display for ShardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} on {}: {}", self.shard, self.node, self.message)
    }
}

/// Failures, one after the other; at most one for each shard and ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(pub Vec<ShardFailure>);

impl Failures {
    /// How many are of a kind.
    pub fn of_kind(&self, kind: FailureKind) -> usize {
        self.0.iter().filter(|failure| failure.kind == kind).count()
    }

    /// Whether any is a node that could not be reached.
    pub fn any_unreachable(&self) -> bool {
        self.0.iter().any(|failure| failure.kind == FailureKind::Unreachable)
    }

    /// Whether any may pass soon.
    pub fn any_transient(&self) -> bool {
        self.0.iter().any(|failure| failure.kind.is_transient())
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, failure) in self.0.iter().enumerate() {
            write!(f, "{}{failure}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Why a stripe could not be written, read or deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecutorError {
    /// Fewer shards became durable than the code's quorum. What did should be deleted.
    #[error("stripe {stripe} of {data}: {durable} shards are durable, {need} must be ({failures})")]
    QuorumNotMet {
        /// Whose stripe.
        data: DataId,
        /// Which.
        stripe: u32,
        /// Shards known to be durable when it was given up.
        durable: usize,
        /// The quorum.
        need: usize,
        /// Why not more.
        failures: Failures,
    },
    /// As [`ExecutorError::QuorumNotMet`], for the most part because nodes are full.
    #[error("too many storage nodes have no room left: add capacity or delete data")]
    NoSpace,
    /// Neither the shards that were asked for nor any k others can be read.
    #[error("stripe {stripe} of {data}: {have} shards can be read, {need} are needed ({failures})")]
    TooFewShards {
        /// Whose stripe.
        data: DataId,
        /// Which.
        stripe: u32,
        /// Whole shards in hand when it was given up.
        have: usize,
        /// Shards that a decode takes.
        need: usize,
        /// What happened to the others.
        failures: Failures,
    },
    /// The bytes can be read, but they are not those that were stored. They are not returned.
    #[error("stripe {stripe} of {data} is corrupt: {reason}")]
    Corrupt {
        /// Whose stripe.
        data: DataId,
        /// Which.
        stripe: u32,
        /// What does not match.
        reason: String,
    },
    /// No buffer came free.
    #[error(transparent)]
    Busy(#[from] BufError),
    /// The stripe took longer than a stripe may.
    #[error("stripe {stripe} of {data} was not done within {after_ms} ms")]
    Deadline {
        /// Whose stripe.
        data: DataId,
        /// Which.
        stripe: u32,
        /// The deadline.
        after_ms: u128,
    },
    /// A node did not do what it was asked (delete, status).
    #[error("{node}: {message}")]
    Node {
        /// Which.
        node: NodeId,
        /// What kind of trouble.
        kind: FailureKind,
        /// For people.
        message: String,
    },
    /// The plan makes no sense. A bug of whoever made it.
    #[error("the plan makes no sense: {0}")]
    BadPlan(String),
    /// The kernels refuse, or a thread of ours died. A bug of ours, or a tier forced that this machine lacks.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ExecutorError {
    /// Whether the same operation may succeed soon.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QuorumNotMet { failures, .. } | Self::TooFewShards { failures, .. } => failures.any_transient(),
            Self::Busy(buffers) => buffers.is_retryable(),
            Self::Deadline { .. } => true,
            Self::Node { kind, .. } => kind.is_transient(),
            Self::NoSpace | Self::Corrupt { .. } | Self::BadPlan(_) | Self::Internal(_) => false,
        }
    }
}

/// What went wrong with one exchange, before it is known for which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn of_shard(self, shard: usize, node: NodeId) -> ShardFailure {
        ShardFailure { shard, node, kind: self.kind, message: self.message }
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        let kind = match &error {
            TransportError::Deadline { .. } => FailureKind::Deadline,
            TransportError::Overloaded { .. } => FailureKind::Busy,
            TransportError::Protocol { .. } => FailureKind::Refused,
            TransportError::Unreachable { .. } | TransportError::Closed { .. } => FailureKind::Unreachable,
        };
        Self::new(kind, error.to_string())
    }
}
