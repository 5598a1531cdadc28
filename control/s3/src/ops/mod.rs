//! The operations: what a request says becomes the gateway's types, what the gateway answers becomes HTTP.

mod acl;
mod attributes;
mod bucket;
mod copy;
mod delete;
mod digests;
pub(crate) mod encryption;
mod lifecycle;
mod list;
mod lock;
pub(crate) mod logging;
mod multipart;
mod native;
mod notification;
mod object;
mod policy;
mod probes;
pub(crate) mod public;
mod rename;
pub(crate) mod settings;
mod slow;
mod tagging;
mod versions;

use std::sync::Arc;

use http::HeaderMap;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HeaderName,
};
use penstock_gateway::Gateway;
use penstock_gateway::api::{Conditions, EtagCondition, ObjectHeaders, ObjectName, UnixMs};
use penstock_gateway::events::{self, Cause};
use s3s::TrailingHeaders;

use crate::access::{self, Access};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::gate::{Op, Query, Target};
use crate::peer::Peer;
use crate::respond::{self, Answer};
use crate::server::Front;
use crate::streams::Payload;
use crate::wire;

pub(crate) use self::delete::from_xml;
pub(crate) use self::tagging::parse as parse_tagging;

/// An authenticated request that the gate has understood.
pub(crate) struct Call {
    pub(crate) front: Arc<Front>,
    pub(crate) peer: Peer,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    pub(crate) trailers: Option<TrailingHeaders>,
    pub(crate) exchange: Arc<Exchange>,
    /// Who signed it.
    pub(crate) access_key: String,
    /// Who asks, and what is known of the bucket.
    pub(crate) access: Arc<Access>,
}

/// Performs `op`, if the caller may: whatever way a request came, it goes through here.
///
/// # Errors
/// What the client is told.
pub(crate) async fn run(op: Op, mut call: Call) -> Result<Answer, Failure> {
    access::authorize(op, &mut call).await?;
    let access = call.access.clone();
    // Events of what it does say whose doing it was.
    let cause = if op.only_reads() { Cause::default() } else { call.cause() };
    events::caused(cause, perform(op, call)).await.map_err(|failure| match failure.code.as_ref() {
        // Who may not list is not told what is not there.
        "NoSuchKey" | "NoSuchVersion" if op.only_reads() && !access.may_list() => {
            Failure::access_denied("Access Denied")
        }
        _ => failure,
    })
}

