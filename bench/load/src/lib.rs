//! A load generator for any S3 endpoint: ours, AWS, RGW, MinIO, or a lying one.
//!
//! **What.** [`Load::prepare`] puts the objects that a run reads; [`Load::run`] sends a mix of PUT, GET, HEAD, LIST and
//! DELETE over 1 to [`CONNECTIONS_MAX`] connections, in a *closed loop* (each connection sends its next request when it
//! has the answer to the last) or an *open loop* (requests are due at a constant rate, whatever the server does, and
//! latency counts from when they were due: a server that stalls is charged for every request that should have come
//! meanwhile). The answer is a [`Report`], as JSON too.
//!
//! **Why our own.** A server's cost is measured on the machine that the client runs on, so the client must be cheap: one
//! signature per request, bodies that are slices of one piece of memory, answers compared as they come and kept
//! nowhere. And a benchmark must not believe its server: every byte of every answer is checked against what was put.
//!
//! **How it fails.** An endpoint that refuses, stalls, breaks off, answers with an error or with other bytes is counted
//! by kind ([`FailureKind`]) and never as throughput: operations, bytes and latencies are of successes alone. Only a
//! [`Spec`] that makes no sense, and a preparation that failed, are errors.
#![forbid(unsafe_code)]

mod arguments;
mod content;
mod cpu;
mod error;
mod http;
mod operations;
mod report;
mod run;
mod sign;
mod spec;

#[cfg(test)]
mod tests;

pub use arguments::LoadArguments;
pub use cpu::{CpuUse, cpu_seconds};
pub use error::{FailureKind, LoadError};
pub use report::{Failures, OpReport, Report, latency_histogram};
pub use run::Load;
pub use spec::{
    CONNECTIONS_MAX, Endpoint, Keys, Mix, OBJECT_BYTES_MAX, OBJECTS_MAX, Operation, PART_BYTES_MIN, Pace, RATE_MAX,
    Sizes, Spec,
};
