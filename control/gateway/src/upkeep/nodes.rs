//! What is known of each node: whether it answers, how it is, and whether it is being drained; and the map that follows
//! from it for new data.
//!
//! A node that does not answer is *down*: its shards are read from others, and nothing is moved, for most come back.
//! After [`super::UpkeepOptions::node_lost_after`] it is *lost*, at once when it says that its device has failed: its
//! shards are rebuilt on others. One that is *draining* answers and is read from, but gets nothing new and is emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use penstock_placement::ClusterMap;
use penstock_proto::wire::NodeStatus;
use penstock_proto::{DataId, NodeId, Rights};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;
use crate::write::Signed;

/// Nodes asked at a time.
const ASKED_AT_A_TIME: usize = 32;
/// How long a node may take to say how it is.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// Pages of damaged shards taken from one node at a time; the rest come when those are repaired.
const BROKEN_PAGES_MAX: usize = 16;
/// Where the nodes that are being drained are kept.
const DRAINS: &str = "upkeep-drains";
/// A device so many times slower than the median of all is slow,
const SLOW_TIMES: u32 = 5;
/// if it takes longer than this, too.
const SLOW_US_MIN: u32 = 5_000;

/// What a node is to the upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It answers, or was not asked yet.
    Up,
    /// It has not answered for a while.
    Down,
    /// It has not answered for so long that its shards are rebuilt elsewhere.
    Lost,
    /// It says that its device has failed: its shards are rebuilt elsewhere.
    Failed,
    /// It is being emptied.
    Draining,
}

impl NodeState {
    /// Whether its shards are to be elsewhere.
    pub(crate) fn is_out(self) -> bool {
        matches!(self, Self::Lost | Self::Failed | Self::Draining)
    }

    /// Whether shards can be read from it.
    pub(crate) fn is_readable(self) -> bool {
        matches!(self, Self::Up | Self::Draining | Self::Failed)
    }
}

#[derive(Clone, Debug, Default)]
struct Seen {
    down_since_unix_ms: Option<u64>,
    error: String,
    status: Option<NodeStatus>,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<NodeId, Seen>,
    drains: BTreeSet<NodeId>,
    usable: Option<Arc<ClusterMap>>,
    /// Nodes that were out when they were last looked at.
    out: BTreeSet<NodeId>,
    /// Damaged shards that nodes know of: data, stripe, shard.
    broken: BTreeMap<DataId, BTreeSet<(u32, u8)>>,
}

#[derive(Debug, Default)]
pub(crate) struct Nodes(Mutex<State>);

/// What a look at the nodes found new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Nodes that are out since.
    pub(crate) out: bool,
    /// Nodes that are back: what they hold is to be checked.
    pub(crate) back: BTreeSet<NodeId>,
    /// Damaged shards that were not known.
    pub(crate) broken: bool,
}

/// A node, for people and monitors.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Which.
    pub node: u16,
    /// What it is to the upkeep.
    pub state: NodeState,
    /// Since when it has not answered, and why.
    pub down_since_unix_ms: Option<u64>,
    /// What its last failure said.
    pub error: String,
    /// Whether its device is far slower than those of the others.
    pub slow: bool,
    /// Bytes that it can hold.
    pub capacity_bytes: u64,
    /// Bytes that shards may still take.
    pub free_bytes: u64,
    /// Bytes of shards that live.
    pub live_bytes: u64,
    /// Shards that live.
    pub shards: u64,
    /// Shards that are known to be damaged.
    pub broken_shards: u64,
    /// How long its device takes for a read, smoothed.
    pub read_us: u32,
    /// How long its device takes for a flush, smoothed.
    pub flush_us: u32,
    /// When the scrub's cycle began; 0 when it does not scrub.
    pub scrub_began_unix_ms: u64,
    /// Shards read in it.
    pub scrub_shards: u64,
    /// Bytes read in it.
    pub scrub_bytes: u64,
    /// Damaged shards found in it.
    pub scrub_bad: u64,
    /// When the last whole cycle ended; 0 for never.
    pub scrub_last_ended_unix_ms: u64,
    /// Runs of stripes with shards on it, as the last survey counted them.
    pub runs: u64,
}

