use std::collections::{BTreeMap, BTreeSet};

use penstock_proto::MapEpoch;

use super::*;
use crate::hash::{hash, minus_log2};

fn node(id: u16, weight: u32, domain: &[&str]) -> NodeEntry {
    NodeEntry { id: NodeId(id), weight, domain: domain.iter().map(|name| (*name).to_owned()).collect() }
}

fn map(nodes: Vec<NodeEntry>) -> ClusterMap {
    ClusterMap::new(MapEpoch(1), nodes).unwrap()
}

fn flat(nodes: u16) -> ClusterMap {
    map((0..nodes).map(|id| node(id, 1, &[])).collect())
}

/// Data ids of a fixed seed: tests say the same on every run.
fn data_ids(count: u64) -> impl Iterator<Item = DataId> {
    (0..count).map(|i| {
        let word = |j| hash(DataId(0xfeed), 0, NodeId(j)).wrapping_mul(2 * i + 1) ^ (i << 7);
        DataId((u128::from(word(0)) << 64) | u128::from(word(1)))
    })
}

fn set(nodes: &[NodeId]) -> BTreeSet<NodeId> {
    nodes.iter().copied().collect()
}

#[test]
fn golden_hashes_and_logarithms() {
    assert_eq!(hash(DataId(0), 0, NodeId(0)), GOLDEN_HASHES[0]);
    assert_eq!(hash(DataId(1), 2, NodeId(3)), GOLDEN_HASHES[1]);
    assert_eq!(hash(DataId(u128::MAX), u32::MAX, NodeId(u16::MAX)), GOLDEN_HASHES[2]);
    assert_eq!(minus_log2(1 << 63), 1 << 48);
    assert_eq!(minus_log2(1), 64 << 48);
    assert_eq!(minus_log2(0), 64 << 48);
    assert!(minus_log2(u64::MAX) > 0, "no key is zero: weights would not matter");
}
// All golden values here come from an independent reading of the documented formula (in Python, with floats).
const GOLDEN_HASHES: [u64; 3] = [10709605192711416551, 10461485232455078833, 1330932229226046333];

#[test]
fn the_logarithm_is_one() {
    for hash in data_ids(1000).map(|id| id.0 as u64) {
        let exact = 64.0 - (hash as f64).log2();
        let ours = minus_log2(hash) as f64 / (1u64 << 48) as f64;
        assert!((exact - ours).abs() < 1e-9, "{hash:#x}: {ours} is not {exact}");
    }
}

#[test]
fn golden_placements() {
    let plain = |map: &ClusterMap, data, group, shards| -> Vec<u16> {
        place(map, DataId(data), group, shards).unwrap().into_iter().map(|id| id.0).collect()
    };
    let weighted = map((0..10).map(|id| node(id, 1 + u32::from(id) * 10, &[])).collect());
    let racks =
        map((0..12).map(|id| node(id, 4, &[&format!("zone-{}", id % 2), &format!("rack-{}", id % 6)])).collect());
    assert_eq!(plain(&flat(20), 0, 0, 14), GOLDEN_FLAT);
    assert_eq!(plain(&flat(20), 0, 1, 3), GOLDEN_GROUP);
    assert_eq!(plain(&weighted, 7, 0, 6), GOLDEN_WEIGHTED);
    assert_eq!(plain(&racks, 7, 0, 6), GOLDEN_RACKS);
}
const GOLDEN_FLAT: [u16; 14] = [9, 2, 12, 18, 0, 15, 5, 19, 3, 8, 4, 6, 16, 10];
const GOLDEN_GROUP: [u16; 3] = [11, 3, 15];
const GOLDEN_WEIGHTED: [u16; 6] = [8, 9, 1, 6, 4, 7];
const GOLDEN_RACKS: [u16; 6] = [0, 1, 10, 8, 9, 11];

#[test]
fn the_order_of_the_map_and_the_names_of_domains_change_nothing() {
    let forth = map((0..30).map(|id| node(id, 1 + u32::from(id % 3), &[&format!("rack-{}", id % 5)])).collect());
    let mut back = forth.clone();
    back.nodes.reverse();
    let mut renamed = forth.clone();
    for entry in &mut renamed.nodes {
        entry.domain[0].insert_str(0, "new-");
    }
    for data in data_ids(200) {
        let expected = place(&forth, data, 3, 9);
        assert_eq!(place(&back, data, 3, 9), expected);
        assert_eq!(place(&renamed, data, 3, 9), expected);
        assert_ne!(place(&forth, data, 4, 9), expected, "another group, another placement (once in 30!/21! equal)");
    }
}

