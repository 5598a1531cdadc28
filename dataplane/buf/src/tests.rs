use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::{Buf, BufError, BufMut, BufPool, PAGE_BYTES, PoolOptions};

const LONG: Duration = Duration::from_secs(3600);

fn pool(pages: usize) -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: pages * PAGE_BYTES, huge_pages: false }).unwrap()
}

fn assert_all_returned(pool: &BufPool) {
    let stats = pool.stats();
    assert_eq!((stats.in_use_bytes, stats.buffers_out, stats.waiters), (0, 0, 0));
    assert!(pool.try_acquire(pool.buffer_bytes_max()).is_some(), "the pages were merged again");
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(usize),
    Split(usize, usize),
    Rejoin(usize),
    Truncate(usize, usize),
    Freeze(usize),
    SliceFrozen(usize, usize),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..40 * PAGE_BYTES).prop_map(Step::Acquire),
        3 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Split(a, b)),
        2 => any::<usize>().prop_map(Step::Rejoin),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Truncate(a, b)),
        1 => any::<usize>().prop_map(Step::Freeze),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::SliceFrozen(a, b)),
        3 => any::<usize>().prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The model: each live piece has a byte that all of its memory must hold, whatever happens to the others.
#[derive(Default)]
struct Model {
    pieces: Vec<(u8, BufMut)>,
    frozen: Vec<(u8, Buf)>,
    next_mark: u8,
}

impl Model {
    fn mark(&mut self, mut piece: BufMut) {
        self.next_mark = self.next_mark.wrapping_add(1);
        piece.fill(self.next_mark);
        self.pieces.push((self.next_mark, piece));
    }

