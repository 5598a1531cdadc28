//! What stands in headers and query values, parsed into the gateway's types and formatted back.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use penstock_digest::{ChecksumAlgorithm, ChecksumValue, crc64nvme};
use penstock_gateway::api::{ChecksumType, EtagCondition, ObjectChecksum, RangeSpec, UnixMs};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::failure::Failure;

/// ETags that one condition may list.
const ETAGS_PER_CONDITION_MAX: usize = 100;
/// What `encoding-type=url` leaves as it is: unreserved characters and the slash.
const URL_KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// First byte of a continuation token: the form of the rest.
const TOKEN_VERSION: u8 = 1;

/// A header's value as text, or none when the header is absent or empty.
///
/// # Errors
/// InvalidArgument when it is there more than once or not UTF-8.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::argument(name, "", format!("The header {name} may be given only once.")));
    }
    let text =
        utf8(value).ok_or_else(|| Failure::argument(name, "", format!("The header {name} is not valid UTF-8.")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A header value as UTF-8.
pub(crate) fn utf8(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// The whole of `text` as a number without sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `If-Match` and `If-None-Match`: `*`, or ETags between commas, quoted (weakly: compared as strong ones) or bare as
/// many S3 clients send them.
pub(crate) fn etag_condition(text: &str) -> Option<EtagCondition> {
    let text = text.trim();
    if text == "*" {
        return Some(EtagCondition::Any);
    }
    let mut etags = Vec::new();
    for item in text.split(',') {
        let item = item.trim();
        let item = item.strip_prefix("W/").unwrap_or(item);
        let etag = unquoted(item);
        if etag.is_empty() || etag.contains('"') || etags.len() == ETAGS_PER_CONDITION_MAX {
            return None;
        }
        etags.push(etag.to_owned());
    }
    Some(EtagCondition::OneOf(etags))
}

/// An ETag without its quotes, if it has them.
pub(crate) fn unquoted(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(etag)
}

/// `Range`, as S3 takes it: one range of bytes. Anything else (several ranges, other units, last before first) is as if it
/// were not there, as RFC 9110 allows and AWS does.
pub(crate) fn range(text: &str) -> Option<RangeSpec> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return Some(RangeSpec::Last(number(last)?));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Some(RangeSpec::From(first));
    }
    let last = number(last)?;
    (first <= last).then_some(RangeSpec::FromTo(first, last))
}

/// An HTTP date (or, as S3 also takes, an ISO 8601 one) in milliseconds.
pub(crate) fn http_date(text: &str) -> Option<UnixMs> {
    const OBSOLETE_850: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[weekday], [day]-[month repr:short]-[year repr:last_two] [hour]:[minute]:[second] GMT");
    const ASCTIME: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
    );
    let text = text.trim();
    let moment = OffsetDateTime::parse(text, &Rfc2822)
        .ok()
        .or_else(|| PrimitiveDateTime::parse(text, ASCTIME).ok().map(PrimitiveDateTime::assume_utc))
        .or_else(|| PrimitiveDateTime::parse(text, OBSOLETE_850).ok().map(PrimitiveDateTime::assume_utc))
        .or_else(|| OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok())?;
    u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()
}

fn moment(unix_ms: UnixMs) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `Last-Modified`: `Tue, 15 Nov 1994 08:12:31 GMT`.
pub(crate) fn format_http_date(unix_ms: UnixMs) -> String {
    const IMF: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    moment(unix_ms).format(IMF).unwrap_or_default()
}

/// Dates in XML: `1994-11-15T08:12:31.000Z`.
pub(crate) fn format_iso_date(unix_ms: UnixMs) -> String {
    const ISO: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    moment(unix_ms).format(ISO).unwrap_or_default()
}

/// `encoding-type=url`. Spaces become `%20` and plus signs `%2B`, which both ways of decoding (`+` as space or not) read
/// right.
pub(crate) fn url_encoded(text: &str) -> String {
    percent_encode(text.as_bytes(), URL_KEPT).to_string()
}

/// A continuation token that says `after`. Opaque to clients: base64url of a version, eight bytes of CRC64NVME and the text,
/// so that cut, mistyped and foreign tokens are found out.
pub(crate) fn continuation_token(after: &str) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(&crc64nvme(after.as_bytes()).to_be_bytes());
    bytes.extend_from_slice(after.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a continuation token says.
///
/// # Errors
/// InvalidArgument unless [`continuation_token`] made it.
pub(crate) fn from_continuation_token(token: &str) -> Result<String, Failure> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (version, rest) = bytes.split_first()?;
        let (crc, text) = rest.split_at_checked(8)?;
        let good = *version == TOKEN_VERSION && crc == crc64nvme(text).to_be_bytes();
        good.then(|| String::from_utf8(text.to_vec()).ok()).flatten()
    });
    decoded
        .ok_or_else(|| Failure::argument("continuation-token", token, "The continuation token provided is incorrect"))
}

/// `Content-MD5`.
///
/// # Errors
/// InvalidDigest unless it is the base64 of 16 bytes.
pub(crate) fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Failure> {
    let Some(text) = header(headers, "content-md5")? else {
        // An empty Content-MD5 is not an absent one.
        return match headers.contains_key("content-md5") {
            true => Err(invalid_md5("")),
            false => Ok(None),
        };
    };
    let digest = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    digest.map(Some).ok_or_else(|| invalid_md5(text))
}

fn invalid_md5(text: &str) -> Failure {
    let mut failure = Failure::bad("InvalidDigest", "The Content-MD5 you specified was invalid.");
    failure.details.push(("Content-MD5", text.chars().filter(|c| !c.is_control()).take(64).collect()));
    failure
}

