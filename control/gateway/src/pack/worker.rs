//! What becomes of extents: sealed, encoded, emptied, dropped. Each step is one transaction of the metadata, which
//! decides whether it (still) makes sense; a gateway that dies between two leaves nothing but what the next one does anyway:
//!
//! | died | what is left | who cleans up |
//! |---|---|---|
//! | while batches are written | an open extent | whoever finds its time run out seals it |
//! | while it is written anew | a pending data id | its lease runs out, it is garbage |
//! | after the swap | garbage (the copies), in the same transaction | the collector, after the grace |
//! | while an extent is emptied | objects in both places' extents, each in one | the next pass goes on |
//!
//! Two gateways may work on the same extent: one swap wins, the other's data is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use penstock_meta::tables::{DataRow, ExtentRow, ExtentState, ManifestRow, PackedDone, PackedOwnerRow};
use penstock_proto::{Code, DataId};

use super::body::SmallBody;
use super::read::{batch_read, fetch_stripe, joined};
use super::stats::Counts;
use super::{PackFailure, PackedRead, Work, internal};
use crate::api::{BodyDigests, ByteStream};
use crate::checksums;
use crate::error::{Error, Result};
use crate::gateway::Inner;
use crate::read::Cursor;
use crate::write::store_body;

/// Extents fetched at a time.
const EXTENTS_PAGE: usize = 64;
/// Rows of batches or objects fetched at a time.
const ROWS_PAGE: usize = 256;
/// Objects moved at a time.
const MOVES_IN_FLIGHT: usize = 16;
/// Zeros for what of an extent is in no batch.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Extents sealed.
    pub sealed: u64,
    /// Extents encoded.
    pub encoded: u64,
    /// Extents whose objects were moved out.
    pub compacted: u64,
    /// Extents dropped.
    pub dropped: u64,
    /// Extents that something could not be done with now.
    pub failed: u64,
}

/// Starts looking after extents.
pub(super) fn start(inner: &Arc<Inner>, interval: Duration) {
    inner.spawn_every(interval, |inner| async move {
        match pass(&inner).await {
            Ok(done) if done != Packed::default() => tracing::debug!(?done, "extents"),
            Ok(_nothing) => {}
            Err(error) => tracing::warn!(%error, "extents can't be looked after now"),
        }
    });
}

