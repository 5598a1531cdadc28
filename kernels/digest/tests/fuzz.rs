//! CRC combination and hashes in lanes, on whatever a fuzzer comes up with. A bounded number of inputs in the ordinary test
//! run; docs/TESTING.md says how to run it for hours, guided by coverage.

use penstock_digest::{
    HashTier, Md5Hasher, Sha256Hasher, crc32, crc32_combine, crc32c, crc32c_combine, crc32c_zeros, crc64nvme,
    crc64nvme_combine, crc64nvme_zeros, md5_many, sha256_many,
};

/// Inputs in the ordinary run.
const INPUTS: usize = 2_000;

#[test]
fn crcs_of_parts_combine_into_that_of_the_whole() {
    bolero::check!().with_iterations(INPUTS).with_type::<(Vec<u8>, u16, u16)>().for_each(|(bytes, cut, zeros)| {
        let (a, b) = bytes.split_at(usize::from(*cut) % (bytes.len() + 1));
        let len = b.len() as u64;
        assert_eq!(crc64nvme_combine(crc64nvme(a), crc64nvme(b), len), crc64nvme(bytes));
        assert_eq!(crc32_combine(crc32(a), crc32(b), len), crc32(bytes));
        assert_eq!(crc32c_combine(crc32c(a), crc32c(b), len), crc32c(bytes));
        let padded = [&bytes[..], &vec![0; usize::from(*zeros)]].concat();
        let zeros = u64::from(*zeros);
        assert_eq!(crc64nvme_combine(crc64nvme(bytes), crc64nvme_zeros(zeros), zeros), crc64nvme(&padded));
        assert_eq!(crc32c_combine(crc32c(bytes), crc32c_zeros(zeros), zeros), crc32c(&padded));
    });
}

/// At lengths that no memory holds: it doesn't matter in which order parts are put together.
#[test]
fn combining_is_associative_at_any_length() {
    bolero::check!().with_iterations(INPUTS).with_type::<(u64, u64, u64, u64, u64)>().for_each(
        |&(a, b, c, of_b, of_c)| {
            let (of_b, of_c) = (of_b >> 1, of_c >> 1); // their sum is a length, too
            let left = crc64nvme_combine(crc64nvme_combine(a, b, of_b), c, of_c);
            let right = crc64nvme_combine(a, crc64nvme_combine(b, c, of_c), of_b + of_c);
            assert_eq!(left, right);
            let (a, b, c) = (a as u32, b as u32, c as u32);
            let left = crc32c_combine(crc32c_combine(a, b, of_b), c, of_c);
            let right = crc32c_combine(a, crc32c_combine(b, c, of_c), of_b + of_c);
            assert_eq!(left, right);
        },
    );
}

#[test]
fn hashes_in_lanes_are_those_of_one_stream() {
    bolero::check!().with_iterations(INPUTS / 4).with_type::<(Vec<u16>, Vec<u8>)>().for_each(|(lengths, content)| {
        let message = |(stream, length): (usize, &u16)| -> Vec<u8> {
            let at =
                |at: usize| content.get((at + stream) % content.len().max(1)).copied().unwrap_or(7) ^ (at >> 4) as u8;
            (0..usize::from(*length) % 700).map(at).collect()
        };
        let messages: Vec<Vec<u8>> = lengths.iter().take(70).enumerate().map(message).collect();
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let md5: Vec<_> = messages.iter().map(|message| Md5Hasher::of(message)).collect();
        let sha256: Vec<_> = messages.iter().map(|message| Sha256Hasher::of(message)).collect();
        assert_eq!(md5_many(HashTier::detect(), &messages), md5);
        assert_eq!(sha256_many(HashTier::detect(), &messages), sha256);
    });
}
