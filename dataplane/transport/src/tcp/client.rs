//! The caller's side: pools of connections, one pool per node.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use penstock_buf::BufMut;
use penstock_proto::{NodeId, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::frame::{FRAME_BYTES, Frame, GREETING_BYTES, Greeting, Kind, VERSION};
use super::write_message;
use crate::{Answer, Call, Messenger, TransportError};

/// Tries to connect before a call fails. Few: the executor has other nodes to ask.
const CONNECT_TRIES_MAX: u32 = 3;
/// Wait before the second try; it doubles.
const CONNECT_BACKOFF: Duration = Duration::from_millis(10);
/// How a [`TcpMessenger`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// Connections to one node, idle and busy; further calls wait for one.
    pub connections_per_node_max: usize,
    /// Calls to one node, under way and waiting for a connection; past it, [`TransportError::Overloaded`].
    pub calls_per_node_max: usize,
    /// How long one try to connect, greeting included, may take.
    pub connect_timeout: Duration,
    /// An idle connection older than this is not used again. Less than the node's idle timeout.
    pub idle_max: Duration,
    /// After a node could not be reached, calls to it fail at once for so long, instead of each trying again.
    pub down_for: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            connections_per_node_max: limits::CONNECTIONS_PER_NODE_MAX,
            calls_per_node_max: 4096,
            connect_timeout: Duration::from_secs(3),
            idle_max: Duration::from_secs(60),
            down_for: Duration::from_millis(250),
        }
    }
}

/// How a [`TcpMessenger`] is, over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpStats {
    /// Connections made since the start.
    pub connected: u64,
    /// Calls sent again because a pooled connection turned out to be dead.
    pub retried: u64,
    /// Connections that wait for a call.
    pub idle: usize,
}

/// Calls nodes over TCP.
pub struct TcpMessenger {
    peers: HashMap<NodeId, Peer>,
}

impl TcpMessenger {
    /// Nodes by `host:port`. Connects when it is first needed.
    pub fn new(peers: HashMap<NodeId, String>, options: TcpOptions) -> Self {
        let peers = peers.into_iter().map(|(node, address)| (node, Peer::new(node, address, options))).collect();
        Self { peers }
    }

    /// How it is.
    pub fn stats(&self) -> TcpStats {
        self.peers.values().fold(TcpStats::default(), |sum, peer| TcpStats {
            connected: sum.connected + peer.connected.load(Ordering::Relaxed),
            retried: sum.retried + peer.retried.load(Ordering::Relaxed),
            idle: sum.idle + peer.state.lock().idle.len(),
        })
    }
}

#[async_trait]
impl Messenger for TcpMessenger {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        call.check()?;
        let Some(peer) = self.peers.get(&node) else {
            return Err(TransportError::Unreachable { node, reason: "it has no address in the configuration".into() });
        };
        let Ok(_place) = peer.places.try_acquire() else {
            return Err(TransportError::Overloaded { node, calls: peer.options.calls_per_node_max });
        };
        let deadline = call.deadline;
        // On expiry the future is dropped, and the connection in it: closed, never pooled.
        match tokio::time::timeout(deadline, peer.call(call)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}

struct Peer {
    node: NodeId,
    address: String,
    options: TcpOptions,
    /// Calls under way and waiting.
    places: Semaphore,
    /// Connections, busy ones; an idle one is taken before a new one is made.
    slots: Semaphore,
    state: Mutex<PeerState>,
    connected: AtomicU64,
    retried: AtomicU64,
}

#[derive(Default)]
struct PeerState {
    /// The most recently used last.
    idle: Vec<(Connection, Instant)>,
    down: Option<(Instant, String)>,
}

/// An exchange that failed.
struct Failure {
    error: TransportError,
    /// Whether the connection may have died before the node saw the call: nothing of a reply came.
    unanswered: bool,
}

impl Peer {
    fn new(node: NodeId, address: String, options: TcpOptions) -> Self {
        Self {
            node,
            address,
            options,
            places: Semaphore::new(options.calls_per_node_max.max(1)),
            slots: Semaphore::new(options.connections_per_node_max.max(1)),
            state: Mutex::default(),
            connected: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        }
    }

