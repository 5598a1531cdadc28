//! Everything that can go wrong here, in coarse kinds.

use penstock_buf::BufError;
use penstock_proto::ShardKey;

use crate::device::DeviceError;

/// Why the store says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such shard: never stored, or deleted.
    #[error("there is no such shard on this device")]
    NoSuchShard,
    /// The device gave back other bytes than were stored, or the shard stored is not the one asked for.
    #[error("shard {key} is corrupt: {what}")]
    Corrupt {
        /// Which shard.
        key: ShardKey,
        /// What does not match.
        what: String,
    },
    /// The payload of a put does not have the checksum that came with it.
    #[error("the payload has CRC64NVME {actual:016x}, but {expected:016x} was announced")]
    ChecksumMismatch {
        /// What the caller said.
        expected: u64,
        /// What the bytes have.
        actual: u64,
    },
    /// No room for more shards. Reads and deletes go on; room comes back as data is deleted.
    #[error("no space is left on the device")]
    NoSpace,
    /// A write or a flush failed: the device takes no more writes until it is replaced. Reads go on.
    #[error("the device has failed and takes no more writes: {reason}")]
    DeviceFailed {
        /// What happened.
        reason: String,
    },
    /// The data was deleted; late puts of it are refused.
    #[error("the data was deleted")]
    DataDeleted,
    /// A shard with this key is stored already, with other bytes.
    #[error("another shard is stored under this key")]
    Conflict,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The range asked for is empty or ends past the shard, or a shard to store is empty or too long.
    #[error("the range or the length is out of bounds: the shard has {shard_bytes} bytes")]
    OutOfRange {
        /// How long the shard is, or would have been.
        shard_bytes: u64,
    },
    /// The device does not hold what a Penstock device holds, or options make no sense.
    #[error("{what}")]
    Format {
        /// What is wrong and what to do.
        what: String,
    },
    /// The device could not be read, opened or made.
    #[error("{operation}: {reason}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        reason: String,
    },
    /// No buffer came free in time.
    #[error(transparent)]
    Buffers(#[from] BufError),
}

impl StoreError {
    /// Whether the same call may succeed on the same store soon.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Buffers(error) if error.is_retryable())
    }

    pub(crate) fn format(what: impl Into<String>) -> Self {
        Self::Format { what: what.into() }
    }
}

impl From<DeviceError> for StoreError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::NoSpace => Self::NoSpace,
            DeviceError::Closed => Self::Closed,
            DeviceError::Io { operation, reason } => Self::Io { operation, reason },
        }
    }
}