async fn perform(op: Op, mut call: Call) -> Result<Answer, Failure> {
    acl::check(op, &call)?;
    if matches!(op, Op::GetObject | Op::PutObject | Op::UploadPart) {
        match native::take(op, call).await? {
            Ok(answer) => return Ok(answer),
            Err(plain) => call = *plain,
        }
    }
    match op {
        Op::ListBuckets => bucket::list(call).await,
        Op::CreateBucket => bucket::create(call).await,
        Op::HeadBucket => bucket::head(call).await,
        Op::DeleteBucket => bucket::delete(call).await,
        Op::GetBucketLocation => bucket::location(call).await,
        Op::GetBucketVersioning => versions::get(call).await,
        Op::PutBucketVersioning => versions::put(call).await,
        Op::ListObjectVersions => versions::list(call).await,
        Op::ListObjects => list::v1(call).await,
        Op::ListObjectsV2 => list::v2(call).await,
        Op::DeleteObjects => delete::many(call).await,
        Op::DeleteObject => delete::one(call).await,
        Op::PutObject => object::put(call).await,
        Op::GetObject => object::get(call).await,
        Op::HeadObject => object::head(call).await,
        Op::CopyObject => copy::object(call).await,
        Op::RenameObject => rename::object(call).await,
        Op::UploadPartCopy => copy::part(call).await,
        Op::CreateMultipartUpload => multipart::create(call).await,
        Op::UploadPart => multipart::upload_part(call).await,
        Op::CompleteMultipartUpload => multipart::complete(call).await,
        Op::AbortMultipartUpload => multipart::abort(call).await,
        Op::ListParts => multipart::list_parts(call).await,
        Op::ListMultipartUploads => multipart::list_uploads(call).await,
        Op::GetBucketLifecycleConfiguration => lifecycle::get(call).await,
        Op::PutBucketLifecycleConfiguration => lifecycle::put(call).await,
        Op::DeleteBucketLifecycle => settings::delete_kind(call, penstock_gateway::api::BucketSetting::Lifecycle).await,
        Op::GetObjectTagging => tagging::get_of_object(call).await,
        Op::PutObjectTagging => tagging::put_of_object(call).await,
        Op::DeleteObjectTagging => tagging::delete_of_object(call).await,
        Op::GetObjectAttributes => attributes::get(call).await,
        Op::GetObjectLockConfiguration => lock::get_configuration(call).await,
        Op::PutObjectLockConfiguration => lock::put_configuration(call).await,
        Op::GetObjectRetention => lock::get_retention(call).await,
        Op::PutObjectRetention => lock::put_retention(call).await,
        Op::GetObjectLegalHold => lock::get_legal_hold(call).await,
        Op::PutObjectLegalHold => lock::put_legal_hold(call).await,
        Op::GetBucketTagging => settings::get(call, &tagging::OF_BUCKET).await,
        Op::PutBucketTagging => settings::put(call, &tagging::OF_BUCKET).await,
        Op::GetBucketPolicy => policy::get(call).await,
        Op::PutBucketPolicy => policy::put(call).await,
        Op::DeleteBucketPolicy => settings::delete(call, &policy::DOCUMENT).await,
        Op::GetBucketPolicyStatus => policy::status(call),
        Op::GetPublicAccessBlock => settings::get(call, &public::BLOCK).await,
        Op::PutPublicAccessBlock => settings::put(call, &public::BLOCK).await,
        Op::DeletePublicAccessBlock => settings::delete(call, &public::BLOCK).await,
        Op::GetBucketOwnershipControls => public::get_ownership(),
        Op::PutBucketOwnershipControls => public::put_ownership(call).await,
        Op::GetBucketAcl => acl::of_bucket(&call),
        Op::GetObjectAcl => acl::of_object(call).await,
        Op::PutBucketAcl | Op::PutObjectAcl => acl::put(call).await,
        Op::GetBucketCors => settings::get(call, &probes::CORS).await,
        Op::PutBucketCors => settings::put(call, &probes::CORS).await,
        Op::DeleteBucketCors => settings::delete(call, &probes::CORS).await,
        Op::GetBucketEncryption => settings::get(call, &encryption::OF_BUCKET).await,
        Op::PutBucketEncryption => settings::put(call, &encryption::OF_BUCKET).await,
        Op::DeleteBucketEncryption => settings::delete(call, &encryption::OF_BUCKET).await,
        Op::UpdateObjectEncryption => encryption::update(call).await,
        Op::GetBucketReplication => Err(probes::no_replication()),
        Op::GetBucketAccelerateConfiguration => Ok(probes::accelerate()),
        Op::GetBucketRequestPayment => Ok(probes::request_payment()),
        Op::GetBucketNotificationConfiguration => notification::get(call).await,
        Op::PutBucketNotificationConfiguration => notification::put(call).await,
        Op::GetBucketLogging => logging::get(call).await,
        Op::PutBucketLogging => logging::put(call).await,
        Op::DeleteBucketTagging => settings::delete(call, &tagging::OF_BUCKET).await,
    }
}

impl Call {
    /// Whose doing this request is.
    fn cause(&self) -> Cause {
        let principal = self.access.principal.as_ref();
        Cause {
            principal: principal.map_or_else(|| "Anonymous".to_owned(), |caller| format!("AWS:{}", caller.user_id())),
            source_ip: self.peer.ip().to_string(),
            request_id: self.exchange.id.clone(),
            ..events::cause()
        }
    }

    fn gateway(&self) -> &Gateway {
        &self.front.gateway
    }

    /// The bucket. The gate gives operations only targets that have one.
    fn bucket(&self) -> String {
        self.target.bucket().unwrap_or_default().to_owned()
    }

    fn key(&self) -> String {
        self.target.key().unwrap_or_default().to_owned()
    }

    /// `versionId`, if the request names one.
    fn version_id(&self) -> Option<String> {
        self.query.get("versionId").map(str::to_owned)
    }

    /// The object, or the version of one, that the request is about.
    pub(crate) fn object_name(&self) -> ObjectName {
        ObjectName { bucket: self.bucket(), key: self.key(), version_id: self.version_id() }
    }

