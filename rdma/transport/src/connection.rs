//! The caller's side of one connection: calls in slots, each with the memory that it lends.
//!
//! What a call lends belongs to the connection until the reply is there or the queue pair is destroyed, whatever happens
//! to the caller meanwhile. So a buffer goes back to its pool only when nothing can be written to it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use penstock_buf::{Buf, BufMut, BufPool};
use penstock_verbs::{Lease, Local, QueuePair, VerbsError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::link::{self, Ring};
use crate::message::{INLINE_BYTES_MAX, Kind, Message, SOURCES_MAX};

/// How long a payload of many pieces waits for a buffer to be put together in.
const BUFFER_WAIT: Duration = Duration::from_secs(5);

/// Pieces of foreign memory up to this long (zeros that pad a shard) are copied: registering them costs more.
const FOREIGN_COPIED_BYTES_MAX: usize = 4 << 10;

/// How long a goodbye may take.
const BYE_WAIT: Duration = Duration::from_secs(1);
/// How often a node with calls under way is pinged.
const PING_EVERY: Duration = Duration::from_secs(1);

/// Memory that a call lends.
struct Lent {
    sources: Vec<Lease<Local<Buf>>>,
    landing: Landing,
}

enum Landing {
    None,
    /// The answer's payload comes inside the reply.
    Small(BufMut),
    Lent(Lease<Local<BufMut>>),
}

impl Lent {
    fn nothing(landing: Option<BufMut>) -> Self {
        Self { sources: Vec::new(), landing: landing.map_or(Landing::None, Landing::Small) }
    }

    /// Takes everything back. From then on the node can reach nothing of it.
    async fn take_back(self) -> Option<BufMut> {
        let sources = futures::future::join_all(self.sources.into_iter().map(Lease::revoke));
        let landing = async {
            match self.landing {
                Landing::None => None,
                Landing::Small(buffer) => Some(buffer),
                Landing::Lent(lease) => Some(lease.revoke().await.into_inner()),
            }
        };
        futures::join!(sources, landing).1
    }
}

/// How an exchange ended, and the landing buffer, which nothing writes to any more.
pub(crate) struct Ended {
    pub(crate) landing: Option<BufMut>,
    pub(crate) result: Result<Reply, Failure>,
}

/// A reply.
pub(crate) struct Reply {
    pub(crate) header: Bytes,
    pub(crate) landed_bytes: usize,
}

/// Why there is none.
pub(crate) enum Failure {
    /// The connection is gone; another may do.
    Connection(String),
    /// The node says that it could not answer this call.
    Call(String),
    /// The node broke the protocol.
    Protocol(String),
}

struct Pending {
    lent: Lent,
    /// `None` once the caller has gone.
    done: Option<oneshot::Sender<(Lent, Result<Message, String>)>>,
    /// The places that the call takes, until its reply is there.
    _slot: Slot,
}

/// A call's place on a connection.
pub(crate) struct Slot {
    pub(crate) _peer: OwnedSemaphorePermit,
    pub(crate) _connection: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Calls {
    last: u64,
    pending: HashMap<u64, Pending>,
    /// Why there can be no more.
    closed: Option<String>,
}

pub(crate) struct Connection {
    pub(crate) pair: QueuePair,
    pool: BufPool,
    slots: Arc<Semaphore>,
    slots_max: usize,
    calls: Mutex<Calls>,
    used: Mutex<Instant>,
    /// A message was acknowledged: packets get through.
    proven: AtomicBool,
    grace: Duration,
}

impl Connection {
    /// Takes a connected queue pair into use.
    pub(crate) fn start(pair: QueuePair, pool: BufPool, ring: Ring, slots: usize, grace: Duration) -> Arc<Self> {
        let connection = Arc::new(Self {
            pair,
            pool,
            slots: Arc::new(Semaphore::new(slots)),
            slots_max: slots,
            calls: Mutex::default(),
            used: Mutex::new(Instant::now()),
            proven: AtomicBool::new(false),
            grace,
        });
        tokio::spawn(Arc::clone(&connection).read(ring));
        tokio::spawn(Self::watch(Arc::downgrade(&connection)));
        connection
    }

    /// Calls under way.
    pub(crate) fn load(&self) -> usize {
        self.slots_max - self.slots.available_permits().min(self.slots_max)
    }

    pub(crate) fn try_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.calls.lock().closed.is_some()
    }

    /// How long it has had no call. Zero while it has one.
    pub(crate) fn idle_for(&self) -> Duration {
        if self.load() > 0 { Duration::ZERO } else { self.used.lock().elapsed() }
    }

    /// Whether anything ever got through it.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Fences it: the queue pair is destroyed, then every call ends.
    pub(crate) fn fail(&self, reason: &str) {
        let pending = {
            let mut calls = self.calls.lock();
            calls.closed.get_or_insert_with(|| reason.to_owned());
            std::mem::take(&mut calls.pending)
        };
        // Before anybody is told, and before any memory is anybody's again.
        self.pair.destroy();
        for (_, Pending { lent, done, _slot }) in pending {
            if let Some(done) = done {
                drop(done.send((lent, Err(reason.to_owned()))));
            }
        }
    }

    /// Closes it when nothing is under way.
    pub(crate) async fn close(self: Arc<Self>) {
        // A node that is gone need not be told.
        drop(
            tokio::time::timeout(
                BYE_WAIT,
                link::send(&self.pair, &self.pool, &Message::new(Kind::Bye, 0, Bytes::new())),
            )
            .await,
        );
        self.fail("it was closed");
    }

    /// A queue pair whose peer has died looks like one that waits for an answer. While calls are under way, a message
    /// that needs no answer but the device's finds out.
    async fn watch(connection: Weak<Self>) {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            let Some(connection) = connection.upgrade() else { return };
            if connection.is_closed() {
                return;
            }
            if connection.load() > 0
                && let Err(error) =
                    link::send(&connection.pair, &connection.pool, &Message::new(Kind::Ping, 0, Bytes::new())).await
            {
                connection.fail(&error.to_string());
            }
        }
    }

    async fn read(self: Arc<Self>, mut ring: Ring) {
        let reason = loop {
            match ring.next().await {
                Ok(message) if matches!(message.kind, Kind::Reply | Kind::Failed) => {
                    let Some(pending) = self.calls.lock().pending.remove(&message.call) else {
                        break format!("an answer to call {}, which there is not", message.call);
                    };
                    let Pending { lent, done, _slot } = pending;
                    // Nobody waits any more: what was lent is taken back by being dropped.
                    if let Some(done) = done {
                        drop(done.send((lent, Ok(message))));
                    }
                }
                Ok(message) => break format!("a message that only callers send: {:?}", message.kind),
                Err(error) => break error.to_string(),
            }
        };
        self.fail(&reason);
    }

    /// One call.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        slot: Slot,
        header: &Bytes,
        outgoing: &[Buf],
        landing: Option<BufMut>,
    ) -> Ended {
        *self.used.lock() = Instant::now();
        let room = landing.as_ref().map_or(0, |landing| landing.len().min(penstock_transport::PAYLOAD_BYTES_MAX));
        let mut request = Message::new(Kind::Request, 0, header.clone());
        request.landing_bytes = room;
        let lent = match self.lend(outgoing, landing, room, &mut request).await {
            Ok(lent) => lent,
            Err((landing, error)) => {
                let reason = format!("lending memory: {error}");
                self.fail(&reason);
                return Ended { landing, result: Err(Failure::Connection(reason)) };
            }
        };
        let (done, ended) = oneshot::channel();
        let entered = {
            let mut calls = self.calls.lock();
            match &calls.closed {
                Some(reason) => Err((lent, reason.clone())),
                None => {
                    calls.last += 1;
                    request.call = calls.last;
                    calls.pending.insert(request.call, Pending { lent, done: Some(done), _slot: slot });
                    Ok(())
                }
            }
        };
        if let Err((lent, reason)) = entered {
            return Ended { landing: lent.take_back().await, result: Err(Failure::Connection(reason)) };
        }
        let guard = Guard { connection: self, call: request.call, armed: true };
        match link::send(&self.pair, &self.pool, &request).await {
            Ok(()) => self.proven.store(true, Ordering::Relaxed),
            // Ends our call too.
            Err(error) => self.fail(&error.to_string()),
        }
        let (lent, answer) = ended.await.expect("invariant: a pending call is ended by an answer or by `fail`");
        guard.disarm();
        let mut landing = lent.take_back().await;
        *self.used.lock() = Instant::now();
        let result = match answer {
            Err(reason) => Err(Failure::Connection(reason)),
            Ok(answer) => landed(answer, room, landing.as_mut()),
        };
        if let Err(Failure::Protocol(reason)) = &result {
            self.fail(reason);
        }
        Ended { landing, result }
    }

    /// Lends what the request needs lent, and says so in it.
    async fn lend(
        &self,
        outgoing: &[Buf],
        landing: Option<BufMut>,
        room: usize,
        request: &mut Message,
    ) -> Result<Lent, (Option<BufMut>, String)> {
        let total: usize = outgoing.iter().map(Buf::len).sum();
        request.payload_bytes = total;
        let mut lent = Lent::nothing(landing);
        if total > 0 && total <= INLINE_BYTES_MAX {
            let mut inline = BytesMut::with_capacity(total);
            outgoing.iter().for_each(|piece| inline.extend_from_slice(piece));
            request.inline = inline.freeze();
        } else if total > 0 {
            match self.lend_sources(outgoing, total).await {
                Ok(sources) => lent.sources = sources,
                Err(error) => return Err((lent.take_back().await, error)),
            }
            request.sources = lent.sources.iter().map(Lease::remote).collect();
        }
        if room <= INLINE_BYTES_MAX {
            return Ok(lent);
        }
        let Landing::Small(buffer) = std::mem::replace(&mut lent.landing, Landing::None) else { return Ok(lent) };
        let local = match self.pair.domain().attach(buffer) {
            Ok(local) => local,
            Err(refused) => return Err((Some(refused.memory), refused.error.to_string())),
        };
        match self.pair.lease_write(local, 0..room).await {
            Ok(lease) => {
                request.landing = Some(lease.remote());
                lent.landing = Landing::Lent(lease);
                Ok(lent)
            }
            Err(refused) => Err((Some(refused.memory.into_inner()), refused.error.to_string())),
        }
    }

    async fn lend_sources(&self, outgoing: &[Buf], total: usize) -> Result<Vec<Lease<Local<Buf>>>, String> {
        let mut pieces: Vec<Buf> = outgoing.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        if pieces.len() > SOURCES_MAX {
            let mut whole = self.pool.acquire(total, BUFFER_WAIT).await.map_err(|error| error.to_string())?;
            let mut at = 0;
            for piece in &pieces {
                whole[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            pieces = vec![whole.freeze()];
        }
        for piece in &mut pieces {
            if piece.pool().is_none() && piece.len() <= FOREIGN_COPIED_BYTES_MAX {
                let bytes = piece.len();
                let mut copy = self.pool.acquire(bytes, BUFFER_WAIT).await.map_err(|error| error.to_string())?;
                copy.copy_from_slice(piece);
                *piece = copy.freeze();
            }
        }
        let lend = pieces.into_iter().map(|piece| async move {
            let bytes = piece.len();
            let local = self.pair.domain().attach_read_only(piece).map_err(|refused| refused.error)?;
            self.pair.lease_read(local, 0..bytes).await.map_err(|refused| refused.error)
        });
        futures::future::try_join_all(lend).await.map_err(|error: VerbsError| error.to_string())
    }

    /// The caller has gone. What it lent stays until the node is done with it, or the grace is over.
    fn abandon(self: &Arc<Self>, call: u64) {
        {
            let mut calls = self.calls.lock();
            let Some(pending) = calls.pending.get_mut(&call) else { return };
            pending.done = None;
        }
        let connection = Arc::clone(self);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.fail("the runtime is gone") };
        runtime.spawn(async move {
            let cancel = Message::new(Kind::Cancel, call, Bytes::new());
            let told = async {
                // If it can't be sent, the grace will end it.
                drop(link::send(&connection.pair, &connection.pool, &cancel).await);
            };
            tokio::join!(tokio::time::timeout(connection.grace, told), tokio::time::sleep(connection.grace)).0.ok();
            let is_pending = connection.calls.lock().pending.contains_key(&call);
            if is_pending {
                connection.fail("a call that was given up is not answered: what it lent is taken back");
            }
        });
    }
}

/// A call under way. Dropped with the caller's future, it gives the call up.
struct Guard<'a> {
    connection: &'a Arc<Connection>,
    call: u64,
    armed: bool,
}

impl Guard<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.connection.abandon(self.call);
        }
    }
}

/// What an answer says, with its payload in its place.
fn landed(answer: Message, room: usize, landing: Option<&mut BufMut>) -> Result<Reply, Failure> {
    if answer.kind == Kind::Failed {
        return Err(Failure::Call(String::from_utf8_lossy(&answer.header).into_owned()));
    }
    if answer.payload_bytes > room {
        return Err(Failure::Protocol(format!(
            "a reply with {} bytes of payload to a call that has room for {room}",
            answer.payload_bytes
        )));
    }
    if let Some(landing) = landing
        && !answer.inline.is_empty()
    {
        landing[..answer.inline.len()].copy_from_slice(&answer.inline);
    }
    Ok(Reply { header: answer.header, landed_bytes: answer.payload_bytes })
}
