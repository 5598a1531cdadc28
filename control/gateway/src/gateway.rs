//! The gateway itself: what every operation shares, its start and its end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock_buf::{BufPool, PoolStats};
use penstock_digest::{HashCounts, HashScheduler, HashTier};
use penstock_executor::{Executor, ExecutorStats};
use penstock_meta::kv::Kv;
use penstock_meta::tables::{BucketRow, Tables};
use penstock_placement::ClusterMap;
use penstock_proto::{Clock, Code, NodeId};
use penstock_vault::KeyStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};
use crate::garbage::{Collected, Collector};
use crate::leases::Leases;
use crate::lifecycle;
use crate::options::GatewayOptions;
use crate::pack::Packer;
use crate::pending::{PendingPool, Registry};
use crate::placing::Placer;
use crate::plan_holds::Plans;
use crate::policies::Policies;
use crate::traffic::{GatewayStats, Traffic};
use crate::upkeep::Upkeep;

/// S3 operations over metadata and storage nodes. Clones share everything.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) tables: Tables,
    pub(crate) executor: Executor,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: GatewayOptions,
    pub(crate) leases: Leases,
    pub(crate) pending: PendingPool,
    pub(crate) placer: Placer,
    pub(crate) policies: Policies,
    pub(crate) collector: Collector,
    pub(crate) lifecycles: lifecycle::Parsed,
    pub(crate) lifecycle_worker: lifecycle::Worker,
    pub(crate) hashes: HashScheduler,
    pub(crate) keys: Option<Arc<KeyStore>>,
    pub(crate) plans: Plans,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) upkeep: Upkeep,
    pub(crate) packer: Packer,
    admission: Arc<Semaphore>,
    open_streams: Arc<AtomicUsize>,
    puts: Arc<AtomicUsize>,
    /// The background tasks.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What a gateway holds at a moment. With no request under way everything but the pool's capacity, peak and
/// `garbage_rows` is zero, or something leaks.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Requests under way, open reads included.
    pub requests: usize,
    /// Reads whose streams live.
    pub open_streams: usize,
    /// Bodies being stored.
    pub puts_in_flight: usize,
    /// Data ids on their way in, or dropped and on their way to a garbage row.
    pub pending_data: usize,
    /// Data ids that a stream holds back from the collector.
    pub read_leases: usize,
    /// Plans whose time has not run out and that were not committed.
    pub plans_open: usize,
    /// Rows that wait for the collector, due or not.
    pub garbage_rows: u64,
    /// The executor's buffers, where the options name them.
    pub pool: Option<PoolStats>,
}

/// How much a gateway has to do, without asking the metadata.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests under way, open reads included.
    pub requests: usize,
    /// Reads whose streams live.
    pub open_streams: usize,
    /// Bodies being stored.
    pub puts_in_flight: usize,
    /// Data ids on their way in, or dropped and on their way to a garbage row.
    pub pending_data: usize,
    /// Plans whose time has not run out and that were not committed.
    pub plans_open: usize,
    /// The executor's buffers, where the options name them.
    pub pool: Option<PoolStats>,
    /// Data ids that were deleted as garbage since the start.
    pub garbage_deleted: u64,
    /// Their shards.
    pub garbage_shards: u64,
    /// Times that one was left for later.
    pub garbage_left: u64,
}

/// A request's place in the house; given back when dropped.
pub(crate) struct Admitted {
    _permit: OwnedSemaphorePermit,
}

