//! Keeping what is stored: looking after nodes, finding what has rotted or is lost, repairing it, emptying nodes, and
//! removing what nothing refers to.
//!
//! Three jobs run in the background: a **look** at every node ([`nodes`]), the **survey** that compares metadata and nodes
//! ([`survey`]), and the **repairs** ([`repair`]) of what it and the writers queued ([`queue`]), within a bandwidth budget
//! ([`budget`]). The gateway decides; payload moves from node to node, by the executors beside them.
//!
//! What lasts is in the metadata and on the nodes: rows that say which shards are missing, the shards themselves, which
//! nodes are being drained, when a stray was first seen, where a survey is. The queue is memory: what is lost of it is
//! found again.
//!
//! **One gateway keeps.** The jobs of two gateways over one metadata would do the same work twice; repairs are
//! compare-and-set and would do no harm, but the removal of strays knows of the moves of its own gateway alone. So where
//! there are several gateways, [`UpkeepOptions::interval`] is set at one of them.

mod budget;
mod filter;
mod moves;
pub(crate) mod nodes;
mod queue;
mod repair;
pub(crate) mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{DataId, NodeId, Rights};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, Inner};
use crate::write::Signed;

pub use nodes::{NodeReport, NodeState};
pub use repair::Repaired;
pub use survey::Surveyed;

use budget::Budget;
use moves::Moves;
use nodes::Nodes;
use queue::Queue;
use survey::Wish;

/// The link that repairs share with everything else, unless the options say otherwise: 10 Gbit/s.
const BANDWIDTH_BYTES_PER_S: u64 = 1_250_000_000;
/// The part of it that repairs may take.
const REPAIR_PERCENT: u64 = 20;
/// The shortest time between a survey and the next that is asked for by what that one left undone.
const SURVEY_PAUSE: Duration = Duration::from_secs(30);

/// How what is stored is kept.
#[derive(Clone, Debug)]
pub struct UpkeepOptions {
    /// How often the background looks after nodes and repairs; `None` leaves it all to [`Gateway::keep_now`].
    pub interval: Option<Duration>,
    /// How often everything is compared, metadata and nodes.
    pub survey_interval: Duration,
    /// How long a node may be gone before its shards are rebuilt elsewhere.
    pub node_lost_after: Duration,
    /// Bytes that repairs read and write a second, all together.
    pub repair_bytes_per_s: u64,
    /// Runs of stripes repaired at a time.
    pub repairs_at_a_time: usize,
    /// How long what nothing refers to stays on a node after it was first seen there.
    pub stray_grace: Duration,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(5)),
            survey_interval: Duration::from_secs(24 * 3600),
            node_lost_after: Duration::from_secs(15 * 60),
            repair_bytes_per_s: BANDWIDTH_BYTES_PER_S / 100 * REPAIR_PERCENT,
            repairs_at_a_time: 4,
            stray_grace: Duration::from_secs(24 * 3600),
        }
    }
}

/// What the upkeep knows and has done since the gateway's start.
#[derive(Clone, Debug, Serialize)]
pub struct UpkeepReport {
    /// Every node.
    pub nodes: Vec<NodeReport>,
    /// Runs of stripes that wait for their repair.
    pub queued: u64,
    /// Runs that were put off.
    pub put_off: u64,
    /// Of both, how many by the shards that their worst stripe can still lose; below 0 it can't be read.
    pub queued_by_spare: BTreeMap<i32, u64>,
    /// What was repaired.
    pub repaired: Repaired,
    /// Whether a survey is under way.
    pub surveying: bool,
    /// Runs that it has seen so far.
    pub survey_runs: u64,
    /// Runs that the last one saw in all.
    pub survey_runs_expected: u64,
    /// When the last one ended; 0 for never.
    pub survey_ended_unix_ms: u64,
    /// What the last one found.
    pub survey: Surveyed,
    /// Strays deleted since the start.
    pub strays_deleted: u64,
}

/// What the jobs share.
pub(crate) struct Upkeep {
    pub(crate) nodes: Nodes,
    queue: Mutex<Queue>,
    budget: Budget,
    moves: Moves,
    wish: Mutex<Option<Wish>>,
    /// One at a time of each.
    surveying: tokio::sync::Mutex<()>,
    repairing: tokio::sync::Mutex<()>,
    survey_runs: AtomicU64,
    survey_under_way: AtomicU64,
    strays_deleted: AtomicU64,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    repaired: Repaired,
    survey: Surveyed,
    /// Of the last that looked at everything.
    whole_ended_unix_ms: u64,
    ended_unix_ms: u64,
}

