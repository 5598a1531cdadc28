//! Data that is on nodes but not (yet) in any row: whoever drops it, drops it as garbage.
//!
//! Every PUT and part holds a [`PendingData`] from its first stripe to its commit. Its drop hands the data id to the
//! cleaner, whatever the reason: a failed digest, a client that went away, a panic; the cleaner aborts the id's pending
//! write in the metadata, which makes it garbage unless it was committed after all. A slot is taken before the first byte
//! is stored and given back only when that abort is durable or the data is committed, so the cleaner's queue is bounded
//! and never has to lose anything.
//!
//! A gateway that is killed leaves pending writes whose lease runs out ([`WRITE_LEASE_MS`]), and the collector takes them
//! then. So every id is registered before its first shard goes out; [`IdStock`] registers many at once, because small
//! PUTs could not afford a durable transaction more each.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_meta::tables::{NewWrite, Tables};
use penstock_proto::{Clock, Code, DataId, MapEpoch, NodeId, limits};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, ErrorKind, Result};
use crate::placing::{Placer, Places};

/// Data ids that may be on their way in, or out again, at a time.
const PENDING_MAX: usize = 8192;
/// How long data may be pending before it is garbage. Renewed while it is written.
pub(crate) const WRITE_LEASE_MS: u64 = 15 * 60 * 1000;
/// Ids registered in one transaction.
const STOCK_IDS: usize = 32;
/// An id from the stock is used only while this much of its lease is left.
const STOCK_LEFT_MS: u64 = WRITE_LEASE_MS / 2;

/// The way from dropped data to the cleaner.
#[derive(Clone)]
pub(crate) struct PendingPool(Arc<Shared>);

struct Shared {
    slots: Arc<Semaphore>,
    dropped: Mutex<Vec<Dropped>>,
    wake: Notify,
    stock: IdStock,
}

/// Data to be aborted, with the slot that it still takes.
pub(crate) struct Dropped {
    pub(crate) data: DataId,
    _slot: OwnedSemaphorePermit,
}

/// Data on its way in.
pub(crate) struct PendingData {
    id: Registered,
    places: Places,
    slot: Option<OwnedSemaphorePermit>,
    pool: PendingPool,
}

/// A data id in the metadata.
struct Registered {
    data: DataId,
    expires_unix_ms: u64,
    /// Those of its first group of stripes, and the only ones that it is registered with; empty: it may be anywhere.
    nodes: Vec<NodeId>,
}

/// Registered ids that nobody uses yet, by code.
#[derive(Default)]
struct IdStock {
    ids: Mutex<HashMap<Code, Vec<Registered>>>,
    /// Held while a batch is registered: the others wait for it rather than register their own.
    refill: tokio::sync::Mutex<()>,
}

/// What registering an id takes.
pub(crate) struct Registry<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) placer: &'a Placer,
    /// Nodes that are not for new data.
    pub(crate) out: Vec<NodeId>,
    pub(crate) code: Code,
}

impl PendingPool {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            slots: Arc::new(Semaphore::new(PENDING_MAX)),
            dropped: Mutex::new(Vec::new()),
            wake: Notify::new(),
            stock: IdStock::default(),
        }))
    }

    /// A fresh data id, registered and under guard. `one_group`: all of its stripes will be on one set of nodes.
    ///
    /// # Errors
    /// SlowDown when [`PENDING_MAX`] are under way or waiting for the cleaner; the metadata's.
    pub(crate) async fn begin(&self, registry: &Registry<'_>, one_group: bool) -> Result<PendingData> {
        let slot = self.0.slots.clone().try_acquire_owned().map_err(|_none_left| {
            Error::new(
                ErrorKind::SlowDown,
                format!("{PENDING_MAX} bodies are being stored or cleaned up after; try again in a moment."),
            )
        })?;
        let places = registry.placer.places(registry.tables, registry.code, &registry.out).await?;
        let id =
            if one_group { self.0.stock.take(registry, &places).await? } else { registry.register_anywhere().await? };
        Ok(PendingData { id, places, slot: Some(slot), pool: self.clone() })
    }

    /// What was dropped since the last call.
    pub(crate) fn take_dropped(&self) -> Vec<Dropped> {
        std::mem::take(&mut *self.0.dropped.lock())
    }

    /// Puts back what could not be aborted.
    pub(crate) fn put_back(&self, dropped: Vec<Dropped>) {
        self.0.dropped.lock().extend(dropped);
    }

    /// Waits until something is dropped.
    pub(crate) async fn dropped(&self) {
        self.0.wake.notified().await;
    }

    /// Data ids under way or waiting for the cleaner.
    pub(crate) fn count(&self) -> usize {
        PENDING_MAX - self.0.slots.available_permits()
    }
}

