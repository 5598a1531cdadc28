//! A [`Nic`] of real verbs: one port of one device, through penstock-verbs.
//!
//! Pieces on their way to and from clients are in a pool of our own, which is registered once: bytes from the gateway are
//! copied into it, for the gateway's buffers come as [`Bytes`] and may be of any memory. Lent memory has a registration of
//! its own, for one direction, which ends before the memory is anybody's again.
//!
//! **How it fails.** After an error of a transfer the queue pair is in its error state. [`QueuePair::fence`] here destroys the
//! queue pair, because taking it to ERR leaves packets that the device is in the middle of; what was posted ends with an
//! error then, and its memory is free.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use penstock_buf::{BufError, BufMut, BufPool, PoolOptions};
use penstock_rdma_wire::Gid;
use penstock_verbs::{
    Access, Connect, Domain, Finished, GidEntry, GidKind, Lease, Part, QpOptions, QueuePair as VerbsQueuePair,
    Receiving, VerbsError,
};

use crate::nic::{Nic, NicError, Peer, PeerAccess, QueuePair, Received, Transfer, Window};

/// Memory for pieces under way, of all queue pairs.
const POOL_BYTES: usize = 64 << 20;
/// Bytes of one WRITE.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// How long a piece waits for memory.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// Work requests of one queue pair: a few pieces, cut at the port's longest message.
const SENDS_MAX: u32 = 64;
/// Receives of one queue pair.
const RECEIVES_MAX: u32 = 4;

/// A port of an RDMA device.
pub struct VerbsNic {
    domain: Domain,
    pool: BufPool,
    gids: Vec<GidEntry>,
}

impl VerbsNic {
    /// The first active port of the device `name`, or of any. Call it within a tokio runtime.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub fn open(name: Option<&str>) -> Result<Self, NicError> {
        let domain = match name {
            Some(name) => Domain::first_of(name),
            None => Domain::first(),
        };
        let domain = domain.map_err(|error| nic_error(&error))?;
        let pool = BufPool::new(PoolOptions { capacity_bytes: POOL_BYTES, huge_pages: true })
            .map_err(|error| NicError::Full(format!("{POOL_BYTES} bytes of memory for RDMA transfers: {error}")))?;
        // RoCE v2 goes first: where a client's family has both, v2 is what it can route.
        let mut gids = domain.gids().to_vec();
        gids.sort_by_key(|entry| (entry.kind == GidKind::RoceV1, entry.index));
        Ok(Self { domain, pool, gids })
    }

    /// Which device and port, for a log.
    #[must_use]
    pub fn describe(&self) -> String {
        let port = self.domain.port();
        format!("{} port {} (MTU {})", self.domain.device().name(), port.port, port.mtu.bytes())
    }
}

fn nic_error(error: &VerbsError) -> NicError {
    match error {
        VerbsError::NoLibrary { .. } | VerbsError::NoDevices | VerbsError::Unsupported { .. } => {
            NicError::Unsupported(error.to_string())
        }
        VerbsError::Full { .. } => NicError::Full(error.to_string()),
        VerbsError::Fenced { .. } => NicError::Fenced,
        error => NicError::Transfer(error.to_string()),
    }
}

fn out_of_memory(error: BufError) -> NicError {
    NicError::Transfer(format!("no memory for a piece of the transfer: {error}"))
}

impl Nic for VerbsNic {
    fn gids(&self) -> Vec<Gid> {
        self.gids.iter().map(|entry| Gid(entry.gid.0)).collect()
    }

    fn port(&self) -> u8 {
        self.domain.port().port
    }

    fn message_bytes_max(&self) -> u64 {
        u64::from(self.domain.port().message_bytes_max)
    }

    fn queue_pair(&self, access: PeerAccess) -> Result<Box<dyn QueuePair>, NicError> {
        let options = QpOptions {
            send_max: SENDS_MAX,
            recv_max: RECEIVES_MAX,
            access: Access { read: access.reads(), write: access.writes() },
            ..QpOptions::default()
        };
        let pair = self.domain.queue_pair(&options).map_err(|error| nic_error(&error))?;
        Ok(Box::new(Pair {
            pair,
            domain: self.domain.clone(),
            pool: self.pool.clone(),
            gids: self.gids.clone(),
            lent: Mutex::new(None),
            receiving: Mutex::new(VecDeque::new()),
        }))
    }
}

struct Pair {
    // Dropped before what it could write to.
    pair: VerbsQueuePair,
    domain: Domain,
    pool: BufPool,
    gids: Vec<GidEntry>,
    lent: Mutex<Option<Lease<Vec<u8>>>>,
    receiving: Mutex<VecDeque<Receiving<()>>>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Operations under way hold clones of it: the last handle going is not enough.
        self.pair.destroy();
    }
}

