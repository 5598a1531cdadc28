//! The gate: which operation is this request, and do we understand all of it?
//!
//! Peers have lost data by executing `PUT /key?renameObject` as a PutObject of an empty body. Here a request is one of
//! *our* operations only when every query key and every `x-amz-*` header in it is on that operation's list ([`tables`]); the
//! rest is refused by name with 501. The gate is a pure function of the request's head.
//!
//! It runs before authentication, but what it refuses is answered after it (see [`crate::auth`]), but for
//! [`Verdict::Early`]: answers that say nothing about what is stored.

mod tables;
#[cfg(test)]
mod tests;

use http::request::Parts;
use http::{HeaderMap, Method};
use penstock_proto::limits;
use percent_encoding::percent_decode_str;

pub(crate) use self::tables::Op;
use self::tables::{HEADERS, On, Rule, SUB_RESOURCES};
use crate::failure::Failure;
use crate::options::FrontOptions;
use crate::wire;

/// Query keys that authentication reads. Exact: s3s compares them so.
const AUTH_QUERY_KEYS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];
/// Most query parameters of one request.
const QUERY_PARAMETERS_MAX: usize = 64;

/// What the path and the `Host` name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The service.
    Root,
    /// A bucket.
    Bucket(String),
    /// An object in a bucket.
    Object(String, String),
}

impl Target {
    /// The bucket, where there is one.
    pub(crate) fn bucket(&self) -> Option<&str> {
        match self {
            Self::Root => None,
            Self::Bucket(bucket) | Self::Object(bucket, _) => Some(bucket),
        }
    }

    /// The key, where there is one.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Object(_, key) => Some(key),
            _ => None,
        }
    }
}

/// The query, decoded, each key at most once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of `key` whatever the case of its letters: SDKs move `x-amz-*` headers into presigned URLs in both.
    pub(crate) fn get_hoisted(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn parse(query: &str) -> Result<Self, Failure> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (form_decoded(key)?, form_decoded(value)?);
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(Failure::argument(&key, &value, "A query parameter may be given only once."));
            }
            if pairs.len() == QUERY_PARAMETERS_MAX {
                return Err(Failure::request(format!("More than {QUERY_PARAMETERS_MAX} query parameters.")));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }
}

fn form_decoded(text: &str) -> Result<String, Failure> {
    decoded(&text.replace('+', " "))
}

fn decoded(text: &str) -> Result<String, Failure> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| Failure::bad("InvalidURI", "Couldn't parse the specified URI."))
}

/// What the gate says.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// One of our operations, understood in full.
    Serve(Op),
    /// Refused, but only those who can sign hear why.
    Refuse(Failure),
    /// A browser asks whether it may ask: answered by the bucket's CORS rules, unsigned.
    Preflight,
    /// Answered at once: it is the same for everybody and needs neither key nor body.
    Early(Failure),
    /// An upload by HTML form (PostObject): who signed it, and for what, stands in its body.
    Form,
}

/// A request's head, understood.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    /// What it names.
    pub(crate) target: Target,
    /// Its query.
    pub(crate) query: Query,
    /// What is to be done with it.
    pub(crate) verdict: Verdict,
}

/// Decides about the head of a request.
pub(crate) fn decide(parts: &Parts, options: &FrontOptions) -> Decision {
    let target = match target(parts, options) {
        Ok(target) => target,
        Err(failure) => {
            return Decision { target: Target::Root, query: Query::default(), verdict: Verdict::Early(failure) };
        }
    };
    let query = match Query::parse(parts.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(failure) => return Decision { target, query: Query::default(), verdict: Verdict::Early(failure) },
    };
    let verdict = verdict(parts, &target, &query, options);
    Decision { target, query, verdict }
}

