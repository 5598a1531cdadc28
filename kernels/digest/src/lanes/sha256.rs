//! SHA-256's compression function (FIPS 180-4), over any width.

use super::{BLOCK_BYTES, BLOCK_WORDS, Kernel, Lanes};

/// Words of a state.
pub(crate) const STATE_WORDS: usize = 8;
/// The state before the first block.
pub(crate) const INITIAL: [u32; STATE_WORDS] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
static CONSTANTS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// See [`super::Wide`].
struct Sha256Blocks<V> {
    states: *mut u32,
    inputs: *const *const u8,
    blocks: usize,
    width: std::marker::PhantomData<V>,
}

/// Eight rounds, after which the names are back where they were. `$constants` points to the first round's of 16.
/// With `extend`, a word that has been used becomes the one of 16 rounds later, at once: its instructions then fill the
/// cycles in which the rounds wait for each other.
macro_rules! rounds {
    ($V:ident, $words:ident, $constants:expr, $s:ident, $how:ident, [$($w:literal),+]) => {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = $s;
        rounds!(@all $V, $words, $constants, a, b, c, d, e, f, g, h, $how, [$($w),+]);
        $s = [a, b, c, d, e, f, g, h];
    };
    (@all $V:ident, $words:ident, $constants:expr, $a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident,
     $g:ident, $h:ident, $how:ident, [$w0:literal, $w1:literal, $w2:literal, $w3:literal, $w4:literal, $w5:literal,
     $w6:literal, $w7:literal]) => {
        rounds!(@one $V, $words, $constants, $a, $b, $c, $d, $e, $f, $g, $h, $how, $w0);
        rounds!(@one $V, $words, $constants, $h, $a, $b, $c, $d, $e, $f, $g, $how, $w1);
        rounds!(@one $V, $words, $constants, $g, $h, $a, $b, $c, $d, $e, $f, $how, $w2);
        rounds!(@one $V, $words, $constants, $f, $g, $h, $a, $b, $c, $d, $e, $how, $w3);
        rounds!(@one $V, $words, $constants, $e, $f, $g, $h, $a, $b, $c, $d, $how, $w4);
        rounds!(@one $V, $words, $constants, $d, $e, $f, $g, $h, $a, $b, $c, $how, $w5);
        rounds!(@one $V, $words, $constants, $c, $d, $e, $f, $g, $h, $a, $b, $how, $w6);
        rounds!(@one $V, $words, $constants, $b, $c, $d, $e, $f, $g, $h, $a, $how, $w7);
    };
    (@one $V:ident, $words:ident, $constants:expr, $a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident,
     $g:ident, $h:ident, $how:ident, $w:literal) => {
        let ready = $V::add($h, $V::add($words[$w], $V::splat(*$constants.add($w))));
        let sigma = $V::xor($V::rotate::<26, 6>($e), $V::rotate::<21, 11>($e), $V::rotate::<7, 25>($e));
        let first = $V::add($V::add(ready, $V::select($e, $f, $g)), sigma);
        rounds!(@$how $V, $words, $w);
        let sigma = $V::xor($V::rotate::<30, 2>($a), $V::rotate::<19, 13>($a), $V::rotate::<10, 22>($a));
        $d = $V::add($d, first);
        $h = $V::add(first, $V::add(sigma, $V::majority($a, $b, $c)));
    };
    (@keep $V:ident, $words:ident, $w:literal) => {};
    (@extend $V:ident, $words:ident, $w:literal) => {
        let near = $words[($w + 1) % BLOCK_WORDS];
        let near = $V::xor($V::rotate::<25, 7>(near), $V::rotate::<14, 18>(near), $V::shift_right::<3>(near));
        let far = $words[($w + 14) % BLOCK_WORDS];
        let far = $V::xor($V::rotate::<15, 17>(far), $V::rotate::<13, 19>(far), $V::shift_right::<10>(far));
        $words[$w] = $V::add($V::add($words[$w], near), $V::add($words[($w + 9) % BLOCK_WORDS], far));
    };
}

impl<V: Lanes> Kernel for Sha256Blocks<V> {
    #[inline(always)]
    unsafe fn call(self) {
        // SAFETY: the trait's contract; `constants` stays within CONSTANTS: 3 times 16 and 16 from there.
        unsafe {
            let mut state = [V::splat(0); STATE_WORDS];
            let mut i = 0;
            while i < STATE_WORDS {
                state[i] = V::load(self.states.add(i * V::LANES));
                i += 1;
            }
            let mut block = 0;
            while block < self.blocks {
                let mut words = V::load_block(self.inputs, block * BLOCK_BYTES);
                let mut i = 0;
                while i < BLOCK_WORDS {
                    words[i] = V::swap_bytes(words[i]);
                    i += 1;
                }
                let before = state;
                let mut constants = CONSTANTS.as_ptr();
                let mut sixteen = 0;
                while sixteen < 3 {
                    rounds!(V, words, constants, state, extend, [0, 1, 2, 3, 4, 5, 6, 7]);
                    rounds!(V, words, constants, state, extend, [8, 9, 10, 11, 12, 13, 14, 15]);
                    constants = constants.add(BLOCK_WORDS);
                    sixteen += 1;
                }
                rounds!(V, words, constants, state, keep, [0, 1, 2, 3, 4, 5, 6, 7]);
                rounds!(V, words, constants, state, keep, [8, 9, 10, 11, 12, 13, 14, 15]);
                let mut i = 0;
                while i < STATE_WORDS {
                    state[i] = V::add(state[i], before[i]);
                    i += 1;
                }
                block += 1;
            }
            let mut i = 0;
            while i < STATE_WORDS {
                V::store(state[i], self.states.add(i * V::LANES));
                i += 1;
            }
        }
    }
}

/// A [`super::Wide`] for SHA-256.
///
/// # Safety
/// As [`super::Wide`].
pub(crate) unsafe fn compress<V: Lanes>(states: *mut u32, inputs: *const *const u8, blocks: usize) {
    // SAFETY: the caller's contract.
    unsafe { V::run(Sha256Blocks::<V> { states, inputs, blocks, width: std::marker::PhantomData }) }
}
