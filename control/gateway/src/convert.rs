//! Between what the API says and what rows hold, and from the other rooms' errors to S3's.

use penstock_executor::{ExecutorError, FailureKind};
use penstock_meta::kv::KvError;
use penstock_meta::tables::{BucketRow, HeadersRow, ObjectRow, PreconditionFailure, TablesError};

use crate::api::{ObjectHeaders, ObjectInfo};
use crate::checksums;
use crate::conditions;
use crate::error::{Error, ErrorKind, Result};
use crate::{encryption, locks, versions};

pub(crate) fn headers_to_row(headers: ObjectHeaders) -> HeadersRow {
    let ObjectHeaders {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        expires,
        user_metadata,
    } = headers;
    HeadersRow {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        expires,
        user_metadata,
    }
}

pub(crate) fn headers_from_row(row: HeadersRow) -> ObjectHeaders {
    let HeadersRow {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        expires,
        user_metadata,
    } = row;
    ObjectHeaders {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        expires,
        user_metadata,
    }
}

/// What is told of an object.
///
/// # Errors
/// InternalError when its row makes no sense.
pub(crate) fn object_info(bucket: &BucketRow, key: String, row: ObjectRow) -> Result<ObjectInfo> {
    Ok(ObjectInfo {
        version_id: versions::version_id(bucket, &row),
        expiration: None,
        encryption: row.encryption.as_ref().map(encryption::info),
        tags: row.tags,
        lock: row.lock,
        key,
        size_bytes: row.size_bytes,
        etag: row.etag,
        modified_unix_ms: row.modified_unix_ms,
        headers: headers_from_row(row.headers),
        checksum: row.checksum.as_ref().map(checksums::from_row).transpose()?,
        storage_class: row.storage_class,
        parts: row.parts,
    })
}

impl From<PreconditionFailure> for Error {
    fn from(failure: PreconditionFailure) -> Self {
        match failure {
            PreconditionFailure::NoSuchKey => {
                Self::new(ErrorKind::NoSuchKey, "The specified key does not exist, so the condition can't hold.")
            }
            PreconditionFailure::Failed => conditions::failed(),
        }
    }
}

impl From<TablesError> for Error {
    fn from(error: TablesError) -> Self {
        let kind = match &error {
            TablesError::Precondition(failure) => return (*failure).into(),
            TablesError::NoObjectLock => return locks::no_object_lock(),
            TablesError::Locked => {
                let message = "Access Denied because object protected by object lock.";
                return Self::new(ErrorKind::AccessDenied, message);
            }
            TablesError::BucketLocked => {
                let message = "Object Lock needs versioning to be enabled, and an Object Lock configuration on a bucket keeps \
                               its versioning state from being changed.";
                return Self::new(ErrorKind::InvalidBucketState, message);
            }
            TablesError::NoSuchBucket => ErrorKind::NoSuchBucket,
            TablesError::BucketExists => ErrorKind::BucketAlreadyOwnedByYou,
            TablesError::TooManyBuckets => ErrorKind::TooManyBuckets,
            TablesError::BucketNotEmpty => ErrorKind::BucketNotEmpty,
            TablesError::NoSuchUpload => ErrorKind::NoSuchUpload,
            TablesError::PartsChanged => ErrorKind::SlowDown,
            TablesError::WriteExpired { .. } => ErrorKind::ServiceUnavailable,
            TablesError::KeyLength => ErrorKind::KeyTooLongError,
            TablesError::RowTooLarge { .. } => ErrorKind::MetadataTooLarge,
            TablesError::SettingTooLarge { .. } => ErrorKind::InvalidRequest,
            TablesError::BadRow(_) | TablesError::Unreadable { .. } => ErrorKind::InternalError,
            TablesError::Kv(KvError::Conflict | KvError::TooOld | KvError::Busy) => ErrorKind::SlowDown,
            TablesError::Kv(KvError::CommitUnknown | KvError::Closed) => ErrorKind::ServiceUnavailable,
            TablesError::Kv(KvError::NoSpace) => ErrorKind::InsufficientStorage,
            TablesError::Kv(_) => ErrorKind::InternalError,
        };
        if kind == ErrorKind::InternalError {
            tracing::error!(%error, "metadata");
        }
        Self::new(kind, format!("Metadata: {error}."))
    }
}

impl From<ExecutorError> for Error {
    fn from(error: ExecutorError) -> Self {
        let kind = match &error {
            ExecutorError::NoSpace => ErrorKind::InsufficientStorage,
            ExecutorError::Busy { .. } => ErrorKind::SlowDown,
            // Nodes that have too much to do are to be left in peace for a moment.
            ExecutorError::QuorumNotMet { failures, .. } | ExecutorError::TooFewShards { failures, .. }
                if 2 * (failures.of_kind(FailureKind::Busy) + failures.of_kind(FailureKind::Buffers))
                    >= failures.0.len()
                    && !failures.0.is_empty() =>
            {
                ErrorKind::SlowDown
            }
            ExecutorError::QuorumNotMet { .. }
            | ExecutorError::TooFewShards { .. }
            | ExecutorError::Deadline { .. } => ErrorKind::ServiceUnavailable,
            _ => ErrorKind::InternalError,
        };
        if kind == ErrorKind::InternalError {
            tracing::error!(%error, "data path");
        }
        Self::new(kind, format!("Storage nodes: {error}."))
    }
}

#[cfg(test)]
mod tests {
    use penstock_executor::{Failures, ShardFailure};
    use penstock_proto::{DataId, NodeId};

    use super::*;

    #[test]
    fn busy_nodes_are_a_reason_to_slow_down_and_absent_ones_are_none() {
        let kind = |kinds: &[FailureKind]| {
            let failure =
                |kind: &FailureKind| ShardFailure { shard: 0, node: NodeId(1), kind: *kind, message: String::new() };
            let failures = Failures(kinds.iter().map(failure).collect());
            Error::from(ExecutorError::QuorumNotMet { data: DataId(1), stripe: 0, durable: 1, need: 5, failures }).kind
        };
        assert_eq!(kind(&[FailureKind::Busy, FailureKind::Unreachable]), ErrorKind::SlowDown);
        assert_eq!(
            kind(&[FailureKind::Busy, FailureKind::Unreachable, FailureKind::Deadline]),
            ErrorKind::ServiceUnavailable
        );
        assert_eq!(kind(&[]), ErrorKind::ServiceUnavailable);
    }
}
