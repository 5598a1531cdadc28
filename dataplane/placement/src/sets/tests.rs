use proptest::prelude::*;

use super::*;

fn node(id: u16, weight: u32, domain: &[String]) -> NodeEntry {
    NodeEntry { id: NodeId(id), weight, domain: domain.to_vec() }
}

fn map(nodes: Vec<NodeEntry>) -> ClusterMap {
    ClusterMap::new(MapEpoch(1), nodes).unwrap()
}

fn racks(nodes: u16, racks: u16) -> ClusterMap {
    map((0..nodes).map(|id| node(id, 100, &["z".into(), format!("r{}", id % racks)])).collect())
}

fn flat(nodes: u16) -> ClusterMap {
    map((0..nodes).map(|id| node(id, 100, &[])).collect())
}

fn sets(map: &ClusterMap, width: usize) -> PlacementSets {
    PlacementSets::evolve(None, map, width, SETS_PER_NODE).unwrap()
}

/// Memberships that changed, from one to the other.
fn moved(before: &PlacementSets, after: &PlacementSets) -> usize {
    let none = Vec::new();
    let pairs = after.sets.iter().enumerate().map(|(at, set)| (set, before.sets.get(at).unwrap_or(&none)));
    pairs.map(|(set, was)| set.iter().filter(|node| !was.contains(node)).count()).sum()
}

/// Most shards of a set in one domain of a level.
fn most_per_domain(sets: &PlacementSets, level: usize) -> usize {
    let domain = |node: &NodeId| {
        let entry = sets.nodes.iter().find(|entry| entry.id == *node).unwrap();
        entry.domain[..=level].join("/")
    };
    let most = |set: &Vec<NodeId>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        set.iter().for_each(|node| *counts.entry(domain(node)).or_default() += 1);
        counts.into_values().max().unwrap()
    };
    sets.sets.iter().map(most).max().unwrap()
}

#[test]
fn few_sets_evenly_shared() {
    let sets = sets(&flat(100), 14);
    assert_eq!(sets.sets.len(), 72);
    let counts: Vec<usize> = sets.memberships().into_values().collect();
    assert!(counts.iter().all(|count| (10..=11).contains(count)), "{counts:?}");
    assert!(sets.sets.iter().all(|set| set.len() == 14 && set.windows(2).all(|pair| pair[0] < pair[1])));
    // Scatter width: with whom a node shares sets.
    let mates: BTreeSet<NodeId> = sets.sets.iter().filter(|set| set.contains(&NodeId(7))).flatten().copied().collect();
    assert!(mates.len() > 50, "{}", mates.len());
    let exact = PlacementSets::evolve(None, &flat(6), 6, SETS_PER_NODE).unwrap();
    assert_eq!(exact.sets.len(), 1);
    assert!(matches!(
        PlacementSets::evolve(None, &flat(5), 6, SETS_PER_NODE),
        Err(PlacementError::TooFewNodes { shards: 6, nodes: 5, .. })
    ));
}

#[test]
fn weights_decide_how_often() {
    let nodes = (0..40).map(|id| node(id, if id < 4 { 300 } else { 100 }, &[])).collect();
    let counts = sets(&map(nodes), 6).memberships();
    let (heavy, light) = (counts[&NodeId(1)], counts[&NodeId(20)]);
    assert!(heavy >= 3 * light - 2 && heavy <= 3 * light + 3, "{heavy} {light}");
    // A node that is worth more than all sets is in all of them, and no more.
    let nodes = (0..8).map(|id| node(id, if id == 0 { 100_000 } else { 1 }, &[])).collect();
    let sets = sets(&map(nodes), 6);
    assert_eq!(sets.memberships()[&NodeId(0)], sets.sets.len());
}

#[test]
fn no_domain_has_more_of_a_set_than_it_must() {
    for (nodes, in_racks, width, most) in
        [(42, 14, 14, 1), (40, 10, 14, 2), (20, 5, 14, 3), (16, 4, 16, 4), (30, 6, 6, 1)]
    {
        let sets = sets(&racks(nodes, in_racks), width);
        assert_eq!(most_per_domain(&sets, 1), most, "{width} shards on {nodes} nodes in {in_racks} racks");
    }
    assert_eq!(shortfalls(&racks(42, 14), 14, 4), [Shortfall { level: 0, domains: 1, shards_per_domain: 14 }]);
    let three = shortfalls(&racks(42, 3), 14, 4);
    assert_eq!(three[1], Shortfall { level: 1, domains: 3, shards_per_domain: 5 });
    assert_eq!(shortfalls(&flat(14), 14, 4), []);
}

