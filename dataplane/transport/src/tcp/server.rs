//! The node's side: accepts connections and serves one call at a time on each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use penstock_buf::{Buf, BufMut};
use penstock_proto::{NodeId, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::frame::{FRAME_BYTES, Frame, FrameError, GREETING_BYTES, Greeting, Kind, VERSION};
use super::write_message;
use crate::mem::{check_pull, check_push};
use crate::{Handler, OneSided, TransportError, check_header};

/// Wait after `accept` failed: descriptors have run out, most likely.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Payload that no one wants is read in pieces of this size.
const DRAIN_BYTES: usize = 64 << 10;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct TcpServerOptions {
    /// Who we are: calls meant for another node are refused.
    pub node: NodeId,
    /// Connections at a time; past it, new ones are closed at once.
    pub connections_max: usize,
    /// How long a connection may wait for its next call.
    pub idle_timeout: Duration,
    /// How long the head and header of a message may take once its first byte is there, and the greeting.
    pub frame_timeout: Duration,
    /// How long the payload of one message may take, either way.
    pub payload_timeout: Duration,
    /// How long calls in flight may take after the shutdown was asked for; then they are aborted.
    pub shutdown_grace: Duration,
    /// Counts; keep a clone to read them.
    pub stats: Arc<TcpServerStats>,
}

impl TcpServerOptions {
    /// The house's defaults.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            connections_max: limits::NODE_CONNECTIONS_MAX,
            idle_timeout: Duration::from_secs(180),
            frame_timeout: Duration::from_secs(10),
            payload_timeout: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(10),
            stats: Arc::default(),
        }
    }
}

/// What a server has seen since its start.
#[derive(Debug, Default)]
pub struct TcpServerStats {
    accepted: AtomicU64,
    refused: AtomicU64,
    misdirected: AtomicU64,
    malformed: AtomicU64,
    timed_out: AtomicU64,
    panicked: AtomicU64,
    calls: AtomicU64,
}

/// [`TcpServerStats`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpServerCounts {
    /// Connections taken.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections meant for another node or another version.
    pub misdirected: u64,
    /// Connections closed for a malformed greeting or message.
    pub malformed: u64,
    /// Connections closed because the peer stalled inside a message.
    pub timed_out: u64,
    /// Connections closed because the handler panicked.
    pub panicked: u64,
    /// Calls answered.
    pub calls: u64,
}

impl TcpServerStats {
    /// The counts now.
    pub fn counts(&self) -> TcpServerCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TcpServerCounts {
            accepted: of(&self.accepted),
            refused: of(&self.refused),
            misdirected: of(&self.misdirected),
            malformed: of(&self.malformed),
            timed_out: of(&self.timed_out),
            panicked: of(&self.panicked),
            calls: of(&self.calls),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Serves calls on `listener` until `shutdown`; then finishes the calls in flight, within the grace of `options`.
///
/// # Errors
/// None today: trouble with one connection ends that connection, and trouble with `accept` is waited out and logged.
pub async fn serve_tcp(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    shutdown: CancellationToken,
    options: TcpServerOptions,
) -> io::Result<()> {
    let options = Arc::new(options);
    let mut connections: JoinSet<()> = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note_panic(&options, ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(node = %options.node, %error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        if connections.len() >= options.connections_max {
            count(&options.stats.refused);
            tracing::warn!(node = %options.node, %peer, max = options.connections_max, "too many connections");
            continue;
        }
        count(&options.stats.accepted);
        let (handler, shutdown, options) = (Arc::clone(&handler), shutdown.clone(), Arc::clone(&options));
        connections.spawn(async move {
            let mut connection = Connection { stream, options: &options, shutdown: &shutdown };
            if let Err(ended) = connection.serve(&*handler).await {
                ended.count(&options.stats);
                tracing::warn!(node = %options.node, %peer, reason = %ended, "a connection was closed");
            }
        });
    }
    drop(listener);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(&options, ended);
        }
    };
    if tokio::time::timeout(options.shutdown_grace, finish).await.is_err() {
        tracing::warn!(node = %options.node, calls = connections.len(), "calls in flight are aborted: the grace is over");
        connections.shutdown().await;
    }
    Ok(())
}

fn note_panic(options: &TcpServerOptions, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        count(&options.stats.panicked);
        tracing::error!(node = %options.node, %error, "a handler panicked; its connection is closed");
    }
}

/// Why a connection was closed, other than by the peer between two calls.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Malformed(#[from] FrameError),
    #[error("the peer wants {wanted} with version {version}; this is another node or version")]
    Misdirected { wanted: NodeId, version: u16 },
    #[error("the peer took too long over {0}")]
    TimedOut(&'static str),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a handler gave an answer that can't be sent: {0}")]
    Answer(TransportError),
    #[error("the payload could not be read to its end")]
    Payload,
}

impl Ended {
    fn count(&self, stats: &TcpServerStats) {
        match self {
            Self::Malformed(_) => count(&stats.malformed),
            Self::Misdirected { .. } => count(&stats.misdirected),
            Self::TimedOut(_) => count(&stats.timed_out),
            Self::Io(_) | Self::Answer(_) | Self::Payload => {}
        }
    }
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = io::Result<T>> + Send,
) -> Result<T, Ended> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_elapsed) => Err(Ended::TimedOut(what)),
    }
}

struct Connection<'a> {
    stream: TcpStream,
    options: &'a TcpServerOptions,
    shutdown: &'a CancellationToken,
}

