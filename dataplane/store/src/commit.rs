//! The committer: one task that owns the open extent and writes everything that is written to it.
//!
//! It drains its queue into a group, lays the group out in frames, writes them, flushes once, and only then changes
//! the index and answers. While a flush runs, the next group gathers in the queue: that is all the batching there is,
//! and it grows with the load by itself. (Writing the next group during the flush would overlap more, but on the
//! devices we have a flush waits for the writes before it anyway.) Checksums over payloads are computed by the
//! callers; the committer copies short payloads behind the head and hands long ones to the device where they lie.
//!
//! How it fails. A flush error is final: everybody who waits gets `DeviceFailed`, and so does everybody later. A write
//! error gives the extent up at its last good frame (without a footer, which would lie on the same bad spot), and the
//! frame is written again in a new extent; a second error in the same group is the device's. A full disk is `NoSpace`
//! for puts; deletes and compaction go on in the extent that is kept back.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;
use penstock_buf::Buf;
use penstock_proto::limits::BUFFER_WAIT;
use tokio::sync::{Notify, mpsc};

use crate::StoreError;
use crate::disk::Disk;
use crate::format::footer::{self, Entry, FooterHeader, lsn};
use crate::format::frame::{self, FRAME_BYTES_MAX, FrameHeader, Layout};
use crate::format::record::{Record, RecordKind};
use crate::format::table::{SlotEntry, SlotState};
use crate::format::{BLOCK, BLOCK_BYTES, Epoch, random_id};
use crate::group::{Op, Pending, admit, frame_len, privileged};
use crate::state::{Extent, ExtentId, ExtentRef, ExtentState, Location, State};

/// Operations waiting for the committer; past it, callers wait to get in.
pub(crate) const QUEUE_OPERATIONS_MAX: usize = 1024;
/// Operations of one group.
const GROUP_OPERATIONS_MAX: usize = 1024;
/// Payload bytes of one group, but for the last operation's.
const GROUP_BYTES_MAX: usize = 32 << 20;

/// An extent with less room is full for any group that fits no frame of that size.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// The extent that takes frames.
pub(crate) struct OpenExtent {
    reference: Arc<ExtentRef>,
    slot: u32,
    epoch: Epoch,
    /// Where the next frame goes.
    position: u64,
    /// Durable below this.
    synced: u64,
    root: u64,
    entries: Vec<Entry>,
    /// What the footer would take now.
    footer_bytes: usize,
}

impl OpenExtent {
    /// Goes on where a scan found the end.
    pub(crate) fn resume(extent: &Extent, entries: Vec<Entry>) -> Self {
        let footer_bytes =
            footer::EMPTY_BYTES + entries.iter().map(|entry| footer::entry_bytes(&entry.record)).sum::<usize>();
        Self {
            reference: Arc::clone(&extent.reference),
            slot: extent.slot,
            epoch: extent.epoch,
            position: extent.frames_bytes,
            synced: extent.frames_bytes,
            root: extent.root,
            entries,
            footer_bytes,
        }
    }
}

/// A frame that is written but not flushed.
struct Written {
    pending: Vec<Pending>,
    records: Vec<Record>,
    extent: Arc<ExtentRef>,
}

pub(crate) struct Committer {
    pub(crate) disk: Arc<Disk>,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) open: Option<OpenExtent>,
    pub(crate) next_extent: ExtentId,
    pub(crate) next_sequence: u64,
    /// Woken when there may be something to compact.
    pub(crate) compaction: Arc<Notify>,
    unsynced: Vec<Written>,
}

impl Committer {
    pub(crate) fn new(
        disk: Arc<Disk>,
        state: Arc<RwLock<State>>,
        open: Option<OpenExtent>,
        next: (ExtentId, u64),
        compaction: Arc<Notify>,
    ) -> Self {
        let (next_extent, next_sequence) = next;
        Self { disk, state, open, next_extent, next_sequence, compaction, unsynced: Vec::new() }
    }

