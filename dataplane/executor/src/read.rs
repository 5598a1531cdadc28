//! Reading a range of a stripe: the data shards that it touches, or others that are enough and a decode.
//!
//! The machine ([`crate::read_machine`]) says which shards to ask for; here they are asked, their bytes land side by
//! side in one buffer, are checked, and are computed where they are lost. Nothing unchecked is returned: bytes that
//! came must have the checksum that the node says it sent; a whole shard must have the one in the metadata; and so must
//! a shard that was computed.
//!
//! Memory: one buffer of the range (of whole shards, where those are read), then one of a shard for each further ask and
//! each computed shard. The latter are waited for while the former is held, so a pool that is too small for its readers
//! answers Busy after the bound on that wait, and does not hang.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use penstock_buf::{Buf, BufMut};
use penstock_digest::crc64nvme;
use penstock_proto::ShardKey;
use penstock_proto::wire::{NodeReply, NodeRequest};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::coding::{decode, off_thread};
use crate::error::{ExecutorError, FailureKind, Failures, Trouble};
use crate::exchange::Exchange;
use crate::layout::{Layout, Piece};
use crate::plan::{StripeStored, StripeTarget, salt};
use crate::read_machine::{Ask, ReadEvent, ReadMachine, ReadPlan, Verdict, members};
use crate::{CHECK_INLINE_BYTES_MAX, CODING_INLINE_BYTES_MAX, Executor};

/// One read, while it is under way.
struct Reading<'a> {
    target: &'a StripeTarget,
    stored: &'a StripeStored,
    layout: Layout,
    /// What to return, in order: at most one piece of each data shard.
    pieces: Vec<Piece>,
    plan: ReadPlan,
}

/// Verified bytes, by what was asked for.
#[derive(Default)]
struct InHand {
    parts: BTreeMap<usize, Buf>,
    /// Without their pad.
    whole: BTreeMap<usize, Buf>,
}

impl Executor {
    /// As [`Executor::read_stripe_into`], with memory of the executor's pool.
    ///
    /// # Errors
    /// As [`Executor::read_stripe_into`].
    pub async fn read_stripe(
        &self,
        target: &StripeTarget,
        stored: &StripeStored,
        range: Range<u32>,
    ) -> Result<Vec<Buf>, ExecutorError> {
        self.read_stripe_into(target, stored, range, None).await
    }

