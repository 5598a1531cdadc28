//! Hashes streams of many requests at once: a few threads fill the lanes of the multi-buffer kernels with whatever
//! chunks are in flight.
//!
//! **How.** A stream's chunks are queued behind the stream, and a stream that has any is put on the board. A worker
//! takes streams off the board into its lanes, advances all lanes by at most [`STEP_BLOCKS_MAX`] blocks, lets the
//! streams go whose chunks are used up, and looks at the board again: a stream joins within one step, and one that
//! sends its next chunk in time never leaves its lane. Streams gather on one worker until its lanes are full, since
//! that costs the least CPU time; only then is the next one woken.
//!
//! **Alone.** A stream that is the only one open is hashed at once, on its own (no lanes, no waiting). A worker that
//! wakes up while others are open waits for them, for [`COMPANY_WAIT_US_MAX`] at most; it gives that up, more and more
//! often, while nobody comes. Chunks of up to [`INLINE_BYTES_MAX`] are hashed by whoever brings them when nothing of
//! their stream is queued: handing them over would take longer.
//!
//! **Bounds.** [`WORKERS_MAX`] threads, [`STREAM_CHUNKS_MAX`] chunks and [`STREAM_BYTES_MAX`] bytes queued per stream,
//! [`CHUNKS_QUEUED_MAX`] in all;
//! beyond the latter, callers hash their chunks themselves, which is both progress and back pressure.
//!
//! **How it fails.** Hashing can't. Where no thread can be started, callers hash. A worker that panics is a bug: the
//! streams that it held panic in their next call, instead of waiting for ever; all others go on.
//!
//! No executor is assumed: futures are woken through their own wakers.

mod stream;
#[cfg(test)]
mod tests;
mod worker;

use crate::algorithm::{LaneHash, Rules};
use crate::{HashTier, HashTierError, Md5, Sha256};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use stream::Core;
pub use stream::HashStream;

/// Longest that a stream waits for others to share lanes with, in microseconds.
pub const COMPANY_WAIT_US_MAX: u64 = 200;
/// Most that one step takes from each lane, in blocks of 64 bytes: 16 KiB, some 40 microseconds.
pub const STEP_BLOCKS_MAX: usize = 256;
/// Most chunks queued behind one stream; one more is with a worker.
pub const STREAM_CHUNKS_MAX: usize = 8;
/// Most bytes queued behind one stream, unless they are of one chunk.
pub const STREAM_BYTES_MAX: usize = 1 << 20;
/// Most chunks queued in all.
pub const CHUNKS_QUEUED_MAX: usize = 4096;
/// Longest chunk that its bringer hashes when nothing of its stream is queued, in bytes: some 5 microseconds of MD5.
pub const INLINE_BYTES_MAX: usize = 4096;
/// Most threads.
pub const WORKERS_MAX: usize = 16;

/// Hashes many streams at once. Clones share threads and lanes; these end with the last clone and the last stream.
///
/// ```
/// use bytes::Bytes;
/// use penstock_digest::{HashScheduler, HashTier, Md5Hasher};
/// let scheduler = HashScheduler::new(HashTier::detect(), HashScheduler::workers_default());
/// let mut stream = scheduler.md5_stream();
/// let digest = futures::executor::block_on(async {
///     stream.update(Bytes::from_static(b"message ")).await;
///     stream.update(Bytes::from_static(b"digest")).await;
///     stream.finish().await
/// });
/// assert_eq!(digest, Md5Hasher::of(b"message digest"));
/// ```
#[derive(Clone)]
pub struct HashScheduler {
    handle: Arc<Handle>,
}

/// A stream of MD5.
pub type Md5Stream = HashStream<Md5>;
/// A stream of SHA-256.
pub type Sha256Stream = HashStream<Sha256>;

/// Tells the workers to end when nobody can bring them anything any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.board.lock().closing = true;
        self.shared.idle.notify_all();
        self.shared.company.notify_all();
    }
}

/// What workers and streams share. A stream's own lock is never taken with the board's held, nor the other way round.
struct Shared {
    tier: HashTier,
    board: Mutex<Board>,
    /// Workers without anything to do.
    idle: Condvar,
    /// Workers that wait for company.
    company: Condvar,
    chunks_queued: AtomicUsize,
    /// No worker lives: callers hash.
    deserted: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    chunks_inline: AtomicU64,
    steps_alone: AtomicU64,
    steps_grouped: AtomicU64,
    lanes_grouped: AtomicU64,
    company_waits: AtomicU64,
}

