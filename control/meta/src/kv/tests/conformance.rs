//! What every engine must do, run by every engine and through the fault injector.

use penstock_proto::limits;

use super::{Subject, read_all};
use crate::kv::{CLEARED_ROWS_MAX, CommitVersion, Kv, KvError, RESERVED_FROM, RangeRead, Transaction, transact};

/// Makes every case a test of every engine.
macro_rules! suites {
    ($($engine:ident),+ => $cases:tt) => { $(suites!(@one $engine $cases);)+ };
    (@one $engine:ident [$($module:ident :: $case:ident),+ $(,)?]) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    crate::kv::tests::$module::$case(crate::kv::tests::$engine()).await;
                }
            )+
        }
    };
}

suites!(mem, fjall, faulty => [
    model::random_operations_match_the_model,
    history::concurrent_histories_are_strictly_serialisable,
    conformance::conflicts_are_found_and_only_those,
    conformance::write_skew_and_phantoms_are_refused,
    conformance::a_page_conflicts_with_what_it_returned,
    conformance::counters_lose_no_addition,
    conformance::versionstamps_are_in_commit_order,
    conformance::limits_are_enforced,
    conformance::a_snapshot_stays_as_it_was,
    conformance::a_closed_store_takes_nothing,
]);

/// What two transactions do to each other: `first` commits between `second`'s begin and its commit.
type Step = fn(&mut dyn Transaction) -> Result<(), KvError>;

/// A transaction that has read what `reads` says and waits to write and commit.
async fn reader<'a>(kv: &dyn Kv, reads: &[Read<'a>]) -> Result<Box<dyn Transaction>, KvError> {
    let mut txn = kv.begin().await?;
    for read in reads {
        match read {
            Read::Key(key) => {
                txn.get(key).await?;
            }
            Read::Range(range) => {
                read_all(&mut *txn, range.clone()).await?;
            }
        }
    }
    Ok(txn)
}

enum Read<'a> {
    Key(&'a [u8]),
    Range(RangeRead),
}

