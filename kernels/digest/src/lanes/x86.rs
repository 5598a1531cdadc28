//! AVX2, 8 lanes, and AVX-512, 16.

use super::{BLOCK_WORDS, Kernel, Lanes, lane_methods};
use std::arch::x86_64::*;

/// Eight words.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Words(__m256i);

/// Sixteen words.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Words(__m512i);

/// Transposes 8 rows of 8 words.
///
/// # Safety
/// AVX2, enabled in the caller.
#[inline(always)]
unsafe fn transpose_8(r: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller's contract.
    unsafe {
        let [a0, a1] = [_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1])];
        let [a2, a3] = [_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3])];
        let [a4, a5] = [_mm256_unpacklo_epi32(r[4], r[5]), _mm256_unpackhi_epi32(r[4], r[5])];
        let [a6, a7] = [_mm256_unpacklo_epi32(r[6], r[7]), _mm256_unpackhi_epi32(r[6], r[7])];
        // Columns 0 to 3 (and 4 to 7 in the upper halves) of rows 0 to 3, then of rows 4 to 7.
        let [b0, b1] = [_mm256_unpacklo_epi64(a0, a2), _mm256_unpackhi_epi64(a0, a2)];
        let [b2, b3] = [_mm256_unpacklo_epi64(a1, a3), _mm256_unpackhi_epi64(a1, a3)];
        let [b4, b5] = [_mm256_unpacklo_epi64(a4, a6), _mm256_unpackhi_epi64(a4, a6)];
        let [b6, b7] = [_mm256_unpacklo_epi64(a5, a7), _mm256_unpackhi_epi64(a5, a7)];
        [
            _mm256_permute2x128_si256::<0x20>(b0, b4),
            _mm256_permute2x128_si256::<0x20>(b1, b5),
            _mm256_permute2x128_si256::<0x20>(b2, b6),
            _mm256_permute2x128_si256::<0x20>(b3, b7),
            _mm256_permute2x128_si256::<0x31>(b0, b4),
            _mm256_permute2x128_si256::<0x31>(b1, b5),
            _mm256_permute2x128_si256::<0x31>(b2, b6),
            _mm256_permute2x128_si256::<0x31>(b3, b7),
        ]
    }
}

impl Lanes for Avx2Words {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) {
        #[target_feature(enable = "avx2")]
        unsafe fn enabled<K: Kernel>(kernel: K) {
            // SAFETY: the caller's contract; instructions are enabled here.
            unsafe { kernel.call() }
        }
        // SAFETY: the caller's contract.
        unsafe { enabled(kernel) }
    }

    #[inline(always)]
    unsafe fn load_block(from: *const *const u8, offset: usize) -> [Self; BLOCK_WORDS] {
        // SAFETY: the trait's contract: 8 pointers, each with 64 readable bytes behind it at `offset`.
        unsafe {
            let mut words = [Self(_mm256_setzero_si256()); BLOCK_WORDS];
            let mut half = 0;
            while half < 2 {
                let mut rows = [_mm256_setzero_si256(); 8];
                let mut lane = 0;
                while lane < 8 {
                    rows[lane] = _mm256_loadu_si256((*from.add(lane)).add(offset + 32 * half).cast());
                    lane += 1;
                }
                let columns = transpose_8(rows);
                let mut i = 0;
                while i < 8 {
                    words[8 * half + i] = Self(columns[i]);
                    i += 1;
                }
                half += 1;
            }
            words
        }
    }

    lane_methods! {
        splat(word: u32) -> Self { Self(_mm256_set1_epi32(word as i32)) }
        load(from: *const u32) -> Self { Self(_mm256_loadu_si256(from.cast())) }
        store(value: Self, to: *mut u32) { _mm256_storeu_si256(to.cast(), value.0) }
        add(a: Self, b: Self) -> Self { Self(_mm256_add_epi32(a.0, b.0)) }
        rotate<const L: i32, const R: i32>(a: Self) -> Self {
            Self(_mm256_or_si256(_mm256_slli_epi32::<L>(a.0), _mm256_srli_epi32::<R>(a.0)))
        }
        shift_right<const N: i32>(a: Self) -> Self { Self(_mm256_srli_epi32::<N>(a.0)) }
        xor(a: Self, b: Self, c: Self) -> Self { Self(_mm256_xor_si256(_mm256_xor_si256(b.0, c.0), a.0)) }
        select(mask: Self, yes: Self, no: Self) -> Self {
            Self(_mm256_xor_si256(no.0, _mm256_and_si256(mask.0, _mm256_xor_si256(yes.0, no.0))))
        }
        majority(a: Self, b: Self, c: Self) -> Self {
            Self(_mm256_or_si256(_mm256_and_si256(a.0, _mm256_or_si256(b.0, c.0)), _mm256_and_si256(b.0, c.0)))
        }
        xor_or_not(b: Self, c: Self, d: Self) -> Self {
            let not_d = _mm256_xor_si256(d.0, _mm256_set1_epi32(-1));
            Self(_mm256_xor_si256(c.0, _mm256_or_si256(b.0, not_d)))
        }
        swap_bytes(a: Self) -> Self {
            let order = _mm256_set_epi8(
                12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3,
                12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3,
            );
            Self(_mm256_shuffle_epi8(a.0, order))
        }
    }
}