    /// The bytes `range` of the chunk, in order, in as many buffers as it takes; none for an empty range.
    ///
    /// They land in `landing`, side by side and in order, when it is given, is as long as the range, and no more than the
    /// range is asked for. What had to be computed, or asked for again, is elsewhere: the answer says where all of it is,
    /// and [`Buf::rejoin`] whether it is in one piece.
    ///
    /// Asks the data shards that the range touches, and no others while all is well; a range that is short beside its
    /// shard is read alone. When one of them is missing, corrupt, unreachable or late ([`crate::HEDGE_DELAY`]) any k
    /// whole shards do. Dropping the future cancels what is outstanding.
    ///
    /// # Errors
    /// [`ExecutorError::TooFewShards`], [`ExecutorError::Corrupt`], [`ExecutorError::Busy`],
    /// [`ExecutorError::Deadline`], [`ExecutorError::BadPlan`].
    pub async fn read_stripe_into(
        &self,
        target: &StripeTarget,
        stored: &StripeStored,
        range: Range<u32>,
        landing: Option<BufMut>,
    ) -> Result<Vec<Buf>, ExecutorError> {
        target.check()?;
        let code = target.code;
        if stored.shard_crc64s.len() != code.n() {
            let have = stored.shard_crc64s.len();
            return Err(ExecutorError::BadPlan(format!("{code} needs {} checksums, not {have}", code.n())));
        }
        if range.start > range.end || range.end > stored.chunk_bytes {
            return Err(ExecutorError::BadPlan(format!("bytes {range:?} of a chunk of {}", stored.chunk_bytes)));
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let layout = Layout::new(code, stored.chunk_bytes as usize);
        let pieces = layout.pieces(range.start as usize..range.end as usize);
        let (mut wanted_whole, mut wanted_part) = (0, 0);
        for piece in &pieces {
            let valid = layout.valid_bytes(piece.shard);
            if valid > self.inner.options.part_read_shard_bytes && 2 * piece.within.len() <= valid {
                wanted_part |= 1 << piece.shard;
            } else {
                wanted_whole |= 1 << piece.shard;
            }
        }
        let last_resort = (stored.missing | self.inner.watch.suspects(&target.nodes)) & ((1 << code.n()) - 1);
        let known = layout.zero_shards();
        let plan = ReadPlan { code, wanted_whole, wanted_part, known, last_resort };
        let reading = Reading { target, stored, layout, pieces, plan };
        self.within_stripe_deadline(target, self.read_patiently(&reading, landing)).await
    }

    /// Reads, and once more after a pause when too few shards came and a node could not be reached: one that has just
    /// come back is still taken for gone by the transport for a moment.
    async fn read_patiently(&self, reading: &Reading<'_>, landing: Option<BufMut>) -> Result<Vec<Buf>, ExecutorError> {
        match self.read(reading, landing).await {
            Err(ExecutorError::TooFewShards { failures, .. }) if failures.any_unreachable() => {
                tokio::time::sleep(self.inner.options.read_again_pause).await;
                self.read(reading, None).await
            }
            outcome => outcome,
        }
    }

    async fn read(&self, reading: &Reading<'_>, landing: Option<BufMut>) -> Result<Vec<Buf>, ExecutorError> {
        let mut in_hand = self.gather(reading, landing).await?;
        let wanted = reading.pieces.iter().map(|piece| piece.shard);
        let lost: Vec<usize> =
            wanted.filter(|shard| !in_hand.parts.contains_key(shard) && !in_hand.whole.contains_key(shard)).collect();
        if !lost.is_empty() {
            self.compute(reading, &lost, &mut in_hand).await?;
        }
        self.inner.watch.count(|stats| {
            stats.stripes_read += 1;
            stats.stripes_decoded += u64::from(!lost.is_empty());
        });
        Ok(reading
            .pieces
            .iter()
            .map(|piece| match in_hand.parts.get(&piece.shard) {
                Some(part) => part.clone(),
                None => in_hand.whole[&piece.shard].slice(piece.within.clone()),
            })
            .collect())
    }

    /// Asks as the machine says, until it has a verdict; what is still outstanding then is cancelled.
    async fn gather(&self, reading: &Reading<'_>, landing: Option<BufMut>) -> Result<InHand, ExecutorError> {
        let mut landings = self.landings(reading, landing).await?;
        let mut machine = ReadMachine::new(reading.plan);
        let mut asks = FuturesUnordered::new();
        let mut in_hand = InHand::default();
        let mut failures = Failures::default();
        let delay = self.inner.options.hedge_delay.max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + delay, delay);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut step = machine.start();
        loop {
            let wanted = reading.plan.wanted_whole | reading.plan.wanted_part;
            let further = step.asks.iter().filter(|ask| wanted >> ask.shard & 1 == 0).count() as u64;
            if further > 0 {
                self.inner.watch.count(|stats| stats.further_asks += further);
            }
            asks.extend(step.asks.iter().map(|&ask| self.get_shard(reading, ask, landings.remove(&ask))));
            match step.verdict {
                None => {}
                Some(Verdict::Direct | Verdict::Decode) => break,
                Some(Verdict::Fail) => return Err(too_few(reading, machine.whole_in_hand(), failures)),
            }
            step = tokio::select! {
                biased;
                Some((ask, outcome)) = asks.next() => match outcome {
                    Ok(bytes) => {
                        let shelf = if ask.whole { &mut in_hand.whole } else { &mut in_hand.parts };
                        shelf.insert(ask.shard, bytes);
                        machine.on(ReadEvent::Arrived(ask))
                    }
                    Err(trouble) => {
                        let failure = trouble.of_shard(ask.shard, reading.target.nodes[ask.shard]);
                        tracing::debug!(data = %reading.target.data, stripe = reading.target.stripe, %failure, "a shard can't be read");
                        failures.0.push(failure);
                        machine.on(ReadEvent::Failed(ask))
                    }
                },
                _ = ticks.tick() => machine.on(ReadEvent::Tick),
            };
        }
        for shard in members(machine.passed_over()) {
            self.inner.watch.late(reading.target.nodes[shard]);
        }
        Ok(in_hand)
    }

    /// Room for what the fast path asks for: side by side in one buffer, so that what lands is already in order.
    async fn landings(
        &self,
        reading: &Reading<'_>,
        landing: Option<BufMut>,
    ) -> Result<HashMap<Ask, BufMut>, ExecutorError> {
        let asks: Vec<(Ask, usize)> = reading
            .pieces
            .iter()
            .map(|piece| {
                let ask = Ask { shard: piece.shard, whole: reading.plan.wanted_whole >> piece.shard & 1 == 1 };
                (ask, reading.span(ask).len())
            })
            .collect();
        let total = asks.iter().map(|(_, bytes)| bytes).sum();
        let mut rest = match landing.filter(|landing| landing.len() == total) {
            Some(landing) => landing,
            None => self.inner.pool.acquire(total, self.inner.options.buffer_wait).await?,
        };
        let mut landings = HashMap::with_capacity(asks.len());
        for (ask, bytes) in asks {
            let tail = rest.split_off(bytes);
            landings.insert(ask, std::mem::replace(&mut rest, tail));
        }
        Ok(landings)
    }

    async fn get_shard(&self, reading: &Reading<'_>, ask: Ask, landing: Option<BufMut>) -> (Ask, Result<Buf, Trouble>) {
        (ask, self.get_checked(reading, ask, landing).await)
    }

