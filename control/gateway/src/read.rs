//! An object's bytes on their way out: stripes read a few ahead of the client, in order, only what was asked for.
//!
//! Manifest rows are loaded one by one as the read gets there. Every data id that will be read is under a lease before
//! the first stripe is asked for, so nothing is collected under a reader at this gateway, however long it takes. A stripe that can't be read
//! ends the stream with an error; the connection is cut then, and no client takes what it got for the whole.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use penstock_buf::Buf;
use penstock_executor::{StripeStored, StripeTarget};
use penstock_meta::tables::{DataRow, Layout, MANIFEST_STRIPES_MAX, ManifestPlace, ManifestRow, ObjectRow};
use penstock_proto::DataId;
use penstock_proto::Rights;
use penstock_proto::limits;
use penstock_vault::DataKey;
use tokio_util::task::AbortOnDropHandle;

use crate::api::ByteStream;
use crate::encryption::ObjectKey;
use crate::encryption::open::Opening;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;
use crate::leases::Lease;
use crate::pack::PackedRead;
use crate::ranges::within;
use crate::traffic::Traffic;
use crate::write::Signed;

/// What is left to read of an object.
pub(crate) struct Cursor {
    inner: Arc<Inner>,
    lease: Arc<Lease>,
    /// Bytes that were asked for.
    wanted_bytes: u64,
    /// Opens what is encrypted.
    key: Option<DataKey>,
    /// Runs that are still to be read, and which bytes of each (before they were encrypted).
    runs: VecDeque<(DataRow, Range<u64>)>,
    /// The run being read.
    run: Option<Run>,
    /// For a packed object, all of the read.
    packed: Option<PackedRead>,
}

/// A run of data, read from stripe to stripe.
struct Run {
    data: DataRow,
    /// What to read of it, as it is stored, from its beginning.
    left: Range<u64>,
    opening: Option<Opening>,
    manifest: Option<ManifestRow>,
    signed: Signed,
}

/// One stripe, or what is wanted of it.
pub(crate) struct StripeRead {
    pub(crate) target: StripeTarget,
    pub(crate) stored: StripeStored,
    pub(crate) range: Range<u32>,
    /// Of its run.
    pub(crate) chunk_bytes: u32,
    /// What makes plaintext of it.
    opening: Option<Opening>,
}

impl StripeRead {
    /// A read of what is stored as it came.
    pub(crate) fn plain(target: StripeTarget, stored: StripeStored, range: Range<u32>) -> Self {
        let chunk_bytes = stored.chunk_bytes;
        Self { target, stored, range, chunk_bytes, opening: None }
    }
}

/// The object was replaced or deleted between the look at its row and the lease: look again.
pub(crate) struct Gone;

impl Cursor {
    /// A read of `wanted` of this object, all of it under lease. `key` is that of an encrypted object, whose ciphertext never
    /// leaves here as if it were the object.
    ///
    /// # Errors
    /// When the metadata can't be read. The inner [`Gone`] says to look the object up again.
    pub(crate) async fn open(
        inner: &Arc<Inner>,
        object: &ObjectRow,
        key: Option<&ObjectKey>,
        wanted: Range<u64>,
    ) -> Result<std::result::Result<Self, Gone>> {
        if object.encryption.as_ref() != key.map(|key| &key.row) {
            return Err(Error::new(ErrorKind::InternalError, "An object is read with another object's key."));
        }
        let wanted_bytes = wanted.end - wanted.start;
        let runs = match &object.layout {
            Layout::Parts { list, count } if wanted_bytes > 0 => {
                match runs_of_parts(inner, *list, *count, wanted.clone()).await? {
                    Some(runs) => runs,
                    None => return Ok(Err(Gone)),
                }
            }
            Layout::Single(data) if wanted_bytes > 0 => VecDeque::from([(data.clone(), wanted.clone())]),
            _ => VecDeque::new(),
        };
        let lease = inner.leases.empty();
        if let (Layout::Packed(packed), 1..) = (&object.layout, wanted_bytes) {
            let lease = Arc::new(lease);
            let Some(read) = PackedRead::open(inner, &lease, packed, wanted).await? else { return Ok(Err(Gone)) };
            let (inner, packed) = (Arc::clone(inner), Some(read));
            return Ok(Ok(Self { inner, lease, wanted_bytes, key: None, runs: VecDeque::new(), run: None, packed }));
        }
        if !runs.iter().all(|(data, _)| lease.add(data.data)) {
            return Ok(Err(Gone));
        }
        let (inner, lease, key) = (Arc::clone(inner), Arc::new(lease), key.map(|key| key.key.clone()));
        Ok(Ok(Self { inner, lease, wanted_bytes, key, runs, run: None, packed: None }))
    }

