//! The pool: one lock over the allocator and the queue of waiters. Grants are decided under the lock, in the order of
//! arrival, and delivered after it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::arena::Arena;
use crate::buddy::Buddy;
use crate::piece::BufMut;
use crate::{BUFFER_BYTES_MAX, PAGE_BYTES};

/// Most tasks that wait for a buffer at a time; past it, [`BufPool::acquire`] answers at once.
pub const WAITERS_MAX: usize = 4096;
/// Largest arena: page numbers are 32 bits.
const PAGES_MAX: usize = u32::MAX as usize / 2;

/// How big, and how mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Bytes of the arena, rounded down to whole pages. Address space only: memory is taken when it is used.
    pub capacity_bytes: usize,
    /// Whether to ask for transparent huge pages: fewer TLB misses, memory taken in steps of 2 MiB.
    pub huge_pages: bool,
}

/// How the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes of the arena.
    pub capacity_bytes: usize,
    /// Bytes of blocks that are out, whole pages.
    pub in_use_bytes: usize,
    /// The most that `in_use_bytes` has been.
    pub peak_bytes: usize,
    /// Blocks that are out (a split buffer is one block).
    pub buffers_out: usize,
    /// Tasks that wait for a buffer.
    pub waiters: usize,
}

/// Why there is no buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BufError {
    /// Not within the time, or too many wait already.
    #[error(
        "no buffer of {wanted_bytes} bytes came free within {} ms: {in_use_bytes} of {capacity_bytes} bytes are in use \
         and {waiters} others wait (at most {WAITERS_MAX}); lower the load or enlarge the buffer pool", waited.as_millis()
    )]
    Exhausted {
        /// Bytes asked for.
        wanted_bytes: usize,
        /// Bytes in use at the time.
        in_use_bytes: usize,
        /// Bytes of the arena.
        capacity_bytes: usize,
        /// Others that wait.
        waiters: usize,
        /// How long this one waited.
        waited: Duration,
    },
    /// Never.
    #[error("a buffer of {wanted_bytes} bytes is past the largest this pool has, {max_bytes} bytes")]
    TooLarge {
        /// Bytes asked for.
        wanted_bytes: usize,
        /// The most that can be asked for.
        max_bytes: usize,
    },
}

impl BufError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Exhausted { .. })
    }
}

/// The pool. Clones share it.
#[derive(Clone)]
pub struct BufPool(Arc<Inner>);

struct Inner {
    arena: Arena,
    state: Mutex<State>,
    pages: u32,
    /// Whether the arena is one buffer.
    is_region: bool,
}

struct State {
    buddy: Buddy,
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
    blocks_out: usize,
    pages_peak: u32,
}

struct Waiter {
    ticket: u64,
    len: usize,
    /// The grant goes through here. A value that nobody receives is dropped, and so goes back to the pool.
    grant: oneshot::Sender<BufMut>,
}

impl BufPool {
    /// Maps the arena.
    ///
    /// # Errors
    /// `InvalidInput` for less than one page or more than fits; else what `mmap` says.
    pub fn new(options: PoolOptions) -> io::Result<Self> {
        let pages = page_count("a buffer pool", options.capacity_bytes / PAGE_BYTES, options.capacity_bytes)?;
        let arena = Arena::map(pages as usize * PAGE_BYTES, options.huge_pages)?;
        let state =
            State { buddy: Buddy::new(pages), waiters: VecDeque::new(), next_ticket: 0, blocks_out: 0, pages_peak: 0 };
        Ok(Self(Arc::new(Inner { arena, state: Mutex::new(state), pages, is_region: false })))
    }

