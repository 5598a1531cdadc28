//! Races whose outcome S3 promises: each on mem, on a store with faults, and the first two on fjall.

use std::sync::Arc;

use super::audit::{Audit, State};
use super::support::{always, begin, bucket, faulty, fjall, mem, object_row, part_row, put};
use crate::kv::Kv;
use crate::tables::{
    CompleteUpload, EtagSet, Layout, NewUpload, PreconditionFailure, Preconditions, Tables, TablesError,
};

const WRITERS: usize = 64;

async fn one_of_64_creates(kv: Arc<dyn Kv>) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "races").await;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (tables, bucket) = (tables.clone(), bucket.clone());
        tasks.push(tokio::spawn(async move {
            let data = begin(&tables, 1, 1000).await.unwrap();
            let condition = Preconditions { if_none_match: Some(EtagSet::Any), ..always() };
            let row = object_row(&format!("by-{writer}"), Layout::Single(data));
            tables.commit_object(&bucket, "key", row, &condition, 0).await
        }));
    }
    let mut winners = Vec::new();
    for (writer, task) in tasks.into_iter().enumerate() {
        match task.await.unwrap() {
            Ok(done) => {
                assert_eq!(done.replaced, None);
                winners.push(format!("by-{writer}"));
            }
            Err(error) => assert_eq!(error, TablesError::Precondition(PreconditionFailure::Failed)),
        }
    }
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    assert_eq!(tables.object(bucket.id, "key").await.unwrap().unwrap().etag, winners[0]);
    assert_eq!(tables.pending_count().await.unwrap(), WRITERS as u64 - 1);
    assert_eq!(tables.garbage_count().await.unwrap(), 0);
}

