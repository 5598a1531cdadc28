//! Object lock: the bucket's configuration, retention and legal hold of versions. What a lock forbids is decided where
//! versions are destroyed, inside the metadata's transactions (`penstock_meta::tables`); here is only what clients ask.

use penstock_meta::tables::{LockPass, ObjectChange};

use crate::api::{DefaultRetention, Lock, ObjectLock, ObjectName, Retention};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Gateway;
use crate::names;

/// Most days of a default retention: 100 years.
const DAYS_MAX: u32 = 36_500;
/// Most years of it.
const YEARS_MAX: u32 = 100;

impl Gateway {
    /// `PutObjectLockConfiguration`: on, with this default for new objects.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidBucketState unless the bucket makes versions; InvalidRetentionPeriod.
    pub async fn put_object_lock(&self, bucket: &str, default: Option<DefaultRetention>) -> Result<()> {
        let _admitted = self.inner.admit()?;
        if let Some(default) = default {
            let max = if default.years { YEARS_MAX } else { DAYS_MAX };
            if !(1..=max).contains(&default.count) {
                return Err(Error::new(
                    ErrorKind::InvalidRetentionPeriod,
                    format!("Default retention period must be a positive integer value, at most {max}."),
                ));
            }
        }
        Ok(self.inner.tables.set_object_lock(bucket, ObjectLock::On { default }).await?)
    }

    /// `GetObjectLockConfiguration`: the default of a bucket with object lock.
    ///
    /// # Errors
    /// NoSuchBucket; ObjectLockConfigurationNotFoundError.
    pub async fn object_lock(&self, bucket: &str) -> Result<Option<DefaultRetention>> {
        let _admitted = self.inner.admit()?;
        match self.inner.bucket(bucket).await?.lock {
            ObjectLock::On { default } => Ok(default),
            ObjectLock::Off => Err(Error::new(
                ErrorKind::ObjectLockConfigurationNotFoundError,
                "Object Lock configuration does not exist for this bucket",
            )),
        }
    }

    /// `PutObjectRetention`; none takes it away. Of which version.
    ///
    /// # Errors
    /// AccessDenied when another retention forbids it; InvalidRequest in a bucket without object lock; InvalidArgument for
    /// a date that is past; as [`Gateway::object_tags`].
    pub async fn put_object_retention(
        &self,
        name: &ObjectName,
        retention: Option<Retention>,
        bypass_governance: bool,
    ) -> Result<Option<String>> {
        let pass = LockPass { now_unix_ms: self.inner.clock.now_unix_ms(), bypass_governance };
        self.check_retention(retention)?;
        Ok(self.change(name, ObjectChange::Retention(retention, pass)).await?.1)
    }

    /// `PutObjectLegalHold`. Of which version.
    ///
    /// # Errors
    /// InvalidRequest in a bucket without object lock; as [`Gateway::object_tags`].
    pub async fn put_object_legal_hold(&self, name: &ObjectName, held: bool) -> Result<Option<String>> {
        Ok(self.change(name, ObjectChange::LegalHold(held)).await?.1)
    }

    /// The lock of a version, for `GetObjectRetention` and `GetObjectLegalHold`.
    ///
    /// # Errors
    /// InvalidRequest in a bucket without object lock; as [`Gateway::object_tags`].
    pub async fn lock_of(&self, name: &ObjectName) -> Result<Lock> {
        let _admitted = self.inner.admit()?;
        names::check_key(&name.key)?;
        let bucket = self.inner.bucket(&name.bucket).await?;
        if bucket.lock == ObjectLock::Off {
            return Err(no_object_lock());
        }
        Ok(self.lookup(&bucket, &name.key, name.version_id.as_deref()).await?.lock)
    }

    /// That a retention ends later than now.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(crate) fn check_retention(&self, retention: Option<Retention>) -> Result<()> {
        if retention.is_some_and(|retention| retention.until_unix_ms <= self.inner.clock.now_unix_ms()) {
            return Err(Error::new(ErrorKind::InvalidArgument, "The retain until date must be in the future!"));
        }
        Ok(())
    }

    /// That a new object may have this lock, before its body is read; the commit decides.
    ///
    /// # Errors
    /// InvalidArgument; InvalidRequest in a bucket without object lock.
    pub(crate) fn check_lock(&self, bucket: &penstock_meta::tables::BucketRow, lock: &Lock) -> Result<()> {
        self.check_retention(lock.retention)?;
        if *lock != Lock::default() && bucket.lock == ObjectLock::Off {
            return Err(no_object_lock());
        }
        Ok(())
    }
}

pub(crate) fn no_object_lock() -> Error {
    Error::new(ErrorKind::InvalidRequest, "Bucket is missing Object Lock Configuration")
}