impl Lanes for Avx512Words {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) {
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn enabled<K: Kernel>(kernel: K) {
            // SAFETY: the caller's contract; instructions are enabled here.
            unsafe { kernel.call() }
        }
        // SAFETY: the caller's contract.
        unsafe { enabled(kernel) }
    }

    #[inline(always)]
    unsafe fn load_block(from: *const *const u8, offset: usize) -> [Self; BLOCK_WORDS] {
        // SAFETY: the trait's contract: 16 pointers, each with 64 readable bytes behind it at `offset`.
        unsafe {
            let mut words = [Self(_mm512_setzero_si512()); BLOCK_WORDS];
            // Rows 4q to 4q+3, transposed within quarters: register 4q+c has, in its quarter p, word 4p+c of each.
            let mut part = [_mm512_setzero_si512(); BLOCK_WORDS];
            let mut q = 0;
            while q < 4 {
                let a = _mm512_loadu_si512((*from.add(4 * q)).add(offset).cast());
                let b = _mm512_loadu_si512((*from.add(4 * q + 1)).add(offset).cast());
                let c = _mm512_loadu_si512((*from.add(4 * q + 2)).add(offset).cast());
                let d = _mm512_loadu_si512((*from.add(4 * q + 3)).add(offset).cast());
                let [ab_low, ab_high] = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
                let [cd_low, cd_high] = [_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d)];
                part[4 * q] = _mm512_unpacklo_epi64(ab_low, cd_low);
                part[4 * q + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
                part[4 * q + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
                part[4 * q + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
                q += 1;
            }
            // Then the quarters themselves, as a matrix of 4 by 4, for each c.
            let mut c = 0;
            while c < 4 {
                let low_even = _mm512_shuffle_i32x4::<0x88>(part[c], part[4 + c]);
                let low_odd = _mm512_shuffle_i32x4::<0xdd>(part[c], part[4 + c]);
                let high_even = _mm512_shuffle_i32x4::<0x88>(part[8 + c], part[12 + c]);
                let high_odd = _mm512_shuffle_i32x4::<0xdd>(part[8 + c], part[12 + c]);
                words[c] = Self(_mm512_shuffle_i32x4::<0x88>(low_even, high_even));
                words[4 + c] = Self(_mm512_shuffle_i32x4::<0x88>(low_odd, high_odd));
                words[8 + c] = Self(_mm512_shuffle_i32x4::<0xdd>(low_even, high_even));
                words[12 + c] = Self(_mm512_shuffle_i32x4::<0xdd>(low_odd, high_odd));
                c += 1;
            }
            words
        }
    }

    lane_methods! {
        splat(word: u32) -> Self { Self(_mm512_set1_epi32(word as i32)) }
        load(from: *const u32) -> Self { Self(_mm512_loadu_si512(from.cast())) }
        store(value: Self, to: *mut u32) { _mm512_storeu_si512(to.cast(), value.0) }
        add(a: Self, b: Self) -> Self { Self(_mm512_add_epi32(a.0, b.0)) }
        rotate<const L: i32, const R: i32>(a: Self) -> Self { Self(_mm512_rol_epi32::<L>(a.0)) }
        shift_right<const N: i32>(a: Self) -> Self { Self(_mm512_srl_epi32(a.0, _mm_cvtsi32_si128(N))) }
        // The numbers are truth tables: of the three inputs' bits, the first is the highest of the index.
        xor(a: Self, b: Self, c: Self) -> Self { Self(_mm512_ternarylogic_epi32::<0x96>(a.0, b.0, c.0)) }
        select(mask: Self, yes: Self, no: Self) -> Self {
            Self(_mm512_ternarylogic_epi32::<0xca>(mask.0, yes.0, no.0))
        }
        majority(a: Self, b: Self, c: Self) -> Self { Self(_mm512_ternarylogic_epi32::<0xe8>(a.0, b.0, c.0)) }
        xor_or_not(b: Self, c: Self, d: Self) -> Self { Self(_mm512_ternarylogic_epi32::<0x39>(b.0, c.0, d.0)) }
        swap_bytes(a: Self) -> Self {
            let order = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
            Self(_mm512_shuffle_epi8(a.0, order))
        }
    }
}
