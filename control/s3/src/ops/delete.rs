//! DeleteObject and DeleteObjects.

use http::{HeaderValue, StatusCode};
use penstock_gateway::api::{Conditions, DeleteObject, Deleted, EtagCondition};
use penstock_proto::limits;
use s3s::dto::{Delete, ETag, ObjectIdentifier};
use s3s::xml::{Deserialize, Deserializer};

use super::{Call, set_version};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::streams;
use crate::wire;
use crate::xml::Xml;

/// A document that a client sent.
///
/// # Errors
/// MalformedXML. CDATA sections are refused: the parser would skip them, and a key that is not read right must not be
/// deleted.
pub(crate) fn from_xml<T: for<'x> Deserialize<'x>>(body: &[u8]) -> Result<T, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| Failure::malformed_xml())?;
    if text.contains("<![CDATA[") || text.contains("<!DOCTYPE") {
        return Err(Failure::malformed_xml());
    }
    let text = without_numeric_references(text).ok_or_else(Failure::malformed_xml)?;
    let mut parser = Deserializer::new(text.as_bytes());
    let value = T::deserialize(&mut parser).map_err(|_| Failure::malformed_xml())?;
    parser.expect_eof().map_err(|_| Failure::malformed_xml())?;
    Ok(value)
}

/// Character references (`&#128512;`, `&#x1;`) as the characters themselves. The parser refuses those of control characters,
/// which keys may hold, and (in s3s 0.17) of U+10000 to U+FFFFF, which minio-py sends.
fn without_numeric_references(text: &str) -> Option<String> {
    let mut pieces = text.split("&#");
    let mut resolved = pieces.next()?.to_owned();
    for piece in pieces {
        let (number, rest) = piece.split_once(';')?;
        let code = match number.strip_prefix('x') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(digits, 16).ok()?,
            None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok()?,
            _ => return None,
        };
        match char::from_u32(code)? {
            '\0' => return None,
            '&' => resolved.push_str("&amp;"),
            '<' => resolved.push_str("&lt;"),
            '>' => resolved.push_str("&gt;"),
            '"' => resolved.push_str("&quot;"),
            '\'' => resolved.push_str("&apos;"),
            c => resolved.push(c),
        }
        resolved.push_str(rest);
    }
    Some(resolved)
}

pub(super) async fn one(call: Call) -> Result<Answer, Failure> {
    let mut conditions = Conditions { if_match: call.conditions("")?.if_match, ..Conditions::default() };
    if let Some(text) = call.header("x-amz-if-match-size")? {
        let invalid = || Failure::argument("x-amz-if-match-size", text, "x-amz-if-match-size is not a size.");
        conditions.if_match_size = Some(wire::number(text).ok_or_else(invalid)?);
    }
    if let Some(text) = call.header("x-amz-if-match-last-modified-time")? {
        let name = "x-amz-if-match-last-modified-time";
        let invalid = || Failure::argument(name, text, format!("{name} is not a date."));
        conditions.if_match_last_modified = Some(wire::http_date(text).ok_or_else(invalid)?);
    }
    let request = DeleteObject {
        bucket: call.bucket(),
        key: call.key(),
        conditions,
        version_id: call.version_id(),
        bypass_governance: call.bypasses_governance()?,
    };
    let deleted = call.gateway().delete_object(request).await?;
    let mut answer = respond::empty(StatusCode::NO_CONTENT);
    set_version(answer.headers_mut(), deleted.version_id.as_deref());
    if deleted.delete_marker {
        answer.headers_mut().insert(respond::name("x-amz-delete-marker"), HeaderValue::from_static("true"));
    }
    Ok(answer)
}

