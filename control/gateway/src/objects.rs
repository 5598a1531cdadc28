//! PutObject, GetObject, HeadObject, DeleteObject(s) and listings.

use std::ops::Range;

use penstock_digest::ChecksumValue;
use penstock_meta::tables::{BucketRow, DataRow, EncryptionRow, Layout, LockPass, ObjectRow, PackedObject, VersionRow};
use penstock_proto::limits;

use crate::api::{
    DeleteObject, Deleted, GetObject, ListObjects, ListedObject, ObjectChecksum, ObjectInfo, ObjectPage, ObjectRead,
    PutDone, PutObject,
};
use crate::checksums;
use crate::conditions;
use crate::convert::{headers_to_row, object_info};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Gateway;
use crate::names;
use crate::pack::{PackFailure, SmallBody, store_object};
use crate::pending::PendingData;
use crate::policies::StoragePolicy;
use crate::ranges;
use crate::read::Cursor;
use crate::tags::{self, Tags};
use crate::versions::{made_version, version_name};
use crate::write::StoredBody;
use crate::{api, encryption, etag};

/// How often a read looks its object up again because the one it found was being collected.
pub(crate) const LOOKUPS_MAX: usize = 4;

/// An object that is about to be committed: what its body does not say.
pub(crate) struct NewObject {
    pub(crate) bucket: penstock_meta::tables::BucketRow,
    pub(crate) key: String,
    pub(crate) headers: api::ObjectHeaders,
    pub(crate) conditions: api::Conditions,
    pub(crate) tags: Tags,
    pub(crate) lock: api::Lock,
    pub(crate) encryption: Option<EncryptionRow>,
    pub(crate) policy: StoragePolicy,
}

/// The bytes of an object that is about to be committed.
pub(crate) enum NewBytes {
    /// It has none.
    None,
    /// A run that is on its nodes. Without a guard of ours it is pending all the same.
    Run(Box<DataRow>, Option<PendingData>),
    /// They are in memory, and are packed.
    Small(SmallBody),
}

impl Gateway {
    /// `PutObject`.
    ///
    /// The body is read only if the conditions hold before; they are decided when it is committed. Dropping the future
    /// leaves nothing visible and nothing behind, unless the commit was under way already.
    ///
    /// # Errors
    /// Whatever is wrong with the request or its body; PreconditionFailed; SlowDown, InsufficientStorage and
    /// ServiceUnavailable when it can't be stored now. Nothing is visible then.
    pub async fn put_object(&self, request: PutObject) -> Result<PutDone> {
        let _admitted = self.inner.admit()?;
        let PutObject { bucket, key, body, content_bytes, digests, headers, storage_class, conditions, tags, .. } =
            request;
        let (lock, encryption) = (request.lock, request.encryption);
        names::check_key(&key)?;
        names::check_headers(&headers)?;
        tags::check_object_tags(&tags)?;
        let bucket = self.inner.bucket(&bucket).await?;
        self.check_lock(&bucket, &lock)?;
        let policy = self.inner.policy(&bucket, &storage_class).await?;
        let object_key = self.inner.new_key(encryption.as_ref()).await?;
        let encryption = object_key.as_ref().map(|key| key.row.clone());
        let new = NewObject { bucket, key, headers, conditions, tags, lock, encryption, policy };
        self.check_early(&new).await?;
        let (code, fallback) = (new.policy.code, checksums::DEFAULT);
        let stored =
            store_object(&self.inner, body, content_bytes, &digests, fallback, code, object_key.as_ref()).await?;
        self.commit(new, stored).await
    }

    /// Spares a client the body of a write whose conditions can't hold.
    pub(crate) async fn check_early(&self, new: &NewObject) -> Result<()> {
        if conditions::any(&new.conditions) {
            let current = self.inner.tables.object(new.bucket.id, &new.key).await?;
            conditions::write_preconditions(&new.conditions).check(current.as_ref())?;
        }
        Ok(())
    }

    /// Makes a stored body visible as an object.
    pub(crate) async fn commit(&self, new: NewObject, stored: StoredBody) -> Result<PutDone> {
        let StoredBody { size_bytes, etag_md5, checksum, data, small } = stored;
        let body = match (data, small) {
            (Some((data, pending)), _) => NewBytes::Run(Box::new(data), Some(pending)),
            (None, Some(small)) => NewBytes::Small(small),
            (None, None) => NewBytes::None,
        };
        self.commit_as(new, etag::of_md5(etag_md5), size_bytes, checksum, body).await
    }

