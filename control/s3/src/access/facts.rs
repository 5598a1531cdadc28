//! What is known of a bucket for deciding about it, parsed, and kept while it is true.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use penstock_gateway::api::{BucketInfo, BucketSetting, BucketStamp};
use penstock_policy::{Acl, Ownership, Policy, PolicyKind, PublicAccessBlock};

use crate::cors::CorsRules;
use crate::failure::Failure;
use crate::ops::encryption::BucketEncryption;
use crate::ops::logging::LoggingTarget;
use crate::ops::settings::unreadable;
use crate::server::Front;

/// Most buckets whose documents are kept parsed. Past it all are forgotten and read again.
const KEPT_MAX: usize = 4096;
/// The documents that facts are made of.
const KINDS: [BucketSetting; 5] = [
    BucketSetting::Policy,
    BucketSetting::PublicAccessBlock,
    BucketSetting::Cors,
    BucketSetting::Encryption,
    BucketSetting::Logging,
];

/// A bucket, as far as access goes.
pub(crate) struct BucketFacts {
    pub(crate) info: BucketInfo,
    /// The id of the account that owns it.
    pub(crate) owner_account: String,
    /// That account's canonical id and name.
    pub(crate) owner: (String, String),
    pub(crate) policy: Option<Policy>,
    pub(crate) block: PublicAccessBlock,
    /// ACLs are off in every bucket.
    pub(crate) ownership: Ownership,
    pub(crate) acl: Acl,
    pub(crate) cors: Option<CorsRules>,
    pub(crate) encryption: Option<BucketEncryption>,
    pub(crate) logging: Option<LoggingTarget>,
}

/// Facts that were read before.
#[derive(Default)]
pub(crate) struct FactsCache(RwLock<HashMap<BucketStamp, Arc<BucketFacts>>>);

impl FactsCache {
    /// What is known of the bucket now.
    ///
    /// # Errors
    /// NoSuchBucket; InternalError for a stored document that can't be read: nobody gets in by that.
    pub(crate) async fn of(&self, front: &Front, name: &str) -> Result<Arc<BucketFacts>, Failure> {
        let (info, stamp) = front.gateway.bucket_stamp(name).await?;
        if KINDS.iter().all(|kind| stamp.settings & kind.bit() == 0) {
            return Ok(Arc::new(facts(front, info, std::array::from_fn(|_| None))?));
        }
        let kept = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&stamp).cloned();
        if let Some(facts) = kept {
            return Ok(facts);
        }
        let (info, stamp, documents) = front.gateway.bucket_documents(name, KINDS).await?;
        let facts = Arc::new(facts(front, info, documents)?);
        let mut kept = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(stamp, facts.clone());
        Ok(facts)
    }
}

fn facts(front: &Front, info: BucketInfo, documents: [Option<Vec<u8>>; KINDS.len()]) -> Result<BucketFacts, Failure> {
    let [policy, block, cors, encryption, logging] = documents;
    let owner_account =
        if info.owner.is_empty() { front.identities.root_account_id().to_owned() } else { info.owner.clone() };
    // An account that is gone leaves its buckets to nobody; they are still shown with its id.
    let owner =
        front.identities.account(&info.owner).unwrap_or_else(|| (format!("{owner_account:0>64}"), String::new()));
    let policy = policy.map(|text| {
        let text = String::from_utf8(text).map_err(unreadable)?;
        Policy::parse(&text, PolicyKind::Bucket(&info.name)).map_err(unreadable)
    });
    Ok(BucketFacts {
        policy: policy.transpose()?,
        block: block.map_or(Ok(PublicAccessBlock::default()), |stored| crate::ops::public::stored(&stored))?,
        ownership: Ownership::BucketOwnerEnforced,
        acl: Acl::private(&owner.0),
        cors: cors.map(|stored| CorsRules::stored(&stored)).transpose()?,
        encryption: encryption.map(|stored| BucketEncryption::stored(&stored)).transpose()?,
        logging: logging.map(|stored| LoggingTarget::stored(&stored)).transpose()?,
        owner_account,
        owner,
        info,
    })
}
