//! Who there is: accounts, their users and roles, access keys, temporary credentials.
//!
//! **What.** [`Identities`] holds all of it in memory, parsed, and in the metadata, with every secret sealed. It answers the
//! front's two questions, both without waiting: which secret has this access key ([`Identities::secret_of`]), and who is it
//! ([`Identities::principal`]). [`Identities::call`] is the part of IAM and STS that manages it (AWS's query protocol).
//!
//! **Why in memory.** Every request asks; there are thousands of identities at most. A change is written first and shown
//! then. One gateway serves a metadata store today; several would need to hear of each other's changes.
//!
//! **Temporary credentials are not stored.** A session token is its own record, sealed: who it speaks for, until when, within
//! which session policy. The secret is derived from the access key, so that the signature can be checked first. Whose user
//! or role is gone is nobody: policies are looked up at each request.
//!
//! **How it fails.** [`IdentityError`] with AWS's codes. A token that is not ours, is another key's or has expired opens nothing.

#![forbid(unsafe_code)]

mod call;
mod directory;
mod error;
mod params;
mod principal;
mod rows;
mod seal;
mod secret;
mod session;
#[cfg(test)]
mod tests;
mod xml;

pub use call::{Answered, Service};
pub use directory::{Identities, RootAccount};
pub use error::{ErrorKind, IdentityError};
pub use params::Params;
pub use principal::{Principal, Who};
pub use seal::MasterKey;
pub use secret::Secret;

/// The format of an access key that somebody chose: as IAM has them.
pub const ACCESS_KEY_ID_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
