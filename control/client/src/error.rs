//! What can go wrong, with what to do about it.

use std::fmt;
use std::time::Duration;

use penstock_executor::ExecutorError;

use crate::credentials::CredentialsError;

/// What a server said when it refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// S3's error code; empty when the answer had none (a HEAD has no body).
    pub code: String,
    /// For people, in the server's words.
    pub message: String,
    /// What was asked: `GET s3://bucket/key`.
    pub request: String,
    /// `x-amz-request-id`, by which the server's logs have it.
    pub request_id: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.request, self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The endpoint can't be one, or an option or argument makes no sense.
    #[error("{0}")]
    Configuration(String),
    /// No keys, or keys that can't be fetched.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The server does not know the keys, or the signature is not theirs.
    #[error("{0}; check the access key, the secret and the region")]
    WrongCredentials(Refusal),
    /// Temporary keys whose time has run out; fetching them again did not help.
    #[error("{0}; the credentials have expired: renew them")]
    ExpiredCredentials(Refusal),
    /// The keys are known and may not do this.
    #[error("{0}; ask for a policy that allows it")]
    AccessDenied(Refusal),
    /// The object, version, upload or bucket is not there.
    #[error("{0}; check the bucket and the key, or write it first")]
    NotFound(Refusal),
    /// A condition of the request (If-Match, If-None-Match and such) does not hold.
    #[error("{0}; the condition of the request does not hold: look at the object again")]
    Precondition(Refusal),
    /// The object ends before the first byte that was asked for.
    #[error("{0}; the object is shorter than that")]
    InvalidRange(Refusal),
    /// The server has too much to do, and tries are used up.
    #[error("{0}; the server is overloaded: ask for less at a time, or later")]
    Throttled(Refusal),
    /// The server said no, in S3's words.
    #[error("{0}")]
    Server(Refusal),
    /// No connection, or it broke off, and tries are used up.
    #[error("{host}: {reason}; check the endpoint and that the server runs")]
    Endpoint {
        /// Whom.
        host: String,
        /// What happened.
        reason: String,
    },
    /// Too slow: the operation's deadline, or silence for longer than is put up with.
    #[error("{what} within {} s; the server is overloaded or gone, or the deadline too short", after.as_secs_f64())]
    Timeout {
        /// What.
        what: String,
        /// The bound.
        after: Duration,
    },
    /// The object was replaced while it was read.
    #[error("{what} was replaced while it was read; read it again")]
    Changed {
        /// Which object.
        what: String,
    },
    /// A body ended before its length, and the rest could not be had.
    #[error(
        "{what}: {received_bytes} of {expected_bytes} bytes came, and tries to get the rest are used up ({reason})"
    )]
    Truncated {
        /// Which object.
        what: String,
        /// How many came.
        received_bytes: u64,
        /// How many should have.
        expected_bytes: u64,
        /// What happened last.
        reason: String,
    },
    /// The bytes are not those that were stored. They are not returned.
    #[error(
        "the bytes of {what} have {algorithm} {computed}, the server says {expected}: they were changed on the way or on the server"
    )]
    Corrupt {
        /// Which object.
        what: String,
        /// Which checksum tells: `CRC64NVME`.
        algorithm: String,
        /// What we have, in hexadecimal.
        computed: String,
        /// What it should be, in hexadecimal.
        expected: String,
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
    /// What was to be uploaded can't be read, or what came can't be written.
    #[error("{what}: {error}")]
    Io {
        /// What.
        what: String,
        /// Why.
        error: std::io::Error,
    },
}

/// What kind of failure: for exit codes, exceptions of other languages, and decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Arguments or options that make no sense.
    Configuration,
    /// No keys, or wrong ones.
    Credentials,
    /// Keys whose time has run out.
    ExpiredCredentials,
    /// Not allowed.
    AccessDenied,
    /// Not there.
    NotFound,
    /// A condition that does not hold.
    Precondition,
    /// Past the object's end.
    InvalidRange,
    /// The server asks for patience.
    Throttled,
    /// Another refusal.
    Server,
    /// No connection.
    Endpoint,
    /// Too slow.
    Timeout,
    /// Replaced meanwhile.
    Changed,
    /// Too few bytes.
    Truncated,
    /// Wrong bytes.
    Corrupt,
    /// A destination of another length.
    Size,
    /// No plan, and one is required.
    PlanRequired,
    /// Storage nodes.
    Nodes,
    /// No HTTP, or no S3.
    Protocol,
    /// The local side.
    Io,
}

