//! Who made a request, as policies see it.

use std::sync::Arc;

use penstock_policy::{Caller, Context, Policy, PrincipalArn, RoleSession};

/// An account, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) canonical_id: String,
    pub(crate) name: String,
    pub(crate) created_unix_s: u64,
}

/// Which of an account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Its root.
    Root,
    /// A user: name and path.
    User(String, String),
    /// A role's session: role, path, session.
    Role(String, String, String),
}

/// Somebody whose signature was good.
#[derive(Clone, Debug)]
pub struct Principal {
    pub(crate) account: Arc<Account>,
    /// Which of the account's.
    pub who: Who,
    /// Name with path, as ARNs have it, without the leading slash.
    pub(crate) full_name: String,
    /// `aws:userid`.
    pub(crate) user_id: String,
    pub(crate) policies: Arc<[Policy]>,
    pub(crate) session_policy: Option<Arc<Policy>>,
    /// When temporary credentials were issued.
    pub(crate) issued_unix_s: Option<u64>,
    /// Whether they came from GetSessionToken.
    pub(crate) session_token: bool,
}

impl Principal {
    /// The account's id: twelve digits.
    #[must_use]
    pub fn account_id(&self) -> &str {
        &self.account.id
    }

    /// The account's canonical id: what ACLs and listings call it.
    #[must_use]
    pub fn canonical_id(&self) -> &str {
        &self.account.canonical_id
    }

    /// `aws:userid`.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// The account's name.
    #[must_use]
    pub fn account_name(&self) -> &str {
        &self.account.name
    }

    /// Whether it is a root that nothing narrows.
    #[must_use]
    pub fn is_whole_root(&self) -> bool {
        self.who == Who::Root && self.session_policy.is_none()
    }

    /// `aws:PrincipalArn`: of a session, its role's.
    #[must_use]
    pub fn arn(&self) -> PrincipalArn {
        let account = self.account.id.clone();
        match &self.who {
            Who::Root => PrincipalArn::Account(account),
            Who::User(..) => PrincipalArn::User(account, self.full_name.clone()),
            Who::Role(..) => PrincipalArn::Role(account, self.full_name.clone()),
        }
    }

    /// What GetCallerIdentity says: of a session, the session's.
    #[must_use]
    pub fn caller_arn(&self) -> PrincipalArn {
        match &self.who {
            Who::Role(role, _, session) => {
                PrincipalArn::Session(self.account.id.clone(), role.clone(), session.clone())
            }
            _ => self.arn(),
        }
    }

    /// As policies are evaluated for it.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        let (account, canonical_id) = (self.account.id.as_str(), self.account.canonical_id.as_str());
        let session_policy = self.session_policy.as_deref();
        match &self.who {
            Who::Root => Caller::Root { account, canonical_id, session_policy },
            Who::User(..) => Caller::User {
                account,
                canonical_id,
                name: &self.full_name,
                role: None,
                policies: &self.policies,
                session_policy,
            },
            Who::Role(_, _, session) => Caller::User {
                account,
                canonical_id,
                name: "",
                role: Some(RoleSession { role: &self.full_name, session }),
                policies: &self.policies,
                session_policy,
            },
        }
    }

    /// Sets the condition keys that are about the caller.
    pub fn describe(&self, context: &mut Context) {
        context
            .set("aws:PrincipalArn", self.arn().to_string())
            .set("aws:PrincipalAccount", &self.account.id)
            .set("aws:userid", &self.user_id)
            .set(
                "aws:PrincipalType",
                match self.who {
                    Who::Root => "Account",
                    Who::User(..) => "User",
                    Who::Role(..) => "AssumedRole",
                },
            );
        if let Who::User(name, _) = &self.who {
            context.set("aws:username", name);
        }
        if let Some(issued) = self.issued_unix_s {
            context.set("aws:TokenIssueTime", issued.to_string()).set("aws:MultiFactorAuthPresent", "false");
        }
    }

    /// Whether any policy of the caller's own asks for a key that starts so.
    #[must_use]
    pub fn mentions(&self, key_prefix: &str) -> bool {
        self.policies.iter().any(|policy| policy.mentions(key_prefix))
            || self.session_policy.as_ref().is_some_and(|policy| policy.mentions(key_prefix))
    }
}
