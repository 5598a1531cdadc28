//! A body on its way to the nodes: cut into chunks, hashed, erasure-coded and stored as it comes.
//!
//! Three things overlap, each bounded: the next chunk fills from the client; the chunks before it are hashed, in order
//! ([`crate::hashing`]); and their stripes are encoded and stored. A full chunk is sealed once, and hashed and stored at
//! the same time from the same memory. At most [`limits::PUT_CHUNKS_IN_FLIGHT`] chunks are stored, and two hashed, at a
//! time beside the one that fills, so a body takes that many buffers and one, however long it is.
//!
//! A body that is to be encrypted is hashed piece by piece as it comes, and encrypted in the chunk ([`Sealing`]).
//!
//! Nothing becomes visible here. What comes out is a [`DataRow`] for a metadata transaction, under a guard that turns
//! it into garbage unless that commits.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use penstock_digest::{ChecksumAlgorithm, ChecksumValue, crc64nvme_combine};
use penstock_executor::{SealedChunk, StripeTarget, StripeWritten};
use penstock_meta::tables::{DataRow, MANIFEST_STRIPES_MAX, ManifestPlace, ManifestRow, StripeRow};
use penstock_proto::limits;
use penstock_proto::{Capability, Code, Rights};
use penstock_proto::{DataId, NodeId};
use tokio_util::task::AbortOnDropHandle;

use crate::api::{BodyDigests, ByteStream};
use crate::body::BodyReader;
use crate::checksums;
use crate::encryption::seal::{self, Sealing};
use crate::encryption::{self, ObjectKey};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;
use crate::hashing::BodyHashes;
use crate::pack::SmallBody;
use crate::pending::{PendingData, is_one_group};

/// Longest manifest that stands in the row that names the data. Short: a part list copies up to 10,000 of them, and a
/// read of the object holds those that it needs.
const MANIFEST_INLINE_BYTES_MAX: usize = 1 << 10;

/// A body that is on its nodes.
pub(crate) struct StoredBody {
    pub(crate) size_bytes: u64,
    /// Its MD5, or what stands for it in ETags of what is encrypted.
    pub(crate) etag_md5: [u8; 16],
    /// What the request asked for, or the fallback.
    pub(crate) checksum: ChecksumValue,
    /// None for an empty body, and for one that is packed.
    pub(crate) data: Option<(DataRow, PendingData)>,
    /// A body that is on no node yet: it is packed with others when it is committed.
    pub(crate) small: Option<SmallBody>,
}

/// Stores a body and verifies its length and digests.
///
/// `fallback` is the checksum's algorithm when the request names none; `code` is the data's. With `key`, what is stored is
/// encrypted; the lengths and digests are those of the body all the same.
///
/// # Errors
/// Whatever is wrong with the body, its digests or the nodes. What was stored is garbage then.
pub(crate) async fn store_body(
    inner: &Arc<Inner>,
    body: ByteStream,
    content_bytes: Option<u64>,
    digests: &BodyDigests,
    fallback: ChecksumAlgorithm,
    code: Code,
    key: Option<&ObjectKey>,
) -> Result<StoredBody> {
    let _counted = inner.count_put();
    let algorithm = checksums::asked(digests, fallback)?;
    let mut reader = BodyReader::new(body, content_bytes, limits::PUT_BYTES_MAX, inner.options.body_idle_timeout)?;
    let mut hashes = BodyHashes::new(&inner.hashes, algorithm, digests.payload_sha256.is_some());
    let stored = if reader.has_more().await? {
        let mut writer = Writer::new(inner, code, content_bytes, key).await?;
        writer.write_all(&mut reader, &mut hashes).await?;
        Some(writer.finish().await?)
    } else {
        None
    };
    let sums = hashes.finish(stored.as_ref().map_or(0, |(data, _)| data.crc64)).await?;
    checksums::verify(digests, &sums)?;
    let etag_md5 = encryption::etag_md5(key, sums.md5);
    let size_bytes = reader.taken_bytes();
    Ok(StoredBody { size_bytes, etag_md5, checksum: sums.checksum, data: stored, small: None })
}

