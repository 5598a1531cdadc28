//! Whether a bucket policy is public, in the sense of "The meaning of 'public'" (S3 User Guide, Blocking public access):
//! a policy is public unless each of its Allow statements names its principals, or is narrowed by a condition on one of a
//! few keys with values that are the same for every request.

use std::net::IpAddr;

use crate::condition::SetRule;
use crate::document::{Effect, Policy, Statement};
use crate::operators::{Operand, Operator};
use crate::principal::{NamedPrincipal, PrincipalElement};

/// Keys whose fixed values narrow a statement to somebody.
const NARROWING: &[&str] = &[
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalOrgID",
    "aws:PrincipalOrgPaths",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:SourceVpc",
    "aws:SourceVpce",
    "aws:userid",
    "s3:DataAccessPointAccount",
    "s3:DataAccessPointArn",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
];

impl Policy {
    /// Whether it gives anything to the public.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(is_public)
    }
}

fn is_public(statement: &Statement) -> bool {
    let everybody = match &statement.principal {
        Some(PrincipalElement::These(named)) => named.contains(&NamedPrincipal::Everybody),
        // Allow with NotPrincipal is refused; were it not, it would be about nearly everybody.
        Some(PrincipalElement::AllBut(_)) => true,
        None => false,
    };
    statement.effect == Effect::Allow && everybody && !statement.conditions.iter().any(narrows)
}

fn narrows(condition: &crate::condition::Condition) -> bool {
    if condition.if_exists || condition.set == SetRule::ForAll || condition.values.is_empty() {
        return false;
    }
    let is = |key: &str| condition.key.eq_ignore_ascii_case(key);
    match condition.operator {
        Operator::IpAddress if is("aws:SourceIp") => condition.values.iter().all(is_small_network),
        Operator::StringEquals | Operator::StringEqualsIgnoreCase | Operator::StringLike | Operator::Arn => {
            NARROWING.iter().any(|key| is(key)) && condition.values.iter().all(is_fixed)
        }
        _ => false,
    }
}

/// Blocks wider than /8 (IPv4) and /32 (IPv6) are the public; so is what covers all of the internet that is not private.
fn is_small_network(operand: &Operand) -> bool {
    match operand {
        Operand::Network(IpAddr::V4(_), bits) => *bits >= 8,
        Operand::Network(IpAddr::V6(_), bits) => *bits >= 32,
        _ => false,
    }
}

fn is_fixed(operand: &Operand) -> bool {
    match operand {
        Operand::Text(pattern) => pattern.is_fixed(),
        Operand::Arn(crate::document::ArnPattern::Parts(parts)) => parts.iter().all(crate::pattern::Pattern::is_fixed),
        _ => false,
    }
}