    /// A read of a part of one run, which the caller has under lease.
    pub(crate) fn of_run(inner: &Arc<Inner>, lease: &Arc<Lease>, data: DataRow, wanted: Range<u64>) -> Self {
        let (inner, lease, wanted_bytes) = (Arc::clone(inner), Arc::clone(lease), wanted.end - wanted.start);
        let runs = VecDeque::from([(data, wanted)]);
        Self { inner, lease, wanted_bytes, key: None, runs, run: None, packed: None }
    }

    /// The bytes. The first stripe is read before this returns, so what can't be read at all is an error and no stream.
    ///
    /// # Errors
    /// As reading a stripe.
    pub(crate) async fn into_stream<G: Send + Unpin + 'static>(self, guard: G) -> Result<ByteStream> {
        let only = self.wanted_bytes <= limits::CHUNK_BYTES as u64;
        let lease = Arc::clone(&self.lease);
        let inner = Arc::clone(&self.inner);
        let traffic = Arc::clone(&self.inner.traffic);
        if let Some(packed) = &self.packed {
            let pieces = packed.read(&inner).await?;
            let all = stream::iter(pieces.into_iter().map(Ok));
            return Ok(Box::pin(Guarded { open: Some((Box::pin(all), lease, guard)), traffic }));
        }
        let stripes = stream::try_unfold(self, |mut cursor| async move {
            Ok(cursor.next_stripe().await?.map(|stripe| (stripe, cursor)))
        });
        let reads = stripes.map_ok(move |stripe| {
            let inner = Arc::clone(&inner);
            let read = async move {
                let StripeRead { target, stored, range, chunk_bytes, opening } = stripe;
                let at = u64::from(target.stripe) * u64::from(chunk_bytes) + u64::from(range.start);
                let bufs = inner.executor.read_stripe(&target, &stored, range).await?;
                match opening {
                    None => Ok(bufs),
                    Some(opening) => opening.open(at, bufs),
                }
            };
            async move {
                if only {
                    return read.await;
                }
                // In a task of its own, or nothing would be read while the client is being written to.
                AbortOnDropHandle::new(tokio::spawn(read)).await.map_err(|error| {
                    Error::new(ErrorKind::InternalError, format!("the task that read a stripe stopped: {error}"))
                })?
            }
        });
        let mut pieces = Box::pin(reads.try_buffered(limits::GET_CHUNKS_AHEAD).map_ok(pieces).try_flatten());
        let first = pieces.next().await.transpose()?;
        let all = stream::iter(first.map(Ok)).chain(pieces);
        Ok(Box::pin(Guarded { open: Some((Box::pin(all), lease, guard)), traffic }))
    }

    /// What keeps the data of all runs from the collector.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    pub(crate) async fn next_stripe(&mut self) -> Result<Option<StripeRead>> {
        loop {
            if let Some(run) = &mut self.run {
                if let Some(stripe) = run.next_stripe(&self.inner).await? {
                    return Ok(Some(stripe));
                }
                self.run = None;
            }
            let Some((data, left)) = self.runs.pop_front() else { return Ok(None) };
            let signed = Signed::new(&self.inner, Rights::GET, data.data);
            let (opening, left) = match &self.key {
                None => (None, left),
                Some(key) => {
                    let (opening, stored) = Opening::new(key, &data, left)?;
                    (Some(opening), stored)
                }
            };
            self.run = Some(Run { data, left, opening, manifest: None, signed });
        }
    }
}

