//! Authentication, by s3s.
//!
//! s3s verifies SigV4 (in headers and in presigned URLs), takes `aws-chunked` bodies apart, checks chunk signatures and payload
//! hashes, and parses trailers. It is used for that alone: every request is a "custom route" to it, which it calls after it
//! has verified the signature and found one. Its router, parsers and serialiser are not used, because ours must be
//! stricter (the gate) and, in places, laxer (lists of ETags, ranges that AWS ignores, keys with control characters).
//!
//! The one check that s3s would do in our way is the hash of a signed payload, one body at a time: for a PUT whose
//! `x-amz-content-sha256` is a hash, s3s is given a stand-in of the body, and the body comes back with the hash that it
//! must have ([`crate::streams::Payload`]), to be verified by whoever reads it; object data, with the bodies of other
//! requests in SIMD lanes.
//!
//! s3s accepts everything when it has no credentials to check against: [`Authenticator::new`] always gives it some, and a
//! request counts as somebody's only when the route was called *with* credentials. Without, it is a stranger's, who may do
//! what policies give to everybody; whatever else s3s may do is a refusal.
//!
//! SigV2 is refused, as AWS does for all buckets made since 2020. boto3 signs presigned URLs so unless it is told
//! `signature_version="s3v4"` or another region than us-east-1.
//!
//! s3s logs every refusal as an error, and computed signatures at its debug level: run it with `s3s=off` in the log filter.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, StatusCode, Uri};
use penstock_identity::Identities;
use penstock_proto::limits;
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::route::S3Route;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders};

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::options::FrontOptions;
use crate::streams::{Payload, RequestBody, StandIn};

/// Signed chunks are held in memory until their signature is verified: so much of one, at most. The SDKs send 64 to 128 KiB.
const SIGNED_CHUNK_BYTES_MAX: usize = 16 << 20;
/// Longest life of a presigned URL: seven days, as S3 has it.
const PRESIGNED_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// A request whose signature is good.
pub(crate) struct Authenticated {
    /// Who signed it; empty when nobody did.
    pub(crate) access_key: String,
    /// Its headers; `Content-Length` is that of the decoded body.
    pub(crate) headers: HeaderMap,
    /// Its body: decoded, and verified as it is read to its end, unless [`Payload`] says otherwise.
    pub(crate) body: Payload,
    /// What comes after the body, once that has been read; only in `aws-chunked` bodies.
    pub(crate) trailers: Option<TrailingHeaders>,
}

/// Checks signatures.
pub(crate) struct Authenticator {
    service: S3Service,
}

impl Authenticator {
    pub(crate) fn new(identities: Arc<Identities>, options: &FrontOptions) -> Result<Self, String> {
        let mut config = S3Config::default();
        config.aws_chunked_stream_max_chunk_size = SIGNED_CHUNK_BYTES_MAX;
        config.presigned_url_max_skew_time_secs =
            u32::try_from(limits::CLOCK_SKEW_MAX.as_secs()).map_err(|_| "the clock skew is out of range".to_owned())?;
        config.presigned_url_max_expires_secs = PRESIGNED_SECONDS_MAX;
        config.sig_v4_allowed_services = vec!["s3".to_owned()];
        config.enable_sig_v2 = false;
        // The gate knows the operation; s3s's own routing is never asked, and bodies are bounded where they are read.
        config.operation_id_routing = false;
        config.custom_route_max_body_size = None;
        if options.enforce_region {
            let region = s3s::region::Region::new(options.region.clone().into_boxed_str());
            config.expected_region = Some(region.map_err(|error| format!("region {:?}: {error}", options.region))?);
        }
        let mut builder = S3ServiceBuilder::new(Nothing);
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder.set_auth(Lookup(identities));
        builder.set_route(Admission);
        Ok(Self { service: builder.build() })
    }

    /// Verifies a request's signature. Its body is not read.
    ///
    /// # Errors
    /// What AWS says to such a signature, or to none.
    pub(crate) async fn authenticate(
        &self,
        head: http::request::Parts,
        body: RequestBody,
        exchange: &Arc<Exchange>,
    ) -> Result<Authenticated, Failure> {
        let signed_hash = signed_hash(&head);
        let (kept, shown) = match signed_hash {
            Some(_) => {
                let stand_in = StandIn::of(&body);
                (Some(body), Body::http_body_unsync(stand_in))
            }
            None => (None, Body::http_body_unsync(body)),
        };
        let mut request = http::Request::from_parts(head, shown);
        request.extensions_mut().insert(exchange.clone());
        let response = self.service.call(request).await.map_err(|error| {
            tracing::error!(%error, request_id = exchange.id, "authentication failed to answer");
            Failure::internal("We encountered an internal error. Please try again.")
        })?;
        match exchange.take_authenticated() {
            Some(mut authenticated) => {
                if let Some(body) = kept {
                    authenticated.body = Payload::to_be_verified(Body::http_body_unsync(body), signed_hash);
                }
                Ok(authenticated)
            }
            None => Err(refusal(response.status(), response.body().bytes().as_deref().unwrap_or_default())),
        }
    }
}

