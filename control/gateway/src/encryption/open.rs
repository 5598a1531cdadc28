//! An encrypted object's bytes on their way out: whole segments are read, checked and decrypted, and what was asked for is cut
//! out of them.
//!
//! What the executor read is shared memory, so a segment is copied once, into the memory that it is decrypted in and sent
//! from.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use penstock_buf::Buf;
use penstock_meta::tables::DataRow;
use penstock_vault::{DataKey, SegmentKey, TAG_BYTES};

use crate::error::{Error, ErrorKind, Result};

/// Opens what is read of one run.
#[derive(Clone)]
pub(crate) struct Opening {
    key: Arc<SegmentKey>,
    data: penstock_proto::DataId,
    /// The run's plaintext.
    total: u64,
    /// What of it was asked for.
    wanted: Range<u64>,
}

impl Opening {
    /// For `wanted`, which is not empty, of the plaintext of `data`; and what of the run is to be read for it.
    ///
    /// # Errors
    /// InternalError for a row that no encrypted run has.
    pub(crate) fn new(key: &DataKey, data: &DataRow, wanted: Range<u64>) -> Result<(Self, Range<u64>)> {
        let found = SegmentKey::new(key, data.data, data.chunk_bytes)
            .and_then(|key| Some((key.geometry().plain_of_stored(data.size_bytes)?, key)))
            .filter(|(total, _)| wanted.end <= *total);
        let (total, key) = found.ok_or_else(|| {
            Error::new(ErrorKind::InternalError, format!("Data {} is no run of encrypted segments.", data.data))
        })?;
        let stored = key.geometry().cover(&wanted, total);
        Ok((Self { key: Arc::new(key), data: data.data, total, wanted }, stored))
    }

    /// The plaintext of whole segments, of which the first begins at byte `at` of the run as it is stored.
    ///
    /// # Errors
    /// InternalError when they are not what was stored: nothing of such a segment is given out.
    pub(crate) fn open(&self, at: u64, stored: Vec<Buf>) -> Result<Vec<Buf>> {
        let geometry = self.key.geometry();
        let mut plain_at = geometry.plain_at(at);
        let left: usize = stored.iter().map(Buf::len).sum();
        let (mut left, mut gather) = (left, Gather { bufs: &stored, first: 0, within: 0 });
        let mut out = Vec::with_capacity(left.div_ceil(penstock_vault::SEGMENT_BYTES));
        while left > 0 {
            if plain_at >= self.total {
                return Err(self.tampered("it is longer than it should be"));
            }
            let place = geometry.place(plain_at, self.total);
            let plain_bytes = (place.plain.end - place.plain.start) as usize;
            if left < plain_bytes + TAG_BYTES {
                return Err(self.tampered("a segment is cut off"));
            }
            let mut text = Vec::with_capacity(plain_bytes);
            gather.take(plain_bytes, |piece| text.extend_from_slice(piece));
            let (mut tag, mut at) = ([0; TAG_BYTES], 0);
            gather.take(TAG_BYTES, |piece| {
                tag[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            });
            left -= plain_bytes + TAG_BYTES;
            self.key
                .open(place.index, place.last.then_some(self.total), &mut text, tag)
                .map_err(|_| self.tampered("a segment was changed, or is another's"))?;
            let from = self.wanted.start.max(place.plain.start) - place.plain.start;
            let to = self.wanted.end.min(place.plain.end).saturating_sub(place.plain.start);
            if from < to {
                out.push(Buf::from(Bytes::from(text).slice(from as usize..to as usize)));
            }
            plain_at = place.plain.end;
        }
        Ok(out)
    }

    fn tampered(&self, what: &str) -> Error {
        tracing::error!(data = %self.data, what, "encrypted data does not open");
        Error::new(ErrorKind::InternalError, format!("Data {} can't be decrypted: {what}.", self.data))
    }
}

/// Bytes from several buffers, in order.
struct Gather<'a> {
    bufs: &'a [Buf],
    first: usize,
    within: usize,
}

impl Gather<'_> {
    /// The next `bytes`, in pieces. The caller has counted: they are there.
    fn take(&mut self, mut bytes: usize, mut each: impl FnMut(&[u8])) {
        while bytes > 0 {
            let buf = &self.bufs[self.first][self.within..];
            let piece = &buf[..bytes.min(buf.len())];
            each(piece);
            bytes -= piece.len();
            self.within += piece.len();
            if self.within == self.bufs[self.first].len() {
                (self.first, self.within) = (self.first + 1, 0);
            }
        }
    }
}
