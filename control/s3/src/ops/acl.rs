//! ACLs. They are off in every bucket: the owner of the bucket owns everything in it (BucketOwnerEnforced, which is what AWS
//! gives to new buckets), and policies say who else may do what. So ACLs can be read, and what they say is true; those who
//! set one hear what AWS says then: AccessControlListNotSupported.

use http::StatusCode;
use s3s::dto;

use super::Call;
use super::bucket::write_owner;
use super::delete::from_xml;
use crate::failure::Failure;
use crate::gate::Op;
use crate::respond::{self, Answer};
use crate::xml::Xml;

/// The canned ACLs that there are; others are InvalidArgument wherever they stand.
const CANNED: [&str; 8] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

/// 400: ACLs are off.
pub(super) fn not_supported() -> Failure {
    Failure::bad("AccessControlListNotSupported", "The bucket does not allow ACLs")
}

/// Refuses the headers of requests that would set an ACL that says more than what is so anyway.
///
/// # Errors
/// InvalidArgument, AccessControlListNotSupported, InvalidBucketAclWithObjectOwnership.
pub(super) fn check(op: Op, call: &Call) -> Result<(), Failure> {
    if matches!(op, Op::PutBucketAcl | Op::PutObjectAcl) {
        return Ok(());
    }
    let canned = call.header_or_query("x-amz-acl")?;
    if let Some(canned) = canned.filter(|canned| !CANNED.contains(canned)) {
        return Err(Failure::argument("x-amz-acl", canned, "x-amz-acl is no canned ACL."));
    }
    let grants = call.headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"));
    // The owner has full control and nobody else has anything: these two say that.
    if !grants && canned.is_none_or(|canned| ["private", "bucket-owner-full-control"].contains(&canned)) {
        return Ok(());
    }
    Err(match op {
        Op::CreateBucket => Failure::bad(
            "InvalidBucketAclWithObjectOwnership",
            "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
        ),
        _ => not_supported(),
    })
}

fn document(call: &Call) -> Answer {
    respond::xml(Xml::document("AccessControlPolicy", |xml| {
        write_owner(xml, "Owner", call);
        xml.element("AccessControlList", |xml| {
            xml.element("Grant", |xml| {
                let owner = call.access.bucket.as_ref().map(|bucket| bucket.owner.clone()).unwrap_or_default();
                xml.grantee(&owner.0, &owner.1);
                xml.value("Permission", "FULL_CONTROL");
            });
        });
    }))
}

/// PutBucketAcl and PutObjectAcl. What says no more than what is so anyway (clients write back what they read: s3cmd's copies
/// do) is done by doing nothing.
///
/// # Errors
/// AccessControlListNotSupported for every other ACL, MalformedXML, NoSuchKey.
pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    if call.headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-")) {
        return Err(not_supported());
    }
    let body = call.document().await?;
    let says_what_is = match call.header_or_query("x-amz-acl")? {
        Some(canned) if !CANNED.contains(&canned) => {
            return Err(Failure::argument("x-amz-acl", canned, "x-amz-acl is no canned ACL."));
        }
        Some(canned) => body.is_empty() && ["private", "bucket-owner-full-control"].contains(&canned),
        None => {
            let owner = call.access.bucket.as_ref().map(|bucket| bucket.owner.0.clone()).unwrap_or_default();
            grants_owner_alone(&from_xml(&body)?, &owner)
        }
    };
    if !says_what_is {
        return Err(not_supported());
    }
    if call.target.key().is_some() {
        call.gateway().object_tags(&call.object_name()).await?;
    }
    Ok(respond::empty(StatusCode::OK))
}

/// Whether full control for this owner is all that a document grants.
fn grants_owner_alone(policy: &dto::AccessControlPolicy, owner: &str) -> bool {
    let grants = policy.grants.as_deref().unwrap_or_default();
    let full_control = |grant: &dto::Grant| {
        let grantee = grant.grantee.as_ref().and_then(|grantee| grantee.id.as_deref());
        grantee == Some(owner) && grant.permission.as_ref().map(dto::Permission::as_str) == Some("FULL_CONTROL")
    };
    !grants.is_empty() && grants.iter().all(full_control)
}

pub(super) fn of_bucket(call: &Call) -> Result<Answer, Failure> {
    Ok(document(call))
}

pub(super) async fn of_object(call: Call) -> Result<Answer, Failure> {
    // Whether it is there; whose it is needs no look.
    call.gateway().object_tags(&call.object_name()).await?;
    Ok(document(&call))
}
