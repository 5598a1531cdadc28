//! A bucket's configuration documents, by kind. What they say is between their owners and their readers; here they are
//! bytes.

use penstock_meta::tables::BucketSetting;

use crate::error::Result;
use crate::gateway::{Gateway, no_such_bucket};

impl Gateway {
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
