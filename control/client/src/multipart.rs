//! Multipart uploads, request by request: what `put` and [`crate::Upload`] are made of, and what a program that resumes uploads
//! needs.

use std::sync::atomic::Ordering;

use penstock_digest::{ChecksumAlgorithm, ChecksumValue, combine_full_object};
use penstock_proto::limits;

use crate::client::{Client, Request};
use crate::error::ClientError;
use crate::object::{PutDone, PutOptions, crc64_text, crc64_value, etag_of};
use crate::put::{Data, conditions, object_headers};
use crate::xml::{Element, complete_upload};

/// A multipart upload that is open. Its `Display` is the server's UploadId.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadId {
    pub(crate) id: String,
    /// Whether parts carry their CRC64NVME, and the object one of the whole.
    pub(crate) crc64: bool,
}

/// A part that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1 on.
    pub number: u32,
    /// Its ETag, without quotes.
    pub etag: String,
    /// CRC64NVME of its bytes, when it is known.
    pub crc64: Option<u64>,
    /// How long it is.
    pub size_bytes: u64,
}

/// An upload that somebody has begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// Of which object.
    pub key: String,
    /// Which.
    pub upload: UploadId,
    /// Since when (ISO 8601).
    pub initiated: String,
}

/// Most pages of a listing of parts or uploads that are followed: 10,000 parts have ten.
const PAGES_MAX: usize = 1000;

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }
}

impl From<&str> for UploadId {
    /// One that was begun with CRC64NVME, as this client does.
    fn from(id: &str) -> Self {
        Self { id: id.to_owned(), crc64: true }
    }
}

impl Client {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_upload(&self, bucket: &str, key: &str, options: &PutOptions) -> Result<UploadId, ClientError> {
        self.bounded("CreateMultipartUpload", self.create_upload_now(bucket, key, options)).await
    }

    pub(crate) async fn create_upload_now(
        &self,
        bucket: &str,
        key: &str,
        options: &PutOptions,
    ) -> Result<UploadId, ClientError> {
        let inner = &*self.inner;
        let (mut headers, named) = object_headers(options);
        let crc64 = !inner.no_crc64_uploads.load(Ordering::Relaxed);
        let plain = headers.clone();
        if crc64 {
            headers.push(("x-amz-checksum-algorithm", "CRC64NVME".to_owned()));
            headers.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        }
        let query = vec![("uploads", String::new())];
        let mut request = Request { method: "POST", bucket, key, query, headers, named, ..Request::default() };
        let (document, crc64) = match inner.document(&request, limits::XML_BODY_BYTES_MAX).await {
            // A server that does not know the checksum.
            Err(error) if crc64 && matches!(error.status(), Some(400 | 501)) => {
                request.headers = plain;
                let Ok((_, document)) = inner.document(&request, limits::XML_BODY_BYTES_MAX).await else {
                    return Err(error);
                };
                inner.no_crc64_uploads.store(true, Ordering::Relaxed);
                (document, false)
            }
            answer => (answer?.1, crc64),
        };
        let id = document.child_text("UploadId").unwrap_or_default().to_owned();
        if id.is_empty() {
            return Err(inner.protocol("CreateMultipartUpload is answered without an UploadId"));
        }
        Ok(UploadId { id, crc64 })
    }

