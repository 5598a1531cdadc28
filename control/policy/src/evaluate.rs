//! The decision.
//!
//! In the order of IAM's evaluation logic:
//! 1. A Deny in any policy that applies is the end of it (but for the bucket owner's root, who can always read, replace and
//!    remove the bucket's policy: nobody locks themself out for good).
//! 2. What the resource gives: the bucket's policy, the bucket's or object's ACL.
//! 3. What the caller's own account gives: root may do everything in its account, a user or role what its policies say, and
//!    a session no more than its session policy lets through.
//! 4. Within one account either of the two is enough; between accounts both are needed; strangers have the first alone.
//! 5. Otherwise: no.

use crate::acl::{self, Acl, Ownership, Permission};
use crate::context::Context;
use crate::document::{Effect, Policy, Statement};
use crate::principal::{NamedPrincipal, PrincipalArn, PrincipalElement};

/// The four switches that keep the public out, whatever policies and ACLs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PublicAccessBlock {
    /// Refuse to store public ACLs.
    pub block_public_acls: bool,
    /// ACLs' grants to groups don't count.
    pub ignore_public_acls: bool,
    /// Refuse to store a public policy.
    pub block_public_policy: bool,
    /// A public policy gives nothing to other accounts and strangers.
    pub restrict_public_buckets: bool,
}

/// A role that a caller has assumed.
#[derive(Clone, Copy, Debug)]
pub struct RoleSession<'a> {
    /// The role's name, with its path.
    pub role: &'a str,
    /// The session's name.
    pub session: &'a str,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// Nobody signed.
    Anonymous,
    /// The root of an account.
    Root {
        /// The account.
        account: &'a str,
        /// Its canonical id.
        canonical_id: &'a str,
        /// What temporary credentials were narrowed to; none for none.
        session_policy: Option<&'a Policy>,
    },
    /// A user, or a session of a role.
    User {
        /// The account.
        account: &'a str,
        /// Its canonical id.
        canonical_id: &'a str,
        /// The user's name, with its path. Of a role's session: empty.
        name: &'a str,
        /// For sessions of roles.
        role: Option<RoleSession<'a>>,
        /// The policies of the user or role.
        policies: &'a [Policy],
        /// What temporary credentials were narrowed to; none for none.
        session_policy: Option<&'a Policy>,
    },
}

/// What is known of the bucket that a request is about.
#[derive(Clone, Copy, Debug)]
pub struct BucketAccess<'a> {
    /// The account that owns it.
    pub owner_account: &'a str,
    /// Its policy.
    pub policy: Option<&'a Policy>,
    /// Its public access block.
    pub block: PublicAccessBlock,
    /// Its object ownership.
    pub ownership: Ownership,
    /// Its ACL.
    pub acl: &'a Acl,
}

/// What is known of the object that a request is about.
#[derive(Clone, Copy, Debug)]
pub struct ObjectAccess<'a> {
    /// Its ACL, the owner in it.
    pub acl: &'a Acl,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who.
    pub caller: Caller<'a>,
    /// What: `s3:GetObject`.
    pub action: &'a str,
    /// On what: an ARN, or `*`.
    pub resource: &'a str,
    /// Condition keys.
    pub context: &'a Context,
    /// The bucket; none for what is about no bucket, or one that does not exist yet.
    pub bucket: Option<BucketAccess<'a>>,
    /// The object, where it exists and its ACL is known.
    pub object: Option<ObjectAccess<'a>>,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A statement of a policy of the caller's denies it.
    DeniedByIdentityPolicy(String),
    /// A statement of the bucket's policy denies it.
    DeniedByBucketPolicy(String),
    /// A statement of the session's policy denies it.
    DeniedBySessionPolicy(String),
    /// The session's policy does not let it through.
    NotInSessionPolicy,
    /// The caller is the root of the account that owns it.
    Root,
    /// The root of the owning account can always see to the bucket's policy.
    RootKeepsPolicy,
    /// A statement of the bucket's policy allows it.
    AllowedByBucketPolicy(String),
    /// A statement of a policy of the caller's allows it.
    AllowedByIdentityPolicy(String),
    /// An ACL allows it.
    AllowedByAcl,
    /// Another account's bucket: it allows it, but the caller's own account does not.
    OwnAccountDoesNotAllow,
    /// Another account's bucket: the caller's account allows it, but the bucket does not.
    BucketDoesNotAllow,
    /// Nothing allows it.
    NothingAllows,
}

