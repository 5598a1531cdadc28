//! The stripes that contenders work on, all of them on the same ones.

use smallvec::SmallVec;

use super::shape::{Pattern, Role};

/// Stripes of shards, and whose turn it is.
pub(crate) struct Stripes<'a> {
    stripes: Vec<Vec<&'a mut [u8]>>,
    next: usize,
    patterns: usize,
    /// Set by a contender that can't do the work after all.
    pub(crate) refused: bool,
}

/// The shards that are read, in order of index.
pub(crate) type Sources<'s> = SmallVec<[&'s [u8]; 32]>;
/// The shards that are written.
pub(crate) type Destinations<'s> = SmallVec<[&'s mut [u8]; 8]>;

/// Parts a stripe by what becomes of its shards.
pub(crate) fn parted<'s>(pattern: &Pattern, stripe: &'s mut [&mut [u8]]) -> (Sources<'s>, Destinations<'s>) {
    let (mut sources, mut destinations) = (Sources::new(), Destinations::new());
    for (shard, role) in stripe.iter_mut().zip(&pattern.roles) {
        match role {
            Role::Read => sources.push(shard),
            Role::Write => destinations.push(shard),
            Role::Unused => {}
        }
    }
    (sources, destinations)
}

impl<'a> Stripes<'a> {
    /// One stripe is hot: the same again and again. Several are taken in turn, by all contenders together, so that
    /// nobody finds in the caches what another has left there.
    pub(crate) fn new(stripes: Vec<Vec<&'a mut [u8]>>, patterns: usize) -> Self {
        assert!(!stripes.is_empty() && patterns > 0, "something to work on");
        Self { stripes, next: 0, patterns, refused: false }
    }

    /// Has `work` done `calls` times, all patterns equally often: it is told which pattern, on which stripe, and how many
    /// times in a row.
    pub(crate) fn each(&mut self, calls: u64, mut work: impl FnMut(usize, &mut [&mut [u8]], u64)) {
        if let [stripe] = &mut self.stripes[..] {
            let patterns = self.patterns as u64;
            for pattern in 0..patterns {
                let times = calls / patterns + u64::from(pattern < calls % patterns);
                if times > 0 {
                    work(pattern as usize, stripe, times);
                }
            }
        } else {
            for _ in 0..calls {
                let (stripe, pattern) = (self.next % self.stripes.len(), self.next % self.patterns);
                self.next = self.next.wrapping_add(1);
                work(pattern, &mut self.stripes[stripe], 1);
            }
        }
    }
}
