//! PutObject, GetObject, HeadObject.

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use penstock_gateway::api::{Conditions, EtagCondition, GetObject, ObjectRead, PutDone, PutObject, RangeSpec};
use penstock_gateway::error::{Error, ErrorKind};
use penstock_proto::limits;

use super::digests::set_object_checksum;
use super::encryption::set_encryption;
use super::{Call, lifecycle, lock, quoted, set, set_version};
use crate::failure::Failure;
use crate::respond::{self, Answer, AnswerBody};
use crate::streams;
use crate::wire;

/// What AWS says of objects that were stored without a Content-Type.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";
/// Query parameters that replace headers of the answer.
const OVERRIDES: [(&str, HeaderName); 6] = [
    ("response-content-type", CONTENT_TYPE),
    ("response-content-language", CONTENT_LANGUAGE),
    ("response-expires", EXPIRES),
    ("response-cache-control", CACHE_CONTROL),
    ("response-content-disposition", CONTENT_DISPOSITION),
    ("response-content-encoding", CONTENT_ENCODING),
];

impl Call {
    /// How long the object in the body is, as far as the client says.
    ///
    /// # Errors
    /// MissingContentLength, EntityTooLarge, InvalidArgument.
    pub(super) fn content_bytes(&self) -> Result<Option<u64>, Failure> {
        let name = if self.trailers.is_some() { "x-amz-decoded-content-length" } else { "content-length" };
        let text = self.header(name)?;
        let bytes = match text {
            Some(text) => Some(
                wire::number(text)
                    .ok_or_else(|| Failure::argument(name, text, format!("The header {name} is not a length.")))?,
            ),
            // No length, and no body that would end by itself.
            None if !self.headers.contains_key("transfer-encoding") => {
                return Err(Failure::new(
                    StatusCode::LENGTH_REQUIRED,
                    "MissingContentLength",
                    "You must provide the Content-Length HTTP header.",
                ));
            }
            None => None,
        };
        if bytes.is_some_and(|bytes| bytes > limits::PUT_BYTES_MAX) {
            return Err(streams::too_large());
        }
        Ok(bytes)
    }

    fn wants_checksum(&self) -> Result<bool, Failure> {
        Ok(self.header_or_query("x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED")))
    }

    pub(super) fn read_request(&self) -> Result<GetObject, Failure> {
        self.check_reads_encryption()?;
        let part_number = self.part_number();
        let range = self.header("range")?.and_then(wire::range);
        if part_number.is_some() && range.is_some() {
            return Err(Failure::request("Cannot specify both Range header and partNumber query parameter"));
        }
        let (bucket, key) = (self.bucket(), self.key());
        let (conditions, version_id) = (self.conditions("")?, self.version_id());
        let customer_key = self.customer_key()?;
        Ok(GetObject { bucket, key, range, part_number, conditions, version_id, customer_key })
    }

    /// What `If-Range` says of the object, as conditions: when they don't hold, the range is not heeded.
    fn range_conditions(&self) -> Result<Option<Conditions>, Failure> {
        let Some(text) = self.header("if-range")? else { return Ok(None) };
        let mut conditions = Conditions::default();
        match wire::http_date(text) {
            Some(date) => conditions.if_unmodified_since = Some(date),
            None => {
                let etag = wire::unquoted(text.strip_prefix("W/").unwrap_or(text));
                conditions.if_match = Some(EtagCondition::OneOf(vec![etag.to_owned()]));
            }
        }
        Ok(Some(conditions))
    }
}

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let content_bytes = call.content_bytes()?;
    let mut digests = call.digests()?;
    let (body, payload_sha256) = std::mem::take(&mut call.body).into_unverified(call.exchange.clone());
    digests.payload_sha256 = payload_sha256;
    let request = PutObject {
        bucket: call.bucket(),
        key: call.key(),
        body,
        content_bytes,
        digests,
        headers: call.object_headers()?,
        storage_class: call.storage_class()?,
        conditions: call.write_conditions()?,
        tags: call.tags()?,
        lock: call.lock()?,
        encryption: call.encryption()?,
    };
    let done = call.gateway().put_object(request).await?;
    Ok(put_answer(&call, &done))
}

pub(super) fn put_answer(call: &Call, done: &PutDone) -> Answer {
    let mut answer = respond::empty(StatusCode::OK);
    set(answer.headers_mut(), ETAG, &quoted(&done.etag));
    set_version(answer.headers_mut(), done.version_id.as_deref());
    lifecycle::set_expiration(answer.headers_mut(), done.expiration.as_ref());
    if let Some(checksum) = &done.checksum {
        set_object_checksum(answer.headers_mut(), checksum);
    }
    set_encryption(answer.headers_mut(), &call.headers, done.encryption.as_ref(), true);
    answer
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let mut request = call.read_request()?;
    if request.range.is_some()
        && let Some(only_if) = call.range_conditions()?
        && let Err(error) =
            call.gateway().head_object(GetObject { conditions: only_if, range: None, ..request.clone() }).await
    {
        match error.kind {
            ErrorKind::PreconditionFailed => request.range = None,
            _ => return Err(error.into()),
        }
    }
    match call.gateway().get_object(request.clone()).await {
        Ok(read) => read_answer(&call, request.part_number, read),
        Err(error) => Err(read_failure(&call, request, error).await),
    }
}

