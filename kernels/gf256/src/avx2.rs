//! AVX2: a coefficient is applied to 32 bytes by two byte shuffles, one per nibble.

use crate::coefficients::Coefficients;
use crate::field::NibbleTable;
use crate::tier::Avx2;
use crate::vector::{self, Vector};
use std::arch::x86_64::{
    __m128i, __m256i, _mm_load_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};

#[derive(Clone, Copy)]
struct Bytes32(__m256i);

/// The low and the high nibbles of 32 bytes, each as a byte below 16.
#[derive(Clone, Copy)]
struct Nibbles {
    low: __m256i,
    high: __m256i,
}

/// A [`NibbleTable`]'s two halves, each repeated in both lanes.
#[derive(Clone, Copy)]
struct Table {
    low: __m256i,
    high: __m256i,
}

impl Vector for Bytes32 {
    const BYTES: usize = 32;
    type Split = Nibbles;
    type Table = Table;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller has AVX2 and 32 readable bytes; the instruction needs no alignment.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller has AVX2 and 32 writable bytes; the instruction needs no alignment.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn split(self) -> Nibbles {
        // SAFETY: the caller has AVX2.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            Nibbles {
                low: _mm256_and_si256(self.0, mask),
                high: _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), mask),
            }
        }
    }

    #[inline(always)]
    unsafe fn table(table: &NibbleTable) -> Table {
        // SAFETY: the caller has AVX2; the halves are 16 bytes each, and aligned to 16 because the table is to 32.
        unsafe {
            Table {
                low: _mm256_broadcastsi128_si256(_mm_load_si128(table.low.as_ptr().cast::<__m128i>())),
                high: _mm256_broadcastsi128_si256(_mm_load_si128(table.high.as_ptr().cast::<__m128i>())),
            }
        }
    }

    #[inline(always)]
    unsafe fn product(table: Table, bytes: Nibbles) -> Self {
        // SAFETY: the caller has AVX2.
        unsafe {
            let low = _mm256_shuffle_epi8(table.low, bytes.low);
            let high = _mm256_shuffle_epi8(table.high, bytes.high);
            Self(_mm256_xor_si256(low, high))
        }
    }
}

/// See [`crate::dot_product`], which has checked counts and lengths.
pub(crate) fn dot_product(_: Avx2, coefficients: &Coefficients, sources: &[&[u8]], destinations: &mut [&mut [u8]]) {
    #[target_feature(enable = "avx2")]
    unsafe fn enabled(coefficients: &Coefficients, sources: &[&[u8]], destinations: &mut [&mut [u8]]) {
        // SAFETY: AVX2 is enabled here; the rest is this function's contract.
        unsafe { vector::dot_product::<Bytes32>(coefficients, sources, destinations) }
    }
    // SAFETY: the proof says that this CPU has AVX2; counts and lengths were checked.
    unsafe { enabled(coefficients, sources, destinations) }
}

/// See [`crate::mul_add`], which has checked lengths.
pub(crate) fn mul_add(_: Avx2, table: &NibbleTable, source: &[u8], destination: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    unsafe fn enabled(table: &NibbleTable, source: &[u8], destination: &mut [u8]) {
        // SAFETY: AVX2 is enabled here; the rest is this function's contract.
        unsafe { vector::mul_add::<Bytes32>(table, source, destination) }
    }
    // SAFETY: the proof says that this CPU has AVX2; lengths were checked.
    unsafe { enabled(table, source, destination) }
}

/// See [`crate::xor`], which has checked lengths.
pub(crate) fn xor(_: Avx2, source: &[u8], destination: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    unsafe fn enabled(source: &[u8], destination: &mut [u8]) {
        // SAFETY: AVX2 is enabled here; the rest is this function's contract.
        unsafe { vector::xor::<Bytes32>(source, destination) }
    }
    // SAFETY: the proof says that this CPU has AVX2; lengths were checked.
    unsafe { enabled(source, destination) }
}
