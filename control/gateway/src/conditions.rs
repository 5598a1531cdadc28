//! `If-*` conditions of reads, in the order of RFC 9110 section 13.2.2 as S3 applies it.
//!
//! Pure: an object's ETag and time go in, a verdict comes out. Conditions on writes are not decided here but inside the
//! metadata transaction ([`write_preconditions`] only translates them), or two writers could both be right.

use penstock_meta::tables::{EtagSet, Preconditions};

use crate::api::{Conditions, EtagCondition, UnixMs};
use crate::error::{Error, ErrorKind};

/// What a read's conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Hold,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Whether a read of the object with this ETag and time may go on.
///
/// `If-Unmodified-Since` counts only without `If-Match`, `If-Modified-Since` only without `If-None-Match`. Times are
/// compared in whole seconds, because HTTP dates have no finer ones.
pub(crate) fn judge_read(conditions: &Conditions, etag: &str, modified_unix_ms: UnixMs) -> Verdict {
    let modified_s = modified_unix_ms / 1000;
    match (&conditions.if_match, conditions.if_unmodified_since) {
        (Some(wanted), _) if !matches(wanted, etag) => return Verdict::Failed,
        (None, Some(since_ms)) if modified_s > since_ms / 1000 => return Verdict::Failed,
        _ => {}
    }
    match (&conditions.if_none_match, conditions.if_modified_since) {
        (Some(unwanted), _) if matches(unwanted, etag) => Verdict::NotModified,
        (None, Some(since_ms)) if modified_s <= since_ms / 1000 => Verdict::NotModified,
        _ => Verdict::Hold,
    }
}

/// [`judge_read`] as the answer to a GET or HEAD.
///
/// # Errors
/// NotModified or PreconditionFailed.
pub(crate) fn check_read(conditions: &Conditions, etag: &str, modified_unix_ms: UnixMs) -> Result<(), Error> {
    match judge_read(conditions, etag, modified_unix_ms) {
        Verdict::Hold => Ok(()),
        Verdict::NotModified => Err(Error::new(ErrorKind::NotModified, "The object has not changed.")),
        Verdict::Failed => Err(failed()),
    }
}

/// [`judge_read`] for the source of a copy, where S3 answers 412 to every condition that does not hold.
///
/// # Errors
/// PreconditionFailed.
pub(crate) fn check_copy_source(conditions: &Conditions, etag: &str, modified_unix_ms: UnixMs) -> Result<(), Error> {
    match judge_read(conditions, etag, modified_unix_ms) {
        Verdict::Hold => Ok(()),
        Verdict::NotModified | Verdict::Failed => Err(failed()),
    }
}

/// The conditions of a write or delete, as the metadata transaction wants them.
pub(crate) fn write_preconditions(conditions: &Conditions) -> Preconditions {
    Preconditions {
        if_match: conditions.if_match.as_ref().map(etag_set),
        if_none_match: conditions.if_none_match.as_ref().map(etag_set),
        if_match_size: conditions.if_match_size,
        if_match_last_modified_s: conditions.if_match_last_modified.map(|ms| ms / 1000),
        if_match_version: None,
    }
}

/// Whether any condition is set, so that losing a race may be answered with ConditionalRequestConflict.
pub(crate) fn any(conditions: &Conditions) -> bool {
    *conditions != Conditions::default()
}

pub(crate) fn failed() -> Error {
    Error::new(ErrorKind::PreconditionFailed, "At least one of the pre-conditions you specified did not hold.")
}

fn matches(condition: &EtagCondition, etag: &str) -> bool {
    match condition {
        EtagCondition::Any => true,
        EtagCondition::OneOf(etags) => etags.iter().any(|each| each == etag),
    }
}

fn etag_set(condition: &EtagCondition) -> EtagSet {
    match condition {
        EtagCondition::Any => EtagSet::Any,
        EtagCondition::OneOf(etags) => EtagSet::OneOf(etags.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: UnixMs = 1_700_000_000_500;

    fn one(etag: &str) -> Option<EtagCondition> {
        Some(EtagCondition::OneOf(vec![etag.to_owned()]))
    }

    #[test]
    fn the_order_of_rfc_9110() {
        let cases = [
            (Conditions::default(), Verdict::Hold),
            (Conditions { if_match: one("a"), ..Conditions::default() }, Verdict::Hold),
            (Conditions { if_match: Some(EtagCondition::Any), ..Conditions::default() }, Verdict::Hold),
            (Conditions { if_match: one("b"), ..Conditions::default() }, Verdict::Failed),
            (Conditions { if_none_match: one("a"), ..Conditions::default() }, Verdict::NotModified),
            (Conditions { if_none_match: one("b"), ..Conditions::default() }, Verdict::Hold),
            // If-Match decides alone, whatever If-Unmodified-Since says.
            (Conditions { if_match: one("a"), if_unmodified_since: Some(0), ..Conditions::default() }, Verdict::Hold),
            (Conditions { if_unmodified_since: Some(0), ..Conditions::default() }, Verdict::Failed),
            // If-None-Match decides alone, whatever If-Modified-Since says.
            (
                Conditions { if_none_match: one("b"), if_modified_since: Some(u64::MAX), ..Conditions::default() },
                Verdict::Hold,
            ),
            (Conditions { if_modified_since: Some(u64::MAX), ..Conditions::default() }, Verdict::NotModified),
            // Preconditions that fail come before those that mean 304.
            (Conditions { if_match: one("b"), if_none_match: one("a"), ..Conditions::default() }, Verdict::Failed),
        ];
        for (conditions, verdict) in cases {
            assert_eq!(judge_read(&conditions, "a", MODIFIED), verdict, "{conditions:?}");
        }
    }

    #[test]
    fn times_are_whole_seconds() {
        let second = MODIFIED / 1000 * 1000;
        let modified = |since| Conditions { if_modified_since: Some(since), ..Conditions::default() };
        let unmodified = |since| Conditions { if_unmodified_since: Some(since), ..Conditions::default() };
        assert_eq!(judge_read(&modified(second), "a", MODIFIED), Verdict::NotModified);
        assert_eq!(judge_read(&modified(second - 1000), "a", MODIFIED), Verdict::Hold);
        assert_eq!(judge_read(&unmodified(second), "a", MODIFIED), Verdict::Hold);
        assert_eq!(judge_read(&unmodified(second - 1), "a", MODIFIED), Verdict::Failed);
    }

    #[test]
    fn a_copy_source_answers_412_where_a_read_answers_304() {
        let unchanged = Conditions { if_none_match: one("a"), ..Conditions::default() };
        assert_eq!(check_read(&unchanged, "a", 0).unwrap_err().kind, ErrorKind::NotModified);
        assert_eq!(check_copy_source(&unchanged, "a", 0).unwrap_err().kind, ErrorKind::PreconditionFailed);
    }
}