#[test]
fn what_does_not_change_stays() {
    let before = sets(&racks(40, 10), 14);
    assert_eq!(PlacementSets::evolve(Some(&before), &racks(40, 10), 14, SETS_PER_NODE).unwrap(), before);
    let mut backwards = racks(40, 10);
    backwards.nodes.reverse();
    assert_eq!(PlacementSets::evolve(Some(&before), &backwards, 14, SETS_PER_NODE).unwrap(), before);
    let after = PlacementSets::evolve(Some(&before), &racks(41, 10), 14, SETS_PER_NODE).unwrap();
    assert_eq!(after.epoch, MapEpoch(2));
}

#[test]
fn data_is_spread_by_weight_and_every_node_gets_every_part() {
    let sets = sets(&flat(20), 6);
    let mut hits = vec![[0u32; 6]; 20];
    let draws = 12_000u64;
    for data in 0..draws {
        let nodes = sets.draw(DataId(u128::from(data) << 64 | 7), 0, &[], |_| 0);
        for (position, node) in nodes.iter().enumerate() {
            hits[usize::from(node.0)][position] += 1;
        }
    }
    for (node, positions) in hits.iter().enumerate() {
        let sum: u32 = positions.iter().sum();
        assert!((2700..4600).contains(&sum), "node {node} got {sum} of 3600");
        assert!(positions.iter().all(|hits| *hits > 200), "node {node}: {positions:?}");
    }
}

#[test]
fn nodes_to_avoid_are_avoided_and_full_ones_get_less() {
    let sets = sets(&flat(7), 6);
    for data in 0..500u128 {
        let nodes = sets.draw(DataId(data), 0, &[NodeId(3)], |_| 0);
        assert!(!nodes.contains(&NodeId(3)) && nodes.iter().collect::<BTreeSet<_>>().len() == 6);
        // Two of seven are gone: five are left, and the write will have to do with its quorum.
        let nodes = sets.draw(DataId(data), 0, &[NodeId(3), NodeId(5)], |_| 0);
        assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), 6);
    }
    let sets = self::sets(&flat(30), 6);
    let hits = |full: u32| {
        let load = |node: NodeId| if node == NodeId(4) { full } else { 300 };
        (0..3000u128).filter(|data| sets.draw(DataId(*data), 0, &[], load).contains(&NodeId(4))).count()
    };
    let (even, less) = (hits(300), hits(900));
    assert!(less * 3 < even * 2 && less > 0, "{less} of {even}");
}

fn any_map() -> impl Strategy<Value = (Vec<NodeEntry>, usize)> {
    (8usize..60, 0u16..12, prop::sample::select(vec![3usize, 6, 14]), any::<u64>()).prop_map(
        |(count, racks, width, seed)| {
            let entry = |id: u16| {
                let domain = if racks < 2 { Vec::new() } else { vec![format!("r{}", id % racks)] };
                // Weights from 1 to 4, but for a node in two.
                let draw = seed.rotate_left(u32::from(id) * 7);
                node(id, if draw & 1 == 0 { 2 } else { 1 + (draw >> 1) as u32 % 4 }, &domain)
            };
            ((0..count.max(width + 2) as u16).map(entry).collect(), width)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// A node that joins or leaves moves little more than it must: what it holds, or what is its due, and what its going or
    /// coming changes in the dues of others. And the sets keep their promises through all of it.
    #[test]
    fn movement_stays_near_the_optimum((nodes, width) in any_map(), joins in any::<bool>()) {
        let last = nodes.last().unwrap().id;
        let (all, fewer) = (map(nodes.clone()), map(nodes[..nodes.len() - 1].to_vec()));
        let (from, to) = if joins { (fewer, all) } else { (all, fewer) };
        let before = sets(&from, width);
        let after = PlacementSets::evolve(Some(&before), &to, width, SETS_PER_NODE).unwrap();
        for sets in [&before, &after] {
            for set in &sets.sets {
                prop_assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), width);
            }
            let flat = sets.nodes.iter().all(|node| node.domain.is_empty());
            let dues = dues(&sets.nodes, sets.sets.len(), width);
            for (node, due) in sets.nodes.iter().zip(dues) {
                // Racks of few nodes may have to carry more, or can't carry all.
                prop_assert!(!flat || sets.memberships()[&node.id].abs_diff(due) <= 1);
            }
            if !flat {
                let racks: BTreeSet<_> = sets.nodes.iter().map(|node| &node.domain[0]).collect();
                let sizes: Vec<usize> =
                    racks.iter().map(|rack| sets.nodes.iter().filter(|node| node.domain[0] == **rack).count()).collect();
                prop_assert!(most_per_domain(sets, 0) <= even_share(&sizes, width));
            }
        }
        if before.sets.len() == after.sets.len() {
            // No less can move: what every node has too few of, under the new map.
            let was = before.memberships();
            let optimum: usize = if joins {
                after.memberships()[&last]
            } else {
                was[&last]
            };
            let moved = moved(&before, &after);
            prop_assert!(moved >= optimum);
            prop_assert!(moved <= 2 * optimum + nodes.len() / 2, "{} moved, {} is the optimum", moved, optimum);
        }
    }
}
