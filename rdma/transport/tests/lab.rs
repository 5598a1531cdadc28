//! The transport on a device: the suite that every transport runs, and what only RDMA can do wrong. Both sides are in
//! this process, with the same port. Run in the lab: `./dev lab test`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use penstock_buf::{Buf, BufPool, PoolOptions};
use penstock_proto::NodeId;
use penstock_rdma_transport::{
    RdmaCounts, RdmaDialer, RdmaMessenger, RdmaMode, RdmaNode, RdmaNodeOptions, RdmaOptions, rails,
};
use penstock_transport::conformance::{Fixture, run_all};
use penstock_transport::{
    Call, Dialer, Handler, Messenger, NotReady, OneSided, TcpMessenger, TcpOptions, TcpServerOptions, TransportError,
    serve_tcp,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const NODE: NodeId = NodeId(3);
const PLENTY: Duration = Duration::from_secs(60);

/// A node behind TCP and RDMA. Stopped when dropped.
struct Node {
    rdma: Arc<RdmaNode>,
    address: String,
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        let rdma = Arc::clone(&self.rdma);
        tokio::spawn(async move { rdma.shutdown().await });
    }
}

async fn start(id: NodeId, handler: Arc<dyn Handler>) -> Node {
    let options = RdmaNodeOptions {
        message_pool_bytes: 32 << 20,
        shutdown_grace: Duration::from_millis(500),
        ..RdmaNodeOptions::new(id)
    };
    let rdma = Arc::new(RdmaNode::new(handler, rails(&[]).unwrap(), options).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    tokio::spawn(serve_tcp(listener, Arc::clone(&rdma) as _, stop.clone(), TcpServerOptions::new(id)));
    Node { rdma, address, stop }
}

fn messenger(nodes: &[(NodeId, &Node)], options: RdmaOptions) -> Arc<RdmaMessenger> {
    let peers: HashMap<NodeId, String> = nodes.iter().map(|(id, node)| (*id, node.address.clone())).collect();
    let ids: Vec<NodeId> = peers.keys().copied().collect();
    let tcp = Arc::new(TcpMessenger::new(peers, TcpOptions::default()));
    Arc::new(RdmaMessenger::new(tcp, ids, rails(&[]).unwrap(), options).unwrap())
}

fn required() -> RdmaOptions {
    RdmaOptions { mode: RdmaMode::Require, message_pool_bytes: 16 << 20, ..RdmaOptions::default() }
}

#[derive(Default)]
struct Rdma {
    nodes: Mutex<Vec<Node>>,
    messenger: Mutex<Option<Arc<RdmaMessenger>>>,
    counts: Mutex<Vec<RdmaCounts>>,
}

#[async_trait]
impl Fixture for Rdma {
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger> {
        let mut nodes = Vec::new();
        for (id, handler) in handlers {
            nodes.push((id, start(id, handler).await));
        }
        let named: Vec<(NodeId, &Node)> = nodes.iter().map(|(id, node)| (*id, node)).collect();
        let messenger = messenger(&named, required());
        // Those of the check before are done with: each domain pins what was used through it.
        *self.nodes.lock() = nodes.into_iter().map(|(_, node)| node).collect();
        let before = self.messenger.lock().replace(Arc::clone(&messenger));
        self.counts.lock().extend(before.map(|before| before.counts()));
        messenger
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn it_does_what_every_transport_must() {
    // The suite plants a panic. In an emulated guest the names of a backtrace take longer than the call's deadline.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let fixture = Rdma::default();
    assert_eq!(run_all(&fixture).await, []);
    let mut counts = fixture.counts.lock().clone();
    counts.extend(fixture.messenger.lock().take().map(|last| last.counts()));
    assert!(counts.iter().all(|counts| counts.calls_tcp == 0), "RDMA was required: {counts:?}");
    assert!(counts.iter().map(|counts| counts.calls_rdma).sum::<u64>() > 200, "{counts:?}");
    println!("{counts:?}");
}

/// Waits at its gate, then pulls and pushes; says how each went.
struct Gated {
    arrived: Semaphore,
    gate: Semaphore,
    pool: BufPool,
}

impl Gated {
    fn new() -> Arc<Self> {
        let pool = pool();
        Arc::new(Self { arrived: Semaphore::new(0), gate: Semaphore::new(0), pool })
    }
}

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 32 << 20, huge_pages: false }).unwrap()
}

