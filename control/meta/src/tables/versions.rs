//! Versions: what lies under one key, and the only ways in which that changes.
//!
//! The current version of an object is the row `O | bucket | key`, whether or not its bucket has versions: it is found in one
//! read, and a listing of current objects never meets an old version or a delete marker. Everything else is a row
//! `N | bucket | key | version`, newest first. What always holds:
//!
//! * the row at `O` is an object, newer than all of the key's `N` rows;
//! * without a row at `O` the newest `N` row, if there is one, is a delete marker: the *current* version;
//! * `superseded_unix_ms` is 0 in the current version's row and in no other;
//! * at most one version of a key is the null version; if it is at `N`, then `X | bucket | key` says where.
//!
//! [`place`] makes a version the current one (every PUT, copy, Complete and simple DELETE goes through it), [`remove`]
//! takes one away for good. Both keep the above, and nothing else writes `O`, `N` and `X` rows but for fields that don't
//! matter here.
//!
//! **Object lock** is enforced where a version is destroyed, in [`discard`], which both call and through which every
//! object's data must go to become garbage: no delete, overwrite or lifecycle rule gets around it.

use penstock_proto::DataId;

use super::keys::{self, VersionKey};
use super::rows::{ROW_VERSION, decode};
use super::{
    BucketRow, EncryptionRow, Layout, LockRow, ObjectLockRow, ObjectRow, Preconditions, Result, RetentionRow, Tables,
    TablesError, VersionRow, Versioning,
};
use super::{buckets, encode, extents, garbage, outbox, read, write};
use crate::kv::{RangeRead, Transaction};

/// Stamps count 65,536 to the millisecond.
const STAMP_SHIFT: u32 = 16;
/// One day.
const DAY_MS: u64 = 86_400_000;

impl VersionRow {
    /// Where the version stands among those of its key.
    pub(super) fn key(&self) -> VersionKey {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(!self.stamp).to_be_bytes());
        key[8..].copy_from_slice(&self.salt.to_be_bytes());
        key
    }

    /// Its id: `null`, or 32 hex digits. Ids of one key sort newest first.
    pub fn id(&self) -> String {
        if self.null { "null".to_owned() } else { self.place() }
    }

    /// Its place among the versions of its key, as a marker of listings: 32 hex digits, for the null version too.
    pub fn place(&self) -> String {
        keys::hex(&self.key())
    }
}

/// A version as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionName {
    /// The null version.
    Null,
    /// The one of this id.
    Id([u8; 16]),
}

impl VersionName {
    /// The name that `text` is; `None` if it can't be one.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" { Some(Self::Null) } else { keys::unhex(text).map(Self::Id) }
    }

    fn names(&self, version: &VersionRow) -> bool {
        match self {
            Self::Null => version.null,
            Self::Id(key) => !version.null && version.key() == *key,
        }
    }
}

/// With what right a version is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockPass {
    /// Now.
    pub now_unix_ms: u64,
    /// Retention in governance mode does not count.
    pub bypass_governance: bool,
}

impl LockPass {
    /// Whether a version with this lock may be destroyed.
    pub(super) fn check(self, lock: &LockRow) -> Result<()> {
        let retained = lock.retention.is_some_and(|retention| self.is_bound_by(&retention));
        if lock.legal_hold == Some(true) || retained { Err(TablesError::Locked) } else { Ok(()) }
    }

    fn is_bound_by(self, retention: &RetentionRow) -> bool {
        retention.until_unix_ms > self.now_unix_ms && (retention.compliance || !self.bypass_governance)
    }
}

/// A change to a version that leaves its data alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectChange {
    /// These are its tags.
    Tags(Vec<(String, String)>),
    /// This is its retention. Other than to make it longer, one that binds `pass` is not changed.
    Retention(Option<RetentionRow>, LockPass),
    /// Whether it is held.
    LegalHold(bool),
    /// Its data key is in another envelope. Nothing changes if it is not in the one that was seen.
    Encryption {
        /// As it was.
        from: EncryptionRow,
        /// As it is to be.
        to: EncryptionRow,
    },
}

