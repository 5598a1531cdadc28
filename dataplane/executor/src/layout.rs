//! Where the bytes of a chunk are among the data shards of its stripe. Shards are contiguous ranges of the chunk; past
//! the chunk's end they are zeros, which are neither sent in one piece with data nor ever fetched alone: they are known.

use std::ops::Range;

use penstock_digest::{crc64nvme_combine, crc64nvme_zeros};
use penstock_proto::{Code, limits};

/// The most zeros that follow a chunk in its last data shards: less than one alignment for each, rounding included.
pub(crate) const PAD_BYTES_MAX: usize = limits::SHARDS_PER_STRIPE_MAX * (limits::SHARD_ALIGN_BYTES + 1);

/// Zeros for the parts of shards past the chunk's end, so that no buffer holds them.
pub(crate) static ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(PAD_BYTES_MAX <= ZEROS.len());

/// The shape of one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) code: Code,
    pub(crate) chunk_bytes: usize,
    /// Length of every shard.
    pub(crate) shard_bytes: usize,
}

/// The part of a range that one data shard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) shard: usize,
    /// Within the shard; never empty, never in the pad.
    pub(crate) within: Range<usize>,
}

impl Layout {
    pub(crate) fn new(code: Code, chunk_bytes: usize) -> Self {
        Self { code, chunk_bytes, shard_bytes: code.shard_bytes(chunk_bytes) }
    }

    /// Where shard `shard`, a data shard, starts in the chunk; past its end for shards of zeros alone.
    pub(crate) fn start(&self, shard: usize) -> usize {
        shard * self.shard_bytes
    }

    /// Bytes of a shard before its pad: all of a parity shard; of a data shard those that are data.
    pub(crate) fn valid_bytes(&self, shard: usize) -> usize {
        if shard >= self.code.k() {
            self.shard_bytes
        } else {
            self.chunk_bytes.saturating_sub(self.start(shard)).min(self.shard_bytes)
        }
    }

    /// Data shards that are zeros from end to end, as a bitmap.
    pub(crate) fn zero_shards(&self) -> u64 {
        (0..self.code.k()).filter(|&shard| self.valid_bytes(shard) == 0).fold(0, |set, shard| set | 1 << shard)
    }

    /// The parts of a range of the chunk, in order.
    pub(crate) fn pieces(&self, range: Range<usize>) -> Vec<Piece> {
        if range.is_empty() {
            return Vec::new();
        }
        assert!(range.end <= self.chunk_bytes, "invariant: ranges are checked against the chunk before");
        (range.start / self.shard_bytes..range.end.div_ceil(self.shard_bytes))
            .map(|shard| {
                let start = self.start(shard);
                let within = range.start.saturating_sub(start)..(range.end - start).min(self.shard_bytes);
                Piece { shard, within }
            })
            .collect()
    }

    /// The CRC64NVME of a whole shard, from that of its bytes before the pad.
    pub(crate) fn whole_crc64(&self, shard: usize, valid_crc64: u64) -> u64 {
        let valid = self.valid_bytes(shard);
        let pad = (self.shard_bytes - valid) as u64;
        match (valid, pad) {
            (_, 0) => valid_crc64,
            (0, _) => crc64nvme_zeros(pad),
            _ => crc64nvme_combine(valid_crc64, crc64nvme_zeros(pad), pad),
        }
    }
}

/// Cuts the columns `0..shard_bytes` where any of `lens` ends, so that within each range every shard has either bytes or
/// zeros. The kernels want equally long slices, and this way no shard is copied to be padded.
pub(crate) fn columns(lens: impl Iterator<Item = usize>, shard_bytes: usize) -> Vec<Range<usize>> {
    let mut ends: Vec<usize> = lens.filter(|len| (1..shard_bytes).contains(len)).collect();
    ends.push(shard_bytes);
    ends.sort_unstable();
    ends.dedup();
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let range = start..end;
            start = end;
            range
        })
        .collect()
}

/// The bytes of a shard in one of the ranges of [`columns`].
///
/// # Panics
/// When there are more zeros than any pad has.
pub(crate) fn column(shard: &[u8], range: Range<usize>) -> &[u8] {
    if shard.len() >= range.end { &shard[range] } else { &ZEROS[..range.len()] }
}

#[cfg(test)]
mod tests {
    use penstock_digest::crc64nvme;

    use super::*;

    #[test]
    fn pieces_cover_exactly_the_range() {
        for (k, chunk_bytes) in [(1, 100), (4, 1), (4, 257), (4, 1024), (10, 700), (48, 4097)] {
            let layout = Layout::new(Code::new(k, 0).unwrap(), chunk_bytes);
            for start in (0..=chunk_bytes).step_by(13) {
                for end in (start..=chunk_bytes).step_by(17) {
                    let pieces = layout.pieces(start..end);
                    let mut at = start;
                    for piece in &pieces {
                        assert_eq!(layout.start(piece.shard) + piece.within.start, at);
                        assert!(!piece.within.is_empty() && piece.within.end <= layout.valid_bytes(piece.shard));
                        at += piece.within.len();
                    }
                    assert_eq!(at, end);
                }
            }
        }
    }

    #[test]
    fn pads_are_never_longer_than_the_zeros_there_are() {
        for k in 1..=limits::SHARDS_PER_STRIPE_MAX {
            for chunk_bytes in (1..20_000).chain([limits::CHUNK_BYTES - 1, limits::CHUNK_BYTES]) {
                let layout = Layout::new(Code::new(k, 0).unwrap(), chunk_bytes);
                assert!(k * layout.shard_bytes - chunk_bytes <= PAD_BYTES_MAX);
                let valid: usize = (0..k).map(|shard| layout.valid_bytes(shard)).sum();
                assert_eq!(valid, chunk_bytes);
            }
        }
    }

    #[test]
    fn the_crc_of_a_padded_shard_is_that_of_its_bytes() {
        let layout = Layout::new(Code::new(4, 1).unwrap(), 150);
        let chunk: Vec<u8> = (0..150).collect();
        for shard in 0..4 {
            let valid = layout.valid_bytes(shard);
            let data = if valid == 0 { &[][..] } else { &chunk[layout.start(shard)..][..valid] };
            let padded = [data, &ZEROS[..layout.shard_bytes - valid]].concat();
            assert_eq!(layout.whole_crc64(shard, crc64nvme(data)), crc64nvme(&padded), "shard {shard}");
        }
        assert_eq!(layout.zero_shards(), 0b1000);
    }

    #[test]
    fn columns_split_where_a_shard_ends() {
        assert_eq!(columns([128, 40, 0, 128].into_iter(), 128), [0..40, 40..128]);
        assert_eq!(columns([128, 0].into_iter(), 128), [Range { start: 0, end: 128 }]);
        assert_eq!(column(b"abc", 0..3), b"abc");
        assert_eq!(column(b"abc", 3..5), [0, 0]);
        assert_eq!(column(b"", 0..2), [0, 0]);
    }
}
