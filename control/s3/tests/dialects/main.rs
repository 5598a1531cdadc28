//! Conformance to the dialects of S3 over RDMA (docs/protocol/dialects.md), by clients written from their specification: the
//! tokens, headers and checksums are made and read here, by code that shares nothing with penstock-rdma-wire.
//!
//! The queue pairs are those of [`penstock_rdma_front::MemFabric`], or with `PENSTOCK_RDMA_DEVICE=rxe0` real ones: the lab
//! runs this same program in a guest with soft-RoCE.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "../http/client.rs"]
#[allow(dead_code, reason = "the HTTP tests use the rest")]
mod client;
#[path = "../http/house.rs"]
#[allow(dead_code, reason = "the HTTP tests use the rest")]
mod house;
mod lab;
mod published;
mod published_refused;
mod rcv2;
mod rcv2_refused;
mod remote;
mod wire;
