//! PostObject: an object uploaded by an HTML form.
//!
//! **What.** A form has fields, a policy that its maker signed, and a file. When the signature is good and the fields keep
//! to the policy, the form is turned into the PutObject that its fields describe, and goes the way of every PutObject:
//! the same headers are understood, the same are refused, the same rights are asked for. Only the answer differs.
//!
//! **How it fails.** In AWS's words: MalformedPOSTRequest, InvalidPolicyDocument, AccessDenied with the condition that
//! failed, EntityTooSmall and EntityTooLarge. Nothing is stored then. SigV2's fields are refused, as everywhere.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html>.

mod form;
mod policy;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use penstock_proto::limits;
use s3s_sigv4::AmzDate;
use time::OffsetDateTime;

use self::form::{Fields, Form};
use self::policy::{LengthRange, Policy};
use crate::failure::Failure;
use crate::query;
use crate::respond::{self, Answer};
use crate::streams::{Payload, RequestBody};
use crate::wire;
use crate::xml::Xml;
use penstock_identity::Secret;

/// A form whose signature and policy are good, as the PutObject that it asks for.
pub(crate) struct Upload {
    /// Empty for a form without a policy: nobody signed it, and the bucket's policy says whether anybody may.
    pub(crate) access_key: String,
    /// `x-amz-security-token`, of temporary keys.
    pub(crate) token: Option<String>,
    pub(crate) key: String,
    /// Those of the PutObject.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    pub(crate) reply: Reply,
}

/// How a form wants to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `success_action_redirect`.
    Redirect(String),
    /// `success_action_status`: 200, 201 or 204.
    Status(StatusCode),
}

/// Reads a form up to its file, and checks what its maker allowed.
///
/// # Errors
/// See the module.
pub(crate) async fn open(
    bucket: &str,
    head: &http::request::Parts,
    body: RequestBody,
    secret_of: impl FnOnce(&str) -> Option<Secret>,
) -> Result<Upload, Failure> {
    let content_type = wire::header(&head.headers, "content-type")?.unwrap_or_default();
    let stream = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let form = form::read(content_type, stream).await?;
    let now = OffsetDateTime::now_utc();
    let (access_key, range) = authenticate(bucket, &form.fields, now, secret_of)?;
    let key = key_of(&form)?;
    let headers = put_headers(&form.fields)?;
    let reply = reply_of(&form.fields);
    let token = form.fields.get("x-amz-security-token").map(str::to_owned);
    Ok(Upload { access_key, token, key, headers, body: file_body(form, range), reply })
}

fn authenticate(
    bucket: &str,
    fields: &Fields,
    now: OffsetDateTime,
    secret_of: impl FnOnce(&str) -> Option<Secret>,
) -> Result<(String, LengthRange), Failure> {
    if fields.get("awsaccesskeyid").is_some() || fields.get("signature").is_some() {
        return Err(Failure::request(
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        ));
    }
    let Some(document) = fields.get("policy") else {
        return Ok((String::new(), LengthRange { min: 0, max: limits::PUT_BYTES_MAX }));
    };
    let needed = |name: &'static str| {
        fields
            .get(name)
            .ok_or_else(|| Failure::argument(name, "", format!("Bucket POST must contain a field named '{name}'.")))
    };
    let algorithm = needed("x-amz-algorithm")?;
    if algorithm != "AWS4-HMAC-SHA256" {
        return Err(Failure::argument("x-amz-algorithm", algorithm, "The only algorithm is AWS4-HMAC-SHA256."));
    }
    let (credential, date, signature) =
        (needed("x-amz-credential")?, needed("x-amz-date")?, needed("x-amz-signature")?);
    let scope = Scope::parse(credential).ok_or_else(|| {
        Failure::argument("x-amz-credential", credential, "The credential is KEY/DATE/REGION/s3/aws4_request.")
    })?;
    let parsed = AmzDate::parse(date).ok().and_then(|date| Some((date.to_time()?.as_second(), date)));
    let (signed_at_unix_s, amz_date) =
        parsed.ok_or_else(|| Failure::argument("x-amz-date", date, "The date is written 20261231T120000Z."))?;
    let latest = now + limits::CLOCK_SKEW_MAX;
    if !date.starts_with(scope.date) || signed_at_unix_s > latest.unix_timestamp() {
        return Err(Failure::argument("x-amz-date", date, "The date is not the credential's, or in the future."));
    }
    let Some(secret) = secret_of(scope.access_key) else {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ));
    };
    if !scope.signs(&secret, &amz_date, document, signature) {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing \
             method.",
        ));
    }
    let document = STANDARD
        .decode(document.split_ascii_whitespace().collect::<String>())
        .map_err(|_| Failure::bad("InvalidPolicyDocument", "Invalid Policy: it is not base64."))?;
    let range = Policy::parse(&document)?.check(bucket, fields, now)?;
    Ok((scope.access_key.to_owned(), range))
}

/// A credential, taken apart.
struct Scope<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
}

impl<'a> Scope<'a> {
    fn parse(credential: &'a str) -> Option<Self> {
        // Access keys may have slashes; what follows has not.
        let mut parts = credential.rsplitn(5, '/');
        let (end, service, region, date) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let access_key = parts.next().filter(|key| !key.is_empty())?;
        let good = end == "aws4_request" && service == "s3" && date.len() == 8 && !region.is_empty();
        good.then_some(Self { access_key, date, region })
    }

    /// Whether `signature` (hex) is that of `text`. Compared in constant time.
    fn signs(&self, secret: &Secret, date: &AmzDate, text: &str, signature: &str) -> bool {
        let computed = s3s_sigv4::calculate_signature(text, secret.expose(), date, self.region, "s3");
        query::same(computed.as_bytes(), signature.to_ascii_lowercase().as_bytes())
    }
}