    async fn get_checked(&self, reading: &Reading<'_>, ask: Ask, landing: Option<BufMut>) -> Result<Buf, Trouble> {
        let target = reading.target;
        let span = reading.span(ask);
        let key = ShardKey { data: target.data, stripe: target.stripe, shard: ask.shard as u8 };
        let expected_crc64 = reading.stored.shard_crc64s[ask.shard];
        let request = NodeRequest::Get {
            capability: target.capability,
            key,
            crc64: expected_crc64,
            offset: span.start as u32,
            length: span.len() as u32,
        };
        let node = target.nodes[ask.shard];
        let exchange = Exchange { node, request: &request, outgoing: &[], landing_bytes: span.len(), landing };
        let (reply, landed) = self.exchange(exchange, salt(key)).await?;
        let corrupt = |message: String| {
            tracing::warn!(%node, shard = %key, message, "a node has sent wrong bytes");
            self.inner.watch.failed(node, FailureKind::Corrupt);
            Err(Trouble::new(FailureKind::Corrupt, message))
        };
        let NodeReply::Sent { crc64, shard_bytes } = reply else {
            return Err(Trouble::new(FailureKind::Refused, format!("answers a get with {reply:?}")));
        };
        if shard_bytes as usize != reading.layout.shard_bytes {
            return corrupt(format!("has a shard of {shard_bytes} bytes, not {}", reading.layout.shard_bytes));
        }
        let landed = landed.unwrap_or_default();
        if landed.len() != span.len() {
            return corrupt(format!("sent {} bytes of {}", landed.len(), span.len()));
        }
        let bytes = landed.clone();
        let landed_crc64 = off_thread(bytes.len(), CHECK_INLINE_BYTES_MAX, move || crc64nvme(&bytes))
            .await
            .map_err(|error| Trouble::new(FailureKind::Refused, error))?;
        if landed_crc64 != crc64 {
            return corrupt(format!("sent bytes of CRC64 {crc64:016x}; those that came have {landed_crc64:016x}"));
        }
        if ask.whole {
            let whole_crc64 = reading.layout.whole_crc64(ask.shard, landed_crc64);
            if whole_crc64 != expected_crc64 {
                return corrupt(format!("has a shard of CRC64 {whole_crc64:016x}, not {expected_crc64:016x}"));
            }
        }
        Ok(landed)
    }

    /// Computes the lost shards from the whole ones in hand, and puts them there.
    async fn compute(&self, reading: &Reading<'_>, lost: &[usize], in_hand: &mut InHand) -> Result<(), ExecutorError> {
        let (layout, target) = (reading.layout, reading.target);
        let mut room = Vec::with_capacity(lost.len());
        for _ in lost {
            room.push(self.inner.pool.acquire(layout.shard_bytes, self.inner.options.buffer_wait).await?);
        }
        let mut present: Vec<(usize, Buf)> =
            in_hand.whole.iter().map(|(&shard, bytes)| (shard, bytes.clone())).collect();
        present.extend(members(reading.plan.known).map(|shard| (shard, Buf::new())));
        let code = self.code(target.code)?;
        let wanted = lost.to_vec();
        let work = move || decode(&*code, &layout, &present, &wanted, room);
        let computed = off_thread(layout.code.k() * layout.shard_bytes, CODING_INLINE_BYTES_MAX, work)
            .await
            .map_err(ExecutorError::Internal)?
            .map_err(|error| ExecutorError::Internal(error.to_string()))?;
        for (&shard, (bytes, crc64)) in lost.iter().zip(computed) {
            let expected = reading.stored.shard_crc64s[shard];
            if crc64 != expected {
                return Err(ExecutorError::Corrupt {
                    data: target.data,
                    stripe: target.stripe,
                    reason: format!(
                        "shard {shard}, computed from others that are as stored, has CRC64 {crc64:016x}, not {expected:016x}"
                    ),
                });
            }
            in_hand.whole.insert(shard, bytes);
        }
        Ok(())
    }
}

impl Reading<'_> {
    /// Which bytes of its shard an ask is for: without the pad, which is known.
    fn span(&self, ask: Ask) -> Range<usize> {
        let part = || self.pieces.iter().find(|piece| piece.shard == ask.shard).map(|piece| piece.within.clone());
        match (ask.whole, part()) {
            (false, Some(within)) => within,
            _ => 0..self.layout.valid_bytes(ask.shard),
        }
    }
}

/// The error of a read that can't succeed; what a single corrupt copy says is said directly.
fn too_few(reading: &Reading<'_>, have: usize, failures: Failures) -> ExecutorError {
    let (data, stripe, code) = (reading.target.data, reading.target.stripe, reading.target.code);
    if code.m() == 0 && failures.0.len() == failures.of_kind(FailureKind::Corrupt) {
        return ExecutorError::Corrupt { data, stripe, reason: failures.to_string() };
    }
    ExecutorError::TooFewShards { data, stripe, have, need: code.k(), failures }
}
