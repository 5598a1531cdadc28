//! RDMA verbs, safely.
//!
//! **What.** [`Device`]s and their ports; a [`Domain`] (protection domain, completion queue on tokio's reactor,
//! registrations); RC [`QueuePair`]s with WRITE, WRITE WITH IMMEDIATE, READ, SEND, receives of their own or
//! [`SharedReceive`]; [`Lease`]s, by type-2 memory window or by a registration of their own; dma-bufs.
//!
//! **Why so.** libibverbs is loaded when it is first needed, so that one binary builds, starts and passes its tests with
//! no rdma-core at all ([ADR 9](../../../docs/adr/0009-verbs.md)). An operation *owns* its memory and gives it back
//! with its result: what a dropped future leaves behind stays with the queue pair until the device has done with it.
//! Memory that a peer may reach is owned by its lease until the peer can't any more. So no cancellation, timeout or
//! error can free memory under a network card.
//!
//! **How it fails.** [`VerbsError`]: every errno and completion status says what to do. A queue pair fails as a whole and
//! is in ERR before anybody is told. Retries are finite, so an operation ends; but a receive waits for its message, and
//! a deadline for that is the caller's.
//!
//! This is the unsafe room of `rdma`: nothing outside of it needs unsafe code, but for [`Foreign`] memory.

mod abi;
mod completion;
mod device;
mod domain;
mod error;
mod gid;
mod lease;
mod library;
mod memory;
mod operation;
mod post;
mod queue_pair;
mod registrations;
mod shared_receive;
mod state;
mod work;

pub use device::{Device, DeviceAttributes, Mtu, PortAttributes};
pub use domain::Domain;
pub use error::{Refused, Status, Verb, VerbsError};
pub use gid::{Gid, GidEntry, GidFamily, GidKind, choose_gid, preferred_gid};
pub use lease::{Lease, Remote, Rights};
pub use memory::{Dmabuf, Foreign, Local, Readable, Writable};
pub use operation::{Done, Finished, Receiving};
pub use queue_pair::{Access, Connect, FLUSH_WAIT, QpOptions, QueuePair, Timing, random_psn};
pub use shared_receive::{Arrival, SharedReceive, SharedReceiveHandle};
pub use state::{Attribute, Needs, QpState, transition};
pub use work::{PIECE_BYTES_MAX, Part};
