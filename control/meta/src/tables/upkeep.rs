//! What the keepers of the store read and change: every run of stripes that any row names, and where its shards are.
//!
//! **The walk** ([`Tables::walk`]) goes through all rows that name data, a page at a time, in an order that misses
//! nothing that is there from its beginning to its end, whatever moves meanwhile:
//! pending writes first (`W`), then uploaded parts (`T`), part lists (`P`), batches (`J`), extents (`E`) and objects (`O` and `N`). Data only ever
//! moves forward in that order, but for versions of one key, which change places between `O` and `N` both ways: so the
//! rows of a key are read from both in one transaction. (Of a key with more than [`VERSIONS_PER_PAGE`] versions, those
//! past the page are read in the next; a version that becomes the current one in between is seen there or was seen
//! here, unless hundreds of newer ones are deleted within the moment between the pages.)
//!
//! A renamed object goes from any place of `O` to any other, and may so be missed: renames are counted
//! ([`Tables::renames`]), and a walk during which one happened proves nothing of what it did not meet.
//!
//! **Changes** ([`Tables::change_run`]) are compare-and-set on the row that holds the manifest: of a repair and anything
//! else that touches the row at the same time, one happens. Data that was replaced or deleted meanwhile is left alone.
//!
//! **Unknown tables.** What a store holds that no row names is garbage. Somebody who adds a table that names data has to
//! add it to the walk; until then [`Tables::has_unknown_tables`] says that the walk does not see everything, and nobody
//! may call anything garbage on its word.

use penstock_proto::{Code, DataId};
use serde::{Deserialize, Serialize};

use super::keys;
use super::rows::decode;
use super::{
    DataRow, ExtentRow, ExtentState, Layout, MANIFEST_STRIPES_MAX, ManifestPlace, ManifestRow, ObjectRow, PartListRow,
    PartRow, Result, Tables, TablesError,
};
use super::{extents, read, write};
use crate::kv::{RangeRead, Transaction};

/// Rows of pending writes of one page.
const WRITES_PER_PAGE: usize = 4096;
/// Rows of parts and part lists of one page.
const PARTS_PER_PAGE: usize = 64;
/// Objects of one page.
const OBJECTS_PER_PAGE: usize = 256;
/// Versions that are not at `O`, of one page.
const VERSIONS_PER_PAGE: usize = 256;
/// The tables that the walk knows: those that it reads, and those that name no data or only data that these name, too.
const KNOWN: &[u8] = &[
    keys::EXTENT_LIVE,
    keys::BUCKETS,
    keys::COUNTERS,
    keys::PACKED,
    keys::EXTENTS,
    keys::GARBAGE,
    keys::IDENTITIES,
    keys::BATCHES,
    keys::BUCKET_SETTINGS,
    keys::GARBAGE_LISTS,
    keys::MANIFESTS,
    keys::NONCURRENT,
    keys::OBJECTS,
    keys::PART_LISTS,
    keys::EVENTS,
    keys::REPAIRS,
    keys::SETTINGS,
    keys::PARTS,
    keys::UPLOADS,
    keys::PARTS_VERSIONS,
    keys::WRITES,
    keys::NULL_VERSIONS,
    keys::STRAYS,
    keys::VAULT,
    keys::RENAME_TOKENS,
];
/// The counter of renames.
pub(super) const RENAMES: &str = "renames";

/// Which row holds a manifest. Opaque to others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner(Vec<u8>);

impl Owner {
    pub(super) fn of(key: &[u8]) -> Self {
        Self(key.to_vec())
    }
}

/// A run of at most [`MANIFEST_STRIPES_MAX`] stripes, as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeRun {
    /// Whose.
    pub data: DataId,
    /// How they are coded.
    pub code: Code,
    /// The row that says so.
    pub owner: Owner,
    /// Where the shards are.
    pub manifest: ManifestRow,
}

/// Where a walk goes on. Can be kept: a walk of another process goes on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkPlace {
    step: u8,
    from: Vec<u8>,
    versions_from: Vec<u8>,
}

/// A page of a walk.
#[derive(Clone, Debug, Default)]
pub struct WalkPage {
    /// Data that is being written.
    pub pending: Vec<DataId>,
    /// Runs of stripes.
    pub runs: Vec<StripeRun>,
    /// Where to go on; none at the end.
    pub next: Option<WalkPlace>,
}

const STEPS: [u8; 6] = [keys::WRITES, keys::PARTS, keys::PART_LISTS, keys::BATCHES, keys::EXTENTS, keys::OBJECTS];

impl WalkPlace {
    fn begin(step: u8) -> Option<Self> {
        let table = STEPS.get(usize::from(step))?;
        let versions_from = if *table == keys::OBJECTS { keys::table(keys::NONCURRENT) } else { Vec::new() };
        Some(Self { step, from: keys::table(*table), versions_from })
    }
}

