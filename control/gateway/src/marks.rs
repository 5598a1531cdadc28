//! What is said of an object besides its bytes and headers, and may change: its tags.

use penstock_meta::tables::{ObjectChange, ObjectRow};

use crate::api::ObjectName;
use crate::error::Result;
use crate::events::{self, Cause};
use crate::gateway::{Gateway, no_such_key};
use crate::names;
use crate::tags::{self, Tags};
use crate::versions::{is_marker, no_such_version, version_id, version_name};

impl Gateway {
    /// `GetObjectTagging`: the tags, and of which version.
    ///
    /// # Errors
    /// NoSuchKey, NoSuchVersion; MethodNotAllowed for a delete marker.
    pub async fn object_tags(&self, name: &ObjectName) -> Result<(Tags, Option<String>)> {
        let _admitted = self.inner.admit()?;
        names::check_key(&name.key)?;
        let bucket = self.inner.bucket(&name.bucket).await?;
        let row = self.lookup(&bucket, &name.key, name.version_id.as_deref()).await?;
        let version_id = version_id(&bucket, &row);
        Ok((row.tags, version_id))
    }

    /// `PutObjectTagging` and (with none) `DeleteObjectTagging`. Of which version.
    ///
    /// # Errors
    /// As [`Gateway::object_tags`]; InvalidTag.
    pub async fn put_object_tags(&self, name: &ObjectName, tags: Tags) -> Result<Option<String>> {
        tags::check_object_tags(&tags)?;
        Ok(self.change(name, ObjectChange::Tags(tags)).await?.1)
    }

    /// Changes a version in place. The version as it is then, and its id.
    pub(crate) async fn change(&self, name: &ObjectName, change: ObjectChange) -> Result<(ObjectRow, Option<String>)> {
        let _admitted = self.inner.admit()?;
        names::check_key(&name.key)?;
        let bucket = self.inner.bucket(&name.bucket).await?;
        let version = name.version_id.as_deref().map(version_name).transpose()?;
        let cause = Cause { time_unix_ms: self.inner.clock.now_unix_ms(), ..events::cause() };
        let changed = self.inner.tables.change_object(&bucket, &name.key, version, &change);
        match events::caused(cause, changed).await? {
            Some(row) if row.version.marker => Err(is_marker(&row)),
            Some(row) => {
                let id = version_id(&bucket, &row);
                Ok((row, id))
            }
            None if version.is_some() => Err(no_such_version()),
            // Says so if it is because of a delete marker.
            None => Err(self.lookup(&bucket, &name.key, None).await.err().unwrap_or_else(|| no_such_key(&name.key))),
        }
    }
}