    /// Serves until it is told to close, or nobody can ask any more.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Op>) {
        let mut closing = None;
        while closing.is_none() {
            let Some(mut op) = queue.recv().await else { break };
            let (mut ops, mut bytes) = (Vec::new(), 0);
            loop {
                bytes += op.bytes();
                match op {
                    Op::Close { reply } => {
                        closing = Some(reply);
                        break;
                    }
                    op => ops.push(op),
                }
                if ops.len() >= GROUP_OPERATIONS_MAX || bytes >= GROUP_BYTES_MAX {
                    break;
                }
                match queue.try_recv() {
                    Ok(next) => op = next,
                    Err(_) => break,
                }
            }
            self.commit(ops).await;
        }
        queue.close();
        self.note_synced().await;
        self.disk.device.close().await;
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    async fn commit(&mut self, ops: Vec<Op>) {
        let mut pending: VecDeque<Pending> = admit(&self.state.read(), ops).into();
        let mut gave_up_extent = false;
        while !pending.is_empty() {
            let count = frame_len(pending.iter(), self.room_bytes());
            let batch: Vec<Pending> = pending.drain(..count).collect();
            match self.place(batch).await {
                Ok(()) => {}
                Err((batch, StoreError::NoSpace)) => {
                    let refused_some = !privileged(&batch);
                    let (refused, rest): (Vec<_>, Vec<_>) =
                        batch.into_iter().partition(|one| one.client_put || !refused_some);
                    refused.into_iter().for_each(|one| one.answer(&Err(StoreError::NoSpace)));
                    rest.into_iter().rev().for_each(|one| pending.push_front(one));
                    self.compaction.notify_one();
                }
                Err((batch, StoreError::Io { operation, reason })) => {
                    self.disk.counters.write_errors.add(1);
                    tracing::error!(operation, reason, "a frame could not be written");
                    let given_up = if gave_up_extent {
                        Err(self.disk.fail(format!("{operation}: {reason} (in two extents)")))
                    } else {
                        self.seal(false).await
                    };
                    gave_up_extent = true;
                    match given_up {
                        Ok(()) => batch.into_iter().rev().for_each(|one| pending.push_front(one)),
                        Err(error) => batch.into_iter().for_each(|one| one.answer(&Err(error.clone()))),
                    }
                }
                Err((batch, error)) => batch.into_iter().for_each(|one| one.answer(&Err(error.clone()))),
            }
        }
        if !self.unsynced.is_empty() {
            // The error went to everybody who waits.
            let _ = self.sync().await;
        }
    }

    /// What the open extent has room for, its footer apart; a whole frame where a new one will be opened.
    fn room_bytes(&self) -> usize {
        let Some(open) = &self.open else { return FRAME_BYTES_MAX };
        let taken = open.position as usize + open.footer_bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
        match (self.disk.layout.extent_bytes as usize).saturating_sub(taken) {
            // So little that it is not worth a frame.
            0..ROOM_BYTES_MIN => FRAME_BYTES_MAX,
            room => room,
        }
    }

    /// Writes one frame, in a new extent if the open one has no room for it.
    async fn place(&mut self, pending: Vec<Pending>) -> Result<(), (Vec<Pending>, StoreError)> {
        match self.try_place(&pending).await {
            Ok((records, extent)) => {
                self.unsynced.push(Written { pending, records, extent });
                Ok(())
            }
            Err(error) => Err((pending, error)),
        }
    }

    async fn try_place(&mut self, pending: &[Pending]) -> Result<(Vec<Record>, Arc<ExtentRef>), StoreError> {
        self.disk.check()?;
        let privileged = privileged(pending);
        self.fill_reserve().await;
        if !privileged && self.state.read().reserve.is_none() {
            return Err(StoreError::NoSpace);
        }
        let layout = frame::layout(pending.iter().map(|one| &one.record));
        let entry_bytes: usize = pending.iter().map(|one| footer::entry_bytes(&one.record)).sum();
        let fits = |open: &OpenExtent| {
            let footer = (open.footer_bytes + entry_bytes).next_multiple_of(BLOCK_BYTES);
            open.position + (layout.frame_bytes + footer) as u64 <= self.disk.layout.extent_bytes
        };
        if !self.open.as_ref().is_some_and(fits) {
            self.seal(true).await?;
            self.open_extent(privileged).await?;
        }
        let records = self.write_frame(pending, &layout).await?;
        let open = self.open.as_mut().expect("invariant: a frame was just written to it");
        open.footer_bytes += entry_bytes;
        Ok((records, Arc::clone(&open.reference)))
    }

