//! The field itself: multiplication and inversion of single elements, and the tables that region kernels look up.
//!
//! Everything is computed at compile time from the definition (shift and add modulo the polynomial), so there is no
//! table to mistype and none to initialise.

/// The reduction polynomial, x^8 + x^4 + x^3 + x^2 + 1, with its leading term. 2 generates the multiplicative group.
pub const POLYNOMIAL: u16 = 0x11d;

/// Order of the multiplicative group.
const GROUP_ORDER: usize = 255;

/// Product by the definition: shift, add, reduce. The tables are made from it and tested against it.
pub(crate) const fn mul_by_definition(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a as u16, b, 0u16);
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a <<= 1;
        if a & 0x100 != 0 {
            a ^= POLYNOMIAL;
        }
        b >>= 1;
    }
    product as u8
}

struct Logarithms {
    /// `exp[n]` = 2^n; twice round, so that a sum of two logarithms needs no reduction.
    exp: [u8; 2 * GROUP_ORDER],
    /// `log[2^n]` = n for n < 255; `log[0]` is never read.
    log: [u8; 256],
}

static LOGARITHMS: Logarithms = logarithms();

const fn logarithms() -> Logarithms {
    let mut tables = Logarithms { exp: [0; 2 * GROUP_ORDER], log: [0; 256] };
    let mut power = 1u8;
    let mut n = 0;
    while n < GROUP_ORDER {
        tables.exp[n] = power;
        tables.exp[n + GROUP_ORDER] = power;
        tables.log[power as usize] = n as u8;
        power = mul_by_definition(power, 2);
        n += 1;
    }
    assert!(power == 1, "2 has order 255 modulo the polynomial");
    tables
}

/// Product of two field elements.
///
/// ```
/// assert_eq!(penstock_gf256::mul(2, 0x80), 0x1d);
/// ```
#[must_use]
pub fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    LOGARITHMS.exp[usize::from(LOGARITHMS.log[usize::from(a)]) + usize::from(LOGARITHMS.log[usize::from(b)])]
}

/// Multiplicative inverse.
///
/// # Panics
/// When `a` is 0, which has none.
///
/// ```
/// use penstock_gf256::{inv, mul};
/// assert!((1..=255).all(|a| mul(a, inv(a)) == 1));
/// ```
#[must_use]
pub fn inv(a: u8) -> u8 {
    assert!(a != 0, "0 has no inverse");
    LOGARITHMS.exp[GROUP_ORDER - usize::from(LOGARITHMS.log[usize::from(a)])]
}

/// Quotient `a / b`.
///
/// # Panics
/// When `b` is 0.
#[must_use]
pub fn div(a: u8, b: u8) -> u8 {
    mul(a, inv(b))
}

/// The 32 products by which one coefficient is applied to bytes: c * b = low\[b & 15\] + high\[b >> 4\].
///
/// Multiplication is linear over GF(2), so a byte's product is the sum of its nibbles' products, and 16 entries fit a
/// byte shuffle.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct NibbleTable {
    /// c * n for the low nibble n.
    pub(crate) low: [u8; 16],
    /// c * (n << 4) for the high nibble n.
    pub(crate) high: [u8; 16],
}

impl NibbleTable {
    /// The table of one coefficient.
    pub(crate) fn of(coefficient: u8) -> &'static Self {
        static TABLES: [NibbleTable; 256] = nibble_tables();
        &TABLES[usize::from(coefficient)]
    }

    /// Product of the table's coefficient with one byte.
    #[inline(always)]
    pub(crate) fn product(&self, byte: u8) -> u8 {
        self.low[usize::from(byte & 15)] ^ self.high[usize::from(byte >> 4)]
    }
}

const fn nibble_tables() -> [NibbleTable; 256] {
    let mut tables = [NibbleTable { low: [0; 16], high: [0; 16] }; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            tables[coefficient].low[nibble] = mul_by_definition(coefficient as u8, nibble as u8);
            tables[coefficient].high[nibble] = mul_by_definition(coefficient as u8, (nibble as u8) << 4);
            nibble += 1;
        }
        coefficient += 1;
    }
    tables
}

/// A coefficient as the bit matrix that `gf2p8affineqb` multiplies a byte with: byte 7 - i holds the bits of the
/// operand that bit i of the product sums up.
pub(crate) fn affine(coefficient: u8) -> &'static u64 {
    static MATRICES: [u64; 256] = affine_matrices();
    &MATRICES[usize::from(coefficient)]
}

const fn affine_matrices() -> [u64; 256] {
    let mut matrices = [0; 256];
    let mut coefficient = 0;
    while coefficient < 256 {
        let mut operand_bit = 0;
        while operand_bit < 8 {
            let product = mul_by_definition(coefficient as u8, 1 << operand_bit);
            let mut bit = 0;
            while bit < 8 {
                if product >> bit & 1 == 1 {
                    matrices[coefficient] |= 1 << (8 * (7 - bit) + operand_bit);
                }
                bit += 1;
            }
            operand_bit += 1;
        }
        coefficient += 1;
    }
    matrices
}
