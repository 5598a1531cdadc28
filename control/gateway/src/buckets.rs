//! Bucket operations.

use penstock_meta::tables::{BucketRow, TablesError};
use penstock_proto::limits;

use crate::api::{BucketInfo, BucketPage, CreateBucket, ListBuckets, ObjectLock};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Gateway;
use crate::names;

impl Gateway {
    /// `CreateBucket`.
    ///
    /// # Errors
    /// InvalidBucketName; TooManyBuckets; BucketAlreadyOwnedByYou, in every region (AWS answers 200 in us-east-1 alone,
    /// for old clients' sake).
    pub async fn create_bucket(&self, name: &str, region: &str) -> Result<()> {
        let request = CreateBucket { name: name.to_owned(), region: region.to_owned(), ..CreateBucket::default() };
        self.create_bucket_with(request).await
    }

    /// `CreateBucket` with all that it can say.
    ///
    /// # Errors
    /// As [`Gateway::create_bucket`]; BucketAlreadyExists when it is another account's.
    pub async fn create_bucket_with(&self, request: CreateBucket) -> Result<()> {
        let _admitted = self.inner.admit()?;
        let CreateBucket { name, owner, region, object_lock, settings } = request;
        names::check_bucket_name(&name)?;
        let lock = if object_lock { ObjectLock::On { default: None } } else { ObjectLock::Off };
        let now_unix_ms = self.inner.clock.now_unix_ms();
        match self.inner.tables.create_bucket_with(&owner, &name, &region, now_unix_ms, lock, &settings).await {
            Ok(_row) => Ok(()),
            Err(TablesError::BucketExists)
                if self.inner.tables.bucket(&name).await?.is_some_and(|row| row.owner != owner) =>
            {
                Err(Error::new(
                    ErrorKind::BucketAlreadyExists,
                    "The requested bucket name is not available. The bucket namespace is shared by all users of the \
                     system. Please select a different name and try again.",
                ))
            }
            Err(TablesError::BucketExists) => Err(Error::new(
                ErrorKind::BucketAlreadyOwnedByYou,
                "The bucket you tried to create already exists, and you own it.",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// `HeadBucket`.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn head_bucket(&self, name: &str) -> Result<BucketInfo> {
        let _admitted = self.inner.admit()?;
        Ok(info(self.inner.bucket(name).await?))
    }

    /// `ListBuckets`.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn list_buckets(&self, request: ListBuckets) -> Result<BucketPage> {
        let _admitted = self.inner.admit()?;
        let max = request.max.unwrap_or(limits::BUCKETS_MAX).min(limits::BUCKETS_MAX);
        let (mut buckets, mut after, mut more) = (Vec::new(), request.after, true);
        while more && buckets.len() < max {
            let (rows, further) =
                self.inner.tables.list_buckets(&request.prefix, after.as_deref(), max - buckets.len()).await?;
            more = further;
            after = rows.last().map(|row| row.name.clone());
            let wanted = |row: &BucketRow| request.owner.as_ref().is_none_or(|owner| *owner == row.owner);
            buckets.extend(rows.into_iter().filter(wanted).map(info));
        }
        let next_after = if more { buckets.last().map(|last: &BucketInfo| last.name.clone()) } else { None };
        Ok(BucketPage { buckets, next_after })
    }

    /// `DeleteBucket`.
    ///
    /// # Errors
    /// NoSuchBucket; BucketNotEmpty while it has objects, versions, delete markers or open uploads.
    pub async fn delete_bucket(&self, name: &str) -> Result<()> {
        let _admitted = self.inner.admit()?;
        Ok(self.inner.tables.delete_bucket(name).await?)
    }
}

pub(crate) fn info(row: BucketRow) -> BucketInfo {
    BucketInfo {
        name: row.name,
        created_unix_ms: row.created_unix_ms,
        region: row.region,
        versioning: row.versioning,
        lock: row.lock,
        owner: row.owner,
    }
}
