//! What a lifecycle configuration may say, and what it says of a version. Pure.
//!
//! Sources: "Lifecycle configuration elements", "Expiring objects" and the PutBucketLifecycleConfiguration page of AWS.
//! A time that is so many days after something is rounded up to the next midnight UTC.

use serde::{Deserialize, Serialize};

use crate::api::UnixMs;
use crate::error::{Error, ErrorKind, Result};
use crate::tags::{self, Tags};

/// Most rules of a configuration.
pub const RULES_MAX: usize = 1000;
/// Most characters of a rule's id.
const ID_CHARS_MAX: usize = 255;
/// Most versions that a rule may keep besides the current one.
const NEWER_VERSIONS_MAX: u32 = 100;
/// One day.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// A lifecycle configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// How a rule's filter was written: it is answered so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterForm {
    /// `<Prefix>` in the rule itself: the old way.
    RulePrefix,
    /// `<Filter>` with one predicate or none.
    #[default]
    One,
    /// `<Filter><And>`.
    And,
}

/// Which objects a rule is about: those of which all of this is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// How it was written.
    pub form: FilterForm,
    /// The key starts so.
    pub prefix: Option<String>,
    /// It has all of these tags.
    pub tags: Tags,
    /// It has more bytes.
    pub greater_than_bytes: Option<u64>,
    /// It has fewer bytes.
    pub less_than_bytes: Option<u64>,
}

/// When current versions expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiration {
    /// So many days after they were made.
    Days(u32),
    /// On this day.
    Date(UnixMs),
    /// Delete markers that hide nothing any more.
    DeleteMarkers(bool),
}

/// When noncurrent versions expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentExpiration {
    /// So many days after another version took their place.
    pub days: u32,
    /// Only with so many newer noncurrent ones.
    pub newer: Option<u32>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// `Enabled`, else `Disabled`.
    pub enabled: bool,
    /// What it is about.
    pub filter: Filter,
    /// When current versions expire.
    pub expiration: Option<Expiration>,
    /// When noncurrent versions expire.
    pub noncurrent: Option<NoncurrentExpiration>,
    /// After how many days uploads that were not completed are aborted.
    pub abort_days: Option<u32>,
}

/// What a rule looks at of a version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) key: &'a str,
    pub(crate) size_bytes: u64,
    pub(crate) tags: &'a [(String, String)],
}

impl Lifecycle {
    /// Whether a bucket may have this configuration.
    ///
    /// # Errors
    /// MalformedXML (as InvalidRequest is to structure), InvalidArgument, InvalidRequest, with the rule that it breaks.
    pub fn check(&self) -> Result<()> {
        if self.rules.is_empty() || self.rules.len() > RULES_MAX {
            return Err(malformed());
        }
        for (at, rule) in self.rules.iter().enumerate() {
            rule.check()?;
            if self.rules[..at].iter().any(|earlier| earlier.id == rule.id) {
                return Err(argument(format!(
                    "Rule ID must be unique. Found same ID for more than one rule: {}",
                    rule.id
                )));
            }
        }
        Ok(())
    }

    /// The rules that are on.
    pub(crate) fn enabled(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.enabled)
    }

    /// When a current object expires, and by which rule; the earliest of all.
    pub(crate) fn expiry(&self, subject: Subject<'_>, modified_unix_ms: UnixMs, day_ms: u64) -> Option<(UnixMs, &str)> {
        let of_rule = |rule: &'_ Rule| rule.expiry(subject, modified_unix_ms, day_ms);
        self.enabled().filter_map(|rule| Some((of_rule(rule)?, rule.id.as_str()))).min_by_key(|(at, _)| *at)
    }

    /// Whether any rule looks at tags.
    pub(crate) fn looks_at_tags(&self) -> bool {
        self.enabled().any(|rule| !rule.filter.tags.is_empty())
    }
}

