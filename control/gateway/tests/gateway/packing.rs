//! Small objects in extents: batches, reads, encoding, emptying, and what is left when something dies on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use penstock_digest::crc64nvme;
use penstock_gateway::api::{Conditions, DeleteObject, EtagCondition, PutObject, RangeSpec};
use penstock_gateway::error::ErrorKind;
use penstock_gateway::{Gateway, GatewayOptions, PackOptions, Packed};
use penstock_meta::kv::{CommitVersion, Kv, KvError, RangePage, RangeRead, Transaction};
use penstock_meta::tables::{ExtentRow, ExtentState, Layout, ObjectRow, PackedRow, Tables};
use penstock_proto::wire::NodeReply;
use penstock_proto::{DataId, NodeId};
use penstock_transport::{Answer, Call, Messenger, TransportError};

use crate::house::{BUCKET, House, MIB, Meta, NOTHING, code, get, kind, put, random_bytes, read};

const SMALL: usize = 4096;

fn packed(options: &mut GatewayOptions) {
    options.packing = Some(PackOptions { interval: None, ..PackOptions::default() });
}

async fn house() -> House {
    House::with(code(4, 2), Meta::Mem, packed).await
}

fn bytes_of(i: usize) -> Vec<u8> {
    random_bytes(i as u64, SMALL + i * 37 % 1000)
}

async fn put_all(house: &House, count: usize) {
    let puts = (0..count).map(|i| async move { house.put(&format!("k{i}"), &bytes_of(i)).await.unwrap() });
    join_all(puts).await;
}

async fn check_all(gateway: &Gateway, count: usize) {
    for i in 0..count {
        let answer = gateway.get_object(get(&format!("k{i}"))).await.unwrap();
        assert!(read(answer).await.unwrap().1 == bytes_of(i), "k{i}");
    }
}

async fn delete(house: &House, key: &str) {
    let request = DeleteObject { bucket: BUCKET.into(), key: key.into(), ..DeleteObject::default() };
    house.gateway.delete_object(request).await.unwrap();
}

async fn row_of(house: &House, key: &str) -> ObjectRow {
    let tables = Tables::new(house.kv.clone());
    let bucket = tables.bucket(BUCKET).await.unwrap().unwrap();
    tables.object(bucket.id, key).await.unwrap().unwrap()
}

async fn packed_row(house: &House, key: &str) -> PackedRow {
    match row_of(house, key).await.layout {
        Layout::Packed(packed) => packed,
        other => panic!("{key} is not packed: {other:?}"),
    }
}

async fn extents(house: &House) -> Vec<(DataId, ExtentRow)> {
    Tables::new(house.kv.clone()).extents(None, 1000).await.unwrap()
}

/// Everything deleted, every extent's time over: nothing is left.
async fn ends_clean(house: &House, count: usize) {
    for i in 0..count {
        delete(house, &format!("k{i}")).await;
    }
    house.clock.advance_ms(16 * 60_000);
    house.pack().await;
    house.collect().await;
    assert_eq!(house.held_after_collecting().await, NOTHING);
    assert!(extents(house).await.is_empty());
}

/// The network, which counts, lies and dies as it is told.
struct Wire<M> {
    inner: M,
    reads: AtomicU64,
    /// A node that sends other bytes than it has, under their checksum.
    liar: Mutex<Option<NodeId>>,
    life: Arc<Life>,
}

/// Steps that are left.
struct Life(AtomicI64);

impl Life {
    fn of(steps: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(steps)))
    }

    fn step(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) > 0
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst) < 0
    }
}

impl<M> Wire<M> {
    fn over(inner: M, life: Arc<Life>) -> Arc<Self> {
        Arc::new(Self { inner, reads: AtomicU64::new(0), liar: Mutex::new(None), life })
    }

