//! Signed heads of requests. The signer is penstock-client's, which derives its key once a day.

use penstock_client::Credentials;
use penstock_client::sign::{Signer as Signature, ToSign, UNSIGNED_PAYLOAD};
use time::OffsetDateTime;

use crate::Keys;

/// What stands for the hash of a payload that the signature does not cover.
pub(crate) const UNSIGNED: &str = UNSIGNED_PAYLOAD;

pub(crate) struct Signer {
    keys: Option<Credentials>,
    signature: Signature,
    authority: String,
}

impl Signer {
    pub(crate) fn new(keys: Option<Keys>, region: String, authority: String) -> Self {
        let keys = keys.map(|keys| Credentials::new(keys.access, keys.secret));
        Self { keys, signature: Signature::new(region, "s3"), authority }
    }

    /// The head of a request: `path` and `query` as they go over the wire (`query` sorted, without `?`).
    pub(crate) fn head(&self, method: &str, path: &str, query: &str, payload: &str, more: &str) -> String {
        self.head_at(OffsetDateTime::now_utc(), method, path, query, payload, more)
    }

    fn head_at(&self, at: OffsetDateTime, method: &str, path: &str, query: &str, payload: &str, more: &str) -> String {
        let mut head = String::with_capacity(640);
        let separator = if query.is_empty() { "" } else { "?" };
        for text in [method, " ", path, separator, query, " HTTP/1.1\r\nhost: ", &self.authority, "\r\n"] {
            head.push_str(text);
        }
        if let Some(keys) = &self.keys {
            let request = ToSign { method, host: &self.authority, path, query, headers: &[], payload_hash: payload };
            for (name, value) in self.signature.sign(&request, keys, at) {
                for text in [name, ": ", &value, "\r\n"] {
                    head.push_str(text);
                }
            }
        }
        head.push_str(more);
        head.push_str("\r\n");
        head
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
