//! Every pattern of losses of LRCs, what repairs read, CRCs on the way, and the bytes that are stored.

use super::Lrc;
use crate::tests::{check_rebuild, complement, random_bytes, slices, stripe, subsets, tiers};
use crate::{Code, ErasureError, ReedSolomon};
use penstock_digest::crc64nvme;
use sha2::{Digest, Sha256};

/// Whether any code of this shape could decode: what is left of the losses when every group has spent its parity.
fn possible(code: &Lrc, lost: &[usize]) -> bool {
    let k = code.data_shards();
    let in_group =
        |group: usize| lost.iter().filter(|&&shard| code.members(group).contains(&shard) || shard == k + group).count();
    let global = lost.iter().filter(|&&shard| shard >= k + code.groups()).count();
    let beyond: usize = (0..code.groups()).map(|group| in_group(group).saturating_sub(1)).sum();
    beyond + global <= code.parity_shards() - code.groups()
}

/// For each number of losses from 1 to m: patterns, those that any code of the shape could decode, and those decoded.
fn count(code: &Lrc) -> Vec<[usize; 3]> {
    let (total, shards) = (code.total_shards(), stripe(code, 33));
    let mut counts = Vec::new();
    for losses in 1..=code.parity_shards() {
        let mut count = [0; 3];
        for lost in subsets(total, losses) {
            let survivors = complement(total, &lost);
            count[0] += 1;
            count[1] += usize::from(possible(code, &lost));
            match code.repair_plan(&lost, 1) {
                Ok(_) => {
                    count[2] += 1;
                    check_rebuild(code, &shards, &survivors, &lost);
                    assert!(possible(code, &lost), "{code:?}: {lost:?} can't have been decoded");
                }
                Err(error) => {
                    assert_eq!(error, ErasureError::Undecodable { wanted: losses, have: total - losses });
                    assert!(error.is_retryable());
                }
            }
        }
        counts.push(count);
    }
    counts
}

#[test]
fn lrc_12_2_2_decodes_whatever_can_be_decoded() {
    for tier in tiers() {
        let code = Lrc::with_tier(12, 2, 2, tier).unwrap();
        assert!(code.is_maximally_recoverable());
        let counts = count(&code);
        assert_eq!(counts, [[16, 16, 16], [120, 120, 120], [560, 560, 560], [1820, 1568, 1568]]);
    }
}

#[test]
fn small_lrcs_with_two_globals_are_maximally_recoverable() {
    for (k, l, g) in [(4, 2, 2), (6, 3, 2), (7, 3, 2), (5, 1, 2), (4, 4, 2), (8, 2, 1), (9, 4, 1), (6, 2, 0), (1, 1, 2)]
    {
        let code = Lrc::new(k, l, g).unwrap();
        assert!(code.is_maximally_recoverable());
        for (losses, [_, possible, decoded]) in count(&code).into_iter().enumerate() {
            assert_eq!(possible, decoded, "{code:?}, {} losses", losses + 1);
        }
    }
}

/// Two losses beyond the local parities, in any two places of the largest shape for which the claim is made.
#[test]
fn the_largest_shape_of_the_proof_decodes_its_hardest_patterns() {
    let code = Lrc::new(17 * 13, 17, 2).unwrap();
    assert!(code.is_maximally_recoverable());
    let members = |group: usize| code.members(group).collect::<Vec<_>>();
    for a in 0..17 {
        for b in 0..a {
            let (of_a, of_b, at) = (members(a), members(b), (a + b) % 6);
            let lost = [of_b[at], of_b[12 - at], of_a[(at + 5) % 13], of_a[(at + 9) % 13]];
            assert!(code.repair_plan(&lost, 1).is_ok(), "{lost:?}");
        }
    }
    assert!(!Lrc::new(17 * 13 + 1, 18, 2).unwrap().is_maximally_recoverable());
}

/// With more globals the claim is only that any g + 1 losses decode. How far that is from the possible, is counted.
#[test]
fn three_globals_decode_any_four_losses_and_most_of_more() {
    let code = Lrc::new(8, 2, 3).unwrap();
    assert!(!code.is_maximally_recoverable());
    let counts = count(&code);
    for [patterns, _, decoded] in &counts[..4] {
        assert_eq!(patterns, decoded);
    }
    assert_eq!(counts[4], [1287, 1175, 1163]);
}

