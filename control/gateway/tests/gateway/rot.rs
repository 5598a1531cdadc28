//! Bit rot, thousands of flips: no wrong byte is ever returned, one scrub finds every shard that was hit and no other,
//! and repair restores full redundancy.
//!
//! `PENSTOCK_ROT_FLIPS` says how many flips (10,000 for the whole proof); without it, a tenth.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom, Write};

use penstock_proto::ShardKey;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::house::{House, MIB, code, random_bytes};

const FLIPS_PER_ROUND: usize = 250;
/// What of a device is looked at: its first two extents. One is kept back, the other is all that is used.
const LOOKED_AT: usize = 130 << 20;

fn flips() -> usize {
    std::env::var("PENSTOCK_ROT_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Where the payload of each shard lies on a device, found by its first bytes.
async fn payloads(house: &House, node: usize) -> BTreeMap<usize, (ShardKey, usize)> {
    let store = &house.nodes[node].1;
    let (shards, more) = store.list(None, 100_000);
    assert!(!more);
    let mut starts: HashMap<Vec<u8>, (ShardKey, usize)> = HashMap::new();
    for shard in shards {
        let (bytes, whole) = store.get(shard.key, 0, 64, shard.crc64).await.unwrap();
        starts.insert(bytes.to_vec(), (shard.key, whole as usize));
    }
    let mut device = vec![0; LOOKED_AT];
    std::fs::File::open(house.device(node)).unwrap().read_exact(&mut device).unwrap();
    let mut found = BTreeMap::new();
    for (number, block) in device.chunks(64).enumerate() {
        if let Some(shard) = starts.get(block) {
            // Of copies, the last is the one that lives: frames are appended.
            found.retain(|_, known: &mut (ShardKey, usize)| known.0 != shard.0);
            found.insert(number * 64, *shard);
        }
    }
    let missing: Vec<_> = starts.values().filter(|shard| !found.values().any(|found| found.0 == shard.0)).collect();
    assert!(missing.is_empty(), "not found on the device: {missing:?}, found {found:?}");
    found
}

fn flip(house: &House, node: usize, at: usize, bit: u8) {
    let mut file = std::fs::File::options().read(true).write(true).open(house.device(node)).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte[0] ^ (1 << bit)]).unwrap();
}

/// One whole scrub of a node: what it found.
async fn scrub(house: &House, node: usize) -> BTreeSet<ShardKey> {
    let (mut bad, mut after) = (BTreeSet::new(), None);
    loop {
        let step = house.nodes[node].1.scrub_step(after, 8 << 20).await.unwrap();
        bad.extend(step.bad);
        match step.next {
            Some(next) => after = Some(next),
            None => return bad,
        }
    }
}

async fn all_read(house: &House, objects: &[(String, Vec<u8>)]) {
    for (key, bytes) in objects {
        assert!(house.get(key).await.unwrap() == *bytes, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_byte_and_every_flip_is_found_and_repaired() {
    let mut house = House::new(code(4, 2)).await;
    let mut random = SmallRng::seed_from_u64(7);
    let mut objects = Vec::new();
    for (number, size) in [512, 5_000, 70_000, 300_000, MIB, 4 * MIB, 5 * MIB + 77].into_iter().enumerate() {
        objects.push((format!("k{number}"), random_bytes(number as u64, size)));
    }
    for (key, bytes) in &objects {
        house.put(key, bytes).await.unwrap();
    }
    let shards = house.shards();
    let (mut flipped, mut hit_total, mut found_total, mut rebuilt_total) = (0, 0, 0, 0);
    while flipped < flips() {
        // Two devices rot at a time: what is lost of a stripe is what the code bears.
        let first = random.random_range(0..6);
        let rotting = [first, (first + random.random_range(1..6)) % 6];
        let mut expected = BTreeSet::new();
        for node in rotting {
            let payloads = payloads(&house, node).await;
            let places: Vec<_> = payloads.iter().collect();
            for _ in 0..FLIPS_PER_ROUND / 2 {
                let (start, (key, length)) = places[random.random_range(0..places.len())];
                flip(&house, node, start + random.random_range(0..*length), random.random_range(0..8));
                expected.insert((node, *key));
            }
            flipped += FLIPS_PER_ROUND / 2;
        }
        all_read(&house, &objects).await;
        let mut found = BTreeSet::new();
        for node in rotting {
            found.extend(scrub(&house, node).await.into_iter().map(|key| (node, key)));
        }
        assert!(found.is_subset(&expected), "sound shards are not accused");
        let missed: Vec<_> = expected.difference(&found).collect();
        assert!(missed.is_empty(), "flips in {missed:?} were not found");
        house.clock.advance_ms(31_000);
        house.gateway.look_at_nodes_now().await;
        house.gateway.survey_if_wished_now().await.unwrap().expect("new damage asks for a survey");
        let repaired = house.gateway.repair_now().await.unwrap();
        hit_total += expected.len();
        found_total += found.len();
        rebuilt_total += repaired.shards as usize;
        for node in rotting {
            assert_eq!(scrub(&house, node).await, BTreeSet::new(), "after the repair");
            assert_eq!(house.nodes[node].1.status().broken_shards, 0);
        }
    }
    assert_eq!((hit_total, found_total, rebuilt_total), (found_total, rebuilt_total, hit_total));

    // Everything else on two devices, heads and footers of the log among it; and the nodes are started again.
    for node in [0, 3] {
        let payloads = payloads(&house, node).await;
        let (first, (last, (_, length))) = (payloads.keys().next().unwrap(), payloads.iter().next_back().unwrap());
        // From the head of the first frame on.
        let used = first - 4096..last + length;
        for _ in 0..FLIPS_PER_ROUND / 2 {
            flip(&house, node, random.random_range(used.clone()), random.random_range(0..8));
        }
        all_read(&house, &objects).await;
        house.restart(node).await;
        all_read(&house, &objects).await;
    }
    for node in [0, 3] {
        scrub(&house, node).await;
    }
    for _ in 0..3 {
        house.gateway.keep_now().await.unwrap();
        house.clock.advance_ms(60_000);
    }
    let (found, _) = house.gateway.keep_now().await.unwrap();
    assert_eq!((found.shards_bad, house.shards()), (0, shards), "{found:?}");
    for node in 0..6 {
        assert_eq!(scrub(&house, node).await, BTreeSet::new());
    }
    for (one, other) in [(1, 2), (4, 5), (2, 4)] {
        house.lose(one);
        house.lose(other);
        all_read(&house, &objects).await;
        house.bring_back(one);
        house.bring_back(other);
    }
    println!(
        "{flipped} flips hit {hit_total} shards, {found_total} found, {rebuilt_total} rebuilt, 0 wrong bytes returned"
    );
}
