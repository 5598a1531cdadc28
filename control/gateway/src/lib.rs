//! S3 operations as metadata transactions, placement and stripe plans.
//!
//! The gateway decides: which bytes go where, which row says so, who sees it when. It moves no shard itself (the
//! executor does) and speaks no HTTP (control/s3 does).
//!
//! **What.** [`Gateway`] has a method per S3 operation; [`api`] has their requests and answers.
//!
//! **The order that everything hangs on.** Shards are durable, then the metadata transaction commits, then the client is
//! answered. An object is visible if and only if its row is committed; until then its data is pending, and whoever drops
//! it, a failed request or a client that went away, drops it as garbage (`pending`). What a commit replaces becomes
//! garbage in the same transaction, and the collector deletes it (`garbage`) when no reader can be at it any more
//! (`leases` here, a grace elsewhere).
//!
//! **Small objects** share extents: many bodies, one stripe, one transaction (`pack`).
//!
//! **Memory.** A body takes a few chunks of the executor's buffers, in or out, however long it is (`write`, `read`); how
//! many requests there are at a time is bounded too. Past a bound the answer is SlowDown.
//!
//! **How it fails.** [`error::Error`]: S3's code and a sentence for a person.
#![forbid(unsafe_code)]

pub mod api;
mod attributes;
mod body;
mod bucket_settings;
mod buckets;
mod checksums;
mod conditions;
mod convert;
mod copy;
pub mod encryption;
pub mod error;
mod etag;
pub mod events;
mod garbage;
mod gateway;
mod hashing;
mod leases;
pub mod lifecycle;
mod locks;
mod marks;
mod multipart;
mod names;
mod objects;
mod options;
mod pack;
mod pending;
mod placing;
pub mod plan;
mod plan_commit;
mod plan_holds;
pub mod policies;
mod ranges;
mod read;
mod rename;
pub mod tags;
mod traffic;
pub mod upkeep;
mod versions;
mod write;

pub use garbage::Collected;
pub use gateway::{Gateway, Load, Usage};
pub use options::{GatewayOptions, PLAN_INLINE_BYTES_MAX};
pub use pack::{PackOptions, PackStats, Packed};
pub use traffic::GatewayStats;