fn verdict(parts: &Parts, target: &Target, query: &Query, options: &FrontOptions) -> Verdict {
    if let Some(early) = early(parts, target) {
        return Verdict::Early(early);
    }
    if parts.method == Method::OPTIONS {
        return Verdict::Preflight;
    }
    if parts.method == Method::POST
        && matches!(target, Target::Bucket(_))
        && query.0.is_empty()
        && is_form(&parts.headers)
    {
        return Verdict::Form;
    }
    let op = match operation(&parts.method, target, query, &parts.headers) {
        Ok(op) => op,
        Err(failure) => return Verdict::Refuse(failure),
    };
    let checks = [
        check_query(op, query),
        check_headers(op, &parts.headers, options),
        check_values(op, query, &parts.headers),
        check_key(target),
    ];
    match checks.into_iter().find_map(Result::err) {
        Some(failure) => Verdict::Refuse(failure),
        None => Verdict::Serve(op),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get("content-type").and_then(wire::utf8).is_some_and(|kind| {
        kind.trim_start().get(..19).is_some_and(|start| start.eq_ignore_ascii_case("multipart/form-data"))
    })
}

/// Whether the PutObject that a form asks for is one that is understood in full.
///
/// # Errors
/// As for a PutObject with these headers.
pub(crate) fn check_form(target: &Target, headers: &HeaderMap, options: &FrontOptions) -> Result<(), Failure> {
    check_headers(Op::PutObject, headers, options)?;
    check_values(Op::PutObject, &Query::default(), headers)?;
    check_key(target)
}

/// What needs no signature to be answered.
fn early(parts: &Parts, target: &Target) -> Option<Failure> {
    let head_bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head_bytes > limits::REQUEST_HEAD_BYTES_MAX {
        let mut failure = Failure::bad(
            "RequestHeaderSectionTooLarge",
            "Your request header section exceeds the maximum allowed request header section size.",
        );
        failure.details.push(("MaxSizeAllowed", limits::REQUEST_HEAD_BYTES_MAX.to_string()));
        return Some(failure);
    }
    let known = [Method::OPTIONS, Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE];
    if !known.contains(&parts.method) {
        return Some(not_allowed(&parts.method, target));
    }
    None
}

fn not_allowed(method: &Method, target: &Target) -> Failure {
    let (resource, allow) = match target {
        Target::Root => ("SERVICE", "GET"),
        Target::Bucket(_) => ("BUCKET", "GET, HEAD, PUT, POST, DELETE"),
        Target::Object(..) => ("OBJECT", "GET, HEAD, PUT, POST, DELETE"),
    };
    Failure::method_not_allowed(method.as_str(), resource, allow)
}

/// The bucket that a `Host` names in virtual-host style: what stands before one of the base domains.
pub(crate) fn bucket_of_host(host: &str, base_domains: &[String]) -> Option<String> {
    let host = without_port(host).trim_end_matches('.').to_ascii_lowercase();
    let bucket_before = |domain: &String| {
        let domain = without_port(domain).trim_matches('.').to_ascii_lowercase();
        let bucket = host.strip_suffix(&domain)?.strip_suffix('.')?;
        (!domain.is_empty() && !bucket.is_empty()).then(|| bucket.to_owned())
    };
    if host.parse::<std::net::IpAddr>().is_ok()
        || base_domains.iter().any(|domain| without_port(domain).trim_matches('.').eq_ignore_ascii_case(&host))
    {
        return None;
    }
    // With `localhost` and `s3.localhost` both configured, `b.s3.localhost` is the bucket `b` of the longer one.
    base_domains.iter().filter_map(bucket_before).min_by_key(String::len)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
        }
        _ => host.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(host),
    }
}

