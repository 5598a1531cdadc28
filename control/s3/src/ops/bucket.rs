//! Buckets.

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use penstock_gateway::api::{BucketInfo, CreateBucket, ListBuckets};
use s3s::dto::CreateBucketConfiguration;

use super::{Call, set};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

/// The region in which AWS has buckets without a LocationConstraint, and whose name it leaves out.
const CLASSIC_REGION: &str = "us-east-1";

impl Call {
    /// The caller's account as buckets say whose they are: empty for the store's own.
    fn owner_of_new(&self) -> String {
        let account = self.access.principal.as_ref().map_or("", |principal| principal.account_id());
        if account == self.front.identities.root_account_id() { String::new() } else { account.to_owned() }
    }

    fn region_of(&self, bucket: &BucketInfo) -> String {
        if bucket.region.is_empty() { self.front.options.region.clone() } else { bucket.region.clone() }
    }
}

pub(super) async fn list(call: Call) -> Result<Answer, Failure> {
    let prefix = call.text("prefix");
    let region = call.query.get("bucket-region");
    let after = call.query.get("continuation-token").map(wire::from_continuation_token).transpose()?;
    let max = call.number("max-buckets").and_then(|max| usize::try_from(max).ok());
    let owner = Some(call.owner_of_new());
    let page = call.gateway().list_buckets(ListBuckets { prefix: prefix.clone(), after, max, owner }).await?;
    Ok(respond::xml(Xml::document("ListAllMyBucketsResult", |xml| {
        write_caller(xml, "Owner", &call);
        xml.element("Buckets", |xml| {
            let asked_for = |bucket: &&BucketInfo| region.is_none_or(|region| call.region_of(bucket) == region);
            for bucket in page.buckets.iter().filter(asked_for) {
                xml.element("Bucket", |xml| {
                    xml.text("Name", &bucket.name);
                    xml.value("CreationDate", wire::format_iso_date(bucket.created_unix_ms));
                    xml.text("BucketRegion", &call.region_of(bucket));
                });
            }
        });
        if let Some(after) = &page.next_after {
            xml.text("ContinuationToken", &wire::continuation_token(after));
        }
        if !prefix.is_empty() {
            xml.text("Prefix", &prefix);
        }
    })))
}

/// `<Owner>` or `<Initiator>`: the account that owns the bucket.
pub(super) fn write_owner(xml: &mut Xml, element: &str, call: &Call) {
    let (id, name) = call.access.bucket.as_ref().map_or(("", ""), |bucket| (&bucket.owner.0, &bucket.owner.1));
    write_account(xml, element, id, name);
}

/// The account that asks.
fn write_caller(xml: &mut Xml, element: &str, call: &Call) {
    if let Some(principal) = &call.access.principal {
        write_account(xml, element, principal.canonical_id(), principal.account_name());
    }
}

fn write_account(xml: &mut Xml, element: &str, id: &str, name: &str) {
    xml.element(element, |xml| {
        xml.text("ID", id);
        xml.text("DisplayName", name);
    });
}

pub(super) async fn create(mut call: Call) -> Result<Answer, Failure> {
    let body = call.document().await?;
    let (mut region, mut settings) = (String::new(), Vec::new());
    if !body.is_empty() {
        let configuration: CreateBucketConfiguration = super::delete::from_xml(&body)?;
        if configuration.bucket.is_some() || configuration.location.is_some() {
            let what = "CreateBucketConfiguration.Bucket and .Location (directory buckets)";
            return Err(Failure::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                format!("{what} are not implemented."),
            ));
        }
        settings.extend(super::tagging::setting_of(configuration.tags.unwrap_or_default())?);
        region = configuration.location_constraint.map(|region| region.as_str().to_owned()).unwrap_or_default();
    }
    let bucket = call.bucket();
    let object_lock =
        call.header("x-amz-bucket-object-lock-enabled")?.is_some_and(|enabled| enabled.eq_ignore_ascii_case("true"));
    let request = CreateBucket { name: bucket.clone(), owner: call.owner_of_new(), region, object_lock, settings };
    call.gateway().create_bucket_with(request).await?;
    let mut answer = respond::empty(StatusCode::OK);
    set(answer.headers_mut(), LOCATION, &format!("/{bucket}"));
    Ok(answer)
}

pub(super) async fn head(call: Call) -> Result<Answer, Failure> {
    let bucket = call.gateway().head_bucket(&call.bucket()).await?;
    let mut answer = respond::empty(StatusCode::OK);
    set(answer.headers_mut(), respond::name("x-amz-bucket-region"), &call.region_of(&bucket));
    answer.headers_mut().insert(respond::name("x-amz-access-point-alias"), HeaderValue::from_static("false"));
    super::native::echo(&call.headers, answer.headers_mut());
    Ok(answer)
}

pub(super) async fn delete(call: Call) -> Result<Answer, Failure> {
    call.gateway().delete_bucket(&call.bucket()).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn location(call: Call) -> Result<Answer, Failure> {
    let bucket = call.gateway().head_bucket(&call.bucket()).await?;
    let region = call.region_of(&bucket);
    Ok(respond::xml(Xml::document("LocationConstraint", |xml| {
        if region != CLASSIC_REGION {
            xml.raw_text(&region);
        }
    })))
}
