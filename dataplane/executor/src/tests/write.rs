//! Writes to nodes that are gone, slow, full or busy.

use penstock_proto::wire::NodeErrorCode;

use super::node::Fault;
use super::*;

#[tokio::test]
async fn every_pattern_of_failing_nodes_against_the_quorum() {
    let data = bytes(1000);
    for (k, m) in [(1, 0), (2, 1), (1, 2), (4, 2)] {
        let code = code(k, m);
        for failing in 0u64..1 << code.n() {
            let cluster = Cluster::new(code.n(), patient());
            for shard in (0..code.n()).filter(|shard| failing >> shard & 1 == 1) {
                cluster.nodes[shard].set(Fault::Refuse(NodeErrorCode::DeviceFailed));
            }
            let target = target(code);
            let outcome = cluster.write(&target, &data).await;
            let durable = code.n() - failing.count_ones() as usize;
            match outcome {
                Ok(written) => {
                    assert!(durable >= code.write_quorum(), "{code} {failing:b}");
                    assert_eq!(written.missing, failing);
                    let read = cluster.read(&target, &stored(written, &data), 0..1000).await.unwrap();
                    assert_eq!(read, data);
                }
                Err(ExecutorError::QuorumNotMet { need, durable: had, ref failures, .. }) => {
                    assert!(durable < code.write_quorum(), "{code} {failing:b}");
                    assert!(need == code.write_quorum() && had <= durable);
                    assert!(failures.0.iter().all(|failure| failing >> failure.shard & 1 == 1));
                    assert!(!failures.any_transient());
                }
                Err(other) => panic!("{code} {failing:b}: {other}"),
            }
            cluster.expect_no_buffers_in_use().await;
        }
    }
}

