//! The public access block, and object ownership.

use http::StatusCode;
use penstock_gateway::api::BucketSetting;
use penstock_policy::{Ownership, PublicAccessBlock};
use s3s::dto;

use super::Call;
use super::delete::from_xml;
use super::settings::{Document, unreadable};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::xml::Xml;

/// The public access block, stored as JSON: four booleans in the order of the struct.
pub(super) const BLOCK: Document = Document {
    kind: BucketSetting::PublicAccessBlock,
    accept: |body| {
        let document: dto::PublicAccessBlockConfiguration = from_xml(body)?;
        let four = [
            document.block_public_acls,
            document.ignore_public_acls,
            document.block_public_policy,
            document.restrict_public_buckets,
        ];
        serde_json::to_vec(&four.map(|setting| setting.unwrap_or(false))).map_err(unreadable)
    },
    answer: |bytes| {
        let block = stored(bytes)?;
        Ok(Xml::document("PublicAccessBlockConfiguration", |xml| {
            xml.value("BlockPublicAcls", block.block_public_acls);
            xml.value("IgnorePublicAcls", block.ignore_public_acls);
            xml.value("BlockPublicPolicy", block.block_public_policy);
            xml.value("RestrictPublicBuckets", block.restrict_public_buckets);
        }))
    },
    absent: || {
        Err(Failure::new(
            StatusCode::NOT_FOUND,
            "NoSuchPublicAccessBlockConfiguration",
            "The public access block configuration was not found",
        ))
    },
    put_status: StatusCode::OK,
};

/// A stored public access block.
///
/// # Errors
/// InternalError for what can't be read.
pub(crate) fn stored(bytes: &[u8]) -> Result<PublicAccessBlock, Failure> {
    let [block_public_acls, ignore_public_acls, block_public_policy, restrict_public_buckets] =
        serde_json::from_slice(bytes).map_err(unreadable)?;
    Ok(PublicAccessBlock { block_public_acls, ignore_public_acls, block_public_policy, restrict_public_buckets })
}

/// BucketOwnerEnforced, in every bucket.
pub(super) fn get_ownership() -> Result<Answer, Failure> {
    Ok(respond::xml(Xml::document("OwnershipControls", |xml| {
        xml.element("Rule", |xml| xml.value("ObjectOwnership", Ownership::BucketOwnerEnforced.name()));
    })))
}

/// BucketOwnerEnforced is what there is: to set it again is fine, others are not implemented.
pub(super) async fn put_ownership(mut call: Call) -> Result<Answer, Failure> {
    let document: dto::OwnershipControls = from_xml(&call.document().await?)?;
    let [rule] = document.rules.as_slice() else { return Err(Failure::malformed_xml()) };
    match Ownership::named(rule.object_ownership.as_str()) {
        Some(Ownership::BucketOwnerEnforced) => Ok(respond::empty(StatusCode::OK)),
        Some(other) => Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("ObjectOwnership {} is not implemented: ACLs are off, write a bucket policy.", other.name()),
        )),
        None => Err(Failure::malformed_xml()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_got() {
        let body = "<PublicAccessBlockConfiguration><BlockPublicPolicy>true</BlockPublicPolicy>\
                    </PublicAccessBlockConfiguration>";
        let bytes = (BLOCK.accept)(body.as_bytes()).unwrap();
        assert_eq!(
            stored(&bytes).unwrap(),
            PublicAccessBlock { block_public_policy: true, ..PublicAccessBlock::default() }
        );
        let answer = (BLOCK.answer)(&bytes).unwrap();
        assert!(
            answer.contains("<BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>false<"),
            "{answer}"
        );
        assert!((BLOCK.accept)(b"<Other/>").is_err());
    }
}
