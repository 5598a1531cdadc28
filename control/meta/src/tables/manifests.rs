//! Manifests that are too long for their object's row, and the queue of stripes that lack shards.

use penstock_proto::{Code, DataId};

use super::rows::MANIFEST_STRIPES_MAX;
use super::{DataRow, ManifestPlace, ManifestRow, Owner, RepairRow, Result, Tables, TablesError};
use super::{encode, garbage, keys, read, rows, write};
use crate::kv::{RangeRead, Transaction};

/// Bytes of rows that one of several transactions writes: well below `limits::TRANSACTION_BYTES_MAX`, which also counts
/// keys and tokens.
pub(super) const BATCH_BYTES_MAX: usize = 512 << 10;

impl Tables {
    /// Writes manifest rows of pending data, before the commit that makes them reachable. `rows[i].first_stripe` says
    /// which row each is, so a long write may hand them over as it goes, in several calls.
    ///
    /// # Errors
    /// [`TablesError::WriteExpired`] if the data is not pending; [`TablesError::BadRow`]; the store's.
    pub async fn put_manifests(&self, data: DataId, code: Code, rows: &[ManifestRow]) -> Result<()> {
        let mut encoded = Vec::with_capacity(rows.len());
        for row in rows {
            check_manifest(row)?;
            let index = row.first_stripe / MANIFEST_STRIPES_MAX as u32;
            encoded.push((row, keys::manifest(data, index), encode(row)?));
        }
        for batch in batches(&encoded, |(_, _, value)| value.len()) {
            transaction!(self, |txn| {
                garbage::check_write(txn, data).await?;
                for (row, key, value) in batch {
                    txn.set(key, value)?;
                    queue_repairs(txn, data, code, key, row)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Row `index` of a manifest.
    ///
    /// # Errors
    /// The store's.
    pub async fn manifest(&self, data: DataId, index: u32) -> Result<Option<ManifestRow>> {
        transaction!(self, |txn| read(txn, &keys::manifest(data, index)).await).await
    }

    /// Some stripes that were committed without all their shards, at most `max`. Their data may be garbage by now.
    ///
    /// # Errors
    /// The store's.
    pub async fn repair_queue(&self, max: usize) -> Result<Vec<(DataId, u32)>> {
        self.repair_queue_after(None, max).await
    }

    /// As [`Tables::repair_queue`], of those after `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn repair_queue_after(&self, after: Option<(DataId, u32)>, max: usize) -> Result<Vec<(DataId, u32)>> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let table = keys::table(keys::REPAIRS);
        let begin = after.map_or_else(|| table.clone(), |(data, stripe)| keys::after(&keys::repair(data, stripe)));
        let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &keys::past(&table)).limit(max) };
        let page = self.page(&range).await?;
        let unreadable = || TablesError::Unreadable { row: "repair", why: "its key is no repair key".into() };
        page.rows.iter().map(|(key, _)| keys::parse_repair(key).ok_or_else(unreadable)).collect()
    }

    /// What a queued stripe's rebuild needs.
    ///
    /// # Errors
    /// The store's.
    pub async fn repair(&self, data: DataId, stripe: u32) -> Result<Option<RepairRow>> {
        transaction!(self, |txn| read(txn, &keys::repair(data, stripe)).await).await
    }
}

/// Consecutive runs of `items` of at most [`BATCH_BYTES_MAX`] bytes each (or one item).
pub(super) fn batches<T>(items: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut out, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, item) in items.iter().enumerate() {
        let item_bytes = bytes_of(item);
        if at > from && bytes + item_bytes > BATCH_BYTES_MAX {
            out.push(&items[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += item_bytes;
    }
    if from < items.len() {
        out.push(&items[from..]);
    }
    out
}

/// That a caller's data row can be one.
pub(super) fn check_data(data: &DataRow) -> Result<()> {
    match &data.manifest {
        ManifestPlace::Inline(row) if row.first_stripe != 0 => {
            Err(TablesError::BadRow("an inline manifest begins with stripe 0"))
        }
        ManifestPlace::Inline(row) => check_manifest(row),
        ManifestPlace::Rows { count: 0 } => Err(TablesError::BadRow("a manifest in rows has one at least")),
        ManifestPlace::Rows { .. } => Ok(()),
    }
}

pub(super) fn check_manifest(row: &ManifestRow) -> Result<()> {
    if row.stripes.is_empty() || row.stripes.len() > MANIFEST_STRIPES_MAX {
        return Err(TablesError::BadRow("a manifest row has 1 to MANIFEST_STRIPES_MAX stripes"));
    }
    if !(row.first_stripe as usize).is_multiple_of(MANIFEST_STRIPES_MAX) {
        return Err(TablesError::BadRow("a manifest row begins at a multiple of MANIFEST_STRIPES_MAX"));
    }
    if row.stripes.iter().any(|stripe| stripe.shard_crc64s.len() != row.nodes.len()) {
        return Err(TablesError::BadRow("a stripe has one checksum per node"));
    }
    Ok(())
}

/// Queues what an inline manifest, in the row of that key, lacks. (Manifests in rows were queued as they were written.)
pub(super) fn queue_inline_repairs(txn: &mut dyn Transaction, key: &[u8], data: &DataRow) -> Result<()> {
    match &data.manifest {
        ManifestPlace::Inline(row) => queue_repairs(txn, data.data, data.code, key, row),
        ManifestPlace::Rows { .. } => Ok(()),
    }
}

pub(super) fn queue_repairs(
    txn: &mut dyn Transaction,
    data: DataId,
    code: Code,
    key: &[u8],
    row: &ManifestRow,
) -> Result<()> {
    for (stripe, at) in row.stripes.iter().zip(row.first_stripe..) {
        if stripe.missing != 0 {
            let (nodes, stripe) = (row.nodes.clone(), stripe.clone());
            let repair = rows::RepairRow { nodes, stripe, code, owner: Owner::of(key) };
            write(txn, &keys::repair(data, at), &repair)?;
        }
    }
    Ok(())
}
