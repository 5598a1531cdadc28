//! Without a device on this side: what runs on any machine. The rest is in lab.rs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{BufPool, PoolOptions};
use penstock_proto::NodeId;
use penstock_rdma_transport::{
    RdmaDialer, RdmaMessenger, RdmaMode, RdmaNode, RdmaNodeOptions, RdmaOptions, VerbsError,
};
use penstock_transport::{Call, Dialer, Handler, MemTransport, Messenger, NotReady, OneSided, TransportError};

const NODE: NodeId = NodeId(3);

struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        memory.push(header.clone().into()).await.unwrap();
        header
    }
}

fn transport() -> (Arc<MemTransport>, Arc<RdmaNode>) {
    let node = Arc::new(RdmaNode::new(Arc::new(Echo), Vec::new(), RdmaNodeOptions::new(NODE)).unwrap());
    let transport = Arc::new(MemTransport::new());
    transport.attach(NODE, Arc::clone(&node) as _);
    (transport, node)
}

fn call(pool: &BufPool) -> Call {
    let landing = pool.try_acquire(100);
    Call { landing, ..Call::new(Bytes::from_static(b"hello"), Duration::from_secs(30)) }
}

#[tokio::test]
async fn calls_go_the_other_way_and_are_counted() {
    let pool = BufPool::new(PoolOptions { capacity_bytes: 1 << 20, huge_pages: false }).unwrap();
    let (transport, _node) = transport();
    let messenger = RdmaMessenger::new(transport, [NODE], Vec::new(), RdmaOptions::default()).unwrap();
    for _ in 0..3 {
        let answer = messenger.call(NODE, call(&pool)).await.unwrap();
        assert_eq!((&answer.header[..], &answer.landed.unwrap()[..]), (&b"hello"[..], &b"hello"[..]));
    }
    let counts = messenger.counts();
    assert_eq!((counts.calls_tcp, counts.calls_rdma, counts.declined), (3, 0, 1), "the reason is found once");
    let unknown = messenger.call(NodeId(9), call(&pool)).await.unwrap_err();
    assert!(matches!(unknown, TransportError::Unreachable { node: NodeId(9), .. }), "{unknown}");
}

#[tokio::test]
async fn where_rdma_is_required_there_is_an_error_that_says_why() {
    let pool = BufPool::new(PoolOptions { capacity_bytes: 1 << 20, huge_pages: false }).unwrap();
    let (transport, _node) = transport();
    let options = RdmaOptions { mode: RdmaMode::Require, ..RdmaOptions::default() };
    let messenger = RdmaMessenger::new(transport, [NODE], Vec::new(), options).unwrap();
    let error = messenger.call(NODE, call(&pool)).await.unwrap_err();
    assert!(error.to_string().contains("no RDMA device in use on this side"), "{error}");
    assert_eq!(pool.stats().buffers_out, 0);
}

/// A malformed offer is declined in words, and does not reach the handler.
#[tokio::test]
async fn offers_that_are_nonsense_are_declined() {
    let (transport, node) = transport();
    let call = Call::new(Bytes::from_static(b"PSRDMA\0\0and nothing that makes sense"), Duration::from_secs(30));
    let answer = transport.call(NODE, call).await.unwrap();
    assert!(answer.header.starts_with(b"PSRDMA\0\0"), "{:?}", answer.header);
    assert!(String::from_utf8_lossy(&answer.header).contains("version"), "{:?}", answer.header);
    assert_eq!(node.counts().declined, 1);
}

/// A dialer without a device dials, and says why nothing can go its way before anything is sent.
#[tokio::test]
async fn a_way_without_a_device_says_so_beforehand() {
    let dialer = RdmaDialer::new(Err(VerbsError::NoDevices), RdmaOptions::default()).unwrap();
    assert!(dialer.obstacle().is_some());
    let way = dialer.dial(NODE, "127.0.0.1:1");
    let Err(NotReady::Declined(reason)) = way.ready().await else { panic!("it is not ready") };
    assert_eq!(reason, VerbsError::NoDevices.to_string());
    let call = || Call::new(Bytes::from_static(b"hello"), Duration::from_secs(30));
    let error = way.call(NODE, call()).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { node: NODE, .. }), "{error}");
    // With ports (none, here) but no node: the node's fault.
    let dialer = RdmaDialer::new(Ok(Vec::new()), RdmaOptions::default()).unwrap();
    let way = dialer.dial(NODE, "127.0.0.1:1");
    assert!(matches!(way.ready().await, Err(NotReady::Declined(_))));
    assert!(way.call(NodeId(9), call()).await.is_err(), "another node's way");
    assert_eq!((dialer.transport(), dialer.counts().calls_rdma), ("rdma", 0));
}
