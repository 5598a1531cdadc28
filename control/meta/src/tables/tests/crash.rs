//! The process dies after its n-th commit, for every n: whatever operation it was in, nothing is lost and nothing leaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use penstock_proto::DataId;

use super::audit::{Audit, State};
use super::support::{always, begin, collect_all, data_row, mem, object_row, part_row};
use crate::kv::{CommitVersion, Kv, KvError, RangePage, RangeRead, Transaction};
use crate::tables::{CompleteUpload, DataRow, Layout, ManifestPlace, NewUpload, Result, Tables};

/// A store that closes after so many commits of writes.
struct MortalKv {
    inner: Arc<dyn Kv>,
    commits_left: Arc<AtomicI64>,
}

struct MortalTransaction {
    inner: Box<dyn Transaction>,
    commits_left: Arc<AtomicI64>,
}

#[async_trait]
impl Kv for MortalKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        let inner = self.inner.begin().await?;
        Ok(Box::new(MortalTransaction { inner, commits_left: Arc::clone(&self.commits_left) }))
    }

    async fn close(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn engine_name(&self) -> &'static str {
        "mortal"
    }
}

#[async_trait]
impl Transaction for MortalTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.inner.get(key).await
    }

    async fn get_range(&mut self, range: RangeRead) -> Result<RangePage, KvError> {
        self.inner.get_range(range).await
    }

    crate::pass_writes_through!(self => self.inner);

    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError> {
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(KvError::Closed);
        }
        self.inner.commit().await
    }
}

/// Data whose inline manifest takes about 6 KiB, so that a few hundred parts need their list written ahead.
fn bulky(data: DataId) -> DataRow {
    let (mut row, _) = data_row(data, 64);
    if let ManifestPlace::Inline(manifest) = &mut row.manifest {
        manifest.nodes = (0..12).map(penstock_proto::NodeId).collect();
        manifest.stripes.iter_mut().for_each(|stripe| stripe.shard_crc64s = vec![9; 12]);
    }
    row
}

const PARTS: u32 = 400;

/// An object, an upload of [`PARTS`] parts, its completion with some left out, a delete and collection: until the store
/// dies.
async fn a_day(tables: &Tables) -> Result<()> {
    let bucket = tables.create_bucket("b", "", 1).await?;
    let data = begin(tables, 130, 1000).await?;
    tables.commit_object(&bucket, "k", object_row("e", Layout::Single(data)), &always(), 0).await?;
    let upload = tables.create_upload(&bucket, NewUpload { key: "k".into(), ..NewUpload::default() }, 1).await?;
    let id = upload.upload_id.as_str();
    for number in 1..=PARTS {
        let data = begin(tables, 1, 1000).await?;
        let part = part_row(number, Some(bulky(data.data)));
        tables.put_part(bucket.id, "k", id, &part, 0).await?;
    }
    let version = tables.parts(bucket.id, "k", id, 0, 1).await?.version;
    let numbers: Vec<u32> = (1..=PARTS).filter(|number| number % 4 == 0).collect();
    let request = CompleteUpload {
        bucket: &bucket,
        key: "k",
        upload_id: id,
        row: object_row("u", Layout::Empty),
        part_numbers: &numbers,
        parts_version: version,
        preconditions: &always(),
        now_unix_ms: 1,
        garbage_not_before_unix_ms: 0,
    };
    tables.complete_upload(request).await?;
    tables.delete_object(&bucket, "k", &always(), 0).await?;
    for _ in 0..3 {
        for (token, _) in tables.next_garbage(5, 50).await? {
            tables.finish_garbage(&token).await?;
        }
    }
    Ok(())
}

async fn dies_after(commits: i64) -> bool {
    let inner = mem();
    let commits_left = Arc::new(AtomicI64::new(commits));
    let mortal = Tables::new(Arc::new(MortalKv { inner: Arc::clone(&inner), commits_left }));
    let finished = a_day(&mortal).await.is_ok();

    // The next process.
    let tables = Tables::new(inner);
    let states = Audit::of(&tables).await.states();
    let Some(bucket) = tables.bucket("b").await.unwrap() else { return finished };
    let reachable = states.values().filter(|state| **state == State::Reachable).count();
    let collected = collect_all(&tables, u64::MAX - 1).await.len();
    assert_eq!(collected, states.len() - reachable, "after {commits} commits");
    let states = Audit::of(&tables).await.states();
    assert!(states.values().all(|state| *state == State::Reachable) && states.len() == reachable);
    tables.delete_object(&bucket, "k", &always(), 0).await.unwrap();
    for upload in tables.list_uploads(bucket.id, "", "", "", "", 10).await.unwrap().uploads {
        tables.abort_upload(bucket.id, "k", &upload.upload_id, 0).await.unwrap();
    }
    assert_eq!(collect_all(&tables, u64::MAX - 1).await.len(), reachable);
    tables.delete_bucket("b").await.unwrap();
    assert_eq!(Audit::of(&tables).await.letters(), "C", "after {commits} commits");
    finished
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_after_any_commit_leaks_nothing() {
    // Every commit but the parts', which are all alike.
    let parts_begin = 6;
    let parts_end = parts_begin + 2 * i64::from(PARTS);
    for commits in (0..parts_begin + 4).chain(parts_end - 2..parts_end + 40).chain([parts_end + 100]) {
        dies_after(commits).await;
    }
    assert!(dies_after(i64::MAX / 2).await, "the day has an end");
}

/// Or the test above would not meet the transactions that write lists ahead.
#[test]
fn the_days_lists_need_several_transactions() {
    let rows = crate::tables::lists::NewList::of(
        &(1..=PARTS).map(|number| part_row(number, Some(bulky(DataId(1))))).collect::<Vec<_>>(),
    )
    .unwrap();
    assert!(rows.bytes() > 512 << 10, "{} bytes", rows.bytes());
}
