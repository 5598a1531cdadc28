//! Tags of buckets and objects: what they may be. Pure.
//!
//! The rules are those of "Object tagging" in the S3 user guide and "Tag naming limits" of AWS Billing: a key has 1 to 128
//! characters and a value up to 256, of letters, digits, spaces and `+ - = . _ : / @`; no key twice; `aws:` is reserved.

use crate::error::{Error, ErrorKind, Result};

/// Tags: keys and values, in the order they were given.
pub type Tags = Vec<(String, String)>;

/// Most tags of an object.
pub const OBJECT_TAGS_MAX: usize = 10;
/// Most tags of a bucket.
pub const BUCKET_TAGS_MAX: usize = 50;
const KEY_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;

/// Whether a bucket may have these.
///
/// # Errors
/// InvalidTag.
pub fn check_bucket_tags(tags: &[(String, String)]) -> Result<()> {
    check(tags, BUCKET_TAGS_MAX, "Bucket tag count cannot be greater than 50")
}

/// Whether an object may have these.
///
/// # Errors
/// InvalidTag.
pub fn check_object_tags(tags: &[(String, String)]) -> Result<()> {
    check(tags, OBJECT_TAGS_MAX, "Object tags cannot be greater than 10")
}

fn check(tags: &[(String, String)], max: usize, too_many: &'static str) -> Result<()> {
    let invalid = |why: &'static str| Err(Error::new(ErrorKind::InvalidTag, why));
    if tags.len() > max {
        return invalid(too_many);
    }
    for (at, (key, value)) in tags.iter().enumerate() {
        if key.is_empty() || !within(key, KEY_CHARS_MAX) {
            return invalid("The TagKey you have provided is invalid");
        }
        if !within(value, VALUE_CHARS_MAX) {
            return invalid("The TagValue you have provided is invalid");
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return invalid("System tags cannot be added/updated by requester");
        }
        if tags[..at].iter().any(|(earlier, _)| earlier == key) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

/// At most so many characters, all of which are allowed.
fn within(text: &str, chars_max: usize) -> bool {
    // S3 counts UTF-16 units.
    text.encode_utf16().count() <= chars_max
        && text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() && !c.is_control() || "+-=._:/@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let tag = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        let (long, longer) = ("k".repeat(128), "k".repeat(129));
        let (value, larger) = ("v".repeat(256), "v".repeat(257));
        let good = [("a", ""), ("ключ é", "+ - = . _ : / @"), (long.as_str(), value.as_str()), ("awsome", "aws:")];
        for (key, value) in good {
            assert!(check_object_tags(&tag(key, value)).is_ok(), "{key}={value}");
        }
        let bad = [
            ("", "v"),
            (longer.as_str(), ""),
            ("k", larger.as_str()),
            ("a&b", ""),
            ("a", "b?"),
            ("aws:x", "v"),
            ("AWS:x", "v"),
            ("a\n", ""),
        ];
        for (key, value) in bad {
            assert_eq!(check_bucket_tags(&tag(key, value)).unwrap_err().kind, ErrorKind::InvalidTag, "{key}={value}");
        }
        let many = |count: usize| (0..count).map(|at| (format!("k{at}"), String::new())).collect::<Tags>();
        assert!(check_object_tags(&many(10)).is_ok() && check_object_tags(&many(11)).is_err());
        assert!(check_bucket_tags(&many(50)).is_ok() && check_bucket_tags(&many(51)).is_err());
        assert!(check_object_tags(&[tag("a", "1"), tag("a", "2")].concat()).is_err());
        assert!(check_object_tags(&[tag("a", "1"), tag("A", "2")].concat()).is_ok());
    }
}
