//! Placement sets (copysets): few sets of nodes, so that few combinations of lost nodes lose anything.
//!
//! Were every stripe on nodes of its own, any loss of more nodes than the code survives would take some stripe with it, as
//! soon as there are enough stripes. So a stripe of n shards is on one of about `nodes x sets_per_node / n` sets of n nodes;
//! each node shares sets with at most `sets_per_node x (n - 1)` others (the scatter width), enough to repair it quickly.
//!
//! A set has no more shards in a failure domain, at any level, than spreading them evenly takes. Each node is in as many sets
//! as its weight is worth. Sets *evolve* from the ones before ([`PlacementSets::evolve`]): a pure function of those and of
//! the new map, which replaces nodes that left, gives nodes that came their due, and changes nothing else. Which set is for
//! which data ([`PlacementSets::draw`]) is a pure function of the data's id and of what is said about the nodes at the time.
//!
//! All arithmetic is in whole numbers: two programs with the same history agree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_proto::{DataId, MapEpoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::hash::hash;
use crate::map::{ClusterMap, NodeEntry, PlacementError};

/// The default of `sets_per_node`.
pub const SETS_PER_NODE: usize = 10;
/// Most sets of one width.
pub const SETS_MAX: usize = 1 << 16;
/// A set whose fullest node is fuller by less than this is as good: drawing the first keeps data where it would be.
const LOAD_STEP: u32 = 50;

/// The sets of one width, under one map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementSets {
    /// Rises with every change.
    pub epoch: MapEpoch,
    /// Shards of a stripe: nodes of a set.
    pub width: usize,
    /// The nodes by which they were made, ascending by id: what is compared to know whether anything changed.
    pub nodes: Vec<NodeEntry>,
    /// The sets, each ascending.
    pub sets: Vec<Vec<NodeId>>,
}

/// A level of the tree whose domains are too few: losing one loses more shards of a stripe than the code survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which level, from 0, the outermost.
    pub level: usize,
    /// Domains there.
    pub domains: usize,
    /// Shards of a stripe in one of them, when they are spread evenly.
    pub shards_per_domain: usize,
}

/// The tree, numbered: of each node, which domain it is in at each level, the node itself last.
struct Tree {
    /// By node, in the order of the map's nodes.
    domains: Vec<Vec<usize>>,
    /// By domain: most shards of a set.
    caps: Vec<usize>,
}

impl Tree {
    fn new(nodes: &[NodeEntry], width: usize) -> Self {
        let levels = nodes.iter().map(|node| node.domain.len()).max().unwrap_or(0);
        let mut numbers: HashMap<(usize, Vec<&str>, Option<NodeId>), usize> = HashMap::new();
        let mut domains = vec![Vec::with_capacity(levels); nodes.len()];
        let mut caps = Vec::new();
        for level in 0..levels {
            let first = caps.len();
            let mut sizes: Vec<usize> = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                let path: Vec<&str> = node.domain.iter().take(level + 1).map(String::as_str).collect();
                // Past its deepest name a node is a domain of its own.
                let own = (node.domain.len() <= level).then_some(node.id);
                let next = first + sizes.len();
                let number = *numbers.entry((level, path, own)).or_insert(next);
                if number == next {
                    sizes.push(0);
                }
                sizes[number - first] += 1;
                domains[index].push(number);
            }
            caps.resize(first + sizes.len(), even_share(&sizes, width));
        }
        Self { domains, caps }
    }

    /// By how much a set would be past its caps with `node` in it.
    fn excess(&self, counts: &[usize], node: usize) -> usize {
        self.domains[node].iter().map(|&domain| (counts[domain] + 1).saturating_sub(self.caps[domain])).sum()
    }

    fn counts(&self, set: &BTreeSet<usize>) -> Vec<usize> {
        let mut counts = vec![0; self.caps.len()];
        for &node in set {
            self.domains[node].iter().for_each(|&domain| counts[domain] += 1);
        }
        counts
    }
}

/// The least c such that domains of these sizes hold `width` with no more than c in each.
fn even_share(sizes: &[usize], width: usize) -> usize {
    (1..=width).find(|&cap| sizes.iter().map(|&size| size.min(cap)).sum::<usize>() >= width).unwrap_or(width)
}

