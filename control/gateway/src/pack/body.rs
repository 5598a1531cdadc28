//! A small body on its way in: all of it in memory, counted against what there may be.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use penstock_digest::{ChecksumAlgorithm, crc64nvme};
use penstock_proto::{Code, limits};
use tokio::sync::OwnedSemaphorePermit;

use super::Packer;
use crate::api::{BodyDigests, ByteStream};
use crate::body::BodyReader;
use crate::checksums;
use crate::encryption::ObjectKey;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Counted, Inner};
use crate::hashing::BodyHashes;
use crate::write::{StoredBody, store_body};

/// A body, whole and verified, that is on no node yet.
pub(crate) struct SmallBody {
    pub(crate) bytes: Bytes,
    pub(crate) crc64: u64,
    _room: OwnedSemaphorePermit,
    /// Of the bodies being stored; none for a body that is moved.
    _counted: Option<Counted>,
}

impl SmallBody {
    /// Bytes that were read from an extent, under the checksum that they have.
    pub(crate) fn moved(bytes: Bytes, crc64: u64, room: OwnedSemaphorePermit) -> Self {
        Self { bytes, crc64, _room: room, _counted: None }
    }
}

impl Packer {
    /// Room for a body.
    ///
    /// # Errors
    /// SlowDown when none comes free in time.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        match tokio::time::timeout(limits::BUFFER_WAIT, self.room.clone().acquire_many_owned(kib)).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Error::new(
                ErrorKind::SlowDown,
                "The memory for small objects is taken by others; try again in a moment.",
            )),
        }
    }
}

/// As [`store_body`]; a small body that is not to be encrypted is taken into memory alone, to be packed.
///
/// # Errors
/// As [`store_body`]; SlowDown.
pub(crate) async fn store_object(
    inner: &Arc<Inner>,
    body: ByteStream,
    content_bytes: Option<u64>,
    digests: &BodyDigests,
    fallback: ChecksumAlgorithm,
    code: Code,
    key: Option<&ObjectKey>,
) -> Result<StoredBody> {
    match content_bytes.filter(|bytes| key.is_none() && inner.packer.takes(*bytes, code)) {
        Some(bytes) => take_body(inner, body, bytes as usize, digests, fallback).await,
        None => store_body(inner, body, content_bytes, digests, fallback, code, key).await,
    }
}

/// Takes a body of `content_bytes` bytes, at least one, and verifies its length and digests.
///
/// # Errors
/// Whatever is wrong with the body or its digests; SlowDown.
async fn take_body(
    inner: &Arc<Inner>,
    body: ByteStream,
    content_bytes: usize,
    digests: &BodyDigests,
    fallback: ChecksumAlgorithm,
) -> Result<StoredBody> {
    let counted = inner.count_put();
    let algorithm = checksums::asked(digests, fallback)?;
    let room = inner.packer.room(content_bytes).await?;
    let idle = inner.options.body_idle_timeout;
    let mut reader = BodyReader::new(body, Some(content_bytes as u64), limits::PUT_BYTES_MAX, idle)?;
    let mut hashes = BodyHashes::new(&inner.hashes, algorithm, digests.payload_sha256.is_some());
    let bytes = read_all(inner, &mut reader, content_bytes).await?;
    hashes.update(bytes.clone()).await?;
    let crc64 = crc64nvme(&bytes);
    let sums = hashes.finish(crc64).await?;
    checksums::verify(digests, &sums)?;
    Ok(StoredBody {
        size_bytes: bytes.len() as u64,
        etag_md5: sums.md5,
        checksum: sums.checksum,
        data: None,
        small: Some(SmallBody { bytes, crc64, _room: room, _counted: Some(counted) }),
    })
}

/// All of a body; without a copy if it comes in one piece.
async fn read_all(inner: &Inner, reader: &mut BodyReader, content_bytes: usize) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while reader.has_more().await? {
        let piece = reader.take(content_bytes);
        inner.traffic.payload_in(piece.len());
        if first.is_empty() && joined.is_empty() {
            first = piece;
            continue;
        }
        if joined.is_empty() {
            joined.reserve(content_bytes);
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&piece);
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}
