//! Random order that can be had again: seeded, and its seed is part of the results.

/// A small generator (splitmix64): good enough to shuffle, and to fill buffers with.
#[derive(Clone, Debug)]
pub struct Order(u64);

impl Order {
    /// The same seed gives the same order.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The numbers below `count`, shuffled.
    pub fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            // The remainder prefers small numbers by less than one in 2^50: nothing to a benchmark.
            let other = (self.next_u64() % (last as u64 + 1)) as usize;
            numbers.swap(last, other);
        }
        numbers
    }

    /// Fills a buffer.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.next_u64().to_le_bytes();
        }
        for byte in rest {
            *byte = self.next_u64() as u8;
        }
    }
}
