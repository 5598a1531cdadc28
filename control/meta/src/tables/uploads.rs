//! Multipart uploads: an upload row per open upload, a part row per part, and the transaction that turns them into an
//! object.

use std::collections::BTreeMap;

use penstock_proto::{DataId, limits};

use super::keys::{self, UploadKey};
use super::lists::NewList;
use super::rows::decode;
use super::{
    BucketRow, EncryptionRow, HeadersRow, Layout, LockRow, ObjectLockRow, ObjectRow, PartRow, Preconditions, Result,
    Tables, TablesError, UploadRow,
};
use super::{buckets, encode, garbage, manifests, objects, read, versions};
use crate::kv::{RangeRead, Transaction};

/// Part lists up to so many bytes are written by the completing transaction itself, longer ones ahead of it.
const LIST_IN_COMMIT_BYTES_MAX: usize = 256 << 10;
/// Up to so many unused parts become garbage rows in the completing transaction, more go through a list.
const UNUSED_IN_COMMIT_MAX: usize = 256;
/// How long a list that was written ahead waits for the transaction that refers to it.
const LIST_LEASE_MS: u64 = 15 * 60 * 1000;
/// Part rows of one read.
const PARTS_PER_READ: usize = 500;

/// What [`Tables::create_upload`] stores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewUpload {
    /// The key of the object to be.
    pub key: String,
    /// `STANDARD`.
    pub storage_class: String,
    /// Headers of the object to be.
    pub headers: HeadersRow,
    /// Algorithm of its checksums and whether the object's will be composite.
    pub checksum: Option<(u8, bool)>,
    /// Tags of the object to be.
    pub tags: Vec<(String, String)>,
    /// Lock of the object to be.
    pub lock: LockRow,
    /// Encryption of the object to be.
    pub encryption: Option<EncryptionRow>,
}

/// A page of an upload's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartsPage {
    /// The upload.
    pub upload: UploadRow,
    /// Ascending by number.
    pub parts: Vec<PartRow>,
    /// Whether more follow.
    pub more: bool,
    /// Changes with every part that is put. What was decided by parts of one version is completed only while it is
    /// current; of several pages, take the first one's.
    pub version: u64,
}

/// What [`Tables::complete_upload`] does.
#[derive(Clone, Debug)]
pub struct CompleteUpload<'a> {
    /// Where.
    pub bucket: &'a BucketRow,
    /// Which key.
    pub key: &'a str,
    /// Which upload.
    pub upload_id: &'a str,
    /// The object to be. Its layout, part count and upload id are filled in.
    pub row: ObjectRow,
    /// The numbers of its parts, ascending. The upload's other parts become garbage.
    pub part_numbers: &'a [u32],
    /// Of which [`PartsPage::version`] they are.
    pub parts_version: u64,
    /// Conditions on the object that is there.
    pub preconditions: &'a Preconditions,
    /// Now.
    pub now_unix_ms: u64,
    /// For what becomes garbage.
    pub garbage_not_before_unix_ms: u64,
}

/// What completing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The object.
    pub object: ObjectRow,
    /// The version that it replaced.
    pub replaced: Option<ObjectRow>,
    /// It was completed before; nothing was done now.
    pub already: bool,
}

impl Tables {
    /// Begins an upload under a fresh, unguessable id.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::KeyLength`], [`TablesError::RowTooLarge`], the store's.
    pub async fn create_upload(&self, bucket: &BucketRow, new: NewUpload, now_unix_ms: u64) -> Result<UploadRow> {
        let mut upload: UploadKey = [0; 24];
        upload[..8].copy_from_slice(&now_unix_ms.to_be_bytes());
        upload[8..].copy_from_slice(&DataId::random().to_bytes());
        let row = UploadRow {
            upload_id: keys::upload_id(&upload),
            key: new.key,
            initiated_unix_ms: now_unix_ms,
            storage_class: new.storage_class,
            headers: new.headers,
            checksum: new.checksum,
            tags: new.tags,
            lock: new.lock,
            encryption: new.encryption,
        };
        let (key, value) = (keys::upload(bucket.id, &row.key, &upload)?, encode(&row)?);
        transaction!(self, |txn, row, key, value| {
            let bucket = buckets::check(txn, bucket).await?;
            if row.lock != LockRow::default() && bucket.lock == ObjectLockRow::Off {
                return Err(TablesError::NoObjectLock);
            }
            Ok(txn.set(key, value)?)
        })
        .await?;
        Ok(row)
    }

