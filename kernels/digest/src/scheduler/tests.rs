//! Exact digests whatever comes together; nobody waits for ever; lone streams go the short way.

use super::*;
use crate::many_tests::{random_bytes, tiers};
use crate::{Md5Hasher, Sha256Hasher};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Cuts a message into chunks of the lengths given, over and over.
fn chunks(message: &Bytes, lengths: &[usize]) -> Vec<Bytes> {
    let mut rest = message.clone();
    let mut lengths = lengths.iter().cycle();
    let mut cut = Vec::new();
    while !rest.is_empty() {
        let length = *lengths.next().expect("there are lengths");
        cut.push(rest.split_to(length.min(rest.len())));
    }
    cut
}

async fn hash<A: LaneHash>(scheduler: &HashScheduler, message: &Bytes, lengths: &[usize]) -> A::Digest {
    let mut stream = scheduler.stream::<A>();
    for chunk in chunks(message, lengths) {
        stream.update(chunk).await;
    }
    stream.finish().await
}

/// Everything is given back: no stream open, nothing queued.
fn assert_settled(scheduler: &HashScheduler) {
    let shared = &scheduler.handle.shared;
    let board = shared.board.lock();
    assert_eq!((board.md5.open, board.sha256.open), (0, 0));
    drop(board);
    assert_eq!(shared.chunks_queued.load(Ordering::Relaxed), 0);
}

#[test]
fn a_lone_stream_goes_the_short_way() {
    for tier in tiers() {
        let scheduler = HashScheduler::new(tier, 1);
        let message = Bytes::from(random_bytes(1, 300_000));
        let digest = block_on(hash::<Md5>(&scheduler, &message, &[50_000]));
        assert_eq!(digest, Md5Hasher::of(&message));
        let counts = scheduler.counts();
        assert!(counts.steps_alone >= 300_000 / 64 / STEP_BLOCKS_MAX as u64, "{counts:?}");
        assert_eq!((counts.steps_grouped, counts.company_waits, counts.chunks_inline), (0, 0, 0), "{counts:?}");

        let digest = block_on(hash::<Sha256>(&scheduler, &message.slice(..INLINE_BYTES_MAX), &[1000]));
        assert_eq!(digest, Sha256Hasher::of(&message[..INLINE_BYTES_MAX]));
        assert_eq!(scheduler.counts(), HashCounts { chunks_inline: 5, ..counts }, "small chunks need no worker");
        assert_settled(&scheduler);
    }
}

#[test]
fn streams_share_lanes() {
    for tier in tiers() {
        let scheduler = HashScheduler::new(tier, 1);
        let messages: Vec<_> = (0..40).map(|seed| Bytes::from(random_bytes(seed, 200_000))).collect();
        let mut streams: Vec<_> = messages.iter().map(|_| scheduler.md5_stream()).collect();
        let digests = block_on(async {
            for (stream, message) in streams.iter_mut().zip(&messages) {
                stream.update(message.clone()).await;
            }
            join_all(streams.into_iter().map(HashStream::finish)).await
        });
        for (digest, message) in digests.into_iter().zip(&messages) {
            assert_eq!(digest, Md5Hasher::of(message), "{tier}");
        }
        let counts = scheduler.counts();
        // Each message takes 13 steps; the worker may begin before all are queued, but not finish one by one.
        if tier != HashTier::scalar() {
            assert!(counts.lanes_grouped > 2 * counts.steps_grouped, "{tier}: {counts:?}");
        } else {
            assert_eq!(counts.steps_grouped, 0, "{counts:?}");
        }
        assert_settled(&scheduler);
    }
}

/// More streams than lanes, none of which ends before the others have had their turn.
#[test]
fn nobody_keeps_a_lane_for_ever() {
    let scheduler = HashScheduler::new(HashTier::scalar(), 1);
    let long = Bytes::from(random_bytes(1, 8 << 20));
    let short = Bytes::from(random_bytes(2, 20_000));
    let order = Mutex::new(Vec::new());
    block_on(async {
        let mut first = scheduler.md5_stream();
        first.update(long.clone()).await;
        let mut second = scheduler.md5_stream();
        second.update(short.clone()).await;
        let first = async {
            assert_eq!(first.finish().await, Md5Hasher::of(&long));
            order.lock().push("long");
        };
        let second = async {
            assert_eq!(second.finish().await, Md5Hasher::of(&short));
            order.lock().push("short");
        };
        futures::join!(first, second);
    });
    assert_eq!(order.into_inner(), ["short", "long"]);
    assert_settled(&scheduler);
}

#[test]
fn a_stream_queues_so_many_chunks_and_no_more() {
    let scheduler = HashScheduler::new(HashTier::detect(), 1);
    let mut stream = scheduler.md5_stream();
    let chunk = Bytes::from(random_bytes(1, 2 * INLINE_BYTES_MAX));
    let mut context = Context::from_waker(Waker::noop());
    stream.core.pretend_busy();
    for _ in 0..STREAM_CHUNKS_MAX {
        assert_eq!(pin!(stream.update(chunk.clone())).poll(&mut context), Poll::Ready(()));
    }
    assert_eq!(pin!(stream.update(chunk.clone())).poll(&mut context), Poll::Pending);
    let shared = &scheduler.handle.shared;
    assert_eq!(shared.chunks_queued.load(Ordering::Relaxed), STREAM_CHUNKS_MAX);
    // Now a worker may have it; the chunk whose future was dropped was not taken.
    shared.enqueue(stream.core.clone());
    let digest = block_on(async {
        stream.update(chunk.clone()).await;
        stream.finish().await
    });
    assert_eq!(digest, Md5Hasher::of(&chunk.repeat(STREAM_CHUNKS_MAX + 1)));
    assert_settled(&scheduler);
}