impl Filter {
    fn check(&self) -> Result<()> {
        if self.prefix.as_ref().is_some_and(|prefix| prefix.len() > penstock_proto::limits::KEY_BYTES_MAX) {
            return Err(request("The maximum size of a prefix is 1024."));
        }
        tags::check_object_tags(&self.tags)?;
        if let (Some(more), Some(less)) = (self.greater_than_bytes, self.less_than_bytes)
            && more.saturating_add(1) >= less
        {
            return Err(request("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'."));
        }
        let predicates = usize::from(self.prefix.is_some())
            + self.tags.len()
            + usize::from(self.greater_than_bytes.is_some())
            + usize::from(self.less_than_bytes.is_some());
        match self.form {
            FilterForm::RulePrefix if self.prefix.is_some() && predicates == 1 => Ok(()),
            FilterForm::One if predicates <= 1 => Ok(()),
            FilterForm::And if predicates >= 2 => Ok(()),
            _ => Err(malformed()),
        }
    }

    pub(crate) fn matches_key(&self, key: &str) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
    }

    fn matches(&self, subject: Subject<'_>) -> bool {
        self.matches_key(subject.key)
            && self.tags.iter().all(|tag| subject.tags.contains(tag))
            && self.greater_than_bytes.is_none_or(|bytes| subject.size_bytes > bytes)
            && self.less_than_bytes.is_none_or(|bytes| subject.size_bytes < bytes)
    }

    /// Whether it asks for nothing that a delete marker or an upload does not have.
    fn is_of_keys_alone(&self) -> bool {
        self.tags.is_empty() && self.greater_than_bytes.is_none() && self.less_than_bytes.is_none()
    }
}

impl Rule {
    fn check(&self) -> Result<()> {
        if self.id.is_empty() || self.id.chars().count() > ID_CHARS_MAX {
            return Err(argument("ID length should not exceed allowed limit of 255"));
        }
        self.filter.check()?;
        if self.expiration.is_none() && self.noncurrent.is_none() && self.abort_days.is_none() {
            return Err(request("At least one action needs to be specified in a rule."));
        }
        match self.expiration {
            Some(Expiration::Days(0)) => {
                return Err(argument("'Days' for Expiration action must be a positive integer"));
            }
            Some(Expiration::Date(at)) if at % DAY_MS != 0 => {
                return Err(argument("'Date' must be at midnight GMT"));
            }
            Some(Expiration::DeleteMarkers(true)) if !self.filter.is_of_keys_alone() => {
                return Err(request("ExpiredObjectDeleteMarker cannot be specified with tags or object sizes."));
            }
            _ => {}
        }
        if let Some(NoncurrentExpiration { days, newer }) = self.noncurrent {
            if days == 0 {
                return Err(argument(
                    "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer",
                ));
            }
            if newer.is_some_and(|newer| !(1..=NEWER_VERSIONS_MAX).contains(&newer)) {
                return Err(argument("'NewerNoncurrentVersions' must be an integer between 1 and 100"));
            }
        }
        match self.abort_days {
            Some(0) => Err(argument(
                "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer",
            )),
            Some(_) if !self.filter.is_of_keys_alone() => {
                Err(request("AbortIncompleteMultipartUpload cannot be specified with tags or object sizes."))
            }
            _ => Ok(()),
        }
    }

    /// When it expires this current object.
    fn expiry(&self, subject: Subject<'_>, modified_unix_ms: UnixMs, day_ms: u64) -> Option<UnixMs> {
        if !self.filter.matches(subject) {
            return None;
        }
        self.expiration.and_then(|expiration| expiration.of(modified_unix_ms, day_ms))
    }

    /// Whether it expires this noncurrent version, of which there are `newer` newer noncurrent ones.
    pub(crate) fn expires_noncurrent(
        &self,
        subject: Subject<'_>,
        marker: bool,
        superseded_unix_ms: UnixMs,
        newer: u64,
        now_unix_ms: UnixMs,
        day_ms: u64,
    ) -> bool {
        let Some(expiration) = self.noncurrent else { return false };
        let matches = if marker {
            self.filter.is_of_keys_alone() && self.filter.matches_key(subject.key)
        } else {
            self.filter.matches(subject)
        };
        matches
            && expiration.newer.is_none_or(|keep| newer >= u64::from(keep))
            && days_after(superseded_unix_ms, expiration.days, day_ms) <= now_unix_ms
    }

