//! The executor over a network that loses, delays and repeats.

use penstock_transport::{FaultOptions, Faulty, Partition};

use super::*;

/// Whatever a seed says goes wrong: a write that succeeds can be read, what is read is what was written, and nothing
/// is left behind.
#[tokio::test]
async fn what_is_acknowledged_can_be_read_whatever_the_network_does() {
    let (mut written, mut failed) = (0, 0);
    for seed in 0..60 {
        let faults = FaultOptions {
            seed,
            lose_request: 0.05,
            lose_reply: 0.05,
            duplicate: 0.1,
            delay: 0.2,
            delay_max: Duration::from_millis(3),
            silent: seed % 2 == 0,
        };
        let options = ExecutorOptions {
            shard_deadline: Duration::from_millis(250),
            straggler_grace: Duration::from_millis(10),
            hedge_delay: Duration::from_millis(10),
            ..ExecutorOptions::default()
        };
        let cluster = Cluster::over(6, options, |transport| Arc::new(Faulty::new(transport, faults)));
        let (target, data) = (target(code(4, 2)), bytes(500 + seed as usize * 31));
        match cluster.write(&target, &data).await {
            Ok(stripe) => {
                written += 1;
                let stored = stored(stripe, &data);
                // Over a network without faults it must be readable from the quorum alone.
                let quiet = Executor::new(Arc::new(cluster.transport.clone()), cluster.pool.clone(), patient());
                let pieces = quiet.read_stripe(&target, &stored, 0..data.len() as u32).await.unwrap();
                assert_eq!(joined(&pieces), data);
                for range in [0..data.len(), 17..400, 130..140] {
                    match cluster.read(&target, &stored, range.clone()).await {
                        Ok(read) => assert_eq!(read, data[range]),
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            }
            Err(error) => {
                failed += 1;
                assert!(error.is_retryable(), "{error}");
            }
        }
        cluster.expect_no_buffers_in_use().await;
    }
    assert!(written > 20, "{written} written, {failed} failed: the faults are too many to test anything");
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_read_around() {
    let network = Arc::new(parking_lot::Mutex::new(None));
    let cluster = Cluster::over(6, patient(), |transport| {
        let faulty = Arc::new(Faulty::new(transport, FaultOptions::none(1)));
        *network.lock() = Some(Arc::clone(&faulty));
        Arc::new(faulty)
    });
    let network = network.lock().take().unwrap();
    let (target, data) = (target(code(4, 2)), bytes(1000));
    let stored = cluster.store(&target, &data).await;
    network.cut(NodeId(0), Partition::Requests);
    network.cut(NodeId(3), Partition::Replies);
    assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), data);
    network.cut(NodeId(5), Partition::Both);
    let error = cluster.read(&target, &stored, 0..1000).await.unwrap_err();
    assert!(matches!(&error, ExecutorError::TooFewShards { .. }) && error.is_retryable(), "{error}");
    network.heal(NodeId(5));
    assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), data);
    cluster.expect_no_buffers_in_use().await;
}
