//! The one error of the tables.

use penstock_proto::DataId;

use super::PreconditionFailure;
use crate::kv::{KvError, TransactError};

/// Why an operation on the tables failed. Nothing was changed unless [`KvError::may_have_committed`] says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// No bucket of that name, or not the one that was looked up before (deleted and made again since).
    #[error("there is no such bucket")]
    NoSuchBucket,
    /// A bucket of that name exists.
    #[error("the bucket exists already")]
    BucketExists,
    /// `limits::BUCKETS_MAX` buckets exist.
    #[error("there are {} buckets, as many as there may be", penstock_proto::limits::BUCKETS_MAX)]
    TooManyBuckets,
    /// Objects or open uploads are left in it.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// Versioning must be on before object lock is, and stays on while it is.
    #[error("the bucket's versioning and object lock depend on each other")]
    BucketLocked,
    /// A version is under retention or legal hold.
    #[error("the version is locked")]
    Locked,
    /// A lock for an object in a bucket without object lock.
    #[error("the bucket has no object lock")]
    NoObjectLock,
    /// No open upload of that id under that key: it never was, was completed, or was aborted.
    #[error("there is no such upload")]
    NoSuchUpload,
    /// The upload's parts are not those that the caller saw: read them again, decide again.
    #[error("the upload's parts changed meanwhile")]
    PartsChanged,
    /// A condition on the object as it is does not hold.
    #[error(transparent)]
    Precondition(#[from] PreconditionFailure),
    /// The data is not pending: its lease ran out and it is being collected, or it was never begun. Write it again
    /// under a new id.
    #[error("the write of {data} is not open (any more)")]
    WriteExpired {
        /// Which data.
        data: DataId,
    },
    /// An empty key, or one longer than `limits::KEY_BYTES_MAX`.
    #[error("an object key has 1 to {} bytes", penstock_proto::limits::KEY_BYTES_MAX)]
    KeyLength,
    /// A row would be larger than a row may be. For objects: headers and user metadata are too large.
    #[error("the {row} row would have {bytes} bytes, at most {max} fit")]
    RowTooLarge {
        /// Which kind of row.
        row: &'static str,
        /// Its encoded length.
        bytes: usize,
        /// What fits.
        max: usize,
    },
    /// A bucket setting is larger than [`super::BUCKET_SETTING_BYTES_MAX`].
    #[error("a bucket setting of {bytes} bytes is too large, at most {} fit", super::BUCKET_SETTING_BYTES_MAX)]
    SettingTooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The caller's row contradicts itself. A programmer's error.
    #[error("the caller's row makes no sense: {0}")]
    BadRow(&'static str),
    /// A stored row can't be read: another version, or bytes that are no row.
    #[error("the stored {row} row can't be read: {why}")]
    Unreadable {
        /// Which kind of row.
        row: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The key-value store failed.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl TablesError {
    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Kv(error) => error.is_retryable(),
            Self::PartsChanged => true,
            _ => false,
        }
    }

    /// Whether the operation may have taken effect in spite of the error. Such data must not be reused; aborting it is
    /// right (it is a no-op if the operation did take effect).
    pub fn may_have_committed(&self) -> bool {
        matches!(self, Self::Kv(error) if error.may_have_committed())
    }
}

impl TransactError for TablesError {
    fn as_kv_error(&self) -> Option<&KvError> {
        match self {
            Self::Kv(error) => Some(error),
            _ => None,
        }
    }
}
