//! The caller's side: a few connections to each node, made when they are needed; TCP where RDMA does not get through.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_buf::{BufPool, PoolOptions};
use penstock_proto::NodeId;
use penstock_transport::{Answer as CallAnswer, Call, Messenger, TransportError};
use penstock_verbs::{Access, Connect, Domain, GidEntry, GidKind, QpOptions, preferred_gid, random_psn};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bootstrap::{Accept, Answer, GIDS_MAX, Offer};
use crate::connection::{Connection, Ended, Failure, Slot};
use crate::link::Ring;
use crate::memory::{closed, protocol};
use crate::{READ_DEPTH, SLOTS, TIMING};

/// Tries of one call: the second on a fresh connection.
const TRIES_MAX: u32 = 2;
/// Calls on every connection of a node before another is made.
const SPREAD_AT: usize = 4;
/// Between two looks for a place on a connection, when a node allows fewer calls than we have places for.
const PLACE_POLL: Duration = Duration::from_millis(2);

/// Whether RDMA must be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RdmaMode {
    /// Where both sides have it; else TCP, with the reason logged once and counted.
    Auto,
    /// Or the call fails.
    Require,
}

/// How an [`RdmaMessenger`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct RdmaOptions {
    /// Whether TCP will do.
    pub mode: RdmaMode,
    /// Queue pairs to one node.
    pub connections_per_node_max: usize,
    /// Calls to one node, under way and waiting; past it, [`TransportError::Overloaded`].
    pub calls_per_node_max: usize,
    /// How long an offer may take.
    pub connect_timeout: Duration,
    /// A connection that had no call for so long is closed.
    pub idle_max: Duration,
    /// How long a call that was given up may keep its memory: then its connection is fenced.
    pub abandoned_grace: Duration,
    /// After a node declined, or its packets did not get through, how long it is called over TCP.
    pub declined_for: Duration,
    /// Bytes of the pool that messages (not payload) are received in and sent from.
    pub message_pool_bytes: usize,
}

impl Default for RdmaOptions {
    fn default() -> Self {
        Self {
            mode: RdmaMode::Auto,
            connections_per_node_max: 4,
            calls_per_node_max: 4096,
            connect_timeout: Duration::from_secs(5),
            idle_max: Duration::from_secs(60),
            abandoned_grace: Duration::from_secs(5),
            declined_for: Duration::from_secs(30),
            message_pool_bytes: 64 << 20,
        }
    }
}

/// What an [`RdmaMessenger`] has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaCounts {
    /// Connections made.
    pub connected: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Calls sent again on a fresh connection.
    pub retried: u64,
    /// Calls answered over RDMA.
    pub calls_rdma: u64,
    /// Calls that went over TCP instead.
    pub calls_tcp: u64,
    /// Times that a node declined, or could not be reached over RDMA.
    pub declined: u64,
    /// Payload of calls over RDMA, both ways.
    pub payload_bytes: u64,
}

#[derive(Default)]
struct Counters {
    connected: AtomicU64,
    broken: AtomicU64,
    retried: AtomicU64,
    calls_rdma: AtomicU64,
    calls_tcp: AtomicU64,
    declined: AtomicU64,
    payload_bytes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Calls nodes over RDMA.
pub struct RdmaMessenger {
    shared: Arc<Shared>,
    peers: HashMap<NodeId, Peer>,
}

struct Shared {
    /// Carries offers, and calls where there is no RDMA.
    tcp: Arc<dyn Messenger>,
    rails: Vec<Domain>,
    pool: BufPool,
    options: RdmaOptions,
    counters: Counters,
}

impl RdmaMessenger {
    /// Calls `nodes`, each reachable by `tcp`, over the ports of `rails` in turn.
    ///
    /// # Errors
    /// When there is no memory for messages.
    pub fn new(
        tcp: Arc<dyn Messenger>,
        nodes: impl IntoIterator<Item = NodeId>,
        rails: Vec<Domain>,
        options: RdmaOptions,
    ) -> std::io::Result<Self> {
        let pool = BufPool::new(PoolOptions { capacity_bytes: options.message_pool_bytes, huge_pages: false })?;
        let shared = Arc::new(Shared { tcp, rails, pool, options, counters: Counters::default() });
        let peers = nodes.into_iter().map(|node| (node, Peer::new(node, Arc::clone(&shared)))).collect();
        Ok(Self { shared, peers })
    }

