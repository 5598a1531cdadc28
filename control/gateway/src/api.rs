//! The gateway's operations as types: requests in, answers out, no HTTP and no XML.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use penstock_digest::{ChecksumAlgorithm, ChecksumValue};

pub use penstock_meta::tables::{
    BucketSetting, DefaultRetentionRow as DefaultRetention, LockRow as Lock, ObjectLockRow as ObjectLock,
    RetentionRow as Retention, Versioning,
};

pub use penstock_vault::CustomerKey;

pub use crate::encryption::{Encrypt, EncryptionInfo, KmsKey};
use crate::error::Error;
use crate::tags::Tags;

/// Object bytes on their way in or out. An `Err` ends the stream and fails the operation.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send + 'static>>;

/// Milliseconds since 1970-01-01 UTC.
pub type UnixMs = u64;

/// An ETag without its quotes: 32 hex digits, or `hex-N` for multipart objects.
pub type ETag = String;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_unix_ms: UnixMs,
    /// The LocationConstraint it was made with; empty for none.
    pub region: String,
    /// Whether it makes versions.
    pub versioning: Versioning,
    /// Whether its versions can be locked.
    pub lock: ObjectLock,
    /// The account that owns it; empty for the store's own.
    pub owner: String,
}

/// `CreateBucket`.
#[derive(Clone, Debug, Default)]
pub struct CreateBucket {
    /// Its name.
    pub name: String,
    /// The account that is to own it; empty for the store's own.
    pub owner: String,
    /// The LocationConstraint; empty for none.
    pub region: String,
    /// With object lock, and therefore versioning.
    pub object_lock: bool,
    /// Settings that it has from the beginning. The caller has checked what they say.
    pub settings: Vec<(BucketSetting, Vec<u8>)>,
}

/// An object, or one version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectName {
    /// In which bucket.
    pub bucket: String,
    /// Under which key.
    pub key: String,
    /// Which version; none is the current one.
    pub version_id: Option<String>,
}

/// What tells whether anything about a bucket has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketStamp {
    /// Its id: another bucket of the same name has another.
    pub id: u64,
    /// Changes with every change of its settings.
    pub settings_version: u64,
    /// Which settings it has: bit `n` is the [`BucketSetting`] of number `n`.
    pub settings: u64,
}

/// `ListBuckets`.
#[derive(Clone, Debug, Default)]
pub struct ListBuckets {
    /// Only names that start so.
    pub prefix: String,
    /// Only names after this one (a continuation token, decoded).
    pub after: Option<String>,
    /// At most so many; `None` is all.
    pub max: Option<usize>,
    /// Only those of this account (as [`BucketInfo::owner`]); `None` is all.
    pub owner: Option<String>,
}

/// A page of buckets, by name.
#[derive(Clone, Debug, Default)]
pub struct BucketPage {
    /// The buckets.
    pub buckets: Vec<BucketInfo>,
    /// Where the next page goes on, when there is one.
    pub next_after: Option<String>,
}

/// One side of an `If-Match` / `If-None-Match` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtagCondition {
    /// `*`: any existing object.
    Any,
    /// One of these ETags (unquoted; strong comparison).
    OneOf(Vec<ETag>),
}

/// Conditions on the object as it is before the operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Fail with PreconditionFailed (NoSuchKey on writes to an absent key) unless it matches.
    pub if_match: Option<EtagCondition>,
    /// Fail unless it does not match: PreconditionFailed on writes, NotModified on reads.
    pub if_none_match: Option<EtagCondition>,
    /// Reads: NotModified unless modified after (whole seconds).
    pub if_modified_since: Option<UnixMs>,
    /// Reads: PreconditionFailed if modified after (whole seconds).
    pub if_unmodified_since: Option<UnixMs>,
    /// DeleteObject: fail unless the size is this.
    pub if_match_size: Option<u64>,
    /// DeleteObject: fail unless last modified in this second.
    pub if_match_last_modified: Option<UnixMs>,
}

