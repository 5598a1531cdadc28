//! Uploads of 10,000 parts: completed, overwritten, aborted and deleted within the limits of rows and transactions.

use std::sync::Arc;

use penstock_proto::DataId;

use super::audit::{Audit, State};
use super::support::{always, bucket, collect_all, data_row, mem, object_row, part_row, put};
use crate::tables::{
    BucketRow, CompleteUpload, Layout, NewUpload, NewWrite, PART_LIST_ROW_BYTES_MAX, Tables, TablesError, keys,
};

/// Uploads `count` parts of two stripes; the upload's id and the parts version.
async fn upload(tables: &Tables, bucket: &BucketRow, key: &str, count: u32) -> (String, u64) {
    let new = NewUpload { key: key.into(), ..NewUpload::default() };
    let id = tables.create_upload(bucket, new, 1).await.unwrap().upload_id;
    let numbers: Vec<u32> = (1..=count).collect();
    let mut tasks = Vec::new();
    for chunk in numbers.chunks(count.div_ceil(16) as usize) {
        let (tables, bucket, key, id, chunk) =
            (tables.clone(), bucket.clone(), key.to_owned(), id.clone(), chunk.to_vec());
        tasks.push(tokio::spawn(async move {
            // As a gateway may: registered in batches.
            for batch in chunk.chunks(100) {
                let data: Vec<DataId> = batch.iter().map(|_| DataId::random()).collect();
                let new = |data: &DataId| NewWrite { data: *data, nodes: vec![], expires_unix_ms: 1000 };
                tables.begin_writes(&data.iter().map(new).collect::<Vec<_>>()).await.unwrap();
                for (number, data) in batch.iter().zip(data) {
                    let part = part_row(*number, Some(data_row(data, 2).0));
                    tables.put_part(bucket.id, &key, &id, &part, 0).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let version = tables.parts(bucket.id, key, &id, 0, 1).await.unwrap().version;
    assert_eq!(version, u64::from(count));
    (id, version)
}

fn complete<'a>(
    bucket: &'a BucketRow,
    upload: &'a (String, u64),
    numbers: &'a [u32],
    always: &'a crate::tables::Preconditions,
) -> CompleteUpload<'a> {
    CompleteUpload {
        bucket,
        key: "k",
        upload_id: &upload.0,
        row: object_row("e-10000", Layout::Empty),
        part_numbers: numbers,
        parts_version: upload.1,
        preconditions: always,
        now_unix_ms: 10,
        garbage_not_before_unix_ms: 20,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_parts_become_an_object_and_garbage() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "b").await;
    put(&tables, &bucket, "k", "before").await;
    let first = upload(&tables, &bucket, "k", 10_000).await;
    let (numbers, always) = ((1..=10_000).collect::<Vec<_>>(), always());
    let done = tables.complete_upload(complete(&bucket, &first, &numbers, &always)).await.unwrap();
    assert_eq!(done.object.parts, Some(10_000));
    let Layout::Parts { list, count } = done.object.layout else { panic!("not a list") };

    let audit = Audit::of(&tables).await;
    assert_eq!(audit.states().values().filter(|state| **state == State::Reachable).count(), 10_000);
    assert!(audit.table(keys::PARTS).is_empty() && audit.table(keys::WRITES).is_empty());
    let rows = audit.table(keys::PART_LISTS);
    assert_eq!(rows.len(), count as usize);
    assert!(rows.iter().all(|(_, row)| row.len() <= PART_LIST_ROW_BYTES_MAX));
    assert!(rows[..rows.len() - 1].iter().all(|(_, row)| row.len() > PART_LIST_ROW_BYTES_MAX * 9 / 10), "full rows");

    let part_bytes = 8_u64 << 20;
    for number in [1, 2, 777, 5000, 9_999, 10_000] {
        let span = tables.part_numbered(list, count, number).await.unwrap().unwrap();
        assert_eq!((span.number, span.offset), (number, u64::from(number - 1) * part_bytes));
        for offset in [span.offset, span.offset + part_bytes - 1] {
            let (_, spans) = tables.part_list_at(list, count, offset).await.unwrap().unwrap();
            assert!(spans.contains(&span), "part {number} holds {offset}");
        }
    }
    let (last, _) = tables.part_list_at(list, count, u64::MAX).await.unwrap().unwrap();
    assert_eq!(last, count - 1);

    // Overwritten by half of another 10,000: 10,000 old parts and 5,000 unused ones are garbage.
    let second = upload(&tables, &bucket, "k", 10_000).await;
    let odd: Vec<u32> = (1..=10_000).step_by(2).collect();
    tables.complete_upload(complete(&bucket, &second, &odd, &always)).await.unwrap();
    let states = Audit::of(&tables).await.states();
    assert_eq!(states.values().filter(|state| **state == State::Garbage).count(), 15_001);
    assert_eq!(states.values().filter(|state| **state == State::Reachable).count(), 5_000);
    assert_eq!(collect_all(&tables, 20).await.len(), 15_001);

    tables.delete_object(&bucket, "k", &always, 0).await.unwrap();
    assert_eq!(collect_all(&tables, 20).await.len(), 5_000);
    let third = upload(&tables, &bucket, "k", 2_000).await;
    tables.abort_upload(bucket.id, "k", &third.0, 0).await.unwrap();
    assert_eq!(Audit::of(&tables).await.states().values().filter(|state| **state == State::Garbage).count(), 2_000);
    assert_eq!(collect_all(&tables, 20).await.len(), 2_000);
    tables.delete_bucket("b").await.unwrap();
    assert_eq!(Audit::of(&tables).await.letters(), "C");
}

/// A refused completion whose lists were written ahead takes them back; a collector that took one away first makes the
/// completion fail and leaves the upload whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_written_ahead_leave_nothing_behind() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "b").await;
    let upload = Arc::new(upload(&tables, &bucket, "k", 4_000).await);
    let (numbers, always) = ((1..=4_000).collect::<Vec<_>>(), always());
    // Now and again a collector from the future, which sees every lease run out.
    let (t2, stop) = (tables.clone(), stop_flag());
    let stopped = Arc::clone(&stop);
    let collector = tokio::spawn(async move {
        while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
            t2.next_garbage(u64::MAX - 1, 1).await.unwrap();
        }
    });
    let (mut completed, mut expired) = (false, 0);
    for _ in 0..20 {
        match tables.complete_upload(complete(&bucket, &upload, &numbers, &always)).await {
            Ok(_) => {
                completed = true;
                break;
            }
            Err(TablesError::WriteExpired { .. }) => expired += 1,
            Err(error) => panic!("{error}"),
        }
        let states = Audit::of(&tables).await.states();
        assert_eq!(states.values().filter(|state| **state == State::Reachable).count(), 4_000);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    collector.await.unwrap();
    if !completed {
        assert!(expired > 0);
        tables.complete_upload(complete(&bucket, &upload, &numbers, &always)).await.unwrap();
    }
    let audit = Audit::of(&tables).await;
    assert_eq!(audit.states().values().filter(|state| **state == State::Reachable).count(), 4_000);
    assert!(audit.table(keys::WRITES).is_empty());
}

fn stop_flag() -> Arc<std::sync::atomic::AtomicBool> {
    Arc::default()
}
