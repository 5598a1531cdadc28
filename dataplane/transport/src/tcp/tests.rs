//! What only TCP can do wrong. What every transport must do is in the conformance suite.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_proto::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::frame::{FRAME_BYTES, Frame, GREETING_BYTES, Greeting, Kind};
use super::{TcpMessenger, TcpOptions, TcpServerCounts, TcpServerOptions, TcpServerStats, serve_tcp};
use crate::conformance::{self, Fixture};
use crate::{
    Answer, Call, Handler, Messenger, OneSided, PAYLOAD_BYTES_MAX, ThrottleOptions, Throttled, TransportError,
};

const NODE: NodeId = NodeId(7);
const PLENTY: Duration = Duration::from_secs(30);

/// Aborts its servers when dropped, so that their ports close.
#[derive(Default)]
struct Tcp {
    servers: Mutex<Vec<CancellationToken>>,
    throttle: Option<ThrottleOptions>,
}

#[async_trait]
impl Fixture for Tcp {
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger> {
        let mut peers = HashMap::new();
        for (node, handler) in handlers {
            let server = Server::start(handler, TcpServerOptions::new(node)).await;
            peers.insert(node, server.address.to_string());
            self.servers.lock().push(server.shutdown);
        }
        let messenger = TcpMessenger::new(peers, TcpOptions::default());
        match self.throttle {
            Some(throttle) => Arc::new(Throttled::new(messenger, throttle)),
            None => Arc::new(messenger),
        }
    }
}

#[tokio::test]
async fn tcp_conforms() {
    assert_eq!(conformance::run_all(&Tcp::default()).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_conforms_with_threads_and_throttled() {
    let throttle = ThrottleOptions { bytes_per_second: 4 << 30, latency: Duration::from_micros(100) };
    assert_eq!(conformance::run_all(&Tcp { throttle: Some(throttle), ..Tcp::default() }).await, []);
}

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    stats: Arc<TcpServerStats>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(handler: Arc<dyn Handler>, options: TcpServerOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, handler, options)
    }

    fn start_on(listener: TcpListener, handler: Arc<dyn Handler>, options: TcpServerOptions) -> Self {
        let (shutdown, stats) = (CancellationToken::new(), Arc::clone(&options.stats));
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve_tcp(listener, handler, shutdown.clone(), options));
        Self { address, shutdown, stats, task }
    }

    async fn stop(self) -> SocketAddr {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.address
    }

    async fn until(&self, what: impl Fn(TcpServerCounts) -> bool) {
        until(|| what(self.stats.counts())).await;
    }

    /// A connection that has greeted, driven by hand.
    async fn raw(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&Greeting::to(NODE).encode()).await.unwrap();
        let mut greeting = [0; GREETING_BYTES];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(Greeting::decode(&greeting).unwrap().node, NODE);
        stream
    }
}

/// Waits for what must come; a test that waits in vain fails.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..3000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

fn messenger(address: SocketAddr) -> TcpMessenger {
    messenger_with(address, TcpOptions { down_for: Duration::ZERO, ..TcpOptions::default() })
}

fn messenger_with(address: SocketAddr, options: TcpOptions) -> TcpMessenger {
    TcpMessenger::new(HashMap::from([(NODE, address.to_string())]), options)
}

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap()
}

async fn hello(messenger: &dyn Messenger) -> Result<Answer, TransportError> {
    messenger.call(NODE, Call::new(Bytes::from_static(b"hello"), PLENTY)).await
}

/// Answers with the header, at once.
struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, header: Bytes, _memory: &mut dyn OneSided) -> Bytes {
        header
    }
}

/// Answers when it is let; counts who waits.
struct Gate(Semaphore, AtomicU64);

impl Gate {
    fn closed() -> Arc<Self> {
        Arc::new(Self(Semaphore::new(0), AtomicU64::new(0)))
    }

    fn arrived(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Handler for Gate {
    async fn handle(&self, header: Bytes, _memory: &mut dyn OneSided) -> Bytes {
        self.1.fetch_add(1, Ordering::SeqCst);
        let _ = self.0.acquire().await;
        header
    }
}

/// Pulls into a buffer of its pool.
struct Sink(BufPool);

#[async_trait]
impl Handler for Sink {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        let mut buffer = self.0.try_acquire(memory.outgoing_bytes()).unwrap();
        match memory.pull(&mut buffer).await {
            Ok(()) => header,
            Err(error) => error.to_string().into(),
        }
    }
}

#[tokio::test]
async fn a_call_for_another_node_is_refused_and_says_who_is_there() {
    let server = Server::start(Arc::new(Echo), TcpServerOptions::new(NodeId(2))).await;
    let error = hello(&messenger(server.address)).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { node: NODE, .. }));
    assert!(error.to_string().contains("it is node-02, not node-07"), "{error}");
    server.until(|counts| counts.misdirected == 1 && counts.calls == 0).await;
}