async fn no_increment_is_lost(kv: Arc<dyn Kv>) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "races").await;
    tables.commit_object(&bucket, "n", object_row("0", Layout::Empty), &always(), 0).await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..WRITERS {
        let (tables, bucket) = (tables.clone(), bucket.clone());
        tasks.push(tokio::spawn(async move {
            // Every failure is another's success: at most WRITERS tries.
            for _ in 0..=WRITERS {
                let etag = tables.object(bucket.id, "n").await.unwrap().unwrap().etag;
                let next = etag.parse::<usize>().unwrap() + 1;
                let condition = Preconditions { if_match: Some(EtagSet::OneOf(vec![etag])), ..always() };
                let row = object_row(&next.to_string(), Layout::Empty);
                match tables.commit_object(&bucket, "n", row, &condition, 0).await {
                    Ok(_) => return,
                    Err(error) => assert_eq!(error, TablesError::Precondition(PreconditionFailure::Failed)),
                }
            }
            panic!("more failures than there are writers");
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(tables.object(bucket.id, "n").await.unwrap().unwrap().etag, WRITERS.to_string());
}

async fn no_object_without_its_bucket(kv: Arc<dyn Kv>, rounds: usize) {
    let tables = Tables::new(kv);
    let mut outcomes = [0; 2];
    for round in 0..rounds {
        let row = bucket(&tables, "fleeting").await;
        let (t1, t2, b2) = (tables.clone(), tables.clone(), row.clone());
        let delete = tokio::spawn(async move { t1.delete_bucket("fleeting").await });
        let put = tokio::spawn(async move {
            if round % 2 == 0 {
                t2.commit_object(&b2, "k", object_row("e", Layout::Empty), &always(), 0).await.map(drop)
            } else {
                t2.create_upload(&b2, NewUpload { key: "k".into(), ..NewUpload::default() }, 1).await.map(drop)
            }
        });
        match (delete.await.unwrap(), put.await.unwrap()) {
            (Ok(()), Err(TablesError::NoSuchBucket)) => {
                outcomes[0] += 1;
                assert_eq!(Audit::of(&tables).await.letters(), "C");
            }
            (Err(TablesError::BucketNotEmpty), Ok(())) => {
                outcomes[1] += 1;
                assert_eq!(tables.bucket("fleeting").await.unwrap(), Some(row.clone()));
                tables.delete_object(&row, "k", &always(), 0).await.unwrap();
                for upload in tables.list_uploads(row.id, "", "", "", "", 10).await.unwrap().uploads {
                    tables.abort_upload(row.id, "k", &upload.upload_id, 0).await.unwrap();
                }
                tables.delete_bucket("fleeting").await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcomes.iter().sum::<usize>(), rounds);
}

/// A commit at the moment its lease runs out: either it is visible and no garbage, or it failed and is garbage.
async fn commit_or_expiry(kv: Arc<dyn Kv>, rounds: usize) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "races").await;
    for _ in 0..rounds {
        let data = begin(&tables, 1, 10).await.unwrap();
        let (id, t1, b1, t2) = (data.data, tables.clone(), bucket.clone(), tables.clone());
        let row = object_row("e", Layout::Single(data));
        let commit = tokio::spawn(async move { t1.commit_object(&b1, "k", row, &always(), 1000).await });
        let sweep = tokio::spawn(async move { t2.next_garbage(10, 10).await });
        let (commit, swept) = (commit.await.unwrap(), sweep.await.unwrap().unwrap());
        let states = Audit::of(&tables).await.states();
        match commit {
            Ok(_) => {
                assert!(swept.is_empty());
                assert_eq!(states[&id], State::Reachable);
                tables.delete_object(&bucket, "k", &always(), 0).await.unwrap();
            }
            Err(error) => {
                assert_eq!(error, TablesError::WriteExpired { data: id });
                assert_eq!(states[&id], State::Garbage);
            }
        }
        super::support::collect_all(&tables, 2000).await;
    }
}

/// A part that comes while its upload is completed: it comes before, and the completion is refused, or after, and it is.
async fn complete_or_part(kv: Arc<dyn Kv>, rounds: usize) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "races").await;
    for _ in 0..rounds {
        let new = NewUpload { key: "k".into(), ..NewUpload::default() };
        let id = tables.create_upload(&bucket, new, 1).await.unwrap().upload_id;
        let first = part_row(1, Some(begin(&tables, 1, 1000).await.unwrap()));
        tables.put_part(bucket.id, "k", &id, &first, 0).await.unwrap();
        let version = tables.parts(bucket.id, "k", &id, 0, 10).await.unwrap().version;
        let second = part_row(1, Some(begin(&tables, 1, 1000).await.unwrap()));
        let (t1, b1, id1) = (tables.clone(), bucket.clone(), id.clone());
        let complete = tokio::spawn(async move {
            let request = CompleteUpload {
                bucket: &b1,
                key: "k",
                upload_id: &id1,
                row: object_row("e", Layout::Empty),
                part_numbers: &[1],
                parts_version: version,
                preconditions: &always(),
                now_unix_ms: 1,
                garbage_not_before_unix_ms: 0,
            };
            t1.complete_upload(request).await
        });
        let (t2, id2, bucket_id) = (tables.clone(), id.clone(), bucket.id);
        let part = second.clone();
        let put = tokio::spawn(async move { t2.put_part(bucket_id, "k", &id2, &part, 0).await });
        let states = |audit: Audit, row: &crate::tables::PartRow| audit.states()[&row.data.as_ref().unwrap().data];
        match (complete.await.unwrap(), put.await.unwrap()) {
            (Ok(done), Err(TablesError::NoSuchUpload)) => {
                assert!(!done.already);
                assert_eq!(states(Audit::of(&tables).await, &first), State::Reachable);
                assert_eq!(states(Audit::of(&tables).await, &second), State::Pending);
            }
            (Err(TablesError::PartsChanged), Ok(replaced)) => {
                assert_eq!(replaced, Some(first.clone()));
                assert_eq!(states(Audit::of(&tables).await, &first), State::Garbage);
                assert_eq!(states(Audit::of(&tables).await, &second), State::Reachable);
                tables.abort_upload(bucket.id, "k", &id, 0).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_on_mem() {
    one_of_64_creates(mem()).await;
    no_increment_is_lost(mem()).await;
    no_object_without_its_bucket(mem(), 100).await;
    commit_or_expiry(mem(), 100).await;
    complete_or_part(mem(), 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_on_a_store_with_faults() {
    one_of_64_creates(faulty(1)).await;
    no_increment_is_lost(faulty(2)).await;
    no_object_without_its_bucket(faulty(3), 60).await;
    commit_or_expiry(faulty(4), 60).await;
    complete_or_part(faulty(5), 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_on_fjall() {
    let (kv, _directory) = fjall();
    one_of_64_creates(kv).await;
    let (kv, _directory) = fjall();
    no_increment_is_lost(kv).await;
}

/// Buckets of the same name from many at once: one is made, and the counter counts it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_makes_the_bucket() {
    let tables = Tables::new(faulty(9));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let tables = tables.clone();
            tokio::spawn(async move { tables.create_bucket("same", "", 1).await })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(row) => made.push(row),
            Err(error) => assert_eq!(error, TablesError::BucketExists),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(tables.bucket("same").await.unwrap().as_ref(), made.first());
    let counter = Audit::of(&tables).await;
    assert_eq!(counter.table(b'C'), [(b"Cbuckets".to_vec(), 1u64.to_le_bytes().to_vec())]);
    put(&tables, &made[0], "k", "e").await;
}
