//! Storage policies: which code new data of a storage class has.
//!
//! A storage class (`x-amz-storage-class`) is a name, and a policy says what code data of that name is kept with. What a
//! bucket says of a class goes before what the store says (the administrator's word, kept in the metadata), and that before the
//! configuration. STANDARD always has a policy: the cluster's code. A class without a policy is refused; so is a policy whose
//! code the nodes can't hold. A policy is for data that is written from then on: objects keep the code that their row names.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_meta::tables::{BucketRow, BucketSetting};
use penstock_placement::shortfalls;
use penstock_proto::Code;

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, Inner, no_such_bucket};
use crate::names::STANDARD;

/// Classes that a store, and that a bucket, may have policies for.
pub const CLASSES_MAX: usize = 32;
/// Longest name of a class.
pub const CLASS_BYTES_MAX: usize = 64;
/// Buckets whose policies are kept parsed.
const PARSED_MAX: usize = 1024;
/// Name of the setting with the store's policies.
const SETTING: &str = "storage-policies";

/// Codes by class, as text: what is kept.
type Document = BTreeMap<String, String>;
/// Codes by class.
pub type Classes = BTreeMap<String, Code>;

/// Where a policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// The configuration, or the default for so many nodes.
    Configuration,
    /// Set for the whole store.
    Store,
    /// Set for a bucket.
    Bucket,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePolicy {
    /// The class that it is for.
    pub class: String,
    /// How its data is kept.
    pub code: Code,
    /// Where it comes from.
    pub source: PolicySource,
}

/// What was read of them.
#[derive(Default)]
pub(crate) struct Policies {
    store: tokio::sync::RwLock<Option<Arc<Classes>>>,
    /// By bucket id, with the version of the bucket's settings.
    buckets: Mutex<HashMap<u64, (u64, Arc<Classes>)>>,
}

fn parsed(document: &[u8]) -> Result<Classes> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InternalError, format!("Stored storage policies can't be read: {error}"))
    };
    let document: Document = serde_json::from_slice(document).map_err(|error| bad(&error))?;
    document.into_iter().map(|(class, code)| Ok((class, code.parse::<Code>().map_err(|error| bad(&error))?))).collect()
}

fn written(classes: &Classes) -> Result<Vec<u8>> {
    let document: Document = classes.iter().map(|(class, code)| (class.clone(), code.to_string())).collect();
    serde_json::to_vec(&document)
        .map_err(|error| Error::new(ErrorKind::InternalError, format!("Storage policies can't be written: {error}")))
}

/// Whether a class may be called that.
///
/// # Errors
/// InvalidArgument.
pub fn check_class(class: &str) -> Result<()> {
    let letters = class.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if letters && !class.is_empty() && class.len() <= CLASS_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "{class:?} is no storage class: write 1 to {CLASS_BYTES_MAX} capital letters, digits and underscores, for example \
             STANDARD_IA."
        ),
    ))
}

impl Inner {
    async fn store_classes(&self) -> Result<Arc<Classes>> {
        if let Some(classes) = self.policies.store.read().await.as_ref() {
            return Ok(Arc::clone(classes));
        }
        let mut kept = self.policies.store.write().await;
        let classes = match self.tables.setting(SETTING).await? {
            Some(document) => parsed(&document)?,
            None => Classes::new(),
        };
        Ok(Arc::clone(kept.insert(Arc::new(classes))))
    }

    async fn bucket_classes(&self, bucket: &BucketRow) -> Result<Option<Arc<Classes>>> {
        if !bucket.has_setting(BucketSetting::StoragePolicy) {
            return Ok(None);
        }
        if let Some((version, classes)) = self.policies.buckets.lock().get(&bucket.id)
            && *version == bucket.settings_version
        {
            return Ok(Some(Arc::clone(classes)));
        }
        let found = self.tables.bucket_with_settings(&bucket.name, [BucketSetting::StoragePolicy]).await?;
        let (row, [document]) = found.ok_or_else(|| no_such_bucket(&bucket.name))?;
        let Some(document) = document else { return Ok(None) };
        let classes = Arc::new(parsed(&document)?);
        let mut kept = self.policies.buckets.lock();
        if kept.len() >= PARSED_MAX {
            kept.clear();
        }
        kept.insert(row.id, (row.settings_version, Arc::clone(&classes)));
        Ok(Some(classes))
    }

