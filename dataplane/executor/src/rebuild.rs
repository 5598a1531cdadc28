//! Rebuilding shards of a stripe: read what it takes straight from the nodes that have it, compute what is lost, store
//! that where it belongs. Runs in the executor beside the node that the first of them goes to ([`crate::Rebuilder`]), so
//! that a repair's payload moves between nodes and nowhere else.
//!
//! A shard that is only to be moved, and can still be read, is copied. Of the others the code says which shards it takes
//! ([`penstock_erasure::Code::repair_plan`]): any k of a Reed-Solomon code, the small group of an LRC. One that turns out
//! not to be readable is left out and the code is asked again. Whatever came, and whatever was computed, has the checksum
//! of the metadata before it is stored.
//!
//! Memory: a buffer for each shard that is read and each that is computed, all given back at the end.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use penstock_buf::Buf;
use penstock_digest::crc64nvme;
use penstock_proto::upkeep::{Rebuild, Rebuilt};
use penstock_proto::wire::{NodeReply, NodeRequest};
use penstock_proto::{Capability, NodeId, ShardKey};

use crate::coding::{decode, off_thread};
use crate::error::{ExecutorError, FailureKind, Failures, ShardFailure, Trouble};
use crate::exchange::Exchange;
use crate::layout::{Layout, ZEROS};
use crate::plan::{StripeTarget, salt};
use crate::{CHECK_INLINE_BYTES_MAX, CODING_INLINE_BYTES_MAX, Executor};

/// One rebuild under way.
struct Rebuilding<'a> {
    capability: Capability,
    work: &'a Rebuild,
    layout: Layout,
    /// Shards in hand, without their pad.
    have: BTreeMap<usize, Buf>,
    /// Shards that can't be read.
    lost: Vec<usize>,
    failures: Failures,
    done: Rebuilt,
}

impl Executor {
    /// Rebuilds, as far as it can: the answer says which shards are stored. `capability` must allow to read and store the
    /// stripe's shards.
    ///
    /// # Errors
    /// [`ExecutorError::TooFewShards`] when what can be read is not enough; [`ExecutorError::Corrupt`] when what was
    /// computed is not what the metadata has, and nothing is stored then; [`ExecutorError::Busy`],
    /// [`ExecutorError::Deadline`], [`ExecutorError::BadPlan`].
    pub async fn rebuild(&self, capability: Capability, work: &Rebuild) -> Result<Rebuilt, ExecutorError> {
        work.check().map_err(|error| ExecutorError::BadPlan(error.to_string()))?;
        let layout = Layout::new(work.code, work.chunk_bytes as usize);
        let mut rebuilding = Rebuilding {
            capability,
            work,
            layout,
            have: BTreeMap::new(),
            lost: (0..work.shards.len()).filter(|&shard| work.shards[shard].from.is_none()).collect(),
            failures: Failures::default(),
            done: Rebuilt::default(),
        };
        // Zeros from end to end are known.
        for shard in (0..work.code.k()).filter(|&shard| layout.valid_bytes(shard) == 0) {
            rebuilding.have.insert(shard, Buf::new());
            rebuilding.lost.retain(|lost| *lost != shard);
        }
        // For the deadline's error alone.
        let target =
            StripeTarget { data: work.data, stripe: work.stripe, code: work.code, nodes: Vec::new(), capability };
        self.within_stripe_deadline(&target, async {
            self.gather_rebuild(&mut rebuilding).await?;
            self.store_rebuilt(&mut rebuilding).await;
            Ok(rebuilding.done)
        })
        .await
    }

