//! Objects: one row each, written by the one transaction that makes them visible.

use super::{BucketRow, Layout, ObjectRow, Preconditions, Result, Tables, TablesError, buckets, garbage, keys, read};
use super::{encode, manifests};
use crate::kv::Transaction;

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The object that it replaced; its data is garbage now.
    pub replaced: Option<ObjectRow>,
}

impl Tables {
    /// Makes an object visible, in place of what was there: its data stops being pending, the old object's becomes
    /// garbage.
    ///
    /// `row.layout` is [`Layout::Empty`] or [`Layout::Single`] with data that [`Tables::begin_writes`] registered and
    /// whose manifest, if it is in rows, [`Tables::put_manifests`] wrote.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Precondition`], [`TablesError::WriteExpired`],
    /// [`TablesError::KeyLength`], [`TablesError::RowTooLarge`], the store's. In every case the data stays pending:
    /// abort it. [`TablesError::BadRow`] for a part list, which only completing an upload makes.
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
            Layout::Single(data) => manifests::check_data(data)?,
            Layout::Empty => {}
        }
        let object_key = keys::object(bucket.id, key)?;
        let value = encode(&row)?;
        transaction!(self, |txn, row, object_key, value| {
            let current = current(txn, bucket, object_key, preconditions).await?;
            if let Layout::Single(data) = &row.layout {
                garbage::take_write(txn, data.data).await?;
                manifests::queue_inline_repairs(txn, data)?;
            }
            if let Some(old) = &current {
                garbage::discard_layout(txn, &old.layout, garbage_not_before_unix_ms)?;
            }
            txn.set(object_key, value)?;
            Ok(Committed { replaced: current })
        })
        .await
    }

    /// The object under that key.
    ///
    /// # Errors
    /// [`TablesError::KeyLength`], the store's.
    pub async fn object(&self, bucket_id: u64, key: &str) -> Result<Option<ObjectRow>> {
        let object_key = keys::object(bucket_id, key)?;
        transaction!(self, |txn, object_key| read(txn, object_key).await).await
    }

    /// Removes an object; its data becomes garbage. Whether there was one.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Precondition`], [`TablesError::KeyLength`], the store's.
    pub async fn delete_object(
        &self,
        bucket: &BucketRow,
        key: &str,
        preconditions: &Preconditions,
        garbage_not_before_unix_ms: u64,
    ) -> Result<bool> {
        let object_key = keys::object(bucket.id, key)?;
        transaction!(self, |txn, object_key| {
            txn.makes_room();
            let Some(old) = current(txn, bucket, object_key, preconditions).await? else { return Ok(false) };
            garbage::discard_layout(txn, &old.layout, garbage_not_before_unix_ms)?;
            txn.clear(object_key)?;
            Ok(true)
        })
        .await
    }
}

/// The object as it is, in a bucket that still is, with all conditions holding of it.
pub(super) async fn current(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    object_key: &[u8],
    preconditions: &Preconditions,
) -> Result<Option<ObjectRow>> {
    buckets::check(txn, bucket).await?;
    let current: Option<ObjectRow> = read(txn, object_key).await?;
    preconditions.check(current.as_ref())?;
    Ok(current)
}
