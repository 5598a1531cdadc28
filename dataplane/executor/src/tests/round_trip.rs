//! What is written is read, and lies on the nodes as the code says.

use penstock_digest::crc64nvme;
use penstock_erasure::{Lrc, ReedSolomon};
use penstock_proto::limits::CHUNK_BYTES;
use proptest::prelude::*;

use super::*;

/// The shards of `data`, computed the plain way: padded in one vector, encoded from there.
fn reference(code: Code, data: &[u8]) -> Vec<Vec<u8>> {
    let shard_bytes = code.shard_bytes(data.len());
    let mut padded = data.to_vec();
    padded.resize(code.k() * shard_bytes, 0);
    let mut shards: Vec<Vec<u8>> = padded.chunks(shard_bytes).map(<[u8]>::to_vec).collect();
    let mut parity = vec![vec![0; shard_bytes]; code.m()];
    let from: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
    let mut to: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    match code.groups() {
        0 => ReedSolomon::new(code.k(), code.m()).unwrap().encode(&from, &mut to).unwrap(),
        groups => Lrc::new(code.k(), groups, code.globals()).unwrap().encode(&from, &mut to).unwrap(),
    }
    shards.append(&mut parity);
    shards
}

/// The next buffers of the pool have these bytes in them, not zeros.
fn make_dirty(pool: &BufPool) {
    let blocks: Vec<_> = (0..6)
        .map(|_| {
            let mut block = pool.try_acquire(8 << 20).unwrap();
            block.fill(0xee);
            block
        })
        .collect();
    drop(blocks);
}

async fn round_trip(code: Code, data: &[u8]) {
    let cluster = Cluster::new(code.n(), patient());
    make_dirty(&cluster.pool);
    let target = target(code);
    let written = cluster.write(&target, data).await.unwrap();
    assert_eq!((written.missing, written.chunk_crc64), (0, crc64nvme(data)), "{code} of {} bytes", data.len());
    for (shard, expected) in reference(code, data).into_iter().enumerate() {
        assert_eq!(written.shard_crc64s[shard], crc64nvme(&expected), "{code} of {} bytes: {shard}", data.len());
        assert!(cluster.shard(&target, shard) == Some(expected), "{code} of {} bytes: shard {shard}", data.len());
    }
    let stored = stored(written, data);
    assert!(cluster.read(&target, &stored, 0..data.len()).await.unwrap() == data, "{code} of {} bytes", data.len());
    assert_eq!(cluster.read(&target, &stored, data.len()..data.len()).await.unwrap(), []);
    assert_eq!(cluster.executor.stats().further_asks, 0, "all is well, so only data shards are asked");
    cluster.expect_no_buffers_in_use().await;
}