    /// The counts now.
    pub fn counts(&self) -> RdmaCounts {
        let counters = &self.shared.counters;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RdmaCounts {
            connected: of(&counters.connected),
            broken: of(&counters.broken),
            retried: of(&counters.retried),
            calls_rdma: of(&counters.calls_rdma),
            calls_tcp: of(&counters.calls_tcp),
            declined: of(&counters.declined),
            payload_bytes: of(&counters.payload_bytes),
        }
    }
}

#[async_trait]
impl Messenger for RdmaMessenger {
    async fn call(&self, node: NodeId, call: Call) -> Result<CallAnswer, TransportError> {
        call.check()?;
        let Some(peer) = self.peers.get(&node) else {
            return Err(TransportError::Unreachable { node, reason: "it has no address in the configuration".into() });
        };
        let Ok(_place) = peer.places.try_acquire() else {
            return Err(TransportError::Overloaded { node, calls: self.shared.options.calls_per_node_max });
        };
        let deadline = call.deadline;
        match tokio::time::timeout(deadline, peer.call(call)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}

struct Peer {
    node: NodeId,
    shared: Arc<Shared>,
    /// Calls under way and waiting.
    places: Semaphore,
    /// Calls under way, over all connections.
    slots: Arc<Semaphore>,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// Held while connecting: one at a time.
    connecting: tokio::sync::Mutex<()>,
    next_rail: AtomicUsize,
    /// Why there is no RDMA to it, and until when that is believed.
    declined: Mutex<Option<(Instant, String)>>,
}

/// Why there is no connection.
enum NoConnection {
    /// The node can't be reached at all, or not now.
    Error(TransportError),
    /// There is no RDMA between us.
    Declined(String),
}

impl Peer {
    fn new(node: NodeId, shared: Arc<Shared>) -> Self {
        let options = shared.options;
        Self {
            node,
            shared,
            places: Semaphore::new(options.calls_per_node_max.max(1)),
            slots: Arc::new(Semaphore::new(options.connections_per_node_max.max(1) * usize::from(SLOTS))),
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            next_rail: AtomicUsize::new(0),
            declined: Mutex::default(),
        }
    }

    async fn call(&self, mut call: Call) -> Result<CallAnswer, TransportError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let (connection, slot) = match self.place().await {
                Ok(place) => place,
                Err(NoConnection::Error(error)) => return Err(error),
                Err(NoConnection::Declined(reason)) => return self.without_rdma(call, reason).await,
            };
            let Ended { landing, result } =
                connection.exchange(slot, &call.header, &call.outgoing, call.landing.take()).await;
            let at = |reason: String| format!("{} over RDMA: {reason}", self.node);
            match result {
                Ok(reply) => {
                    count(&self.shared.counters.calls_rdma);
                    let bytes = (call.outgoing_bytes() + reply.landed_bytes) as u64;
                    self.shared.counters.payload_bytes.fetch_add(bytes, Ordering::Relaxed);
                    let landed = landing.map(|mut landing| {
                        landing.truncate(reply.landed_bytes);
                        landing
                    });
                    return Ok(CallAnswer { header: reply.header, landed });
                }
                Err(Failure::Call(reason)) => return Err(closed(at(reason))),
                Err(Failure::Protocol(reason)) => return Err(protocol(at(reason))),
                Err(Failure::Connection(reason)) => {
                    count(&self.shared.counters.broken);
                    if !connection.is_proven() {
                        // It was never good for anything: packets do not get through.
                        self.decline(&format!("no packet gets through: {reason}"));
                    }
                    if tried >= TRIES_MAX {
                        return Err(closed(at(reason)));
                    }
                    // The node may have been restarted. Every request is safe to send again (see the trait's page), and
                    // what was lent has been taken back.
                    count(&self.shared.counters.retried);
                    call.landing = landing;
                }
            }
        }
    }

    async fn without_rdma(&self, call: Call, reason: String) -> Result<CallAnswer, TransportError> {
        match self.shared.options.mode {
            RdmaMode::Auto => {
                count(&self.shared.counters.calls_tcp);
                self.shared.tcp.call(self.node, call).await
            }
            RdmaMode::Require => {
                let reason = format!("RDMA is required, and there is none to it: {reason}");
                Err(TransportError::Unreachable { node: self.node, reason })
            }
        }
    }

    /// Believes for a while that there is no RDMA to the node. Says so when it is news.
    fn decline(&self, reason: &str) {
        count(&self.shared.counters.declined);
        let until = Instant::now() + self.shared.options.declined_for;
        let before = self.declined.lock().replace((until, reason.to_owned()));
        if before.is_none_or(|(_, before)| before != reason) {
            tracing::warn!(node = %self.node, reason, mode = ?self.shared.options.mode, "no RDMA to a node");
        }
    }