impl Nodes {
    /// What a node is now. One that is in no map any more is lost.
    pub(crate) fn state(&self, inner: &Inner, node: NodeId) -> NodeState {
        if !inner.options.cluster_map.nodes.iter().any(|entry| entry.id == node) {
            return NodeState::Lost;
        }
        let lost_after_ms = inner.options.upkeep.node_lost_after.as_millis() as u64;
        let now_unix_ms = inner.clock.now_unix_ms();
        let state = self.0.lock();
        let seen = state.seen.get(&node);
        match seen.and_then(|seen| seen.down_since_unix_ms) {
            Some(since) if now_unix_ms.saturating_sub(since) >= lost_after_ms => NodeState::Lost,
            // Its shards can't be read, so they are rebuilt from others.
            Some(_) if state.drains.contains(&node) => NodeState::Lost,
            Some(_) => NodeState::Down,
            None if seen.and_then(|seen| seen.status).is_some_and(|status| status.failed) => NodeState::Failed,
            None if state.drains.contains(&node) => NodeState::Draining,
            None => NodeState::Up,
        }
    }

    /// The map for new data: without nodes that are out, as long as the others can hold the code.
    pub(crate) fn usable(&self, inner: &Inner) -> Arc<ClusterMap> {
        if let Some(usable) = &self.0.lock().usable {
            return Arc::clone(usable);
        }
        let all = &inner.options.cluster_map;
        let without = |out: &dyn Fn(NodeId) -> bool| {
            let nodes: Vec<_> = all.nodes.iter().filter(|entry| !out(entry.id)).cloned().collect();
            (nodes.len() >= inner.options.code.n()).then(|| ClusterMap { nodes, ..all.clone() })
        };
        let drains = self.0.lock().drains.clone();
        let usable = without(&|node| self.state(inner, node).is_out())
            .or_else(|| without(&|node| drains.contains(&node)))
            .unwrap_or_else(|| all.clone());
        let usable = Arc::new(usable);
        self.0.lock().usable = Some(Arc::clone(&usable));
        usable
    }

    /// Damaged shards that nodes know of.
    pub(crate) fn broken(&self) -> BTreeMap<DataId, BTreeSet<(u32, u8)>> {
        self.0.lock().broken.clone()
    }

