//! The group committer: how many batches there are, what happens when one fails, and what old transactions get.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::LONG;
use crate::kv::disk::FjallEngine;
use crate::kv::engine::{Batch, Engine, Room};
use crate::kv::mem::MemEngine;
use crate::kv::occ::{OccOptions, OccStore};
use crate::kv::{FjallOptions, Kv, KvError, MemKv, RangeRead, StoreStats, Transaction};

/// An engine whose batches wait for a gate and fail on demand.
struct Gated<E> {
    inner: E,
    open: Mutex<bool>,
    opened: Condvar,
    fails: AtomicBool,
    batches: AtomicUsize,
    room: Mutex<Room>,
}

impl<E: Engine> Gated<E> {
    fn new(inner: E, open: bool) -> Self {
        let (fails, batches) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { inner, open: Mutex::new(open), opened: Condvar::new(), fails, batches, room: Mutex::new(Room::Plenty) }
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

impl<E: Engine> Engine for Gated<E> {
    type Snapshot = E::Snapshot;

    fn name(&self) -> &'static str {
        "gated"
    }
    fn opened_at_version(&self) -> u64 {
        self.inner.opened_at_version()
    }
    fn snapshot(&self) -> E::Snapshot {
        self.inner.snapshot()
    }
    fn room(&self) -> Room {
        *self.room.lock()
    }
    fn apply(&self, version: u64, batch: Batch) -> Result<(), KvError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(KvError::Engine("fsync: input/output error".into()));
        }
        self.inner.apply(version, batch)
    }
}

/// What one transaction writes.
type Step = fn(&mut dyn Transaction) -> Result<(), KvError>;

const OPTIONS: OccOptions = OccOptions { lifetime: LONG };

/// One transaction holds the disk while 255 others come: they share the next fsync.
async fn transactions_that_come_together_share_a_batch<E: Engine>(engine: E) {
    let store = Arc::new(OccStore::start(Gated::new(engine, false), OPTIONS).unwrap());
    let mut tasks = Vec::new();
    for n in 0..256u32 {
        let mut txn = store.begin().unwrap();
        txn.set(&n.to_be_bytes(), b"value").unwrap();
        tasks.push(tokio::spawn(txn.commit()));
        while n == 0 && store.engine().batches.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while store.queued() < 255 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(tasks.iter().all(|task| !task.is_finished()), "nobody is told before the disk has it");
    store.engine().open();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.unwrap().unwrap());
    }
    assert_eq!(store.engine().batches.load(Ordering::SeqCst), 2);
    assert_eq!(store.stats(), StoreStats { committed: 256, group_commits: 2, conflicts: 0 });
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 256, "each has a place of its own in the order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mem_transactions_that_come_together_share_a_batch() {
    transactions_that_come_together_share_a_batch(MemEngine::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fjall_transactions_that_come_together_share_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let engine = FjallEngine::open(directory.path(), FjallOptions::default()).unwrap();
    transactions_that_come_together_share_a_batch(engine).await;
}

