//! A bucket's configuration documents, by kind. What they say is between their owners and their readers; here they are
//! bytes.

use penstock_meta::tables::{BucketRow, BucketSetting};

use crate::api::{BucketInfo, BucketStamp};
use crate::error::Result;
use crate::gateway::{Gateway, no_such_bucket};

/// Buckets looked at in one read.
const BUCKETS_PAGE: usize = 1000;

impl Gateway {
    /// A bucket, and what tells whether it has changed: one row.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn bucket_stamp(&self, bucket: &str) -> Result<(BucketInfo, BucketStamp)> {
        let _admitted = self.inner.admit()?;
        let row = self.inner.bucket(bucket).await?;
        let stamp = stamp(&row);
        Ok((crate::buckets::info(row), stamp))
    }

    /// A bucket and these of its documents, as of one moment.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn bucket_documents<const N: usize>(
        &self,
        bucket: &str,
        kinds: [BucketSetting; N],
    ) -> Result<(BucketInfo, BucketStamp, [Option<Vec<u8>>; N])> {
        let _admitted = self.inner.admit()?;
        let found = self.inner.tables.bucket_with_settings(bucket, kinds).await?;
        let (row, documents) = found.ok_or_else(|| no_such_bucket(bucket))?;
        let stamp = stamp(&row);
        Ok((crate::buckets::info(row), stamp, documents))
    }

    /// Whether any bucket has a document of this kind.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn any_bucket_has(&self, kind: BucketSetting) -> Result<bool> {
        let mut after: Option<String> = None;
        loop {
            let (rows, more) = self.inner.tables.list_buckets("", after.as_deref(), BUCKETS_PAGE).await?;
            if rows.iter().any(|row| row.has_setting(kind)) {
                return Ok(true);
            }
            match rows.last() {
                Some(last) if more => after = Some(last.name.clone()),
                _ => return Ok(false),
            }
        }
    }

    /// The document of this kind; `None` when the bucket has none.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn bucket_setting(&self, bucket: &str, kind: BucketSetting) -> Result<Option<Vec<u8>>> {
        let _admitted = self.inner.admit()?;
        let found = self.inner.tables.bucket_with_settings(bucket, [kind]).await?;
        let (_, [document]) = found.ok_or_else(|| no_such_bucket(bucket))?;
        Ok(document)
    }

    /// Sets the document of this kind. The caller has checked what it says.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidRequest when it is larger than a setting may be.
    pub async fn put_bucket_setting(&self, bucket: &str, kind: BucketSetting, document: &[u8]) -> Result<()> {
        let _admitted = self.inner.admit()?;
        Ok(self.inner.tables.put_bucket_setting(bucket, kind, document).await?)
    }

    /// Removes the document of this kind, if there is one.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn delete_bucket_setting(&self, bucket: &str, kind: BucketSetting) -> Result<()> {
        let _admitted = self.inner.admit()?;
        Ok(self.inner.tables.delete_bucket_setting(bucket, kind).await?)
    }
}

fn stamp(row: &BucketRow) -> BucketStamp {
    BucketStamp { id: row.id, settings_version: row.settings_version, settings: row.settings }
}
