//! The walk sees everything, whatever moves meanwhile; changes of runs are compare-and-set; strays are noted once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_proto::{Code, DataId, NodeId};

use super::support::{always, begin, bucket, collect_all, faulty, mem, object_row, part_row, put};
use crate::tables::{
    BucketRow, CompleteUpload, Layout, LockPass, ManifestRow, NewUpload, NewWrite, Rename, Renamed, Stray, StripeRun,
    Tables, TablesError, VersionName, Versioning, WalkPlace,
};

/// A whole walk: pending data, runs.
async fn walk(tables: &Tables) -> (BTreeSet<DataId>, Vec<StripeRun>) {
    let (mut pending, mut runs, mut place) = (BTreeSet::new(), Vec::new(), Some(WalkPlace::default()));
    while let Some(at) = place {
        let page = tables.walk(&at).await.unwrap();
        pending.extend(page.pending);
        runs.extend(page.runs);
        place = page.next;
    }
    (pending, runs)
}

fn ids(runs: &[StripeRun]) -> BTreeSet<DataId> {
    runs.iter().map(|run| run.data).collect()
}

async fn versioned(tables: &Tables, name: &str) -> BucketRow {
    let bucket = bucket(tables, name).await;
    tables.set_versioning(&bucket.name, Versioning::Enabled).await.unwrap();
    tables.bucket(name).await.unwrap().unwrap()
}

async fn upload(tables: &Tables, bucket: &BucketRow, key: &str) -> (String, DataId) {
    let new = NewUpload { key: key.into(), ..NewUpload::default() };
    let id = tables.create_upload(bucket, new, 1).await.unwrap().upload_id;
    let data = begin(tables, 1, u64::MAX).await.unwrap();
    let part = part_row(1, Some(data.clone()));
    tables.put_part(bucket.id, key, &id, &part, 0).await.unwrap();
    (id, data.data)
}

async fn complete(tables: &Tables, bucket: &BucketRow, key: &str, upload_id: &str) {
    let parts_version = tables.parts(bucket.id, key, upload_id, 0, 1).await.unwrap().version;
    let preconditions = always();
    let complete = CompleteUpload {
        bucket,
        key,
        upload_id,
        row: object_row("e-1", Layout::Empty),
        part_numbers: &[1],
        parts_version,
        preconditions: &preconditions,
        now_unix_ms: 10,
        garbage_not_before_unix_ms: 20,
    };
    tables.complete_upload(complete).await.unwrap();
}

