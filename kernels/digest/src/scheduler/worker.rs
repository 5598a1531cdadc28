//! A thread that hashes whatever is on the board.

use super::stream::Core;
use super::{Board, COMPANY_WAIT_US_MAX, Queue, STEP_BLOCKS_MAX, Shared};
use crate::algorithm::{Message, Rules};
use crate::lanes::BLOCK_BYTES;
use crate::many::{Lane, advance};
use crate::{Md5, Sha256};
use bytes::{Buf, Bytes};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Most waits for company that are left out in a row after some in which nobody came.
pub(super) const SKIPPED_WAITS_MAX: u32 = 63;

/// Most steps that a stream keeps its lane for while others wait for one; then it queues up behind them.
pub(super) const TURN_STEPS_MAX: u32 = 64;

/// Starts one; false if the system refuses.
pub(super) fn start(shared: &Arc<Shared>, number: usize) -> bool {
    shared.board.lock().workers += 1;
    let guard = Guard { shared: shared.clone(), number };
    std::thread::Builder::new().name(format!("hash-{number}")).spawn(move || work(&guard)).is_ok()
}

/// A worker's place. Dropped when it ends, or never began.
struct Guard {
    shared: Arc<Shared>,
    number: usize,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut board = self.shared.board.lock();
        board.workers -= 1;
        board.md5.accepting[self.number] = false;
        board.sha256.accepting[self.number] = false;
        board.md5.wanted = None;
        board.sha256.wanted = None;
        if board.workers == 0 {
            self.shared.deserted.store(true, Ordering::Release);
            let (md5, sha256) = (std::mem::take(&mut board.md5.ready), std::mem::take(&mut board.sha256.ready));
            drop(board);
            md5.iter().for_each(|core| core.hash_here(&self.shared));
            sha256.iter().for_each(|core| core.hash_here(&self.shared));
        } else {
            drop(board);
            self.shared.idle.notify_one(); // who would take what this one was counted on for
        }
    }
}

/// How often company was waited for in vain.
#[derive(Default)]
pub(super) struct Patience {
    skip: u32,
    skipped: u32,
}

impl Patience {
    pub(super) fn may_wait(&mut self) -> bool {
        let may = self.skipped >= self.skip;
        self.skipped = if may { 0 } else { self.skipped + 1 };
        may
    }

    pub(super) fn learn(&mut self, someone_came: bool) {
        self.skip = if someone_came { 0 } else { (2 * self.skip + 1).min(SKIPPED_WAITS_MAX) };
    }
}

fn work(guard: &Guard) {
    let Guard { shared, number } = guard;
    let mut md5 = Set::<Md5>::new(shared);
    let mut sha256 = Set::<Sha256>::new(shared);
    let mut patience = Patience::default();
    loop {
        let mut board = shared.board.lock();
        md5.requeue(&mut board);
        sha256.requeue(&mut board);
        if md5.is_empty() && sha256.is_empty() {
            board.md5.accepting[*number] = false;
            board.sha256.accepting[*number] = false;
            while board.md5.ready.is_empty() && board.sha256.ready.is_empty() {
                if board.closing {
                    return;
                }
                shared.idle.wait(&mut board);
            }
            wait_for_company(shared, &mut board, *number, &mut patience);
        }
        let more_md5 = md5.fill(&mut board, *number);
        let more_sha256 = sha256.fill(&mut board, *number);
        drop(board);
        if more_md5 || more_sha256 {
            shared.idle.notify_one();
        }
        md5.step(shared);
        sha256.step(shared);
    }
}

/// Waits until everyone who may come is there, if there is anyone to wait for; see the module's documentation.
fn wait_for_company(shared: &Shared, board: &mut MutexGuard<'_, Board>, number: usize, patience: &mut Patience) {
    match (board.md5.ready.is_empty(), board.sha256.ready.is_empty()) {
        (false, true) => wait_for::<Md5>(shared, board, number, patience),
        (true, false) => wait_for::<Sha256>(shared, board, number, patience),
        _ => (),
    }
}

fn wait_for<A: Rules>(shared: &Shared, board: &mut MutexGuard<'_, Board>, number: usize, patience: &mut Patience) {
    let queue = A::queue(board);
    let ready = queue.ready.len();
    let plan = A::plan(shared.tier);
    let wanted = queue.open.min(plan.lanes_max());
    // Fewer than the lanes are worth are hashed one after the other, and gain nothing by waiting.
    if ready >= wanted
        || wanted < plan.lanes_min
        || queue.wanted.is_some()
        || queue.accepting.contains(&true)
        || !patience.may_wait()
    {
        return;
    }
    shared.counts.company_waits.fetch_add(1, Ordering::Relaxed);
    queue.wanted = Some(wanted);
    queue.accepting[number] = true; // nobody else need be woken
    let deadline = Instant::now() + Duration::from_micros(COMPANY_WAIT_US_MAX);
    while !board.closing && A::queue(board).ready.len() < wanted {
        if shared.company.wait_until(board, deadline).timed_out() {
            break;
        }
    }
    let queue = A::queue(board);
    queue.wanted = None;
    patience.learn(queue.ready.len() > ready);
}

