//! AWS Signature Version 4 in headers, as cheap as it can be: the signing key is derived once a day.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::Keys;

/// What stands for the hash of a payload that the signature does not cover.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

pub(crate) struct Signer {
    keys: Option<Keys>,
    region: String,
    authority: String,
    /// The day, and its key.
    day: Mutex<Option<(String, [u8; 32])>>,
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

impl Signer {
    pub(crate) fn new(keys: Option<Keys>, region: String, authority: String) -> Self {
        Self { keys, region, authority, day: Mutex::default() }
    }

    /// The head of a request: `path` and `query` as they go over the wire (`query` sorted, without `?`).
    pub(crate) fn head(&self, method: &str, path: &str, query: &str, payload: &str, more: &str) -> String {
        self.head_at(OffsetDateTime::now_utc(), method, path, query, payload, more)
    }

    fn head_at(&self, at: OffsetDateTime, method: &str, path: &str, query: &str, payload: &str, more: &str) -> String {
        let mut head = String::with_capacity(640);
        head.push_str(method);
        head.push(' ');
        head.push_str(path);
        if !query.is_empty() {
            head.push('?');
            head.push_str(query);
        }
        let _ = write!(head, " HTTP/1.1\r\nhost: {}\r\n", self.authority);
        if let Some(keys) = &self.keys {
            let stamp = at
                .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
                .expect("invariant: a date of this century has this form");
            let authority = &self.authority;
            let names = "host;x-amz-content-sha256;x-amz-date";
            let canonical = format!(
                "{method}\n{path}\n{query}\nhost:{authority}\nx-amz-content-sha256:{payload}\nx-amz-date:{stamp}\n\n{names}\n{payload}"
            );
            let day = &stamp[..8];
            let scope = format!("{day}/{}/s3/aws4_request", self.region);
            let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
            let signature = hex::encode(hmac(&self.key(keys, day), &to_sign));
            let _ = write!(
                head,
                "x-amz-content-sha256: {payload}\r\nx-amz-date: {stamp}\r\nauthorization: AWS4-HMAC-SHA256 \
                 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n",
                keys.access
            );
        }
        head.push_str(more);
        head.push_str("\r\n");
        head
    }

    fn key(&self, keys: &Keys, day: &str) -> [u8; 32] {
        let mut known = self.day.lock();
        if let Some((known_day, key)) = &*known
            && known_day == day
        {
            return *key;
        }
        let first = hmac(format!("AWS4{}", keys.secret).as_bytes(), day);
        let key = [self.region.as_str(), "s3", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part));
        *known = Some((day.to_owned(), key));
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The example "GET Bucket (List Objects)" of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    #[test]
    fn the_documented_example() {
        let keys = Keys {
            access: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let signer = Signer::new(Some(keys), "us-east-1".to_owned(), "examplebucket.s3.amazonaws.com".to_owned());
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let head = signer.head_at(datetime!(2013-05-24 00:00:00 UTC), "GET", "/", "max-keys=2&prefix=J", empty, "");
        assert!(head.starts_with("GET /?max-keys=2&prefix=J HTTP/1.1\r\nhost: examplebucket"), "{head}");
        assert!(head.contains("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{head}");
        assert!(head.ends_with("\r\n\r\n"));
    }
}