pub(super) async fn head(call: Call) -> Result<Answer, Failure> {
    let request = call.read_request()?;
    match call.gateway().head_object(request.clone()).await {
        Ok(read) => read_answer(&call, request.part_number, read),
        Err(error) => Err(read_failure(&call, request, error).await),
    }
}

/// Fills in what 304 and 416 say about the object. It may have changed since; then they say what is true now.
pub(super) async fn read_failure(call: &Call, request: GetObject, error: Error) -> Failure {
    let kind = error.kind;
    let mut failure = Failure::from(error);
    if !matches!(kind, ErrorKind::NotModified | ErrorKind::InvalidRange) {
        return failure;
    }
    let GetObject { bucket, key, version_id, customer_key, .. } = request;
    let plain = GetObject { bucket, key, version_id, customer_key, ..GetObject::default() };
    let Ok(read) = call.gateway().head_object(plain).await else { return failure };
    match request.range {
        Some(range) if kind == ErrorKind::InvalidRange => {
            failure.details.push(("RangeRequested", range_text(range)));
            failure.with_actual_size(read.info.size_bytes)
        }
        _ if kind == ErrorKind::NotModified => {
            failure.with_validators(&read.info.etag, &wire::format_http_date(read.info.modified_unix_ms))
        }
        _ => failure,
    }
}

fn range_text(range: RangeSpec) -> String {
    match range {
        RangeSpec::FromTo(first, last) => format!("bytes={first}-{last}"),
        RangeSpec::From(first) => format!("bytes={first}-"),
        RangeSpec::Last(bytes) => format!("bytes=-{bytes}"),
    }
}

pub(super) fn read_answer(call: &Call, part_number: Option<u32>, read: ObjectRead) -> Result<Answer, Failure> {
    let ObjectRead { info, range, partial, body } = read;
    let length = range.end.saturating_sub(range.start);
    let mut headers = HeaderMap::with_capacity(24);
    set(&mut headers, ETAG, &quoted(&info.etag));
    set(&mut headers, LAST_MODIFIED, &wire::format_http_date(info.modified_unix_ms));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if partial && length > 0 {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size_bytes);
        set(&mut headers, CONTENT_RANGE, &text);
    }
    let stored = &info.headers;
    set(&mut headers, CONTENT_TYPE, stored.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE));
    let optional = [
        (CONTENT_ENCODING, &stored.content_encoding),
        (CONTENT_DISPOSITION, &stored.content_disposition),
        (CONTENT_LANGUAGE, &stored.content_language),
        (CACHE_CONTROL, &stored.cache_control),
        (EXPIRES, &stored.expires),
    ];
    for (name, text) in optional {
        if let Some(text) = text {
            set(&mut headers, name, text);
        }
    }
    for (name, value) in &stored.user_metadata {
        if let Ok(name) = HeaderName::try_from(format!("x-amz-meta-{name}")) {
            set(&mut headers, name, value);
        }
    }
    set_version(&mut headers, info.version_id.as_deref());
    set_encryption(&mut headers, &call.headers, info.encryption.as_ref(), false);
    lifecycle::set_expiration(&mut headers, info.expiration.as_ref());
    if !info.tags.is_empty() {
        headers.insert(respond::name("x-amz-tagging-count"), HeaderValue::from(info.tags.len()));
    }
    if let Some(retention) = info.lock.retention {
        set(&mut headers, respond::name("x-amz-object-lock-mode"), lock::mode_name(retention.compliance));
        let until = wire::format_iso_date(retention.until_unix_ms);
        set(&mut headers, respond::name("x-amz-object-lock-retain-until-date"), &until);
    }
    if let Some(held) = info.lock.legal_hold {
        set(&mut headers, respond::name("x-amz-object-lock-legal-hold"), if held { "ON" } else { "OFF" });
    }
    if info.storage_class != "STANDARD" {
        set(&mut headers, respond::name("x-amz-storage-class"), &info.storage_class);
    }
    if let (Some(_), Some(parts)) = (part_number, info.parts) {
        headers.insert(respond::name("x-amz-mp-parts-count"), HeaderValue::from(parts));
    }
    // The checksum is of the whole object; next to a part of it, SDKs would hold the part against it.
    if let Some(checksum) = info.checksum.as_ref().filter(|_| !partial)
        && call.wants_checksum()?
    {
        set_object_checksum(&mut headers, checksum);
    }
    for (parameter, name) in OVERRIDES {
        if let Some(text) = call.query.get(parameter) {
            let value = HeaderValue::from_str(text)
                .map_err(|_| Failure::argument(parameter, text, format!("{parameter} can't be a header's value.")))?;
            headers.insert(name, value);
        }
    }
    let body = match body {
        Some(stream) => AnswerBody::Object(stream, length),
        None => AnswerBody::Whole(bytes::Bytes::new()),
    };
    let mut answer = Answer::new(body);
    *answer.headers_mut() = headers;
    *answer.status_mut() = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    Ok(answer)
}
