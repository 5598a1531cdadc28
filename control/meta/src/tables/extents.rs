//! Extents: many small objects in one run of data.
//!
//! An extent is a data id. While it is open its gateway adds *batches* to it: each is a stripe of whole copies, written once,
//! that holds the bodies of whatever small objects waited together. The transaction that makes those visible also writes
//! the batch's row, so what it costs is shared as well. Then the extent is sealed and written anew, as one run of chunks in
//! the code of its policy, under another data id; [`Tables::encode_extent`] swaps the two in one row. Objects name (extent,
//! offset, length), and none of their rows changes.
//!
//! What always holds, and `tests/audit.rs` checks:
//!
//! * the extent's id (its run's, once it is encoded) is reachable while the `E` row exists. It is written before the first shard
//!   goes out, so a batch whose gateway died before its commit is part of what goes with the extent;
//! * a packed object's row is named by exactly one `D` row, the one at its extent and offset, and names it: so an extent's objects
//!   are found without a look at any other. [`link`] and [`unlink`], the only functions that write `D` rows, run in the
//!   transactions that write and destroy layouts;
//! * the counter at `A` is the sum of the lengths of those objects;
//! * an extent whose row is gone has no `D` rows, and no object can come to refer to it: commits need it open.
//!
//! **Races.** A commit reads the extent's row, so sealing it conflicts with every commit under way. Dropping an extent reads the
//! range of its `D` rows, so it conflicts with a move or commit into it. A move compares the object's row with where it was.

use std::sync::atomic::{AtomicUsize, Ordering};

use penstock_proto::{Code, DataId};

use super::rows::{GarbageEntry, decode};
use super::{
    BucketSetting, extent_rows::PackedObject, garbage, keys, manifests, objects, outbox::caused, read, versions, write,
};
use super::{
    Committed, DataRow, ExtentPlace, ExtentRow, ExtentState, Layout, ManifestRow, NewBatch, ObjectRow, PackedDone,
    PackedOwnerRow, PackedRow, PackedWrite, Result, Tables, TablesError, VersionName, VersionRow,
};
use crate::kv::{KvError, RangeRead, TransactError as _, Transaction};

/// No member of a group is being worked on.
const NOBODY: usize = usize::MAX;

impl Tables {
    /// Registers an extent that is open. Call it before its first shard goes to a node.
    ///
    /// # Errors
    /// [`TablesError::BadRow`] if it is not open or has other nodes than copies; the store's.
    pub async fn open_extent(&self, extent: DataId, row: &ExtentRow) -> Result<()> {
        if !matches!(row.state, ExtentState::Open { .. }) || row.nodes.len() != row.copies.n() || row.copies.k() != 1 {
            return Err(TablesError::BadRow("an extent begins open, with a node for each copy"));
        }
        transaction!(self, |txn| write(txn, &keys::extent(extent), row)).await
    }