impl IdStock {
    async fn take(&self, registry: &Registry<'_>, places: &Places) -> Result<Registered> {
        if let Some(id) = self.pop(registry, places) {
            return Ok(id);
        }
        let _turn = self.refill.lock().await;
        if let Some(id) = self.pop(registry, places) {
            return Ok(id);
        }
        let mut fresh = registry.register_batch(places).await?;
        let id = fresh.pop().ok_or_else(|| Error::new(ErrorKind::InternalError, "no id was registered"))?;
        self.ids.lock().entry(registry.code).or_default().extend(fresh);
        Ok(id)
    }

    fn pop(&self, registry: &Registry<'_>, places: &Places) -> Option<Registered> {
        let now_unix_ms = registry.clock.now_unix_ms();
        let mut all = self.ids.lock();
        let ids = all.get_mut(&registry.code)?;
        // What is too old, or was placed on a node that is gone meanwhile, runs out by itself.
        ids.retain(|id| id.expires_unix_ms >= now_unix_ms.saturating_add(STOCK_LEFT_MS) && places.allow(&id.nodes));
        ids.pop()
    }
}

impl Registry<'_> {
    async fn register_batch(&self, places: &Places) -> Result<Vec<Registered>> {
        let expires_unix_ms = self.clock.now_unix_ms() + WRITE_LEASE_MS;
        let mut writes = Vec::with_capacity(STOCK_IDS);
        for _ in 0..STOCK_IDS {
            let data = DataId::random();
            let nodes = places.of(data, 0);
            writes.push(NewWrite { data, nodes, expires_unix_ms });
        }
        self.tables.begin_writes(&writes).await?;
        let registered = |NewWrite { data, nodes, .. }| Registered { data, expires_unix_ms, nodes };
        Ok(writes.into_iter().map(registered).collect())
    }

    async fn register_anywhere(&self) -> Result<Registered> {
        let expires_unix_ms = self.clock.now_unix_ms() + WRITE_LEASE_MS;
        let data = DataId::random();
        self.tables.begin_writes(&[NewWrite { data, nodes: Vec::new(), expires_unix_ms }]).await?;
        Ok(Registered { data, expires_unix_ms, nodes: Vec::new() })
    }
}

/// Whether a body of this length has all its stripes on one set of nodes.
pub(crate) fn is_one_group(content_bytes: Option<u64>) -> bool {
    let group_bytes = (penstock_meta::tables::MANIFEST_STRIPES_MAX * limits::CHUNK_BYTES) as u64;
    content_bytes.is_some_and(|bytes| bytes <= group_bytes)
}

impl PendingData {
    pub(crate) fn data(&self) -> DataId {
        self.id.data
    }

    /// The nodes of a group of its stripes.
    pub(crate) fn nodes(&self, group: u32) -> Vec<NodeId> {
        if group == 0 && !self.id.nodes.is_empty() {
            self.id.nodes.clone()
        } else {
            self.places.of(self.id.data, group)
        }
    }

    /// The version of what it was placed by.
    pub(crate) fn epoch(&self) -> MapEpoch {
        self.places.epoch()
    }

    /// Renews the lease when a third of it is gone.
    ///
    /// # Errors
    /// ServiceUnavailable when it ran out before.
    pub(crate) async fn renew_if_due(&mut self, tables: &Tables, clock: &dyn Clock) -> Result<()> {
        let now_unix_ms = clock.now_unix_ms();
        // Ids from the stock come with half of it at least.
        if self.id.expires_unix_ms >= now_unix_ms + WRITE_LEASE_MS / 3 {
            return Ok(());
        }
        let expires_unix_ms = now_unix_ms + WRITE_LEASE_MS;
        tables.renew_writes(&[self.id.data], expires_unix_ms).await?;
        self.id.expires_unix_ms = expires_unix_ms;
        Ok(())
    }