/// The runs of a part list that `wanted` touches, in order; `None` when the list is gone.
async fn runs_of_parts(
    inner: &Inner,
    list: DataId,
    rows: u32,
    wanted: Range<u64>,
) -> Result<Option<VecDeque<(DataRow, Range<u64>)>>> {
    let Some((mut row, mut spans)) = inner.tables.part_list_at(list, rows, wanted.start).await? else {
        return Ok(None);
    };
    let mut runs = VecDeque::new();
    loop {
        let mut end = 0;
        for span in spans {
            end = span.offset + span.size_bytes;
            if let (Some(data), Some(left)) = (span.data, within(&wanted, &(span.offset..end))) {
                runs.push_back((data, left));
            }
        }
        row += 1;
        if end >= wanted.end || row >= rows {
            return Ok(Some(runs));
        }
        spans = inner.tables.part_list(list, row).await?;
        if spans.is_empty() {
            return Ok(None);
        }
    }
}

impl Run {
    async fn next_stripe(&mut self, inner: &Inner) -> Result<Option<StripeRead>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let chunk_bytes = u64::from(self.data.chunk_bytes.max(1));
        let stripe = self.left.start / chunk_bytes;
        let group = (stripe / MANIFEST_STRIPES_MAX as u64) as u32;
        let (nodes, row) = self.stripe_row(inner, group, stripe as usize % MANIFEST_STRIPES_MAX).await?;
        let begin = stripe * chunk_bytes;
        let end = begin + u64::from(row.chunk_bytes);
        let range =
            within(&self.left, &(begin..end)).ok_or_else(|| self.broken("a stripe is shorter than it should be"))?;
        self.left.start = begin + range.end;
        Ok(Some(StripeRead {
            target: StripeTarget {
                data: self.data.data,
                stripe: stripe as u32,
                code: self.data.code,
                nodes,
                capability: self.signed.get(inner),
            },
            stored: row,
            range: range.start as u32..range.end as u32,
            chunk_bytes: self.data.chunk_bytes,
            opening: self.opening.clone(),
        }))
    }

    async fn stripe_row(
        &mut self,
        inner: &Inner,
        group: u32,
        within_group: usize,
    ) -> Result<(Vec<penstock_proto::NodeId>, StripeStored)> {
        let first_stripe = group * MANIFEST_STRIPES_MAX as u32;
        let manifest = match &self.data.manifest {
            ManifestPlace::Inline(manifest) => manifest,
            ManifestPlace::Rows { .. } => {
                if self.manifest.as_ref().is_none_or(|manifest| manifest.first_stripe != first_stripe) {
                    let loaded = inner.tables.manifest(self.data.data, group).await?;
                    self.manifest = Some(loaded.ok_or_else(|| self.broken("a manifest row is gone"))?);
                }
                self.manifest.as_ref().ok_or_else(|| self.broken("a manifest row is gone"))?
            }
        };
        let row = manifest
            .stripes
            .get(within_group)
            .filter(|_| manifest.first_stripe == first_stripe)
            .ok_or_else(|| self.broken("a stripe is not in the manifest"))?;
        let stored =
            StripeStored { shard_crc64s: row.shard_crc64s.clone(), missing: row.missing, chunk_bytes: row.chunk_bytes };
        Ok((manifest.nodes.clone(), stored))
    }

    fn broken(&self, what: &str) -> Error {
        Error::new(ErrorKind::InternalError, format!("Data {} can't be read: {what}.", self.data.data))
    }
}

fn pieces(bufs: Vec<Buf>) -> impl Stream<Item = Result<Bytes>> {
    stream::iter(bufs.into_iter().map(|buf| Ok(buf.into_bytes())))
}

/// A stream that holds something as long as it has bytes to give. Nothing comes after an error, not even what was read
/// ahead.
struct Guarded<G> {
    open: Option<(ByteStream, Arc<Lease>, G)>,
    traffic: Arc<Traffic>,
}

impl<G: Unpin> Stream for Guarded<G> {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let Some((stream, _lease, _guard)) = &mut self.open else { return Poll::Ready(None) };
        let polled = stream.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.traffic.payload_out(bytes.len());
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.open = None;
        }
        polled
    }
}
