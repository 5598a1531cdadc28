//! The background: aborting what was dropped, and deleting from nodes what no row names any more.
//!
//! The collector asks the metadata for garbage whose time has come, claims each id (a reader's lease keeps it, see
//! [`crate::leases`]), deletes its shards on its nodes, and forgets the row when every node has confirmed. A node that
//! does not answer is not waited for: the row is put off, for that node alone, and the node is left in peace for the
//! rest of the pass. A late shard of deleted data can't come to life: the node's tombstone refuses it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use penstock_meta::tables::{GarbageRow, GarbageToken};
use penstock_proto::NodeId;
use penstock_proto::Rights;

use crate::error::Result;
use crate::gateway::Inner;
use crate::write::Signed;

/// Garbage rows fetched at a time.
const FETCHED_MAX: usize = 512;
/// Data ids deleted at a time.
const DELETES_IN_FLIGHT: usize = 8;
/// When a node that did not answer is asked again.
const RETRY_AFTER_MS: u64 = 60_000;
/// Calls in a row that bring nothing before a pass is over: long lists expand step by step.
const EMPTY_CALLS_MAX: u32 = 3;
/// Calls of one pass; the next goes on.
const CALLS_MAX: u32 = 10_000;
/// Pause before an abort is tried again that the metadata did not take.
const ABORT_PAUSE: Duration = Duration::from_secs(1);

/// What a pass of the collector did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Data ids that are gone from every node.
    pub data: u64,
    /// Shards that were deleted.
    pub shards: u64,
    /// Data ids that are still read, or that a node has not confirmed: they are tried again later.
    pub left: u64,
}

/// One pass at a time, and what all of them did.
#[derive(Default)]
pub(crate) struct Collector {
    turn: tokio::sync::Mutex<()>,
    total: Mutex<Collected>,
}

impl Collector {
    /// What was collected since the start; of what was left, each time that it was.
    pub(crate) fn total(&self) -> Collected {
        *self.total.lock()
    }
}

/// Starts the cleaner, and the collector if the options give it an interval.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner.spawn_background(|inner, stopping| async move {
        loop {
            tokio::select! {
                () = inner.pending.dropped() => {}
                () = stopping.cancelled() => break,
            }
            if let Err(error) = abort_dropped(&inner).await {
                tracing::warn!(%error, "what was dropped can't be recorded as garbage; trying again");
                tokio::time::sleep(ABORT_PAUSE).await;
            }
        }
        // Once more, for what the last requests dropped; what fails now runs out with its lease.
        if let Err(error) = abort_dropped(&inner).await {
            tracing::warn!(%error, "what was dropped at the end is left to run out");
        }
    });
    let Some(interval) = inner.options.garbage_interval else { return };
    // It may be cut short: what was not finished comes again.
    inner.spawn_every(interval, |inner| async move {
        match collect_all(&inner).await {
            Ok(collected) if collected != Collected::default() => tracing::debug!(?collected, "garbage"),
            Ok(_nothing) => {}
            Err(error) => tracing::warn!(%error, "garbage can't be collected now"),
        }
    });
}

/// Makes garbage of what was dropped.
async fn abort_dropped(inner: &Inner) -> Result<()> {
    let dropped = inner.pending.take_dropped();
    if dropped.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = dropped.iter().map(|each| each.data).collect();
    let aborted = inner.tables.abort_writes(&ids, inner.clock.now_unix_ms()).await;
    if let Err(error) = aborted {
        inner.pending.put_back(dropped);
        return Err(error.into());
    }
    Ok(())
}

/// One pass over all garbage that is due.
pub(crate) async fn collect_all(inner: &Arc<Inner>) -> Result<Collected> {
    let _one_at_a_time = inner.collector.turn.lock().await;
    abort_dropped(inner).await?;
    let mut collected = Collected::default();
    let down: Mutex<HashSet<NodeId>> = Mutex::default();
    let mut still_read: HashSet<GarbageToken> = HashSet::new();
    let mut empty_calls = 0;
    for _ in 0..CALLS_MAX {
        let now_unix_ms = inner.clock.now_unix_ms();
        let rows = inner.tables.next_garbage(now_unix_ms, FETCHED_MAX + still_read.len()).await?;
        let rows: Vec<_> = rows.into_iter().filter(|(token, _)| !still_read.contains(token)).collect();
        if rows.is_empty() {
            empty_calls += 1;
            if empty_calls == EMPTY_CALLS_MAX {
                break;
            }
            continue;
        }
        empty_calls = 0;
        let down = &down;
        let deletes: Vec<_> = rows
            .into_iter()
            .map(|(token, row)| async move {
                let outcome = delete(inner, &token, row, down, now_unix_ms).await;
                (token, outcome)
            })
            .collect();
        let mut outcomes = futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT);
        while let Some((token, outcome)) = outcomes.next().await {
            match outcome? {
                Outcome::Gone { shards } => {
                    collected.data += 1;
                    collected.shards += shards;
                }
                Outcome::PutOff { shards } => {
                    collected.left += 1;
                    collected.shards += shards;
                }
                Outcome::Read => {
                    collected.left += 1;
                    still_read.insert(token);
                }
            }
        }
    }
    let mut total = inner.collector.total.lock();
    total.data += collected.data;
    total.shards += collected.shards;
    total.left += collected.left;
    Ok(collected)
}

enum Outcome {
    Gone { shards: u64 },
    PutOff { shards: u64 },
    Read,
}

async fn delete(
    inner: &Arc<Inner>,
    token: &GarbageToken,
    row: GarbageRow,
    down: &Mutex<HashSet<NodeId>>,
    now_unix_ms: u64,
) -> Result<Outcome> {
    let Some(_claim) = inner.leases.claim(row.data) else { return Ok(Outcome::Read) };
    let all = || inner.options.cluster_map.nodes.iter().map(|entry| entry.id);
    let nodes: Vec<NodeId> = if row.nodes.is_empty() { all().collect() } else { row.nodes.clone() };
    let (mut asked, mut failed) = (Vec::new(), Vec::new());
    for node in nodes {
        if down.lock().contains(&node) { failed.push(node) } else { asked.push(node) }
    }
    let capability = Signed::new(inner, Rights::DELETE, row.data).get(inner);
    let mut shards = 0;
    for (node, deleted) in inner.executor.delete_data(row.data, capability, &asked).await {
        match deleted {
            Ok(count) => shards += u64::from(count),
            Err(error) => {
                tracing::debug!(%node, data = %row.data, %error, "garbage is left on a node");
                down.lock().insert(node);
                failed.push(node);
            }
        }
    }
    if !failed.is_empty() {
        let not_before_unix_ms = now_unix_ms + RETRY_AFTER_MS;
        inner.tables.add_garbage(&[GarbageRow { nodes: failed, not_before_unix_ms, ..row }]).await?;
        inner.tables.finish_garbage(token).await?;
        return Ok(Outcome::PutOff { shards });
    }
    inner.tables.finish_garbage(token).await?;
    Ok(Outcome::Gone { shards })
}