/// Headers that S3 stores with an object and returns as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as it was sent.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location` is not taken (501). User metadata: names in lower case without `x-amz-meta-`, sorted.
    pub user_metadata: Vec<(String, String)>,
}

/// How a stored checksum covers a multipart object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumType {
    /// Of all bytes.
    FullObject,
    /// Of the parts' checksums: `value-N`.
    Composite,
}

/// A checksum that an object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChecksum {
    /// The value.
    pub value: ChecksumValue,
    /// What it covers.
    pub kind: ChecksumType,
    /// For composite checksums, the number of parts.
    pub parts: Option<u32>,
}

/// What a client says the body's checksum is.
#[derive(Clone, Default)]
pub struct BodyDigests {
    /// `Content-MD5`, decoded.
    pub md5: Option<[u8; 16]>,
    /// `x-amz-checksum-*` of the headers.
    pub checksum: Option<ChecksumValue>,
    /// The algorithm of a trailing checksum: computed as the body passes; `trailer` is asked for its value once the body has ended.
    pub trailing: Option<TrailingChecksum>,
    /// An algorithm to compute and store though no value was sent (`x-amz-sdk-checksum-algorithm` alone).
    pub compute: Option<ChecksumAlgorithm>,
    /// The SHA-256 that the request's signature covers (`x-amz-content-sha256`), where the body has still to be held
    /// against it.
    pub payload_sha256: Option<[u8; 32]>,
}

/// A checksum that comes after the body.
#[derive(Clone)]
pub struct TrailingChecksum {
    /// Its algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// Asked once after the last byte: the trailer's value, or the error to answer when it is missing or malformed.
    pub value: std::sync::Arc<dyn Fn() -> Result<ChecksumValue, Error> + Send + Sync>,
}

/// `PutObject`.
pub struct PutObject {
    /// Where.
    pub bucket: String,
    /// Under which key.
    pub key: String,
    /// The bytes.
    pub body: ByteStream,
    /// How many there must be; `None` when the client does not say.
    pub content_bytes: Option<u64>,
    /// What they must hash to.
    pub digests: BodyDigests,
    /// Stored headers.
    pub headers: ObjectHeaders,
    /// `x-amz-storage-class`, `STANDARD` when empty. It must have a policy ([`crate::policies`]).
    pub storage_class: String,
    /// If-Match / If-None-Match.
    pub conditions: Conditions,
    /// Its tags.
    pub tags: Tags,
    /// Its retention and legal hold.
    pub lock: Lock,
    /// How it is to be encrypted.
    pub encryption: Option<Encrypt>,
}

/// What a PUT made.
#[derive(Clone, Debug)]
pub struct PutDone {
    /// The object's ETag.
    pub etag: ETag,
    /// Its stored checksum (CRC64NVME when the client sent none).
    pub checksum: Option<ObjectChecksum>,
    /// Its size.
    pub size_bytes: u64,
    /// When it became visible.
    pub modified_unix_ms: UnixMs,
    /// Its version, where the bucket makes versions.
    pub version_id: Option<String>,
    /// Of a copy: which version its source was, likewise.
    pub source_version_id: Option<String>,
    /// When it will expire, and by which rule.
    pub expiration: Option<(UnixMs, String)>,
    /// How it is encrypted.
    pub encryption: Option<EncryptionInfo>,
}

/// A range of an object as HTTP writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=first-last`, both included; `last` may be past the end.
    FromTo(u64, u64),
    /// `bytes=first-`.
    From(u64),
    /// `bytes=-n`: the last n.
    Last(u64),
}

/// `GetObject` and `HeadObject`.
#[derive(Clone, Debug, Default)]
pub struct GetObject {
    /// Where.
    pub bucket: String,
    /// Which.
    pub key: String,
    /// Which bytes; excludes `part_number`.
    pub range: Option<RangeSpec>,
    /// Which part, from 1.
    pub part_number: Option<u32>,
    /// Conditions.
    pub conditions: Conditions,
    /// Which version; none is the current one.
    pub version_id: Option<String>,
    /// The key of an object that is encrypted with the client's own.
    pub customer_key: Option<CustomerKey>,
}

