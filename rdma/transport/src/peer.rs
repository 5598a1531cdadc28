//! One node, from the caller's side: a few connections to it, made when they are needed, and what is believed of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::NodeId;
use penstock_transport::{Answer as CallAnswer, Call, Messenger, TransportError};
use penstock_verbs::{Access, Connect, GidEntry, GidKind, QpOptions, preferred_gid, random_psn};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::bootstrap::{Accept, Answer, GIDS_MAX, Offer};
use crate::connection::{Connection, Ended, Failure, Slot};
use crate::link::Ring;
use crate::memory::{closed, protocol};
use crate::messenger::{RdmaMode, Shared, count};
use crate::{READ_DEPTH, SLOTS, TIMING};

/// Tries of one call: the second on a fresh connection.
const TRIES_MAX: u32 = 2;
/// Calls on every connection of a node before another is made.
const SPREAD_AT: usize = 4;
/// Between two looks for a place on a connection, when a node allows fewer calls than we have places for.
const PLACE_POLL: Duration = Duration::from_millis(2);

/// One node, as calls reach it.
pub(crate) struct Peer {
    node: NodeId,
    /// Carries offers, and calls where there is no RDMA.
    tcp: Arc<dyn Messenger>,
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
pub(crate) enum NoConnection {
    /// The node can't be reached at all, or not now.
    Error(TransportError),
    /// There is no RDMA between us.
    Declined(String),
}

impl Peer {
    pub(crate) fn new(node: NodeId, tcp: Arc<dyn Messenger>, shared: Arc<Shared>) -> Self {
        let options = shared.options;
        Self {
            node,
            tcp,
            shared,
            places: Semaphore::new(options.calls_per_node_max.max(1)),
            slots: Arc::new(Semaphore::new(options.connections_per_node_max.max(1) * usize::from(SLOTS))),
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            next_rail: AtomicUsize::new(0),
            declined: Mutex::default(),
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// A call, within its deadline.
    pub(crate) async fn call(&self, call: Call) -> Result<CallAnswer, TransportError> {
        call.check()?;
        let Ok(_place) = self.places.try_acquire() else {
            return Err(TransportError::Overloaded { node: self.node, calls: self.shared.options.calls_per_node_max });
        };
        let deadline = call.deadline;
        match tokio::time::timeout(deadline, self.call_now(call)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(TransportError::Deadline { node: self.node, after: deadline }),
        }
    }

    /// Whether there is a connection; makes the first.
    pub(crate) async fn ready(&self) -> Result<(), NoConnection> {
        self.believed()?;
        if self.least_loaded().0.is_some() {
            return Ok(());
        }
        let _alone = self.connecting.lock().await;
        // Somebody else may have made one meanwhile, or found out that there is none to be had.
        self.believed()?;
        if self.least_loaded().0.is_some() {
            return Ok(());
        }
        match self.connect().await {
            Ok(connection) => {
                self.connections.lock().push(connection);
                Ok(())
            }
            Err(why) => {
                if let NoConnection::Declined(reason) = &why {
                    self.decline(reason);
                }
                Err(why)
            }
        }
    }

    /// What a moment ago was found to stand in the way.
    fn believed(&self) -> Result<(), NoConnection> {
        match &*self.declined.lock() {
            Some((until, reason)) if Instant::now() < *until => Err(NoConnection::Declined(reason.clone())),
            _ => Ok(()),
        }
    }

    async fn call_now(&self, mut call: Call) -> Result<CallAnswer, TransportError> {
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
                self.tcp.call(self.node, call).await
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
        self.believed()?;
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
        let answer = self.tcp.call(self.node, Call::new(offer.encode(), shared.options.connect_timeout)).await;
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