fn key_of(form: &Form) -> Result<String, Failure> {
    let key = form.fields.get("key").filter(|key| !key.is_empty()).ok_or_else(|| {
        let says =
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.";
        Failure::argument("key", "", says)
    })?;
    let key = key.replace("${filename}", &form.file_name);
    if key.len() > limits::KEY_BYTES_MAX {
        let mut failure = Failure::bad("KeyTooLongError", "Your key is too long");
        failure.details.push(("Size", key.len().to_string()));
        failure.details.push(("MaxSizeAllowed", limits::KEY_BYTES_MAX.to_string()));
        return Err(failure);
    }
    Ok(key)
}

/// Fields that steer the form and are no headers of a PutObject.
const STEERING: [&str; 13] = [
    "key",
    "policy",
    "bucket",
    "file",
    "success_action_status",
    "success_action_redirect",
    "redirect",
    "submit",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-signature",
    "x-amz-security-token",
];

/// The headers of the PutObject that the fields describe. Fields that are no header of S3's are ignored, as AWS does.
fn put_headers(fields: &Fields) -> Result<HeaderMap, Failure> {
    const PLAIN: [&str; 7] = [
        "content-type",
        "content-encoding",
        "content-disposition",
        "content-language",
        "cache-control",
        "expires",
        "content-md5",
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter() {
        if STEERING.contains(&name) {
            continue;
        }
        let header = match name {
            "acl" => "x-amz-acl",
            "tagging" => "x-amz-tagging",
            name if PLAIN.contains(&name) || name.starts_with("x-amz-") => name,
            _ => continue,
        };
        let value = if name == "tagging" { tagging_header(value)? } else { value.to_owned() };
        let bad =
            || Failure::argument(name, &value, format!("The form field {name} can't be the header of an object."));
        headers.insert(
            HeaderName::try_from(header).map_err(|_| bad())?,
            HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?,
        );
    }
    // The file ends where its part ends: its length is not known before.
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    Ok(headers)
}

/// Percent-encoded, as a value of a query.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The `tagging` field is an XML document; the header has the same as a query string.
fn tagging_header(document: &str) -> Result<String, Failure> {
    let tags = crate::ops::parse_tagging(document.as_bytes())?;
    Ok(tags.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect::<Vec<_>>().join("&"))
}

fn reply_of(fields: &Fields) -> Reply {
    let target = fields.get("success_action_redirect").or_else(|| fields.get("redirect"));
    if let Some(url) = target.filter(|url| url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some())) {
        return Reply::Redirect(url.to_owned());
    }
    // Anything else than these three is as if nothing had been said, as AWS has it.
    Reply::Status(match fields.get("success_action_status") {
        Some("200") => StatusCode::OK,
        Some("201") => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    })
}

/// The file, held to its length.
fn file_body(form: Form, range: LengthRange) -> Payload {
    let mut bytes = 0u64;
    let too_small = move |bytes: u64| {
        let mut failure =
            Failure::bad("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size");
        failure.details.push(("ProposedSize", bytes.to_string()));
        failure.details.push(("MinSizeAllowed", range.min.to_string()));
        failure
    };
    let too_large = move |bytes: u64| {
        let mut failure = Failure::bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
        failure.details.push(("ProposedSize", bytes.to_string()));
        failure.details.push(("MaxSizeAllowed", range.max.to_string()));
        failure
    };
    let end = futures::stream::once(async { None });
    let pieces = form.file.map(Some).chain(end).map(move |piece| match piece {
        Some(Ok(piece)) => {
            bytes += piece.len() as u64;
            if bytes > range.max { Err(FormBroken(too_large(bytes))) } else { Ok(piece) }
        }
        Some(Err(_)) => Err(FormBroken(form::malformed())),
        None if bytes < range.min => Err(FormBroken(too_small(bytes))),
        None => Ok(Bytes::new()),
    });
    let frames = pieces.map_ok(http_body::Frame::data);
    Payload::verified_by_s3s(s3s::Body::http_body_unsync(StreamBody::new(frames)))
}

/// What is wrong with the file of a form.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct FormBroken(pub(crate) Failure);

/// The answer that the form asked for, from PutObject's.
pub(crate) fn answer(put: Answer, reply: &Reply, location: &str, bucket: &str, key: &str) -> Answer {
    let etag = put.headers().get(ETAG).cloned().unwrap_or_else(|| HeaderValue::from_static("\"\""));
    let etag_text = etag.to_str().unwrap_or_default().to_owned();
    let mut answer = match reply {
        Reply::Redirect(url) => {
            let joint = if url.contains('?') { '&' } else { '?' };
            let url =
                format!("{url}{joint}bucket={}&key={}&etag={}", encoded(bucket), encoded(key), encoded(&etag_text));
            let mut answer = respond::empty(StatusCode::SEE_OTHER);
            if let Ok(url) = HeaderValue::try_from(url) {
                answer.headers_mut().insert(LOCATION, url);
            }
            return answer;
        }
        Reply::Status(StatusCode::CREATED) => {
            let mut answer = respond::xml(Xml::document("PostResponse", |xml: &mut Xml| {
                xml.text("Location", location);
                xml.text("Bucket", bucket);
                xml.text("Key", key);
                xml.text("ETag", &etag_text);
            }));
            *answer.status_mut() = StatusCode::CREATED;
            answer
        }
        Reply::Status(status) => respond::empty(*status),
    };
    for (name, value) in put.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}
