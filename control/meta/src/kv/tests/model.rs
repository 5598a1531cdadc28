//! Random operations of one transaction after another, held against a `BTreeMap`: reads of own writes, ranges in both
//! directions with limits, range clears, counters.

use std::collections::BTreeMap;

use super::{Subject, read_all};
use crate::kv::random::SplitMix;
use crate::kv::{BodyFuture, KvError, RangeRead, Transaction, transact};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Short keys over a small alphabet, so that operations meet. Rows and counters have prefixes of their own.
fn key(random: &mut SplitMix, prefix: u8) -> Vec<u8> {
    let mut key = vec![prefix];
    for _ in 0..random.below(3) {
        key.push(random.below(4) as u8 * 0x55);
    }
    key
}

fn add(model: &mut Model, key: &[u8], delta: i64) {
    let before = model.get(key).map_or(0, |value| i64::from_le_bytes(value.as_slice().try_into().unwrap()));
    model.insert(key.to_vec(), before.wrapping_add(delta).to_le_bytes().to_vec());
}

fn expected(model: &Model, range: &RangeRead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = model.iter().filter(|(key, _)| **key >= range.begin && **key < range.end);
    let mut rows: Vec<_> = rows.map(|(key, value)| (key.clone(), value.clone())).collect();
    if range.reverse {
        rows.reverse();
    }
    if range.limit > 0 {
        rows.truncate(range.limit);
    }
    rows
}

/// One transaction of random operations; the model changes along and every read is compared.
fn run<'a>(txn: &'a mut dyn Transaction, seed: u64, before: &'a Model) -> BodyFuture<'a, Model, KvError> {
    Box::pin(async move {
        let mut random = SplitMix::new(seed);
        let mut model = before.clone();
        for _ in 0..30 {
            match random.below(12) {
                0..3 => {
                    let key = key(&mut random, b'r');
                    let value = vec![random.next() as u8; random.below(40) as usize];
                    txn.set(&key, &value)?;
                    model.insert(key, value);
                }
                3..5 => {
                    let prefix = if random.below(2) == 0 { b'r' } else { b'c' };
                    let key = key(&mut random, prefix);
                    txn.clear(&key)?;
                    model.remove(&key);
                }
                5 => {
                    let (begin, end) = (key(&mut random, b'c'), key(&mut random, b'r'));
                    txn.clear_range(&begin, &end)?;
                    model.retain(|key, _| *key < begin || *key >= end);
                }
                6 => {
                    let (one, other) = (key(&mut random, b'r'), key(&mut random, b'r'));
                    txn.clear_range(&one, &other)?; // empty half of the time: must do nothing then
                    model.retain(|key, _| *key < one || *key >= other);
                }
                7..9 => {
                    let (key, delta) = (key(&mut random, b'c'), random.next() as i64);
                    txn.atomic_add(&key, delta)?;
                    add(&mut model, &key, delta);
                }
                9 => {
                    let prefix = if random.below(2) == 0 { b'r' } else { b'c' };
                    let key = key(&mut random, prefix);
                    let value = txn.get(&key).await?;
                    assert_eq!(value.as_deref(), model.get(&key).map(Vec::as_slice), "seed {seed}, key {key:?}");
                }
                _ => {
                    let range = RangeRead {
                        begin: key(&mut random, b'c'),
                        end: if random.below(2) == 0 { b"s".to_vec() } else { key(&mut random, b'r') },
                        limit: random.below(8) as usize,
                        reverse: random.below(2) == 0,
                        snapshot: random.below(2) == 0,
                    };
                    let rows = read_all(txn, range.clone()).await?;
                    assert_eq!(rows, expected(&model, &range), "seed {seed}, {range:?}");
                }
            }
        }
        let all = read_all(txn, RangeRead::between(b"", b"\xff")).await?;
        assert_eq!(all, expected(&model, &RangeRead::between(b"", b"\xff")), "seed {seed}");
        Ok(model)
    })
}

/// 150 transactions in a row, each on what the one before left.
pub(super) async fn random_operations_match_the_model(subject: Subject) {
    let mut model = Model::new();
    for seed in 0..150 {
        let before = &model;
        model = transact(&*subject.kv, |txn| run(txn, seed, before)).await.unwrap();
        let after = transact::<_, KvError, _>(&*subject.kv, |txn| {
            Box::pin(read_all(txn, RangeRead::between(b"", b"\xff").reversed()))
        });
        let all = RangeRead::between(b"", b"\xff").reversed();
        assert_eq!(after.await.unwrap(), expected(&model, &all), "after the commit of seed {seed}");
    }
    assert!(!model.is_empty());
}
