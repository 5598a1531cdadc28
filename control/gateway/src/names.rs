//! What names, keys, headers and storage classes may be. Pure.
//!
//! Bucket names follow the rules of general purpose buckets in the S3 user guide ("Bucket naming rules").

use std::net::Ipv4Addr;

use penstock_proto::limits;

use crate::api::ObjectHeaders;
use crate::error::{Error, ErrorKind, Result};

/// Prefixes that S3 keeps for itself.
const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
/// Suffixes that S3 keeps for itself.
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
/// Most bytes of the stored headers other than user metadata: an object's row must fit its limit.
const STORED_HEADERS_BYTES_MAX: usize = 8 << 10;

/// Whether a bucket may be called `name`.
///
/// # Errors
/// InvalidBucketName, with the rule that it breaks.
pub(crate) fn check_bucket_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let broken = if !(3..=63).contains(&bytes.len()) {
        "it has 3 to 63 characters"
    } else if !bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'-')) {
        "it has only lower-case letters, digits, dots and hyphens"
    } else if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        "it begins and ends with a letter or digit"
    } else if name.contains("..") {
        "it has no two dots in a row"
    } else if name.parse::<Ipv4Addr>().is_ok() || looks_like_ipv4(name) {
        "it is not formatted as an IP address"
    } else if RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        "it does not begin with xn--, sthree- or amzn-s3-demo-"
    } else if RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        "it does not end with -s3alias, --ol-s3, .mrap, --x-s3 or --table-s3"
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidBucketName,
        format!("The specified bucket is not valid: a bucket's name is such that {broken}."),
    ))
}

/// Four runs of digits between dots, whether or not each is an octet.
fn looks_like_ipv4(name: &str) -> bool {
    name.split('.').count() == 4
        && name.split('.').all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether an object may have `key`.
///
/// # Errors
/// KeyTooLongError; InvalidArgument for the empty key.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "An object key has at least one byte."));
    }
    if key.len() > limits::KEY_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::KeyTooLongError,
            format!("Your key is too long: {} bytes of at most {}.", key.len(), limits::KEY_BYTES_MAX),
        ));
    }
    Ok(())
}

/// Whether headers are small enough to be stored.
///
/// # Errors
/// MetadataTooLarge.
pub(crate) fn check_headers(headers: &ObjectHeaders) -> Result<()> {
    let user_bytes: usize = headers.user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if user_bytes > limits::USER_METADATA_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::MetadataTooLarge,
            format!(
                "Your metadata headers are {user_bytes} bytes, more than the allowed {}.",
                limits::USER_METADATA_BYTES_MAX
            ),
        ));
    }
    let ObjectHeaders {
        content_type,
        content_encoding,
        content_disposition,
        content_language,
        cache_control,
        expires,
        user_metadata: _,
    } = headers;
    let stored_bytes: usize =
        [content_type, content_encoding, content_disposition, content_language, cache_control, expires]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum();
    if stored_bytes > STORED_HEADERS_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::MetadataTooLarge,
            format!("The headers to store are {stored_bytes} bytes, more than the allowed {STORED_HEADERS_BYTES_MAX}."),
        ));
    }
    Ok(())
}

/// The storage class of what names none.
pub(crate) const STANDARD: &str = "STANDARD";

/// Whether a part may have `number`.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn check_part_number(number: u32) -> Result<()> {
    if (1..=limits::PART_NUMBER_MAX).contains(&number) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("Part number must be an integer between 1 and {}, inclusive.", limits::PART_NUMBER_MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        let longest = "a".repeat(63);
        for good in ["abc", "a-b", "a.b", "123", "my.bucket-1", "1.2.3", "a.b.c.d", &longest, "xn-a", "a--b"] {
            assert!(check_bucket_name(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            &too_long,
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.5.4",
            "999.1.1.1",
            "xn--a",
            "sthree-a",
            "amzn-s3-demo-a",
            "a-s3alias",
            "a--ol-s3",
            "a.mrap",
            "a--x-s3",
            "a--table-s3",
            "bücket",
            "a b",
            "a/b",
        ] {
            assert_eq!(check_bucket_name(bad).unwrap_err().kind, ErrorKind::InvalidBucketName, "{bad}");
        }
    }

    #[test]
    fn keys_headers_classes_and_part_numbers() {
        assert!(check_key(&"k".repeat(1024)).is_ok());
        assert_eq!(check_key(&"k".repeat(1025)).unwrap_err().kind, ErrorKind::KeyTooLongError);
        assert_eq!(check_key("").unwrap_err().kind, ErrorKind::InvalidArgument);
        let mut headers = ObjectHeaders { user_metadata: vec![("a".into(), "b".repeat(2047))], ..Default::default() };
        assert!(check_headers(&headers).is_ok());
        headers.user_metadata.push((String::new(), "c".into()));
        assert_eq!(check_headers(&headers).unwrap_err().kind, ErrorKind::MetadataTooLarge);
        let headers = ObjectHeaders { cache_control: Some("x".repeat(9000)), ..Default::default() };
        assert_eq!(check_headers(&headers).unwrap_err().kind, ErrorKind::MetadataTooLarge);
        assert!(check_part_number(1).is_ok() && check_part_number(10_000).is_ok());
        assert!(check_part_number(0).is_err() && check_part_number(10_001).is_err());
    }
}
