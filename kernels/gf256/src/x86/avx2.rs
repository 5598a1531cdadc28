//! AVX2: a coefficient is applied to 32 bytes by two byte shuffles, one per nibble.

use super::pclmul;
use crate::coefficients::{Coefficients, Group};
use crate::crc64::{State, fold_by};
use crate::field::NibbleTable;
use crate::lanes::{Kernel, Lanes};
use crate::sweep::{Job, sweep_group};
use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_load_si128, _mm_prefetch, _mm_sfence, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_set_m128i, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_stream_si256, _mm256_xor_si256,
};

/// 32 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(__m256i);

/// The low and the high nibbles of 32 bytes, each as a byte below 16.
#[derive(Clone, Copy)]
pub(crate) struct Nibbles {
    low: __m256i,
    high: __m256i,
}

/// A [`NibbleTable`]'s two halves, each repeated in both lanes.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    low: __m256i,
    high: __m256i,
}

// SAFETY (of every block in here): the caller has the tier's instructions, and bytes to load and store as the trait asks.
impl Lanes for Bytes {
    const BYTES: usize = 32;
    const COLUMNS: usize = 2;
    const PAIRS: bool = false;
    type Operand = Nibbles;
    type Factor = Table;
    type Entry = NibbleTable;
    type Fold = __m128i;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,pclmulqdq")]
        unsafe fn enabled<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's contract; instructions are enabled here.
            unsafe { kernel.call() }
        }
        // SAFETY: the caller's contract.
        unsafe { enabled(kernel) }
    }

    fn entries<'a>(coefficients: &'a Coefficients, group: &Group) -> &'a [NibbleTable] {
        coefficients.nibbles(group)
    }

    fn entry(coefficient: u8) -> &'static NibbleTable {
        NibbleTable::of(coefficient)
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn store_streaming(self, to: *mut u8) {
        // SAFETY: as above; the caller has aligned `to`, and fences.
        unsafe { _mm256_stream_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: as above.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: as above; a prefetch may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    unsafe fn sweep(job: Job<'_, '_, Self>, start: usize, end: usize, far: bool) {
        // SAFETY: the caller's contract.
        unsafe { sweep_group::<Self, { Self::COLUMNS }>(job, start, end, far) }
    }

    #[inline(always)]
    unsafe fn operand(self) -> Nibbles {
        // SAFETY: as above.
        unsafe {
            let mask = _mm256_set1_epi8(15);
            Nibbles {
                low: _mm256_and_si256(self.0, mask),
                high: _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), mask),
            }
        }
    }

    #[inline(always)]
    unsafe fn factor(entry: *const NibbleTable) -> Table {
        // SAFETY: as above; the halves are 16 bytes each, and aligned to 16 because the table is to 32.
        unsafe {
            let halves = entry.cast::<__m128i>();
            Table {
                low: _mm256_broadcastsi128_si256(_mm_load_si128(halves)),
                high: _mm256_broadcastsi128_si256(_mm_load_si128(halves.add(1))),
            }
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Table, operand: Nibbles) -> Self {
        // SAFETY: as above.
        unsafe {
            let low = _mm256_shuffle_epi8(factor.low, operand.low);
            let high = _mm256_shuffle_epi8(factor.high, operand.high);
            Self(_mm256_xor_si256(_mm256_xor_si256(self.0, low), high))
        }
    }

    /// First all low nibbles, then all high ones, so that a table's halves need one register in turn: with both at once,
    /// sums would not stay in registers.
    #[inline(always)]
    unsafe fn add_row<const C: usize>(sums: [Self; C], entry: *const NibbleTable, operands: [Nibbles; C]) -> [Self; C] {
        let mut sums = sums;
        // SAFETY: as above.
        unsafe {
            let halves = entry.cast::<__m128i>();
            let low = _mm256_broadcastsi128_si256(_mm_load_si128(halves));
            let mut column = 0;
            while column < C {
                sums[column].0 = _mm256_xor_si256(sums[column].0, _mm256_shuffle_epi8(low, operands[column].low));
                column += 1;
            }
            let high = _mm256_broadcastsi128_si256(_mm_load_si128(halves.add(1)));
            column = 0;
            while column < C {
                sums[column].0 = _mm256_xor_si256(sums[column].0, _mm256_shuffle_epi8(high, operands[column].high));
                column += 1;
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn add_products(self, a: (Table, Nibbles), b: (Table, Nibbles)) -> Self {
        // SAFETY: as above.
        unsafe { self.add_product(a.0, a.1).add_product(b.0, b.1) }
    }

    #[inline(always)]
    unsafe fn fold_constants() -> __m128i {
        // SAFETY: as above.
        unsafe { pclmul::constants(const { fold_by(256) }) }
    }

    #[inline(always)]
    unsafe fn fold(self, constants: __m128i, bytes: Self) -> Self {
        // SAFETY: as above. Carry-less multiplication is of 16 bytes here: wider ones came later than AVX2.
        unsafe {
            let (state_high, bytes_high) =
                (_mm256_extracti128_si256::<1>(self.0), _mm256_extracti128_si256::<1>(bytes.0));
            let low = pclmul::fold(_mm256_castsi256_si128(self.0), constants, _mm256_castsi256_si128(bytes.0));
            Self(_mm256_set_m128i(pclmul::fold(state_high, constants, bytes_high), low))
        }
    }

    #[inline(always)]
    unsafe fn remainder(state: &State, rest: &[u8]) -> u64 {
        // SAFETY: as above; a state is as long as the widest register.
        unsafe { pclmul::remainder(state.0.as_ptr(), Self::BYTES, rest) }
    }

    #[inline(always)]
    unsafe fn multiply(a: u64, b: u64) -> u64 {
        // SAFETY: as above.
        unsafe { pclmul::multiply(a, b) }
    }
}
