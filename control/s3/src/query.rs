//! IAM and STS: `POST /` with a form that says `Action=...`, AWS's query protocol, at the same endpoint.
//!
//! These requests are signed for the services `iam` or `sts` and carry no payload hash in a header: the body, which is
//! small, is read and hashed here. The parts of the signature are s3s-sigv4's.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use penstock_digest::Sha256Hasher;
use penstock_identity::{ErrorKind, IdentityError, Params, Principal};
use penstock_policy::Context;
use penstock_proto::limits;
use s3s_sigv4::{AmzDate, AuthorizationV4, Payload};

use crate::access::{now_unix_s, of_connection};
use crate::exchange::Exchange;
use crate::keep;
use crate::peer::Peer;
use crate::respond::{self, Answer, AnswerBody};
use crate::server::Front;
use crate::streams::{self, RequestBody};

/// Longest form: two policies, percent-encoded.
const FORM_BYTES_MAX: usize = 128 << 10;

/// Whether this is such a call.
pub(crate) fn is_query_call(head: &Parts, path_is_root: bool) -> bool {
    let form = |value: &HeaderValue| {
        let text = value.as_bytes().trim_ascii_start();
        text.get(..33).is_some_and(|start| start.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
    };
    path_is_root && head.method == Method::POST && head.headers.get(CONTENT_TYPE).is_some_and(form)
}

/// Authenticates and performs a call, and answers it: its errors are XML of IAM's kind. The name is for the log.
pub(crate) async fn answer(
    front: &Front,
    peer: Peer,
    head: &Parts,
    body: RequestBody,
    exchange: &std::sync::Arc<Exchange>,
) -> (Answer, String, Option<&'static str>) {
    let mut access_key = String::new();
    let (document, status, code) = match perform(front, peer, head, body, exchange, &mut access_key).await {
        Ok(document) => (document, StatusCode::OK, None),
        Err(error) => {
            if error.kind == ErrorKind::Internal {
                tracing::error!(request_id = exchange.id, %error, "an identity call failed");
            }
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (error.document(&exchange.id), status, Some(error.code()))
        }
    };
    let mut answer = http::Response::new(AnswerBody::Whole(Bytes::from(document)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    if let Ok(id) = HeaderValue::from_str(&exchange.id) {
        answer.headers_mut().insert(respond::name("x-amzn-requestid"), id);
    }
    (answer, access_key, code)
}

fn denied(message: impl Into<String>) -> IdentityError {
    IdentityError { kind: ErrorKind::AccessDenied, message: message.into() }
}

async fn perform(
    front: &Front,
    peer: Peer,
    head: &Parts,
    body: RequestBody,
    exchange: &std::sync::Arc<Exchange>,
    access_key: &mut String,
) -> Result<String, IdentityError> {
    let body =
        streams::small_body(streams::Payload::verified_by_s3s(s3s::Body::http_body_unsync(body)), exchange).await;
    let body = body
        .map_err(|failure| IdentityError { kind: ErrorKind::ValidationError, message: failure.message.into_owned() })?;
    if body.len() > FORM_BYTES_MAX {
        let message = format!("the form has {} bytes, at most {FORM_BYTES_MAX} are allowed", body.len());
        return Err(IdentityError { kind: ErrorKind::ValidationError, message });
    }
    let now = now_unix_s();
    let caller = authenticate(front, head, &body, now)?;
    access_key.clone_from(&caller.0);
    if front.rates.as_ref().is_some_and(|rates| !rates.admit(&caller.0)) {
        return Err(IdentityError { kind: ErrorKind::Throttling, message: "Rate exceeded".to_owned() });
    }
    let text = std::str::from_utf8(&body)
        .map_err(|_| IdentityError { kind: ErrorKind::ValidationError, message: "the form is not UTF-8".to_owned() })?;
    let params = Params::parse(text)?;
    let mut context = Context::new();
    of_connection(&mut context, peer);
    caller.1.describe(&mut context);
    if let Some(answered) = keep::perform(front, &caller.1, &params, &context, &exchange.id).await {
        return answered;
    }
    if let Some(done) = crate::kms::call(front, &caller.1, &params, &context, now, &exchange.id).await {
        return done;
    }
    if let Some(document) = crate::storage::perform(front, &caller.1, &params, &context, &exchange.id).await {
        return document;
    }
    let answered = front.identities.call(&caller.1, &params, &context, now, &exchange.id).await?;
    Ok(answered.document)
}

/// Who signed.
fn authenticate(front: &Front, head: &Parts, body: &[u8], now: u64) -> Result<(String, Principal), IdentityError> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization =
        text(AUTHORIZATION.as_str()).ok_or_else(|| denied("Request is missing Authentication Token"))?;
    let malformed = || denied("The Authorization header is not a Signature Version 4");
    let authorization = AuthorizationV4::parse(authorization).map_err(|_| malformed())?;
    let credential = &authorization.credential;
    if !["iam", "sts", "s3"].contains(&credential.aws_service) {
        return Err(denied(format!("Credential should be scoped to correct service, not {}", credential.aws_service)));
    }
    let date = text("x-amz-date").and_then(|text| AmzDate::parse(text).ok()).ok_or_else(malformed)?;
    let signed_at = date.to_time().ok_or_else(malformed)?.as_second();
    let skew = (i128::from(signed_at) - i128::from(now)).unsigned_abs();
    if skew > u128::from(limits::CLOCK_SKEW_MAX.as_secs()) {
        return Err(denied("Signature expired or not yet current: the clocks are too far apart"));
    }
    if !authorization.signed_headers.iter().any(|name| name.eq_ignore_ascii_case("host")) {
        return Err(denied("'Host' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let unknown = || IdentityError {
        kind: ErrorKind::InvalidAccessKeyId,
        message: "The security token included in the request is invalid.".to_owned(),
    };
    let secret = front.identities.secret_of(credential.access_key_id).ok_or_else(unknown)?;
    let headers = signed_headers(&head.headers, &authorization.signed_headers).ok_or_else(malformed)?;
    let query: Vec<(String, String)> = Vec::new();
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(denied("The parameters of a call are in its form, not in its URL"));
    }
    let hash = hex::encode(Sha256Hasher::of(body));
    let payload = Payload::SingleChunk(&hash);
    let canonical = s3s_sigv4::create_canonical_request(head.method.as_str(), "/", &query, &headers, payload);
    let to_sign = s3s_sigv4::create_string_to_sign(&canonical, &date, credential.aws_region, credential.aws_service);
    let computed =
        s3s_sigv4::calculate_signature(&to_sign, secret.expose(), &date, credential.aws_region, credential.aws_service);
    if !same(computed.as_bytes(), authorization.signature.as_bytes()) {
        return Err(IdentityError {
            kind: ErrorKind::SignatureDoesNotMatch,
            message: "The request signature we calculated does not match the signature you provided. Check your AWS \
                      Secret Access Key and signing method."
                .to_owned(),
        });
    }
    let principal = front.identities.principal(credential.access_key_id, text("x-amz-security-token"), now)?;
    Ok((credential.access_key_id.to_owned(), principal))
}

fn signed_headers<'h>(headers: &'h HeaderMap, names: &[&'h str]) -> Option<Vec<(&'h str, &'h str)>> {
    names.iter().map(|name| Some((*name, headers.get(*name)?.to_str().ok()?))).collect()
}

/// Compares without telling by its time where two differ.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