    /// An open upload.
    ///
    /// # Errors
    /// The store's.
    pub async fn upload(&self, bucket_id: u64, key: &str, upload_id: &str) -> Result<Option<UploadRow>> {
        let Some(upload) = keys::upload_key(upload_id) else { return Ok(None) };
        let upload_row = keys::upload(bucket_id, key, &upload)?;
        transaction!(self, |txn, upload_row| read(txn, upload_row).await).await
    }

    /// Adds a part to an upload, in place of one of the same number, whose data becomes garbage; the new part's stops
    /// being pending. The replaced part.
    ///
    /// # Errors
    /// [`TablesError::NoSuchUpload`], [`TablesError::WriteExpired`], [`TablesError::BadRow`], the store's. In every case
    /// the data stays pending: abort it.
    pub async fn put_part(
        &self,
        bucket_id: u64,
        key: &str,
        upload_id: &str,
        part: &PartRow,
        garbage_not_before_unix_ms: u64,
    ) -> Result<Option<PartRow>> {
        if part.number == 0 || part.number > limits::PART_NUMBER_MAX {
            return Err(TablesError::BadRow("part numbers go from 1 to PART_NUMBER_MAX"));
        }
        if let Some(data) = &part.data {
            manifests::check_data(data)?;
        }
        let upload = keys::upload_key(upload_id).ok_or(TablesError::NoSuchUpload)?;
        let upload_row = keys::upload(bucket_id, key, &upload)?;
        let (part_key, value) = (keys::part(&upload, part.number), encode(part)?);
        if value.len() > super::PART_LIST_ROW_BYTES_MAX / 2 {
            // It must fit a part list's row, beside others.
            let max = super::PART_LIST_ROW_BYTES_MAX / 2;
            return Err(TablesError::RowTooLarge { row: "part", bytes: value.len(), max });
        }
        transaction!(self, |txn, upload, upload_row, part_key, value| {
            // Read, so that completing or aborting the upload meanwhile conflicts.
            if txn.get(upload_row).await?.is_none() {
                return Err(TablesError::NoSuchUpload);
            }
            let replaced: Option<PartRow> = read(txn, part_key).await?;
            if let Some(data) = &part.data {
                garbage::take_write(txn, data.data).await?;
                manifests::queue_inline_repairs(txn, part_key, data)?;
            }
            if let Some(data) = replaced.as_ref().and_then(|old| old.data.as_ref()) {
                garbage::discard_data(txn, data, garbage_not_before_unix_ms)?;
            }
            txn.set(part_key, value)?;
            // An addition, not a write: parts put at the same time don't conflict with each other.
            txn.atomic_add(&keys::parts_version(upload), 1)?;
            Ok(replaced)
        })
        .await
    }

    /// At most `max` parts of an upload, those after number `after`.
    ///
    /// # Errors
    /// [`TablesError::NoSuchUpload`], the store's.
    pub async fn parts(&self, bucket_id: u64, key: &str, upload_id: &str, after: u32, max: usize) -> Result<PartsPage> {
        let upload = keys::upload_key(upload_id).ok_or(TablesError::NoSuchUpload)?;
        let upload_row = keys::upload(bucket_id, key, &upload)?;
        transaction!(self, |txn, upload, upload_row| {
            let row = read(txn, upload_row).await?.ok_or(TablesError::NoSuchUpload)?;
            let version = super::counter(txn, &keys::parts_version(upload)).await?;
            let (parts, more) = read_parts(txn, upload, after, max).await?;
            Ok(PartsPage { upload: row, parts, more, version })
        })
        .await
    }

