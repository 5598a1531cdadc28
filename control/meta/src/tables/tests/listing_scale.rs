//! What a listing reads, counted: rows under a common prefix are never touched, but for the few of one read-ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::support::{always, bucket, mem, object_row};
use crate::kv::{CommitVersion, Kv, KvError, RangePage, RangeRead, Transaction};
use crate::tables::{Layout, Tables};

/// What was read of a store.
#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    rows: AtomicU64,
}

/// A store that counts what is read of it.
struct CountingKv(Arc<dyn Kv>, Arc<Counts>);

struct CountingTxn(Box<dyn Transaction>, Arc<Counts>);

#[async_trait]
impl Kv for CountingKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        Ok(Box::new(CountingTxn(self.0.begin().await?, self.1.clone())))
    }
    async fn close(&self) -> Result<(), KvError> {
        self.0.close().await
    }
    fn engine_name(&self) -> &'static str {
        self.0.engine_name()
    }
}

#[async_trait]
impl Transaction for CountingTxn {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.1.reads.fetch_add(1, Ordering::Relaxed);
        self.0.get(key).await
    }
    async fn get_range(&mut self, range: RangeRead) -> Result<RangePage, KvError> {
        let page = self.0.get_range(range).await?;
        self.1.reads.fetch_add(1, Ordering::Relaxed);
        self.1.rows.fetch_add(page.rows.len() as u64, Ordering::Relaxed);
        Ok(page)
    }
    crate::pass_writes_through!(self => self.0);
    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError> {
        self.0.commit().await
    }
}

/// Folders of a bucket, and what listing them reads (calls, rows).
const FOLDERS: usize = 30;

async fn cost_of_folders(keys_in_each: usize) -> (u64, u64) {
    let counts = Arc::new(Counts::default());
    let tables = Tables::new(Arc::new(CountingKv(mem(), counts.clone())));
    let bucket = bucket(&tables, "bucket").await;
    for folder in 0..FOLDERS {
        for key in 0..keys_in_each {
            let key = format!("top/{folder:03}/{key:06}");
            tables.commit_object(&bucket, &key, object_row("e", Layout::Empty), &always(), 0).await.unwrap();
        }
    }
    let (reads, rows) = (counts.reads.load(Ordering::Relaxed), counts.rows.load(Ordering::Relaxed));
    let page = tables.list_objects(bucket.id, "top/", "/", "", 1000).await.unwrap();
    assert_eq!((page.prefixes.len(), page.rows.len()), (FOLDERS, 0));
    let now = (counts.reads.load(Ordering::Relaxed), counts.rows.load(Ordering::Relaxed));
    (now.0 - reads, now.1 - rows)
}

#[tokio::test]
async fn keys_under_a_common_prefix_are_not_touched() {
    let few = cost_of_folders(100).await;
    let many = cost_of_folders(1000).await;
    assert_eq!(few, many, "ten times the keys cost the same reads and rows");
    let (reads, rows) = many;
    assert!(reads <= FOLDERS as u64 + 1, "one seek for each common prefix: {reads}");
    assert!(rows <= 16 * (FOLDERS as u64 + 1), "no more rows than were read ahead: {rows}");
}

#[tokio::test]
async fn a_page_reads_what_it_shows() {
    let counts = Arc::new(Counts::default());
    let tables = Tables::new(Arc::new(CountingKv(mem(), counts.clone())));
    let bucket = bucket(&tables, "bucket").await;
    for key in 0..3000 {
        let key = format!("{key:06}");
        tables.commit_object(&bucket, &key, object_row("e", Layout::Empty), &always(), 0).await.unwrap();
    }
    for (after, max) in [("", 1000), ("001500", 1000), ("000100", 7), ("", 1)] {
        let rows = counts.rows.load(Ordering::Relaxed);
        let page = tables.list_objects(bucket.id, "", "", after, max).await.unwrap();
        assert_eq!(page.rows.len(), max);
        let touched = counts.rows.load(Ordering::Relaxed) - rows;
        // One more is looked at to know whether anything follows; reads come in batches of 512 rows.
        assert!(touched <= (max as u64 + 1).next_multiple_of(512).min(2 * max as u64 + 2), "{touched} rows for {max}");
    }
}