fn target(parts: &Parts, options: &FrontOptions) -> Result<Target, Failure> {
    let mut hosts = parts.headers.get_all("host").iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| Failure::request("The Host header is not valid.")));
    let host = host.transpose()?;
    if hosts.next().is_some() {
        return Err(Failure::request("The Host header may be given only once."));
    }
    let Some(path) = parts.uri.path().strip_prefix('/') else {
        return Err(Failure::bad("InvalidURI", "Couldn't parse the specified URI."));
    };
    let path = decoded(path)?;
    if let Some(bucket) = host.and_then(|host| bucket_of_host(host, &options.base_domains)) {
        return Ok(if path.is_empty() { Target::Bucket(bucket) } else { Target::Object(bucket, path) });
    }
    if path.is_empty() {
        return Ok(Target::Root);
    }
    Ok(match path.split_once('/') {
        None => Target::Bucket(path),
        Some((bucket, "")) => Target::Bucket(bucket.to_owned()),
        Some((bucket, key)) => Target::Object(bucket.to_owned(), key.to_owned()),
    })
}

/// The operation that method, target and the telling sub-resources name. Whether the rest of the query belongs to it is
/// [`check_query`]'s question.
fn operation(method: &Method, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Op, Failure> {
    let on = match target {
        Target::Root => None,
        Target::Bucket(_) => Some(On::Bucket),
        Target::Object(..) => Some(On::Object),
    };
    let named =
        SUB_RESOURCES.iter().find(|(of, by, key, _)| Some(*of) == on && *by == method.as_str() && query.has(key));
    if let Some((.., op)) = named {
        return Ok(*op);
    }
    let copies = headers.contains_key("x-amz-copy-source");
    let part = query.has("partNumber") || query.has("uploadId");
    let op = match (target, method.as_str()) {
        (Target::Root, "GET") => Op::ListBuckets,
        (Target::Bucket(_), "GET") => match query.get("list-type") {
            None => Op::ListObjects,
            Some("2") => Op::ListObjectsV2,
            Some(other) => {
                return Err(Failure::argument("list-type", other, "Invalid List Type specified in Request"));
            }
        },
        (Target::Bucket(_), "HEAD") => Op::HeadBucket,
        (Target::Bucket(_), "PUT") => Op::CreateBucket,
        (Target::Bucket(_), "DELETE") => Op::DeleteBucket,
        (Target::Object(..), "GET") if query.has("uploadId") => Op::ListParts,
        (Target::Object(..), "GET") => Op::GetObject,
        (Target::Object(..), "HEAD") => Op::HeadObject,
        (Target::Object(..), "PUT") => match (part, copies) {
            (true, true) => Op::UploadPartCopy,
            (true, false) => Op::UploadPart,
            (false, true) => Op::CopyObject,
            (false, false) => Op::PutObject,
        },
        (Target::Object(..), "DELETE") if query.has("uploadId") => Op::AbortMultipartUpload,
        (Target::Object(..), "DELETE") => Op::DeleteObject,
        (Target::Object(..), "POST") if query.has("uploadId") => Op::CompleteMultipartUpload,
        _ => {
            // A sub-resource that is not ours says more about the request than its method.
            return Err(match query.0.iter().find(|(key, _)| !is_about_the_request_only(key)) {
                Some((key, _)) => Failure::query_not_implemented(key),
                None => not_allowed(method, target),
            });
        }
    };
    Ok(op)
}

/// Query keys that say who sends the request and with what, not what it does.
fn is_about_the_request_only(key: &str) -> bool {
    AUTH_QUERY_KEYS.contains(&key) || key == "x-id" || key.eq_ignore_ascii_case("X-Amz-Content-Sha256")
}

fn check_query(op: Op, query: &Query) -> Result<(), Failure> {
    let presigned = query.has("X-Amz-Signature");
    for (key, value) in &query.0 {
        if op.query_keys().contains(&key.as_str()) || (presigned && AUTH_QUERY_KEYS.contains(&key.as_str())) {
            continue;
        }
        match key.as_str() {
            // SDKs name the operation that they mean; one that we did not recognise is not done as another.
            "x-id" if value == op.name() => continue,
            // Authentication reads it.
            _ if presigned && key.eq_ignore_ascii_case("X-Amz-Security-Token") => continue,
            _ if presigned && key.eq_ignore_ascii_case("X-Amz-Content-Sha256") && value == "UNSIGNED-PAYLOAD" => {
                continue;
            }
            _ if presigned && tables::hoistable(op, key) => continue,
            _ => return Err(Failure::query_not_implemented(key)),
        }
    }
    Ok(())
}

fn check_headers(op: Op, headers: &HeaderMap, options: &FrontOptions) -> Result<(), Failure> {
    // With a token, and somebody who knows what it is, all `x-amz-rdma-*` headers are that one's to understand or refuse.
    let offloaded = !options.dialects.is_empty() && crate::offload::direction(op, headers).is_some();
    if let Some(name) = tables::foreign_rdma(op, headers) {
        return Err(Failure::header_not_implemented(name));
    }
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") {
            if tables::conditional_not_known(op, name) {
                return Err(Failure::header_not_implemented(name));
            }
            continue;
        }
        if name.starts_with("x-amz-meta-") && op.stores_headers() {
            continue;
        }
        if offloaded && name.starts_with("x-amz-rdma-") {
            continue;
        }
        if tables::is_checksum(name) && tables::CHECKSUM.has(op) {
            continue;
        }
        let Some(entry) = HEADERS.iter().find(|entry| entry.name == name && entry.ops.has(op)) else {
            return Err(Failure::header_not_implemented(name));
        };
        let text = wire::utf8(value).map(str::trim);
        match entry.rule {
            Rule::Read | Rule::Ignored => {}
            Rule::OneOf(allowed) => {
                if !text.is_some_and(|text| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(text))) {
                    return Err(Failure::header_not_implemented(name));
                }
            }
        }
    }
    Ok(())
}

