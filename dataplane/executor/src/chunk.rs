//! The memory of one stripe while it is written: a chunk that is filled as bytes come in, and room for its parity.
//!
//! All of it is taken at once, at the door: a chunk that has been filled can always be encoded, and never waits for
//! memory that other filled chunks hold.
//!
//! A full 4 MiB chunk of RS(10,4) is 256 bytes short of ten shards, and the pool looks for room in powers of two: for
//! the sake of the pad it would have to find 8 MiB. So where the pad would make the block the next size, it is not in
//! memory at all ([`crate::layout::ZEROS`] stands for it).
//!
//! Parity shards start an odd number of cache lines into their pages, each another number: streams that all start at one
//! offset of a page compete for the same sets of the first-level cache. Data shards are where the chunk has them. All are
//! aligned to 64 bytes, as the kernels want it for stores past the caches.
//!
//! A chunk is filled by one owner ([`ChunkBuf`]), then sealed ([`SealedChunk`]): from there on its bytes are shared and
//! never change, so that whoever hashes them and whoever encodes and stores them do so at the same time, from the same
//! memory.

use bytes::Bytes;
use penstock_buf::{Buf, BufMut, BufPool, PAGE_BYTES};
use penstock_proto::{Code, limits};

use crate::error::ExecutorError;

/// Up to this padded length a chunk's pad lies in its own block, even where that makes the block the next size.
const PAD_IN_PLACE_BYTES_MAX: usize = 1 << 20;
/// Up to this length the parity shards of a stripe share a buffer.
const PARITY_TOGETHER_BYTES_MAX: usize = 64 << 10;

/// What staggering counts in, and what a code's shards are padded to.
const CACHE_LINE_BYTES: usize = 64;

/// A chunk in the making, with room for its parity. Owned by one task; fill it, then write it.
#[derive(Debug)]
pub struct ChunkBuf {
    code: Code,
    chunk_bytes_max: usize,
    len: usize,
    data: BufMut,
    parity: Vec<BufMut>,
}

/// A chunk that is full, or as full as it gets: its pad is zeros, its bytes are shared and never change again.
#[derive(Debug)]
pub struct SealedChunk {
    pub(crate) code: Code,
    pub(crate) chunk_bytes: usize,
    /// The chunk's bytes, then those zeros of its pad that are in its block.
    pub(crate) data: Buf,
    /// m buffers of `shard_bytes` each, contents unspecified.
    pub(crate) parity: Vec<BufMut>,
}

impl SealedChunk {
    /// A chunk of bytes that are somebody's already; memory is taken for its parity alone. Its pad is in no memory. The
    /// caller bounds the wait.
    pub(crate) async fn over(pool: &BufPool, code: Code, data: Buf) -> Result<Self, ExecutorError> {
        let parity = acquire_parity(pool, code, data.len()).await?;
        let parity = cut_parity(code, parity, code.shard_bytes(data.len()));
        Ok(Self { code, chunk_bytes: data.len(), data, parity })
    }

    /// The code it will be written with.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Bytes, without the pad.
    pub fn len(&self) -> usize {
        self.chunk_bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.chunk_bytes == 0
    }

    /// Its bytes, without the pad and without a copy. The chunk's memory goes back to its pool when the last of these
    /// and of the shards under way is dropped.
    pub fn bytes(&self) -> Bytes {
        self.data.slice(..self.chunk_bytes).into_bytes()
    }
}

impl From<ChunkBuf> for SealedChunk {
    fn from(chunk: ChunkBuf) -> Self {
        chunk.seal()
    }
}

/// Bytes to take for the data of a chunk.
fn data_block_bytes(code: Code, chunk_bytes_max: usize) -> usize {
    let padded = code.k() * code.shard_bytes(chunk_bytes_max);
    let block = chunk_bytes_max.next_power_of_two();
    if padded <= block.max(PAD_IN_PLACE_BYTES_MAX) { padded } else { block }
}

/// Lengths of the buffers to take for the parity of a chunk: one for all where it is small, so that shards of a cache
/// line don't take a page each; else one for each, because smaller blocks are easier to find.
fn parity_block_bytes(code: Code, chunk_bytes_max: usize) -> Vec<usize> {
    let shard = code.shard_bytes(chunk_bytes_max);
    match code.m() {
        0 => Vec::new(),
        m if m * shard <= PARITY_TOGETHER_BYTES_MAX => vec![m * shard],
        m => vec![shard; m],
    }
}

/// Where in its buffer a parity shard starts, where each has a buffer: staggered if the shard's last page has room for it,
/// since for a page more the pool might have to find a block of twice the size.
fn parity_start_bytes(row: usize, shard_bytes: usize) -> usize {
    let start = (2 * row + 1) * CACHE_LINE_BYTES;
    let fits = (start + shard_bytes).div_ceil(PAGE_BYTES) == shard_bytes.div_ceil(PAGE_BYTES);
    if fits { start } else { 0 }
}

/// Takes the memory of the parity of a chunk. The caller bounds the wait.
async fn acquire_parity(pool: &BufPool, code: Code, chunk_bytes_max: usize) -> Result<Vec<BufMut>, ExecutorError> {
    let mut parity = Vec::with_capacity(code.m());
    let lengths = parity_block_bytes(code, chunk_bytes_max);
    let together = lengths.len() < code.m();
    for (row, bytes) in lengths.into_iter().enumerate() {
        let start = if together { 0 } else { parity_start_bytes(row, bytes) };
        parity.push(pool.acquire(start + bytes, limits::STRIPE_DEADLINE).await?.split_off(start));
    }
    Ok(parity)
}

