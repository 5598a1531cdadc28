//! CopyObject and UploadPartCopy: the source's read stream is the destination's body, nothing else.

use penstock_meta::tables::{BucketRow, ObjectRow};
use penstock_proto::limits;

use crate::api::{
    BodyDigests, ByteStream, CopyObject, CopySource, MetadataDirective, PartInfo, PutDone, UploadPartCopy,
};
use crate::checksums;
use crate::conditions;
use crate::convert::headers_from_row;
use crate::encryption;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{self, Way};
use crate::gateway::Gateway;
use crate::names;
use crate::objects::NewObject;
use crate::pack::store_object;
use crate::ranges;
use crate::read::Cursor;
use crate::tags;
use crate::versions::version_id;

/// How often a copy looks its source up again because the one it found was being collected.
const LOOKUPS_MAX: usize = 4;

impl Gateway {
    /// `CopyObject`. The copy has one part whatever the source has, so its ETag is the MD5 of its bytes.
    ///
    /// # Errors
    /// NoSuchKey and PreconditionFailed of either side; InvalidRequest for a source over 5 GiB and for a copy onto itself
    /// that changes nothing; as [`Gateway::put_object`].
    pub async fn copy_object(&self, request: CopyObject) -> Result<PutDone> {
        let _admitted = self.inner.admit()?;
        let CopyObject { source, bucket, key, metadata, checksum, storage_class, conditions, tags, .. } = request;
        let (lock, encryption) = (request.lock, request.encryption);
        names::check_key(&key)?;
        if let Some(tags) = &tags {
            tags::check_object_tags(tags)?;
        }
        let (source_bucket, row) = self.source(&source).await?;
        let source_algorithm = match &row.checksum {
            Some(checksum) => checksums::from_number(checksum.algorithm)?,
            None => checksums::DEFAULT,
        };
        let algorithm = checksum.unwrap_or(source_algorithm);
        // To copy an old version over the current one is to bring it back.
        let onto_itself = source.bucket == bucket && source.key == key && source.version_id.is_none();
        let same_class = storage_class == row.storage_class || storage_class.is_empty();
        let changes_nothing = matches!(metadata, MetadataDirective::Copy) && encryption.is_none() && same_class;
        if onto_itself && changes_nothing && algorithm == source_algorithm {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the \
                 object's metadata, storage class, website redirect location or encryption attributes.",
            ));
        }
        let headers = match metadata {
            MetadataDirective::Copy => headers_from_row(row.headers.clone()),
            MetadataDirective::Replace(headers) => headers,
        };
        names::check_headers(&headers)?;
        let bucket = self.inner.bucket(&bucket).await?;
        self.check_lock(&bucket, &lock)?;
        let tags = tags.unwrap_or_else(|| row.tags.clone());
        let policy = self.inner.policy(&bucket, &storage_class).await?;
        let object_key = self.inner.new_key(encryption.as_ref()).await?;
        let encryption = object_key.as_ref().map(|key| key.row.clone());
        let new = NewObject { bucket, key, headers, conditions, tags, lock, encryption, policy };
        self.check_early(&new).await?;
        let (row, body) = self
            .open_source(&source, row, |row| {
                check_copy_bytes(row.size_bytes)?;
                Ok(0..row.size_bytes)
            })
            .await?;
        let (digests, bytes, code) = (BodyDigests::default(), Some(row.size_bytes), new.policy.code);
        let stored = store_object(&self.inner, body, bytes, &digests, algorithm, code, object_key.as_ref()).await?;
        let source_version_id = version_id(&source_bucket, &row);
        let done = events::in_way(Way::Copy, self.commit(new, stored)).await?;
        Ok(PutDone { source_version_id, ..done })
    }

    /// `UploadPartCopy`.
    ///
    /// # Errors
    /// As [`Gateway::copy_object`] and [`Gateway::upload_part`]; InvalidArgument for a range that is not within the source.
    pub async fn upload_part_copy(&self, request: UploadPartCopy) -> Result<PartInfo> {
        let _admitted = self.inner.admit()?;
        let UploadPartCopy { source, range, bucket, key, upload_id, part_number, customer_key } = request;
        let upload = self.open_upload(&bucket, &key, &upload_id, part_number).await?;
        let part_key = self.inner.key_of_upload(upload.row.encryption.as_ref(), customer_key.as_ref()).await?;
        let (source_bucket, row) = self.source(&source).await?;
        let mut content_bytes = 0;
        let (row, body) = self
            .open_source(&source, row, |row| {
                let bytes = ranges::resolve_copy(range, row.size_bytes)?;
                check_copy_bytes(bytes.end - bytes.start)?;
                content_bytes = bytes.end - bytes.start;
                Ok(bytes)
            })
            .await?;
        let (digests, bytes) = (BodyDigests::default(), Some(content_bytes));
        let part = self.store_part(upload, part_number, body, bytes, &digests, part_key).await?;
        Ok(PartInfo { source_version_id: version_id(&source_bucket, &row), ..part })
    }

    /// The source's row, if its conditions hold.
    async fn source(&self, source: &CopySource) -> Result<(BucketRow, ObjectRow)> {
        names::check_key(&source.key)?;
        let bucket = self.inner.bucket(&source.bucket).await?;
        let row = self.lookup(&bucket, &source.key, source.version_id.as_deref()).await.map_err(|error| match error
            .kind
        {
            ErrorKind::MethodNotAllowed => Error::new(
                ErrorKind::InvalidRequest,
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ),
            _ => error,
        })?;
        encryption::check_customers_key(row.encryption.as_ref(), source.customer_key.as_ref())?;
        conditions::check_copy_source(&source.conditions, &row.etag, row.modified_unix_ms)?;
        Ok((bucket, row))
    }

    /// The source's bytes, of `row` or of what replaced it meanwhile.
    async fn open_source(
        &self,
        source: &CopySource,
        mut row: ObjectRow,
        mut wanted: impl FnMut(&ObjectRow) -> Result<std::ops::Range<u64>>,
    ) -> Result<(ObjectRow, ByteStream)> {
        for _ in 0..LOOKUPS_MAX {
            let wanted = wanted(&row)?;
            let object_key = self.inner.key_of(row.encryption.as_ref(), source.customer_key.as_ref()).await?;
            if let Ok(cursor) = Cursor::open(&self.inner, &row, object_key.as_ref(), wanted).await? {
                let stream = cursor.into_stream(self.inner.count_stream()).await?;
                return Ok((row, stream));
            }
            row = self.source(source).await?.1;
        }
        Err(Error::new(ErrorKind::SlowDown, "The source is being replaced again and again; try again in a moment."))
    }
}

fn check_copy_bytes(bytes: u64) -> Result<()> {
    if bytes <= limits::PUT_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {}",
            limits::PUT_BYTES_MAX
        ),
    ))
}