    /// As [`Gateway::commit`], under this ETag.
    pub(crate) async fn commit_as(
        &self,
        new: NewObject,
        etag: api::ETag,
        size_bytes: u64,
        checksum: ChecksumValue,
        body: NewBytes,
    ) -> Result<PutDone> {
        let checksum = checksums::full(checksum);
        let modified_unix_ms = self.inner.clock.now_unix_ms();
        let (layout, pending, small) = match body {
            NewBytes::Run(data, pending) => (Layout::Single(*data), pending, None),
            NewBytes::Small(small) => (Layout::Empty, None, Some(small)),
            NewBytes::None => (Layout::Empty, None, None),
        };
        let row = ObjectRow {
            size_bytes,
            etag: etag.clone(),
            modified_unix_ms,
            storage_class: new.policy.class,
            checksum: Some(checksums::to_row(&checksum)),
            version: VersionRow::default(),
            parts: None,
            headers: headers_to_row(new.headers),
            tags: new.tags.clone(),
            lock: new.lock,
            encryption: new.encryption.clone(),
            upload_id: None,
            layout,
        };
        let preconditions = conditions::write_preconditions(&new.conditions);
        let not_before = self.inner.garbage_not_before();
        let committed = match small {
            Some(small) => {
                let (bucket, key, garbage_not_before_unix_ms) = (new.bucket.clone(), new.key.clone(), not_before);
                let cause = penstock_meta::tables::cause();
                let object = PackedObject { bucket, key, row, preconditions, garbage_not_before_unix_ms, cause };
                self.inner.packer.commit(new.policy.code, small, object).await
            }
            None => {
                let tables = &self.inner.tables;
                let committed = tables.commit_object(&new.bucket, &new.key, row, &preconditions, not_before).await;
                committed.map_err(PackFailure::Tables)
            }
        };
        let tags = new.tags;
        let committed = committed.map_err(|failure| match failure {
            PackFailure::Tables(error) => lost_race(error, &new.conditions),
            PackFailure::Other(error) => error,
        })?;
        if let Some(pending) = pending {
            pending.committed();
        }
        let version_id = made_version(&committed.version);
        let expiration = match self.inner.lifecycle_of(&new.bucket).await? {
            Some(lifecycle) => lifecycle.expiration_of(&new.key, size_bytes, &tags, modified_unix_ms),
            None => None,
        };
        Ok(PutDone {
            etag,
            checksum: Some(checksum),
            size_bytes,
            modified_unix_ms,
            version_id,
            source_version_id: None,
            expiration,
            encryption: new.encryption.as_ref().map(encryption::info),
        })
    }

    /// `GetObject`.
    ///
    /// # Errors
    /// NoSuchKey, PreconditionFailed, NotModified, InvalidRange, InvalidPartNumber; ServiceUnavailable when the first
    /// stripe can't be read. A later one that can't ends the stream with an error.
    pub async fn get_object(&self, request: GetObject) -> Result<ObjectRead> {
        let admitted = self.inner.admit()?;
        for _ in 0..LOOKUPS_MAX {
            let (bucket, row, range, partial) = self.resolve(&request).await?;
            let object_key = self.inner.key_of(row.encryption.as_ref(), request.customer_key.as_ref()).await?;
            let opened = Cursor::open(&self.inner, &row, object_key.as_ref(), range.clone()).await?;
            let Ok(cursor) = opened else { continue };
            let guard = (admitted, self.inner.count_stream());
            let body = cursor.into_stream(guard).await?;
            let expiration = self.inner.expiration_of(&bucket, &request.key, &row).await?;
            let info = ObjectInfo { expiration, ..object_info(&bucket, request.key, row)? };
            return Ok(ObjectRead { info, range, partial, body: Some(body) });
        }
        Err(Error::new(ErrorKind::SlowDown, "The object is being replaced again and again; try again in a moment."))
    }

    /// `HeadObject`: as [`Gateway::get_object`], without the body.
    ///
    /// # Errors
    /// As [`Gateway::get_object`], but for the body's.
    pub async fn head_object(&self, request: GetObject) -> Result<ObjectRead> {
        let _admitted = self.inner.admit()?;
        let (bucket, row, range, partial) = self.resolve(&request).await?;
        let expiration = self.inner.expiration_of(&bucket, &request.key, &row).await?;
        let info = ObjectInfo { expiration, ..object_info(&bucket, request.key, row)? };
        Ok(ObjectRead { info, range, partial, body: None })
    }