impl Tables {
    /// A page of the walk through everything that names data; the first from [`WalkPlace::default`].
    ///
    /// # Errors
    /// The store's; [`TablesError::Unreadable`].
    pub async fn walk(&self, place: &WalkPlace) -> Result<WalkPage> {
        let begun;
        let place = if place.from.is_empty() {
            begun = WalkPlace::begin(0).expect("there is a first step");
            &begun
        } else {
            place
        };
        let table = *STEPS.get(usize::from(place.step)).ok_or_else(|| unreadable("no such step"))?;
        if table == keys::OBJECTS {
            return self.walk_objects(place).await;
        }
        let max = if table == keys::WRITES { WRITES_PER_PAGE } else { PARTS_PER_PAGE };
        let end = keys::past(&keys::table(table));
        let range = RangeRead { snapshot: true, ..RangeRead::between(&place.from, &end).limit(max) };
        let page = self.page(&range).await?;
        let mut out = WalkPage::default();
        for (key, value) in &page.rows {
            match table {
                keys::WRITES => out.pending.push(keys::parse_write(key).ok_or_else(|| unreadable("a write's key"))?),
                keys::BATCHES => {
                    let (data, _) = keys::parse_in_extent(key).ok_or_else(|| unreadable("a batch's key"))?;
                    let manifest: ManifestRow = decode(value)?;
                    let code = extents::copies_of(&manifest)?;
                    out.runs.push(StripeRun { data, code, owner: Owner::of(key), manifest });
                }
                keys::EXTENTS => match decode::<ExtentRow>(value)?.state {
                    ExtentState::Encoded(data) => self.add_runs(key, Some(&data), &mut out.runs).await?,
                    // Batches that are not committed yet may be on any of its nodes.
                    _ => out.pending.push(keys::parse_extent(key).ok_or_else(|| unreadable("an extent's key"))?),
                },
                keys::PARTS => {
                    let row: PartRow = decode(value)?;
                    self.add_runs(key, row.data.as_ref(), &mut out.runs).await?;
                }
                _ => {
                    let row: PartListRow = decode(value)?;
                    for span in &row.spans {
                        self.add_runs(key, span.data.as_ref(), &mut out.runs).await?;
                    }
                }
            }
        }
        out.next = match page.rows.last() {
            Some((last, _)) if page.more => Some(WalkPlace { from: keys::after(last), ..place.clone() }),
            _ => WalkPlace::begin(place.step + 1),
        };
        Ok(out)
    }

    /// Both tables of versions, a page of each in one transaction, as far as both pages reach.
    async fn walk_objects(&self, place: &WalkPlace) -> Result<WalkPage> {
        let range = |from: &[u8], table: u8, limit: usize| RangeRead {
            snapshot: true,
            ..RangeRead::between(from, &keys::past(&keys::table(table))).limit(limit)
        };
        let objects = range(&place.from, keys::OBJECTS, OBJECTS_PER_PAGE);
        let versions = range(&place.versions_from, keys::NONCURRENT, VERSIONS_PER_PAGE);
        let (objects, versions) = transaction!(self, |txn, objects, versions| {
            Ok((txn.get_range(objects.clone()).await?, txn.get_range(versions.clone()).await?))
        })
        .await?;
        let last_object = match objects.rows.last() {
            Some((key, _)) if objects.more => Some(place_of_object(key)?),
            _ => None,
        };
        let last_version = match versions.rows.last() {
            Some((key, _)) if versions.more => Some(place_of_version(key)?),
            _ => None,
        };
        // The end of what both pages cover: bucket and key.
        let end = match (&last_object, &last_version) {
            (Some(object), Some(version)) => Some(object.min(version).clone()),
            (Some(end), None) | (None, Some(end)) => Some(end.clone()),
            (None, None) => None,
        };
        let within = |at: &(u64, String)| end.as_ref().is_none_or(|end| at <= end);
        let mut out = WalkPage::default();
        for (key, value) in &objects.rows {
            if within(&place_of_object(key)?) {
                self.add_object(key, value, &mut out.runs).await?;
            }
        }
        let mut last_seen = None;
        for (key, value) in &versions.rows {
            if within(&place_of_version(key)?) {
                self.add_object(key, value, &mut out.runs).await?;
                last_seen = Some(key);
            }
        }
        let Some((bucket, name)) = end else { return Ok(out) };
        let from = keys::after(&keys::object(bucket, &name)?);
        // Where the page of versions ends within a key, the rest of that key's come next.
        let versions_from = match last_seen {
            Some(key) if last_version.as_ref() == Some(&(bucket, name.clone())) => keys::after(key),
            _ => keys::past(&keys::noncurrents_of(bucket, &name)),
        };
        out.next = Some(WalkPlace { step: place.step, from, versions_from });
        Ok(out)
    }

