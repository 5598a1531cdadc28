//! Every erasure pattern, on every tier, and the bytes that are stored.

use crate::matrix::parity_coefficient;
use crate::{Code, DECODE_PLAN_BYTES_MAX, DECODE_PLANS_MAX, ErasureError, ReedSolomon, SHARDS_MAX, Tier};
use penstock_gf256::{TIER_NAMES, mul};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// Comma-separated names of tiers whose absence is a failure.
const REQUIRE_VARIABLE: &str = "PENSTOCK_REQUIRE_TIERS";

/// The tiers to test. One that the machine lacks is reported as not run, and fails where it is required.
pub(crate) fn tiers() -> Vec<Tier> {
    let required = std::env::var(REQUIRE_VARIABLE).unwrap_or_default();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        Tier::from_name(name).unwrap_or_else(|error| panic!("{REQUIRE_VARIABLE}: {error}"));
    }
    for name in TIER_NAMES {
        if let Err(error) = Tier::from_name(name) {
            eprintln!("tier {name}: not run ({error})");
        }
    }
    Tier::present().collect()
}

/// Reproducible bytes (a shortened splitmix64).
pub(crate) fn random_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
        })
        .collect()
}

pub(crate) fn slices(shards: &[Vec<u8>]) -> Vec<&[u8]> {
    shards.iter().map(Vec::as_slice).collect()
}

/// A whole stripe: random data, and its parity.
pub(crate) fn stripe(code: &dyn Code, bytes: usize) -> Vec<Vec<u8>> {
    let seed = 1000 * code.data_shards() as u64;
    let mut shards: Vec<Vec<u8>> = (0..code.data_shards()).map(|i| random_bytes(seed + i as u64, bytes)).collect();
    let mut parity = vec![vec![0xa5; bytes]; code.parity_shards()];
    let mut regions: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&slices(&shards), &mut regions).unwrap();
    shards.extend(parity);
    shards
}

/// Few enough for an interpreter (`./dev miri`), which also looks for undefined behaviour.
#[test]
fn small_stripes() {
    for tier in tiers() {
        let codes: [Box<dyn Code>; 2] = [
            Box::new(ReedSolomon::with_tier(3, 2, tier).unwrap()),
            Box::new(crate::Lrc::with_tier(4, 2, 1, tier).unwrap()),
        ];
        for code in codes {
            for bytes in [1, 17, 40] {
                let shards = stripe(&*code, bytes);
                let survivors: Vec<usize> = (1..code.total_shards()).collect();
                check_rebuild(&*code, &shards, &survivors, &[0]);
                let (data, parity) = shards.split_at(code.data_shards());
                assert!(code.verify(&slices(data), &slices(parity)).unwrap());
            }
        }
    }
}

/// Rebuilds `lost` from `survivors` and compares.
pub(crate) fn check_rebuild(code: &dyn Code, shards: &[Vec<u8>], survivors: &[usize], lost: &[usize]) {
    let present: Vec<(usize, &[u8])> = survivors.iter().map(|&i| (i, &shards[i][..])).collect();
    let mut rebuilt = vec![vec![0x5a; shards[0].len()]; lost.len()];
    let mut wanted: Vec<(usize, &mut [u8])> =
        lost.iter().copied().zip(rebuilt.iter_mut().map(Vec::as_mut_slice)).collect();
    code.reconstruct(&present, &mut wanted).unwrap();
    for (found, &index) in rebuilt.iter().zip(lost) {
        assert!(*found == shards[index], "{code:?}: shard {index} from {survivors:?}");
    }
}

/// All subsets of `size` of the numbers below `limit`.
pub(crate) fn subsets(limit: usize, size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![vec![]];
    }
    (size - 1..limit)
        .flat_map(|last| subsets(last, size - 1).into_iter().map(move |subset| [subset, vec![last]].concat()))
        .collect()
}

pub(crate) fn complement(limit: usize, of: &[usize]) -> Vec<usize> {
    (0..limit).filter(|i| !of.contains(i)).collect()
}

