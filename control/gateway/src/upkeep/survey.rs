//! The survey: compares what the metadata says with what the nodes hold, and queues what is to be repaired.
//!
//! It walks through every run of stripes that any row names ([`penstock_meta::tables::Tables::walk`]) and looks for
//! - shards that were not durable when they were written,
//! - shards on nodes that are out (lost, failed, being drained),
//! - shards that their node knows to be damaged,
//! - and, where it *checks*, shards that their node does not have: each node is asked, thousands of shards at a time.
//!
//! The other way round, it lists what each node holds, and looks for **strays**: data that no row refers to, or of which
//! no shard belongs on that node. One that was seen as a stray by two surveys, a grace apart, is deleted from the node. That
//! can't hit data on its way in: a write is registered before its first shard goes out, and what a node held when a
//! survey began is either registered or in a row from then on, or garbage.
//!
//! A rename moves an object's row to anywhere, past a survey that is under way: one that a rename met leaves strays alone.
//!
//! How it fails: a node that does not answer is passed over; an error of the metadata ends the survey, which the next
//! one repeats. Where a checking survey is, is kept: a gateway that is started again goes on there (and leaves strays to
//! the next, for it has not seen the beginning).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use penstock_meta::tables::{Stray, StripeRun, WalkPlace};
use penstock_proto::limits::UPKEEP_SHARDS_MAX;
use penstock_proto::upkeep::{ShardClaim, ShardState};
use penstock_proto::{Code, DataId, NodeId, Rights, ShardKey};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::nodes::NodeState;
use super::queue::{QUEUE_MAX, Task};
use crate::error::Result;
use crate::gateway::Inner;
use crate::write::Signed;

/// Where a checking survey is kept.
const PLACE: &str = "upkeep-survey";
/// Pages between two times that the place is kept.
const PAGES_PER_PLACE: u64 = 64;
/// Checks under way at a time.
const CHECKS_AT_A_TIME: usize = 16;
/// Strays that are noted; the others are when these are gone.
const STRAYS_MAX: usize = 200_000;
/// Strays deleted at a time.
const DELETES_AT_A_TIME: usize = 8;

/// What a survey is to look at beside the metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Ask these nodes whether they have what they should.
    pub(crate) check: BTreeSet<NodeId>,
    /// Ask all, and look for strays: the whole of it.
    pub(crate) whole: bool,
}

impl Wish {
    pub(crate) fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.check.extend(other.check);
        self.whole |= other.whole;
    }
}

/// What a survey found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Surveyed {
    /// Runs of stripes.
    pub runs: u64,
    /// Stripes of these.
    pub stripes: u64,
    /// Stripes that lack shards, by how many more they can lose.
    pub under_replicated: BTreeMap<i32, u64>,
    /// Shards that a node should have and has not, or has damaged.
    pub shards_bad: u64,
    /// Data on nodes that seems to be there for nothing.
    pub strays: u64,
    /// Of that, what was deleted.
    pub strays_deleted: u64,
    /// Shards that went with it.
    pub strays_deleted_shards: u64,
    /// Runs with shards on each node.
    #[serde(skip)]
    pub(crate) runs_on: BTreeMap<NodeId, u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    place: WalkPlace,
}

/// One survey under way.
struct Survey<'a> {
    inner: &'a Arc<Inner>,
    wish: &'a Wish,
    states: BTreeMap<NodeId, NodeState>,
    broken: BTreeMap<DataId, BTreeSet<(u32, u8)>>,
    filter: Option<Filter>,
    found: Surveyed,
}

/// A survey from its beginning (or from where a checking one was interrupted) to its end.
pub(crate) async fn run(inner: &Arc<Inner>, wish: &Wish) -> Result<Surveyed> {
    let upkeep = &inner.upkeep;
    let began_unix_ms = inner.clock.now_unix_ms();
    upkeep.moves.survey_begins();
    let kept: Option<Kept> = match inner.tables.setting(PLACE).await? {
        Some(bytes) if wish.whole && !bytes.is_empty() => serde_json::from_slice(&bytes).ok(),
        _ => None,
    };
    let from_the_beginning = kept.is_none();
    let expected = upkeep.runs_expected();
    let renames = inner.tables.renames().await?;
    let mut survey = Survey {
        inner,
        wish,
        states: BTreeMap::new(),
        broken: upkeep.nodes.broken(),
        filter: (wish.whole && from_the_beginning).then(|| Filter::new(expected.saturating_mul(16))),
        found: Surveyed::default(),
    };
    let mut place = Some(kept.unwrap_or_default().place);
    let mut pages = 0u64;
    while let Some(at) = place {
        let page = inner.tables.walk(&at).await?;
        if let Some(filter) = &mut survey.filter {
            page.pending.iter().for_each(|data| filter.add_anywhere(*data));
        }
        survey.look_at(&page.runs).await;
        upkeep.survey_is_at(survey.found.runs);
        place = page.next;
        pages += 1;
        if let (Some(next), true) = (&place, wish.whole && pages.is_multiple_of(PAGES_PER_PLACE)) {
            keep(inner, Some(next)).await?;
        }
    }
    if wish.whole {
        keep(inner, None).await?;
    }
    if survey.filter.is_some() {
        if inner.tables.renames().await? == renames {
            survey.strays(began_unix_ms).await?;
        } else {
            tracing::info!("objects were renamed during the survey: strays are left to the next one");
        }
    }
    Ok(survey.found)
}

