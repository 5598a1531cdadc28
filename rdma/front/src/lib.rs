//! Serves the dialects of S3 over RDMA that clients speak today: hipobj-rc-v2, and the published `x-amz-rdma-*` semantics over
//! the connections of the RC shim. What we can't serve (DC descriptors, v1 tokens, everything when there is no device) is
//! declined in the form that each client understands. `docs/protocol/dialects.md` is the table of it all.
//!
//! **What.** [`RdmaFront`] implements [`penstock_offload::Dialects`]: penstock-rdma-wire parses and keeps the tables, a
//! [`Nic`] has the queue pairs: [`VerbsNic`] is a real one, [`MemNic`] one in this process, for tests of everything that a
//! client can see.
//!
//! **What clients may rely on.** A PUT with a token moves its bytes or fails: never an empty object. A failure is answered
//! after the queue pair is in its error state: nothing is written to the client's memory any more. Our queue pairs grant
//! clients no remote access but hipobj-rc-v2's PUT, which writes into memory that only that session has.
//!
//! **How it fails.** Every wait has a deadline ([`RdmaOptions`]), every table a bound; past a bound it is 503 with
//! Retry-After. Each decline has a [`Reason`], is counted in [`RdmaStats`] and logged.
#![forbid(unsafe_code)]

mod crc;
mod front;
mod link;
mod mem;
mod nic;
mod options;
mod rcv2;
mod replies;
mod shim;
mod stats;
mod verbs;

pub use front::RdmaFront;
pub use mem::{MemFabric, MemNic, MemState};
pub use nic::{Nic, NicError, Peer, PeerAccess, QueuePair, Received, Transfer, Window};
pub use options::RdmaOptions;
pub use stats::{RdmaStats, Reason};
pub use verbs::VerbsNic;
