//! Numbers and bytes in hexadecimal and decimal text: ASCII digits alone, no signs, no spaces, no prefixes.

/// The number that `text` says in exactly `digits` hex digits of either case.
pub(crate) fn exact(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits).then(|| up_to(text, digits)).flatten()
}

/// The number that `text` says in 1 to `digits_max` (at most 16) hex digits of either case, leading zeros allowed.
pub(crate) fn up_to(text: &str, digits_max: usize) -> Option<u64> {
    if text.is_empty() || text.len() > digits_max.min(16) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// `N` bytes as `2 N` digits of either case.
pub(crate) fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = (nibble(*high)? << 4) | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// `bytes` in lower case.
pub(crate) fn text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// What decimal digits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decimal {
    /// A number.
    Number(u64),
    /// One that no u64 holds.
    Huge,
}

/// Decimal digits and nothing else.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().map_or(Decimal::Huge, Decimal::Number))
}
