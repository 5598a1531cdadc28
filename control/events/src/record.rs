//! AWS's format of events: "Event message structure" in the S3 User Guide.

use bytes::Bytes;
use penstock_meta::tables::{EventKind, EventPlace, EventRow, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

/// Bytes of a key that are not percent-encoded; a space is a `+`.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b'/').remove(b' ');

/// Milliseconds, as AWS has them.
const FORMAT: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZero::new(3) }).encode();

/// The message that tells of an event of a store in `region`, whose own account is `account`.
///
/// # Errors
/// For a kind of event that another release wrote.
pub fn message(place: &EventPlace, row: &EventRow, region: &str, account: &str) -> Result<Bytes> {
    let kind = row.kind()?;
    let document = match kind {
        EventKind::Test => test(row),
        _ => json!({ "Records": [record(kind, place, row, region, account)] }),
    };
    Ok(Bytes::from(document.to_string()))
}

fn time_text(unix_ms: u64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    moment.and_then(|moment| moment.format(&Iso8601::<FORMAT>).ok()).unwrap_or_default()
}

fn test(row: &EventRow) -> Value {
    json!({
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": time_text(row.time_unix_ms),
        "Bucket": row.bucket,
        "RequestId": row.request_id,
        "HostId": "",
    })
}

fn record(kind: EventKind, place: &EventPlace, row: &EventRow, region: &str, account: &str) -> Value {
    use EventKind as K;
    // What came with lifecycle and tagging has a newer version than what was there from the beginning.
    let version = match kind {
        K::TaggingPut | K::TaggingDelete | K::ExpiredDelete | K::ExpiredMarker => "2.3",
        _ => "2.1",
    };
    let mut object = json!({
        "key": utf8_percent_encode(&row.key, KEY).to_string().replace(' ', "+"),
        "sequencer": place.sequencer(),
    });
    if let Some(bytes) = row.size_bytes {
        object["size"] = bytes.into();
    }
    if let Some(etag) = &row.etag {
        object["eTag"] = etag.as_str().into();
    }
    if let Some(id) = &row.version_id {
        object["versionId"] = id.as_str().into();
    }
    // What the store does by itself is S3's own doing, from nowhere.
    let principal = if row.principal.is_empty() { "s3.amazonaws.com" } else { &row.principal };
    let source = if row.source_ip.is_empty() { "s3.amazonaws.com" } else { &row.source_ip };
    let owner = if row.bucket_owner.is_empty() { account } else { &row.bucket_owner };
    json!({
        "eventVersion": version,
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": time_text(row.time_unix_ms),
        "eventName": kind.name(),
        "userIdentity": { "principalId": principal },
        "requestParameters": { "sourceIPAddress": source },
        "responseElements": { "x-amz-request-id": row.request_id, "x-amz-id-2": "" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": row.rule_id,
            "bucket": {
                "name": row.bucket,
                "ownerIdentity": { "principalId": owner },
                "arn": format!("arn:aws:s3:::{}", row.bucket),
            },
            "object": object,
        },
    })
}
