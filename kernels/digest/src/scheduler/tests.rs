//! Exact digests whatever comes together; nobody waits for ever; lone streams go the short way.

use super::worker::{Patience, SKIPPED_WAITS_MAX, Set, TURN_STEPS_MAX};
use super::*;
use crate::algorithm::Rules;
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

/// A stream with a chunk queued that is on no board yet.
fn queued(scheduler: &HashScheduler, message: &Bytes) -> Md5Stream {
    let mut stream = scheduler.md5_stream();
    stream.core.pretend_busy();
    block_on(stream.update(message.clone()));
    stream
}

#[test]
fn streams_share_lanes() {
    for tier in tiers() {
        let scheduler = HashScheduler::new(tier, 1);
        let messages: Vec<_> = (0..40).map(|seed| Bytes::from(random_bytes(seed, 200_000))).collect();
        let streams: Vec<_> = messages.iter().map(|message| queued(&scheduler, message)).collect();
        // All at once, so that no worker can take one before the others are there.
        let shared = &scheduler.handle.shared;
        shared.board.lock().md5.ready.extend(streams.iter().map(|stream| stream.core.clone()));
        shared.idle.notify_one();
        let digests = block_on(join_all(streams.into_iter().map(HashStream::finish)));
        for (digest, message) in digests.into_iter().zip(&messages) {
            assert_eq!(digest, Md5Hasher::of(message), "{tier}");
        }
        let counts = scheduler.counts();
        // 200,000 bytes take 13 steps, wherever they run; sets are filled as long as there is something to fill with.
        let (sets, last) = (40 / Md5::plan(tier).lanes_max() as u64, 40 % Md5::plan(tier).lanes_max() as u64);
        let expected = match (tier == HashTier::scalar(), last) {
            (true, _) => (40 * 13, 0, 0),
            (false, 0) => (0, sets * 13, 40 * 13),
            (false, _) => (0, (sets + 1) * 13, 40 * 13),
        };
        assert_eq!((counts.steps_alone, counts.steps_grouped, counts.lanes_grouped), expected, "{tier}");
        assert_settled(&scheduler);
    }
}

#[test]
fn waits_for_company_that_may_come_and_goes_on_without() {
    for tier in tiers() {
        let scheduler = HashScheduler::new(tier, 1);
        let plan = Md5::plan(tier);
        // As few as gain nothing by waiting, then one more.
        for (silent, waits) in
            [(plan.lanes_min.min(5) - 2, 0), (plan.lanes_min.min(5) - 1, u64::from(plan.lanes_max() > 1))]
        {
            let silent: Vec<_> = (0..silent).map(|_| scheduler.md5_stream()).collect();
            let message = Bytes::from(random_bytes(1, 100_000));
            assert_eq!(block_on(hash::<Md5>(&scheduler, &message, &[100_000])), Md5Hasher::of(&message));
            let counts = scheduler.counts();
            assert_eq!(
                (counts.company_waits, counts.steps_grouped),
                (waits, 0),
                "{tier}, {}: {counts:?}",
                silent.len()
            );
            assert_eq!(block_on(hash::<Sha256>(&scheduler, &message, &[100_000])), Sha256Hasher::of(&message));
            assert_eq!(scheduler.counts().company_waits, waits, "nobody else could come");
        }
    }
}

#[test]
fn patience_ends_and_comes_back() {
    let mut patience = Patience::default();
    for skipped in [0, 1, 3, 7, 15, 31, SKIPPED_WAITS_MAX, SKIPPED_WAITS_MAX] {
        assert_eq!((0..=SKIPPED_WAITS_MAX).position(|_| patience.may_wait()), Some(skipped as usize));
        patience.learn(false);
    }
    patience.learn(true);
    assert!(patience.may_wait());
}

/// More streams than lanes: whose turn is over queues up behind the others. By hand, on a board of our own.
#[test]
fn nobody_keeps_a_lane_for_ever() {
    let scheduler = HashScheduler::new(HashTier::scalar(), 1);
    let shared = &scheduler.handle.shared;
    let long = Bytes::from(random_bytes(1, 2 * TURN_STEPS_MAX as usize * STEP_BLOCKS_MAX * 64));
    let short = Bytes::from(random_bytes(2, 20_000));
    let streams = [&long, &short].map(|message| queued(&scheduler, message));
    let mut board = Board::default();
    board.md5.ready.extend(streams.iter().map(|stream| stream.core.clone()));
    let mut set = Set::<Md5>::new(shared);
    let mut steps = 0;
    let mut finished = Vec::new();
    while finished.len() < streams.len() {
        set.requeue(&mut board);
        set.fill(&mut board, 0);
        set.step(shared);
        steps += 1;
        for (name, stream) in ["long", "short"].into_iter().zip(&streams) {
            if !stream.core.is_busy() && !finished.contains(&name) {
                finished.push(name);
            }
        }
    }
    assert_eq!(finished, ["short", "long"]);
    assert_eq!(steps, 2 * TURN_STEPS_MAX + 2);
    for (stream, message) in streams.into_iter().zip([long, short]) {
        assert_eq!(block_on(stream.finish()), Md5Hasher::of(&message));
    }
    assert_settled(&scheduler);
}

#[test]
fn a_dropped_stream_leaves_its_lane_after_the_step_and_nothing_behind() {
    for tier in tiers() {
        let scheduler = HashScheduler::new(tier, 1);
        let shared = &scheduler.handle.shared;
        let long = Bytes::from(random_bytes(1, 10 * STEP_BLOCKS_MAX * 64));
        let stream = queued(&scheduler, &long);
        let core = stream.core.clone();
        let mut board = Board::default();
        board.md5.ready.push_back(core.clone());
        let mut set = Set::<Md5>::new(shared);
        set.fill(&mut board, 0);
        set.step(shared);
        assert!(!set.is_empty(), "{tier}: nine steps are left");
        drop(stream);
        set.step(shared);
        assert!(set.is_empty(), "{tier}");
        // The same for one whose turn was over when it was dropped.
        core.put_back(shared, &core.take(), long);
        assert_settled(&scheduler);
    }
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