/// One of a count; counted down when dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Gateway {
    /// A gateway over this metadata and these nodes ([`GatewayOptions::check`] says whether they can hold the code).
    /// Starts its background tasks on the current tokio runtime.
    pub fn new(kv: Arc<dyn Kv>, executor: Executor, clock: Arc<dyn Clock>, options: GatewayOptions) -> Self {
        let own = || HashScheduler::new(HashTier::detect(), HashScheduler::workers_default());
        let tables = Tables::new(kv);
        let placer = Placer::new(options.cluster_map.clone(), options.placement_sets_per_node, Some(executor.clone()));
        let inner = Arc::new(Inner {
            keys: options.master_key.as_ref().map(|master| Arc::new(KeyStore::new(tables.clone(), master))),
            hashes: options.hashes.clone().unwrap_or_else(own),
            tables,
            executor,
            clock,
            leases: Leases::default(),
            pending: PendingPool::new(),
            placer,
            policies: Policies::default(),
            collector: Collector::default(),
            plans: Plans::default(),
            traffic: Arc::default(),
            upkeep: Upkeep::new(&options.upkeep),
            packer: Packer::new(options.packing.clone()),
            lifecycles: lifecycle::Parsed::default(),
            lifecycle_worker: lifecycle::Worker::default(),
            admission: Arc::new(Semaphore::new(options.requests_in_flight_max)),
            open_streams: Arc::default(),
            puts: Arc::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            options,
        });
        crate::garbage::start(&inner);
        crate::placing::start(&inner);
        crate::plan_holds::start(&inner);
        crate::pack::start(&inner);
        lifecycle::start(&inner);
        crate::upkeep::start(&inner);
        Self { inner }
    }

    /// How bodies were hashed so far: how often alone, and how often how many together.
    pub fn hash_counts(&self) -> HashCounts {
        self.inner.hashes.counts()
    }

    /// Collects all garbage that is due now. For tests and for a shutdown that wants to leave nothing behind.
    ///
    /// # Errors
    /// When the metadata can't be read or written. Nodes that can't be reached are no error: see [`Collected::left`].
    pub async fn collect_garbage_now(&self) -> Result<Collected> {
        self.inner.plans.sweep(self.inner.clock.now_unix_ms());
        crate::garbage::collect_all(&self.inner).await
    }

    /// What this gateway holds now.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn usage(&self) -> Result<Usage> {
        let inner = &self.inner;
        Ok(Usage {
            requests: inner.options.requests_in_flight_max - inner.admission.available_permits(),
            open_streams: inner.open_streams.load(Ordering::SeqCst),
            puts_in_flight: inner.puts.load(Ordering::SeqCst),
            pending_data: inner.pending.count(),
            read_leases: inner.leases.count(),
            plans_open: inner.plans.count(),
            garbage_rows: inner.tables.garbage_count().await?,
            pool: inner.options.buffers.as_ref().map(BufPool::stats),
        })
    }

    /// How much it has to do.
    pub fn load(&self) -> Load {
        let inner = &self.inner;
        let garbage = inner.collector.total();
        Load {
            requests: inner.options.requests_in_flight_max.saturating_sub(inner.admission.available_permits()),
            open_streams: inner.open_streams.load(Ordering::SeqCst),
            puts_in_flight: inner.puts.load(Ordering::SeqCst),
            pending_data: inner.pending.count(),
            plans_open: inner.plans.count(),
            pool: inner.options.buffers.as_ref().map(BufPool::stats),
            garbage_deleted: garbage.data,
            garbage_shards: garbage.shards,
            garbage_left: garbage.left,
        }
    }

    /// What passed through this gateway since its start.
    pub fn stats(&self) -> GatewayStats {
        self.inner.traffic.read()
    }

    /// What its executor has seen since its start.
    pub fn executor_stats(&self) -> ExecutorStats {
        self.inner.executor.stats()
    }

    /// Takes no more requests (SlowDown), stops the background tasks and waits for them.
    pub async fn shutdown(&self) {
        self.inner.admission.close();
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Lets a request in.
    ///
    /// # Errors
    /// SlowDown when as many as may be are under way, or the gateway stops.
    pub(crate) fn admit(&self) -> Result<Admitted> {
        Arc::clone(&self.admission).try_acquire_owned().map(|permit| Admitted { _permit: permit }).map_err(|_refused| {
            Error::new(
                ErrorKind::SlowDown,
                format!("{} requests are under way; try again in a moment.", self.options.requests_in_flight_max),
            )
        })
    }

    pub(crate) fn count_put(&self) -> Counted {
        Counted::new(&self.puts)
    }

    pub(crate) fn count_stream(&self) -> Counted {
        Counted::new(&self.open_streams)
    }

    /// A background task, which ends soon after `stopping` says so.
    pub(crate) fn spawn_background<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        task: impl FnOnce(Arc<Self>, CancellationToken) -> F,
    ) {
        self.tasks.spawn(task(Arc::clone(self), self.stopping.clone()));
    }

    /// A job of the background, every `interval`, until the gateway stops: which cuts it short, so whatever it does must
    /// bear that.
    pub(crate) fn spawn_every<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        interval: Duration,
        job: impl Fn(Arc<Self>) -> F + Send + 'static,
    ) {
        self.spawn_background(move |inner, stopping| async move {
            let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stopping.cancelled() => break,
                }
                tokio::select! {
                    () = job(Arc::clone(&inner)) => {}
                    () = stopping.cancelled() => break,
                }
            }
        });
    }

    /// The map for new data: without nodes that are out.
    pub(crate) fn usable_map(&self) -> Arc<ClusterMap> {
        self.upkeep.nodes.usable(self)
    }

    /// Nodes that new data is not for: those that are being emptied or are lost.
    pub(crate) fn out(&self) -> Vec<NodeId> {
        let (all, usable) = (&self.options.cluster_map.nodes, self.usable_map());
        if usable.nodes.len() == all.len() {
            return Vec::new();
        }
        let is_out = |node: &NodeId| !usable.nodes.iter().any(|entry| entry.id == *node);
        all.iter().map(|entry| entry.id).filter(is_out).collect()
    }

    /// What registers data of a code.
    pub(crate) fn registry(&self, code: Code) -> Registry<'_> {
        Registry { tables: &self.tables, clock: &*self.clock, placer: &self.placer, out: self.out(), code }
    }

    /// The row of a bucket.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub(crate) async fn bucket(&self, name: &str) -> Result<BucketRow> {
        self.tables.bucket(name).await?.ok_or_else(|| no_such_bucket(name))
    }

    /// A day of lifecycle rules.
    pub(crate) fn day_ms(&self) -> u64 {
        u64::try_from(self.options.lifecycle_day.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// When data that is replaced now may be collected.
    pub(crate) fn garbage_not_before(&self) -> u64 {
        self.clock.now_unix_ms() + self.options.garbage_grace_ms
    }
}

pub(crate) fn no_such_bucket(name: &str) -> Error {
    Error::new(ErrorKind::NoSuchBucket, format!("The specified bucket does not exist: {name}"))
}

pub(crate) fn no_such_key(key: &str) -> Error {
    Error::new(ErrorKind::NoSuchKey, format!("The specified key does not exist: {key}"))
}