/// One pass over all extents.
pub(super) async fn pass(inner: &Arc<Inner>) -> Result<Packed> {
    let _one_at_a_time = inner.packer.pass.lock().await;
    let options = inner.packer.options.clone().unwrap_or_default();
    inner.packer.lanes.retire_done(inner, &options);
    let mut packed = Packed { sealed: seal_retired(inner).await?, ..Packed::default() };
    let mut after = None;
    loop {
        let page = inner.tables.extents(after, EXTENTS_PAGE).await?;
        for (id, row) in &page {
            if inner.packer.rests(*id, inner.clock.now_unix_ms()) {
                continue;
            }
            match look_after(inner, *id, row, options.live_percent_min).await {
                Ok(done) => packed.add(&done),
                Err(error) => {
                    tracing::warn!(%error, extent = %id, "an extent is left as it is");
                    packed.failed += 1;
                    inner.packer.rest(*id, inner.clock.now_unix_ms());
                }
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == EXTENTS_PAGE => after = Some(*last),
            _ => return Ok(packed),
        }
    }
}

/// Seals what this gateway is done with.
pub(super) async fn seal_retired(inner: &Arc<Inner>) -> Result<u64> {
    let mut sealed = 0;
    let mut retired = VecDeque::from(inner.packer.lanes.take_retired());
    while let Some(extent) = retired.pop_front() {
        match inner.tables.seal_extent(extent.id, None).await {
            Ok(was_open) => sealed += u64::from(was_open),
            Err(error) => {
                inner.packer.lanes.put_back(extent);
                retired.into_iter().for_each(|extent| inner.packer.lanes.put_back(extent));
                return Err(error.into());
            }
        }
    }
    Counts::add(&inner.packer.counts.extents_sealed, sealed);
    Ok(sealed)
}

/// What is to be done with an extent now.
async fn look_after(inner: &Arc<Inner>, id: DataId, row: &ExtentRow, live_percent_min: u64) -> Result<Packed> {
    let counts = &inner.packer.counts;
    let mut packed = Packed::default();
    let mut row = row.clone();
    if matches!(row.state, ExtentState::Open { .. }) {
        if !inner.tables.seal_extent(id, Some(inner.clock.now_unix_ms())).await? {
            return Ok(packed);
        }
        Counts::one(&counts.extents_sealed);
        packed.sealed = 1;
        match inner.tables.extent(id).await? {
            Some(sealed) => row = sealed,
            None => return Ok(packed),
        }
    }
    let length_bytes = match &row.state {
        ExtentState::Open { .. } => return Ok(packed),
        ExtentState::Sealed { length_bytes } => *length_bytes,
        ExtentState::Encoded(data) => data.size_bytes,
    };
    let live_bytes = inner.tables.extent_live_bytes(id).await?;
    // In 128 bits: lengths are any.
    if u128::from(live_bytes) * 100 < u128::from(length_bytes) * u128::from(live_percent_min) || live_bytes == 0 {
        if live_bytes > 0 {
            empty(inner, id, row.target).await?;
            packed.compacted = 1;
            Counts::one(&counts.extents_compacted);
        }
        if inner.tables.drop_extent(id, inner.garbage_not_before()).await? {
            packed.dropped = 1;
            Counts::one(&counts.extents_dropped);
        }
    } else if matches!(row.state, ExtentState::Sealed { .. }) && row.target.k() > 1 {
        match encode(inner, id, &row, length_bytes).await {
            Ok(encoded) => packed.encoded = u64::from(encoded),
            Err(error) => {
                Counts::one(&counts.encodings_failed);
                return Err(error);
            }
        }
    }
    Ok(packed)
}

/// Writes a sealed extent anew in its code, reads that back, and puts it in the place of the copies. False if somebody else
/// was faster.
async fn encode(inner: &Arc<Inner>, id: DataId, row: &ExtentRow, length_bytes: u64) -> Result<bool> {
    let lease = inner.leases.empty();
    if !lease.add(id) {
        return Ok(false);
    }
    let bytes = bytes_of(inner, id, row, length_bytes);
    let digests = BodyDigests::default();
    let stored = store_body(inner, bytes, Some(length_bytes), &digests, checksums::DEFAULT, row.target, None).await?;
    let (data, mut pending) = stored.data.ok_or_else(|| internal("an extent was written anew as nothing"))?;
    verify(inner, &data).await?;
    pending.renew_if_due(&inner.tables, &*inner.clock).await?;
    if !inner.tables.encode_extent(id, &data, inner.garbage_not_before()).await? {
        return Ok(false);
    }
    pending.committed();
    Counts::one(&inner.packer.counts.extents_encoded);
    Counts::add(&inner.packer.counts.encoded_bytes, length_bytes);
    Ok(true)
}

/// What is left to give of an extent.
struct Source {
    inner: Arc<Inner>,
    id: DataId,
    row: ExtentRow,
    batches: VecDeque<(u64, ManifestRow)>,
    at: u64,
    end: u64,
}

/// The bytes of an extent from its copies, checked against the metadata; zeros where there is no batch.
fn bytes_of(inner: &Arc<Inner>, id: DataId, row: &ExtentRow, length_bytes: u64) -> ByteStream {
    let source =
        Source { inner: Arc::clone(inner), id, row: row.clone(), batches: VecDeque::new(), at: 0, end: length_bytes };
    let pieces = stream::try_unfold(source, |mut source| async move {
        Ok::<_, Error>(source.next().await?.map(|pieces| (stream::iter(pieces.into_iter().map(Ok)), source)))
    });
    Box::pin(pieces.try_flatten())
}

impl Source {
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.batches.is_empty() {
            self.batches = self.inner.tables.extent_batches(self.id, self.at, ROWS_PAGE).await?.into();
        }
        let Some((offset, _)) = self.batches.front() else {
            return Err(internal("an extent is shorter than it was when it was sealed"));
        };
        if *offset > self.at {
            let zeros = (offset - self.at).min(ZEROS.len() as u64);
            self.at += zeros;
            return Ok(Some(vec![Bytes::from_static(&ZEROS[..zeros as usize])]));
        }
        let Some((offset, batch)) = self.batches.pop_front().filter(|(offset, _)| *offset == self.at) else {
            return Err(internal("two batches of an extent overlap"));
        };
        let chunk_bytes = batch.bytes();
        let read = batch_read(&self.inner, self.id, &self.row, &batch, 0..chunk_bytes as u32)?;
        let pieces = fetch_stripe(&self.inner, read, false).await?;
        self.at = offset + chunk_bytes;
        Ok(Some(pieces))
    }
}

