//! Named keys (SSE-KMS): made, listed, disabled and rotated by administrators, each version sealed under the master key.
//!
//! A key has versions. Data keys are sealed under the newest and say which that was; rotating adds one, so that what was
//! written before is read as before. Keys are never removed: what they sealed would be lost. They are read when they are
//! first needed and kept; all changes go through one [`KeyStore`], for there is one gateway per store.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use penstock_meta::tables::Tables;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::derive::KeyBytes;
use crate::{DataKey, MasterKey, Result, VaultError};

/// The key that SSE-KMS uses when the request names none. It is made when it is first needed.
pub const AWS_MANAGED_KEY: &str = "aws/s3";

/// Most keys of a store: all of them are listed, and kept, at once.
const KEYS_MAX: usize = 10_000;
/// Most versions of a key: all are in its row.
const KEY_VERSIONS_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 256;

const MASTER_ROW: &str = "master";
const SSE_S3: &str = "penstock sse-s3 v1";
const SSE_KMS: &str = "penstock sse-kms v1";

/// A key's name: what is left of `alias/NAME` and of ARNs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

impl KeyName {
    /// The name in `text`: `NAME`, `alias/NAME`, `arn:aws:kms:REGION:ACCOUNT:key/NAME` or `...:alias/NAME`.
    ///
    /// # Errors
    /// [`VaultError::BadName`].
    pub fn parse(text: &str) -> Result<Self> {
        let named = match text.strip_prefix("arn:") {
            Some(arn) => {
                arn.splitn(5, ':').nth(4).and_then(|resource| resource.strip_prefix("key/").or(Some(resource)))
            }
            None => Some(text),
        };
        let name = named.map(|name| name.strip_prefix("alias/").unwrap_or(name)).unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.:-".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(VaultError::BadName(text.chars().filter(|c| !c.is_control()).take(NAME_BYTES_MAX).collect()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn row(&self) -> String {
        format!("{KMS_PREFIX}{}", self.0)
    }
}

const KMS_PREFIX: &str = "kms/";

/// What may be told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_unix_ms: u64,
    /// Whether it may be used.
    pub enabled: bool,
    /// How many versions it has: one more than it was rotated.
    pub versions: usize,
}

/// A key's row, JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    created_unix_ms: u64,
    enabled: bool,
    /// Oldest first, in envelopes of the master key, hex.
    versions: Vec<String>,
}

/// A key in memory.
struct Loaded {
    info: KeyInfo,
    versions: Vec<DataKey>,
}

/// The keys of a store.
pub struct KeyStore {
    tables: Tables,
    sse_s3: KeyBytes,
    sse_kms: KeyBytes,
    kept: RwLock<HashMap<KeyName, Arc<Loaded>>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyStore(..)")
    }
}

fn about_version(name: &KeyName, version: usize) -> Vec<u8> {
    format!("kms key\0{}\0{version}", name.as_str()).into_bytes()
}

