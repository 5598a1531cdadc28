//! Objects: one row each, written by the one transaction that makes them visible.

use super::{BucketRow, Layout, ObjectRow, Preconditions, Result, Tables, TablesError, VersionName, VersionRow};
use super::{LockPass, buckets, garbage, keys, manifests, read, versions};
use crate::kv::Transaction;

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The version that it replaced; its data is garbage now.
    pub replaced: Option<ObjectRow>,
    /// Which version it is.
    pub version: VersionRow,
}

impl Tables {
    /// Makes an object visible as its key's current version: its data stops being pending, and that of a version that it
    /// replaces becomes garbage.
    ///
    /// `row.layout` is [`Layout::Empty`] or [`Layout::Single`] with data that [`Tables::begin_writes`] registered and
    /// whose manifest, if it is in rows, [`Tables::put_manifests`] wrote.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Precondition`], [`TablesError::WriteExpired`],
    /// [`TablesError::Locked`], [`TablesError::NoObjectLock`], [`TablesError::KeyLength`], [`TablesError::RowTooLarge`],
    /// the store's. In every case the data stays pending: abort it. [`TablesError::BadRow`] for a part list, which only completing an upload makes.
    pub async fn commit_object(
        &self,
        bucket: &BucketRow,
        key: &str,
        row: ObjectRow,
        preconditions: &Preconditions,
        garbage_not_before_unix_ms: u64,
    ) -> Result<Committed> {
        match &row.layout {
            Layout::Parts { .. } => return Err(TablesError::BadRow("only complete_upload makes part lists")),
            Layout::Packed(_) => return Err(TablesError::BadRow("only commit_packed makes packed objects")),
            Layout::Single(data) => manifests::check_data(data)?,
            Layout::Empty => {}
        }
        let object_key = keys::object(bucket.id, key)?;
        transaction!(self, |txn, row, object_key| {
            let (bucket, current) = current(txn, bucket, object_key, preconditions).await?;
            if let Layout::Single(data) = &row.layout {
                garbage::take_write(txn, data.data).await?;
                manifests::queue_inline_repairs(txn, object_key, data)?;
            }
            let mut row = row.clone();
            let replaced = versions::place(txn, &bucket, key, current, &mut row, garbage_not_before_unix_ms).await?;
            Ok(Committed { replaced, version: row.version })
        })
        .await
    }

    /// The object under that key: its current version, unless that is a delete marker.
    ///
    /// # Errors
    /// [`TablesError::KeyLength`], the store's.
    pub async fn object(&self, bucket_id: u64, key: &str) -> Result<Option<ObjectRow>> {
        let object_key = keys::object(bucket_id, key)?;
        transaction!(self, |txn, object_key| read(txn, object_key).await).await
    }

    /// Removes an object of a bucket without versions; its data becomes garbage. Whether there was one. (Elsewhere: its null
    /// version. [`Tables::delete`] does all that S3's operation does.)
    ///
    /// # Errors
    /// As [`Tables::delete`].
    pub async fn delete_object(
        &self,
        bucket: &BucketRow,
        key: &str,
        preconditions: &Preconditions,
        garbage_not_before_unix_ms: u64,
    ) -> Result<bool> {
        let pass = LockPass { now_unix_ms: 0, bypass_governance: false };
        let null = Some(VersionName::Null);
        let deleted = self.delete(bucket, key, null, preconditions, pass, garbage_not_before_unix_ms).await?;
        Ok(deleted.removed.is_some())
    }
}

/// The bucket, which still is, and the object as it is, with all conditions holding of it. A delete marker is no object.
pub(super) async fn current(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    object_key: &[u8],
    preconditions: &Preconditions,
) -> Result<(BucketRow, Option<ObjectRow>)> {
    let bucket = buckets::check(txn, bucket).await?;
    let current: Option<ObjectRow> = read(txn, object_key).await?;
    preconditions.check(current.as_ref())?;
    Ok((bucket, current))
}
