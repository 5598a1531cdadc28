//! Reads from nodes that are gone, slow or wrong.

use penstock_proto::limits::CHUNK_BYTES;
use penstock_proto::wire::NodeErrorCode;

use super::node::Fault;
use super::*;

#[tokio::test]
async fn every_pattern_of_lost_nodes() {
    let data = bytes(1000);
    let mut cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &data).await;
    for lost in 0u32..64 {
        for (id, node) in cluster.nodes.iter().enumerate() {
            match lost >> id & 1 {
                1 => cluster.transport.detach(NodeId(id as u16)),
                _ => cluster.transport.attach(NodeId(id as u16), Arc::clone(node) as _),
            }
        }
        cluster.fresh_executor(patient());
        // Twice: the second time the executor knows whom to avoid.
        for _ in 0..2 {
            match cluster.read(&target, &stored, 0..1000).await {
                Ok(read) => {
                    assert_eq!(read, data);
                    assert!(lost.count_ones() <= 2, "{lost:06b}");
                }
                Err(error) => {
                    assert!(lost.count_ones() > 2, "{lost:06b}: {error}");
                    assert!(
                        matches!(&error, ExecutorError::TooFewShards { need: 4, have, .. } if *have < 4),
                        "{error}"
                    );
                    assert!(error.is_retryable(), "the nodes may come back");
                }
            }
        }
    }
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn a_node_that_comes_back_at_once_is_not_a_failed_read() {
    let data = bytes(1000);
    let options = ExecutorOptions { read_again_pause: Duration::from_millis(900), ..patient() };
    let cluster = Cluster::new(3, options);
    let target = target(code(2, 1));
    let stored = cluster.store(&target, &data).await;
    cluster.transport.detach(NodeId(0));
    cluster.transport.detach(NodeId(1));
    let back = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.transport.attach(NodeId(1), Arc::clone(&cluster.nodes[1]) as _);
    };
    let (read, ()) = tokio::join!(cluster.read(&target, &stored, 0..1000), back);
    assert_eq!(read.unwrap(), data);
}