/// What deleting did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The version that is gone, if one is.
    pub removed: Option<ObjectRow>,
    /// The delete marker that was made.
    pub marker: Option<VersionRow>,
    /// Whether the bucket has or had versions.
    pub versioned: bool,
}

impl Tables {
    /// Turns versioning on, or off again for what comes.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`]; [`TablesError::BucketLocked`] when it is suspended under object lock;
    /// [`TablesError::BadRow`] for [`Versioning::Off`], which no bucket goes back to.
    pub async fn set_versioning(&self, name: &str, versioning: Versioning) -> Result<()> {
        if versioning == Versioning::Off {
            return Err(TablesError::BadRow("versioning is suspended, never off again"));
        }
        transaction!(self, |txn| {
            let key = keys::bucket(name);
            let mut row: BucketRow = read(txn, &key).await?.ok_or(TablesError::NoSuchBucket)?;
            if row.lock != ObjectLockRow::Off && versioning == Versioning::Suspended {
                return Err(TablesError::BucketLocked);
            }
            row.versioning = versioning;
            write(txn, &key, &row)
        })
        .await
    }

    /// Turns object lock on (it never goes off again), with this default.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`]; [`TablesError::BucketLocked`] unless versioning is on; [`TablesError::BadRow`] for
    /// [`ObjectLockRow::Off`].
    pub async fn set_object_lock(&self, name: &str, lock: ObjectLockRow) -> Result<()> {
        if lock == ObjectLockRow::Off {
            return Err(TablesError::BadRow("object lock is never turned off"));
        }
        transaction!(self, |txn| {
            let key = keys::bucket(name);
            let mut row: BucketRow = read(txn, &key).await?.ok_or(TablesError::NoSuchBucket)?;
            if row.versioning != Versioning::Enabled {
                return Err(TablesError::BucketLocked);
            }
            row.lock = lock;
            write(txn, &key, &row)
        })
        .await
    }

    /// The version of that name, an object or a delete marker.
    ///
    /// # Errors
    /// [`TablesError::KeyLength`], the store's.
    pub async fn version(&self, bucket_id: u64, key: &str, version: VersionName) -> Result<Option<ObjectRow>> {
        keys::check_name(key)?;
        transaction!(self, |txn| Ok(find(txn, bucket_id, key, version).await?.map(|(_, row)| row))).await
    }

    /// The delete marker that is the current version of a key of which [`Tables::object`] found none.
    ///
    /// # Errors
    /// [`TablesError::KeyLength`], the store's.
    pub async fn current_marker(&self, bucket_id: u64, key: &str) -> Result<Option<ObjectRow>> {
        keys::check_name(key)?;
        transaction!(self, |txn| {
            let newest = newest_noncurrent(txn, bucket_id, key).await?;
            Ok(newest.map(|(_, row)| row).filter(|row| row.version.superseded_unix_ms == 0))
        })
        .await
    }

