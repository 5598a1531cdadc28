//! Who may do what.
//!
//! **What.** Parses AWS's policy language ([`Policy::parse`]: strict, and an error names the element), knows S3's actions,
//! resources and condition keys ([`needs`]: what an operation asks for), ACLs and the public access block, and decides in
//! one pure function ([`evaluate`]): a request in, a [`Decision`] with its reason out.
//!
//! **Why pure.** Access is the one thing that must not depend on where or when it is asked. There is no I/O, no clock and no
//! state here: the caller hands in everything, the time included, so every rule is a row of a table in a test.
//!
//! **How it fails.** A document that is not understood to its last element is refused when it is stored, not when it is
//! used. Evaluation can't fail: what is missing (a condition key, a variable) makes a statement match less, as AWS has it,
//! and without an Allow there is no access.
//!
//! Sources: the IAM User Guide's "Policy evaluation logic", "IAM JSON policy elements" and "Condition operators"; the S3 User
//! Guide's "Access control list overview", "Blocking public access" and "Controlling ownership of objects".

#![forbid(unsafe_code)]

mod acl;
mod actions;
mod condition;
mod context;
mod document;
mod error;
mod evaluate;
mod json;
mod keys;
mod operators;
mod parse;
mod pattern;
mod principal;
mod public;

#[cfg(test)]
mod tests;

pub use acl::{Acl, CannedAcl, Grant, Grantee, Ownership, Permission};
pub use actions::{Facts, Need, On, is_known_action, needs, operations};
pub use context::Context;
pub use document::{Effect, Policy, PolicyKind};
pub use error::PolicyError;
pub use evaluate::{
    BucketAccess, Caller, Decision, ObjectAccess, PublicAccessBlock, Reason, Request, RoleSession, evaluate,
    role_can_be_assumed,
};
pub use principal::{NamedPrincipal, PrincipalArn};

/// Longest bucket policy in bytes: S3's.
pub const BUCKET_POLICY_BYTES_MAX: usize = 20 << 10;
/// Longest policy of a user, role or session, in bytes: IAM's for a role's inline policies.
pub const IDENTITY_POLICY_BYTES_MAX: usize = 10_240;
/// Most statements of one policy. IAM has no such bound but that of the bytes, in which no more than this fit.
pub const STATEMENTS_MAX: usize = 512;
