//! Conditions on an object as it is: a pure decision, made inside the transaction that acts on it.

use super::ObjectRow;

/// One side of If-Match or If-None-Match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtagSet {
    /// `*`.
    Any,
    /// One of these ETags, without quotes.
    OneOf(Vec<String>),
}

impl EtagSet {
    fn contains(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(etags) => etags.iter().any(|one| one == etag),
        }
    }
}

/// What must hold of the object before it is changed. The default holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// It exists, with one of these.
    pub if_match: Option<EtagSet>,
    /// It does not exist, or with none of these.
    pub if_none_match: Option<EtagSet>,
    /// It has this size.
    pub if_match_size: Option<u64>,
    /// It was last modified in this second since 1970.
    pub if_match_last_modified_s: Option<u64>,
    /// It is the version at this place ([`VersionRow::place`](super::VersionRow::place)).
    pub if_match_version: Option<String>,
}

/// Which answer a failed condition gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreconditionFailure {
    /// There is no object to match.
    #[error("there is no such object for the condition to match")]
    NoSuchKey,
    /// There is, and it does not match.
    #[error("the condition does not hold")]
    Failed,
}

impl Preconditions {
    /// Whether all conditions hold of `current`.
    ///
    /// # Errors
    /// [`PreconditionFailure::NoSuchKey`] if something must match and there is no object; else
    /// [`PreconditionFailure::Failed`] if one does not hold.
    pub fn check(&self, current: Option<&ObjectRow>) -> Result<(), PreconditionFailure> {
        let Some(object) = current else {
            let wants_object = self.if_match.is_some()
                || self.if_match_size.is_some()
                || self.if_match_last_modified_s.is_some()
                || self.if_match_version.is_some();
            return if wants_object { Err(PreconditionFailure::NoSuchKey) } else { Ok(()) };
        };
        let holds = self.if_match.as_ref().is_none_or(|set| set.contains(&object.etag))
            && self.if_none_match.as_ref().is_none_or(|set| !set.contains(&object.etag))
            && self.if_match_size.is_none_or(|size| size == object.size_bytes)
            && self.if_match_last_modified_s.is_none_or(|second| second == object.modified_unix_ms / 1000)
            && self.if_match_version.as_ref().is_none_or(|place| *place == object.version.place());
        if holds { Ok(()) } else { Err(PreconditionFailure::Failed) }
    }
}
