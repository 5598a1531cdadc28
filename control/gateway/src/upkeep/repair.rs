//! Repairs: runs of stripes are made whole, those with the least redundancy first.
//!
//! The gateway decides what goes where and moves nothing: each stripe's plan goes to the executor beside the node that is
//! to get the first of its shards, which pulls what it takes straight from its peers. When every stripe of the run has its
//! shards where they are to be, the metadata is changed by compare-and-set; until then readers find what they found
//! before. A repair that is cut short at any step is one that begins anew: shards that were stored already are answered
//! at once, and those of data that is gone meanwhile are strays, which the survey removes.
//!
//! How it fails: a run that can't be repaired now (its node is down, nothing has room, too few shards can be read) is put
//! off for a while that doubles, and is left to the next survey after [`TRIES_MAX`] tries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use penstock_meta::tables::{MANIFEST_STRIPES_MAX, ManifestRow, StripeRun};
use penstock_placement::{NodeEntry, place};
use penstock_proto::plan::Crc64;
use penstock_proto::upkeep::{Rebuild, RebuildShard};
use penstock_proto::{Capability, DataId, NodeId, Rights, Scope, limits};
use serde::Serialize;

use super::nodes::NodeState;
use super::queue::{QUEUE_MAX, Task};
use super::survey::{members, spare};
use crate::error::Result;
use crate::gateway::Inner;

/// Tries of one run before it is left to the next survey.
const TRIES_MAX: u32 = 10;
/// The first pause before a run is tried again; it doubles.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// The longest.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Queued rows that are taken in at a time.
const ROWS_AT_A_TIME: usize = 1000;

/// What repairs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Runs that are whole again, or that had nothing to repair.
    pub done: u64,
    /// Runs whose data is gone.
    pub gone: u64,
    /// Runs that were put off.
    pub put_off: u64,
    /// Of those, the ones with shards for which there is no other node.
    pub blocked: u64,
    /// Shards rebuilt or copied.
    pub shards: u64,
    /// Shards read for them, from node to node.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Bytes of the shards that were stored.
    pub written_bytes: u64,
}