    async fn call(&self, mut call: Call) -> Result<Answer, TransportError> {
        let _slot = self.slots.acquire().await.expect("invariant: the semaphore is never closed");
        let mut landing = call.landing.take();
        if let Some(mut connection) = self.take_idle() {
            match connection.exchange(&call, landing.as_mut()).await {
                Ok(reply) => return Ok(self.answer(connection, reply, landing)),
                // The peer closed it while it was idle: restarted, most likely. Every request is safe to send again
                // (see the crate's page), and nothing has landed.
                Err(failure) if failure.unanswered => {
                    self.state.lock().idle.clear();
                    self.retried.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => return Err(self.name(failure.error)),
            }
        }
        let mut connection = self.connect().await?;
        match connection.exchange(&call, landing.as_mut()).await {
            Ok(reply) => Ok(self.answer(connection, reply, landing)),
            Err(failure) => Err(self.name(failure.error)),
        }
    }

    fn answer(&self, connection: Connection, (header, landed): (Bytes, usize), landing: Option<BufMut>) -> Answer {
        self.state.lock().idle.push((connection, Instant::now()));
        let landed = landing.map(|mut landing| {
            landing.truncate(landed);
            landing
        });
        Answer { header, landed }
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut state = self.state.lock();
        let (connection, since) = state.idle.pop()?;
        if since.elapsed() < self.options.idle_max {
            return Some(connection);
        }
        // The most recent is too old, so all are.
        state.idle.clear();
        None
    }

    fn name(&self, error: TransportError) -> TransportError {
        let at = |reason: String| format!("{} at {}: {reason}", self.node, self.address);
        match error {
            TransportError::Protocol { reason } => TransportError::Protocol { reason: at(reason) },
            TransportError::Closed { reason } => TransportError::Closed { reason: at(reason) },
            other => other,
        }
    }

    fn unreachable(&self, reason: &str) -> TransportError {
        TransportError::Unreachable { node: self.node, reason: format!("{}: {reason}", self.address) }
    }

    /// A fresh connection, greeted.
    async fn connect(&self) -> Result<Connection, TransportError> {
        {
            let state = self.state.lock();
            if let Some((until, reason)) = &state.down
                && Instant::now() < *until
            {
                return Err(self.unreachable(reason));
            }
        }
        let mut backoff = CONNECT_BACKOFF;
        let mut tried = 0;
        let reason = loop {
            tried += 1;
            let outcome = tokio::time::timeout(self.options.connect_timeout, self.greet()).await;
            match outcome {
                Ok(Ok(connection)) => {
                    self.state.lock().down = None;
                    self.connected.fetch_add(1, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(Refused::Final(reason))) => break reason,
                Ok(Err(Refused::Io(error))) if tried >= CONNECT_TRIES_MAX => {
                    break format!("{error} ({tried} tries)");
                }
                Err(_elapsed) if tried >= CONNECT_TRIES_MAX => {
                    break format!("no connection within {:?} ({tried} tries)", self.options.connect_timeout);
                }
                _ => tokio::time::sleep(backoff).await,
            }
            backoff *= 2;
        };
        tracing::warn!(node = %self.node, address = self.address, reason, "a node can't be reached");
        self.state.lock().down = Some((Instant::now() + self.options.down_for, reason.clone()));
        Err(self.unreachable(&reason))
    }

    async fn greet(&self) -> Result<Connection, Refused> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&Greeting::to(self.node).encode()).await?;
        let mut bytes = [0; GREETING_BYTES];
        stream.read_exact(&mut bytes).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Refused::Io(io::Error::new(
                error.kind(),
                "it closed the connection without a greeting; perhaps it has as many as it takes",
            )),
            _ => Refused::Io(error),
        })?;
        let greeting = Greeting::decode(&bytes).map_err(|error| Refused::Final(error.to_string()))?;
        if greeting.version != VERSION {
            return Err(Refused::Final(super::frame::FrameError::Version(greeting.version).to_string()));
        }
        if greeting.node != self.node {
            return Err(Refused::Final(format!(
                "it is {}, not {}: check the addresses in the configuration",
                greeting.node, self.node
            )));
        }
        Ok(Connection { stream, calls: 0 })
    }
}

/// Why a try to connect failed.
enum Refused {
    /// Trying again may help.
    Io(io::Error),
    /// It won't.
    Final(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection that was greeted, between two exchanges.
struct Connection {
    stream: TcpStream,
    calls: u64,
}

impl Connection {
    /// One call. The answer is the reply's header and how many bytes landed.
    async fn exchange(&mut self, call: &Call, landing: Option<&mut BufMut>) -> Result<(Bytes, usize), Failure> {
        let unanswered = |error: io::Error| Failure { error: closed(&error), unanswered: true };
        let broken = |error: io::Error| Failure { error: closed(&error), unanswered: false };
        let protocol = |reason: String| Failure { error: TransportError::protocol(reason), unanswered: false };

        self.calls += 1;
        // What does not fit in a reply's payload can't be sent to us either.
        let landing_bytes = landing.as_ref().map_or(0, |landing| landing.len().min(crate::PAYLOAD_BYTES_MAX));
        let frame = Frame::new(Kind::Request, self.calls, &call.header, call.outgoing_bytes(), landing_bytes);
        write_message(&mut self.stream, &frame, &call.header, &call.outgoing).await.map_err(unanswered)?;

        let mut head = [0; FRAME_BYTES];
        let first = self.stream.read(&mut head).await.map_err(unanswered)?;
        if first == 0 {
            return Err(unanswered(io::Error::new(io::ErrorKind::UnexpectedEof, "no reply came")));
        }
        self.stream.read_exact(&mut head[first..]).await.map_err(broken)?;
        let reply = Frame::decode(&head, Kind::Reply).map_err(|error| protocol(error.to_string()))?;
        if reply.call != self.calls {
            return Err(protocol(format!("a reply to call {} where call {} is due", reply.call, self.calls)));
        }
        if reply.payload_bytes > landing_bytes {
            return Err(protocol(format!(
                "a reply with {} bytes of payload to a call that has room for {landing_bytes}",
                reply.payload_bytes
            )));
        }
        let mut header = BytesMut::zeroed(reply.header_bytes);
        self.stream.read_exact(&mut header).await.map_err(broken)?;
        reply.check_header(&header).map_err(|error| protocol(error.to_string()))?;
        if let Some(landing) = landing {
            self.stream.read_exact(&mut landing[..reply.payload_bytes]).await.map_err(broken)?;
        }
        Ok((header.freeze(), reply.payload_bytes))
    }
}

fn closed(error: &io::Error) -> TransportError {
    TransportError::closed(error.to_string())
}
