//! PutBucketLogging and GetBucketLogging: where a bucket's access log goes. [`crate::delivery`] brings it there.

use http::StatusCode;
use penstock_gateway::api::BucketSetting;
use penstock_gateway::error::ErrorKind;
use s3s::dto;
use serde::{Deserialize, Serialize};

use super::Call;
use super::delete::from_xml;
use super::settings::unreadable;
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::xml::Xml;

/// Longest prefix of delivered logs: a key has room for the rest.
const PREFIX_BYTES_MAX: usize = 512;

/// Where a bucket's log goes, stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoggingTarget {
    /// To which bucket.
    pub(crate) bucket: String,
    /// Keys begin so.
    pub(crate) prefix: String,
    /// How they go on.
    pub(crate) partitioned: Option<DateSource>,
    /// Whether the document named the simple format.
    simple: bool,
}

/// Which time the dates in partitioned keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum DateSource {
    /// When the log is delivered.
    DeliveryTime,
    /// The day of the requests.
    EventTime,
}

impl LoggingTarget {
    /// What was stored.
    ///
    /// # Errors
    /// InternalError for what can't be read.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// The target that a document names; none when it turns logging off.
    fn parse(body: &[u8]) -> Result<Option<Self>, Failure> {
        let document: dto::BucketLoggingStatus = from_xml(body)?;
        let Some(enabled) = document.logging_enabled else { return Ok(None) };
        if enabled.target_grants.is_some_and(|grants| !grants.is_empty()) {
            return Err(Failure::bad("AccessControlListNotSupported", "The bucket does not allow ACLs"));
        }
        if enabled.target_prefix.len() > PREFIX_BYTES_MAX {
            let message = format!("TargetPrefix has at most {PREFIX_BYTES_MAX} bytes.");
            return Err(Failure::argument("TargetPrefix", "", message));
        }
        let (mut partitioned, mut simple) = (None, false);
        if let Some(format) = enabled.target_object_key_format {
            simple = format.simple_prefix.is_some();
            if let Some(prefix) = format.partitioned_prefix {
                let source = prefix.partition_date_source.as_ref().map(dto::PartitionDateSource::as_str);
                partitioned = Some(match source {
                    None | Some("DeliveryTime") => DateSource::DeliveryTime,
                    Some("EventTime") => DateSource::EventTime,
                    Some(_) => return Err(Failure::malformed_xml()),
                });
            }
            if simple == partitioned.is_some() {
                return Err(Failure::malformed_xml());
            }
        }
        Ok(Some(Self { bucket: enabled.target_bucket, prefix: enabled.target_prefix, partitioned, simple }))
    }

    fn write(&self, xml: &mut Xml) {
        xml.element("LoggingEnabled", |xml| {
            xml.text("TargetBucket", &self.bucket);
            xml.text("TargetPrefix", &self.prefix);
            match self.partitioned {
                Some(source) => xml.element("TargetObjectKeyFormat", |xml| {
                    xml.element("PartitionedPrefix", |xml| xml.value("PartitionDateSource", format!("{source:?}")));
                }),
                None if self.simple => {
                    xml.element("TargetObjectKeyFormat", |xml| xml.element("SimplePrefix", |_| {}));
                }
                None => {}
            }
        });
    }
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let stored = call.gateway().bucket_setting(&call.bucket(), BucketSetting::Logging).await?;
    let target = stored.map(|stored| LoggingTarget::stored(&stored)).transpose()?;
    Ok(respond::xml(Xml::document("BucketLoggingStatus", |xml| {
        if let Some(target) = &target {
            target.write(xml);
        }
    })))
}

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let target = LoggingTarget::parse(&call.document().await?)?;
    let bucket = call.bucket();
    let Some(target) = target else {
        call.gateway().delete_bucket_setting(&bucket, BucketSetting::Logging).await?;
        return Ok(respond::empty(StatusCode::OK));
    };
    check_target(&call, &target).await?;
    let stored = serde_json::to_vec(&target).map_err(unreadable)?;
    call.gateway().put_bucket_setting(&bucket, BucketSetting::Logging, &stored).await?;
    call.front.delivery.activate();
    Ok(respond::empty(StatusCode::OK))
}

/// The target is a bucket of the same owner.
async fn check_target(call: &Call, target: &LoggingTarget) -> Result<(), Failure> {
    let invalid = |message: &'static str| {
        let mut failure = Failure::bad("InvalidTargetBucketForLogging", message);
        failure.details.push(("TargetBucket", target.bucket.clone()));
        failure
    };
    let (info, _) = call.gateway().bucket_stamp(&target.bucket).await.map_err(|error| match error.kind {
        ErrorKind::NoSuchBucket => invalid("The target bucket for logging does not exist"),
        _ => error.into(),
    })?;
    match &call.access.bucket {
        Some(bucket) if bucket.info.owner == info.owner => Ok(()),
        _ => Err(invalid("The owner for the bucket to be logged and the target bucket must be the same.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(inner: &str) -> Result<Option<LoggingTarget>, Failure> {
        LoggingTarget::parse(format!("<BucketLoggingStatus>{inner}</BucketLoggingStatus>").as_bytes())
    }

    #[test]
    fn what_was_put_is_got() {
        assert_eq!(parse("").unwrap(), None);
        for format in [
            "",
            "<TargetObjectKeyFormat><SimplePrefix/></TargetObjectKeyFormat>",
            "<TargetObjectKeyFormat><PartitionedPrefix><PartitionDateSource>EventTime</PartitionDateSource>\
             </PartitionedPrefix></TargetObjectKeyFormat>",
        ] {
            let inner = format!(
                "<LoggingEnabled><TargetBucket>t</TargetBucket><TargetPrefix>p/</TargetPrefix>{format}</LoggingEnabled>"
            );
            let target = parse(&inner).unwrap().unwrap();
            let stored = serde_json::to_vec(&target).unwrap();
            assert_eq!(LoggingTarget::stored(&stored).unwrap(), target);
            let document = Xml::document("BucketLoggingStatus", |xml| target.write(xml));
            assert_eq!(LoggingTarget::parse(document.as_bytes()).unwrap(), Some(target), "{document}");
        }
        let grants = "<TargetGrants><Grant><Permission>READ</Permission></Grant></TargetGrants>";
        let inner = format!("<LoggingEnabled><TargetBucket>t</TargetBucket>{grants}<TargetPrefix/></LoggingEnabled>");
        assert_eq!(parse(&inner).unwrap_err().code, "AccessControlListNotSupported");
    }
}
