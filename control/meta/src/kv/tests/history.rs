//! Strict serialisability of concurrent histories.
//!
//! Every key holds a list of transaction ids; a writer appends its id to what it read. The final lists give the order of
//! the writes of every key, every read is a prefix of its key's list, and so all dependencies between transactions are
//! known: who read whose write (wr), whose write followed whose (ww), whose read was overtaken by whose write (rw), and
//! who was acknowledged before who began (real time). The history is strictly serialisable if and only if nothing
//! impossible was read and these dependencies have no cycle. (The method is Elle's; Kingsbury, Alvaro 2020.)
//!
//! The checker is shown planted violations of every kind first: a silent detector proves nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Subject, read_all};
use crate::kv::random::SplitMix;
use crate::kv::{BodyFuture, Kv, KvError, MemKv, RangeRead, Transaction, transact};

const KEYS: u64 = 6;

/// One committed transaction.
#[derive(Clone, Debug, Default)]
struct Done {
    /// Not 0 for writers; unique.
    id: u64,
    began: u64,
    acknowledged: u64,
    /// What it read before its own writes: key -> list.
    reads: Vec<(u64, Vec<u64>)>,
    /// The keys to whose lists it appended its id.
    appends: Vec<u64>,
}

/// Says what is wrong with a history, if anything.
fn violation(history: &[Done], finals: &BTreeMap<u64, Vec<u64>>) -> Option<String> {
    let by_id: HashMap<u64, usize> = history.iter().enumerate().map(|(at, done)| (done.id, at)).collect();
    if by_id.len() != history.len() {
        return Some("the history names a transaction twice".into());
    }
    let empty = Vec::new();
    let list = |key: &u64| finals.get(key).unwrap_or(&empty);
    // The lists hold exactly the acknowledged appends, each once.
    for (key, ids) in finals {
        let unique: HashSet<_> = ids.iter().collect();
        if unique.len() != ids.len() {
            return Some(format!("key {key}: an append took effect twice"));
        }
        if let Some(id) = ids.iter().find(|id| !by_id.get(id).is_some_and(|at| history[*at].appends.contains(key))) {
            return Some(format!("key {key}: {id} is there, but no transaction committed it"));
        }
    }
    for done in history {
        if let Some(key) = done.appends.iter().find(|key| !list(key).contains(&done.id)) {
            return Some(format!("key {key}: the acknowledged append of {} is lost", done.id));
        }
        if let Some((key, _)) = done.reads.iter().find(|(key, read)| !list(key).starts_with(read)) {
            return Some(format!("{} read of key {key} what never was", done.id));
        }
    }
    // Dependencies. An edge a -> b: a comes before b in every explanation.
    let mut edges: Vec<Vec<usize>> = vec![Vec::new(); history.len()];
    for ids in finals.values() {
        for pair in ids.windows(2) {
            edges[by_id[&pair[0]]].push(by_id[&pair[1]]);
        }
    }
    for (at, done) in history.iter().enumerate() {
        for (key, read) in &done.reads {
            if let Some(writer) = read.last().filter(|id| **id != done.id) {
                edges[by_id[writer]].push(at);
            }
            if let Some(next) = list(key).get(read.len()).filter(|id| **id != done.id) {
                edges[at].push(by_id[next]);
            }
        }
        for (other, later) in history.iter().enumerate() {
            if done.acknowledged < later.began {
                edges[at].push(other);
            }
        }
    }
    let mut waiting = vec![0usize; history.len()];
    for successors in &edges {
        for successor in successors {
            waiting[*successor] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..history.len()).filter(|at| waiting[*at] == 0).collect();
    let mut explained = 0;
    while let Some(at) = ready.pop() {
        explained += 1;
        for successor in &edges[at] {
            waiting[*successor] -= 1;
            if waiting[*successor] == 0 {
                ready.push(*successor);
            }
        }
    }
    (explained != history.len())
        .then(|| format!("{} transactions depend on each other in a cycle", history.len() - explained))
}

fn done(id: u64, span: (u64, u64), reads: &[(u64, &[u64])], appends: &[u64]) -> Done {
    let reads = reads.iter().map(|(key, list)| (*key, list.to_vec())).collect();
    Done { id, began: span.0, acknowledged: span.1, reads, appends: appends.to_vec() }
}

#[test]
fn canary_the_checker_accepts_what_is_right_and_sees_every_kind_of_wrong() {
    let finals = BTreeMap::from([(0, vec![1, 2]), (1, vec![2])]);
    let right = vec![
        done(1, (1, 4), &[(0, &[])], &[0]),
        done(2, (2, 6), &[(0, &[1]), (1, &[])], &[0, 1]),
        done(3, (3, 7), &[(0, &[1]), (1, &[])], &[]), // overlaps with 2: may come before it
        done(4, (8, 9), &[(0, &[1, 2]), (1, &[2])], &[]),
    ];
    assert_eq!(violation(&right, &finals), None);

    let mut stale = right.clone();
    stale[3].reads[1].1.clear(); // began after 2 was acknowledged, did not see it
    stale[3].reads[0].1.pop();
    assert!(violation(&stale, &finals).unwrap().contains("cycle"), "stale read");

    let mut torn = right.clone();
    torn[2].reads[1].1.push(2); // sees half of 2
    assert!(violation(&torn, &finals).unwrap().contains("cycle"), "fractured read");

    let lost = BTreeMap::from([(0, vec![2]), (1, vec![2])]);
    assert!(violation(&right, &lost).unwrap().contains("lost"), "lost append");

    let twice = BTreeMap::from([(0, vec![1, 2, 1]), (1, vec![2])]);
    assert!(violation(&right, &twice).unwrap().contains("twice"), "double append");

    let aborted = BTreeMap::from([(0, vec![1, 2, 9]), (1, vec![2])]);
    assert!(violation(&right, &aborted).unwrap().contains("no transaction committed it"), "append of an aborted one");

    let mut dirty = right.clone();
    dirty[2].reads[0].1 = vec![1, 9];
    assert!(violation(&dirty, &finals).unwrap().contains("never was"), "dirty read");

    let skew = [done(1, (1, 3), &[(0, &[]), (1, &[])], &[0]), done(2, (2, 4), &[(0, &[]), (1, &[])], &[1])];
    let both = BTreeMap::from([(0, vec![1]), (1, vec![2])]);
    assert!(violation(&skew, &both).unwrap().contains("cycle"), "write skew");

    let update = [done(1, (1, 3), &[(0, &[])], &[0]), done(2, (2, 4), &[(0, &[])], &[0])];
    assert!(violation(&update, &BTreeMap::from([(0, vec![1, 2])])).unwrap().contains("cycle"), "lost update");
}

fn name(key: u64) -> Vec<u8> {
    format!("list/{key}").into_bytes()
}

fn parse(value: Option<&[u8]>) -> Vec<u64> {
    let (ids, rest) = value.unwrap_or_default().as_chunks::<8>();
    assert!(rest.is_empty());
    ids.iter().map(|id| u64::from_le_bytes(*id)).collect()
}

/// A random transaction: appends, single reads, reads of all lists at once.
fn body<'a>(txn: &'a mut dyn Transaction, id: u64, seed: u64) -> BodyFuture<'a, Done, KvError> {
    Box::pin(async move {
        let mut random = SplitMix::new(seed);
        let mut done = Done { id, ..Done::default() };
        for _ in 0..1 + random.below(3) {
            let key = random.below(KEYS);
            match random.below(4) {
                0..2 => {
                    let list = parse(txn.get(&name(key)).await?.as_deref());
                    if !done.appends.contains(&key) {
                        let value: Vec<u8> = list.iter().chain([&id]).flat_map(|id| id.to_le_bytes()).collect();
                        txn.set(&name(key), &value)?;
                        done.appends.push(key);
                        done.reads.push((key, list));
                    } else {
                        assert_eq!(list.last(), Some(&id), "own writes are read");
                    }
                }
                2 => {
                    let list = parse(txn.get(&name(key)).await?.as_deref());
                    if !done.appends.contains(&key) {
                        done.reads.push((key, list));
                    }
                }
                _ => {
                    let mut range = RangeRead::prefix(b"list/").limit(random.below(4) as usize * 5);
                    range.reverse = random.below(2) == 0;
                    let complete = range.limit == 0 || range.limit >= KEYS as usize;
                    let rows: HashMap<_, _> = read_all(txn, range).await?.into_iter().collect();
                    for key in (0..KEYS).filter(|key| !done.appends.contains(key)) {
                        match rows.get(&name(key)) {
                            Some(list) => done.reads.push((key, parse(Some(list)))),
                            None if complete => done.reads.push((key, Vec::new())),
                            None => {}
                        }
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(done)
    })
}

async fn final_lists(kv: &dyn Kv) -> BTreeMap<u64, Vec<u64>> {
    let mut finals = BTreeMap::new();
    for key in 0..KEYS {
        let name = &name(key);
        let value = transact::<_, KvError, _>(kv, |txn| Box::pin(txn.get(name))).await.unwrap();
        finals.insert(key, parse(value.as_deref()));
    }
    finals
}

/// 8 tasks x 60 transactions over 6 keys; long transactions make conflicts certain.
pub(super) async fn concurrent_histories_are_strictly_serialisable(subject: Subject) {
    let clock = Arc::new(AtomicU64::new(1));
    let ids = Arc::new(AtomicU64::new(1));
    let mut tasks = Vec::new();
    for task in 0..8 {
        let (kv, clock, ids) = (Arc::clone(&subject.kv), Arc::clone(&clock), Arc::clone(&ids));
        tasks.push(tokio::spawn(async move {
            let mut history = Vec::new();
            for round in 0..60 {
                let id = ids.fetch_add(1, Ordering::SeqCst);
                let began = clock.fetch_add(1, Ordering::SeqCst);
                let result = transact(&*kv, |txn| body(txn, id, task * 1000 + round)).await;
                let acknowledged = clock.fetch_add(1, Ordering::SeqCst);
                match result {
                    Ok(done) => history.push(Done { began, acknowledged, ..done }),
                    Err(error) => panic!("transaction {id}: {error}"),
                }
            }
            history
        }));
    }
    let mut history = Vec::new();
    for task in tasks {
        history.extend(task.await.unwrap());
    }
    let finals = final_lists(&*subject.kv).await;
    assert!(finals.values().map(Vec::len).sum::<usize>() > 200, "the workload writes");
    assert_eq!(violation(&history, &finals), None);
}

/// A store that forgets what was read: snapshot isolation only. The checker must see through it.
struct Forgetful(MemKv);

struct ForgetfulTransaction(Box<dyn Transaction>);

#[async_trait::async_trait]
impl Kv for Forgetful {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        Ok(Box::new(ForgetfulTransaction(self.0.begin().await?)))
    }
    async fn close(&self) -> Result<(), KvError> {
        self.0.close().await
    }
    fn engine_name(&self) -> &'static str {
        "forgetful"
    }
}

#[async_trait::async_trait]
impl Transaction for ForgetfulTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<bytes::Bytes>, KvError> {
        let end = [key, &[0]].concat();
        let page = self.0.get_range(RangeRead { snapshot: true, ..RangeRead::between(key, &end) }).await?;
        Ok(page.rows.into_iter().next().map(|(_, value)| value))
    }
    async fn get_range(&mut self, range: RangeRead) -> Result<crate::kv::RangePage, KvError> {
        self.0.get_range(RangeRead { snapshot: true, ..range }).await
    }
    crate::pass_writes_through!(self => self.0);
    async fn commit(self: Box<Self>) -> Result<crate::kv::CommitVersion, KvError> {
        self.0.commit().await
    }
}

