//! Multipart uploads.

use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use penstock_digest::{ChecksumAlgorithm, ChecksumValue};
use penstock_gateway::api::{
    ChecksumType, CompleteUpload, CompletedPart, CreateUpload, Encrypt, ListParts, ListUploads, UploadPart,
};
use penstock_gateway::error::ErrorKind;
use penstock_proto::limits;
use s3s::dto;

use super::bucket::write_owner;
use super::digests::{self, set_checksum, write_checksum, write_object_checksum};
use super::encryption::set_encryption;
use super::list::{Encoding, page_size};
use super::{Call, lifecycle, quoted, set, slow};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::server::host_of;
use crate::streams;
use crate::wire;
use crate::xml::Xml;

/// `x-amz-checksum-algorithm` and `-type` of a new upload.
fn upload_checksum(call: &Call) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, Failure> {
    let kind = call.header("x-amz-checksum-type")?;
    let Some(name) = call.header("x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(Failure::request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = digests::algorithm("x-amz-checksum-algorithm", name)?;
    let kind = match kind {
        None if algorithm == ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        None => ChecksumType::Composite,
        Some(text) => wire::checksum_type(text)
            .ok_or_else(|| Failure::request("Value for x-amz-checksum-type header is invalid."))?,
    };
    let possible = match kind {
        ChecksumType::FullObject => algorithm.is_crc(),
        ChecksumType::Composite => algorithm != ChecksumAlgorithm::Crc64Nvme,
    };
    if !possible {
        let kind = wire::checksum_type_name(kind);
        return Err(Failure::request(format!(
            "The {kind} checksum type cannot be used with the {} checksum algorithm.",
            algorithm.name().to_ascii_lowercase()
        )));
    }
    Ok(Some((algorithm, kind)))
}

pub(super) async fn create(call: Call) -> Result<Answer, Failure> {
    let checksum = upload_checksum(&call)?;
    let request = CreateUpload {
        bucket: call.bucket(),
        key: call.key(),
        headers: call.object_headers()?,
        checksum,
        storage_class: call.storage_class()?,
        tags: call.tags()?,
        lock: call.lock()?,
        encryption: call.encryption()?,
    };
    let encryption = request.encryption.as_ref().map(Encrypt::info);
    let upload_id = call.gateway().create_upload(request).await?;
    let mut answer = respond::xml(Xml::document("InitiateMultipartUploadResult", |xml| {
        xml.text("Bucket", &call.bucket());
        xml.text("Key", &call.key());
        xml.text("UploadId", &upload_id);
    }));
    set_encryption(answer.headers_mut(), &call.headers, encryption.as_ref(), true);
    if let Some((algorithm, kind)) = checksum {
        let headers = answer.headers_mut();
        headers.insert(respond::name("x-amz-checksum-algorithm"), HeaderValue::from_static(algorithm.name()));
        headers.insert(respond::name("x-amz-checksum-type"), HeaderValue::from_static(wire::checksum_type_name(kind)));
    }
    Ok(answer)
}

pub(super) async fn upload_part(mut call: Call) -> Result<Answer, Failure> {
    let content_bytes = call.content_bytes()?;
    let mut digests = call.digests()?;
    let (body, payload_sha256) = std::mem::take(&mut call.body).into_unverified(call.exchange.clone());
    digests.payload_sha256 = payload_sha256;
    let request = UploadPart {
        bucket: call.bucket(),
        key: call.key(),
        upload_id: call.text("uploadId"),
        part_number: call.part_number().unwrap_or_default(),
        body,
        content_bytes,
        digests,
        customer_key: call.customer_key()?,
    };
    let part = call.gateway().upload_part(request).await?;
    Ok(part_answer(&call, &part))
}

pub(super) fn part_answer(call: &Call, part: &penstock_gateway::api::PartInfo) -> Answer {
    let mut answer = respond::empty(StatusCode::OK);
    set(answer.headers_mut(), ETAG, &quoted(&part.etag));
    if let Some(checksum) = &part.checksum {
        set_checksum(answer.headers_mut(), checksum);
    }
    set_encryption(answer.headers_mut(), &call.headers, part.encryption.as_ref(), false);
    answer
}

/// The parts that the document names.
fn completed_parts(body: &[u8]) -> Result<Vec<CompletedPart>, Failure> {
    let document: dto::CompletedMultipartUpload = super::delete::from_xml(body)?;
    let listed = document.parts.unwrap_or_default();
    if listed.is_empty() || listed.len() > limits::PART_NUMBER_MAX as usize {
        return Err(Failure::malformed_xml());
    }
    let mut parts: Vec<CompletedPart> = Vec::with_capacity(listed.len());
    for part in listed {
        let number = part.part_number.and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (1..=limits::PART_NUMBER_MAX).contains(number)).ok_or_else(|| {
            Failure::argument(
                "PartNumber",
                "",
                format!("Part number must be an integer between 1 and {}, inclusive", limits::PART_NUMBER_MAX),
            )
        })?;
        if parts.last().is_some_and(|last| last.part_number >= number) {
            return Err(Failure::bad(
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered by part number.",
            ));
        }
        let etag = part.e_tag.clone().ok_or_else(Failure::malformed_xml)?.into_value();
        let checksum = part_checksum(&part)?;
        parts.push(CompletedPart { part_number: number, etag: wire::unquoted(&etag).to_owned(), checksum });
    }
    Ok(parts)
}

