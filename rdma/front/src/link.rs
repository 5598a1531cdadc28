//! A queue pair with its share of the limits: what is taken is given back when it is dropped, in the right order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use penstock_offload::MoveError;
use penstock_rdma_wire::Gid;
use penstock_rdma_wire::sessions::Claim;
use tokio::time::Instant;

use crate::front::Inner;
use crate::nic::{NicError, Peer, PeerAccess, QueuePair, Transfer};
use crate::replies::Refusal;

/// WRITEs under way at a time over one queue pair.
const WRITES_IN_FLIGHT_MAX: usize = 4;
/// Tries to find a PSN that does not rest. One in 16 million is taken, so one try is nearly always enough.
const PSN_TRIES_MAX: usize = 64;

/// A claim on the limits, given back when dropped.
pub(crate) struct Held {
    inner: Arc<Inner>,
    key: Option<String>,
    claim: Claim,
}

impl Held {
    pub(crate) fn take(inner: &Arc<Inner>, key: Option<&str>, claim: Claim) -> Result<Self, Refusal> {
        inner.books.lock().ledger.take(key, claim)?;
        Ok(Self { inner: inner.clone(), key: key.map(str::to_owned), claim })
    }

    /// What was nobody's becomes `key`'s.
    pub(crate) fn bind(&mut self, key: &str) -> Result<(), Refusal> {
        self.inner.books.lock().ledger.bind(key, self.claim)?;
        self.key = Some(key.to_owned());
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.inner.books.lock().ledger.give_back(self.key.as_deref(), self.claim);
    }
}

/// A queue pair of ours.
pub(crate) struct Link {
    inner: Arc<Inner>,
    /// None only while it is being dropped.
    pair: Option<Box<dyn QueuePair>>,
    pub(crate) held: Held,
    pub(crate) number: u32,
    pub(crate) psn: u32,
    /// The other side's GID; ours, when it is on the same HCA.
    pub(crate) peer_gid: Gid,
    pub(crate) own_gid: usize,
    pub(crate) own: Gid,
    in_flight: VecDeque<Transfer<()>>,
}

impl Link {
    /// A queue pair for a client at `peer_gid` (none: on our own HCA), in INIT.
    pub(crate) fn open(
        inner: &Arc<Inner>,
        peer_gid: Option<Gid>,
        key: Option<&str>,
        claim: Claim,
        access: PeerAccess,
    ) -> Result<Self, Refusal> {
        let nic = inner.nic()?;
        let gids = nic.gids();
        let (own_gid, peer_gid) = inner.answer_to(&gids, peer_gid)?;
        inner.books.lock().retired.check(inner.now_ms())?;
        let held = Held::take(inner, key, claim)?;
        let pair = nic.queue_pair(access).map_err(|error| Refusal::of_nic(&error))?;
        let number = pair.number();
        let books = inner.books.lock();
        let psn = std::iter::repeat_with(|| rand::random_range(1..=0xff_ffff_u32))
            .take(PSN_TRIES_MAX)
            .find(|psn| books.retired.may_use(number, *psn))
            .ok_or_else(|| Refusal::slow_down("no packet numbers are free; try again a little later"))?;
        drop(books);
        let inner = inner.clone();
        let own = gids[own_gid];
        Ok(Self { inner, pair: Some(pair), held, number, psn, peer_gid, own_gid, own, in_flight: VecDeque::new() })
    }

    pub(crate) fn pair(&self) -> &dyn QueuePair {
        self.pair.as_deref().expect("a link has its queue pair until it is dropped")
    }

    /// INIT to RTS.
    pub(crate) fn connect(&self, number: u32, receive_psn: u32) -> Result<(), NicError> {
        let peer = Peer { number, gid: self.peer_gid, own_gid: self.own_gid, receive_psn, send_psn: self.psn };
        self.pair().connect(&peer)
    }

    /// Begins a WRITE, and waits for older ones while too many are under way.
    pub(crate) async fn write(&mut self, from: Bytes, address: u64, rkey: u32) -> Result<(), NicError> {
        while self.in_flight.len() >= WRITES_IN_FLIGHT_MAX {
            self.wait_for_one().await?;
        }
        let mut writing = self.pair().write(from, address, rkey, None);
        // The first poll posts it.
        match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
            Poll::Ready(written) => written,
            Poll::Pending => {
                self.in_flight.push_back(writing);
                Ok(())
            }
        }
    }

    async fn wait_for_one(&mut self) -> Result<(), NicError> {
        match self.in_flight.front_mut() {
            Some(writing) => {
                let written = writing.await;
                self.in_flight.pop_front();
                written
            }
            None => Ok(()),
        }
    }

    /// Waits for all WRITEs.
    pub(crate) async fn flush(&mut self) -> Result<(), NicError> {
        while !self.in_flight.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    /// To ERR: nothing more is written to the client's memory.
    pub(crate) fn fence(&mut self) {
        self.pair().fence();
        self.in_flight.clear();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The queue pair first, then what it could have touched, then the right to make another.
        if let Some(pair) = self.pair.take() {
            pair.fence();
            drop(pair);
        }
        self.in_flight.clear();
        self.inner.books.lock().retired.retire(self.inner.now_ms(), self.number, self.psn);
    }
}

/// `future`, or an error when `timeout` runs out.
pub(crate) async fn within<T>(
    timeout: Duration,
    what: &str,
    future: impl Future<Output = Result<T, NicError>>,
) -> Result<T, MoveError> {
    before(Instant::now() + timeout, what, future).await
}

/// `future`, or an error at `deadline`.
pub(crate) async fn before<T>(
    deadline: Instant,
    what: &str,
    future: impl Future<Output = Result<T, NicError>>,
) -> Result<T, MoveError> {
    match tokio::time::timeout_at(deadline, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(MoveError::Failed(format!("{what}: {error}"))),
        Err(_elapsed) => Err(MoveError::TimedOut(what.to_owned())),
    }
}
