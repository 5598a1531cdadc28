//! NEON, 4 lanes.

use super::{BLOCK_WORDS, Kernel, Lanes, lane_methods};
use std::arch::aarch64::*;

/// Four words.
#[derive(Clone, Copy)]
pub(crate) struct NeonWords(uint32x4_t);

impl Lanes for NeonWords {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) {
        #[target_feature(enable = "neon")]
        unsafe fn enabled<K: Kernel>(kernel: K) {
            // SAFETY: the caller's contract; instructions are enabled here.
            unsafe { kernel.call() }
        }
        // SAFETY: the caller's contract.
        unsafe { enabled(kernel) }
    }

    #[inline(always)]
    unsafe fn load_block(from: *const *const u8, offset: usize) -> [Self; BLOCK_WORDS] {
        // SAFETY: the trait's contract: 4 pointers, each with 64 readable bytes behind it at `offset`.
        unsafe {
            let mut words = [Self(vdupq_n_u32(0)); BLOCK_WORDS];
            let mut quarter = 0;
            while quarter < 4 {
                let at = offset + 16 * quarter;
                let a = vreinterpretq_u32_u8(vld1q_u8((*from).add(at)));
                let b = vreinterpretq_u32_u8(vld1q_u8((*from.add(1)).add(at)));
                let c = vreinterpretq_u32_u8(vld1q_u8((*from.add(2)).add(at)));
                let d = vreinterpretq_u32_u8(vld1q_u8((*from.add(3)).add(at)));
                let ab_even = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
                let ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
                let cd_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
                let cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
                words[4 * quarter] = Self(vreinterpretq_u32_u64(vtrn1q_u64(ab_even, cd_even)));
                words[4 * quarter + 1] = Self(vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd)));
                words[4 * quarter + 2] = Self(vreinterpretq_u32_u64(vtrn2q_u64(ab_even, cd_even)));
                words[4 * quarter + 3] = Self(vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd)));
                quarter += 1;
            }
            words
        }
    }

    lane_methods! {
        splat(word: u32) -> Self { Self(vdupq_n_u32(word)) }
        load(from: *const u32) -> Self { Self(vld1q_u32(from)) }
        store(value: Self, to: *mut u32) { vst1q_u32(to, value.0) }
        add(a: Self, b: Self) -> Self { Self(vaddq_u32(a.0, b.0)) }
        rotate<const L: i32, const R: i32>(a: Self) -> Self { Self(vsriq_n_u32::<R>(vshlq_n_u32::<L>(a.0), a.0)) }
        shift_right<const N: i32>(a: Self) -> Self { Self(vshrq_n_u32::<N>(a.0)) }
        xor(a: Self, b: Self, c: Self) -> Self { Self(veorq_u32(veorq_u32(b.0, c.0), a.0)) }
        select(mask: Self, yes: Self, no: Self) -> Self { Self(vbslq_u32(mask.0, yes.0, no.0)) }
        majority(a: Self, b: Self, c: Self) -> Self { Self(vbslq_u32(veorq_u32(a.0, b.0), c.0, b.0)) }
        xor_or_not(b: Self, c: Self, d: Self) -> Self { Self(veorq_u32(c.0, vornq_u32(b.0, d.0))) }
        swap_bytes(a: Self) -> Self { Self(vreinterpretq_u32_u8(vrev32q_u8(vreinterpretq_u8_u32(a.0)))) }
    }
}