#[test]
fn repairs_read_the_group_alone() {
    let code = Lrc::new(12, 2, 2).unwrap();
    let shards = stripe(&code, 100);
    let mut reads = 0;
    for lost in 0..16 {
        let plan = code.repair_plan(&[lost], 1000).unwrap();
        assert_eq!(plan.reads.len(), if lost < 14 { 6 } else { 12 }, "shard {lost}");
        assert_eq!(plan.bytes, 1000 * plan.reads.len() as u64);
        check_rebuild(&code, &shards, &plan.reads, &[lost]);
        reads += plan.reads.len();
    }
    assert_eq!(reads, 108, "6.75 on average");
    assert_eq!(code.repair_plan(&[0, 6], 1).unwrap().reads.len(), 12, "one in each group: both groups, no global");
    assert!(code.repair_plan(&[0, 6], 1).unwrap().reads.iter().all(|&shard| shard < 14));
    assert_eq!(code.repair_plan(&[], 1).unwrap().reads, []);
    let rs = ReedSolomon::new(10, 4).unwrap();
    assert_eq!(rs.repair_plan(&[2, 13], 5).unwrap().reads, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(rs.repair_plan(&[2, 13], 5).unwrap().bytes, 50);
    let many = rs.repair_plan(&[0, 1, 2, 3, 4], 5);
    assert_eq!(many, Err(ErasureError::TooFewShards { have: 9, need: 10 }));
}

/// Parity is stored: these bytes are a format. `tests/golden_reference.py` derives them independently.
#[test]
fn lrc_parity_has_its_golden_hashes_on_every_tier() {
    const GOLDEN: [(usize, usize, usize, usize, &str); 5] = [
        (12, 2, 2, 4109, "d1e67c5562b138b5853fff2f4fde9ce45b6b77f1b83f01baaec6c691c214a0b1"),
        (6, 3, 1, 300, "0d717b1af2438d80b02a7e8a52b45d74998a3692265b67e3de9697c60aa465b5"),
        (7, 3, 2, 65, "860b0f56fcabf86a121d26d6de367f4982a71313ac35e5a2f9998c5149491855"),
        (8, 2, 3, 129, "ad78908f643a7255ea7e48d75a853aa153e705a5027564ce99f5b8d9b0fcfb77"),
        (40, 2, 2, 33, "9c4c4d9ffa3dc26149bd8ce979e8929961c321dc6096a15bd6cd49d4d0b7d41d"),
    ];
    for tier in tiers() {
        for (k, l, g, bytes, golden) in GOLDEN {
            let code = Lrc::with_tier(k, l, g, tier).unwrap();
            let mut hash = Sha256::new();
            stripe(&code, bytes)[k..].iter().for_each(|parity| hash.update(parity));
            assert_eq!(hex::encode(hash.finalize()), golden, "{code:?}, {bytes} bytes");
        }
    }
}

/// The codes that the tests of CRCs run over.
fn codes() -> Vec<Box<dyn Code>> {
    let mut codes: Vec<Box<dyn Code>> = Vec::new();
    for tier in tiers() {
        for (k, m) in [(10, 4), (4, 2), (1, 3), (3, 0), (33, 7)] {
            codes.push(Box::new(ReedSolomon::with_tier(k, m, tier).unwrap()));
        }
        codes.push(Box::new(Lrc::with_tier(12, 2, 2, tier).unwrap()));
        codes.push(Box::new(Lrc::with_tier(7, 3, 4, tier).unwrap()));
    }
    codes
}

fn crcs_of(shards: &[Vec<u8>]) -> Vec<u64> {
    shards.iter().map(|shard| crc64nvme(shard)).collect()
}

#[test]
fn encoding_with_crcs_gives_the_same_parity_and_the_crcs_of_all_shards() {
    for code in codes() {
        let (k, total) = (code.data_shards(), code.total_shards());
        for bytes in [1, 63, 64, 256, 511, 4097, 20_000] {
            let shards = stripe(&*code, bytes);
            let mut parity = vec![vec![0xa5; bytes]; total - k];
            let mut crcs = vec![0; total];
            // In two chunks, where there is more than one byte.
            for chunk in [0..bytes / 3, bytes / 3..bytes] {
                if chunk.is_empty() {
                    continue;
                }
                let data: Vec<&[u8]> = shards[..k].iter().map(|shard| &shard[chunk.clone()]).collect();
                let mut regions: Vec<&mut [u8]> = parity.iter_mut().map(|shard| &mut shard[chunk.clone()]).collect();
                code.encode_with_crc64(&data, &mut regions, &mut crcs).unwrap();
            }
            assert!(parity == shards[k..], "{code:?}: {bytes} bytes");
            assert_eq!(crcs, crcs_of(&shards), "{code:?}: {bytes} bytes");
        }
    }
}

#[test]
fn verifying_with_crcs_finds_flips_and_leaves_the_crcs_alone() {
    for code in codes() {
        let k = code.data_shards();
        let mut shards = stripe(&*code, 9000);
        let mut crcs = vec![0; code.total_shards()];
        assert!(code.verify_with_crc64(&slices(&shards[..k]), &slices(&shards[k..]), &mut crcs).unwrap());
        assert_eq!(crcs, crcs_of(&shards), "{code:?}");
        if code.parity_shards() > 0 {
            let before = crcs.clone();
            shards[0][8999] ^= 1;
            assert!(!code.verify_with_crc64(&slices(&shards[..k]), &slices(&shards[k..]), &mut crcs).unwrap());
            assert_eq!(crcs, before);
        }
    }
}

#[test]
fn rebuilding_with_crcs_gives_those_of_what_was_read_and_written() {
    for code in codes().into_iter().filter(|code| code.parity_shards() >= 2) {
        let total = code.total_shards();
        let shards = stripe(&*code, 777);
        for lost in [vec![0], vec![total - 1, 0]] {
            let survivors = complement(total, &lost);
            let present: Vec<(usize, &[u8])> = survivors.iter().map(|&i| (i, &shards[i][..])).collect();
            let mut rebuilt = vec![vec![0; 777]; lost.len()];
            let mut wanted: Vec<(usize, &mut [u8])> =
                lost.iter().copied().zip(rebuilt.iter_mut().map(Vec::as_mut_slice)).collect();
            let mut crcs = vec![0; total];
            let read = code.reconstruct_with_crc64(&present, &mut wanted, &mut crcs).unwrap();
            assert_eq!(read, code.repair_plan(&lost, 1).unwrap().reads);
            for index in 0..total {
                let expected =
                    if read.contains(&index) || lost.contains(&index) { crc64nvme(&shards[index]) } else { 0 };
                assert_eq!(crcs[index], expected, "{code:?}: shard {index} with {lost:?} lost");
            }
            assert!(rebuilt.iter().zip(&lost).all(|(found, &index)| *found == shards[index]), "{code:?}");
        }
        let mut region = vec![0; 777];
        let present = [(0, &shards[0][..])];
        let error = code.reconstruct_with_crc64(&present, &mut [(0, &mut region)], &mut vec![0; total]);
        assert_eq!(error, Err(ErasureError::DuplicateShard { index: 0 }));
    }
}

#[test]
fn updates_of_an_lrc() {
    for tier in tiers() {
        let code = Lrc::with_tier(7, 3, 2, tier).unwrap();
        for index in 0..7 {
            let mut shards = stripe(&code, 300);
            let delta = random_bytes(5, 300);
            shards[index].iter_mut().zip(&delta).for_each(|(byte, change)| *byte ^= change);
            let (data, parity) = shards.split_at_mut(7);
            let mut regions: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            code.update_parity(index, &delta, &mut regions).unwrap();
            assert!(code.verify(&slices(data), &slices(parity)).unwrap(), "{code:?}, shard {index}");
        }
    }
}

#[test]
fn lrcs_out_of_range_are_refused() {
    for (k, l, g) in [(0, 0, 1), (4, 0, 2), (3, 4, 1), (200, 50, 6), (usize::MAX, 2, 2)] {
        assert_eq!(Lrc::new(k, l, g).unwrap_err(), ErasureError::LrcOutOfRange { k, l, g });
    }
    let code = Lrc::new(4, 2, 1).unwrap();
    let data: [&[u8]; 4] = [&[1]; 4];
    let wrong = code.encode_with_crc64(&data, &mut [&mut [0], &mut [0], &mut [0]], &mut [0; 6]);
    assert_eq!(wrong, Err(ErasureError::WrongShardCount { role: "CRC", have: 6, need: 7 }));
    assert_eq!(code.repair_plan(&[7], 1), Err(ErasureError::BadIndex { index: 7, limit: 7 }));
    assert_eq!(code.repair_plan(&[1, 1], 1), Err(ErasureError::DuplicateShard { index: 1 }));
}
