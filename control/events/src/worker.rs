//! A worker for each target: reads its events in order, sends them, removes what was confirmed.
//!
//! A page of events is sorted into lanes by key. Lanes go side by side; within a lane the next event is sent when the last was
//! confirmed, and after a failure the lane stops. What a pass confirmed is removed in one transaction; where it failed, the next
//! pass begins after a pause that doubles from failure to failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use penstock_meta::tables::{EventPlace, EventRow, Tables, TablesError};
use penstock_proto::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{EventsConfig, TargetConfig};
use crate::record;
use crate::target::{Message, SEND_TIMEOUT, SendError, Target};

/// Events read at a time.
const PAGE: usize = 256;
/// Events of one target on their way at a time.
const LANES_IN_FLIGHT_MAX: usize = 16;
/// How often an empty queue is looked at.
const POLL: Duration = Duration::from_millis(100);
/// The pause after the first failure.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between tries.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the records say of the store.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its region.
    pub region: String,
    /// Its own account: who owns buckets that no other account does.
    pub account: String,
}

/// The workers of a store.
pub struct Events {
    tables: Tables,
    arns: Vec<String>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Events {
    /// Starts a worker for each target, on the current tokio runtime.
    ///
    /// # Errors
    /// A target that makes no sense, which [`EventsConfig::read`] has refused.
    pub fn start(tables: &Tables, config: &EventsConfig, store: &Store, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        for target in &config.targets {
            let worker = Worker::new(tables, target, target.open()?, store, Arc::clone(&clock), stopping.clone());
            tasks.spawn(worker.run());
        }
        tasks.close();
        Ok(Self { tables: tables.clone(), arns: config.arns(), tasks, stopping })
    }

    /// Of each target: what it is called, how many events wait for it, and how many it will never get.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn counts(&self) -> Result<Vec<(String, u64, u64)>, TablesError> {
        let mut counts = Vec::with_capacity(self.arns.len());
        for arn in &self.arns {
            let (queued, dropped) = self.tables.event_counts(arn).await?;
            counts.push((arn.clone(), queued, dropped));
        }
        Ok(counts)
    }

    /// Sends nothing more, and waits for what is on its way ([`SEND_TIMEOUT`] at most). What waits is sent after the next start.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

pub(crate) struct Worker {
    tables: Tables,
    arn: String,
    age_max_ms: u64,
    target: Arc<dyn Target>,
    store: Store,
    clock: Arc<dyn Clock>,
    stopping: CancellationToken,
    /// Nothing before this is left.
    from: Option<EventPlace>,
}

/// What became of a lane.
#[derive(Default)]
struct Lane {
    delivered: Vec<EventPlace>,
    dropped: Vec<EventPlace>,
    /// The first that was not, and why (no reason: the worker stops).
    left: Option<(EventPlace, Option<SendError>)>,
}

/// What became of a pass.
enum Pass {
    /// There was nothing.
    Idle,
    /// Everything was delivered, or given up.
    Done,
    /// Something was not.
    Failed(SendError),
    /// The worker stops.
    Stopping,
}

impl Worker {
    pub(crate) fn new(
        tables: &Tables,
        config: &TargetConfig,
        target: Arc<dyn Target>,
        store: &Store,
        clock: Arc<dyn Clock>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            tables: tables.clone(),
            arn: config.arn.clone(),
            age_max_ms: u64::try_from(config.age_max().as_millis()).unwrap_or(u64::MAX),
            target,
            store: store.clone(),
            clock,
            stopping,
            from: None,
        }
    }

    pub(crate) async fn run(mut self) {
        match self.tables.event_counts(&self.arn).await {
            Ok((queued, dropped)) => tracing::info!(target_arn = self.arn, queued, dropped, "events are delivered"),
            Err(error) => tracing::warn!(target_arn = self.arn, %error, "how many events wait can't be read"),
        }
        let mut failures: u32 = 0;
        loop {
            let pause = match self.pass().await {
                Ok(Pass::Stopping) => return,
                Ok(Pass::Idle) => POLL,
                Ok(Pass::Done) => {
                    if failures > 0 {
                        tracing::info!(target_arn = self.arn, failures, "events are delivered again");
                    }
                    failures = 0;
                    continue;
                }
                Ok(Pass::Failed(error)) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(target_arn = self.arn, failures, %error, "an event can't be delivered now: it is tried again");
                    pause_after(failures)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(target_arn = self.arn, %error, "the events that wait can't be read or removed now");
                    pause_after(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// Sends one page.
    async fn pass(&mut self) -> Result<Pass, TablesError> {
        let page = self.tables.events(&self.arn, self.from, PAGE).await?;
        let Some(last) = page.last().map(|(place, _)| *place) else { return Ok(Pass::Idle) };
        // In the order of their first events.
        let mut lanes: Vec<Vec<(EventPlace, EventRow)>> = Vec::new();
        let mut lane_of: HashMap<(String, String), usize> = HashMap::new();
        for (place, row) in page {
            let lane = *lane_of.entry((row.bucket.clone(), row.key.clone())).or_insert(lanes.len());
            if lane == lanes.len() {
                lanes.push(Vec::new());
            }
            lanes[lane].push((place, row));
        }
        let this = &*self;
        let lanes = futures::stream::iter(lanes.into_iter().map(|events| this.lane(events)));
        let done: Vec<Lane> = lanes.buffer_unordered(LANES_IN_FLIGHT_MAX).collect().await;
        let (mut delivered, mut dropped, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for lane in done {
            delivered.extend(lane.delivered);
            dropped.extend(lane.dropped);
            left.extend(lane.left);
        }
        if !(delivered.is_empty() && dropped.is_empty()) {
            self.tables.finish_events(&self.arn, &delivered, &dropped).await?;
        }
        self.from = Some(left.iter().map(|(place, _)| *place).min().unwrap_or(last));
        if self.stopping.is_cancelled() {
            return Ok(Pass::Stopping);
        }
        Ok(left.into_iter().find_map(|(_, error)| error).map_or(Pass::Done, Pass::Failed))
    }

    /// Sends events of one key, one after the other.
    async fn lane(&self, events: Vec<(EventPlace, EventRow)>) -> Lane {
        let mut lane = Lane::default();
        for (place, row) in events {
            if self.stopping.is_cancelled() {
                lane.left = Some((place, None));
                break;
            }
            match self.send(&place, &row).await {
                Ok(()) => lane.delivered.push(place),
                Err(error) if self.clock.now_unix_ms() >= row.time_unix_ms.saturating_add(self.age_max_ms) => {
                    tracing::error!(
                        target_arn = self.arn, bucket = row.bucket, key = row.key, sequencer = place.sequencer(), %error,
                        "an event that could not be delivered is given up"
                    );
                    lane.dropped.push(place);
                }
                Err(error) => {
                    lane.left = Some((place, Some(error)));
                    break;
                }
            }
        }
        lane
    }

    async fn send(&self, place: &EventPlace, row: &EventRow) -> Result<(), SendError> {
        let Store { region, account } = &self.store;
        let body =
            record::message(place, row, region, account).map_err(|error| SendError::Refused(error.to_string()))?;
        let message = Message { id: place.id(), body };
        tokio::time::timeout(SEND_TIMEOUT, self.target.send(&message)).await.unwrap_or(Err(SendError::Timeout))
    }
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests;
