//! Rebuilding shards by a plan, whichever code made it; and the methods that follow from that.

use crate::cache::Plan;
use crate::linear::{LISTED_INLINE, Linear, Listed, checked_shards, expect_count, expect_distinct};
use crate::{Code, ErasureError, RepairPlan, Tier};
use penstock_gf256::{dot_product, dot_product_crc64};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// What tells the codes apart.
pub(crate) trait Planner {
    fn linear(&self) -> &Linear;

    /// How to rebuild `wanted` from `present`: ascending indices, and none in both.
    fn plan(&self, present: &[u8], wanted: &[u8]) -> Result<Arc<Plan>, ErasureError>;
}

type Indices = SmallVec<[u8; LISTED_INLINE]>;
type Destinations<'a> = SmallVec<[(u8, &'a mut [u8]); LISTED_INLINE]>;

/// See [`crate::Code::reconstruct`].
fn reconstruct(
    code: &impl Planner,
    present: &[(usize, &[u8])],
    wanted: &mut [(usize, &mut [u8])],
) -> Result<(), ErasureError> {
    let shards = checked_shards(code.linear().total(), present, wanted)?;
    let lost: Indices = indices(wanted.iter().map(|(index, _)| *index).filter(|&index| shards[index].is_none()));
    let plan = if lost.is_empty() { None } else { Some(code.plan(&listed(&shards), &lost)?) };
    let mut destinations: Destinations<'_> = SmallVec::new();
    for (index, shard) in wanted.iter_mut() {
        match shards[*index] {
            Some(original) => shard.copy_from_slice(original),
            None => destinations.push((narrow(*index), shard)),
        }
    }
    if let Some(plan) = plan {
        destinations.sort_unstable_by_key(|(index, _)| *index);
        let mut regions: SmallVec<[&mut [u8]; LISTED_INLINE]> =
            destinations.iter_mut().map(|(_, shard)| &mut **shard).collect();
        dot_product(code.linear().tier, &plan.coefficients, &sources(&plan, &shards), &mut regions);
    }
    Ok(())
}

/// See [`crate::Code::reconstruct_with_crc64`].
fn reconstruct_with_crc64(
    code: &impl Planner,
    present: &[(usize, &[u8])],
    wanted: &mut [(usize, &mut [u8])],
    crcs: &mut [u64],
) -> Result<Vec<usize>, ErasureError> {
    let shards = checked_shards(code.linear().total(), present, wanted)?;
    expect_count("CRC", crcs.len(), code.linear().total())?;
    if let Some(&(index, _)) = wanted.iter().find(|(index, _)| shards[*index].is_some()) {
        return Err(ErasureError::DuplicateShard { index });
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let lost: Indices = indices(wanted.iter().map(|(index, _)| *index));
    let plan = code.plan(&listed(&shards), &lost)?;
    let mut destinations: Destinations<'_> =
        wanted.iter_mut().map(|(index, shard)| (narrow(*index), &mut **shard)).collect();
    destinations.sort_unstable_by_key(|(index, _)| *index);
    let mut regions: SmallVec<[&mut [u8]; LISTED_INLINE]> =
        destinations.iter_mut().map(|(_, shard)| &mut **shard).collect();
    let touched = || plan.sources.iter().chain(&lost).map(|&index| usize::from(index));
    let mut running: SmallVec<[u64; LISTED_INLINE]> = touched().map(|index| crcs[index]).collect();
    let sources = sources(&plan, &shards);
    dot_product_crc64(code.linear().tier, &plan.coefficients, &sources, &mut regions, &mut running);
    touched().zip(running).for_each(|(index, crc)| crcs[index] = crc);
    Ok(plan.sources.iter().map(|&index| usize::from(index)).collect())
}

fn narrow(index: usize) -> u8 {
    u8::try_from(index).expect("invariant: indices are checked")
}

/// Ascending.
fn indices(indices: impl Iterator<Item = usize>) -> Indices {
    let mut indices: Indices = indices.map(narrow).collect();
    indices.sort_unstable();
    indices
}

fn listed(shards: &Listed<'_>) -> Indices {
    indices(shards.iter().enumerate().filter(|(_, shard)| shard.is_some()).map(|(index, _)| index))
}

fn sources<'a>(plan: &Plan, shards: &Listed<'a>) -> SmallVec<[&'a [u8]; LISTED_INLINE]> {
    let shard = |&index: &u8| shards[usize::from(index)].expect("invariant: plans read what is present");
    plan.sources.iter().map(shard).collect()
}

impl<P: Planner + fmt::Debug + Send + Sync> Code for P {
    fn data_shards(&self) -> usize {
        self.linear().k
    }

    fn parity_shards(&self) -> usize {
        self.linear().m
    }

    fn tier(&self) -> Tier {
        self.linear().tier
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        self.linear().encode(data, parity)
    }

