//! From waiting bodies to batches: one task that takes what waits, places it, and leaves the writing to a task of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_executor::{SealedChunk, StripeTarget, StripeWritten};
use penstock_meta::tables::{
    ExtentRow, Layout, ManifestRow, NewBatch, PackedDone, PackedRow, PackedWrite, StripeRow, TablesError,
};
use penstock_proto::Code;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::open::Place;
use super::stats::Counts;
use super::{
    BATCH_OBJECTS_MAX, BATCHES_IN_FLIGHT, EXTENTS_TRIED_MAX, Outcome, PackFailure, SmallBody, WAITING_MAX, Work,
    internal,
};
use crate::error::{Error, Result};
use crate::gateway::Inner;

/// Zeros for what is skipped within a batch.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A body that waits.
pub(super) struct Waiting {
    pub(super) target: Code,
    pub(super) body: SmallBody,
    pub(super) work: Work,
    pub(super) answer: oneshot::Sender<Outcome<PackedDone>>,
}

pub(super) async fn run(inner: Arc<Inner>, mut queue: mpsc::Receiver<Waiting>, stopping: CancellationToken) {
    let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                next = queue.recv() => match next {
                    Some(next) => waiting.push_back(next),
                    None => return,
                },
                () = stopping.cancelled() => return,
            }
        }
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stopping.cancelled() => return,
        };
        while waiting.len() < WAITING_MAX
            && let Ok(next) = queue.try_recv()
        {
            waiting.push_back(next);
        }
        // Whose client has gone away is not stored.
        waiting.retain(|one| !one.answer.is_closed());
        let Some(target) = waiting.front().map(|first| first.target) else { continue };
        let sizes: Vec<usize> = waiting
            .iter()
            .take_while(|one| one.target == target)
            .take(BATCH_OBJECTS_MAX)
            .map(|one| one.body.bytes.len())
            .collect();
        let placed = inner.packer.lanes.place(&inner, target, &sizes, false).await;
        let members = placed.as_ref().map_or(sizes.len(), |place| place.offsets.len());
        let batch: Vec<Waiting> = waiting.drain(..members).collect();
        match placed {
            Ok(place) => inner.spawn_background(move |inner, _stopping| async move {
                write(&inner, target, place, batch).await;
                drop(slot);
            }),
            Err(error) => fail(&inner, batch, &error),
        }
    }
}

/// Stores a batch, commits it, and answers its members.
async fn write(inner: &Arc<Inner>, target: Code, place: Place, batch: Vec<Waiting>) {
    let (place, written) = match store(inner, target, place, &batch).await {
        Ok(stored) => stored,
        Err(error) => return fail(inner, batch, &error),
    };
    let stored =
        StripeRow { chunk_bytes: place.bytes as u32, missing: written.missing, shard_crc64s: written.shard_crc64s };
    let (first_stripe, nodes) = (ExtentRow::stripe_of(place.batch), place.extent.row.nodes_of(place.batch));
    let row = ManifestRow { first_stripe, nodes, stripes: vec![stored] };
    let new = NewBatch { extent: place.extent.id, offset: place.offset, row };
    let (mut writes, mut answers) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    let (mut rooms, mut bytes) = (Vec::with_capacity(batch.len()), 0);
    for (waiting, offset) in batch.into_iter().zip(&place.offsets) {
        let Waiting { body, work, answer, .. } = waiting;
        if answer.is_closed() {
            continue;
        }
        let size_bytes = body.bytes.len() as u32;
        let packed = PackedRow { extent: place.extent.id, offset: *offset, size_bytes, crc64: body.crc64 };
        writes.push(match work {
            Work::Object(mut object) => {
                object.row.layout = Layout::Packed(packed);
                PackedWrite::Object(object)
            }
            Work::Move { owner, from } => PackedWrite::Move { owner, from, to: packed },
        });
        bytes += u64::from(size_bytes);
        answers.push(answer);
        rooms.push(body);
    }
    let outcomes = inner.tables.commit_packed(&new, &writes).await;
    if outcomes.iter().any(|outcome| matches!(outcome, Err(TablesError::WriteExpired { .. }))) {
        place.extent.spend();
    }
    let counts = &inner.packer.counts;
    Counts::one(&counts.batches_written);
    Counts::add(&counts.packed_bytes, bytes);
    let packed = outcomes.iter().filter(|outcome| matches!(outcome, Ok(PackedDone::Object(_)))).count();
    Counts::add(&counts.objects_packed, packed as u64);
    // Before the answers: who has one may seal the extent.
    drop((place, rooms));
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Who has gone away has an object all the same: the commit was under way.
        let _gone = answer.send(outcome.map_err(PackFailure::Tables));
    }
}

/// Writes a batch's stripe; to another extent if the nodes of this one fail.
async fn store(
    inner: &Arc<Inner>,
    target: Code,
    mut place: Place,
    batch: &[Waiting],
) -> Result<(Place, StripeWritten)> {
    let counts = &inner.packer.counts;
    let mut tried = 1;
    loop {
        let code = place.extent.row.copies;
        let chunk = fill(inner, code, &place, batch).await?;
        let stripe = StripeTarget {
            data: place.extent.id,
            stripe: ExtentRow::stripe_of(place.batch),
            code,
            nodes: place.extent.row.nodes_of(place.batch),
            capability: place.capability,
        };
        match inner.executor.write_stripe(&stripe, chunk).await {
            Ok(written) => {
                if written.missing != 0 {
                    Counts::one(&counts.batches_lacking_copies);
                    place.extent.lacks_copies(inner);
                }
                return Ok((place, written));
            }
            Err(error) => {
                place.extent.spend();
                if tried == EXTENTS_TRIED_MAX {
                    return Err(error.into());
                }
                tracing::debug!(extent = %place.extent.id, %error, "a batch can't be written; trying another extent");
                Counts::one(&counts.batches_tried_again);
                tried += 1;
                let sizes: Vec<usize> = batch.iter().map(|one| one.body.bytes.len()).collect();
                place = inner.packer.lanes.place(inner, target, &sizes, true).await?;
            }
        }
    }
}

/// The memory of a batch, filled.
async fn fill(inner: &Inner, code: Code, place: &Place, batch: &[Waiting]) -> Result<SealedChunk> {
    let mut chunk = inner.executor.chunk_buffer(code, place.bytes).await?;
    for (waiting, offset) in batch.iter().zip(&place.offsets) {
        let mut skipped = (offset - place.offset) as usize - chunk.filled().len();
        while skipped > 0 {
            skipped -= chunk.extend_from_slice(&ZEROS[..skipped.min(ZEROS.len())]);
        }
        if chunk.extend_from_slice(&waiting.body.bytes) != waiting.body.bytes.len() {
            return Err(internal("a batch is longer than was reserved for it"));
        }
    }
    Ok(chunk.seal())
}

fn fail(inner: &Inner, batch: Vec<Waiting>, error: &Error) {
    Counts::one(&inner.packer.counts.batches_failed);
    for waiting in batch {
        let _gone = waiting.answer.send(Err(PackFailure::Other(error.clone())));
    }
}
