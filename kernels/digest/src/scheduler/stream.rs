//! One message: the side of its owner ([`HashStream`]), and what is shared with the workers ([`Core`]).

use super::{CHUNKS_QUEUED_MAX, Handle, INLINE_BYTES_MAX, STREAM_BYTES_MAX, STREAM_CHUNKS_MAX, Shared};
use crate::algorithm::{LaneHash, Message, Rules};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// A message whose bytes are hashed by its scheduler's threads, in lanes with others.
///
/// Dropping it gives the message up. Dropping a future that [`HashStream::update`] returned is fine: the chunk was
/// then taken as a whole or not at all, and the stream goes on; that can't be told apart, so that callers who may
/// lose such a future give up the message, too.
pub struct HashStream<A: LaneHash> {
    pub(super) core: Arc<Core<A>>,
    handle: Arc<Handle>,
}

/// A message as a worker sees it.
#[derive(Debug)]
pub(super) struct Core<A: Rules> {
    inner: Mutex<Inner<A>>,
    cancelled: AtomicBool,
}

#[derive(Debug)]
struct Inner<A: Rules> {
    message: Message<A>,
    chunks: VecDeque<Bytes>,
    /// On the board or in a lane; while in a lane, `message` is out of date.
    busy: bool,
    /// The worker that had it is gone.
    lost: bool,
    waker: Option<Waker>,
    #[cfg(test)]
    sabotaged: bool,
}

impl<A: Rules> Inner<A> {
    /// Whether another chunk may be queued.
    fn has_room(&self, chunk_bytes: usize) -> bool {
        let queued_bytes: usize = self.chunks.iter().map(Bytes::len).sum();
        self.chunks.is_empty()
            || self.chunks.len() < STREAM_CHUNKS_MAX && queued_bytes + chunk_bytes <= STREAM_BYTES_MAX
    }
}

impl<A: Rules> Core<A> {
    /// The message, for a worker that has given it a lane.
    pub(super) fn take(&self) -> Message<A> {
        let inner = self.inner.lock();
        #[cfg(test)]
        assert!(!inner.sabotaged, "a test asked for this");
        inner.message
    }

    /// As if it had a lane already, so that chunks stay queued.
    #[cfg(test)]
    pub(super) fn pretend_busy(&self) {
        self.inner.lock().busy = true;
    }

