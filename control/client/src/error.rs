//! What can go wrong, with what to do about it.

use std::time::Duration;

use penstock_executor::ExecutorError;

use crate::credentials::CredentialsError;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint can't be one, or an option makes no sense.
    #[error("{0}")]
    Configuration(String),
    /// No keys, or keys that can't be fetched.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No connection, or it broke off, and tries are used up.
    #[error("{host}: {reason}; check the endpoint and that the server runs")]
    Connection {
        /// Whom.
        host: String,
        /// What happened.
        reason: String,
    },
    /// Too slow.
    #[error("{what} was not done within {} s; the server is overloaded or gone, or the deadline too short", after.as_secs_f64())]
    Deadline {
        /// What.
        what: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The server said no, in S3's words.
    #[error("{status} {code}: {message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// S3's error code; empty when the answer had none.
        code: String,
        /// For people.
        message: String,
    },
    /// The object was replaced while it was read.
    #[error("the object was replaced while it was read; read it again")]
    Changed,
    /// The bytes are not those that were stored. They are not returned.
    #[error(
        "the bytes of {what} have CRC64NVME {computed:016x}, the server says {expected:016x}: they were changed on the way"
    )]
    Corrupt {
        /// Which object.
        what: String,
        /// What we have.
        computed: u64,
        /// What it should be.
        expected: u64,
    },
    /// The destination is not as long as what was asked for.
    #[error("the destination has {destination_bytes} bytes, and there are {object_bytes} to be read")]
    Size {
        /// Bytes of the destination.
        destination_bytes: u64,
        /// Bytes to be read.
        object_bytes: u64,
    },
    /// A plan was required and not given.
    #[error(
        "a plan is required ({0}); the server is no Penstock, its nodes can't be reached, or the request can't be planned"
    )]
    PlanRequired(&'static str),
    /// A plan could not be carried out, and there is nothing to fall back to.
    #[error("storage nodes: {0}")]
    Nodes(#[from] ExecutorError),
    /// The server broke the protocol.
    #[error("{host} answers what is no HTTP or no S3: {reason}")]
    Protocol {
        /// Who.
        host: String,
        /// What.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same operation may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Deadline { .. } | Self::Changed | Self::Corrupt { .. } => true,
            Self::Server { status, code, .. } => {
                matches!(status, 429 | 500 | 502 | 503 | 504) || code == "RequestTimeout" || code == "SlowDown"
            }
            Self::Credentials(error) => error.is_retryable(),
            Self::Nodes(error) => error.is_retryable(),
            Self::Configuration(_) | Self::Size { .. } | Self::PlanRequired(_) | Self::Protocol { .. } => false,
        }
    }

    /// S3's error code, when the server has given one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } if !code.is_empty() => Some(code),
            _ => None,
        }
    }

    /// Whether the object, upload or bucket is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Server { status: 404, .. })
    }
}
