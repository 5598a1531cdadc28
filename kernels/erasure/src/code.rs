//! The code itself: checks of arguments, and which kernel does what.

use crate::cache::{PlanCache, PlanKey};
use crate::matrix::{SHARDS_MAX, decode_matrix, parity_matrix};
use crate::{ErasureError, Tier};
use parking_lot::Mutex;
use penstock_gf256::{Coefficients, dot_product, mul_add};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// Bytes per shard that [`ReedSolomon::verify`] encodes at a time, and [`ReedSolomon::update_parity`] keeps in cache.
const BLOCK_BYTES: usize = 8 << 10;

/// Shards of a stripe that are listed without an allocation.
const LISTED_INLINE: usize = 24;

/// A systematic Reed-Solomon code with k data and m parity shards.
///
/// Data shards have the indices 0 to k - 1, parity shards k to k + m - 1. Make one per (k, m) and share it: it holds
/// the prepared matrix and a bounded cache of decode matrices, and all methods take `&self`.
pub struct ReedSolomon {
    tier: Tier,
    k: usize,
    m: usize,
    parity: Coefficients,
    plans: Mutex<PlanCache>,
}

impl ReedSolomon {
    /// A code with k data and m parity shards, on the fastest tier of this machine or the one that the environment
    /// forces ([`Tier::from_env`]). m may be 0: data without protection.
    ///
    /// # Errors
    /// [`ErasureError::OutOfRange`] unless 1 <= k and k + m <= [`SHARDS_MAX`]; [`ErasureError::Tier`] when the
    /// environment forces a tier that can't be had.
    pub fn new(k: usize, m: usize) -> Result<Self, ErasureError> {
        Self::with_tier(k, m, Tier::from_env()?)
    }

    /// As [`ReedSolomon::new`], on a given tier. All tiers give the same bytes.
    ///
    /// # Errors
    /// [`ErasureError::OutOfRange`] unless 1 <= k and k + m <= [`SHARDS_MAX`].
    pub fn with_tier(k: usize, m: usize, tier: Tier) -> Result<Self, ErasureError> {
        if k == 0 || k.saturating_add(m) > SHARDS_MAX {
            return Err(ErasureError::OutOfRange { k, m });
        }
        Ok(Self { tier, k, m, parity: parity_matrix(k, m), plans: Mutex::default() })
    }

    /// Number of data shards, k.
    #[must_use]
    pub fn data_shards(&self) -> usize {
        self.k
    }

    /// Number of parity shards, m: how many shards may be lost.
    #[must_use]
    pub fn parity_shards(&self) -> usize {
        self.m
    }

    /// Number of all shards, k + m.
    #[must_use]
    pub fn total_shards(&self) -> usize {
        self.k + self.m
    }

