//! What is asked of objects and what comes back; reads.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, stream};
use penstock_buf::Buf;
use penstock_proto::limits;

use crate::client::{Client, Request};
use crate::error::ClientError;
use crate::http::Head;

/// What the server says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its size.
    pub size_bytes: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// `Last-Modified`, as it was sent.
    pub last_modified: String,
    /// `Content-Type`.
    pub content_type: String,
    /// User metadata: names without `x-amz-meta-`.
    pub user_metadata: Vec<(String, String)>,
    /// CRC64NVME of the whole object, when the server has it.
    pub crc64: Option<u64>,
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
    /// CRC64NVME of its bytes, as it was sent and verified.
    pub crc64: u64,
}

/// Headers and conditions of a PUT.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// User metadata: names without `x-amz-meta-` are not checked here; the server does. Names are static because they become
    /// header names: `x-amz-meta-…`.
    pub user_metadata: Vec<(&'static str, String)>,
    /// Only if there is no object under the key.
    pub if_none_match: bool,
    /// Only if the object under the key has this ETag.
    pub if_match: Option<String>,
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

    /// All of it, when it has landed in one piece: what is up to 8 MiB long has, unless something was lost on the way.
    pub fn contiguous(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(&[]),
            [only] => Some(only),
            _ => None,
        }
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

/// Base64 of a CRC64NVME, as headers have it.
pub(crate) fn crc64_text(crc64: u64) -> String {
    STANDARD.encode(crc64.to_be_bytes())
}

fn crc64_of(head: &Head) -> Option<u64> {
    let kind = head.header("x-amz-checksum-type").unwrap_or("FULL_OBJECT");
    let text = head.header("x-amz-checksum-crc64nvme").filter(|_| kind == "FULL_OBJECT")?;
    let bytes: [u8; 8] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// The object that an answer is about, and which bytes of it `length` are.
pub(crate) fn read_info(head: &Head, length: u64) -> Result<(ObjectInfo, Range<u64>), String> {
    let (range, size_bytes) = match head.header("content-range") {
        Some(text) => content_range(text).ok_or_else(|| format!("Content-Range {text:?}"))?,
        None => (0..length, length),
    };
    let text = |name: &str| head.header(name).unwrap_or_default().to_owned();
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let info = ObjectInfo {
        size_bytes,
        etag: text("etag").trim_matches('"').to_owned(),
        last_modified: text("last-modified"),
        content_type: text("content-type"),
        user_metadata: head.with_prefix("x-amz-meta-").map(pair).collect(),
        crc64: crc64_of(head),
    };
    Ok((info, range))
}

fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (first <= last && last < total).then(|| (first..last + 1, total))
}

impl Client {
    /// The object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Object, ClientError> {
        self.bounded("a GET", self.read_body(bucket, key, None)).await
    }

    /// Some bytes of the object: less when it ends before.
    ///
    /// # Errors
    /// [`ClientError`]; the server's InvalidRange when it ends before the first.
    pub async fn get_range(&self, bucket: &str, key: &str, range: Range<u64>) -> Result<Object, ClientError> {
        self.bounded("a GET", self.read_body(bucket, key, Some(range))).await
    }

    /// The object, into memory that is exactly as long. After an error its contents are unspecified.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Size`] when it has another length.
    pub async fn get_into(&self, bucket: &str, key: &str, into: &mut [u8]) -> Result<ObjectInfo, ClientError> {
        self.bounded("a GET", self.read_slice(bucket, key, None, into)).await
    }

    /// Some bytes of the object, into memory that is exactly as long as they are.
    ///
    /// # Errors
    /// As [`Client::get_into`].
    pub async fn get_range_into(
        &self,
        bucket: &str,
        key: &str,
        start: u64,
        into: &mut [u8],
    ) -> Result<ObjectInfo, ClientError> {
        let range = Some(start..start + into.len() as u64);
        self.bounded("a GET", self.read_slice(bucket, key, range, into)).await
    }

    /// Many ranges of one object, each into its own memory, [`crate::ClientOptions::parallel_max`] at a time.
    ///
    /// # Errors
    /// The first that occurs.
    pub async fn get_ranges_into(
        &self,
        bucket: &str,
        key: &str,
        ranges: Vec<(u64, &mut [u8])>,
    ) -> Result<(), ClientError> {
        let reads: Vec<_> = ranges
            .into_iter()
            .map(|(start, into)| async move { self.get_range_into(bucket, key, start, into).await.map(drop) })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(self.inner.options.parallel_max.max(1));
        while let Some(read) = reads.next().await {
            read?;
        }
        Ok(())
    }

    /// Many objects, `at_a_time` at a time; results in the order of `keys`.
    pub async fn get_many(&self, bucket: &str, keys: &[String], at_a_time: usize) -> Vec<Result<Object, ClientError>> {
        let reads: Vec<_> = keys.iter().map(|key| self.get(bucket, key)).collect();
        stream::iter(reads).buffered(at_a_time.max(1)).collect().await
    }

    /// What the server says of the object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, ClientError> {
        let headers = vec![("x-amz-checksum-mode", "ENABLED".to_owned())];
        let request = Request { method: "HEAD", bucket, key, headers, ..Request::default() };
        self.bounded("a HEAD", async {
            let answer = self.inner.send(&request).await?;
            let length = answer.head.length.unwrap_or_default();
            let info = read_info(&answer.head, length).map_err(|reason| self.inner.protocol(reason));
            self.inner.done(answer);
            Ok(info?.0)
        })
        .await
    }

    /// Deletes the object. To delete what is not there is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), ClientError> {
        let request = Request { method: "DELETE", bucket, key, ..Request::default() };
        self.bounded("a DELETE", async {
            let answer = self.inner.send(&request).await?;
            self.inner.whole(answer, limits::XML_BODY_BYTES_MAX).await.map(drop)
        })
        .await
    }

    /// Makes a bucket. One that is there already and is ours is no error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), ClientError> {
        let request = Request { method: "PUT", bucket, ..Request::default() };
        self.bounded("CreateBucket", async {
            match self.inner.send(&request).await {
                Ok(answer) => self.inner.whole(answer, limits::XML_BODY_BYTES_MAX).await.map(drop),
                Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

impl crate::client::Inner {
    pub(crate) fn protocol(&self, reason: impl ToString) -> ClientError {
        ClientError::Protocol { host: self.endpoint.host_header(""), reason: reason.to_string() }
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
    fn pieces_in_order() {
        let mut body = Body::default();
        assert_eq!(body.contiguous(), Some(&b""[..]));
        body.push(Buf::from(b"ab".to_vec()));
        assert_eq!(body.contiguous(), Some(&b"ab"[..]));
        body.push(Buf::from(b"c".to_vec()));
        assert_eq!((body.contiguous(), body.to_vec(), body.len()), (None, b"abc".to_vec(), 3));
    }
}