#[tokio::test]
async fn connections_are_used_again_and_at_most_so_many_are_made() {
    let gate = Gate::closed();
    let server = Server::start(Arc::clone(&gate) as _, TcpServerOptions::new(NODE)).await;
    let options = TcpOptions { connections_per_node_max: 3, ..TcpOptions::default() };
    let messenger = Arc::new(messenger_with(server.address, options));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let messenger = Arc::clone(&messenger);
            tokio::spawn(async move { hello(&*messenger).await })
        })
        .collect();
    until(|| messenger.stats().connected == 3).await;
    let waits = Call::new(Bytes::from_static(b"hello"), Duration::from_millis(50));
    assert!(matches!(messenger.call(NODE, waits).await, Err(TransportError::Deadline { .. })));
    gate.0.close();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().header, "hello");
    }
    let stats = messenger.stats();
    assert_eq!((stats.connected, stats.idle, stats.retried), (3, 3, 0));
    assert_eq!(server.stats.counts().accepted, 3);
}

#[tokio::test]
async fn past_the_calls_that_may_wait_a_caller_is_told_at_once() {
    let gate = Gate::closed();
    let server = Server::start(Arc::clone(&gate) as _, TcpServerOptions::new(NODE)).await;
    let options = TcpOptions { connections_per_node_max: 1, calls_per_node_max: 2, ..TcpOptions::default() };
    let messenger = messenger_with(server.address, options);
    let third = async {
        until(|| gate.arrived() == 1).await;
        let third = hello(&messenger).await;
        gate.0.close();
        third
    };
    let (first, second, third) = futures::join!(hello(&messenger), hello(&messenger), third);
    assert!(first.is_ok() && second.is_ok());
    let error = third.unwrap_err();
    assert_eq!(error, TransportError::Overloaded { node: NODE, calls: 2 });
    assert!(error.is_retryable());
}

/// Panics.
struct Broken;

#[async_trait]
impl Handler for Broken {
    async fn handle(&self, _header: Bytes, _memory: &mut dyn OneSided) -> Bytes {
        panic!("planted")
    }
}

#[tokio::test]
async fn a_panic_is_counted() {
    let server = Server::start(Arc::new(Broken), TcpServerOptions::new(NODE)).await;
    assert!(matches!(hello(&messenger(server.address)).await, Err(TransportError::Closed { .. })));
    server.until(|counts| counts.panicked == 1 && counts.calls == 0).await;
}

#[tokio::test]
async fn a_restarted_node_is_called_again_on_a_fresh_connection() {
    let server = Server::start(Arc::new(Echo), TcpServerOptions::new(NODE)).await;
    let messenger = messenger(server.address);
    assert!(hello(&messenger).await.is_ok());
    let address = server.stop().await;
    let listener = TcpListener::bind(address).await.unwrap();
    let _server = Server::start_on(listener, Arc::new(Echo), TcpServerOptions::new(NODE));
    assert!(hello(&messenger).await.is_ok());
    let stats = messenger.stats();
    assert_eq!((stats.connected, stats.retried, stats.idle), (2, 1, 1));
}