    async fn add_object(&self, key: &[u8], value: &[u8], runs: &mut Vec<StripeRun>) -> Result<()> {
        // The data of parts is in the lists, which have been walked.
        match decode::<ObjectRow>(value)?.layout {
            Layout::Single(data) => self.add_runs(key, Some(&data), runs).await,
            _ => Ok(()),
        }
    }

    async fn add_runs(&self, key: &[u8], data: Option<&DataRow>, runs: &mut Vec<StripeRun>) -> Result<()> {
        let Some(data) = data else { return Ok(()) };
        match &data.manifest {
            ManifestPlace::Inline(manifest) => runs.push(run(data, key, manifest.clone())),
            ManifestPlace::Rows { count } => {
                for index in 0..*count {
                    // One that is gone went with its data.
                    if let Some(manifest) = self.manifest(data.data, index).await? {
                        runs.push(run(data, &keys::manifest(data.data, index), manifest));
                    }
                }
            }
        }
        Ok(())
    }

    /// How many objects were renamed so far.
    ///
    /// # Errors
    /// The store's.
    pub async fn renames(&self) -> Result<u64> {
        let key = keys::counter(RENAMES);
        transaction!(self, |txn, key| super::counter(txn, key).await).await
    }

    /// A run as it is now, by what was seen of it before; none when that row no longer names the data.
    ///
    /// # Errors
    /// The store's.
    pub async fn run_now(
        &self,
        owner: &Owner,
        data: DataId,
        code: Code,
        first_stripe: u32,
    ) -> Result<Option<StripeRun>> {
        let manifest = transaction!(self, |txn, owner| manifest_of(txn, owner, data, first_stripe).await).await?;
        Ok(manifest.map(|manifest| StripeRun { data, code, owner: owner.clone(), manifest }))
    }

    /// Changes where the shards of a run are: only if it is still as it was seen. The stripes of which nothing is missing
    /// any more are no longer queued for repair. Whether it was changed.
    ///
    /// # Errors
    /// [`TablesError::BadRow`] for a change of anything else; the store's.
    pub async fn change_run(&self, seen: &StripeRun, manifest: &ManifestRow) -> Result<bool> {
        let stripes = |row: &ManifestRow| -> Vec<_> {
            row.stripes.iter().map(|stripe| (stripe.chunk_bytes, stripe.shard_crc64s.clone())).collect()
        };
        if seen.manifest.first_stripe != manifest.first_stripe
            || seen.manifest.nodes.len() != manifest.nodes.len()
            || stripes(&seen.manifest) != stripes(manifest)
        {
            return Err(TablesError::BadRow("a repair changes nodes and what is missing, nothing else"));
        }
        let StripeRun { data, owner, manifest: before, .. } = seen;
        let data = *data;
        transaction!(self, |txn| {
            txn.makes_room();
            if manifest_of(txn, owner, data, before.first_stripe).await?.as_ref() != Some(before) {
                return Ok(false);
            }
            set_manifest(txn, owner, data, manifest).await?;
            for (stripe, at) in manifest.stripes.iter().zip(manifest.first_stripe..) {
                if stripe.missing == 0 {
                    txn.clear(&keys::repair(data, at))?;
                }
            }
            Ok(true)
        })
        .await
    }

    /// Takes a run's stripes off the repair queue: its row no longer names it, or there is nothing to repair.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_repairs(&self, data: DataId, first_stripe: u32) -> Result<()> {
        let end = keys::repair(data, first_stripe.saturating_add(MANIFEST_STRIPES_MAX as u32));
        let begin = keys::repair(data, first_stripe);
        transaction!(self, |txn, begin, end| {
            txn.makes_room();
            Ok(txn.clear_range(begin, end)?)
        })
        .await
    }

    /// Whether there are rows in a table that the walk does not know: see the module's page.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_unknown_tables(&self) -> Result<Option<char>> {
        let mut from = vec![0];
        // One read for each table that there is.
        for _ in 0..=u8::MAX {
            let range = RangeRead { snapshot: true, ..RangeRead::between(&from, crate::kv::SYSTEM_FROM).limit(1) };
            let page = self.page(&range).await?;
            let Some((key, _)) = page.rows.first() else { return Ok(None) };
            if !KNOWN.contains(&key[0]) {
                return Ok(Some(char::from(key[0])));
            }
            from = keys::past(&[key[0]]);
        }
        Ok(None)
    }
}