/// The hash that the body of this request must have, where that is left to us: of a PUT, because s3s itself may read
/// the bodies of others.
fn signed_hash(head: &http::request::Parts) -> Option<[u8; 32]> {
    if head.method != Method::PUT {
        return None;
    }
    let mut values = head.headers.get_all("x-amz-content-sha256").iter();
    let text = values.next()?.as_bytes();
    let mut hash = [0; 32];
    // What is not exactly one hash in lower case is for s3s to take or refuse.
    let ours = values.next().is_none() && !text.iter().any(u8::is_ascii_uppercase);
    (ours && hex::decode_to_slice(text, &mut hash).is_ok()).then_some(hash)
}

/// s3s needs operations; it has none: each of them answers NotImplemented.
struct Nothing;

impl s3s::S3 for Nothing {}

struct Lookup(Arc<Identities>);

#[async_trait::async_trait]
impl S3Auth for Lookup {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.secret_of(access_key) {
            Some(secret) => Ok(SecretKey::from(secret.expose())),
            None => Err(s3s::S3Error::with_message(
                S3ErrorCode::InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records.",
            )),
        }
    }
}

/// The route that is every request's: it notes who signed, and takes the body.
struct Admission;

#[async_trait::async_trait]
impl S3Route for Admission {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, _: &mut Extensions) -> bool {
        true
    }

    async fn check_access(&self, _: &mut S3Request<Body>) -> S3Result<()> {
        // Whoever gets here has signed well, or has not signed: what they may do is decided in `crate::access`.
        Ok(())
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let denied = || s3s::S3Error::with_message(S3ErrorCode::AccessDenied, "Access Denied");
        let access_key = request.credentials.map(|credentials| credentials.access_key);
        if access_key.is_none() && looks_signed(&request.headers, &request.uri) {
            // s3s saw no signature where something like one is: that is nobody's request, signed or not.
            return Err(denied());
        }
        let exchange = request.extensions.get::<Arc<Exchange>>().cloned().ok_or_else(denied)?;
        exchange.admit(Authenticated {
            access_key: access_key.unwrap_or_default(),
            headers: request.headers,
            body: Payload::verified_by_s3s(request.input),
            trailers: request.trailing_headers,
        });
        Ok(S3Response::new(Body::empty()))
    }
}

/// Whether a request has anything of a signature, or a body in the framing of signed chunks.
fn looks_signed(headers: &HeaderMap, uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    let signed = |pair: &str| {
        let key = pair.split('=').next().unwrap_or_default();
        ["x-amz-signature", "x-amz-credential", "x-amz-security-token", "signature", "awsaccesskeyid"]
            .iter()
            .any(|known| key.eq_ignore_ascii_case(known))
    };
    let framed = headers.get("x-amz-content-sha256").is_some_and(|value| value.as_bytes().starts_with(b"STREAMING-"));
    headers.contains_key("authorization")
        || headers.contains_key("x-amz-security-token")
        || framed
        || query.split('&').any(signed)
}

/// s3s's error document (`<Code>`, `<Message>`) in AWS's words.
fn refusal(status: StatusCode, document: &[u8]) -> Failure {
    if status.is_success() {
        // Not admitted and no error: never served.
        return Failure::access_denied("Access Denied");
    }
    let document = std::str::from_utf8(document).unwrap_or_default();
    let code = element(document, "Code");
    let message = element(document, "Message").unwrap_or_default();
    let Some(code) = code else {
        // Answers to HEAD have no document; the status says it all.
        return Failure::new(status, if status == StatusCode::FORBIDDEN { "AccessDenied" } else { "BadRequest" }, "");
    };
    let unsupported = || {
        Failure::request("The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
    };
    match code.as_str() {
        "AccessDenied" if message.contains("Signature Version 2") => unsupported(),
        "NotImplemented" if message.contains("lgorithm other than") => unsupported(),
        "NotImplemented" if message.contains("in credential scope") => Failure::bad(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; incorrect service. This endpoint belongs to \"s3\".",
        ),
        "InvalidRequest" if message.contains("invalid header: authorization") => Failure::bad(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the authorization header requires three components: Credential, \
             SignedHeaders, and Signature.",
        ),
        "InvalidRequest" if message.contains("x-amz-date") => {
            Failure::access_denied("AWS authentication requires a valid Date or x-amz-date header")
        }
        "InvalidRequest" if message.contains("missing header: x-amz-content-sha256") => {
            Failure::request("Missing required header for this request: x-amz-content-sha256")
        }
        "SignatureDoesNotMatch" if message.contains("invalid header: x-amz-content-sha256") => Failure::bad(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
             STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
        ),
        "SignatureDoesNotMatch" => Failure::new(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing \
             method.",
        ),
        "RequestTimeTooSkewed" => {
            let mut failure = Failure::new(
                StatusCode::FORBIDDEN,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            );
            failure.details.push(("MaxAllowedSkewMilliseconds", limits::CLOCK_SKEW_MAX.as_millis().to_string()));
            failure
        }
        _ => Failure::new(status, code, message),
    }
}

/// The text of the first element of this name, unescaped as far as s3s escapes.
fn element(document: &str, name: &str) -> Option<String> {
    let start = document.find(&format!("<{name}>"))? + name.len() + 2;
    let text = document.get(start..)?;
    let text = text.get(..text.find(&format!("</{name}>"))?)?;
    Some(
        text.replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}
