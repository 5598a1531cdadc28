//! A body on its way in, encrypted: pieces are copied into the chunk as they always are, and each segment is encrypted where it
//! stands once it is full. No byte is copied a second time.

use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue};
use penstock_executor::ChunkBuf;
use penstock_proto::{DataId, limits};
use penstock_vault::{Geometry, SegmentKey};

use super::ObjectKey;
use crate::error::{Error, ErrorKind, Result};

/// Seals one run of data.
pub(crate) struct Sealing {
    key: SegmentKey,
    /// The CRC64NVME of the plaintext: that of the stripes is of the ciphertext.
    crc64: ChecksumHasher,
    /// Where the segment begins that is being filled, within the plaintext.
    start: u64,
    /// How much of it has come. It lies in the chunk's spare room.
    filled: usize,
}

/// How segments lie in the chunks that this gateway writes.
fn geometry() -> Geometry {
    Geometry::new(limits::CHUNK_BYTES as u32).expect("segments fit CHUNK_BYTES")
}

/// How long a body of so many bytes is when it is stored encrypted.
pub(crate) fn stored_bytes(plain_bytes: u64) -> u64 {
    geometry().stored_bytes(plain_bytes)
}

impl Sealing {
    /// For the run `data` of an object with this key.
    pub(crate) fn new(key: &ObjectKey, data: DataId) -> Result<Self> {
        let key = SegmentKey::new(&key.key, data, limits::CHUNK_BYTES as u32)
            .ok_or_else(|| Error::new(ErrorKind::InternalError, "Segments don't fit these chunks."))?;
        Ok(Self { key, crc64: ChecksumHasher::new(ChecksumAlgorithm::Crc64Nvme), start: 0, filled: 0 })
    }

    /// How large a chunk to take for what follows, `left` bytes where that is known.
    pub(crate) fn chunk_bytes(&self, left: Option<u64>) -> usize {
        left.map_or(limits::CHUNK_BYTES, |left| stored_bytes(left).min(limits::CHUNK_BYTES as u64) as usize)
    }

    /// How many bytes the segment still takes: one at least.
    pub(crate) fn room(&self) -> usize {
        self.capacity() - self.filled
    }

    fn capacity(&self) -> usize {
        let place = self.key.geometry().place(self.start, u64::MAX);
        (place.plain.end - place.plain.start) as usize
    }

    /// Takes a piece of the body, at most [`Sealing::room`] long.
    pub(crate) fn push(&mut self, chunk: &mut ChunkBuf, piece: &[u8]) {
        self.crc64.update(piece);
        chunk.spare()[self.filled..self.filled + piece.len()].copy_from_slice(piece);
        self.filled += piece.len();
    }

    /// Encrypts the segment if it is full, or if it is the body's `last`.
    pub(crate) fn seal_if_full(&mut self, chunk: &mut ChunkBuf, last: bool) {
        if !last && self.room() > 0 {
            return;
        }
        let end = self.start + self.filled as u64;
        let index = self.key.geometry().place(self.start, u64::MAX).index;
        let (segment, rest) = chunk.spare().split_at_mut(self.filled);
        let tag = self.key.seal(index, last.then_some(end), segment);
        rest[..tag.len()].copy_from_slice(&tag);
        chunk.advance(self.filled + tag.len());
        (self.start, self.filled) = (end, 0);
    }

    /// The CRC64NVME of the plaintext.
    pub(crate) fn finish(self) -> Result<u64> {
        let value: ChecksumValue = self.crc64.finish();
        let bytes = value
            .as_bytes()
            .try_into()
            .map_err(|_| Error::new(ErrorKind::InternalError, "A CRC64NVME has 8 bytes."))?;
        Ok(u64::from_be_bytes(bytes))
    }
}
