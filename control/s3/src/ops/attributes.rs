//! GetObjectAttributes.

use http::header::LAST_MODIFIED;
use penstock_proto::limits;

use super::digests::{write_checksum, write_object_checksum};
use super::{Call, set, set_version};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

/// What can be asked for.
const ATTRIBUTES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// The attributes that the headers name: one each or with commas.
fn asked(call: &Call) -> Result<Vec<&'static str>, Failure> {
    const NAME: &str = "x-amz-object-attributes";
    let mut asked = Vec::new();
    for value in call.headers.get_all(NAME) {
        let text = wire::utf8(value).unwrap_or_default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known = ATTRIBUTES.into_iter().find(|known| *known == name);
            asked.push(known.ok_or_else(|| Failure::argument(NAME, name, "Invalid attribute name specified."))?);
        }
    }
    if asked.is_empty() {
        return Err(Failure::argument(NAME, "", format!("The {NAME} header names at least one attribute.")));
    }
    Ok(asked)
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let asked = asked(&call)?;
    let number = |name: &'static str| -> Result<Option<u64>, Failure> {
        let Some(text) = call.header(name)? else { return Ok(None) };
        let number = wire::number(text).filter(|number| *number <= i32::MAX as u64);
        number.map(Some).ok_or_else(|| Failure::argument(name, text, format!("{name} is not an integer within range.")))
    };
    let most = limits::LIST_KEYS_MAX as u64;
    let max_parts = number("x-amz-max-parts")?.unwrap_or(most).min(most) as usize;
    let after = number("x-amz-part-number-marker")?.unwrap_or_default() as u32;
    let found =
        call.gateway().object_attributes(&call.object_name(), after, max_parts, call.customer_key()?.as_ref()).await?;
    let info = &found.info;
    let mut answer = respond::xml(Xml::document("GetObjectAttributesResponse", |xml| {
        for attribute in ATTRIBUTES.into_iter().filter(|attribute| asked.contains(attribute)) {
            match attribute {
                "ETag" => xml.text("ETag", &info.etag),
                "Checksum" => {
                    if let Some(checksum) = &info.checksum {
                        xml.element("Checksum", |xml| write_object_checksum(xml, checksum));
                    }
                }
                "ObjectParts" => {
                    let Some(total) = info.parts else { continue };
                    xml.element("ObjectParts", |xml| {
                        xml.value("PartsCount", total);
                        xml.value("PartNumberMarker", after);
                        if let Some(last) = found.parts.last() {
                            xml.value("NextPartNumberMarker", last.part_number);
                        }
                        xml.value("MaxParts", max_parts);
                        xml.value("IsTruncated", found.more);
                        for part in &found.parts {
                            xml.element("Part", |xml| {
                                if let Some(checksum) = &part.checksum {
                                    write_checksum(xml, checksum);
                                }
                                xml.value("PartNumber", part.part_number);
                                xml.value("Size", part.size_bytes);
                            });
                        }
                    });
                }
                "StorageClass" => xml.text("StorageClass", &info.storage_class),
                _ => xml.value("ObjectSize", info.size_bytes),
            }
        }
    }));
    let headers = answer.headers_mut();
    set(headers, LAST_MODIFIED, &wire::format_http_date(info.modified_unix_ms));
    set_version(headers, info.version_id.as_deref());
    Ok(answer)
}
