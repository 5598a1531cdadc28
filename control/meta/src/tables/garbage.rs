//! Pending writes and garbage: the two tables that say of data that no row refers to, that it may not be collected yet,
//! or must be. See "Life of data" in [`crate::tables`].

use std::collections::BTreeSet;

use penstock_proto::{DataId, NodeId};

use super::rows::{GarbageEntry, GarbageList, WriteKind, WriteRow, decode};
use super::{
    DataRow, GarbageRow, Layout, ManifestPlace, ManifestRow, PartListRow, PartRow, Result, Tables, TablesError,
};
use super::{extents, keys, read, write};
use crate::kv::{RangeRead, Transaction};

/// Pending writes that one call of [`Tables::next_garbage`] looks at; the next call goes on from there.
const SWEEP_ROWS_MAX: usize = 4096;
/// Expired writes that one transaction turns to garbage.
const EXPIRED_PER_TRANSACTION_MAX: usize = 256;
/// Steps of expanding lists and uploads that one call of [`Tables::next_garbage`] takes.
const EXPANSIONS_PER_CALL_MAX: usize = 64;
/// Part rows that one step of an aborted upload's expansion removes.
const UPLOAD_PARTS_PER_STEP: usize = 256;
/// Rows of one page of a count.
const COUNT_PAGE_ROWS: usize = 1000;

/// Data about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWrite {
    /// Its id, fresh.
    pub data: DataId,
    /// The nodes that may get shards of it. **Empty: any node of the cluster may.**
    pub nodes: Vec<NodeId>,
    /// When it is garbage, unless it was committed or renewed before.
    pub expires_unix_ms: u64,
}

/// Names a garbage row to [`Tables::finish_garbage`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GarbageToken {
    not_before_unix_ms: u64,
    data: DataId,
}