    /// Gets hold of every wanted shard.
    async fn gather_rebuild(&self, rebuilding: &mut Rebuilding<'_>) -> Result<(), ExecutorError> {
        let code = self.code(rebuilding.work.code)?;
        let wanted: Vec<usize> = rebuilding.work.wanted().map(|(shard, _)| shard).collect();
        let copied = wanted.iter().copied().filter(|shard| !rebuilding.lost.contains(shard));
        self.fetch_all(rebuilding, copied.collect()).await;
        // Every round either ends it or loses a shard.
        loop {
            let rest: Vec<usize> =
                wanted.iter().copied().filter(|shard| !rebuilding.have.contains_key(shard)).collect();
            if rest.is_empty() {
                return Ok(());
            }
            let shard_bytes = rebuilding.layout.shard_bytes as u64;
            let plan = code
                .repair_plan(&rest, shard_bytes)
                .ok()
                .filter(|plan| !plan.reads.iter().any(|shard| rebuilding.lost.contains(shard)));
            let reads = match plan {
                Some(plan) => plan.reads,
                // Around those that are lost, too.
                None => match code.repair_plan(&rebuilding.lost_and(&rest), shard_bytes) {
                    Ok(plan) => plan.reads,
                    Err(_) => return Err(rebuilding.too_few()),
                },
            };
            let missing: Vec<usize> =
                reads.iter().copied().filter(|shard| !rebuilding.have.contains_key(shard)).collect();
            let lost_before = rebuilding.lost.len();
            self.fetch_all(rebuilding, missing).await;
            if rebuilding.lost.len() > lost_before {
                continue;
            }
            let layout = rebuilding.layout;
            let present: Vec<(usize, Buf)> =
                reads.iter().map(|shard| (*shard, rebuilding.have[shard].clone())).collect();
            let mut room = Vec::with_capacity(rest.len());
            for _ in &rest {
                room.push(self.inner.pool.acquire(layout.shard_bytes, self.inner.options.buffer_wait).await?);
            }
            let (lost, code) = (rest.clone(), code.clone());
            let work = move || decode(&*code, &layout, &present, &lost, room);
            let computed = off_thread(reads.len() * layout.shard_bytes, CODING_INLINE_BYTES_MAX, work)
                .await
                .map_err(ExecutorError::Internal)?
                .map_err(|error| ExecutorError::Internal(error.to_string()))?;
            for (shard, (bytes, crc64)) in rest.into_iter().zip(computed) {
                let expected = rebuilding.work.shards[shard].crc64.0;
                if crc64 != expected {
                    return Err(ExecutorError::Corrupt {
                        data: rebuilding.work.data,
                        stripe: rebuilding.work.stripe,
                        reason: format!(
                            "shard {shard}, rebuilt from others that are as stored, has CRC64 {crc64:016x}, not {expected:016x}"
                        ),
                    });
                }
                rebuilding.have.insert(shard, bytes);
            }
        }
    }

    /// Reads these shards; those that can't be are lost.
    async fn fetch_all(&self, rebuilding: &mut Rebuilding<'_>, shards: Vec<usize>) {
        let (work, layout, capability) = (rebuilding.work, rebuilding.layout, rebuilding.capability);
        let mut fetches: FuturesUnordered<_> = shards
            .into_iter()
            .filter_map(|shard| Some((shard, work.shards[shard].from?)))
            .map(|(shard, node)| async move { (shard, node, self.fetch(work, layout, capability, shard, node).await) })
            .collect();
        while let Some((shard, node, outcome)) = fetches.next().await {
            match outcome {
                Ok(bytes) => {
                    rebuilding.done.reads += 1;
                    rebuilding.done.read_bytes += bytes.len() as u64;
                    rebuilding.have.insert(shard, bytes);
                }
                Err(trouble) => {
                    tracing::debug!(data = %work.data, stripe = work.stripe, shard, %node, trouble.message, "a rebuild does without a shard");
                    rebuilding.failures.0.push(trouble.of_shard(shard, node));
                    rebuilding.lost.push(shard);
                }
            }
        }
    }