/// Which levels of the map's tree have too few domains for a code of `width` shards that survives `losses_survived`.
pub fn shortfalls(map: &ClusterMap, width: usize, losses_survived: usize) -> Vec<Shortfall> {
    let levels = map.nodes.iter().map(|node| node.domain.len()).max().unwrap_or(0);
    let mut found = Vec::new();
    for level in 0..levels {
        let mut sizes: BTreeMap<(Vec<&str>, Option<NodeId>), usize> = BTreeMap::new();
        for node in &map.nodes {
            let path = node.domain.iter().take(level + 1).map(String::as_str).collect();
            *sizes.entry((path, (node.domain.len() <= level).then_some(node.id))).or_default() += 1;
        }
        let sizes: Vec<usize> = sizes.into_values().collect();
        let shards_per_domain = even_share(&sizes, width);
        if shards_per_domain > losses_survived {
            found.push(Shortfall { level, domains: sizes.len(), shards_per_domain });
        }
    }
    found
}

/// The sets that being in `sets` of them is worth, by weight: they sum to `sets x width`, and none is past `sets`.
fn dues(nodes: &[NodeEntry], sets: usize, width: usize) -> Vec<usize> {
    let mut due = vec![0usize; nodes.len()];
    let mut left = sets * width;
    let mut open: Vec<usize> = (0..nodes.len()).collect();
    loop {
        let weight: u128 = open.iter().map(|&node| u128::from(nodes[node].weight)).sum();
        let share = |node: usize| (left as u128 * u128::from(nodes[node].weight), weight);
        // Who is worth more than all sets is in all of them, and what is left is shared by the others.
        let (full, rest): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&node| share(node).0 >= sets as u128 * share(node).1);
        if full.is_empty() || rest.is_empty() {
            for &node in &open {
                due[node] = (share(node).0 / weight.max(1)) as usize;
            }
            let mut missing = left - open.iter().map(|&node| due[node]).sum::<usize>();
            // The largest remainders are rounded up.
            let mut by_remainder = open.clone();
            by_remainder.sort_by_key(|&node| (std::cmp::Reverse(share(node).0 % weight.max(1)), nodes[node].id));
            for node in by_remainder {
                if missing > 0 && due[node] < sets {
                    due[node] += 1;
                    missing -= 1;
                }
            }
            return due;
        }
        for &node in &full {
            due[node] = sets;
        }
        left -= full.len() * sets;
        open = rest;
    }
}

/// Ways to choose `width` of `nodes`, up to [`SETS_MAX`].
fn combinations(nodes: usize, width: usize) -> usize {
    let (mut ways, take) = (1u128, width.min(nodes - width));
    for i in 0..take {
        ways = ways * (nodes - i) as u128 / (i + 1) as u128;
        if ways >= SETS_MAX as u128 {
            return SETS_MAX;
        }
    }
    ways as usize
}

/// How many sets there are to be. The number there is stays while it is within half and twice what it should be: another
/// number is another draw for some of the data.
fn how_many(nodes: usize, width: usize, sets_per_node: usize, before: usize) -> usize {
    let wanted = (nodes * sets_per_node).div_ceil(width).clamp(1, combinations(nodes, width));
    if before * 2 >= wanted && before <= 2 * wanted && before <= combinations(nodes, width) { before } else { wanted }
}

impl PlacementSets {
    /// The sets of `width` nodes under `map`, from those before, if there are any. Equal to those before when neither the
    /// map's nodes nor the number of sets have changed.
    ///
    /// # Errors
    /// [`PlacementError::TooFewNodes`], or what [`ClusterMap::validate`] finds wrong.
    pub fn evolve(
        before: Option<&Self>,
        map: &ClusterMap,
        width: usize,
        sets_per_node: usize,
    ) -> Result<Self, PlacementError> {
        map.validate()?;
        if width == 0 || width > map.nodes.len() {
            return Err(PlacementError::TooFewNodes { shards: width, nodes: map.nodes.len(), epoch: map.epoch });
        }
        let mut nodes = map.nodes.clone();
        nodes.sort_unstable_by_key(|node| node.id);
        let before = before.filter(|before| before.width == width);
        let count = how_many(nodes.len(), width, sets_per_node.max(1), before.map_or(0, |before| before.sets.len()));
        if let Some(before) = before
            && before.nodes == nodes
            && before.sets.len() == count
        {
            return Ok(before.clone());
        }
        let index: HashMap<NodeId, usize> = nodes.iter().enumerate().map(|(index, node)| (node.id, index)).collect();
        let mut sets: Vec<BTreeSet<usize>> = before.map_or_else(Vec::new, |before| {
            before.sets.iter().map(|set| set.iter().filter_map(|node| index.get(node).copied()).collect()).collect()
        });
        sets.resize(count, BTreeSet::new());
        let mut work = Work::new(&nodes, width, sets);
        work.fill();
        work.repair_spread();
        work.balance();
        let epoch = MapEpoch(before.map_or(map.epoch.0, |before| before.epoch.0.max(map.epoch.0) + 1));
        let sets = work.sets.iter().map(|set| set.iter().map(|&node| nodes[node].id).collect()).collect();
        Ok(Self { epoch, width, nodes, sets })
    }