impl Tables {
    /// Registers writes: their data is pending from here on. Call it before the first shard goes to a node. A writer of
    /// small objects may register a batch of ids at once and use them up one by one.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin_writes(&self, writes: &[NewWrite]) -> Result<()> {
        transaction!(self, |txn| {
            for new in writes {
                let kind = WriteKind::Data { nodes: new.nodes.clone() };
                write(txn, &keys::write(new.data), &WriteRow { expires_unix_ms: new.expires_unix_ms, kind })?;
            }
            Ok(())
        })
        .await
    }

    /// Gives pending writes until `expires_unix_ms`.
    ///
    /// # Errors
    /// [`TablesError::WriteExpired`] for the first that is not pending any more (none is renewed then); the store's.
    pub async fn renew_writes(&self, writes: &[DataId], expires_unix_ms: u64) -> Result<()> {
        transaction!(self, |txn| {
            for data in writes {
                let row = check_write(txn, *data).await?;
                write(txn, &keys::write(*data), &WriteRow { expires_unix_ms, ..row })?;
            }
            Ok(())
        })
        .await
    }

    /// Turns pending data to garbage, collectable at once. What is not pending (committed after all, or expired) stays
    /// what it is.
    ///
    /// # Errors
    /// The store's.
    pub async fn abort_writes(&self, writes: &[DataId], now_unix_ms: u64) -> Result<()> {
        for batch in writes.chunks(EXPIRED_PER_TRANSACTION_MAX) {
            transaction!(self, |txn| {
                txn.makes_room();
                for data in batch {
                    condemn(txn, *data, None, now_unix_ms).await?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Some garbage whose time has come, at most `max`: delete it on its nodes, then [`Tables::finish_garbage`]. The same
    /// rows come again until then. On the way, expired writes become garbage and lists of garbage are expanded; both in
    /// bounded steps, so call again while anything comes, and from time to time.
    ///
    /// # Errors
    /// The store's.
    pub async fn next_garbage(&self, now_unix_ms: u64, max: usize) -> Result<Vec<(GarbageToken, GarbageRow)>> {
        self.sweep_expired_writes(now_unix_ms).await?;
        let out = self.collectable(now_unix_ms, max).await?;
        if out.len() < max && self.expand_lists(now_unix_ms).await? {
            return self.collectable(now_unix_ms, max).await;
        }
        Ok(out)
    }

    async fn collectable(&self, now_unix_ms: u64, max: usize) -> Result<Vec<(GarbageToken, GarbageRow)>> {
        let mut begin = keys::table(keys::GARBAGE);
        let end = keys::garbage(now_unix_ms.saturating_add(1), DataId(0));
        let mut out = Vec::new();
        while out.len() < max {
            let page = self.page(&snapshot(&begin, &end, max - out.len())).await?;
            for (key, value) in &page.rows {
                let (not_before_unix_ms, data) = keys::parse_garbage(key).ok_or_else(unreadable)?;
                let (nodes, manifest_rows) = match decode(value)? {
                    GarbageEntry::Data { nodes, manifest_rows } => (nodes, manifest_rows),
                    GarbageEntry::Manifests { count } => (self.nodes_of_manifests(data, count).await?, count),
                };
                let token = GarbageToken { not_before_unix_ms, data };
                out.push((token, GarbageRow { data, nodes, manifest_rows, not_before_unix_ms }));
            }
            match page.rows.last() {
                Some((last, _)) if page.more => begin = keys::after(last),
                _ => break,
            }
        }
        Ok(out)
    }

    /// Expands lists whose time has come, by a bounded number of steps. Whether there was one.
    async fn expand_lists(&self, now_unix_ms: u64) -> Result<bool> {
        let begin = keys::table(keys::GARBAGE_LISTS);
        let end = keys::garbage_list(now_unix_ms.saturating_add(1), DataId(0));
        for steps in 0..EXPANSIONS_PER_CALL_MAX {
            let page = self.page(&snapshot(&begin, &end, 1)).await?;
            let Some((key, _)) = page.rows.first() else { return Ok(steps > 0) };
            self.expand(key).await?;
        }
        Ok(true)
    }

    /// Forgets garbage that is gone from every node, with its manifest and repair rows. Finishing twice is fine.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish_garbage(&self, token: &GarbageToken) -> Result<()> {
        let key = keys::garbage(token.not_before_unix_ms, token.data);
        transaction!(self, |txn, key| {
            txn.makes_room();
            if txn.get(key).await?.is_none() {
                return Ok(());
            }
            for prefix in [keys::manifests(token.data), keys::repairs(token.data)] {
                txn.clear_range(&prefix, &keys::past(&prefix))?;
            }
            Ok(txn.clear(key)?)
        })
        .await
    }

    /// Adds garbage that the tables don't know of, such as shards that a scrub found on a node. **Only what no row refers
    /// to**: pending data is for [`Tables::abort_writes`], and objects' data becomes garbage with them.
    ///
    /// # Errors
    /// [`TablesError::BadRow`] if one is pending; the store's.
    pub async fn add_garbage(&self, rows: &[GarbageRow]) -> Result<()> {
        transaction!(self, |txn| {
            for row in rows {
                if read::<WriteRow>(txn, &keys::write(row.data)).await?.is_some() {
                    return Err(TablesError::BadRow("pending data is not garbage: abort it"));
                }
                let entry = GarbageEntry::Data { nodes: row.nodes.clone(), manifest_rows: row.manifest_rows };
                write(txn, &keys::garbage(row.not_before_unix_ms, row.data), &entry)?;
            }
            Ok(())
        })
        .await
    }

    /// How many garbage rows there are, whenever collectable; a list or an aborted upload that waits to be expanded is
    /// one. Reads them all: for tests and for people.
    ///
    /// # Errors
    /// The store's.
    pub async fn garbage_count(&self) -> Result<u64> {
        Ok(self.count(&keys::table(keys::GARBAGE)).await? + self.count(&keys::table(keys::GARBAGE_LISTS)).await?)
    }

    /// How many writes are pending. Reads them all.
    ///
    /// # Errors
    /// The store's.
    pub async fn pending_count(&self) -> Result<u64> {
        self.count(&keys::table(keys::WRITES)).await
    }

    async fn count(&self, prefix: &[u8]) -> Result<u64> {
        let (mut begin, end, mut count) = (prefix.to_vec(), keys::past(prefix), 0);
        loop {
            let page = self.page(&snapshot(&begin, &end, COUNT_PAGE_ROWS)).await?;
            count += page.rows.len() as u64;
            match page.rows.last() {
                Some((last, _)) if page.more => begin = keys::after(last),
                _ => return Ok(count),
            }
        }
    }

    /// Turns writes whose lease ran out to garbage; goes once around the table in as many calls as it takes.
    async fn sweep_expired_writes(&self, now_unix_ms: u64) -> Result<()> {
        let table = keys::table(keys::WRITES);
        let (mut begin, end, mut seen) = (self.sweep_from.lock().clone(), keys::past(&table), 0);
        let (mut expired, mut lists) = (Vec::new(), Vec::new());
        loop {
            let page = self.page(&snapshot(&begin, &end, SWEEP_ROWS_MAX - seen)).await?;
            for (key, value) in &page.rows {
                let row: WriteRow = decode(value)?;
                if row.expires_unix_ms <= now_unix_ms {
                    let id = keys::parse_write(key).ok_or_else(unreadable)?;
                    match row.kind {
                        WriteKind::Data { .. } => expired.push(id),
                        WriteKind::List => lists.push(id),
                    }
                }
            }
            seen += page.rows.len();
            match page.rows.last() {
                Some((last, _)) if page.more => begin = keys::after(last),
                _ => begin = table.clone(),
            }
            if !page.more || seen >= SWEEP_ROWS_MAX {
                break;
            }
        }
        *self.sweep_from.lock() = begin;
        // Lists one by one: each clears up to 10,000 rows.
        for batch in expired.chunks(EXPIRED_PER_TRANSACTION_MAX).chain(lists.chunks(1)) {
            transaction!(self, |txn| {
                txn.makes_room();
                for data in batch {
                    condemn(txn, *data, Some(now_unix_ms), now_unix_ms).await?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// One step of a list's or an upload's expansion.
    async fn expand(&self, key: &[u8]) -> Result<()> {
        let (not_before, id) = keys::parse_garbage(key).ok_or_else(unreadable)?;
        transaction!(self, |txn| {
            txn.makes_room();
            match read::<GarbageList>(txn, key).await? {
                Some(GarbageList::Parts { next, count }) => {
                    let row_key = keys::part_list(id, next);
                    let row: PartListRow = read(txn, &row_key).await?.unwrap_or_default();
                    for data in row.spans.iter().filter_map(|span| span.data.as_ref()) {
                        discard_data(txn, data, not_before)?;
                    }
                    txn.clear(&row_key)?;
                    match next + 1 {
                        next if next < count => write(txn, key, &GarbageList::Parts { next, count }),
                        _ => Ok(txn.clear(key)?),
                    }
                }
                Some(GarbageList::Upload { upload }) => {
                    let range = RangeRead::prefix(&keys::parts(&upload)).limit(UPLOAD_PARTS_PER_STEP);
                    let page = txn.get_range(range).await?;
                    for (part_key, value) in &page.rows {
                        if let Some(data) = &decode::<PartRow>(value)?.data {
                            discard_data(txn, data, not_before)?;
                        }
                        txn.clear(part_key)?;
                    }
                    if page.more { Ok(()) } else { Ok(txn.clear(key)?) }
                }
                // Another collector was faster.
                _ => Ok(()),
            }
        })
        .await
    }

    async fn nodes_of_manifests(&self, data: DataId, count: u32) -> Result<Vec<NodeId>> {
        let mut nodes = BTreeSet::new();
        for index in 0..count {
            match self.manifest(data, index).await? {
                Some(row) => nodes.extend(row.nodes),
                // Finished meanwhile, or lost: any node may have shards.
                None => return Ok(Vec::new()),
            }
        }
        Ok(nodes.into_iter().collect())
    }
}

/// A read of at most `limit` rows (at least 1) that conflicts with nothing.
fn snapshot(begin: &[u8], end: &[u8], limit: usize) -> RangeRead {
    RangeRead { snapshot: true, ..RangeRead::between(begin, end).limit(limit.max(1)) }
}

fn unreadable() -> TablesError {
    TablesError::Unreadable { row: "garbage or write", why: "its key is none of this table's".into() }
}

/// That `id` is pending.
pub(super) async fn check_write(txn: &mut dyn Transaction, id: DataId) -> Result<WriteRow> {
    read(txn, &keys::write(id)).await?.ok_or(TablesError::WriteExpired { data: id })
}

/// Ends that `id` is pending; the caller makes it reachable in the same transaction.
pub(super) async fn take_write(txn: &mut dyn Transaction, id: DataId) -> Result<()> {
    check_write(txn, id).await?;
    Ok(txn.clear(&keys::write(id))?)
}

/// Turns a pending write (only if expired by `expired_at`, if given) to garbage.
pub(super) async fn condemn(
    txn: &mut dyn Transaction,
    id: DataId,
    expired_at_unix_ms: Option<u64>,
    not_before_unix_ms: u64,
) -> Result<()> {
    let key = keys::write(id);
    let Some(row) = read::<WriteRow>(txn, &key).await? else { return Ok(()) };
    if expired_at_unix_ms.is_some_and(|at| row.expires_unix_ms > at) {
        return Ok(());
    }
    match row.kind {
        // A list that nothing refers to owns nothing: its rows go, not the data they name.
        WriteKind::List => txn.clear_range(&keys::part_lists(id), &keys::past(&keys::part_lists(id)))?,
        WriteKind::Data { nodes } => {
            let entry = GarbageEntry::Data { nodes, manifest_rows: 0 };
            write(txn, &keys::garbage(not_before_unix_ms, id), &entry)?;
        }
    }
    Ok(txn.clear(&key)?)
}

/// Enqueues a row's data, which the caller unlinks in the same transaction.
pub(super) fn discard_data(txn: &mut dyn Transaction, data: &DataRow, not_before_unix_ms: u64) -> Result<()> {
    let entry = match &data.manifest {
        ManifestPlace::Inline(ManifestRow { nodes, .. }) => {
            GarbageEntry::Data { nodes: nodes.clone(), manifest_rows: 0 }
        }
        ManifestPlace::Rows { count } => GarbageEntry::Manifests { count: *count },
    };
    write(txn, &keys::garbage(not_before_unix_ms, data.data), &entry)
}

/// The same for all that a layout refers to.
pub(super) fn discard_layout(txn: &mut dyn Transaction, layout: &Layout, not_before_unix_ms: u64) -> Result<()> {
    match layout {
        Layout::Empty => Ok(()),
        Layout::Single(data) => discard_data(txn, data, not_before_unix_ms),
        Layout::Parts { list, count } => discard_list(txn, *list, *count, not_before_unix_ms),
        // Its bytes are dead now; their room comes back with the extent's.
        Layout::Packed(packed) => extents::unlink(txn, packed),
    }
}

/// The same for every part of a list.
pub(super) fn discard_list(txn: &mut dyn Transaction, list: DataId, count: u32, not_before_unix_ms: u64) -> Result<()> {
    write(txn, &keys::garbage_list(not_before_unix_ms, list), &GarbageList::Parts { next: 0, count })
}

/// The same for every part row of an upload.
pub(super) fn discard_upload(
    txn: &mut dyn Transaction,
    upload: &keys::UploadKey,
    not_before_unix_ms: u64,
) -> Result<()> {
    write(txn, &keys::garbage_list(not_before_unix_ms, DataId::random()), &GarbageList::Upload { upload: *upload })
}
