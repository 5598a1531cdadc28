//! Arithmetic behind combining CRCs: polynomials over GF(2) modulo the CRC's polynomial.
//!
//! Appending n zero bytes to a message multiplies its (bare) CRC by x^(8n), and CRCs are linear, so crc(a || b) =
//! crc(a) * x^(8 |b|) + crc(b); the initial value and the final inversion cancel, since all three CRCs here use all
//! ones for both. Powers of x are products of the x^(2^i) in a table, as many as the length has bits set. For a shard
//! of 419,431 bytes that took 0.5 us on a Zen 5 core, where `crc-fast`'s own combine, which squares 64-by-64 bit
//! matrices, took 81 us: too long for ten shards of every chunk. That one is what the tests compare with.

/// Entries of the table of squares: a length in bytes has 64 bits, and a byte adds 3.
const SQUARES: usize = 64 + 3;

/// GF(2)\[x\] modulo the polynomial of a reflected CRC: bit `width - 1 - i` of an element is the coefficient of x^i.
pub(crate) struct Ring {
    /// The polynomial without its leading term, in the same bit order.
    polynomial: u64,
    /// The element 1.
    one: u64,
    /// `squares[i]` = x^(2^i).
    squares: [u64; SQUARES],
}

impl Ring {
    /// The ring of a CRC with `width_bits` bits, from its polynomial in reflected order.
    pub(crate) const fn new(width_bits: u32, polynomial: u64) -> Self {
        let mut ring = Self { polynomial, one: 1 << (width_bits - 1), squares: [0; SQUARES] };
        ring.squares[0] = ring.one >> 1;
        let mut i = 1;
        while i < SQUARES {
            ring.squares[i] = ring.product(ring.squares[i - 1], ring.squares[i - 1]);
            i += 1;
        }
        ring
    }

    /// Schoolbook product: one term of `a` a step, from x^0 up, while `b` is multiplied by x.
    const fn product(&self, a: u64, mut b: u64) -> u64 {
        let mut sum = 0;
        let mut term = self.one;
        while term != 0 && a & (term | (term - 1)) != 0 {
            // Without branches on data: whether a bit is set is as good as random.
            sum ^= b & ((a & term != 0) as u64).wrapping_neg();
            b = (b >> 1) ^ (self.polynomial & (b & 1).wrapping_neg());
            term >>= 1;
        }
        sum
    }

    /// What `crc` (the bare remainder) becomes when `zeros` zero bytes follow.
    const fn append_zeros(&self, crc: u64, zeros: u64) -> u64 {
        let mut result = crc;
        let mut left = zeros;
        while left != 0 {
            // x^(8 * 2^bit)
            let bit = left.trailing_zeros() as usize;
            result = self.product(self.squares[bit + 3], result);
            left &= left - 1;
        }
        result
    }

    /// CRC of two messages, one after the other, the second of which has `len_b` bytes.
    pub(crate) const fn combine(&self, crc_a: u64, crc_b: u64, len_b: u64) -> u64 {
        self.append_zeros(crc_a, len_b) ^ crc_b
    }

    /// CRC of `len` zero bytes.
    pub(crate) const fn zeros(&self, len: u64) -> u64 {
        let all_ones = self.one | (self.one - 1);
        self.append_zeros(all_ones, len) ^ all_ones
    }
}