/// Every pattern of 1 to m lost shards; returns how many there were.
fn check_all_patterns(k: usize, m: usize, bytes: usize, tier: Tier) -> usize {
    let code = ReedSolomon::with_tier(k, m, tier).unwrap();
    let shards = stripe(&code, bytes);
    let patterns: Vec<Vec<usize>> = (1..=m).flat_map(|losses| subsets(k + m, losses)).collect();
    for lost in &patterns {
        check_rebuild(&code, &shards, &complement(k + m, lost), lost);
    }
    patterns.len()
}

#[test]
fn rs_10_4_survives_all_1001_patterns_of_4_losses() {
    let patterns = subsets(14, 4);
    assert_eq!(patterns.len(), 1001);
    for tier in tiers() {
        let code = ReedSolomon::with_tier(10, 4, tier).unwrap();
        let shards = stripe(&code, 97);
        for lost in &patterns {
            check_rebuild(&code, &shards, &complement(14, lost), lost);
        }
    }
}

#[test]
fn small_codes_survive_every_pattern() {
    for tier in tiers() {
        assert_eq!(check_all_patterns(2, 1, 70, tier), 3);
        assert_eq!(check_all_patterns(4, 2, 70, tier), 6 + 15);
        assert_eq!(check_all_patterns(10, 4, 33, tier), 14 + 91 + 364 + 1001);
        assert_eq!(check_all_patterns(1, 3, 33, tier), 4 + 6 + 4);
        assert_eq!(check_all_patterns(5, 5, 40, tier), 10 + 45 + 120 + 210 + 252);
    }
}

#[test]
fn rs_20_4_survives_every_pattern() {
    for tier in tiers() {
        assert_eq!(check_all_patterns(20, 4, 33, tier), 24 + 276 + 2024 + 10_626);
    }
}

#[test]
fn matrix_is_normalised_and_independent_of_k_and_m() {
    for at in 0..SHARDS_MAX {
        assert_eq!(parity_coefficient(0, at), 1, "first row");
        assert_eq!(parity_coefficient(at, 0), 1, "first column");
    }
    let wide = ReedSolomon::new(12, 4).unwrap();
    let narrow = ReedSolomon::new(10, 2).unwrap();
    let mut data: Vec<Vec<u8>> = (0..10).map(|i| random_bytes(i, 50)).collect();
    let (mut p, mut q) = (vec![0; 50], vec![0; 50]);
    narrow.encode(&slices(&data), &mut [&mut p, &mut q]).unwrap();
    data.extend([vec![0; 50], vec![0; 50]]);
    let mut parity = vec![vec![0; 50]; 4];
    wide.encode(&slices(&data), &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>()).unwrap();
    assert_eq!(parity[..2], [p.clone(), q]);
    let sum =
        data.iter().fold(vec![0; 50], |sum, shard| sum.iter().zip(shard).map(|(a, b)| a ^ b).collect::<Vec<u8>>());
    assert_eq!(p, sum, "the first parity is the XOR of the data");
}

/// The claim that the crate's docs prove, for the smallest case, over the whole matrix that any code uses.
#[test]
fn no_two_by_two_minor_of_the_largest_codes_vanishes() {
    for (k, m) in [(223, 32), (32, 223), (128, 127)] {
        for (i, i2) in [(0, 1), (1, 2), (m - 2, m - 1), (0, m - 1), (m / 3, m / 2)] {
            for j in 0..k {
                for j2 in 0..j {
                    let b = parity_coefficient;
                    assert_ne!(mul(b(i, j), b(i2, j2)), mul(b(i, j2), b(i2, j)), "rows {i} {i2}, columns {j} {j2}");
                }
            }
        }
    }
}

