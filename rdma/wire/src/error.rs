//! What is wrong with what a client sent, or asks for.

/// Why a token, a header or a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A header is missing or says what it can't.
    #[error("{header}: {why}")]
    Malformed {
        /// Its name in lower case.
        header: &'static str,
        /// What it should be.
        why: &'static str,
    },
    /// The size is past what the dialect can say.
    #[error("x-amz-rdma-size: a transfer has at most {max} bytes in this dialect")]
    TooLarge {
        /// Most bytes of one transfer.
        max: u64,
    },
    /// `x-amz-rdma-protocol` is absent or names another protocol.
    #[error("x-amz-rdma-protocol: this path speaks {spoken} alone")]
    Protocol {
        /// What is spoken.
        spoken: &'static str,
    },
    /// No such session: it never was, ended, or expired.
    #[error("x-amz-rdma-session: no such session; it may have expired")]
    UnknownSession,
    /// The session was prepared too long ago.
    #[error("x-amz-rdma-session: the session has expired; prepare another")]
    Expired,
    /// READY was said before.
    #[error("x-amz-rdma-session: the session is ready already")]
    AlreadyReady,
    /// The connection serves another request.
    #[error("the connection serves another request: one at a time")]
    Busy,
    /// The cookie is not the session's.
    #[error("x-amz-rdma-cookie: not the session's")]
    CookieMismatch,
    /// The session belongs to another access key.
    #[error("the session belongs to another access key")]
    OtherCredential,
    /// A limit is reached; something must end first.
    #[error("too many {what} at a time; try again a little later")]
    Full {
        /// Of what.
        what: &'static str,
    },
}

impl WireError {
    pub(crate) const fn malformed(header: &'static str, why: &'static str) -> Self {
        Self::Malformed { header, why }
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy)
    }
}