    fn take_reads(&self) -> u64 {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl<M: Messenger> Messenger for Wire<M> {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        if !self.life.step() {
            return Err(TransportError::Unreachable { node, reason: "killed".into() });
        }
        self.reads.fetch_add(u64::from(call.landing.is_some()), Ordering::SeqCst);
        let mut answer = self.inner.call(node, call).await?;
        if *self.liar.lock() == Some(node)
            && let Some(landed) = answer.landed.as_mut().filter(|landed| !landed.is_empty())
            && let Ok(NodeReply::Sent { shard_bytes, .. }) = NodeReply::decode(&answer.header)
        {
            landed[0] ^= 1;
            answer.header = NodeReply::Sent { crc64: crc64nvme(landed), shard_bytes }.encode();
        }
        Ok(answer)
    }
}

/// A store that is never heard of again once its life is over.
struct MortalKv {
    inner: Arc<dyn Kv>,
    life: Arc<Life>,
    /// The last commit is applied, and not answered.
    applies_last: bool,
}

struct MortalTransaction {
    inner: Box<dyn Transaction>,
    life: Arc<Life>,
    applies_last: bool,
}

fn killed() -> KvError {
    KvError::Engine("killed".into())
}

#[async_trait]
impl Kv for MortalKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        if self.life.is_over() {
            return Err(killed());
        }
        let inner = self.inner.begin().await?;
        Ok(Box::new(MortalTransaction { inner, life: self.life.clone(), applies_last: self.applies_last }))
    }

    async fn close(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn engine_name(&self) -> &'static str {
        "mortal"
    }
}