    /// Turns an upload into an object, in one transaction: the object is visible with these parts, the upload and its
    /// part rows are gone, the replaced object's and the unused parts' data is garbage.
    ///
    /// Repeating it after it succeeded answers the same, while the object is still the one it made.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::NoSuchUpload`], [`TablesError::PartsChanged`],
    /// [`TablesError::Precondition`], [`TablesError::KeyLength`], [`TablesError::RowTooLarge`], the store's;
    /// [`TablesError::BadRow`] for numbers that don't ascend, or none. The upload stays open then.
    pub async fn complete_upload(&self, request: CompleteUpload<'_>) -> Result<Completed> {
        if request.part_numbers.is_empty() || !request.part_numbers.is_sorted_by(|a, b| a < b) {
            return Err(TablesError::BadRow("a completed upload has parts, in ascending order"));
        }
        let upload = keys::upload_key(request.upload_id).ok_or(TablesError::NoSuchUpload)?;
        let completion = match self.plan_completion(&request, upload).await? {
            Ok(completion) => completion,
            Err(already) => return Ok(already),
        };
        let lists = [Some(&completion.used), completion.unused_list.as_ref()];
        let ahead: Vec<&NewList> = match lists.iter().flatten().map(|list| list.bytes()).sum::<usize>() {
            0..=LIST_IN_COMMIT_BYTES_MAX => Vec::new(),
            _ => lists.into_iter().flatten().collect(),
        };
        let result = self.write_and_complete(&request, &completion, &ahead).await;
        let unused = match &result {
            Ok(done) => done.already,
            Err(error) => !error.may_have_committed(),
        };
        if unused && !ahead.is_empty() {
            // Nothing came of it: the lists go now rather than when their leases run out.
            let ids: Vec<DataId> = ahead.iter().map(|list| list.id).collect();
            self.abort_writes(&ids, request.now_unix_ms).await?;
        }
        result
    }

    /// Discards an upload; its parts' data becomes garbage.
    ///
    /// # Errors
    /// [`TablesError::NoSuchUpload`], the store's.
    pub async fn abort_upload(
        &self,
        bucket_id: u64,
        key: &str,
        upload_id: &str,
        garbage_not_before_unix_ms: u64,
    ) -> Result<()> {
        let upload = keys::upload_key(upload_id).ok_or(TablesError::NoSuchUpload)?;
        let upload_row = keys::upload(bucket_id, key, &upload)?;
        transaction!(self, |txn, upload, upload_row| {
            txn.makes_room();
            if txn.get(upload_row).await?.is_none() {
                return Err(TablesError::NoSuchUpload);
            }
            if !txn.get_range(RangeRead::prefix(&keys::parts(upload)).limit(1)).await?.rows.is_empty() {
                // No upload row, no more parts: the part rows are the collector's to expand.
                garbage::discard_upload(txn, upload, garbage_not_before_unix_ms)?;
            }
            txn.clear(upload_row)?;
            Ok(txn.clear(&keys::parts_version(upload))?)
        })
        .await
    }

    /// Reads what completing needs, and decides what can be decided before. `Err` if it was completed already.
    async fn plan_completion(
        &self,
        request: &CompleteUpload<'_>,
        upload: UploadKey,
    ) -> Result<Result<Completion, Completed>> {
        let completion = Completion {
            upload,
            upload_row: keys::upload(request.bucket.id, request.key, &upload)?,
            object_key: keys::object(request.bucket.id, request.key)?,
            used: NewList { id: DataId(0), rows: Vec::new() },
            unused: Vec::new(),
            unused_list: None,
        };
        let early = transaction!(self, |txn, completion| completion.check(txn, request).await).await?;
        if let Check::Already(done) = early {
            return Ok(Err(*done));
        }
        let (mut parts, mut after) = (BTreeMap::new(), 0);
        loop {
            let (page, more) =
                transaction!(self, |txn, upload| read_parts(txn, upload, after, PARTS_PER_READ).await).await?;
            after = page.last().map_or(after, |last: &PartRow| last.number);
            parts.extend(page.into_iter().map(|part| (part.number, part)));
            if !more {
                break;
            }
        }
        // If parts changed between these reads, the last transaction finds another version.
        let used: Option<Vec<PartRow>> = request.part_numbers.iter().map(|number| parts.remove(number)).collect();
        let used = NewList::of(&used.ok_or(TablesError::PartsChanged)?)?;
        let unused: Vec<PartRow> = parts.into_values().filter(|part| part.data.is_some()).collect();
        let unused_list = if unused.len() > UNUSED_IN_COMMIT_MAX { Some(NewList::of(&unused)?) } else { None };
        Ok(Ok(Completion { used, unused, unused_list, ..completion }))
    }