    /// Makes what a batch holds visible, each on its own terms, with the batch, in one transaction (several when it is
    /// too large for one). What each came to, in order.
    ///
    /// The errors are those of [`Tables::commit_object`]; [`TablesError::WriteExpired`] for all when the extent is not
    /// open any more. Bytes of what failed are dead: they go with the extent.
    pub async fn commit_packed(&self, batch: &NewBatch, writes: &[PackedWrite]) -> Vec<Result<PackedDone>> {
        let mut outcomes: Vec<Option<Result<PackedDone>>> =
            writes.iter().map(|write| check_write(batch, write).err().map(Err)).collect();
        // Events are numbered within a transaction as if it was of one object.
        let (alone, together): (Vec<usize>, Vec<usize>) = (0..writes.len()).partition(|&at| tells(&writes[at]));
        let mut groups: Vec<Vec<usize>> = alone.into_iter().rev().map(|at| vec![at]).collect();
        groups.push(together);
        // Every turn decides a member or halves a group.
        while let Some(mut group) = groups.pop() {
            group.retain(|&member| outcomes[member].is_none());
            if group.is_empty() {
                continue;
            }
            let at = AtomicUsize::new(NOBODY);
            match self.commit_group(batch, writes, &group, &at).await {
                Ok(done) => group.into_iter().zip(done).for_each(|(member, outcome)| outcomes[member] = Some(outcome)),
                Err(TablesError::Kv(KvError::TooLarge { .. })) if group.len() > 1 => {
                    let rest = group.split_off(group.len() / 2);
                    groups.push(rest);
                    groups.push(group);
                }
                Err(error) => {
                    let member = at.load(Ordering::Relaxed);
                    if member != NOBODY && !error.is_retryable() {
                        outcomes[member] = Some(Err(error));
                        groups.push(group);
                    } else {
                        group.into_iter().for_each(|member| outcomes[member] = Some(Err(error.clone())));
                    }
                }
            }
        }
        let undecided = || Err(TablesError::BadRow("a write of a batch was not decided"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(undecided)).collect()
    }

    async fn commit_group(
        &self,
        batch: &NewBatch,
        writes: &[PackedWrite],
        group: &[usize],
        at: &AtomicUsize,
    ) -> Result<Vec<Result<PackedDone>>> {
        transaction!(self, |txn| {
            at.store(NOBODY, Ordering::Relaxed);
            let row: Option<ExtentRow> = read(txn, &keys::extent(batch.extent)).await?;
            let open = row.filter(|row| matches!(row.state, ExtentState::Open { .. }));
            open.ok_or(TablesError::WriteExpired { data: batch.extent })?;
            write_batch(txn, batch.extent, batch.offset, &batch.row)?;
            let mut done = Vec::with_capacity(group.len());
            for &member in group {
                at.store(member, Ordering::Relaxed);
                done.push(match &writes[member] {
                    PackedWrite::Object(object) => {
                        let commit = commit_object(txn, object, group.len() == 1);
                        caused(object.cause.clone(), commit).await?
                    }
                    PackedWrite::Move { owner, from, to } => {
                        Ok(PackedDone::Moved(relocate(txn, owner, from, to).await?))
                    }
                });
            }
            at.store(NOBODY, Ordering::Relaxed);
            Ok(done)
        })
        .await
    }

    /// Ends an extent's growth (only if its time ran out by `expired_at`, if given). Whether it was open till now.
    ///
    /// # Errors
    /// The store's.
    pub async fn seal_extent(&self, extent: DataId, expired_at_unix_ms: Option<u64>) -> Result<bool> {
        transaction!(self, |txn| {
            txn.makes_room();
            let key = keys::extent(extent);
            let Some(mut row) = read::<ExtentRow>(txn, &key).await? else { return Ok(false) };
            let ExtentState::Open { expires_unix_ms } = row.state else { return Ok(false) };
            if expired_at_unix_ms.is_some_and(|at| expires_unix_ms > at) {
                return Ok(false);
            }
            let last = txn.get_range(RangeRead::prefix(&keys::batches(extent)).reversed().limit(1)).await?;
            let length_bytes = match last.rows.first() {
                Some((key, value)) => {
                    let (_, offset) = keys::parse_in_extent(key).ok_or_else(unreadable)?;
                    offset + decode::<ManifestRow>(value)?.bytes()
                }
                None => 0,
            };
            row.state = ExtentState::Sealed { length_bytes };
            write(txn, &key, &row)?;
            Ok(true)
        })
        .await
    }

    /// Puts a run of data, which is pending, in the place of a sealed extent's batches, whose data becomes garbage. False,
    /// and the run stays pending, if the extent is not sealed any more.
    ///
    /// # Errors
    /// [`TablesError::WriteExpired`], [`TablesError::BadRow`] for a run of another length, the store's.
    pub async fn encode_extent(&self, extent: DataId, data: &DataRow, garbage_not_before_unix_ms: u64) -> Result<bool> {
        manifests::check_data(data)?;
        transaction!(self, |txn| {
            let key = keys::extent(extent);
            let Some(mut row) = read::<ExtentRow>(txn, &key).await? else { return Ok(false) };
            let ExtentState::Sealed { length_bytes } = row.state else { return Ok(false) };
            if length_bytes != data.size_bytes {
                return Err(TablesError::BadRow("an extent is as long in its code as it was in copies"));
            }
            garbage::take_write(txn, data.data).await?;
            manifests::queue_inline_repairs(txn, &key, data)?;
            discard_batches(txn, extent, &row, garbage_not_before_unix_ms)?;
            row.state = ExtentState::Encoded(data.clone());
            write(txn, &key, &row)?;
            Ok(true)
        })
        .await
    }

    /// Forgets an extent that no object refers to and that is not open; its data becomes garbage. Whether it did.
    ///
    /// # Errors
    /// The store's.
    pub async fn drop_extent(&self, extent: DataId, garbage_not_before_unix_ms: u64) -> Result<bool> {
        transaction!(self, |txn| {
            txn.makes_room();
            let key = keys::extent(extent);
            let Some(row) = read::<ExtentRow>(txn, &key).await? else { return Ok(false) };
            let owners = txn.get_range(RangeRead::prefix(&keys::packed_of(extent)).limit(1)).await?;
            if !owners.rows.is_empty() {
                return Ok(false);
            }
            match &row.state {
                ExtentState::Open { .. } => return Ok(false),
                ExtentState::Sealed { .. } => discard_batches(txn, extent, &row, garbage_not_before_unix_ms)?,
                ExtentState::Encoded(data) => garbage::discard_data(txn, data, garbage_not_before_unix_ms)?,
            }
            txn.clear(&key)?;
            txn.clear(&keys::extent_live(extent))?;
            Ok(true)
        })
        .await
    }

    /// An extent.
    ///
    /// # Errors
    /// The store's.
    pub async fn extent(&self, extent: DataId) -> Result<Option<ExtentRow>> {
        transaction!(self, |txn| read(txn, &keys::extent(extent)).await).await
    }

    /// At most `max` extents, those after `after`, by id. Fewer than `max`: there are no more.
    ///
    /// # Errors
    /// The store's.
    pub async fn extents(&self, after: Option<DataId>, max: usize) -> Result<Vec<(DataId, ExtentRow)>> {
        let table = keys::table(keys::EXTENTS);
        let begin = after.map_or_else(|| table.clone(), |after| keys::after(&keys::extent(after)));
        let rows = self.rows_of(begin, &keys::past(&table), max).await?;
        rows.iter().map(|(key, value)| Ok((keys::parse_extent(key).ok_or_else(unreadable)?, decode(value)?))).collect()
    }

    /// How many bytes of an extent objects refer to.
    ///
    /// # Errors
    /// The store's.
    pub async fn extent_live_bytes(&self, extent: DataId) -> Result<u64> {
        transaction!(self, |txn| super::counter(txn, &keys::extent_live(extent)).await).await
    }

    /// At most `max` batches of an extent, those from `offset` on. Fewer than `max`: there are no more.
    ///
    /// # Errors
    /// The store's.
    pub async fn extent_batches(&self, extent: DataId, offset: u64, max: usize) -> Result<Vec<(u64, ManifestRow)>> {
        let end = keys::past(&keys::batches(extent));
        let rows = self.rows_of(keys::batch(extent, offset), &end, max).await?;
        rows.iter()
            .map(|(key, value)| Ok((keys::parse_in_extent(key).ok_or_else(unreadable)?.1, decode(value)?)))
            .collect()
    }

    /// At most `max` of the objects in an extent, those from `offset` on, with where they begin. Fewer than `max`: there
    /// are no more.
    ///
    /// # Errors
    /// The store's.
    pub async fn packed_in(&self, extent: DataId, offset: u64, max: usize) -> Result<Vec<(u64, PackedOwnerRow)>> {
        let end = keys::past(&keys::packed_of(extent));
        let rows = self.rows_of(keys::packed(extent, offset), &end, max).await?;
        rows.iter()
            .map(|(key, value)| Ok((keys::parse_in_extent(key).ok_or_else(unreadable)?.1, decode(value)?)))
            .collect()
    }

    /// Where an owner's bytes are, if it is (still) there and packed.
    ///
    /// # Errors
    /// The store's.
    pub async fn packed_row(&self, owner: &PackedOwnerRow) -> Result<Option<PackedRow>> {
        transaction!(self, |txn| {
            let found = versions::find(txn, owner.bucket_id, &owner.key, owner.name()).await?;
            Ok(found.and_then(|(_, row)| match row.layout {
                Layout::Packed(packed) => Some(packed),
                _ => None,
            }))
        })
        .await
    }

    /// Where a packed object's bytes are; none if its extent is gone, and so is the object then.
    ///
    /// # Errors
    /// [`TablesError::Unreadable`] if no batch has them; the store's.
    pub async fn extent_place(&self, packed: &PackedRow) -> Result<Option<ExtentPlace>> {
        transaction!(self, |txn| {
            let Some(extent) = read::<ExtentRow>(txn, &keys::extent(packed.extent)).await? else { return Ok(None) };
            if let ExtentState::Encoded(data) = extent.state {
                return Ok(Some(ExtentPlace::Encoded(data)));
            }
            let (begin, end) = (keys::batches(packed.extent), keys::batch(packed.extent, packed.offset + 1));
            let page = txn.get_range(RangeRead::between(&begin, &end).reversed().limit(1)).await?;
            let found = page.rows.first().and_then(|(key, value)| Some((keys::parse_in_extent(key)?.1, value)));
            let (offset, value) = found.ok_or_else(unreadable)?;
            let batch: ManifestRow = decode(value)?;
            if packed.end() > offset + batch.bytes() {
                return Err(unreadable());
            }
            Ok(Some(ExtentPlace::Batch { extent, offset, batch }))
        })
        .await
    }

    /// Queues shards of a batch for repair that were found to be wrong or gone, and has them read last till then. Does nothing
    /// if the batch is gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn batch_is_missing(&self, extent: DataId, offset: u64, shards: u64) -> Result<()> {
        transaction!(self, |txn| {
            let Some(mut batch) = read::<ManifestRow>(txn, &keys::batch(extent, offset)).await? else { return Ok(()) };
            let before = batch.clone();
            batch.stripes.iter_mut().for_each(|stripe| stripe.missing |= shards);
            if batch == before { Ok(()) } else { write_batch(txn, extent, offset, &batch) }
        })
        .await
    }

