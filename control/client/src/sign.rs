//! AWS Signature Version 4 (AWS: "Signature Calculations for the Authorization Header"), for headers and for URLs.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::credentials::Credentials;

/// Everything but the unreserved characters of RFC 3986.
const QUERY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for paths, whose slashes stay.
const PATH: AsciiSet = QUERY.remove(b'/');

/// What the payload's hash is said to be when nobody has computed it.
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A request to be signed: headers in lower case, without `host`, `x-amz-date`, `x-amz-content-sha256`.
pub(crate) struct Signing<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    /// Decoded, beginning with a slash.
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, String)],
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) payload_hash: &'a str,
    pub(crate) region: &'a str,
}

pub(crate) fn encoded_path(path: &str) -> String {
    utf8_percent_encode(path, &PATH).to_string()
}

pub(crate) fn encoded_query(query: &[(&str, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, &QUERY).to_string();
    let mut pairs: Vec<(String, String)> = query.iter().map(|(key, value)| (encode(key), encode(value))).collect();
    pairs.sort();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn stamp(now: OffsetDateTime) -> String {
    now.format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .expect("a date of four-digit years can be written")
}

fn signature(secret: &str, stamp: &str, region: &str, canonical: &str) -> String {
    let day = &stamp[..8];
    let scope = format!("{day}/{region}/s3/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let key = [day, region, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part));
    hex::encode(hmac(&key, &to_sign))
}

/// The headers that sign `signing` at `now`: all of the request's headers, `host` included, are under the signature.
pub(crate) fn sign(signing: &Signing<'_>, keys: &Credentials, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let stamp = stamp(now);
    let mut added = vec![("x-amz-content-sha256", signing.payload_hash.to_owned()), ("x-amz-date", stamp.clone())];
    if let Some(token) = &keys.session_token {
        added.push(("x-amz-security-token", token.clone()));
    }
    let mut all: Vec<(&str, &str)> = vec![("host", signing.host)];
    all.extend(signing.headers.iter().chain(&added).map(|(name, value)| (*name, value.as_str())));
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        signing.method,
        encoded_path(signing.path),
        encoded_query(signing.query),
        signing.payload_hash
    );
    let signature = signature(&keys.secret_access_key, &stamp, signing.region, &canonical);
    let (access, day, region) = (&keys.access_key_id, &stamp[..8], signing.region);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={access}/{day}/{region}/s3/aws4_request, SignedHeaders={names}, Signature={signature}"
    );
    added.push(("authorization", authorization));
    added
}

/// The query of a presigned URL that is good for `expires_s` seconds from `now`; only `host` is signed.
pub(crate) fn presign(signing: &Signing<'_>, keys: &Credentials, expires_s: u64, now: OffsetDateTime) -> String {
    let stamp = stamp(now);
    let scope = format!("{}/{}/s3/aws4_request", &stamp[..8], signing.region);
    let mut query = signing.query.to_vec();
    query.push(("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()));
    query.push(("X-Amz-Credential", format!("{}/{scope}", keys.access_key_id)));
    query.push(("X-Amz-Date", stamp.clone()));
    query.push(("X-Amz-Expires", expires_s.to_string()));
    query.push(("X-Amz-SignedHeaders", "host".to_owned()));
    if let Some(token) = &keys.session_token {
        query.push(("X-Amz-Security-Token", token.clone()));
    }
    let text = encoded_query(&query);
    let path = encoded_path(signing.path);
    let canonical = format!("{}\n{path}\n{text}\nhost:{}\n\nhost\n{UNSIGNED_PAYLOAD}", signing.method, signing.host);
    let signature = signature(&keys.secret_access_key, &stamp, signing.region, &canonical);
    format!("{text}&X-Amz-Signature={signature}")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    /// The keys and the examples of AWS's pages on signature version 4 for S3.
    fn keys() -> Credentials {
        Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn awss_examples_are_signed_as_aws_does() {
        let signing = Signing {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            headers: &[("range", "bytes=0-9".to_owned())],
            payload_hash: EMPTY,
            region: "us-east-1",
        };
        let now = datetime!(2013-05-24 00:00:00 UTC);
        let headers = sign(&signing, &keys(), now);
        let (name, value) = headers.last().unwrap();
        assert_eq!(*name, "authorization");
        assert!(
            value.ends_with("Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{value}"
        );
        let listing = [("max-keys", "2".to_owned()), ("prefix", "J".to_owned())];
        let signing = Signing { path: "/", query: &listing, headers: &[], ..signing };
        let headers = sign(&signing, &keys(), now);
        let (_, value) = headers.last().unwrap();
        assert!(
            value.ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{value}"
        );
        let signing = Signing { path: "/test.txt", query: &[], ..signing };
        let url = presign(&signing, &keys(), 86_400, now);
        assert!(
            url.ends_with("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
            "{url}"
        );
    }

    #[test]
    fn names_are_encoded_as_s3_decodes_them() {
        assert_eq!(encoded_path("/b/a b+c%/ü~"), "/b/a%20b%2Bc%25/%C3%BC~");
        assert_eq!(
            encoded_query(&[("prefix", "a/b".to_owned()), ("delimiter", "/".to_owned())]),
            "delimiter=%2F&prefix=a%2Fb"
        );
    }
}
