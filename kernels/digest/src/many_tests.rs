//! Every kernel of every tier against the md-5 and sha2 crates.

use crate::algorithm::{Message, Rules};
use crate::lanes::BLOCK_BYTES;
use crate::many::{Lane, advance, advance_wide};
use crate::*;
use proptest::prelude::*;

/// Comma-separated names of tiers whose absence is a failure.
const REQUIRE_VARIABLE: &str = "PENSTOCK_REQUIRE_TIERS";

/// The tiers to test. One that the machine lacks is reported as not run, and fails where it is required.
pub(crate) fn tiers() -> Vec<HashTier> {
    let required = std::env::var(REQUIRE_VARIABLE).unwrap_or_default();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        HashTier::from_name(name).unwrap_or_else(|error| panic!("{REQUIRE_VARIABLE}: {error}"));
    }
    for name in HASH_TIER_NAMES {
        if let Err(error) = HashTier::from_name(name) {
            eprintln!("tier {name}: not run ({error})");
        }
    }
    HashTier::present().collect()
}

/// Reproducible bytes (splitmix64).
pub(crate) fn random_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    };
    let mut out: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    out.truncate(bytes);
    out
}

/// Few enough for an interpreter (`./dev miri`), which also looks for undefined behaviour.
#[test]
fn small_messages() {
    let messages = [random_bytes(1, 0), random_bytes(2, 70), random_bytes(3, 129)];
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    for tier in tiers() {
        assert_many(tier, &messages);
    }
}

fn assert_many(tier: HashTier, messages: &[&[u8]]) {
    let lengths: Vec<_> = messages.iter().map(|message| message.len()).collect();
    let md5: Vec<_> = messages.iter().map(|message| Md5Hasher::of(message)).collect();
    assert_eq!(md5_many(tier, messages), md5, "MD5, {tier}, {lengths:?}");
    let sha256: Vec<_> = messages.iter().map(|message| Sha256Hasher::of(message)).collect();
    assert_eq!(sha256_many(tier, messages), sha256, "SHA-256, {tier}, {lengths:?}");
}

#[test]
fn known_answers() {
    for tier in tiers() {
        let digests = md5_many(tier, &[b"", b"a", b"message digest"]);
        assert_eq!(hex::encode(digests[0]), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex::encode(digests[1]), "0cc175b9c0f1b6a831c399e269772661");
        assert_eq!(hex::encode(digests[2]), "f96b697d7cb7938d525a2f31aaf161d0");
        let digests = sha256_many(tier, &[b"abc".as_slice(); 9]);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(digests.iter().all(|digest| hex::encode(digest) == abc), "{tier}");
        assert_many(tier, &[]);
    }
}

#[test]
fn every_length_up_to_300_and_around_borders() {
    let bytes = random_bytes(1, 70_000);
    let borders = [511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 70_000];
    let messages: Vec<&[u8]> = (0..=300).chain(borders).map(|length| &bytes[bytes.len() - length..]).collect();
    for tier in tiers() {
        assert_many(tier, &messages);
    }
}

/// Every kernel, whether or not it would be chosen, with every number of lanes in use, each with bytes of its own; and
/// nothing is touched that has no lane.
fn every_kernel<A: Rules>(expected: fn(&[u8]) -> A::Digest) {
    const BLOCKS: usize = 3;
    let bytes = random_bytes(2, 40 * (BLOCKS * BLOCK_BYTES + 1));
    for tier in tiers() {
        for kernel in A::plan(tier).kernels {
            for used in 1..=kernel.lanes {
                // One byte apart from alignment more with each lane.
                let inputs = bytes
                    .as_chunks::<{ BLOCKS * BLOCK_BYTES + 1 }>()
                    .0
                    .iter()
                    .map(|input| &input[..BLOCKS * BLOCK_BYTES]);
                let inputs: Vec<&[u8]> = inputs.take(used).collect();
                let mut messages = vec![Message::<A>::new(); used];
                // Two calls, so that states go in as well as out.
                for (from, blocks) in [(0, 1), (BLOCK_BYTES, BLOCKS - 1)] {
                    let mut lanes: Vec<Lane<'_, A>> = messages
                        .iter_mut()
                        .zip(&inputs)
                        .map(|(message, input)| Lane { words: &mut message.words, input: &input[from..] })
                        .collect();
                    advance_wide(*kernel, &mut lanes, blocks);
                    messages.iter_mut().for_each(|message| message.compressed(blocks));
                }
                for (lane, (message, input)) in messages.into_iter().zip(inputs).enumerate() {
                    assert_eq!(message.finish(), expected(input), "{tier}: lane {lane} of {used} on {}", kernel.lanes);
                }
            }
        }
    }
}