    async fn rows_of(&self, mut begin: Vec<u8>, end: &[u8], max: usize) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>> {
        let mut out = Vec::new();
        while out.len() < max {
            let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, end).limit(max - out.len()) };
            let page = self.page(&range).await?;
            let Some((last, _)) = page.rows.last() else { break };
            begin = keys::after(last);
            out.extend(page.rows);
            if !page.more {
                break;
            }
        }
        Ok(out)
    }
}

impl PackedOwnerRow {
    fn name(&self) -> VersionName {
        if self.null { VersionName::Null } else { VersionName::Id(self.version) }
    }
}

/// Who a version is, for [`link`].
pub(super) fn owner(bucket_id: u64, key: &str, version: &VersionRow) -> PackedOwnerRow {
    PackedOwnerRow { bucket_id, key: key.to_owned(), null: version.null, version: version.key() }
}

/// Notes that `owner`'s row, written in the same transaction, refers to these bytes.
pub(super) fn link(txn: &mut dyn Transaction, packed: &PackedRow, owner: &PackedOwnerRow) -> Result<()> {
    write(txn, &keys::packed(packed.extent, packed.offset), owner)?;
    Ok(txn.atomic_add(&keys::extent_live(packed.extent), i64::from(packed.size_bytes))?)
}

/// Notes that the row that referred to these bytes does so no more.
pub(super) fn unlink(txn: &mut dyn Transaction, packed: &PackedRow) -> Result<()> {
    txn.clear(&keys::packed(packed.extent, packed.offset))?;
    Ok(txn.atomic_add(&keys::extent_live(packed.extent), -i64::from(packed.size_bytes))?)
}

