//! Writes of bytes that are there: in one request, by plan, or in parallel parts.

use futures::{StreamExt, stream};
use penstock_buf::Buf;
use penstock_digest::Crc64Nvme;
use penstock_proto::limits;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::checks::corrupt;
use crate::client::{Client, Request, name_of};
use crate::error::ClientError;
use crate::multipart::{Part, UploadId};
use crate::object::{PutDone, PutOptions, crc64_text, crc64_value, etag_of, quoted};
use crate::plan::Planned;
use penstock_digest::ChecksumValue;

/// What a PUT stores.
pub(crate) struct Data<'a> {
    /// One after the other.
    pub(crate) pieces: &'a [&'a [u8]],
    /// The same, in one, as memory that nodes may be lent; without it, bytes are copied to be lent.
    pub(crate) lent: Option<Buf>,
}

impl Client {
    /// Stores `data` under the key, in place of what is there. Long bodies go in parallel parts.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is visible then, unless the answer to the last request was lost.
    pub async fn put(&self, bucket: &str, key: &str, data: &[u8], options: PutOptions) -> Result<PutDone, ClientError> {
        self.put_pieces(bucket, key, &[data], options).await
    }

    /// As [`Client::put`], of bytes that lie in pieces, one after the other.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_pieces(
        &self,
        bucket: &str,
        key: &str,
        data: &[&[u8]],
        options: PutOptions,
    ) -> Result<PutDone, ClientError> {
        self.put_data(bucket, key, &Data { pieces: data, lent: None }, options).await
    }

    pub(crate) async fn put_data(
        &self,
        bucket: &str,
        key: &str,
        data: &Data<'_>,
        options: PutOptions,
    ) -> Result<PutDone, ClientError> {
        let bytes = length(data.pieces);
        let part_bytes = self.part_bytes(&options, bytes);
        let work = async {
            if bytes >= 2 * part_bytes {
                return self.put_parts(bucket, key, data, part_bytes, &options).await;
            }
            let request = put_request(bucket, key, &options);
            self.put_one(request, data).await
        };
        self.bounded("a PUT", work).await
    }

    /// Bytes of each part of a body of `bytes`.
    pub(crate) fn part_bytes(&self, options: &PutOptions, bytes: u64) -> u64 {
        let least = bytes.div_ceil(u64::from(limits::PART_NUMBER_MAX));
        let wanted = options.part_bytes.unwrap_or(self.inner.options.part_bytes);
        wanted.clamp(limits::PART_BYTES_MIN, limits::PUT_BYTES_MAX).max(least)
    }

    /// One body by one request, or by plan.
    pub(crate) async fn put_one(&self, mut request: Request<'_>, data: &Data<'_>) -> Result<PutDone, ClientError> {
        let inner = &*self.inner;
        let bytes = length(data.pieces);
        let small = bytes <= inner.options.inline_bytes_max;
        if !small {
            let required = inner.options.require_plan || inner.options.require_rdma;
            let reason = match inner.may_be_native() {
                true => match self.put_by_plan(&request, data).await? {
                    Planned::Done(done) => return Ok(done),
                    Planned::Declined(reason) => reason,
                },
                false => "server",
            };
            if reason != "small" {
                if required {
                    return Err(ClientError::PlanRequired(reason));
                }
                if inner.options.mode != crate::options::Mode::Http {
                    inner.stats.fallback(reason);
                }
            }
        }
        let crc64 = crc64_of(data.pieces);
        request.headers.push(("x-amz-checksum-crc64nvme", crc64_text(crc64)));
        request.body = data.pieces.to_vec();
        let answer = inner.send(&request).await?;
        let etag = etag_of(answer.head.header("etag").unwrap_or_default());
        let version_id = answer.head.header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned);
        let claimed = answer.head.header("x-amz-checksum-crc64nvme").and_then(crc64_value);
        inner.whole(answer, limits::XML_BODY_BYTES_MAX).await?;
        inner.stats.written("http", bytes);
        if let Some(claimed) = claimed.filter(|claimed| *claimed != crc64) {
            inner.stats.count(|stats| stats.corrupt += 1);
            let value = ChecksumValue::from_crc64nvme;
            return Err(corrupt(name_of(request.bucket, request.key), &value(crc64), &value(claimed)));
        }
        Ok(PutDone { etag, crc64: Some(crc64), version_id })
    }

    async fn put_parts(
        &self,
        bucket: &str,
        key: &str,
        data: &Data<'_>,
        part_bytes: u64,
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        let upload = self.create_upload_now(bucket, key, options).await?;
        let done = self.upload_parts(bucket, key, data, part_bytes, &upload, options).await;
        if done.is_err() {
            self.abort_quietly(bucket, key, &upload).await;
        }
        done
    }

    async fn upload_parts(
        &self,
        bucket: &str,
        key: &str,
        data: &Data<'_>,
        part_bytes: u64,
        upload: &UploadId,
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        let puts: Vec<_> = chunks(data.pieces, part_bytes as usize)
            .into_iter()
            .zip(1u32..)
            .map(|(part, number)| async move {
                let begin = (u64::from(number - 1) * part_bytes) as usize;
                let lent = data.lent.as_ref().map(|lent| lent.slice(begin..begin + length(&part) as usize));
                self.upload_part_now(bucket, key, upload, number, &Data { pieces: &part, lent }).await
            })
            .collect();
        let mut puts = stream::iter(puts).buffered(self.inner.options.parallel_max.max(1));
        let mut parts: Vec<Part> = Vec::new();
        while let Some(part) = puts.next().await {
            parts.push(part?);
        }
        self.complete_upload_now(bucket, key, upload, &parts, options).await
    }
}

