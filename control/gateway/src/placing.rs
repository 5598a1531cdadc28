//! Where new data goes: on a placement set without nodes that can't take it.
//!
//! The sets of a width are state ([`PlacementSets`]): they evolve from those before when the nodes change, and are kept in
//! the metadata, so that a gateway that is started again places as before. They are made when a code is first used.
//!
//! Nodes that can't be reached, are full or have lost their device are left out ([`Executor::unfit_nodes`]); full ones and
//! ones that are read last get less. On exactly n nodes there is nobody to take their place, and writes have their quorum.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_executor::Executor;
use penstock_meta::tables::Tables;
use penstock_placement::{ClusterMap, PlacementSets};
use penstock_proto::{Capability, Clock, ClusterKey, Code, DataId, MapEpoch, NodeId, Rights};

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;

/// Bytes of one row of a kept family of sets.
const ROW_BYTES: usize = 48 << 10;
/// Rows of one family.
const ROWS_MAX: usize = 256;
/// How often nodes are asked how full they are.
const FULLNESS_INTERVAL: Duration = Duration::from_secs(30);
/// How much fuller a node counts that is read last, of 1,000.
const SLOW_COUNTS_AS: u32 = 200;
/// From here on, of 1,000, a node is full: what is left is for what is being repaired and rewritten.
const FULL: u32 = 970;

/// Places new data.
pub(crate) struct Placer {
    map: ClusterMap,
    sets_per_node: usize,
    /// By width.
    sets: tokio::sync::RwLock<HashMap<usize, Arc<PlacementSets>>>,
    /// Of 1,000, as nodes said.
    fullness: Mutex<BTreeMap<NodeId, u32>>,
    executor: Option<Executor>,
}

/// The sets for a code, and what is to be known of nodes now.
pub(crate) struct Places {
    sets: Arc<PlacementSets>,
    avoid: Vec<NodeId>,
    load: BTreeMap<NodeId, u32>,
}

impl Places {
    /// The nodes for a group of stripes.
    pub(crate) fn of(&self, data: DataId, group: u32) -> Vec<NodeId> {
        self.sets.draw(data, group, &self.avoid, |node| self.load.get(&node).copied().unwrap_or(0))
    }

    /// Whether none of `nodes` is to be left out, as far as that can be had.
    pub(crate) fn allow(&self, nodes: &[NodeId]) -> bool {
        self.sets.nodes.len() - self.avoid.len().min(self.sets.nodes.len()) < self.sets.width
            || !nodes.iter().any(|node| self.avoid.contains(node))
    }

    /// Of the sets.
    pub(crate) fn epoch(&self) -> MapEpoch {
        self.sets.epoch
    }
}

impl Placer {
    /// Without an executor no node is left out.
    pub(crate) fn new(map: ClusterMap, sets_per_node: usize, executor: Option<Executor>) -> Self {
        Self { map, sets_per_node, sets: tokio::sync::RwLock::default(), fullness: Mutex::default(), executor }
    }

    /// Where data of `code` may go now; not to `out`.
    ///
    /// # Errors
    /// InvalidRequest with the numbers, when there are fewer nodes than shards; the metadata's.
    pub(crate) async fn places(&self, tables: &Tables, code: Code, out: &[NodeId]) -> Result<Places> {
        let sets = self.sets(tables, code.n()).await?;
        let mut load = self.fullness.lock().clone();
        let mut avoid: Vec<NodeId> = out.to_vec();
        if let Some(executor) = &self.executor {
            avoid.extend(executor.unfit_nodes());
            for node in executor.slow_nodes() {
                *load.entry(node).or_default() += SLOW_COUNTS_AS;
            }
        }
        avoid.extend(load.iter().filter(|(_, full)| **full >= FULL).map(|(node, _)| *node));
        Ok(Places { sets, avoid, load })
    }

    async fn sets(&self, tables: &Tables, width: usize) -> Result<Arc<PlacementSets>> {
        if let Some(sets) = self.sets.read().await.get(&width) {
            return Ok(Arc::clone(sets));
        }
        let mut all = self.sets.write().await;
        if let Some(sets) = all.get(&width) {
            return Ok(Arc::clone(sets));
        }
        let before = load(tables, width).await?;
        let sets = PlacementSets::evolve(before.as_ref(), &self.map, width, self.sets_per_node)
            .map_err(|error| Error::new(ErrorKind::InvalidRequest, format!("This can't be stored here: {error}.")))?;
        if before.as_ref() != Some(&sets) {
            keep(tables, &sets).await?;
            tracing::info!(width, sets = sets.sets.len(), epoch = sets.epoch.0, "placement sets");
        }
        let sets = Arc::new(sets);
        all.insert(width, Arc::clone(&sets));
        Ok(sets)
    }

