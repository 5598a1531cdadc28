//! Who has which pages: a buddy allocator in powers of two, which gives back the unused tail of each block at once.
//!
//! Pure: it knows page numbers, not memory. A request is rounded up to a power of two to find room, then the pages past
//! what was asked for are freed again, so that a chunk of 4 MiB and one page takes 1025 pages and not 2048.

use std::collections::BTreeSet;

/// Largest block: 2^11 pages, 8 MiB.
pub(crate) const ORDER_MAX: usize = 11;

/// Free pages, by block size.
pub(crate) struct Buddy {
    /// Start pages of free blocks of 2^order pages. Ordered, because low addresses are handed out first: that keeps the
    /// touched part of the arena as small as the most that was in use.
    free: [BTreeSet<u32>; ORDER_MAX + 1],
    free_pages: u32,
}

impl Buddy {
    /// All of `pages` free.
    pub(crate) fn new(pages: u32) -> Self {
        let mut buddy = Self { free: Default::default(), free_pages: 0 };
        buddy.free(0, pages);
        buddy
    }

    /// Most pages that one allocation can have in an empty arena of `pages`.
    pub(crate) fn run_pages_max(pages: u32) -> u32 {
        if pages == 0 { 0 } else { 1 << pages.ilog2().min(ORDER_MAX as u32) }
    }

    /// The first page of `pages` free consecutive ones, now taken.
    pub(crate) fn take(&mut self, pages: u32) -> Option<u32> {
        let order = order_of(pages)?;
        let found = (order..=ORDER_MAX).find(|&o| !self.free[o].is_empty())?;
        let start = self.free[found].pop_first().expect("invariant: the list was seen to have a block");
        self.free_pages -= 1 << found;
        self.free(start + pages, (1 << found) - pages);
        Some(start)
    }

    /// Gives back `pages` pages from `start`. Whole blocks, or any part of one.
    pub(crate) fn free(&mut self, mut start: u32, mut pages: u32) {
        self.free_pages += pages;
        while pages > 0 {
            let aligned = if start == 0 { ORDER_MAX as u32 } else { start.trailing_zeros() };
            let order = aligned.min(pages.ilog2()).min(ORDER_MAX as u32);
            self.free_block(start, order as usize);
            start += 1 << order;
            pages -= 1 << order;
        }
    }

    fn free_block(&mut self, mut start: u32, mut order: usize) {
        while order < ORDER_MAX && self.free[order].remove(&(start ^ (1 << order))) {
            start &= !(1 << order);
            order += 1;
        }
        let fresh = self.free[order].insert(start);
        assert!(fresh, "invariant: a block is freed once");
    }

    /// Pages that nobody has.
    pub(crate) fn free_pages(&self) -> u32 {
        self.free_pages
    }
}

/// The order of the smallest block that holds `pages`.
fn order_of(pages: u32) -> Option<usize> {
    let order = pages.checked_next_power_of_two()?.ilog2() as usize;
    (pages > 0 && order <= ORDER_MAX).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_given_back_at_once() {
        let mut buddy = Buddy::new(2048);
        assert_eq!(buddy.take(1025), Some(0));
        assert_eq!(buddy.free_pages(), 1023);
        assert_eq!(buddy.take(1), Some(1025));
        assert_eq!(buddy.take(512), Some(1536));
        assert_eq!(buddy.take(1024), None);
        buddy.free(0, 1025);
        buddy.free(1536, 512);
        buddy.free(1025, 1);
        assert_eq!(buddy.take(2048), Some(0), "everything was merged again");
    }

    #[test]
    fn an_arena_that_is_no_power_of_two_is_used_to_the_last_page() {
        let mut buddy = Buddy::new(2048 + 7);
        assert_eq!(buddy.take(2048), Some(0));
        let mut pages: Vec<u32> = std::iter::from_fn(|| buddy.take(1)).collect();
        pages.sort_unstable();
        assert_eq!(pages, (2048..2055).collect::<Vec<_>>());
        assert_eq!(Buddy::run_pages_max(2055), 2048);
        assert_eq!(Buddy::run_pages_max(7), 4);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let mut buddy = Buddy::new(4096);
        assert_eq!(buddy.take(0), None);
        assert_eq!(buddy.take(2049), None);
        assert_eq!(buddy.take(u32::MAX), None);
    }
}
