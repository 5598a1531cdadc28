//! AVX-512 with GFNI: a coefficient is applied to 64 bytes by one instruction, which multiplies them with its bit matrix.

use super::pclmul;
use crate::coefficients::{Coefficients, Group};
use crate::crc64::{State, fold_by};
use crate::field::affine;
use crate::lanes::{Kernel, Lanes};
use crate::sweep::{Job, sweep_group};
use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm512_broadcast_i32x4, _mm512_clmulepi64_epi128,
    _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_stream_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

/// The truth table of a sum of three.
const SUM: i32 = 0x96;

/// 64 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(__m512i);

/// In assembly, so that the sum stays in its register: the compiler overwrites a product's instead, and copies it back
/// where two ways through the unrolled code meet.
///
/// # Safety
/// AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn sum_of_three(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let mut sum = sum;
    // SAFETY: AVX-512F is enabled; only the operands are read and written.
    unsafe {
        asm!(
            "vpternlogq {sum}, {a}, {b}, 0x96",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

// SAFETY (of every block in here): the caller has the tier's instructions, and bytes to load and store as the trait asks.
impl Lanes for Bytes {
    const BYTES: usize = 64;
    const COLUMNS: usize = 4;
    const PAIRS: bool = true;
    type Operand = __m512i;
    type Factor = __m512i;
    type Entry = u64;
    type Fold = __m512i;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,pclmulqdq,gfni,vpclmulqdq")]
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
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn store_streaming(self, to: *mut u8) {
        // SAFETY: as above; the caller has aligned `to`, and fences.
        unsafe { _mm512_stream_si512(to.cast(), self.0) }
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
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    unsafe fn sweep(job: Job<'_, '_, Self>, start: usize, end: usize, far: bool) {
        // SAFETY: the caller's contract.
        unsafe { sweep_group::<Self, { Self::COLUMNS }>(job, start, end, far) }
    }

    #[inline(always)]
    unsafe fn operand(self) -> __m512i {
        self.0
    }

    #[inline(always)]
    unsafe fn factor(entry: *const u64) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi64((*entry).cast_signed()) }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: __m512i, operand: __m512i) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_xor_si512(self.0, _mm512_gf2p8affine_epi64_epi8::<0>(operand, factor)) })
    }

    #[inline(always)]
    unsafe fn add_products(self, a: (__m512i, __m512i), b: (__m512i, __m512i)) -> Self {
        // SAFETY: as above.
        unsafe {
            let a = _mm512_gf2p8affine_epi64_epi8::<0>(a.1, a.0);
            let b = _mm512_gf2p8affine_epi64_epi8::<0>(b.1, b.0);
            Self(sum_of_three(self.0, a, b))
        }
    }

    #[inline(always)]
    unsafe fn fold_constants() -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_broadcast_i32x4(pclmul::constants(const { fold_by(512) })) }
    }

    #[inline(always)]
    unsafe fn fold(self, constants: __m512i, bytes: Self) -> Self {
        // SAFETY: as above.
        unsafe {
            let low = _mm512_clmulepi64_epi128::<0x00>(self.0, constants);
            let high = _mm512_clmulepi64_epi128::<0x11>(self.0, constants);
            Self(_mm512_ternarylogic_epi64::<SUM>(low, high, bytes.0))
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
