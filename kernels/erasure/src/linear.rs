//! What all systematic codes share: parity shards are sums of data shards by a matrix.

use crate::{ErasureError, SHARDS_MAX, Tier};
use penstock_gf256::{Coefficients, dot_product, dot_product_crc64, mul_add};
use smallvec::SmallVec;

/// Bytes per shard that verification encodes at a time, and that an update keeps in cache.
const BLOCK_BYTES: usize = 8 << 10;

/// Shards of a stripe that are listed without an allocation.
pub(crate) const LISTED_INLINE: usize = 24;

/// k data shards, m parity shards, and the matrix between them.
pub(crate) struct Linear {
    pub(crate) tier: Tier,
    pub(crate) k: usize,
    pub(crate) m: usize,
    pub(crate) parity: Coefficients,
}

impl Linear {
    pub(crate) fn total(&self) -> usize {
        self.k + self.m
    }

    /// Checks a whole stripe's shards; their length in bytes.
    fn checked_bytes<'a>(
        &self,
        data: &[&[u8]],
        parity: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<usize, ErasureError> {
        expect_count("data", data.len(), self.k)?;
        expect_count("parity", parity.len(), self.m)?;
        equal_lengths(data.iter().map(|shard| shard.len()).chain(parity.map(<[u8]>::len)))
    }

    pub(crate) fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        self.checked_bytes(data, parity.iter().map(|shard| &**shard))?;
        if self.k == 1 {
            // All coefficients of a first column are 1.
            parity.iter_mut().for_each(|copy| copy.copy_from_slice(data[0]));
        } else {
            dot_product(self.tier, &self.parity, data, parity);
        }
        Ok(())
    }

    pub(crate) fn encode_with_crc64(
        &self,
        data: &[&[u8]],
        parity: &mut [&mut [u8]],
        crcs: &mut [u64],
    ) -> Result<(), ErasureError> {
        expect_count("CRC", crcs.len(), self.total())?;
        self.checked_bytes(data, parity.iter().map(|shard| &**shard))?;
        dot_product_crc64(self.tier, &self.parity, data, parity, crcs);
        Ok(())
    }

    /// Whether parity is that of the data; brings `crcs` up to date where it is, and where there are any.
    pub(crate) fn verify(
        &self,
        data: &[&[u8]],
        parity: &[&[u8]],
        crcs: Option<&mut [u64]>,
    ) -> Result<bool, ErasureError> {
        let bytes = self.checked_bytes(data, parity.iter().copied())?;
        let mut running: SmallVec<[u64; LISTED_INLINE]> = SmallVec::new();
        if let Some(crcs) = &crcs {
            expect_count("CRC", crcs.len(), self.total())?;
            running.extend_from_slice(crcs);
        }
        let block_bytes = bytes.min(BLOCK_BYTES);
        let mut scratch = vec![0; self.m * block_bytes];
        for start in (0..bytes).step_by(BLOCK_BYTES) {
            let block = start..bytes.min(start + BLOCK_BYTES);
            let sources: SmallVec<[&[u8]; LISTED_INLINE]> = data.iter().map(|shard| &shard[block.clone()]).collect();
            let mut expected: SmallVec<[&mut [u8]; LISTED_INLINE]> =
                scratch.chunks_exact_mut(block_bytes).map(|shard| &mut shard[..block.len()]).collect();
            if crcs.is_some() {
                dot_product_crc64(self.tier, &self.parity, &sources, &mut expected, &mut running);
            } else {
                dot_product(self.tier, &self.parity, &sources, &mut expected);
            }
            if expected.iter().zip(parity).any(|(expected, shard)| **expected != shard[block.clone()]) {
                return Ok(false);
            }
        }
        if let Some(crcs) = crcs {
            crcs.copy_from_slice(&running);
        }
        Ok(true)
    }

    pub(crate) fn update_parity(
        &self,
        shard_index: usize,
        delta: &[u8],
        parity: &mut [&mut [u8]],
    ) -> Result<(), ErasureError> {
        expect_index(shard_index, self.k)?;
        expect_count("parity", parity.len(), self.m)?;
        equal_lengths(std::iter::once(delta.len()).chain(parity.iter().map(|shard| shard.len())))?;
        for (block, delta) in delta.chunks(BLOCK_BYTES).enumerate() {
            let start = block * BLOCK_BYTES;
            for (row, shard) in parity.iter_mut().enumerate() {
                let coefficient = self.parity.get(row, shard_index);
                mul_add(self.tier, coefficient, delta, &mut shard[start..start + delta.len()]);
            }
        }
        Ok(())
    }
}

/// Shards by index, one for each of the code: zeroing room for the largest code would take longer than decoding 64 KiB.
pub(crate) type Listed<'a> = SmallVec<[Option<&'a [u8]>; LISTED_INLINE]>;

/// The shards that are present, by index, once the arguments of a reconstruction are known to be sound.
pub(crate) fn checked_shards<'a>(
    total: usize,
    present: &[(usize, &'a [u8])],
    wanted: &[(usize, &mut [u8])],
) -> Result<Listed<'a>, ErasureError> {
    let mut shards: Listed<'a> = SmallVec::from_elem(None, total);
    for &(index, shard) in present {
        expect_index(index, total)?;
        if shards[index].replace(shard).is_some() {
            return Err(ErasureError::DuplicateShard { index });
        }
    }
    expect_distinct(total, wanted.iter().map(|(index, _)| *index))?;
    equal_lengths(present.iter().map(|(_, shard)| shard.len()).chain(wanted.iter().map(|(_, shard)| shard.len())))?;
    Ok(shards)
}

/// Every index is below `total`, and none occurs twice.
pub(crate) fn expect_distinct(total: usize, indices: impl Iterator<Item = usize>) -> Result<(), ErasureError> {
    let mut seen = [0u64; SHARDS_MAX.div_ceil(u64::BITS as usize)];
    for index in indices {
        expect_index(index, total)?;
        let (word, bit) = (&mut seen[index / 64], 1 << (index % 64));
        if *word & bit != 0 {
            return Err(ErasureError::DuplicateShard { index });
        }
        *word |= bit;
    }
    Ok(())
}

pub(crate) fn expect_count(role: &'static str, have: usize, need: usize) -> Result<(), ErasureError> {
    if have == need { Ok(()) } else { Err(ErasureError::WrongShardCount { role, have, need }) }
}

pub(crate) fn expect_index(index: usize, limit: usize) -> Result<(), ErasureError> {
    if index < limit { Ok(()) } else { Err(ErasureError::BadIndex { index, limit }) }
}

/// The one length of all shards, in bytes.
fn equal_lengths(mut lengths: impl Iterator<Item = usize>) -> Result<usize, ErasureError> {
    let need_bytes = lengths.next().unwrap_or(0);
    match lengths.find(|&length| length != need_bytes) {
        Some(have_bytes) => Err(ErasureError::UnequalLengths { have_bytes, need_bytes }),
        None if need_bytes == 0 => Err(ErasureError::ZeroLength),
        None => Ok(need_bytes),
    }
}
