//! Plans, carried out: the executor in this process reads and writes the shards, straight from and to the nodes.

use std::ops::Range;

use futures::{StreamExt, stream};
use penstock_buf::{Buf, BufMut};
use penstock_digest::crc64nvme_combine;
use penstock_executor::{StripeStored, StripeTarget, StripeWritten};
use penstock_proto::limits;
use penstock_proto::plan::{CommitStripe, Crc64, GROUP_STRIPES, ReadPlan, Record, WriteCommit, WritePlan};

use crate::client::{Client, PROTOCOL, Request};
use crate::error::ClientError;
use crate::lent::{Lent, Place};
use crate::object::{ObjectInfo, PutDone, crc64_text, etag_of};
use crate::plain::{Opened, Sink, Target, known};
use crate::put::{Data, chunks, length};

/// Plans for one read that may fail before the rest goes over HTTP: nodes that were restarted, a plan whose time ran out.
const PLAN_TRIES_MAX: u32 = 2;
/// Reads up to this long land in one piece of memory.
const CONTIGUOUS_BYTES_MAX: u64 = 8 << 20;

/// What is to be read of one stripe.
struct StripeJob {
    target: StripeTarget,
    stored: StripeStored,
    range: Range<u32>,
}

/// What a PUT by plan came to.
pub(crate) enum Planned {
    /// Done.
    Done(PutDone),
    /// To be sent with the request instead.
    Declined(&'static str),
}

impl Client {
    /// Reads `range` by `plan`, by further plans where that does not reach, and over HTTP what nodes do not give.
    pub(crate) async fn read_by_plan(
        &self,
        object: Target<'_>,
        info: &ObjectInfo,
        range: Range<u64>,
        mut plan: ReadPlan,
        sink: &mut Sink<'_>,
    ) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let (mut at, mut failures) = (range.start, 0);
        loop {
            let before = at;
            let outcome = self.run_read(&plan, range.end, &mut at, sink).await;
            if at > before {
                failures = 0;
            }
            // A plan that covers nothing of what is left is no better than none.
            let outcome = match outcome {
                Ok(()) if at == before => Err(inner.protocol("a plan that covers nothing of what was asked for")),
                outcome => outcome,
            };
            if let Err(error) = outcome {
                failures += 1;
                tracing::warn!(object = object.name(), at, %error, "a plan could not be carried out");
                if failures >= PLAN_TRIES_MAX {
                    if inner.options.require_plan || inner.options.require_rdma {
                        return Err(error);
                    }
                    inner.stats.fallback("nodes");
                    return self.read_http(object, info, at..range.end, None, sink).await;
                }
            }
            if at >= range.end {
                inner.stats.count(|stats| stats.by_plan += 1);
                return Ok(());
            }
            plan = match self.open_rest(object, at..range.end, &info.etag).await? {
                Opened::Plan { plan, .. } => plan,
                Opened::Http { answer, .. } => {
                    return self.read_http(object, info, at..range.end, Some(answer), sink).await;
                }
            };
        }
    }

    /// Reads what the plan covers from `at` on, which moves with what has been read.
    async fn run_read(&self, plan: &ReadPlan, end: u64, at: &mut u64, sink: &mut Sink<'_>) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let jobs = jobs(plan, *at..end.min(plan.end)).map_err(|reason| inner.protocol(reason))?;
        inner.messenger.learn(&plan.nodes);
        if let Sink::Buffer(lent) = sink {
            return self.run_lent(&jobs, at, lent).await;
        }
        let mut landings = self.landings(&jobs, sink);
        let reads: Vec<_> =
            jobs.iter()
                .map(|job| {
                    let landing = landings.pop();
                    async move {
                        inner.executor.read_stripe_into(&job.target, &job.stored, job.range.clone(), landing).await
                    }
                })
                .collect();
        let mut reads = stream::iter(reads).buffered(inner.options.parallel_max.max(1));
        while let Some(pieces) = reads.next().await {
            for piece in pieces? {
                *at += piece.len() as u64;
                self.take_in(piece, sink);
            }
        }
        Ok(())
    }