/// Parity is stored: these bytes are a format. `tests/golden_reference.py` derives them independently.
#[test]
fn parity_has_its_golden_hashes_on_every_tier() {
    const GOLDEN: [(usize, usize, usize, &str); 7] = [
        (10, 4, 4109, "5bc285b9bf9472916a25e2b32eaea957e65171cdb586458747dc62560b330002"),
        (4, 2, 1000, "aff68b601957cb91d7fbab57e02dd3c620d4c137f07b3a3202ee8ccae80a1f60"),
        (2, 1, 1, "44bd7ae60f478fae1061e11a7739f4b94d1daf917982d33b6fc8a01a63f89c21"),
        (20, 4, 65, "0868ae7d7648fe13e24f799885d663b03444a1a3c7ae171a7c15a06ecbe4c1f6"),
        (1, 2, 33, "d40a8a2793e276e5d76dfc87f3ee41d4c188e721def27c5f5c5d27f9236679e9"),
        (6, 3, 300, "12a72d9fcf34f7f23f872f4c65ceafbf7e733ac8e103a171d287e4dfd16716c8"),
        (200, 55, 40, "97229bfe51f1a92a5a9ff191525d053544a117474debee5fb24ac1ec62c3b574"),
    ];
    for tier in tiers() {
        for (k, m, bytes, golden) in GOLDEN {
            let code = ReedSolomon::with_tier(k, m, tier).unwrap();
            let mut hash = Sha256::new();
            stripe(&code, bytes)[k..].iter().for_each(|parity| hash.update(parity));
            assert_eq!(hex::encode(hash.finalize()), golden, "{code:?}, {bytes} bytes");
        }
    }
}

#[test]
fn every_length_is_encoded_and_rebuilt_within_its_margins() {
    const MARGIN: usize = 40;
    for tier in tiers() {
        let code = ReedSolomon::with_tier(4, 3, tier).unwrap();
        for bytes in (1..300).chain([4097, 8191, 8193, 70_001]) {
            let shards = stripe(&code, bytes);
            assert!(code.verify(&slices(&shards[..4]), &slices(&shards[4..])).unwrap());
            for offset in [0, 1, 17] {
                let mut buffers = vec![vec![0xa5; bytes + 2 * MARGIN]; 3];
                let lost = [0, 2, 5];
                let mut wanted: Vec<(usize, &mut [u8])> = lost
                    .into_iter()
                    .zip(buffers.iter_mut().map(|buffer| &mut buffer[MARGIN - offset..][..bytes]))
                    .collect();
                let present: Vec<(usize, &[u8])> = [1, 3, 4, 6].into_iter().map(|i| (i, &shards[i][..])).collect();
                code.reconstruct(&present, &mut wanted).unwrap();
                for (buffer, index) in buffers.iter().zip(lost) {
                    let (before, rest) = buffer.split_at(MARGIN - offset);
                    assert!(rest[..bytes] == shards[index], "{tier}: {bytes} bytes, offset {offset}");
                    assert!(
                        before.iter().chain(&rest[bytes..]).all(|&b| b == 0xa5),
                        "{tier}: margins at {bytes} bytes"
                    );
                }
            }
        }
    }
}

#[test]
fn verify_finds_any_flipped_byte() {
    for tier in tiers() {
        for (k, m) in [(3, 2), (1, 2)] {
            let code = ReedSolomon::with_tier(k, m, tier).unwrap();
            let mut shards = stripe(&code, 8193);
            for shard in 0..k + m {
                for at in [0, 31, 8191, 8192] {
                    shards[shard][at] ^= 0x40;
                    assert!(!code.verify(&slices(&shards[..k]), &slices(&shards[k..])).unwrap(), "{shard} {at}");
                    shards[shard][at] ^= 0x40;
                }
            }
            assert!(code.verify(&slices(&shards[..k]), &slices(&shards[k..])).unwrap());
        }
    }
}

#[test]
fn updated_parity_is_the_parity_of_the_updated_data() {
    for tier in tiers() {
        for (k, m, bytes) in [(4, 2, 100), (10, 4, 20_001), (1, 2, 7), (3, 0, 5)] {
            let code = ReedSolomon::with_tier(k, m, tier).unwrap();
            for index in 0..k {
                let mut shards = stripe(&code, bytes);
                let delta = random_bytes(5, bytes);
                shards[index].iter_mut().zip(&delta).for_each(|(byte, change)| *byte ^= change);
                let (data, parity) = shards.split_at_mut(k);
                let mut regions: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
                code.update_parity(index, &delta, &mut regions).unwrap();
                assert!(code.verify(&slices(data), &slices(parity)).unwrap(), "{code:?}, shard {index}");
            }
        }
    }
}

