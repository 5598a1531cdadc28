//! The policy of an upload by form: what the one who signed it allows the one who fills it in.
//!
//! Pure: a document and a form in, a verdict out. Source: "POST Policy",
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html>.

use penstock_proto::limits;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::form::Fields;
use crate::failure::Failure;

/// Most conditions of one policy.
const CONDITIONS_MAX: usize = 256;
/// Fields that no condition need cover.
const FREE_FIELDS: [&str; 5] = ["x-amz-signature", "file", "policy", "awsaccesskeyid", "signature"];

/// A policy, parsed.
#[derive(Debug)]
pub(super) struct Policy {
    expires: OffsetDateTime,
    conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Equals { field: String, value: String },
    StartsWith { field: String, prefix: String },
    Length { min: u64, max: u64 },
}

/// How long the file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LengthRange {
    pub(super) min: u64,
    pub(super) max: u64,
}

fn invalid(message: impl std::fmt::Display) -> Failure {
    Failure::bad("InvalidPolicyDocument", format!("Invalid Policy: {message}"))
}

fn not_allowed(message: impl std::fmt::Display) -> Failure {
    Failure::access_denied(format!("Invalid according to Policy: {message}"))
}

impl Policy {
    /// Reads the JSON document.
    ///
    /// # Errors
    /// InvalidPolicyDocument that names what is wrong.
    pub(super) fn parse(document: &[u8]) -> Result<Self, Failure> {
        let document: Value = serde_json::from_slice(document).map_err(|_| invalid("Invalid JSON."))?;
        let document = document.as_object().ok_or_else(|| invalid("The document must be a JSON object."))?;
        if let Some(name) = document.keys().find(|name| !matches!(name.as_str(), "expiration" | "conditions")) {
            return Err(invalid(format!("Unexpected: '{}'.", name.chars().take(64).collect::<String>())));
        }
        let expires =
            document.get("expiration").and_then(Value::as_str).ok_or_else(|| invalid("Policy missing expiration."))?;
        let expires = OffsetDateTime::parse(expires, &Rfc3339)
            .map_err(|_| invalid("Invalid 'expiration' value: it must be a date as 2026-12-31T12:00:00.000Z."))?;
        let list = document
            .get("conditions")
            .and_then(Value::as_array)
            .ok_or_else(|| invalid("Policy missing conditions."))?;
        if list.len() > CONDITIONS_MAX {
            return Err(invalid(format!("More than {CONDITIONS_MAX} conditions.")));
        }
        let mut conditions = Vec::with_capacity(list.len());
        for condition in list {
            conditions.extend(Condition::parse(condition)?);
        }
        Ok(Self { expires, conditions })
    }

    /// Holds a filled-in form against the policy; says how long its file may be.
    ///
    /// # Errors
    /// AccessDenied that names the condition that fails, or the field that none covers.
    pub(super) fn check(&self, bucket: &str, fields: &Fields, now: OffsetDateTime) -> Result<LengthRange, Failure> {
        if now >= self.expires {
            return Err(not_allowed("Policy expired."));
        }
        let mut range = LengthRange { min: 0, max: limits::PUT_BYTES_MAX };
        for condition in &self.conditions {
            let (field, good) = match condition {
                Condition::Length { min, max } => {
                    range = LengthRange { min: range.min.max(*min), max: range.max.min(*max) };
                    continue;
                }
                Condition::Equals { field, value } => {
                    (field, value_of(bucket, fields, field).is_some_and(|v| v == value))
                }
                Condition::StartsWith { field, prefix } => {
                    let fits = value_of(bucket, fields, field).is_some_and(|given| match field.as_str() {
                        // A list: each of its entries must fit.
                        "content-type" => given.split(',').all(|kind| kind.trim_start().starts_with(prefix.as_str())),
                        _ => given.starts_with(prefix.as_str()),
                    });
                    (field, fits || (prefix.is_empty() && field != "key"))
                }
            };
            if !good {
                return Err(not_allowed(format!("Policy Condition failed: {}", condition.shown(field))));
            }
        }
        for (name, _) in fields.iter() {
            let covered = FREE_FIELDS.contains(&name)
                || name.starts_with("x-ignore-")
                || self.conditions.iter().any(|condition| condition.field() == Some(name));
            if !covered {
                return Err(not_allowed(format!("Extra input fields: {}", name.chars().take(64).collect::<String>())));
            }
        }
        Ok(range)
    }
}

fn value_of<'a>(bucket: &'a str, fields: &'a Fields, field: &str) -> Option<&'a str> {
    // The bucket is where the form was sent; a field of this name changes nothing.
    if field == "bucket" { Some(bucket) } else { fields.get(field) }
}

impl Condition {
    fn parse(condition: &Value) -> Result<Vec<Self>, Failure> {
        let malformed =
            || invalid(format!("Invalid condition: {}", condition.to_string().chars().take(120).collect::<String>()));
        let name = |text: &str| text.to_ascii_lowercase();
        match condition {
            Value::Object(pairs) if !pairs.is_empty() => pairs
                .iter()
                .map(|(field, value)| {
                    let value = value.as_str().ok_or_else(malformed)?;
                    Ok(Self::Equals { field: name(field), value: unescaped(value) })
                })
                .collect(),
            Value::Array(parts) if parts.len() == 3 => {
                let operator = parts[0].as_str().ok_or_else(malformed)?.to_ascii_lowercase();
                if operator == "content-length-range" {
                    let number = |value: &Value| match value {
                        Value::Number(number) => number.as_u64(),
                        Value::String(text) => text.parse().ok(),
                        _ => None,
                    };
                    let (min, max) =
                        (number(&parts[1]).ok_or_else(malformed)?, number(&parts[2]).ok_or_else(malformed)?);
                    return if min <= max { Ok(vec![Self::Length { min, max }]) } else { Err(malformed()) };
                }
                let field = parts[1].as_str().and_then(|field| field.strip_prefix('$')).ok_or_else(malformed)?;
                let value = unescaped(parts[2].as_str().ok_or_else(malformed)?);
                match operator.as_str() {
                    "eq" => Ok(vec![Self::Equals { field: name(field), value }]),
                    "starts-with" => Ok(vec![Self::StartsWith { field: name(field), prefix: value }]),
                    _ => Err(malformed()),
                }
            }
            _ => Err(malformed()),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Equals { field, .. } | Self::StartsWith { field, .. } => Some(field),
            Self::Length { .. } => None,
        }
    }

