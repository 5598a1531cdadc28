//! What a request can fail with: an S3 error code, its status, and a sentence. Everything that fails becomes one of these
//! before it becomes XML.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_RANGE, ETAG, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use penstock_gateway::error::{Error, ErrorKind};
use penstock_proto::limits;

use crate::wire;

/// An S3 error on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// `Code`.
    pub(crate) code: Cow<'static, str>,
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// `Message`.
    pub(crate) message: Cow<'static, str>,
    /// Headers that this error carries.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// More elements of the XML, in order.
    pub(crate) details: Vec<(&'static str, String)>,
}

impl Failure {
    /// A failure of `code` that is sent as `status`.
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code: code.into(), status, message: message.into(), headers: Vec::new(), details: Vec::new() }
    }

    /// 400 with this code.
    pub(crate) fn bad(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 InvalidArgument that names the argument and its value.
    pub(crate) fn argument(name: &str, value: &str, message: impl Into<Cow<'static, str>>) -> Self {
        let mut failure = Self::bad("InvalidArgument", message);
        failure.details.push(("ArgumentName", name.to_owned()));
        failure.details.push(("ArgumentValue", shortened(value)));
        failure
    }

    /// 400 InvalidRequest.
    pub(crate) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("InvalidRequest", message)
    }

    /// 400 MalformedXML.
    pub(crate) fn malformed_xml() -> Self {
        Self::bad(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        )
    }

    /// 501 for a header that asks for what is not built.
    pub(crate) fn header_not_implemented(name: &str) -> Self {
        let mut failure = Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("A header you provided implies functionality that is not implemented: {}", shortened(name)),
        );
        failure.details.push(("Header", shortened(name)));
        if name.contains("rdma") {
            // How clients of S3 over RDMA are told to use HTTP, by a server that does not speak their dialect.
            let told = [("x-amz-rdma-reply", "501"), ("x-amz-rdma-protocol-status", "unsupported")];
            failure
                .headers
                .extend(told.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
        }
        failure
    }

    /// 501 for a query key (sub-resource or parameter) that is not built.
    pub(crate) fn query_not_implemented(name: &str) -> Self {
        let mut failure = Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!(
                "A sub-resource or query parameter you provided implies functionality that is not implemented: {}",
                shortened(name)
            ),
        );
        failure.details.push(("QueryParameter", shortened(name)));
        failure
    }

    /// 405.
    pub(crate) fn method_not_allowed(method: &str, resource: &'static str, allow: &'static str) -> Self {
        let mut failure = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        );
        failure.details.push(("Method", shortened(method)));
        failure.details.push(("ResourceType", resource.to_owned()));
        failure.headers.push((ALLOW, HeaderValue::from_static(allow)));
        failure
    }

    /// 403 AccessDenied.
    pub(crate) fn access_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", message)
    }

    /// 500: a state that should not be.
    pub(crate) fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 503 SlowDown with Retry-After.
    pub(crate) fn slow_down() -> Self {
        Error::new(ErrorKind::SlowDown, "Please reduce your request rate.").into()
    }

    /// Adds what a 304 says about the unchanged object.
    pub(crate) fn with_validators(mut self, etag: &str, modified: &str) -> Self {
        let values = [(ETAG, format!("\"{etag}\"")), (LAST_MODIFIED, modified.to_owned())];
        self.headers.extend(
            values.into_iter().filter_map(|(name, value)| HeaderValue::try_from(value).ok().map(|value| (name, value))),
        );
        self
    }

    /// Adds what a 416 says about the object's size.
    pub(crate) fn with_actual_size(mut self, size_bytes: u64) -> Self {
        if let Ok(value) = HeaderValue::try_from(format!("bytes */{size_bytes}")) {
            self.headers.push((CONTENT_RANGE, value));
        }
        self.details.push(("ActualObjectSize", size_bytes.to_string()));
        self
    }
}

/// At most as much of a client's text as an error message needs, without control characters.
fn shortened(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 128;
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect()
}