    /// Whether it removes this delete marker, which is current and hides nothing.
    pub(crate) fn expires_marker(&self, key: &str, modified_unix_ms: UnixMs, now_unix_ms: UnixMs, day_ms: u64) -> bool {
        let Some(expiration) = self.expiration else { return false };
        let due = match expiration {
            Expiration::DeleteMarkers(all) => all,
            timed => timed.of(modified_unix_ms, day_ms).is_some_and(|at| at <= now_unix_ms),
        };
        due && self.filter.is_of_keys_alone() && self.filter.matches_key(key)
    }

    /// Whether it aborts an upload that was begun then.
    pub(crate) fn aborts(&self, key: &str, initiated_unix_ms: UnixMs, now_unix_ms: UnixMs, day_ms: u64) -> bool {
        self.filter.matches_key(key)
            && self.abort_days.is_some_and(|days| days_after(initiated_unix_ms, days, day_ms) <= now_unix_ms)
    }
}

impl Expiration {
    fn of(self, modified_unix_ms: UnixMs, day_ms: u64) -> Option<UnixMs> {
        match self {
            Self::Days(days) => Some(days_after(modified_unix_ms, days, day_ms)),
            Self::Date(at) => Some(at),
            Self::DeleteMarkers(_) => None,
        }
    }
}

/// So many days later, rounded up to the beginning of a day.
fn days_after(unix_ms: UnixMs, days: u32, day_ms: u64) -> UnixMs {
    let day_ms = day_ms.max(1);
    unix_ms.saturating_add(u64::from(days).saturating_mul(day_ms)).div_ceil(day_ms).saturating_mul(day_ms)
}

