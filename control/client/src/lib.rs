//! The client: S3 against any server; against ours, payload straight to and from the storage nodes.
//!
//! **What.** [`Client`] signs requests (SigV4), keeps connections, and has `get`, `get_into`, `get_many`, `get_ranges_into`,
//! `put` (in parallel parts when it is long), `head`, `delete` and `list`. Where the server speaks `penstock-native-1`
//! (`docs/protocol/native.md`) a GET or PUT is answered with a *plan*, and the executor in this process moves the shards
//! itself; elsewhere, and whenever a plan does not work out, the request goes over plain HTTP. [`Client::stats`] has the bytes by
//! transport and the reasons of every fallback; [`ClientOptions::require_plan`] makes a fallback an error.
//!
//! **What is promised.** Bytes that are returned were checked: by plan against every shard's checksum, over HTTP against the
//! object's CRC64NVME where the server has one and the whole object was asked for. Short data is an error. A connection that
//! drops is taken up again where it broke off, under `If-Match`, so that no answer is ever sewn together from two objects.
//! Every wait is bounded: [`ClientOptions`] names the bounds.
//!
//! **Copies.** [`Client::get`] returns pool memory in which the bytes have landed: none are copied (`copied_bytes` in the
//! statistics counts those that were). `get_into` reads HTTP bodies straight into the caller's memory; by plan it copies
//! once, from where they were checked.
//!
//! **How it fails.** [`ClientError`]: what is wrong, whether it may pass, and what to do.
#![forbid(unsafe_code)]

mod client;
pub mod credentials;
mod error;
mod http;
mod list;
mod messenger;
mod multipart;
mod object;
mod options;
mod plain;
mod plan;
mod sign;
mod stats;
mod xml;

pub use client::Client;
pub use credentials::{Credentials, CredentialsError, CredentialsProvider};
pub use error::ClientError;
pub use list::{ListEntry, ListOptions};
pub use messenger::Dialer;
pub use object::{Body, Object, ObjectInfo, PutDone, PutOptions};
pub use options::{ClientOptions, Endpoint, Mode};
pub use stats::ClientStats;
