//! The node's side: takes offers that come as calls over TCP, and serves calls on the queue pairs that come of them.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use penstock_buf::{BufPool, PoolOptions};
use penstock_proto::{NodeId, limits};
use penstock_transport::{Handler, OneSided};
use penstock_verbs::{Connect, Domain, GidEntry, QpOptions, QueuePair, random_psn};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap::{Accept, Answer, Offer, is_offer};
use crate::link::{self, LinkError, Ring};
use crate::memory::{Memory, Moved};
use crate::message::{INLINE_BYTES_MAX, Kind, Message};
use crate::{READ_DEPTH, SLOTS, TIMING};

/// Receives beside two for each slot: one for the goodbye, and some for cancels that cross their replies.
const RECEIVES_SPARE: usize = 4;
/// Work requests of the send queue.
const SEND_MAX: u32 = 128;

/// How a node serves RDMA.
#[derive(Clone, Debug)]
pub struct RdmaNodeOptions {
    /// Who we are.
    pub node: NodeId,
    /// Queue pairs at a time; past it, offers are declined.
    pub connections_max: usize,
    /// Bytes of the pool that messages (not payload) are received in and sent from.
    pub message_pool_bytes: usize,
    /// How long a connection may be without a call. Longer than the callers' own idle limit.
    pub idle_timeout: Duration,
    /// How long calls in flight may take after the shutdown was asked for.
    pub shutdown_grace: Duration,
}

impl RdmaNodeOptions {
    /// The house's defaults.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            connections_max: 256,
            message_pool_bytes: 192 << 20,
            idle_timeout: Duration::from_secs(180),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// What a node has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaNodeCounts {
    /// Connections made.
    pub accepted: u64,
    /// Offers declined.
    pub declined: u64,
    /// Calls answered over RDMA.
    pub calls: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Connections that are open.
    pub open: usize,
    /// Payload READ from callers.
    pub read_bytes: u64,
    /// Payload WRITTEN to callers.
    pub written_bytes: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    declined: AtomicU64,
    calls: AtomicU64,
    panicked: AtomicU64,
    open: AtomicUsize,
}

/// A node's handler, behind TCP for offers (and for callers without RDMA), and behind queue pairs of its own.
pub struct RdmaNode(Arc<Inner>);