#[test]
fn nodes_are_distinct_and_as_many_as_asked() {
    for nodes in 1..20u16 {
        let map = flat(nodes);
        for shards in 0..=usize::from(nodes) {
            for data in data_ids(20) {
                let placed = place(&map, data, 0, shards).unwrap();
                assert_eq!((placed.len(), set(&placed).len()), (shards, shards));
            }
        }
    }
}

#[test]
fn the_first_node_is_drawn_in_proportion_to_weight() {
    let map = map((0..8).map(|id| node(id, u32::from(id) + 1, &[])).collect());
    let mut hits = [0u32; 8];
    let draws = 36_000;
    for data in data_ids(draws) {
        hits[usize::from(place(&map, data, 0, 1).unwrap()[0].0)] += 1;
    }
    for (id, hits) in hits.iter().enumerate() {
        let expected = draws as f64 * (id + 1) as f64 / 36.0;
        let ratio = f64::from(*hits) / expected;
        assert!((0.85..1.15).contains(&ratio), "node {id}: {hits} of {expected} expected");
    }
}

#[test]
fn equal_nodes_are_equally_loaded_at_every_position() {
    let map = flat(20);
    let mut hits = vec![[0u32; 6]; 20];
    for data in data_ids(20_000) {
        for (position, id) in place(&map, data, 0, 6).unwrap().iter().enumerate() {
            hits[usize::from(id.0)][position] += 1;
        }
    }
    for (id, positions) in hits.iter().enumerate() {
        for (position, hits) in positions.iter().enumerate() {
            assert!((800..1200).contains(hits), "node {id} at {position}: {hits} times of 1000 expected");
        }
    }
}

#[test]
fn a_rack_of_twice_the_weight_is_drawn_twice_as_often_when_racks_are_plenty() {
    let nodes = (0..40).map(|id| node(id, if id < 4 { 2 } else { 1 }, &[&format!("rack-{}", id / 4)])).collect();
    let map = map(nodes);
    let draws = 22_000;
    let first: u32 = data_ids(draws).map(|data| u32::from(place(&map, data, 0, 1).unwrap()[0].0 < 4)).sum();
    let expected = draws as f64 * 2.0 / 11.0;
    assert!((0.9..1.1).contains(&(f64::from(first) / expected)), "{first} of {expected} expected");
}

#[test]
fn a_node_that_leaves_moves_its_own_shards_and_no_other() {
    let before = map((0..24).map(|id| node(id, 1 + u32::from(id % 4), &[])).collect());
    let gone = NodeId(7);
    let mut after = before.clone();
    after.nodes.retain(|entry| entry.id != gone);
    for data in data_ids(2000) {
        let old = set(&place(&before, data, 0, 6).unwrap());
        let new = set(&place(&after, data, 0, 6).unwrap());
        let left: Vec<_> = old.difference(&new).collect();
        assert!(left.is_empty() || left == [&gone], "{data} lost {left:?}, though only {gone} left");
    }
}

#[test]
fn a_node_that_joins_takes_its_share_and_moves_no_other() {
    let after = map((0..24).map(|id| node(id, 1 + u32::from(id % 4), &[])).collect());
    let came = NodeId(7);
    let mut before = after.clone();
    before.nodes.retain(|entry| entry.id != came);
    let (draws, shards) = (6000, 6);
    let mut moved = 0u32;
    for data in data_ids(draws) {
        let old = set(&place(&before, data, 0, shards).unwrap());
        let new = set(&place(&after, data, 0, shards).unwrap());
        let joined: Vec<_> = new.difference(&old).collect();
        assert!(joined.is_empty() || joined == [&came], "{data} got {joined:?}, though only {came} came");
        moved += joined.len() as u32;
    }
    // The optimum: the newcomer's share by weight, here 4 of 60, of all shards.
    let optimum = draws as f64 * shards as f64 * 4.0 / 60.0;
    assert!((0.8..1.2).contains(&(f64::from(moved) / optimum)), "{moved} moved, {optimum} are its share");
}

