//! Server-side encryption: which key an object's bytes are under, and who may have it opened.
//!
//! **What.** A new object that is to be encrypted gets a random data key, which goes into the object's row in an envelope
//! ([`EncryptionRow`]): under the store's own key (SSE-S3), a named one (SSE-KMS), or the client's (SSE-C). An upload gets
//! one for all of its parts. The bytes are sealed as they are stored (`seal`) and opened as they are read (`open`), segment
//! by segment (penstock-vault): nothing else knows that they are ciphertext.
//!
//! **What is promised.** Ciphertext is never handed out as plaintext: a read of an encrypted object without its key is an
//! error here ([`crate::read::Cursor::open`]), and plans, which would have the client read what is stored, are declined.
//! Lengths, ranges, checksums and digests are those of the plaintext. The ETag of SSE-C and SSE-KMS is not its MD5, as on
//! AWS.
//!
//! **How it fails.** In AWS's words. An absent, superfluous or wrong key is told before a byte is read.

pub(crate) mod open;
pub(crate) mod seal;
mod update;

use std::sync::Arc;

use penstock_meta::tables::{EncryptionKind, EncryptionRow};
use penstock_vault::{AWS_MANAGED_KEY, CustomerKey, DataKey};
pub use penstock_vault::{KeyInfo, KeyName, KeyStore, MasterKey, VaultError};

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, Inner};

/// How a new object is to be encrypted.
#[derive(Clone, Debug)]
pub enum Encrypt {
    /// SSE-S3, `AES256`.
    S3,
    /// SSE-KMS, `aws:kms`.
    Kms(KmsKey),
    /// SSE-C.
    Customer(CustomerKey),
}

/// Which named key, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KmsKey {
    /// Its name, alias or ARN; `None` for the default key.
    pub key: Option<String>,
    /// The encryption context: a JSON object of strings with sorted keys; empty for none.
    pub context: String,
    /// Whether an S3 Bucket Key was asked for. It changes nothing but the answers: there are no calls to be saved.
    pub bucket_key: bool,
}

/// How an object is encrypted, as answers tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncryptionInfo {
    /// SSE-S3.
    S3,
    /// SSE-KMS.
    Kms {
        /// The key as the request named it.
        key: String,
        /// The encryption context; empty for none.
        context: String,
        /// Whether an S3 Bucket Key was asked for.
        bucket_key: bool,
    },
    /// SSE-C.
    Customer,
}

impl Encrypt {
    /// What an answer tells of an object that was encrypted so.
    #[must_use]
    pub fn info(&self) -> EncryptionInfo {
        match self {
            Self::S3 => EncryptionInfo::S3,
            Self::Kms(kms) => EncryptionInfo::Kms {
                key: kms.key.clone().unwrap_or_else(|| AWS_MANAGED_KEY.to_owned()),
                context: kms.context.clone(),
                bucket_key: kms.bucket_key,
            },
            Self::Customer(_) => EncryptionInfo::Customer,
        }
    }
}

/// What is told of a row.
pub(crate) fn info(row: &EncryptionRow) -> EncryptionInfo {
    match &row.kind {
        EncryptionKind::S3 => EncryptionInfo::S3,
        EncryptionKind::Kms { named, context, bucket_key, .. } => {
            EncryptionInfo::Kms { key: named.clone(), context: context.clone(), bucket_key: *bucket_key }
        }
        EncryptionKind::Customer => EncryptionInfo::Customer,
    }
}

/// The ETag's bytes of an object or part with this MD5: the MD5 itself, unless its encryption is to hide it.
pub(crate) fn etag_md5(key: Option<&ObjectKey>, md5: [u8; 16]) -> [u8; 16] {
    match key {
        Some(ObjectKey {
            row: EncryptionRow { kind: EncryptionKind::Kms { .. } | EncryptionKind::Customer, .. },
            key,
        }) => key.opaque_etag(md5),
        _ => md5,
    }
}

/// A data key that was opened (or just made), with the row that has it.
pub(crate) struct ObjectKey {
    pub(crate) row: EncryptionRow,
    pub(crate) key: DataKey,
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        let kind = match &error {
            VaultError::NoSuchKey(_) => ErrorKind::KmsNotFound,
            VaultError::Disabled(_) => ErrorKind::KmsDisabled,
            VaultError::BadName(_) | VaultError::KeyExists(_) | VaultError::TooMany(_) => ErrorKind::InvalidArgument,
            VaultError::Tables(error) => return error.clone().into(),
            _ => ErrorKind::InternalError,
        };
        if kind == ErrorKind::InternalError {
            tracing::error!(%error, "encryption keys");
        }
        Self::new(kind, format!("Encryption: {error}."))
    }
}

fn no_keys() -> Error {
    Error::new(
        ErrorKind::NotImplemented,
        "This gateway was started without an encryption key: nothing can be encrypted.",
    )
}

impl Inner {
    fn keys(&self) -> Result<&Arc<KeyStore>> {
        self.keys.as_ref().ok_or_else(no_keys)
    }

