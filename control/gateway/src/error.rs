//! What an operation answers when it can't be done. Kinds are S3's error codes; control/s3 turns them into HTTP.

use std::borrow::Cow;

/// The S3 error code of a failure (`ErrorResponse.Code`), as far as the gateway can cause it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 404: no such bucket.
    NoSuchBucket,
    /// 404: no such object.
    NoSuchKey,
    /// 404: no such version of an object.
    NoSuchVersion,
    /// 405: the version that was asked for is a delete marker.
    MethodNotAllowed,
    /// 403: an object lock forbids it.
    AccessDenied,
    /// 409: versioning must be on for object lock, and stays on with it.
    InvalidBucketState,
    /// 404: the bucket has no object lock.
    ObjectLockConfigurationNotFoundError,
    /// 400: a default retention of no or too much time.
    InvalidRetentionPeriod,
    /// 404: no such multipart upload (never was, completed, or aborted).
    NoSuchUpload,
    /// 409: the bucket exists and is yours.
    BucketAlreadyOwnedByYou,
    /// 409: the bucket exists and belongs to somebody else.
    BucketAlreadyExists,
    /// 409: objects or uploads are left in it.
    BucketNotEmpty,
    /// 400: more buckets than the limit.
    TooManyBuckets,
    /// 400: the name breaks the naming rules.
    InvalidBucketName,
    /// 400: the key is longer than 1,024 bytes.
    KeyTooLongError,
    /// 412: a condition of the request does not hold.
    PreconditionFailed,
    /// 304: a conditional read whose object is unchanged.
    NotModified,
    /// 409: another conditional request on the same key was decided at the same time; try again.
    ConditionalRequestConflict,
    /// 416: the range starts past the object's end.
    InvalidRange,
    /// 416: part number past the object's parts.
    InvalidPartNumber,
    /// 400: Content-MD5 or an x-amz-checksum of the request does not match the body.
    BadDigest,
    /// 400: the body does not have the SHA-256 that the request's signature covers.
    ContentSha256Mismatch,
    /// 400: a digest header that is not one.
    InvalidDigest,
    /// 400: the body ended before Content-Length.
    IncompleteBody,
    /// 400: the body or part is larger than allowed.
    EntityTooLarge,
    /// 400: a part other than the last is under 5 MiB.
    EntityTooSmall,
    /// 400: a part named in CompleteMultipartUpload is missing or has another ETag.
    InvalidPart,
    /// 400: the parts are not in ascending order.
    InvalidPartOrder,
    /// 400: user metadata is larger than allowed.
    MetadataTooLarge,
    /// 400: a document that does not say what it should.
    MalformedXml,
    /// 400: a tag, or a set of them, that breaks the rules.
    InvalidTag,
    /// 400: an argument is out of range; the message names it.
    InvalidArgument,
    /// 400: a storage class that has no policy here.
    InvalidStorageClass,
    /// 400: the request contradicts itself; the message says how.
    InvalidRequest,
    /// 400: the client was silent for too long.
    RequestTimeout,
    /// 503: too much at once; come back after [`crate::error::Error::retry_after`].
    SlowDown,
    /// 507 in effect, 503 on the wire: the disks are full. Reads and deletes go on.
    InsufficientStorage,
    /// 503: too few nodes answer; nothing was stored or nothing can be read now.
    ServiceUnavailable,
    /// 400: a client token that came with other parameters before.
    IdempotencyParameterMismatch,
    /// 400: SSE-KMS names a key that is not there.
    KmsNotFound,
    /// 400: SSE-KMS names a key that is turned off.
    KmsDisabled,
    /// 501: not built (yet); the message names it.
    NotImplemented,
    /// 500: our fault; the message says where to look.
    InternalError,
}

/// A failed operation: what kind, and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind:?}: {message}")]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// What is wrong and what to do.
    pub message: Cow<'static, str>,
    /// The delete marker that is the reason.
    pub marker: Option<Marker>,
}

/// A delete marker that a request ran into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Its version.
    pub version_id: String,
    /// When it was made.
    pub modified_unix_ms: u64,
}

/// What operations return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), marker: None }
    }

    /// The error with its reason.
    pub(crate) fn because_of_marker(mut self, row: &penstock_meta::tables::ObjectRow) -> Self {
        self.marker = Some(Marker { version_id: row.version.id(), modified_unix_ms: row.modified_unix_ms });
        self
    }

    /// Whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind as K;
        matches!(
            self.kind,
            K::SlowDown
                | K::ServiceUnavailable
                | K::ConditionalRequestConflict
                | K::InsufficientStorage
                | K::RequestTimeout
        )
    }
}