    fn encode_with_crc64(
        &self,
        data: &[&[u8]],
        parity: &mut [&mut [u8]],
        crcs: &mut [u64],
    ) -> Result<(), ErasureError> {
        self.linear().encode_with_crc64(data, parity, crcs)
    }

    fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ErasureError> {
        self.linear().verify(data, parity, None)
    }

    fn verify_with_crc64(&self, data: &[&[u8]], parity: &[&[u8]], crcs: &mut [u64]) -> Result<bool, ErasureError> {
        self.linear().verify(data, parity, Some(crcs))
    }

    fn reconstruct(&self, present: &[(usize, &[u8])], wanted: &mut [(usize, &mut [u8])]) -> Result<(), ErasureError> {
        reconstruct(self, present, wanted)
    }

    fn reconstruct_with_crc64(
        &self,
        present: &[(usize, &[u8])],
        wanted: &mut [(usize, &mut [u8])],
        crcs: &mut [u64],
    ) -> Result<Vec<usize>, ErasureError> {
        reconstruct_with_crc64(self, present, wanted, crcs)
    }

    fn update_parity(&self, shard_index: usize, delta: &[u8], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        self.linear().update_parity(shard_index, delta, parity)
    }

    fn repair_plan(&self, lost: &[usize], shard_bytes: u64) -> Result<RepairPlan, ErasureError> {
        let total = self.linear().total();
        expect_distinct(total, lost.iter().copied())?;
        if lost.is_empty() {
            return Ok(RepairPlan { reads: Vec::new(), bytes: 0 });
        }
        let present = indices((0..total).filter(|shard| !lost.contains(shard)));
        let plan = self.plan(&present, &indices(lost.iter().copied()))?;
        let reads: Vec<usize> = plan.sources.iter().map(|&index| usize::from(index)).collect();
        Ok(RepairPlan { bytes: reads.len() as u64 * shard_bytes, reads })
    }
}

/// Gives a code the methods of [`Code`] as its own, so that the trait need not be imported.
macro_rules! own_methods {
    ($code:ident) => {
        impl $code {
            /// Number of data shards, k.
            #[must_use]
            pub fn data_shards(&self) -> usize {
                self.linear.k
            }

            /// Number of parity shards, m.
            #[must_use]
            pub fn parity_shards(&self) -> usize {
                self.linear.m
            }

            /// Number of all shards, k + m.
            #[must_use]
            pub fn total_shards(&self) -> usize {
                self.linear.total()
            }

            /// The tier whose kernels run.
            #[must_use]
            pub fn tier(&self) -> Tier {
                self.linear.tier
            }

            /// See [`Code::encode`].
            ///
            /// # Errors
            /// As there.
            pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
                Code::encode(self, data, parity)
            }

            /// See [`Code::encode_with_crc64`]: `crcs` are running, zero to start with.
            ///
            /// # Errors
            /// As there.
            pub fn encode_with_crc64(
                &self,
                data: &[&[u8]],
                parity: &mut [&mut [u8]],
                crcs: &mut [u64],
            ) -> Result<(), ErasureError> {
                Code::encode_with_crc64(self, data, parity, crcs)
            }

            /// See [`Code::verify`].
            ///
            /// # Errors
            /// As there.
            pub fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ErasureError> {
                Code::verify(self, data, parity)
            }

            /// See [`Code::verify_with_crc64`].
            ///
            /// # Errors
            /// As there.
            pub fn verify_with_crc64(
                &self,
                data: &[&[u8]],
                parity: &[&[u8]],
                crcs: &mut [u64],
            ) -> Result<bool, ErasureError> {
                Code::verify_with_crc64(self, data, parity, crcs)
            }

            /// See [`Code::reconstruct`].
            ///
            /// # Errors
            /// As there.
            pub fn reconstruct(
                &self,
                present: &[(usize, &[u8])],
                wanted: &mut [(usize, &mut [u8])],
            ) -> Result<(), ErasureError> {
                Code::reconstruct(self, present, wanted)
            }

            /// See [`Code::reconstruct_with_crc64`].
            ///
            /// # Errors
            /// As there.
            pub fn reconstruct_with_crc64(
                &self,
                present: &[(usize, &[u8])],
                wanted: &mut [(usize, &mut [u8])],
                crcs: &mut [u64],
            ) -> Result<Vec<usize>, ErasureError> {
                Code::reconstruct_with_crc64(self, present, wanted, crcs)
            }

            /// See [`Code::update_parity`].
            ///
            /// # Errors
            /// As there.
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
                Code::update_parity(self, shard_index, delta, parity)
            }

            /// See [`Code::repair_plan`].
            ///
            /// # Errors
            /// As there.
            pub fn repair_plan(&self, lost: &[usize], shard_bytes: u64) -> Result<RepairPlan, ErasureError> {
                Code::repair_plan(self, lost, shard_bytes)
            }
        }
    };
}
pub(crate) use own_methods;
