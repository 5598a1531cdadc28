//! Memory, cancellation and plans that make no sense.

use penstock_proto::limits::CHUNK_BYTES;

use penstock_transport::{Answer, Call, TransportError};

use super::node::Fault;
use super::*;

#[tokio::test]
async fn a_cancelled_write_gives_its_buffers_back() {
    for len in [1000, CHUNK_BYTES] {
        let cluster = Cluster::new(6, patient());
        let target = target(code(4, 2));
        cluster.nodes.iter().for_each(|node| node.set(Fault::Hang));
        let chunk = cluster.chunk(target.code, &bytes(len)).await;
        let executor = cluster.executor.clone();
        let write = tokio::spawn(async move { executor.write_stripe(&target, chunk).await });
        while cluster.nodes.iter().any(|node| node.puts() == 0) {
            tokio::task::yield_now().await;
        }
        assert!(cluster.pool.stats().in_use_bytes > 0);
        write.abort();
        assert!(write.await.unwrap_err().is_cancelled());
        // The transport may hold on until the node has let go of the memory.
        cluster.nodes.iter().for_each(|node| node.release());
        cluster.expect_no_buffers_in_use().await;
    }
}

#[tokio::test]
async fn a_cancelled_read_gives_its_buffers_back() {
    let cluster = Cluster::new(6, patient());
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &bytes(1000)).await;
    cluster.nodes[2].set(Fault::Hang);
    let executor = cluster.executor.clone();
    let read = tokio::spawn(async move { executor.read_stripe(&target, &stored, 0..1000).await });
    while cluster.nodes[2].gets() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(cluster.pool.stats().in_use_bytes > 0);
    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    cluster.nodes[2].release();
    cluster.expect_no_buffers_in_use().await;
}

/// Nodes elsewhere: what they send lands in the executor's memory.
struct Elsewhere(MemTransport);

#[async_trait::async_trait]
impl Messenger for Elsewhere {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        self.0.call(node, call).await
    }
}

#[tokio::test]
async fn a_stripe_of_nodes_in_this_process_is_read_where_it_lies() {
    let cluster = Cluster::new(6, patient());
    let (target, data) = (target(code(4, 2)), bytes(CHUNK_BYTES));
    let stored = cluster.store(&target, &data).await;
    let pieces = cluster.executor.read_stripe(&target, &stored, 0..CHUNK_BYTES as u32).await.unwrap();
    assert_eq!((cluster.pool.stats().in_use_bytes, super::joined(&pieces) == data), (0, true));
}

#[tokio::test]
async fn a_stripe_takes_the_memory_it_says() {
    for code in [code(10, 4), code(4, 2), Code::ONE_COPY] {
        let put_bytes = CHUNK_BYTES + code.m() * code.shard_bytes(CHUNK_BYTES).next_multiple_of(4096);
        let cluster = Cluster::over(code.n(), patient(), |transport| Arc::new(Elsewhere(transport)));
        let (target, data) = (target(code), bytes(CHUNK_BYTES));
        let stored = cluster.store(&target, &data).await;
        assert_eq!(cluster.pool.stats().peak_bytes, put_bytes, "{code}");
        let pieces = cluster.executor.read_stripe(&target, &stored, 0..CHUNK_BYTES as u32).await.unwrap();
        assert_eq!(cluster.pool.stats().in_use_bytes, 4 << 20, "{code}");
        drop(pieces);
        assert_eq!(cluster.pool.stats().in_use_bytes, 0);
    }
}

#[tokio::test]
async fn many_writers_share_a_small_pool_and_none_starves() {
    // Room for one chunk of RS(4,2) and its parity, and for the data of another: writers that took half each would
    // wait for each other.
    let cluster = Cluster::new(6, patient());
    let small = pool(10 << 20);
    let executor = Executor::new(Arc::new(cluster.transport.clone()), small.clone(), patient());
    let writers: Vec<_> = (0..8u32)
        .map(|stripe| {
            let executor = executor.clone();
            tokio::spawn(async move {
                let target = StripeTarget { stripe, ..target(code(4, 2)) };
                let mut chunk = executor.chunk_buffer(target.code, CHUNK_BYTES).await?;
                chunk.advance(CHUNK_BYTES);
                executor.write_stripe(&target, chunk).await
            })
        })
        .collect();
    for writer in writers {
        assert_eq!(writer.await.unwrap().unwrap().missing, 0);
    }
    assert_eq!(small.stats().in_use_bytes, 0);
}

#[tokio::test]
async fn without_memory_the_answer_is_busy() {
    let options = ExecutorOptions { buffer_wait: Duration::from_millis(20), ..patient() };
    let cluster = Cluster::new(6, options);
    let target = target(code(4, 2));
    let stored = cluster.store(&target, &bytes(1000)).await;
    let mut all = Vec::new();
    while let Some(block) = cluster.pool.try_acquire(4096) {
        all.push(block);
    }
    let error = cluster.executor.chunk_buffer(target.code, 1000).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Busy(_)) && error.is_retryable(), "{error}");
    let error = cluster.read(&target, &stored, 0..1000).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Busy(_)) && error.is_retryable(), "{error}");
    drop(all);
    assert_eq!(cluster.read(&target, &stored, 0..1000).await.unwrap(), bytes(1000));
}

#[tokio::test]
async fn plans_that_make_no_sense_are_refused() {
    let cluster = Cluster::new(6, patient());
    let good = target(code(4, 2));
    let stored = cluster.store(&good, &bytes(1000)).await;
    let refused = |outcome: Result<Vec<u8>, ExecutorError>| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ExecutorError::BadPlan(_)) && !error.is_retryable(), "{error}");
    };
    let mut few = good.clone();
    few.nodes.pop();
    refused(cluster.read(&few, &stored, 0..10).await);
    let mut twice = good.clone();
    twice.nodes[3] = twice.nodes[1];
    refused(cluster.read(&twice, &stored, 0..10).await);
    refused(cluster.read(&good, &stored, 0..1001).await);
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
    let backwards = 10..5;
    refused(cluster.read(&good, &stored, backwards).await);
    let mut unchecked = stored.clone();
    unchecked.shard_crc64s.pop();
    refused(cluster.read(&good, &unchecked, 0..10).await);

    let empty = cluster.executor.chunk_buffer(good.code, 10).await.unwrap();
    assert!(matches!(cluster.executor.write_stripe(&good, empty).await, Err(ExecutorError::BadPlan(_))));
    let other = cluster.chunk(code(2, 1), &bytes(10)).await;
    assert!(matches!(cluster.executor.write_stripe(&good, other).await, Err(ExecutorError::BadPlan(_))));
    for bytes in [0, CHUNK_BYTES + 1, usize::MAX] {
        let chunk = cluster.executor.chunk_buffer(good.code, bytes).await;
        assert!(matches!(chunk, Err(ExecutorError::BadPlan(_))));
    }
    cluster.expect_no_buffers_in_use().await;
}
