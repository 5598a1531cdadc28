//! Many independent messages at once, one per lane of a register: what a tier must do with one register of 32-bit
//! words, and two such registers taken as one.
//!
//! The compression functions (`md5`, `sha256`) are written once, over [`Lanes`]. Everything is `inline(always)` down
//! from [`Lanes::run`], so that it is compiled with the instructions enabled there; for the same reason there are no
//! closures.

pub(crate) mod md5;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod sha256;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Bytes of a block of MD5 and of SHA-256.
pub(crate) const BLOCK_BYTES: usize = 64;
/// Words of a block.
pub(crate) const BLOCK_WORDS: usize = 16;
/// Most lanes that a kernel takes.
pub(crate) const LANES_MAX: usize = 32;

/// Compresses `blocks` blocks in every lane.
///
/// # Safety
/// The CPU has the tier's instructions. The first pointer is to the states, word by word, each with one `u32` per lane:
/// readable and writable. The second is to one pointer per lane, each to `blocks * 64` readable bytes.
pub(crate) type Wide = unsafe fn(*mut u32, *const *const u8, usize);

/// One kernel: how many lanes it takes, and its entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WideKernel {
    pub(crate) lanes: usize,
    pub(crate) entry: Wide,
}

/// A loop, handed to [`Lanes::run`] with its arguments in its fields.
pub(crate) trait Kernel {
    /// Runs it. `inline(always)` in every implementation.
    ///
    /// # Safety
    /// As [`Wide`], with the instructions of the tier that it is generic over enabled in the caller.
    unsafe fn call(self);
}

/// One register of 32-bit words.
///
/// # Safety
/// All methods need the CPU instructions of the implementing tier, and all but `run` are to be inlined into a
/// [`Kernel`] that `run` runs. Loads and stores are of [`Lanes::LANES`] words, of any alignment.
pub(crate) trait Lanes: Copy {
    /// Words in it.
    const LANES: usize;

    /// Calls the kernel from a function in which the tier's instructions are enabled.
    unsafe fn run<K: Kernel>(kernel: K);
    unsafe fn splat(word: u32) -> Self;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(value: Self, to: *mut u32);
    unsafe fn add(a: Self, b: Self) -> Self;
    /// Rotates left by L and right by R, which add up to 32: registers shift by immediates, which Rust can't compute.
    unsafe fn rotate<const L: i32, const R: i32>(a: Self) -> Self;
    unsafe fn shift_right<const N: i32>(a: Self) -> Self;
    unsafe fn xor(a: Self, b: Self, c: Self) -> Self;
    /// Bits of `yes` where `mask` has ones, of `no` elsewhere.
    unsafe fn select(mask: Self, yes: Self, no: Self) -> Self;
    unsafe fn majority(a: Self, b: Self, c: Self) -> Self;
    /// `c ^ (b | !d)`, which MD5's last round takes.
    unsafe fn xor_or_not(b: Self, c: Self, d: Self) -> Self;
    /// Reverses the bytes of each word.
    unsafe fn swap_bytes(a: Self) -> Self;
    /// The 16 little-endian words of one block of each lane: register i has everyone's word i.
    /// `from` points to one pointer per lane; the blocks are `offset` bytes behind these, readable.
    unsafe fn load_block(from: *const *const u8, offset: usize) -> [Self; BLOCK_WORDS];
}

/// Two registers as one of twice the lanes, their instructions interleaved: a hash is one long chain of dependent
/// instructions, and a second chain fills the cycles in which the first waits.
#[derive(Clone, Copy)]
pub(crate) struct Pair<V>(V, V);

/// A method of [`Pair`] that does the same to both halves.
macro_rules! both {
    ($($name:ident $(<$(const $c:ident: i32),+>)? ($($arg:ident),+);)*) => {$(
        #[inline(always)]
        unsafe fn $name$(<$(const $c: i32),+>)?($($arg: Self),+) -> Self {
            // SAFETY: the trait's contract, which is that of the halves.
            unsafe { Self(V::$name$(::<$($c),+>)?($($arg.0),+), V::$name$(::<$($c),+>)?($($arg.1),+)) }
        }
    )*};
}

impl<V: Lanes> Lanes for Pair<V> {
    const LANES: usize = 2 * V::LANES;

    #[inline(always)]
    unsafe fn run<K: Kernel>(kernel: K) {
        // SAFETY: the trait's contract.
        unsafe { V::run(kernel) }
    }

    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { Self(V::splat(word), V::splat(word)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: the trait's contract: there are twice as many words as one half takes.
        unsafe { Self(V::load(from), V::load(from.add(V::LANES))) }
    }

    #[inline(always)]
    unsafe fn store(value: Self, to: *mut u32) {
        // SAFETY: as `load`.
        unsafe {
            V::store(value.0, to);
            V::store(value.1, to.add(V::LANES));
        }
    }

    #[inline(always)]
    unsafe fn load_block(from: *const *const u8, offset: usize) -> [Self; BLOCK_WORDS] {
        // SAFETY: as `load`, of pointers.
        unsafe {
            let (low, high) = (V::load_block(from, offset), V::load_block(from.add(V::LANES), offset));
            let mut words = [Self(low[0], high[0]); BLOCK_WORDS];
            let mut i = 1;
            while i < BLOCK_WORDS {
                words[i] = Self(low[i], high[i]);
                i += 1;
            }
            words
        }
    }

    both! {
        add(a, b);
        rotate<const L: i32, const R: i32>(a);
        shift_right<const N: i32>(a);
        xor(a, b, c);
        select(mask, yes, no);
        majority(a, b, c);
        xor_or_not(b, c, d);
        swap_bytes(a);
    }
}

/// Implements methods of [`Lanes`] that are one unsafe expression each.
macro_rules! lane_methods {
    ($($name:ident $(<$(const $c:ident: i32),+>)? ($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        #[inline(always)]
        unsafe fn $name$(<$(const $c: i32),+>)?($($arg: $type),*) $(-> $result)? {
            // SAFETY: the trait's contract: the caller has the tier's instructions enabled and pointers that are good
            // for what is read or written; unaligned loads and stores are used throughout.
            unsafe { $body }
        }
    )*};
}
pub(crate) use lane_methods;