    async fn write_frame(&mut self, pending: &[Pending], layout: &Layout) -> Result<Vec<Record>, StoreError> {
        let disk = Arc::clone(&self.disk);
        let open = self.open.as_mut().expect("invariant: the caller opened an extent");
        let device_offset = open.reference.base + open.position;
        let header = FrameHeader {
            epoch: open.epoch,
            device_offset,
            sequence: self.next_sequence,
            records: pending.len() as u32,
            frame_bytes: layout.frame_bytes as u32,
            head_bytes: layout.head_bytes as u32,
            synced_bytes: open.synced,
            previous: open.root,
        };
        let (pieces, root, mut records) = build(&disk, &header, pending, layout).await?;
        // Used up even if the write fails: what reached the device then must not look newer than what follows.
        self.next_sequence += 1;
        disk.device.write(device_offset, pieces).await?;
        disk.counters.frames.add(1);
        disk.counters.frame_bytes.add(layout.frame_bytes as u64);
        for (index, record) in records.iter_mut().enumerate() {
            record.payload_offset += open.position as u32;
            open.entries.push(Entry { lsn: lsn(header.sequence, index), record: record.clone() });
        }
        open.position += layout.frame_bytes as u64;
        open.root = root;
        Ok(records)
    }

    /// Flushes, and then lets everybody see and know what was written.
    async fn sync(&mut self) -> Result<(), StoreError> {
        let written = std::mem::take(&mut self.unsynced);
        if let Err(error) = self.disk.flush().await {
            for one in written.into_iter().flat_map(|frame| frame.pending) {
                one.answer(&Err(error.clone()));
            }
            return Err(error);
        }
        if let Some(open) = &mut self.open {
            open.synced = open.position;
        }
        self.disk.counters.commits.add(1);
        let mut answers = Vec::new();
        let mut deleted = false;
        {
            let mut state = self.state.write();
            if let Some(open) = &self.open
                && let Some(extent) = state.extents.get_mut(&open.reference.id)
            {
                extent.frames_bytes = open.synced;
            }
            for frame in written {
                for (pending, record) in frame.pending.into_iter().zip(frame.records) {
                    let killed = match record.kind {
                        RecordKind::Put => {
                            let counters = &self.disk.counters;
                            let (shards, bytes) = if pending.client_put {
                                (&counters.puts, &counters.put_bytes)
                            } else {
                                (&counters.moved_shards, &counters.moved_bytes)
                            };
                            shards.add(1);
                            bytes.add(u64::from(record.length));
                            state.insert(Location::new(Arc::clone(&frame.extent), record));
                            0
                        }
                        RecordKind::Tombstone => {
                            deleted = true;
                            state.delete(record.key.data, frame.extent.id)
                        }
                    };
                    answers.push((pending, killed));
                }
            }
        }
        for (pending, killed) in answers {
            pending.answer(&Ok(killed));
        }
        if deleted {
            self.compaction.notify_one();
        }
        Ok(())
    }

    /// Ends the open extent, if there is one.
    async fn seal(&mut self, with_footer: bool) -> Result<(), StoreError> {
        let Some(open) = &self.open else { return Ok(()) };
        let mut footer_bytes = 0;
        if with_footer {
            let device_offset = open.reference.base + open.position;
            let header =
                FooterHeader { epoch: open.epoch, device_offset, frames_bytes: open.position, root: open.root };
            let bytes = footer::encode(&header, &open.entries);
            match self.disk.write_long(device_offset, &bytes).await {
                Ok(()) => footer_bytes = bytes.len() as u32,
                // It is there to save time only.
                Err(error) => tracing::error!(%error, "an index footer could not be written"),
            }
        }
        self.sync().await?;
        let open = self.open.take().expect("invariant: looked at above");
        let entry = SlotEntry {
            state: SlotState::Sealed,
            epoch: open.epoch,
            extent: open.reference.id,
            frames_bytes: open.position,
            root: open.root,
            footer_bytes,
        };
        self.disk.set_entry(open.slot, entry).await?;
        let mut state = self.state.write();
        if let Some(extent) = state.extents.get_mut(&open.reference.id) {
            extent.state = ExtentState::Sealed;
            extent.frames_bytes = open.position;
            extent.root = open.root;
            extent.footer_bytes = footer_bytes;
        }
        drop(state);
        self.compaction.notify_one();
        Ok(())
    }