    /// A query value; empty when absent.
    fn text(&self, key: &str) -> String {
        self.query.get(key).unwrap_or_default().to_owned()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>, Failure> {
        wire::header(&self.headers, name)
    }

    /// A header's value, or that of the query parameter into which presigning SDKs move it.
    fn header_or_query(&self, name: &str) -> Result<Option<&str>, Failure> {
        Ok(self.header(name)?.or_else(|| self.query.get_hoisted(name)))
    }

    /// A number of the query. The gate has checked that it is one and in range.
    fn number(&self, key: &str) -> Option<u64> {
        self.query.get(key).and_then(wire::number)
    }

    /// `partNumber`, from 1.
    fn part_number(&self) -> Option<u32> {
        self.number("partNumber").and_then(|number| u32::try_from(number).ok())
    }

    /// The conditions that headers with this prefix state (`x-amz-copy-source-` or none).
    fn conditions(&self, prefix: &str) -> Result<Conditions, Failure> {
        let etags = |name: &str| -> Result<Option<EtagCondition>, Failure> {
            let name = format!("{prefix}{name}");
            let Some(text) = self.header(&name)? else { return Ok(None) };
            let condition = wire::etag_condition(text);
            condition.map(Some).ok_or_else(|| Failure::argument(&name, text, format!("{name} is not a list of ETags.")))
        };
        // A date that is not one is as if it were not there (RFC 9110, 13.1.3).
        let date = |name: &str| -> Result<Option<UnixMs>, Failure> {
            Ok(self.header(&format!("{prefix}{name}"))?.and_then(wire::http_date))
        };
        Ok(Conditions {
            if_match: etags("if-match")?,
            if_none_match: etags("if-none-match")?,
            if_modified_since: date("if-modified-since")?,
            if_unmodified_since: date("if-unmodified-since")?,
            if_match_size: None,
            if_match_last_modified: None,
        })
    }

    /// The conditions under which an object may be written: those on ETags alone.
    fn write_conditions(&self) -> Result<Conditions, Failure> {
        let conditions = self.conditions("")?;
        Ok(Conditions { if_modified_since: None, if_unmodified_since: None, ..conditions })
    }

    fn storage_class(&self) -> Result<String, Failure> {
        Ok(self.header("x-amz-storage-class")?.unwrap_or("STANDARD").to_owned())
    }

    /// The headers that are stored with an object.
    fn object_headers(&self) -> Result<ObjectHeaders, Failure> {
        let stored = |name: HeaderName| -> Result<Option<String>, Failure> {
            Ok(self.header(name.as_str())?.map(str::to_owned))
        };
        let mut user_metadata = Vec::new();
        for name in self.headers.keys() {
            let Some(short) = name.as_str().strip_prefix("x-amz-meta-") else { continue };
            // Several headers of one name are one with commas, as HTTP has it and AWS does.
            let mut values = Vec::new();
            for value in self.headers.get_all(name) {
                let text = wire::utf8(value)
                    .ok_or_else(|| Failure::argument(name.as_str(), "", "Metadata values must be valid UTF-8."))?;
                values.push(text.trim());
            }
            user_metadata.push((short.to_owned(), values.join(",")));
        }
        user_metadata.sort();
        Ok(ObjectHeaders {
            content_type: stored(CONTENT_TYPE)?,
            content_encoding: stored(CONTENT_ENCODING)?.and_then(|text| without_aws_chunked(&text)),
            content_disposition: stored(CONTENT_DISPOSITION)?,
            content_language: stored(CONTENT_LANGUAGE)?,
            cache_control: stored(CACHE_CONTROL)?,
            expires: stored(EXPIRES)?,
            user_metadata,
        })
    }
}

/// A `Content-Encoding` without the one that is S3's framing and not the object's.
fn without_aws_chunked(text: &str) -> Option<String> {
    let kept: Vec<&str> =
        text.split(',').map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("aws-chunked")).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// An ETag in its quotes.
fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// `x-amz-version-id`, where there is one to tell.
fn set_version(headers: &mut HeaderMap, version_id: Option<&str>) {
    if let Some(id) = version_id {
        set(headers, respond::name("x-amz-version-id"), id);
    }
}

/// Sets a header, unless its value can't be one.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Some(value) = wire::text_header(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn aws_chunked_is_not_the_objects_encoding() {
        let cases = [
            ("aws-chunked", None),
            ("aws-chunked,gzip", Some("gzip")),
            ("gzip, AWS-chunked", Some("gzip")),
            ("gzip, br", Some("gzip,br")),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(super::without_aws_chunked(text).as_deref(), want, "{text}");
        }
    }
}