    /// Deletes a key, or one version of it for good. What is not there is deleted already.
    ///
    /// Without `version`: in a bucket without versions the object is removed, and its data becomes garbage; else a delete
    /// marker becomes the current version.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Precondition`] (of the version that is named, or of the current one),
    /// [`TablesError::Locked`], [`TablesError::KeyLength`], the store's.
    pub async fn delete(
        &self,
        bucket: &BucketRow,
        key: &str,
        version: Option<VersionName>,
        preconditions: &Preconditions,
        pass: LockPass,
        garbage_not_before_unix_ms: u64,
    ) -> Result<Deleted> {
        let object_key = keys::object(bucket.id, key)?;
        transaction!(self, |txn, object_key| {
            txn.makes_room();
            let bucket = buckets::check(txn, bucket).await?;
            let versioned = bucket.versioning != Versioning::Off;
            let version = match version {
                None if !versioned => Some(VersionName::Null),
                other => other,
            };
            if let Some(version) = version {
                let found = find(txn, bucket.id, key, version).await?;
                let object = found.as_ref().map(|(_, row)| row).filter(|row| !row.version.marker);
                preconditions.check(object)?;
                let Some((at, row)) = found else { return Ok(Deleted { versioned, ..Deleted::default() }) };
                remove(txn, &bucket, key, &at, &row, pass, garbage_not_before_unix_ms).await?;
                return Ok(Deleted { removed: Some(row), marker: None, versioned });
            }
            let current: Option<ObjectRow> = read(txn, object_key).await?;
            preconditions.check(current.as_ref())?;
            let mut marker = marker_row(pass.now_unix_ms);
            let removed = place(txn, &bucket, key, current, &mut marker, garbage_not_before_unix_ms).await?;
            Ok(Deleted { removed, marker: Some(marker.version), versioned })
        })
        .await
    }

    /// Changes a version (the current one without `version`) in place. The version as it is then; `None` if there is none,
    /// and a delete marker as it was.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Locked`], [`TablesError::NoObjectLock`] for locks in a bucket without,
    /// [`TablesError::RowTooLarge`], [`TablesError::KeyLength`], the store's.
    pub async fn change_object(
        &self,
        bucket: &BucketRow,
        key: &str,
        version: Option<VersionName>,
        change: &ObjectChange,
    ) -> Result<Option<ObjectRow>> {
        let object_key = keys::object(bucket.id, key)?;
        transaction!(self, |txn, object_key| {
            let bucket = buckets::check(txn, bucket).await?;
            let found = match version {
                Some(version) => find(txn, bucket.id, key, version).await?,
                None => read(txn, object_key).await?.map(|row| (object_key.clone(), row)),
            };
            let Some((at, mut row)) = found else { return Ok(None) };
            if row.version.marker {
                return Ok(Some(row));
            }
            let of_lock = matches!(change, ObjectChange::Retention(..) | ObjectChange::LegalHold(_));
            if of_lock && bucket.lock == ObjectLockRow::Off {
                return Err(TablesError::NoObjectLock);
            }
            match change {
                ObjectChange::Tags(tags) => row.tags.clone_from(tags),
                ObjectChange::Encryption { from, .. } if row.encryption.as_ref() != Some(from) => return Ok(Some(row)),
                ObjectChange::Encryption { to, .. } => row.encryption = Some(to.clone()),
                ObjectChange::LegalHold(held) => row.lock.legal_hold = Some(*held),
                ObjectChange::Retention(retention, pass) => {
                    if let Some(old) = row.lock.retention
                        && pass.is_bound_by(&old)
                        && !retention.is_some_and(|new| is_longer(&new, &old))
                    {
                        return Err(TablesError::Locked);
                    }
                    row.lock.retention = *retention;
                }
            }
            write(txn, &at, &row)?;
            if matches!(change, ObjectChange::Tags(_)) {
                outbox::tagged(txn, &bucket, key, &row).await?;
            }
            Ok(Some(row))
        })
        .await
    }
}

/// Whether `new` is `old` made longer. Another mode is another retention, which takes the right to end the old one.
fn is_longer(new: &RetentionRow, old: &RetentionRow) -> bool {
    new.until_unix_ms >= old.until_unix_ms && new.compliance == old.compliance
}

/// A delete marker made now.
fn marker_row(now_unix_ms: u64) -> ObjectRow {
    ObjectRow {
        size_bytes: 0,
        etag: String::new(),
        modified_unix_ms: now_unix_ms,
        storage_class: String::new(),
        checksum: None,
        version: VersionRow { marker: true, ..VersionRow::default() },
        parts: None,
        headers: super::HeadersRow::default(),
        tags: Vec::new(),
        lock: LockRow::default(),
        encryption: None,
        upload_id: None,
        layout: Layout::Empty,
    }
}

