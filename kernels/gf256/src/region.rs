//! The public kernels: arguments are checked here, once, so that the tiers behind may trust them.

use crate::coefficients::Coefficients;
use crate::field::NibbleTable;
use crate::lanes::Lanes;
use crate::sweep::{self, MulAdd, Xor};
use crate::tier::{Instructions, Tier};
use crate::{fused, scalar};
use std::marker::PhantomData;

#[cfg(target_arch = "aarch64")]
use crate::neon;
#[cfg(target_arch = "x86_64")]
use crate::x86::{avx2, avx2_gfni, avx512_gfni};

/// Below how many bytes AVX-512 leaves a region to AVX2: its pass, of which it could only do a part.
#[cfg(target_arch = "x86_64")]
const AVX512_BYTES_MIN: usize = avx512_gfni::Bytes::BYTES * avx512_gfni::Bytes::COLUMNS;

/// Evaluates `$vector` with `$lanes` being the tier's register, or `$scalar`. Having the tier proves that the CPU has
/// the instructions.
macro_rules! on_tier {
    ($tier:expr, $bytes:expr, $lanes:ident => $vector:expr, $scalar:expr) => {{
        let _ = $bytes; // only AVX-512 asks
        match $tier.0 {
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => {
                type $lanes = neon::Bytes;
                $vector
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => {
                type $lanes = avx2::Bytes;
                $vector
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Gfni(_) if $bytes >= AVX512_BYTES_MIN => {
                type $lanes = avx512_gfni::Bytes;
                $vector
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2Gfni(_) | Instructions::Avx512Gfni(_) => {
                type $lanes = avx2_gfni::Bytes;
                $vector
            }
            // Scalar, and the tiers of other architectures, whose proofs can't be had here.
            _ => $scalar,
        }
    }};
}

/// Overwrites every destination with its row's sum: `destination[j] = sum over i of coefficient[j][i] * source[i]`.
///
/// All regions have one length, any from 0 up, at any alignment; nothing outside the destinations is written, and their
/// old contents don't matter. Writes every destination once and reads every source once per four rows.
///
/// From 1 MiB on, sources and destinations together, destinations that are aligned to 64 bytes are written past the
/// caches (as whoever stores or sends them wants it). Fastest when regions don't all start at the same offset within a
/// page: an odd number of cache lines between neighbours keeps them out of each other's way.
///
/// # Panics
/// When there are not [`Coefficients::columns`] sources and [`Coefficients::rows`] destinations, or when their lengths
/// differ. Nothing has been written then.
pub fn dot_product(tier: Tier, coefficients: &Coefficients, sources: &[&[u8]], destinations: &mut [&mut [u8]]) {
    let bytes = checked_bytes(coefficients, sources, destinations);
    on_tier!(
        tier,
        bytes,
        V => {
            // SAFETY: the tier proves the instructions; counts and lengths have been checked.
            unsafe { sweep::dot_product::<V>(coefficients, sources, destinations, None) };
        },
        scalar::dot_product(coefficients, sources, destinations)
    );
}

/// As [`dot_product`], and in the same pass the CRC64NVME of every region.
///
/// `crcs` has one for each source, then one for each destination. They are *running* CRCs: 0 to start with, or what
/// this function gave for the bytes before these, so that regions may come in pieces.
///
/// In memory the CRCs are about free: they are folded from the registers that the product has loaded anyway.
///
/// # Panics
/// As [`dot_product`], or when there are not [`Coefficients::columns`] + [`Coefficients::rows`] CRCs.
///
/// ```
/// use penstock_gf256::{Coefficients, Tier, dot_product_crc64};
/// let (mut p, mut crcs) = ([0; 9], [0; 3]);
/// dot_product_crc64(
///     Tier::detect(), &Coefficients::new(1, 2, &[1, 1]), &[b"123456789", &[0; 9]], &mut [&mut p], &mut crcs,
/// );
/// assert_eq!((crcs[0], crcs[2], &p), (0xae8b_1486_0a79_9888, 0xae8b_1486_0a79_9888, b"123456789"));
/// ```
pub fn dot_product_crc64(
    tier: Tier,
    coefficients: &Coefficients,
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    crcs: &mut [u64],
) {
    let bytes = checked_bytes(coefficients, sources, destinations);
    assert_eq!(crcs.len(), sources.len() + destinations.len(), "one CRC per region");
    on_tier!(
        tier,
        bytes,
        V => {
            // SAFETY: the tier proves the instructions; counts and lengths have been checked.
            unsafe { fused::dot_product::<V>(coefficients, sources, destinations, crcs) };
        },
        {
            scalar::dot_product(coefficients, sources, destinations);
            fused::update_portably(sources, destinations, crcs);
        }
    );
}

/// The one length of all regions.
fn checked_bytes(coefficients: &Coefficients, sources: &[&[u8]], destinations: &[&mut [u8]]) -> usize {
    assert_eq!(sources.len(), coefficients.columns(), "one source per column");
    assert_eq!(destinations.len(), coefficients.rows(), "one destination per row");
    let bytes = sources[0].len();
    assert!(sources.iter().all(|source| source.len() == bytes), "sources of equal length");
    assert!(destinations.iter().all(|destination| destination.len() == bytes), "destinations as long as the sources");
    bytes
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
    if coefficient <= 1 {
        return if coefficient == 1 {
            xor(tier, source, destination)
        };
    }
    let done = on_tier!(
        tier,
        source.len(),
        V => {
            let kernel = MulAdd::<V> { entry: V::entry(coefficient), source, destination: &mut *destination };
            // SAFETY: the tier proves the instructions; lengths have been checked.
            unsafe { V::run(kernel) }
        },
        0
    );
    scalar::mul_add(NibbleTable::of(coefficient), &source[done..], &mut destination[done..]);
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
    let done = on_tier!(
        tier,
        source.len(),
        V => {
            let kernel = Xor::<V> { source, destination: &mut *destination, lanes: PhantomData };
            // SAFETY: the tier proves the instructions; lengths have been checked.
            unsafe { V::run(kernel) }
        },
        0
    );
    scalar::xor(&source[done..], &mut destination[done..]);
}