    fn shown(&self, field: &str) -> String {
        let (operator, value) = match self {
            Self::Equals { value, .. } => ("eq", value.as_str()),
            Self::StartsWith { prefix, .. } => ("starts-with", prefix.as_str()),
            Self::Length { .. } => ("content-length-range", ""),
        };
        format!("[\"{operator}\", \"${field}\", \"{value}\"]")
    }
}

/// `\$` is a dollar sign that begins no variable.
fn unescaped(value: &str) -> String {
    value.replace("\\$", "$")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.add(name, (*value).to_owned()).unwrap();
        }
        fields
    }

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    const NOW: &str = "2026-11-20T12:00:00Z";

    fn checked(conditions: &str, pairs: &[(&str, &str)]) -> Result<LengthRange, String> {
        let document = format!(r#"{{"expiration": "2026-11-20T13:00:00.000Z", "conditions": [{conditions}]}}"#);
        let policy = Policy::parse(document.as_bytes()).map_err(|failure| failure.code.into_owned())?;
        policy.check("b", &fields(pairs), at(NOW)).map_err(|failure| failure.message.into_owned())
    }

    #[test]
    fn conditions_hold_or_say_which_does_not() {
        let max = limits::PUT_BYTES_MAX;
        let all = r#"{"bucket": "b"}, ["starts-with", "$key", "user/"], ["eq", "$acl", "private"], ["content-length-range", 2, "10"]"#;
        assert_eq!(checked(all, &[("Key", "user/a"), ("acl", "private")]), Ok(LengthRange { min: 2, max: 10 }));
        let says = |pairs: &[(&str, &str)]| checked(all, pairs).unwrap_err();
        assert!(says(&[("key", "other/a"), ("acl", "private")]).contains(r#"["starts-with", "$key", "user/"]"#));
        assert!(says(&[("key", "user/a"), ("acl", "public-read")]).contains(r#"["eq", "$acl", "private"]"#));
        assert!(says(&[("key", "user/a")]).contains("$acl"), "a field that a condition names must be there");
        assert!(
            says(&[("key", "user/a"), ("acl", "private"), ("x-amz-meta-a", "b")])
                .contains("Extra input fields: x-amz-meta-a")
        );
        assert_eq!(
            checked(r#"["starts-with", "$key", ""]"#, &[("key", "k"), ("x-ignore-this", "b")]),
            Ok(LengthRange { min: 0, max })
        );
        assert!(checked(r#"{"bucket": "other"}, ["starts-with", "$key", ""]"#, &[("key", "k")]).is_err());
        assert!(checked(r#"["starts-with", "$key", "\\$x"]"#, &[("key", "$xy")]).is_ok());
        let images = r#"["starts-with", "$content-type", "image/"], ["starts-with", "$key", ""]"#;
        assert!(checked(images, &[("key", "k"), ("Content-Type", "image/png, image/jpeg")]).is_ok());
        assert!(checked(images, &[("key", "k"), ("Content-Type", "image/png, text/html")]).is_err());
    }

    #[test]
    fn a_policy_ends() {
        let document = br#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [["starts-with", "$key", ""]]}"#;
        let failure = Policy::parse(document).unwrap().check("b", &fields(&[("key", "k")]), at(NOW)).unwrap_err();
        assert!(failure.message.contains("expired") && failure.code == "AccessDenied");
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for document in [
            "",
            "[]",
            "{}",
            r#"{"expiration": "2026-11-20T12:00:00Z"}"#,
            r#"{"conditions": []}"#,
            r#"{"Expiration": "2026-11-20T12:00:00Z", "conditions": []}"#,
            r#"{"expiration": "tomorrow", "conditions": []}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": {}}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [["eq", "key", "k"]]}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [["like", "$key", "k"]]}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [["content-length-range", 10, 2]]}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [["content-length-range", -1, 2]]}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [{"a": 1}]}"#,
            r#"{"expiration": "2026-11-20T12:00:00Z", "conditions": [7]}"#,
        ] {
            assert_eq!(Policy::parse(document.as_bytes()).unwrap_err().code, "InvalidPolicyDocument", "{document}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Policy::parse(&bytes);
        }

        /// Whatever the conditions, a form with one more field than they cover is refused.
        #[test]
        fn an_uncovered_field_never_passes(names in proptest::collection::btree_set("[a-m]{1,6}", 0..6), extra in "[n-w]{1,6}") {
            let conditions: Vec<String> = names.iter().map(|name| format!(r#"["eq", "${name}", "v"]"#)).collect();
            let mut pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
            prop_assert!(checked(&conditions.join(","), &pairs).is_ok());
            pairs.push((&extra, "v"));
            prop_assert!(checked(&conditions.join(","), &pairs).is_err());
        }
    }
}
