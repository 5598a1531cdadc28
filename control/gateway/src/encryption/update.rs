//! `UpdateObjectEncryption`: an object's data key goes into another envelope. Its bytes stay as they are, and so does its ETag.

use penstock_meta::tables::{EncryptionKind, ObjectChange};

use super::{Encrypt, KmsKey};
use crate::api::ObjectName;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, no_such_key};
use crate::names;
use crate::versions::version_name;

/// How often an object is looked at again because it was replaced meanwhile.
const TRIES_MAX: usize = 4;

impl Gateway {
    /// `UpdateObjectEncryption`: puts an object that is encrypted with SSE-S3 or SSE-KMS under this named key.
    ///
    /// # Errors
    /// NoSuchKey, NoSuchVersion, MethodNotAllowed; InvalidRequest for an object that is not encrypted so; KmsNotFound, KmsDisabled,
    /// of the old key or the new.
    pub async fn update_object_encryption(&self, name: &ObjectName, kms: KmsKey) -> Result<()> {
        let _admitted = self.inner.admit()?;
        names::check_key(&name.key)?;
        let bucket = self.inner.bucket(&name.bucket).await?;
        let version = name.version_id.as_deref().map(version_name).transpose()?;
        for _ in 0..TRIES_MAX {
            let row = self.lookup(&bucket, &name.key, name.version_id.as_deref()).await?;
            let Some(from) = row.encryption.filter(|row| row.kind != EncryptionKind::Customer) else {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "The encryption of an object can be updated if it is encrypted with SSE-S3 or SSE-KMS: copy the object \
                     onto itself to encrypt it anew.",
                ));
            };
            let opened = self.inner.key_of(Some(&from), None).await?;
            let key = opened.ok_or_else(|| Error::new(ErrorKind::InternalError, "An envelope holds a key."))?.key;
            let to = self.inner.sealed(&Encrypt::Kms(kms.clone()), &key).await?;
            let change = ObjectChange::Encryption { from, to: to.clone() };
            let changed = self.inner.tables.change_object(&bucket, &name.key, version, &change).await?;
            match changed {
                Some(row) if row.encryption.as_ref() == Some(&to) => return Ok(()),
                // Replaced meanwhile: look again.
                Some(_) => {}
                None => return Err(no_such_key(&name.key)),
            }
        }
        Err(Error::new(ErrorKind::SlowDown, "The object is being replaced again and again; try again in a moment."))
    }
}
