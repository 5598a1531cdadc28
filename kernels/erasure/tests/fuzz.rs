//! Codes of whatever shape, losing whatever shards, called with whatever arguments a fuzzer comes up with. A bounded number
//! of inputs in the ordinary test run; docs/TESTING.md says how to run it for hours, guided by coverage.

use bolero::TypeGenerator;
use penstock_digest::crc64nvme;
use penstock_erasure::{Code, ErasureError, Lrc, ReedSolomon, SHARDS_MAX};
use penstock_gf256::{inv, mul};

/// Inputs in the ordinary run.
const INPUTS: usize = 600;
/// What a wanted shard has before.
const BEFORE: u8 = 0xa5;

#[derive(Debug, TypeGenerator)]
struct Loss {
    k: u8,
    m: u8,
    /// Local parities; none makes it Reed-Solomon.
    l: u8,
    bytes: u16,
    /// A bit for each shard, taken in turn.
    present: [u64; 2],
    wanted: [u64; 2],
    seed: u8,
    backwards: bool,
}

fn bit(bits: [u64; 2], at: usize) -> bool {
    bits[at / 64 % 2] >> (at % 64) & 1 == 1
}

impl Loss {
    fn code(&self) -> Box<dyn Code> {
        let large = self.k > 240;
        let k = 1 + usize::from(self.k) % if large { 120 } else { 24 };
        let m = usize::from(self.m) % if large { 60 } else { 9 };
        let l = usize::from(self.l) % 5;
        if l == 0 {
            Box::new(ReedSolomon::new(k, m.max(1)).expect("k and m are in range"))
        } else {
            Box::new(Lrc::new(k, l.min(k), m).expect("k, l and g are in range"))
        }
    }

    fn stripe(&self, code: &dyn Code) -> Vec<Vec<u8>> {
        let bytes = 1 + usize::from(self.bytes) % if code.total_shards() > 40 { 40 } else { 1_500 };
        let byte = |shard: usize, at: usize| (shard * 37 + at * (at >> 5 | 1)) as u8 ^ self.seed.rotate_left(at as u32);
        let mut stripe: Vec<Vec<u8>> =
            (0..code.total_shards()).map(|shard| (0..bytes).map(|at| byte(shard, at)).collect()).collect();
        let (data, parity) = stripe.split_at_mut(code.data_shards());
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        code.encode(&data, &mut parity).expect("the stripe is whole");
        stripe
    }
}

/// Every shard as a sum of data shards: what the stripes of unit vectors say.
fn generator(code: &dyn Code) -> Vec<Vec<u8>> {
    let (k, m) = (code.data_shards(), code.parity_shards());
    let mut rows: Vec<Vec<u8>> = (0..k).map(|row| (0..k).map(|column| u8::from(row == column)).collect()).collect();
    // One byte of every shard for each unit vector.
    let data = rows.clone();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0; k]; m];
    let mut into: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&data, &mut into).expect("the stripe is whole");
    rows.append(&mut parity);
    rows
}

/// Whether a row is a sum of others, by elimination: the definition of what can be decoded.
fn is_spanned(rows: &[&Vec<u8>], wanted: &[u8]) -> bool {
    let mut basis: Vec<(usize, Vec<u8>)> = Vec::new();
    let reduced = |basis: &[(usize, Vec<u8>)], row: &[u8]| {
        let mut row = row.to_vec();
        for (pivot, by) in basis {
            let factor = row[*pivot];
            row.iter_mut().zip(by).for_each(|(c, b)| *c ^= mul(factor, *b));
        }
        row
    };
    for row in rows {
        let row = reduced(&basis, row);
        if let Some(pivot) = row.iter().position(|c| *c != 0) {
            let scale = inv(row[pivot]);
            basis.push((pivot, row.iter().map(|c| mul(*c, scale)).collect()));
        }
    }
    reduced(&basis, wanted).iter().all(|c| *c == 0)
}

