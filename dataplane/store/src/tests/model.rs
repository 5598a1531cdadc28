//! Random operations with power cuts at random moments, against a model that fits on a page.
//!
//! The model: a put or delete that was answered well has happened; one that was answered with a device's error, or not
//! at all, may have happened or not, and the next look decides for good. A seed that ever failed is kept in `SEEDS`.

use std::collections::BTreeMap;

use penstock_proto::{DataId, ShardKey};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{SMALL_BYTES, get, key, open_on, put, quiet};
use crate::testing::FaultDisk;
use crate::{ShardStore, StoreError};

/// Runs of every test; more by `PENSTOCK_STORE_MODEL_RUNS`.
const RUNS: u64 = 16;
const LIVES_PER_RUN: u32 = 6;
const SEEDS: [u64; 0] = [];
const LENGTHS: [usize; 7] = [64, 1000, 4096, 33_000, 65_600, 300_000, 1_200_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stored,
    MaybeStored,
    Gone,
}

#[derive(Default)]
struct Model {
    shards: BTreeMap<ShardKey, (usize, Fate)>,
    /// Deleted, and whether that is certain.
    deleted: BTreeMap<DataId, bool>,
    next: u128,
}

impl Model {
    fn new_shard(&mut self, random: &mut StdRng) -> (ShardKey, usize) {
        // Sometimes another shard of data that is there already.
        let data = if self.next > 0 && random.random_ratio(1, 2) {
            self.next - random.random_range(0..self.next.min(20))
        } else {
            self.next += 1;
            self.next
        };
        let stripe = random.random_range(0..1 << 30);
        (key(data, stripe, 0), LENGTHS[random.random_range(0..LENGTHS.len())])
    }

    fn putted(&mut self, key: ShardKey, length: usize, result: &Result<u64, StoreError>) {
        let fate = match result {
            Ok(_) => Fate::Stored,
            Err(StoreError::DataDeleted) => {
                assert!(self.deleted.contains_key(&key.data), "refused without having been deleted: {key}");
                Fate::Gone
            }
            Err(StoreError::NoSpace) => Fate::MaybeStored,
            Err(StoreError::DeviceFailed { .. } | StoreError::Io { .. } | StoreError::Closed) => Fate::MaybeStored,
            Err(other) => panic!("{other}"),
        };
        self.shards.insert(key, (length, fate));
    }

    fn deleting(&mut self, data: DataId, done: bool) {
        let certain = self.deleted.entry(data).or_default();
        *certain |= done;
        for (_, (_, fate)) in self.shards.iter_mut().filter(|(key, _)| key.data == data) {
            *fate = match *fate {
                _ if *certain => Fate::Gone,
                Fate::Gone => Fate::Gone,
                _ => Fate::MaybeStored,
            };
        }
    }

    /// Looks at everything. What was uncertain is what the store shows, from now on.
    async fn compare(&mut self, store: &ShardStore, what: &str) {
        let mut live = 0;
        let mut shown: BTreeMap<DataId, bool> = BTreeMap::new();
        for (key, (length, fate)) in &mut self.shards {
            let found = get(store, *key, *length).await;
            match (*fate, &found) {
                (Fate::Stored, Ok(())) | (Fate::Gone, Err(StoreError::NoSuchShard)) => {}
                (Fate::MaybeStored, Ok(())) => {
                    *fate = Fate::Stored;
                    shown.insert(key.data, true);
                }
                (Fate::MaybeStored, Err(StoreError::NoSuchShard)) => *fate = Fate::Gone,
                (fate, found) => panic!("{what}: {key} ({length} bytes) is {fate:?}, found {found:?}"),
            }
            live += u64::from(found.is_ok());
        }
        // A delete that killed nothing did not happen; nor did one whose data still shows.
        self.deleted.retain(|data, certain| *certain || !shown.contains_key(data));
        assert_eq!(store.status().shards, live, "{what}: shards that nobody put");
    }
}

/// What the runs met: without these they would prove little.
#[derive(Debug, Default)]
struct Seen {
    torn_tails: u64,
    table_repairs: u64,
    extents_freed: u64,
    moved_shards: u64,
}