/// What is known of an object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its key.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    pub etag: ETag,
    /// When it became visible.
    pub modified_unix_ms: UnixMs,
    /// Stored headers.
    pub headers: ObjectHeaders,
    /// Its checksum.
    pub checksum: Option<ObjectChecksum>,
    /// `STANDARD`.
    pub storage_class: String,
    /// For objects from multipart uploads, how many parts.
    pub parts: Option<u32>,
    /// Which version it is, where the bucket has or had versions.
    pub version_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// Its retention and legal hold.
    pub lock: Lock,
    /// When it will expire, and by which rule.
    pub expiration: Option<(UnixMs, String)>,
    /// How it is encrypted.
    pub encryption: Option<EncryptionInfo>,
}

/// The answer to `GetObjectAttributes`.
#[derive(Clone, Debug)]
pub struct ObjectAttributes {
    /// The object.
    pub info: ObjectInfo,
    /// Parts of an object from a multipart upload.
    pub parts: Vec<PartInfo>,
    /// Whether more parts follow.
    pub more: bool,
}

/// The answer to `GetObject` and `HeadObject`.
pub struct ObjectRead {
    /// The object.
    pub info: ObjectInfo,
    /// The bytes that were asked for, of `info.size_bytes`. The whole object when no range was.
    pub range: Range<u64>,
    /// Whether to answer 206 (a range or a part was asked for).
    pub partial: bool,
    /// The bytes; absent for HeadObject.
    pub body: Option<ByteStream>,
}

/// `DeleteObject`, and each entry of `DeleteObjects`.
#[derive(Clone, Debug, Default)]
pub struct DeleteObject {
    /// Where.
    pub bucket: String,
    /// Which.
    pub key: String,
    /// Conditions (if_match, if_match_size, if_match_last_modified).
    pub conditions: Conditions,
    /// Which version is to be gone for good; none makes a delete marker where the bucket makes versions.
    pub version_id: Option<String>,
    /// Retention in governance mode does not count.
    pub bypass_governance: bool,
}

/// What a delete did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The delete marker that was made, or the version that was named, where the bucket has or had versions.
    pub version_id: Option<String>,
    /// Whether that is a delete marker.
    pub delete_marker: bool,
}

/// Where a copy takes its headers from.
#[derive(Clone, Debug)]
pub enum MetadataDirective {
    /// From the source.
    Copy,
    /// From the request.
    Replace(ObjectHeaders),
}

/// The source of a copy.
#[derive(Clone, Debug, Default)]
pub struct CopySource {
    /// Where from.
    pub bucket: String,
    /// Which.
    pub key: String,
    /// `x-amz-copy-source-if-*`.
    pub conditions: Conditions,
    /// Which version; none is the current one.
    pub version_id: Option<String>,
    /// The key of a source that is encrypted with the client's own.
    pub customer_key: Option<CustomerKey>,
}

/// `CopyObject`.
#[derive(Clone, Debug)]
pub struct CopyObject {
    /// From.
    pub source: CopySource,
    /// To which bucket.
    pub bucket: String,
    /// To which key.
    pub key: String,
    /// Headers.
    pub metadata: MetadataDirective,
    /// A checksum algorithm to compute anew.
    pub checksum: Option<ChecksumAlgorithm>,
    /// As in [`PutObject`].
    pub storage_class: String,
    /// If-Match / If-None-Match on the destination.
    pub conditions: Conditions,
    /// Its tags; none are those of the source.
    pub tags: Option<Tags>,
    /// Its retention and legal hold: they are never the source's.
    pub lock: Lock,
    /// How it is to be encrypted: never as the source because the source is.
    pub encryption: Option<Encrypt>,
}

/// `RenameObject`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenameObject {
    /// In which bucket.
    pub bucket: String,
    /// From which key.
    pub source: String,
    /// To which key.
    pub key: String,
    /// Conditions on what is at the destination, and when it was modified.
    pub conditions: Conditions,
    /// Conditions on the source.
    pub source_conditions: Conditions,
    /// Makes a repeated request do nothing.
    pub token: Option<String>,
}

