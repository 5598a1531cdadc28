//! Copies on the server: no byte passes through here.

use futures::{StreamExt, stream};
use penstock_proto::limits;

use crate::client::{Client, Request, name_of};
use crate::error::ClientError;
use crate::multipart::Part;
use crate::object::{GetOptions, PutDone, PutOptions, crc64_value, etag_of, quoted};
use crate::put::{conditions, object_headers};
use crate::sign::encoded_path;

/// What is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopySource {
    /// From this bucket.
    pub bucket: String,
    /// This object.
    pub key: String,
    /// This version of it; the current one by default.
    pub version_id: Option<String>,
    /// Only if it has this ETag.
    pub if_match: Option<String>,
}

/// What the copy is to have.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Headers and metadata in place of the source's; `None` keeps the source's.
    pub replace: Option<PutOptions>,
    /// Only if there is no object under the key.
    pub if_none_match: bool,
}

/// Longer objects are copied in parts of this length: what one CopyObject may copy.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// Bytes of each part of such a copy.
const COPY_PART_BYTES: u64 = 512 << 20;

impl CopySource {
    /// The current version.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into(), ..Self::default() }
    }

    fn header(&self) -> String {
        let name = encoded_path(&format!("/{}/{}", self.bucket, self.key));
        match &self.version_id {
            Some(id) => format!("{name}?versionId={id}"),
            None => name,
        }
    }
}

impl Client {
    /// Copies an object on the server. What is longer than 5 GiB goes in parallel parts.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is visible then.
    pub async fn copy(
        &self,
        from: &CopySource,
        bucket: &str,
        key: &str,
        options: &CopyOptions,
    ) -> Result<PutDone, ClientError> {
        let get = GetOptions {
            version_id: from.version_id.clone(),
            if_match: from.if_match.clone(),
            ..GetOptions::default()
        };
        // One request, as it nearly always does; its refusal of what is too long is what tells that it is.
        let error = match self.copy_one(from, bucket, key, options).await {
            Err(error) if matches!(error.code(), Some("InvalidRequest" | "EntityTooLarge" | "InvalidArgument")) => {
                error
            }
            outcome => return outcome,
        };
        let info = self.head_opts(&from.bucket, &from.key, &get).await?;
        if info.size_bytes <= COPY_BYTES_MAX {
            return Err(error);
        }
        let put = options.replace.clone().unwrap_or_else(|| PutOptions {
            content_type: Some(info.content_type.clone()).filter(|kind| !kind.is_empty()),
            headers: info.headers.clone(),
            user_metadata: info.user_metadata.clone(),
            ..PutOptions::default()
        });
        let put = PutOptions { if_none_match: options.if_none_match, ..put };
        let upload = self.create_upload(bucket, key, &put).await?;
        let source = from.header();
        let begins = (0..info.size_bytes).step_by(COPY_PART_BYTES as usize);
        let copies: Vec<_> = begins
            .zip(1u32..)
            .map(|(begin, number)| {
                let range = begin..(begin + COPY_PART_BYTES).min(info.size_bytes);
                self.upload_part_copy(bucket, key, &upload, number, &source, range, &info.etag)
            })
            .collect();
        let mut copies = stream::iter(copies).buffered(self.inner.options.parallel_max.max(1));
        let mut parts: Vec<Part> = Vec::new();
        let done = loop {
            match copies.next().await {
                Some(Ok(part)) => parts.push(part),
                Some(Err(error)) => break Err(error),
                None => break self.complete_upload(bucket, key, &upload, &parts, &put).await,
            }
        };
        if done.is_err() {
            self.abort_quietly(bucket, key, &upload).await;
        }
        done
    }

    async fn copy_one(
        &self,
        from: &CopySource,
        bucket: &str,
        key: &str,
        options: &CopyOptions,
    ) -> Result<PutDone, ClientError> {
        let (mut headers, mut named) = (Vec::new(), Vec::new());
        if let Some(replace) = &options.replace {
            (headers, named) = object_headers(replace);
            headers.push(("x-amz-metadata-directive", "REPLACE".to_owned()));
            if !replace.tags.is_empty() {
                headers.push(("x-amz-tagging-directive", "REPLACE".to_owned()));
            }
        }
        headers.extend(conditions(&PutOptions { if_none_match: options.if_none_match, ..PutOptions::default() }));
        headers.push(("x-amz-copy-source", from.header()));
        headers.extend(from.if_match.as_deref().map(|etag| ("x-amz-copy-source-if-match", quoted(etag))));
        let request = Request { method: "PUT", bucket, key, headers, named, ..Request::default() };
        let (head, document) =
            self.bounded("CopyObject", self.inner.document(&request, limits::XML_BODY_BYTES_MAX)).await?;
        let Some(etag) = document.child_text("ETag") else {
            let name = name_of(bucket, key);
            return Err(self.inner.protocol(format!("the copy to {name} is answered without an ETag")));
        };
        Ok(PutDone {
            etag: etag_of(etag),
            crc64: document.child_text("ChecksumCRC64NVME").and_then(crc64_value),
            version_id: head.header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned),
        })
    }
}