fn malformed() -> Error {
    Error::new(
        ErrorKind::MalformedXml,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

fn argument(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn request(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            id: "r".into(),
            enabled: true,
            filter: Filter::default(),
            expiration: Some(Expiration::Days(1)),
            noncurrent: None,
            abort_days: None,
        }
    }

    fn filter(form: FilterForm, prefix: Option<&str>, tags: usize) -> Filter {
        let tags = (0..tags).map(|at| (format!("k{at}"), String::new())).collect();
        Filter { form, prefix: prefix.map(str::to_owned), tags, ..Filter::default() }
    }

    #[test]
    fn configurations_that_may_be() {
        let check = |rules: Vec<Rule>| Lifecycle { rules }.check().map_err(|error| error.kind);
        let one = |rule: Rule| check(vec![rule]);
        let with = |filter| Rule { filter, ..rule() };
        let noncurrent = |days, newer| Rule { noncurrent: Some(NoncurrentExpiration { days, newer }), ..rule() };
        let sizes = |more, less| Filter {
            form: FilterForm::And,
            greater_than_bytes: Some(more),
            less_than_bytes: Some(less),
            ..Filter::default()
        };
        for good in [
            rule(),
            with(filter(FilterForm::RulePrefix, Some(""), 0)),
            with(filter(FilterForm::One, None, 1)),
            with(filter(FilterForm::And, Some("a"), 1)),
            with(filter(FilterForm::And, None, 2)),
            with(sizes(1, 3)),
            noncurrent(1, Some(100)),
            Rule { expiration: Some(Expiration::Date(DAY_MS)), ..rule() },
            Rule { expiration: None, abort_days: Some(1), ..rule() },
        ] {
            assert_eq!(one(good.clone()), Ok(()), "{good:?}");
        }
        let (argument, request) = (Err(ErrorKind::InvalidArgument), Err(ErrorKind::InvalidRequest));
        let malformed = Err(ErrorKind::MalformedXml);
        for (bad, why) in [
            (Rule { id: "i".repeat(256), ..rule() }, argument),
            (Rule { id: String::new(), ..rule() }, argument),
            (Rule { expiration: None, ..rule() }, request),
            (Rule { expiration: Some(Expiration::Days(0)), ..rule() }, argument),
            (Rule { expiration: Some(Expiration::Date(DAY_MS + 1)), ..rule() }, argument),
            (Rule { abort_days: Some(0), ..rule() }, argument),
            (Rule { abort_days: Some(1), ..with(filter(FilterForm::One, None, 1)) }, request),
            (
                Rule { expiration: Some(Expiration::DeleteMarkers(true)), ..with(filter(FilterForm::One, None, 1)) },
                request,
            ),
            (noncurrent(0, None), argument),
            (noncurrent(1, Some(0)), argument),
            (noncurrent(1, Some(101)), argument),
            (with(filter(FilterForm::RulePrefix, None, 0)), malformed),
            (with(filter(FilterForm::One, Some("a"), 1)), malformed),
            (with(filter(FilterForm::And, Some("a"), 0)), malformed),
            (with(filter(FilterForm::One, Some(&"p".repeat(1025)), 0)), request),
            (with(sizes(3, 3)), request),
            (with(sizes(2, 3)), request),
        ] {
            assert_eq!(one(bad.clone()), why, "{bad:?}");
        }
        assert_eq!(check(vec![]), malformed);
        assert_eq!(check(vec![rule(), rule()]), argument);
        let many = |count: usize| (0..count).map(|at| Rule { id: at.to_string(), ..rule() }).collect();
        assert_eq!((check(many(1000)), check(many(1001))), (Ok(()), malformed));
        let most = Lifecycle { rules: many(1000) };
        assert!(serde_json::to_vec(&most).unwrap().len() < penstock_meta::tables::BUCKET_SETTING_BYTES_MAX);
    }

    #[test]
    fn days_end_at_midnight() {
        assert_eq!(days_after(0, 1, DAY_MS), DAY_MS);
        assert_eq!(days_after(1, 1, DAY_MS), 2 * DAY_MS);
        assert_eq!(days_after(DAY_MS, 30, DAY_MS), 31 * DAY_MS);
        assert_eq!(days_after(u64::MAX, u32::MAX, DAY_MS) / DAY_MS, u64::MAX / DAY_MS);
    }

    #[test]
    fn the_earliest_rule_that_matches_decides() {
        let late = Rule { id: "late".into(), expiration: Some(Expiration::Days(9)), ..rule() };
        let early = Rule { id: "early".into(), filter: filter(FilterForm::One, Some("a/"), 0), ..rule() };
        let off = Rule { id: "off".into(), enabled: false, ..rule() };
        let lifecycle = Lifecycle { rules: vec![off, late, early] };
        let expiry = |key: &str| {
            let subject = Subject { key, size_bytes: 1, tags: &[] };
            lifecycle.expiry(subject, 0, DAY_MS).map(|(at, id)| (at / DAY_MS, id.to_owned()))
        };
        assert_eq!(expiry("a/b"), Some((1, "early".into())));
        assert_eq!(expiry("b"), Some((9, "late".into())));
    }

    #[test]
    fn filters_take_all_that_they_say() {
        let tags = vec![("k".to_owned(), "v".to_owned()), ("l".to_owned(), String::new())];
        let filter = Filter {
            form: FilterForm::And,
            prefix: Some("a".into()),
            tags: tags[..1].to_vec(),
            greater_than_bytes: Some(10),
            less_than_bytes: Some(20),
        };
        let matches = |key, size_bytes, tags: &[(String, String)]| filter.matches(Subject { key, size_bytes, tags });
        assert!(matches("ab", 11, &tags) && matches("a", 19, &tags[..1]));
        for wrong in [
            matches("b", 11, &tags),
            matches("a", 10, &tags),
            matches("a", 20, &tags),
            matches("a", 11, &tags[1..]),
            matches("a", 11, &[("k".to_owned(), "w".to_owned())]),
        ] {
            assert!(!wrong);
        }
    }
}
