//! Tests of the key-value layer: one conformance suite, run by every engine and by the fault injector, and what only one
//! of them can show.

mod conformance;
mod crash;
mod group;
mod history;
mod idempotence;
mod model;
mod rot;
mod send;

use std::sync::Arc;
use std::time::Duration;

use super::occ::OccOptions;
use super::{FaultPlan, FaultyKv, FjallKv, FjallOptions, Kv, KvError, MemKv, RangeRead, Transaction};

/// A store under test, with what it needs to live.
struct Subject {
    kv: Arc<dyn Kv>,
    /// Whether operations may fail for no reason of the caller's.
    faulty: bool,
    _directory: Option<tempfile::TempDir>,
}

/// So long that no test meets it on a machine that is busy with something else.
const LONG: Duration = Duration::from_secs(3600);

fn mem() -> Subject {
    Subject { kv: Arc::new(MemKv::with_lifetime(LONG)), faulty: false, _directory: None }
}

fn fjall() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let occ = OccOptions { lifetime: LONG };
    let kv = Arc::new(FjallKv::open_inner(directory.path(), FjallOptions::default(), occ).unwrap());
    Subject { kv, faulty: false, _directory: Some(directory) }
}

fn faulty() -> Subject {
    let kv = Arc::new(FaultyKv::new(Arc::new(MemKv::with_lifetime(LONG)), FaultPlan::lively(1)));
    Subject { kv, faulty: true, _directory: None }
}

/// Reads `range` page by page, as callers must, up to its limit (0: all of it).
async fn read_all(txn: &mut dyn Transaction, range: RangeRead) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KvError> {
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut next = range.clone();
    loop {
        if range.limit > 0 {
            next.limit = range.limit - rows.len();
        }
        let page = txn.get_range(next.clone()).await?;
        assert!(range.limit == 0 || page.rows.len() <= next.limit, "a page longer than its limit");
        assert!(!page.more || !page.rows.is_empty(), "an empty page with more set would never end");
        rows.extend(page.rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        let Some((last, _)) = rows.last().filter(|_| page.more && rows.len() != range.limit) else { return Ok(rows) };
        if range.reverse {
            next.end = last.clone();
        } else {
            next.begin = [last.as_slice(), &[0]].concat();
        }
    }
}