impl KeyStore {
    /// The keys in `tables`, sealed under `master`. Nothing is read yet: see [`KeyStore::check`].
    #[must_use]
    pub fn new(tables: Tables, master: &MasterKey) -> Self {
        Self {
            tables,
            sse_s3: master.for_purpose(SSE_S3),
            sse_kms: master.for_purpose(SSE_KMS),
            kept: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the master key is the one that this store began with. The first start notes it.
    ///
    /// # Errors
    /// [`VaultError::WrongMasterKey`]; the metadata's.
    pub async fn check(&self) -> Result<()> {
        let _changing = self.changing.lock().await;
        match self.tables.vault_row(MASTER_ROW).await? {
            Some(sealed) => match DataKey::open(&sealed, &self.sse_kms, MASTER_ROW.as_bytes()) {
                Ok(_) => Ok(()),
                Err(VaultError::Tampered) => Err(VaultError::WrongMasterKey),
                Err(other) => Err(other),
            },
            None => {
                let sealed = DataKey::random()?.seal(&self.sse_kms, MASTER_ROW.as_bytes())?;
                self.put(MASTER_ROW, None, &sealed).await
            }
        }
    }

    /// A data key in an envelope of SSE-S3.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal_s3(&self, key: &DataKey) -> Result<Vec<u8>> {
        key.seal(&self.sse_s3, b"s3")
    }

    /// The data key in that envelope.
    ///
    /// # Errors
    /// [`VaultError::Tampered`].
    pub fn open_s3(&self, sealed: &[u8]) -> Result<DataKey> {
        DataKey::open(sealed, &self.sse_s3, b"s3")
    }

    /// A data key in an envelope of the newest version of a named key, and which version that is. `context` must be the
    /// same when it is opened.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], [`VaultError::Disabled`], [`VaultError::Unreadable`], the metadata's.
    pub async fn seal_kms(
        &self,
        name: &KeyName,
        context: &str,
        key: &DataKey,
        now_unix_ms: u64,
    ) -> Result<(u32, Vec<u8>)> {
        let loaded = match self.usable(name).await {
            Err(VaultError::NoSuchKey(_)) if name.as_str() == AWS_MANAGED_KEY => {
                match self.create(name, now_unix_ms).await {
                    Ok(_) | Err(VaultError::KeyExists(_)) => self.usable(name).await?,
                    Err(error) => return Err(error),
                }
            }
            other => other?,
        };
        let version = loaded.versions.len() - 1;
        let sealed = key.seal(loaded.versions[version].bytes(), &about_data_key(name, context))?;
        Ok((version as u32, sealed))
    }

    /// The data key in that envelope.
    ///
    /// # Errors
    /// As [`KeyStore::seal_kms`]; [`VaultError::Tampered`].
    pub async fn open_kms(&self, name: &KeyName, version: u32, context: &str, sealed: &[u8]) -> Result<DataKey> {
        let loaded = self.usable(name).await?;
        let key = loaded.versions.get(version as usize).ok_or(VaultError::Tampered)?;
        DataKey::open(sealed, key.bytes(), &about_data_key(name, context))
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`VaultError::KeyExists`], [`VaultError::TooMany`], the metadata's.
    pub async fn create(&self, name: &KeyName, now_unix_ms: u64) -> Result<KeyInfo> {
        let _changing = self.changing.lock().await;
        if self.tables.vault_row(&name.row()).await?.is_some() {
            return Err(VaultError::KeyExists(name.0.clone()));
        }
        if self.tables.vault_rows(KMS_PREFIX).await?.len() >= KEYS_MAX {
            return Err(VaultError::TooMany(KEYS_MAX));
        }
        let first = self.new_version(name, 0)?;
        let row = KeyRow { created_unix_ms: now_unix_ms, enabled: true, versions: vec![first] };
        self.change(name, None, &row).await
    }

    /// All keys, by name.
    ///
    /// # Errors
    /// [`VaultError::Unreadable`], the metadata's.
    pub async fn list(&self) -> Result<Vec<KeyInfo>> {
        let rows = self.tables.vault_rows(KMS_PREFIX).await?;
        rows.into_iter()
            .map(|(row, bytes)| {
                let name = row.strip_prefix(KMS_PREFIX).unwrap_or(&row).to_owned();
                let row = parse(&name, &bytes)?;
                Ok(info(name, &row))
            })
            .collect()
    }

    /// Lets a key be used, or not.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], the metadata's.
    pub async fn set_enabled(&self, name: &KeyName, enabled: bool) -> Result<KeyInfo> {
        let _changing = self.changing.lock().await;
        let (before, row) = self.row(name).await?;
        self.change(name, Some(&before), &KeyRow { enabled, ..row }).await
    }

    /// Adds a version, under which data keys are sealed from now on.
    ///
    /// # Errors
    /// [`VaultError::NoSuchKey`], [`VaultError::TooMany`], the metadata's.
    pub async fn rotate(&self, name: &KeyName) -> Result<KeyInfo> {
        let _changing = self.changing.lock().await;
        let (before, mut row) = self.row(name).await?;
        if row.versions.len() >= KEY_VERSIONS_MAX {
            return Err(VaultError::TooMany(KEY_VERSIONS_MAX));
        }
        let next = self.new_version(name, row.versions.len())?;
        row.versions.push(next);
        self.change(name, Some(&before), &row).await
    }

    fn new_version(&self, name: &KeyName, version: usize) -> Result<String> {
        Ok(hex::encode(DataKey::random()?.seal(&self.sse_kms, &about_version(name, version))?))
    }

    async fn row(&self, name: &KeyName) -> Result<(Vec<u8>, KeyRow)> {
        let bytes = self.tables.vault_row(&name.row()).await?;
        let bytes = bytes.ok_or_else(|| VaultError::NoSuchKey(name.0.clone()))?;
        let row = parse(&name.0, &bytes)?;
        Ok((bytes, row))
    }

    async fn change(&self, name: &KeyName, before: Option<&[u8]>, row: &KeyRow) -> Result<KeyInfo> {
        let bytes = serde_json::to_vec(row).map_err(|error| unreadable(&name.0, &error.to_string()))?;
        // Forgotten before and after: who reads in between keeps nothing that is older than what is written.
        self.kept.write().remove(name);
        let put = self.put(&name.row(), before, &bytes).await;
        self.kept.write().remove(name);
        put?;
        Ok(info(name.0.clone(), row))
    }

    async fn put(&self, row: &str, before: Option<&[u8]>, bytes: &[u8]) -> Result<()> {
        if self.tables.replace_vault_row(row, before, bytes).await? {
            return Ok(());
        }
        Err(unreadable(row, "it was changed by another process: one gateway per store"))
    }

    /// The key, if it may be used.
    async fn usable(&self, name: &KeyName) -> Result<Arc<Loaded>> {
        let kept = self.kept.read().get(name).cloned();
        let loaded = match kept {
            Some(loaded) => loaded,
            None => self.load(name).await?,
        };
        if loaded.info.enabled { Ok(loaded) } else { Err(VaultError::Disabled(name.0.clone())) }
    }

    async fn load(&self, name: &KeyName) -> Result<Arc<Loaded>> {
        // Not while it is being changed.
        let _changing = self.changing.lock().await;
        let (_, row) = self.row(name).await?;
        let open = |(version, text): (usize, &String)| {
            let sealed = Zeroizing::new(hex::decode(text).map_err(|error| unreadable(&name.0, &error.to_string()))?);
            DataKey::open(&sealed, &self.sse_kms, &about_version(name, version))
        };
        let versions: Vec<DataKey> = row.versions.iter().enumerate().map(open).collect::<Result<_>>()?;
        if versions.is_empty() {
            return Err(unreadable(&name.0, "it has no version"));
        }
        let loaded = Arc::new(Loaded { info: info(name.0.clone(), &row), versions });
        self.kept.write().insert(name.clone(), loaded.clone());
        Ok(loaded)
    }
}

fn about_data_key(name: &KeyName, context: &str) -> Vec<u8> {
    format!("kms\0{}\0{context}", name.as_str()).into_bytes()
}

fn parse(name: &str, bytes: &[u8]) -> Result<KeyRow> {
    serde_json::from_slice(bytes).map_err(|error| unreadable(name, &error.to_string()))
}

fn info(name: String, row: &KeyRow) -> KeyInfo {
    KeyInfo { name, created_unix_ms: row.created_unix_ms, enabled: row.enabled, versions: row.versions.len() }
}

fn unreadable(name: &str, why: &str) -> VaultError {
    VaultError::Unreadable { name: name.to_owned(), why: why.to_owned() }
}
