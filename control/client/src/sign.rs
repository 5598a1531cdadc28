//! AWS Signature Version 4 (AWS: "Signature Calculations for the Authorization Header"), for headers and for URLs. The one
//! signer of the house: this client, `penstock admin` and the load generators use it.
//!
//! **Why it is cheap.** The signing key depends on the day, the region and the secret alone: it is derived once a day, which leaves
//! two SHA-256 blocks or so and one HMAC a request.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::credentials::Credentials;

/// Everything but the unreserved characters of RFC 3986.
const QUERY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for paths, whose slashes stay.
const PATH: AsciiSet = QUERY.remove(b'/');

/// What the payload's hash is said to be when nobody has computed it.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A request to be signed, as it goes over the wire.
#[derive(Clone, Copy, Debug)]
pub struct ToSign<'a> {
    /// `GET`.
    pub method: &'a str,
    /// The value of `Host`.
    pub host: &'a str,
    /// Beginning with a slash, percent-encoded ([`encoded_path`]).
    pub path: &'a str,
    /// Sorted and percent-encoded ([`encoded_query`]), without the question mark.
    pub query: &'a str,
    /// The headers that are to be under the signature, names in lower case; without `host`, `x-amz-date` and
    /// `x-amz-content-sha256`, which are.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body in hexadecimal ([`payload_hash`]), or [`UNSIGNED_PAYLOAD`].
    pub payload_hash: &'a str,
}

/// Signs for one region and service.
pub struct Signer {
    region: String,
    service: &'static str,
    known: Mutex<Option<Known>>,
}

/// The signing key of a day.
struct Known {
    day: String,
    secret: String,
    key: [u8; 32],
}

/// A path as it goes over the wire.
pub fn encoded_path(path: &str) -> String {
    utf8_percent_encode(path, &PATH).to_string()
}