#[test]
fn movement_between_domains_stays_near_the_optimum() {
    // 6 racks of 4; one node leaves a rack. Shards of other data may only move where evenness asks for it.
    let before = map((0..24).map(|id| node(id, 1, &[&format!("rack-{}", id / 4)])).collect());
    let mut after = before.clone();
    after.nodes.retain(|entry| entry.id != NodeId(7));
    let (draws, shards) = (4000, 6);
    let mut moved = 0u32;
    for data in data_ids(draws) {
        let old = set(&place(&before, data, 0, shards).unwrap());
        let new = set(&place(&after, data, 0, shards).unwrap());
        moved += old.difference(&new).count() as u32;
    }
    let optimum = draws as f64 * shards as f64 / 24.0;
    let ratio = f64::from(moved) / optimum;
    assert!((0.8..1.5).contains(&ratio), "{moved} moved, the optimum is {optimum}");
}

/// Shards per domain at `level`.
fn per_domain(map: &ClusterMap, placed: &[NodeId], level: usize) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> =
        map.nodes.iter().map(|entry| (entry.domain[..=level].join("/"), 0)).collect();
    for id in placed {
        let entry = map.nodes.iter().find(|entry| entry.id == *id).unwrap();
        *counts.get_mut(&entry.domain[..=level].join("/")).unwrap() += 1;
    }
    counts
}

#[test]
fn no_domain_gets_more_than_its_ceiling_at_any_level() {
    // 2 zones x 3 racks x 2 hosts x 2 nodes.
    let nodes = (0..24u16)
        .map(|id| {
            let (zone, rack, host) = (id % 2, id / 2 % 3, id / 6 % 2);
            // Uneven weights must not win over spreading.
            node(id, 1 + u32::from(id) * 5, &[&format!("z{zone}"), &format!("r{rack}"), &format!("h{host}")])
        })
        .collect();
    let map = map(nodes);
    for shards in 1..=24usize {
        for data in data_ids(50) {
            let placed = place(&map, data, 0, shards).unwrap();
            for (level, domains) in [(0, 2usize), (1, 6), (2, 12)] {
                let counts = per_domain(&map, &placed, level);
                assert_eq!(counts.len(), domains);
                let most = counts.values().max().unwrap();
                assert!(*most <= shards.div_ceil(domains), "{shards} shards, level {level}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_small_domain_gives_what_it_has_and_the_rest_is_even() {
    let mut nodes = vec![node(0, 1, &["small"])];
    nodes.extend((1..7).map(|id| node(id, 1, &["left"])));
    nodes.extend((7..13).map(|id| node(id, 1, &["right"])));
    let map = map(nodes);
    for data in data_ids(100) {
        let counts = per_domain(&map, &place(&map, data, 0, 9).unwrap(), 0);
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [4, 4, 1]);
    }
}

#[test]
fn nodes_without_a_domain_are_domains_of_their_own() {
    let mut nodes: Vec<_> = (0..6).map(|id| node(id, 1, &["rack"])).collect();
    nodes.extend([node(6, 1, &[]), node(7, 1, &[])]);
    let map = map(nodes);
    for data in data_ids(100) {
        let placed = set(&place(&map, data, 0, 3).unwrap());
        assert!(placed.contains(&NodeId(6)) && placed.contains(&NodeId(7)), "{placed:?} puts two into the rack");
    }
}

#[test]
fn what_can_not_be_placed_says_why() {
    let error = place(&flat(3), DataId(1), 0, 6).unwrap_err();
    assert_eq!(error, PlacementError::TooFewNodes { shards: 6, nodes: 3, epoch: MapEpoch(1) });
    assert!(error.to_string().contains("6 shards") && error.to_string().contains("has 3"), "{error}");
    assert!(!error.is_retryable());

    let refused =
        |nodes: Vec<NodeEntry>| place(&ClusterMap { epoch: MapEpoch(2), nodes }, DataId(1), 0, 1).unwrap_err();
    assert_eq!(refused(vec![node(4, 1, &[]), node(4, 2, &[])]), PlacementError::DuplicateNode(NodeId(4)));
    assert_eq!(refused(vec![node(4, 0, &[])]), PlacementError::ZeroWeight(NodeId(4)));
    assert_eq!(refused(vec![node(4, 1, &["zone", ""])]), PlacementError::UnnamedDomain(NodeId(4)));
    assert_eq!(refused(vec![node(4, 1, &["x"; 9])]), PlacementError::TooDeep { node: NodeId(4), levels: 9 });
    assert!(matches!(refused(vec![]), PlacementError::TooFewNodes { nodes: 0, .. }));
}
