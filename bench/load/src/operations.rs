//! One operation from beginning to end: what is sent, and what the answer must be.

use std::fmt::Write as _;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::content::Content;
use crate::http::{Connection, Head};
use crate::sign::{Signer, UNSIGNED};
use crate::{FailureKind, Operation, Spec};

/// What a query value may have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a success moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) bytes: u64,
    /// Of a listing.
    pub(crate) keys: u64,
}

/// What operations are made of.
pub(crate) struct Client {
    pub(crate) spec: Spec,
    pub(crate) signer: Signer,
    pub(crate) content: Content,
}

/// Which object: those that are read, or those that are put to be deleted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Kept(u64),
    Fleeting(u64),
}

impl Object {
    fn index(self) -> u64 {
        match self {
            Self::Kept(index) | Self::Fleeting(index) => index,
        }
    }
}

fn expect(head: &Head, statuses: &[u16]) -> Result<(), FailureKind> {
    if statuses.contains(&head.status) { Ok(()) } else { Err(FailureKind::Status(head.status)) }
}

impl Client {
    /// The key, within the bucket. Fleeting ones sort before kept ones.
    pub(crate) fn key(&self, object: Object) -> String {
        match object {
            Object::Kept(index) => format!("{}o{index:012}", self.spec.prefix),
            Object::Fleeting(index) => format!("{}d{index:012}", self.spec.prefix),
        }
    }

    fn path(&self, object: Object) -> String {
        format!("/{}/{}", self.spec.bucket, self.key(object))
    }

    /// A request without a body, and the head of its answer.
    async fn ask(
        &self,
        connection: &mut Connection,
        method: &str,
        path: &str,
        query: &str,
        more: &str,
    ) -> Result<Head, FailureKind> {
        let head = self.signer.head(method, path, query, EMPTY, more);
        connection.send(&head, std::iter::empty()).await?;
        connection.head(method == "HEAD").await
    }

    /// A request with a body; the server may answer before it has all of it.
    async fn tell(
        &self,
        connection: &mut Connection,
        head: String,
        body: impl Iterator<Item = Bytes>,
    ) -> Result<Head, FailureKind> {
        match connection.send(&head, body).await {
            Ok(()) => connection.head(false).await,
            // It may have said why it would not listen.
            Err(FailureKind::Broken) => match connection.head(false).await {
                Ok(mut head) => {
                    head.keep = false;
                    Ok(head)
                }
                Err(_) => Err(FailureKind::Broken),
            },
            Err(other) => Err(other),
        }
    }

    /// Makes the bucket, unless it is there.
    pub(crate) async fn make_bucket(&self, connection: &mut Connection) -> Result<bool, FailureKind> {
        let path = format!("/{}", self.spec.bucket);
        let head = self.ask(connection, "PUT", &path, "", "content-length: 0\r\n").await?;
        connection.text(&head).await?;
        expect(&head, &[200, 409])?;
        Ok(head.keep)
    }

    /// PUT, in parts where the specification wants them. Says, too, whether the connection may be used again.
    pub(crate) async fn put(&self, connection: &mut Connection, object: Object) -> Result<(Done, bool), FailureKind> {
        let bytes = self.spec.sizes.of(object.index());
        let keep = match self.spec.part_bytes {
            Some(part_bytes) if bytes > part_bytes => self.put_parts(connection, object, bytes, part_bytes).await?,
            _ => {
                let path = self.path(object);
                let head = self.put_range(connection, &path, "", object.index(), 0..bytes).await?;
                head.keep
            }
        };
        Ok((Done { bytes, keys: 0 }, keep))
    }

    async fn put_range(
        &self,
        connection: &mut Connection,
        path: &str,
        query: &str,
        index: u64,
        range: std::ops::Range<u64>,
    ) -> Result<Head, FailureKind> {
        let length = range.end - range.start;
        let payload = match self.spec.signed_payloads && self.spec.keys.is_some() {
            true => hex::encode(self.content.sha256(index, range.start, length)),
            false => UNSIGNED.to_owned(),
        };
        let head = self.signer.head("PUT", path, query, &payload, &format!("content-length: {length}\r\n"));
        let mut at = range.start;
        let pieces = std::iter::from_fn(|| {
            let piece = self.content.piece(index, at, range.end - at);
            at += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        });
        let head = self.tell(connection, head, pieces).await?;
        connection.text(&head).await?;
        expect(&head, &[200, 201, 204])?;
        Ok(head)
    }

