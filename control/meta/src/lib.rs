//! Buckets, objects and uploads as rows over one ordered, transactional key-value trait.
//!
//! * [`kv`] is the trait, shaped like FoundationDB's, with the engines behind it (`mem`, `fjall`), the fault injector
//!   and the conformance suite that all of them pass. It knows bytes, not buckets.
//! * [`tables`] is the schema on top: which key holds what, how a row is encoded, what one S3 operation changes in one
//!   transaction.
//!
//! Why one trait: every mutation of the store is one strictly serialisable transaction, so the layers above reason
//! about one transaction at a time and never about interleavings. How it fails: [`kv::KvError`] says whether running
//! the transaction again may help, and [`kv::transact`] does that, bounded.
#![forbid(unsafe_code)]

pub mod kv;
pub mod tables;