    /// The nodes for group `group` of `data`, shard j for the j-th: those of a set that has none of `avoid`, drawn by the data's
    /// id from two, of which the one whose most loaded node is less loaded (`load`, 0 to 1,000) by much wins. Where every
    /// set has one of `avoid`, others take their places as far as there are any.
    pub fn draw(&self, data: DataId, group: u32, avoid: &[NodeId], load: impl Fn(NodeId) -> u32) -> Vec<NodeId> {
        let key = |set: usize| hash(data, group, NodeId(set as u16)) ^ (set as u64 >> 16);
        let has_none = |set: &&usize| !self.sets[**set].iter().any(|node| avoid.contains(node));
        let all: Vec<usize> = (0..self.sets.len()).collect();
        let mut best: Vec<usize> = all.iter().filter(has_none).copied().collect();
        let whole = !best.is_empty();
        if !whole {
            best = all;
        }
        let mut first_two: Vec<usize> = Vec::with_capacity(2);
        for set in best {
            let at = first_two.iter().position(|other| key(set) < key(*other)).unwrap_or(first_two.len());
            first_two.insert(at, set);
            first_two.truncate(2);
        }
        let worst = |set: usize| self.sets[set].iter().map(|node| load(*node)).max().unwrap_or(0);
        let drawn = match first_two[..] {
            [first, second] if worst(second) + LOAD_STEP < worst(first) => second,
            _ => first_two[0],
        };
        let mut nodes = self.sets[drawn].clone();
        if !whole {
            self.stand_in(&mut nodes, data, group, avoid);
        }
        // Every node gets every part: data shards here, parity there.
        nodes.sort_unstable_by_key(|node| (hash(data, group, *node), *node));
        nodes
    }

    /// Gives the places of `avoid` to others, those that spread best first.
    fn stand_in(&self, set: &mut [NodeId], data: DataId, group: u32, avoid: &[NodeId]) {
        let tree = Tree::new(&self.nodes, self.width);
        let place = |node: &NodeId| self.nodes.binary_search_by_key(node, |entry| entry.id).ok();
        for at in 0..set.len() {
            if !avoid.contains(&set[at]) {
                continue;
            }
            let others: BTreeSet<usize> = set.iter().filter(|node| **node != set[at]).filter_map(place).collect();
            let counts = tree.counts(&others);
            let candidates = (0..self.nodes.len()).filter(|node| {
                let id = self.nodes[*node].id;
                !avoid.contains(&id) && !set.contains(&id)
            });
            let best =
                candidates.min_by_key(|&node| (tree.excess(&counts, node), hash(data, group, self.nodes[node].id)));
            if let Some(best) = best {
                set[at] = self.nodes[best].id;
            }
        }
    }

    /// In how many sets each node is.
    pub fn memberships(&self) -> BTreeMap<NodeId, usize> {
        let mut counts: BTreeMap<NodeId, usize> = self.nodes.iter().map(|node| (node.id, 0)).collect();
        for node in self.sets.iter().flatten() {
            *counts.entry(*node).or_default() += 1;
        }
        counts
    }
}

/// Sets in the making. Nodes are numbers here: their places in the list.
struct Work<'a> {
    nodes: &'a [NodeEntry],
    width: usize,
    sets: Vec<BTreeSet<usize>>,
    tree: Tree,
    due: Vec<usize>,
    load: Vec<usize>,
}