fn check_write(batch: &NewBatch, write: &PackedWrite) -> Result<()> {
    manifests::check_manifest(&batch.row)?;
    if batch.row.stripes.len() != 1 {
        return Err(TablesError::BadRow("a batch is one stripe"));
    }
    let packed = match write {
        PackedWrite::Move { to, .. } => to,
        PackedWrite::Object(object) => match &object.row.layout {
            Layout::Packed(packed) if u64::from(packed.size_bytes) == object.row.size_bytes => packed,
            _ => return Err(TablesError::BadRow("an object of a batch is packed, all of it")),
        },
    };
    let end = batch.offset + batch.row.bytes();
    if packed.extent != batch.extent || packed.offset < batch.offset || packed.end() > end || packed.size_bytes == 0 {
        return Err(TablesError::BadRow("an object of a batch lies within it"));
    }
    Ok(())
}

/// Whether events are told of it.
fn tells(write: &PackedWrite) -> bool {
    match write {
        PackedWrite::Object(object) => object.bucket.has_setting(BucketSetting::Notification),
        PackedWrite::Move { .. } => false,
    }
}

/// As [`Tables::commit_object`]'s transaction. What is refused before anything is written is the inner error; the outer
/// ones end the transaction.
async fn commit_object(txn: &mut dyn Transaction, object: &PackedObject, alone: bool) -> Result<Result<PackedDone>> {
    let PackedObject { bucket, key, row, preconditions, garbage_not_before_unix_ms, cause: _ } = object;
    let object_key = keys::object(bucket.id, key)?;
    let (bucket, current) = match objects::current(txn, bucket, &object_key, preconditions).await {
        Err(refused) if refused.as_kv_error().is_none() => return Ok(Err(refused)),
        found => found?,
    };
    if bucket.has_setting(BucketSetting::Notification) && !alone {
        // It was told to tell just now: the group is halved until this one is alone.
        return Err(KvError::TooLarge { what: "objects with events", size: 2, max: 1 }.into());
    }
    let mut row = row.clone();
    let replaced = versions::place(txn, &bucket, key, current, &mut row, *garbage_not_before_unix_ms).await?;
    Ok(Ok(PackedDone::Object(Box::new(Committed { replaced, version: row.version }))))
}

