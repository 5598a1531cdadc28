//! CopyObject and UploadPartCopy.

use penstock_gateway::api::{CopyObject, CopySource, MetadataDirective, ObjectName, RangeSpec, UploadPartCopy};
use percent_encoding::percent_decode_str;

use super::digests::{self, write_checksum, write_object_checksum};
use super::encryption::set_encryption;
use super::{Call, lifecycle, quoted, slow};
use crate::failure::Failure;
use crate::respond::Answer;
use crate::wire;
use crate::xml::Xml;

impl Call {
    /// What is copied from or renamed, where something is.
    pub(crate) fn source(&self) -> Result<Option<ObjectName>, Failure> {
        let Some(text) = self.header("x-amz-copy-source")? else { return self.rename_source() };
        let (bucket, key, version_id) = parse_copy_source(text)?;
        Ok(Some(ObjectName { bucket, key, version_id }))
    }

    /// `x-amz-copy-source` and the conditions on it.
    fn copy_source(&self) -> Result<CopySource, Failure> {
        let text = self.header("x-amz-copy-source")?.unwrap_or_default();
        let (bucket, key, version_id) = parse_copy_source(text)?;
        let (conditions, customer_key) = (self.conditions("x-amz-copy-source-")?, self.source_customer_key()?);
        Ok(CopySource { bucket, key, version_id, conditions, customer_key })
    }

    /// Path of the request, for errors that come late.
    pub(super) fn resource(&self) -> String {
        format!("/{}/{}", self.bucket(), self.key())
    }
}

/// Bucket, key and version of `[/]bucket/key[?versionId=id]`, percent-encoded.
fn parse_copy_source(text: &str) -> Result<(String, String, Option<String>), Failure> {
    let invalid = |why: &'static str| Failure::argument("x-amz-copy-source", text, why);
    // The key's own question marks are encoded.
    let (path, version_id) = match text.split_once("?versionId=") {
        Some((path, version)) => (path, Some(version.to_owned())),
        None => (text, None),
    };
    if path.starts_with("arn:") {
        return Err(Failure::header_not_implemented("x-amz-copy-source: arn:"));
    }
    let decoded = percent_decode_str(path).decode_utf8();
    let decoded = decoded.map_err(|_| invalid("The copy source is not valid UTF-8."))?;
    let decoded = decoded.strip_prefix('/').unwrap_or(&decoded);
    match decoded.split_once('/') {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
            Ok((bucket.to_owned(), key.to_owned(), version_id))
        }
        _ => Err(invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey")),
    }
}

pub(super) async fn object(call: Call) -> Result<Answer, Failure> {
    let replace =
        call.header("x-amz-metadata-directive")?.is_some_and(|directive| directive.eq_ignore_ascii_case("REPLACE"));
    let replace_tags =
        call.header("x-amz-tagging-directive")?.is_some_and(|directive| directive.eq_ignore_ascii_case("REPLACE"));
    let source = call.copy_source()?;
    let (bucket, key) = (call.bucket(), call.key());
    let onto_itself = source.bucket == bucket && source.key == key && source.version_id.is_none();
    let asks = call.header("x-amz-storage-class")?.is_some() || call.asked_encryption()?.is_some();
    if onto_itself && !replace && !asks {
        return Err(Failure::request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's \
             metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let checksum = call.header("x-amz-checksum-algorithm")?;
    let request = CopyObject {
        source,
        bucket,
        key,
        metadata: if replace { MetadataDirective::Replace(call.object_headers()?) } else { MetadataDirective::Copy },
        checksum: checksum.map(|text| digests::algorithm("x-amz-checksum-algorithm", text)).transpose()?,
        storage_class: call.storage_class()?,
        conditions: call.write_conditions()?,
        tags: if replace_tags { Some(call.tags()?) } else { None },
        lock: call.lock()?,
        encryption: call.encryption()?,
    };
    let asked = call.headers.clone();
    let gateway = call.gateway().clone();
    let work = async move {
        let done = gateway.copy_object(request).await?;
        let mut headers = slow::version_headers(done.version_id.as_deref(), done.source_version_id.as_deref());
        lifecycle::set_expiration(&mut headers, done.expiration.as_ref());
        set_encryption(&mut headers, &asked, done.encryption.as_ref(), true);
        let document = Xml::document("CopyObjectResult", |xml| {
            xml.value("LastModified", wire::format_iso_date(done.modified_unix_ms));
            xml.text("ETag", &quoted(&done.etag));
            if let Some(checksum) = &done.checksum {
                write_object_checksum(xml, checksum);
            }
        });
        Ok((document, headers))
    };
    slow::document(call.exchange.clone(), call.resource(), Box::pin(work)).await
}

pub(super) async fn part(call: Call) -> Result<Answer, Failure> {
    let name = "x-amz-copy-source-range";
    let range = match call.header(name)? {
        None => None,
        // Unlike Range, it is first and last byte, or nothing that can be done.
        Some(text) => match wire::range(text) {
            Some(range @ RangeSpec::FromTo(..)) => Some(range),
            _ => {
                let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
                               the zero-based offsets of the first and last bytes to copy";
                return Err(Failure::argument(name, text, message));
            }
        },
    };
    let request = UploadPartCopy {
        source: call.copy_source()?,
        range,
        bucket: call.bucket(),
        key: call.key(),
        upload_id: call.text("uploadId"),
        part_number: call.part_number().unwrap_or_default(),
        customer_key: call.customer_key()?,
    };
    let asked = call.headers.clone();
    let gateway = call.gateway().clone();
    let work = async move {
        let part = gateway.upload_part_copy(request).await?;
        let mut headers = slow::version_headers(None, part.source_version_id.as_deref());
        set_encryption(&mut headers, &asked, part.encryption.as_ref(), false);
        let document = Xml::document("CopyPartResult", |xml| {
            xml.value("LastModified", wire::format_iso_date(part.modified_unix_ms));
            xml.text("ETag", &quoted(&part.etag));
            if let Some(checksum) = &part.checksum {
                write_checksum(xml, checksum);
            }
        });
        Ok((document, headers))
    };
    slow::document(call.exchange.clone(), call.resource(), Box::pin(work)).await
}

#[cfg(test)]
mod tests {
    use super::parse_copy_source;

    #[test]
    fn copy_sources() {
        let pair = |bucket: &str, key: &str| Some((bucket.to_owned(), key.to_owned(), None));
        let version = |id: &str| Some(("bucket".to_owned(), "key".to_owned(), Some(id.to_owned())));
        let cases = [
            ("bucket/key", pair("bucket", "key")),
            ("/bucket/a/b", pair("bucket", "a/b")),
            ("bucket/a%3Fb%2Bc+d%20e", pair("bucket", "a?b+c+d e")),
            ("bucket%2Fkey", pair("bucket", "key")),
            ("bucket/key?versionId=null", version("null")),
            ("bucket/key?versionId=abc", version("abc")),
            ("bucket/", None),
            ("bucket", None),
            ("/", None),
            ("", None),
            ("bucket/%ff", None),
            ("arn:aws:s3:us-east-1:123456789012:accesspoint/a/object/k", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_copy_source(text).ok(), want, "{text}");
        }
    }
}