async fn keep(inner: &Inner, place: Option<&WalkPlace>) -> Result<()> {
    let bytes = match place {
        Some(place) => serde_json::to_vec(&Kept { place: place.clone() }).unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(inner.tables.set_setting(PLACE, &bytes).await?)
}

impl Survey<'_> {
    fn state(&mut self, node: NodeId) -> NodeState {
        *self.states.entry(node).or_insert_with(|| self.inner.upkeep.nodes.state(self.inner, node))
    }

    fn is_checked(&mut self, node: NodeId) -> bool {
        (self.wish.whole || self.wish.check.contains(&node)) && self.state(node).is_readable()
    }

    async fn look_at(&mut self, runs: &[StripeRun]) {
        let bad = self.check(runs).await;
        for (number, run) in runs.iter().enumerate() {
            self.found.runs += 1;
            let mut out = 0u64;
            for (shard, node) in run.manifest.nodes.iter().enumerate() {
                *self.found.runs_on.entry(*node).or_default() += 1;
                if let Some(filter) = &mut self.filter {
                    filter.add_on(run.data, *node);
                }
                if self.state(*node).is_out() {
                    out |= 1 << shard;
                }
            }
            let draining = members(out).filter(|shard| self.state(run.manifest.nodes[*shard]).is_readable());
            let readable = draining.fold(0u64, |set, shard| set | 1 << shard);
            let mut task: Option<Task> = None;
            for (stripe, at) in run.manifest.stripes.iter().zip(run.manifest.first_stripe..) {
                self.found.stripes += 1;
                let known = self.broken.get(&run.data).into_iter().flatten().filter(|(stripe, _)| *stripe == at);
                let mut broken = known.fold(0u64, |set, (_, shard)| set | 1 << shard);
                broken |= bad.get(&(number, at)).copied().unwrap_or(0);
                self.found.shards_bad += u64::from(broken.count_ones());
                let lost = stripe.missing | broken | (out & !readable);
                if lost == 0 && out == 0 {
                    continue;
                }
                let spare = spare(run.code, lost);
                if lost != 0 {
                    *self.found.under_replicated.entry(spare).or_default() += 1;
                }
                let task = task.get_or_insert_with(|| Task {
                    data: run.data,
                    first_stripe: run.manifest.first_stripe,
                    owner: run.owner.clone(),
                    code: run.code,
                    spare,
                    broken: BTreeMap::new(),
                    tries: 0,
                });
                task.spare = task.spare.min(spare);
                if broken != 0 {
                    *task.broken.entry(at).or_default() |= broken;
                }
            }
            if let Some(task) = task {
                self.inner.upkeep.queue.lock().push(task, 0, QUEUE_MAX);
            }
        }
    }

    /// Asks nodes for what they should have. By run and stripe, the shards that they have not, or have damaged.
    async fn check(&mut self, runs: &[StripeRun]) -> HashMap<(usize, u32), u64> {
        type Claims = Vec<(ShardClaim, (usize, u32))>;
        let mut claims: BTreeMap<NodeId, Claims> = BTreeMap::new();
        for (number, run) in runs.iter().enumerate() {
            for (shard, node) in run.manifest.nodes.iter().enumerate() {
                if !self.is_checked(*node) {
                    continue;
                }
                let of_node = claims.entry(*node).or_default();
                for (stripe, at) in run.manifest.stripes.iter().zip(run.manifest.first_stripe..) {
                    if stripe.missing >> shard & 1 == 0 {
                        let key = ShardKey { data: run.data, stripe: at, shard: shard as u8 };
                        of_node.push((ShardClaim { key, crc64: stripe.shard_crc64s[shard] }, (number, at)));
                    }
                }
            }
        }
        let inner = self.inner;
        let batches =
            claims.iter().flat_map(|(node, claims)| claims.chunks(UPKEEP_SHARDS_MAX).map(|batch| (*node, batch)));
        let asks: Vec<_> = batches
            .map(|(node, batch)| async move {
                let only: Vec<ShardClaim> = batch.iter().map(|(claim, _)| *claim).collect();
                let capability = Signed::new(inner, Rights::UPKEEP, DataId(0)).get(inner);
                (node, batch, inner.executor.check_shards(node, capability, &only).await)
            })
            .collect();
        let mut bad: HashMap<(usize, u32), u64> = HashMap::new();
        let mut answers = futures::stream::iter(asks).buffer_unordered(CHECKS_AT_A_TIME);
        while let Some((node, batch, states)) = answers.next().await {
            match states {
                Ok(states) => {
                    let wrong = batch.iter().zip(states).filter(|(_, state)| *state != ShardState::Sound);
                    for ((claim, place), _) in wrong {
                        *bad.entry(*place).or_default() |= 1 << claim.key.shard;
                    }
                }
                Err(error) => tracing::debug!(%node, %error, "what a node holds can't be checked now"),
            }
        }
        bad
    }

    /// Looks for data on nodes that is there for nothing; notes what is new and deletes what is old.
    async fn strays(&mut self, began_unix_ms: u64) -> Result<()> {
        let inner = self.inner;
        let Some(filter) = self.filter.take() else { return Ok(()) };
        if let Some(table) = inner.tables.has_unknown_tables().await? {
            tracing::error!(%table, "strays are left alone: the metadata has a table that the survey does not know");
            return Ok(());
        }
        let grace_ms = inner.options.upkeep.stray_grace.as_millis() as u64;
        let mut noted: BTreeMap<Stray, u64> = BTreeMap::new();
        loop {
            let page = inner.tables.strays(noted.last_key_value().map(|(stray, _)| *stray), usize::MAX).await?;
            if page.is_empty() || noted.len() >= STRAYS_MAX {
                break;
            }
            noted.extend(page);
        }
        let nodes: Vec<NodeId> = inner.options.cluster_map.nodes.iter().map(|entry| entry.id).collect();
        let (mut new, mut old, mut heard) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut still: BTreeSet<Stray> = BTreeSet::new();
        for node in nodes {
            if !self.state(node).is_readable() {
                continue;
            }
            let (mut after, mut last) = (None, None);
            loop {
                let capability = Signed::new(inner, Rights::UPKEEP, DataId(0)).get(inner);
                let (shards, more) = match inner.executor.list_shards(node, capability, after, false).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::warn!(%node, %error, "what a node holds can't be listed now");
                        break;
                    }
                };
                after = shards.last().map(|shard| shard.key);
                for shard in shards {
                    let data = shard.key.data;
                    if last == Some(data) || filter.knows(data, node) {
                        continue;
                    }
                    last = Some(data);
                    let stray = Stray { node, data };
                    self.found.strays += 1;
                    still.insert(stray);
                    match noted.get(&stray) {
                        Some(seen) if *seen < began_unix_ms && *seen + grace_ms <= began_unix_ms => old.push(stray),
                        Some(_) => {}
                        None if noted.len() + new.len() < STRAYS_MAX => new.push(stray),
                        None => {}
                    }
                }
                if !more {
                    heard.insert(node);
                    break;
                }
            }
        }
        inner.tables.note_strays(&new, began_unix_ms).await?;
        let deleted = self.delete(old).await;
        let none: Vec<Stray> = noted
            .into_keys()
            .filter(|stray| heard.contains(&stray.node) && !still.contains(stray))
            .chain(deleted)
            .collect();
        Ok(inner.tables.forget_strays(&none).await?)
    }

    async fn delete(&mut self, strays: Vec<Stray>) -> Vec<Stray> {
        let inner = self.inner;
        let deletes: Vec<_> = strays
            .into_iter()
            .map(|stray| async move {
                let _deleting = inner.upkeep.moves.delete(stray.node, stray.data)?;
                let capability = Signed::new(inner, Rights::DELETE, stray.data).get(inner);
                match inner.executor.delete_data(stray.data, capability, &[stray.node]).await.pop()?.1 {
                    Ok(shards) => Some((stray, shards)),
                    Err(error) => {
                        tracing::debug!(node = %stray.node, data = %stray.data, %error, "a stray is left for later");
                        None
                    }
                }
            })
            .collect();
        let outcomes: Vec<_> = futures::stream::iter(deletes).buffer_unordered(DELETES_AT_A_TIME).collect().await;
        let mut deleted = Vec::new();
        for (stray, shards) in outcomes.into_iter().flatten() {
            self.found.strays_deleted += 1;
            self.found.strays_deleted_shards += u64::from(shards);
            deleted.push(stray);
        }
        deleted
    }
}

/// How many more shards a stripe without `lost` can lose, whichever they are; below 0 when it can't be read in full.
pub(crate) fn spare(code: Code, lost: u64) -> i32 {
    code.spare(code.all() & !lost).map_or(-1, |spare| spare as i32)
}

/// The members of a set, lowest first.
pub(crate) fn members(set: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |shard| set >> shard & 1 == 1)
}