#[tokio::test]
async fn a_node_that_is_down_is_unreachable_and_for_a_while_not_tried_again() {
    let server = Server::start(Arc::new(Echo), TcpServerOptions::new(NODE)).await;
    let address = server.stop().await;
    let (eager, patient) =
        (messenger(address), messenger_with(address, TcpOptions { down_for: PLENTY * 100, ..TcpOptions::default() }));
    for messenger in [&eager, &patient] {
        let error = hello(messenger).await.unwrap_err();
        assert!(matches!(error, TransportError::Unreachable { node: NODE, .. }) && error.is_retryable());
        assert!(error.to_string().contains("3 tries"), "{error}");
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let _server = Server::start_on(listener, Arc::new(Echo), TcpServerOptions::new(NODE));
    assert!(hello(&patient).await.is_err());
    assert!(hello(&eager).await.is_ok());
}

#[tokio::test]
async fn idle_connections_are_closed_and_replaced_without_a_word() {
    let options = TcpServerOptions { idle_timeout: Duration::from_millis(500), ..TcpServerOptions::new(NODE) };
    let server = Server::start(Arc::new(Echo), options).await;
    let messenger = messenger(server.address);
    assert!(hello(&messenger).await.is_ok());
    let mut raw = server.raw().await;
    assert_eq!(raw.read(&mut [0; 1]).await.unwrap(), 0, "the server closes a silent connection");
    assert!(hello(&messenger).await.is_ok());
    // The client's own limit: old connections are not even tried.
    let messenger = messenger_with(server.address, TcpOptions { idle_max: Duration::ZERO, ..TcpOptions::default() });
    assert!(hello(&messenger).await.is_ok());
    assert!(hello(&messenger).await.is_ok());
    assert_eq!((messenger.stats().connected, messenger.stats().retried), (2, 0));
    assert_eq!(server.stats.counts().timed_out, 0);
}

#[tokio::test]
async fn too_many_connections_are_refused() {
    let options = TcpServerOptions { connections_max: 2, ..TcpServerOptions::new(NODE) };
    let server = Server::start(Arc::new(Echo), options).await;
    let (one, two) = (server.raw().await, server.raw().await);
    let messenger = messenger(server.address);
    assert!(matches!(hello(&messenger).await, Err(TransportError::Unreachable { .. })));
    assert!(server.stats.counts().refused >= 1);
    drop((one, two));
    let mut answer = hello(&messenger).await;
    for _ in 0..500 {
        if answer.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer = hello(&messenger).await;
    }
    assert!(answer.is_ok(), "room again: {answer:?}");
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let server = Server::start(Arc::new(Echo), TcpServerOptions::new(NODE)).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut sent = 0;
    for round in 0..60u32 {
        let mut stream =
            if round % 2 == 0 { TcpStream::connect(server.address).await.unwrap() } else { server.raw().await };
        let mut garbage = vec![0; rng.random_range(FRAME_BYTES..500)];
        rng.fill(&mut garbage[..]);
        if round % 3 == 0 {
            let frame = Frame { header_bytes: 5000, ..Frame::new(Kind::Request, 1, &Bytes::new(), 0, 0) };
            garbage[..FRAME_BYTES].copy_from_slice(&frame.encode());
        } else if round % 5 == 0 {
            let frame = Frame::new(Kind::Request, 1, &Bytes::new(), PAYLOAD_BYTES_MAX + 1, 0);
            garbage[..FRAME_BYTES].copy_from_slice(&frame.encode());
        } else if round % 7 == 0 {
            // The lengths are right, the header's checksum is not.
            let frame = Frame::new(Kind::Request, 1, &Bytes::from_static(b"abcd"), 0, 0);
            garbage[..FRAME_BYTES].copy_from_slice(&frame.encode());
            garbage.extend(b"efgh");
        }
        stream.write_all(&garbage).await.unwrap();
        sent += 1;
        // Closed, perhaps with a reset, and never an answer.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "round {round}: {answer:?}");
    }
    server.until(|counts| counts.malformed == sent && counts.calls == 0).await;
    assert!(hello(&messenger(server.address)).await.is_ok());
}

#[tokio::test]
async fn a_peer_that_stalls_inside_a_message_is_cut_off() {
    let short = Duration::from_millis(400);
    let options = TcpServerOptions { frame_timeout: short, payload_timeout: short, ..TcpServerOptions::new(NODE) };
    let handlers = pool();
    let server = Server::start(Arc::new(Sink(handlers.clone())), options).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    let header = Bytes::from_static(b"abcd");
    let frame = Frame::new(Kind::Request, 1, &header, 1000, 0).encode();
    for bytes in [&frame[..5], &frame[..], &[&frame[..], b"ab"].concat()] {
        let mut stream = server.raw().await;
        stream.write_all(bytes).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }
    assert_eq!(server.stats.counts().timed_out, 4);
    // In the middle of the payload, with a buffer in hand.
    let mut stream = server.raw().await;
    stream.write_all(&[&frame[..], b"abcd", &[0; 500]].concat()).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    until(|| handlers.stats().in_use_bytes == 0).await;
    assert_eq!(server.stats.counts().calls, 0);
}

#[tokio::test]
async fn a_cancelled_call_closes_its_connection_and_leaks_nothing() {
    let (ours, handlers) = (pool(), pool());
    let server = Server::start(Arc::new(Sink(handlers.clone())), TcpServerOptions::new(NODE)).await;
    // By hand, so that it is surely in the middle of the payload.
    let mut stream = server.raw().await;
    let frame = Frame::new(Kind::Request, 1, &Bytes::new(), 1 << 20, 0).encode();
    stream.write_all(&[&frame[..], &[1; 5000]].concat()).await.unwrap();
    until(|| handlers.stats().in_use_bytes > 0).await;
    drop(stream);
    until(|| handlers.stats().in_use_bytes == 0).await;

    let gate = Gate::closed();
    let server = Server::start(Arc::clone(&gate) as _, TcpServerOptions::new(NODE)).await;
    let messenger = messenger(server.address);
    let call = Call {
        header: Bytes::new(),
        outgoing: vec![ours.try_acquire(PAYLOAD_BYTES_MAX).unwrap().freeze()],
        landing: ours.try_acquire(4096),
        deadline: PLENTY,
    };
    tokio::select! {
        answer = messenger.call(NODE, call) => panic!("{answer:?}"),
        () = until(|| messenger.stats().connected == 1) => {}
    }
    assert_eq!(ours.stats().in_use_bytes, 0, "at once: nothing else holds the caller's memory");
    assert_eq!(messenger.stats().idle, 0);
    gate.0.close();
}

/// Stops pulling when half of the payload is there.
struct Impatient(BufPool, Semaphore);

#[async_trait]
impl Handler for Impatient {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        let mut buffer = self.0.try_acquire(memory.outgoing_bytes()).unwrap();
        let gave_up = tokio::select! {
            biased;
            done = memory.pull(&mut buffer) => return format!("{done:?}").into(),
            _ = self.1.acquire() => header,
        };
        assert!(memory.pull(&mut buffer).await.is_err(), "half of it is gone");
        gave_up
    }
}