#[tokio::test]
async fn full_nodes_are_no_space_when_they_are_what_is_wrong() {
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    cluster.nodes[0].set(Fault::Refuse(NodeErrorCode::NoSpace));
    assert_eq!(cluster.write(&target, &bytes(100)).await.unwrap().missing, 1);
    cluster.nodes[1].set(Fault::Refuse(NodeErrorCode::NoSpace));
    let error = cluster.write(&target, &bytes(100)).await.unwrap_err();
    assert!(matches!(error, ExecutorError::NoSpace) && !error.is_retryable(), "{error}");
    cluster.nodes[0].set(Fault::None);
    cluster.transport.detach(NodeId(5));
    cluster.nodes[1].set(Fault::Refuse(NodeErrorCode::Internal));
    let error = cluster.write(&target, &bytes(100)).await.unwrap_err();
    assert!(matches!(error, ExecutorError::QuorumNotMet { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("5 must be") && (text.contains("node-05") || text.contains("node-01")), "{text}");
}

#[tokio::test]
async fn a_straggler_is_cancelled_and_marked_missing() {
    let data = bytes(1000);
    let options = ExecutorOptions { straggler_grace: Duration::from_millis(20), ..patient() };
    let cluster = Cluster::new(6, options);
    let target = target(code(4, 2));
    cluster.nodes[3].set(Fault::Hang);
    let written = cluster.write(&target, &data).await.unwrap();
    // On a machine that stalls, one of the others may be late too; below the quorum it can't fall.
    assert!(written.missing & 0b1000 != 0 && written.missing.count_ones() <= 1, "{:b}", written.missing);
    assert_eq!(cluster.executor.stats().shards_missing, 1);
    assert_eq!(cluster.read(&target, &stored(written, &data), 0..1000).await.unwrap(), data);
    cluster.nodes[3].release();
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn without_the_quorum_a_straggler_is_waited_for() {
    let data = bytes(1000);
    let options = ExecutorOptions { straggler_grace: Duration::from_millis(1), ..patient() };
    let cluster = Cluster::new(3, options);
    let target = target(code(2, 1));
    cluster.nodes[1].set(Fault::Hang);
    let chunk = cluster.chunk(target.code, &data).await;
    let (executor, plan) = (cluster.executor.clone(), target.clone());
    let write = tokio::spawn(async move { executor.write_stripe(&plan, chunk).await });
    while cluster.shard(&target, 0).is_none() || cluster.shard(&target, 2).is_none() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!write.is_finished(), "RS(2,1) has a quorum of all three");
    cluster.nodes[1].release();
    assert_eq!(write.await.unwrap().unwrap().missing, 0);
}

#[tokio::test]
async fn a_node_that_never_answers_fails_at_its_deadline() {
    let options = ExecutorOptions { shard_deadline: Duration::from_millis(50), ..patient() };
    let cluster = Cluster::new(1, options);
    cluster.nodes[0].set(Fault::Hang);
    let error = cluster.write(&target(Code::ONE_COPY), &bytes(10)).await.unwrap_err();
    let ExecutorError::QuorumNotMet { failures, .. } = &error else { panic!("{error}") };
    assert_eq!(failures.of_kind(FailureKind::Deadline), 1);
    assert!(error.is_retryable());
    cluster.nodes[0].release();
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn the_stripe_has_a_deadline_of_its_own() {
    let options = ExecutorOptions { stripe_deadline: Duration::from_millis(50), ..patient() };
    let cluster = Cluster::new(1, options);
    let target = target(Code::ONE_COPY);
    let stored = cluster.store(&target, &bytes(10)).await;
    cluster.nodes[0].set(Fault::Hang);
    let error = cluster.write(&target, &bytes(10)).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Deadline { .. }) && error.is_retryable(), "{error}");
    let error = cluster.read(&target, &stored, 0..10).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Deadline { .. }), "{error}");
    cluster.nodes[0].release();
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_is_left_in_peace_and_tried_again() {
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    cluster.transport.detach(NodeId(2));
    for _ in 0..BREAKER_FAILURES_MAX {
        assert_eq!(cluster.write(&target, &bytes(100)).await.unwrap().missing, 1 << 2);
    }
    let failed = cluster.executor.stats().nodes[&NodeId(2)].failed;
    assert_eq!(cluster.executor.unfit_nodes(), [NodeId(2)]);
    for _ in 0..10 {
        assert_eq!(cluster.write(&target, &bytes(100)).await.unwrap().missing, 1 << 2);
    }
    let stats = cluster.executor.stats();
    assert_eq!((stats.nodes[&NodeId(2)].failed, stats.nodes[&NodeId(2)].skipped), (failed, 10));
    assert_eq!(stats.open_nodes, [NodeId(2)]);
    // Below the quorum nobody is left out: it may be back.
    cluster.nodes[0].set(Fault::Refuse(NodeErrorCode::DeviceFailed));
    assert!(cluster.write(&target, &bytes(100)).await.is_err());
    cluster.nodes[0].set(Fault::None);
    // It comes back, and the first write after the pause finds that out.
    cluster.transport.attach(NodeId(2), Arc::clone(&cluster.nodes[2]) as _);
    tokio::time::sleep(BREAKER_PAUSE_MIN).await;
    assert_eq!(cluster.executor.unfit_nodes(), [NodeId(0)], "its device had failed a moment ago");
    assert_eq!(cluster.write(&target, &bytes(100)).await.unwrap().missing, 0);
    assert_eq!(cluster.executor.stats().open_nodes, []);
    tokio::time::sleep(UNFIT_FOR).await;
    assert_eq!(cluster.executor.unfit_nodes(), []);
}

#[tokio::test]
async fn a_busy_node_is_asked_again() {
    let cluster = Cluster::new(3, patient());
    cluster.nodes[1].set(Fault::Busy(2));
    let written = cluster.write(&target(code(2, 1)), &bytes(100)).await.unwrap();
    assert_eq!((written.missing, cluster.nodes[1].puts()), (0, 3));
}

#[tokio::test]
async fn deletes_answer_for_each_node() {
    let cluster = Cluster::new(4, patient());
    let target = target(code(2, 1));
    cluster.store(&target, &bytes(100)).await;
    cluster.store(&StripeTarget { stripe: 6, ..target.clone() }, &bytes(100)).await;
    cluster.transport.detach(NodeId(1));
    let nodes: Vec<_> = [3, 0, 1, 2].map(NodeId).to_vec();
    let outcomes = cluster.executor.delete_data(target.data, capability(), &nodes).await;
    assert_eq!(outcomes.iter().map(|(node, _)| *node).collect::<Vec<_>>(), nodes);
    assert_eq!(outcomes[0].1.as_ref().unwrap(), &0);
    assert_eq!(outcomes[1].1.as_ref().unwrap(), &2);
    assert!(matches!(&outcomes[2].1, Err(error) if error.is_retryable()));
    assert_eq!(outcomes[3].1.as_ref().unwrap(), &2);
    assert_eq!(cluster.shard(&target, 0), None);
    assert_eq!(cluster.executor.node_status(NodeId(0), capability()).await.unwrap().shards, 0);
    assert!(cluster.executor.node_status(NodeId(1), capability()).await.is_err());
}
