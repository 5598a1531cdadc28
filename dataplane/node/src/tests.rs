//! A real store on a temporary directory, behind both transports.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{Buf, BufMut, BufPool, PoolOptions};
use penstock_digest::crc64nvme;
use penstock_proto::wire::{NodeErrorCode, NodeReply, NodeRequest};
use penstock_proto::{Capability, ClusterKey, DataId, ManualClock, NodeId, Rights, ShardKey, limits};
use penstock_store::{EngineKind, ShardStore, StoreOptions};
use penstock_transport::{
    Call, FaultOptions, Faulty, Handler, MemTransport, Messenger, OneSided, TcpMessenger, TcpOptions, TcpServerOptions,
    TransportError, serve_tcp,
};
use proptest::prelude::*;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{NodeOptions, STATUS_DATA, StorageNode};

mod upkeep;

const NODE: NodeId = NodeId(3);
const DATA: DataId = DataId(77);
const NOW_MS: u64 = 1_000_000;
const PLENTY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Net {
    Mem,
    Tcp,
}

struct House {
    node: Arc<StorageNode>,
    store: ShardStore,
    messenger: Arc<dyn Messenger>,
    clock: Arc<ManualClock>,
    key: ClusterKey,
    node_pool: BufPool,
    caller_pool: BufPool,
    device: PathBuf,
    _server: DropGuard,
    _dir: tempfile::TempDir,
}

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap()
}

impl House {
    async fn build(net: Net) -> Self {
        Self::build_with(net, NodeOptions::default()).await
    }

    async fn build_with(net: Net, options: NodeOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device.pst");
        let store_options = StoreOptions {
            path: device.clone(),
            capacity_bytes: 256 << 20,
            extent_bytes: 16 << 20,
            engine: EngineKind::Pread,
            direct: false,
            ..StoreOptions::default()
        };
        let (node_pool, key, clock) = (pool(), ClusterKey::random(), Arc::new(ManualClock::at(NOW_MS)));
        let store = ShardStore::open(store_options, node_pool.clone()).await.unwrap();
        let node =
            StorageNode::new(NODE, store.clone(), key.clone(), Arc::clone(&clock) as _, node_pool.clone(), options);
        let node = Arc::new(node);
        let shutdown = CancellationToken::new();
        let messenger: Arc<dyn Messenger> = match net {
            Net::Mem => {
                let mem = MemTransport::new();
                mem.attach(NODE, Arc::clone(&node) as _);
                Arc::new(mem)
            }
            Net::Tcp => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let peers = HashMap::from([(NODE, listener.local_addr().unwrap().to_string())]);
                let options = TcpServerOptions::new(NODE);
                tokio::spawn(serve_tcp(listener, Arc::clone(&node) as _, shutdown.clone(), options));
                Arc::new(TcpMessenger::new(peers, TcpOptions::default()))
            }
        };
        let (_server, caller_pool) = (shutdown.drop_guard(), pool());
        Self { node, store, messenger, clock, key, node_pool, caller_pool, device, _server, _dir: dir }
    }

    fn capability(&self, rights: Rights) -> Capability {
        Capability::sign(&self.key, rights, DATA, NOW_MS + 1000)
    }

    async fn ask(&self, request: &NodeRequest, payload: &[u8], room: usize) -> (NodeReply, Vec<u8>) {
        ask(&*self.messenger, &self.caller_pool, request.encode(), payload, room).await.unwrap()
    }

    async fn put(&self, key: ShardKey, bytes: &[u8]) -> NodeReply {
        self.ask(&self.put_request(key, bytes), bytes, 0).await.0
    }

    fn put_request(&self, key: ShardKey, bytes: &[u8]) -> NodeRequest {
        let capability = self.capability(Rights::PUT);
        NodeRequest::Put { capability, key, shard_bytes: bytes.len() as u32, crc64: crc64nvme(bytes) }
    }

    async fn get(&self, key: ShardKey, crc64: u64, offset: u32, length: u32) -> (NodeReply, Vec<u8>) {
        let capability = self.capability(Rights::GET);
        let request = NodeRequest::Get { capability, key, crc64, offset, length };
        self.ask(&request, &[], length as usize + 100).await
    }

    /// Closes the store, and sees that no buffer is out on either side.
    async fn close(self) {
        for _ in 0..1000 {
            if self.node.stats().in_flight == 0 && self.node_pool.stats().buffers_out == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.node.stats().in_flight, 0);
        assert_eq!(self.node_pool.stats().buffers_out, 0);
        assert_eq!(self.caller_pool.stats().buffers_out, 0);
        self.store.close().await;
    }
}

