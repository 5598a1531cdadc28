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
use std::future::pending;
use std::ops::Range;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use penstock_buf::{Buf, BufMut};
use penstock_digest::crc64nvme;
use penstock_proto::ShardKey;
use penstock_proto::wire::{NodeReply, NodeRequest};
use tokio::time::{Instant, sleep_until};

use crate::coding::{decode, off_thread};
use crate::error::{ExecutorError, FailureKind, Failures, Trouble};
use crate::exchange::Exchange;
use crate::hedge::{DELAY_MAX, HEDGE_SHARDS_MAX, Permit, Race, class_of};
use crate::layout::{Layout, Piece};
use crate::plan::{StripeStored, StripeTarget, salt};
use crate::read_machine::{Ask, ReadEvent, ReadPlan, Step, Verdict, members};
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

/// An ask that is outstanding, and when to look whether it is late.
struct Waiting {
    ask: Ask,
    class: usize,
    since: Instant,
    due: Option<Instant>,
    /// Until the next look.
    delay: Duration,
    late: bool,
    /// It has been held against its node already.
    struck: bool,
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
        let wanted = wanted_whole | wanted_part;
        let last_resort = (stored.missing | self.inner.watch.suspects(&target.nodes, wanted)) & code.all();
        let known = layout.zero_shards();
        let plan = ReadPlan { code, wanted_whole, wanted_part, known, last_resort };
        let plan = self.without_slow_nodes(target, plan);
        let reading = Reading { target, stored, layout, pieces, plan };
        self.within_stripe_deadline(target, self.read_patiently(&reading, landing)).await
    }

    /// The plan, with nodes that are much slower than their peers read last: always where that takes a shard or two more,
    /// and within the budget of hedges where it takes many (the rebuild of a part).
    fn without_slow_nodes(&self, target: &StripeTarget, plan: ReadPlan) -> ReadPlan {
        let wanted = plan.wanted_whole | plan.wanted_part;
        let slow = self.inner.watch.slow(&target.nodes, wanted);
        if slow == 0 {
            return plan;
        }
        let around = ReadPlan { last_resort: plan.last_resort | slow, ..plan };
        let (before, asks) = (Race::new(plan).start().asks, Race::new(around).start().asks);
        let more: Vec<Ask> = asks.into_iter().filter(|ask| !before.contains(ask)).collect();
        let cheap = more.len() <= HEDGE_SHARDS_MAX + (wanted & slow).count_ones() as usize;
        if cheap || self.inner.watch.permit(&more, &target.nodes) == Permit::Granted { around } else { plan }
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
        let mut race = Race::new(reading.plan);
        let mut asks = FuturesUnordered::new();
        let mut in_hand = InHand::default();
        let mut failures = Failures::default();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut step = race.start();
        let verdict = loop {
            let wanted = reading.plan.wanted_whole | reading.plan.wanted_part;
            let further = step.asks.iter().filter(|ask| wanted >> ask.shard & 1 == 0).count() as u64;
            if further > 0 {
                self.inner.watch.count(|stats| stats.further_asks += further);
            }
            for &ask in &step.asks {
                waiting.push(self.waiting_for(reading, ask, race.hedged() >> ask.shard & 1 == 1));
                asks.push(self.get_shard(reading, ask, landings.remove(&ask)));
            }
            match step.verdict {
                None => {}
                Some(Verdict::Fail) => return Err(too_few(reading, race.whole_in_hand(), failures)),
                Some(verdict) => break verdict,
            }
            let due = waiting.iter().filter_map(|waiting| waiting.due).min();
            let clock = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            step = tokio::select! {
                biased;
                Some((ask, outcome)) = asks.next() => match self.no_longer_waiting(reading, ask, outcome, &mut waiting) {
                    Ok(bytes) => {
                        let shelf = if ask.whole { &mut in_hand.whole } else { &mut in_hand.parts };
                        shelf.insert(ask.shard, bytes);
                        race.on(ReadEvent::Arrived(ask))
                    }
                    Err(trouble) => {
                        let failure = trouble.of_shard(ask.shard, reading.target.nodes[ask.shard]);
                        tracing::debug!(data = %reading.target.data, stripe = reading.target.stripe, %failure, "a shard can't be read");
                        failures.0.push(failure);
                        race.on(ReadEvent::Failed(ask))
                    }
                },
                () = clock => self.hedge(reading, &mut race, &mut waiting),
            };
        };
        for waiting in waiting.iter().filter(|waiting| waiting.late && !waiting.struck) {
            self.inner.watch.passed_over(reading.target.nodes[waiting.ask.shard]);
        }
        if verdict == Verdict::Decode && in_hand.whole.keys().any(|shard| race.hedged() >> shard & 1 == 1) {
            self.inner.watch.count(|stats| stats.hedges_won += 1);
        }
        Ok(in_hand)
    }

    fn waiting_for(&self, reading: &Reading<'_>, ask: Ask, hedge: bool) -> Waiting {
        let class = class_of(reading.span(ask).len());
        let delay = self.inner.watch.asked(reading.target.nodes[ask.shard], class, hedge);
        let since = Instant::now();
        Waiting {
            ask,
            class,
            since,
            due: delay.map(|delay| since + delay),
            delay: delay.unwrap_or_default(),
            late: false,
            struck: false,
        }
    }

    /// An answer came: the hedger is told how long it took, if it was the node that took it.
    fn no_longer_waiting(
        &self,
        reading: &Reading<'_>,
        ask: Ask,
        outcome: Result<Buf, Trouble>,
        waiting: &mut Vec<Waiting>,
    ) -> Result<Buf, Trouble> {
        if let Some(at) = waiting.iter().position(|waiting| waiting.ask == ask) {
            let done = waiting.swap_remove(at);
            if done.due.is_some() && outcome.is_ok() {
                let node = reading.target.nodes[ask.shard];
                self.inner.watch.answered_read(node, done.class, done.since.elapsed(), done.late);
            }
        }
        outcome
    }

    /// An ask is late: asks others instead, if that may be. Looks again after twice the time if not.
    fn hedge(&self, reading: &Reading<'_>, race: &mut Race, waiting: &mut [Waiting]) -> Step {
        let (now, watch, nodes) = (Instant::now(), &self.inner.watch, &reading.target.nodes);
        let Some(late) = waiting.iter_mut().find(|waiting| waiting.due.is_some_and(|due| due <= now)) else {
            return Step::default();
        };
        let node = nodes[late.ask.shard];
        if late.late {
            late.struck |= !late.struck && watch.still_waiting(node, late.class, now - late.since);
        } else {
            late.late = true;
            watch.late(node);
        }
        late.delay = (2 * late.delay).min(DELAY_MAX);
        late.due = Some(now + late.delay);
        race.late(late.ask, watch.is_slow(node), |asks| watch.permit(asks, nodes)).0
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
