//! ListObjectsV2 and ListObjects.

use penstock_gateway::api::{ListObjects, ObjectPage};
use penstock_proto::limits;

use super::bucket::write_owner;
use super::{Call, quoted};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

/// How keys are written: as they are, or percent-encoded for `encoding-type=url`.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    url: bool,
}

impl Encoding {
    /// What the request asks for. The gate has checked that it is `url` or absent.
    pub(super) fn of(call: &Call) -> Self {
        Self { url: call.query.get("encoding-type").is_some() }
    }

    /// `<name>text</name>`.
    pub(super) fn text(self, xml: &mut Xml, name: &str, text: &str) {
        if self.url { xml.text(name, &wire::url_encoded(text)) } else { xml.text(name, text) }
    }

    /// `<EncodingType>`.
    pub(super) fn declare(self, xml: &mut Xml) {
        if self.url {
            xml.value("EncodingType", "url");
        }
    }
}

/// A page size of the query: the default and the most are 1,000.
pub(super) fn page_size(call: &Call, key: &str) -> usize {
    let asked = call.number(key).and_then(|asked| usize::try_from(asked).ok());
    asked.unwrap_or(limits::LIST_KEYS_MAX).min(limits::LIST_KEYS_MAX)
}

async fn page(call: &Call, after: String) -> Result<ObjectPage, Failure> {
    let request = ListObjects {
        bucket: call.bucket(),
        prefix: call.text("prefix"),
        delimiter: call.text("delimiter"),
        after,
        max_keys: page_size(call, "max-keys"),
    };
    Ok(call.gateway().list_objects(request).await?)
}

fn write_page(xml: &mut Xml, call: &Call, page: &ObjectPage, encoding: Encoding, owner: bool) {
    for object in &page.objects {
        xml.element("Contents", |xml| {
            encoding.text(xml, "Key", &object.key);
            xml.value("LastModified", wire::format_iso_date(object.modified_unix_ms));
            xml.text("ETag", &quoted(&object.etag));
            if let Some((algorithm, kind)) = object.checksum {
                xml.value("ChecksumAlgorithm", algorithm.name());
                xml.value("ChecksumType", wire::checksum_type_name(kind));
            }
            xml.value("Size", object.size_bytes);
            xml.text("StorageClass", &object.storage_class);
            if owner {
                write_owner(xml, "Owner", call);
            }
        });
    }
    for prefix in &page.common_prefixes {
        xml.element("CommonPrefixes", |xml| encoding.text(xml, "Prefix", prefix));
    }
}

pub(super) fn write_question(xml: &mut Xml, call: &Call, encoding: Encoding) {
    xml.text("Name", &call.bucket());
    encoding.text(xml, "Prefix", &call.text("prefix"));
    if let Some(delimiter) = call.query.get("delimiter").filter(|delimiter| !delimiter.is_empty()) {
        encoding.text(xml, "Delimiter", delimiter);
    }
    xml.value("MaxKeys", page_size(call, "max-keys"));
    encoding.declare(xml);
}

pub(super) async fn v2(call: Call) -> Result<Answer, Failure> {
    let token = call.query.get("continuation-token");
    let start_after = call.text("start-after");
    // A continuation token goes before start-after, as AWS has it.
    let after = token.map(wire::from_continuation_token).transpose()?.unwrap_or_else(|| start_after.clone());
    let page = page(&call, after).await?;
    let encoding = Encoding::of(&call);
    let owner = call.query.get("fetch-owner") == Some("true");
    Ok(respond::xml(Xml::document("ListBucketResult", |xml| {
        write_question(xml, &call, encoding);
        if let Some(token) = token {
            xml.text("ContinuationToken", token);
        }
        if !start_after.is_empty() {
            encoding.text(xml, "StartAfter", &start_after);
        }
        xml.value("KeyCount", page.objects.len() + page.common_prefixes.len());
        xml.value("IsTruncated", page.next_after.is_some());
        if let Some(after) = &page.next_after {
            xml.text("NextContinuationToken", &wire::continuation_token(after));
        }
        write_page(xml, &call, &page, encoding, owner);
    })))
}

pub(super) async fn v1(call: Call) -> Result<Answer, Failure> {
    let marker = call.text("marker");
    let page = page(&call, marker.clone()).await?;
    let encoding = Encoding::of(&call);
    Ok(respond::xml(Xml::document("ListBucketResult", |xml| {
        write_question(xml, &call, encoding);
        encoding.text(xml, "Marker", &marker);
        xml.value("IsTruncated", page.next_after.is_some());
        // AWS gives it with a delimiter only; without, the last key is the next marker.
        if let Some(after) = page.next_after.as_deref().filter(|_| !call.text("delimiter").is_empty()) {
            encoding.text(xml, "NextMarker", after);
        }
        write_page(xml, &call, &page, encoding, true);
    })))
}
