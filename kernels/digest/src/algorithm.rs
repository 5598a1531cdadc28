//! The two hashes that run in lanes, and the state of one message.

use crate::lanes::{BLOCK_BYTES, WideKernel, md5 as md5_lanes, sha256 as sha256_lanes};
use crate::scheduler::{Board, Queue};
use crate::tier::{HashTier, Instructions};
use std::fmt::Debug;

/// A hash that can run in lanes: [`Md5`] or [`Sha256`], and no other.
pub trait LaneHash: Rules {}

impl LaneHash for Md5 {}
impl LaneHash for Sha256 {}

/// MD5, as a type.
#[derive(Clone, Copy, Debug)]
pub enum Md5 {}

/// SHA-256, as a type.
#[derive(Clone, Copy, Debug)]
pub enum Sha256 {}

/// What a tier offers for a hash.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// From this many messages on, lanes are faster than one message after the other.
    pub(crate) lanes_min: usize,
    /// Narrowest first.
    pub(crate) kernels: &'static [WideKernel],
}

impl Plan {
    const NONE: Self = Self { lanes_min: usize::MAX, kernels: &[] };

    /// The kernel for some messages at once: the narrowest with a lane for each, or the widest. `None` where one
    /// message after the other is faster.
    pub(crate) fn kernel(self, messages: usize) -> Option<WideKernel> {
        let fitting = || self.kernels.iter().find(|kernel| kernel.lanes >= messages).or(self.kernels.last()).copied();
        (messages >= self.lanes_min).then(fitting).flatten()
    }

    /// Messages at once that fill the widest kernel; 1 where no number of messages is worth lanes.
    pub(crate) fn lanes_max(self) -> usize {
        self.kernels.last().map(|kernel| kernel.lanes).filter(|&lanes| lanes >= self.lanes_min).unwrap_or(1)
    }
}

/// What the hashes differ in. Not to be implemented or called elsewhere.
pub trait Rules: Copy + Send + Sync + Debug + 'static {
    /// Words between blocks.
    type Words: Copy + AsRef<[u32]> + AsMut<[u32]> + Send + Sync + Debug + 'static;
    /// The result, in bytes.
    type Digest: Copy + Eq + Debug + Send + 'static;
    #[doc(hidden)]
    const INITIAL: Self::Words;
    #[doc(hidden)]
    fn one(words: &mut Self::Words, blocks: &[[u8; BLOCK_BYTES]]);
    #[doc(hidden)]
    fn bit_count(bits: u64) -> [u8; 8];
    #[doc(hidden)]
    fn digest(words: &Self::Words) -> Self::Digest;
    #[doc(hidden)]
    fn plan(tier: HashTier) -> Plan;
    #[doc(hidden)]
    fn queue(board: &mut Board) -> &mut Queue<Self>;
}

/// Words as bytes, in the order that `bytes` gives.
fn digest_of<const WORDS: usize, const BYTES: usize>(words: &[u32; WORDS], bytes: fn(u32) -> [u8; 4]) -> [u8; BYTES] {
    let mut digest = [0; BYTES];
    digest.as_chunks_mut().0.iter_mut().zip(words).for_each(|(to, &word)| *to = bytes(word));
    digest
}

/// The kernels of one width, and of two registers of it.
macro_rules! kernels {
    ($hash:ident, $architecture:ident::$width:ident) => {
        const {
            use crate::lanes::{Lanes, $architecture::$width};
            &[WideKernel { lanes: <$width as Lanes>::LANES, entry: $hash::compress::<$width> }]
        }
    };
    ($hash:ident, $architecture:ident::$width:ident, paired) => {
        const {
            use crate::lanes::{Lanes, Pair, $architecture::$width};
            &[
                WideKernel { lanes: <$width as Lanes>::LANES, entry: $hash::compress::<$width> },
                WideKernel { lanes: 2 * <$width as Lanes>::LANES, entry: $hash::compress::<Pair<$width>> },
            ]
        }
    };
}

impl Rules for Md5 {
    type Words = [u32; md5_lanes::STATE_WORDS];
    type Digest = [u8; 16];
    const INITIAL: Self::Words = md5_lanes::INITIAL;

    fn one(words: &mut Self::Words, blocks: &[[u8; BLOCK_BYTES]]) {
        md5::block_api::compress(words, blocks);
    }

    fn bit_count(bits: u64) -> [u8; 8] {
        bits.to_le_bytes()
    }

    fn digest(words: &Self::Words) -> Self::Digest {
        digest_of(words, u32::to_le_bytes)
    }

