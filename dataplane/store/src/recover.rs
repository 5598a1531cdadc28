//! The start: from the extent table, the footers and the frames to the state in memory.
//!
//! Extents that were open are scanned. The last of them goes on being appended to, if nothing is wrong with it; any
//! other is sealed. Since a scan may count frames that were written but never flushed, everything is flushed before
//! the store answers anything from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use penstock_proto::DataId;

use crate::StoreError;
use crate::commit::OpenExtent;
use crate::disk::Disk;
use crate::format::footer::{self, Entry, FooterHeader};
use crate::format::record::RecordKind;
use crate::format::table::{SlotEntry, SlotState};
use crate::scan::{Scan, scan};
use crate::state::{Extent, ExtentId, ExtentRef, ExtentState, Location, State};

/// What a start found.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) open: Option<OpenExtent>,
    pub(crate) next_extent: ExtentId,
    pub(crate) next_sequence: u64,
}

pub(crate) async fn recover(disk: &Disk) -> Result<Recovered, StoreError> {
    let entries = disk.entries().await;
    let mut state = State::default();
    let mut records: Vec<(ExtentId, Vec<Entry>)> = Vec::new();
    let mut sequence_max = 0;
    let mut unsealed = Vec::new();
    for (slot, entry) in (0u32..).zip(&entries) {
        if entry.state == SlotState::Free {
            state.free.push_back(slot);
            continue;
        }
        let base = disk.layout.slot_offset(slot);
        let reference = Arc::new(ExtentRef { id: entry.extent, base });
        let mut extent = Extent::new(slot, entry.epoch, ExtentState::Sealed, reference);
        let found = if entry.state == SlotState::Sealed {
            extent.frames_bytes = entry.frames_bytes;
            extent.footer_bytes = entry.footer_bytes;
            extent.root = entry.root;
            read_sealed(disk, &extent).await
        } else {
            let found = scan(disk, &entry.epoch, base, disk.layout.extent_bytes, entry.frames_bytes).await;
            unsealed.push((entry.extent, found.lost == 0, found.torn));
            extent.frames_bytes = found.end;
            extent.root = found.root;
            found
        };
        if found.lost > 0 {
            disk.counters.frames_lost.add(found.lost);
            tracing::error!(
                extent = entry.extent,
                slot,
                offset = base,
                places = found.lost,
                "acknowledged frames are missing or broken: shards are lost here and must be repaired from others"
            );
        }
        sequence_max =
            found.entries.iter().map(|entry| entry.lsn >> 16).fold(found.sequence_max.max(sequence_max), u64::max);
        records.push((entry.extent, found.entries));
        state.extents.insert(entry.extent, extent);
    }
    let last_open = unsealed.iter().map(|(id, ..)| *id).max();
    for (id, sound, torn) in &unsealed {
        if *torn {
            disk.counters.torn_tails.add(1);
            if Some(*id) != last_open {
                // Only an extent that was given up after a write error may end so before the last one does.
                tracing::warn!(extent = id, "an extent that was not the last ends in an incomplete frame");
            }
        }
        tracing::info!(extent = id, sound, torn, "an extent that was open was read");
    }
    let resumed = last_open.filter(|last| unsealed.iter().any(|(id, sound, _)| id == last && *sound));
    let open = resumed.and_then(|id| {
        let extent = state.extents.get_mut(&id)?;
        extent.state = ExtentState::Open;
        let entries = records.iter().find(|(extent, _)| *extent == id).map(|(_, entries)| entries.clone());
        Some(OpenExtent::resume(extent, entries.unwrap_or_default()))
    });
    replay(&mut state, records);
    if !unsealed.is_empty() {
        // A failed flush leaves a store that reads and does not write.
        let _ = disk.flush().await;
    }
    for (id, ..) in unsealed.iter().filter(|(id, ..)| Some(*id) != resumed) {
        if let Some(extent) = state.extents.get(id) {
            let entry = SlotEntry {
                state: SlotState::Sealed,
                epoch: extent.epoch,
                extent: *id,
                frames_bytes: extent.frames_bytes,
                root: extent.root,
                footer_bytes: 0,
            };
            let _ = disk.set_entry(extent.slot, entry).await;
        }
    }
    let next_extent = entries.iter().map(|entry| entry.extent).max().unwrap_or(0) + 1;
    Ok(Recovered { state, open, next_extent, next_sequence: sequence_max + 1 })
}

/// The records of a sealed extent: from its footer, or else from its frames.
pub(crate) async fn read_sealed(disk: &Disk, extent: &Extent) -> Scan {
    let base = extent.reference.base;
    if extent.footer_bytes > 0 {
        let expected = FooterHeader {
            epoch: extent.epoch,
            device_offset: base + extent.frames_bytes,
            frames_bytes: extent.frames_bytes,
            root: extent.root,
        };
        let read = disk.read_long(base + extent.frames_bytes, extent.footer_bytes as usize).await;
        if let Some(entries) = read.as_ref().ok().and_then(|bytes| footer::decode(&expected, bytes)) {
            return Scan { entries, end: extent.frames_bytes, root: extent.root, ..Scan::default() };
        }
        disk.counters.footers_lost.add(1);
        tracing::error!(
            extent = extent.reference.id,
            offset = base,
            "an index footer is corrupt, the frames are read instead"
        );
    }
    scan(disk, &extent.epoch, base, extent.frames_bytes, extent.frames_bytes).await
}

/// Applies all records: of two puts of a key the later counts, and a tombstone kills the puts before it.
fn replay(state: &mut State, records: Vec<(ExtentId, Vec<Entry>)>) {
    let mut tombstones: HashMap<DataId, (u64, ExtentId, HashSet<ExtentId>)> = HashMap::new();
    for (extent, entries) in &records {
        for entry in entries.iter().filter(|entry| entry.record.kind == RecordKind::Tombstone) {
            let known = tombstones.entry(entry.record.key.data).or_default();
            if entry.lsn >= known.0 {
                (known.0, known.1) = (entry.lsn, *extent);
            }
        }
    }
    let mut puts = Vec::new();
    for (extent, entries) in records {
        for entry in entries.into_iter().filter(|entry| entry.record.kind == RecordKind::Put) {
            match tombstones.get_mut(&entry.record.key.data) {
                Some((lsn, _, holders)) if *lsn > entry.lsn => {
                    holders.insert(extent);
                }
                _ => puts.push((entry.lsn, extent, entry.record)),
            }
        }
    }
    puts.sort_unstable_by_key(|(lsn, ..)| *lsn);
    for (_, extent, record) in puts {
        if let Some(reference) = state.extents.get(&extent).map(|extent| Arc::clone(&extent.reference)) {
            state.insert(Location::new(reference, record));
        }
    }
    let mut tombstones: Vec<_> = tombstones.into_iter().collect();
    tombstones.sort_unstable_by_key(|(_, (lsn, ..))| *lsn);
    for (data, (_, home, holders)) in tombstones {
        // Shards stored after it are alive, and say that this tombstone was forgotten before they came.
        if !state.has_shards(data) {
            state.remember(data);
        }
        state.need(data, home, holders);
    }
}
