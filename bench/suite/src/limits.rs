//! What the machine can do at all, measured beside the kernels: no kernel can be faster, and how near one comes says more
//! than any figure.
//!
//! - [`read_write`] reads the sources and writes the destinations as an encoder must, and computes next to nothing;
//! - [`read`] and [`copy`] are what memory gives;
//! - [`affine`] and [`fold`] keep as many products in flight as the CPU takes, from registers alone.
//!
//! Written for x86-64, with AVX-512 or else AVX2 (and GFNI, VPCLMULQDQ). Elsewhere, and for shapes that have no loop, they
//! answer `false`, and what they would have limited is reported without a limit.
//!
//! As in the kernels, every stream is read by an instruction of its own, and everything is `inline(always)` into functions
//! that have the instructions enabled.

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// From and to the caches.
    Near,
    /// Sources are asked for ahead of their use.
    Far,
    /// As well, and destinations are written past the caches.
    FarStreaming,
}

/// Reads all sources, and writes their sum to every destination.
///
/// # Panics
/// When shards are of unequal length.
pub(crate) fn read_write(access: Access, sources: &[&[u8]], destinations: &mut [&mut [u8]]) -> bool {
    let bytes = sources[0].len();
    assert!(sources.iter().all(|shard| shard.len() == bytes), "sources of one length");
    assert!(destinations.iter().all(|shard| shard.len() == bytes), "destinations of one length");
    let aligned = destinations.iter().all(|shard| shard.as_ptr().addr().is_multiple_of(64));
    assert!(aligned || access != Access::FarStreaming, "streaming wants an alignment of 64 bytes");
    #[cfg(target_arch = "x86_64")]
    return x86::read_write(access, sources, destinations);
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Reads memory, as four streams.
pub(crate) fn read(memory: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    return {
        let quarter = memory.len() / 4;
        let parts: Vec<&[u8]> = memory.chunks_exact(quarter).take(4).collect();
        x86::read_write(Access::Far, &parts, &mut [])
    };
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Copies memory.
pub(crate) fn copy(access: Access, from: &[u8], to: &mut [u8]) -> bool {
    read_write(access, &[from], &mut [to])
}

/// Products per [`affine`], and folds per [`fold`]; each of [`register_bytes`] bytes.
pub(crate) const PRODUCTS: u64 = 64 * 1024;

/// Multiplies registers, as often as [`PRODUCTS`] says.
pub(crate) fn affine() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::affine();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Folds registers into CRC states, as often as [`PRODUCTS`] says.
pub(crate) fn fold() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::fold();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Bytes of the registers that these loops use; 0 without loops.
pub(crate) fn register_bytes() -> usize {
    #[cfg(target_arch = "x86_64")]
    return x86::register_bytes();
    #[cfg(not(target_arch = "x86_64"))]
    return 0;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{Access, PRODUCTS};

    const AHEAD_BYTES: usize = 256;
    /// Chains of products at a time: two a cycle, each of which takes up to five.
    const CHAINS: usize = 12;

    /// One register.
    ///
    /// # Safety
    /// All methods: the implementor's instructions, and [`Register::BYTES`] readable or writable bytes.
    trait Register: Copy {
        const BYTES: usize;
        unsafe fn zero() -> Self;
        unsafe fn load(from: *const u8) -> Self;
        unsafe fn xor(self, other: Self) -> Self;
        unsafe fn store(self, to: *mut u8);
        unsafe fn stream(self, to: *mut u8);
        unsafe fn affine(self, matrix: Self) -> Self;
        unsafe fn fold(self, constants: Self) -> Self;
    }

    macro_rules! register {
        ($register:ty, $bytes:literal, $zero:ident, $load:ident, $xor:ident, $store:ident, $stream:ident, $affine:ident, $clmul:ident) => {
            // SAFETY (of every block): the trait's contract.
            impl Register for $register {
                const BYTES: usize = $bytes;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: as above.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn load(from: *const u8) -> Self {
                    // SAFETY: as above.
                    unsafe { $load(from.cast()) }
                }
                #[inline(always)]
                unsafe fn xor(self, other: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $xor(self, other) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut u8) {
                    // SAFETY: as above.
                    unsafe { $store(to.cast(), self) }
                }
                #[inline(always)]
                unsafe fn stream(self, to: *mut u8) {
                    // SAFETY: as above.
                    unsafe { $stream(to.cast(), self) }
                }
                #[inline(always)]
                unsafe fn affine(self, matrix: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $affine::<0>(self, matrix) }
                }
                #[inline(always)]
                unsafe fn fold(self, constants: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $xor($clmul::<0x00>(self, constants), $clmul::<0x11>(self, constants)) }
                }
            }
        };
    }
    register!(
        __m512i,
        64,
        _mm512_setzero_si512,
        _mm512_loadu_si512,
        _mm512_xor_si512,
        _mm512_storeu_si512,
        _mm512_stream_si512,
        _mm512_gf2p8affine_epi64_epi8,
        _mm512_clmulepi64_epi128
    );
    register!(
        __m256i,
        32,
        _mm256_setzero_si256,
        _mm256_loadu_si256,
        _mm256_xor_si256,
        _mm256_storeu_si256,
        _mm256_stream_si256,
        _mm256_gf2p8affine_epi64_epi8,
        _mm256_clmulepi64_epi128
    );

    fn has_512() -> bool {
        is_x86_feature_detected!("avx512f")
    }
    fn has_256() -> bool {
        is_x86_feature_detected!("avx2")
    }
    /// GFNI and VPCLMULQDQ beside the registers.
    fn has_products() -> bool {
        is_x86_feature_detected!("gfni") && is_x86_feature_detected!("vpclmulqdq") && has_256()
    }

    pub(super) fn register_bytes() -> usize {
        match (has_512(), has_256()) {
            (true, _) => 64,
            (false, true) => 32,
            _ => 0,
        }
    }

    /// # Safety
    /// The register's instructions; `N` sources and `M` destinations of `bytes`; with `STREAM`, aligned destinations.
    #[inline(always)]
    unsafe fn run<R: Register, const N: usize, const M: usize, const FAR: bool, const STREAM: bool>(
        from: *const *const u8,
        to: *const *mut u8,
        bytes: usize,
    ) {
        let pass_bytes = 2 * R::BYTES;
        let mut at = 0;
        // SAFETY: the caller's contract; `at` leaves a whole pass before the end.
        unsafe {
            let mut kept = R::zero();
            while at + pass_bytes <= bytes {
                let (mut a, mut b) = (R::zero(), R::zero());
                macro_rules! steps {
                    ($($index:literal)*) => {$(
                        if $index < N {
                            let from = (*from.add($index)).add(at);
                            if FAR {
                                let mut line = 0;
                                while line < pass_bytes {
                                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD_BYTES + line).cast());
                                    line += 64;
                                }
                            }
                            a = a.xor(R::load(from));
                            b = b.xor(R::load(from.add(R::BYTES)));
                        }
                    )*};
                }
                steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
                let mut row = 0;
                while row < M {
                    let to = (*to.add(row)).add(at);
                    if STREAM {
                        a.stream(to);
                        b.stream(to.add(R::BYTES));
                    } else {
                        a.store(to);
                        b.store(to.add(R::BYTES));
                    }
                    row += 1;
                }
                if M == 0 {
                    kept = kept.xor(a).xor(b);
                }
                at += pass_bytes;
            }
            if STREAM {
                _mm_sfence();
            }
            black_box(kept);
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn run_512<const N: usize, const M: usize, const FAR: bool, const STREAM: bool>(
        from: *const *const u8,
        to: *const *mut u8,
        bytes: usize,
    ) {
        // SAFETY: as `run`; instructions are enabled here.
        unsafe { run::<__m512i, N, M, FAR, STREAM>(from, to, bytes) }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn run_256<const N: usize, const M: usize, const FAR: bool, const STREAM: bool>(
        from: *const *const u8,
        to: *const *mut u8,
        bytes: usize,
    ) {
        // SAFETY: as `run`; instructions are enabled here.
        unsafe { run::<__m256i, N, M, FAR, STREAM>(from, to, bytes) }
    }

    pub(super) fn read_write(access: Access, sources: &[&[u8]], destinations: &mut [&mut [u8]]) -> bool {
        let bytes = sources[0].len();
        let from: Vec<*const u8> = sources.iter().map(|shard| shard.as_ptr()).collect();
        let to: Vec<*mut u8> = destinations.iter_mut().map(|shard| shard.as_mut_ptr()).collect();
        let (wide, narrow) = (has_512(), has_256());
        macro_rules! dispatch {
            ($($n:literal: $($m:literal)*;)*) => {
                match (from.len(), to.len()) {
                    $($(($n, $m) => {
                        // SAFETY: just asked for the instructions; counts are matched here, lengths and alignment
                        // checked by the caller.
                        unsafe {
                            match (access, wide, narrow) {
                                (Access::Near, true, _) => run_512::<$n, $m, false, false>(from.as_ptr(), to.as_ptr(), bytes),
                                (Access::Far, true, _) => run_512::<$n, $m, true, false>(from.as_ptr(), to.as_ptr(), bytes),
                                (Access::FarStreaming, true, _) => {
                                    run_512::<$n, $m, true, true>(from.as_ptr(), to.as_ptr(), bytes);
                                }
                                (Access::Near, _, true) => run_256::<$n, $m, false, false>(from.as_ptr(), to.as_ptr(), bytes),
                                (Access::Far, _, true) => run_256::<$n, $m, true, false>(from.as_ptr(), to.as_ptr(), bytes),
                                (Access::FarStreaming, _, true) => {
                                    run_256::<$n, $m, true, true>(from.as_ptr(), to.as_ptr(), bytes);
                                }
                                _ => return false,
                            }
                        }
                        true
                    })*)*
                    _ => false,
                }
            };
        }
        // The shapes that are measured: read, copy, and what codes encode, decode and repair.
        dispatch!(
            4: 0 1 2; 1: 1; 6: 1 2; 8: 1 2 3; 10: 1 2 4; 12: 1 2 4; 20: 1 2 4;
        )
    }

    /// # Safety
    /// The register's instructions.
    #[inline(always)]
    unsafe fn chains<R: Register, const FOLD: bool>() {
        // SAFETY: the caller's contract.
        unsafe {
            let constants = black_box(R::zero());
            let mut states = [black_box(R::zero()); CHAINS];
            let data = black_box(R::zero());
            for _ in 0..PRODUCTS / CHAINS as u64 {
                let mut chain = 0;
                while chain < CHAINS {
                    states[chain] =
                        if FOLD { states[chain].fold(constants).xor(data) } else { states[chain].affine(constants) };
                    chain += 1;
                }
            }
            black_box(states);
        }
    }

    #[target_feature(enable = "avx512f,gfni,vpclmulqdq,avx2")]
    unsafe fn chains_512<const FOLD: bool>() {
        // SAFETY: instructions are enabled here.
        unsafe { chains::<__m512i, FOLD>() }
    }

    #[target_feature(enable = "avx2,gfni,vpclmulqdq")]
    unsafe fn chains_256<const FOLD: bool>() {
        // SAFETY: instructions are enabled here.
        unsafe { chains::<__m256i, FOLD>() }
    }

    fn products<const FOLD: bool>() -> bool {
        match (has_products(), has_512()) {
            // SAFETY: just asked for the instructions.
            (true, true) => unsafe { chains_512::<FOLD>() },
            // SAFETY: as above.
            (true, false) => unsafe { chains_256::<FOLD>() },
            _ => return false,
        }
        true
    }

    pub(super) fn affine() -> bool {
        products::<false>()
    }

    pub(super) fn fold() -> bool {
        products::<true>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_write_really_reads_and_writes() {
        let sources: Vec<Vec<u8>> = (0..10u8).map(|i| vec![1 << (i % 8); 512]).collect();
        let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
        #[repr(align(64))]
        struct Aligned([[u8; 512]; 4]);
        for access in [Access::Near, Access::Far, Access::FarStreaming] {
            let mut to = Aligned([[9; 512]; 4]);
            let mut destinations: Vec<&mut [u8]> = to.0.iter_mut().map(|shard| &mut shard[..]).collect();
            if !read_write(access, &sources, &mut destinations) {
                eprintln!("limits: not run, this machine has no loop for them");
                assert_eq!(register_bytes(), 0);
                return;
            }
            assert!(to.0.iter().flatten().all(|byte| *byte == 0xff ^ 0b11), "{access:?}");
        }
        assert!(read(&[1; 4096]));
        let mut to = [0; 256];
        assert!(copy(Access::Near, &[7; 256], &mut to));
        assert_eq!(to, [7; 256]);
        // A shape without a loop says so.
        assert!(!read_write(Access::Near, &sources[..7], &mut []));
    }
}