/// A stream that has a lane.
struct Slot<A: Rules> {
    core: Arc<Core<A>>,
    message: Option<Message<A>>,
    /// What is left of the current chunk.
    chunk: Bytes,
    steps: u32,
}

impl<A: Rules> Drop for Slot<A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.core.lose();
        }
    }
}

impl<A: Rules> Slot<A> {
    /// Gets it to where it has a whole block to compress and begins at a boundary. False when there is nothing to do:
    /// the stream has its message back, or its owner is gone, and the lane is free.
    fn prepare(&mut self, shared: &Shared, wakers: &mut Vec<Waker>) -> bool {
        let message = self.message.get_or_insert_with(|| self.core.take());
        loop {
            if self.core.is_cancelled() {
                return false;
            }
            // To the boundary, or all of what is too short for a block.
            let mut head = message.missing_bytes().min(self.chunk.len());
            if self.chunk.len() - head < BLOCK_BYTES {
                head = self.chunk.len();
            }
            message.update(&self.chunk[..head]);
            self.chunk.advance(head);
            if !self.chunk.is_empty() {
                return true;
            }
            match self.core.next_chunk(shared, message, wakers) {
                Some(chunk) => self.chunk = chunk,
                None => return false,
            }
        }
    }
}

/// The streams in a worker's lanes.
pub(super) struct Set<A: Rules> {
    slots: Vec<Slot<A>>,
    lanes_max: usize,
    /// Others wait for lanes.
    contended: bool,
    /// Whose turn is over.
    leaving: Vec<Arc<Core<A>>>,
    /// Of owners to be woken, all at once: most of them will find an executor that is already awake.
    wakers: Vec<Waker>,
}

impl<A: Rules> Drop for Set<A> {
    /// Leaves nobody waiting if the worker panics; there is nothing left otherwise.
    fn drop(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
        self.leaving.drain(..).for_each(|core| core.lose());
    }
}

impl<A: Rules> Set<A> {
    pub(super) fn new(shared: &Shared) -> Self {
        let lanes_max = A::plan(shared.tier).lanes_max();
        Self {
            slots: Vec::with_capacity(lanes_max),
            lanes_max,
            contended: false,
            leaving: Vec::new(),
            wakers: Vec::new(),
        }
    }

    /// Whether no lane is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Puts those on the board whose turn is over.
    pub(super) fn requeue(&mut self, board: &mut Board) {
        A::queue(board).ready.extend(self.leaving.drain(..));
    }

    /// Takes streams off the board into free lanes. True if some are left, and nobody who'd take them is awake.
    pub(super) fn fill(&mut self, board: &mut Board, number: usize) -> bool {
        let Queue { ready, accepting, .. } = A::queue(board);
        let take = ready.len().min(self.lanes_max - self.slots.len());
        self.slots.extend(ready.drain(..take).map(|core| Slot { core, message: None, chunk: Bytes::new(), steps: 0 }));
        self.contended = !ready.is_empty();
        accepting[number] = self.slots.len() < self.lanes_max;
        !ready.is_empty() && !accepting.contains(&true)
    }

    /// Advances every lane, and frees those that have nothing left.
    pub(super) fn step(&mut self, shared: &Shared) {
        self.slots.retain_mut(|slot| slot.prepare(shared, &mut self.wakers));
        self.wakers.drain(..).for_each(Waker::wake);
        if self.slots.is_empty() {
            return;
        }
        let lane = |slot| {
            let Slot { message, chunk, .. }: &mut Slot<A> = slot;
            let message = message.as_mut().expect("invariant: a prepared slot has its message");
            Lane { words: &mut message.words, input: chunk }
        };
        let mut lanes: Vec<Lane<'_, A>> = self.slots.iter_mut().map(lane).collect();
        let blocks = advance(shared.tier, &mut lanes, STEP_BLOCKS_MAX);
        let counts = &shared.counts;
        match lanes.len() {
            1 => counts.steps_alone.fetch_add(1, Ordering::Relaxed),
            lanes => {
                counts.lanes_grouped.fetch_add(lanes as u64, Ordering::Relaxed);
                counts.steps_grouped.fetch_add(1, Ordering::Relaxed)
            }
        };
        self.slots.retain_mut(|slot| {
            slot.message.as_mut().expect("invariant: a prepared slot has its message").compressed(blocks);
            slot.chunk.advance(blocks * BLOCK_BYTES);
            slot.steps += 1;
            if !slot.prepare(shared, &mut self.wakers) {
                return false;
            }
            let over = self.contended && slot.steps >= TURN_STEPS_MAX;
            if over {
                let message = slot.message.as_ref().expect("invariant: a prepared slot has its message");
                slot.core.put_back(shared, message, std::mem::take(&mut slot.chunk));
                self.leaving.push(slot.core.clone());
            }
            !over
        });
        self.wakers.drain(..).for_each(Waker::wake);
    }
}