struct Writer<'a> {
    inner: &'a Arc<Inner>,
    code: Code,
    pending: PendingData,
    signed: Signed,
    /// Encrypts, where that is asked for.
    sealing: Option<Sealing>,
    /// Nodes of each run of [`MANIFEST_STRIPES_MAX`] stripes.
    groups: Vec<Arc<[NodeId]>>,
    /// By stripe.
    written: Vec<Option<StripeDone>>,
    in_flight: FuturesUnordered<AbortOnDropHandle<Result<(usize, StripeDone)>>>,
}

struct StripeDone {
    row: StripeRow,
    crc64: u64,
}

impl<'a> Writer<'a> {
    async fn new(
        inner: &'a Arc<Inner>,
        code: Code,
        content_bytes: Option<u64>,
        key: Option<&ObjectKey>,
    ) -> Result<Self> {
        let stored_bytes = match key {
            Some(_) => content_bytes.map(seal::stored_bytes),
            None => content_bytes,
        };
        let pending = inner.pending.begin(&inner.registry(code), is_one_group(stored_bytes)).await?;
        let signed = Signed::new(inner, Rights::PUT, pending.data());
        let sealing = key.map(|key| Sealing::new(key, pending.data())).transpose()?;
        let (groups, written, in_flight) = (Vec::new(), Vec::new(), FuturesUnordered::new());
        Ok(Self { inner, code, pending, signed, sealing, groups, written, in_flight })
    }

    /// Stores what the reader, which has a byte at least, gives until its end.
    async fn write_all(&mut self, reader: &mut BodyReader, hashes: &mut BodyHashes) -> Result<()> {
        let code = self.code;
        let mut more = true;
        while more {
            let left = reader.left_bytes();
            let room = match &self.sealing {
                Some(sealing) => sealing.chunk_bytes(left),
                None => left.map_or(limits::CHUNK_BYTES, |left| left.min(limits::CHUNK_BYTES as u64) as usize),
            };
            let mut chunk = self.inner.executor.chunk_buffer(code, room).await?;
            while more && chunk.remaining() > 0 {
                let piece = reader.take(self.sealing.as_ref().map_or(chunk.remaining(), Sealing::room));
                self.inner.traffic.payload_in(piece.len());
                match &mut self.sealing {
                    None => {
                        chunk.extend_from_slice(&piece);
                        more = reader.has_more().await?;
                    }
                    // What is hashed is what came; what is in the chunk will be ciphertext.
                    Some(sealing) => {
                        sealing.push(&mut chunk, &piece);
                        hashes.update(piece).await?;
                        more = reader.has_more().await?;
                        sealing.seal_if_full(&mut chunk, !more);
                    }
                }
                self.pending.renew_if_due(&self.inner.tables, &*self.inner.clock).await?;
            }
            while self.in_flight.len() >= limits::PUT_CHUNKS_IN_FLIGHT {
                self.collect_one().await?;
            }
            let index = self.written.len();
            self.written.push(None);
            let target = self.target(index)?;
            let chunk = chunk.seal();
            let unhashed = self.sealing.is_none().then(|| chunk.bytes());
            let hash = async {
                match unhashed {
                    Some(bytes) => hashes.update(bytes).await,
                    None => Ok(()),
                }
            };
            if index == 0 && !more {
                // The whole body is one chunk: no tasks, no queues.
                let (done, ()) = tokio::try_join!(store(self.inner, &target, chunk), hash)?;
                self.written[0] = Some(done);
            } else {
                self.launch(index, target, chunk);
                hash.await?;
            }
        }
        while !self.in_flight.is_empty() {
            self.collect_one().await?;
        }
        Ok(())
    }

    fn target(&mut self, index: usize) -> Result<StripeTarget> {
        let code = self.code;
        let group = index / MANIFEST_STRIPES_MAX;
        let stripe = stripe_number(index)?;
        if group == self.groups.len() {
            let nodes = self.pending.nodes(stripe_number(group)?);
            self.groups.push(nodes.into());
        }
        Ok(StripeTarget {
            data: self.pending.data(),
            stripe,
            code,
            nodes: self.groups[group].to_vec(),
            capability: self.signed.get(self.inner),
        })
    }

    fn launch(&mut self, index: usize, target: StripeTarget, chunk: SealedChunk) {
        let inner = Arc::clone(self.inner);
        self.in_flight.push(AbortOnDropHandle::new(tokio::spawn(async move {
            Ok((index, store(&inner, &target, chunk).await?))
        })));
    }