    fn step(&mut self, pool: &BufPool, step: &Step) {
        let pieces = self.pieces.len();
        match *step {
            Step::Acquire(len) => {
                if let Some(buffer) = pool.try_acquire(len) {
                    assert_eq!(buffer.len(), len);
                    assert_eq!(buffer.as_ptr().addr() % PAGE_BYTES, 0);
                    self.mark(buffer);
                } else {
                    let possible = len <= pool.buffer_bytes_max();
                    assert!(!possible || pool.stats().in_use_bytes > 0, "an empty pool has room");
                }
            }
            Step::Split(which, at) if pieces > 0 => {
                let (mark, mut piece) = self.pieces.swap_remove(which % pieces);
                let at = at % (piece.len() + 1);
                let tail = piece.split_off(at);
                assert!(tail.iter().all(|&b| b == mark));
                // Neighbours, so that Rejoin finds some.
                self.pieces.push((mark, piece));
                self.mark(tail);
            }
            Step::Rejoin(which) if pieces > 1 => {
                let at = which % (pieces - 1);
                let (_, second) = self.pieces.remove(at + 1);
                let (_, first) = self.pieces.remove(at);
                let (start, first_len, len) = (first.as_ptr(), first.len(), first.len() + second.len());
                let adjacent = first.as_ptr().wrapping_add(first_len) == second.as_ptr();
                match first.rejoin(second) {
                    Ok(whole) => {
                        assert!(adjacent && whole.as_ptr() == start && whole.len() == len);
                        self.mark(whole);
                    }
                    Err((first, second)) => {
                        self.mark(first);
                        self.mark(second);
                    }
                }
            }
            Step::Truncate(which, to) if pieces > 0 => {
                let piece = &mut self.pieces[which % pieces].1;
                let to = to % (piece.len() + 1);
                piece.truncate(to);
                assert_eq!(piece.len(), to);
            }
            Step::Freeze(which) if pieces > 0 => {
                let (mark, piece) = self.pieces.swap_remove(which % pieces);
                self.frozen.push((mark, piece.freeze()));
            }
            Step::SliceFrozen(which, at) if !self.frozen.is_empty() => {
                let (mark, whole) = &self.frozen[which % self.frozen.len()];
                let at = at % (whole.len() + 1);
                let bytes: Bytes = whole.slice(at..).into_bytes();
                assert_eq!(bytes.len(), whole.len() - at);
                let again = (*mark, Buf::from(bytes));
                self.frozen.push(again);
            }
            Step::Drop(which) if pieces + self.frozen.len() > 0 => {
                let which = which % (pieces + self.frozen.len());
                if which < pieces {
                    self.pieces.remove(which);
                } else {
                    self.frozen.remove(which - pieces);
                }
            }
            _ => {}
        }
        for (mark, bytes) in
            self.pieces.iter().map(|(m, p)| (m, &p[..])).chain(self.frozen.iter().map(|(m, f)| (m, &f[..])))
        {
            assert!(bytes.iter().all(|b| b == mark), "a piece of {} bytes was written to by another", bytes.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pieces_never_overlap_and_all_come_back(steps in steps(), pages in 16usize..200) {
        let pool = pool(pages);
        let mut model = Model::default();
        for step in &steps {
            model.step(&pool, step);
        }
        drop(model);
        assert_all_returned(&pool);
    }
}

#[test]
fn k_shards_land_in_one_stripe_buffer_and_are_whole_again() {
    let pool = pool(64);
    let mut rest = pool.try_acquire(10 * 6400).unwrap();
    let start = rest.as_ptr();
    let mut shards = Vec::new();
    for _ in 0..9 {
        let tail = rest.split_off(6400);
        shards.push(std::mem::replace(&mut rest, tail));
    }
    shards.push(rest);
    std::thread::scope(|scope| {
        for (index, shard) in shards.iter_mut().enumerate() {
            scope.spawn(move || shard.fill(index as u8));
        }
    });
    let mut shards = shards.into_iter();
    let first = shards.next().unwrap();
    let whole = shards.fold(first, |whole, shard| whole.rejoin(shard).unwrap());
    assert_eq!((whole.as_ptr(), whole.len()), (start, 64_000));
    let whole = whole.freeze();
    for index in 0..10 {
        assert!(whole.slice(index * 6400..(index + 1) * 6400).iter().all(|&b| b == index as u8));
    }
    assert_eq!(pool.stats().buffers_out, 1);
    let bytes = whole.slice(6400..).into_bytes();
    assert_eq!(bytes.as_ptr(), start.wrapping_add(6400), "no copy");
    drop(whole);
    assert_eq!(pool.stats().buffers_out, 1, "the last piece keeps the block");
    drop(bytes);
    assert_all_returned(&pool);
}

#[test]
fn only_neighbours_of_one_block_rejoin() {
    let pool = pool(16);
    let mut a = pool.try_acquire(PAGE_BYTES).unwrap();
    let b = pool.try_acquire(PAGE_BYTES).unwrap();
    assert_eq!(a.as_ptr().wrapping_add(PAGE_BYTES), b.as_ptr(), "neighbours in memory, but two blocks");
    let (first, b) = a.rejoin(b).unwrap_err();
    a = first;
    let tail = a.split_off(100);
    let (tail, mut head) = tail.rejoin(a).unwrap_err();
    head.truncate(99);
    let (head, tail) = head.rejoin(tail).unwrap_err();
    drop((head, tail, b));
    assert_all_returned(&pool);
}

#[test]
fn a_block_outlives_the_pool_handle() {
    let pool = pool(4);
    let mut buffer = pool.try_acquire(10).unwrap();
    drop(pool);
    buffer.fill(3);
    assert_eq!(&buffer.freeze()[..], [3; 10]);
}

#[test]
fn nonsense_sizes_are_refused() {
    for capacity_bytes in [0, PAGE_BYTES - 1, usize::MAX] {
        assert!(BufPool::new(PoolOptions { capacity_bytes, huge_pages: false }).is_err());
    }
}

#[test]
fn memory_is_taken_when_it_is_used() {
    let resident_bytes = || {
        let pages: usize =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        pages * PAGE_BYTES
    };
    let before = resident_bytes();
    let pool = pool((8 << 30) / PAGE_BYTES);
    for _ in 0..100 {
        pool.try_acquire(1 << 20).unwrap().fill(1);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "8 GiB of arena, 1 MiB of use, {grown} bytes more resident");
    assert_eq!(pool.stats().peak_bytes, 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn exhaustion_names_the_numbers_and_the_impossible_is_refused_at_once() {
    let pool = pool(4);
    let held = pool.acquire(3 * PAGE_BYTES, LONG).await.unwrap();
    let error = pool.acquire(2 * PAGE_BYTES, Duration::from_millis(250)).await.unwrap_err();
    assert!(error.is_retryable());
    let text = error.to_string();
    for number in ["8192", "250 ms", "12288", "16384"] {
        assert!(text.contains(number), "{text}");
    }
    assert!(matches!(pool.acquire(2 * PAGE_BYTES, Duration::ZERO).await, Err(BufError::Exhausted { .. })));
    let error = pool.acquire(5 * PAGE_BYTES, LONG).await.unwrap_err();
    assert_eq!(error, BufError::TooLarge { wanted_bytes: 5 * PAGE_BYTES, max_bytes: 4 * PAGE_BYTES });
    assert!(!error.is_retryable());
    drop(held);
    assert_all_returned(&pool);
}

/// Polls a set of acquisitions by hand, so that order is exact.
struct Waiting(Vec<Acquiring>);
type Acquiring = std::pin::Pin<Box<dyn Future<Output = Result<BufMut, BufError>>>>;

impl Waiting {
    async fn poll(&mut self, which: usize) -> std::task::Poll<Result<BufMut, BufError>> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(self.0[which].as_mut().poll(cx))).await
    }

    async fn start(&mut self, pool: &BufPool, pages: usize) {
        let pool = pool.clone();
        self.0.push(Box::pin(async move { pool.acquire(pages * PAGE_BYTES, LONG).await }));
        assert!(self.poll(self.0.len() - 1).await.is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_the_order_they_came() {
    let pool = pool(8);
    let mut held: Vec<_> = (0..8).map(|_| pool.try_acquire(1).unwrap()).collect();
    let mut waiting = Waiting(Vec::new());
    waiting.start(&pool, 4).await;
    waiting.start(&pool, 1).await;
    waiting.start(&pool, 1).await;
    held.truncate(6);
    assert!(waiting.poll(1).await.is_pending(), "a small one does not pass the large one before it");
    assert!(pool.try_acquire(1).is_none(), "nor does one that does not wait");
    held.truncate(3);
    let std::task::Poll::Ready(Ok(first)) = waiting.poll(0).await else { panic!("4 pages in a row are free") };
    let second = waiting.poll(1).await;
    assert!(second.is_ready());
    assert!(waiting.poll(2).await.is_pending());
    drop((first, second));
    assert!(waiting.poll(2).await.is_ready());
    drop((held, waiting));
    assert_all_returned(&pool);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaks_nothing_and_loses_no_wake_up() {
    let pool = pool(4);
    let held = pool.try_acquire(3 * PAGE_BYTES).unwrap();
    let mut waiting = Waiting(Vec::new());
    waiting.start(&pool, 4).await;
    waiting.start(&pool, 1).await;
    waiting.start(&pool, 4).await;
    waiting.start(&pool, 2).await;
    // Cancelled before its grant: who stood behind it fits at once.
    drop(waiting.0.remove(0));
    assert!(waiting.poll(0).await.is_ready());
    drop(waiting.0.remove(0));
    // Cancelled after its grant, before it looked: the buffer goes to the next.
    drop(held);
    assert_eq!(pool.stats().waiters, 1);
    assert_eq!(pool.stats().in_use_bytes, 4 * PAGE_BYTES);
    assert!(waiting.poll(1).await.is_pending());
    drop(waiting.0.remove(0));
    let std::task::Poll::Ready(Ok(last)) = waiting.poll(0).await else { panic!("the wake-up was lost") };
    drop((last, waiting));
    assert_all_returned(&pool);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_a_small_pool() {
    let pool = pool(32);
    let tasks: Vec<_> = (0..64u8)
        .map(|mark| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for round in 0..50usize {
                    let len = (mark as usize * 977 + round * 4093) % (16 * PAGE_BYTES);
                    let wait = if (round + mark as usize).is_multiple_of(7) { Duration::from_micros(50) } else { LONG };
                    if let Ok(mut buffer) = pool.acquire(len, wait).await {
                        buffer.fill(mark);
                        tokio::task::yield_now().await;
                        assert!(buffer.iter().all(|&b| b == mark));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_all_returned(&pool);
}

#[test]
fn neighbours_that_were_frozen_apart_are_one_again() {
    let pool = BufPool::new(PoolOptions { capacity_bytes: 1 << 20, huge_pages: false }).unwrap();
    let mut first = pool.try_acquire(10).unwrap();
    first.copy_from_slice(b"0123456789");
    let second = first.split_off(4);
    let (first, second) = (first.freeze(), second.freeze());
    let (second, first) = second.rejoin(first).unwrap_err();
    let whole = first.rejoin(second).unwrap();
    assert_eq!(&whole[..], b"0123456789");
    let other = pool.try_acquire(10).unwrap().freeze();
    let (whole, other) = whole.rejoin(other).unwrap_err();
    let (_, foreign) = whole.rejoin(Buf::from(vec![1u8])).unwrap_err();
    assert_eq!(&foreign[..], [1]);
    drop(other);
    assert_eq!(pool.stats().buffers_out, 0);
}

#[test]
fn who_alone_holds_a_block_may_write_to_it_again() {
    let pool = pool(8);
    let mut first = pool.try_acquire(2 * PAGE_BYTES).unwrap();
    let second = first.split_off(PAGE_BYTES);
    let address = first.as_ptr();
    let (first, second) = (first.freeze(), second.freeze());
    let first = first.try_into_mut().expect_err("the other half is out");
    let whole = first.rejoin(second).unwrap();
    let other = whole.slice(5..9);
    let whole = whole.try_into_mut().expect_err("a slice is out");
    drop(other);
    let mut whole = whole.try_into_mut().expect("alone");
    whole[0] = 7;
    assert_eq!((whole.len(), whole.as_ptr()), (2 * PAGE_BYTES, address));
    drop(whole);
    Buf::from(b"foreign".to_vec()).try_into_mut().expect_err("foreign memory");
    assert_all_returned(&pool);
}

#[test]
fn a_region_is_one_buffer_of_any_length_and_is_gone_with_its_last_piece() {
    let len = 3 * crate::BUFFER_BYTES_MAX + 5;
    let mut region = BufPool::region(len).unwrap();
    assert!(region.iter().all(|&byte| byte == 0) && region.pool().is_region());
    let pool = region.pool().clone();
    assert_eq!((pool.stats().buffers_out, pool.try_acquire(1).is_none()), (1, true), "all of it is out");
    let tail = region.split_off(crate::BUFFER_BYTES_MAX - 1);
    region.fill(1);
    let whole = region.rejoin(tail).unwrap();
    assert_eq!((whole.len(), whole[crate::BUFFER_BYTES_MAX - 2], whole[crate::BUFFER_BYTES_MAX - 1]), (len, 1, 0));
    drop(whole.freeze().slice(7..9));
    assert_eq!(pool.stats().buffers_out, 0);
    assert_eq!(pool.stats().in_use_bytes, 0);
    for bad in [0, usize::MAX] {
        assert!(BufPool::region(bad).is_err());
    }
}

#[test]
fn a_claim_has_the_bytes_back_when_no_piece_of_them_is_left() {
    let pool = pool(4);
    let mut whole = pool.try_acquire(4 * PAGE_BYTES).unwrap();
    whole.fill(7);
    let rest = whole.split_off(PAGE_BYTES);
    let (mut lent, claim) = rest.claimed();
    let late = lent.split_off(100);
    let landed = lent.freeze();
    assert!(claim.has_in_place(0, &landed) && claim.has_in_place(100, &late));
    assert!(!claim.has_in_place(1, &landed) && !claim.has_in_place(0, &[7; 100]));
    let copy = landed.slice(3..5).into_bytes();
    drop(landed);
    let claim = claim.try_take().unwrap_err();
    drop(late);
    let claim = claim.try_take().unwrap_err();
    drop(copy);
    let mut back = claim.try_take().unwrap();
    back[0] = 8;
    let whole = whole.rejoin(back).unwrap();
    assert_eq!((whole[PAGE_BYTES - 1], whole[PAGE_BYTES], whole[PAGE_BYTES + 1]), (7, 8, 7));
    drop(whole);
    assert_all_returned(&pool);
    // Claims of claims: each tells of its own.
    let (outer, first) = pool.try_acquire(PAGE_BYTES).unwrap().claimed();
    let (inner, second) = outer.claimed();
    let first = first.try_take().unwrap_err();
    drop(inner);
    drop(second.try_take().unwrap());
    drop(first.try_take().unwrap());
    // A claim that is given up gives up the bytes, in time.
    let (lent, claim) = pool.try_acquire(PAGE_BYTES).unwrap().claimed();
    drop(claim);
    assert_eq!(pool.stats().buffers_out, 1);
    drop(lent);
    assert_all_returned(&pool);
}
