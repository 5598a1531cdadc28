//! The client against a real server: by plan, over HTTP, and when things go wrong.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod house;
mod http;
mod lent;
mod plans;
#[cfg(feature = "object_store")]
mod store;
mod trouble;
mod wide;
