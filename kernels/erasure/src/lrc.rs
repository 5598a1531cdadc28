//! Local reconstruction codes: local parities, global parities, and solving for what is lost.

use crate::cache::{Plan, PlanCache, PlanKey};
use crate::linear::Linear;
use crate::matrix::{SHARDS_MAX, add_scaled, parity_coefficient};
use crate::rebuild::{Planner, own_methods};
use crate::{Code, ErasureError, RepairPlan, Tier};
use parking_lot::Mutex;
use penstock_gf256::{Coefficients, inv, mul};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

#[cfg(test)]
#[path = "lrc_tests.rs"]
mod tests;

/// Groups and members for which the coefficients are those of the proof.
const COSETS: usize = 17;
const COSET_MEMBERS: usize = 15;

/// Separates what is present from what is wanted in a plan's key. No shard has this index.
const SEPARATOR: u8 = 255;

/// A local reconstruction code with k data shards in l groups, a local parity for each, and g global parities.
///
/// One lost shard comes back from its small group, several from everything.
///
/// **Shape.** k data shards in l groups of neighbours (of equal size, or the first k mod l groups one larger), one
/// local parity per group, g global parities. Shards are ordered data, local parities, global parities. LRC(12,2,2) is
/// Azure's: 6 reads repair any data shard or local parity, where RS(12,4) reads 12.
///
/// **Coefficients: a storage format.** A local parity is the XOR of its group. With g at most 2, at most 17 groups of
/// at most 15, the global parities are `sum of a x` and `sum of a^2 x`, where member i of group j has `a = 2^j 2^(17 i)`:
/// the powers of 2^17 are the 15 nonzero elements of the subfield GF(16), so that group j has elements of 2^j GF(16).
/// Otherwise the globals are rows 1 to g of the Reed-Solomon matrix (of which row 0 is the sum of the local parities).
///
/// # Maximal recoverability
///
/// After every group has spent its local parity on one loss, what is left of the losses must not exceed g: that is
/// necessary, whatever the coefficients. A code for which it suffices is *maximally recoverable*.
///
/// *Claim.* With g at most 2 and coefficients as above, it does.
///
/// *Proof.* Eliminating each group's local parity leaves the globals with unknowns whose coefficients are s = a + a' for
/// pairs of lost members of one group (or s = a, when the local parity itself is lost) in the first, and s^2 in the
/// second, squaring being additive. Two losses beyond the local parities in one group leave s and t, different, not 0,
/// and the determinant s t^2 + s^2 t = s t (s + t) is not 0. In two groups they leave s and t from 2^j GF(16) and 2^j'
/// GF(16), not 0; these are lines of GF(256) over GF(16), different ones as 2^(j - j') is in GF(16) only for j = j'
/// modulo 17, hence s + t is not 0 either. One loss leaves s or s^2. ∎ (And the tests try every pattern of
/// LRC(12,2,2): all 16 of one loss, all 120 of two, all 560 of three, and 1,568 of the 1,820 of four; the other 252 no
/// code of that shape decodes.)
///
/// With g above 2 any g + 1 losses decode, since the code contains a Reed-Solomon code with g + 1 parities; of patterns
/// with more losses most do, but not all that could.
///
/// # Use
///
/// Its methods are those of [`Code`], which it implements; they are here, too, so that the trait need not be imported.
///
/// ```
/// use penstock_erasure::Lrc;
/// let code = Lrc::new(12, 2, 2)?;
/// assert_eq!(code.repair_plan(&[3], 1 << 20)?.reads, [0, 1, 2, 4, 5, 12]);
/// assert_eq!(code.repair_plan(&[3], 1 << 20)?.bytes, 6 << 20);
/// # Ok::<(), penstock_erasure::ErasureError>(())
/// ```
pub struct Lrc {
    linear: Linear,
    groups: usize,
    plans: Mutex<PlanCache>,
}

impl Lrc {
    /// A code of k data shards, l groups and g global parities, on the tier that [`Tier::from_env`] gives.
    ///
    /// # Errors
    /// [`ErasureError::LrcOutOfRange`] unless 1 <= l <= k and k + l + g <= [`SHARDS_MAX`]; [`ErasureError::Tier`] when
    /// the environment forces a tier that can't be had.
    pub fn new(k: usize, l: usize, g: usize) -> Result<Self, ErasureError> {
        Self::with_tier(k, l, g, Tier::from_env()?)
    }

    /// As [`Lrc::new`], on a given tier. All tiers give the same bytes.
    ///
    /// # Errors
    /// [`ErasureError::LrcOutOfRange`] as there.
    pub fn with_tier(k: usize, l: usize, g: usize, tier: Tier) -> Result<Self, ErasureError> {
        if l == 0 || l > k || k.saturating_add(l).saturating_add(g) > SHARDS_MAX {
            return Err(ErasureError::LrcOutOfRange { k, l, g });
        }
        let local = (0..l).flat_map(|group| {
            let members = members(k, l, group);
            (0..k).map(move |shard| u8::from(members.contains(&shard)))
        });
        let global = (0..g).flat_map(|row| (0..k).map(move |shard| global_coefficient(k, l, g, row, shard)));
        let parity = Coefficients::new(l + g, k, &local.chain(global).collect::<Vec<u8>>());
        Ok(Self { linear: Linear { tier, k, m: l + g, parity }, groups: l, plans: Mutex::default() })
    }

    /// Number of groups, l, and of local parities.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The data shards of a group; its local parity is shard k + `group`.
    ///
    /// # Panics
    /// When there is no such group.
    #[must_use]
    pub fn members(&self, group: usize) -> Range<usize> {
        assert!(group < self.groups, "group {group} of {}", self.groups);
        members(self.linear.k, self.groups, group)
    }

