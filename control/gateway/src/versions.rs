//! Versions of objects: looking one up, listing them, and turning versioning on.

use penstock_meta::tables::{self, BucketRow, ObjectRow, VersionName, Versioning};
use penstock_proto::limits;

use crate::api::{ListVersions, ListedVersion, VersionPage};
use crate::checksums;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, no_such_key};

impl Gateway {
    /// `PutBucketVersioning`: on, or suspended.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidBucketState when it is suspended under object lock.
    pub async fn put_bucket_versioning(&self, bucket: &str, enabled: bool) -> Result<()> {
        let _admitted = self.inner.admit()?;
        let versioning = if enabled { Versioning::Enabled } else { Versioning::Suspended };
        Ok(self.inner.tables.set_versioning(bucket, versioning).await?)
    }

    /// The version that a request names, or the current one.
    ///
    /// # Errors
    /// NoSuchKey (which says so when it is because of a delete marker), NoSuchVersion, InvalidArgument for what can't be a
    /// version's id; MethodNotAllowed when the named version is a delete marker.
    pub(crate) async fn lookup(&self, bucket: &BucketRow, key: &str, version_id: Option<&str>) -> Result<ObjectRow> {
        let tables = &self.inner.tables;
        let Some(text) = version_id else {
            if let Some(row) = tables.object(bucket.id, key).await? {
                return Ok(row);
            }
            let marker = match bucket.versioning {
                Versioning::Off => None,
                Versioning::Enabled | Versioning::Suspended => tables.current_marker(bucket.id, key).await?,
            };
            let missing = no_such_key(key);
            return Err(match marker {
                Some(marker) => missing.because_of_marker(&marker),
                None => missing,
            });
        };
        let row = tables.version(bucket.id, key, version_name(text)?).await?.ok_or_else(no_such_version)?;
        if row.version.marker {
            return Err(is_marker(&row));
        }
        Ok(row)
    }

    /// `ListObjectVersions`.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidArgument for a version marker that is none or comes without a key marker.
    pub async fn list_versions(&self, request: ListVersions) -> Result<VersionPage> {
        let _admitted = self.inner.admit()?;
        let ListVersions { bucket, prefix, delimiter, key_marker, version_id_marker, max_keys } = request;
        let after_version = version_id_marker.as_deref().map(version_name).transpose()?;
        if after_version.is_some() && key_marker.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "A version-id marker cannot be specified without a key marker.",
            ));
        }
        let bucket = self.inner.bucket(&bucket).await?;
        let asked = tables::ListVersions {
            prefix: &prefix,
            delimiter: &delimiter,
            key_marker: &key_marker,
            after_version,
            max: max_keys.min(limits::LIST_KEYS_MAX),
        };
        let page = self.inner.tables.list_versions(bucket.id, asked).await?;
        let mut versions = Vec::with_capacity(page.rows.len());
        for (key, row) in page.rows {
            let checksum = row.checksum.as_ref().map(checksums::from_row).transpose()?;
            versions.push(ListedVersion {
                key,
                version_id: row.version.id(),
                is_latest: row.version.superseded_unix_ms == 0,
                delete_marker: row.version.marker,
                size_bytes: row.size_bytes,
                etag: row.etag,
                modified_unix_ms: row.modified_unix_ms,
                storage_class: row.storage_class,
                checksum: checksum.map(|checksum| (checksum.value.algorithm(), checksum.kind)),
            });
        }
        Ok(VersionPage { versions, common_prefixes: page.prefixes, next: page.next })
    }
}

/// The version's id, where its bucket has or had versions: elsewhere S3 does not tell any.
pub(crate) fn version_id(bucket: &BucketRow, row: &ObjectRow) -> Option<String> {
    (bucket.versioning != Versioning::Off).then(|| row.version.id())
}

/// The id of a version that was just made. Of the null version S3 tells none: it makes no version.
pub(crate) fn made_version(version: &tables::VersionRow) -> Option<String> {
    (!version.null).then(|| version.id())
}

/// A version as a request names it.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn version_name(text: &str) -> Result<VersionName> {
    VersionName::parse(text).ok_or_else(|| {
        let message =
            if text.is_empty() { "Version id cannot be the empty string" } else { "Invalid version id specified" };
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

pub(crate) fn no_such_version() -> Error {
    Error::new(ErrorKind::NoSuchVersion, "The specified version does not exist.")
}

/// A delete marker can't be read.
pub(crate) fn is_marker(row: &ObjectRow) -> Error {
    let error = Error::new(
        ErrorKind::MethodNotAllowed,
        "The specified method is not allowed against this resource: it is a delete marker.",
    );
    error.because_of_marker(row)
}
