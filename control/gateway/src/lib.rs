//! S3 operations as metadata transactions, placement and stripe plans.
//!
//! The gateway decides: which bytes go where, which row says so, who sees it when. It moves no shard itself (the
//! executor does) and speaks no HTTP (control/s3 does).
#![forbid(unsafe_code)]

pub mod api;
pub mod error;