impl Repaired {
    pub(crate) fn add(&mut self, other: Self) {
        self.done += other.done;
        self.gone += other.gone;
        self.put_off += other.put_off;
        self.blocked += other.blocked;
        self.shards += other.shards;
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// Takes in the rows that writers queued, as far as there is room.
async fn take_in(inner: &Inner) -> Result<()> {
    let mut after = None;
    loop {
        let rows = inner.tables.repair_queue_after(after, ROWS_AT_A_TIME).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(*last);
        let more = rows.len() == ROWS_AT_A_TIME;
        for (data, stripe) in rows {
            let first_stripe = stripe / MANIFEST_STRIPES_MAX as u32 * MANIFEST_STRIPES_MAX as u32;
            if inner.upkeep.queue.lock().contains(&(data, first_stripe)) {
                continue;
            }
            let Some(row) = inner.tables.repair(data, stripe).await? else { continue };
            let spare = spare(row.code, row.stripe.missing);
            let (owner, code) = (row.owner, row.code);
            let task = Task { data, first_stripe, owner, code, spare, broken: BTreeMap::new(), tries: 0 };
            inner.upkeep.queue.lock().push(task, 0, QUEUE_MAX);
        }
        if !more || inner.upkeep.queue.lock().overflowed {
            return Ok(());
        }
    }
}

/// Repairs what is ready, until nothing is.
pub(crate) async fn run(inner: &Arc<Inner>) -> Result<Repaired> {
    if inner.upkeep.queue.lock().counts().0 == 0 {
        take_in(inner).await?;
    }
    let at_a_time = inner.options.upkeep.repairs_at_a_time.max(1);
    let mut total = Repaired::default();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < at_a_time {
            let task = inner.upkeep.queue.lock().pop(inner.clock.now_unix_ms());
            let Some(task) = task else { break };
            under_way.push(one(inner, task));
        }
        let Some(repaired) = under_way.next().await else { return Ok(total) };
        inner.upkeep.count(repaired);
        total.add(repaired);
    }
}

/// One run.
async fn one(inner: &Arc<Inner>, task: Task) -> Repaired {
    let mut repaired = Repaired::default();
    let outcome = repair(inner, &task, &mut repaired).await;
    let whole = match outcome {
        Ok(whole) => whole,
        Err(error) => {
            tracing::warn!(data = %task.data, stripe = task.first_stripe, %error, "a run of stripes can't be repaired now");
            false
        }
    };
    if !whole {
        repaired.put_off += 1;
        if task.tries < TRIES_MAX {
            let pause = RETRY_AFTER_MAX.min(RETRY_AFTER * 2u32.pow(task.tries));
            let not_before = inner.clock.now_unix_ms() + pause.as_millis() as u64;
            inner.upkeep.queue.lock().push(Task { tries: task.tries + 1, ..task }, not_before, QUEUE_MAX);
        }
    }
    repaired
}

/// What is to become of the shards of a run.
struct Aim {
    states: Vec<NodeState>,
    /// Where each shard is to be.
    nodes: Vec<NodeId>,
    /// Shards that should be elsewhere, and for which there is no node.
    blocked: u64,
}

fn aim(inner: &Inner, run: &StripeRun) -> Aim {
    let now = &run.manifest.nodes;
    let states: Vec<NodeState> = now.iter().map(|node| inner.upkeep.nodes.state(inner, *node)).collect();
    let out: Vec<usize> = (0..now.len()).filter(|shard| states[*shard].is_out()).collect();
    let mut free = if out.is_empty() { Vec::new() } else { destinations(inner, run) }.into_iter();
    let (mut nodes, mut blocked) = (now.clone(), 0);
    for shard in out {
        match free.next() {
            Some(node) => nodes[shard] = node,
            None => blocked |= 1 << shard,
        }
    }
    Aim { states, nodes, blocked }
}

/// Nodes that shards of this run may go to, best first: where the placement would have them, then others, those in
/// domains where the run has few shards first.
fn destinations(inner: &Inner, run: &StripeRun) -> Vec<NodeId> {
    let usable = inner.upkeep.nodes.usable(inner);
    let now = &run.manifest.nodes;
    let is_free = |node: &NodeId| !now.contains(node) && inner.upkeep.nodes.state(inner, *node) == NodeState::Up;
    let group = run.manifest.first_stripe / MANIFEST_STRIPES_MAX as u32;
    let mut free: Vec<NodeId> =
        place(&usable, run.data, group, now.len()).unwrap_or_default().into_iter().filter(&is_free).collect();
    let domain = |node: &NodeId| inner.options.cluster_map.nodes.iter().find(|entry| entry.id == *node);
    let neighbours = |entry: &NodeEntry| {
        let near = |node: &&NodeId| domain(node).is_some_and(|other| other.domain.first() == entry.domain.first());
        if entry.domain.is_empty() { 0 } else { now.iter().filter(near).count() }
    };
    let mut others: Vec<(usize, u64, NodeId)> = usable
        .nodes
        .iter()
        .filter(|entry| is_free(&entry.id) && !free.contains(&entry.id))
        .map(|entry| {
            // Spread over nodes by the data's id, which is random.
            let spread = (run.data.0 as u64 ^ u64::from(entry.id.0) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (neighbours(entry), spread, entry.id)
        })
        .collect();
    others.sort_unstable();
    free.extend(others.into_iter().map(|(_, _, node)| node));
    free
}

/// Whether the run is whole now.
async fn repair(inner: &Arc<Inner>, task: &Task, repaired: &mut Repaired) -> Result<bool> {
    let Some(run) = inner.tables.run_now(&task.owner, task.data, task.code, task.first_stripe).await? else {
        // Deleted, replaced, or in another row by now, where the next survey finds it.
        inner.tables.forget_repairs(task.data, task.first_stripe).await?;
        repaired.gone += 1;
        return Ok(true);
    };
    let aim = aim(inner, &run);
    let mut whole = aim.blocked == 0;
    repaired.blocked += u64::from(!whole);
    let moving: u64 =
        (0..aim.nodes.len()).filter(|&j| aim.nodes[j] != run.manifest.nodes[j]).fold(0, |set, j| set | 1 << j);
    // What is brought to a node is no stray there.
    let mut held = Vec::new();
    for shard in members(moving) {
        match inner.upkeep.moves.bring(aim.nodes[shard], run.data) {
            Some(moving) => held.push(moving),
            None => return Ok(false),
        }
    }
    let mut manifest = run.manifest.clone();
    let mut moved = moving;
    for (at, stripe) in run.manifest.stripes.iter().enumerate() {
        let number = run.manifest.first_stripe + at as u32;
        let broken = task.broken.get(&number).copied().unwrap_or(0);
        let needed = moving | stripe.missing | broken;
        // A node that is down can be given nothing; one that is out and has no substitute keeps what it has.
        let reachable = |j: &usize| inner.upkeep.nodes.state(inner, aim.nodes[*j]) == NodeState::Up;
        let wanted = members(needed & !aim.blocked).filter(reachable).fold(0u64, |set, j| set | 1 << j);
        let mut stored = 0;
        if wanted != 0 {
            let rebuild = plan(&run, &aim, number, at, broken, wanted);
            stored = rebuild_stripe(inner, &aim, rebuild, repaired).await;
        }
        whole &= needed & !stored == 0;
        moved &= stored;
        manifest.stripes[at].missing &= !(stored & !moving);
    }
    for shard in members(moved) {
        manifest.nodes[shard] = aim.nodes[shard];
        manifest.stripes.iter_mut().for_each(|stripe| stripe.missing &= !(1 << shard));
    }
    if !commit(inner, &run, &manifest).await? {
        return Ok(false);
    }
    if whole {
        inner.tables.forget_repairs(task.data, task.first_stripe).await?;
        repaired.done += 1;
    }
    Ok(whole)
}

/// Changes the metadata, where there is anything to change.
async fn commit(inner: &Inner, run: &StripeRun, manifest: &ManifestRow) -> Result<bool> {
    Ok(run.manifest == *manifest || inner.tables.change_run(run, manifest).await?)
}

/// What the executor beside a node is told.
fn plan(run: &StripeRun, aim: &Aim, number: u32, at: usize, broken: u64, wanted: u64) -> Rebuild {
    let stripe = &run.manifest.stripes[at];
    let shards = (0..aim.nodes.len()).map(|j| {
        let lost = (stripe.missing | broken) >> j & 1 == 1 || !aim.states[j].is_readable();
        RebuildShard {
            from: (!lost).then_some(run.manifest.nodes[j]),
            to: (wanted >> j & 1 == 1).then_some(aim.nodes[j]),
            crc64: Crc64(stripe.shard_crc64s[j]),
        }
    });
    Rebuild {
        data: run.data,
        stripe: number,
        code: run.code,
        chunk_bytes: stripe.chunk_bytes,
        shards: shards.collect(),
    }
}

/// Has it done. The shards that are stored, as a bitmap.
async fn rebuild_stripe(inner: &Inner, aim: &Aim, rebuild: Rebuild, repaired: &mut Repaired) -> u64 {
    let Some((_, at)) = rebuild.wanted().next() else { return 0 };
    let readable: Vec<usize> =
        (0..rebuild.shards.len()).filter(|shard| rebuild.shards[*shard].from.is_some()).collect();
    let wanted = rebuild.wanted().fold(0u64, |set, (shard, _)| set | 1 << shard);
    let reads = rebuild.code.choose(0, &readable, wanted).map_or(rebuild.code.k(), |reads| reads.len());
    let shards = reads + rebuild.wanted().count();
    inner.upkeep.budget.take((shards * rebuild.code.shard_bytes(rebuild.chunk_bytes as usize)) as u64).await;
    let scope = Scope {
        first_stripe: rebuild.stripe,
        end_stripe: rebuild.stripe.saturating_add(1),
        shards: aim.nodes.len() as u8,
    };
    let capability = sign(inner, rebuild.data, scope);
    let (data, stripe) = (rebuild.data, rebuild.stripe);
    match inner.executor.rebuild_at(at, capability, rebuild).await {
        Ok(done) => {
            repaired.shards += u64::from(done.stored.count_ones());
            repaired.reads += u64::from(done.reads);
            repaired.read_bytes += done.read_bytes;
            repaired.written_bytes += done.written_bytes;
            done.stored
        }
        Err(error) => {
            tracing::warn!(%data, stripe, node = %at, %error, "a stripe can't be rebuilt now");
            0
        }
    }
}

fn sign(inner: &Inner, data: DataId, scope: Scope) -> Capability {
    let expires_unix_ms = inner.clock.now_unix_ms() + limits::CAPABILITY_LIFETIME.as_millis() as u64;
    let rights = Rights::REBUILD.and(Rights::GET).and(Rights::PUT);
    Capability::sign_scoped(&inner.options.cluster_key, rights, data, scope, expires_unix_ms)
}