/// A buffer for each parity shard, of that length, from what [`acquire_parity`] took.
fn cut_parity(code: Code, mut parity: Vec<BufMut>, shard_bytes: usize) -> Vec<BufMut> {
    if parity.len() < code.m() {
        // One buffer for all. Shards of the actual fill are at most as long as those it was made for.
        let mut rest = parity.remove(0);
        for _ in 1..code.m() {
            let next = rest.split_off(shard_bytes);
            parity.push(std::mem::replace(&mut rest, next));
        }
        parity.push(rest);
    }
    for shard in &mut parity {
        shard.truncate(shard_bytes);
    }
    parity
}

impl ChunkBuf {
    /// Takes the memory of a chunk of up to `chunk_bytes_max` bytes, which is 1 to [`limits::CHUNK_BYTES`]. The caller
    /// bounds the wait.
    pub(crate) async fn acquire(pool: &BufPool, code: Code, chunk_bytes_max: usize) -> Result<Self, ExecutorError> {
        let data = pool.acquire(data_block_bytes(code, chunk_bytes_max), limits::STRIPE_DEADLINE).await?;
        let parity = acquire_parity(pool, code, chunk_bytes_max).await?;
        Ok(Self { code, chunk_bytes_max, len: 0, data, parity })
    }

    /// The code it will be written with.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Bytes filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been filled in.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.chunk_bytes_max - self.len
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.remaining() == 0
    }

    /// The bytes filled so far.
    pub fn filled(&self) -> &[u8] {
        &self.data[..self.len]
    }

    /// The room that is left, for reading into; contents are unspecified. Then say how much with [`ChunkBuf::advance`].
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.data[self.len..self.chunk_bytes_max]
    }

    /// Counts the first `bytes` of [`ChunkBuf::spare`] as filled.
    ///
    /// # Panics
    /// When that is more than there is room for.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining(), "advance({bytes}) of a chunk with room for {}", self.remaining());
        self.len += bytes;
    }

    /// Takes as much of `bytes` as fits, and says how much that is.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.remaining());
        self.spare()[..taken].copy_from_slice(&bytes[..taken]);
        self.advance(taken);
        taken
    }

    /// Ends the filling. Cuts the parity to the shard length of the actual fill, and zeroes the pad: what the pool had
    /// there must not become part of the stripe.
    pub fn seal(mut self) -> SealedChunk {
        let shard_bytes = self.code.shard_bytes(self.len);
        let parity = cut_parity(self.code, self.parity, shard_bytes);
        // What of the pad is past the block is in no memory.
        let stored = self.data.len().min(self.code.k() * shard_bytes);
        self.data[self.len..stored].fill(0);
        self.data.truncate(stored);
        SealedChunk { code: self.code, chunk_bytes: self.len, data: self.data.freeze(), parity }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_of_a_full_chunk_is_larger_than_4_mib() {
        for (k, m) in [(1, 0), (1, 2), (2, 1), (4, 2), (10, 4), (20, 4), (3, 2), (44, 4)] {
            let code = Code::new(k, m).unwrap();
            assert!(data_block_bytes(code, limits::CHUNK_BYTES) <= 4 << 20, "{code}");
            let parity = parity_block_bytes(code, limits::CHUNK_BYTES);
            assert!(parity.iter().all(|bytes| *bytes <= 4 << 20), "{code}: {parity:?}");
            assert_eq!(parity.iter().sum::<usize>(), m * code.shard_bytes(limits::CHUNK_BYTES));
        }
    }

    #[tokio::test]
    async fn shards_of_a_full_chunk_are_aligned_and_spread_over_the_offsets_of_pages() {
        let pool = BufPool::new(penstock_buf::PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap();
        for (k, m) in [(10, 4), (20, 4)] {
            let code = Code::new(k, m).unwrap();
            let mut chunk = ChunkBuf::acquire(&pool, code, limits::CHUNK_BYTES).await.unwrap();
            let filled = chunk.remaining();
            chunk.advance(filled);
            let shard = code.shard_bytes(filled);
            let SealedChunk { data, parity, .. } = chunk.seal();
            assert!(parity.iter().all(|parity| parity.len() == shard));
            let starts = (0..code.k()).map(|i| data.as_ptr().addr() + i * shard);
            let starts: Vec<usize> = starts.chain(parity.iter().map(|parity| parity.as_ptr().addr())).collect();
            assert!(starts.iter().all(|start| start % CACHE_LINE_BYTES == 0), "{code}: {starts:?}");
            let sharing =
                |start: &usize| starts.iter().filter(|other| *other % PAGE_BYTES == start % PAGE_BYTES).count();
            assert!(starts.iter().all(|start| sharing(start) <= 2), "{code}: {starts:?}");
            // And that costs no page.
            let pages = filled.next_multiple_of(PAGE_BYTES) + code.m() * shard.next_multiple_of(PAGE_BYTES);
            assert_eq!(pool.stats().in_use_bytes, pages, "{code}");
        }
        assert_eq!(pool.stats().in_use_bytes, 0, "all of it went back");
        assert_eq!(parity_start_bytes(0, 1 << 20), 0, "whole pages are left as they are");
    }

    #[test]
    fn only_the_last_shard_ever_ends_past_the_block() {
        for k in 1..=48usize {
            let code = Code::new(k, 0).unwrap();
            for chunk_bytes_max in [1, 4096, 65_536, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000, 4 << 20] {
                let block = data_block_bytes(code, chunk_bytes_max);
                assert!(block >= chunk_bytes_max);
                let spill = (k * code.shard_bytes(chunk_bytes_max)).saturating_sub(block);
                assert!(spill < code.shard_bytes(chunk_bytes_max), "k={k} of {chunk_bytes_max}");
            }
        }
    }
}