impl ClientError {
    /// What kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration(_) => ErrorKind::Configuration,
            Self::Credentials(_) | Self::WrongCredentials(_) => ErrorKind::Credentials,
            Self::ExpiredCredentials(_) => ErrorKind::ExpiredCredentials,
            Self::AccessDenied(_) => ErrorKind::AccessDenied,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Precondition(_) => ErrorKind::Precondition,
            Self::InvalidRange(_) => ErrorKind::InvalidRange,
            Self::Throttled(_) => ErrorKind::Throttled,
            Self::Server(_) => ErrorKind::Server,
            Self::Endpoint { .. } => ErrorKind::Endpoint,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Changed { .. } => ErrorKind::Changed,
            Self::Truncated { .. } => ErrorKind::Truncated,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Size { .. } => ErrorKind::Size,
            Self::PlanRequired(_) => ErrorKind::PlanRequired,
            Self::Nodes(_) => ErrorKind::Nodes,
            Self::Protocol { .. } => ErrorKind::Protocol,
            Self::Io { .. } => ErrorKind::Io,
        }
    }

    /// Whether the same operation may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Endpoint { .. }
            | Self::Timeout { .. }
            | Self::Changed { .. }
            | Self::Truncated { .. }
            | Self::Throttled(_)
            | Self::Corrupt { .. } => true,
            Self::Server(refusal) => {
                matches!(refusal.status, 429 | 500 | 502 | 503 | 504)
                    || matches!(
                        refusal.code.as_str(),
                        "RequestTimeout" | "OperationAborted" | "ConditionalRequestConflict"
                    )
            }
            Self::Credentials(error) => error.is_retryable(),
            Self::Nodes(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What the server said, when it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::WrongCredentials(refusal)
            | Self::ExpiredCredentials(refusal)
            | Self::AccessDenied(refusal)
            | Self::NotFound(refusal)
            | Self::Precondition(refusal)
            | Self::InvalidRange(refusal)
            | Self::Throttled(refusal)
            | Self::Server(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// S3's error code, when the server has given one.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.code.as_str()).filter(|code| !code.is_empty())
    }

    /// Whether the object, upload or bucket is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    /// The error that a refusal is.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match (refusal.status, refusal.code.as_str()) {
            (_, "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException") => Self::ExpiredCredentials(refusal),
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "InvalidClientTokenId"
                | "AuthorizationHeaderMalformed"
                | "AuthFailure",
            ) => Self::WrongCredentials(refusal),
            (_, "SlowDown" | "ServiceUnavailable" | "TooManyRequests" | "Throttling" | "RequestLimitExceeded")
            | (429, _) => Self::Throttled(refusal),
            (401 | 403, _) => Self::AccessDenied(refusal),
            (404, _) => Self::NotFound(refusal),
            (304 | 412, _) => Self::Precondition(refusal),
            (416, _) => Self::InvalidRange(refusal),
            _ => Self::Server(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_kinds() {
        let of = |status: u16, code: &str| {
            let error = ClientError::refused(Refusal { status, code: code.to_owned(), ..Refusal::default() });
            assert_eq!(error.status(), Some(status));
            (error.kind(), error.is_retryable())
        };
        assert_eq!(of(404, "NoSuchKey"), (ErrorKind::NotFound, false));
        assert_eq!(of(404, ""), (ErrorKind::NotFound, false));
        assert_eq!(of(403, "AccessDenied"), (ErrorKind::AccessDenied, false));
        assert_eq!(of(403, "SignatureDoesNotMatch"), (ErrorKind::Credentials, false));
        assert_eq!(of(400, "ExpiredToken"), (ErrorKind::ExpiredCredentials, false));
        assert_eq!(of(412, "PreconditionFailed"), (ErrorKind::Precondition, false));
        assert_eq!(of(503, "SlowDown"), (ErrorKind::Throttled, true));
        assert_eq!(of(500, "InternalError"), (ErrorKind::Server, true));
        assert_eq!(of(400, "EntityTooSmall"), (ErrorKind::Server, false));
        assert_eq!(of(416, "InvalidRange"), (ErrorKind::InvalidRange, false));
    }

    #[test]
    fn an_error_says_what_was_asked_and_what_to_do() {
        let refusal = Refusal {
            status: 404,
            code: "NoSuchKey".to_owned(),
            message: "gone".to_owned(),
            request: "GET s3://b/k".to_owned(),
            ..Refusal::default()
        };
        let text = ClientError::refused(refusal).to_string();
        assert!(text.starts_with("GET s3://b/k: 404 NoSuchKey: gone; check the bucket"), "{text}");
    }
}
