//! A policy, parsed.

use crate::condition::Condition;
use crate::context::Context;
use crate::error::PolicyError;
use crate::pattern::Pattern;
use crate::principal::{NamedPrincipal, PrincipalElement};

/// What a policy hangs on, and so what it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind<'a> {
    /// A user's or a role's own policy: no Principal.
    Identity,
    /// A policy given when temporary credentials were asked for: as [`PolicyKind::Identity`], but it only takes away.
    Session,
    /// A bucket's policy: Principal needed, S3's actions only, and resources of that bucket alone.
    Bucket(&'a str),
    /// A role's trust policy: Principal needed, no Resource.
    Trust,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allow.
    Allow,
    /// Deny: stronger than any Allow.
    Deny,
}

/// A policy that was understood in full.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub(crate) statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    /// Its `Sid`, or its number in brackets: what reasons call it.
    pub(crate) name: String,
    pub(crate) effect: Effect,
    pub(crate) principal: Option<PrincipalElement>,
    pub(crate) actions: Patterns<Pattern>,
    pub(crate) resources: Patterns<ArnPattern>,
    pub(crate) conditions: Vec<Condition>,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Patterns<P> {
    These(Vec<P>),
    AllBut(Vec<P>),
}

impl<P> Patterns<P> {
    fn cover(&self, matches: impl Fn(&P) -> bool) -> bool {
        match self {
            Self::These(patterns) => patterns.iter().any(matches),
            Self::AllBut(patterns) => !patterns.iter().any(matches),
        }
    }
}

/// A pattern of an ARN: each of its six parts is a pattern of its own, so that no wildcard reaches over a colon of the first
/// five.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ArnPattern {
    /// `*` alone.
    Any,
    Parts(Box<[Pattern; 6]>),
}

impl ArnPattern {
    pub(crate) fn new(text: &str, variables: bool) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let parts: [&str; 6] = parts.try_into().map_err(|_| format!("{text:?} is not an ARN"))?;
        if parts[0] != "arn" {
            return Err(format!("{text:?} is not an ARN: it must start with \"arn:\", or be \"*\""));
        }
        let mut patterns = Vec::with_capacity(6);
        for part in parts {
            patterns.push(Pattern::new(part, true, variables)?);
        }
        let patterns: [Pattern; 6] = patterns.try_into().map_err(|_| format!("{text:?} is not an ARN"))?;
        Ok(Self::Parts(Box::new(patterns)))
    }

    pub(crate) fn matches(&self, arn: &str, context: &Context) -> bool {
        let Self::Parts(patterns) = self else { return true };
        let mut parts = arn.splitn(6, ':');
        patterns.iter().all(|pattern| parts.next().is_some_and(|part| pattern.matches(part, context, false)))
            && parts.next().is_none()
    }

    /// The last part: for S3, `bucket` or `bucket/key`.
    pub(crate) fn relative(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Parts(patterns) => patterns[5].text(),
        }
    }
}

impl Statement {
    /// Whether it speaks of this action on this resource under these conditions. Its principal is the caller's business.
    pub(crate) fn covers(&self, action: &str, resource: &str, context: &Context) -> bool {
        self.actions.cover(|pattern| pattern.matches(action, context, true))
            && self.resources.cover(|pattern| pattern.matches(resource, context))
            && self.conditions.iter().all(|condition| condition.holds(context))
    }
}

impl Policy {
    /// Parses a document.
    ///
    /// # Errors
    /// The first element that is not understood.
    pub fn parse(text: &str, kind: PolicyKind<'_>) -> Result<Self, PolicyError> {
        crate::parse::policy(text, kind)
    }

    /// All principals that it names: those who store it check that they exist.
    pub fn principals(&self) -> impl Iterator<Item = &NamedPrincipal> {
        self.statements.iter().filter_map(|statement| statement.principal.as_ref()).flat_map(|element| match element {
            PrincipalElement::These(principals) | PrincipalElement::AllBut(principals) => principals.iter(),
        })
    }

    /// Whether any of its conditions asks for this key or one that starts so (`s3:ExistingObjectTag/`): whoever evaluates
    /// it reads what that needs, and nothing where it is not asked.
    #[must_use]
    pub fn mentions(&self, key_prefix: &str) -> bool {
        let starts = |key: &str| key.get(..key_prefix.len()).is_some_and(|k| k.eq_ignore_ascii_case(key_prefix));
        self.statements.iter().flat_map(|statement| &statement.conditions).any(|condition| starts(&condition.key))
    }
}