#[tokio::test]
async fn a_handler_may_stop_in_the_middle_of_a_payload() {
    let handler = Arc::new(Impatient(pool(), Semaphore::new(0)));
    let server = Server::start(Arc::clone(&handler) as _, TcpServerOptions::new(NODE)).await;
    let mut stream = server.raw().await;
    let header = Bytes::from_static(b"abcd");
    let message = [&Frame::new(Kind::Request, 1, &header, 1000, 0).encode()[..], &header, &[7; 1000]].concat();
    stream.write_all(&message[..500]).await.unwrap();
    until(|| handler.0.stats().in_use_bytes > 0).await;
    handler.1.close();
    until(|| handler.0.stats().in_use_bytes == 0).await;
    stream.write_all(&message[500..]).await.unwrap();
    // The same connection, the next call: nothing of the payload is left on it.
    for call in [1, 2] {
        let mut reply = [0; FRAME_BYTES + 4];
        stream.read_exact(&mut reply).await.unwrap();
        let mut head = [0; FRAME_BYTES];
        head.copy_from_slice(&reply[..FRAME_BYTES]);
        assert_eq!(Frame::decode(&head, Kind::Reply).unwrap().call, call);
        if call == 1 {
            let next = [&Frame::new(Kind::Request, 2, &header, 0, 0).encode()[..], &header].concat();
            stream.write_all(&next).await.unwrap();
        }
    }
    assert_eq!(server.stats.counts().malformed, 0);
}