async fn live(store: &ShardStore, model: &mut Model, random: &mut StdRng, operations: u32) {
    for _ in 0..operations {
        match random.random_range(0..20) {
            0..12 => {
                let batch: Vec<_> = (0..random.random_range(1..9)).map(|_| model.new_shard(random)).collect();
                let tasks: Vec<_> = batch
                    .iter()
                    .map(|(key, length)| {
                        let (store, key, length) = (store.clone(), *key, *length);
                        tokio::spawn(async move { put(&store, key, length).await })
                    })
                    .collect();
                for ((key, length), task) in batch.into_iter().zip(tasks) {
                    model.putted(key, length, &task.await.unwrap());
                }
            }
            12..17 if model.next > 0 => {
                let data = DataId(random.random_range(1..=model.next));
                let result = store.delete(data).await;
                model.deleting(data, result.is_ok());
            }
            17 => {
                // Too little room and failed devices are not its concern.
                let _ = store.compact().await;
            }
            _ => {
                let Some((key, (length, fate))) = model.shards.iter().nth(random.random_range(0..=model.shards.len()))
                else {
                    continue;
                };
                let found = get(store, *key, *length).await;
                match (fate, found) {
                    (Fate::Stored, Ok(()) | Err(StoreError::Io { .. }))
                    | (Fate::Gone, Err(StoreError::NoSuchShard))
                    | (Fate::MaybeStored, _) => {}
                    (fate, found) => panic!("{key} is {fate:?}, found {found:?}"),
                }
            }
        }
    }
}

async fn run(seed: u64, seen: &mut Seen) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = FaultDisk::new(SMALL_BYTES, seed);
    let mut model = Model::default();
    for life in 0..LIVES_PER_RUN {
        let what = format!("seed {seed}, life {life}");
        let store = open_on(disk.attach(), quiet()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        model.compare(&store, &what).await;
        let stats = store.stats();
        assert_eq!((stats.frames_lost, stats.footers_lost, stats.corrupt_reads), (0, 0, 0), "{what}");
        seen.torn_tails += stats.torn_tails;
        seen.table_repairs += stats.table_repairs;
        let operations = random.random_range(5..60);
        match random.random_range(0..5) {
            // The power goes in the middle of something.
            0..3 => {
                disk.cut_power_after(random.random_range(1..300));
                live(&store, &mut model, &mut random, operations).await;
                disk.cut_power();
            }
            // The process dies, in the middle of something.
            3 => {
                live(&store, &mut model, &mut random, operations).await;
                let batch: Vec<_> = (0..random.random_range(1..9)).map(|_| model.new_shard(&mut random)).collect();
                for (key, length) in batch {
                    // What becomes of it, the next life will show.
                    let certain = model.deleted.get(&key.data).is_some_and(|certain| *certain);
                    model.shards.insert(key, (length, if certain { Fate::Gone } else { Fate::MaybeStored }));
                    let store = store.clone();
                    tokio::spawn(async move { put(&store, key, length).await });
                }
                for _ in 0..random.random_range(0..12) {
                    tokio::task::yield_now().await;
                }
            }
            // All in order.
            _ => {
                live(&store, &mut model, &mut random, operations).await;
                store.close().await;
            }
        }
        seen.extents_freed += store.stats().extents_freed;
        seen.moved_shards += store.stats().moved_shards;
    }
    let store = open_on(disk.attach(), quiet()).await.unwrap();
    model.compare(&store, &format!("seed {seed}, the end")).await;
}

// One thread: a seed's run can be had again.
#[tokio::test]
async fn acknowledged_puts_stay_and_deleted_data_stays_away() {
    let runs = std::env::var("PENSTOCK_STORE_MODEL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let mut seen = Seen::default();
    for seed in SEEDS.into_iter().chain(0..runs) {
        run(seed, &mut seen).await;
    }
    let all = [seen.torn_tails, seen.table_repairs, seen.extents_freed, seen.moved_shards];
    assert!(all.iter().all(|count| *count > 0), "the runs are too tame: {seen:?}");
}
