//! The S3 front: HTTP, SigV4 and XML in, typed gateway operations out.
//!
//! A request passes five doors, in this order, and each can only shut it out:
//!
//! 1. [`server`]: hyper speaks HTTP/1.1; connections, heads, silences and the drain at the end are bounded.
//! 2. [`gate`]: which of *our* operations is this? Every query key and every `x-amz-*` header must be one that the
//!    operation knows. What is not known is refused by name, so that nothing falls through to PutObject or ListObjects.
//! 3. [`auth`]: s3s checks the signature (SigV4 in headers or query) and takes `aws-chunked` bodies apart. Only then is
//!    what the gate refused answered, so that strangers learn nothing; strangers may do what a bucket's policy gives to everybody.
//! 4. [`access`]: may the caller do this? Policies, accounts, the public access block.
//! 5. [`ops`]: the operation, against the gateway.
//!
//! s3s stays behind this crate: none of its types is in the public interface. Errors are [`failure::Failure`]s inside,
//! AWS's XML outside.

#![forbid(unsafe_code)]

mod access;
mod auth;
mod cors;
mod counts;
mod delivery;
mod exchange;
mod failure;
mod gate;
mod journal;
mod keep;
mod kms;
mod offload;
mod ops;
mod options;
mod peer;
mod post;
mod query;
mod rate;
mod respond;
mod server;
mod stall;
mod storage;
mod streams;
mod tls;
mod wire;
mod xml;

pub use counts::RequestCounts;
pub use options::FrontOptions;
pub use server::{serve, take_address};
pub use tls::{RELOAD_INTERVAL, ReloadingTls, TlsFiles};