fn part_checksum(part: &dto::CompletedPart) -> Result<Option<ChecksumValue>, Failure> {
    let stated = [
        (ChecksumAlgorithm::Crc32, &part.checksum_crc32),
        (ChecksumAlgorithm::Crc32c, &part.checksum_crc32c),
        (ChecksumAlgorithm::Crc64Nvme, &part.checksum_crc64nvme),
        (ChecksumAlgorithm::Sha1, &part.checksum_sha1),
        (ChecksumAlgorithm::Sha256, &part.checksum_sha256),
        (ChecksumAlgorithm::Sha512, &part.checksum_sha512),
        (ChecksumAlgorithm::Md5, &part.checksum_md5),
        (ChecksumAlgorithm::Xxhash64, &part.checksum_xxhash64),
        (ChecksumAlgorithm::Xxhash3, &part.checksum_xxhash3),
        (ChecksumAlgorithm::Xxhash128, &part.checksum_xxhash128),
    ];
    let mut found = None;
    for (algorithm, text) in stated {
        let Some(text) = text else { continue };
        let value = wire::checksum_value(algorithm, text)
            .ok_or_else(|| Failure::request(format!("Value for {} is invalid.", wire::checksum_element(algorithm))))?;
        if found.replace(value).is_some() {
            return Err(Failure::malformed_xml());
        }
    }
    Ok(found)
}