/// Reads all of a run twice: from its data shards as they are, and with as many of them computed from parity as can be lost.
/// The executor holds every shard that it reads or computes against the run's manifest.
async fn verify(inner: &Arc<Inner>, data: &DataRow) -> Result<()> {
    let lost = (1_u64 << data.code.losses_survived().min(data.code.k())) - 1;
    for missing in [0, lost] {
        let lease = Arc::new(inner.leases.empty());
        let mut cursor = Cursor::of_run(inner, &lease, data.clone(), 0..data.size_bytes);
        while let Some(mut stripe) = cursor.next_stripe().await? {
            stripe.stored.missing |= missing;
            fetch_stripe(inner, stripe, true).await?;
        }
    }
    Ok(())
}

/// Moves what is alive in an extent to an open one.
///
/// # Errors
/// When some of it could not be moved.
async fn empty(inner: &Arc<Inner>, id: DataId, target: Code) -> Result<()> {
    let (mut from, mut left) = (0, 0);
    loop {
        let page = inner.tables.packed_in(id, from, ROWS_PAGE).await?;
        let more = page.len() == ROWS_PAGE;
        from = page.last().map_or(from, |(offset, _)| offset + 1);
        let moves = page.into_iter().map(|(_, owner)| relocate(inner, id, target, owner));
        let moves: Vec<_> = moves.collect();
        let moves = stream::iter(moves).buffer_unordered(MOVES_IN_FLIGHT);
        left += moves.fold(0, |left, moved| async move { left + u64::from(!moved) }).await;
        if !more {
            break;
        }
    }
    match left {
        0 => Ok(()),
        left => Err(internal(format!("{left} objects could not be moved out of it"))),
    }
}

/// Moves one object, and counts it. Whether it is out of there.
async fn relocate(inner: &Arc<Inner>, id: DataId, target: Code, owner: PackedOwnerRow) -> bool {
    let counts = &inner.packer.counts;
    match try_relocate(inner, id, target, owner).await {
        Ok(true) => Counts::one(&counts.objects_moved),
        Ok(false) => Counts::one(&counts.moves_lost),
        Err(error) => {
            Counts::one(&counts.moves_failed);
            tracing::warn!(%error, extent = %id, "an object is left in an extent that is mostly dead");
            return false;
        }
    }
    true
}

/// Moves one object. False if it was not there any more.
async fn try_relocate(inner: &Arc<Inner>, id: DataId, target: Code, owner: PackedOwnerRow) -> Result<bool> {
    let found = inner.tables.packed_row(&owner).await?;
    let Some(from) = found.filter(|packed| packed.extent == id) else { return Ok(false) };
    let room = inner.packer.room(from.size_bytes as usize).await?;
    let lease = Arc::new(inner.leases.empty());
    let Some(read) = PackedRead::open(inner, &lease, &from, 0..u64::from(from.size_bytes)).await? else {
        return Ok(false);
    };
    let bytes = joined(&read.read(inner).await?);
    let body = SmallBody::moved(bytes, from.crc64, room);
    match inner.packer.submit(target, body, Work::Move { owner, from }).await {
        Ok(PackedDone::Moved(moved)) => Ok(moved),
        Ok(PackedDone::Object(_)) => Err(internal("a move was answered as a new object")),
        Err(PackFailure::Tables(error)) => Err(error.into()),
        Err(PackFailure::Other(error)) => Err(error),
    }
}

impl Packed {
    fn add(&mut self, other: &Self) {
        self.sealed += other.sealed;
        self.encoded += other.encoded;
        self.compacted += other.compacted;
        self.dropped += other.dropped;
        self.failed += other.failed;
    }
}
