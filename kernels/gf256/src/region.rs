//! The public kernels: arguments are checked here, once, so that the tiers behind may trust them.

use crate::coefficients::Coefficients;
use crate::field::NibbleTable;
use crate::scalar;
use crate::tier::{Instructions, Tier};

/// Overwrites every destination with its row's sum: `destination[j] = sum over i of coefficient[j][i] * source[i]`.
///
/// All regions have one length, any from 0 up, at any alignment; nothing outside the destinations is written, and their
/// old contents don't matter. Writes every destination once and reads every source once per four rows.
///
/// # Panics
/// When there are not [`Coefficients::columns`] sources and [`Coefficients::rows`] destinations, or when their lengths
/// differ. Nothing has been written then.
pub fn dot_product(tier: Tier, coefficients: &Coefficients, sources: &[&[u8]], destinations: &mut [&mut [u8]]) {
    assert_eq!(sources.len(), coefficients.columns(), "one source per column");
    assert_eq!(destinations.len(), coefficients.rows(), "one destination per row");
    let bytes = sources[0].len();
    assert!(sources.iter().all(|source| source.len() == bytes), "sources of equal length");
    assert!(destinations.iter().all(|destination| destination.len() == bytes), "destinations as long as the sources");
    match tier.0 {
        Instructions::Scalar => scalar::dot_product(coefficients, sources, destinations),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2(proof) => crate::avx2::dot_product(proof, coefficients, sources, destinations),
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Avx2(_) => scalar::dot_product(coefficients, sources, destinations),
    }
}

/// Adds a scaled region to another: `destination += coefficient * source`. What a parity needs when one data shard
/// changes (`source` is then old XOR new).
///
/// # Panics
/// When the lengths differ; nothing has been written then.
///
/// ```
/// use penstock_gf256::{Tier, mul, mul_add};
/// let mut sum = [7u8; 3];
/// mul_add(Tier::detect(), 5, &[1, 2, 3], &mut sum);
/// assert_eq!(sum, [7 ^ 5, 7 ^ mul(5, 2), 7 ^ mul(5, 3)]);
/// ```
pub fn mul_add(tier: Tier, coefficient: u8, source: &[u8], destination: &mut [u8]) {
    assert_eq!(source.len(), destination.len(), "regions of equal length");
    let table = NibbleTable::of(coefficient);
    match (coefficient, tier.0) {
        (0, _) => {}
        (1, _) => xor(tier, source, destination),
        (_, Instructions::Scalar) => scalar::mul_add(table, source, destination),
        #[cfg(target_arch = "x86_64")]
        (_, Instructions::Avx2(proof)) => crate::avx2::mul_add(proof, table, source, destination),
        #[cfg(not(target_arch = "x86_64"))]
        (_, Instructions::Avx2(_)) => scalar::mul_add(table, source, destination),
    }
}

/// Adds a region to another: `destination ^= source`.
///
/// # Panics
/// When the lengths differ; nothing has been written then.
///
/// ```
/// use penstock_gf256::{Tier, xor};
/// let mut sum = [1u8, 2, 3];
/// xor(Tier::detect(), &[1, 1, 1], &mut sum);
/// assert_eq!(sum, [0, 3, 2]);
/// ```
pub fn xor(tier: Tier, source: &[u8], destination: &mut [u8]) {
    assert_eq!(source.len(), destination.len(), "regions of equal length");
    match tier.0 {
        Instructions::Scalar => scalar::xor(source, destination),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2(proof) => crate::avx2::xor(proof, source, destination),
        #[cfg(not(target_arch = "x86_64"))]
        Instructions::Avx2(_) => scalar::xor(source, destination),
    }
}
