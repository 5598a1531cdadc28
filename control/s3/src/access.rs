//! Who may do what: the one place that says so for every operation, between authentication and the operation.
//!
//! [`authorize`] asks penstock-policy for each action that the operation needs ([`penstock_policy::needs`]), with the caller's
//! policies, the bucket's, its public access block and its ownership, and the request's condition keys. DeleteObjects asks
//! for each of its objects ([`Access::may_delete`]).
//!
//! **Cost.** A bucket's row is read once; its documents only when it has any, and what was parsed is kept until the row's
//! version says that they changed. The owner's root, in a bucket without a policy, is let through at once.
//!
//! **What strangers learn.** Without the right to list a bucket an absent key is 403 AccessDenied, not 404, as AWS has it.

mod conditions;
mod facts;

use std::sync::Arc;

use penstock_gateway::api::ObjectName;
use penstock_gateway::error::ErrorKind;
use penstock_identity::{Identities, Principal};
use penstock_policy::{BucketAccess, Caller, Context, Facts, Need, On, Request, evaluate, needs};

pub(crate) use self::conditions::{now_unix_s, of_connection};
pub(crate) use self::facts::{BucketFacts, FactsCache};
use crate::failure::Failure;
use crate::gate::Op;
use crate::ops::Call;
use crate::server::Front;

/// What was found out about a request's rights.
#[derive(Default)]
pub(crate) struct Access {
    /// Who asks; `None` for strangers.
    pub(crate) principal: Option<Principal>,
    /// The bucket that the request names.
    pub(crate) bucket: Option<Arc<BucketFacts>>,
    context: Context,
    /// Whether nothing could be denied: see [`Access::is_unquestioned`].
    unquestioned: bool,
}

/// Whether it is about the object that is named, and not about us.
const fn is_about_the_object(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(kind, K::NoSuchKey | K::NoSuchVersion | K::MethodNotAllowed | K::KeyTooLongError | K::InvalidArgument)
}

fn arn(name: &ObjectName) -> String {
    format!("arn:aws:s3:::{}/{}", name.bucket, name.key)
}

impl Access {
    pub(crate) fn of(principal: Option<Principal>) -> Self {
        Self { principal, ..Self::default() }
    }