    /// A row names the data now: it is no longer ours to clean up.
    pub(crate) fn committed(mut self) {
        self.slot = None;
    }
}

impl Drop for PendingData {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        self.pool.0.dropped.lock().push(Dropped { data: self.id.data, _slot: slot });
        self.pool.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use penstock_meta::kv::MemKv;
    use penstock_placement::{ClusterMap, NodeEntry};
    use penstock_proto::ManualClock;

    use super::*;

    struct Parts {
        tables: Tables,
        clock: ManualClock,
        placer: Placer,
    }

    impl Parts {
        fn new() -> Self {
            let nodes = (0..3).map(|id| NodeEntry { id: NodeId(id), weight: 1, domain: Vec::new() }).collect();
            Self {
                tables: Tables::new(Arc::new(MemKv::new())),
                clock: ManualClock::at(1_000_000_000_000),
                placer: Placer::new(ClusterMap { epoch: MapEpoch(1), nodes }, 10, None),
            }
        }

        fn registry(&self) -> Registry<'_> {
            Registry {
                tables: &self.tables,
                clock: &self.clock,
                placer: &self.placer,
                out: Vec::new(),
                code: Code::new(2, 1).unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn dropped_data_is_handed_on_and_committed_data_is_not() {
        let (pool, parts) = (PendingPool::new(), Parts::new());
        pool.begin(&parts.registry(), true).await.unwrap().committed();
        assert_eq!((pool.count(), pool.take_dropped().len()), (0, 0));

        let lost = pool.begin(&parts.registry(), false).await.unwrap();
        let data = lost.data();
        drop(lost);
        pool.dropped().await;
        let dropped = pool.take_dropped();
        assert_eq!(pool.count(), 1, "its slot is taken until the abort is durable");
        assert_eq!(dropped[0].data, data);
        pool.put_back(dropped);
        assert_eq!(pool.take_dropped().len(), 1);
        assert_eq!(pool.count(), 0);
    }

    #[tokio::test]
    async fn ids_are_registered_many_at_a_time_and_not_used_when_old() {
        let (pool, parts) = (PendingPool::new(), Parts::new());
        let mut ids = std::collections::HashSet::new();
        for _ in 0..STOCK_IDS {
            ids.insert(pool.begin(&parts.registry(), true).await.unwrap().data());
        }
        assert_eq!(ids.len(), STOCK_IDS);
        assert_eq!(parts.tables.pending_count().await.unwrap(), STOCK_IDS as u64);
        pool.begin(&parts.registry(), true).await.unwrap().committed();
        assert_eq!(parts.tables.pending_count().await.unwrap(), 2 * STOCK_IDS as u64);
        parts.clock.advance_ms(STOCK_LEFT_MS + 1);
        pool.begin(&parts.registry(), true).await.unwrap().committed();
        assert_eq!(parts.tables.pending_count().await.unwrap(), 3 * STOCK_IDS as u64, "the old ones are left alone");
    }

    #[tokio::test]
    async fn a_lease_is_renewed_in_time_and_not_after() {
        let (pool, parts) = (PendingPool::new(), Parts::new());
        let mut slow = pool.begin(&parts.registry(), true).await.unwrap();
        for _ in 0..10 {
            parts.clock.advance_ms(WRITE_LEASE_MS * 3 / 4);
            slow.renew_if_due(&parts.tables, &parts.clock).await.unwrap();
            parts.tables.next_garbage(parts.clock.now_unix_ms(), 10).await.unwrap();
        }
        parts.clock.advance_ms(WRITE_LEASE_MS + 1);
        parts.tables.next_garbage(parts.clock.now_unix_ms(), 10).await.unwrap();
        let late = slow.renew_if_due(&parts.tables, &parts.clock).await.unwrap_err();
        assert_eq!(late.kind, ErrorKind::ServiceUnavailable);
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let (pool, parts) = (PendingPool::new(), Parts::new());
        let mut all = Vec::new();
        for _ in 0..PENDING_MAX {
            all.push(pool.begin(&parts.registry(), true).await.unwrap());
        }
        assert_eq!(pool.begin(&parts.registry(), true).await.err().unwrap().kind, ErrorKind::SlowDown);
        drop(all);
        pool.take_dropped();
        assert!(pool.begin(&parts.registry(), true).await.is_ok());
    }
}
