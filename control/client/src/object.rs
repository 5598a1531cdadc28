//! What is asked of objects and what comes back.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_buf::{Buf, BufMut};
use penstock_digest::ChecksumValue;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use crate::checks::checksums_of;
use crate::error::ClientError;
use crate::http::Head;

/// Which bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first up to, not with, the second: less when the object ends before.
    Span(Range<u64>),
    /// From there on.
    From(u64),
    /// So many at the end: all when it is shorter.
    Last(u64),
}

/// What is asked of a GET or HEAD besides the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Which bytes; all by default.
    pub range: Option<ByteRange>,
    /// Which version; the current one by default.
    pub version_id: Option<String>,
    /// Only if the object has this ETag (or `*`).
    pub if_match: Option<String>,
    /// Only if it has not: else [`ClientError::Precondition`] with status 304.
    pub if_none_match: Option<String>,
    /// Only if it was modified since then, an HTTP date: else 304.
    pub if_modified_since: Option<String>,
    /// Only if it was not, an HTTP date: else 412.
    pub if_unmodified_since: Option<String>,
}

/// What the server says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// `Last-Modified`, as it was sent: an HTTP date. See [`modified_time`].
    pub last_modified: String,
    /// `Content-Type`.
    pub content_type: String,
    /// Its version, in a bucket that keeps them.
    pub version_id: Option<String>,
    /// `Cache-Control`, `Content-Disposition`, `Content-Encoding`, `Content-Language`, `Expires`, `x-amz-storage-class`: those that it has.
    pub headers: Vec<(String, String)>,
    /// User metadata: names without `x-amz-meta-`.
    pub user_metadata: Vec<(String, String)>,
    /// CRC64NVME of the whole object, when the server has it.
    pub crc64: Option<u64>,
    /// All checksums of the whole object that the server has.
    pub checksums: Vec<ChecksumValue>,
}

/// Bytes, in as many pieces as they have landed in.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pieces: Vec<Buf>,
}

/// An object, or a range of it.
#[derive(Clone, Debug)]
pub struct Object {
    /// What the server says of it.
    pub info: ObjectInfo,
    /// Which bytes of it these are.
    pub range: Range<u64>,
    /// The bytes.
    pub body: Body,
}

/// What a PUT made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutDone {
    /// The object's ETag.
    pub etag: String,
    /// CRC64NVME of its bytes, as it was sent and verified. None where parts were copied, and nobody here has seen the bytes.
    pub crc64: Option<u64>,
    /// Its version, in a bucket that keeps them.
    pub version_id: Option<String>,
}

/// Headers and conditions of a PUT.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Further headers by name in lower case: `cache-control`, `content-encoding`, `x-amz-storage-class`,
    /// `x-amz-server-side-encryption` and such.
    pub headers: Vec<(String, String)>,
    /// User metadata: names without `x-amz-meta-`.
    pub user_metadata: Vec<(String, String)>,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Only if there is no object under the key.
    pub if_none_match: bool,
    /// Only if the object under the key has this ETag.
    pub if_match: Option<String>,
    /// Bytes of each part of a long body, instead of [`crate::ClientOptions::part_bytes`].
    pub part_bytes: Option<u64>,
}

impl Body {
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Buf::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Buf] {
        &self.pieces
    }

    /// The pieces, in order.
    pub fn into_pieces(self) -> Vec<Buf> {
        self.pieces
    }

    /// All of it, when it has landed in one piece: what is up to 8 MiB long has, unless something was lost on the way.
    pub fn contiguous(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(&[]),
            [only] => Some(only),
            _ => None,
        }
    }

    /// All of it as memory that may be written to, when it has landed in one piece of pool memory that nobody else holds.
    ///
    /// # Errors
    /// Itself, unchanged, when it has not.
    pub fn try_into_mut(mut self) -> Result<BufMut, Self> {
        if self.pieces.len() != 1 {
            return Err(self);
        }
        let Some(only) = self.pieces.pop() else { return Err(self) };
        only.try_into_mut().map_err(|only| Self { pieces: vec![only] })
    }

    /// A copy.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for piece in &self.pieces {
            all.extend_from_slice(piece);
        }
        all
    }

    /// Puts a piece at its end, in one with the last where they are neighbours in memory.
    pub(crate) fn push(&mut self, piece: Buf) {
        let joined = match self.pieces.pop() {
            None => Ok(piece),
            Some(last) => last.rejoin(piece),
        };
        match joined {
            Ok(one) => self.pieces.push(one),
            Err((last, piece)) => self.pieces.extend([last, piece]),
        }
    }
}

impl ObjectInfo {
    /// A header of [`ObjectInfo::headers`].
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The time that a `last_modified` says, an HTTP date or ISO 8601.
pub fn modified_time(text: &str) -> Option<OffsetDateTime> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(time);
    }
    // HTTP dates end in GMT, which RFC 2822 has as an obsolete zone.
    OffsetDateTime::parse(text, &Rfc2822).ok()
}