#[test]
fn no_parity_means_no_protection_and_no_error() {
    let code = ReedSolomon::new(3, 0).unwrap();
    let shards = stripe(&code, 10);
    assert_eq!((shards.len(), code.total_shards(), code.parity_shards()), (3, 3, 0));
    assert!(code.verify(&slices(&shards), &[]).unwrap());
    check_rebuild(&code, &shards, &[2, 0, 1], &[1, 0]);
    let mut region = [0; 10];
    let error = code.reconstruct(&[(0, &shards[0]), (1, &shards[1])], &mut [(2, &mut region)]);
    assert_eq!(error, Err(ErasureError::TooFewShards { have: 2, need: 3 }));
}

#[test]
fn lists_in_any_order_with_more_than_enough_and_present_ones_wanted() {
    let code = ReedSolomon::new(4, 3).unwrap();
    let shards = stripe(&code, 129);
    check_rebuild(&code, &shards, &[6, 1, 5, 3, 4], &[5, 2, 0, 6, 1]);
    check_rebuild(&code, &shards, &[3, 2, 1, 0], &[6, 4]);
    check_rebuild(&code, &shards, &[3, 2, 1, 0, 4, 5, 6], &[]);
}

#[test]
fn largest_codes_survive_the_worst_losses() {
    for (k, m) in [(254, 1), (223, 32), (128, 127), (1, 254), (255, 0)] {
        let code = ReedSolomon::new(k, m).unwrap();
        let shards = stripe(&code, 34);
        for lost in [(0..m).collect::<Vec<_>>(), (k..k + m).collect(), (0..m).map(|i| 2 * i % (k + m)).collect()] {
            check_rebuild(&code, &shards, &complement(k + m, &lost), &lost);
        }
    }
}

#[test]
fn decode_matrices_are_kept_within_their_limits() {
    let code = ReedSolomon::new(10, 4).unwrap();
    let shards = stripe(&code, 1);
    for lost in subsets(14, 4) {
        check_rebuild(&code, &shards, &complement(14, &lost), &lost);
        assert!(code.plans_held().0 <= DECODE_PLANS_MAX);
    }
    assert_eq!(code.plans_held().0, DECODE_PLANS_MAX);
    // The same losses again take no further place, in whichever order they are asked for.
    let fresh = ReedSolomon::new(10, 4).unwrap();
    for _ in 0..3 {
        check_rebuild(&fresh, &shards, &complement(14, &[1, 12]), &[1, 12]);
        check_rebuild(&fresh, &shards, &complement(14, &[1, 12]), &[12, 1]);
    }
    assert_eq!(fresh.plans_held().0, 1);
    // Large matrices are limited by their bytes.
    let large = ReedSolomon::new(128, 127).unwrap();
    let shards = stripe(&large, 1);
    for first in 0..12 {
        let lost: Vec<usize> = (first..first + 127).collect();
        check_rebuild(&large, &shards, &complement(255, &lost), &lost);
    }
    let (plans, bytes) = large.plans_held();
    assert!((2..12).contains(&plans) && bytes <= DECODE_PLAN_BYTES_MAX, "{plans} plans of {bytes} bytes");
}

#[test]
fn the_least_recently_used_decode_matrix_goes_first() {
    use crate::cache::{PlanCache, PlanKey};
    let mut cache = PlanCache::default();
    let coefficients = penstock_gf256::Coefficients::new(1, 1, &[1]);
    let plan = std::sync::Arc::new(crate::cache::Plan { sources: PlanKey::new(), coefficients });
    let key = |n: usize| PlanKey::from_slice(&[u8::try_from(n).unwrap()]);
    (0..DECODE_PLANS_MAX).for_each(|n| cache.insert(key(n), &plan));
    assert!(cache.get(&key(0)).is_some(), "the oldest, used again");
    cache.insert(key(DECODE_PLANS_MAX), &plan);
    assert!(cache.get(&key(0)).is_some());
    assert!(cache.get(&key(1)).is_none());
    assert!((2..=DECODE_PLANS_MAX).all(|n| cache.get(&key(n)).is_some()));
    assert_eq!(cache.held(), (DECODE_PLANS_MAX, DECODE_PLANS_MAX * plan.heap_bytes()));
}

#[test]
fn threads_share_one_code() {
    let code = ReedSolomon::new(6, 3).unwrap();
    let shards = stripe(&code, 50);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for lost in subsets(9, 3) {
                    check_rebuild(&code, &shards, &complement(9, &lost), &lost);
                }
            });
        }
    });
}