/// Makes `row` the current version of a key whose row at `O` is `current`: fills in its version, its default retention, and
/// writes it. In a bucket that makes no versions it takes the place of the null version, whose row is returned.
///
/// # Errors
/// [`TablesError::Locked`] if the null version may not be destroyed; [`TablesError::NoObjectLock`] if `row` has a lock and
/// the bucket none; [`TablesError::RowTooLarge`].
pub(super) async fn place(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    name: &str,
    current: Option<ObjectRow>,
    row: &mut ObjectRow,
    garbage_not_before_unix_ms: u64,
) -> Result<Option<ObjectRow>> {
    let now_unix_ms = row.modified_unix_ms;
    let object_key = keys::object(bucket.id, name)?;
    let null = bucket.versioning != Versioning::Enabled;
    let pass = LockPass { now_unix_ms, bypass_governance: false };
    let (mut replaced, mut newest_stamp) = (None, 0);
    match current {
        Some(old) => {
            newest_stamp = old.version.stamp;
            if null && old.version.null {
                discard(txn, &old, pass, garbage_not_before_unix_ms)?;
                replaced = Some(old);
            } else {
                supersede(txn, bucket.id, name, old, now_unix_ms)?;
            }
        }
        None if bucket.versioning != Versioning::Off => {
            if let Some((_, marker)) = newest_noncurrent(txn, bucket.id, name).await? {
                newest_stamp = marker.version.stamp;
                supersede(txn, bucket.id, name, marker, now_unix_ms)?;
            }
        }
        None => {}
    }
    if null && bucket.versioning == Versioning::Suspended && replaced.is_none() {
        // The null version may also be an older one, or the marker that was just superseded.
        if let Some((at, old)) = find_noncurrent_null(txn, bucket.id, name).await? {
            discard(txn, &old, pass, garbage_not_before_unix_ms)?;
            txn.clear(&at)?;
            txn.clear(&keys::null_version(bucket.id, name))?;
            replaced = Some(old);
        }
    }
    row.version = VersionRow {
        // Later than what it supersedes, whatever the clock says.
        stamp: (now_unix_ms << STAMP_SHIFT).max(newest_stamp.saturating_add(1)),
        salt: if bucket.versioning == Versioning::Off { 0 } else { DataId::random().0 as u64 },
        null,
        marker: row.version.marker,
        superseded_unix_ms: 0,
    };
    if row.version.marker {
        txn.clear(&object_key)?;
        write_noncurrent(txn, bucket.id, name, row)?;
    } else {
        lock_by_default(bucket, row)?;
        txn.set(&object_key, &encode(row)?)?;
        if let Layout::Packed(packed) = &row.layout {
            extents::link(txn, packed, &extents::owner(bucket.id, name, &row.version))?;
        }
    }
    outbox::placed(txn, bucket, name, row).await?;
    Ok(replaced)
}

