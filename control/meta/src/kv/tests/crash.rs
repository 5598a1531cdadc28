//! What survives: a close, a drop without one, a copy of the files taken while the store runs, and a kill -9.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::read_all;
use crate::kv::{FjallKv, FjallOptions, Kv, KvError, RangeRead, transact};

async fn put(kv: &dyn Kv, rows: std::ops::Range<u32>) {
    transact::<_, KvError, _>(kv, |txn| {
        let rows = rows.clone();
        Box::pin(async move {
            rows.into_iter().try_for_each(|row| txn.set(format!("row/{row:06}").as_bytes(), &row.to_le_bytes()))
        })
    })
    .await
    .unwrap();
}

async fn count(kv: &dyn Kv) -> usize {
    let mut txn = kv.begin().await.unwrap();
    let rows = read_all(&mut *txn, RangeRead::prefix(b"row/")).await.unwrap();
    for (at, (key, value)) in rows.iter().enumerate() {
        assert_eq!(
            (key.as_slice(), value.as_slice()),
            (format!("row/{at:06}").as_bytes(), &(at as u32).to_le_bytes()[..])
        );
    }
    rows.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reopening_keeps_everything_after_a_close_and_after_a_drop() {
    let directory = tempfile::tempdir().unwrap();
    let mut version = Default::default();
    for round in 0..6u32 {
        let kv = FjallKv::open(directory.path()).unwrap();
        assert_eq!(count(&kv).await, round as usize * 100);
        put(&kv, round * 100..round * 100 + 100).await;
        let mut txn = kv.begin().await.unwrap();
        txn.set(b"version", b"").unwrap();
        let next = txn.commit().await.unwrap();
        assert!(next > version, "versions go on rising");
        version = next;
        if round % 3 == 1 {
            kv.flush_to_tables();
        }
        if round % 2 == 0 {
            kv.close().await.unwrap();
        }
        let second = FjallKv::open(directory.path()).err();
        assert!(matches!(second, Some(KvError::Engine(why)) if why.contains("another process")), "one at a time");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_files_of_a_running_store_has_everything_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let kv = FjallKv::open(&directory.path().join("live")).unwrap();
    for round in 0..3u32 {
        put(&kv, round * 100..round * 100 + 100).await;
        let image = directory.path().join(format!("image-{round}"));
        copy(&directory.path().join("live"), &image);
        let crashed = FjallKv::open(&image).unwrap();
        assert_eq!(count(&crashed).await, round as usize * 100 + 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_older_than_its_witness_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let kv = FjallKv::open(&live).unwrap();
    put(&kv, 0..10).await;
    let image = directory.path().join("image");
    copy(&live, &image);
    put(&kv, 10..20).await;
    // The image is in perfect order, but lacks what was acknowledged since.
    std::fs::copy(live.join("witness"), image.join("witness")).unwrap();
    let refused = FjallKv::open(&image).err().unwrap().to_string();
    assert!(refused.contains("acknowledged commits are lost"), "{refused}");
    let again = FjallKv::open(&image).err().unwrap().to_string();
    assert!(again.contains("acknowledged commits are lost"), "and refused again: {again}");
    std::fs::remove_file(image.join("witness")).unwrap();
    let missing = FjallKv::open(&image).err().unwrap().to_string();
    assert!(missing.contains("witness file is missing"), "{missing}");
    let accepting = FjallOptions { accept_lost_witness: true, ..FjallOptions::default() };
    let kv = FjallKv::open_with(&image, accepting).unwrap();
    assert_eq!(count(&kv).await, 10);
    drop(kv);
    FjallKv::open(&image).unwrap();
}

const CHILD_DIRECTORY: &str = "PENSTOCK_TEST_KV_CRASH_DIRECTORY";

/// The victim: writes with 4 tasks and prints what was acknowledged. Run by the next test only.
#[test]
#[ignore = "a child process of the test below"]
fn child_writes_until_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let kv = Arc::new(FjallKv::open(Path::new(&directory)).unwrap());
        let first = {
            let mut txn = kv.begin().await.unwrap();
            read_all(&mut *txn, RangeRead::prefix(b"ack/")).await.unwrap().len()
        };
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let kv = Arc::clone(&kv);
                tokio::spawn(async move {
                    for n in first..usize::MAX {
                        let key = &format!("ack/{task}/{n}");
                        let value = &vec![task as u8; 1 + n % 3000];
                        let put = transact::<_, KvError, _>(&*kv, |txn| {
                            Box::pin(async move {
                                txn.atomic_add(b"count", 1)?;
                                txn.set(key.as_bytes(), value)
                            })
                        });
                        put.await.unwrap();
                        writeln!(std::io::stdout().lock(), "\nacked {key}").unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kv::tests::crash::child_writes_until_killed", "--ignored", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let enough = acknowledged.len() + 150 + round * 70;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // A line cut short by the kill was acknowledged too, but can't be checked.
            if let Some(key) = line.unwrap().strip_prefix("acked ") {
                acknowledged.push(key.to_owned());
            }
            if acknowledged.len() == enough {
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        let kv = FjallKv::open(directory.path()).unwrap();
        let mut txn = kv.begin().await.unwrap();
        for key in &acknowledged {
            assert!(txn.get(key.as_bytes()).await.unwrap().is_some(), "{key} was acknowledged and is gone");
        }
        let rows = read_all(&mut *txn, RangeRead::prefix(b"ack/")).await.unwrap().len();
        let count = txn.get(b"count").await.unwrap().unwrap();
        assert_eq!(count, (rows as i64).to_le_bytes().as_slice(), "transactions are there whole or not at all");
    }
    assert!(acknowledged.len() >= 600);
}