    async fn collect_one(&mut self) -> Result<()> {
        if let Some(joined) = self.in_flight.next().await {
            let (index, done) =
                joined.map_err(|error| internal(format!("the task that stored a stripe stopped: {error}")))??;
            self.written[index] = Some(done);
        }
        Ok(())
    }

    async fn finish(self) -> Result<(DataRow, PendingData)> {
        let Self { inner, code, pending, groups, written, sealing, .. } = self;
        let (mut crc64, mut size_bytes) = (0, 0);
        let mut stripes = Vec::with_capacity(written.len());
        for done in written {
            let StripeDone { row, crc64: stripe_crc64 } =
                done.ok_or_else(|| internal("a stripe of the body was never stored"))?;
            crc64 = crc64nvme_combine(crc64, stripe_crc64, u64::from(row.chunk_bytes));
            size_bytes += u64::from(row.chunk_bytes);
            stripes.push(row);
        }
        if let Some(sealing) = sealing {
            crc64 = sealing.finish()?;
        }
        let manifest = keep_manifest(inner, pending.data(), code, &groups, stripes).await?;
        let data = DataRow {
            data: pending.data(),
            size_bytes,
            chunk_bytes: limits::CHUNK_BYTES as u32,
            code,
            epoch: pending.epoch(),
            crc64,
            manifest,
        };
        Ok((data, pending))
    }
}

/// Small manifests go into the row that names the data, larger ones into rows of their own, before anything names them.
pub(crate) async fn keep_manifest(
    inner: &Arc<Inner>,
    data: DataId,
    code: Code,
    groups: &[Arc<[NodeId]>],
    stripes: Vec<StripeRow>,
) -> Result<ManifestPlace> {
    let mut rows = Vec::with_capacity(groups.len());
    let mut stripes = stripes.into_iter();
    for (group, nodes) in groups.iter().enumerate() {
        rows.push(ManifestRow {
            first_stripe: stripe_number(group * MANIFEST_STRIPES_MAX)?,
            nodes: nodes.to_vec(),
            stripes: stripes.by_ref().take(MANIFEST_STRIPES_MAX).collect(),
        });
    }
    if rows.len() == 1 && rows[0].encoded_bytes() <= MANIFEST_INLINE_BYTES_MAX {
        return Ok(ManifestPlace::Inline(rows.swap_remove(0)));
    }
    let count = stripe_number(rows.len())?;
    inner.tables.put_manifests(data, code, &rows).await?;
    Ok(ManifestPlace::Rows { count })
}

async fn store(inner: &Inner, target: &StripeTarget, chunk: SealedChunk) -> Result<StripeDone> {
    let chunk_bytes = chunk.len() as u32;
    let StripeWritten { shard_crc64s, missing, chunk_crc64, .. } = inner.executor.write_stripe(target, chunk).await?;
    Ok(StripeDone { row: StripeRow { chunk_bytes, missing, shard_crc64s }, crc64: chunk_crc64 })
}

/// A capability that is renewed while it is used.
pub(crate) struct Signed {
    rights: Rights,
    data: DataId,
    capability: Capability,
    signed_unix_ms: u64,
}

impl Signed {
    pub(crate) fn new(inner: &Inner, rights: Rights, data: DataId) -> Self {
        let now = inner.clock.now_unix_ms();
        Self { rights, data, capability: sign(inner, rights, data, now), signed_unix_ms: now }
    }

    /// One that is good for half its lifetime at least, which is longer than any stripe takes.
    pub(crate) fn get(&mut self, inner: &Inner) -> Capability {
        let now = inner.clock.now_unix_ms();
        if now.abs_diff(self.signed_unix_ms) > limits::CAPABILITY_LIFETIME.as_millis() as u64 / 2 {
            *self = Self::new(inner, self.rights, self.data);
        }
        self.capability
    }
}

fn sign(inner: &Inner, rights: Rights, data: DataId, now_unix_ms: u64) -> Capability {
    let expires_unix_ms = now_unix_ms + limits::CAPABILITY_LIFETIME.as_millis() as u64;
    Capability::sign(&inner.options.cluster_key, rights, data, expires_unix_ms)
}

fn stripe_number(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_too_many| internal("a body has more stripes than can be numbered"))
}

fn internal(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InternalError, message)
}