impl Upkeep {
    pub(crate) fn new(options: &UpkeepOptions) -> Self {
        Self {
            nodes: Nodes::default(),
            queue: Mutex::default(),
            budget: Budget::new(options.repair_bytes_per_s),
            moves: Moves::default(),
            wish: Mutex::default(),
            surveying: tokio::sync::Mutex::default(),
            repairing: tokio::sync::Mutex::default(),
            survey_runs: AtomicU64::new(0),
            survey_under_way: AtomicU64::new(0),
            strays_deleted: AtomicU64::new(0),
            done: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, repaired: Repaired) {
        self.done.lock().repaired.add(repaired);
    }

    /// Runs that the last survey saw.
    pub(crate) fn runs_expected(&self) -> u64 {
        self.done.lock().survey.runs
    }

    pub(crate) fn survey_is_at(&self, runs: u64) {
        self.survey_runs.store(runs, Ordering::Relaxed);
    }

    /// Whether the last survey was long enough ago for another one about the same.
    fn survey_is_old(&self, inner: &Inner) -> bool {
        let ended_unix_ms = self.done.lock().ended_unix_ms;
        inner.clock.now_unix_ms().saturating_sub(ended_unix_ms) >= SURVEY_PAUSE.as_millis() as u64
    }

    fn wants(&self, wish: Wish) {
        self.wish.lock().get_or_insert_default().add(wish);
    }
}

/// Starts the jobs, if the options give them an interval.
pub(crate) fn start(inner: &Arc<Inner>) {
    let Some(interval) = inner.options.upkeep.interval else { return };
    inner.spawn_every(interval, |inner| async move { look(&inner).await });
    inner.spawn_every(interval, |inner| async move {
        if let Err(error) = repair_ready(&inner).await {
            tracing::warn!(%error, "repairs can't go on now");
        }
    });
    inner.spawn_every(interval, |inner| async move {
        let due = {
            let done = inner.upkeep.done.lock();
            let every_ms = inner.options.upkeep.survey_interval.as_millis() as u64;
            inner.clock.now_unix_ms().saturating_sub(done.whole_ended_unix_ms) >= every_ms
        };
        if due {
            inner.upkeep.wants(Wish::whole());
        }
        if let Err(error) = survey_wished(&inner).await {
            tracing::warn!(%error, "the survey can't go on now");
        }
    });
}

/// Looks at every node, and asks for a survey where something is new.
async fn look(inner: &Arc<Inner>) {
    if let Err(error) = inner.upkeep.nodes.load(inner).await {
        tracing::warn!(%error, "which nodes are being drained can't be read");
    }
    let news = inner.upkeep.nodes.look(inner).await;
    // Still damaged, and nobody is about to repair it: an earlier repair has failed, or it was hit again.
    let left = !inner.upkeep.nodes.broken().is_empty()
        && inner.upkeep.queue.lock().counts() == (0, 0)
        && inner.upkeep.survey_is_old(inner);
    if news.out || news.broken || left || !news.back.is_empty() {
        inner.upkeep.wants(Wish { check: news.back, whole: false });
    }
}

/// Repairs what is ready; when that leaves something undone that only a survey finds, asks for one.
async fn repair_ready(inner: &Arc<Inner>) -> Result<Repaired> {
    let _one_at_a_time = inner.upkeep.repairing.lock().await;
    let repaired = repair::run(inner).await?;
    let overflowed = std::mem::take(&mut inner.upkeep.queue.lock().overflowed);
    let is_old = inner.upkeep.survey_is_old(inner);
    let emptying = {
        let done = inner.upkeep.done.lock();
        let nodes = &inner.upkeep.nodes;
        is_old && done.survey.runs_on.iter().any(|(node, runs)| *runs > 0 && nodes.state(inner, *node).is_out())
    };
    if (overflowed || emptying) && inner.upkeep.queue.lock().counts() == (0, 0) {
        inner.upkeep.wants(Wish::default());
    }
    Ok(repaired)
}

/// Carries out the survey that is wished for, if there is one.
async fn survey_wished(inner: &Arc<Inner>) -> Result<Option<Surveyed>> {
    let _one_at_a_time = inner.upkeep.surveying.lock().await;
    let Some(wish) = inner.upkeep.wish.lock().take() else { return Ok(None) };
    inner.upkeep.survey_is_at(0);
    inner.upkeep.survey_under_way.store(1, Ordering::Relaxed);
    let found = survey::run(inner, &wish).await;
    inner.upkeep.survey_under_way.store(0, Ordering::Relaxed);
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            inner.upkeep.wants(wish);
            return Err(error);
        }
    };
    tracing::debug!(?found, "a survey");
    inner.upkeep.strays_deleted.fetch_add(found.strays_deleted, Ordering::Relaxed);
    let mut done = inner.upkeep.done.lock();
    done.ended_unix_ms = inner.clock.now_unix_ms();
    if wish.whole {
        done.whole_ended_unix_ms = done.ended_unix_ms;
    }
    done.survey = found.clone();
    Ok(Some(found))
}

