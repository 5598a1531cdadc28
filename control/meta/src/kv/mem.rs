//! The engine in memory: every key with its versions, oldest first. It is the model that the others are held against,
//! and what tests of the layers above run on. Nothing survives the process.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::engine::{Batch, Engine, EngineSnapshot, Room};
use super::occ::{OccOptions, OccStore};
use super::{Kv, KvError, StoreStats, Transaction};

/// A store in memory.
pub struct MemKv(OccStore<MemEngine>);

impl MemKv {
    /// An empty store.
    ///
    /// # Panics
    /// If the machine can't start one more thread.
    pub fn new() -> Self {
        Self::with_lifetime(penstock_proto::limits::TRANSACTION_LIFETIME)
    }

    /// An empty store whose transactions live for `lifetime`; for tests of what happens to old ones.
    ///
    /// # Panics
    /// If the machine can't start one more thread.
    pub fn with_lifetime(lifetime: Duration) -> Self {
        let store = OccStore::start(MemEngine::default(), OccOptions { lifetime });
        Self(store.expect("a test's machine can start a thread"))
    }

    /// What the store has done so far.
    pub fn stats(&self) -> StoreStats {
        self.0.stats()
    }
}

impl Default for MemKv {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Kv for MemKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        self.0.begin()
    }

    async fn close(&self) -> Result<(), KvError> {
        self.0.close().await
    }

    fn engine_name(&self) -> &'static str {
        self.0.engine_name()
    }
}

/// The versions of one key, oldest first; `None` is a removal.
type Versions = VecDeque<(u64, Option<Bytes>)>;

#[derive(Default)]
struct Rows {
    version: u64,
    rows: BTreeMap<Bytes, Versions>,
    /// Removals whose rows can go once no snapshot is older than they: (version, key), oldest first.
    removed: VecDeque<(u64, Bytes)>,
}

/// Multi-version rows under one lock.
#[derive(Default)]
pub(crate) struct MemEngine {
    rows: Arc<RwLock<Rows>>,
    /// How many snapshots there are of each version.
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl Engine for MemEngine {
    type Snapshot = MemSnapshot;

    fn name(&self) -> &'static str {
        "mem"
    }

    fn opened_at_version(&self) -> u64 {
        0
    }

    fn snapshot(&self) -> MemSnapshot {
        // Registered while the rows are locked, so that `apply` can't drop what this snapshot is about to see.
        let rows = self.rows.read();
        let version = rows.version;
        *self.live.lock().entry(version).or_insert(0) += 1;
        MemSnapshot { version, rows: Arc::clone(&self.rows), live: Arc::clone(&self.live) }
    }

    fn room(&self) -> Room {
        Room::Plenty
    }

    fn apply(&self, version: u64, batch: Batch) -> Result<(), KvError> {
        let mut guard = self.rows.write();
        let rows = &mut *guard;
        let oldest = self.live.lock().keys().next().copied().unwrap_or(version).min(version);
        for (key, value) in batch {
            if value.is_none() {
                rows.removed.push_back((version, key.clone()));
            }
            let versions = rows.rows.entry(key).or_default();
            versions.push_back((version, value));
            // All but the newest version that the oldest snapshot may see.
            while versions.get(1).is_some_and(|(next, _)| *next <= oldest) {
                versions.pop_front();
            }
        }
        rows.version = version;
        while rows.removed.front().is_some_and(|(at, _)| *at <= oldest) {
            let Some((_, key)) = rows.removed.pop_front() else { break };
            if let Some(versions) = rows.rows.get_mut(&key) {
                while versions.get(1).is_some_and(|(next, _)| *next <= oldest) {
                    versions.pop_front();
                }
                if versions.len() == 1 && versions[0].1.is_none() && versions[0].0 <= oldest {
                    rows.rows.remove(&key);
                }
            }
        }
        Ok(())
    }
}

/// The rows as they were at one version.
pub(crate) struct MemSnapshot {
    version: u64,
    rows: Arc<RwLock<Rows>>,
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl MemSnapshot {
    fn visible(&self, versions: &Versions) -> Option<Bytes> {
        versions.iter().rev().find(|(at, _)| *at <= self.version).and_then(|(_, value)| value.clone())
    }
}

impl Drop for MemSnapshot {
    fn drop(&mut self) {
        let mut live = self.live.lock();
        if let Some(count) = live.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.version);
            }
        }
    }
}

impl EngineSnapshot for MemSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.rows.read().rows.get(key).and_then(|versions| self.visible(versions)))
    }

    fn scan(
        &self,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(Bytes, Bytes) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let guard = self.rows.read();
        let mut range = guard.rows.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)));
        while let Some((key, versions)) = if reverse { range.next_back() } else { range.next() } {
            if let Some(value) = self.visible(versions)
                && visit(key.clone(), value).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}