/// How often which way was taken, since the scheduler was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashCounts {
    /// Chunks that their bringers hashed.
    pub chunks_inline: u64,
    /// Steps of a worker with one stream in its lanes.
    pub steps_alone: u64,
    /// Steps with more.
    pub steps_grouped: u64,
    /// Streams in these steps, summed up.
    pub lanes_grouped: u64,
    /// Times that a worker waited for company.
    pub company_waits: u64,
}

/// What is to be done, and by whom.
#[derive(Debug, Default)]
pub struct Board {
    pub(crate) md5: Queue<Md5>,
    pub(crate) sha256: Queue<Sha256>,
    workers: usize,
    closing: bool,
}

/// One hash's part of the board.
#[derive(Debug)]
pub struct Queue<A: Rules> {
    /// Streams that have chunks and no lane.
    ready: VecDeque<Arc<Core<A>>>,
    /// Streams that exist.
    open: usize,
    /// Which workers will take another stream at the end of their step.
    accepting: [bool; WORKERS_MAX],
    /// A worker waits for this many to be ready.
    wanted: Option<usize>,
}

impl<A: Rules> Default for Queue<A> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), open: 0, accepting: [false; WORKERS_MAX], wanted: None }
    }
}

impl Shared {
    /// Puts a stream on the board and makes sure that someone will look.
    fn enqueue<A: Rules>(&self, core: Arc<Core<A>>) {
        let mut board = self.board.lock();
        if board.workers == 0 {
            drop(board);
            return core.hash_here(self);
        }
        let queue = A::queue(&mut board);
        queue.ready.push_back(core);
        let wanted = queue.wanted.is_some_and(|wanted| queue.ready.len() >= wanted);
        let wake = !queue.accepting.contains(&true);
        drop(board);
        if wanted {
            self.company.notify_all();
        } else if wake {
            self.idle.notify_one();
        }
    }
}

impl HashScheduler {
    /// A scheduler with `workers` threads, at least 1 and at most [`WORKERS_MAX`]. Fewer run where the system refuses
    /// to start one; without any, callers hash their own chunks.
    #[must_use]
    pub fn new(tier: HashTier, workers: usize) -> Self {
        let shared = Arc::new(Shared {
            tier,
            board: Mutex::default(),
            idle: Condvar::new(),
            company: Condvar::new(),
            chunks_queued: AtomicUsize::new(0),
            deserted: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let started = (0..workers.clamp(1, WORKERS_MAX)).filter(|&number| worker::start(&shared, number)).count();
        shared.deserted.store(started == 0, Ordering::Release);
        Self { handle: Arc::new(Handle { shared }) }
    }

    /// A scheduler on [`HashTier::from_env`] with [`HashScheduler::workers_default`] threads.
    ///
    /// # Errors
    /// As [`HashTier::from_env`].
    pub fn from_env() -> Result<Self, HashTierError> {
        HashTier::from_env().map(|tier| Self::new(tier, Self::workers_default()))
    }

    /// One for two cores, at least one: a full set of lanes on one core hashes more than most networks bring.
    #[must_use]
    pub fn workers_default() -> usize {
        (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, WORKERS_MAX)
    }

    /// A new message for MD5.
    #[must_use]
    pub fn md5_stream(&self) -> Md5Stream {
        self.stream()
    }

    /// A new message for SHA-256.
    #[must_use]
    pub fn sha256_stream(&self) -> Sha256Stream {
        self.stream()
    }

    /// A new message for either.
    #[must_use]
    pub fn stream<A: LaneHash>(&self) -> HashStream<A> {
        HashStream::new(self.handle.clone())
    }

    /// The tier that its lanes run on.
    #[must_use]
    pub fn tier(&self) -> HashTier {
        self.handle.shared.tier
    }

    /// Which ways were taken so far.
    #[must_use]
    pub fn counts(&self) -> HashCounts {
        let counts = &self.handle.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HashCounts {
            chunks_inline: read(&counts.chunks_inline),
            steps_alone: read(&counts.steps_alone),
            steps_grouped: read(&counts.steps_grouped),
            lanes_grouped: read(&counts.lanes_grouped),
            company_waits: read(&counts.company_waits),
        }
    }
}

impl fmt::Debug for HashScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashScheduler").field("tier", &self.tier()).field("counts", &self.counts()).finish()
    }
}
