//! HTTP ranges against an object's size. Pure.

use std::ops::Range;

use crate::api::RangeSpec;
use crate::error::{Error, ErrorKind, Result};

/// Which bytes of an object of `size_bytes` a GET with `range` answers, and whether that is a 206.
///
/// A range that contradicts itself (`bytes=5-2`) is no range at all and is ignored, as RFC 9110 has it.
///
/// # Errors
/// InvalidRange when it begins at or past the end, asks for the last 0 bytes, or the object is empty.
pub(crate) fn resolve(range: Option<RangeSpec>, size_bytes: u64) -> Result<(Range<u64>, bool)> {
    let out_of_range =
        || Error::new(ErrorKind::InvalidRange, format!("The range begins past the object's {size_bytes} bytes."));
    match range {
        None => Ok((0..size_bytes, false)),
        Some(RangeSpec::FromTo(first, last)) if last < first => Ok((0..size_bytes, false)),
        Some(RangeSpec::FromTo(first, _) | RangeSpec::From(first)) if first >= size_bytes => Err(out_of_range()),
        Some(RangeSpec::FromTo(first, last)) => Ok((first..last.saturating_add(1).min(size_bytes), true)),
        Some(RangeSpec::From(first)) => Ok((first..size_bytes, true)),
        Some(RangeSpec::Last(count)) if count == 0 || size_bytes == 0 => Err(out_of_range()),
        Some(RangeSpec::Last(count)) => Ok((size_bytes.saturating_sub(count)..size_bytes, true)),
    }
}

/// `x-amz-copy-source-range`: both ends are named and lie within the source.
///
/// # Errors
/// InvalidArgument otherwise.
pub(crate) fn resolve_copy(range: Option<RangeSpec>, size_bytes: u64) -> Result<Range<u64>> {
    match range {
        None => Ok(0..size_bytes),
        Some(RangeSpec::FromTo(first, last)) if first <= last && last < size_bytes => Ok(first..last + 1),
        Some(RangeSpec::FromTo(..)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("The x-amz-copy-source-range is not valid for a source object of {size_bytes} bytes."),
        )),
        Some(RangeSpec::From(_) | RangeSpec::Last(_)) => Err(Error::new(
            ErrorKind::InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last, both zero-based.",
        )),
    }
}

/// The part of `wanted` that lies in a piece which covers `piece` of the object, counted from the piece's start.
pub(crate) fn within(wanted: &Range<u64>, piece: &Range<u64>) -> Option<Range<u64>> {
    let start = wanted.start.max(piece.start);
    let end = wanted.end.min(piece.end);
    (start < end).then(|| start - piece.start..end - piece.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_http_has_them() {
        use RangeSpec::{From, FromTo, Last};
        let ok = |spec, size| resolve(spec, size).unwrap();
        assert_eq!(ok(None, 10), (0..10, false));
        assert_eq!(ok(None, 0), (0..0, false));
        assert_eq!(ok(Some(FromTo(0, 0)), 10), (0..1, true));
        assert_eq!(ok(Some(FromTo(3, 99)), 10), (3..10, true));
        assert_eq!(ok(Some(FromTo(3, u64::MAX)), 10), (3..10, true));
        assert_eq!(ok(Some(FromTo(5, 2)), 10), (0..10, false));
        assert_eq!(ok(Some(From(9)), 10), (9..10, true));
        assert_eq!(ok(Some(Last(3)), 10), (7..10, true));
        assert_eq!(ok(Some(Last(99)), 10), (0..10, true));
        for (spec, size) in [(FromTo(10, 12), 10), (From(10), 10), (Last(0), 10), (Last(5), 0), (From(0), 0)] {
            assert_eq!(resolve(Some(spec), size).unwrap_err().kind, ErrorKind::InvalidRange, "{spec:?} of {size}");
        }
    }

    #[test]
    fn copy_ranges_must_fit() {
        use RangeSpec::{From, FromTo, Last};
        assert_eq!(resolve_copy(Some(FromTo(2, 9)), 10).unwrap(), 2..10);
        assert_eq!(resolve_copy(None, 10).unwrap(), 0..10);
        for spec in [FromTo(2, 10), FromTo(5, 4), From(1), Last(1)] {
            assert_eq!(resolve_copy(Some(spec), 10).unwrap_err().kind, ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn the_part_within_a_piece() {
        assert_eq!(within(&(5..15), &(0..10)), Some(5..10));
        assert_eq!(within(&(5..15), &(10..20)), Some(0..5));
        assert_eq!(within(&(5..15), &(6..8)), Some(0..2));
        assert_eq!(within(&(5..15), &(15..20)), None);
        assert_eq!(within(&(5..5), &(0..10)), None);
    }
}
