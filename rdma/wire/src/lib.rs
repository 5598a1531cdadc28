//! The dialects of S3 over RDMA that exist in the field, as pure code: tokens, headers, sessions. No I/O, no clock of its
//! own, no allocation that a client could make large.
//!
//! **What.** [`EndpointToken`] (88 hex digits), [`DcDescriptor`] (81 characters), [`RcToken`] (`rc:...`), told apart by
//! [`ObjectToken`]; the calls of hipobj-rc-v2 ([`rcv2`]) and of the RC shim ([`shim`]); the CRC64NVME that goes with
//! them ([`checksum`]); which of our GIDs answers which of the client's ([`gid`]); and who may hold how much for how long
//! ([`sessions`]). `docs/protocol/dialects.md` says what of it is served.
//!
//! **How it fails.** [`WireError`], whose message names the header and says what it should be. Nothing panics on any input: the
//! property tests and `tests/fuzz.rs` are there for that.
#![forbid(unsafe_code)]

pub mod checksum;
mod descriptor;
mod endpoint;
mod error;
pub mod gid;
mod headers;
mod hex;
pub mod names;
mod object_token;
mod rc_token;
pub mod rcv2;
pub mod sessions;
pub mod shim;

#[cfg(test)]
mod tests;

pub use descriptor::DcDescriptor;
pub use endpoint::{EndpointToken, TRANSPORT_DC, TRANSPORT_RC};
pub use error::WireError;
pub use gid::{Family, Gid};
pub use object_token::ObjectToken;
pub use rc_token::{RcToken, SessionId};