impl<'a> Work<'a> {
    fn new(nodes: &'a [NodeEntry], width: usize, sets: Vec<BTreeSet<usize>>) -> Self {
        let mut load = vec![0; nodes.len()];
        sets.iter().flatten().for_each(|&node| load[node] += 1);
        let due = dues(nodes, sets.len(), width);
        Self { nodes, width, tree: Tree::new(nodes, width), sets, due, load }
    }

    /// A number that is another for every set and node, to break ties: scattered, and the same on every run.
    fn tie(&self, set: usize, node: usize) -> u64 {
        hash(DataId(set as u128), 0, self.nodes[node].id)
    }

    /// What is missing to its due, larger first: a key for `min_by_key`.
    fn need(&self, node: usize) -> i64 {
        self.load[node] as i64 - self.due[node] as i64
    }

    fn fill(&mut self) {
        for set in 0..self.sets.len() {
            let mut counts = self.tree.counts(&self.sets[set]);
            while self.sets[set].len() < self.width {
                let candidates = (0..self.nodes.len()).filter(|node| !self.sets[set].contains(node));
                let node = candidates
                    .min_by_key(|&node| (self.tree.excess(&counts, node), self.need(node), self.tie(set, node)))
                    .expect("invariant: there are at least as many nodes as a set has");
                self.sets[set].insert(node);
                self.load[node] += 1;
                self.tree.domains[node].iter().for_each(|&domain| counts[domain] += 1);
            }
        }
    }

    /// Moves nodes out of domains that have too many of a set, where others have room.
    fn repair_spread(&mut self) {
        for set in 0..self.sets.len() {
            // Each round takes one node out for good.
            for _ in 0..self.width {
                let counts = self.tree.counts(&self.sets[set]);
                let over = |node: &usize| {
                    self.tree.domains[*node].iter().any(|&domain| counts[domain] > self.tree.caps[domain])
                };
                let Some(out) = self.sets[set]
                    .iter()
                    .copied()
                    .filter(over)
                    .max_by_key(|&node| (self.need(node), self.tie(set, node)))
                else {
                    break;
                };
                let Some(into) = self.replacement(set, out, |_| true) else { break };
                self.swap(set, out, into);
            }
        }
    }

    /// Gives nodes with too few memberships those of nodes with too many, as long as that spreads no worse.
    fn balance(&mut self) {
        let mut stuck: BTreeSet<usize> = BTreeSet::new();
        for _ in 0..self.sets.len() * self.width {
            let needy = (0..self.nodes.len()).filter(|node| self.need(*node) < 0 && !stuck.contains(node));
            let Some(into) = needy.min_by_key(|&node| (self.need(node), self.nodes[node].id)) else { return };
            let mut best: Option<((i64, u64), usize, usize)> = None;
            for set in (0..self.sets.len()).filter(|&set| !self.sets[set].contains(&into)) {
                for &out in self.sets[set].iter().filter(|out| self.need(**out) > 0) {
                    let rank = (self.need(out), self.tie(set, out));
                    if best.is_none_or(|(so_far, _, _)| rank > so_far) && self.spreads_no_worse(set, out, into) {
                        best = Some((rank, set, out));
                    }
                }
            }
            match best {
                Some((_, set, out)) => self.swap(set, out, into),
                None => drop(stuck.insert(into)),
            }
        }
    }

    fn spreads_no_worse(&self, set: usize, out: usize, into: usize) -> bool {
        let mut without = self.sets[set].clone();
        without.remove(&out);
        let counts = self.tree.counts(&without);
        self.tree.excess(&counts, into) <= self.tree.excess(&counts, out)
    }

    fn replacement(&self, set: usize, out: usize, allowed: impl Fn(usize) -> bool) -> Option<usize> {
        let mut without = self.sets[set].clone();
        without.remove(&out);
        let counts = self.tree.counts(&without);
        let now = self.tree.excess(&counts, out);
        (0..self.nodes.len())
            .filter(|&node| !self.sets[set].contains(&node) && allowed(node) && self.tree.excess(&counts, node) < now)
            .min_by_key(|&node| (self.tree.excess(&counts, node), self.need(node), self.tie(set, node)))
    }

    fn swap(&mut self, set: usize, out: usize, into: usize) {
        self.sets[set].remove(&out);
        self.sets[set].insert(into);
        self.load[out] -= 1;
        self.load[into] += 1;
    }
}

#[cfg(test)]
mod tests;
