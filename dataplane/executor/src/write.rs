//! Writing a stripe: encode, then all shards at once to their nodes, until the quorum is durable.

use std::future::pending;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use penstock_proto::wire::{NodeReply, NodeRequest};
use penstock_proto::{Receipt, ShardKey};
use tokio::time::{Instant, sleep_until};

use crate::chunk::SealedChunk;
use crate::coding::{Encoded, encode, off_thread};
use crate::error::{ExecutorError, FailureKind, Failures, Trouble};
use crate::exchange::Exchange;
use crate::plan::{StripeTarget, StripeWritten, salt};
use crate::read_machine::members;
use crate::write_machine::{WriteMachine, WriteVerdict};
use crate::{CODING_INLINE_BYTES_MAX, Executor};

impl Executor {
    /// Encodes `chunk` (a [`SealedChunk`], or a [`crate::ChunkBuf`] that is sealed here) and stores its shards. Returns when every node has answered, or when the quorum is durable and
    /// the stragglers have had their grace ([`crate::STRAGGLER_GRACE`]); those are then cancelled and marked missing
    /// (they may have become durable all the same).
    ///
    /// Dropping the future cancels what is outstanding. After an error or a cancellation some shards may be stored:
    /// the caller deletes the data.
    ///
    /// # Errors
    /// [`ExecutorError::QuorumNotMet`], [`ExecutorError::NoSpace`], [`ExecutorError::Deadline`],
    /// [`ExecutorError::BadPlan`].
    pub async fn write_stripe(
        &self,
        target: &StripeTarget,
        chunk: impl Into<SealedChunk>,
    ) -> Result<StripeWritten, ExecutorError> {
        let chunk: SealedChunk = chunk.into();
        target.check()?;
        if chunk.code() != target.code {
            return Err(ExecutorError::BadPlan(format!(
                "a chunk made for {} is to be written as {}",
                chunk.code(),
                target.code
            )));
        }
        if chunk.is_empty() {
            return Err(ExecutorError::BadPlan("a stripe of no bytes".to_owned()));
        }
        let code = self.code(target.code)?;
        let bytes = chunk.len();
        let work = move || encode(&*code, chunk);
        let encoded = off_thread(bytes, CODING_INLINE_BYTES_MAX, work)
            .await
            .map_err(ExecutorError::Internal)?
            .map_err(|error| ExecutorError::Internal(error.to_string()))?;
        self.within_stripe_deadline(target, self.fan_out(target, encoded)).await
    }

    async fn fan_out(&self, target: &StripeTarget, encoded: Encoded) -> Result<StripeWritten, ExecutorError> {
        let skipped = self.inner.watch.skips(&target.nodes, target.code.write_quorum());
        let mut puts: FuturesUnordered<_> =
            members(target.code.all() & !skipped).map(|shard| self.put_shard(target, &encoded, shard)).collect();
        let mut machine = WriteMachine::new(target.code);
        let mut verdict = WriteVerdict::Waiting;
        let mut grace_ends: Option<Instant> = None;
        let mut failures = Failures::default();
        for shard in members(skipped) {
            let trouble = Trouble::new(FailureKind::Unreachable, "not asked: it has failed several times in a row");
            failures.0.push(trouble.of_shard(shard, target.nodes[shard]));
            verdict = machine.on_failed(shard);
        }
        let mut receipts = vec![None; target.code.n()];
        let missing = loop {
            match verdict {
                WriteVerdict::Durable { missing } => break missing,
                WriteVerdict::Failed => return Err(not_met(target, machine.durable(), failures)),
                WriteVerdict::Grace if grace_ends.is_none() => {
                    grace_ends = Some(Instant::now() + self.inner.options.straggler_grace);
                }
                WriteVerdict::Grace | WriteVerdict::Waiting => {}
            }
            let grace = async {
                match grace_ends {
                    Some(end) => sleep_until(end).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // Answers first: a node that has answered is no straggler.
                biased;
                Some((shard, outcome)) = puts.next() => match outcome {
                    Ok(receipt) => {
                        receipts[shard] = receipt;
                        verdict = machine.on_stored(shard);
                    }
                    Err(trouble) => {
                        failures.0.push(trouble.of_shard(shard, target.nodes[shard]));
                        verdict = machine.on_failed(shard);
                    }
                },
                () = grace => verdict = machine.on_grace_over(),
            }
        };
        self.inner.watch.count(|stats| {
            stats.stripes_written += 1;
            stats.shards_missing += u64::from(missing.count_ones());
        });
        if missing != 0 {
            tracing::warn!(data = %target.data, stripe = target.stripe, missing, %failures, "a stripe is written without all of its shards");
        }
        Ok(StripeWritten {
            shard_crc64s: encoded.shard_crc64s.clone(),
            missing,
            chunk_crc64: encoded.chunk_crc64,
            receipts,
        })
    }

    async fn put_shard(
        &self,
        target: &StripeTarget,
        encoded: &Encoded,
        shard: usize,
    ) -> (usize, Result<Option<Receipt>, Trouble>) {
        let key = ShardKey { data: target.data, stripe: target.stripe, shard: shard as u8 };
        let request = NodeRequest::Put {
            capability: target.capability,
            key,
            shard_bytes: encoded.layout.shard_bytes as u32,
            crc64: encoded.shard_crc64s[shard],
        };
        let exchange = Exchange {
            node: target.nodes[shard],
            request: &request,
            outgoing: &encoded.shards[shard],
            landing_bytes: 0,
            landing: None,
        };
        let outcome = match self.exchange(exchange, salt(key)).await {
            Ok((NodeReply::Stored, _)) if !target.capability.wants_receipts() => Ok(None),
            Ok((NodeReply::Receipted(receipt), _)) => Ok(Some(receipt)),
            Ok((other, _)) => Err(Trouble::new(FailureKind::Refused, format!("answers a put with {other:?}"))),
            Err(trouble) => Err(trouble),
        };
        (shard, outcome)
    }
}

/// The error of a write below its quorum: no space when that is what at least half of the failures say.
fn not_met(target: &StripeTarget, durable: usize, failures: Failures) -> ExecutorError {
    let full = failures.of_kind(FailureKind::NoSpace);
    if full > 0 && 2 * full >= failures.0.len() {
        tracing::warn!(data = %target.data, stripe = target.stripe, durable, %failures, "no space for a stripe");
        return ExecutorError::NoSpace;
    }
    ExecutorError::QuorumNotMet {
        data: target.data,
        stripe: target.stripe,
        durable,
        need: target.code.write_quorum(),
        failures,
    }
}
