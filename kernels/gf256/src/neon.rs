//! NEON: a coefficient is applied to 16 bytes by two table look-ups, one per nibble; CRCs by PMULL.

use crate::coefficients::{Coefficients, Group};
use crate::crc64::{self, POLYNOMIAL_SHIFTED, QUOTIENT_SHIFTED, State, fold_by, x_to};
use crate::field::NibbleTable;
use crate::lanes::{Kernel, Lanes};
use crate::sweep::{Job, sweep_group};
use std::arch::aarch64::{
    uint8x16_t, uint64x2_t, vandq_u8, vdupq_n_u8, veorq_u8, vgetq_lane_u64, vld1q_u8, vmull_p64, vqtbl1q_u8,
    vreinterpretq_u8_p128, vreinterpretq_u64_u8, vshrq_n_u8, vst1q_u8,
};

/// 16 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(uint8x16_t);

/// The low and the high nibbles of 16 bytes, each as a byte below 16.
#[derive(Clone, Copy)]
pub(crate) struct Nibbles {
    low: uint8x16_t,
    high: uint8x16_t,
}

/// A [`NibbleTable`]'s two halves.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    low: uint8x16_t,
    high: uint8x16_t,
}

/// A carry-less product, as 16 bytes.
///
/// # Safety
/// PMULL ("aes"); inlined into a function that enables it.
#[inline(always)]
unsafe fn product(a: u64, b: u64) -> uint8x16_t {
    // SAFETY: the caller's contract.
    unsafe { vreinterpretq_u8_p128(vmull_p64(a, b)) }
}

/// The halves of 16 bytes.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn halves(bytes: uint8x16_t) -> [u64; 2] {
    // SAFETY: the caller's contract.
    unsafe {
        let words: uint64x2_t = vreinterpretq_u64_u8(bytes);
        [vgetq_lane_u64::<0>(words), vgetq_lane_u64::<1>(words)]
    }
}

/// 16 bytes, moved on by what `constants` say.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn moved(state: uint8x16_t, constants: [u64; 2]) -> uint8x16_t {
    // SAFETY: the caller's contract.
    unsafe {
        let [low, high] = halves(state);
        veorq_u8(product(low, constants[0]), product(high, constants[1]))
    }
}

/// 128 bits, the first 64 being `low`, modulo P, after Barrett: the quotient by multiplying with 1 / P.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn reduce(low: u64, high: u64) -> u64 {
    // SAFETY: the caller's contract.
    unsafe {
        let [quotient, _] = halves(product(low, QUOTIENT_SHIFTED));
        let [_, back] = halves(product(quotient, POLYNOMIAL_SHIFTED));
        back ^ quotient ^ high
    }
}

// SAFETY (of every block in here): the caller has the tier's instructions, and bytes to load and store as the trait asks.
impl Lanes for Bytes {
    const BYTES: usize = 16;
    const COLUMNS: usize = 4;
    const PAIRS: bool = false;
    type Operand = Nibbles;
    type Factor = Table;
    type Entry = NibbleTable;
    type Fold = [u64; 2];

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "neon,aes")]
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
        Self(unsafe { vdupq_n_u8(0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as above.
        Self(unsafe { vld1q_u8(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { vst1q_u8(to, self.0) }
    }

    /// An ordinary store: the instruction that hints at streaming (STNP) is for pairs, and cores differ in what they
    /// make of it.
    #[inline(always)]
    unsafe fn store_streaming(self, to: *mut u8) {
        // SAFETY: as above.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    unsafe fn fence() {}

    /// Nothing: prefetchers of these cores follow as many streams as there are load instructions.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { veorq_u8(self.0, other.0) })
    }

    unsafe fn sweep(job: Job<'_, '_, Self>, start: usize, end: usize, far: bool) {
        // SAFETY: the caller's contract.
        unsafe { sweep_group::<Self, { Self::COLUMNS }>(job, start, end, far) }
    }

    #[inline(always)]
    unsafe fn operand(self) -> Nibbles {
        // SAFETY: as above.
        unsafe { Nibbles { low: vandq_u8(self.0, vdupq_n_u8(15)), high: vshrq_n_u8::<4>(self.0) } }
    }

    #[inline(always)]
    unsafe fn factor(entry: *const NibbleTable) -> Table {
        // SAFETY: as above; the halves are 16 bytes each.
        unsafe { Table { low: vld1q_u8(entry.cast()), high: vld1q_u8(entry.cast::<u8>().add(16)) } }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Table, operand: Nibbles) -> Self {
        // SAFETY: as above.
        unsafe {
            let low = vqtbl1q_u8(factor.low, operand.low);
            let high = vqtbl1q_u8(factor.high, operand.high);
            Self(veorq_u8(veorq_u8(self.0, low), high))
        }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: (Table, Nibbles), b: (Table, Nibbles)) -> Self {
        // SAFETY: as above.
        unsafe { self.add_product(a.0, a.1).add_product(b.0, b.1) }
    }

    #[inline(always)]
    unsafe fn fold_constants() -> [u64; 2] {
        const { fold_by(128) }
    }

    #[inline(always)]
    unsafe fn fold(self, constants: [u64; 2], bytes: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { veorq_u8(moved(self.0, constants), bytes.0) })
    }

    #[inline(always)]
    unsafe fn remainder(state: &State, rest: &[u8]) -> u64 {
        // SAFETY: as above; a state is as long as the widest register. The register stands for low * x^64 + high; its
        // remainder is that times x^64.
        unsafe {
            let [low, high] = halves(vld1q_u8(state.0.as_ptr()));
            let [low, moved] = halves(product(low, const { x_to(127) }));
            crc64::update(reduce(low ^ high, moved), rest)
        }
    }

    #[inline(always)]
    unsafe fn multiply(a: u64, b: u64) -> u64 {
        // SAFETY: as above.
        unsafe {
            let [low, high] = halves(product(a, b));
            reduce(low << 1, high << 1 | low >> 63)
        }
    }
}
