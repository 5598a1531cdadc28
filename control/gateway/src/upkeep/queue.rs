//! The repairs to be done, those with the least redundancy left first. Bounded: what does not fit is found again by the
//! next survey, and is never what is most urgent.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_meta::tables::Owner;
use penstock_proto::{Code, DataId};

/// Runs that wait; past it, those with the most redundancy are left to the next survey.
pub(crate) const QUEUE_MAX: usize = 100_000;

/// Names a run: its data and first stripe.
pub(crate) type RunId = (DataId, u32);

/// A run of stripes with something to repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) data: DataId,
    pub(crate) first_stripe: u32,
    pub(crate) owner: Owner,
    pub(crate) code: Code,
    /// Shards that its worst stripe can still lose; below 0 it can't be read.
    pub(crate) spare: i32,
    /// Shards that a node has lost or found damaged, as bitmaps by stripe.
    pub(crate) broken: BTreeMap<u32, u64>,
    pub(crate) tries: u32,
}

impl Task {
    pub(crate) fn id(&self) -> RunId {
        (self.data, self.first_stripe)
    }
}

#[derive(Debug)]
struct Entry {
    task: Task,
    /// 0: ready.
    not_before_unix_ms: u64,
    number: u64,
}

/// Ready tasks in the order in which they are to be done, and others that wait for their time.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<RunId, Entry>,
    ready: BTreeSet<(i32, u64, RunId)>,
    waiting: BTreeSet<(u64, RunId)>,
    numbers: u64,
    /// Something did not fit.
    pub(crate) overflowed: bool,
}

impl Queue {
    /// Adds a task, or what it knows to the one that is there.
    pub(crate) fn push(&mut self, task: Task, not_before_unix_ms: u64, max: usize) {
        let id = task.id();
        let task = match self.take(&id) {
            Some(mut before) => {
                for (stripe, shards) in task.broken {
                    *before.broken.entry(stripe).or_default() |= shards;
                }
                Task { broken: before.broken, spare: task.spare.min(before.spare), ..task }
            }
            None => task,
        };
        self.numbers += 1;
        let number = self.numbers;
        if not_before_unix_ms == 0 {
            self.ready.insert((task.spare, number, id));
        } else {
            self.waiting.insert((not_before_unix_ms, id));
        }
        self.entries.insert(id, Entry { task, not_before_unix_ms, number });
        if self.entries.len() > max {
            self.overflowed = true;
            // What waits is known to be in trouble again; else that with the most redundancy.
            let last = self.ready.last().map(|(_, _, id)| *id).or_else(|| self.waiting.last().map(|(_, id)| *id));
            if let Some(last) = last {
                self.take(&last);
            }
        }
    }

    /// The most urgent task whose time has come.
    pub(crate) fn pop(&mut self, now_unix_ms: u64) -> Option<Task> {
        while let Some((at, id)) = self.waiting.first().copied()
            && at <= now_unix_ms
        {
            self.waiting.remove(&(at, id));
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.not_before_unix_ms = 0;
                self.ready.insert((entry.task.spare, entry.number, id));
            }
        }
        let (_, _, id) = *self.ready.first()?;
        self.take(&id)
    }

    pub(crate) fn contains(&self, id: &RunId) -> bool {
        self.entries.contains_key(id)
    }

    /// Ready and waiting ones.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.ready.len(), self.waiting.len())
    }

    /// How many, by the redundancy that is left.
    pub(crate) fn by_spare(&self) -> BTreeMap<i32, u64> {
        let mut counts = BTreeMap::new();
        for entry in self.entries.values() {
            *counts.entry(entry.task.spare).or_default() += 1;
        }
        counts
    }

    fn take(&mut self, id: &RunId) -> Option<Task> {
        let entry = self.entries.remove(id)?;
        self.ready.remove(&(entry.task.spare, entry.number, *id));
        self.waiting.remove(&(entry.not_before_unix_ms, *id));
        Some(entry.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(data: u128, spare: i32) -> Task {
        let owner = serde_json::from_str("[79]").expect("an owner is bytes");
        Task {
            data: DataId(data),
            first_stripe: 0,
            owner,
            code: Code::ONE_COPY,
            spare,
            broken: BTreeMap::new(),
            tries: 0,
        }
    }

    fn drain(queue: &mut Queue, now: u64) -> Vec<u128> {
        std::iter::from_fn(|| queue.pop(now)).map(|task| task.data.0).collect()
    }

    #[test]
    fn the_least_redundant_comes_first_and_then_the_oldest() {
        let mut queue = Queue::default();
        for (data, spare) in [(1, 3), (2, 1), (3, 1), (4, -1), (5, 0)] {
            queue.push(task(data, spare), 0, 10);
        }
        assert_eq!(queue.by_spare(), BTreeMap::from([(-1, 1), (0, 1), (1, 2), (3, 1)]));
        assert_eq!(drain(&mut queue, 0), [4, 5, 2, 3, 1]);
        assert_eq!(queue.counts(), (0, 0));
    }

    #[test]
    fn the_same_run_is_there_once_with_all_that_is_known() {
        let mut queue = Queue::default();
        queue.push(Task { broken: BTreeMap::from([(0, 1), (1, 2)]), ..task(1, 2) }, 0, 10);
        queue.push(Task { broken: BTreeMap::from([(1, 4)]), ..task(1, 3) }, 0, 10);
        let merged = queue.pop(0).unwrap();
        assert_eq!((merged.spare, merged.broken), (2, BTreeMap::from([(0, 1), (1, 6)])));
        assert_eq!(queue.pop(0), None);
    }

    #[test]
    fn what_waits_comes_in_its_time() {
        let mut queue = Queue::default();
        queue.push(task(1, 0), 100, 10);
        queue.push(task(2, 5), 0, 10);
        assert!(queue.contains(&(DataId(1), 0)));
        assert_eq!(drain(&mut queue, 99), [2]);
        assert_eq!(queue.counts(), (0, 1));
        assert_eq!(drain(&mut queue, 100), [1]);
    }

    #[test]
    fn a_full_queue_keeps_what_is_urgent_and_says_that_it_is_full() {
        let mut queue = Queue::default();
        for data in 0..20u128 {
            queue.push(task(data, (data % 4) as i32), 0, 10);
        }
        assert!(queue.overflowed);
        let kept = drain(&mut queue, 0);
        assert_eq!(kept.len(), 10);
        assert!(kept[..5].iter().all(|data| data % 4 == 0), "{kept:?}");
        assert!(kept.iter().all(|data| data % 4 <= 1), "{kept:?}");
    }
}