impl Connection<'_> {
    async fn serve(&mut self, handler: &dyn Handler) -> Result<(), Ended> {
        self.stream.set_nodelay(true)?;
        self.greet().await?;
        while let Some(frame) = self.next_frame().await? {
            let mut header = BytesMut::zeroed(frame.header_bytes);
            within(self.options.frame_timeout, "a header", self.stream.read_exact(&mut header)).await?;
            frame.check_header(&header)?;
            self.answer(handler, &frame, header.freeze()).await?;
            count(&self.options.stats.calls);
        }
        Ok(())
    }

    async fn greet(&mut self) -> Result<(), Ended> {
        let mut bytes = [0; GREETING_BYTES];
        within(self.options.frame_timeout, "its greeting", self.stream.read_exact(&mut bytes)).await?;
        let greeting = Greeting::decode(&bytes)?;
        // Also when it is for another: the peer then can say who is at this address.
        let ours = Greeting::to(self.options.node).encode();
        within(self.options.frame_timeout, "reading a greeting", self.stream.write_all(&ours)).await?;
        if greeting == Greeting::to(self.options.node) && greeting.version == VERSION {
            Ok(())
        } else {
            Err(Ended::Misdirected { wanted: greeting.node, version: greeting.version })
        }
    }

    /// The head of the next call; `None` when the peer is done, has been silent for long, or we shut down.
    async fn next_frame(&mut self) -> Result<Option<Frame>, Ended> {
        let mut head = [0; FRAME_BYTES];
        let first = tokio::select! {
            biased;
            // A call whose first bytes are there is in flight: it is served.
            first = tokio::time::timeout(self.options.idle_timeout, self.stream.read(&mut head)) => first,
            () = self.shutdown.cancelled() => return Ok(None),
        };
        let first = match first {
            Ok(Ok(0)) | Err(_) => return Ok(None),
            // The peer dropped an idle connection: nothing was lost.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Ok(first) => first?,
        };
        within(self.options.frame_timeout, "the head of a message", self.stream.read_exact(&mut head[first..])).await?;
        Ok(Some(Frame::decode(&head, Kind::Request)?))
    }

    async fn answer(&mut self, handler: &dyn Handler, frame: &Frame, header: bytes::Bytes) -> Result<(), Ended> {
        let mut memory = Memory {
            stream: &mut self.stream,
            payload_timeout: self.options.payload_timeout,
            outgoing_bytes: frame.payload_bytes,
            unread_bytes: frame.payload_bytes,
            pulled: false,
            broken: false,
            landing_bytes: frame.landing_bytes,
            pushed: Vec::new(),
        };
        let reply = handler.handle(header, &mut memory).await;
        if memory.broken {
            return Err(Ended::Payload);
        }
        check_header(&reply).map_err(Ended::Answer)?;
        let (unread_bytes, pushed) = (memory.unread_bytes, memory.pushed);
        let limit = self.options.payload_timeout;
        // The peer writes its whole payload before it reads.
        within(limit, "a payload", drain(&mut self.stream, unread_bytes)).await?;
        let payload_bytes = pushed.iter().map(Buf::len).sum();
        let frame = Frame::new(Kind::Reply, frame.call, &reply, payload_bytes, 0);
        within(limit, "reading a reply", write_message(&mut self.stream, &frame, &reply, &pushed)).await
    }
}

/// Reads and forgets `bytes` bytes.
async fn drain(stream: &mut TcpStream, mut bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    let mut scratch = vec![0; bytes.min(DRAIN_BYTES)];
    while bytes > 0 {
        let most = bytes.min(DRAIN_BYTES);
        match stream.read(&mut scratch[..most]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes -= read,
        }
    }
    Ok(())
}

/// The caller's memory, at the other end of the connection.
struct Memory<'a> {
    stream: &'a mut TcpStream,
    payload_timeout: Duration,
    outgoing_bytes: usize,
    unread_bytes: usize,
    pulled: bool,
    /// The connection can't be used any more.
    broken: bool,
    landing_bytes: usize,
    /// Goes out behind the reply's header.
    pushed: Vec<Buf>,
}

#[async_trait]
impl OneSided for Memory<'_> {
    fn outgoing_bytes(&self) -> usize {
        self.outgoing_bytes
    }

    fn landing_bytes(&self) -> usize {
        self.landing_bytes
    }

    async fn pull(&mut self, into: &mut BufMut) -> Result<(), TransportError> {
        check_pull(self.pulled, self.outgoing_bytes, into.len())?;
        self.pulled = true;
        let (stream, unread) = (&mut *self.stream, &mut self.unread_bytes);
        let read_all = async {
            // By pieces, so that `unread` stays right when the handler gives up in the middle.
            while *unread > 0 {
                let at = into.len() - *unread;
                match stream.read(&mut into[at..]).await? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                    read => *unread -= read,
                }
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(self.payload_timeout, read_all).await;
        self.broken = !matches!(outcome, Ok(Ok(())));
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TransportError::closed(format!("in the middle of a payload: {error}"))),
            Err(_elapsed) => Err(TransportError::closed("the caller stalls in the middle of a payload")),
        }
    }

    async fn push(&mut self, from: Buf) -> Result<(), TransportError> {
        check_push(self.landing_bytes, from.len())?;
        self.landing_bytes -= from.len();
        self.pushed.push(from);
        Ok(())
    }
}
