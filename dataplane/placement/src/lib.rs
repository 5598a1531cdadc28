//! Where shards go: a pure function of a versioned cluster map.
//!
//! [`place`] is weighted rendezvous hashing over a tree of failure domains. Every node gets a *key* for a given
//! (data id, group): `-log2(u) / weight`, `u` a hash of (data id, group, node id) taken as a fraction of 1. Keys are
//! exponentially distributed with the weight as rate, so the node with the smallest key is each node with probability
//! `weight / sum of weights`; and the smallest key of a whole domain is again exponential with the domain's summed
//! weight, so a domain is ranked by its best node and its name never enters a hash: renaming a rack moves nothing.
//!
//! Going down the tree, the shards of each domain are dealt one by one to its children, best key first, round after
//! round; a child that has no more nodes drops out. So no domain gets a second shard before each of its siblings that
//! could take one has one, at every level, outermost first. Two nodes are never the same.
//!
//! What follows from that, and is tested: a node that joins or leaves moves (nearly) only the shards that it gains or
//! loses; load is in proportion to weight where there are fewer shards than domains, and even over domains, whatever
//! they weigh, where there are more: durability goes before balance.
//!
//! Arithmetic is in integers only (a library's `ln` may differ in the last bit between machines), and golden
//! placements are pinned: two programs with the same map agree, for ever. What it costs: some 100 ns per node.
//!
//! It fails when the map is nonsense or has fewer nodes than shards. It never panics and never puts two shards on one
//! node.
#![forbid(unsafe_code)]

mod hash;
mod map;
mod sets;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use penstock_proto::{DataId, NodeId};

use crate::hash::Key;
pub use crate::map::{ClusterMap, DOMAIN_LEVELS_MAX, NodeEntry, PlacementError};
pub use crate::sets::{PlacementSets, SETS_MAX, SETS_PER_NODE, Shortfall, shortfalls};

/// The nodes for `shards` shards of group `group` (a run of stripes that share a placement) of `data`: distinct, as
/// many as asked, best key first. Shard `j` is meant for the `j`-th.
///
/// Under another map, the *set* changes as little as it must, while the order may shift: who moves shards compares
/// sets, and gives the shards of the nodes that left to the nodes that came.
///
/// # Errors
/// [`PlacementError::TooFewNodes`] with the numbers, or what [`ClusterMap::validate`] finds wrong.
pub fn place(map: &ClusterMap, data: DataId, group: u32, shards: usize) -> Result<Vec<NodeId>, PlacementError> {
    map.validate()?;
    if shards > map.nodes.len() {
        return Err(PlacementError::TooFewNodes { shards, nodes: map.nodes.len(), epoch: map.epoch });
    }
    let mut ranked: Vec<Candidate<'_>> =
        map.nodes.iter().map(|entry| Candidate { key: Key::of(data, group, entry), entry }).collect();
    ranked.sort_unstable_by_key(|candidate| candidate.key);

    let mut chosen = Vec::with_capacity(shards);
    deal(ranked, 0, shards, &mut chosen);
    chosen.sort_unstable_by_key(|candidate| candidate.key);
    Ok(chosen.into_iter().map(|candidate| candidate.entry.id).collect())
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    key: Key,
    entry: &'a NodeEntry,
}

/// Chooses `shards` of `ranked` (in key order, all in one domain of level `level - 1`) into `chosen`.
/// Recursion ends after [`DOMAIN_LEVELS_MAX`] levels: past the deepest name every node is a domain of its own.
fn deal<'a>(ranked: Vec<Candidate<'a>>, level: usize, shards: usize, chosen: &mut Vec<Candidate<'a>>) {
    if shards == ranked.len() {
        chosen.extend(ranked);
        return;
    }
    // Children in the order of their best keys, because `ranked` is in key order.
    let mut children: Vec<Vec<Candidate<'a>>> = Vec::new();
    let mut child_of_name: HashMap<&str, usize> = HashMap::new();
    let mut named = false;
    for candidate in ranked {
        match candidate.entry.domain.get(level) {
            None => children.push(vec![candidate]),
            Some(name) => {
                named = true;
                let next = children.len();
                let index = *child_of_name.entry(name.as_str()).or_insert(next);
                if index == next {
                    children.push(Vec::new());
                }
                children[index].push(candidate);
            }
        }
    }
    if !named {
        chosen.extend(children.into_iter().flatten().take(shards));
        return;
    }
    let sizes: Vec<usize> = children.iter().map(Vec::len).collect();
    for (child, share) in children.into_iter().zip(shares(&sizes, shards)) {
        if share > 0 {
            deal(child, level + 1, share, chosen);
        }
    }
}

/// How many of `shards` each child takes: one each in order, round after round, no child more than its size.
/// `shards` is at most the sum of `sizes`.
fn shares(sizes: &[usize], shards: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    let mut left = shards;
    while left > 0 {
        let before = left;
        for (share, size) in shares.iter_mut().zip(sizes) {
            if left > 0 && *share < *size {
                *share += 1;
                left -= 1;
            }
        }
        assert!(left < before, "invariant: the children hold at least as many nodes as shards are dealt");
    }
    shares
}