/// Base64 of a CRC64NVME, as headers have it.
pub(crate) fn crc64_text(crc64: u64) -> String {
    STANDARD.encode(crc64.to_be_bytes())
}

/// The inverse.
pub(crate) fn crc64_value(text: &str) -> Option<u64> {
    let bytes: [u8; 8] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

pub(crate) fn etag_of(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

/// An ETag as it stands in a condition.
pub(crate) fn quoted(etag: &str) -> String {
    if etag == "*" || etag.starts_with('"') || etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// Headers that an object keeps and that callers may want.
const KEPT: [&str; 6] =
    ["cache-control", "content-disposition", "content-encoding", "content-language", "expires", "x-amz-storage-class"];

/// The object that an answer is about, and which bytes of it `length` are.
pub(crate) fn read_info(head: &Head, length: u64) -> Result<(ObjectInfo, Range<u64>), String> {
    let (range, size_bytes) = match head.header("content-range") {
        Some(text) => content_range(text).ok_or_else(|| format!("Content-Range {text:?}"))?,
        None => (0..length, length),
    };
    let text = |name: &str| head.header(name).unwrap_or_default().to_owned();
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let checksums = checksums_of(head);
    let crc64 = checksums.iter().find(|value| value.algorithm() == penstock_digest::ChecksumAlgorithm::Crc64Nvme);
    let info = ObjectInfo {
        size_bytes,
        etag: etag_of(head.header("etag").unwrap_or_default()),
        last_modified: text("last-modified"),
        content_type: text("content-type"),
        version_id: head.header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned),
        headers: KEPT.iter().filter_map(|name| Some(((*name).to_owned(), head.header(name)?.to_owned()))).collect(),
        user_metadata: head.with_prefix("x-amz-meta-").map(pair).collect(),
        crc64: crc64.and_then(ChecksumValue::as_crc),
        checksums,
    };
    Ok((info, range))
}

fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then(|| (first..last + 1, total))
}

impl GetOptions {
    /// These bytes.
    pub fn range(range: Range<u64>) -> Self {
        Self { range: Some(ByteRange::Span(range)), ..Self::default() }
    }

    /// The headers that say so.
    pub(crate) fn headers(&self) -> Result<Vec<(&'static str, String)>, ClientError> {
        let mut headers = vec![("x-amz-checksum-mode", "ENABLED".to_owned())];
        let empty = || ClientError::Configuration("an empty range can't be asked for".to_owned());
        match &self.range {
            None => {}
            Some(ByteRange::Span(range)) if range.start >= range.end => return Err(empty()),
            Some(ByteRange::Last(0)) => return Err(empty()),
            Some(ByteRange::Span(range)) => headers.push(("range", format!("bytes={}-{}", range.start, range.end - 1))),
            Some(ByteRange::From(start)) => headers.push(("range", format!("bytes={start}-"))),
            Some(ByteRange::Last(bytes)) => headers.push(("range", format!("bytes=-{bytes}"))),
        }
        let optional = [
            ("if-match", self.if_match.as_deref().map(quoted)),
            ("if-none-match", self.if_none_match.as_deref().map(quoted)),
            ("if-modified-since", self.if_modified_since.clone()),
            ("if-unmodified-since", self.if_unmodified_since.clone()),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 0-4/10"), Some((0..5, 10)));
        for bad in ["bytes 0-10/10", "bytes 5-4/10", "bytes */10", "0-4/10", "bytes a-b/c"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_headers_and_listings_have_them() {
        let header = modified_time("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        assert_eq!(header.unix_timestamp(), 1_445_412_480);
        assert_eq!(modified_time("2015-10-21T07:28:00.000Z"), Some(header));
        assert_eq!(modified_time("yesterday"), None);
    }

    #[test]
    fn pieces_in_order() {
        let mut body = Body::default();
        assert_eq!(body.contiguous(), Some(&b""[..]));
        body.push(Buf::from(b"ab".to_vec()));
        assert_eq!(body.contiguous(), Some(&b"ab"[..]));
        body.push(Buf::from(b"c".to_vec()));
        assert_eq!((body.contiguous(), body.to_vec(), body.len()), (None, b"abc".to_vec(), 3));
    }

    #[test]
    fn what_is_asked_of_a_get() {
        let options = GetOptions { if_match: Some("a".to_owned()), ..GetOptions::range(5..9) };
        let headers = options.headers().unwrap();
        assert!(headers.contains(&("range", "bytes=5-8".to_owned())));
        assert!(headers.contains(&("if-match", "\"a\"".to_owned())));
        for empty in [ByteRange::Span(3..3), ByteRange::Last(0)] {
            assert!(GetOptions { range: Some(empty), ..GetOptions::default() }.headers().is_err());
        }
    }
}
