//! Lifecycle: a bucket's rules of what expires, and the work of expiring it.

pub mod rules;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_meta::tables::{BucketRow, BucketSetting, ObjectRow};

pub use self::rules::Lifecycle;
use self::rules::{DAY_MS, Subject};
pub(crate) use self::worker::{Worker, start};
use crate::api::UnixMs;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, Inner, no_such_bucket};

/// Parsed configurations that are kept.
const PARSED_MAX: usize = 1024;

/// Parsed configurations by bucket id, each with the version of the bucket's settings that it is of.
#[derive(Default)]
pub(crate) struct Parsed(Mutex<HashMap<u64, (u64, Arc<Lifecycle>)>>);

impl Gateway {
    /// `PutBucketLifecycleConfiguration`.
    ///
    /// # Errors
    /// NoSuchBucket; what is wrong with the rules.
    pub async fn put_lifecycle(&self, bucket: &str, lifecycle: &Lifecycle) -> Result<()> {
        lifecycle.check()?;
        let document = serde_json::to_vec(lifecycle).map_err(unreadable)?;
        self.put_bucket_setting(bucket, BucketSetting::Lifecycle, &document).await
    }

    /// `GetBucketLifecycleConfiguration`; `None` when the bucket has none.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn lifecycle(&self, bucket: &str) -> Result<Option<Arc<Lifecycle>>> {
        let _admitted = self.inner.admit()?;
        let row = self.inner.bucket(bucket).await?;
        self.inner.lifecycle_of(&row).await
    }

    /// One pass over all buckets that have rules, as the background makes them: what is due is gone then. For tests.
    ///
    /// # Errors
    /// When the metadata can't be read or written.
    pub async fn run_lifecycle_now(&self) -> Result<u64> {
        worker::run_all(&self.inner).await
    }
}

impl Inner {
    /// The bucket's rules, parsed.
    pub(crate) async fn lifecycle_of(&self, bucket: &BucketRow) -> Result<Option<Arc<Lifecycle>>> {
        if !bucket.has_setting(BucketSetting::Lifecycle) {
            return Ok(None);
        }
        if let Some((version, parsed)) = self.lifecycles.0.lock().get(&bucket.id)
            && *version == bucket.settings_version
        {
            return Ok(Some(Arc::clone(parsed)));
        }
        let found = self.tables.bucket_with_settings(&bucket.name, [BucketSetting::Lifecycle]).await?;
        let (row, [document]) = found.ok_or_else(|| no_such_bucket(&bucket.name))?;
        let Some(document) = document else { return Ok(None) };
        let parsed: Arc<Lifecycle> = Arc::new(serde_json::from_slice(&document).map_err(unreadable)?);
        let mut kept = self.lifecycles.0.lock();
        if kept.len() >= PARSED_MAX {
            kept.clear();
        }
        kept.insert(row.id, (row.settings_version, Arc::clone(&parsed)));
        Ok(Some(parsed))
    }

    /// When a current object expires and by which rule, for `x-amz-expiration`. In real days: a debug clock makes the work
    /// faster, not what is announced.
    pub(crate) async fn expiration_of(
        &self,
        bucket: &BucketRow,
        key: &str,
        row: &ObjectRow,
    ) -> Result<Option<(UnixMs, String)>> {
        if row.version.superseded_unix_ms != 0 {
            return Ok(None);
        }
        let Some(lifecycle) = self.lifecycle_of(bucket).await? else { return Ok(None) };
        Ok(lifecycle.expiration_of(key, row.size_bytes, &row.tags, row.modified_unix_ms))
    }
}

impl Lifecycle {
    /// The same of an object with these properties.
    pub(crate) fn expiration_of(
        &self,
        key: &str,
        size_bytes: u64,
        tags: &[(String, String)],
        modified_unix_ms: UnixMs,
    ) -> Option<(UnixMs, String)> {
        let subject = Subject { key, size_bytes, tags };
        self.expiry(subject, modified_unix_ms, DAY_MS).map(|(at, id)| (at, id.to_owned()))
    }
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::InternalError, format!("A stored lifecycle configuration can't be read or written: {error}"))
}