    /// The class's policy in this bucket. An empty class is STANDARD.
    ///
    /// # Errors
    /// InvalidStorageClass, naming those that there are.
    pub(crate) async fn policy(&self, bucket: &BucketRow, class: &str) -> Result<StoragePolicy> {
        let class = if class.is_empty() { STANDARD } else { class };
        let policy = |code, source| Ok(StoragePolicy { class: class.to_owned(), code, source });
        if let Some(classes) = self.bucket_classes(bucket).await?
            && let Some(code) = classes.get(class)
        {
            return policy(*code, PolicySource::Bucket);
        }
        if let Some(code) = self.store_classes().await?.get(class) {
            return policy(*code, PolicySource::Store);
        }
        if let Some(code) = self.options.storage_classes.get(class) {
            return policy(*code, PolicySource::Configuration);
        }
        if class == STANDARD {
            return policy(self.options.code, PolicySource::Configuration);
        }
        let known: Vec<String> = self.policies_of(Some(bucket)).await?.into_iter().map(|policy| policy.class).collect();
        Err(Error::new(
            ErrorKind::InvalidStorageClass,
            format!(
                "The storage class you specified is not valid: {class} has no policy here; {} have.",
                known.join(", ")
            ),
        ))
    }

    async fn policies_of(&self, bucket: Option<&BucketRow>) -> Result<Vec<StoragePolicy>> {
        let mut all: BTreeMap<String, (Code, PolicySource)> = BTreeMap::new();
        all.insert(STANDARD.to_owned(), (self.options.code, PolicySource::Configuration));
        let configured = self.options.storage_classes.iter();
        all.extend(configured.map(|(class, code)| (class.clone(), (*code, PolicySource::Configuration))));
        let store = self.store_classes().await?;
        all.extend(store.iter().map(|(class, code)| (class.clone(), (*code, PolicySource::Store))));
        if let Some(bucket) = bucket
            && let Some(classes) = self.bucket_classes(bucket).await?
        {
            all.extend(classes.iter().map(|(class, code)| (class.clone(), (*code, PolicySource::Bucket))));
        }
        Ok(all.into_iter().map(|(class, (code, source))| StoragePolicy { class, code, source }).collect())
    }

    /// Whether the nodes can hold a code.
    fn check_code(&self, code: Code) -> Result<()> {
        let nodes = self.options.cluster_map.nodes.len();
        if code.n() > nodes {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{code} keeps {} data and {} parity shards on {} different nodes, and there are {nodes}.",
                    code.k(),
                    code.m(),
                    code.n()
                ),
            ));
        }
        if let Some(short) = shortfalls(&self.options.cluster_map, code.n(), code.losses_survived()).last()
            && self.options.spread_required
        {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{code} survives the loss of any {} shards, and {} failure domains of level {} would hold {} of a stripe \
                     each: spread = \"require\" does not allow that.",
                    code.losses_survived(),
                    short.domains,
                    short.level,
                    short.shards_per_domain
                ),
            ));
        }
        Ok(())
    }
}

impl Gateway {
    /// The policies of a bucket, or of the store: by class, each the one that goes before the others.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn storage_policies(&self, bucket: Option<&str>) -> Result<Vec<StoragePolicy>> {
        let _admitted = self.inner.admit()?;
        let row = match bucket {
            Some(bucket) => Some(self.inner.bucket(bucket).await?),
            None => None,
        };
        self.inner.policies_of(row.as_ref()).await
    }

    /// Sets the policy of a class, for a bucket or for the store. `None` takes back what was set.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidArgument for what is no class; InvalidRequest for a code that the nodes can't hold, and past
    /// [`CLASSES_MAX`] classes.
    pub async fn set_storage_policy(&self, bucket: Option<&str>, class: &str, code: Option<Code>) -> Result<()> {
        let _admitted = self.inner.admit()?;
        let inner = &self.inner;
        check_class(class)?;
        if let Some(code) = code {
            inner.check_code(code)?;
        }
        // Changes of the store's policies come one after the other; a bucket's are decided by its row.
        let mut store = inner.policies.store.write().await;
        let before = match bucket {
            Some(name) => {
                let found = inner.tables.bucket_with_settings(name, [BucketSetting::StoragePolicy]).await?;
                found.ok_or_else(|| no_such_bucket(name))?.1[0].clone()
            }
            None => inner.tables.setting(SETTING).await?,
        };
        let mut classes = before.as_deref().map_or_else(|| Ok(Classes::new()), parsed)?;
        match code {
            Some(code) => drop(classes.insert(class.to_owned(), code)),
            None => drop(classes.remove(class)),
        }
        if classes.len() > CLASSES_MAX {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("There may be policies for {CLASSES_MAX} storage classes, not more."),
            ));
        }
        let document = written(&classes)?;
        match bucket {
            Some(name) => inner.tables.put_bucket_setting(name, BucketSetting::StoragePolicy, &document).await?,
            None => {
                inner.tables.set_setting(SETTING, &document).await?;
                *store = Some(Arc::new(classes));
            }
        }
        Ok(())
    }
}
