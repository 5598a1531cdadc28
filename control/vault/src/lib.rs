//! Encryption at rest: what turns objects' bytes into ciphertext and back, and the keys that it takes.
//!
//! **What.** Each object (or upload) has a random [`DataKey`]. It is stored beside the object, [sealed](DataKey::seal)
//! under one of three keys: the store's own ([`MasterKey`], SSE-S3), a named key of the [`KeyStore`] (SSE-KMS), or one
//! that the client sends with each request and nobody keeps ([`CustomerKey`], SSE-C). The bytes of each run of data are
//! cut into [segments](segment), each encrypted and authenticated by itself, so that a range is read without the rest.
//!
//! **Why so.** An envelope lets a key be rotated without rewriting data. Every key that encrypts is derived for one use
//! (HKDF over random salts and data ids, which never come back), so no nonce is ever used twice under one key whatever
//! is restored, retried or counted wrong.
//!
//! **How it fails.** [`VaultError`]. Bytes that were changed, cut off, swapped or belong to another object are
//! [`VaultError::Tampered`], and none of a segment's bytes are given out before all of it was checked. Formats:
//! `docs/formats/encryption.md`.
//!
//! Key material is in no `Debug`, no error and no log, and is wiped when dropped, but for the key schedules inside ring,
//! which it does not wipe.
#![forbid(unsafe_code)]

mod customer;
mod data_key;
mod derive;
mod error;
mod master;
pub mod segment;
mod store;

#[cfg(test)]
mod tests;

pub use customer::CustomerKey;
pub use data_key::{DataKey, SEALED_KEY_BYTES};
pub use error::VaultError;
pub use master::MasterKey;
pub use segment::{Geometry, SEGMENT_BYTES, SegmentKey, TAG_BYTES};
pub use store::{AWS_MANAGED_KEY, KeyInfo, KeyName, KeyStore};

/// What operations return.
pub type Result<T> = std::result::Result<T, VaultError>;
