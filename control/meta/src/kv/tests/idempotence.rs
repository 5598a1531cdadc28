//! `transact` takes effect once, whatever the commits answer; its token rows stay few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{LONG, read_all};
use crate::kv::transact::TOKEN_PREFIX;
use crate::kv::{FaultPlan, FaultyKv, FjallKv, Kv, KvError, MemKv, RangeRead, transact};

async fn counter(kv: &dyn Kv) -> i64 {
    let value = kv.begin().await.unwrap().get(b"counter").await.unwrap();
    value.map_or(0, |value| i64::from_le_bytes(value[..].try_into().unwrap()))
}

async fn tokens(kv: &dyn Kv) -> usize {
    read_all(&mut *kv.begin().await.unwrap(), RangeRead::prefix(TOKEN_PREFIX)).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_takes_effect_once_and_returns_what_took_effect() {
    let healthy = Arc::new(MemKv::with_lifetime(LONG));
    // Half of the commits are of unknown outcome, half of these were applied.
    let plan =
        FaultPlan { seed: 3, unknown_applied_per_mille: 333, unknown_lost_per_mille: 250, ..FaultPlan::default() };
    let kv = Arc::new(FaultyKv::new(healthy.clone(), plan));
    let runs = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for task in 0..8u32 {
        let (kv, runs) = (kv.clone(), runs.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..50u32 {
                let key = &format!("run/{task}/{round}");
                let run = transact::<_, KvError, _>(&*kv, |txn| {
                    // A number that differs from attempt to attempt: the row must hold the one that was returned.
                    let run = runs.fetch_add(1, Ordering::SeqCst).to_be_bytes();
                    Box::pin(async move {
                        txn.atomic_add(b"counter", 1)?;
                        txn.set(key.as_bytes(), &run)?;
                        Ok(run)
                    })
                });
                let run = run.await.unwrap();
                let row = transact::<_, KvError, _>(&*kv, |txn| Box::pin(txn.get(key.as_bytes()))).await.unwrap();
                assert_eq!(row.as_deref(), Some(run.as_slice()));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(kv.injected() > 200, "the faults were there");
    assert_eq!(counter(&*healthy).await, 400);
    let tokens = tokens(&*healthy).await;
    assert!((1..=8).contains(&tokens), "one row per transaction in flight, not per transaction: {tokens}");
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_said_to_be_unknown() {
    let plan = FaultPlan { unknown_lost_per_mille: 1000, ..FaultPlan::default() };
    let kv = FaultyKv::new(Arc::new(MemKv::with_lifetime(LONG)), plan);
    let mut tries = 0;
    let result = transact::<_, KvError, _>(&kv, |txn| {
        tries += 1;
        Box::pin(async move { txn.set(b"k", b"v") })
    });
    assert_eq!(result.await, Err(KvError::CommitUnknown));
    assert_eq!(tries, penstock_proto::limits::TRANSACTION_TRIES_MAX);
}

#[tokio::test]
async fn an_error_of_the_closure_undoes_what_it_wrote() {
    let kv = MemKv::new();
    let result = transact::<(), _, _>(&kv, |txn| {
        Box::pin(async move {
            txn.set(b"k", b"v")?;
            Err(KvError::Engine("changed its mind".into()))
        })
    });
    assert_eq!(result.await, Err(KvError::Engine("changed its mind".into())));
    assert_eq!(kv.begin().await.unwrap().get(b"k").await.unwrap(), None);
}

#[tokio::test]
async fn opening_removes_the_tokens_of_former_processes() {
    let directory = tempfile::tempdir().unwrap();
    let kv = FjallKv::open(directory.path()).unwrap();
    let mut txn = kv.begin().await.unwrap();
    for former in 0..5000u32 {
        txn.set(&[TOKEN_PREFIX, &former.to_be_bytes()].concat(), b"token").unwrap();
    }
    txn.set(b"row", b"stays").unwrap();
    txn.commit().await.unwrap();
    drop(kv);
    let kv = FjallKv::open(directory.path()).unwrap();
    assert_eq!(tokens(&kv).await, 0);
    assert_eq!(kv.begin().await.unwrap().get(b"row").await.unwrap().unwrap(), "stays");
    let put = transact::<_, KvError, _>(&kv, |txn| Box::pin(async move { txn.set(b"row", b"again") }));
    put.await.unwrap();
    drop(kv);
    FjallKv::open(directory.path()).unwrap();
}