/// What the bucket's lock does to an object on its way in.
fn lock_by_default(bucket: &BucketRow, row: &mut ObjectRow) -> Result<()> {
    match bucket.lock {
        ObjectLockRow::Off if row.lock != LockRow::default() => Err(TablesError::NoObjectLock),
        ObjectLockRow::On { default: Some(default) } if row.lock.retention.is_none() => {
            let days = u64::from(default.count) * if default.years { 365 } else { 1 };
            let until_unix_ms = row.modified_unix_ms.saturating_add(days.saturating_mul(DAY_MS));
            row.lock.retention = Some(RetentionRow { compliance: default.compliance, until_unix_ms });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes the version `row`, whose row is at `at`, away for good; what was current before it becomes so again.
async fn remove(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    name: &str,
    at: &[u8],
    row: &ObjectRow,
    pass: LockPass,
    garbage_not_before_unix_ms: u64,
) -> Result<()> {
    discard(txn, row, pass, garbage_not_before_unix_ms)?;
    txn.clear(at)?;
    outbox::removed(txn, bucket, name, row, pass.now_unix_ms).await?;
    let object_key = keys::object(bucket.id, name)?;
    if row.version.null && at != object_key.as_slice() {
        txn.clear(&keys::null_version(bucket.id, name))?;
    }
    if row.version.superseded_unix_ms != 0 || bucket.versioning == Versioning::Off {
        return Ok(());
    }
    let Some((next_at, mut next)) = newest_noncurrent(txn, bucket.id, name).await? else { return Ok(()) };
    next.version.superseded_unix_ms = 0;
    if next.version.marker {
        return write(txn, &next_at, &next);
    }
    txn.clear(&next_at)?;
    if next.version.null {
        txn.clear(&keys::null_version(bucket.id, name))?;
    }
    write(txn, &object_key, &next)
}

/// Makes a version's data garbage, if its lock lets it.
fn discard(txn: &mut dyn Transaction, row: &ObjectRow, pass: LockPass, garbage_not_before_unix_ms: u64) -> Result<()> {
    pass.check(&row.lock)?;
    garbage::discard_layout(txn, &row.layout, garbage_not_before_unix_ms)
}

/// Writes the version `row`, which was the current one, as one that is not.
fn supersede(
    txn: &mut dyn Transaction,
    bucket_id: u64,
    name: &str,
    mut row: ObjectRow,
    now_unix_ms: u64,
) -> Result<()> {
    row.version.superseded_unix_ms = now_unix_ms.max(1);
    write_noncurrent(txn, bucket_id, name, &row)
}

fn write_noncurrent(txn: &mut dyn Transaction, bucket_id: u64, name: &str, row: &ObjectRow) -> Result<()> {
    let key = row.version.key();
    if row.version.null {
        txn.set(&keys::null_version(bucket_id, name), &[&[ROW_VERSION], key.as_slice()].concat())?;
    }
    write(txn, &keys::noncurrent(bucket_id, name, &key), row)
}

/// The newest row at `N`, with its key.
async fn newest_noncurrent(
    txn: &mut dyn Transaction,
    bucket_id: u64,
    name: &str,
) -> Result<Option<(Vec<u8>, ObjectRow)>> {
    let page = txn.get_range(RangeRead::prefix(&keys::noncurrents_of(bucket_id, name)).limit(1)).await?;
    page.rows.first().map(|(key, value)| Ok((key.to_vec(), decode(value)?))).transpose()
}

/// The null version, if it is at `N`, with its key.
async fn find_noncurrent_null(
    txn: &mut dyn Transaction,
    bucket_id: u64,
    name: &str,
) -> Result<Option<(Vec<u8>, ObjectRow)>> {
    let Some(value) = txn.get(&keys::null_version(bucket_id, name)).await? else { return Ok(None) };
    let unreadable = || TablesError::Unreadable { row: "null version", why: "it is no version's place".into() };
    let (&ROW_VERSION, place) = value.split_first().ok_or_else(unreadable)? else { return Err(unreadable()) };
    let at = keys::noncurrent(bucket_id, name, place.try_into().map_err(|_wrong_length| unreadable())?);
    Ok(read(txn, &at).await?.map(|row| (at, row)))
}

/// The version of that name, with the key of its row.
pub(super) async fn find(
    txn: &mut dyn Transaction,
    bucket_id: u64,
    name: &str,
    version: VersionName,
) -> Result<Option<(Vec<u8>, ObjectRow)>> {
    let object_key = keys::object(bucket_id, name)?;
    if let Some(row) = read::<ObjectRow>(txn, &object_key).await?
        && version.names(&row.version)
    {
        return Ok(Some((object_key, row)));
    }
    match version {
        VersionName::Null => find_noncurrent_null(txn, bucket_id, name).await,
        VersionName::Id(key) => {
            let at = keys::noncurrent(bucket_id, name, &key);
            let row = read::<ObjectRow>(txn, &at).await?.filter(|row| version.names(&row.version));
            Ok(row.map(|row| (at, row)))
        }
    }
}
