//! Region kernels over GF(2^8): what Reed-Solomon encoding and decoding spend their time in.
//!
//! **What.** [`dot_product`] multiplies a matrix of coefficients with a vector of byte regions, and
//! [`dot_product_crc64`] computes the CRC64NVME of all regions in the same pass; [`mul_add`] adds one scaled region to
//! another, [`xor`] adds without scaling. The field is GF(2^8) modulo [`POLYNOMIAL`] = x^8 + x^4 + x^3 + x^2 + 1
//! (0x11d), the one that ISA-L and klauspost/reedsolomon use; addition is XOR.
//!
//! **The mathematics.** Multiplying a byte by a constant is linear over GF(2): an 8 by 8 bit matrix. GFNI's
//! `gf2p8affineqb` applies one to every byte of a register; without it, c b = c (b mod 16) + c (b - b mod 16) takes two
//! look-ups in tables of 16, which a byte shuffle does for a register. With k sources and m sums there are k m products
//! per column, less where coefficients are 1: with a first row and a first column of ones (k - 1) (m - 1), and a row of
//! ones is a plain XOR. A Zen 5 core does two such products of 64 bytes per cycle, so that RS(10,4) takes 13.5 cycles
//! per 640 bytes of data in the first-level cache; from memory, what counts is that each source is read by an
//! instruction of its own (see module `sweep`), and that sums are written past the caches. A CRC is the remainder of
//! the message, taken as a polynomial over GF(2); remainders are folded forward by carry-less multiplication, and are
//! linear, so that the CRC of an all-XOR row follows from those of the sources.
//!
//! **Why a crate.** `unsafe` lives here, and only here, so that the codes above it forbid it. The same generic loops
//! serve every SIMD tier; a tier only says how one register is loaded, stored, added, multiplied and folded.
//!
//! **Tiers.** A [`Tier`] is a value that only a capable CPU can give: [`Avx2::new`] returns `None` elsewhere, so that
//! calling a kernel on a machine that lacks its instructions can't be written in safe code. Every tier gives the same
//! bytes: what is computed is stored, so the bytes are a format. The tests run every tier that the machine has, report
//! the others as not run, and fail where `PENSTOCK_REQUIRE_TIERS` (names, comma-separated) asks for one of these. NEON
//! is tested on its real target by an emulator, and the scalar tier by Miri (which sees no SIMD):
//!
//! ```text
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu max" \
//! PENSTOCK_REQUIRE_TIERS=neon CARGO_TARGET_DIR=target/aarch64-test \
//! cargo test -p penstock-gf256 --lib --target aarch64-unknown-linux-gnu -- --skip variable_forces_a_tier
//!
//! ./dev miri
//! ```
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
