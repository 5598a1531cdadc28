//! What the dialects need of an RDMA device. Small on purpose: one registered window and one expected message per queue pair.
//!
//! It is symmetric (a client needs the same), so that the conformance tests' clients stand on it too, over memory and over
//! verbs.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use penstock_rdma_wire::Gid;

/// Why a queue pair or a transfer failed. After an error of a transfer the queue pair is in its error state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NicError {
    /// The device has no more of something.
    #[error("the RDMA device is out of resources: {0}")]
    Full(String),
    /// The transfer failed: the other side is gone, or does not allow it.
    #[error("RDMA transfer failed: {0}")]
    Transfer(String),
    /// The queue pair was fenced.
    #[error("the queue pair is fenced")]
    Fenced,
    /// The device can't do this.
    #[error("the RDMA device can't do this: {0}")]
    Unsupported(String),
}

impl NicError {
    /// Whether the same may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// What the other side may do to memory that a queue pair lends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAccess {
    /// Nothing.
    None,
    /// READ.
    Read,
    /// WRITE.
    Write,
    /// Both.
    ReadWrite,
}

impl PeerAccess {
    /// Whether it may READ.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether it may WRITE.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// The other side of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its queue pair's number.
    pub number: u32,
    /// Its GID.
    pub gid: Gid,
    /// Which of [`Nic::gids`] is ours.
    pub own_gid: usize,
    /// Where its packet numbers begin.
    pub receive_psn: u32,
    /// Where ours begin.
    pub send_psn: u32,
}

/// Memory that the other side may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its address.
    pub address: u64,
    /// Its remote key; not zero.
    pub rkey: u32,
}

/// A message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of it.
    pub bytes: u64,
    /// Its immediate data, in host order; none is not a WRITE_WITH_IMM.
    pub immediate: Option<u32>,
}

/// What a transfer becomes.
pub type Transfer<T> = Pin<Box<dyn Future<Output = Result<T, NicError>> + Send + 'static>>;

/// One port of an RDMA device.
pub trait Nic: Send + Sync + 'static {
    /// Its GIDs, by their index; unused ones are zero.
    fn gids(&self) -> Vec<Gid>;

    /// The port's number.
    fn port(&self) -> u8;

    /// Most bytes of one message (`max_msg_sz`).
    fn message_bytes_max(&self) -> u64;

    /// A new queue pair, in INIT.
    ///
    /// # Errors
    /// [`NicError::Full`], [`NicError::Unsupported`].
    fn queue_pair(&self, access: PeerAccess) -> Result<Box<dyn QueuePair>, NicError>;
}

/// A queue pair. Dropping it fences and destroys it first, and gives up its memory after that.
pub trait QueuePair: Send + Sync + 'static {
    /// Its number.
    fn number(&self) -> u32;

    /// INIT to RTR to RTS.
    ///
    /// # Errors
    /// [`NicError`].
    fn connect(&self, peer: &Peer) -> Result<(), NicError>;

    /// Lends memory to the other side, to READ or to WRITE, as far as the queue pair allows that too; replaces what was lent
    /// before.
    ///
    /// # Errors
    /// [`NicError`].
    fn lend(&self, memory: Vec<u8>, access: PeerAccess) -> Result<Window, NicError>;

    /// Ends the other side's right to the memory, then answers it.
    fn take_back(&self) -> Option<Vec<u8>>;

    /// Posts a receive; good in INIT already.
    ///
    /// # Errors
    /// [`NicError`].
    fn expect(&self) -> Result<(), NicError>;

    /// What arrives for the receive that was posted first.
    fn received(&self) -> Transfer<Received>;

    /// WRITEs `from` to the other side's memory, `immediate` with its last message. Resolves when it is there.
    fn write(&self, from: Bytes, address: u64, rkey: u32, immediate: Option<u32>) -> Transfer<()>;

    /// READs the other side's memory.
    fn read(&self, address: u64, rkey: u32, bytes: usize) -> Transfer<Bytes>;

    /// To ERR. When this returns, nothing more is written to the other side's memory. May be called again.
    fn fence(&self);
}
