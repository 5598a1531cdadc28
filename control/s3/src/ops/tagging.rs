//! Tags of buckets.

use http::StatusCode;
use penstock_gateway::api::BucketSetting;
use penstock_gateway::tags::{self, Tags};
use s3s::dto;

use super::delete::from_xml;
use super::settings::{Document, unreadable};
use crate::failure::Failure;
use crate::xml::Xml;

/// A bucket's tags, stored as JSON: `[[key, value], ...]`.
pub(super) const OF_BUCKET: Document = Document {
    kind: BucketSetting::Tagging,
    accept: |body| {
        let tags = parse(body)?;
        tags::check_bucket_tags(&tags)?;
        serde_json::to_vec(&tags).map_err(unreadable)
    },
    answer: |stored| Ok(document(&serde_json::from_slice::<Tags>(stored).map_err(unreadable)?)),
    absent: || Err(Failure::new(StatusCode::NOT_FOUND, "NoSuchTagSet", "The TagSet does not exist")),
    put_status: StatusCode::NO_CONTENT,
};

/// The tags of a `<Tagging>` document.
pub(super) fn parse(body: &[u8]) -> Result<Tags, Failure> {
    let document: dto::Tagging = from_xml(body)?;
    document.tag_set.into_iter().map(tag).collect()
}

/// A tag that has both of its elements.
fn tag(tag: dto::Tag) -> Result<(String, String), Failure> {
    Ok((tag.key.ok_or_else(Failure::malformed_xml)?, tag.value.ok_or_else(Failure::malformed_xml)?))
}

/// `<Tagging>`.
pub(super) fn document(tags: &[(String, String)]) -> String {
    Xml::document("Tagging", |xml| {
        xml.element("TagSet", |xml| {
            for (key, value) in tags {
                xml.element("Tag", |xml| {
                    xml.text("Key", key);
                    xml.text("Value", value);
                });
            }
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(body: &str) -> Result<String, String> {
        let stored = (OF_BUCKET.accept)(body.as_bytes()).map_err(|failure| failure.code.into_owned())?;
        Ok((OF_BUCKET.answer)(&stored).unwrap())
    }

    #[test]
    fn what_was_put_is_got() {
        let set = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        let tag = |key: &str, value: &str| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
        let two = set(&(tag("a b", "1") + &tag("c", "")));
        assert!(accepted(&two).unwrap().ends_with(two.strip_prefix("<Tagging>").unwrap()));
        assert!(accepted(&set("")).is_ok());
        for (bad, code) in [
            (set(&(tag("a", "1") + &tag("a", "2"))), "InvalidTag"),
            (set(&tag("aws:a", "1")), "InvalidTag"),
            (set(&tag("", "1")), "InvalidTag"),
            (set("<Tag><Key>a</Key></Tag>"), "MalformedXML"),
            (set("<Tag><Value>a</Value></Tag>"), "MalformedXML"),
            ("<Tagging/>".to_owned(), "MalformedXML"),
            (String::new(), "MalformedXML"),
        ] {
            assert_eq!(accepted(&bad), Err(code.to_owned()), "{bad}");
        }
    }
}