pub(super) async fn many(mut call: Call) -> Result<Answer, Failure> {
    let body = streams::small_body(std::mem::take(&mut call.body), &call.exchange).await?;
    call.verify_small_body(&body)?;
    let request: Delete = from_xml(&body)?;
    let quiet = request.quiet.unwrap_or(false);
    if request.objects.is_empty() || request.objects.len() > limits::LIST_KEYS_MAX {
        return Err(Failure::malformed_xml());
    }
    let (bucket, bypass) = (call.bucket(), call.bypasses_governance()?);
    // What is wrong with one entry fails that entry alone.
    let mut entries: Vec<(Named, Result<DeleteObject, Failure>)> = Vec::with_capacity(request.objects.len());
    for object in request.objects {
        let named = (object.key.clone(), object.version_id.clone());
        let allowed = call.access.may_delete(&call.front, &object.key, object.version_id.as_deref(), bypass).await;
        entries.push((named, allowed.and_then(|()| entry(&bucket, object, bypass))));
    }
    let wanted: Vec<DeleteObject> = entries.iter().filter_map(|(_, entry)| entry.as_ref().ok().cloned()).collect();
    let mut done = if wanted.is_empty() {
        call.gateway().head_bucket(&bucket).await?;
        Vec::new()
    } else {
        call.gateway().delete_objects(&bucket, wanted).await?
    }
    .into_iter();
    let results: Vec<(Named, Result<Deleted, Failure>)> = entries
        .into_iter()
        .map(|(named, entry)| {
            let result = entry.and_then(|_| match done.next() {
                Some(result) => result.map_err(Failure::from),
                None => Err(Failure::internal("The gateway answered for fewer objects than it was asked for.")),
            });
            (named, result)
        })
        .collect();
    Ok(respond::xml(Xml::document("DeleteResult", |xml| {
        for ((key, version_id), result) in &results {
            let name = |xml: &mut Xml| {
                xml.text("Key", key);
                if let Some(version_id) = version_id {
                    xml.text("VersionId", version_id);
                }
            };
            match result {
                Ok(_) if quiet => {}
                Ok(deleted) => xml.element("Deleted", |xml| {
                    name(xml);
                    if deleted.delete_marker {
                        xml.value("DeleteMarker", true);
                        xml.text("DeleteMarkerVersionId", deleted.version_id.as_deref().unwrap_or_default());
                    }
                }),
                Err(failure) => xml.element("Error", |xml| {
                    name(xml);
                    xml.text("Code", &failure.code);
                    xml.text("Message", &failure.message);
                }),
            }
        }
    })))
}

/// A key and a version as an entry names them.
type Named = (String, Option<String>);

fn entry(bucket: &str, object: ObjectIdentifier, bypass_governance: bool) -> Result<DeleteObject, Failure> {
    if object.key.is_empty() {
        return Err(Failure::bad("UserKeyMustBeSpecified", "The key of an object to delete is empty."));
    }
    let if_match = match object.e_tag {
        None => None,
        Some(ETag::Strong(etag) | ETag::Weak(etag)) if etag == "*" => Some(EtagCondition::Any),
        Some(ETag::Strong(etag) | ETag::Weak(etag)) => Some(EtagCondition::OneOf(vec![etag])),
    };
    let if_match_size = match object.size {
        None => None,
        Some(size) => Some(u64::try_from(size).map_err(|_| Failure::argument("Size", "", "A size is negative."))?),
    };
    let if_match_last_modified = object.last_modified_time.map(|moment| {
        let moment = time::OffsetDateTime::from(moment);
        u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
    });
    let conditions = Conditions { if_match, if_match_size, if_match_last_modified, ..Conditions::default() };
    // SDKs write an empty element for no version.
    let version_id = object.version_id.filter(|version| !version.is_empty());
    Ok(DeleteObject { bucket: bucket.to_owned(), key: object.key, conditions, version_id, bypass_governance })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(document: &str) -> Option<Vec<String>> {
        let delete: Delete = from_xml(document.as_bytes()).ok()?;
        Some(delete.objects.into_iter().map(|object| object.key).collect())
    }

    #[test]
    fn keys_are_read_to_the_letter() {
        let document = "<?xml version=\"1.0\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n <Object><Key> a&amp;b&lt;&#x1;&#13; </Key>\
            </Object><Object><Key>ü&#128512;&#38;amp;&#x3c;</Key></Object></Delete>";
        assert_eq!(keys(document), Some(vec![" a&b<\u{1}\r ".to_owned(), "ü\u{1f600}&amp;<".to_owned()]));
    }

    #[test]
    fn documents_that_could_be_misread_are_refused() {
        let bad = [
            "",
            "<Delete/>",
            "<Delete><Object></Object></Delete>",
            "<Delete><Object><Key>a</Key></Object>",
            "<Delete><Object><Key>a</Key></Object></Delete><Delete/>",
            "<Delete><Object><Key><![CDATA[a]]></Key></Object></Delete>",
            "<Delete><Object><Key>&unknown;</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
            "<Delete><Object><Key>&#0;</Key></Object></Delete>",
            "<Delete><Object><Key>&#xd800;</Key></Object></Delete>",
            "<Delete><Object><Key>&#x;</Key></Object></Delete>",
            "<Delete><Object><Key>&#+65;</Key></Object></Delete>",
            "<Delete><Object><Key>&#65</Key></Object></Delete>",
            "<Other><Object><Key>a</Key></Object></Other>",
            "not xml",
        ];
        for document in bad {
            assert_eq!(keys(document), None, "{document}");
        }
        assert!(from_xml::<Delete>(b"<Delete><Object><Key>\xff</Key></Object></Delete>").is_err());
    }
}