/// One WRITE of at most [`PIECE_BYTES_MAX`] bytes.
async fn write_piece(
    pair: &VerbsQueuePair,
    domain: &Domain,
    pool: &BufPool,
    piece: &[u8],
    (addr, rkey): (u64, u32),
    immediate: Option<u32>,
) -> Result<(), NicError> {
    let mut memory: BufMut = pool.acquire(piece.len(), POOL_WAIT).await.map_err(out_of_memory)?;
    memory.copy_from_slice(piece);
    let local = domain.attach(memory).map_err(|refused| nic_error(&refused.error))?;
    let part = Part { local: 0..piece.len(), addr, rkey };
    let Finished { result, .. } = pair.write(local, &[part], immediate).await;
    result.map(|_| ()).map_err(|error| nic_error(&error))
}

impl QueuePair for Pair {
    fn number(&self) -> u32 {
        self.pair.number()
    }

    fn connect(&self, peer: &Peer) -> Result<(), NicError> {
        let entry = self.gids.get(peer.own_gid).ok_or_else(|| NicError::Transfer("no such GID".to_owned()))?;
        let gid = penstock_verbs::Gid(peer.gid.0);
        let connect =
            Connect::new(peer.number, gid, entry.index, peer.receive_psn, peer.send_psn, self.domain.port().mtu);
        self.pair.connect(&connect).map_err(|error| nic_error(&error))
    }

    fn lend(&self, memory: Vec<u8>, access: PeerAccess) -> Result<Window, NicError> {
        let lease = match access {
            PeerAccess::Write => self.domain.lease_write(memory),
            PeerAccess::Read => self.domain.lease_read(memory),
            PeerAccess::None | PeerAccess::ReadWrite => {
                return Err(NicError::Unsupported("memory is lent for READ or for WRITE".to_owned()));
            }
        };
        let lease = lease.map_err(|refused| nic_error(&refused.error))?;
        let remote = lease.remote();
        *self.lent.lock() = Some(lease);
        Ok(Window { address: remote.addr, rkey: remote.rkey })
    }

    fn take_back(&self) -> Option<Vec<u8>> {
        self.lent.lock().take().map(Lease::revoke_now)
    }

    fn expect(&self) -> Result<(), NicError> {
        let receiving = self.pair.receive_nothing().map_err(|error| nic_error(&error))?;
        self.receiving.lock().push_back(receiving);
        Ok(())
    }

    fn received(&self) -> Transfer<Received> {
        let receiving = self.receiving.lock().pop_front();
        Box::pin(async move {
            let receiving = receiving.ok_or_else(|| NicError::Transfer("no receive is posted".to_owned()))?;
            let done = receiving.await.result.map_err(|error| nic_error(&error))?;
            Ok(Received { bytes: done.bytes, immediate: done.immediate.filter(|_| done.by_write) })
        })
    }

    fn write(&self, from: Bytes, address: u64, rkey: u32, immediate: Option<u32>) -> Transfer<()> {
        let (pair, domain, pool) = (self.pair.clone(), self.domain.clone(), self.pool.clone());
        Box::pin(async move {
            if from.is_empty() {
                let Some(immediate) = immediate else { return Ok(()) };
                return pair.write_immediate(immediate).await.map(|_| ()).map_err(|error| nic_error(&error));
            }
            let mut at = 0;
            while at < from.len() {
                let end = (at + PIECE_BYTES_MAX).min(from.len());
                let immediate = immediate.filter(|_| end == from.len());
                write_piece(&pair, &domain, &pool, &from[at..end], (address + at as u64, rkey), immediate).await?;
                at = end;
            }
            Ok(())
        })
    }

    fn read(&self, address: u64, rkey: u32, bytes: usize) -> Transfer<Bytes> {
        let (pair, domain, pool) = (self.pair.clone(), self.domain.clone(), self.pool.clone());
        Box::pin(async move {
            let memory = pool.acquire(bytes, POOL_WAIT).await.map_err(out_of_memory)?;
            let local = domain.attach(memory).map_err(|refused| nic_error(&refused.error))?;
            let part = Part { local: 0..bytes, addr: address, rkey };
            let Finished { memory, result } = pair.read(local, &[part]).await;
            result.map_err(|error| nic_error(&error))?;
            Ok(memory.into_inner().freeze().into_bytes())
        })
    }

    fn fence(&self) {
        self.pair.destroy();
    }
}