async fn ask(
    messenger: &dyn Messenger,
    pool: &BufPool,
    header: Bytes,
    payload: &[u8],
    room: usize,
) -> Result<(NodeReply, Vec<u8>), TransportError> {
    let outgoing = if payload.is_empty() { vec![] } else { vec![Buf::from(payload.to_vec())] };
    let landing = (room > 0).then(|| pool.try_acquire(room).unwrap());
    let answer = messenger.call(NODE, Call { header, outgoing, landing, deadline: PLENTY }).await?;
    let landed = answer.landed.map_or(Vec::new(), |landed| landed.to_vec());
    Ok((NodeReply::decode(&answer.header).unwrap(), landed))
}

fn shard(stripe: u32, shard: u8) -> ShardKey {
    ShardKey { data: DATA, stripe, shard }
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

#[track_caller]
fn assert_refused(reply: &NodeReply, expected: NodeErrorCode, says: &str) {
    let NodeReply::Refused { code, message } = reply else { panic!("{reply:?}") };
    assert_eq!(*code, expected, "{message}");
    assert!(message.starts_with("node-03: ") && message.contains(says), "{message}");
}

#[tokio::test]
async fn shards_are_stored_read_in_ranges_and_deleted() {
    for net in [Net::Mem, Net::Tcp] {
        let house = House::build(net).await;
        let lengths = [1, 64, 4096, 65_537, 419_456, limits::SHARD_BYTES_MAX];
        for (stripe, length) in lengths.into_iter().enumerate() {
            let (key, whole) = (shard(stripe as u32, 1), bytes(length, stripe as u8));
            let crc64 = crc64nvme(&whole);
            assert_eq!(house.put(key, &whole).await, NodeReply::Stored);
            assert_eq!(house.put(key, &whole).await, NodeReply::Stored, "a put may be sent again");
            for (from, to) in [(0, length), (0, 1), (length - 1, length), (length / 3, length / 2 + 1)] {
                let (reply, landed) = house.get(key, crc64, from as u32, (to - from) as u32).await;
                assert_eq!(landed, whole[from..to], "{net:?}");
                assert_eq!(reply, NodeReply::Sent { crc64: crc64nvme(&landed), shard_bytes: length as u32 });
            }
        }
        let ask =
            NodeRequest::Status { capability: Capability::sign(&house.key, Rights::STATUS, STATUS_DATA, NOW_MS + 1) };
        let (NodeReply::Status(status), _) = house.ask(&ask, &[], 0).await else { panic!("a status") };
        assert_eq!((status.shards, status.failed), (lengths.len() as u64, false));
        let delete = NodeRequest::Delete { capability: house.capability(Rights::DELETE), data: DATA };
        assert_eq!(house.ask(&delete, &[], 0).await.0, NodeReply::Deleted { shards: lengths.len() as u32 });
        assert_eq!(house.ask(&delete, &[], 0).await.0, NodeReply::Deleted { shards: 0 });
        let (reply, landed) = house.get(shard(0, 1), crc64nvme(&bytes(1, 0)), 0, 1).await;
        assert_refused(&reply, NodeErrorCode::NoSuchShard, "other shards");
        assert!(landed.is_empty());
        assert_refused(&house.put(shard(9, 9), b"late").await, NodeErrorCode::DataDeleted, "deleted");
        let stats = house.node.stats();
        assert_eq!((stats.puts, stats.gets, stats.deletes, stats.statuses), (12, 24, 2, 1));
        assert_eq!(stats.put_bytes, 2 * lengths.iter().sum::<usize>() as u64);
        assert_eq!((stats.missing, stats.failed, stats.forbidden), (1, 1, 0));
        house.close().await;
    }
}

#[tokio::test]
async fn only_a_right_that_fits_opens_the_door() {
    for net in [Net::Mem, Net::Tcp] {
        let house = House::build(net).await;
        let (key, whole) = (shard(0, 0), bytes(1000, 1));
        let crc64 = crc64nvme(&whole);
        assert_eq!(house.put(key, &whole).await, NodeReply::Stored);
        let all = Rights::PUT.and(Rights::GET).and(Rights::DELETE).and(Rights::STATUS);
        let sign = |key: &ClusterKey, rights, data, expires| Capability::sign(key, rights, data, expires);
        let later = NOW_MS + 1000;
        let mut flipped = sign(&house.key, all, DATA, later).to_bytes();
        flipped[30] ^= 1;
        let bad = [
            (sign(&ClusterKey::new([9; 32]), all, DATA, later), "not signed"),
            (Capability::from_bytes(&flipped).unwrap(), "not signed"),
            (sign(&house.key, all, DATA, NOW_MS), "expired"),
            (sign(&house.key, all, DataId(78), later), "other data"),
        ];
        let mut refused = 0;
        for (capability, says) in bad {
            let requests = [
                NodeRequest::Put { capability, key: shard(1, 0), shard_bytes: 1000, crc64 },
                NodeRequest::Get { capability, key, crc64, offset: 0, length: 1000 },
                NodeRequest::Delete { capability, data: DATA },
                NodeRequest::Status { capability },
            ];
            for request in requests {
                // A status is about no data: for it every one of these is for other data at least.
                let says = if matches!(request, NodeRequest::Status { .. }) { "" } else { says };
                let (reply, landed) = house.ask(&request, &whole, 1000).await;
                assert_refused(&reply, NodeErrorCode::Forbidden, says);
                assert!(landed.is_empty());
                refused += 1;
            }
        }
        let less = house.capability(Rights::GET.and(Rights::DELETE));
        let request = NodeRequest::Put { capability: less, key: shard(1, 0), shard_bytes: 1000, crc64 };
        assert_refused(&house.ask(&request, &whole, 0).await.0, NodeErrorCode::Forbidden, "does not allow");
        let less = house.capability(Rights::PUT.and(Rights::GET));
        let request = NodeRequest::Delete { capability: less, data: DATA };
        assert_refused(&house.ask(&request, &[], 0).await.0, NodeErrorCode::Forbidden, "does not allow");
        assert_eq!(house.node.stats().forbidden, refused + 2);
        assert!(!house.store.contains(shard(1, 0)), "nothing was stored");
        assert_eq!(house.get(key, crc64, 0, 1000).await.1, whole, "nothing was deleted");
        house.clock.advance_ms(1000);
        assert_refused(&house.put(key, &whole).await, NodeErrorCode::Forbidden, "expired");
        house.close().await;
    }
}

#[tokio::test]
async fn payload_that_is_not_as_declared_is_not_stored() {
    for net in [Net::Mem, Net::Tcp] {
        let house = House::build(net).await;
        let whole = bytes(5000, 1);
        let request = house.put_request(shard(0, 0), &whole);
        for wrong in [&whole[..4999], &[&whole[..], b"x"].concat(), &[]] {
            assert_refused(
                &house.ask(&request, wrong, 0).await.0,
                NodeErrorCode::BadRequest,
                "declares a shard of 5000",
            );
        }
        let mut changed = whole.clone();
        changed[4000] ^= 1;
        assert_refused(&house.ask(&request, &changed, 0).await.0, NodeErrorCode::BadRequest, "nothing was stored");
        assert!(!house.store.contains(shard(0, 0)));
        assert_eq!(house.ask(&request, &whole, 0).await.0, NodeReply::Stored, "the place is not taken");
        // Other bytes under a key that is taken.
        assert_refused(&house.put(shard(0, 0), &changed).await, NodeErrorCode::BadRequest, "fresh");
        assert_eq!(house.node.stats().bad_requests, 5);
        house.close().await;
    }
}

#[tokio::test]
async fn reads_that_cannot_be_served_say_why() {
    let house = House::build(Net::Tcp).await;
    let (key, whole) = (shard(0, 0), bytes(200_000, 1));
    let crc64 = crc64nvme(&whole);
    assert_eq!(house.put(key, &whole).await, NodeReply::Stored);
    let (reply, _) = house.get(key, crc64 ^ 1, 0, 100).await;
    assert_refused(&reply, NodeErrorCode::Corrupt, "repair");
    let (reply, _) = house.get(key, crc64, 199_999, 2).await;
    assert_refused(&reply, NodeErrorCode::BadRequest, "200000 bytes");
    let capability = house.capability(Rights::GET);
    let request = NodeRequest::Get { capability, key, crc64, offset: 0, length: 101 };
    assert_refused(&house.ask(&request, &[], 100).await.0, NodeErrorCode::BadRequest, "room for 100");

    // The device rots, in the middle of the shard.
    let mut device = std::fs::File::options().read(true).write(true).open(&house.device).unwrap();
    let mut head = vec![0; 64 << 20];
    let read = device.read(&mut head).unwrap();
    let at = head[..read].windows(64).position(|window| window == &whole[..64]).expect("the shard is on the device");
    device.seek(SeekFrom::Start(at as u64 + 70_000)).unwrap();
    device.write_all(&[whole[70_000] ^ 0x10]).unwrap();
    let (reply, landed) = house.get(key, crc64, 0, 200_000).await;
    assert_refused(&reply, NodeErrorCode::Corrupt, "repair");
    assert!(landed.is_empty(), "not a byte of it is given out");
    assert_eq!(house.get(key, crc64, 0, 60_000).await.1, whole[..60_000], "what is whole is");
    assert_eq!(house.node.stats().corrupt, 2);
    house.close().await;
}

/// A caller that holds its payload back until it is told.
struct Slow {
    payload: Vec<u8>,
    started: Arc<Notify>,
    go: Arc<Notify>,
}

#[async_trait]
impl OneSided for Slow {
    fn outgoing_bytes(&self) -> usize {
        self.payload.len()
    }

    fn landing_bytes(&self) -> usize {
        0
    }

    async fn pull(&mut self, into: &mut BufMut) -> Result<(), TransportError> {
        self.started.notify_one();
        self.go.notified().await;
        into.copy_from_slice(&self.payload);
        Ok(())
    }

    async fn push(&mut self, _from: Buf) -> Result<(), TransportError> {
        Err(TransportError::Protocol { reason: "no room".to_owned() })
    }
}

#[tokio::test]
async fn past_its_operations_a_node_is_busy_and_then_it_is_not() {
    let options = NodeOptions { operations_max: 1, ..NodeOptions::default() };
    let house = House::build_with(Net::Mem, options).await;
    let whole = bytes(100, 1);
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut slow = Slow { payload: whole.clone(), started: Arc::clone(&started), go: Arc::clone(&go) };
    let (node, request) = (Arc::clone(&house.node), house.put_request(shard(0, 0), &whole).encode());
    let first = tokio::spawn(async move { node.handle(request, &mut slow).await });
    started.notified().await;
    assert_eq!(house.node.stats().in_flight, 1);
    assert_refused(&house.put(shard(1, 0), &whole).await, NodeErrorCode::Busy, "limit");
    let request = NodeRequest::Get {
        capability: Capability::sign(&ClusterKey::new([1; 32]), Rights::GET, DATA, NOW_MS + 1),
        key: shard(0, 0),
        crc64: 0,
        offset: 0,
        length: 1,
    };
    assert_refused(&house.ask(&request, &[], 1).await.0, NodeErrorCode::Forbidden, "not signed");
    go.notify_one();
    assert_eq!(NodeReply::decode(&first.await.unwrap()), Ok(NodeReply::Stored));
    assert_eq!(house.put(shard(1, 0), &whole).await, NodeReply::Stored);
    assert_eq!((house.node.stats().busy, house.node.stats().forbidden), (1, 1));
    house.close().await;
}

#[tokio::test]
async fn a_put_that_finds_no_buffer_is_busy_and_one_that_is_abandoned_leaves_nothing() {
    let options = NodeOptions { buffer_wait: Duration::from_millis(20), ..NodeOptions::default() };
    let house = House::build_with(Net::Mem, options).await;
    let whole = bytes(100, 1);
    let held: Vec<_> = std::iter::from_fn(|| house.node_pool.try_acquire(1 << 20)).collect();
    let rest: Vec<_> = std::iter::from_fn(|| house.node_pool.try_acquire(4096)).collect();
    assert_refused(&house.put(shard(0, 0), &whole).await, NodeErrorCode::Busy, "buffer");
    drop((held, rest));
    let (started, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut slow = Slow { payload: whole.clone(), started: Arc::clone(&started), go };
    let (node, request) = (Arc::clone(&house.node), house.put_request(shard(0, 0), &whole).encode());
    let abandoned = tokio::spawn(async move { node.handle(request, &mut slow).await });
    started.notified().await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    assert_eq!((house.node.stats().in_flight, house.node_pool.stats().buffers_out), (0, 0));
    assert!(!house.store.contains(shard(0, 0)));
    house.close().await;
}

#[tokio::test]
async fn lost_replies_and_duplicates_store_every_shard_once() {
    let house = House::build(Net::Tcp).await;
    let options = FaultOptions {
        lose_request: 0.2,
        lose_reply: 0.2,
        duplicate: 0.3,
        delay: 0.5,
        delay_max: Duration::from_millis(20),
        ..FaultOptions::none(42)
    };
    let net = Faulty::new(Arc::clone(&house.messenger), options);
    let payload = |stripe: u32| bytes(10_000 + stripe as usize * 997, stripe as u8);
    for stripe in 0..30 {
        let whole = payload(stripe);
        let request = house.put_request(shard(stripe, 0), &whole).encode();
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 100, "a loss of 40 % does not last so long");
            match ask(&net, &house.caller_pool, request.clone(), &whole, 0).await {
                Ok((reply, _)) => break assert_eq!(reply, NodeReply::Stored),
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    }
    assert!(net.counts().replies_lost > 0 && net.counts().duplicated > 0);
    for stripe in 0..30 {
        let whole = payload(stripe);
        assert_eq!(house.get(shard(stripe, 0), crc64nvme(&whole), 0, whole.len() as u32).await.1, whole);
    }
    assert_eq!(house.store.status().shards, 30);
    net.settle().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_get_their_own_bytes() {
    let house = Arc::new(House::build(Net::Tcp).await);
    let callers: Vec<_> = (0..48u32)
        .map(|stripe| {
            let house = Arc::clone(&house);
            tokio::spawn(async move {
                let whole = bytes(1 + stripe as usize * 7919, stripe as u8);
                assert_eq!(house.put(shard(stripe, 2), &whole).await, NodeReply::Stored);
                let (_, landed) = house.get(shard(stripe, 2), crc64nvme(&whole), 0, whole.len() as u32).await;
                assert_eq!(landed, whole);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let house = Arc::into_inner(house).expect("every caller is done");
    house.close().await;
}

#[tokio::test]
async fn a_closed_store_answers_and_says_so() {
    let house = House::build(Net::Mem).await;
    house.store.close().await;
    assert_refused(&house.put(shard(0, 0), b"x").await, NodeErrorCode::Internal, "shutting down");
    house.close().await;
}

#[test]
fn no_header_makes_a_node_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let house = runtime.block_on(House::build(Net::Mem));
    let genuine = house.put_request(shard(0, 0), b"payload").encode();
    let headers = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        // One byte of a genuine request changed, or its end cut off.
        (0..genuine.len(), 1u8..=255).prop_map({
            let genuine = genuine.clone();
            move |(at, by)| {
                let mut bytes = genuine.to_vec();
                bytes[at] ^= by;
                bytes
            }
        }),
        (0..genuine.len()).prop_map({
            let genuine = genuine.clone();
            move |end| genuine[..end].to_vec()
        }),
    ];
    proptest!(ProptestConfig::with_cases(500), |(header in headers)| {
        let call = ask(&*house.messenger, &house.caller_pool, header.into(), b"payload", 10);
        let (reply, _) = runtime.block_on(call).unwrap();
        let refused = matches!(
            reply,
            NodeReply::Refused { code: NodeErrorCode::BadRequest | NodeErrorCode::Forbidden, .. }
        );
        // Stripe and shard are not signed: a change there is another shard of the same data.
        prop_assert!(refused || reply == NodeReply::Stored, "{reply:?}");
    });
    runtime.block_on(house.close());
}

#[tokio::test]
async fn a_narrow_capability_gives_receipts_for_its_shards_and_no_others() {
    let house = House::build(Net::Tcp).await;
    let whole = bytes(4096, 1);
    let scope = penstock_proto::Scope { first_stripe: 1, end_stripe: 2, shards: 2 };
    let rights = Rights::PUT.and(Rights::RECEIPT);
    let capability = Capability::sign_scoped(&house.key, rights, DATA, scope, NOW_MS + 1000);
    let crc64 = crc64nvme(&whole);
    let put = |key, capability| NodeRequest::Put { capability, key, shard_bytes: 4096, crc64 };
    let key = shard(1, 1);
    let (reply, _) = house.ask(&put(key, capability), &whole, 0).await;
    let NodeReply::Receipted(receipt) = reply else { panic!("{reply:?}") };
    let stored = penstock_proto::StoredShard { key, shard_bytes: 4096, crc64 };
    assert_eq!(receipt.check(&house.key, &stored, NODE, &*house.clock), Ok(()));
    // Replayed for another stripe, another shard, another right.
    for other in [shard(0, 1), shard(2, 1), shard(1, 2)] {
        let (reply, _) = house.ask(&put(other, capability), &whole, 0).await;
        assert_refused(&reply, NodeErrorCode::Forbidden, "other shards");
    }
    let get = NodeRequest::Get { capability, key, crc64, offset: 0, length: 1 };
    assert_refused(&house.ask(&get, &[], 100).await.0, NodeErrorCode::Forbidden, "does not allow");
    let delete = NodeRequest::Delete { capability, data: DATA };
    assert_refused(&house.ask(&delete, &[], 0).await.0, NodeErrorCode::Forbidden, "does not allow");
    // Forged: the same for more, under another key.
    let forged = Capability::sign(&ClusterKey::random(), rights, DATA, NOW_MS + 1000);
    assert_refused(&house.ask(&put(key, forged), &whole, 0).await.0, NodeErrorCode::Forbidden, "not signed");
    house.clock.advance_ms(1000);
    let (reply, _) = house.ask(&put(key, capability), &whole, 0).await;
    assert_refused(&reply, NodeErrorCode::Forbidden, "expired");
    let stats = house.node.stats();
    assert_eq!((stats.receipts, stats.puts, stats.forbidden), (1, 1, 7));
    house.close().await;
}
