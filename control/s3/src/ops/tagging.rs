//! Tags of buckets and of objects.

use http::StatusCode;
use penstock_gateway::api::BucketSetting;
use penstock_gateway::events::{self, Way};
use penstock_gateway::tags::{self, Tags};
use s3s::dto;

use super::delete::from_xml;
use super::settings::{Document, unreadable};
use super::{Call, set_version};
use crate::failure::Failure;
use crate::respond::{self, Answer};
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
pub(crate) fn parse(body: &[u8]) -> Result<Tags, Failure> {
    let document: dto::Tagging = from_xml(body)?;
    document.tag_set.into_iter().map(tag).collect()
}

/// The setting that a new bucket has for these tags; none for none.
pub(super) fn setting_of(tags: Vec<dto::Tag>) -> Result<Option<(BucketSetting, Vec<u8>)>, Failure> {
    if tags.is_empty() {
        return Ok(None);
    }
    let tags: Tags = tags.into_iter().map(tag).collect::<Result<_, _>>()?;
    tags::check_bucket_tags(&tags)?;
    Ok(Some((BucketSetting::Tagging, serde_json::to_vec(&tags).map_err(unreadable)?)))
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

impl Call {
    /// The tags that `x-amz-tagging` gives a new object: a query of keys and values.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(super) fn tags(&self) -> Result<Tags, Failure> {
        let Some(text) = self.header("x-amz-tagging")? else { return Ok(Tags::new()) };
        parse_header(text).ok_or_else(|| {
            let message = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without \
                           tag name duplicates.";
            Failure::argument("x-amz-tagging", text, message)
        })
    }
}

/// `key=value&key=value`, each percent-encoded (`+` is a space); a key alone has the empty value.
fn parse_header(text: &str) -> Option<Tags> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
    };
    let mut tags = Tags::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decoded(key)?, decoded(value)?);
        if tags.iter().any(|(earlier, _)| *earlier == key) {
            return None;
        }
        tags.push((key, value));
    }
    Some(tags)
}

pub(super) async fn get_of_object(call: Call) -> Result<Answer, Failure> {
    let (tags, version_id) = call.gateway().object_tags(&call.object_name()).await?;
    let mut answer = respond::xml(document(&tags));
    set_version(answer.headers_mut(), version_id.as_deref());
    Ok(answer)
}

pub(super) async fn put_of_object(mut call: Call) -> Result<Answer, Failure> {
    let tags = parse(&call.document().await?)?;
    call.access.may_tag(&call.object_name(), &tags)?;
    let version_id = call.gateway().put_object_tags(&call.object_name(), tags).await?;
    let mut answer = respond::empty(StatusCode::OK);
    set_version(answer.headers_mut(), version_id.as_deref());
    Ok(answer)
}

pub(super) async fn delete_of_object(call: Call) -> Result<Answer, Failure> {
    let (gateway, name) = (call.gateway(), call.object_name());
    let version_id = events::in_way(Way::DeleteTags, gateway.put_object_tags(&name, Tags::new())).await?;
    let mut answer = respond::empty(StatusCode::NO_CONTENT);
    set_version(answer.headers_mut(), version_id.as_deref());
    Ok(answer)
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

    #[test]
    fn tags_of_headers() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parse_header("a=b&c%20d=%2B+&e"), Some(vec![pair("a", "b"), pair("c d", "+ "), pair("e", "")]));
        assert_eq!(parse_header(""), Some(Vec::new()));
        assert_eq!(parse_header("a=1&a=2"), None);
        assert_eq!(parse_header("a=%ff"), None);
    }
}
