//! Versioning: its configuration, and ListObjectVersions.

use http::StatusCode;
use penstock_gateway::api::{ListVersions, ListedVersion, Versioning};
use s3s::dto::VersioningConfiguration;

use super::bucket::write_owner;
use super::delete::from_xml;
use super::list::{Encoding, page_size};
use super::{Call, quoted};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

/// A bucket that never made versions has an empty configuration.
pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let bucket = call.gateway().head_bucket(&call.bucket()).await?;
    Ok(respond::xml(Xml::document("VersioningConfiguration", |xml| match bucket.versioning {
        Versioning::Off => {}
        Versioning::Enabled => xml.value("Status", "Enabled"),
        Versioning::Suspended => xml.value("Status", "Suspended"),
    })))
}

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let configuration: VersioningConfiguration = from_xml(&call.document().await?)?;
    if configuration.mfa_delete.is_some_and(|mfa| mfa.as_str() != "Disabled") {
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "MfaDelete is not implemented."));
    }
    let enabled = match configuration.status.as_ref().map(|status| status.as_str()) {
        Some("Enabled") => true,
        Some("Suspended") => false,
        Some(_) => return Err(Failure::malformed_xml()),
        None => {
            return Err(Failure::bad(
                "IllegalVersioningConfigurationException",
                "The Versioning element must be specified",
            ));
        }
    };
    call.gateway().put_bucket_versioning(&call.bucket(), enabled).await?;
    Ok(respond::empty(StatusCode::OK))
}

pub(super) async fn list(call: Call) -> Result<Answer, Failure> {
    let (key_marker, version_id_marker) = (call.text("key-marker"), call.query.get("version-id-marker"));
    let request = ListVersions {
        bucket: call.bucket(),
        prefix: call.text("prefix"),
        delimiter: call.text("delimiter"),
        key_marker: key_marker.clone(),
        // SDKs send both markers empty for the first page.
        version_id_marker: version_id_marker
            .filter(|marker| !marker.is_empty() || !key_marker.is_empty())
            .map(str::to_owned),
        max_keys: page_size(&call, "max-keys"),
    };
    let page = call.gateway().list_versions(request).await?;
    let encoding = Encoding::of(&call);
    Ok(respond::xml(Xml::document("ListVersionsResult", |xml| {
        super::list::write_question(xml, &call, encoding);
        encoding.text(xml, "KeyMarker", &key_marker);
        xml.text("VersionIdMarker", version_id_marker.unwrap_or_default());
        xml.value("IsTruncated", page.next.is_some());
        if let Some((key, version)) = &page.next {
            encoding.text(xml, "NextKeyMarker", key);
            if let Some(version) = version {
                xml.text("NextVersionIdMarker", version);
            }
        }
        for version in &page.versions {
            let element = if version.delete_marker { "DeleteMarker" } else { "Version" };
            xml.element(element, |xml| write_version(xml, &call, version, encoding));
        }
        for prefix in &page.common_prefixes {
            xml.element("CommonPrefixes", |xml| encoding.text(xml, "Prefix", prefix));
        }
    })))
}

fn write_version(xml: &mut Xml, call: &Call, version: &ListedVersion, encoding: Encoding) {
    encoding.text(xml, "Key", &version.key);
    xml.text("VersionId", &version.version_id);
    xml.value("IsLatest", version.is_latest);
    xml.value("LastModified", wire::format_iso_date(version.modified_unix_ms));
    if !version.delete_marker {
        xml.text("ETag", &quoted(&version.etag));
        if let Some((algorithm, kind)) = version.checksum {
            xml.value("ChecksumAlgorithm", algorithm.name());
            xml.value("ChecksumType", wire::checksum_type_name(kind));
        }
        xml.value("Size", version.size_bytes);
        xml.text("StorageClass", &version.storage_class);
    }
    write_owner(xml, "Owner", call);
}
