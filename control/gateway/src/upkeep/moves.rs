//! Keeps two jobs out of each other's way: repairs, which bring shards to nodes, and the removal of strays, which deletes
//! from a node what a survey did not find any reason for. What is on its way to a node, or came since the survey began, is
//! no stray; what is being deleted from a node is not brought there.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use penstock_proto::{DataId, NodeId};

/// Moves of one survey's time that are remembered; with more, its strays are left to the next one.
const MOVED_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Moves(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    active: HashMap<(NodeId, DataId), usize>,
    moved: HashSet<(NodeId, DataId)>,
    deleting: HashSet<(NodeId, DataId)>,
    too_many: bool,
}

/// Shards of this data are on their way to this node, until it is dropped.
pub(crate) struct Moving<'a>(&'a Moves, (NodeId, DataId));

/// This data is being deleted from this node, until it is dropped.
pub(crate) struct Deleting<'a>(&'a Moves, (NodeId, DataId));

impl Moves {
    /// A survey begins: what was brought before is in the metadata that it reads.
    pub(crate) fn survey_begins(&self) {
        let mut state = self.0.lock();
        state.moved.clear();
        state.too_many = false;
    }

    /// None while it is being deleted there.
    pub(crate) fn bring(&self, node: NodeId, data: DataId) -> Option<Moving<'_>> {
        let mut state = self.0.lock();
        if state.deleting.contains(&(node, data)) {
            return None;
        }
        *state.active.entry((node, data)).or_default() += 1;
        if state.moved.len() < MOVED_MAX {
            state.moved.insert((node, data));
        } else {
            state.too_many = true;
        }
        Some(Moving(self, (node, data)))
    }

    /// None for what came since the survey began, or is on its way.
    pub(crate) fn delete(&self, node: NodeId, data: DataId) -> Option<Deleting<'_>> {
        let mut state = self.0.lock();
        let place = (node, data);
        if state.too_many || state.active.contains_key(&place) || state.moved.contains(&place) {
            return None;
        }
        state.deleting.insert(place).then_some(Deleting(self, place))
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if let Some(count) = state.active.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.active.remove(&self.1);
            }
        }
    }
}

impl Drop for Deleting<'_> {
    fn drop(&mut self) {
        self.0.0.lock().deleting.remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_not_deleted_and_what_is_deleted_does_not_come() {
        let moves = Moves::default();
        let (node, data) = (NodeId(1), DataId(2));
        let moving = moves.bring(node, data).unwrap();
        assert!(moves.delete(node, data).is_none());
        // Still on its way when a survey begins: it is no stray of that survey.
        moves.survey_begins();
        assert!(moves.delete(node, data).is_none());
        drop(moving);
        let deleting = moves.delete(node, data).unwrap();
        assert!(moves.bring(node, data).is_none());
        assert!(moves.bring(NodeId(2), data).is_some());
        drop(deleting);
        drop(moves.bring(node, data).unwrap());
        assert!(moves.delete(node, data).is_none(), "it came since the survey began");
        moves.survey_begins();
        assert!(moves.delete(node, data).is_some());
    }
}
