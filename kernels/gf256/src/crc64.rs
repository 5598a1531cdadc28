//! CRC64NVME, for the kernels that compute it from the registers that a product has loaded anyway.
//!
//! **Mathematics.** A message is a polynomial over GF(2), first bit first (bits are counted from the lowest of a byte),
//! and its *remainder* is message * x^64 modulo P, P = x^64 + 0xad93d23594c93659. Words are reflected: bit 63 - i is
//! the coefficient of x^i. The CRC proper begins with all ones, and ends by inverting: appending `n` bytes to a
//! message of CRC `c` gives `!(!c * x^(8 n) + remainder)`. Remainders are linear, which is why the one of a plain sum
//! of regions is the sum of theirs.
//!
//! **Folding.** A register R standing `n` bits before another one, S, can be added to it: its low 64 bits times
//! x^(n + 64), plus its high 64 bits times x^n, each modulo P. The product of two reflected words comes out shifted
//! by one, so constants are of one power less.
//!
//! The same CRC, stand-alone and as a stream, is `penstock-digest`'s; this crate's tests compare.

/// P without its leading term, reflected.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// P with its leading term and without the last, reflected: 65 bits but one.
pub(crate) const POLYNOMIAL_SHIFTED: u64 = POLYNOMIAL << 1 | 1;

/// x^128 / P, rounded down, likewise.
pub(crate) const QUOTIENT_SHIFTED: u64 = quotient_shifted();

/// A register's worth of partial remainder, for the widest register. Narrower tiers use its first bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct State(pub(crate) [u8; 64]);

impl State {
    pub(crate) const ZERO: Self = Self([0; 64]);

    pub(crate) const fn set_remainder(&mut self, remainder: u64) {
        [self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5], self.0[6], self.0[7]] =
            remainder.to_le_bytes();
    }

    pub(crate) const fn get_remainder(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The word of the polynomial 1.
pub(crate) const ONE: u64 = 1 << 63;

/// Times x.
const fn times_x(a: u64) -> u64 {
    a >> 1 ^ if a & 1 == 1 { POLYNOMIAL } else { 0 }
}

/// x^power modulo P.
pub(crate) const fn x_to(power: u32) -> u64 {
    let mut a = ONE;
    let mut n = 0;
    while n < power {
        a = times_x(a);
        n += 1;
    }
    a
}

/// Product modulo P, by the definition.
pub(crate) const fn mul(a: u64, b: u64) -> u64 {
    let (mut b, mut product, mut bit) = (b, 0, 63);
    loop {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        if bit == 0 {
            return product;
        }
        b = times_x(b);
        bit -= 1;
    }
}

const fn quotient_shifted() -> u64 {
    // Long division of x^128: the remainder's leading terms, one at a time. The quotient's x^64 comes first.
    let mut quotient = 1u64;
    let mut remainder = POLYNOMIAL; // x^64 modulo P, now times x as often as there are further terms
    let mut power = 1;
    while power < 64 {
        if remainder & 1 == 1 {
            quotient |= 1 << power;
        }
        remainder = times_x(remainder);
        power += 1;
    }
    quotient
}

/// The constants by which the halves of 16 bytes are moved on by `bits`: that of the low half, and of the high one.
pub(crate) const fn fold_by(bits: u32) -> [u64; 2] {
    [x_to(bits + 63), x_to(bits - 1)]
}

/// x^(8 * 2^i) modulo P: what moves a remainder on when 2^i bytes are appended.
pub(crate) static POWERS: [u64; 64] = powers();

const fn powers() -> [u64; 64] {
    let mut powers = [x_to(8); 64];
    let mut i = 1;
    while i < 64 {
        powers[i] = mul(powers[i - 1], powers[i - 1]);
        i += 1;
    }
    powers
}

/// Tables for eight bytes at a time: `[i][b]` is the remainder of byte b and i zero bytes.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            remainder = times_x(remainder);
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = before >> 8 ^ tables[0][(before & 255) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// Remainder after further bytes, without SIMD.
pub(crate) fn update(remainder: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut remainder = remainder;
    for word in words {
        let sum = (remainder ^ u64::from_le_bytes(*word)).to_le_bytes();
        remainder = 0;
        for (i, &byte) in sum.iter().enumerate() {
            remainder ^= TABLES[7 - i][usize::from(byte)];
        }
    }
    rest.iter().fold(remainder, |remainder, byte| {
        let [low, ..] = remainder.to_le_bytes();
        remainder >> 8 ^ TABLES[0][usize::from(low ^ byte)]
    })
}