fn run(data: &DataRow, key: &[u8], manifest: ManifestRow) -> StripeRun {
    StripeRun { data: data.data, code: data.code, owner: Owner::of(key), manifest }
}

fn unreadable(why: &str) -> TablesError {
    TablesError::Unreadable { row: "what the walk met", why: why.to_owned() }
}

/// Bucket and key of an object's row.
fn place_of_object(key: &[u8]) -> Result<(u64, String)> {
    let rest = key.strip_prefix(&[keys::OBJECTS]);
    let (bucket, name) =
        rest.and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(|| unreadable("an object's key"))?;
    let name = std::str::from_utf8(name).map_err(|_| unreadable("an object's key"))?;
    Ok((u64::from_be_bytes(*bucket), name.to_owned()))
}

/// The same of a version that is not at `O`.
fn place_of_version(key: &[u8]) -> Result<(u64, String)> {
    let rest = key.strip_prefix(&[keys::NONCURRENT]);
    let (bucket, rest) =
        rest.and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(|| unreadable("a version's key"))?;
    let (name, _) = keys::parse_noncurrent(rest).ok_or_else(|| unreadable("a version's key"))?;
    Ok((u64::from_be_bytes(*bucket), name))
}

/// The manifest that a row holds of this data, from this stripe on.
async fn manifest_of(
    txn: &mut dyn Transaction,
    owner: &Owner,
    data: DataId,
    first_stripe: u32,
) -> Result<Option<ManifestRow>> {
    let inline = |row: Option<DataRow>| match row {
        Some(DataRow { data: id, manifest: ManifestPlace::Inline(manifest), .. }) if id == data => Some(manifest),
        _ => None,
    };
    let key = owner.0.as_slice();
    let found = match key.first() {
        Some(&keys::OBJECTS | &keys::NONCURRENT) => match read::<ObjectRow>(txn, key).await? {
            Some(ObjectRow { layout: Layout::Single(row), .. }) => inline(Some(row)),
            _ => None,
        },
        Some(&keys::PARTS) => inline(read::<PartRow>(txn, key).await?.and_then(|row| row.data)),
        Some(&keys::PART_LISTS) => {
            let spans = read::<PartListRow>(txn, key).await?.unwrap_or_default().spans;
            inline(spans.into_iter().filter_map(|span| span.data).find(|row| row.data == data))
        }
        Some(&keys::EXTENTS) => match read::<ExtentRow>(txn, key).await?.map(|row| row.state) {
            Some(ExtentState::Encoded(row)) => inline(Some(row)),
            _ => None,
        },
        Some(&keys::MANIFESTS | &keys::BATCHES) => read(txn, key).await?,
        _ => return Err(unreadable("the owner of a manifest")),
    };
    Ok(found.filter(|manifest| manifest.first_stripe == first_stripe))
}

/// Replaces it; [`manifest_of`] has found it in the same transaction.
async fn set_manifest(txn: &mut dyn Transaction, owner: &Owner, data: DataId, manifest: &ManifestRow) -> Result<()> {
    let key = owner.0.as_slice();
    let put = |row: &mut DataRow| row.manifest = ManifestPlace::Inline(manifest.clone());
    match key.first() {
        Some(&keys::OBJECTS | &keys::NONCURRENT) => {
            if let Some(mut row) = read::<ObjectRow>(txn, key).await?
                && let Layout::Single(found) = &mut row.layout
            {
                put(found);
                write(txn, key, &row)?;
            }
        }
        Some(&keys::PARTS) => {
            if let Some(mut row) = read::<PartRow>(txn, key).await?
                && let Some(found) = &mut row.data
            {
                put(found);
                write(txn, key, &row)?;
            }
        }
        Some(&keys::PART_LISTS) => {
            let mut row: PartListRow = read(txn, key).await?.unwrap_or_default();
            for found in row.spans.iter_mut().filter_map(|span| span.data.as_mut()).filter(|found| found.data == data) {
                put(found);
            }
            write(txn, key, &row)?;
        }
        Some(&keys::EXTENTS) => {
            if let Some(mut row) = read::<ExtentRow>(txn, key).await?
                && let ExtentState::Encoded(found) = &mut row.state
            {
                put(found);
                write(txn, key, &row)?;
            }
        }
        Some(&keys::BATCHES) => {
            // The extent names all nodes that have any of it: they are where its garbage is.
            if let Some(mut row) = read::<ExtentRow>(txn, &keys::extent(data)).await? {
                let new = manifest.nodes.iter().filter(|node| !row.nodes.contains(node));
                row.nodes.extend(new.copied().collect::<Vec<_>>());
                write(txn, &keys::extent(data), &row)?;
            }
            write(txn, key, manifest)?;
        }
        _ => write(txn, key, manifest)?,
    }
    Ok(())
}
