//! Systematic erasure codes over GF(2^8): Reed-Solomon, where any k of k + m shards give back all others, and local
//! reconstruction codes, where one lost shard comes back from its small group.
//!
//! **What.** A [`Code`] (a [`ReedSolomon`] or an [`Lrc`]) encodes parity, verifies it, rebuilds lost shards, tells what
//! a repair reads, and updates parity in place when one data shard changes; encoding, verifying and rebuilding also
//! give the CRC64NVME of all shards, in the same pass. Shards of one stripe have one length, any from 1 byte up; data
//! shards are stored as they are. [`Lrc`]'s mathematics are in its own documentation; here are Reed-Solomon's.
//!
//! **Why this matrix.** Parity row i of data column j has the coefficient
//!
//! ```text
//!            (x_0 + y_j) (x_i + y_0)
//! b(i, j) = -------------------------      x_i = 255 - i,  y_j = j,  in GF(2^8) modulo 0x11d, + is XOR
//!            (x_i + y_j) (x_0 + y_0)
//! ```
//!
//! Its first row and its first column are all ones: the first parity is the XOR of the data, one lost data shard comes
//! back by XOR alone, and (k-1)(m-1) products are left of k m. It depends neither on k nor on m, so that a stripe with
//! fewer data shards has the parity of one whose other data shards are zero, and the first parities of a stripe are the
//! same however many there are. **Parity is stored, so this formula is a format**: golden hashes in the tests pin it,
//! and `tests/golden_reference.py` derives the same hashes without this crate.
//!
//! # Any k of the k + m shards decode
//!
//! *Claim.* Every square submatrix of b is nonsingular, whenever k + m <= 255.
//!
//! *Proof.* Let a(i, j) = 1 / (x_i + y_j). Parity rows use x from 255 down to 256 - m, data columns use y from 0 up to
//! k - 1 < 256 - m; so all x and y are distinct, x_i + y_j is never 0 (in characteristic 2, a sum is 0 only for
//! equals), and a is a Cauchy matrix. A square Cauchy matrix on rows R and columns C has the determinant
//!
//! ```text
//! product over i < i' in R of (x_i + x_i')  *  product over j < j' in C of (y_j + y_j')
//! ---------------------------------------------------------------------------------
//!                 product over i in R, j in C of (x_i + y_j)
//! ```
//!
//! (signs don't matter in characteristic 2), every factor of which is a sum of two distinct elements, hence not 0; and
//! a square submatrix of a Cauchy matrix is one, too. Now b(i, j) = r_i a(i, j) c_j with r_i = (x_i + y_0) / (x_0 +
//! y_0) and c_j = x_0 + y_j, all of them not 0. Scaling rows and columns multiplies the determinant of a submatrix by
//! the r_i and c_j of its rows and columns, so it stays other than 0. Substituting i = 0, or j = 0, gives b = 1. ∎
//!
//! *Consequence.* Let E be the lost data shards among any k that are left, D the data shards among these, and Q the
//! parity shards among these: |Q| = k - |D| = |E|. Each parity q in Q says `sum over e in E of b(q, e) d_e = p_q + sum
//! over j in D of b(q, j) d_j`: |E| equations with |E| unknowns, whose matrix is a square submatrix of b, so they have
//! exactly one solution. That is also how decoding is done here: the matrix to invert is |E| by |E|, not k by k; and
//! since its leading submatrices are nonsingular as well, elimination never meets a zero pivot.
//!
//! **How it fails.** Everything that can be wrong with a call's shards is an [`ErasureError`], found before a byte is
//! written. Corruption is not detected by decoding: give [`ReedSolomon::reconstruct`] only shards whose checksums hold.
//!
//! ```
//! use penstock_erasure::ReedSolomon;
//!
//! let code = ReedSolomon::new(2, 2)?;
//! let data: [&[u8]; 2] = [b"two ", b"data"];
//! let (mut p, mut q) = ([0; 4], [0; 4]);
//! code.encode(&data, &mut [&mut p, &mut q])?;
//!
//! // Both data shards are lost; the parities are shards 2 and 3.
//! let (mut first, mut second) = ([0; 4], [0; 4]);
//! code.reconstruct(&[(2, &p), (3, &q)], &mut [(0, &mut first), (1, &mut second)])?;
//! assert_eq!([&first, &second], [b"two ", b"data"]);
//! # Ok::<(), penstock_erasure::ErasureError>(())
//! ```

#![forbid(unsafe_code)]

mod cache;
mod code;
mod error;
mod linear;
mod lrc;
mod matrix;
mod rebuild;
mod rs;

#[cfg(test)]
mod tests;

pub use cache::{DECODE_PLAN_BYTES_MAX, DECODE_PLANS_MAX};
pub use code::{Code, RepairPlan};
pub use error::ErasureError;
pub use lrc::Lrc;
pub use matrix::SHARDS_MAX;
pub use penstock_gf256::{TIER_VARIABLE, Tier, TierError};
pub use rs::ReedSolomon;