/// A query as it goes over the wire: sorted, without the question mark.
pub fn encoded_query(query: &[(&str, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, &QUERY).to_string();
    let mut pairs: Vec<(String, String)> = query.iter().map(|(key, value)| (encode(key), encode(value))).collect();
    pairs.sort();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}

/// One value of a query or a form, percent-encoded.
pub fn encoded_value(value: &str) -> String {
    utf8_percent_encode(value, &QUERY).to_string()
}

/// SHA-256 of a body, in hexadecimal.
pub fn payload_hash(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn hmac(key: &[u8], message: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

/// A header's value as it is signed: without spaces at its ends, and with one where there are several.
fn push_collapsed(canonical: &mut String, value: &str) {
    let value = value.trim();
    if !value.contains("  ") {
        canonical.push_str(value);
        return;
    }
    let mut before = 'x';
    for character in value.chars() {
        if character != ' ' || before != ' ' {
            canonical.push(character);
        }
        before = character;
    }
}

/// `20260131T120000Z`.
fn stamp(now: OffsetDateTime) -> String {
    let mut text = String::with_capacity(16);
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let _ = write!(text, "{year:04}{:02}{day:02}T{hour:02}{minute:02}{second:02}Z", u8::from(month));
    text
}

impl Signer {
    /// A signer for a region and a service: `s3`, `iam`.
    pub fn new(region: impl Into<String>, service: &'static str) -> Self {
        Self { region: region.into(), service, known: Mutex::new(None) }
    }

    /// The headers that sign the request at `now`, to be sent beside its own: all of these and `host` are under the signature.
    pub fn sign(&self, request: &ToSign<'_>, keys: &Credentials, now: OffsetDateTime) -> Vec<(&'static str, String)> {
        let stamp = stamp(now.to_offset(time::UtcOffset::UTC));
        let mut added = Vec::with_capacity(4);
        added.push(("x-amz-content-sha256", request.payload_hash.to_owned()));
        added.push(("x-amz-date", stamp));
        if let Some(token) = &keys.session_token {
            added.push(("x-amz-security-token", token.clone()));
        }
        let mut all: Vec<(&str, &str)> = Vec::with_capacity(request.headers.len() + 4);
        all.push(("host", request.host));
        all.extend_from_slice(request.headers);
        all.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
        all.sort_unstable();
        let mut names = String::with_capacity(128);
        let mut canonical = String::with_capacity(768);
        let _ = write!(canonical, "{}\n{}\n{}\n", request.method, request.path, request.query);
        for (name, value) in &all {
            let separator = if names.is_empty() { "" } else { ";" };
            names.push_str(separator);
            names.push_str(name);
            canonical.push_str(name);
            canonical.push(':');
            push_collapsed(&mut canonical, value);
            canonical.push('\n');
        }
        let _ = write!(canonical, "\n{names}\n{}", request.payload_hash);
        let stamp = added[1].1.as_str();
        let signature = self.signature(&keys.secret_access_key, stamp, &canonical);
        let (access, scope) = (&keys.access_key_id, self.scope(stamp));
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}");
        added.push(("authorization", authorization));
        added
    }

    /// The query of a presigned URL that is good for `expires_s` seconds from `now`. `query` are the parameters that it has
    /// besides; of the request's headers only `host` is signed, and its own query is not looked at.
    pub fn presign(
        &self,
        request: &ToSign<'_>,
        query: &[(&str, String)],
        keys: &Credentials,
        expires_s: u64,
        now: OffsetDateTime,
    ) -> String {
        let stamp = stamp(now.to_offset(time::UtcOffset::UTC));
        let mut query = query.to_vec();
        query.push(("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()));
        query.push(("X-Amz-Credential", format!("{}/{}", keys.access_key_id, self.scope(&stamp))));
        query.push(("X-Amz-Date", stamp.clone()));
        query.push(("X-Amz-Expires", expires_s.to_string()));
        query.push(("X-Amz-SignedHeaders", "host".to_owned()));
        if let Some(token) = &keys.session_token {
            query.push(("X-Amz-Security-Token", token.clone()));
        }
        let text = encoded_query(&query);
        let ToSign { method, host, path, .. } = request;
        let canonical = format!("{method}\n{path}\n{text}\nhost:{host}\n\nhost\n{UNSIGNED_PAYLOAD}");
        let signature = self.signature(&keys.secret_access_key, &stamp, &canonical);
        format!("{text}&X-Amz-Signature={signature}")
    }

    fn scope(&self, stamp: &str) -> String {
        format!("{}/{}/{}/aws4_request", &stamp[..8], self.region, self.service)
    }

    fn signature(&self, secret: &str, stamp: &str, canonical: &str) -> String {
        let scope = self.scope(stamp);
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        hex::encode(hmac(&self.key(secret, &stamp[..8]), &to_sign))
    }

    fn key(&self, secret: &str, day: &str) -> [u8; 32] {
        let mut known = self.known.lock();
        if let Some(known) = &*known
            && known.day == day
            && known.secret == secret
        {
            return known.key;
        }
        let first = hmac(format!("AWS4{secret}").as_bytes(), day);
        let parts = [self.region.as_str(), self.service, "aws4_request"];
        let key = parts.iter().fold(first, |key, part| hmac(&key, part));
        *known = Some(Known { day: day.to_owned(), secret: secret.to_owned(), key });
        key
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The keys and the examples of AWS's pages on signature version 4 for S3.
    fn keys() -> Credentials {
        Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    }

    #[test]
    fn awss_examples_are_signed_as_aws_does() {
        let signer = Signer::new("us-east-1", "s3");
        let empty = payload_hash(b"");
        let request = ToSign {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: "",
            headers: &[("range", "bytes=0-9")],
            payload_hash: &empty,
        };
        let now = datetime!(2013-05-24 00:00:00 UTC);
        let signature = |request: &ToSign<'_>, now| {
            let headers = signer.sign(request, &keys(), now);
            let (name, value) = headers.last().unwrap();
            assert_eq!(*name, "authorization");
            value.rsplit_once("Signature=").unwrap().1.to_owned()
        };
        let first = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(signature(&request, now), first);
        let query = encoded_query(&[("prefix", "J".to_owned()), ("max-keys", "2".to_owned())]);
        let listing = ToSign { path: "/", query: &query, headers: &[], ..request };
        let second = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert_eq!(signature(&listing, now), second);
        let url = signer.presign(&ToSign { headers: &[], ..request }, &[], &keys(), 86_400, now);
        let third = "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(url.ends_with(third), "{url}");
        // The key of another day, and back: nothing is remembered too long.
        assert_ne!(signature(&listing, now + time::Duration::days(1)), second);
        assert_eq!(signature(&listing, now), second);
        // In whatever zone the caller's clock is.
        assert_eq!(signature(&listing, now.to_offset(time::UtcOffset::from_hms(-5, 0, 0).unwrap())), second);
    }

    #[test]
    fn spaces_are_signed_as_one() {
        let collapsed = |value: &str| {
            let mut text = String::new();
            push_collapsed(&mut text, value);
            text
        };
        assert_eq!((collapsed("  a   b c "), collapsed("a b")), ("a b c".to_owned(), "a b".to_owned()));
    }

    #[test]
    fn names_are_encoded_as_s3_decodes_them() {
        assert_eq!(encoded_path("/b/a b+c%/ü~"), "/b/a%20b%2Bc%25/%C3%BC~");
        assert_eq!(
            encoded_query(&[("prefix", "a/b".to_owned()), ("delimiter", "/".to_owned())]),
            "delimiter=%2F&prefix=a%2Fb"
        );
        assert_eq!(encoded_value("a b&c"), "a%20b%26c");
    }
}