    /// The tier whose kernels run.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Computes all parity shards from all data shards, each in order of index. Old contents of `parity` don't matter.
    ///
    /// # Errors
    /// [`ErasureError::WrongShardCount`], [`ErasureError::UnequalLengths`], [`ErasureError::ZeroLength`].
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        expect_count("data", data.len(), self.k)?;
        expect_count("parity", parity.len(), self.m)?;
        equal_lengths(data.iter().map(|shard| shard.len()).chain(parity.iter().map(|shard| shard.len())))?;
        if self.k == 1 {
            parity.iter_mut().for_each(|copy| copy.copy_from_slice(data[0]));
        } else {
            dot_product(self.tier, &self.parity, data, parity);
        }
        Ok(())
    }

    /// Whether the parity shards are those of the data shards. Says that something is wrong, not which shard.
    ///
    /// # Errors
    /// As [`ReedSolomon::encode`].
    ///
    /// ```
    /// # use penstock_erasure::ReedSolomon;
    /// let code = ReedSolomon::new(2, 1)?;
    /// assert!(code.verify(&[&[1, 2], &[4, 8]], &[&[5, 10]])?);
    /// assert!(!code.verify(&[&[1, 2], &[4, 8]], &[&[5, 11]])?);
    /// # Ok::<(), penstock_erasure::ErasureError>(())
    /// ```
    pub fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ErasureError> {
        expect_count("data", data.len(), self.k)?;
        expect_count("parity", parity.len(), self.m)?;
        let bytes = equal_lengths(data.iter().chain(parity).map(|shard| shard.len()))?;
        if self.k == 1 {
            return Ok(parity.iter().all(|copy| *copy == data[0]));
        }
        let block_bytes = bytes.min(BLOCK_BYTES);
        let mut scratch = vec![0; self.m * block_bytes];
        for start in (0..bytes).step_by(BLOCK_BYTES) {
            let block = start..bytes.min(start + BLOCK_BYTES);
            let sources: SmallVec<[&[u8]; LISTED_INLINE]> = data.iter().map(|shard| &shard[block.clone()]).collect();
            let mut expected: SmallVec<[&mut [u8]; LISTED_INLINE]> =
                scratch.chunks_exact_mut(block_bytes).map(|shard| &mut shard[..block.len()]).collect();
            dot_product(self.tier, &self.parity, &sources, &mut expected);
            if expected.iter().zip(parity).any(|(expected, shard)| **expected != shard[block.clone()]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rebuilds the shards `wanted`, data or parity, from any k of the shards `present`; both list shards with their
    /// indices, in any order.
    ///
    /// The k present shards of lowest index are used, data first; a wanted shard that is present is copied. What is
    /// present is believed: verify checksums first.
    ///
    /// # Errors
    /// [`ErasureError::BadIndex`], [`ErasureError::DuplicateShard`] (in either list), [`ErasureError::UnequalLengths`],
    /// [`ErasureError::ZeroLength`], [`ErasureError::TooFewShards`].
    pub fn reconstruct(
        &self,
        present: &[(usize, &[u8])],
        wanted: &mut [(usize, &mut [u8])],
    ) -> Result<(), ErasureError> {
        let mut shards: [Option<&[u8]>; SHARDS_MAX] = [None; SHARDS_MAX];
        for &(index, shard) in present {
            expect_index(index, self.total_shards())?;
            if shards[index].replace(shard).is_some() {
                return Err(ErasureError::DuplicateShard { index });
            }
        }
        let mut asked = [false; SHARDS_MAX];
        for &(index, _) in wanted.iter() {
            expect_index(index, self.total_shards())?;
            if std::mem::replace(&mut asked[index], true) {
                return Err(ErasureError::DuplicateShard { index });
            }
        }
        if present.len() < self.k {
            return Err(ErasureError::TooFewShards { have: present.len(), need: self.k });
        }
        equal_lengths(present.iter().map(|(_, s)| s.len()).chain(wanted.iter().map(|(_, s)| s.len())))?;

        let mut lost: SmallVec<[(usize, &mut [u8]); LISTED_INLINE]> = SmallVec::new();
        for (index, shard) in wanted.iter_mut() {
            // With one data shard, every shard is a copy of it.
            let original = if self.k == 1 { Some(present[0].1) } else { shards[*index] };
            match original {
                Some(original) => shard.copy_from_slice(original),
                None => lost.push((*index, shard)),
            }
        }
        if !lost.is_empty() {
            self.rebuild(&shards, &mut lost);
        }
        Ok(())
    }

    /// Computes `lost` shards, none of which is in `shards`; of these, at least k are there.
    fn rebuild(&self, shards: &[Option<&[u8]>; SHARDS_MAX], lost: &mut [(usize, &mut [u8])]) {
        lost.sort_unstable_by_key(|(index, _)| *index);
        let mut key = PlanKey::new();
        let mut sources: SmallVec<[&[u8]; LISTED_INLINE]> = SmallVec::new();
        for (shard, index) in shards.iter().zip(0u8..) {
            if let Some(shard) = shard
                && sources.len() < self.k
            {
                key.push(index);
                sources.push(shard);
            }
        }
        key.extend(lost.iter().map(|(index, _)| u8::try_from(*index).expect("invariant: indices are checked")));
        let plan = self.plan(key);
        let mut destinations: SmallVec<[&mut [u8]; LISTED_INLINE]> =
            lost.iter_mut().map(|(_, shard)| &mut **shard).collect();
        dot_product(self.tier, &plan, &sources, &mut destinations);
    }

    /// The decode matrix of a key, from the cache or computed (outside the lock) and cached.
    fn plan(&self, key: PlanKey) -> Arc<Coefficients> {
        if let Some(plan) = self.plans.lock().get(&key) {
            return plan;
        }
        let (chosen, wanted) = key.split_at(self.k);
        let plan = Arc::new(decode_matrix(self.k, chosen, wanted));
        self.plans.lock().insert(key, &plan);
        plan
    }

    /// Brings all parity shards up to date when data shard `shard_index` changes: `delta` is its old contents XOR its
    /// new ones (XOR is [`penstock_gf256::xor`]). May also be used on a part of the shards, at the same offsets in all.
    ///
    /// # Errors
    /// [`ErasureError::BadIndex`] unless the shard is a data shard, [`ErasureError::WrongShardCount`],
    /// [`ErasureError::UnequalLengths`], [`ErasureError::ZeroLength`].
    ///
    /// ```
    /// # use penstock_erasure::ReedSolomon;
    /// let code = ReedSolomon::new(2, 1)?;
    /// let mut parity = [5, 10]; // of [1, 2] and [4, 8]
    /// code.update_parity(1, &[4 ^ 7, 0], &mut [&mut parity])?;
    /// assert!(code.verify(&[&[1, 2], &[7, 8]], &[&parity])?);
    /// # Ok::<(), penstock_erasure::ErasureError>(())
    /// ```
    pub fn update_parity(
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

    #[cfg(test)]
    pub(crate) fn plans_held(&self) -> (usize, usize) {
        self.plans.lock().held()
    }
}

impl fmt::Debug for ReedSolomon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReedSolomon({}, {}, {})", self.k, self.m, self.tier)
    }
}

fn expect_count(role: &'static str, have: usize, need: usize) -> Result<(), ErasureError> {
    if have == need { Ok(()) } else { Err(ErasureError::WrongShardCount { role, have, need }) }
}

fn expect_index(index: usize, limit: usize) -> Result<(), ErasureError> {
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