    /// Whether it is on the board or in a lane.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.inner.lock().busy
    }

    /// Makes the worker panic that takes it.
    #[cfg(test)]
    pub(super) fn make_worker_panic(&self) {
        self.inner.lock().sabotaged = true;
    }

    /// The next chunk; or the message goes back, since there is none, and the lane is free. If nothing is queued any
    /// more, adds to `wakers` whoever waits: not sooner, so that owners bring several chunks each time they are woken,
    /// while the worker is busy with the last one.
    pub(super) fn next_chunk(&self, shared: &Shared, message: &Message<A>, wakers: &mut Vec<Waker>) -> Option<Bytes> {
        let mut inner = self.inner.lock();
        let chunk = inner.chunks.pop_front();
        if chunk.is_some() {
            shared.chunks_queued.fetch_sub(1, Ordering::Relaxed);
        } else {
            inner.message = *message;
            inner.busy = false;
        }
        if inner.chunks.is_empty() {
            wakers.extend(inner.waker.take());
        }
        chunk
    }

    /// Back from a lane with work left: it is to go on the board again.
    pub(super) fn put_back(&self, shared: &Shared, message: &Message<A>, rest: Bytes) {
        let mut inner = self.inner.lock();
        inner.message = *message;
        // Set before the owner empties the queue under this lock: either it is seen here, or the rest is seen there.
        if !self.is_cancelled() {
            shared.chunks_queued.fetch_add(1, Ordering::Relaxed);
            inner.chunks.push_front(rest);
        }
    }

    /// Whether its owner has given up.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Hashes what is queued, here and now, for want of workers. Not for a stream that has a lane.
    pub(super) fn hash_here(&self, shared: &Shared) {
        let mut inner = self.inner.lock();
        let chunks = std::mem::take(&mut inner.chunks);
        chunks.iter().for_each(|chunk| inner.message.update(chunk));
        shared.chunks_queued.fetch_sub(chunks.len(), Ordering::Relaxed);
        shared.counts.chunks_inline.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        inner.busy = false;
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Its worker is gone: its owner is to know.
    pub(super) fn lose(&self) {
        let mut inner = self.inner.lock();
        inner.lost = true;
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<A: LaneHash> HashStream<A> {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let inner = Inner {
            message: Message::new(),
            chunks: VecDeque::new(),
            busy: false,
            lost: false,
            waker: None,
            #[cfg(test)]
            sabotaged: false,
        };
        A::queue(&mut handle.shared.board.lock()).open += 1;
        Self { core: Arc::new(Core { inner: Mutex::new(inner), cancelled: AtomicBool::new(false) }), handle }
    }

    /// Takes the next bytes of the message. Resolves as soon as they are queued, which is at once unless
    /// [`STREAM_CHUNKS_MAX`] chunks or [`STREAM_BYTES_MAX`] bytes are already: then, when a worker has taken these.
    ///
    /// # Panics
    /// When the worker that had this stream has panicked.
    pub async fn update(&mut self, chunk: Bytes) {
        poll_fn(|context| self.poll_update(context, &chunk)).await;
    }

    fn poll_update(&mut self, context: &Context<'_>, chunk: &Bytes) -> Poll<()> {
        let shared = &self.handle.shared;
        let mut inner = self.core.inner.lock();
        assert!(!inner.lost, "the hash worker of this stream has panicked");
        if chunk.is_empty() {
            return Poll::Ready(());
        }
        let crowded = shared.chunks_queued.load(Ordering::Relaxed) >= CHUNKS_QUEUED_MAX;
        if !inner.busy {
            if crowded || chunk.len() <= INLINE_BYTES_MAX || shared.deserted.load(Ordering::Acquire) {
                // Nobody else wants this lock: the stream is neither on the board nor in a lane.
                inner.message.update(chunk);
                shared.counts.chunks_inline.fetch_add(1, Ordering::Relaxed);
                return Poll::Ready(());
            }
        } else if crowded || !inner.has_room(chunk.len()) {
            // Being busy, it will be woken: when nothing is queued behind it any more.
            inner.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        shared.chunks_queued.fetch_add(1, Ordering::Relaxed);
        inner.chunks.push_back(chunk.clone());
        let was_busy = std::mem::replace(&mut inner.busy, true);
        drop(inner);
        if !was_busy {
            shared.enqueue(self.core.clone());
        }
        Poll::Ready(())
    }

    /// The digest of all bytes taken.
    ///
    /// # Panics
    /// As [`HashStream::update`].
    pub async fn finish(self) -> A::Digest {
        poll_fn(|context| {
            let mut inner = self.core.inner.lock();
            assert!(!inner.lost, "the hash worker of this stream has panicked");
            if inner.busy {
                inner.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(inner.message.finish())
        })
        .await
    }
}

impl<A: LaneHash> Drop for HashStream<A> {
    fn drop(&mut self) {
        self.core.cancelled.store(true, Ordering::Relaxed);
        let shared = &self.handle.shared;
        let mut inner = self.core.inner.lock();
        let chunks = std::mem::take(&mut inner.chunks);
        let waker = inner.waker.take();
        drop(inner);
        drop(waker);
        shared.chunks_queued.fetch_sub(chunks.len(), Ordering::Relaxed);
        A::queue(&mut shared.board.lock()).open -= 1;
    }
}

impl<A: LaneHash> fmt::Debug for HashStream<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashStream").field("core", &self.core).finish_non_exhaustive()
    }
}
