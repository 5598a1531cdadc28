//! Reed-Solomon: which shards a decode reads, and by which matrix.

use crate::cache::{Plan, PlanCache, PlanKey};
use crate::linear::Linear;
use crate::matrix::{SHARDS_MAX, decode_matrix, parity_matrix};
use crate::rebuild::{Planner, own_methods};
use crate::{Code, ErasureError, RepairPlan, Tier};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// A systematic Reed-Solomon code with k data and m parity shards, any k of which give back all others.
///
/// Its methods are those of [`Code`], which it implements; they are here, too, so that the trait need not be imported.
pub struct ReedSolomon {
    linear: Linear,
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
        Ok(Self { linear: Linear { tier, k, m, parity: parity_matrix(k, m) }, plans: Mutex::default() })
    }

    #[cfg(test)]
    pub(crate) fn plans_held(&self) -> (usize, usize) {
        self.plans.lock().held()
    }
}

impl Planner for ReedSolomon {
    fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Reads the k present shards of lowest index: data first. The cache is asked for what is read and wanted.
    fn plan(&self, present: &[u8], wanted: &[u8]) -> Result<Arc<Plan>, ErasureError> {
        let k = self.linear.k;
        if present.len() < k {
            return Err(ErasureError::TooFewShards { have: present.len(), need: k });
        }
        let chosen = &present[..k];
        let key: PlanKey = chosen.iter().chain(wanted).copied().collect();
        if let Some(plan) = self.plans.lock().get(&key) {
            return Ok(plan);
        }
        let coefficients = decode_matrix(k, chosen, wanted);
        let plan = Arc::new(Plan { sources: chosen.into(), coefficients });
        self.plans.lock().insert(key, &plan);
        Ok(plan)
    }
}

own_methods!(ReedSolomon);

impl fmt::Debug for ReedSolomon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReedSolomon({}, {}, {})", self.linear.k, self.linear.m, self.linear.tier)
    }
}