    /// A key for a new object or upload that is to be encrypted so.
    ///
    /// # Errors
    /// KmsNotFound, KmsDisabled, InvalidArgument for a name that is none; NotImplemented without a master key.
    pub(crate) async fn new_key(&self, asked: Option<&Encrypt>) -> Result<Option<ObjectKey>> {
        let Some(asked) = asked else { return Ok(None) };
        let key = DataKey::random()?;
        Ok(Some(ObjectKey { row: self.sealed(asked, &key).await?, key }))
    }

    /// A data key in the envelope that was asked for.
    ///
    /// # Errors
    /// As [`Inner::new_key`].
    async fn sealed(&self, asked: &Encrypt, key: &DataKey) -> Result<EncryptionRow> {
        let keys = self.keys()?;
        let (kind, sealed_key) = match asked {
            Encrypt::S3 => (EncryptionKind::S3, keys.seal_s3(key)?),
            Encrypt::Customer(customer) => (EncryptionKind::Customer, customer.seal(key)?),
            Encrypt::Kms(kms) => {
                let named = kms.key.clone().unwrap_or_else(|| AWS_MANAGED_KEY.to_owned());
                let name = KeyName::parse(&named)?;
                let (version, sealed) = keys.seal_kms(&name, &kms.context, key, self.clock.now_unix_ms()).await?;
                let (context, bucket_key) = (kms.context.clone(), kms.bucket_key);
                let key = name.as_str().to_owned();
                (EncryptionKind::Kms { key, named, version, context, bucket_key }, sealed)
            }
        };
        Ok(EncryptionRow { kind, sealed_key })
    }

    /// Opens the key of an object that is read.
    ///
    /// # Errors
    /// InvalidRequest when a customer's key is needed, or was sent for an object that has none; AccessDenied when it is the
    /// wrong one; KmsNotFound, KmsDisabled; InternalError for an envelope that was changed.
    pub(crate) async fn key_of(
        &self,
        row: Option<&EncryptionRow>,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<ObjectKey>> {
        let Some(row) = row else {
            return if customer.is_some() { Err(not_applicable()) } else { Ok(None) };
        };
        let key = match (&row.kind, customer) {
            (EncryptionKind::Customer, Some(customer)) => open_customers(row, customer)?,
            (EncryptionKind::Customer, None) => return Err(key_needed()),
            (_, Some(_)) => return Err(not_applicable()),
            (EncryptionKind::S3, None) => self.keys()?.open_s3(&row.sealed_key)?,
            (EncryptionKind::Kms { key, version, context, .. }, None) => {
                self.keys()?.open_kms(&KeyName::parse(key)?, *version, context, &row.sealed_key).await?
            }
        };
        Ok(Some(ObjectKey { row: row.clone(), key }))
    }

    /// Opens the key of an upload that a part is for.
    ///
    /// # Errors
    /// As [`Inner::key_of`], in the words that AWS has for parts.
    pub(crate) async fn key_of_upload(
        &self,
        row: Option<&EncryptionRow>,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<ObjectKey>> {
        let wants = matches!(row, Some(EncryptionRow { kind: EncryptionKind::Customer, .. }));
        let invalid = |message: &'static str| Err(Error::new(ErrorKind::InvalidRequest, message));
        match customer {
            None if wants => invalid(
                "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate \
                 encryption parameters.",
            ),
            Some(_) if !wants => invalid(
                "The multipart upload initiate did not request encryption. Please resend the request without sending \
                 encryption parameters.",
            ),
            _ => match self.key_of(row, customer).await {
                Err(error) if wants && error.kind == ErrorKind::AccessDenied => {
                    invalid("The provided encryption parameters did not match the ones used originally.")
                }
                other => other,
            },
        }
    }
}

/// Whether the customer's key that was sent with a request that reads no bytes is the right one, or none is needed.
///
/// # Errors
/// As [`Inner::key_of`].
pub(crate) fn check_customers_key(row: Option<&EncryptionRow>, customer: Option<&CustomerKey>) -> Result<()> {
    match (row, customer) {
        (Some(row @ EncryptionRow { kind: EncryptionKind::Customer, .. }), Some(customer)) => {
            open_customers(row, customer).map(drop)
        }
        (Some(EncryptionRow { kind: EncryptionKind::Customer, .. }), None) => Err(key_needed()),
        (_, Some(_)) => Err(not_applicable()),
        (_, None) => Ok(()),
    }
}

fn open_customers(row: &EncryptionRow, customer: &CustomerKey) -> Result<DataKey> {
    // Another client's key and an envelope that was changed look the same.
    customer.open(&row.sealed_key).map_err(|_wrong| Error::new(ErrorKind::AccessDenied, "Access Denied"))
}

fn key_needed() -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve \
         the object.",
    )
}

fn not_applicable() -> Error {
    Error::new(ErrorKind::InvalidRequest, "The encryption parameters are not applicable to this object.")
}

impl Gateway {
    /// The named keys, for administrators.
    ///
    /// # Errors
    /// NotImplemented without a master key.
    pub fn key_store(&self) -> Result<&KeyStore> {
        Ok(self.inner.keys()?)
    }

    /// Whether the master key is the one that this store began with; the first start notes it. For the start.
    ///
    /// # Errors
    /// InternalError that says what to do; the metadata's.
    pub async fn check_master_key(&self) -> Result<()> {
        match &self.inner.keys {
            Some(keys) => Ok(keys.check().await?),
            None => Ok(()),
        }
    }
}