struct Inner {
    handler: Arc<dyn Handler>,
    rails: Vec<Domain>,
    pool: BufPool,
    options: RdmaNodeOptions,
    counters: Counters,
    moved: Arc<Moved>,
    next_rail: AtomicUsize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl RdmaNode {
    /// Puts `handler` behind the ports of `rails`. Give it to `serve_tcp` in the handler's place.
    ///
    /// # Errors
    /// When there is no memory for messages.
    pub fn new(handler: Arc<dyn Handler>, rails: Vec<Domain>, options: RdmaNodeOptions) -> std::io::Result<Self> {
        let pool = BufPool::new(PoolOptions { capacity_bytes: options.message_pool_bytes, huge_pages: false })?;
        Ok(Self(Arc::new(Inner {
            handler,
            rails,
            pool,
            options,
            counters: Counters::default(),
            moved: Arc::default(),
            next_rail: AtomicUsize::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    /// The counts now.
    pub fn counts(&self) -> RdmaNodeCounts {
        let Inner { counters, moved, .. } = &*self.0;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RdmaNodeCounts {
            accepted: of(&counters.accepted),
            declined: of(&counters.declined),
            calls: of(&counters.calls),
            panicked: of(&counters.panicked),
            open: counters.open.load(Ordering::Relaxed),
            read_bytes: of(&moved.read_bytes),
            written_bytes: of(&moved.written_bytes),
        }
    }

    /// Takes no new calls, waits for those in flight within the grace of the options, and closes every connection.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

#[async_trait]
impl Handler for RdmaNode {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        if !is_offer(&header) {
            return self.0.handler.handle(header, memory).await;
        }
        let answer = match self.0.accept(&header).await {
            Ok(accept) => Answer::Accept(accept),
            Err(reason) => {
                self.0.counters.declined.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(node = %self.0.options.node, reason, "an offer to talk over RDMA was declined");
                Answer::Decline(reason)
            }
        };
        answer.encode()
    }
}

impl Inner {
    /// A port of ours, an address of it, and which of the offered ones it talks to.
    fn choose(&self, offer: &Offer) -> Result<(&Domain, GidEntry, u8), String> {
        let first = self.next_rail.fetch_add(1, Ordering::Relaxed);
        let mut why = "this node has no RDMA device in use".to_owned();
        for (chosen, gid) in (0u8..).zip(&offer.gids) {
            for at in 0..self.rails.len() {
                let rail = &self.rails[(first + at) % self.rails.len()];
                match rail.gid_for(*gid) {
                    Ok(own) => return Ok((rail, own, chosen)),
                    Err(error) => why = error.to_string(),
                }
            }
        }
        Err(why)
    }

    async fn accept(self: &Arc<Self>, header: &[u8]) -> Result<Accept, String> {
        let offer = Offer::decode(header)?;
        if self.stop.is_cancelled() {
            return Err("this node is shutting down".to_owned());
        }
        let max = self.options.connections_max;
        let open =
            Open::enter(self, max).ok_or_else(|| format!("this node has {max} RDMA connections, which is the most"))?;
        let (rail, own, chosen) = self.choose(&offer)?;
        let slots = offer.slots.min(SLOTS);
        let receives = 2 * usize::from(slots) + RECEIVES_SPARE;
        let options = QpOptions {
            send_max: SEND_MAX,
            recv_max: receives as u32,
            // We reach for the caller's memory; nobody reaches for ours.
            ..QpOptions::default()
        };
        let text = |error: penstock_verbs::VerbsError| error.to_string();
        let pair = rail.queue_pair(&options).map_err(text)?;
        let ring = Ring::post(&pair, &self.pool, receives).await.map_err(|error| error.to_string())?;
        let psn = random_psn();
        let mtu = rail.port().mtu.min(offer.mtu);
        let read_depth = offer.read_depth.clamp(1, READ_DEPTH);
        let peer_gid = offer.gids[usize::from(chosen)];
        let connect = Connect {
            read_depth,
            read_depth_peer: 1,
            timing: TIMING,
            ..Connect::new(offer.number, peer_gid, own.index, offer.psn, psn, mtu)
        };
        pair.connect(&connect).map_err(text)?;
        let accept = Accept { slots, number: pair.number(), psn, mtu, read_depth, chosen, gid: own.gid };
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let server = Serving {
            node: Arc::clone(self),
            pair,
            slots: usize::from(slots),
            calls: Mutex::default(),
            idle: Notify::new(),
        };
        self.tasks.spawn(Arc::new(server).run(ring, open));
        Ok(accept)
    }
}

/// A place among the open connections.
struct Open(Arc<Inner>);

impl Open {
    fn enter(inner: &Arc<Inner>, max: usize) -> Option<Self> {
        let entered = inner
            .counters
            .open
            .try_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < max).then_some(open + 1));
        entered.ok().map(|_| Self(Arc::clone(inner)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One connection.
struct Serving {
    node: Arc<Inner>,
    pair: QueuePair,
    slots: usize,
    /// Calls under way, and whether their callers have given up.
    calls: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    /// Told when a call ends.
    idle: Notify,
}

impl Serving {
    async fn run(self: Arc<Self>, mut ring: Ring, open: Open) {
        let ended = self.serve(&mut ring).await;
        if let Err(error) = &ended {
            tracing::debug!(node = %self.node.options.node, number = self.pair.number(), %error, "an RDMA connection ended");
        } else {
            // A goodbye or a shutdown: replies that are due go out.
            drop(tokio::time::timeout(self.node.options.shutdown_grace, self.drained()).await);
        }
        self.pair.destroy();
        drop((ring, open));
    }

    async fn drained(&self) {
        loop {
            let told = self.idle.notified();
            if self.calls.lock().is_empty() {
                return;
            }
            told.await;
        }
    }

    async fn serve(self: &Arc<Self>, ring: &mut Ring) -> Result<(), LinkError> {
        loop {
            let message = tokio::select! {
                biased;
                message = tokio::time::timeout(self.node.options.idle_timeout, ring.next()) => message,
                () = self.node.stop.cancelled() => return Ok(()),
            };
            let message = match message {
                Ok(message) => message?,
                Err(_idle) if self.calls.lock().is_empty() => return Err(LinkError::Ended("it was idle for long")),
                Err(_busy) => continue,
            };
            match message.kind {
                Kind::Request => self.start(message)?,
                Kind::Cancel => {
                    if let Some(cancelled) = self.calls.lock().get(&message.call) {
                        cancelled.store(true, Ordering::Release);
                    }
                }
                Kind::Bye => return Ok(()),
                // The device has answered it.
                Kind::Ping => {}
                Kind::Reply | Kind::Failed => return Err(LinkError::Ended("the caller sends replies")),
            }
        }
    }

    fn start(self: &Arc<Self>, request: Message) -> Result<(), LinkError> {
        if request.landing.is_none() && request.landing_bytes > INLINE_BYTES_MAX {
            return Err(LinkError::Ended("the caller wants a long answer and lends no memory for it"));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        {
            let mut calls = self.calls.lock();
            if calls.len() >= self.slots {
                return Err(LinkError::Ended("the caller has more calls under way than was agreed on"));
            }
            if calls.insert(request.call, Arc::clone(&cancelled)).is_some() {
                return Err(LinkError::Ended("the caller uses a call's number twice"));
            }
        }
        let memory = Memory::new(self.pair.clone(), Arc::clone(&self.node.moved), cancelled, &request);
        self.node.tasks.spawn(Arc::clone(self).answer(request.call, request.header, memory));
        Ok(())
    }

    async fn answer(self: Arc<Self>, call: u64, header: Bytes, mut memory: Memory) {
        let handled = AssertUnwindSafe(self.node.handler.handle(header, &mut memory)).catch_unwind().await;
        let reply = self.reply(call, handled.ok(), &memory);
        drop(memory);
        // The slot is free before the caller can know of it.
        self.calls.lock().remove(&call);
        if let Err(error) = link::send(&self.pair, &self.node.pool, &reply).await {
            tracing::debug!(node = %self.node.options.node, %error, "a reply could not be sent");
            // What was lent is only taken back when the caller learns that the connection is gone.
            self.pair.fence();
        }
        self.node.counters.calls.fetch_add(1, Ordering::Relaxed);
        self.idle.notify_waiters();
    }

    fn reply(&self, call: u64, handled: Option<Bytes>, memory: &Memory) -> Message {
        let failed = |why: String| Message::new(Kind::Failed, call, Bytes::from(why));
        let Some(header) = handled else {
            self.node.counters.panicked.fetch_add(1, Ordering::Relaxed);
            tracing::error!(node = %self.node.options.node, "a handler panicked");
            return failed("the node's handler panicked".to_owned());
        };
        if let Some(broken) = &memory.broken {
            let mut broken = broken.clone();
            broken.truncate(broken.floor_char_boundary(limits::MESSAGE_HEADER_BYTES_MAX));
            return failed(broken);
        }
        if header.len() > limits::MESSAGE_HEADER_BYTES_MAX {
            return failed(format!("the node's answer has a header of {} bytes, which can't be sent", header.len()));
        }
        let (payload_bytes, inline) = memory.landed();
        if !inline.is_empty() && inline.len() < payload_bytes {
            return failed("the node's answer is in two places".to_owned());
        }
        Message { payload_bytes, inline, ..Message::new(Kind::Reply, call, header) }
    }
}