/// Yes or no, and why. The reason is for logs: AWS tells clients no more than "Access Denied".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    const fn yes(reason: Reason) -> Self {
        Self { allowed: true, reason }
    }

    const fn no(reason: Reason) -> Self {
        Self { allowed: false, reason }
    }
}

/// How far a bucket policy's Allow reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// It names the account: the account passes it on by its own policies.
    Account,
    /// It names the caller or everybody; of a session, within its session policy.
    Caller,
    /// It names the very session: session policies don't narrow it.
    Session,
}

impl<'a> Caller<'a> {
    fn account(&self) -> Option<&'a str> {
        match self {
            Self::Anonymous => None,
            Self::Root { account, .. } | Self::User { account, .. } => Some(account),
        }
    }

    fn canonical_id(&self) -> Option<&'a str> {
        match self {
            Self::Anonymous => None,
            Self::Root { canonical_id, .. } | Self::User { canonical_id, .. } => Some(canonical_id),
        }
    }

    fn session_policy(&self) -> Option<&'a Policy> {
        match self {
            Self::Anonymous => None,
            Self::Root { session_policy, .. } | Self::User { session_policy, .. } => *session_policy,
        }
    }

    /// How well a named principal fits.
    fn reach(&self, named: &NamedPrincipal) -> Option<Reach> {
        match named {
            NamedPrincipal::Everybody => Some(Reach::Caller),
            NamedPrincipal::Foreign(_) => None,
            NamedPrincipal::Canonical(id) => (self.canonical_id()? == id).then_some(match self {
                Self::Root { .. } => Reach::Caller,
                _ => Reach::Account,
            }),
            NamedPrincipal::Aws(PrincipalArn::Account(named)) => (self.account()? == named).then_some(match self {
                Self::Root { .. } => Reach::Caller,
                _ => Reach::Account,
            }),
            NamedPrincipal::Aws(PrincipalArn::User(named, user)) => match self {
                Self::User { account, name, role: None, .. } => {
                    (account == named && name == user).then_some(Reach::Caller)
                }
                _ => None,
            },
            NamedPrincipal::Aws(PrincipalArn::Role(named, wanted)) => match self {
                Self::User { account, role: Some(role), .. } => {
                    (account == named && role.role == wanted).then_some(Reach::Caller)
                }
                _ => None,
            },
            NamedPrincipal::Aws(PrincipalArn::Session(named, wanted, session)) => match self {
                Self::User { account, role: Some(role), .. } => {
                    // A session's ARN has the role's name without its path.
                    let name = role.role.rsplit('/').next().unwrap_or(role.role);
                    (account == named && name == wanted && role.session == session).then_some(Reach::Session)
                }
                _ => None,
            },
        }
    }

    fn reach_of(&self, statement: &Statement) -> Option<Reach> {
        match &statement.principal {
            None => Some(Reach::Caller),
            Some(PrincipalElement::These(named)) => named.iter().filter_map(|named| self.reach(named)).max(),
            Some(PrincipalElement::AllBut(named)) => {
                named.iter().all(|named| self.reach(named).is_none()).then_some(Reach::Caller)
            }
        }
    }
}

/// The first statement with this effect that covers the request.
fn covering<'p>(policy: &'p Policy, effect: Effect, request: &Request<'_>) -> Option<&'p Statement> {
    policy.statements.iter().find(|s| s.effect == effect && s.covers(request.action, request.resource, request.context))
}