#[tokio::test]
async fn every_pattern_of_corrupt_shards_is_noticed_or_survived() {
    let data = bytes(1000);
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &data).await;
    for fault in [Fault::Flip, Fault::Lie, Fault::Short, Fault::WrongLength, Fault::Refuse(NodeErrorCode::Corrupt)] {
        for wrong in 0u32..64 {
            for (id, node) in cluster.nodes.iter().enumerate() {
                node.set(if wrong >> id & 1 == 1 { fault } else { Fault::None });
            }
            match cluster.read(&target, &stored, 0..1000).await {
                Ok(read) => assert!(read == data && wrong.count_ones() <= 2, "{fault:?} {wrong:06b}"),
                Err(error) => {
                    assert!(wrong.count_ones() > 2, "{fault:?} {wrong:06b}: {error}");
                    assert!(!error.is_retryable(), "{error}");
                }
            }
        }
    }
    let stats = cluster.executor.stats();
    assert!(stats.nodes.values().all(|node| node.corrupt > 0 && node.failed == 0), "{stats:?}");
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn a_whole_chunk_without_its_last_and_shortest_shard() {
    // The last shard of a 4 MiB chunk of RS(10,4) ends 256 bytes before the others; decoding with and without it.
    let data = bytes(CHUNK_BYTES);
    let cluster = Cluster::new(14, patient());
    let target = target(code(10, 4));
    let stored = cluster.store(&target, &data).await;
    for lost in [vec![9], vec![0], vec![0, 3, 8, 9], vec![2, 10, 13]] {
        for (id, node) in cluster.nodes.iter().enumerate() {
            node.set(if lost.contains(&id) { Fault::Refuse(NodeErrorCode::NoSuchShard) } else { Fault::None });
        }
        assert!(cluster.read(&target, &stored, 0..CHUNK_BYTES).await.unwrap() == data, "{lost:?}");
    }
    assert_eq!(cluster.executor.stats().stripes_decoded, 4);
    // 4 MiB land, and at most four shards beside them, twice.
    assert!(cluster.pool.stats().peak_bytes <= 8 << 20, "{:?}", cluster.pool.stats());
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn wrong_bytes_of_one_copy_are_an_error_and_never_returned() {
    let data = bytes(500);
    let cluster = Cluster::new(1, patient());
    let target = target(Code::ONE_COPY);
    let stored = cluster.store(&target, &data).await;
    for fault in [Fault::Flip, Fault::Lie, Fault::Short, Fault::WrongLength] {
        cluster.nodes[0].set(fault);
        let error = cluster.read(&target, &stored, 0..500).await.unwrap_err();
        assert!(matches!(error, ExecutorError::Corrupt { .. }), "{fault:?}: {error}");
        assert!(!error.is_retryable());
    }
    assert_eq!(cluster.executor.stats().nodes[&NodeId(0)].corrupt, 4);
    for fault in [Fault::Confused, Fault::Gibberish, Fault::Refuse(NodeErrorCode::Forbidden)] {
        cluster.nodes[0].set(fault);
        let error = cluster.read(&target, &stored, 0..500).await.unwrap_err();
        assert!(matches!(error, ExecutorError::TooFewShards { have: 0, need: 1, .. }), "{fault:?}: {error}");
        assert!(!error.is_retryable());
    }
    // The node is fine, the metadata is not: whoever is wrong, it is not returned.
    cluster.nodes[0].set(Fault::None);
    let mut wrong = stored.clone();
    wrong.shard_crc64s[0] ^= 1;
    assert!(matches!(cluster.read(&target, &wrong, 0..500).await, Err(ExecutorError::Corrupt { .. })));
    assert_eq!(cluster.read(&target, &stored, 0..500).await.unwrap(), data);
}

#[tokio::test]
async fn a_computed_shard_must_be_the_one_that_was_written() {
    let data = bytes(1000);
    let cluster = Cluster::new(3, patient());
    let target = target(code(2, 1));
    let mut stored = cluster.store(&target, &data).await;
    stored.shard_crc64s[0] ^= 1;
    let error = cluster.read(&target, &stored, 0..1000).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_short_range_takes_one_node_and_a_part_of_its_shard() {
    let data = bytes(4 << 20);
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &data).await;
    let at = (1 << 20) + 5000;
    assert_eq!(cluster.read(&target, &stored, at..at + 100).await.unwrap(), data[at..at + 100]);
    assert_eq!(cluster.gets(), [0, 1, 0, 0, 0, 0]);
    let before = cluster.pool.stats();
    assert_eq!(before.in_use_bytes, 0);
    // A part that is wrong on its way is noticed, and computed from whole shards.
    cluster.nodes[1].set(Fault::Flip);
    assert_eq!(cluster.read(&target, &stored, at..at + 100).await.unwrap(), data[at..at + 100]);
    assert_eq!(cluster.executor.stats().nodes[&NodeId(1)].corrupt, 1);
    assert_eq!(cluster.gets().iter().sum::<u32>(), 1 + 1 + 4);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_node_is_read_around_and_then_avoided() {
    let data = bytes(1000);
    let options = ExecutorOptions { hedging: true, hedge_delay: Duration::from_millis(20), ..patient() };
    let cluster = Cluster::new(6, options);
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &data).await;
    cluster.nodes[2].set(Fault::Hang);
    for _ in 0..3 {
        assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), data);
    }
    let stats = cluster.executor.stats();
    assert_eq!((stats.nodes[&NodeId(2)].late, stats.hedges_asked, stats.hedges_won), (3, 3, 3));
    assert_eq!((cluster.nodes[2].gets(), stats.slow_nodes), (3, vec![NodeId(2)]));
    // A range that only the slow node holds: k whole shards instead, and that is within the budget.
    assert_eq!(cluster.read(&target, &stored, 600..610).await.unwrap(), data[600..610]);
    assert_eq!(cluster.nodes[2].gets(), 3, "it is read last, and others do");
    cluster.nodes[2].release();
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn shards_marked_missing_are_not_asked_while_others_do() {
    let data = bytes(1000);
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    let mut stored = cluster.store(&target, &data).await;
    stored.missing = 0b000010;
    assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), data);
    assert_eq!(cluster.gets(), [1, 0, 1, 1, 1, 0]);
    // With three others gone it is asked: it may have become durable after all.
    for shard in [0, 4] {
        cluster.nodes[shard].shards.lock().clear();
    }
    assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), data);
    assert_eq!(cluster.nodes[1].gets(), 1);
}

#[tokio::test]
async fn a_busy_node_is_asked_again_and_not_for_ever() {
    let data = bytes(300);
    let cluster = Cluster::new(1, ExecutorOptions { shard_deadline: Duration::from_secs(30), ..patient() });
    let target = target(Code::ONE_COPY);
    let stored = cluster.store(&target, &data).await;
    cluster.nodes[0].set(Fault::Busy(3));
    assert_eq!(cluster.read(&target, &stored, 0..300).await.unwrap(), data);
    assert_eq!(cluster.nodes[0].gets(), 4);
    cluster.nodes[0].set(Fault::Refuse(NodeErrorCode::Busy));
    let error = cluster.read(&target, &stored, 0..300).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(cluster.nodes[0].gets(), 4 + BUSY_TRIES_MAX);
    cluster.expect_no_buffers_in_use().await;
}