    /// Uploads a part: 5 MiB or more, but for the last. One of the same number is replaced.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &UploadId,
        number: u32,
        data: &[&[u8]],
    ) -> Result<Part, ClientError> {
        let data = Data { pieces: data, lent: None };
        self.bounded("UploadPart", self.upload_part_now(bucket, key, upload, number, &data)).await
    }

    pub(crate) async fn upload_part_now(
        &self,
        bucket: &str,
        key: &str,
        upload: &UploadId,
        number: u32,
        data: &Data<'_>,
    ) -> Result<Part, ClientError> {
        let query = vec![("partNumber", number.to_string()), ("uploadId", upload.id.clone())];
        let request = Request { method: "PUT", bucket, key, query, ..Request::default() };
        let done = self.put_one(request, data).await?;
        Ok(Part { number, etag: done.etag, crc64: done.crc64, size_bytes: crate::put::length(data.pieces) })
    }

    /// Makes a part of some bytes of another object, on the server. Its CRC64NVME is only known when the server says it.
    ///
    /// # Errors
    /// [`ClientError`].
    #[allow(clippy::too_many_arguments, reason = "which bytes of what become which part of what")]
    pub async fn upload_part_copy(
        &self,
        bucket: &str,
        key: &str,
        upload: &UploadId,
        number: u32,
        source: &str,
        range: std::ops::Range<u64>,
        etag: &str,
    ) -> Result<Part, ClientError> {
        let query = vec![("partNumber", number.to_string()), ("uploadId", upload.id.clone())];
        let headers = vec![
            ("x-amz-copy-source", source.to_owned()),
            ("x-amz-copy-source-if-match", crate::object::quoted(etag)),
            ("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1)),
        ];
        let request = Request { method: "PUT", bucket, key, query, headers, ..Request::default() };
        let (_, document) =
            self.bounded("UploadPartCopy", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
        Ok(Part {
            number,
            etag: etag_of(document.child_text("ETag").unwrap_or_default()),
            crc64: document.child_text("ChecksumCRC64NVME").and_then(crc64_value),
            size_bytes: range.end - range.start,
        })
    }

    /// Makes the object of its parts, in the order of their numbers.
    ///
    /// # Errors
    /// [`ClientError`]; the upload is still open then, unless the answer was lost.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload: &UploadId,
        parts: &[Part],
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        self.bounded("CompleteMultipartUpload", self.complete_upload_now(bucket, key, upload, parts, options)).await
    }

    pub(crate) async fn complete_upload_now(
        &self,
        bucket: &str,
        key: &str,
        upload: &UploadId,
        parts: &[Part],
        options: &PutOptions,
    ) -> Result<PutDone, ClientError> {
        let inner = &*self.inner;
        let value = |part: &Part| Some((ChecksumValue::from_crc64nvme(part.crc64?), part.size_bytes));
        let values: Option<Vec<_>> = parts.iter().map(value).collect();
        let crc64 = values
            .and_then(|values| combine_full_object(ChecksumAlgorithm::Crc64Nvme, &values))
            .and_then(|value| value.as_crc());
        let text = |part: &Part| part.crc64.filter(|_| upload.crc64).map(crc64_text);
        let listed: Vec<_> = parts.iter().map(|part| (part.number, format!("\"{}\"", part.etag), text(part))).collect();
        let document = complete_upload(&listed);
        let mut headers = conditions(options);
        if let Some(crc64) = crc64.filter(|_| upload.crc64) {
            headers.push(("x-amz-checksum-crc64nvme", crc64_text(crc64)));
            headers.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        }
        let query = vec![("uploadId", upload.id.clone())];
        let body = vec![document.as_bytes()];
        let request = Request { method: "POST", bucket, key, query, headers, body, ..Request::default() };
        let (head, document) = match inner.document(&request, limits::XML_BODY_BYTES_MAX).await {
            // Completed already, and the answer was lost on the way to us: if the object is there that these parts make.
            Err(error) if error.code() == Some("NoSuchUpload") && crc64.is_some() => {
                let bytes: u64 = parts.iter().map(|part| part.size_bytes).sum();
                return match self.head(bucket, key).await {
                    Ok(info) if info.crc64 == crc64 && info.size_bytes == bytes => {
                        Ok(PutDone { etag: info.etag, crc64, version_id: info.version_id })
                    }
                    _ => Err(error),
                };
            }
            answer => answer?,
        };
        let etag = etag_of(document.child_text("ETag").unwrap_or_default());
        let version_id = head.header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned);
        Ok(PutDone { etag, crc64, version_id })
    }

    /// Gives up an upload: its parts are deleted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn abort_upload(&self, bucket: &str, key: &str, upload: &UploadId) -> Result<(), ClientError> {
        let query = vec![("uploadId", upload.id.clone())];
        let request = Request { method: "DELETE", bucket, key, query, ..Request::default() };
        self.bounded("AbortMultipartUpload", async {
            let answer = self.inner.send(&request).await?;
            self.inner.whole(answer, limits::XML_BODY_BYTES_MAX).await.map(drop)
        })
        .await
    }

    /// What can't be aborted now is for the bucket's lifecycle; the error that is told is the one before.
    pub(crate) async fn abort_quietly(&self, bucket: &str, key: &str, upload: &UploadId) {
        if let Err(error) = self.abort_upload(bucket, key, upload).await {
            tracing::warn!(bucket, key, %error, "an upload that failed could not be aborted");
        }
    }

    /// The parts of an upload that the server has, in the order of their numbers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_parts(&self, bucket: &str, key: &str, upload: &UploadId) -> Result<Vec<Part>, ClientError> {
        let (mut parts, mut marker) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let mut query = vec![("uploadId", upload.id.clone())];
            if !marker.is_empty() {
                query.push(("part-number-marker", marker.clone()));
            }
            let request = Request { method: "GET", bucket, key, query, ..Request::default() };
            let (_, document) =
                self.bounded("ListParts", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
            for part in document.all("Part") {
                parts.push(self.part_of(part)?);
            }
            if document.child_text("IsTruncated") != Some("true") {
                return Ok(parts);
            }
            marker = document.child_text("NextPartNumberMarker").unwrap_or_default().to_owned();
        }
        Err(self.inner.protocol("a listing of parts that does not end"))
    }

    fn part_of(&self, part: &Element) -> Result<Part, ClientError> {
        let text = |name: &str| part.child_text(name).unwrap_or_default();
        let wrong = |what: &str| self.inner.protocol(format!("a part whose {what} is no number"));
        Ok(Part {
            number: text("PartNumber").parse().map_err(|_| wrong("PartNumber"))?,
            etag: etag_of(text("ETag")),
            crc64: part.child_text("ChecksumCRC64NVME").and_then(crc64_value),
            size_bytes: text("Size").parse().map_err(|_| wrong("Size"))?,
        })
    }

    /// The uploads of keys that begin so which are neither completed nor aborted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_uploads(&self, bucket: &str, prefix: &str) -> Result<Vec<OpenUpload>, ClientError> {
        let (mut uploads, mut markers) = (Vec::new(), None::<(String, String)>);
        for _ in 0..PAGES_MAX {
            let mut query = vec![("uploads", String::new()), ("prefix", prefix.to_owned())];
            if let Some((key, id)) = markers.take() {
                query.extend([("key-marker", key), ("upload-id-marker", id)]);
            }
            let request = Request { method: "GET", bucket, query, ..Request::default() };
            let (_, document) =
                self.bounded("ListMultipartUploads", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
            let crc64 =
                |upload: &Element| upload.child_text("ChecksumAlgorithm").is_none_or(|name| name == "CRC64NVME");
            uploads.extend(document.all("Upload").map(|upload| {
                let text = |name: &str| upload.child_text(name).unwrap_or_default().to_owned();
                let id = UploadId { id: text("UploadId"), crc64: crc64(upload) };
                OpenUpload { key: text("Key"), upload: id, initiated: text("Initiated") }
            }));
            if document.child_text("IsTruncated") != Some("true") {
                return Ok(uploads);
            }
            let text = |name: &str| document.child_text(name).unwrap_or_default().to_owned();
            markers = Some((text("NextKeyMarker"), text("NextUploadIdMarker")));
        }
        Err(self.inner.protocol("a listing of uploads that does not end"))
    }
}