#[test]
fn codes_out_of_range_are_refused() {
    for (k, m) in [(0, 0), (0, 4), (255, 1), (1, 255), (usize::MAX, 1), (1, usize::MAX)] {
        assert_eq!(ReedSolomon::new(k, m).unwrap_err(), ErasureError::OutOfRange { k, m });
    }
}

#[test]
fn wrong_shards_are_refused_before_anything_is_written() {
    let code = ReedSolomon::new(2, 2).unwrap();
    let shards = stripe(&code, 4);
    let (mut p, mut q, mut short) = ([9; 4], [9; 4], [9; 3]);
    let data = slices(&shards[..2]);

    let too_few_data = code.encode(&data[..1], &mut [&mut p, &mut q]);
    assert_eq!(too_few_data, Err(ErasureError::WrongShardCount { role: "data", have: 1, need: 2 }));
    let too_few_parity = code.encode(&data, &mut [&mut p]);
    assert_eq!(too_few_parity, Err(ErasureError::WrongShardCount { role: "parity", have: 1, need: 2 }));
    let unequal = Err(ErasureError::UnequalLengths { have_bytes: 3, need_bytes: 4 });
    assert_eq!(code.encode(&data, &mut [&mut p, &mut short]), unequal);
    assert_eq!(code.encode(&[&[], &[]], &mut [&mut [], &mut []]), Err(ErasureError::ZeroLength));
    assert_eq!(code.verify(&[&[], &[]], &[&[], &[]]), Err(ErasureError::ZeroLength));
    assert_eq!(code.update_parity(0, &[1, 2, 3, 4], &mut [&mut p, &mut short]), unequal);
    let not_data = code.update_parity(2, &[1, 2, 3, 4], &mut [&mut p, &mut q]);
    assert_eq!(not_data, Err(ErasureError::BadIndex { index: 2, limit: 2 }));

    let present: Vec<(usize, &[u8])> = vec![(1, &shards[1]), (3, &shards[3])];
    let few = code.reconstruct(&present[..1], &mut [(0, &mut p)]);
    assert_eq!(few, Err(ErasureError::TooFewShards { have: 1, need: 2 }));
    assert!(few.unwrap_err().is_retryable());
    let bad = code.reconstruct(&present, &mut [(4, &mut p)]);
    assert_eq!(bad, Err(ErasureError::BadIndex { index: 4, limit: 4 }));
    assert!(!bad.unwrap_err().is_retryable());
    let bad = code.reconstruct(&[(1, &shards[1]), (300, &shards[3])], &mut [(0, &mut p)]);
    assert_eq!(bad, Err(ErasureError::BadIndex { index: 300, limit: 4 }));
    let twice = code.reconstruct(&[(1, &shards[1]), (1, &shards[1])], &mut [(0, &mut p)]);
    assert_eq!(twice, Err(ErasureError::DuplicateShard { index: 1 }));
    let twice = code.reconstruct(&present, &mut [(0, &mut p), (0, &mut q)]);
    assert_eq!(twice, Err(ErasureError::DuplicateShard { index: 0 }));
    assert_eq!(code.reconstruct(&present, &mut [(1, &mut q), (0, &mut short)]), unequal);
    assert_eq!((p, q, short), ([9; 4], [9; 4], [9; 3]));
}

proptest! {
    #[test]
    fn any_k_survivors_of_any_code_give_back_the_rest(
        k in 1usize..40, m in 0usize..12, bytes in 1usize..200, order in any::<u64>(),
    ) {
        let n = k + m;
        let mut shuffled: Vec<usize> = (0..n).collect();
        let picks = random_bytes(order, 2 * n);
        for i in (1..n).rev() {
            shuffled.swap(i, (usize::from(picks[2 * i]) << 8 | usize::from(picks[2 * i + 1])) % (i + 1));
        }
        for tier in tiers() {
            let code = ReedSolomon::with_tier(k, m, tier).unwrap();
            let shards = stripe(&code, bytes);
            check_rebuild(&code, &shards, &shuffled[..k], &shuffled[k..]);
        }
    }
}
