//! A decorator that injects, from a seed, what any engine may do to its callers: conflicts, commits of unknown outcome
//! (applied and not applied), short range pages, transactions that turn too old, a busy store.
//!
//! Code above the store is tested through it; it must behave the same with and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::random::SplitMix;
use super::{CommitVersion, Kv, KvError, RangePage, RangeRead, Transaction};

/// How often each fault happens, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Where the random numbers start.
    pub seed: u64,
    /// Commits refused with [`KvError::Conflict`].
    pub conflict_per_mille: u64,
    /// Commits that are applied and answered with [`KvError::CommitUnknown`].
    pub unknown_applied_per_mille: u64,
    /// Commits that are dropped and answered with [`KvError::CommitUnknown`].
    pub unknown_lost_per_mille: u64,
    /// Range reads that return fewer rows than asked, with `more` set.
    pub short_range_per_mille: u64,
    /// Reads answered with [`KvError::TooOld`].
    pub too_old_per_mille: u64,
    /// Begins refused with [`KvError::Busy`].
    pub busy_per_mille: u64,
}

impl FaultPlan {
    /// Every fault, often enough that short tests meet them all.
    pub fn lively(seed: u64) -> Self {
        Self {
            seed,
            conflict_per_mille: 60,
            unknown_applied_per_mille: 60,
            unknown_lost_per_mille: 60,
            short_range_per_mille: 300,
            too_old_per_mille: 10,
            busy_per_mille: 20,
        }
    }
}

struct Injector {
    plan: FaultPlan,
    random: Mutex<SplitMix>,
    injected: AtomicU64,
}

impl Injector {
    fn hits(&self, per_mille: u64) -> bool {
        let hit = per_mille > 0 && self.random.lock().below(1000) < per_mille;
        if hit {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }
}

/// A store with faults.
pub struct FaultyKv {
    inner: Arc<dyn Kv>,
    injector: Arc<Injector>,
}

impl FaultyKv {
    /// Puts the faults of `plan` between `inner` and its callers.
    pub fn new(inner: Arc<dyn Kv>, plan: FaultPlan) -> Self {
        let random = Mutex::new(SplitMix::new(plan.seed));
        Self { inner, injector: Arc::new(Injector { plan, random, injected: AtomicU64::new(0) }) }
    }

    /// How many faults have been injected so far.
    pub fn injected(&self) -> u64 {
        self.injector.injected.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Kv for FaultyKv {
    async fn begin(&self) -> Result<Box<dyn Transaction>, KvError> {
        if self.injector.hits(self.injector.plan.busy_per_mille) {
            return Err(KvError::Busy);
        }
        let inner = self.inner.begin().await?;
        Ok(Box::new(FaultyTransaction { inner, injector: Arc::clone(&self.injector) }))
    }

    async fn close(&self) -> Result<(), KvError> {
        self.inner.close().await
    }

    fn engine_name(&self) -> &'static str {
        "faulty"
    }
}

struct FaultyTransaction {
    inner: Box<dyn Transaction>,
    injector: Arc<Injector>,
}

impl FaultyTransaction {
    fn maybe_too_old(&self) -> Result<(), KvError> {
        if self.injector.hits(self.injector.plan.too_old_per_mille) { Err(KvError::TooOld) } else { Ok(()) }
    }
}

#[async_trait]
impl Transaction for FaultyTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.maybe_too_old()?;
        self.inner.get(key).await
    }

    async fn get_range(&mut self, mut range: RangeRead) -> Result<RangePage, KvError> {
        self.maybe_too_old()?;
        if self.injector.hits(self.injector.plan.short_range_per_mille) {
            let most = if range.limit == 0 { 16 } else { range.limit.min(16) };
            range.limit = 1 + self.injector.random.lock().below(most as u64) as usize;
        }
        self.inner.get_range(range).await
    }

    crate::pass_writes_through!(self => self.inner);

    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError> {
        let plan = &self.injector.plan;
        if self.inner.is_read_only() {
            return self.inner.commit().await;
        }
        if self.injector.hits(plan.conflict_per_mille) {
            return Err(KvError::Conflict);
        }
        if self.injector.hits(plan.unknown_lost_per_mille) {
            return Err(KvError::CommitUnknown);
        }
        let applied = self.injector.hits(plan.unknown_applied_per_mille);
        let version = self.inner.commit().await?;
        if applied { Err(KvError::CommitUnknown) } else { Ok(version) }
    }
}