#[test]
fn callers_hash_when_too_much_is_queued_and_when_no_worker_lives() {
    let scheduler = HashScheduler::new(HashTier::detect(), 1);
    let message = Bytes::from(random_bytes(1, 100_000));
    let shared = &scheduler.handle.shared;
    shared.chunks_queued.fetch_add(CHUNKS_QUEUED_MAX, Ordering::Relaxed);
    assert_eq!(block_on(hash::<Md5>(&scheduler, &message, &[50_000])), Md5Hasher::of(&message));
    shared.chunks_queued.fetch_sub(CHUNKS_QUEUED_MAX, Ordering::Relaxed);
    shared.deserted.store(true, Ordering::Relaxed);
    assert_eq!(block_on(hash::<Md5>(&scheduler, &message, &[50_000])), Md5Hasher::of(&message));
    assert_eq!(scheduler.counts(), HashCounts { chunks_inline: 4, ..HashCounts::default() });
}

#[test]
#[should_panic(expected = "the hash worker of this stream has panicked")]
fn a_lost_stream_says_so() {
    let scheduler = HashScheduler::new(HashTier::detect(), 1);
    let stream = scheduler.md5_stream();
    stream.core.pretend_busy();
    stream.core.lose();
    block_on(stream.finish());
}

/// The worker panics over one stream: that one's owner panics, and later streams are hashed by their callers.
#[test]
fn a_worker_that_panics_leaves_nobody_waiting() {
    let scheduler = HashScheduler::new(HashTier::detect(), 1);
    let mut stream = scheduler.md5_stream();
    stream.core.make_worker_panic();
    let owner = std::thread::spawn(move || {
        block_on(async {
            stream.update(Bytes::from(vec![0; 100_000])).await;
            stream.finish().await
        })
    });
    assert!(owner.join().is_err());
    let message = Bytes::from(random_bytes(1, 100_000));
    assert_eq!(block_on(hash::<Sha256>(&scheduler, &message, &[50_000])), Sha256Hasher::of(&message));
}

#[test]
fn streams_outlive_their_scheduler() {
    let scheduler = HashScheduler::new(HashTier::detect(), 2);
    let mut stream = scheduler.clone().sha256_stream();
    drop(scheduler);
    let message = Bytes::from(random_bytes(1, 500_000));
    let digest = block_on(async {
        for chunk in chunks(&message, &[100_000]) {
            stream.update(chunk).await;
        }
        stream.finish().await
    });
    assert_eq!(digest, Sha256Hasher::of(&message));
}

/// What one stream of the property test does.
#[derive(Clone, Debug)]
struct Plot {
    sha256: bool,
    length: usize,
    lengths: Vec<usize>,
    /// Dropped after so many chunks.
    dropped_after: Option<usize>,
}

fn plot() -> impl Strategy<Value = Plot> {
    let lengths = prop::collection::vec(prop_oneof![1usize..200, 1usize..20_000, Just(64), Just(8192)], 1..5);
    (any::<bool>(), 0usize..120_000, lengths, prop::option::weighted(0.3, 0usize..6))
        .prop_map(|(sha256, length, lengths, dropped_after)| Plot { sha256, length, lengths, dropped_after })
}

async fn play<A: LaneHash>(scheduler: &HashScheduler, message: &Bytes, plot: &Plot) -> Option<A::Digest> {
    let Some(dropped_after) = plot.dropped_after else {
        return Some(hash::<A>(scheduler, message, &plot.lengths).await);
    };
    let mut stream = scheduler.stream::<A>();
    for chunk in chunks(message, &plot.lengths).into_iter().take(dropped_after) {
        stream.update(chunk).await;
    }
    // A finish that is asked for and then dropped, with the stream.
    let _ = futures::poll!(pin!(stream.finish()));
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_streams_together(plots in prop::collection::vec(plot(), 1..50), workers in 1usize..4, threads in 1usize..4, seed: u64) {
        for tier in HashTier::present() {
            let scheduler = HashScheduler::new(tier, workers);
            std::thread::scope(|scope| {
                for part in plots.chunks(plots.len().div_ceil(threads)) {
                    let scheduler = &scheduler;
                    scope.spawn(move || {
                        block_on(join_all(part.iter().enumerate().map(|(i, plot)| async move {
                            let message = Bytes::from(random_bytes(seed ^ i as u64, plot.length));
                            if plot.sha256 {
                                let digest = play::<Sha256>(scheduler, &message, plot).await;
                                assert_eq!(digest, plot.dropped_after.is_none().then(|| Sha256Hasher::of(&message)));
                            } else {
                                let digest = play::<Md5>(scheduler, &message, plot).await;
                                assert_eq!(digest, plot.dropped_after.is_none().then(|| Md5Hasher::of(&message)));
                            }
                        })))
                    });
                }
            });
            assert_settled(&scheduler);
        }
    }
}
