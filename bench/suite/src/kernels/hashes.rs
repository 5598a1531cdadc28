//! MD5 and SHA-256 of several streams at once, against the crates that hash one at a time.

use std::hint::black_box;

use md5::Digest as _;
use penstock_digest::{HashTier, md5_many, sha256_many};
use penstock_harness::{Contender, Order};

use super::measure::{CellName, Run, State};
use crate::BenchError;

const STREAMS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Of each stream: all of them stay in a second- or third-level cache.
const MESSAGE_BYTES: usize = 64 << 10;
pub(crate) const CELLS: usize = 2 * STREAMS.len();

fn md5_crate(message: &[u8]) -> Vec<u8> {
    md5::Md5::digest(message).to_vec()
}

fn sha256_crate(message: &[u8]) -> Vec<u8> {
    sha2::Sha256::digest(message).to_vec()
}

/// Digests of some messages.
type Ours = fn(HashTier, &[&[u8]]) -> Vec<Vec<u8>>;

/// A hash, by us and by a crate.
struct Hash {
    op: &'static str,
    peer: &'static str,
    ours: Ours,
    theirs: fn(&[u8]) -> Vec<u8>,
}

const HASHES: [Hash; 2] = [
    Hash {
        op: "md5",
        peer: "md-5",
        ours: |tier, messages| md5_many(tier, messages).into_iter().map(Vec::from).collect(),
        theirs: md5_crate,
    },
    Hash {
        op: "sha256",
        peer: "sha2",
        ours: |tier, messages| sha256_many(tier, messages).into_iter().map(Vec::from).collect(),
        theirs: sha256_crate,
    },
];

pub(crate) fn measure(run: &mut Run) -> Result<(), BenchError> {
    let tier = HashTier::from_env().map_err(|error| BenchError::Setup(error.to_string()))?;
    let mut memory = vec![0; STREAMS[STREAMS.len() - 1] * MESSAGE_BYTES];
    Order::seeded(5).fill(&mut memory);
    let messages: Vec<&[u8]> = memory.chunks(MESSAGE_BYTES).collect();
    for Hash { op, peer, ours, theirs } in HASHES {
        let expected: Vec<Vec<u8>> = messages.iter().map(|message| theirs(message)).collect();
        for streams in STREAMS {
            let mut messages = &messages[..streams];
            if ours(tier, messages) != expected[..streams] {
                return Err(BenchError::Wrong(format!("{op} of {streams} streams differs from the crate {peer}'s")));
            }
            let bytes = streams * MESSAGE_BYTES;
            let name = CellName { code: format!("x{streams}"), bytes, state: State::Hot, op: op.to_owned() };
            let mut contenders = [
                Contender::new("penstock", move |messages: &mut &[&[u8]]| {
                    black_box(ours(tier, messages));
                }),
                Contender::new(peer, move |messages: &mut &[&[u8]]| {
                    messages.iter().for_each(|message| {
                        black_box(theirs(message));
                    });
                }),
            ];
            let samples = run.samples(&name, &mut messages, &mut contenders);
            run.record(&name, &samples, bytes, None)?;
        }
    }
    Ok(())
}