    /// One buffer of `len` bytes, as long as need be, with an arena of its own: a pool of which all is out. For whoever
    /// wants a whole object in one piece, where devices may reach it. Make it once and use it again: mapping it, and
    /// registering it with a device, cost more than filling it. Zeros at first; unmapped when its last piece is dropped.
    ///
    /// # Errors
    /// `InvalidInput` for no bytes, or more than fit; else what `mmap` says.
    pub fn region(len: usize) -> io::Result<BufMut> {
        let pages = page_count("a region", len.div_ceil(PAGE_BYTES), len)?;
        let arena = Arena::map(pages as usize * PAGE_BYTES, true)?;
        let state =
            State { buddy: Buddy::new(0), waiters: VecDeque::new(), next_ticket: 0, blocks_out: 1, pages_peak: pages };
        let pool = Self(Arc::new(Inner { arena, state: Mutex::new(state), pages, is_region: true }));
        Ok(BufMut::whole(Block { pool, start: 0, pages, whole: None }, len))
    }

    /// Whether it is one buffer's: see [`BufPool::region`]. Devices then register it as a whole.
    pub fn is_region(&self) -> bool {
        self.0.is_region
    }

    /// A buffer of `len` bytes, 4 KiB aligned, if there is one now and nobody waits. Contents are unspecified.
    pub fn try_acquire(&self, len: usize) -> Option<BufMut> {
        let mut state = self.0.state.lock();
        if !state.waiters.is_empty() {
            return None;
        }
        let block = self.take(&mut state, len)?;
        drop(state);
        Some(BufMut::whole(block, len))
    }

    /// A buffer of `len` bytes, after everyone who came before; `wait` at most. Dropping the future gives up the place
    /// in the queue, and whatever was granted meanwhile.
    ///
    /// # Errors
    /// [`BufError::TooLarge`] at once; [`BufError::Exhausted`] after `wait`, or at once with [`WAITERS_MAX`] waiters.
    pub async fn acquire(&self, len: usize, wait: Duration) -> Result<BufMut, BufError> {
        let max_bytes = self.buffer_bytes_max();
        if len > max_bytes {
            return Err(BufError::TooLarge { wanted_bytes: len, max_bytes });
        }
        let (place, grant) = {
            let mut state = self.0.state.lock();
            if state.waiters.is_empty()
                && let Some(block) = self.take(&mut state, len)
            {
                drop(state);
                return Ok(BufMut::whole(block, len));
            }
            if wait.is_zero() || state.waiters.len() >= WAITERS_MAX {
                return Err(self.exhausted(&state, len, Duration::ZERO));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let (grant, granted) = oneshot::channel();
            state.waiters.push_back(Waiter { ticket, len, grant });
            (Place { pool: self, ticket }, granted)
        };
        let outcome = tokio::time::timeout(wait, grant).await;
        drop(place);
        match outcome {
            Ok(Ok(buffer)) => Ok(buffer),
            // The sender lives in the queue until it grants or until `place` takes it out.
            Ok(Err(_)) | Err(_) => Err(self.exhausted(&self.0.state.lock(), len, wait)),
        }
    }

    /// The largest buffer that this pool can ever give.
    pub fn buffer_bytes_max(&self) -> usize {
        (Buddy::run_pages_max(self.0.pages) as usize * PAGE_BYTES).min(BUFFER_BYTES_MAX)
    }

    /// How it is now.
    pub fn stats(&self) -> PoolStats {
        let state = self.0.state.lock();
        PoolStats {
            capacity_bytes: self.0.arena.len(),
            in_use_bytes: self.in_use_bytes(&state),
            peak_bytes: state.pages_peak as usize * PAGE_BYTES,
            buffers_out: state.blocks_out,
            waiters: state.waiters.len(),
        }
    }

    /// The arena's address and length, to be registered with a device. Every buffer of the pool lies in it.
    pub fn arena(&self) -> (*const u8, usize) {
        (self.0.arena.at(0, 0).as_ptr().cast_const(), self.0.arena.len())
    }

    /// A handle that does not keep the arena: to know a pool again, and to see that it is gone.
    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    fn in_use_bytes(&self, state: &State) -> usize {
        (self.0.pages - state.buddy.free_pages()) as usize * PAGE_BYTES
    }

    fn exhausted(&self, state: &State, wanted_bytes: usize, waited: Duration) -> BufError {
        BufError::Exhausted {
            wanted_bytes,
            in_use_bytes: self.in_use_bytes(state),
            capacity_bytes: self.0.arena.len(),
            waiters: state.waiters.len(),
            waited,
        }
    }

    /// Takes a block for `len` bytes. The answer must not be dropped under the lock.
    fn take(&self, state: &mut State, len: usize) -> Option<Block> {
        // An empty buffer has a page too, so that pieces of it have an address.
        let pages = u32::try_from(len.div_ceil(PAGE_BYTES).max(1)).ok()?;
        let start = state.buddy.take(pages)?;
        state.blocks_out += 1;
        state.pages_peak = state.pages_peak.max(self.0.pages - state.buddy.free_pages());
        Some(Block { pool: self.clone(), start, pages, whole: None })
    }

    /// Grants to waiters, first come first served, while there is room for the first, and unlocks.
    fn serve(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let mut grants = Vec::new();
        while let Some(len) = state.waiters.front().map(|first| first.len) {
            let Some(block) = self.take(&mut state, len) else { break };
            let waiter = state.waiters.pop_front().expect("invariant: the queue was seen to have a first");
            grants.push((waiter, block));
        }
        drop(state);
        for (waiter, block) in grants {
            // A receiver that has gone: the buffer comes back in the error, is dropped, and serves the next.
            drop(waiter.grant.send(BufMut::whole(block, waiter.len)));
        }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// See [`BufPool::downgrade`].
pub struct WeakPool(Weak<Inner>);

impl WeakPool {
    /// Whether it is `pool`. Never again true for another pool at the same address.
    pub fn is(&self, pool: &BufPool) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&pool.0))
    }