    /// One whole shard without its pad, as the metadata has it.
    async fn fetch(
        &self,
        work: &Rebuild,
        layout: Layout,
        capability: Capability,
        shard: usize,
        node: NodeId,
    ) -> Result<Buf, Trouble> {
        let key = ShardKey { data: work.data, stripe: work.stripe, shard: shard as u8 };
        let length = layout.valid_bytes(shard);
        let expected = work.shards[shard].crc64.0;
        let request = NodeRequest::Get { capability, key, crc64: expected, offset: 0, length: length as u32 };
        let exchange = Exchange { node, request: &request, outgoing: &[], landing_bytes: length, landing: None };
        let (reply, landed) = self.exchange(exchange, salt(key)).await?;
        let corrupt = |message: String| {
            self.inner.watch.failed(node, FailureKind::Corrupt);
            Err(Trouble::new(FailureKind::Corrupt, message))
        };
        let NodeReply::Sent { shard_bytes, .. } = reply else {
            return Err(Trouble::new(FailureKind::Refused, format!("answers a get with {reply:?}")));
        };
        let landed = landed.unwrap_or_default();
        if shard_bytes as usize != layout.shard_bytes || landed.len() != length {
            return corrupt(format!("sent {} bytes of a shard of {shard_bytes}", landed.len()));
        }
        let bytes = landed.clone();
        let crc64 = off_thread(length, CHECK_INLINE_BYTES_MAX, move || crc64nvme(&bytes))
            .await
            .map_err(|error| Trouble::new(FailureKind::Refused, error))?;
        let whole = layout.whole_crc64(shard, crc64);
        if whole != expected {
            return corrupt(format!("has a shard of CRC64 {whole:016x}, not {expected:016x}"));
        }
        Ok(landed)
    }

    /// Stores every wanted shard where it belongs.
    async fn store_rebuilt(&self, rebuilding: &mut Rebuilding<'_>) {
        let (work, layout, capability) = (rebuilding.work, rebuilding.layout, rebuilding.capability);
        let have = &rebuilding.have;
        let puts = work.wanted().map(|(shard, node)| async move {
            let bytes = have[&shard].clone();
            let pad = Buf::from(&ZEROS[..layout.shard_bytes - bytes.len()]);
            let pieces: Vec<Buf> = [bytes, pad].into_iter().filter(|piece| !piece.is_empty()).collect();
            let key = ShardKey { data: work.data, stripe: work.stripe, shard: shard as u8 };
            let shard_bytes = layout.shard_bytes as u32;
            let request = NodeRequest::Put { capability, key, shard_bytes, crc64: work.shards[shard].crc64.0 };
            let exchange = Exchange { node, request: &request, outgoing: &pieces, landing_bytes: 0, landing: None };
            (shard, node, self.exchange(exchange, salt(key)).await)
        });
        for (shard, node, outcome) in join_all(puts).await {
            match outcome {
                Ok((NodeReply::Stored | NodeReply::Receipted(_), _)) => {
                    rebuilding.done.stored |= 1 << shard;
                    rebuilding.done.written_bytes += layout.shard_bytes as u64;
                }
                Ok((other, _)) => {
                    tracing::warn!(data = %work.data, shard, %node, ?other, "a node answers a put strangely");
                }
                Err(trouble) => {
                    tracing::warn!(data = %work.data, stripe = work.stripe, shard, %node, trouble.message, "a rebuilt shard can't be stored");
                }
            }
        }
    }
}

impl Rebuilding<'_> {
    /// What is lost, with these.
    fn lost_and(&self, rest: &[usize]) -> Vec<usize> {
        let mut all: Vec<usize> = self.lost.iter().chain(rest).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn too_few(&self) -> ExecutorError {
        let work = self.work;
        let mut failures = self.failures.clone();
        let unsaid = self.lost.iter().filter(|shard| !failures.0.iter().any(|failure| failure.shard == **shard));
        let unsaid: Vec<ShardFailure> = unsaid
            .map(|&shard| ShardFailure {
                shard,
                node: NodeId(u16::MAX),
                kind: FailureKind::NoSuchShard,
                message: "lost".to_owned(),
            })
            .collect();
        failures.0.extend(unsaid);
        let have = work.shards.len() - self.lost.len();
        ExecutorError::TooFewShards { data: work.data, stripe: work.stripe, have, need: work.code.k(), failures }
    }
}
