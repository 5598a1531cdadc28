//! Work requests: transfers cut into pieces that the port takes. Pure.

use std::ops::Range;

use crate::error::VerbsError;

/// Longest piece of one work request. Short enough that other operations of the queue pair get their turn, long enough
/// that a work request costs nothing beside it.
pub const PIECE_BYTES_MAX: u32 = 1 << 20;

/// A range of our memory, and where it goes to or comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of our memory.
    pub local: Range<usize>,
    /// The peer's address.
    pub addr: u64,
    /// The peer's key.
    pub rkey: u32,
}

/// One work request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) local: Range<usize>,
    pub(crate) addr: u64,
    pub(crate) rkey: u32,
    pub(crate) is_last: bool,
}

/// Cuts `parts` into pieces of at most `piece_bytes_max` bytes. A transfer of nothing is one empty piece.
pub(crate) fn cut(parts: &[Part], piece_bytes_max: usize) -> Vec<Piece> {
    let max = piece_bytes_max.max(1);
    let mut pieces = Vec::new();
    for part in parts {
        let mut from = part.local.start;
        while from < part.local.end {
            let to = (from + max).min(part.local.end);
            let addr = part.addr.wrapping_add((from - part.local.start) as u64);
            pieces.push(Piece { local: from..to, addr, rkey: part.rkey, is_last: false });
            from = to;
        }
    }
    if pieces.is_empty()
        && let Some(part) = parts.first()
    {
        pieces.push(Piece {
            local: part.local.start..part.local.start,
            addr: part.addr,
            rkey: part.rkey,
            is_last: false,
        });
    }
    if let Some(last) = pieces.last_mut() {
        last.is_last = true;
    }
    pieces
}

/// A length as work requests have it.
pub(crate) fn length(bytes: usize) -> Result<u32, VerbsError> {
    u32::try_from(bytes).map_err(|_| VerbsError::bounds(format!("{bytes} bytes in one work request")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(local: Range<usize>, addr: u64) -> Part {
        Part { local, addr, rkey: 7 }
    }

    fn cut_to(parts: &[Part], max: usize) -> Vec<(Range<usize>, u64, bool)> {
        cut(parts, max).into_iter().map(|piece| (piece.local, piece.addr, piece.is_last)).collect()
    }

    #[test]
    fn pieces_follow_one_another_and_only_the_last_is_last() {
        assert_eq!(
            cut_to(&[part(10..35, 1000), part(35..40, 5000)], 10),
            [(10..20, 1000, false), (20..30, 1010, false), (30..35, 1020, false), (35..40, 5000, true)]
        );
        assert_eq!(cut_to(&[part(0..10, 1)], 10), [(0..10, 1, true)]);
    }

    #[test]
    fn nothing_is_one_empty_piece_where_it_has_an_address() {
        assert_eq!(cut_to(&[part(3..3, 9)], 10), [(3..3, 9, true)]);
        assert_eq!(cut_to(&[part(3..3, 9), part(3..5, 20)], 10), [(3..5, 20, true)]);
        assert_eq!(cut_to(&[], 10), []);
    }

    #[test]
    fn every_byte_is_moved_once() {
        for max in [1, 2, 3, 7, 64, 1000] {
            let pieces = cut(&[part(0..100, 500), part(100..101, 0), part(101..300, 9000)], max);
            let mut at = 0;
            for piece in &pieces {
                assert_eq!(piece.local.start, at);
                assert!(piece.local.len() <= max && !piece.local.is_empty());
                at = piece.local.end;
            }
            assert_eq!(at, 300);
        }
    }
}
