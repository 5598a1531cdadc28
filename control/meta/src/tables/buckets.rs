//! Buckets.

use penstock_proto::{DataId, limits};

use super::{BucketRow, BucketSetting, ObjectLockRow, Result, Tables, TablesError, Versioning};
use super::{bucket_settings, keys, read, rows, write};
use crate::kv::{RangeRead, Transaction};

/// Name of the counter of buckets.
const COUNTER: &str = "buckets";

impl Tables {
    /// Makes a bucket.
    ///
    /// # Errors
    /// [`TablesError::BucketExists`], [`TablesError::TooManyBuckets`], the store's.
    pub async fn create_bucket(&self, name: &str, region: &str, now_unix_ms: u64) -> Result<BucketRow> {
        self.create_bucket_with("", name, region, now_unix_ms, ObjectLockRow::Off, &[]).await
    }

    /// Makes a bucket of an account's (empty: the store's own) with object lock (and then versioning) and settings from its beginning.
    ///
    /// # Errors
    /// As [`Tables::create_bucket`]; [`TablesError::SettingTooLarge`].
    pub async fn create_bucket_with(
        &self,
        owner: &str,
        name: &str,
        region: &str,
        now_unix_ms: u64,
        lock: ObjectLockRow,
        settings: &[(BucketSetting, Vec<u8>)],
    ) -> Result<BucketRow> {
        let row = BucketRow {
            // Random and checked by nobody: among 10,000 buckets two share an id with a chance of 3e-12.
            id: (DataId::random().0 >> 64) as u64,
            name: name.to_owned(),
            created_unix_ms: now_unix_ms,
            region: region.to_owned(),
            versioning: if lock == ObjectLockRow::Off { Versioning::Off } else { Versioning::Enabled },
            lock,
            settings: 0,
            settings_version: 0,
            owner: owner.to_owned(),
        };
        transaction!(self, |txn, row| {
            let key = keys::bucket(name);
            if txn.get(&key).await?.is_some() {
                return Err(TablesError::BucketExists);
            }
            if count(txn).await? >= limits::BUCKETS_MAX as u64 {
                return Err(TablesError::TooManyBuckets);
            }
            txn.atomic_add(&keys::counter(COUNTER), 1)?;
            let mut row = row.clone();
            for (kind, document) in settings {
                bucket_settings::write_document(txn, &mut row, *kind, Some(document))?;
            }
            write(txn, &key, &row)?;
            Ok(row)
        })
        .await
    }

    /// The bucket of that name.
    ///
    /// # Errors
    /// The store's.
    pub async fn bucket(&self, name: &str) -> Result<Option<BucketRow>> {
        transaction!(self, |txn| read(txn, &keys::bucket(name)).await).await
    }

    /// At most `max` buckets by name, of those that start with `prefix` and sort after `after`, and whether more follow.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_buckets(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<(Vec<BucketRow>, bool)> {
        let prefix_key = keys::bucket(prefix);
        let end = keys::past(&prefix_key);
        let first = after.map_or(prefix_key.clone(), |after| keys::after(&keys::bucket(after)).max(prefix_key));
        transaction!(self, |txn, first, end| {
            let (mut buckets, mut begin) = (Vec::new(), first.clone());
            loop {
                let limit = (max - buckets.len()).saturating_add(1);
                let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, end).limit(limit) };
                let page = txn.get_range(range).await?;
                for (_, value) in &page.rows {
                    if buckets.len() == max {
                        return Ok((buckets, max > 0));
                    }
                    buckets.push(rows::decode(value)?);
                }
                match page.rows.last() {
                    Some((last, _)) if page.more => begin = keys::after(last),
                    _ => return Ok((buckets, false)),
                }
            }
        })
        .await
    }

    /// Removes a bucket in which nothing is.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`]; [`TablesError::BucketNotEmpty`] while a version or an open upload is in it; the
    /// store's.
    pub async fn delete_bucket(&self, name: &str) -> Result<()> {
        transaction!(self, |txn| {
            txn.makes_room();
            let key = keys::bucket(name);
            let row: BucketRow = read(txn, &key).await?.ok_or(TablesError::NoSuchBucket)?;
            // Reads of ranges: an object that is committed meanwhile, or whose commit read the bucket's row, conflicts.
            for prefix in [keys::objects(row.id), keys::noncurrents(row.id), keys::uploads(row.id)] {
                if !txn.get_range(RangeRead::prefix(&prefix).limit(1)).await?.rows.is_empty() {
                    return Err(TablesError::BucketNotEmpty);
                }
            }
            if row.settings != 0 {
                let settings = keys::bucket_settings(row.id);
                txn.clear_range(&settings, &keys::past(&settings))?;
            }
            txn.atomic_add(&keys::counter(COUNTER), -1)?;
            Ok(txn.clear(&key)?)
        })
        .await
    }
}

async fn count(txn: &mut dyn Transaction) -> Result<u64> {
    super::counter(txn, &keys::counter(COUNTER)).await
}

/// The bucket as it is now, if it is the one that the caller looked up.
pub(super) async fn check(txn: &mut dyn Transaction, bucket: &BucketRow) -> Result<BucketRow> {
    match read::<BucketRow>(txn, &keys::bucket(&bucket.name)).await? {
        Some(row) if row.id == bucket.id => Ok(row),
        _ => Err(TablesError::NoSuchBucket),
    }
}