/// Resets the rows a, c, e; lets a transaction read, another one write and commit, and the first write `w` and commit.
/// Returns how that last commit ended. Injected faults on the way make it start over.
async fn race(subject: &Subject, reads: &[Read<'_>], meanwhile: Step) -> Result<CommitVersion, KvError> {
    for _ in 0..limits::TRANSACTION_TRIES_MAX {
        let attempt = async {
            transact::<_, KvError, _>(&*subject.kv, |txn| {
                Box::pin(async move {
                    txn.clear_range(b"", b"\xff")?;
                    [b"a", b"c", b"e"].iter().try_for_each(|key| txn.set(*key, b"before"))
                })
            })
            .await?;
            let mut late = reader(&*subject.kv, reads).await?;
            let mut early = subject.kv.begin().await?;
            meanwhile(&mut *early)?;
            early.commit().await?;
            late.set(b"w", b"after")?;
            Ok::<_, KvError>(late.commit().await)
        };
        match attempt.await {
            // With injected faults any ending may be an injected one; what must not be is a commit that should fail.
            Ok(Err(KvError::CommitUnknown)) if subject.faulty => {}
            Ok(ending) => return ending,
            Err(error) if subject.faulty && error.is_retryable() => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("too many injected faults");
}

async fn assert_refused(subject: &Subject, reads: &[Read<'_>], meanwhile: Step) {
    assert_eq!(race(subject, reads, meanwhile).await, Err(KvError::Conflict));
}

/// Fine on a healthy store; through the injector it must be fine at least once.
async fn assert_committed(subject: &Subject, reads: &[Read<'_>], meanwhile: Step) {
    let tries = if subject.faulty { limits::TRANSACTION_TRIES_MAX } else { 1 };
    for _ in 0..tries {
        if race(subject, reads, meanwhile).await.is_ok() {
            return;
        }
    }
    panic!("a needless conflict");
}

pub(super) async fn conflicts_are_found_and_only_those(subject: Subject) {
    let s = &subject;
    assert_refused(s, &[Read::Key(b"a")], |txn| txn.set(b"a", b"x")).await;
    assert_refused(s, &[Read::Key(b"a")], |txn| txn.clear(b"a")).await;
    assert_refused(s, &[Read::Key(b"a")], |txn| txn.clear_range(b"", b"b")).await;
    assert_refused(s, &[Read::Key(b"n")], |txn| txn.atomic_add(b"n", 1)).await;
    assert_refused(s, &[Read::Key(b"b")], |txn| txn.set(b"b", b"absence was read")).await;
    assert_committed(s, &[Read::Key(b"a")], |txn| txn.set(b"c", b"x")).await;
    assert_committed(s, &[], |txn| txn.set(b"w", b"blind writes meet without harm")).await;
    assert_committed(s, &[Read::Key(b"c")], |txn| txn.clear_range(b"a", b"b")).await;
    assert_committed(s, &[Read::Key(b"b")], |txn| txn.clear_range(b"b", b"c")).await; // it was not there anyway
    let snapshot = RangeRead { snapshot: true, ..RangeRead::between(b"a", b"z") };
    assert_committed(s, &[Read::Range(snapshot)], |txn| txn.set(b"a", b"x")).await;
}

pub(super) async fn write_skew_and_phantoms_are_refused(subject: Subject) {
    let s = &subject;
    let all = || Read::Range(RangeRead::between(b"a", b"f"));
    assert_refused(s, &[all()], |txn| txn.set(b"b", b"phantom")).await;
    assert_refused(s, &[all()], |txn| txn.clear(b"e")).await;
    assert_refused(s, &[Read::Range(RangeRead::between(b"x", b"y"))], |txn| txn.set(b"x", b"phantom")).await;
    assert_refused(s, &[Read::Range(RangeRead::between(b"g", b"h").reversed())], |txn| txn.set(b"gg", b"x")).await;
    assert_committed(s, &[all()], |txn| txn.set(b"f", b"just behind")).await;
    // Skew: each of two reads what the other writes.
    for _ in 0..20 {
        let (mut one, mut two) = match (reader(&*s.kv, &[all()]).await, reader(&*s.kv, &[all()]).await) {
            (Ok(one), Ok(two)) => (one, two),
            _ if s.faulty => continue,
            (one, two) => panic!("{:?} {:?}", one.err(), two.err()),
        };
        one.set(b"a", b"one").unwrap();
        two.set(b"c", b"two").unwrap();
        let (one, two) = (one.commit().await, two.commit().await);
        assert!(one.is_err() || two.is_err(), "write skew");
        assert!(s.faulty || one.is_ok());
    }
}

pub(super) async fn a_page_conflicts_with_what_it_returned(subject: Subject) {
    let s = &subject;
    // Forward, 2 of 3 rows: a and c were returned, e was not.
    let two = || Read::Range(RangeRead::between(b"a", b"z").limit(2));
    assert_refused(s, &[two()], |txn| txn.set(b"b", b"x")).await;
    assert_refused(s, &[two()], |txn| txn.set(b"c", b"x")).await;
    assert_committed(s, &[two()], |txn| txn.set(b"d", b"x")).await;
    assert_committed(s, &[two()], |txn| txn.clear(b"e")).await;
    // Backward: e and c were returned, a was not.
    let two = || Read::Range(RangeRead::between(b"a", b"z").limit(2).reversed());
    assert_refused(s, &[two()], |txn| txn.set(b"x", b"behind e")).await;
    assert_refused(s, &[two()], |txn| txn.set(b"c", b"x")).await;
    assert_committed(s, &[two()], |txn| txn.set(b"b", b"x")).await;
    // A page that reached the end defends the end.
    assert_refused(s, &[Read::Range(RangeRead::between(b"a", b"z").limit(3))], |txn| txn.set(b"y", b"x")).await;
}

pub(super) async fn counters_lose_no_addition(subject: Subject) {
    let mut tasks = Vec::new();
    for task in 0..8i64 {
        let kv = subject.kv.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..50 {
                transact::<_, KvError, _>(&*kv, |txn| {
                    Box::pin(async move {
                        txn.atomic_add(b"counter", task * 50 + round)?;
                        txn.atomic_add(b"times", 1)
                    })
                })
                .await
                .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for (key, sum) in [(b"counter".as_slice(), (0..400).sum::<i64>()), (b"times", 400)] {
        let value = transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(txn.get(key))).await.unwrap().unwrap();
        assert_eq!(value, sum.to_le_bytes().as_slice());
    }
    let not_a_counter = transact::<_, KvError, _>(&*subject.kv, |txn| {
        Box::pin(async move {
            txn.set(b"text", b"abc")?;
            txn.atomic_add(b"text", 1)
        })
    });
    assert!(matches!(not_a_counter.await, Err(KvError::NotACounter { .. })), "within a transaction");
    transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(async move { txn.set(b"text", b"abc") })).await.unwrap();
    let blind = transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(async move { txn.atomic_add(b"text", 1) }));
    assert!(matches!(blind.await, Err(KvError::NotACounter { .. })), "at the commit");
}

pub(super) async fn versionstamps_are_in_commit_order(subject: Subject) {
    let mut tasks = Vec::new();
    for task in 0..8u8 {
        let kv = subject.kv.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..30u8 {
                transact::<_, KvError, _>(&*kv, |txn| {
                    Box::pin(async move {
                        // The counter, read with conflicts, says where this transaction stands.
                        let at =
                            txn.get(b"at").await?.map_or(0, |value| u64::from_le_bytes(value[..].try_into().unwrap()));
                        txn.set(b"at", &(at + 1).to_le_bytes())?;
                        txn.set_versionstamped(b"log/", &[task, round], &at.to_le_bytes())
                    })
                })
                .await
                .unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let range = || RangeRead::prefix(b"log/");
    let log = transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(read_all(txn, range()))).await.unwrap();
    assert_eq!(log.len(), 240);
    for (at, (key, value)) in log.iter().enumerate() {
        assert_eq!(value, &(at as u64).to_le_bytes(), "the order of the keys is the order of the commits");
        assert_eq!(key.len(), b"log/".len() + CommitVersion::BYTES + 2);
    }
}

pub(super) async fn limits_are_enforced(subject: Subject) {
    let mut txn = loop {
        match subject.kv.begin().await {
            Ok(txn) => break txn,
            Err(error) => assert!(subject.faulty, "{error}"),
        }
    };
    let longest = vec![b'k'; limits::ROW_KEY_BYTES_MAX];
    let too_long = vec![b'k'; limits::ROW_KEY_BYTES_MAX + 1];
    let value = vec![7; limits::ROW_VALUE_BYTES_MAX];
    assert_eq!(txn.set(&too_long, b""), Err(KvError::KeyTooLong));
    assert_eq!(txn.set(b"", b""), Err(KvError::KeyTooLong));
    assert_eq!(txn.clear(&too_long), Err(KvError::KeyTooLong));
    assert_eq!(txn.atomic_add(&too_long, 1), Err(KvError::KeyTooLong));
    assert_eq!(txn.set_versionstamped(&longest, b"", b""), Err(KvError::KeyTooLong));
    assert_eq!(txn.set(b"k", &[0; limits::ROW_VALUE_BYTES_MAX + 1]), Err(KvError::ValueTooLong));
    assert_eq!(txn.set(RESERVED_FROM, b""), Err(KvError::KeyReserved));
    assert_eq!(txn.set_versionstamped(RESERVED_FROM, b"", b""), Err(KvError::KeyReserved));
    txn.set(&longest, &value).unwrap();
    let mut rows = 1;
    let refused = loop {
        match txn.set(format!("row/{rows}").as_bytes(), &value) {
            Ok(()) => rows += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, KvError::TooLarge { max: limits::TRANSACTION_BYTES_MAX, .. }), "{refused}");
    assert_eq!(rows, limits::TRANSACTION_BYTES_MAX / limits::ROW_VALUE_BYTES_MAX - 1);
    drop(txn);
    let longest = &longest;
    transact::<_, KvError, _>(&*subject.kv, |txn| {
        Box::pin(async move { txn.set(longest, &[7; limits::ROW_VALUE_BYTES_MAX]) })
    })
    .await
    .unwrap();
    let row = transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(txn.get(longest))).await.unwrap().unwrap();
    assert_eq!(row, value);
    // One range clear may remove so many rows and no more, and removes none then.
    for batch in 0..=CLEARED_ROWS_MAX / 4096 {
        transact::<_, KvError, _>(&*subject.kv, |txn| {
            Box::pin(
                async move { (0..4096).try_for_each(|row| txn.set(format!("many/{batch}/{row}").as_bytes(), b"")) },
            )
        })
        .await
        .unwrap();
    }
    let clear =
        transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(async move { txn.clear_range(b"many/", b"many0") }));
    assert!(matches!(clear.await, Err(KvError::TooLarge { max: CLEARED_ROWS_MAX, .. })));
    let clear =
        transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(async move { txn.clear_range(b"many/1/", b"many/10") }));
    clear.await.unwrap();
    let left = transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(read_all(txn, RangeRead::prefix(b"many/"))));
    assert_eq!(left.await.unwrap().len(), CLEARED_ROWS_MAX);
}

pub(super) async fn a_snapshot_stays_as_it_was(subject: Subject) {
    let put = async |round: u64| {
        transact::<_, KvError, _>(&*subject.kv, |txn| {
            Box::pin(async move {
                txn.clear_range(b"s/", b"s0")?;
                (0..10 + round % 3).try_for_each(|row| txn.set(format!("s/{row}").as_bytes(), &round.to_le_bytes()))
            })
        })
        .await
        .unwrap();
    };
    put(0).await;
    let mut old = Vec::new();
    for round in 1..=12 {
        if let Ok(txn) = subject.kv.begin().await {
            old.push((round - 1, txn));
        }
        put(round).await;
    }
    assert!(old.len() > 6);
    for (round, mut txn) in old {
        match read_all(&mut *txn, RangeRead::prefix(b"s/")).await {
            Ok(rows) => {
                assert_eq!(rows.len() as u64, 10 + round % 3);
                assert!(rows.iter().all(|(_, value)| *value == round.to_le_bytes()), "all of one moment");
            }
            Err(error) => assert!(subject.faulty, "{error}"),
        }
    }
}

pub(super) async fn a_closed_store_takes_nothing(subject: Subject) {
    transact::<_, KvError, _>(&*subject.kv, |txn| Box::pin(async move { txn.set(b"k", b"v") })).await.unwrap();
    let mut open = loop {
        match subject.kv.begin().await {
            Ok(txn) => break txn,
            Err(error) => assert!(subject.faulty, "{error}"),
        }
    };
    subject.kv.close().await.unwrap();
    subject.kv.close().await.unwrap();
    open.set(b"k", b"w").unwrap();
    let refused = open.commit().await.unwrap_err();
    assert!(refused == KvError::Closed || subject.faulty);
    let closed = loop {
        match subject.kv.begin().await {
            Err(KvError::Busy) if subject.faulty => {}
            other => break other.err(),
        }
    };
    assert_eq!(closed, Some(KvError::Closed));
}
