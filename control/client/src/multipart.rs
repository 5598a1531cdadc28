//! Writes: in one request, by plan, or in parallel parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, stream};
use penstock_digest::{crc64nvme, crc64nvme_combine};
use penstock_proto::limits;

use crate::client::{Client, Request};
use crate::error::ClientError;
use crate::object::{PutDone, PutOptions, crc64_text};
use crate::plan::Planned;
use crate::xml::{Element, complete_upload};

/// An uploaded part.
struct Part {
    number: u32,
    etag: String,
    crc64: u64,
    bytes: u64,
}

impl Client {
    /// Stores `data` under the key, in place of what is there. Long bodies go in parallel parts.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is visible then, unless the answer to the last request was lost.
    pub async fn put(&self, bucket: &str, key: &str, data: &[u8], options: PutOptions) -> Result<PutDone, ClientError> {
        let work = async {
            if data.len() as u64 >= 2 * self.inner.options.part_bytes.max(limits::PART_BYTES_MIN) {
                return self.put_parts(bucket, key, data, &options).await;
            }
            let mut headers = object_headers(&options);
            headers.extend(conditions(&options));
            let request = Request { method: "PUT", bucket, key, headers, ..Request::default() };
            let (etag, crc64) = self.put_one(request, data).await?;
            Ok(PutDone { etag, crc64 })
        };
        self.bounded("a PUT", work).await
    }

    /// One body by one request, or by plan: its ETag and CRC64NVME.
    async fn put_one(&self, mut request: Request<'_>, data: &[u8]) -> Result<(String, u64), ClientError> {
        let inner = &*self.inner;
        let small = data.len() as u64 <= inner.options.inline_bytes_max;
        if !small {
            let required = inner.options.require_plan || inner.options.require_rdma;
            let reason = match inner.may_be_native() {
                true => match self.put_by_plan(&request, data).await? {
                    Planned::Done(etag, crc64) => return Ok((etag, crc64)),
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
        let crc64 = crc64nvme(data);
        request.headers.push(("x-amz-checksum-crc64nvme", crc64_text(crc64)));
        request.body = vec![data];
        let answer = inner.send(&request).await?;
        let etag = answer.head.header("etag").unwrap_or_default().trim_matches('"').to_owned();
        let claimed = answer.head.header("x-amz-checksum-crc64nvme").map(str::to_owned);
        inner.whole(answer, limits::XML_BODY_BYTES_MAX).await?;
        inner.stats.written("http", data.len() as u64);
        if let Some(claimed) = claimed.filter(|claimed| *claimed != crc64_text(crc64)) {
            let bytes: Option<[u8; 8]> = STANDARD.decode(&claimed).ok().and_then(|bytes| bytes.try_into().ok());
            let expected = bytes.map(u64::from_be_bytes).unwrap_or_default();
            let what = format!("{}/{}", request.bucket, request.key);
            return Err(ClientError::Corrupt { what, computed: crc64, expected });
        }
        Ok((etag, crc64))
    }

    async fn put_parts(
        &self,
        bucket: &str,
        key: &str,
        data: &[u8],
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        let inner = &*self.inner;
        let mut headers = object_headers(options);
        headers.push(("x-amz-checksum-algorithm", "CRC64NVME".to_owned()));
        headers.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        let query = vec![("uploads", String::new())];
        let request = Request { method: "POST", bucket, key, query, headers, ..Request::default() };
        let answer = inner.send(&request).await?;
        let (_, body) = inner.whole(answer, limits::XML_BODY_BYTES_MAX).await?;
        let document = Element::parse(&body).map_err(|reason| inner.protocol(reason))?;
        let upload = document.child_text("UploadId").unwrap_or_default().to_owned();
        if upload.is_empty() {
            return Err(inner.protocol("CreateMultipartUpload is answered without an UploadId"));
        }
        let done = self.upload_parts(bucket, key, data, &upload, options).await;
        if done.is_err() {
            // What can't be aborted now is for the bucket's lifecycle; the error that is told is the first.
            let query = vec![("uploadId", upload)];
            let abort = Request { method: "DELETE", bucket, key, query, ..Request::default() };
            if let Err(error) = inner.send(&abort).await {
                tracing::warn!(bucket, key, %error, "an upload that failed could not be aborted");
            }
        }
        done
    }

    async fn upload_parts(
        &self,
        bucket: &str,
        key: &str,
        data: &[u8],
        upload: &str,
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        let inner = &*self.inner;
        let least = (data.len() as u64).div_ceil(u64::from(limits::PART_NUMBER_MAX));
        let part_bytes = inner.options.part_bytes.clamp(limits::PART_BYTES_MIN, limits::PUT_BYTES_MAX).max(least);
        let puts: Vec<_> = data
            .chunks(part_bytes as usize)
            .zip(1u32..)
            .map(|(part, number)| async move {
                let query = vec![("partNumber", number.to_string()), ("uploadId", upload.to_owned())];
                let request = Request { method: "PUT", bucket, key, query, ..Request::default() };
                let (etag, crc64) = self.put_one(request, part).await?;
                Ok::<_, ClientError>(Part { number, etag, crc64, bytes: part.len() as u64 })
            })
            .collect();
        let mut puts = stream::iter(puts).buffered(inner.options.parallel_max.max(1));
        let (mut parts, mut crc64) = (Vec::new(), crc64nvme(&[]));
        while let Some(part) = puts.next().await {
            let part = part?;
            crc64 = match parts.is_empty() {
                true => part.crc64,
                false => crc64nvme_combine(crc64, part.crc64, part.bytes),
            };
            parts.push((part.number, format!("\"{}\"", part.etag), Some(crc64_text(part.crc64))));
        }
        let document = complete_upload(&parts);
        let mut headers = conditions(options);
        headers.push(("x-amz-checksum-crc64nvme", crc64_text(crc64)));
        headers.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        let query = vec![("uploadId", upload.to_owned())];
        let body = vec![document.as_bytes()];
        let request = Request { method: "POST", bucket, key, query, headers, body };
        let answer = inner.send(&request).await?;
        let (_, body) = inner.whole(answer, limits::XML_BODY_BYTES_MAX).await?;
        let document = Element::parse(&body).map_err(|reason| inner.protocol(reason))?;
        // A Complete may answer 200 and say in its body that it failed.
        if document.name == "Error" {
            let text = |name: &str| document.child_text(name).unwrap_or_default().to_owned();
            return Err(ClientError::Server { status: 500, code: text("Code"), message: text("Message") });
        }
        let etag = document.child_text("ETag").unwrap_or_default().trim_matches('"').to_owned();
        Ok(PutDone { etag, crc64 })
    }
}

fn object_headers(options: &PutOptions) -> Vec<(&'static str, String)> {
    let mut headers = options.user_metadata.clone();
    headers.extend(options.content_type.clone().map(|value| ("content-type", value)));
    headers
}

fn conditions(options: &PutOptions) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if options.if_none_match {
        headers.push(("if-none-match", "*".to_owned()));
    }
    headers.extend(options.if_match.as_ref().map(|etag| ("if-match", format!("\"{etag}\""))));
    headers
}