/// Bytes altogether.
pub(crate) fn length(data: &[&[u8]]) -> u64 {
    data.iter().map(|piece| piece.len() as u64).sum()
}

pub(crate) fn crc64_of(data: &[&[u8]]) -> u64 {
    let mut crc64 = Crc64Nvme::new();
    data.iter().for_each(|piece| crc64.update(piece));
    crc64.finish()
}

/// Pieces, cut anew into chunks of `bytes`, the last one shorter; none of nothing.
pub(crate) fn chunks<'a>(data: &[&'a [u8]], bytes: usize) -> Vec<Vec<&'a [u8]>> {
    let mut chunks: Vec<Vec<&[u8]>> = Vec::new();
    let mut room = 0;
    for piece in data {
        let mut left = *piece;
        while !left.is_empty() {
            if room == 0 {
                chunks.push(Vec::new());
                room = bytes;
            }
            let (front, rest) = left.split_at(left.len().min(room));
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(front);
            }
            room -= front.len();
            left = rest;
        }
    }
    chunks
}

/// The PUT of an object, without its body.
fn put_request<'a>(bucket: &'a str, key: &'a str, options: &PutOptions) -> Request<'a> {
    let (mut headers, named) = object_headers(options);
    headers.extend(conditions(options));
    Request { method: "PUT", bucket, key, headers, named, ..Request::default() }
}

/// Headers whose names are known before, and those that callers name.
type Known = Vec<(&'static str, String)>;
type Named = Vec<(String, String)>;

/// What the object is to have.
pub(crate) fn object_headers(options: &PutOptions) -> (Known, Named) {
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    let mut named: Vec<(String, String)> = options.headers.iter().map(lower).collect();
    let metadata = options.user_metadata.iter().map(lower);
    named.extend(metadata.map(|(name, value)| (format!("x-amz-meta-{name}"), value)));
    let mut headers = Vec::new();
    headers.extend(options.content_type.clone().map(|value| ("content-type", value)));
    if !options.tags.is_empty() {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> =
            options.tags.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        headers.push(("x-amz-tagging", pairs.join("&")));
    }
    (headers, named)
}

pub(crate) fn conditions(options: &PutOptions) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if options.if_none_match {
        headers.push(("if-none-match", "*".to_owned()));
    }
    headers.extend(options.if_match.as_deref().map(|etag| ("if-match", quoted(etag))));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_anew() {
        let data: [&[u8]; 4] = [b"abc", b"", b"defgh", b"i"];
        let joined: Vec<Vec<u8>> = chunks(&data, 4).iter().map(|chunk| chunk.concat()).collect();
        assert_eq!(joined, [b"abcd".to_vec(), b"efgh".to_vec(), b"i".to_vec()]);
        assert!(chunks(&[b""], 4).is_empty());
        assert_eq!((length(&data), crc64_of(&data)), (9, penstock_digest::crc64nvme(b"abcdefghi")));
    }
}
