//! The one error of the key-value layer.

/// Why a key-value operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Another transaction committed a write to something this one read. Nothing was written.
    #[error("the transaction conflicts with another that committed first")]
    Conflict,
    /// The commit may or may not have happened; only reading can tell. [`crate::kv::transact`] finds out by itself.
    #[error("the commit's outcome is unknown")]
    CommitUnknown,
    /// The transaction outlived `limits::TRANSACTION_LIFETIME`, or the window of recent writes moved past it.
    #[error("the transaction is too old")]
    TooOld,
    /// The transaction writes, clears or reads more than one transaction may.
    #[error("the transaction is too large: {size} {what}, at most {max}")]
    TooLarge {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much there is (at least).
        size: usize,
        /// How much there may be.
        max: usize,
    },
    /// A key is longer than `limits::ROW_KEY_BYTES_MAX`, or empty.
    #[error("a row key must have 1 to {} bytes", penstock_proto::limits::ROW_KEY_BYTES_MAX)]
    KeyTooLong,
    /// A value is longer than `limits::ROW_VALUE_BYTES_MAX`.
    #[error("a row value has at most {} bytes", penstock_proto::limits::ROW_VALUE_BYTES_MAX)]
    ValueTooLong,
    /// A key lies at or above [`crate::kv::RESERVED_FROM`], where the engines keep their own rows.
    #[error("the key lies in the range that the engine keeps for itself")]
    KeyReserved,
    /// `atomic_add` met a row whose value is not 8 bytes long.
    #[error("the row {} is not an 8-byte counter", key.escape_ascii())]
    NotACounter {
        /// The row's key.
        key: Vec<u8>,
    },
    /// A stored row fails its checksum. Its bytes were not returned.
    #[error("the row {} is corrupt: {what}", key.escape_ascii())]
    Corrupt {
        /// The row's key.
        key: Vec<u8>,
        /// What was found wrong.
        what: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The commit queue is full. Nothing was written.
    #[error("the store is busy: its commit queue is full")]
    Busy,
    /// The disk is full, but for what is kept back for transactions that make room. Nothing was written.
    #[error("the disk that holds the metadata is full: delete objects, or make room on it; reads go on")]
    NoSpace,
    /// The engine failed in a way that trying again will not mend.
    #[error("the storage engine failed: {0}")]
    Engine(String),
}

impl KvError {
    /// Whether running the whole transaction again may succeed. After [`KvError::CommitUnknown`] the first run may have
    /// taken effect, so only a caller that is idempotent, as [`crate::kv::transact`] makes it, may do so.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict | Self::CommitUnknown | Self::TooOld | Self::Busy)
    }

    /// Whether the transaction may have committed in spite of the error.
    pub fn may_have_committed(&self) -> bool {
        matches!(self, Self::CommitUnknown)
    }
}