    /// Whether every pattern of losses decodes that any code of this shape could decode, as proved above.
    #[must_use]
    pub fn is_maximally_recoverable(&self) -> bool {
        in_cosets(self.linear.k, self.groups, self.linear.m - self.groups)
    }

    /// The group of a data shard or local parity.
    fn group_of(&self, shard: usize) -> Option<usize> {
        let local = shard.checked_sub(self.linear.k);
        match local {
            Some(local) => (local < self.groups).then_some(local),
            None => (0..self.groups).find(|&group| self.members(group).contains(&shard)),
        }
    }

    /// A shard's row: what it is a sum of.
    fn row(&self, shard: u8) -> Vec<u8> {
        let shard = usize::from(shard);
        match shard.checked_sub(self.linear.k) {
            Some(parity) => self.linear.parity.row(parity).to_vec(),
            None => (0..self.linear.k).map(|column| u8::from(column == shard)).collect(),
        }
    }

    /// The present shards of the groups that `wanted` are of, or nothing where one is of no group.
    fn neighbours(&self, present: &[u8], wanted: &[u8]) -> Vec<u8> {
        let groups: Vec<Option<usize>> = wanted.iter().map(|&shard| self.group_of(shard.into())).collect();
        if groups.contains(&None) {
            return Vec::new();
        }
        present.iter().copied().filter(|&shard| groups.contains(&self.group_of(shard.into()))).collect()
    }

    /// Sums of the shards `from` that give `wanted`, or `None` where these don't determine them. Reads the first shards
    /// of `from` that will do, and none that it needn't.
    fn solve(&self, from: &[u8], wanted: &[u8]) -> Option<Plan> {
        // Rows in echelon form, each with its pivot column, and with how it is a sum of `from`.
        let mut basis: Vec<(usize, Vec<u8>, Vec<u8>)> = Vec::with_capacity(self.linear.k);
        for (at, &shard) in from.iter().enumerate() {
            let mut row = self.row(shard);
            let mut sum: Vec<u8> = (0..from.len()).map(|other| u8::from(other == at)).collect();
            reduce(&basis, &mut row, &mut sum);
            if let Some(pivot) = row.iter().position(|&c| c != 0) {
                let scale = inv(row[pivot]);
                for c in row.iter_mut().chain(&mut sum) {
                    *c = mul(*c, scale);
                }
                basis.push((pivot, row, sum));
            }
        }
        let mut sums = Vec::with_capacity(wanted.len());
        for &shard in wanted {
            let (mut row, mut sum) = (self.row(shard), vec![0; from.len()]);
            reduce(&basis, &mut row, &mut sum);
            if row.iter().any(|&c| c != 0) {
                return None;
            }
            sums.push(sum);
        }
        let read: Vec<usize> = (0..from.len()).filter(|&at| sums.iter().any(|sum| sum[at] != 0)).collect();
        let matrix: Vec<u8> = sums.iter().flat_map(|sum| read.iter().map(|&at| sum[at])).collect();
        Some(Plan {
            sources: read.iter().map(|&at| from[at]).collect(),
            coefficients: Coefficients::new(wanted.len(), read.len(), &matrix),
        })
    }
}

/// Subtracts from `row` what the basis has of it, and does the same to `sum`.
fn reduce(basis: &[(usize, Vec<u8>, Vec<u8>)], row: &mut [u8], sum: &mut [u8]) {
    for (pivot, basis_row, basis_sum) in basis {
        let factor = row[*pivot];
        add_scaled(row, factor, basis_row);
        add_scaled(sum, factor, basis_sum);
    }
}

/// The data shards of a group.
fn members(k: usize, l: usize, group: usize) -> Range<usize> {
    let (size, larger) = (k / l, k % l);
    let start = |group: usize| group * size + group.min(larger);
    start(group)..start(group + 1)
}

/// Whether the coefficients are those for which maximal recoverability is proved.
fn in_cosets(k: usize, l: usize, g: usize) -> bool {
    g <= 2 && l <= COSETS && k.div_ceil(l) <= COSET_MEMBERS
}

/// What global parity `row` multiplies a data shard with.
fn global_coefficient(k: usize, l: usize, g: usize, row: usize, shard: usize) -> u8 {
    if !in_cosets(k, l, g) {
        return parity_coefficient(row + 1, shard);
    }
    let group = (0..l).find(|&group| members(k, l, group).contains(&shard)).expect("invariant: groups have all shards");
    let member = shard - members(k, l, group).start;
    let a = (0..group + COSETS * member).fold(1, |power, _| mul(power, 2));
    if row == 0 { a } else { mul(a, a) }
}

impl Planner for Lrc {
    fn linear(&self) -> &Linear {
        &self.linear
    }

    /// From the groups of what is wanted if that will do, from everything otherwise.
    fn plan(&self, present: &[u8], wanted: &[u8]) -> Result<Arc<Plan>, ErasureError> {
        let key: PlanKey = present.iter().chain(&[SEPARATOR]).chain(wanted).copied().collect();
        if let Some(plan) = self.plans.lock().get(&key) {
            return Ok(plan);
        }
        let solved = match self.neighbours(present, wanted) {
            neighbours if neighbours.is_empty() => None,
            neighbours => self.solve(&neighbours, wanted),
        };
        let undecodable = ErasureError::Undecodable { wanted: wanted.len(), have: present.len() };
        let plan = Arc::new(solved.or_else(|| self.solve(present, wanted)).ok_or(undecodable)?);
        self.plans.lock().insert(key, &plan);
        Ok(plan)
    }
}

own_methods!(Lrc);

impl fmt::Debug for Lrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Linear { k, m, tier, .. } = &self.linear;
        write!(f, "Lrc({k}, {}, {}, {tier})", self.groups, m - self.groups)
    }
}
