//! MD5's compression function (RFC 1321), over any width.

use super::{BLOCK_BYTES, Kernel, Lanes};

/// Words of a state.
pub(crate) const STATE_WORDS: usize = 4;
/// The state before the first block.
pub(crate) const INITIAL: [u32; STATE_WORDS] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The integer part of 2^32 times |sin(i + 1)|.
static CONSTANTS: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

/// See [`super::Wide`].
struct Md5Blocks<V> {
    states: *mut u32,
    inputs: *const *const u8,
    blocks: usize,
    width: std::marker::PhantomData<V>,
}

/// Four steps, after which the names are back where they were.
macro_rules! steps {
    ($V:ident, $words:ident, $a:ident, $b:ident, $c:ident, $d:ident, $f:ident, $rotates:tt,
     $([$i0:literal $w0:literal, $i1:literal $w1:literal, $i2:literal $w2:literal, $i3:literal $w3:literal]),+) => {$(
        steps!(@four $V, $words, $a, $b, $c, $d, $f, $rotates, $i0 $w0, $i1 $w1, $i2 $w2, $i3 $w3);
    )+};
    (@four $V:ident, $words:ident, $a:ident, $b:ident, $c:ident, $d:ident, $f:ident,
     [$r0:literal, $r1:literal, $r2:literal, $r3:literal],
     $i0:literal $w0:literal, $i1:literal $w1:literal, $i2:literal $w2:literal, $i3:literal $w3:literal) => {
        $a = steps!(@one $V, $words, $a, $b, $c, $d, $f, $r0, $i0, $w0);
        $d = steps!(@one $V, $words, $d, $a, $b, $c, $f, $r1, $i1, $w1);
        $c = steps!(@one $V, $words, $c, $d, $a, $b, $f, $r2, $i2, $w2);
        $b = steps!(@one $V, $words, $b, $c, $d, $a, $f, $r3, $i3, $w3);
    };
    // What doesn't depend on the step before (`b` does) is added first, off the chain.
    (@one $V:ident, $words:ident, $a:ident, $b:ident, $c:ident, $d:ident, $f:ident, $r:literal, $i:literal, $w:literal) => {{
        let ready = $V::add($a, $V::add($words[$w], $V::splat(CONSTANTS[$i])));
        let sum = $V::add(ready, steps!(@$f $V, $b, $c, $d));
        $V::add($b, $V::rotate::<$r, { 32 - $r }>(sum))
    }};
    (@first $V:ident, $b:ident, $c:ident, $d:ident) => { $V::select($b, $c, $d) };
    (@second $V:ident, $b:ident, $c:ident, $d:ident) => { $V::select($d, $b, $c) };
    (@third $V:ident, $b:ident, $c:ident, $d:ident) => { $V::xor($b, $c, $d) };
    (@fourth $V:ident, $b:ident, $c:ident, $d:ident) => { $V::xor_or_not($b, $c, $d) };
}

impl<V: Lanes> Kernel for Md5Blocks<V> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the trait's contract.
        unsafe {
            let [mut a, mut b, mut c, mut d] = [
                V::load(self.states),
                V::load(self.states.add(V::LANES)),
                V::load(self.states.add(2 * V::LANES)),
                V::load(self.states.add(3 * V::LANES)),
            ];
            let mut block = 0;
            while block < self.blocks {
                let words = V::load_block(self.inputs, block * BLOCK_BYTES);
                let before = [a, b, c, d];
                steps!(V, words, a, b, c, d, first, [7, 12, 17, 22],
                    [0 0, 1 1, 2 2, 3 3],
                    [4 4, 5 5, 6 6, 7 7],
                    [8 8, 9 9, 10 10, 11 11],
                    [12 12, 13 13, 14 14, 15 15]);
                steps!(V, words, a, b, c, d, second, [5, 9, 14, 20],
                    [16 1, 17 6, 18 11, 19 0],
                    [20 5, 21 10, 22 15, 23 4],
                    [24 9, 25 14, 26 3, 27 8],
                    [28 13, 29 2, 30 7, 31 12]);
                steps!(V, words, a, b, c, d, third, [4, 11, 16, 23],
                    [32 5, 33 8, 34 11, 35 14],
                    [36 1, 37 4, 38 7, 39 10],
                    [40 13, 41 0, 42 3, 43 6],
                    [44 9, 45 12, 46 15, 47 2]);
                steps!(V, words, a, b, c, d, fourth, [6, 10, 15, 21],
                    [48 0, 49 7, 50 14, 51 5],
                    [52 12, 53 3, 54 10, 55 1],
                    [56 8, 57 15, 58 6, 59 13],
                    [60 4, 61 11, 62 2, 63 9]);
                a = V::add(a, before[0]);
                b = V::add(b, before[1]);
                c = V::add(c, before[2]);
                d = V::add(d, before[3]);
                block += 1;
            }
            V::store(a, self.states);
            V::store(b, self.states.add(V::LANES));
            V::store(c, self.states.add(2 * V::LANES));
            V::store(d, self.states.add(3 * V::LANES));
        }
    }
}

/// A [`super::Wide`] for MD5.
///
/// # Safety
/// As [`super::Wide`].
pub(crate) unsafe fn compress<V: Lanes>(states: *mut u32, inputs: *const *const u8, blocks: usize) {
    // SAFETY: the caller's contract.
    unsafe { V::run(Md5Blocks::<V> { states, inputs, blocks, width: std::marker::PhantomData }) }
}
