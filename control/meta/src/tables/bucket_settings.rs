//! A bucket's settings: configuration documents, by kind.
//!
//! A document is bytes that its owner understands (control/s3 or the gateway), at most [`BUCKET_SETTING_BYTES_MAX`] of
//! them, in chunks at `K | bucket id | kind | index`. The bucket's own row says which kinds there are
//! ([`BucketRow::settings`]), so that an operation that has read it, as all do, reads no document that is not there; and it
//! has a version that changes with every setting, so that what was parsed can be kept. Row and documents are written in one
//! transaction and read in one ([`Tables::bucket_with_settings`]).

use super::{BucketRow, Result, Tables, TablesError, keys, read, rows::ROW_VERSION, write};
use crate::kv::{RangeRead, Transaction};

/// Most bytes of one document: a lifecycle of 1,000 rules fits well.
pub const BUCKET_SETTING_BYTES_MAX: usize = 512 << 10;
/// Bytes of one row of a document.
const CHUNK_BYTES: usize = 48 << 10;

macro_rules! settings {
    ($($(#[$doc:meta])+ $name:ident = $number:literal,)+) => {
        /// The kinds of settings. Numbers are stored: they never change, and new kinds get new ones (below 64).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum BucketSetting { $($(#[$doc])+ $name = $number,)+ }

        impl BucketSetting {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
        }
    };
}

settings! {
    /// The bucket's tags.
    Tagging = 1,
    /// The bucket policy, JSON as it was put.
    Policy = 2,
    /// Which public access is blocked.
    PublicAccessBlock = 3,
    /// Who owns objects and whether ACLs count.
    OwnershipControls = 4,
    /// The bucket's ACL.
    Acl = 5,
    /// Which web origins may ask.
    Cors = 6,
    /// How objects are encrypted by default.
    Encryption = 7,
    /// When objects expire.
    Lifecycle = 8,
    /// Where events go.
    Notification = 9,
    /// Where access logs go.
    Logging = 10,
    /// Whose requests cost whom.
    RequestPayment = 11,
    /// Transfer acceleration.
    Accelerate = 12,
    /// Replication.
    Replication = 13,
    /// Website hosting.
    Website = 14,
    /// Which code data of each storage class has.
    StoragePolicy = 18,
}

impl BucketSetting {
    /// The number that is stored.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Its bit in [`BucketRow::settings`].
    pub const fn bit(self) -> u64 {
        1 << self.number()
    }
}

impl BucketRow {
    /// Whether the bucket has a setting of this kind.
    pub const fn has_setting(&self, kind: BucketSetting) -> bool {
        self.settings & kind.bit() != 0
    }
}

impl Tables {
    /// A bucket and these of its settings, as of one moment. `None` if there is no such bucket.
    ///
    /// # Errors
    /// The store's.
    pub async fn bucket_with_settings<const N: usize>(
        &self,
        name: &str,
        kinds: [BucketSetting; N],
    ) -> Result<Option<(BucketRow, [Option<Vec<u8>>; N])>> {
        transaction!(self, |txn| {
            let Some(row) = read::<BucketRow>(txn, &keys::bucket(name)).await? else { return Ok(None) };
            let mut documents = std::array::from_fn(|_| None);
            for (kind, document) in kinds.into_iter().zip(&mut documents) {
                *document = read_document(txn, &row, kind).await?;
            }
            Ok(Some((row, documents)))
        })
        .await
    }

    /// Sets a setting, in place of the one of this kind that is there.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::SettingTooLarge`], the store's.
    pub async fn put_bucket_setting(&self, name: &str, kind: BucketSetting, document: &[u8]) -> Result<()> {
        self.set_bucket_setting(name, kind, Some(document)).await
    }

    /// Removes a setting, if it is there.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], the store's.
    pub async fn delete_bucket_setting(&self, name: &str, kind: BucketSetting) -> Result<()> {
        self.set_bucket_setting(name, kind, None).await
    }

    async fn set_bucket_setting(&self, name: &str, kind: BucketSetting, document: Option<&[u8]>) -> Result<()> {
        transaction!(self, |txn| {
            if document.is_none() {
                txn.makes_room();
            }
            let key = keys::bucket(name);
            let mut row: BucketRow = read(txn, &key).await?.ok_or(TablesError::NoSuchBucket)?;
            if document.is_none() && !row.has_setting(kind) {
                return Ok(());
            }
            write_document(txn, &mut row, kind, document)?;
            write(txn, &key, &row)
        })
        .await
    }
}

/// The document of this kind, if the bucket has it.
pub(super) async fn read_document(
    txn: &mut dyn Transaction,
    row: &BucketRow,
    kind: BucketSetting,
) -> Result<Option<Vec<u8>>> {
    if !row.has_setting(kind) {
        return Ok(None);
    }
    let prefix = keys::bucket_setting(row.id, kind.number());
    let (mut begin, end, mut document) = (prefix.clone(), keys::past(&prefix), Vec::new());
    loop {
        let page = txn.get_range(RangeRead::between(&begin, &end)).await?;
        for (_, value) in &page.rows {
            match value.split_first() {
                Some((&ROW_VERSION, bytes)) => document.extend_from_slice(bytes),
                _ => {
                    let why = format!("{kind:?} has an unknown version");
                    return Err(TablesError::Unreadable { row: "bucket setting", why });
                }
            }
        }
        match page.rows.last() {
            Some((last, _)) if page.more => begin = keys::after(last),
            _ => return Ok(Some(document)),
        }
    }
}

/// Puts (or removes) a document and says so in `row`, which the caller writes.
pub(super) fn write_document(
    txn: &mut dyn Transaction,
    row: &mut BucketRow,
    kind: BucketSetting,
    document: Option<&[u8]>,
) -> Result<()> {
    if row.has_setting(kind) {
        let prefix = keys::bucket_setting(row.id, kind.number());
        txn.clear_range(&prefix, &keys::past(&prefix))?;
    }
    row.settings &= !kind.bit();
    row.settings_version += 1;
    let Some(document) = document else { return Ok(()) };
    if document.len() > BUCKET_SETTING_BYTES_MAX {
        return Err(TablesError::SettingTooLarge { bytes: document.len() });
    }
    row.settings |= kind.bit();
    for (index, chunk) in (0..).zip(document.chunks(CHUNK_BYTES)) {
        txn.set(&keys::bucket_setting_chunk(row.id, kind.number(), index), &[&[ROW_VERSION], chunk].concat())?;
    }
    Ok(())
}