    /// Takes a slot into use. The reserve only for those who may.
    async fn open_extent(&mut self, privileged: bool) -> Result<(), StoreError> {
        let bytes = self.disk.layout.extent_bytes;
        let free = self.state.write().free.pop_front();
        let mut slot = None;
        if let Some(free) = free {
            match self.disk.device.allocate(self.disk.layout.slot_offset(free), bytes).await {
                Ok(()) => slot = Some(free),
                Err(error) => {
                    self.state.write().free.push_front(free);
                    if !privileged {
                        return Err(error.into());
                    }
                }
            }
        }
        if slot.is_none() && privileged {
            slot = self.state.write().reserve.take();
        }
        let slot = slot.ok_or(StoreError::NoSpace)?;
        let opened = self.open_slot(slot).await;
        if opened.is_err() {
            self.state.write().free.push_front(slot);
        }
        opened
    }

    async fn open_slot(&mut self, slot: u32) -> Result<(), StoreError> {
        let epoch = random_id()?;
        let id = self.next_extent;
        let entry = SlotEntry { state: SlotState::Open, epoch, extent: id, ..SlotEntry::default() };
        self.disk.set_entry(slot, entry).await?;
        self.next_extent += 1;
        let reference = Arc::new(ExtentRef { id, base: self.disk.layout.slot_offset(slot) });
        let extent = Extent::new(slot, epoch, ExtentState::Open, reference);
        self.open = Some(OpenExtent::resume(&extent, Vec::new()));
        self.state.write().extents.insert(id, extent);
        Ok(())
    }

    /// Keeps one slot back, with its room on the filesystem beneath secured.
    pub(crate) async fn fill_reserve(&mut self) {
        let slot = {
            let mut state = self.state.write();
            if state.reserve.is_some() { None } else { state.free.pop_front() }
        };
        let Some(slot) = slot else { return };
        let offset = self.disk.layout.slot_offset(slot);
        let allocated = self.disk.device.allocate(offset, self.disk.layout.extent_bytes).await;
        let mut state = self.state.write();
        match allocated {
            // The compactor may have filled it meanwhile.
            Ok(()) if state.reserve.is_none() => state.reserve = Some(slot),
            _ => state.free.push_front(slot),
        }
    }

    /// Writes down how far the open extent is durable, so that the next start can tell rot from a torn tail.
    async fn note_synced(&mut self) {
        let Some(open) = &self.open else { return };
        let entry = SlotEntry {
            state: SlotState::Open,
            epoch: open.epoch,
            extent: open.reference.id,
            frames_bytes: open.synced,
            root: open.root,
            footer_bytes: 0,
        };
        if let Err(error) = self.disk.set_entry(open.slot, entry).await {
            tracing::warn!(%error, "the end of the log could not be written down");
        }
    }
}

/// A frame's bytes: the front (head and packed payloads) in a buffer of our own, long payloads where they are if they
/// are aligned, and their ragged ends copied.
async fn build(
    disk: &Disk,
    header: &FrameHeader,
    pending: &[Pending],
    layout: &Layout,
) -> Result<(Vec<Buf>, u64, Vec<Record>), StoreError> {
    let records: Vec<Record> = pending
        .iter()
        .zip(&layout.offsets)
        .map(|(one, offset)| Record { payload_offset: *offset, ..one.record.clone() })
        .collect();
    let mut front = disk.pool.acquire(layout.front_bytes, BUFFER_WAIT).await?;
    front.fill(0);
    let root = frame::encode_head(header, records.iter(), &mut front[..layout.head_bytes]);
    let mut long = Vec::new();
    for (one, record) in pending.iter().zip(&records) {
        let Some(payload) = &one.payload else { continue };
        if frame::is_packed(payload.len()) {
            let at = record.payload_offset as usize;
            front[at..at + payload.len()].copy_from_slice(payload);
        } else {
            let aligned = (payload.as_ptr() as usize).is_multiple_of(BLOCK_BYTES);
            let whole = if aligned { payload.len() / BLOCK_BYTES * BLOCK_BYTES } else { 0 };
            if whole > 0 {
                long.push(payload.slice(0..whole));
            }
            if whole < payload.len() {
                let rest = &payload[whole..];
                let mut copy = disk.pool.acquire(rest.len().next_multiple_of(BLOCK_BYTES), BUFFER_WAIT).await?;
                copy[..rest.len()].copy_from_slice(rest);
                copy[rest.len()..].fill(0);
                long.push(copy.freeze());
            }
        }
    }
    let mut pieces = vec![front.freeze()];
    pieces.extend(long);
    debug_assert_eq!(pieces.iter().map(Buf::len).sum::<usize>(), layout.frame_bytes);
    debug_assert_eq!(header.device_offset % BLOCK, 0);
    Ok((pieces, root, records))
}
