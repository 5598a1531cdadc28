//! What can be wrong with names and bytes that come from outside.

use crate::ChecksumAlgorithm;

/// A checksum's name or bytes make no sense. Never retryable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No algorithm has this name.
    #[error("no checksum algorithm is called {name:?}")]
    UnknownAlgorithm {
        /// The name.
        name: String,
    },
    /// A value has another length than its algorithm's.
    #[error("a {algorithm} value has {} bytes, not {have_bytes}", algorithm.digest_bytes())]
    WrongLength {
        /// The algorithm.
        algorithm: ChecksumAlgorithm,
        /// Bytes that were given.
        have_bytes: usize,
    },
}

impl DigestError {
    /// Always false: the same input gives the same answer.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}