    async fn put_parts(
        &self,
        connection: &mut Connection,
        object: Object,
        bytes: u64,
        part_bytes: u64,
    ) -> Result<bool, FailureKind> {
        let path = self.path(object);
        let head = self.ask(connection, "POST", &path, "uploads=", "content-length: 0\r\n").await?;
        let text = connection.text(&head).await?;
        expect(&head, &[200])?;
        let upload_id = between(&text, "<UploadId>", "</UploadId>").ok_or(FailureKind::WrongData)?;
        let upload = utf8_percent_encode(upload_id, PLAIN).to_string();
        let mut document = String::from("<CompleteMultipartUpload>");
        let mut begin = 0;
        for number in 1_u32.. {
            let end = (begin + part_bytes).min(bytes);
            let query = format!("partNumber={number}&uploadId={upload}");
            let head = self.put_range(connection, &path, &query, object.index(), begin..end).await?;
            let etag = head.etag.ok_or(FailureKind::WrongData)?.replace('"', "&quot;");
            let _ = write!(document, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            begin = end;
            if begin == bytes {
                break;
            }
        }
        document.push_str("</CompleteMultipartUpload>");
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&document));
        let query = format!("uploadId={upload}");
        let more = format!("content-length: {}\r\n", document.len());
        let head = self.signer.head("POST", &path, &query, &hash, &more);
        let head = self.tell(connection, head, std::iter::once(document.into())).await?;
        let text = connection.text(&head).await?;
        expect(&head, &[200])?;
        // A 200 that was sent before it was known to fail.
        if text.contains("<CompleteMultipartUploadResult") { Ok(head.keep) } else { Err(FailureKind::WrongData) }
    }

    /// GET, all of it or a range; every byte is compared.
    pub(crate) async fn get(
        &self,
        connection: &mut Connection,
        index: u64,
        rng: &mut SmallRng,
    ) -> Result<(Done, bool), FailureKind> {
        let size = self.spec.sizes.of(index);
        let range = match self.spec.range_bytes {
            Some(bytes) if bytes < size => {
                let begin = rng.random_range(0..=size - bytes);
                Some(begin..begin + bytes)
            }
            _ => None,
        };
        let more = range
            .as_ref()
            .map_or_else(String::new, |range| format!("range: bytes={}-{}\r\n", range.start, range.end - 1));
        let head = self.ask(connection, "GET", &self.path(Object::Kept(index)), "", &more).await?;
        let wanted = range.clone().unwrap_or(0..size);
        let length = wanted.end - wanted.start;
        if head.status != if range.is_some() { 206 } else { 200 } {
            connection.text(&head).await?;
            return Err(FailureKind::Status(head.status));
        }
        match head.length {
            Some(announced) if announced < length => return Err(FailureKind::ShortBody),
            Some(announced) if announced > length => return Err(FailureKind::WrongData),
            _ => {}
        }
        let come = connection.body(&head, |at, piece| self.content.is(index, wanted.start + at, piece)).await?;
        match come.cmp(&length) {
            std::cmp::Ordering::Less => Err(FailureKind::ShortBody),
            std::cmp::Ordering::Greater => Err(FailureKind::WrongData),
            std::cmp::Ordering::Equal => Ok((Done { bytes: length, keys: 0 }, head.keep)),
        }
    }

    pub(crate) async fn head(&self, connection: &mut Connection, index: u64) -> Result<(Done, bool), FailureKind> {
        let head = self.ask(connection, "HEAD", &self.path(Object::Kept(index)), "", "").await?;
        expect(&head, &[200])?;
        if head.length != Some(self.spec.sizes.of(index)) {
            return Err(FailureKind::WrongData);
        }
        Ok((Done::default(), head.keep))
    }

    /// One page from a random place on; it must have as many keys as there are.
    pub(crate) async fn list(
        &self,
        connection: &mut Connection,
        rng: &mut SmallRng,
    ) -> Result<(Done, bool), FailureKind> {
        let (objects, max) = (self.spec.objects, u64::from(self.spec.list_keys));
        let after = rng.random_range(0..=objects.saturating_sub(max + 1));
        let expected = max.min(objects - 1 - after);
        let encode = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        let query = format!(
            "list-type=2&max-keys={max}&prefix={}&start-after={}",
            encode(&self.spec.prefix),
            encode(&self.key(Object::Kept(after)))
        );
        let head = self.ask(connection, "GET", &format!("/{}", self.spec.bucket), &query, "").await?;
        let text = connection.text(&head).await?;
        expect(&head, &[200])?;
        let keys = text.matches("<Contents>").count() as u64;
        if keys != expected || !text.trim_end().ends_with("</ListBucketResult>") {
            return Err(FailureKind::WrongData);
        }
        Ok((Done { bytes: text.len() as u64, keys }, head.keep))
    }

    pub(crate) async fn delete(
        &self,
        connection: &mut Connection,
        object: Object,
    ) -> Result<(Done, bool), FailureKind> {
        let head = self.ask(connection, "DELETE", &self.path(object), "", "").await?;
        connection.text(&head).await?;
        expect(&head, &[200, 204])?;
        Ok((Done::default(), head.keep))
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}

/// The operation, with an object for those that take one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Put(Object),
    Get(u64),
    Head(u64),
    List,
    Delete(Object),
}

impl Step {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Put(_) => Operation::Put,
            Self::Get(_) => Operation::Get,
            Self::Head(_) => Operation::Head,
            Self::List => Operation::List,
            Self::Delete(_) => Operation::Delete,
        }
    }
}