/// `ListObjects` and `ListObjectsV2`: both are this.
#[derive(Clone, Debug, Default)]
pub struct ListObjects {
    /// Where.
    pub bucket: String,
    /// Only keys that start so.
    pub prefix: String,
    /// Keys are rolled up to the first of these after the prefix; empty for none. Any length.
    pub delimiter: String,
    /// Only keys (and common prefixes) after this one: start-after, marker, or a decoded continuation token.
    pub after: String,
    /// At most so many keys and common prefixes, 0 to [`penstock_proto::limits::LIST_KEYS_MAX`].
    pub max_keys: usize,
}

/// One key of a page.
#[derive(Clone, Debug)]
pub struct ListedObject {
    /// The key.
    pub key: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    pub etag: ETag,
    /// When it became visible.
    pub modified_unix_ms: UnixMs,
    /// `STANDARD`.
    pub storage_class: String,
    /// The algorithm and type of its checksum.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct ObjectPage {
    /// Keys, ascending by their bytes.
    pub objects: Vec<ListedObject>,
    /// Common prefixes, ascending.
    pub common_prefixes: Vec<String>,
    /// What to pass as `after` for the next page: the last key or common prefix of this one. `None` on the last page.
    pub next_after: Option<String>,
}

/// `ListObjectVersions`.
#[derive(Clone, Debug, Default)]
pub struct ListVersions {
    /// Where.
    pub bucket: String,
    /// As in [`ListObjects`].
    pub prefix: String,
    /// As in [`ListObjects`].
    pub delimiter: String,
    /// Only keys after this one (and with `version_id_marker` what comes after that version of it).
    pub key_marker: String,
    /// A version of `key_marker`.
    pub version_id_marker: Option<String>,
    /// At most so many versions and common prefixes.
    pub max_keys: usize,
}

/// One version of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// The key.
    pub key: String,
    /// Its id, or `null`.
    pub version_id: String,
    /// Whether it is the current one.
    pub is_latest: bool,
    /// Whether it is a delete marker: then what follows but for the time is empty.
    pub delete_marker: bool,
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag.
    pub etag: ETag,
    /// When it became visible.
    pub modified_unix_ms: UnixMs,
    /// `STANDARD`.
    pub storage_class: String,
    /// The algorithm and type of its checksum.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A page of versions, by key, then newest first.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    /// The versions.
    pub versions: Vec<ListedVersion>,
    /// Common prefixes.
    pub common_prefixes: Vec<String>,
    /// Markers of the next page, when there is one.
    pub next: Option<(String, Option<String>)>,
}

/// `CreateMultipartUpload`.
#[derive(Clone, Debug, Default)]
pub struct CreateUpload {
    /// Where.
    pub bucket: String,
    /// Which key.
    pub key: String,
    /// Stored headers of the object to be.
    pub headers: ObjectHeaders,
    /// `x-amz-checksum-algorithm` and `x-amz-checksum-type`.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// As in [`PutObject`].
    pub storage_class: String,
    /// Tags of the object to be.
    pub tags: Tags,
    /// Retention and legal hold of the object to be.
    pub lock: Lock,
    /// How the object to be is to be encrypted.
    pub encryption: Option<Encrypt>,
}

/// `UploadPart`.
pub struct UploadPart {
    /// Where.
    pub bucket: String,
    /// Which key.
    pub key: String,
    /// Which upload.
    pub upload_id: String,
    /// 1 to 10,000.
    pub part_number: u32,
    /// The bytes.
    pub body: ByteStream,
    /// How many there must be.
    pub content_bytes: Option<u64>,
    /// What they must hash to.
    pub digests: BodyDigests,
    /// The key of an upload that is encrypted with the client's own.
    pub customer_key: Option<CustomerKey>,
}