    /// Asks every node how full it is. One that does not answer is as it was.
    async fn look(&self, key: &ClusterKey, clock: &dyn Clock) {
        let Some(executor) = &self.executor else { return };
        let expires = clock.now_unix_ms() + penstock_proto::limits::CAPABILITY_LIFETIME.as_millis() as u64;
        let capability = Capability::sign(key, Rights::STATUS, DataId(0), expires);
        for entry in &self.map.nodes {
            let Ok(status) = executor.node_status(entry.id, capability).await else { continue };
            let free = u128::from(status.free_bytes.min(status.capacity_bytes)) * 1000;
            let full = match status.capacity_bytes {
                0 => 0,
                capacity => 1000 - (free / u128::from(capacity)) as u32,
            };
            self.fullness.lock().insert(entry.id, if status.failed { 1000 } else { full });
        }
    }
}

fn name(width: usize, row: usize) -> String {
    format!("placement-sets-{width}-{row}")
}

async fn load(tables: &Tables, width: usize) -> Result<Option<PlacementSets>> {
    let mut bytes = Vec::new();
    for row in 0..ROWS_MAX {
        let Some(piece) = tables.setting(&name(width, row)).await? else { break };
        let last = piece.len() < ROW_BYTES;
        bytes.extend_from_slice(&piece);
        if last {
            break;
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let unreadable = |error| Error::new(ErrorKind::InternalError, format!("Placement sets can't be read: {error}"));
    serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
}

/// In rows of [`ROW_BYTES`], of which the last is shorter. A gateway that stops in the middle leaves what is no JSON, or what
/// was there before: rows are written from the last to the first, and an old first row that does not fit ends in an error that
/// names the rows.
async fn keep(tables: &Tables, sets: &PlacementSets) -> Result<()> {
    let unwritable = |error| Error::new(ErrorKind::InternalError, format!("Placement sets can't be kept: {error}"));
    let bytes = serde_json::to_vec(sets).map_err(unwritable)?;
    let mut rows: Vec<&[u8]> = bytes.chunks(ROW_BYTES).collect();
    if bytes.len().is_multiple_of(ROW_BYTES) {
        rows.push(&[]);
    }
    if rows.len() > ROWS_MAX {
        return Err(Error::new(ErrorKind::InternalError, "There are more placement sets than can be kept."));
    }
    for (row, piece) in rows.iter().enumerate().rev() {
        tables.set_setting(&name(sets.width, row), piece).await?;
    }
    Ok(())
}

/// Starts asking nodes how full they are, if the options say how often.
pub(crate) fn start(inner: &Arc<Inner>) {
    if inner.options.garbage_interval.is_none() {
        // A gateway without a background of its own.
        return;
    }
    inner.spawn_every(FULLNESS_INTERVAL, |inner| async move {
        inner.placer.look(&inner.options.cluster_key, &*inner.clock).await;
    });
}

#[cfg(test)]
mod tests {
    use penstock_meta::kv::MemKv;
    use penstock_placement::NodeEntry;

    use super::*;

    fn map(nodes: u16) -> ClusterMap {
        let nodes = (0..nodes).map(|id| NodeEntry { id: NodeId(id), weight: 1, domain: Vec::new() }).collect();
        ClusterMap { epoch: MapEpoch(1), nodes }
    }

    #[tokio::test]
    async fn sets_are_kept_and_evolve() {
        let tables = Tables::new(Arc::new(MemKv::new()));
        let code = Code::new(10, 4).unwrap();
        let first = Placer::new(map(400), 10, None).places(&tables, code, &[]).await.unwrap();
        let again = Placer::new(map(400), 10, None).places(&tables, code, &[]).await.unwrap();
        assert_eq!(again.sets, first.sets, "in more than one row");
        let more = Placer::new(map(401), 10, None).places(&tables, code, &[]).await.unwrap();
        assert_eq!((more.epoch(), first.epoch()), (MapEpoch(2), MapEpoch(1)));
        let kept = load(&tables, 14).await.unwrap().unwrap();
        assert_eq!(kept, *more.sets);
        let few = Placer::new(map(3), 10, None).places(&tables, code, &[]).await.err().unwrap();
        assert!(few.kind == ErrorKind::InvalidRequest && few.message.contains("14 shards"), "{few}");
    }
}