impl Gateway {
    /// Looks at every node, surveys everything, and repairs what can be repaired now. For tests, and for an operator who
    /// can't wait.
    ///
    /// # Errors
    /// When the metadata can't be read or written.
    pub async fn keep_now(&self) -> Result<(Surveyed, Repaired)> {
        self.look_at_nodes_now().await;
        let found = self.survey_now().await?;
        Ok((found, repair_ready(&self.inner).await?))
    }

    /// Looks at every node.
    pub async fn look_at_nodes_now(&self) {
        look(&self.inner).await;
    }

    /// Compares everything, metadata and nodes.
    ///
    /// # Errors
    /// When the metadata can't be read or written.
    pub async fn survey_now(&self) -> Result<Surveyed> {
        self.inner.upkeep.wants(Wish::whole());
        Ok(survey_wished(&self.inner).await?.unwrap_or_default())
    }

    /// Carries out a survey that something has asked for (a node that is lost, a shard that was found damaged), if there
    /// is one.
    ///
    /// # Errors
    /// When the metadata can't be read or written.
    pub async fn survey_if_wished_now(&self) -> Result<Option<Surveyed>> {
        survey_wished(&self.inner).await
    }

    /// Repairs what is queued and can be repaired now.
    ///
    /// # Errors
    /// When the metadata can't be read or written.
    pub async fn repair_now(&self) -> Result<Repaired> {
        repair_ready(&self.inner).await
    }

    /// Asks the background for a whole survey, and for the repair of what that finds.
    pub fn ask_for_survey(&self) {
        self.inner.upkeep.wants(Wish::whole());
    }

    /// Begins to empty a node, or stops: nothing new goes to it, and its shards go to others.
    ///
    /// # Errors
    /// InvalidArgument for a node that there is not, and when the others can't hold the code; when the metadata can't be
    /// written.
    pub async fn drain_node(&self, node: NodeId, draining: bool) -> Result<()> {
        self.inner.upkeep.nodes.drain(&self.inner, node, draining).await?;
        self.inner.upkeep.wants(Wish::default());
        Ok(())
    }

    /// Has nodes (one, or all) scrub everything that they hold now, each at this speed. The nodes that have begun.
    ///
    /// # Errors
    /// ServiceUnavailable when none has, with what they say.
    pub async fn scrub_now(&self, node: Option<NodeId>, bytes_per_s: u64) -> Result<Vec<NodeId>> {
        let inner = &self.inner;
        let ids = inner.options.cluster_map.nodes.iter().map(|entry| entry.id);
        let asked: BTreeSet<NodeId> = ids.filter(|id| node.is_none_or(|node| node == *id)).collect();
        let (mut begun, mut failed) = (Vec::new(), Vec::new());
        for node in asked {
            let capability = Signed::new(inner, Rights::UPKEEP, DataId(0)).get(inner);
            match inner.executor.scrub_node(node, capability, bytes_per_s).await {
                Ok(()) => begun.push(node),
                Err(error) => failed.push(error.to_string()),
            }
        }
        if begun.is_empty() {
            let why = if failed.is_empty() { "there is no such node".to_owned() } else { failed.join("; ") };
            return Err(Error::new(ErrorKind::ServiceUnavailable, format!("No node scrubs: {why}.")));
        }
        Ok(begun)
    }

    /// How everything is.
    pub fn upkeep_report(&self) -> UpkeepReport {
        let upkeep = &self.inner.upkeep;
        let (survey, repaired, survey_ended_unix_ms) = {
            let done = upkeep.done.lock();
            (done.survey.clone(), done.repaired, done.ended_unix_ms)
        };
        let queue = upkeep.queue.lock();
        let (queued, put_off) = queue.counts();
        let queued_by_spare = queue.by_spare();
        drop(queue);
        UpkeepReport {
            nodes: upkeep.nodes.report(&self.inner, &survey.runs_on),
            queued: queued as u64,
            put_off: put_off as u64,
            queued_by_spare,
            repaired,
            surveying: upkeep.survey_under_way.load(Ordering::Relaxed) == 1,
            survey_runs: upkeep.survey_runs.load(Ordering::Relaxed),
            survey_runs_expected: survey.runs,
            survey_ended_unix_ms,
            strays_deleted: upkeep.strays_deleted.load(Ordering::Relaxed),
            survey,
        }
    }
}
