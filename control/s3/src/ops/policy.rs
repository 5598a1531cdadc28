//! Bucket policies.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use penstock_gateway::api::BucketSetting;
use penstock_policy::{Policy, PolicyKind};

use super::Call;
use super::settings::{Document, unreadable};
use crate::failure::Failure;
use crate::respond::{self, Answer, AnswerBody};
use crate::xml::Xml;

/// Where a policy is stored: JSON as it was put. Only its removal goes this way.
pub(super) const DOCUMENT: Document = Document {
    kind: BucketSetting::Policy,
    accept: |_| Err(Failure::internal("A policy is put by itself.")),
    answer: |stored| String::from_utf8(stored.to_vec()).map_err(unreadable),
    absent: || Err(no_policy("")),
    put_status: StatusCode::NO_CONTENT,
};

fn no_policy(bucket: &str) -> Failure {
    let mut failure = Failure::new(StatusCode::NOT_FOUND, "NoSuchBucketPolicy", "The bucket policy does not exist");
    failure.details.push(("BucketName", bucket.to_owned()));
    failure
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let bucket = call.bucket();
    let stored = call.gateway().bucket_setting(&bucket, BucketSetting::Policy).await?;
    let stored = stored.ok_or_else(|| no_policy(&bucket))?;
    let mut answer = Response::new(AnswerBody::Whole(stored.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let body = call.document().await?;
    let bucket = call.bucket();
    let malformed = |message: String| Failure::bad("MalformedPolicy", message);
    let text = std::str::from_utf8(&body).map_err(|_| malformed("The policy is not UTF-8.".to_owned()))?;
    if text.is_empty() {
        return Err(malformed("Missing required body: a policy".to_owned()));
    }
    let policy = Policy::parse(text, PolicyKind::Bucket(&bucket)).map_err(|error| {
        let mut failure = malformed(error.message);
        if !error.element.is_empty() {
            failure.details.push(("Detail", error.element));
        }
        failure
    })?;
    if let Some(named) = policy.principals().find(|named| !call.front.identities.knows(named)) {
        let mut failure = malformed("Invalid principal in policy".to_owned());
        failure.details.push(("Detail", format!("{named:?}")));
        return Err(failure);
    }
    if call.access.bucket.as_ref().is_some_and(|bucket| bucket.block.block_public_policy) && policy.is_public() {
        return Err(Failure::access_denied(
            "Access Denied: public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.",
        ));
    }
    call.gateway().put_bucket_setting(&bucket, BucketSetting::Policy, &body).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// Whether the public gets anything: by the policy, since ACLs are off.
pub(super) fn status(call: Call) -> Result<Answer, Failure> {
    let policy = call.access.bucket.as_ref().and_then(|bucket| bucket.policy.as_ref());
    let public = policy.is_some_and(Policy::is_public);
    Ok(respond::xml(Xml::document("PolicyStatus", |xml| xml.value("IsPublic", public))))
}