#[async_trait]
impl Transaction for MortalTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.inner.get(key).await
    }

    async fn get_range(&mut self, range: RangeRead) -> Result<RangePage, KvError> {
        self.inner.get_range(range).await
    }

    penstock_meta::pass_writes_through!(self => self.inner);

    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError> {
        let (dead, applies_last) = (self.life.is_over(), self.applies_last);
        if dead || !self.life.step() {
            if !dead && applies_last {
                self.inner.commit().await?;
            }
            return Err(killed());
        }
        self.inner.commit().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_a_time_share_batches() {
    let house = house().await;
    put_all(&house, 200).await;
    check_all(&house.gateway, 200).await;
    let stats = house.gateway.pack_stats();
    assert_eq!((stats.objects_packed, stats.extents_opened, stats.batches_failed), (200, 1, 0), "{stats}");
    assert!(stats.batches_written < 100, "{stats}");
    assert_eq!(house.shards(), 3 * stats.batches_written, "three copies of each batch");
    assert_eq!(stats.packed_bytes, (0..200).map(|i| bytes_of(i).len() as u64).sum::<u64>());
    ends_clean(&house, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_packed_and_what_is_not() {
    let house = house().await;
    for (key, size, is_packed) in [("one", 1, true), ("mib", MIB, true), ("more", MIB + 1, false)] {
        let bytes = random_bytes(3, size);
        house.put(key, &bytes).await.unwrap();
        assert_eq!(matches!(row_of(&house, key).await.layout, Layout::Packed(_)), is_packed, "{key}");
        assert!(house.get(key).await.unwrap() == bytes);
    }
    house.put("none", b"").await.unwrap();
    assert_eq!(row_of(&house, "none").await.layout, Layout::Empty);
    let unknown = PutObject { content_bytes: None, ..put("unknown", b"of unknown length") };
    house.gateway.put_object(unknown).await.unwrap();
    assert!(matches!(row_of(&house, "unknown").await.layout, Layout::Single(_)));
    let wrong = PutObject { content_bytes: Some(4), ..put("wrong", b"three") };
    assert_eq!(kind(house.gateway.put_object(wrong).await), ErrorKind::InvalidRequest);
    assert_eq!(kind(house.get("wrong").await), ErrorKind::NoSuchKey);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extent_is_encoded_and_no_object_changes() {
    let house = house().await;
    put_all(&house, 100).await;
    let before = row_of(&house, "k7").await;
    let copies = house.shards();
    assert_eq!(house.gateway.run_packing_now().await.unwrap(), Packed::default(), "it is young");
    house.clock.advance_ms(300_000);
    let done = house.gateway.run_packing_now().await.unwrap();
    assert_eq!((done.sealed, done.encoded, done.failed), (1, 1, 0));
    assert_eq!(row_of(&house, "k7").await, before);
    let all = extents(&house).await;
    assert!(matches!(&all[0].1.state, ExtentState::Encoded(data) if data.code == code(4, 2)), "{all:?}");
    // The copies are there for a while, for who has looked before.
    assert!(house.shards() > copies);
    check_all(&house.gateway, 100).await;
    house.collect().await;
    assert_eq!(house.shards(), 6, "one stripe of six shards");
    check_all(&house.gateway, 100).await;
    let (range, bytes) = (RangeSpec::FromTo(1000, 2999), bytes_of(42));
    assert_eq!(house.get_range("k42", range).await.unwrap(), bytes[1000..3000]);
    for lost in [[0, 1], [2, 3], [4, 5]] {
        lost.iter().for_each(|node| house.lose(*node));
        check_all(&house.gateway, 10).await;
        lost.iter().for_each(|node| house.bring_back(*node));
    }
    assert_eq!(house.gateway.run_packing_now().await.unwrap(), Packed::default(), "nothing is left to do");
    ends_clean(&house, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_touches_one_shard() {
    let house = house().await;
    put_all(&house, 300).await;
    let big = random_bytes(9, 900_000);
    house.put("big", &big).await.unwrap();
    // All of the above is in a chunk that is full: the last one's fragments end where its length says.
    for filler in 0..4 {
        house.put(&format!("filler{filler}"), &random_bytes(1, MIB)).await.unwrap();
    }
    let wire = Wire::over(house.transport().clone(), Life::of(i64::MAX));
    let gateway = house.gateway_through(house.kv.clone(), wire.clone());
    for round in 0..2 {
        for i in 0..300 {
            let answer = gateway.get_object(get(&format!("k{i}"))).await.unwrap();
            assert!(read(answer).await.unwrap().1 == bytes_of(i));
            assert_eq!(wire.take_reads(), 1, "k{i} in round {round}");
        }
        let range = penstock_gateway::api::GetObject { range: Some(RangeSpec::FromTo(5, 9)), ..get("k5") };
        assert_eq!(read(gateway.get_object(range).await.unwrap()).await.unwrap().1, bytes_of(5)[5..10]);
        assert_eq!(wire.take_reads(), 1);
        let range = penstock_gateway::api::GetObject { range: Some(RangeSpec::Last(10)), ..get("big") };
        assert_eq!(read(gateway.get_object(range).await.unwrap()).await.unwrap().1, big[899_990..]);
        assert_eq!(wire.take_reads(), 1);
        house.pack().await;
    }
    assert_eq!(house.gateway.pack_stats().extents_encoded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mostly_dead_extent_is_emptied() {
    let house = house().await;
    put_all(&house, 100).await;
    let dead = packed_row(&house, "k1").await.extent;
    house.pack().await;
    for i in (0..100).filter(|i| i % 10 != 1) {
        if i % 2 == 0 {
            delete(&house, &format!("k{i}")).await;
        } else {
            house.put(&format!("k{i}"), &random_bytes(5, 2 * MIB)).await.unwrap();
        }
    }
    let etag = row_of(&house, "k1").await.etag;
    let done = house.gateway.run_packing_now().await.unwrap();
    assert_eq!((done.compacted, done.dropped, done.failed), (1, 1, 0));
    assert_eq!(house.gateway.pack_stats().objects_moved, 10);
    let row = row_of(&house, "k1").await;
    assert_eq!(row.etag, etag);
    assert_ne!(packed_row(&house, "k1").await.extent, dead);
    house.collect().await;
    for i in (0..100).filter(|i| i % 10 == 1) {
        assert!(house.get(&format!("k{i}")).await.unwrap() == bytes_of(i));
    }
    ends_clean(&house, 100).await;
}

/// A gateway looks after extents and is killed: after each of its steps, a commit or an exchange with a node, the
/// last commit applied or not. Whatever it leaves, every object is there, and nothing stays that shouldn't.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_at_any_step_loses_nothing() {
    const OBJECTS: usize = 12;
    let mut finished = [false; 2];
    for round in 0..200_i64 {
        let applies_last = round % 2 == 1;
        if finished[usize::from(applies_last)] {
            continue;
        }
        let house = House::with(code(2, 1), Meta::Mem, packed).await;
        // One extent that is to be encoded, one that is to be emptied.
        put_all(&house, OBJECTS).await;
        house.gateway.seal_extents_now().await.unwrap();
        for i in OBJECTS..2 * OBJECTS {
            house.put(&format!("k{i}"), &bytes_of(i)).await.unwrap();
        }
        for i in OBJECTS + 2..2 * OBJECTS {
            delete(&house, &format!("k{i}")).await;
        }
        house.gateway.seal_extents_now().await.unwrap();
        let life = Life::of(round / 2);
        let wire = Wire::over(house.transport().clone(), life.clone());
        let kv = MortalKv { inner: house.kv.clone(), life: life.clone(), applies_last };
        let mortal = house.gateway_through(Arc::new(kv), wire);
        let done = mortal.run_packing_now().await;
        mortal.shutdown().await;
        finished[usize::from(applies_last)] = !life.is_over();
        if !life.is_over() {
            let done = done.unwrap();
            assert_eq!((done.encoded, done.compacted, done.failed), (1, 1, 0), "after {} steps", round / 2);
        }
        check_all(&house.gateway, OBJECTS + 2).await;
        house.clock.advance_ms(16 * 60_000);
        house.collect().await;
        let done = house.pack().await;
        assert_eq!(done.failed, 0);
        house.collect().await;
        check_all(&house.gateway, OBJECTS + 2).await;
        assert_eq!(kind(house.get(&format!("k{}", OBJECTS + 2)).await), ErrorKind::NoSuchKey);
        ends_clean(&house, OBJECTS + 2).await;
    }
    assert_eq!(finished, [true, true], "it did not get to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_is_answered_at_two_copies_of_three_and_the_third_is_queued() {
    let house = House::with_nodes(3, code(2, 1), Meta::Mem, packed).await;
    house.lose(1);
    put_all(&house, 20).await;
    let stats = house.gateway.pack_stats();
    assert_eq!(stats.batches_lacking_copies, stats.batches_written);
    assert_eq!(house.shards(), 2 * stats.batches_written);
    let queue = Tables::new(house.kv.clone()).repair_queue(1000).await.unwrap();
    assert_eq!(queue.len() as u64, stats.batches_written);
    // Either of the two will do.
    for lost in [0, 2] {
        house.lose(lost);
        check_all(&house.gateway, 20).await;
        house.bring_back(lost);
    }
    // One is not enough.
    house.lose(0);
    let failed = house.put("k0", b"x").await.unwrap_err();
    assert_eq!(failed.kind, ErrorKind::ServiceUnavailable, "{failed}");
    assert_eq!(house.gateway.pack_stats().batches_failed, 1);
    house.bring_back(0);
    house.bring_back(1);
    check_all(&house.gateway, 20).await;
    ends_clean(&house, 20).await;
    assert!(Tables::new(house.kv.clone()).repair_queue(1000).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_an_extents_nodes_refuse_goes_to_other_nodes() {
    let house = House::with_nodes(12, code(2, 1), Meta::Mem, packed).await;
    house.put("k0", &bytes_of(0)).await.unwrap();
    let first = extents(&house).await.swap_remove(0).1;
    first.nodes.iter().skip(1).for_each(|node| house.lose(usize::from(node.0)));
    for i in 1..5 {
        house.put(&format!("k{i}"), &bytes_of(i)).await.unwrap();
    }
    assert!(house.gateway.pack_stats().batches_tried_again >= 1);
    check_all(&house.gateway, 5).await;
    first.nodes.iter().for_each(|node| house.bring_back(usize::from(node.0)));
    ends_clean(&house, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_of_one_node_packs_with_one_copy() {
    let house = House::with(code(1, 0), Meta::Fjall, packed).await;
    put_all(&house, 40).await;
    assert_eq!(house.shards(), house.gateway.pack_stats().batches_written);
    let done = house.pack().await;
    assert_eq!((done.encoded, done.failed), (0, 0), "there is no other code for it");
    check_all(&house.gateway, 40).await;
    ends_clean(&house, 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_not_the_objects_is_read_around_and_queued() {
    let house = house().await;
    // A batch that is long, so that its reads are parts of shards, which nothing but the object's checksum vouches for.
    let big = random_bytes(1, 600_000);
    let small = bytes_of(3);
    let (a, b) = tokio::join!(house.put("big", &big), house.put("k3", &small));
    assert!(a.is_ok() && b.is_ok());
    house.put("k4", &bytes_of(4)).await.unwrap();
    let tables = Tables::new(house.kv.clone());
    let wire = Wire::over(house.transport().clone(), Life::of(i64::MAX));
    let gateway = house.gateway_through(house.kv.clone(), wire.clone());
    let nodes = extents(&house).await.swap_remove(0).1.nodes;
    for node in nodes {
        *wire.liar.lock() = Some(node);
        for (key, bytes) in [("big", &big), ("k3", &bytes_of(3)), ("k4", &bytes_of(4))] {
            let answer = gateway.get_object(get(key)).await.unwrap();
            assert!(read(answer).await.unwrap().1 == *bytes, "{key} with {node} lying");
        }
    }
    let packed = packed_row(&house, "big").await;
    if packed_row(&house, "k3").await.offset != packed.offset + 600_000 {
        // They did not meet in one batch: each was read whole, and the executor saw through it.
        return;
    }
    assert!(gateway.pack_stats().reads_mismatched >= 1, "{}", gateway.pack_stats());
    let queue = tables.repair_queue(10).await.unwrap();
    assert!(queue.iter().any(|(data, _)| *data == packed.extent), "{queue:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_creators_wins() {
    let house = house().await;
    for round in 0..10 {
        let key = format!("k{round}");
        let new = || PutObject {
            conditions: Conditions { if_none_match: Some(EtagCondition::Any), ..Conditions::default() },
            ..put(&key, &bytes_of(round))
        };
        let outcomes = join_all((0..20).map(|_| house.gateway.put_object(new()))).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for error in outcomes.into_iter().filter_map(Result::err) {
            let known = matches!(error.kind, ErrorKind::PreconditionFailed | ErrorKind::ConditionalRequestConflict);
            assert!(known, "{error}");
        }
    }
    check_all(&house.gateway, 10).await;
    ends_clean(&house, 10).await;
}

/// Writers, readers, the worker and the collector at once: a reader sees one of the writers' bodies, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_objects_while_everything_moves() {
    let eager = |options: &mut GatewayOptions| {
        packed(options);
        options.garbage_grace_ms = 0;
    };
    let house = House::with(code(2, 1), Meta::Mem, eager).await;
    put_all(&house, 8).await;
    let writers = (0..8_usize).map(|key| {
        let gateway = house.gateway.clone();
        tokio::spawn(async move {
            for round in 0..25_usize {
                let bytes = [round as u8].repeat(100 + 700 * key);
                gateway.put_object(put(&format!("k{key}"), &bytes)).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let worker = tokio::spawn({
        let gateway = house.gateway.clone();
        async move {
            for _ in 0..30 {
                gateway.seal_extents_now().await.unwrap();
                gateway.run_packing_now().await.unwrap();
                gateway.collect_garbage_now().await.unwrap();
            }
        }
    });
    let mut seen = 0;
    while writers.iter().any(|writer| !writer.is_finished()) || !worker.is_finished() {
        for key in 0..8_usize {
            let answer = house.gateway.get_object(get(&format!("k{key}"))).await.unwrap();
            let bytes = read(answer).await.unwrap().1;
            let one_writers = bytes.len() == 100 + 700 * key && bytes.iter().all(|byte| *byte == bytes[0]);
            assert!(one_writers || bytes == bytes_of(key), "k{key}");
            seen += 1;
        }
    }
    for task in writers.into_iter().chain([worker]) {
        task.await.unwrap();
    }
    assert!(seen > 0);
    ends_clean(&house, 8).await;
}

/// A put whose client goes away leaves nothing visible, or all of it; nothing hangs, nothing stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_leave_nothing_half_done() {
    let house = house().await;
    for i in 0..40_usize {
        let gateway = house.gateway.clone();
        let task = tokio::spawn(async move { gateway.put_object(put(&format!("k{i}"), &bytes_of(i))).await });
        for _ in 0..i % 7 {
            tokio::task::yield_now().await;
        }
        task.abort();
        let put = task.await;
        match house.get(&format!("k{i}")).await {
            Ok(bytes) => assert!(bytes == bytes_of(i)),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::NoSuchKey);
                assert!(!matches!(put, Ok(Ok(_))), "it was acknowledged");
            }
        }
    }
    house.held_when_quiet().await;
    ends_clean(&house, 40).await;
}