    pub(crate) async fn load(&self, inner: &Inner) -> Result<()> {
        let drains: Vec<u16> = match inner.tables.setting(DRAINS).await? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            None => Vec::new(),
        };
        let mut state = self.0.lock();
        state.drains = drains.into_iter().map(NodeId).collect();
        state.usable = None;
        Ok(())
    }

    /// Begins to drain a node, or stops.
    ///
    /// # Errors
    /// InvalidArgument for a node that there is not, or whose absence leaves too few for the code.
    pub(crate) async fn drain(&self, inner: &Inner, node: NodeId, draining: bool) -> Result<()> {
        let all = &inner.options.cluster_map.nodes;
        let wrong = |message: String| Error::new(ErrorKind::InvalidArgument, message);
        if !all.iter().any(|entry| entry.id == node) {
            return Err(wrong(format!("There is no {node} in the cluster's map.")));
        }
        let mut drains = self.0.lock().drains.clone();
        if draining {
            drains.insert(node);
        } else {
            drains.remove(&node);
        }
        let (left, code) = (all.iter().filter(|entry| !drains.contains(&entry.id)).count(), inner.options.code);
        if draining && left < code.n() {
            let need = code.n();
            return Err(wrong(format!(
                "Without {node} there are {left} nodes, and {code} needs {need}: add one first."
            )));
        }
        let ids: Vec<u16> = drains.iter().map(|node| node.0).collect();
        let bytes =
            serde_json::to_vec(&ids).map_err(|error| Error::new(ErrorKind::InternalError, error.to_string()))?;
        inner.tables.set_setting(DRAINS, &bytes).await?;
        let mut state = self.0.lock();
        state.drains = drains;
        state.usable = None;
        Ok(())
    }

    /// Asks every node how it is.
    pub(crate) async fn look(&self, inner: &Arc<Inner>) -> News {
        let ids: Vec<NodeId> = inner.options.cluster_map.nodes.iter().map(|entry| entry.id).collect();
        let asks = ids.iter().map(|&node| async move {
            let capability = Signed::new(inner, Rights::STATUS, DataId(0)).get(inner);
            let asked = tokio::time::timeout(STATUS_WAIT, inner.executor.node_status(node, capability)).await;
            let outcome = match asked {
                Ok(Ok(status)) => Ok(status),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_elapsed) => Err(format!("no answer within {STATUS_WAIT:?}")),
            };
            (node, outcome)
        });
        let asks: Vec<_> = asks.collect();
        let answers: Vec<_> = futures::stream::iter(asks).buffer_unordered(ASKED_AT_A_TIME).collect().await;
        let mut news = News::default();
        let now_unix_ms = inner.clock.now_unix_ms();
        let mut with_broken = Vec::new();
        {
            let mut state = self.0.lock();
            state.usable = None;
            for (node, outcome) in answers {
                let seen = state.seen.entry(node).or_default();
                match outcome {
                    Ok(status) => {
                        // Half its shards are gone since the last look: it came back empty, or nearly.
                        let emptied = seen.status.is_some_and(|before| status.shards < before.shards / 2);
                        if seen.down_since_unix_ms.is_some() || emptied {
                            tracing::info!(%node, emptied, "a node is back");
                            news.back.insert(node);
                        }
                        *seen = Seen { status: Some(status), ..Seen::default() };
                        if status.broken_shards > 0 {
                            with_broken.push(node);
                        }
                    }
                    Err(error) => {
                        if seen.down_since_unix_ms.is_none() {
                            tracing::warn!(%node, error, "a node does not answer");
                        }
                        seen.down_since_unix_ms.get_or_insert(now_unix_ms);
                        seen.error = error;
                    }
                }
            }
        }
        // A node is lost by the passing of time, between two looks: what counts is what it was at the last.
        let out: BTreeSet<NodeId> = ids.into_iter().filter(|node| self.state(inner, *node).is_out()).collect();
        let before = std::mem::replace(&mut self.0.lock().out, out.clone());
        news.out = !out.is_subset(&before);
        news.broken = self.look_for_broken(inner, &with_broken).await;
        news
    }

    /// Takes in which shards nodes know to be damaged. Whether any was not known.
    async fn look_for_broken(&self, inner: &Arc<Inner>, nodes: &[NodeId]) -> bool {
        let mut found: BTreeMap<DataId, BTreeSet<(u32, u8)>> = BTreeMap::new();
        for &node in nodes {
            let mut after = None;
            for _ in 0..BROKEN_PAGES_MAX {
                let capability = Signed::new(inner, Rights::UPKEEP, DataId(0)).get(inner);
                match inner.executor.list_shards(node, capability, after, true).await {
                    Ok((shards, more)) => {
                        after = shards.last().map(|shard| shard.key);
                        for shard in shards {
                            found.entry(shard.key.data).or_default().insert((shard.key.stripe, shard.key.shard));
                        }
                        if !more {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%node, %error, "which shards are damaged can't be asked");
                        break;
                    }
                }
            }
        }
        let mut state = self.0.lock();
        let known = std::mem::replace(&mut state.broken, found);
        let is_new = |(data, shards): (&DataId, &BTreeSet<(u32, u8)>)| {
            known.get(data).is_none_or(|known| !known.is_superset(shards))
        };
        state.broken.iter().any(is_new)
    }

    /// Every node, with how many runs it has by the last survey.
    pub(crate) fn report(&self, inner: &Inner, runs: &BTreeMap<NodeId, u64>) -> Vec<NodeReport> {
        let ids: Vec<NodeId> = inner.options.cluster_map.nodes.iter().map(|entry| entry.id).collect();
        let seen = self.0.lock().seen.clone();
        let status = |node: &NodeId| seen.get(node).and_then(|seen| seen.status).unwrap_or_default();
        let mut times: Vec<u32> = ids.iter().map(|node| status(node).read_us).filter(|us| *us > 0).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or(0);
        let slow = |us: u32| times.len() >= 3 && us > SLOW_US_MIN && us > median.saturating_mul(SLOW_TIMES);
        ids.iter()
            .map(|node| {
                let NodeStatus { scrub, .. } = status(node);
                let status = status(node);
                let seen = seen.get(node).cloned().unwrap_or_default();
                NodeReport {
                    node: node.0,
                    state: self.state(inner, *node),
                    down_since_unix_ms: seen.down_since_unix_ms,
                    error: seen.error,
                    slow: slow(status.read_us),
                    capacity_bytes: status.capacity_bytes,
                    free_bytes: status.free_bytes,
                    live_bytes: status.live_bytes,
                    shards: status.shards,
                    broken_shards: status.broken_shards,
                    read_us: status.read_us,
                    flush_us: status.flush_us,
                    scrub_began_unix_ms: scrub.began_unix_ms,
                    scrub_shards: scrub.shards,
                    scrub_bytes: scrub.bytes,
                    scrub_bad: scrub.bad,
                    scrub_last_ended_unix_ms: scrub.last_ended_unix_ms,
                    runs: runs.get(node).copied().unwrap_or(0),
                }
            })
            .collect()
    }
}