#[async_trait]
impl Handler for Gated {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        self.arrived.add_permits(1);
        if header[..] != b"now"[..] {
            // A gate that is closed for good lets everybody through.
            if let Ok(pass) = self.gate.acquire().await {
                pass.forget();
            }
        }
        let mut into = self.pool.try_acquire(memory.outgoing_bytes()).unwrap();
        let pulled = memory.pull(&mut into).await;
        let mut answer = self.pool.try_acquire(memory.landing_bytes()).unwrap();
        answer.fill(0xaa);
        let pushed = memory.push(answer.freeze()).await;
        format!("{pulled:?} {pushed:?}").into_bytes().into()
    }
}

fn outgoing(pool: &BufPool, bytes: usize) -> Buf {
    let mut buffer = pool.try_acquire(bytes).unwrap();
    buffer.fill(0x11);
    buffer.freeze()
}

fn call(pool: &BufPool, header: &'static [u8], bytes: usize, deadline: Duration) -> Call {
    let mut landing = pool.try_acquire(bytes).unwrap();
    landing.fill(0xee);
    Call { header: Bytes::from_static(header), outgoing: vec![outgoing(pool, bytes)], landing: Some(landing), deadline }
}

async fn all_returned(pool: &BufPool) {
    for _ in 0..3000 {
        if pool.stats().buffers_out == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("buffers are kept: {:?}", pool.stats());
}

/// After a call is given up, its memory goes back only when nothing can be written to it any more. Both ways: the node
/// answers within the grace, and it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn nothing_is_written_late() {
    let handler = Gated::new();
    let node = start(NODE, Arc::clone(&handler) as _).await;
    for (round, answers) in [true, false, true, false].into_iter().enumerate() {
        // What earlier rounds have left.
        while let Ok(arrived) = handler.arrived.try_acquire() {
            arrived.forget();
        }
        let grace = if answers { PLENTY } else { Duration::from_millis(300) };
        let messenger = messenger(&[(NODE, &node)], RdmaOptions { abandoned_grace: grace, ..required() });
        let mine = pool();
        let bytes = 1 << 20;
        let by_deadline = round < 2;
        if by_deadline {
            let error =
                messenger.call(NODE, call(&mine, b"wait", bytes, Duration::from_millis(500))).await.unwrap_err();
            assert!(matches!(error, TransportError::Deadline { .. }), "{error}");
        } else {
            let call = messenger.call(NODE, call(&mine, b"wait", bytes, PLENTY));
            tokio::select! {
                _ = call => panic!("an answer came through a closed gate"),
                arrived = handler.arrived.acquire() => arrived.unwrap().forget(),
            }
        }
        if answers {
            assert!(mine.stats().buffers_out > 0, "the node may still write");
            handler.gate.add_permits(1);
        }
        all_returned(&mine).await;
        // The same memory, now somebody else's.
        let mut taken: Vec<_> = std::iter::from_fn(|| mine.try_acquire(4 << 20)).collect();
        taken.iter_mut().for_each(|buffer| buffer.fill(0x77));
        if !answers {
            // Now the node writes, into a connection that was fenced.
            handler.gate.add_permits(1);
        }
        let works = messenger.call(NODE, call_of_other_memory(&pool(), bytes)).await.unwrap();
        assert!(works.header.starts_with(b"Ok(()) Ok(())"), "{:?}", works.header);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(taken.iter().all(|buffer| buffer.iter().all(|&byte| byte == 0x77)), "round {round}: a late write");
    }
}

fn call_of_other_memory(pool: &BufPool, bytes: usize) -> Call {
    call(pool, b"now", bytes, PLENTY)
}

/// A node that dies in the middle: the call ends with an error or over the next connection, never hangs, and its
/// memory comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_node_that_dies_mid_call_ends_it() {
    let handler = Gated::new();
    let node = start(NODE, Arc::clone(&handler) as _).await;
    let messenger = messenger(&[(NODE, &node)], required());
    let mine = pool();
    let calling = tokio::spawn({
        let (messenger, call) = (Arc::clone(&messenger), call(&mine, b"wait", 1 << 20, PLENTY));
        async move { messenger.call(NODE, call).await }
    });
    handler.arrived.acquire().await.unwrap().forget();
    node.stop.cancel();
    let shutdown = tokio::spawn({
        let rdma = Arc::clone(&node.rdma);
        async move { rdma.shutdown().await }
    });
    let error = tokio::time::timeout(PLENTY, calling).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    handler.gate.close();
    drop(shutdown);
    all_returned(&mine).await;
}