/// A full disk refuses in time, deletes excepted, and is forgotten when there is room.
#[tokio::test]
async fn without_room_only_what_makes_room_is_committed() {
    let store = Arc::new(OccStore::start(Gated::new(MemEngine::default(), true), OPTIONS).unwrap());
    let commit = async |key: &[u8], makes_room: bool| {
        let mut txn = store.begin().unwrap();
        txn.set(key, b"value").unwrap();
        if makes_room {
            txn.makes_room();
        }
        txn.commit().await.map(|_| ())
    };
    for (room, ordinary, making_room) in [
        (Room::Plenty, Ok(()), Ok(())),
        (Room::Reserve, Err(KvError::NoSpace), Ok(())),
        (Room::None, Err(KvError::NoSpace), Err(KvError::NoSpace)),
        (Room::Plenty, Ok(()), Ok(())),
    ] {
        *store.engine().room.lock() = room;
        let before = store.engine().batches.load(Ordering::SeqCst);
        assert_eq!(commit(b"a", false).await, ordinary, "{room:?}");
        assert_eq!(commit(b"b", true).await, making_room, "{room:?}");
        let batches = store.engine().batches.load(Ordering::SeqCst) - before;
        assert_eq!(
            batches,
            usize::from(ordinary.is_ok()) + usize::from(making_room.is_ok()),
            "refused before the engine"
        );
        assert_eq!(store.begin().unwrap().get(b"a").await.unwrap().as_deref(), Some(&b"value"[..]), "reads go on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_one_group_conflict_with_each_other() {
    let store = Arc::new(OccStore::start(Gated::new(MemEngine::default(), false), OPTIONS).unwrap());
    let mut first = store.begin().unwrap();
    first.set(b"unrelated", b"").unwrap();
    let first = tokio::spawn(first.commit());
    while store.engine().batches.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut tasks = Vec::new();
    for n in 0..10u8 {
        let mut txn = store.begin().unwrap();
        assert_eq!(txn.get(b"seat").await.unwrap(), None);
        txn.set(b"seat", &[n]).unwrap();
        txn.atomic_add(b"asked", 1).unwrap();
        tasks.push(tokio::spawn(txn.commit()));
    }
    while store.queued() < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.engine().open();
    first.await.unwrap().unwrap();
    let mut taken = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => assert_eq!(error, KvError::Conflict),
        }
    }
    assert_eq!(taken, 1);
    assert_eq!(store.stats(), StoreStats { committed: 2, group_commits: 2, conflicts: 9 });
    let asked = store.begin().unwrap().get(b"asked").await.unwrap().unwrap();
    assert_eq!(asked, 1i64.to_le_bytes().as_slice(), "the refused ones left nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blind_writes_see_the_members_of_their_group_before_them() {
    let store = Arc::new(OccStore::start(Gated::new(MemEngine::default(), true), OPTIONS).unwrap());
    let mut before = store.begin().unwrap();
    [b"a/1", b"a/2"].iter().try_for_each(|key| before.set(*key, b"stored")).unwrap();
    before.commit().await.unwrap();
    *store.engine().open.lock() = false;
    // None of these reads, so none conflicts; each must take effect on what the one before it left.
    let steps: [Step; 6] = [
        |txn| txn.set(b"busy", b""),
        |txn| txn.set(b"a/3", b"new"),
        |txn| txn.clear_range(b"a/", b"a0"),
        |txn| txn.atomic_add(b"a/2", 5),
        |txn| txn.atomic_add(b"a/2", 2),
        |txn| txn.clear_range(b"a/1", b"a/2"),
    ];
    let mut tasks = Vec::new();
    for (at, step) in steps.into_iter().enumerate() {
        let mut txn = store.begin().unwrap();
        step(&mut *txn).unwrap();
        tasks.push(tokio::spawn(txn.commit()));
        // The first holds the disk, the others queue behind it in this order.
        while store.engine().batches.load(Ordering::SeqCst) < 2 || store.queued() < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    store.engine().open();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.engine().batches.load(Ordering::SeqCst), 3);
    let mut txn = store.begin().unwrap();
    let rows = txn.get_range(RangeRead::prefix(b"a/")).await.unwrap().rows;
    assert_eq!(rows, [("a/2".into(), 7i64.to_le_bytes().to_vec().into())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_disk_ends_commits_but_not_reads() {
    let store = OccStore::start(Gated::new(MemEngine::default(), true), OPTIONS).unwrap();
    let mut good = store.begin().unwrap();
    good.set(b"k", b"durable").unwrap();
    good.commit().await.unwrap();
    store.engine().fails.store(true, Ordering::SeqCst);
    let mut bad = store.begin().unwrap();
    bad.set(b"k", b"lost").unwrap();
    assert_eq!(bad.commit().await, Err(KvError::CommitUnknown), "it may be on the disk or not");
    // The disk has recovered; the store must not trust it again.
    store.engine().fails.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        let mut next = store.begin().unwrap();
        assert_eq!(next.get(b"k").await.unwrap().unwrap(), "durable");
        next.set(b"k", b"refused").unwrap();
        let refused = next.commit().await.unwrap_err();
        assert!(matches!(&refused, KvError::Engine(why) if why.contains("input/output error")), "{refused}");
        assert!(!refused.is_retryable());
    }
    assert_eq!(store.engine().batches.load(Ordering::SeqCst), 2, "no batch reached the engine again");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_past_its_lifetime_is_too_old() {
    let kv = MemKv::with_lifetime(Duration::ZERO);
    let mut txn = kv.begin().await.unwrap();
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(txn.get(b"k").await, Err(KvError::TooOld));
    assert_eq!(txn.get_range(RangeRead::prefix(b"k")).await, Err(KvError::TooOld));
    txn.set(b"k", b"v").unwrap();
    assert_eq!(txn.commit().await, Err(KvError::TooOld));
}
