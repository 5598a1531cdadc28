//! The condition keys of a request: what policies may ask about it. Names and meanings are those of "Actions, resources, and
//! condition keys for Amazon S3" (Service Authorization Reference) and "AWS global condition context keys".

use std::time::{SystemTime, UNIX_EPOCH};

use penstock_identity::Principal;
use penstock_policy::Context;

use super::BucketFacts;
use crate::ops::Call;
use crate::peer::TlsVersion;
use crate::wire;

/// Headers whose values are keys of their own name. Presigning SDKs move them into the query: there they count too.
const HEADERS: &[&str] = &[
    "x-amz-acl",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-metadata-directive",
    "x-amz-object-ownership",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

/// Headers and query parameters whose keys have other names.
const NAMED: &[(&str, &str)] = &[
    ("x-amz-object-lock-mode", "s3:object-lock-mode"),
    ("x-amz-object-lock-retain-until-date", "s3:object-lock-retain-until-date"),
    ("x-amz-object-lock-legal-hold", "s3:object-lock-legal-hold"),
    ("if-match", "s3:if-match"),
    ("if-none-match", "s3:if-none-match"),
    ("referer", "aws:Referer"),
    ("user-agent", "aws:UserAgent"),
];
const QUERY: &[(&str, &str)] = &[
    ("prefix", "s3:prefix"),
    ("delimiter", "s3:delimiter"),
    ("max-keys", "s3:max-keys"),
    ("versionId", "s3:VersionId"),
];

pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All that is known of a request.
pub(super) fn of(call: &Call, principal: Option<&Principal>, bucket: Option<&BucketFacts>) -> Context {
    let mut context = Context::new();
    of_connection(&mut context, call.peer);
    let header = |name: &str| wire::header(&call.headers, name).ok().flatten();
    for name in HEADERS {
        context.set_some(&format!("s3:{name}"), header(name).or_else(|| call.query.get_hoisted(name)));
    }
    for (name, key) in NAMED {
        context.set_some(key, header(name));
    }
    for (name, key) in QUERY {
        context.set_some(key, call.query.get(name));
    }
    if let Some(tags) = header("x-amz-tagging").or_else(|| call.query.get_hoisted("x-amz-tagging")) {
        of_tags(&mut context, tags);
    }
    if let Some(bucket) = bucket {
        context.set("aws:ResourceAccount", &bucket.owner_account).set("s3:ResourceAccount", &bucket.owner_account);
    }
    if let Some(principal) = principal {
        principal.describe(&mut context);
        of_signature(&mut context, call);
    }
    context
}

/// What the connection and the clock say.
pub(crate) fn of_connection(context: &mut Context, peer: crate::peer::Peer) {
    let now = now_unix_s();
    context
        .set("aws:SourceIp", peer.ip().to_string())
        .set("aws:SecureTransport", if peer.tls.is_some() { "true" } else { "false" })
        .set("aws:CurrentTime", wire::format_iso_date(now * 1000))
        .set("aws:EpochTime", now.to_string())
        .set("aws:PrincipalIsAWSService", "false")
        .set("aws:ViaAWSService", "false");
    if let Some(version) = peer.tls {
        context.set(
            "s3:TlsVersion",
            match version {
                TlsVersion::V1_2 => "1.2",
                TlsVersion::V1_3 => "1.3",
            },
        );
    }
}

/// `k1=v1&k2=v2`, form-encoded. What is malformed is refused later, by who stores it.
fn of_tags(context: &mut Context, text: &str) {
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let mut keys = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded(key);
        context.set(&format!("s3:RequestObjectTag/{key}"), decoded(value));
        keys.push(key);
    }
    context.set_all("s3:RequestObjectTagKeys", keys);
}

fn of_signature(context: &mut Context, call: &Call) {
    let presigned = call.query.get("X-Amz-Signature").is_some();
    context
        .set("s3:signatureversion", "AWS4-HMAC-SHA256")
        .set("s3:authType", if presigned { "REST-QUERY-STRING" } else { "REST-HEADER" });
    let date = call.query.get("X-Amz-Date").or_else(|| wire::header(&call.headers, "x-amz-date").ok().flatten());
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let signed = date.and_then(|text| time::PrimitiveDateTime::parse(text, &format).ok());
    if let Some(signed) = signed {
        let age_ms = (i128::from(now_unix_s()) - i128::from(signed.assume_utc().unix_timestamp())).max(0) * 1000;
        context.set("s3:signatureAge", age_ms.to_string());
    }
}