/// Where the node has no RDMA, calls go over TCP, and it is counted; unless RDMA is required.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn without_rdma_on_the_other_side_there_is_tcp() {
    let handler = Gated::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let served = RdmaNode::new(Arc::clone(&handler) as _, Vec::new(), RdmaNodeOptions::new(NODE)).unwrap();
    tokio::spawn(serve_tcp(listener, Arc::new(served) as _, stop.clone(), TcpServerOptions::new(NODE)));
    let mine = pool();
    for mode in [RdmaMode::Auto, RdmaMode::Require] {
        let tcp = TcpMessenger::new(HashMap::from([(NODE, address.clone())]), TcpOptions::default());
        let options = RdmaOptions { mode, ..required() };
        let messenger = RdmaMessenger::new(Arc::new(tcp), [NODE], rails(&[]).unwrap(), options).unwrap();
        let outcome = messenger.call(NODE, call(&mine, b"now", 100_000, PLENTY)).await;
        match mode {
            RdmaMode::Auto => {
                assert!(outcome.unwrap().landed.unwrap().iter().all(|&byte| byte == 0xaa));
                assert_eq!((messenger.counts().calls_tcp, messenger.counts().declined), (1, 1));
            }
            RdmaMode::Require => {
                let error = outcome.unwrap_err().to_string();
                assert!(error.contains("no RDMA device in use"), "{error}");
            }
        }
    }
    stop.cancel();
    all_returned(&mine).await;
}

/// A buffer with an arena of its own is lent piece by piece, also across what a pool is registered in; nothing beside a piece
/// is written, and the piece is claimed back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_region_is_lent_piece_by_piece() {
    let node = start(NODE, Gated::new() as _).await;
    let dialer = RdmaDialer::new(rails(&[]), RdmaOptions { message_pool_bytes: 16 << 20, ..RdmaOptions::default() });
    let dialer = dialer.unwrap();
    let way = dialer.dial(NODE, &node.address);
    way.ready().await.unwrap();
    let mut before = BufPool::region(20 << 20).unwrap();
    before.fill(0xee);
    let mut middle = before.split_off((8 << 20) - 5000);
    let behind = middle.split_off((1 << 20) + 1);
    // Read from across what a pool is registered in, at any offset.
    let source = BufPool::region(10 << 20).unwrap().freeze();
    for round in 0..3 {
        let (lent, claim) = middle.claimed();
        let outgoing = vec![source.slice((7 << 20) + round..(9 << 20) + round)];
        let call = Call { header: Bytes::from_static(b"now"), outgoing, landing: Some(lent), deadline: PLENTY };
        let answer = way.call(NODE, call).await.unwrap();
        assert!(answer.header.starts_with(b"Ok(()) Ok(())"), "{:?}", answer.header);
        let landed = answer.landed.unwrap();
        assert!(claim.has_in_place(0, &landed) && landed.iter().all(|&byte| byte == 0xaa));
        drop(landed);
        middle = claim.try_take().unwrap();
    }
    assert!(before.iter().chain(&behind[..]).all(|&byte| byte == 0xee), "beside the piece");
    let counts = dialer.counts();
    assert_eq!((counts.calls_rdma, counts.calls_tcp, counts.connected), (3, 0, 1), "{counts:?}");
    // A node that has no device says so before anything is sent.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bare = RdmaNode::new(Gated::new() as _, Vec::new(), RdmaNodeOptions::new(NODE)).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve_tcp(listener, Arc::new(bare) as _, stop.clone(), TcpServerOptions::new(NODE)));
    let way = dialer.dial(NODE, &address);
    let Err(NotReady::Declined(reason)) = way.ready().await else { panic!("it has no device") };
    assert!(reason.contains("no RDMA device in use"), "{reason}");
    stop.cancel();
    let gone = dialer.dial(NODE, "127.0.0.1:1");
    assert!(matches!(gone.ready().await, Err(NotReady::Failed(TransportError::Unreachable { .. }))));
}