    /// A connection with a place for a call.
    async fn place(&self) -> Result<(Arc<Connection>, Slot), NoConnection> {
        if let Some((until, reason)) = &*self.declined.lock()
            && Instant::now() < *until
        {
            return Err(NoConnection::Declined(reason.clone()));
        }
        let peer = Arc::clone(&self.slots).acquire_owned().await;
        let peer = peer.expect("invariant: the semaphore is never closed");
        let max = self.shared.options.connections_per_node_max.max(1);
        loop {
            let (connection, count) = self.least_loaded();
            if let Some(connection) = &connection
                && (connection.load() < SPREAD_AT || count >= max)
                && let Some(slot) = connection.try_slot()
            {
                return Ok((Arc::clone(connection), Slot { _peer: peer, _connection: slot }));
            }
            if count >= max {
                tokio::time::sleep(PLACE_POLL).await;
                continue;
            }
            let _alone = self.connecting.lock().await;
            // Somebody else may have made one meanwhile.
            if self.least_loaded().1 > count {
                continue;
            }
            match self.connect().await {
                Ok(connection) => self.connections.lock().push(connection),
                // What there is will do.
                Err(_) if connection.as_ref().is_some_and(|connection| !connection.is_closed()) => {
                    let connection = connection.expect("invariant: just looked at");
                    match connection.try_slot() {
                        Some(slot) => return Ok((connection, Slot { _peer: peer, _connection: slot })),
                        None => tokio::time::sleep(PLACE_POLL).await,
                    }
                }
                Err(why) => {
                    if let NoConnection::Declined(reason) = &why {
                        self.decline(reason);
                    }
                    return Err(why);
                }
            }
        }
    }

    /// The connection with the fewest calls, and how many connections there are. Closes what was idle for long.
    fn least_loaded(&self) -> (Option<Arc<Connection>>, usize) {
        let mut connections = self.connections.lock();
        let idle_max = self.shared.options.idle_max;
        connections.retain(|connection| {
            let is_stale = connection.idle_for() > idle_max;
            if is_stale {
                tokio::spawn(Arc::clone(connection).close());
            }
            !is_stale && !connection.is_closed()
        });
        (connections.iter().min_by_key(|connection| connection.load()).cloned(), connections.len())
    }

    async fn connect(&self) -> Result<Arc<Connection>, NoConnection> {
        let shared = &self.shared;
        let declined = |error: &dyn std::fmt::Display| NoConnection::Declined(error.to_string());
        if shared.rails.is_empty() {
            return Err(NoConnection::Declined("there is no RDMA device in use on this side".to_owned()));
        }
        let rail = &shared.rails[self.next_rail.fetch_add(1, Ordering::Relaxed) % shared.rails.len()];
        let options = QpOptions {
            recv_max: u32::from(SLOTS) + 1,
            access: Access { read: true, write: true },
            ..QpOptions::default()
        };
        let pair = rail.queue_pair(&options).map_err(|error| declined(&error))?;
        let ring = Ring::post(&pair, &shared.pool, usize::from(SLOTS) + 1).await.map_err(|error| declined(&error))?;
        let own = offered(rail.gids());
        let psn = random_psn();
        let offer = Offer {
            slots: SLOTS,
            number: pair.number(),
            psn,
            mtu: rail.port().mtu,
            read_depth: READ_DEPTH,
            gids: own.iter().map(|entry| entry.gid).collect(),
        };
        let answer = shared.tcp.call(self.node, Call::new(offer.encode(), shared.options.connect_timeout)).await;
        let answer = answer.map_err(NoConnection::Error)?;
        let accept = match Answer::decode(&answer.header).map_err(|error| declined(&error))? {
            Answer::Accept(accept) => accept,
            Answer::Decline(reason) => return Err(NoConnection::Declined(format!("it declines: {reason}"))),
        };
        let connect = self.agreed(&accept, &offer, &own).map_err(NoConnection::Declined)?;
        pair.connect(&connect).map_err(|error| declined(&error))?;
        count(&shared.counters.connected);
        tracing::debug!(node = %self.node, device = rail.device().name(), gid = %accept.gid, mtu = accept.mtu.bytes(), "RDMA connection");
        *self.declined.lock() = None;
        let slots = usize::from(accept.slots);
        Ok(Connection::start(pair, shared.pool.clone(), ring, slots, shared.options.abandoned_grace))
    }

    /// How to connect to what was accepted, if it is within what was offered.
    fn agreed(&self, accept: &Accept, offer: &Offer, own: &[GidEntry]) -> Result<Connect, String> {
        let Some(entry) = own.get(usize::from(accept.chosen)) else {
            return Err(format!("it chose address {} of {}", accept.chosen, own.len()));
        };
        if accept.slots > offer.slots || accept.mtu > offer.mtu || accept.read_depth > offer.read_depth {
            return Err("it accepted more than it was offered".to_owned());
        }
        let basic = Connect::new(accept.number, accept.gid, entry.index, accept.psn, offer.psn, accept.mtu);
        Ok(Connect { read_depth_peer: accept.read_depth, timing: TIMING, ..basic })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        for connection in self.connections.lock().drain(..) {
            match &runtime {
                // So that the node need not wait until it was idle for long.
                Ok(runtime) => drop(runtime.spawn(connection.close())),
                Err(_) => connection.fail("the messenger is gone"),
            }
        }
    }
}

/// The addresses to offer: the preferred one first, none of RoCE v1.
fn offered(gids: &[GidEntry]) -> Vec<GidEntry> {
    let first = preferred_gid(gids);
    let rest = gids
        .iter()
        .filter(|entry| entry.kind != GidKind::RoceV1 && Some(entry.index) != first.as_ref().map(|f| f.index));
    first.iter().chain(rest).take(GIDS_MAX).cloned().collect()
}