/// Values that are wrong for every object, so that nothing need be read to say so.
fn check_values(op: Op, query: &Query, headers: &HeaderMap) -> Result<(), Failure> {
    for key in ["max-keys", "max-uploads", "max-parts", "part-number-marker"] {
        if let Some(value) = query.get(key)
            && wire::number(value).is_none_or(|number| number > i32::MAX as u64)
        {
            return Err(Failure::argument(
                key,
                value,
                format!("Provided {key} not an integer or within integer range"),
            ));
        }
    }
    if let Some(value) = query.get("max-buckets")
        && wire::number(value).is_none_or(|number| !(1..=limits::BUCKETS_MAX as u64).contains(&number))
    {
        let message = format!("max-buckets must be an integer between 1 and {}.", limits::BUCKETS_MAX);
        return Err(Failure::argument("max-buckets", value, message));
    }
    if let Some(value) = query.get("partNumber")
        && wire::number(value).is_none_or(|number| !(1..=u64::from(limits::PART_NUMBER_MAX)).contains(&number))
    {
        let message = format!("Part number must be an integer between 1 and {}, inclusive", limits::PART_NUMBER_MAX);
        return Err(Failure::argument("partNumber", value, message));
    }
    for key in ["partNumber", "uploadId"] {
        if matches!(op, Op::UploadPart | Op::UploadPartCopy) && !query.has(key) {
            return Err(Failure::argument(key, "", format!("This operation needs the query parameter {key}.")));
        }
    }
    if let Some(value) = query.get("encoding-type")
        && value != "url"
    {
        return Err(Failure::argument("encoding-type", value, "Invalid Encoding Method specified in Request"));
    }
    if let Some(value) = query.get("fetch-owner")
        && !["true", "false"].contains(&value)
    {
        return Err(Failure::argument("fetch-owner", value, "fetch-owner is true or false."));
    }
    if op.takes_object_body() && headers.contains_key("content-range") {
        return Err(Failure::header_not_implemented("content-range"));
    }
    Ok(())
}

fn check_key(target: &Target) -> Result<(), Failure> {
    let Some(key) = target.key() else { return Ok(()) };
    if key.len() > limits::KEY_BYTES_MAX {
        let mut failure = Failure::bad("KeyTooLongError", "Your key is too long");
        failure.details.push(("Size", key.len().to_string()));
        failure.details.push(("MaxSizeAllowed", limits::KEY_BYTES_MAX.to_string()));
        return Err(failure);
    }
    Ok(())
}
