//! Rebuilding shards: what is read, what is stored, and what is refused.

use penstock_proto::plan::Crc64;
use penstock_proto::upkeep::{Rebuild, RebuildShard};
use penstock_proto::wire::{NodeErrorCode, NodeReply, NodeRequest};
use penstock_proto::{ManualClock, limits};
use penstock_transport::{Call, Messenger};

use super::node::Fault;
use super::*;

/// The rebuild of the shards in `to`, with every other where `target` has it.
fn work(target: &StripeTarget, stored: &StripeStored, to: &[(usize, u16)]) -> Rebuild {
    let shards = target.nodes.iter().zip(&stored.shard_crc64s).enumerate().map(|(shard, (node, crc64))| {
        let to = to.iter().find(|(wanted, _)| *wanted == shard).map(|(_, node)| NodeId(*node));
        RebuildShard { from: to.is_none().then_some(*node), to, crc64: Crc64(*crc64) }
    });
    let StripeTarget { data, stripe, code, .. } = *target;
    Rebuild { data, stripe, code, chunk_bytes: stored.chunk_bytes, shards: shards.collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_shard_takes_k_reads_and_comes_back_elsewhere() {
    let cluster = Cluster::new(16, patient());
    for (len, lost) in [(limits::CHUNK_BYTES, 3), (limits::CHUNK_BYTES, 12), (700_001, 9), (limits::CHUNK_BYTES, 0)] {
        let target = StripeTarget { data: DataId(len as u128 + lost as u128), ..target(code(10, 4)) };
        let stored = cluster.store(&target, &bytes(len)).await;
        let before: u32 = cluster.gets().iter().sum();
        let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &[(lost, 15)])).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << lost, 10));
        assert_eq!(cluster.gets().iter().sum::<u32>() - before, 10, "the nodes count the same");
        let shard_bytes = target.code.shard_bytes(len) as u64;
        assert_eq!(done.written_bytes, shard_bytes);
        assert!((9 * shard_bytes..=10 * shard_bytes).contains(&done.read_bytes), "{done:?}");
        let moved = StripeTarget {
            nodes: target.nodes.iter().enumerate().map(|(i, n)| if i == lost { NodeId(15) } else { *n }).collect(),
            ..target.clone()
        };
        assert_eq!(cluster.shard(&moved, lost), cluster.shard(&target, lost), "the same bytes, pad included");
    }
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_shard_of_an_lrc_takes_its_group_alone() {
    let cluster = Cluster::new(17, patient());
    let target = target(Code::lrc(12, 2, 2).unwrap());
    let stored = cluster.store(&target, &bytes(limits::CHUNK_BYTES)).await;
    // Data shards and local parities: 6 reads; a global parity: everything; two of a group: more than the group.
    for (lost, reads) in [(0, 6), (11, 6), (12, 6), (13, 6), (14, 12)] {
        let before: u32 = cluster.gets().iter().sum();
        let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &[(lost, 16)])).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << lost, reads), "shard {lost}");
        assert_eq!(cluster.gets().iter().sum::<u32>() - before, reads);
    }
    // A shard of the other group that can't be read costs nothing; one of its own makes it a decode.
    for (unreadable, reads) in [(7, 6), (3, 12)] {
        let mut work = work(&target, &stored, &[(2, 16)]);
        work.shards[unreadable].from = None;
        let done = cluster.executor.rebuild(capability(), &work).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << 2, reads), "without {unreadable}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_lost_shards_share_the_reads() {
    let cluster = Cluster::new(18, patient());
    let target = target(code(10, 4));
    let stored = cluster.store(&target, &bytes(limits::CHUNK_BYTES)).await;
    let to = [(0, 14), (5, 15), (11, 16), (13, 17)];
    let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &to)).await.unwrap();
    assert_eq!((done.stored.count_ones(), done.reads), (4, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_only_moved_is_copied() {
    let cluster = Cluster::new(7, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &bytes(100_000)).await;
    for shard in [0, 3, 5] {
        let mut work = work(&target, &stored, &[(shard, 6)]);
        work.shards[shard].from = Some(target.nodes[shard]);
        let done = cluster.executor.rebuild(capability(), &work).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << shard, 1));
        // And where it can't be read after all, it is computed.
        cluster.nodes[shard].set(Fault::Flip);
        let done = cluster.executor.rebuild(capability(), &work).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << shard, 4));
        cluster.nodes[shard].set(Fault::None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_read_is_done_without() {
    let cluster = Cluster::new(7, patient());
    let target = target(code(4, 2));
    let chunk = bytes(50_000);
    for fault in [Fault::Lie, Fault::Refuse(NodeErrorCode::NoSuchShard), Fault::WrongLength, Fault::Gibberish] {
        let target = StripeTarget { data: DataId::random(), ..target.clone() };
        let stored = cluster.store(&target, &chunk).await;
        cluster.nodes[2].set(fault);
        let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &[(1, 6)])).await.unwrap();
        assert_eq!((done.stored, done.reads), (0b10, 4), "{fault:?}");
        // Two of six are lost, a third can't be read.
        let error =
            cluster.executor.rebuild(capability(), &work(&target, &stored, &[(1, 6), (4, 1)])).await.unwrap_err();
        assert!(matches!(error, ExecutorError::TooFewShards { need: 4, .. }), "{error}");
        cluster.nodes[2].set(Fault::None);
    }
    // A destination that refuses is not stored at, and says so by its absence.
    let stored = cluster.store(&target, &chunk).await;
    cluster.nodes[6].set(Fault::Refuse(NodeErrorCode::NoSpace));
    let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &[(1, 6)])).await.unwrap();
    assert_eq!(done.stored, 0);
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_chunks_read_only_what_has_bytes() {
    let cluster = Cluster::new(8, patient());
    let target = target(code(4, 2));
    // One cache line and a bit: two data shards of bytes, two of zeros.
    let stored = cluster.store(&target, &bytes(100)).await;
    for (lost, reads) in [(0, 2), (3, 0), (5, 2)] {
        let done = cluster.executor.rebuild(capability(), &work(&target, &stored, &[(lost, 7)])).await.unwrap();
        assert_eq!((done.stored, done.reads), (1 << lost, reads), "shard {lost}");
        let there = cluster.nodes[7]
            .shards
            .lock()
            .get(&ShardKey { data: target.data, stripe: target.stripe, shard: lost as u8 })
            .cloned();
        assert_eq!(there, cluster.shard(&target, lost));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_node_it_obeys_capabilities_and_hands_on_the_rest() {
    let cluster = Cluster::new(7, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &bytes(10_000)).await;
    let (key, clock) = (ClusterKey::new([7; 32]), Arc::new(ManualClock::at(1000)));
    let behind = Arc::clone(&cluster.nodes[6]) as _;
    let beside = Rebuilder::new(NodeId(6), cluster.executor.clone(), key.clone(), clock.clone(), behind);
    let beside = Arc::new(beside);
    cluster.transport.attach(NodeId(6), beside.clone());
    let sign = |rights, data| Capability::sign(&key, rights, data, 2000);
    let rights = Rights::REBUILD.and(Rights::GET).and(Rights::PUT);
    let rebuild = work(&target, &stored, &[(1, 6)]);
    let asker = &cluster.executor;
    let done = asker.rebuild_at(NodeId(6), sign(rights, target.data), rebuild.clone()).await.unwrap();
    assert_eq!((done.stored, done.reads), (0b10, 4));
    assert_eq!((beside.stats().rebuilds, beside.stats().reads, beside.stats().shards), (1, 4, 1));
    for (capability, says) in [
        (sign(Rights::GET.and(Rights::PUT), target.data), "does not allow"),
        (sign(rights, DataId(1)), "other data"),
        (Capability::sign(&ClusterKey::new([8; 32]), rights, target.data, 2000), "not signed"),
        (Capability::sign(&key, rights, target.data, 1000), "expired"),
    ] {
        let error = asker.rebuild_at(NodeId(6), capability, rebuild.clone()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(beside.stats().failed, 4);
    // Everything else is the node's.
    let status = NodeRequest::Status { capability: capability() }.encode();
    let answer = cluster.transport.call(NodeId(6), Call::new(status, Duration::from_secs(10))).await.unwrap();
    assert!(matches!(NodeReply::decode(&answer.header), Ok(NodeReply::Status(status)) if status.shards == 1));
    // And a node without an executor says that it has none.
    let error = asker.rebuild_at(NodeId(5), sign(rights, target.data), rebuild).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
}