/// The header of an algorithm's values, in lower case.
pub(crate) const fn checksum_header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
        ChecksumAlgorithm::Sha512 => "x-amz-checksum-sha512",
        ChecksumAlgorithm::Md5 => "x-amz-checksum-md5",
        ChecksumAlgorithm::Xxhash64 => "x-amz-checksum-xxhash64",
        ChecksumAlgorithm::Xxhash3 => "x-amz-checksum-xxhash3",
        ChecksumAlgorithm::Xxhash128 => "x-amz-checksum-xxhash128",
    }
}

/// The XML element of an algorithm's values.
pub(crate) const fn checksum_element(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
        ChecksumAlgorithm::Sha512 => "ChecksumSHA512",
        ChecksumAlgorithm::Md5 => "ChecksumMD5",
        ChecksumAlgorithm::Xxhash64 => "ChecksumXXHASH64",
        ChecksumAlgorithm::Xxhash3 => "ChecksumXXHASH3",
        ChecksumAlgorithm::Xxhash128 => "ChecksumXXHASH128",
    }
}

/// The value of a checksum header or trailer.
pub(crate) fn checksum_value(algorithm: ChecksumAlgorithm, text: &str) -> Option<ChecksumValue> {
    ChecksumValue::from_bytes(algorithm, &STANDARD.decode(text.trim()).ok()?).ok()
}

/// Base64 of a checksum.
pub(crate) fn format_checksum(value: &ChecksumValue) -> String {
    STANDARD.encode(value.as_bytes())
}

/// Base64 of an object's checksum; composite ones end in `-parts`.
pub(crate) fn format_object_checksum(checksum: &ObjectChecksum) -> String {
    match (checksum.kind, checksum.parts) {
        (ChecksumType::Composite, Some(parts)) => format!("{}-{parts}", format_checksum(&checksum.value)),
        _ => format_checksum(&checksum.value),
    }
}

/// `FULL_OBJECT` or `COMPOSITE`.
pub(crate) const fn checksum_type_name(kind: ChecksumType) -> &'static str {
    match kind {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    }
}

/// The reverse of [`checksum_type_name`].
pub(crate) fn checksum_type(text: &str) -> Option<ChecksumType> {
    match text {
        "FULL_OBJECT" => Some(ChecksumType::FullObject),
        "COMPOSITE" => Some(ChecksumType::Composite),
        _ => None,
    }
}

/// A stored text as a header value. What is not ASCII is sent as RFC 2047 says, like AWS does; HTTP headers are ASCII.
pub(crate) fn text_header(text: &str) -> Option<HeaderValue> {
    if text.is_ascii() {
        return HeaderValue::from_str(text).ok();
    }
    HeaderValue::try_from(format!("=?UTF-8?B?{}?=", STANDARD.encode(text))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("bytes=0-0", Some(RangeSpec::FromTo(0, 0))),
            ("bytes=5-", Some(RangeSpec::From(5))),
            ("bytes=-7", Some(RangeSpec::Last(7))),
            ("bytes=9-18446744073709551615", Some(RangeSpec::FromTo(9, u64::MAX))),
            ("bytes=3-2", None),
            ("bytes=0-1,4-5", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("lines=1-2", None),
            ("bytes=99999999999999999999-", None),
        ];
        for (text, want) in cases {
            assert_eq!(range(text), want, "{text}");
        }
    }

    #[test]
    fn etag_conditions() {
        let one_of = |etags: &[&str]| Some(EtagCondition::OneOf(etags.iter().map(|&e| e.to_owned()).collect()));
        assert_eq!(etag_condition("*"), Some(EtagCondition::Any));
        assert_eq!(etag_condition("\"abc-2\""), one_of(&["abc-2"]));
        assert_eq!(etag_condition("abc"), one_of(&["abc"]));
        assert_eq!(etag_condition("W/\"a\", \"b\""), one_of(&["a", "b"]));
        assert_eq!(etag_condition(""), None);
        assert_eq!(etag_condition("\"a\"b\""), None);
        assert_eq!(etag_condition(&"\"a\",".repeat(200)), None);
    }

    #[test]
    fn dates_come_back_as_they_went() {
        let moment_ms = 784_887_151_000;
        assert_eq!(format_http_date(moment_ms), "Tue, 15 Nov 1994 08:12:31 GMT");
        assert_eq!(format_iso_date(moment_ms + 7), "1994-11-15T08:12:31.007Z");
        assert_eq!(http_date("Tue, 15 Nov 1994 08:12:31 GMT"), Some(moment_ms));
        assert_eq!(http_date("Tue Nov 15 08:12:31 1994"), Some(moment_ms));
        assert_eq!(http_date("1994-11-15T08:12:31Z"), Some(moment_ms));
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn tokens_are_opaque_and_checked() {
        for after in ["", "a/b c", "\u{1}ü\u{ffff}"] {
            let token = continuation_token(after);
            assert_eq!(from_continuation_token(&token).ok().as_deref(), Some(after));
            let mut changed = token.into_bytes();
            changed[3] ^= 1;
            assert!(from_continuation_token(&String::from_utf8(changed).unwrap()).is_err());
        }
        assert!(from_continuation_token("").is_err());
        assert!(from_continuation_token("bm90IGEgdG9rZW4").is_err());
    }

    #[test]
    fn url_encoding_keeps_slashes_and_hides_the_rest() {
        assert_eq!(url_encoded("a/b c+d%\u{1}ü~"), "a/b%20c%2Bd%25%01%C3%BC~");
    }

    #[test]
    fn text_that_is_not_ascii_is_encoded() {
        assert_eq!(text_header("plain").unwrap(), "plain");
        assert_eq!(text_header("ü").unwrap(), "=?UTF-8?B?w7w=?=");
        assert!(text_header("a\nb").is_none());
    }
}