#[test]
fn every_kernel_of_md5_with_every_number_of_lanes() {
    every_kernel::<Md5>(Md5Hasher::of);
}

#[test]
fn every_kernel_of_sha256_with_every_number_of_lanes() {
    every_kernel::<Sha256>(Sha256Hasher::of);
}

#[test]
#[should_panic(expected = "every lane has the blocks")]
fn a_kernel_refuses_an_input_that_is_too_short() {
    let Some(kernel) = Md5::plan(HashTier::detect()).kernels.first() else {
        panic!("every lane has the blocks: no kernel on this machine");
    };
    let mut words = Md5::INITIAL;
    advance_wide::<Md5>(*kernel, &mut [Lane { words: &mut words, input: &[0; 127] }], 2);
}

#[test]
fn advances_by_the_shortest_and_by_what_is_allowed() {
    let bytes = random_bytes(3, 1000);
    for tier in tiers() {
        for (lengths, blocks_max, expected) in
            [(vec![1000; 5], 3, 3), (vec![1000, 130, 700], 9, 2), (vec![1000, 63], 9, 0), (vec![], 9, 0)]
        {
            let mut words = vec![Md5::INITIAL; lengths.len()];
            let lane = |(words, &length): (_, &usize)| Lane::<Md5> { words, input: &bytes[..length] };
            let mut lanes: Vec<_> = words.iter_mut().zip(&lengths).map(lane).collect();
            assert_eq!(advance(tier, &mut lanes, blocks_max), expected, "{tier}: {lengths:?}");
            let mut one = Md5::INITIAL;
            Md5::one(&mut one, &bytes.as_chunks().0[..expected]);
            assert!(words.iter().all(|words| *words == one), "{tier}: {lengths:?}");
        }
    }
}

#[test]
fn tiers_have_the_names_that_they_are_asked_for_by() {
    for tier in tiers() {
        assert_eq!(HashTier::from_name(tier.name()), Ok(tier));
    }
    for (theirs, ours) in [("avx2_gfni", "avx2"), ("avx512_gfni", "avx512")] {
        assert_eq!(
            HashTier::from_name(theirs).map(HashTier::name).ok(),
            HashTier::from_name(ours).map(|t| t.name()).ok()
        );
    }
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let error = HashTier::from_name(absent).unwrap_err();
    assert_eq!(error, HashTierError::Absent { name: absent.to_owned() });
    assert!(error.to_string().contains("this machine has: scalar"), "{error}");
    assert!(!error.is_retryable());
    for name in ["", "AVX2", "avx512 "] {
        assert_eq!(HashTier::from_name(name), Err(HashTierError::Unknown { name: name.to_owned() }));
    }
}

proptest! {
    #[test]
    fn any_mix_of_lengths(lengths in prop::collection::vec(0usize..5000, 0..70), seed: u64) {
        let bytes: Vec<_> = lengths.iter().enumerate().map(|(i, &length)| random_bytes(seed ^ i as u64, length)).collect();
        let messages: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        for tier in HashTier::present() {
            assert_many(tier, &messages);
        }
    }

    #[test]
    fn a_message_in_pieces(length in 0usize..1000, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        let bytes = random_bytes(4, length);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(length + 1)).chain([0, length]).collect();
        cuts.sort_unstable();
        let (mut md5, mut sha256) = (Message::<Md5>::new(), Message::<Sha256>::new());
        for cut in cuts.windows(2) {
            md5.update(&bytes[cut[0]..cut[1]]);
            sha256.update(&bytes[cut[0]..cut[1]]);
        }
        prop_assert_eq!(md5.finish(), Md5Hasher::of(&bytes));
        prop_assert_eq!(sha256.finish(), Sha256Hasher::of(&bytes));
    }
}
