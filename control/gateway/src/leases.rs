//! Read leases: data that a stream is reading is not deleted under it.
//!
//! A reader leases the data ids that it will read; the collector claims the ids that it will delete. Both go through
//! one lock, so one of the two loses and knows it: a leased id can't be claimed (the collector comes back later), and a
//! claimed id can't be leased (the reader looks its object up again and finds the newer one, or none). Other gateways'
//! readers are kept safe by the garbage grace alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_proto::DataId;

#[derive(Clone, Default)]
pub(crate) struct Leases(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    readers: HashMap<DataId, usize>,
    claimed: HashSet<DataId>,
}

/// A reader's hold on data ids; given back when dropped.
pub(crate) struct Lease {
    leases: Leases,
    ids: Mutex<Vec<DataId>>,
}

/// The collector's hold on one data id; given back when dropped.
pub(crate) struct Claim {
    leases: Leases,
    id: DataId,
}

impl Leases {
    /// A lease that holds nothing yet.
    pub(crate) fn empty(&self) -> Lease {
        Lease { leases: self.clone(), ids: Mutex::default() }
    }

    /// Claims an id for deletion, unless someone reads it or deletes it already.
    pub(crate) fn claim(&self, id: DataId) -> Option<Claim> {
        let mut state = self.0.lock();
        if state.readers.contains_key(&id) || !state.claimed.insert(id) {
            return None;
        }
        Some(Claim { leases: self.clone(), id })
    }

    /// Data ids under a lease.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().readers.len()
    }
}

impl Lease {
    /// Also holds `id`. False when it is being deleted.
    #[must_use]
    pub(crate) fn add(&self, id: DataId) -> bool {
        let mut state = self.leases.0.lock();
        if state.claimed.contains(&id) {
            return false;
        }
        *state.readers.entry(id).or_default() += 1;
        self.ids.lock().push(id);
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.leases.0.lock();
        for id in self.ids.get_mut() {
            if let Some(readers) = state.readers.get_mut(id) {
                *readers -= 1;
                if *readers == 0 {
                    state.readers.remove(id);
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leases.0.lock().claimed.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_and_the_collector_exclude_each_other() {
        let leases = Leases::default();
        let id = DataId(1);
        let (one, two) = (leases.empty(), leases.empty());
        assert!(one.add(id) && two.add(id));
        assert!(leases.claim(id).is_none());
        drop(one);
        assert!(leases.claim(id).is_none(), "the second reader still reads");
        drop(two);
        let claim = leases.claim(id).unwrap();
        assert!(leases.claim(id).is_none(), "two collectors");
        assert!(!leases.empty().add(id), "a reader that comes too late");
        assert!(leases.empty().add(DataId(2)));
        drop(claim);
        assert!(leases.empty().add(id));
        assert_eq!(leases.count(), 0);
    }
}