#[tokio::test]
async fn codes_and_lengths() {
    let rs = [(1, 0), (1, 2), (2, 1), (3, 0), (4, 2), (10, 4), (20, 4), (44, 4)].map(|(k, m)| code(k, m));
    for code in rs.into_iter().chain([azure(), Code::lrc(7, 3, 1).unwrap()]) {
        for len in [1, 63, 64, 65, 640, 641, 4095, 4096, 4097, 70_000, 262_145] {
            round_trip(code, &bytes(len)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_chunks() {
    for code in [Code::ONE_COPY, code(2, 1), code(4, 2), code(10, 4), azure()] {
        for len in [CHUNK_BYTES, CHUNK_BYTES - 1, CHUNK_BYTES - 255] {
            round_trip(code, &bytes(len)).await;
        }
    }
}

#[tokio::test]
async fn a_chunk_that_is_not_filled_is_shorter() {
    let (code, data) = (code(10, 4), bytes(5000));
    let cluster = Cluster::new(14, patient());
    make_dirty(&cluster.pool);
    let mut chunk = cluster.executor.chunk_buffer(code, CHUNK_BYTES).await.unwrap();
    assert!(chunk.is_empty() && chunk.remaining() == CHUNK_BYTES);
    chunk.extend_from_slice(&data[..1000]);
    chunk.spare()[..4000].copy_from_slice(&data[1000..]);
    chunk.advance(4000);
    assert_eq!((chunk.len(), chunk.remaining(), chunk.filled()), (5000, CHUNK_BYTES - 5000, &data[..]));
    let target = target(code);
    let written = cluster.executor.write_stripe(&target, chunk).await.unwrap();
    for (shard, expected) in reference(code, &data).into_iter().enumerate() {
        assert!(cluster.shard(&target, shard) == Some(expected), "shard {shard}");
    }
    assert_eq!(cluster.read(&target, &stored(written, &data), 0..5000).await.unwrap(), data);
}

#[tokio::test]
async fn a_full_chunk_takes_no_more() {
    let cluster = Cluster::new(1, patient());
    let mut chunk = cluster.executor.chunk_buffer(Code::ONE_COPY, 100).await.unwrap();
    assert_eq!(chunk.extend_from_slice(&[1; 60]), 60);
    assert_eq!(chunk.extend_from_slice(&[2; 60]), 40);
    assert!(chunk.is_full());
    assert_eq!(chunk.extend_from_slice(&[3; 60]), 0);
    assert_eq!(chunk.filled(), [[1; 60].as_slice(), [2; 40].as_slice()].concat());
}

#[tokio::test]
async fn a_task_can_be_spawned_for_it() {
    let cluster = Cluster::new(6, patient());
    let (target, data) = (target(code(4, 2)), bytes(1000));
    let chunk = cluster.chunk(target.code, &data).await;
    let (executor, plan) = (cluster.executor.clone(), target.clone());
    let written = tokio::spawn(async move { executor.write_stripe(&plan, chunk).await }).await.unwrap().unwrap();
    let (executor, stored) = (cluster.executor.clone(), stored(written, &data));
    let read = tokio::spawn(async move { executor.read_stripe(&target, &stored, 0..10).await }).await.unwrap().unwrap();
    assert_eq!(read[0][..], data[..10]);
}

/// Any range of any small chunk, whole shards or parts, with any shards lost that may be.
async fn any_range(code: Code, data: Vec<u8>, ranges: Vec<(usize, usize)>, lost: u64, part_read_shard_bytes: usize) {
    let options = ExecutorOptions { part_read_shard_bytes, ..patient() };
    let cluster = Cluster::new(code.n(), options);
    let target = target(code);
    let stored = cluster.store(&target, &data).await;
    for shard in (0..code.n()).filter(|shard| lost >> shard & 1 == 1).take(code.losses_survived()) {
        cluster.nodes[shard].shards.lock().clear();
    }
    for (a, b) in ranges {
        let (start, end) = (a % (data.len() + 1), b % (data.len() + 1));
        let range = start.min(end)..start.max(end);
        let read = cluster.read(&target, &stored, range.clone()).await.unwrap();
        assert_eq!(read, data[range.clone()], "{range:?} of {} bytes", data.len());
    }
    cluster.expect_no_buffers_in_use().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_range_of_any_chunk_with_any_losses(
        code in prop::sample::select(vec!["1x", "3x", "RS(2,1)", "RS(4,2)", "RS(10,4)", "RS(3,3)", "LRC(12,2,2)", "LRC(5,2,1)"]),
        len in 1usize..3000,
        ranges in prop::collection::vec(any::<(usize, usize)>(), 1..12),
        lost in any::<u64>(),
        parts in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(any_range(code.parse().unwrap(), bytes(len), ranges, lost, if parts { 0 } else { usize::MAX }));
    }
}

#[tokio::test]
async fn every_range_of_a_tiny_chunk() {
    let data = bytes(200);
    for part_read_shard_bytes in [0, usize::MAX] {
        let cluster = Cluster::new(6, ExecutorOptions { part_read_shard_bytes, ..patient() });
        let target = target(code(4, 2));
        let stored = cluster.store(&target, &data).await;
        for lost in [None, Some(1)] {
            if let Some(shard) = lost {
                cluster.nodes[shard].shards.lock().clear();
            }
            for start in 0..=data.len() {
                for end in start..=data.len() {
                    assert_eq!(cluster.read(&target, &stored, start..end).await.unwrap(), data[start..end]);
                }
            }
        }
    }
}

/// A chunk over memory that is there already: the shards are the same, whatever its length and wherever it lies, and none of
/// it is copied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_over_somebody_elses_bytes() {
    for (k, m) in [(1, 0), (2, 1), (10, 4)] {
        for len in [1, 65, 1000, (64 << 10) + 1, CHUNK_BYTES - 1, CHUNK_BYTES] {
            let cluster = Cluster::new(k + m, patient());
            make_dirty(&cluster.pool);
            let (target, data) = (target(code(k, m)), bytes(len));
            // Neither aligned nor of the pool.
            let lent = Buf::from([&[0xee; 3][..], &data].concat()).slice(3..);
            let chunk = cluster.executor.chunk_over(target.code, lent.clone()).await.unwrap();
            assert!(std::ptr::eq(chunk.bytes().as_ptr(), lent.as_ptr()));
            let written = cluster.executor.write_stripe(&target, chunk).await.unwrap();
            assert_eq!(written.chunk_crc64, crc64nvme(&data));
            for (shard, expected) in reference(target.code, &data).into_iter().enumerate() {
                assert!(cluster.shard(&target, shard) == Some(expected), "({k},{m}) of {len}, shard {shard}");
            }
        }
    }
    let cluster = Cluster::new(1, patient());
    for bad in [0, CHUNK_BYTES + 1] {
        let error = cluster.executor.chunk_over(Code::ONE_COPY, Buf::from(vec![0; bad])).await.unwrap_err();
        assert!(matches!(error, ExecutorError::BadPlan(_)), "{error}");
    }
}