/// A node that follows the protocol until it is told not to.
async fn false_node(replies: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; GREETING_BYTES];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&Greeting::to(NODE).encode()).await.unwrap();
            let mut request = [0; FRAME_BYTES + 5];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn false_replies_are_protocol_errors_and_half_ones_are_not_asked_for_again() {
    let header = Bytes::from_static(b"fine");
    let reply = |call, payload| Frame::new(Kind::Reply, call, &header, payload, 0).encode().to_vec();
    let message = |frame: Vec<u8>| [&frame[..], b"fine"].concat();
    let mut flipped = message(reply(1, 0));
    flipped[10] ^= 1;
    let protocol = [
        ("room for 10", message(reply(1, 11))),
        ("call 2", message(reply(2, 0))),
        ("checksum", flipped),
        ("checksum", [&reply(1, 0)[..], b"fins"].concat()),
        ("kind 1", message(Frame::new(Kind::Request, 1, &header, 0, 0).encode().to_vec())),
        ("magic", vec![0; 64]),
    ];
    let closed = [
        vec![],
        reply(1, 0)[..9].to_vec(),
        reply(1, 0),
        message(reply(1, 10)),
        [message(reply(1, 10)), vec![1; 9]].concat(),
    ];
    let ours = pool();
    let call = |address: SocketAddr| {
        let landing = ours.try_acquire(10);
        async move {
            let messenger = messenger(address);
            let call = Call { landing, ..Call::new(Bytes::from_static(b"hello"), PLENTY) };
            let answer = messenger.call(NODE, call).await;
            (answer, messenger.stats())
        }
    };
    for (expected, bytes) in protocol {
        let (answer, stats) = call(false_node(vec![bytes]).await).await;
        let Err(error @ TransportError::Protocol { .. }) = answer else { panic!("{expected}: {answer:?}") };
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!((stats.connected, stats.idle), (1, 0));
    }
    for bytes in closed {
        let (answer, stats) = call(false_node(vec![bytes.clone()]).await).await;
        assert!(matches!(answer, Err(TransportError::Closed { .. })), "{bytes:?}: {answer:?}");
        assert_eq!((stats.connected, stats.retried, stats.idle), (1, 0, 0));
    }
    let good = [message(reply(1, 10)), b"0123456789".to_vec()].concat();
    let (answer, _) = call(false_node(vec![good]).await).await;
    let answer = answer.unwrap();
    assert_eq!((&answer.header[..], &answer.landed.as_ref().unwrap()[..]), (&b"fine"[..], &b"0123456789"[..]));
    drop(answer);
    assert_eq!(ours.stats().in_use_bytes, 0);
}

#[tokio::test]
async fn a_slow_reply_ends_at_the_deadline_with_its_buffer_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&Greeting::to(NODE).encode()).await.unwrap();
        let reply = Frame::new(Kind::Reply, 1, &Bytes::new(), 1000, 0).encode();
        stream.write_all(&[&reply[..], &[7; 500]].concat()).await.unwrap();
        // The rest never comes; the caller hangs up.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let ours = pool();
    let (messenger, after) = (messenger(address), Duration::from_millis(500));
    let call = Call { landing: ours.try_acquire(1000), ..Call::new(Bytes::from_static(b"hello"), after) };
    assert_eq!(messenger.call(NODE, call).await.unwrap_err(), TransportError::Deadline { node: NODE, after });
    assert_eq!((ours.stats().in_use_bytes, messenger.stats().idle), (0, 0));
    server.await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_calls_in_flight() {
    let gate = Gate::closed();
    let server = Server::start(Arc::clone(&gate) as _, TcpServerOptions::new(NODE)).await;
    let messenger = Arc::new(messenger(server.address));
    let idle = server.raw().await;
    let caller = Arc::clone(&messenger);
    let call = tokio::spawn(async move { hello(&*caller).await });
    until(|| gate.arrived() == 1).await;
    server.shutdown.cancel();
    let mut idle = idle;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "idle connections are closed at once");
    assert!(TcpStream::connect(server.address).await.is_err(), "no new ones are taken");
    assert!(!server.task.is_finished());
    gate.0.close();
    assert_eq!(call.await.unwrap().unwrap().header, "hello");
    server.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_aborts_what_does_not_finish_in_its_grace() {
    let gate = Gate::closed();
    let options = TcpServerOptions { shutdown_grace: Duration::from_millis(20), ..TcpServerOptions::new(NODE) };
    let server = Server::start(Arc::clone(&gate) as _, options).await;
    let messenger = Arc::new(messenger(server.address));
    let caller = Arc::clone(&messenger);
    let call = tokio::spawn(async move { hello(&*caller).await });
    until(|| gate.arrived() == 1).await;
    server.stop().await;
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, TransportError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn payload_pieces_are_gathered_from_where_they_lie() {
    let handlers = pool();
    let server = Server::start(Arc::new(Sink(handlers.clone())), TcpServerOptions::new(NODE)).await;
    let messenger = messenger(server.address);
    // More pieces than one writev takes.
    let outgoing: Vec<Buf> = (0..3000u32).map(|i| i.to_le_bytes().to_vec().into()).collect();
    let call = Call { outgoing, ..Call::new(Bytes::from_static(b"hello"), PLENTY) };
    assert_eq!(messenger.call(NODE, call).await.unwrap().header, "hello");
    until(|| handlers.stats().in_use_bytes == 0).await;
    assert_eq!(handlers.stats().peak_bytes, 12_288);
}