    /// Whether the pool, or a buffer of it, is still there.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    pool: &'a BufPool,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.0.state.lock();
        // Tickets rise along the queue.
        if let Ok(at) = state.waiters.binary_search_by_key(&self.ticket, |w| w.ticket) {
            let gone = state.waiters.remove(at);
            // Whoever was behind a large request may fit now.
            self.pool.serve(state);
            drop(gone);
        }
    }
}

/// `pages` as the arena counts them.
fn page_count(what: &str, pages: usize, bytes: usize) -> io::Result<u32> {
    u32::try_from(pages).ok().filter(|&pages| pages > 0 && pages as usize <= PAGES_MAX).ok_or_else(|| {
        let max = PAGES_MAX * PAGE_BYTES;
        let least = if what == "a region" { 1 } else { PAGE_BYTES };
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{what} of {bytes} bytes: {least} bytes at least, {max} at most"),
        )
    })
}

/// Pages that are out. Goes back when dropped.
pub(crate) struct Block {
    pool: BufPool,
    start: u32,
    pages: u32,
    /// The block that this is a part of. A part gives nothing back: its bytes are the whole's again.
    whole: Option<Arc<Block>>,
}

impl Block {
    /// Whose it is.
    pub(crate) fn pool(&self) -> &BufPool {
        &self.pool
    }

    /// A part of it, to tell when all that reaches that part is gone.
    pub(crate) fn part(self: &Arc<Self>) -> Self {
        Self { pool: self.pool.clone(), start: self.start, pages: 0, whole: Some(Arc::clone(self)) }
    }

    /// Where its first `len` bytes are.
    pub(crate) fn address(&self, len: usize) -> NonNull<u8> {
        assert!(len <= self.pages as usize * PAGE_BYTES, "invariant: a buffer is within its block");
        self.pool.0.arena.at(self.start as usize * PAGE_BYTES, len)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.whole.is_some() {
            return;
        }
        let mut state = self.pool.0.state.lock();
        state.buddy.free(self.start, self.pages);
        state.blocks_out -= 1;
        self.pool.serve(state);
    }
}
