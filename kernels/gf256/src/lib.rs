//! Region kernels over GF(2^8): what Reed-Solomon encoding and decoding spend their time in.
//!
//! **What.** [`dot_product`] multiplies a matrix of coefficients with a vector of byte regions, [`mul_add`] adds one
//! scaled region to another, [`xor`] adds without scaling. The field is GF(2^8) modulo [`POLYNOMIAL`] = x^8 + x^4 + x^3
//! + x^2 + 1 (0x11d), the one that ISA-L and klauspost/reedsolomon use; addition is XOR.
//!
//! **Why a crate.** `unsafe` lives here, and only here, so that the codes above it forbid it. The same generic loops
//! (module `vector`) serve every SIMD tier; a tier only says how one vector is loaded, stored, added and multiplied.
//!
//! **Tiers.** A [`Tier`] is a value that only a capable CPU can give: [`Avx2::new`] returns `None` elsewhere, so that
//! calling a kernel on a machine that lacks its instructions can't be written in safe code. Every tier gives the same
//! bytes: what is computed is stored, so the bytes are a format.
//!
//! **How it fails.** Regions of unequal length, or a count that disagrees with the matrix, are programmer errors and
//! panic (in release, too) before a byte is written. The only run-time error is [`TierError`].
//!
//! ```
//! use penstock_gf256::{Coefficients, Tier, dot_product, mul};
//!
//! // Two parities of three regions: the sum, and a weighted sum.
//! let matrix = Coefficients::new(2, 3, &[1, 1, 1, 1, 2, 3]);
//! let (a, b, c) = ([10u8; 5], [20u8; 5], [30u8; 5]);
//! let (mut p, mut q) = ([0u8; 5], [0u8; 5]);
//! dot_product(Tier::detect(), &matrix, &[&a, &b, &c], &mut [&mut p, &mut q]);
//! assert_eq!(p, [10 ^ 20 ^ 30; 5]);
//! assert_eq!(q, [10 ^ mul(2, 20) ^ mul(3, 30); 5]);
//! ```

mod coefficients;
mod crc64;
mod field;
mod fused;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod region;
mod scalar;
mod sweep;
mod tier;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use coefficients::Coefficients;
pub use field::{POLYNOMIAL, div, inv, mul};
pub use region::{dot_product, dot_product_crc64, mul_add, xor};
pub use tier::{Avx2, Avx2Gfni, Avx512Gfni, Neon, TIER_NAMES, TIER_VARIABLE, Tier, TierError};