/// Two transactions side by side, each reading both keys and appending to one, on a store of choice.
async fn side_by_side(kv: &dyn Kv, appends: [u64; 2]) -> (Vec<Done>, BTreeMap<u64, Vec<u64>>) {
    let mut open = Vec::new();
    for (task, key) in appends.into_iter().enumerate() {
        let id = task as u64 + 1;
        let mut txn = kv.begin().await.unwrap();
        let mut reads = Vec::new();
        for read in [0, 1] {
            reads.push((read, parse(txn.get(&name(read)).await.unwrap().as_deref())));
        }
        txn.set(&name(key), &id.to_le_bytes()).unwrap();
        open.push((txn, Done { id, began: id, acknowledged: id + 10, reads, appends: vec![key] }));
    }
    let mut history = Vec::new();
    for (txn, done) in open {
        if txn.commit().await.is_ok() {
            history.push(done);
        }
    }
    (history, final_lists(kv).await)
}

#[tokio::test]
async fn canary_a_store_without_read_conflicts_is_found_out() {
    for (appends, found) in [([0, 0], "lost"), ([0, 1], "cycle")] {
        let (history, finals) = side_by_side(&Forgetful(MemKv::new()), appends).await;
        assert_eq!(history.len(), 2, "nothing stops the second");
        assert!(violation(&history, &finals).unwrap().contains(found));
        let (history, finals) = side_by_side(&MemKv::new(), appends).await;
        assert_eq!(history.len(), 1, "the second is refused");
        assert_eq!(violation(&history, &finals), None);
    }
}