    async fn write_and_complete(
        &self,
        request: &CompleteUpload<'_>,
        completion: &Completion,
        ahead: &[&NewList],
    ) -> Result<Completed> {
        for list in ahead {
            self.write_list_ahead(list, request.now_unix_ms.saturating_add(LIST_LEASE_MS)).await?;
        }
        let object = ObjectRow {
            parts: Some(request.part_numbers.len() as u32),
            upload_id: Some(request.upload_id.to_owned()),
            layout: Layout::Parts { list: completion.used.id, count: completion.used.count() },
            ..request.row.clone()
        };
        let not_before = request.garbage_not_before_unix_ms;
        transaction!(self, |txn, object| {
            let (bucket, current) = match completion.check(txn, request).await? {
                Check::Go(found) => *found,
                Check::Already(done) => return Ok(*done),
            };
            for list in [Some(&completion.used), completion.unused_list.as_ref()].into_iter().flatten() {
                if ahead.is_empty() { list.write(txn)? } else { garbage::take_write(txn, list.id).await? }
            }
            let mut object = object.clone();
            let replaced = versions::place(txn, &bucket, request.key, current, &mut object, not_before).await?;
            match &completion.unused_list {
                Some(list) => garbage::discard_list(txn, list.id, list.count(), not_before)?,
                None => {
                    for data in completion.unused.iter().filter_map(|part| part.data.as_ref()) {
                        garbage::discard_data(txn, data, not_before)?;
                    }
                }
            }
            txn.clear(&completion.upload_row)?;
            txn.clear(&keys::parts_version(&completion.upload))?;
            let parts = keys::parts(&completion.upload);
            txn.clear_range(&parts, &keys::past(&parts))?;
            Ok(Completed { object, replaced, already: false })
        })
        .await
    }
}

/// What completing an upload will write.
struct Completion {
    upload: UploadKey,
    upload_row: Vec<u8>,
    object_key: Vec<u8>,
    used: NewList,
    /// Parts with data that the object does not have.
    unused: Vec<PartRow>,
    /// The same as a list, if there are many.
    unused_list: Option<NewList>,
}

enum Check {
    /// All holds; the bucket, and the object that is there.
    Go(Box<(BucketRow, Option<ObjectRow>)>),
    /// Completed before.
    Already(Box<Completed>),
}

impl Completion {
    /// Everything that must hold for the upload to be completed, as of this transaction.
    async fn check(&self, txn: &mut dyn Transaction, request: &CompleteUpload<'_>) -> Result<Check> {
        buckets::check(txn, request.bucket).await?;
        if txn.get(&self.upload_row).await?.is_none() {
            return match read::<ObjectRow>(txn, &self.object_key).await? {
                Some(object) if object.upload_id.as_deref() == Some(request.upload_id) => {
                    Ok(Check::Already(Box::new(Completed { object, replaced: None, already: true })))
                }
                _ => Err(TablesError::NoSuchUpload),
            };
        }
        if super::counter(txn, &keys::parts_version(&self.upload)).await? != request.parts_version {
            return Err(TablesError::PartsChanged);
        }
        let found = objects::current(txn, request.bucket, &self.object_key, request.preconditions).await?;
        Ok(Check::Go(Box::new(found)))
    }
}

/// At most `max` parts after number `after`, and whether more follow.
async fn read_parts(
    txn: &mut dyn Transaction,
    upload: &UploadKey,
    after: u32,
    max: usize,
) -> Result<(Vec<PartRow>, bool)> {
    let end = keys::past(&keys::parts(upload));
    let mut begin = keys::part(upload, after.saturating_add(1));
    let mut parts = Vec::new();
    loop {
        let limit = (max - parts.len()).saturating_add(1).min(PARTS_PER_READ);
        let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &end).limit(limit) };
        let page = txn.get_range(range).await?;
        for (_, value) in &page.rows {
            if parts.len() == max {
                return Ok((parts, max > 0));
            }
            parts.push(decode(value)?);
        }
        match page.rows.last() {
            Some((last, _)) if page.more => begin = keys::after(last),
            _ => return Ok((parts, false)),
        }
    }
}