/// `UploadPartCopy`.
#[derive(Clone, Debug)]
pub struct UploadPartCopy {
    /// From.
    pub source: CopySource,
    /// `x-amz-copy-source-range`, which must lie within the source.
    pub range: Option<RangeSpec>,
    /// Where.
    pub bucket: String,
    /// Which key.
    pub key: String,
    /// Which upload.
    pub upload_id: String,
    /// 1 to 10,000.
    pub part_number: u32,
    /// The key of an upload that is encrypted with the client's own.
    pub customer_key: Option<CustomerKey>,
}

/// A part named in `CompleteMultipartUpload`.
#[derive(Clone, Debug)]
pub struct CompletedPart {
    /// Its number.
    pub part_number: u32,
    /// Its ETag.
    pub etag: ETag,
    /// Its checksum, when the client names it.
    pub checksum: Option<ChecksumValue>,
}

/// `CompleteMultipartUpload`.
#[derive(Clone, Debug, Default)]
pub struct CompleteUpload {
    /// Where.
    pub bucket: String,
    /// Which key.
    pub key: String,
    /// Which upload.
    pub upload_id: String,
    /// Its parts, ascending.
    pub parts: Vec<CompletedPart>,
    /// `x-amz-mp-object-size`.
    pub object_bytes: Option<u64>,
    /// The full object's checksum, when the client sends it.
    pub checksum: Option<ChecksumValue>,
    /// If-Match / If-None-Match.
    pub conditions: Conditions,
    /// The key of an upload that is encrypted with the client's own, if it is sent again.
    pub customer_key: Option<CustomerKey>,
}

/// `ListParts`.
#[derive(Clone, Debug, Default)]
pub struct ListParts {
    /// Where.
    pub bucket: String,
    /// Which key.
    pub key: String,
    /// Which upload.
    pub upload_id: String,
    /// Only parts after this number.
    pub after: u32,
    /// At most so many.
    pub max_parts: usize,
}

/// One uploaded part.
#[derive(Clone, Debug)]
pub struct PartInfo {
    /// Its number.
    pub part_number: u32,
    /// Its ETag.
    pub etag: ETag,
    /// Its size.
    pub size_bytes: u64,
    /// When it came.
    pub modified_unix_ms: UnixMs,
    /// Its checksum.
    pub checksum: Option<ChecksumValue>,
    /// Of a copied part: which version its source was, where that bucket has or had versions.
    pub source_version_id: Option<String>,
    /// How it is encrypted; not known in listings.
    pub encryption: Option<EncryptionInfo>,
}

/// A page of parts.
#[derive(Clone, Debug, Default)]
pub struct PartPage {
    /// Ascending by number.
    pub parts: Vec<PartInfo>,
    /// Whether more follow.
    pub more: bool,
    /// The upload's checksum algorithm and type.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// `STANDARD`.
    pub storage_class: String,
}

/// `ListMultipartUploads`.
#[derive(Clone, Debug, Default)]
pub struct ListUploads {
    /// Where.
    pub bucket: String,
    /// As in [`ListObjects`].
    pub prefix: String,
    /// As in [`ListObjects`].
    pub delimiter: String,
    /// Only keys after this one (all uploads of the key itself are skipped unless `upload_id_marker` is given).
    pub key_marker: String,
    /// With `key_marker`: also that key's uploads after this id.
    pub upload_id_marker: String,
    /// At most so many.
    pub max_uploads: usize,
}

/// One open upload.
#[derive(Clone, Debug)]
pub struct UploadInfo {
    /// Its key.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it was begun.
    pub initiated_unix_ms: UnixMs,
    /// `STANDARD`.
    pub storage_class: String,
    /// Its checksum algorithm and type.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A page of open uploads, by key, then by when they were begun.
#[derive(Clone, Debug, Default)]
pub struct UploadPage {
    /// The uploads.
    pub uploads: Vec<UploadInfo>,
    /// Common prefixes.
    pub common_prefixes: Vec<String>,
    /// Markers of the next page, when there is one.
    pub next: Option<(String, String)>,
}