/// Whether the upload's checksums are of the type that the request says.
async fn check_type(call: &Call) -> Result<(), Failure> {
    let Some(text) = call.header("x-amz-checksum-type")? else { return Ok(()) };
    let stated = wire::checksum_type(text)
        .ok_or_else(|| Failure::request("Value for x-amz-checksum-type header is invalid."))?;
    let request =
        ListParts { bucket: call.bucket(), key: call.key(), upload_id: call.text("uploadId"), after: 0, max_parts: 1 };
    match call.gateway().list_parts(request).await {
        // An upload that named no algorithm gets the full object's CRC64NVME.
        Ok(page) => match page.checksum.map_or(ChecksumType::FullObject, |(_, kind)| kind) {
            kind if kind == stated => Ok(()),
            kind => Err(Failure::request(format!(
                "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
                wire::checksum_type_name(kind)
            ))),
        },
        // Completed before: completing it again answers as the first time did.
        Err(error) if error.kind == ErrorKind::NoSuchUpload => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn complete(mut call: Call) -> Result<Answer, Failure> {
    let object_bytes =
        match call.header("x-amz-mp-object-size")? {
            None => None,
            Some(text) => Some(wire::number(text).ok_or_else(|| {
                Failure::argument("x-amz-mp-object-size", text, "x-amz-mp-object-size is not a size.")
            })?),
        };
    let checksum = call.stated_checksum()?;
    let conditions = call.write_conditions()?;
    let body = streams::small_body(std::mem::take(&mut call.body), &call.exchange).await?;
    let parts = completed_parts(&body)?;
    check_type(&call).await?;
    let (bucket, key) = (call.bucket(), call.key());
    let request = CompleteUpload {
        bucket: bucket.clone(),
        key: key.clone(),
        upload_id: call.text("uploadId"),
        parts,
        object_bytes,
        checksum,
        conditions,
        customer_key: call.customer_key()?,
    };
    let asked = call.headers.clone();
    let location = format!("{}://{}/{bucket}/{}", call.peer.scheme(), host_of(&call.headers), wire::url_encoded(&key));
    let gateway = call.gateway().clone();
    let work = async move {
        let done = gateway.complete_upload(request).await?;
        let mut headers = slow::version_headers(done.version_id.as_deref(), None);
        lifecycle::set_expiration(&mut headers, done.expiration.as_ref());
        set_encryption(&mut headers, &asked, done.encryption.as_ref(), false);
        let document = Xml::document("CompleteMultipartUploadResult", |xml| {
            xml.text("Location", &location);
            xml.text("Bucket", &bucket);
            xml.text("Key", &key);
            xml.text("ETag", &quoted(&done.etag));
            if let Some(checksum) = &done.checksum {
                write_object_checksum(xml, checksum);
            }
        });
        Ok((document, headers))
    };
    slow::document(call.exchange.clone(), call.resource(), Box::pin(work)).await
}

pub(super) async fn abort(call: Call) -> Result<Answer, Failure> {
    call.gateway().abort_upload(&call.bucket(), &call.key(), &call.text("uploadId")).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list_parts(call: Call) -> Result<Answer, Failure> {
    let after = call.number("part-number-marker").unwrap_or_default();
    let max_parts = page_size(&call, "max-parts");
    let request = ListParts {
        bucket: call.bucket(),
        key: call.key(),
        upload_id: call.text("uploadId"),
        after: u32::try_from(after).unwrap_or(u32::MAX),
        max_parts,
    };
    let page = call.gateway().list_parts(request).await?;
    Ok(respond::xml(Xml::document("ListPartsResult", |xml| {
        xml.text("Bucket", &call.bucket());
        xml.text("Key", &call.key());
        xml.text("UploadId", &call.text("uploadId"));
        write_owner(xml, "Initiator", &call);
        write_owner(xml, "Owner", &call);
        xml.text("StorageClass", &page.storage_class);
        xml.value("PartNumberMarker", after);
        if let Some(last) = page.parts.last() {
            xml.value("NextPartNumberMarker", last.part_number);
        }
        xml.value("MaxParts", max_parts);
        xml.value("IsTruncated", page.more);
        if let Some((algorithm, kind)) = page.checksum {
            xml.value("ChecksumAlgorithm", algorithm.name());
            xml.value("ChecksumType", wire::checksum_type_name(kind));
        }
        for part in &page.parts {
            xml.element("Part", |xml| {
                xml.value("PartNumber", part.part_number);
                xml.value("LastModified", wire::format_iso_date(part.modified_unix_ms));
                xml.text("ETag", &quoted(&part.etag));
                xml.value("Size", part.size_bytes);
                if let Some(checksum) = &part.checksum {
                    write_checksum(xml, checksum);
                }
            });
        }
    })))
}

pub(super) async fn list_uploads(call: Call) -> Result<Answer, Failure> {
    let max_uploads = page_size(&call, "max-uploads");
    let (key_marker, upload_id_marker) = (call.text("key-marker"), call.text("upload-id-marker"));
    let request = ListUploads {
        bucket: call.bucket(),
        prefix: call.text("prefix"),
        delimiter: call.text("delimiter"),
        // Without a key marker AWS does not heed the other.
        upload_id_marker: if key_marker.is_empty() { String::new() } else { upload_id_marker.clone() },
        key_marker: key_marker.clone(),
        max_uploads,
    };
    let page = call.gateway().list_uploads(request).await?;
    let encoding = Encoding::of(&call);
    Ok(respond::xml(Xml::document("ListMultipartUploadsResult", |xml| {
        xml.text("Bucket", &call.bucket());
        encoding.text(xml, "KeyMarker", &key_marker);
        xml.text("UploadIdMarker", &upload_id_marker);
        if let Some((key, upload_id)) = &page.next {
            encoding.text(xml, "NextKeyMarker", key);
            xml.text("NextUploadIdMarker", upload_id);
        }
        encoding.text(xml, "Prefix", &call.text("prefix"));
        if !call.text("delimiter").is_empty() {
            encoding.text(xml, "Delimiter", &call.text("delimiter"));
        }
        encoding.declare(xml);
        xml.value("MaxUploads", max_uploads);
        xml.value("IsTruncated", page.next.is_some());
        for upload in &page.uploads {
            xml.element("Upload", |xml| {
                encoding.text(xml, "Key", &upload.key);
                xml.text("UploadId", &upload.upload_id);
                write_owner(xml, "Initiator", &call);
                write_owner(xml, "Owner", &call);
                xml.text("StorageClass", &upload.storage_class);
                xml.value("Initiated", wire::format_iso_date(upload.initiated_unix_ms));
                if let Some((algorithm, kind)) = upload.checksum {
                    xml.value("ChecksumAlgorithm", algorithm.name());
                    xml.value("ChecksumType", wire::checksum_type_name(kind));
                }
            });
        }
        for prefix in &page.common_prefixes {
            xml.element("CommonPrefixes", |xml| encoding.text(xml, "Prefix", prefix));
        }
    })))
}