/// Says in the owner's row that its bytes are at `to`, if it says that they are at `from`.
async fn relocate(txn: &mut dyn Transaction, owner: &PackedOwnerRow, from: &PackedRow, to: &PackedRow) -> Result<bool> {
    let found = versions::find(txn, owner.bucket_id, &owner.key, owner.name()).await?;
    let Some((at, row)) = found.filter(|(_, row)| row.layout == Layout::Packed(*from)) else { return Ok(false) };
    write(txn, &at, &ObjectRow { layout: Layout::Packed(*to), ..row })?;
    unlink(txn, from)?;
    link(txn, to, owner)?;
    Ok(true)
}

/// Writes a batch's row, and queues what it lacks.
fn write_batch(txn: &mut dyn Transaction, extent: DataId, offset: u64, batch: &ManifestRow) -> Result<()> {
    let key = keys::batch(extent, offset);
    write(txn, &key, batch)?;
    manifests::queue_repairs(txn, extent, copies_of(batch)?, &key, batch)
}

/// The code of a batch: as many copies as it has nodes.
pub(super) fn copies_of(batch: &ManifestRow) -> Result<Code> {
    Code::replicas(batch.nodes.len()).map_err(|_none| TablesError::BadRow("a batch has nodes"))
}

/// The extent's copies are garbage.
fn discard_batches(txn: &mut dyn Transaction, extent: DataId, row: &ExtentRow, not_before_unix_ms: u64) -> Result<()> {
    let batches = keys::batches(extent);
    txn.clear_range(&batches, &keys::past(&batches))?;
    let entry = GarbageEntry::Data { nodes: row.nodes.clone(), manifest_rows: 0 };
    write(txn, &keys::garbage(not_before_unix_ms, extent), &entry)
}

fn unreadable() -> TablesError {
    TablesError::Unreadable { row: "extent", why: "no batch has the bytes, or a key is none of these tables'".into() }
}
