//! The data plane's transport over RDMA: messages by SEND, payload by READ and WRITE of the caller's memory.
//!
//! **What.** [`RdmaMessenger`] is the executor's side ([`RdmaDialer`] where nodes are only named by plans), [`RdmaNode`] the
//! node's: it wraps the node's handler and is given
//! to `serve_tcp` in its place. The two meet by one call over the TCP transport, which carries each side's queue pair,
//! address and MTU ([formats/rdma-transport.md](../../../docs/formats/rdma-transport.md)); from then on calls go over the
//! queue pair, many at a time, each in a slot that was agreed on. What is small travels inside the messages.
//!
//! **Why so.** The node only ever reaches for memory that a call has lent it, by a key that is good for that memory, that
//! direction and (by window) that queue pair, and that is taken back before the caller has its buffer again. The bootstrap
//! is authenticated as TCP calls are: not at all, and every request carries a capability that the node checks.
//!
//! **How it fails.** As the traits say. A call that is given up leaves its memory with the connection until the node has
//! answered or the queue pair is destroyed, so nothing is ever written late. A connection that breaks is fenced first and
//! reported then; the call is sent once more on a fresh one. Without RDMA on either side calls go over TCP, and
//! the reason is logged once and counted; [`RdmaMode::Require`] makes it an error.
#![forbid(unsafe_code)]

mod bootstrap;
mod connection;
mod dialer;
mod link;
mod memory;
mod message;
mod messenger;
mod peer;
mod server;

pub use dialer::RdmaDialer;
pub use messenger::{RdmaCounts, RdmaMessenger, RdmaMode, RdmaOptions};
pub use server::{RdmaNode, RdmaNodeCounts, RdmaNodeOptions};

use penstock_verbs::Timing;
/// The device's side of it, for whoever puts a process together.
pub use penstock_verbs::{Device, Domain, VerbsError};

/// Calls of one connection at a time.
const SLOTS: u16 = 16;
/// READs of one connection at a time, at most.
const READ_DEPTH: u8 = 16;

/// A peer that does not acknowledge for 7 x 0.54 s is dead: long enough for an emulated guest on a busy machine, far
/// shorter than a call's deadline.
const TIMING: Timing = Timing { timeout: 17, retry: 6, rnr_retry: 6, min_rnr_timer: 12 };

/// The ports to use: those named, as `device` or `device:port`, or every active port of every device.
///
/// # Errors
/// Of a named port: why it can't be used. Without names: why there is none.
pub fn rails(names: &[String]) -> Result<Vec<Domain>, VerbsError> {
    if !names.is_empty() {
        return names.iter().map(|name| rail(name)).collect();
    }
    let mut rails = Vec::new();
    let mut why = VerbsError::NoDevices;
    for name in Device::list()? {
        let device = match Device::open(&name) {
            Ok(device) => device,
            Err(error) => {
                why = error;
                continue;
            }
        };
        for port in 1..=device.attributes().ports {
            match Domain::open(&device, port) {
                Ok(domain) => rails.push(domain),
                Err(error) => why = error,
            }
        }
    }
    if rails.is_empty() { Err(why) } else { Ok(rails) }
}

fn rail(name: &str) -> Result<Domain, VerbsError> {
    match name.split_once(':') {
        None => Domain::first_of(name),
        Some((device, port)) => {
            let port =
                port.parse().map_err(|_| VerbsError::Bounds { what: format!("{name:?} as a port: write device:1") })?;
            Domain::open(&Device::open(device)?, port)
        }
    }
}