    /// The object that a read is for, and what is wanted of it.
    pub(crate) async fn resolve(&self, request: &GetObject) -> Result<(BucketRow, ObjectRow, Range<u64>, bool)> {
        names::check_key(&request.key)?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let row = self.lookup(&bucket, &request.key, request.version_id.as_deref()).await?;
        encryption::check_customers_key(row.encryption.as_ref(), request.customer_key.as_ref())?;
        conditions::check_read(&request.conditions, &row.etag, row.modified_unix_ms)?;
        let (range, partial) = match request.part_number {
            Some(_) if request.range.is_some() => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter.",
                ));
            }
            Some(number) => (self.part_range(&row, number).await?, true),
            None => ranges::resolve(request.range, row.size_bytes)?,
        };
        Ok((bucket, row, range, partial))
    }

    /// Which bytes are part `number`. An object that was not uploaded in parts has one.
    async fn part_range(&self, row: &ObjectRow, number: u32) -> Result<Range<u64>> {
        names::check_part_number(number)?;
        let found = match &row.layout {
            Layout::Parts { list, count } => {
                let span = self.inner.tables.part_numbered(*list, *count, number).await?;
                span.map(|span| span.offset..span.offset + span.size_bytes)
            }
            Layout::Empty | Layout::Single(_) | Layout::Packed(_) => (number == 1).then_some(0..row.size_bytes),
        };
        found.ok_or_else(|| {
            Error::new(ErrorKind::InvalidPartNumber, format!("The requested part number {number} is not satisfiable."))
        })
    }

    /// `DeleteObject`. Deleting what is not there is fine, unless a condition wants it to be.
    ///
    /// # Errors
    /// NoSuchBucket, PreconditionFailed, NoSuchKey (with conditions alone); AccessDenied for a version that is locked.
    pub async fn delete_object(&self, request: DeleteObject) -> Result<Deleted> {
        let _admitted = self.inner.admit()?;
        self.delete_one(request).await
    }

    async fn delete_one(&self, request: DeleteObject) -> Result<Deleted> {
        names::check_key(&request.key)?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let preconditions = conditions::write_preconditions(&request.conditions);
        let not_before = self.inner.garbage_not_before();
        let version = request.version_id.as_deref().map(version_name).transpose()?;
        let bypass_governance = request.bypass_governance;
        let pass = LockPass { now_unix_ms: self.inner.clock.now_unix_ms(), bypass_governance };
        let tables = &self.inner.tables;
        let deleted = tables.delete(&bucket, &request.key, version, &preconditions, pass, not_before).await;
        let deleted = deleted.map_err(|error| lost_race(error, &request.conditions))?;
        Ok(match deleted.marker {
            Some(marker) => Deleted { version_id: Some(marker.id()), delete_marker: true },
            None => Deleted {
                version_id: request.version_id.filter(|_| deleted.versioned),
                delete_marker: deleted.removed.is_some_and(|row| row.version.marker),
            },
        })
    }

    /// `DeleteObjects`: at most [`limits::LIST_KEYS_MAX`], each on its own, results in the same order. `bucket` is where
    /// all of them are, whatever they say themselves.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidRequest for too many.
    pub async fn delete_objects(&self, bucket: &str, requests: Vec<DeleteObject>) -> Result<Vec<Result<Deleted>>> {
        let _admitted = self.inner.admit()?;
        if requests.len() > limits::LIST_KEYS_MAX {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("{} keys; at most {} can be deleted at once.", requests.len(), limits::LIST_KEYS_MAX),
            ));
        }
        self.inner.bucket(bucket).await?;
        let deletes = requests
            .into_iter()
            .map(|request| self.delete_one(DeleteObject { bucket: bucket.to_owned(), ..request }))
            .collect::<Vec<_>>();
        // Many at a time share group commits.
        use futures::StreamExt as _;
        Ok(futures::stream::iter(deletes).buffered(DELETES_AT_A_TIME).collect().await)
    }

    /// `ListObjects` and `ListObjectsV2`.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn list_objects(&self, request: ListObjects) -> Result<ObjectPage> {
        let _admitted = self.inner.admit()?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let max = request.max_keys.min(limits::LIST_KEYS_MAX);
        let page =
            self.inner.tables.list_objects(bucket.id, &request.prefix, &request.delimiter, &request.after, max).await?;
        let mut objects = Vec::with_capacity(page.rows.len());
        for (key, row) in page.rows {
            let checksum: Option<ObjectChecksum> = row.checksum.as_ref().map(checksums::from_row).transpose()?;
            objects.push(ListedObject {
                key,
                size_bytes: row.size_bytes,
                etag: row.etag,
                modified_unix_ms: row.modified_unix_ms,
                storage_class: row.storage_class,
                checksum: checksum.map(|checksum| (checksum.value.algorithm(), checksum.kind)),
            });
        }
        Ok(ObjectPage { objects, common_prefixes: page.prefixes, next_after: page.next_after })
    }
}

/// Deletes of one DeleteObjects that are under way at a time.
const DELETES_AT_A_TIME: usize = 32;

/// A conditional write that lost every try to others is answered as S3 answers it.
pub(crate) fn lost_race(error: penstock_meta::tables::TablesError, conditions: &api::Conditions) -> Error {
    use penstock_meta::kv::KvError;
    use penstock_meta::tables::TablesError;
    match error {
        TablesError::Kv(KvError::Conflict) if conditions::any(conditions) => Error::new(
            ErrorKind::ConditionalRequestConflict,
            "A conflicting conditional operation is in progress against this resource; try again.",
        ),
        other => other.into(),
    }
}