    fn plan(tier: HashTier) -> Plan {
        match tier.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => Plan { lanes_min: 2, kernels: kernels!(md5_lanes, x86::Avx512Words, paired) },
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => Plan { lanes_min: 3, kernels: kernels!(md5_lanes, x86::Avx2Words, paired) },
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => Plan { lanes_min: 3, kernels: kernels!(md5_lanes, neon::NeonWords, paired) },
            _ => Plan::NONE,
        }
    }

    fn queue(board: &mut Board) -> &mut Queue<Self> {
        &mut board.md5
    }
}

impl Rules for Sha256 {
    type Words = [u32; sha256_lanes::STATE_WORDS];
    type Digest = [u8; 32];
    const INITIAL: Self::Words = sha256_lanes::INITIAL;

    fn one(words: &mut Self::Words, blocks: &[[u8; BLOCK_BYTES]]) {
        sha2::block_api::compress256(words, blocks);
    }

    fn bit_count(bits: u64) -> [u8; 8] {
        bits.to_be_bytes()
    }

    fn digest(words: &Self::Words) -> Self::Digest {
        digest_of(words, u32::to_be_bytes)
    }

    fn plan(tier: HashTier) -> Plan {
        match tier.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => {
                let lanes_min = if std::arch::is_x86_feature_detected!("sha") { 8 } else { 2 };
                Plan { lanes_min, kernels: kernels!(sha256_lanes, x86::Avx512Words, paired) }
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => {
                // One message by SHA instructions is as fast as eight by AVX2.
                let lanes_min = if std::arch::is_x86_feature_detected!("sha") { usize::MAX } else { 2 };
                Plan { lanes_min, kernels: kernels!(sha256_lanes, x86::Avx2Words) }
            }
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon(_) => {
                // One message by SHA instructions is faster than four by NEON.
                let lanes_min = if std::arch::is_aarch64_feature_detected!("sha2") { usize::MAX } else { 2 };
                Plan { lanes_min, kernels: kernels!(sha256_lanes, neon::NeonWords) }
            }
            _ => Plan::NONE,
        }
    }

    fn queue(board: &mut Board) -> &mut Queue<Self> {
        &mut board.sha256
    }
}

/// One message so far: the words between blocks, the bytes behind the last whole block, and the length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<A: Rules> {
    pub(crate) words: A::Words,
    tail: [u8; BLOCK_BYTES],
    bytes: u64,
}

impl<A: Rules> Message<A> {
    pub(crate) const fn new() -> Self {
        Self { words: A::INITIAL, tail: [0; BLOCK_BYTES], bytes: 0 }
    }

    /// Bytes kept for a block that isn't whole yet.
    pub(crate) fn tail_bytes(&self) -> usize {
        (self.bytes % BLOCK_BYTES as u64) as usize
    }

    /// Bytes to take until [`Message::tail_bytes`] is 0, less than a block.
    pub(crate) fn missing_bytes(&self) -> usize {
        (BLOCK_BYTES - self.tail_bytes()) % BLOCK_BYTES
    }

    /// Says that lanes have compressed blocks into `words`. Only at a boundary.
    pub(crate) fn compressed(&mut self, blocks: usize) {
        debug_assert_eq!(self.tail_bytes(), 0, "blocks begin at a boundary");
        self.bytes = self.bytes.wrapping_add((blocks * BLOCK_BYTES) as u64);
    }

    /// Takes the next bytes, on its own.
    pub(crate) fn update(&mut self, mut input: &[u8]) {
        let tail_bytes = self.tail_bytes();
        self.bytes = self.bytes.wrapping_add(input.len() as u64);
        if tail_bytes > 0 {
            let (head, rest) = input.split_at(input.len().min(BLOCK_BYTES - tail_bytes));
            self.tail[tail_bytes..tail_bytes + head.len()].copy_from_slice(head);
            if tail_bytes + head.len() < BLOCK_BYTES {
                return;
            }
            A::one(&mut self.words, &[self.tail]);
            input = rest;
        }
        let (blocks, rest) = input.as_chunks::<BLOCK_BYTES>();
        if !blocks.is_empty() {
            A::one(&mut self.words, blocks);
        }
        self.tail[..rest.len()].copy_from_slice(rest);
    }

    /// The digest of all bytes taken.
    pub(crate) fn finish(mut self) -> A::Digest {
        let count = A::bit_count(self.bytes.wrapping_mul(8));
        let tail_bytes = self.tail_bytes();
        // A one bit, zeros up to 8 bytes before a block's end, and the length in bits.
        let mut padding = [[0; BLOCK_BYTES]; 2];
        padding[0][..tail_bytes].copy_from_slice(&self.tail[..tail_bytes]);
        padding[0][tail_bytes] = 0x80;
        let blocks = if tail_bytes + 1 + count.len() <= BLOCK_BYTES { 1 } else { 2 };
        padding[blocks - 1][BLOCK_BYTES - count.len()..].copy_from_slice(&count);
        A::one(&mut self.words, &padding[..blocks]);
        A::digest(&self.words)
    }
}