#[tokio::test]
async fn everything_that_names_data_is_walked_once() {
    let tables = Tables::new(faulty(3));
    let (plain, versions) = (bucket(&tables, "plain").await, versioned(&tables, "versions").await);
    let mut expected = BTreeSet::new();
    for number in 0..700 {
        expected.insert(put(&tables, &plain, &format!("k{number:04}"), "e").await);
    }
    for key in ["a", "b/ü", "z"] {
        for _ in 0..150 {
            expected.insert(put(&tables, &versions, key, "e").await);
        }
    }
    let long = begin(&tables, 130, u64::MAX).await.unwrap();
    expected.insert(long.data);
    tables.commit_object(&plain, "long", object_row("e", Layout::Single(long.clone())), &always(), 0).await.unwrap();
    expected.insert(upload(&tables, &plain, "open").await.1);
    let (id, data) = upload(&tables, &plain, "done").await;
    complete(&tables, &plain, "done", &id).await;
    expected.insert(data);
    let being_written = DataId::random();
    let new = NewWrite { data: being_written, nodes: vec![], expires_unix_ms: u64::MAX };
    tables.begin_writes(&[new]).await.unwrap();

    let (pending, runs) = walk(&tables).await;
    assert_eq!(pending, BTreeSet::from([being_written]));
    assert_eq!(ids(&runs), expected);
    assert_eq!(runs.len(), expected.len() + 2, "three runs of the long one, one of each other");
    let firsts: Vec<u32> =
        runs.iter().filter(|run| run.data == long.data).map(|run| run.manifest.first_stripe).collect();
    assert_eq!(firsts, [0, 64, 128]);
    for run in &runs {
        let now = tables.run_now(&run.owner, run.data, run.code, run.manifest.first_stripe).await.unwrap();
        assert_eq!(now.as_ref(), Some(run));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_between_the_tables_of_versions_is_never_missed() {
    let tables = Tables::new(mem());
    let bucket = versioned(&tables, "b").await;
    let mut base = BTreeSet::new();
    // More keys than a page, so that walks have many steps.
    for number in 0..600 {
        base.insert(put(&tables, &bucket, &format!("k{number:04}"), "e").await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flipping = {
        let (tables, bucket, stop) = (tables.clone(), bucket.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let pass = LockPass { now_unix_ms: 1, bypass_governance: false };
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                // The base version goes to N, and comes back to O.
                let key = format!("k{:04}", 7 * number % 600);
                let row = object_row("n", Layout::Empty);
                let version = tables.commit_object(&bucket, &key, row, &always(), 0).await.unwrap().version;
                let name = VersionName::parse(&version.id());
                tables.delete(&bucket, &key, name, &always(), pass, 0).await.unwrap();
                number += 1;
            }
            number
        })
    };
    for _ in 0..30 {
        assert!(ids(&walk(&tables).await.1).is_superset(&base));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flipping.await.unwrap() > 0);
}

fn moved(run: &StripeRun, shard: usize, to: u16) -> ManifestRow {
    let mut manifest = run.manifest.clone();
    manifest.nodes[shard] = NodeId(to);
    manifest.stripes.iter_mut().for_each(|stripe| stripe.missing &= !(1 << shard));
    manifest
}

#[tokio::test]
async fn a_run_is_changed_only_as_it_was_seen() {
    let tables = Tables::new(faulty(5));
    let bucket = versioned(&tables, "b").await;
    put(&tables, &bucket, "older", "e").await;
    put(&tables, &bucket, "older", "e").await;
    let two = begin(&tables, 2, u64::MAX).await.unwrap();
    tables.commit_object(&bucket, "two", object_row("e", Layout::Single(two.clone())), &always(), 0).await.unwrap();
    let long = begin(&tables, 130, u64::MAX).await.unwrap();
    tables.commit_object(&bucket, "long", object_row("e", Layout::Single(long.clone())), &always(), 0).await.unwrap();
    upload(&tables, &bucket, "open").await;
    let (id, _) = upload(&tables, &bucket, "done").await;
    complete(&tables, &bucket, "done", &id).await;
    assert_eq!(tables.repair_queue(10).await.unwrap().len(), 2, "stripe 1 of each that has one");
    let queued = tables.repair(two.data, 1).await.unwrap().unwrap();
    let seen = tables.run_now(&queued.owner, two.data, queued.code, 0).await.unwrap().unwrap();
    assert_eq!((seen.code, seen.manifest.stripes.len()), (Code::new(2, 1).unwrap(), 2));

    let (_, runs) = walk(&tables).await;
    for run in &runs {
        let manifest = moved(run, 2, 77);
        assert!(tables.change_run(run, &manifest).await.unwrap());
        assert!(!tables.change_run(run, &moved(run, 0, 78)).await.unwrap(), "no longer as it was seen");
        let now = tables.run_now(&run.owner, run.data, run.code, manifest.first_stripe).await.unwrap().unwrap();
        assert_eq!(now.manifest, manifest);
    }
    assert_eq!(tables.repair_queue(10).await.unwrap(), [], "nothing is missing any more");
    // Only nodes and what is missing may change.
    let (_, runs) = walk(&tables).await;
    let mut other = runs[0].manifest.clone();
    other.stripes[0].shard_crc64s[0] ^= 1;
    assert!(matches!(tables.change_run(&runs[0], &other).await, Err(TablesError::BadRow(_))));
    // What is replaced or deleted in between is left alone, and its garbage names the nodes of the change.
    let plain = super::support::bucket(&tables, "plain").await;
    put(&tables, &plain, "k", "e").await;
    let (_, runs) = walk(&tables).await;
    let run = runs.iter().find(|run| !run.manifest.nodes.contains(&NodeId(77))).unwrap();
    assert!(tables.change_run(run, &moved(run, 1, 79)).await.unwrap());
    let run = tables.run_now(&run.owner, run.data, run.code, 0).await.unwrap().unwrap();
    put(&tables, &plain, "k", "f").await;
    assert!(!tables.change_run(&run, &moved(&run, 0, 80)).await.unwrap());
    assert_eq!(tables.run_now(&run.owner, run.data, run.code, 0).await.unwrap(), None);
    let garbage = tables.next_garbage(u64::MAX - 1, 10).await.unwrap();
    assert!(garbage.iter().any(|(_, row)| row.data == run.data && row.nodes.contains(&NodeId(79))));
    collect_all(&tables, u64::MAX - 1).await;
}

#[tokio::test]
async fn repairs_are_forgotten_by_run() {
    let tables = Tables::new(mem());
    let long = begin(&tables, 130, u64::MAX).await.unwrap();
    assert_eq!(tables.repair_queue(10).await.unwrap(), [(long.data, 1)]);
    assert_eq!(tables.repair_queue_after(Some((long.data, 1)), 10).await.unwrap(), []);
    tables.forget_repairs(long.data, 64).await.unwrap();
    assert_eq!(tables.repair_queue(10).await.unwrap().len(), 1);
    tables.forget_repairs(long.data, 0).await.unwrap();
    assert_eq!(tables.repair_queue(10).await.unwrap(), []);
}

#[tokio::test]
async fn strays_keep_the_time_when_they_were_first_seen() {
    let tables = Tables::new(faulty(9));
    let stray = |node, data| Stray { node: NodeId(node), data: DataId(data) };
    tables.note_strays(&[stray(2, 5), stray(1, 9)], 100).await.unwrap();
    tables.note_strays(&[stray(2, 5), stray(2, 6)], 200).await.unwrap();
    let all = [(stray(1, 9), 100), (stray(2, 5), 100), (stray(2, 6), 200)];
    assert_eq!(tables.strays(None, 10).await.unwrap(), all);
    assert_eq!(tables.strays(Some(stray(1, 9)), 1).await.unwrap(), all[1..2]);
    tables.forget_strays(&[stray(2, 5), stray(7, 7)]).await.unwrap();
    assert_eq!(tables.strays(None, 10).await.unwrap(), [all[0], all[2]]);
    assert_eq!(tables.has_unknown_tables().await.unwrap(), None);
}

#[tokio::test]
async fn renames_are_counted_for_those_who_walk() {
    let tables = Tables::new(faulty(4));
    let bucket = bucket(&tables, "b").await;
    put(&tables, &bucket, "z", "e").await;
    assert_eq!(tables.renames().await.unwrap(), 0);
    let rename = Rename {
        bucket: &bucket,
        source: "z",
        destination: "a",
        source_condition: &|_| Ok(()),
        destination_condition: &|_| Ok(()),
        token: None,
        now_unix_ms: 1,
        garbage_not_before_unix_ms: 1,
    };
    assert!(matches!(tables.rename_object(&rename).await.unwrap(), Renamed::Done { .. }));
    assert_eq!(tables.renames().await.unwrap(), 1);
}

#[tokio::test]
async fn a_table_that_the_walk_does_not_know_is_noticed() {
    let tables = Tables::new(mem());
    put(&tables, &bucket(&tables, "b").await, "k", "e").await;
    assert_eq!(tables.has_unknown_tables().await.unwrap(), None);
    tables.transact(|txn| Box::pin(async move { Ok(txn.set(b"~new", b"x")?) })).await.unwrap();
    assert_eq!(tables.has_unknown_tables().await.unwrap(), Some('~'));
}
