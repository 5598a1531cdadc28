//! The tiers of x86-64.

pub(crate) mod avx2;
pub(crate) mod avx2_gfni;
pub(crate) mod avx512_gfni;
mod pclmul;