    /// Reads the jobs, each straight into its place. Whatever happens, `room` is whole again afterwards, with what was read
    /// in order filled; or the memory did not come back, which is the error.
    async fn run_lent(&self, jobs: &[StripeJob], at: &mut u64, room: &mut Lent) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let (lent, places): (Vec<_>, Vec<_>) =
            jobs.iter().map(|job| Place::of(room.split((job.range.end - job.range.start) as usize))).unzip();
        let reads: Vec<_> = jobs
            .iter()
            .zip(&places)
            .zip(lent)
            .map(|((job, place), lent)| async move {
                let range = job.range.clone();
                let pieces = inner.executor.read_stripe_into(&job.target, &job.stored, range, Some(lent)).await?;
                let copied = place.settle(pieces).await? as u64;
                if copied > 0 {
                    inner.stats.count(|stats| stats.copied_bytes += copied);
                }
                Ok::<_, ClientError>(())
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(inner.options.parallel_max.max(1));
        let (mut done, mut outcome) = (0, Ok(()));
        while let Some(read) = reads.next().await {
            match read {
                Ok(()) => done += 1,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // What is under way is given up.
        drop(reads);
        for place in places.iter().rev() {
            room.put_back(place.take().await?);
        }
        for job in &jobs[..done] {
            room.advance((job.range.end - job.range.start) as usize);
            *at += u64::from(job.range.end - job.range.start);
        }
        outcome
    }

    fn take_in(&self, piece: Buf, sink: &mut Sink<'_>) {
        match sink {
            Sink::Buffer(_) => unreachable!("read by run_lent"),
            Sink::Body(body) => body.push(piece),
            Sink::Slice(into, filled) => {
                into[*filled..*filled + piece.len()].copy_from_slice(&piece);
                *filled += piece.len();
                self.inner.stats.count(|stats| stats.copied_bytes += piece.len() as u64);
            }
        }
    }

    /// Room for all jobs side by side, last first, where that is short enough and there is some now; else none, and each
    /// finds its own.
    fn landings(&self, jobs: &[StripeJob], sink: &Sink<'_>) -> Vec<BufMut> {
        let bytes = |job: &StripeJob| (job.range.end - job.range.start) as usize;
        let total: usize = jobs.iter().map(bytes).sum();
        if !matches!(sink, Sink::Body(_)) || total as u64 > CONTIGUOUS_BYTES_MAX {
            return Vec::new();
        }
        let Some(mut rest) = self.inner.buffers.try_acquire(total) else { return Vec::new() };
        let mut landings = Vec::with_capacity(jobs.len());
        for job in jobs {
            let tail = rest.split_off(bytes(job));
            landings.push(std::mem::replace(&mut rest, tail));
        }
        landings.reverse();
        landings
    }

    /// A PUT or UploadPart by plan: `request` is the one that would carry the body, without it. Where there must be a plan, one
    /// whose nodes were late or gone is asked for anew, like any other request: nothing of the first is visible.
    pub(crate) async fn put_by_plan(&self, request: &Request<'_>, data: &Data<'_>) -> Result<Planned, ClientError> {
        let options = &self.inner.options;
        let tries = if options.require_plan || options.require_rdma { options.tries_max.max(1) } else { 1 };
        for _ in 1..tries {
            match self.put_by_plan_once(request, data).await {
                Err(error @ ClientError::Nodes(_)) if error.is_retryable() => {
                    self.inner.stats.count(|stats| stats.retries += 1);
                }
                other => return other,
            }
        }
        self.put_by_plan_once(request, data).await
    }

    async fn put_by_plan_once(&self, request: &Request<'_>, data: &Data<'_>) -> Result<Planned, ClientError> {
        let inner = &*self.inner;
        if !inner.is_native(request.bucket).await? {
            return Ok(Planned::Declined("server"));
        }
        let native = |plan: &str| {
            let mut request = Request { body: Vec::new(), ..request.clone() };
            request.headers.retain(|(name, _)| !name.starts_with("x-amz-checksum-"));
            request.headers.push(("x-amz-rdma-plan", plan.to_owned()));
            request.headers.push(("x-amz-rdma-protocol", PROTOCOL.to_owned()));
            request
        };
        let mut asking = native("put");
        asking.headers.push(("x-amz-rdma-object-bytes", length(data.pieces).to_string()));
        let answer = match inner.send(&asking).await {
            Ok(answer) => answer,
            Err(error) => match error.code().and_then(|code| code.strip_prefix("Declined:")) {
                Some(reason) => return Ok(Planned::Declined(known(reason))),
                None => return Err(error),
            },
        };
        if answer.head.header("x-amz-rdma-plan") != Some("put") {
            return Err(inner.protocol("a request for a plan was answered without one"));
        }
        let (_, body) = inner.whole(answer, limits::PLAN_BYTES_MAX).await?;
        let plan = WritePlan::decode(&body).map_err(|error| inner.protocol(error))?;
        let (commit, crc64) = match self.run_write(&plan, data).await {
            Ok(done) => done,
            Err(ClientError::Nodes(error)) => {
                tracing::warn!(bucket = request.bucket, key = request.key, %error, "a body could not be stored by plan");
                if inner.options.require_plan || inner.options.require_rdma {
                    return Err(ClientError::Nodes(error));
                }
                return Ok(Planned::Declined("nodes"));
            }
            Err(error) => return Err(error),
        };
        let commit = commit.encode().map_err(|error| inner.protocol(error))?;
        let mut committing = native("commit");
        committing.headers.push(("x-amz-checksum-crc64nvme", crc64_text(crc64)));
        committing.body = vec![&commit];
        let answer = inner.send(&committing).await?;
        let etag = etag_of(answer.head.header("etag").unwrap_or_default());
        let version_id = answer.head.header("x-amz-version-id").filter(|id| *id != "null").map(str::to_owned);
        inner.whole(answer, limits::XML_BODY_BYTES_MAX).await?;
        inner.stats.count(|stats| stats.by_plan += 1);
        Ok(Planned::Done(PutDone { etag, crc64: Some(crc64), version_id }))
    }

    async fn run_write(&self, plan: &WritePlan, data: &Data<'_>) -> Result<(WriteCommit, u64), ClientError> {
        let inner = &*self.inner;
        let wrong = |reason: &str| inner.protocol(format!("a plan that makes no sense: {reason}"));
        let bytes = length(data.pieces);
        if plan.size_bytes != bytes || plan.chunk_bytes as usize != limits::CHUNK_BYTES {
            return Err(wrong("another body or chunk length"));
        }
        if plan.groups.len() != (bytes as usize).div_ceil(limits::CHUNK_BYTES).div_ceil(GROUP_STRIPES as usize) {
            return Err(wrong("another number of groups"));
        }
        inner.messenger.learn(&plan.nodes);
        let writes: Vec<_> = chunks(data.pieces, limits::CHUNK_BYTES)
            .into_iter()
            .zip(0u32..)
            .map(|(chunk, stripe)| async move {
                let target = StripeTarget {
                    data: plan.data,
                    stripe,
                    code: plan.code,
                    nodes: plan.groups[(stripe / GROUP_STRIPES) as usize].clone(),
                    capability: plan.capability,
                };
                let chunk_bytes = length(&chunk) as usize;
                let begin = stripe as usize * limits::CHUNK_BYTES;
                let sealed = match &data.lent {
                    Some(lent) => inner.executor.chunk_over(plan.code, lent.slice(begin..begin + chunk_bytes)).await?,
                    None => {
                        let mut buffer = inner.executor.chunk_buffer(plan.code, chunk_bytes).await?;
                        for piece in &chunk {
                            buffer.extend_from_slice(piece);
                        }
                        inner.stats.count(|stats| stats.copied_bytes += chunk_bytes as u64);
                        buffer.seal()
                    }
                };
                let written = inner.executor.write_stripe(&target, sealed).await?;
                Ok::<_, ClientError>((chunk_bytes, written))
            })
            .collect();
        let mut writes = stream::iter(writes).buffered(inner.options.parallel_max.max(1));
        let (mut stripes, mut crc64) = (Vec::new(), 0);
        while let Some(done) = writes.next().await {
            let (chunk_bytes, StripeWritten { shard_crc64s, chunk_crc64, receipts, .. }) = done?;
            crc64 = match stripes.is_empty() {
                true => chunk_crc64,
                false => crc64nvme_combine(crc64, chunk_crc64, chunk_bytes as u64),
            };
            let shard_crc64s = shard_crc64s.into_iter().map(Crc64).collect();
            stripes.push(CommitStripe { chunk_bytes: chunk_bytes as u32, shard_crc64s, receipts });
        }
        Ok((WriteCommit { ticket: plan.ticket.clone(), stripes }, crc64))
    }
}

/// The stripes of a plan that `wanted` touches, in order. They cover it without a gap, or the plan makes no sense.
fn jobs(plan: &ReadPlan, wanted: Range<u64>) -> Result<Vec<StripeJob>, String> {
    let mut jobs = Vec::new();
    let mut at = wanted.start;
    for run in &plan.runs {
        for group in &run.groups {
            for (stripe, number) in group.stripes.iter().zip(group.first_stripe..) {
                let overflow = || "a plan whose numbers overflow".to_owned();
                let begin = u64::from(number).checked_mul(u64::from(run.chunk_bytes)).ok_or_else(overflow)?;
                let begin = run.offset.checked_add(begin).ok_or_else(overflow)?;
                let end = begin.checked_add(u64::from(stripe.chunk_bytes)).ok_or_else(overflow)?;
                if end <= at || begin >= wanted.end {
                    continue;
                }
                if begin > at {
                    return Err(format!("a plan with a gap at byte {at}"));
                }
                let range = (at - begin) as u32..(end.min(wanted.end) - begin) as u32;
                at = end.min(wanted.end);
                jobs.push(StripeJob {
                    target: StripeTarget {
                        data: run.data,
                        stripe: number,
                        code: run.code,
                        nodes: group.nodes.clone(),
                        capability: run.capability,
                    },
                    stored: StripeStored {
                        shard_crc64s: stripe.shard_crc64s.iter().map(|crc64| crc64.0).collect(),
                        missing: stripe.missing,
                        chunk_bytes: stripe.chunk_bytes,
                    },
                    range,
                });
            }
        }
    }
    if at < wanted.end { Err(format!("a plan that ends at byte {at}")) } else { Ok(jobs) }
}