#[test]
fn what_can_be_decoded_is_and_nothing_else() {
    bolero::check!().with_iterations(INPUTS).with_type::<Loss>().for_each(|loss| {
        let code = loss.code();
        let stripe = loss.stripe(&*code);
        let total = code.total_shards();
        let mut present: Vec<usize> = (0..total).filter(|shard| bit(loss.present, *shard)).collect();
        let mut wanted: Vec<usize> = (0..total).filter(|shard| bit(loss.wanted, *shard)).collect();
        if loss.backwards {
            present.reverse();
            wanted.reverse();
        }
        if wanted.is_empty() {
            return;
        }
        let given: Vec<(usize, &[u8])> = present.iter().map(|shard| (*shard, &stripe[*shard][..])).collect();
        let mut room = vec![vec![BEFORE; stripe[0].len()]; wanted.len()];
        let mut into: Vec<(usize, &mut [u8])> =
            wanted.iter().zip(&mut room).map(|(shard, room)| (*shard, &mut room[..])).collect();
        let outcome = code.reconstruct(&given, &mut into);

        let generator = generator(&*code);
        let rows: Vec<&Vec<u8>> = present.iter().map(|shard| &generator[*shard]).collect();
        let lost = || wanted.iter().filter(|shard| !present.contains(shard));
        let decodable = lost().all(|shard| is_spanned(&rows, &generator[*shard]));
        match outcome {
            Ok(()) => {
                assert!(decodable, "{code:?} made {wanted:?} of {present:?}");
                for (shard, room) in wanted.iter().zip(&room) {
                    assert!(room == &stripe[*shard], "{code:?}: shard {shard} of {present:?}");
                }
            }
            Err(ErasureError::TooFewShards { have, need }) => {
                assert!(have == present.len() && have < need && need == code.data_shards());
                assert!(!decodable, "{code:?} could make {wanted:?} of {present:?}");
                assert!(room.iter().flatten().all(|byte| *byte == BEFORE), "nothing is written");
            }
            Err(ErasureError::Undecodable { .. }) => {
                assert!(!decodable, "{code:?} could make {wanted:?} of {present:?}");
                assert!(room.iter().flatten().all(|byte| *byte == BEFORE), "nothing is written");
            }
            Err(other) => panic!("{code:?}: {other}"),
        }
    });
}

#[test]
fn crcs_beside_encoding_and_decoding_are_the_shards() {
    bolero::check!().with_iterations(INPUTS).with_type::<Loss>().for_each(|loss| {
        let code = loss.code();
        let mut stripe = loss.stripe(&*code);
        let expected: Vec<u64> = stripe.iter().map(|shard| crc64nvme(shard)).collect();
        let whole = stripe.clone();
        let (data, parity) = stripe.split_at_mut(code.data_shards());
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut crcs = vec![0; code.total_shards()];
        let mut into: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        into.iter_mut().for_each(|shard| shard.fill(BEFORE));
        code.encode_with_crc64(&data, &mut into, &mut crcs).expect("the stripe is whole");
        assert!(stripe == whole && crcs == expected, "{code:?}");

        let lost = usize::from(loss.seed) % code.total_shards();
        let Ok(plan) = code.repair_plan(&[lost], 1) else {
            assert!(code.parity_shards() == 0, "{code:?} can't repair shard {lost}");
            return;
        };
        let given: Vec<(usize, &[u8])> = plan.reads.iter().map(|shard| (*shard, &whole[*shard][..])).collect();
        let mut room = vec![BEFORE; whole[0].len()];
        let mut crcs = vec![0; code.total_shards()];
        let read = code.reconstruct_with_crc64(&given, &mut [(lost, &mut room)], &mut crcs).expect("its own plan");
        assert!(room == whole[lost], "{code:?}: shard {lost} of {:?}", plan.reads);
        assert!(read.iter().chain([&lost]).all(|shard| crcs[*shard] == expected[*shard]), "{code:?}");
    });
}

/// Indices and lengths that make no sense are errors, found before a byte is written; never a panic.
#[test]
fn senseless_arguments_are_refused() {
    type Shards = Vec<(u16, u8)>;
    bolero::check!().with_iterations(INPUTS).with_type::<(u8, u8, bool, Shards, Shards)>().for_each(
        |(k, m, local, present, wanted)| {
            let (k, m) = (1 + usize::from(*k) % 6, usize::from(*m) % 4);
            let code: Box<dyn Code> = if *local {
                Box::new(Lrc::new(k, 1, m).expect("k, l and g are in range"))
            } else {
                Box::new(ReedSolomon::new(k, m.max(1)).expect("k and m are in range"))
            };
            // Mostly what is nearly right.
            let index =
                |index: u16| usize::from(index) % if index > 60_000 { 2 * SHARDS_MAX } else { code.total_shards() + 1 };
            let length = |length: u8| if length > 250 { usize::from(length) - 250 } else { 3 };
            let zeros = [0; 8];
            let given: Vec<(usize, &[u8])> = present.iter().map(|(i, l)| (index(*i), &zeros[..length(*l)])).collect();
            let mut room: Vec<(usize, Vec<u8>)> =
                wanted.iter().map(|(i, l)| (index(*i), vec![BEFORE; length(*l)])).collect();
            let mut into: Vec<(usize, &mut [u8])> = room.iter_mut().map(|(i, room)| (*i, &mut room[..])).collect();
            let outcome = code.reconstruct(&given, &mut into);
            let (total, all) = (code.total_shards(), |i: usize| i >= code.total_shards());
            let senseless = given.iter().any(|(i, _)| all(*i)) || room.iter().any(|(i, _)| all(*i));
            assert!(!senseless || outcome.is_err(), "an index past {total} was taken");
            let expected = if outcome.is_ok() { 0 } else { BEFORE };
            assert!(room.iter().flat_map(|(_, room)| room).all(|byte| *byte == expected), "{outcome:?}");
        },
    );
}
