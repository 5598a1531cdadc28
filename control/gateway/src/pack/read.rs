//! Reading a packed object: of one copy of its batch, or of the fragment of its encoded extent.
//!
//! An object that is read whole is checked against its own checksum, from its own row; so is one of up to
//! [`CHECKED_BYTES_MAX`] of which a part is read, since all of it is read then. Parts of longer objects have the checks that the
//! executor makes of every read (the node checks what it reads, the executor what came). Bytes that fail are read again from
//! whole shards, each checked against the metadata, from another copy or computed; the stripe is queued for repair.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use penstock_digest::crc64nvme;
use penstock_executor::{StripeStored, StripeTarget};
use penstock_meta::tables::{ExtentPlace, ExtentRow, ManifestRow, PackedRow};
use penstock_proto::Rights;

use super::internal;
use super::stats::Counts;
use crate::error::Result;
use crate::gateway::Inner;
use crate::leases::Lease;
use crate::read::{Cursor, StripeRead};
use crate::write::Signed;

/// Objects up to this long are read whole, whatever is asked of them, so that they can be checked.
const CHECKED_BYTES_MAX: u64 = 64 << 10;

/// How often the place of an object's bytes is looked up: once more than it changes in an extent's life.
const PLACES_TRIED_MAX: u32 = 3;

/// A read of a packed object, under lease.
pub(crate) struct PackedRead {
    packed: PackedRow,
    /// Of the object.
    wanted: Range<u64>,
    place: ExtentPlace,
    lease: Arc<Lease>,
}

impl PackedRead {
    /// A read of `wanted` of the object at `packed`; none if its extent is gone: look the object up again.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub(crate) async fn open(
        inner: &Inner,
        lease: &Arc<Lease>,
        packed: &PackedRow,
        wanted: Range<u64>,
    ) -> Result<Option<Self>> {
        // What was under lease before the metadata named it can't be collected while it is read, whatever the grace.
        let mut leased = packed.extent;
        if !lease.add(leased) {
            return Ok(None);
        }
        for _ in 0..PLACES_TRIED_MAX {
            let Some(place) = inner.tables.extent_place(packed).await? else { return Ok(None) };
            let data = match &place {
                ExtentPlace::Batch { .. } => packed.extent,
                ExtentPlace::Encoded(data) => data.data,
            };
            if data == leased {
                return Ok(Some(Self { packed: *packed, wanted, place, lease: Arc::clone(lease) }));
            }
            if !lease.add(data) {
                return Ok(None);
            }
            leased = data;
        }
        Ok(None)
    }

    /// The bytes, in order.
    ///
    /// # Errors
    /// When too few shards can be read, or the bytes are not the object's.
    pub(crate) async fn read(&self, inner: &Arc<Inner>) -> Result<Vec<Bytes>> {
        let counts = &inner.packer.counts;
        Counts::one(&counts.reads);
        let size = u64::from(self.packed.size_bytes);
        let checked = size <= CHECKED_BYTES_MAX || self.wanted == (0..size);
        if !checked {
            return self.fetch(inner, self.wanted.clone(), false).await;
        }
        let mut pieces = self.fetch(inner, 0..size, false).await?;
        if !self.is_it(&pieces) {
            Counts::one(&counts.reads_mismatched);
            tracing::warn!(extent = %self.packed.extent, offset = self.packed.offset, "an object's bytes have not its checksum; reading other shards");
            pieces = self.fetch(inner, 0..size, true).await?;
            if !self.is_it(&pieces) {
                let PackedRow { extent, offset, .. } = self.packed;
                return Err(internal(format!(
                    "The object at byte {offset} of extent {extent} can't be read: no copy has its checksum."
                )));
            }
            self.ask_for_repair(inner).await;
        }
        Ok(cut(pieces, &self.wanted))
    }

    fn is_it(&self, pieces: &[Bytes]) -> bool {
        match pieces {
            [one] => crc64nvme(one) == self.packed.crc64,
            many => crc64nvme(&joined(many)) == self.packed.crc64,
        }
    }

    /// Bytes `range` of the object; with whole shards read, hence checked against the metadata, if `thorough`.
    async fn fetch(&self, inner: &Arc<Inner>, range: Range<u64>, thorough: bool) -> Result<Vec<Bytes>> {
        let (start, end) = (self.packed.offset + range.start, self.packed.offset + range.end);
        match &self.place {
            ExtentPlace::Batch { extent, offset, batch } => {
                let within = (start - offset) as u32..(end - offset) as u32;
                fetch_stripe(inner, batch_read(inner, self.packed.extent, extent, batch, within)?, thorough).await
            }
            ExtentPlace::Encoded(data) => {
                let mut cursor = Cursor::of_run(inner, &self.lease, data.clone(), start..end);
                let mut pieces = Vec::new();
                while let Some(stripe) = cursor.next_stripe().await? {
                    pieces.extend(fetch_stripe(inner, stripe, thorough).await?);
                }
                Ok(pieces)
            }
        }
    }

    /// The copy that is read first is wrong. If this can't be noted now, the next reader will.
    async fn ask_for_repair(&self, inner: &Inner) {
        let ExtentPlace::Batch { offset, .. } = &self.place else { return };
        if let Err(error) = inner.tables.batch_is_missing(self.packed.extent, *offset, 1).await {
            tracing::warn!(%error, extent = %self.packed.extent, "a corrupt copy can't be queued for repair");
        }
    }
}

/// A read of a part of a batch.
///
/// # Errors
/// InternalError for a batch without a stripe, which is not written.
pub(super) fn batch_read(
    inner: &Inner,
    id: penstock_proto::DataId,
    extent: &ExtentRow,
    batch: &ManifestRow,
    range: Range<u32>,
) -> Result<StripeRead> {
    let stripe = batch.stripes.first().ok_or_else(|| internal("a batch has no stripe"))?;
    let (missing, chunk_bytes) = (stripe.missing, stripe.chunk_bytes);
    let stored = StripeStored { shard_crc64s: stripe.shard_crc64s.clone(), missing, chunk_bytes };
    let target = StripeTarget {
        data: id,
        stripe: batch.first_stripe,
        code: extent.copies,
        nodes: batch.nodes.clone(),
        capability: Signed::new(inner, Rights::GET, id).get(inner),
    };
    Ok(StripeRead::plain(target, stored, range))
}

/// What a stripe's read gives; cut out of the whole stripe if `thorough`.
pub(super) async fn fetch_stripe(inner: &Inner, stripe: StripeRead, thorough: bool) -> Result<Vec<Bytes>> {
    let range = if thorough { 0..stripe.stored.chunk_bytes } else { stripe.range.clone() };
    let bufs = inner.executor.read_stripe(&stripe.target, &stripe.stored, range).await?;
    let pieces = bufs.into_iter().map(penstock_buf::Buf::into_bytes).collect();
    let wanted = u64::from(stripe.range.start)..u64::from(stripe.range.end);
    Ok(if thorough { cut(pieces, &wanted) } else { pieces })
}

/// Bytes `wanted` of what the pieces are together.
fn cut(pieces: Vec<Bytes>, wanted: &Range<u64>) -> Vec<Bytes> {
    let mut at = 0;
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let end = at + piece.len() as u64;
        let (from, to) = (wanted.start.clamp(at, end), wanted.end.clamp(at, end));
        if from < to {
            out.push(piece.slice((from - at) as usize..(to - at) as usize));
        }
        at = end;
    }
    out
}

/// All pieces in one.
pub(super) fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| all.extend_from_slice(piece));
            all.freeze()
        }
    }
}
