//! Advances several messages at once, on the kernel that fits their number; and whole messages in one call.

use crate::algorithm::{Message, Rules};
use crate::lanes::{BLOCK_BYTES, LANES_MAX, WideKernel};
use crate::tier::HashTier;
use crate::{Md5, Sha256};

/// Words of the longest state.
const STATE_WORDS_MAX: usize = 8;

/// One message's words, and the bytes that come next.
pub(crate) struct Lane<'a, A: Rules> {
    pub(crate) words: &'a mut A::Words,
    pub(crate) input: &'a [u8],
}

/// States side by side, aligned for whole registers.
#[repr(align(64))]
struct Side([u32; STATE_WORDS_MAX * LANES_MAX]);

/// Compresses the same number of blocks in every lane: as many as the shortest input has, `blocks_max` at most.
/// Says how many.
pub(crate) fn advance<A: Rules>(tier: HashTier, lanes: &mut [Lane<'_, A>], blocks_max: usize) -> usize {
    let shortest = lanes.iter().map(|lane| lane.input.len() / BLOCK_BYTES).min().unwrap_or(0);
    let blocks = shortest.min(blocks_max);
    if blocks == 0 {
        return 0;
    }
    match A::plan(tier).kernel(lanes.len()) {
        Some(kernel) => lanes.chunks_mut(kernel.lanes).for_each(|lanes| advance_wide(kernel, lanes, blocks)),
        None => lanes.iter_mut().for_each(|lane| A::one(lane.words, &lane.input.as_chunks().0[..blocks])),
    }
    blocks
}

/// The same on one kernel, for as many lanes as it has or fewer.
pub(crate) fn advance_wide<A: Rules>(kernel: WideKernel, lanes: &mut [Lane<'_, A>], blocks: usize) {
    assert!((1..=kernel.lanes).contains(&lanes.len()), "{} messages on {} lanes", lanes.len(), kernel.lanes);
    assert!(lanes.iter().all(|lane| lane.input.len() >= blocks * BLOCK_BYTES), "every lane has the blocks");
    // Lanes without a message read the first one's and their results are dropped: no masks, no branches.
    let mut inputs = [lanes[0].input.as_ptr(); LANES_MAX];
    let mut side = Side([0; STATE_WORDS_MAX * LANES_MAX]);
    for (number, lane) in lanes.iter().enumerate() {
        inputs[number] = lane.input.as_ptr();
        let rows = side.0.chunks_exact_mut(kernel.lanes);
        rows.zip(lane.words.as_ref()).for_each(|(row, &word)| row[number] = word);
    }
    // SAFETY: a kernel comes from the plan of a tier, whose values only a CPU with its instructions gives. `side` has
    // room for the longest state in the most lanes; every pointer is to an input that was just found long enough.
    unsafe { (kernel.entry)(side.0.as_mut_ptr(), inputs.as_ptr(), blocks) };
    for (number, lane) in lanes.iter_mut().enumerate() {
        let rows = side.0.chunks_exact(kernel.lanes);
        rows.zip(lane.words.as_mut()).for_each(|(row, word)| *word = row[number]);
    }
}

/// A message that has a lane.
struct Running<'a, A: Rules> {
    number: usize,
    message: Message<A>,
    rest: &'a [u8],
}

/// The digests of whole messages, in their order; a lane whose message ends takes the next one.
fn many<A: Rules>(tier: HashTier, messages: &[&[u8]]) -> Vec<A::Digest> {
    let lanes_max = A::plan(tier).lanes_max();
    let mut digests: Vec<_> = vec![None; messages.len()];
    let mut waiting = messages.iter().enumerate();
    let mut running: Vec<Running<'_, A>> = Vec::with_capacity(lanes_max);
    loop {
        let free = lanes_max - running.len();
        let start = waiting.by_ref().take(free);
        running.extend(start.map(|(number, rest)| Running { number, message: Message::new(), rest }));
        if running.is_empty() {
            break;
        }
        let lane = |running| {
            let Running { message, rest, .. }: &mut Running<'_, A> = running;
            Lane { words: &mut message.words, input: rest }
        };
        let mut lanes: Vec<Lane<'_, A>> =
            running.iter_mut().filter(|running| running.rest.len() >= BLOCK_BYTES).map(lane).collect();
        let blocks = advance(tier, &mut lanes, usize::MAX);
        running.retain_mut(|running| {
            if running.rest.len() >= BLOCK_BYTES {
                running.message.compressed(blocks);
                running.rest = &running.rest[blocks * BLOCK_BYTES..];
            }
            let more = running.rest.len() >= BLOCK_BYTES;
            if !more {
                running.message.update(running.rest);
                digests[running.number] = Some(running.message.finish());
            }
            more
        });
    }
    digests.into_iter().map(|digest| digest.expect("invariant: every message had a lane")).collect()
}

/// MD5 of whole messages, in their order, as many at once as the tier has lanes.
///
/// ```
/// use penstock_digest::{HashTier, Md5Hasher, md5_many};
/// let digests = md5_many(HashTier::detect(), &[b"abc", b"", b"message digest"]);
/// assert_eq!(digests[2], Md5Hasher::of(b"message digest"));
/// ```
#[must_use]
pub fn md5_many(tier: HashTier, messages: &[&[u8]]) -> Vec<[u8; 16]> {
    many::<Md5>(tier, messages)
}

/// SHA-256 of whole messages, in their order, as many at once as the tier has lanes.
#[must_use]
pub fn sha256_many(tier: HashTier, messages: &[&[u8]]) -> Vec<[u8; 32]> {
    many::<Sha256>(tier, messages)
}