/// The code and status that AWS (or, for a full disk, HTTP) has for each kind.
fn code_of(kind: ErrorKind) -> (&'static str, u16) {
    use ErrorKind as K;
    match kind {
        K::NoSuchBucket => ("NoSuchBucket", 404),
        K::NoSuchKey => ("NoSuchKey", 404),
        K::NoSuchVersion => ("NoSuchVersion", 404),
        K::InvalidStorageClass => ("InvalidStorageClass", 400),
        K::MethodNotAllowed => ("MethodNotAllowed", 405),
        K::AccessDenied => ("AccessDenied", 403),
        K::InvalidBucketState => ("InvalidBucketState", 409),
        K::ObjectLockConfigurationNotFoundError => ("ObjectLockConfigurationNotFoundError", 404),
        K::InvalidRetentionPeriod => ("InvalidRetentionPeriod", 400),
        K::NoSuchUpload => ("NoSuchUpload", 404),
        K::BucketAlreadyOwnedByYou => ("BucketAlreadyOwnedByYou", 409),
        K::BucketAlreadyExists => ("BucketAlreadyExists", 409),
        K::BucketNotEmpty => ("BucketNotEmpty", 409),
        K::TooManyBuckets => ("TooManyBuckets", 400),
        K::InvalidBucketName => ("InvalidBucketName", 400),
        K::KeyTooLongError => ("KeyTooLongError", 400),
        K::PreconditionFailed => ("PreconditionFailed", 412),
        K::NotModified => ("NotModified", 304),
        K::ConditionalRequestConflict => ("ConditionalRequestConflict", 409),
        K::InvalidRange => ("InvalidRange", 416),
        K::InvalidPartNumber => ("InvalidPartNumber", 416),
        K::BadDigest => ("BadDigest", 400),
        K::ContentSha256Mismatch => ("XAmzContentSHA256Mismatch", 400),
        K::InvalidDigest => ("InvalidDigest", 400),
        K::IncompleteBody => ("IncompleteBody", 400),
        K::EntityTooLarge => ("EntityTooLarge", 400),
        K::EntityTooSmall => ("EntityTooSmall", 400),
        K::InvalidPart => ("InvalidPart", 400),
        K::InvalidPartOrder => ("InvalidPartOrder", 400),
        K::MetadataTooLarge => ("MetadataTooLarge", 400),
        K::MalformedXml => ("MalformedXML", 400),
        K::InvalidTag => ("InvalidTag", 400),
        K::InvalidArgument => ("InvalidArgument", 400),
        K::InvalidRequest => ("InvalidRequest", 400),
        K::RequestTimeout => ("RequestTimeout", 400),
        K::SlowDown => ("SlowDown", 503),
        K::InsufficientStorage => ("InsufficientStorage", 507),
        K::ServiceUnavailable => ("ServiceUnavailable", 503),
        K::IdempotencyParameterMismatch => ("IdempotencyParameterMismatch", 400),
        K::KmsNotFound => ("KMS.NotFoundException", 400),
        K::KmsDisabled => ("KMS.DisabledException", 400),
        K::NotImplemented => ("NotImplemented", 501),
        K::InternalError => ("InternalError", 500),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, status) = code_of(error.kind);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut failure = Self::new(status, code, error.message);
        if let Some(marker) = &error.marker {
            failure.headers.push((HeaderName::from_static("x-amz-delete-marker"), HeaderValue::from_static("true")));
            let texts = [
                (HeaderName::from_static("x-amz-version-id"), marker.version_id.clone()),
                (LAST_MODIFIED, wire::format_http_date(marker.modified_unix_ms)),
            ];
            let values = texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?)));
            failure.headers.extend(values);
            if error.kind == ErrorKind::MethodNotAllowed {
                failure.details.push(("ResourceType", "DeleteMarker".to_owned()));
                failure.headers.push((ALLOW, HeaderValue::from_static("DELETE")));
            }
        }
        if status.is_server_error() && matches!(status.as_u16(), 503 | 507) {
            failure.headers.push((RETRY_AFTER, HeaderValue::from(limits::RETRY_AFTER.as_secs().max(1))));
        }
        failure
    }
}
