//! ACLs. They are off in every bucket: the owner of the bucket owns everything in it (BucketOwnerEnforced, which is what AWS
//! gives to new buckets), and policies say who else may do what. So ACLs can be read, and what they say is true; those who
//! set one hear what AWS says then: AccessControlListNotSupported.

use super::Call;
use super::bucket::write_owner;
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

pub(super) fn of_bucket(call: &Call) -> Result<Answer, Failure> {
    Ok(document(call))
}

pub(super) async fn of_object(call: Call) -> Result<Answer, Failure> {
    // Whether it is there; whose it is needs no look.
    call.gateway().object_tags(&call.object_name()).await?;
    Ok(document(&call))
}
