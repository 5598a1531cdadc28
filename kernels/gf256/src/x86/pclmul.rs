//! The ends of a CRC64NVME, 16 bytes at a time: from a state and what follows it to a remainder. Every tier of x86 has
//! PCLMULQDQ (see `tier`).

use crate::crc64::{self, POLYNOMIAL_SHIFTED, QUOTIENT_SHIFTED, fold_by, x_to};
use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_set_epi64x,
    _mm_srli_si128, _mm_unpackhi_epi64, _mm_xor_si128,
};

/// Constants that move 16 bytes on by 16.
const BY_16_BYTES: [u64; 2] = fold_by(128);
/// Moves the low half on by 128 bits.
const BY_128_BITS: u64 = x_to(127);

/// 16 bytes, moved on by what `constants` say and added to the next.
///
/// # Safety
/// PCLMULQDQ; inlined into a function that enables it.
#[inline(always)]
pub(crate) unsafe fn fold(state: __m128i, constants: __m128i, bytes: __m128i) -> __m128i {
    // SAFETY: the caller's contract.
    unsafe {
        let low = _mm_clmulepi64_si128::<0x00>(state, constants);
        let high = _mm_clmulepi64_si128::<0x11>(state, constants);
        _mm_xor_si128(_mm_xor_si128(low, high), bytes)
    }
}

/// A pair of constants in a register.
///
/// # Safety
/// SSE2, as [`fold`].
#[inline(always)]
pub(crate) unsafe fn constants([low, high]: [u64; 2]) -> __m128i {
    // SAFETY: the caller's contract.
    unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
}

/// Remainder of a state's bytes and what follows.
///
/// # Safety
/// As [`fold`]; `state` has `state_bytes` readable bytes, a multiple of 16 and not 0.
#[inline(always)]
pub(crate) unsafe fn remainder(state: *const u8, state_bytes: usize, rest: &[u8]) -> u64 {
    // SAFETY: the caller's contract; chunks are 16 bytes.
    unsafe {
        let constants = constants(BY_16_BYTES);
        let mut sum = _mm_loadu_si128(state.cast());
        let mut at = 16;
        while at < state_bytes {
            sum = fold(sum, constants, _mm_loadu_si128(state.add(at).cast()));
            at += 16;
        }
        let (chunks, rest) = rest.as_chunks::<16>();
        for chunk in chunks {
            sum = fold(sum, constants, _mm_loadu_si128(chunk.as_ptr().cast()));
        }
        // The sum is low * x^64 + high; its remainder is that times x^64.
        let low = _mm_clmulepi64_si128::<0x00>(sum, _mm_cvtsi64_si128(BY_128_BITS.cast_signed()));
        crc64::update(reduce(_mm_xor_si128(low, _mm_srli_si128::<8>(sum))), rest)
    }
}

/// Product modulo P.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
pub(crate) unsafe fn multiply(a: u64, b: u64) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        let product =
            _mm_clmulepi64_si128::<0x00>(_mm_cvtsi64_si128(a.cast_signed()), _mm_cvtsi64_si128(b.cast_signed()));
        let low = _mm_cvtsi128_si64(product).cast_unsigned();
        let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(product, product)).cast_unsigned();
        reduce(constants([low << 1, high << 1 | low >> 63]))
    }
}

/// 128 bits modulo P, after Barrett: the quotient by multiplying with 1 / P.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn reduce(sum: __m128i) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        let by = constants([QUOTIENT_SHIFTED, POLYNOMIAL_SHIFTED]);
        let quotient = _mm_clmulepi64_si128::<0x00>(sum, by);
        let back = _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(quotient, by), sum);
        _mm_cvtsi128_si64(_mm_xor_si128(_mm_unpackhi_epi64(back, back), quotient)).cast_unsigned()
    }
}
