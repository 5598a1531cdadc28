//! The client: S3 against any server; against ours, payload straight to and from the storage nodes.
//!
//! **What.** [`Client`] signs requests (SigV4), keeps connections, and has `get`, `get_into`, `get_many`, `get_ranges_into`, `get_stream`,
//! `put` and `upload` (in parallel parts when it is long), `head`, `delete`, `delete_many`, `copy`, `list` and `presign`. Where the
//! server speaks `penstock-native-1` (`docs/protocol/native.md`) a GET or PUT is answered with a *plan*, and the executor in
//! this process moves the shards itself; elsewhere, and whenever a plan does not work out, the request goes over plain HTTP.
//! [`Client::stats`] has the bytes by transport and the reasons of every fallback; [`ClientOptions::require_plan`] makes a
//! fallback an error. With the feature `object_store`, the module of that name has arrow-rs's trait.
//!
//! **What is promised.** Bytes that are returned were checked: by plan against every shard's checksum, over HTTP against the
//! object's where the server has one and the whole object was asked for. Wrong bytes are read again, and are an error when
//! they stay wrong. Short data is an error. A connection that drops is taken up again where it broke off, under `If-Match`,
//! so that no answer is ever sewn together from two objects. Every wait is bounded: [`ClientOptions`] names the bounds.
//!
//! **Copies.** `copied_bytes` in the statistics counts them. [`Client::get`] returns pool memory in which the bytes have
//! landed: none are copied. [`Client::region`] makes memory that nodes can be lent, as long as an object may be:
//! [`Client::get_into_buffer`] has them write into it, each shard in its place, and [`Client::put_buffer`] has them read from
//! it, with no copy at all while all is well. `get_into`, into any memory, reads HTTP bodies straight into it; by plan it
//! copies once, from where they were checked, because memory that a caller may take back at any time can't be lent. `put`,
//! from any memory, copies once. No HEAD goes before a GET.
//!
//! **How it fails.** [`ClientError`]: what is wrong, whether it may pass, and what to do.
#![forbid(unsafe_code)]

mod bucket;
mod checks;
mod client;
mod copy;
pub mod credentials;
mod delete;
mod error;
mod hedge;
mod http;
mod landing;
mod lent;
mod list;
mod messenger;
mod multipart;
mod object;
#[cfg(feature = "object_store")]
pub mod object_store;
mod options;
mod plain;
mod plan;
mod put;
mod read;
mod rest;
pub mod sign;
mod stats;
mod upload;
mod xml;

pub use bucket::Bucket;
pub use checks::Verify;
pub use client::Client;
pub use copy::{CopyOptions, CopySource};
pub use credentials::{Credentials, CredentialsError, CredentialsProvider};
pub use delete::{DeleteKey, DeleteOutcome};
pub use error::{ClientError, ErrorKind, Refusal};
pub use hedge::HedgeOptions;
pub use list::{ListEntry, ListOptions, ListPage};
pub use multipart::{OpenUpload, Part, UploadId};
pub use object::{Body, ByteRange, GetOptions, Object, ObjectInfo, PutDone, PutOptions, modified_time};
pub use options::{ClientOptions, Endpoint, Mode, region_from, region_from_environment};
pub use penstock_buf::{Buf, BufMut, BufPool};
pub use penstock_transport::Dialer;
pub use stats::ClientStats;
pub use upload::Upload;