/// Whether the request may be done.
#[must_use]
pub fn evaluate(request: &Request<'_>) -> Decision {
    let caller = &request.caller;
    let owns_bucket = request.bucket.is_some_and(|bucket| caller.account() == Some(bucket.owner_account));
    let own = request.bucket.is_none() && caller.account().is_some() || owns_bucket;

    // 1. Denies.
    if let Some(denied) = first_deny(request) {
        let keeps = matches!(request.action, "s3:GetBucketPolicy" | "s3:PutBucketPolicy" | "s3:DeleteBucketPolicy")
            && matches!(caller, Caller::Root { session_policy: None, .. })
            && owns_bucket;
        return if keeps { Decision::yes(Reason::RootKeepsPolicy) } else { Decision::no(denied) };
    }

    // 2. What the resource gives.
    let session_allows = match caller.session_policy() {
        None => true,
        Some(policy) => covering(policy, Effect::Allow, request).is_some(),
    };
    let given = resource_gives(request);
    let past_session = own && matches!(given, Some((Reach::Session, _)));
    // 3. What the caller's account gives.
    let identity = identity_gives(request);

    // 4. Together.
    let decision = match (given, identity) {
        (Some((Reach::Session, reason)), _) if own => Decision::yes(reason),
        (Some((Reach::Caller, reason)), _) if own || caller.account().is_none() => Decision::yes(reason),
        (_, Some(reason)) if own && may_own_object(request) => Decision::yes(reason),
        (Some((_, reason)), Some(_)) => Decision::yes(reason),
        (Some(_), None) if caller.account().is_some() => return Decision::no(Reason::OwnAccountDoesNotAllow),
        (None, Some(_)) => return Decision::no(Reason::BucketDoesNotAllow),
        _ => return Decision::no(Reason::NothingAllows),
    };
    if !session_allows && !past_session {
        return Decision::no(Reason::NotInSessionPolicy);
    }
    decision
}

fn first_deny(request: &Request<'_>) -> Option<Reason> {
    if let Caller::User { policies, .. } = request.caller
        && let Some(statement) = policies.iter().find_map(|policy| covering(policy, Effect::Deny, request))
    {
        return Some(Reason::DeniedByIdentityPolicy(statement.name.clone()));
    }
    if let Some(policy) = request.bucket.and_then(|bucket| bucket.policy) {
        let denies = |s: &&Statement| {
            s.effect == Effect::Deny
                && request.caller.reach_of(s).is_some()
                && s.covers(request.action, request.resource, request.context)
        };
        if let Some(statement) = policy.statements.iter().find(denies) {
            return Some(Reason::DeniedByBucketPolicy(statement.name.clone()));
        }
    }
    let session = request.caller.session_policy()?;
    covering(session, Effect::Deny, request).map(|statement| Reason::DeniedBySessionPolicy(statement.name.clone()))
}

/// The best that the bucket's policy and the ACLs give.
fn resource_gives(request: &Request<'_>) -> Option<(Reach, Reason)> {
    let bucket = request.bucket?;
    let caller = &request.caller;
    let outsider = caller.account() != Some(bucket.owner_account);
    let by_policy = bucket.policy.filter(|policy| {
        // A public policy of a restricted bucket gives outsiders nothing at all.
        let restricted = bucket.block.restrict_public_buckets && outsider && policy.is_public();
        // A bucket's policy says nothing of objects that belong to others.
        !restricted && object_is_the_buckets(request)
    });
    let by_policy = by_policy.and_then(|policy| {
        let fitting = policy.statements.iter().filter(|s| s.effect == Effect::Allow).filter_map(|s| {
            let reach = caller.reach_of(s)?;
            s.covers(request.action, request.resource, request.context).then_some((reach, s))
        });
        fitting.max_by_key(|(reach, _)| *reach)
    });
    if let Some((reach, statement)) = by_policy
        && reach > Reach::Account
    {
        return Some((reach, Reason::AllowedByBucketPolicy(statement.name.clone())));
    }
    if acl_gives(request, &bucket) {
        // Grants to a canonical user are to the account; its root has them, others by their policies.
        let direct = caller.account().is_none() || matches!(caller, Caller::Root { .. }) || by_group(request, &bucket);
        return Some((if direct { Reach::Caller } else { Reach::Account }, Reason::AllowedByAcl));
    }
    by_policy.map(|(reach, statement)| (reach, Reason::AllowedByBucketPolicy(statement.name.clone())))
}

