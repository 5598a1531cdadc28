//! AVX2 with GFNI: a coefficient is applied to 32 bytes by one instruction, which multiplies them with its bit matrix.

use super::pclmul;
use crate::coefficients::{Coefficients, Group};
use crate::crc64::{State, fold_by};
use crate::field::affine;
use crate::lanes::{Kernel, Lanes};
use crate::sweep::{Job, sweep_group};
use std::arch::x86_64::{
    __m256i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm256_broadcastsi128_si256, _mm256_clmulepi64_epi128,
    _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_storeu_si256,
    _mm256_stream_si256, _mm256_xor_si256,
};

/// 32 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(__m256i);

// SAFETY (of every block in here): the caller has the tier's instructions, and bytes to load and store as the trait asks.
impl Lanes for Bytes {
    const BYTES: usize = 32;
    const COLUMNS: usize = 2;
    const PAIRS: bool = false;
    type Operand = __m256i;
    type Factor = __m256i;
    type Entry = u64;
    type Fold = __m256i;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,pclmulqdq,gfni,vpclmulqdq")]
        unsafe fn enabled<K: Kernel>(kernel: K) -> K::Output {
            // SAFETY: the caller's contract; instructions are enabled here.
            unsafe { kernel.call() }
        }
        // SAFETY: the caller's contract.
        unsafe { enabled(kernel) }
    }

    fn entries<'a>(coefficients: &'a Coefficients, group: &Group) -> &'a [u64] {
        coefficients.affine(group)
    }

    fn entry(coefficient: u8) -> &'static u64 {
        affine(coefficient)
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
    unsafe fn operand(self) -> __m256i {
        self.0
    }

    #[inline(always)]
    unsafe fn factor(entry: *const u64) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi64x((*entry).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: __m256i, operand: __m256i) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_xor_si256(self.0, _mm256_gf2p8affine_epi64_epi8::<0>(operand, factor)) })
    }

    #[inline(always)]
    unsafe fn add_products(self, a: (__m256i, __m256i), b: (__m256i, __m256i)) -> Self {
        // SAFETY: as above.
        unsafe { self.add_product(a.0, a.1).add_product(b.0, b.1) }
    }

    #[inline(always)]
    unsafe fn fold_constants() -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_broadcastsi128_si256(pclmul::constants(const { fold_by(256) })) }
    }

    #[inline(always)]
    unsafe fn fold(self, constants: __m256i, bytes: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let low = _mm256_clmulepi64_epi128::<0x00>(self.0, constants);
            let high = _mm256_clmulepi64_epi128::<0x11>(self.0, constants);
            Self(_mm256_xor_si256(_mm256_xor_si256(low, high), bytes.0))
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