    /// Whether the caller may delete this, of many: DeleteObjects asks for each.
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) async fn may_delete(
        &self,
        front: &Front,
        key: &str,
        version_id: Option<&str>,
        bypass_governance: bool,
    ) -> Result<(), Failure> {
        if self.unquestioned {
            return Ok(());
        }
        let bucket = self.bucket_name().to_owned();
        let name = ObjectName { bucket, key: key.to_owned(), version_id: version_id.map(str::to_owned) };
        let mut context = self.context.clone();
        context.set_some("s3:VersionId", version_id);
        self.describe_tags(front, &name, self.bucket.as_deref(), &mut context).await?;
        let facts = Facts { version: version_id.is_some(), bypass_governance, ..Facts::default() };
        for need in needs("DeleteObject", facts).unwrap_or_default() {
            self.decide(need.action, &arn(&name), self.bucket.as_deref(), &context)?;
        }
        Ok(())
    }

    /// Whether the caller may give an object these tags: they are in the body, so [`authorize`] leaves it to this.
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) fn may_tag(&self, name: &ObjectName, tags: &[(String, String)]) -> Result<(), Failure> {
        if self.unquestioned {
            return Ok(());
        }
        let mut context = self.context.clone();
        for (key, value) in tags {
            context.set(&format!("s3:RequestObjectTag/{key}"), value);
        }
        context.set_all("s3:RequestObjectTagKeys", tags.iter().map(|(key, _)| key.clone()).collect());
        let facts = Facts { version: name.version_id.is_some(), ..Facts::default() };
        for need in needs("PutObjectTagging", facts).unwrap_or_default() {
            self.decide(need.action, &arn(name), self.bucket.as_deref(), &context)?;
        }
        Ok(())
    }

    /// Adds the stored tags of an object, if any policy asks for them.
    async fn describe_tags(
        &self,
        front: &Front,
        name: &ObjectName,
        bucket: Option<&BucketFacts>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        const KEY: &str = "s3:ExistingObjectTag/";
        let asked = bucket.and_then(|bucket| bucket.policy.as_ref()).is_some_and(|policy| policy.mentions(KEY))
            || self.principal.as_ref().is_some_and(|principal| principal.mentions(KEY));
        if !asked {
            return Ok(());
        }
        match front.gateway.object_tags(name).await {
            Ok((tags, _)) => {
                for (key, value) in tags {
                    context.set(&format!("{KEY}{key}"), value);
                }
                Ok(())
            }
            // What is not there, or is a delete marker, has no tags; the operation says so, to whom it may.
            Err(error) if is_about_the_object(error.kind) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the caller may list the bucket: then, and only then, is it told that a key is not there.
    pub(crate) fn may_list(&self) -> bool {
        if self.unquestioned {
            return true;
        }
        let resource = format!("arn:aws:s3:::{}", self.bucket_name());
        self.decide("s3:ListBucket", &resource, self.bucket.as_deref(), &self.context).is_ok()
    }

    fn bucket_name(&self) -> &str {
        self.bucket.as_ref().map_or("", |bucket| bucket.info.name.as_str())
    }

    fn decide(
        &self,
        action: &str,
        resource: &str,
        bucket: Option<&BucketFacts>,
        context: &Context,
    ) -> Result<(), Failure> {
        let caller = self.principal.as_ref().map_or(Caller::Anonymous, Principal::caller);
        let bucket = bucket.map(|facts| BucketAccess {
            owner_account: &facts.owner_account,
            policy: facts.policy.as_ref(),
            block: facts.block,
            ownership: facts.ownership,
            acl: &facts.acl,
        });
        let decision = evaluate(&Request { caller, action, resource, context, bucket, object: None });
        if decision.allowed {
            return Ok(());
        }
        tracing::debug!(action, resource, reason = ?decision.reason, "access denied");
        Err(Failure::access_denied("Access Denied"))
    }

    /// Whether nothing could deny the caller anything in this bucket: its owner's root, and no policy.
    fn is_unquestioned(&self, bucket: Option<&BucketFacts>) -> bool {
        let Some(principal) = self.principal.as_ref().filter(|principal| principal.is_whole_root()) else {
            return false;
        };
        bucket.is_none_or(|bucket| bucket.policy.is_none() && bucket.owner_account == principal.account_id())
    }
}

/// Whether this call may be done. What was found out stays in `call.access`.
///
/// # Errors
/// AccessDenied; NoSuchBucket.
pub(crate) async fn authorize(op: Op, call: &mut Call) -> Result<(), Failure> {
    let mut access = Access::of(call.access.principal.clone());
    if let Some(name) = call.target.bucket()
        && op != Op::CreateBucket
    {
        let facts = call.front.facts.of(&call.front, name).await?;
        let _ = call.exchange.owner.set(facts.owner.0.clone());
        if facts.logging.is_some() {
            let _ = call.exchange.logged.set(facts.clone());
        }
        access.bucket = Some(facts);
    }
    // ACLs are off: without a policy there is nothing that could let a stranger in.
    if access.principal.is_none() && access.bucket.as_ref().is_none_or(|bucket| bucket.policy.is_none()) {
        return Err(Failure::access_denied("Access Denied"));
    }
    check_expected_owner(call, "x-amz-expected-bucket-owner", access.bucket.as_deref())?;
    let source = call.source()?;
    let source_facts = match &source {
        None => None,
        Some(source) if Some(source.bucket.as_str()) == call.target.bucket() => access.bucket.clone(),
        Some(source) => Some(call.front.facts.of(&call.front, &source.bucket).await?),
    };
    check_expected_owner(call, "x-amz-source-expected-bucket-owner", source_facts.as_deref())?;
    access.unquestioned = access.is_unquestioned(access.bucket.as_deref())
        && source.as_ref().is_none_or(|_| access.is_unquestioned(source_facts.as_deref()));
    if !access.unquestioned {
        let mut context = conditions::of(call, access.principal.as_ref(), access.bucket.as_deref());
        let mut source_context = source.as_ref().map(|_| context.clone()).unwrap_or_default();
        if call.target.key().is_some() {
            access.describe_tags(&call.front, &call.object_name(), access.bucket.as_deref(), &mut context).await?;
        }
        if let Some(source) = &source {
            access.describe_tags(&call.front, source, source_facts.as_deref(), &mut source_context).await?;
        }
        access.context = context;
        let needs = needs(op.name(), facts(call)).ok_or_else(|| Failure::access_denied("Access Denied"))?;
        // The tags that it sets are in its body: `may_tag` is asked once they are read.
        let deferred = op == Op::PutObjectTagging;
        for Need { action, on } in needs.into_iter().filter(|_| !deferred) {
            let bucket = call.target.bucket().unwrap_or_default();
            let key = call.target.key().unwrap_or_default();
            let (resource, facts) = match (on, &source) {
                (On::Service, _) => ("*".to_owned(), None),
                (On::Bucket, _) => (format!("arn:aws:s3:::{bucket}"), access.bucket.as_deref()),
                (On::Object, _) => (format!("arn:aws:s3:::{bucket}/{key}"), access.bucket.as_deref()),
                (On::Source, Some(source)) => {
                    access.decide(action, &arn(source), source_facts.as_deref(), &source_context)?;
                    continue;
                }
                (On::Source, None) => return Err(Failure::access_denied("Access Denied")),
            };
            access.decide(action, &resource, facts, &access.context)?;
        }
    }
    call.access = Arc::new(access);
    Ok(())
}

fn check_expected_owner(call: &Call, header: &str, bucket: Option<&BucketFacts>) -> Result<(), Failure> {
    let (Some(expected), Some(bucket)) = (call.header(header)?, bucket) else { return Ok(()) };
    if expected == bucket.owner_account { Ok(()) } else { Err(Failure::access_denied("Access Denied")) }
}

/// What of the request changes which actions it needs.
fn facts(call: &Call) -> Facts {
    let has = |name: &str| call.headers.contains_key(name);
    let hoisted = |name: &str| has(name) || call.query.get_hoisted(name).is_some();
    let source = call.headers.get("x-amz-copy-source").and_then(|source| source.to_str().ok()).unwrap_or_default();
    Facts {
        version: call.query.get("versionId").is_some(),
        source_version: source.contains("?versionId="),
        acl: hoisted("x-amz-acl") || call.headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-")),
        tagging: hoisted("x-amz-tagging"),
        retention: has("x-amz-object-lock-mode") || has("x-amz-object-lock-retain-until-date"),
        legal_hold: has("x-amz-object-lock-legal-hold"),
        bypass_governance: call
            .headers
            .get("x-amz-bypass-governance-retention")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
        object_lock: call
            .headers
            .get("x-amz-bucket-object-lock-enabled")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")),
        ownership: has("x-amz-object-ownership"),
    }
}

/// Who signed.
///
/// # Errors
/// InvalidAccessKeyId, InvalidToken, ExpiredToken, AccessDenied.
pub(crate) fn principal(
    identities: &Identities,
    access_key: &str,
    token: Option<&str>,
    now_unix_s: u64,
) -> Result<Principal, Failure> {
    identities.principal(access_key, token, now_unix_s).map_err(|error| {
        let status = http::StatusCode::from_u16(error.status()).unwrap_or(http::StatusCode::FORBIDDEN);
        let mut failure = Failure::new(status, error.code(), error.message);
        if failure.code == "InvalidAccessKeyId" {
            failure.details.push(("AWSAccessKeyId", access_key.chars().take(128).collect()));
        }
        failure
    })
}