/// Whether the ACL's grant is to a group and not to the caller's account alone.
fn by_group(request: &Request<'_>, bucket: &BucketAccess<'_>) -> bool {
    let stranger = Request { caller: Caller::Anonymous, ..*request };
    acl_gives(&stranger, bucket)
}

fn acl_gives(request: &Request<'_>, bucket: &BucketAccess<'_>) -> bool {
    if bucket.ownership == Ownership::BucketOwnerEnforced {
        return false;
    }
    let ignore_public = bucket.block.ignore_public_acls;
    let canonical_id = request.caller.canonical_id();
    let on_object = acl::of_object(request.action).is_some_and(|wanted| {
        request.object.is_some_and(|object| {
            // An object's owner can always see to its ACL.
            let owner = canonical_id == Some(object.acl.owner.as_str());
            let acp = matches!(wanted, Permission::ReadAcp | Permission::WriteAcp);
            (owner && acp) || object.acl.gives(wanted, canonical_id, ignore_public)
        })
    });
    let on_bucket =
        || acl::of_bucket(request.action).is_some_and(|wanted| bucket.acl.gives(wanted, canonical_id, ignore_public));
    on_object || on_bucket()
}

/// Whether the object belongs to the bucket's owner, as far as it matters: ACLs are off, or there is no such object.
fn object_is_the_buckets(request: &Request<'_>) -> bool {
    let (Some(bucket), Some(object)) = (request.bucket, request.object) else { return true };
    bucket.ownership == Ownership::BucketOwnerEnforced || object.acl.owner == bucket.acl.owner
}

/// The bucket's account may do everything with its own objects. With those of others: delete and overwrite them, no more.
fn may_own_object(request: &Request<'_>) -> bool {
    object_is_the_buckets(request) || acl::of_object(request.action).is_none()
}

/// What the caller's own account says.
fn identity_gives(request: &Request<'_>) -> Option<Reason> {
    match request.caller {
        Caller::Anonymous => None,
        Caller::Root { .. } => Some(Reason::Root),
        Caller::User { policies, .. } => policies
            .iter()
            .find_map(|policy| covering(policy, Effect::Allow, request))
            .map(|statement| Reason::AllowedByIdentityPolicy(statement.name.clone())),
    }
}

/// Whether a role's trust policy lets this caller assume it. The caller's own policies must allow `sts:AssumeRole` on the
/// role besides, unless the trust policy names the caller within the same account.
#[must_use]
pub fn role_can_be_assumed(
    trust: &Policy,
    role_account: &str,
    role_arn: &str,
    caller: Caller<'_>,
    context: &Context,
) -> bool {
    let action = "sts:AssumeRole";
    let request = Request { caller, action, resource: role_arn, context, bucket: None, object: None };
    let trusted = |effect: Effect| {
        trust
            .statements
            .iter()
            .filter(|s| s.effect == effect && s.covers(action, role_arn, context))
            .filter_map(|s| caller.reach_of(s))
            .max()
    };
    if trusted(Effect::Deny).is_some() || first_deny(&request).is_some() {
        return false;
    }
    let session_allows =
        caller.session_policy().is_none_or(|policy| covering(policy, Effect::Allow, &request).is_some());
    let same_account = caller.account() == Some(role_account);
    match trusted(Effect::Allow) {
        None => false,
        Some(Reach::Caller | Reach::Session) if same_account => session_allows,
        Some(_) => session_allows && identity_gives(&request).is_some(),
    }
}
