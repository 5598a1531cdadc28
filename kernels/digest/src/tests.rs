//! Known answers, and combination against direct computation and against crc-fast's own.

use crate::*;
use crc_fast::CrcAlgorithm;
use proptest::prelude::*;

fn hashed(algorithm: ChecksumAlgorithm, pieces: &[&[u8]]) -> ChecksumValue {
    let mut hasher = ChecksumHasher::new(algorithm);
    assert_eq!(hasher.algorithm(), algorithm);
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finish()
}

#[test]
fn known_answers_of_crcs() {
    assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!((crc64nvme(b""), crc32(b""), crc32c(b"")), (0, 0, 0));
    assert_eq!((Crc64Nvme::new().finish(), Crc32::new().finish(), Crc32c::default().finish()), (0, 0, 0));
    // RFC 3720, B.4: 32 bytes of zeros, of ones, and counting up.
    assert_eq!((crc32c(&[0; 32]), crc32c_zeros(32)), (0x8a91_36aa, 0x8a91_36aa));
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    // NVM Command Set specification, CRC-64 test vectors: 4 KiB of zeros, of ones.
    assert_eq!((crc64nvme(&[0; 4096]), crc64nvme_zeros(4096)), (0x6482_d367_eb22_b64e, 0x6482_d367_eb22_b64e));
    assert_eq!(crc64nvme(&[0xff; 4096]), 0xc0dd_ba73_02ec_a3ac);
}

#[test]
fn known_answers_of_hashes() {
    let cases = [
        (ChecksumAlgorithm::Crc32, "00000000", "352441c2"),
        (ChecksumAlgorithm::Crc32c, "00000000", "364b3fb7"),
        (
            ChecksumAlgorithm::Sha1,
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ),
        (
            ChecksumAlgorithm::Sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            ChecksumAlgorithm::Sha512,
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (ChecksumAlgorithm::Md5, "d41d8cd98f00b204e9800998ecf8427e", "900150983cd24fb0d6963f7d28e17f72"),
        // The canonical forms of the xxHash specification.
        (ChecksumAlgorithm::Xxhash64, "ef46db3751d8e999", "44bc2cf5ad770999"),
        (ChecksumAlgorithm::Xxhash3, "2d06800538d394c2", "78af5f94892f3950"),
        (ChecksumAlgorithm::Xxhash128, "99aa06d3014798d86001c324468d497f", "06b05ab6733a618578af5f94892f3950"),
    ];
    for (algorithm, empty, abc) in cases {
        assert_eq!(hex::encode(hashed(algorithm, &[]).as_bytes()), empty, "{algorithm}");
        assert_eq!(hex::encode(hashed(algorithm, &[b"ab", b"", b"c"]).as_bytes()), abc, "{algorithm}");
    }
    assert_eq!(hex::encode(Md5Hasher::new().finish()), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(hex::encode(Md5Hasher::of(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(Sha1Hasher::of(b"abc")[..], *hashed(ChecksumAlgorithm::Sha1, &[b"abc"]).as_bytes());
    assert_eq!(Sha256Hasher::of(b"abc")[..], *hashed(ChecksumAlgorithm::Sha256, &[b"abc"]).as_bytes());
}

#[test]
fn crc_values_are_big_endian() {
    let value = hashed(ChecksumAlgorithm::Crc64Nvme, &[b"123456789"]);
    assert_eq!(value.as_bytes(), [0xae, 0x8b, 0x14, 0x86, 0x0a, 0x79, 0x98, 0x88]);
    assert_eq!(value.as_crc(), Some(0xae8b_1486_0a79_9888));
    assert_eq!(value, ChecksumValue::from_crc64nvme(crc64nvme(b"123456789")));
    assert_eq!(ChecksumValue::from_crc32(0xcbf4_3926), hashed(ChecksumAlgorithm::Crc32, &[b"123456789"]));
    assert_eq!(ChecksumValue::from_crc32c(0xe306_9283).as_crc(), Some(0xe306_9283));
    assert_eq!(hashed(ChecksumAlgorithm::Sha1, &[]).as_crc(), None);
    assert_eq!(format!("{value:?}"), "CRC64NVME:ae8b14860a799888");
}

#[test]
fn names_go_both_ways() {
    for algorithm in ChecksumAlgorithm::ALL {
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
        assert_eq!(algorithm.name().to_lowercase().parse(), Ok(algorithm));
        assert_eq!(algorithm.to_string(), algorithm.name());
        assert_eq!(hashed(algorithm, &[]).as_bytes().len(), algorithm.digest_bytes());
    }
    for name in ["", "CRC-32", "CRC64", "MD4", "SHA384", " SHA1"] {
        let error = name.parse::<ChecksumAlgorithm>().unwrap_err();
        assert_eq!(error, DigestError::UnknownAlgorithm { name: name.to_owned() });
        assert!(!error.is_retryable());
    }
}

#[test]
fn values_of_wrong_length_are_refused_and_others_come_back() {
    for algorithm in ChecksumAlgorithm::ALL {
        let value = hashed(algorithm, &[b"something"]);
        assert_eq!(ChecksumValue::from_bytes(algorithm, value.as_bytes()), Ok(value));
        for have_bytes in [0, algorithm.digest_bytes() - 1, algorithm.digest_bytes() + 1, 65] {
            let error = DigestError::WrongLength { algorithm, have_bytes };
            assert_eq!(ChecksumValue::from_bytes(algorithm, &vec![0; have_bytes]), Err(error));
        }
        let mut other = value.as_bytes().to_vec();
        other[algorithm.digest_bytes() - 1] ^= 1;
        assert_ne!(ChecksumValue::from_bytes(algorithm, &other), Ok(value));
    }
    assert_ne!(ChecksumValue::from_crc32(7), ChecksumValue::from_crc32c(7), "equal bytes, different algorithms");
}

#[test]
fn zeros_have_the_crc_of_zeros() {
    let zeros = vec![0; 1 << 20];
    for len in (0..200).chain([4095, 4096, 100_000, (1 << 20) - 1, 1 << 20]) {
        let (message, length) = (&zeros[..len], len as u64);
        assert_eq!(crc64nvme_zeros(length), crc64nvme(message), "{len}");
        assert_eq!(crc32_zeros(length), crc32(message), "{len}");
        assert_eq!(crc32c_zeros(length), crc32c(message), "{len}");
    }
}

/// Lengths that no test could hash: the zeros of a whole are those of its halves combined, up to the last bit.
#[test]
fn zeros_of_any_length_combine() {
    for length in [1u64 << 40, (5 << 40) + 12_345, u64::MAX / 2 + 1, u64::MAX] {
        let (a, b) = (length / 3, length - length / 3);
        assert_eq!(crc64nvme_combine(crc64nvme_zeros(a), crc64nvme_zeros(b), b), crc64nvme_zeros(length));
        assert_eq!(crc32_combine(crc32_zeros(a), crc32_zeros(b), b), crc32_zeros(length));
        assert_eq!(crc32c_combine(crc32c_zeros(a), crc32c_zeros(b), b), crc32c_zeros(length));
    }
}

#[test]
fn only_crcs_of_one_algorithm_combine_into_an_object() {
    let parts: [&[u8]; 4] = [b"first part, ", b"", b"second part, ", b"third"];
    let whole = parts.concat();
    for algorithm in ChecksumAlgorithm::ALL {
        let values: Vec<_> = parts.iter().map(|part| (hashed(algorithm, &[part]), part.len() as u64)).collect();
        let expected = algorithm.is_crc().then(|| hashed(algorithm, &[&whole]));
        assert_eq!(combine_full_object(algorithm, &values), expected);
        let nothing = algorithm.is_crc().then(|| hashed(algorithm, &[]));
        assert_eq!(combine_full_object(algorithm, &[]), nothing);
        for other in ChecksumAlgorithm::ALL.into_iter().filter(|&other| other != algorithm) {
            assert_eq!(combine_full_object(other, &values), None, "{algorithm} as {other}");
        }
    }
}

proptest! {
    #[test]
    fn split_anywhere_equals_whole(message in prop::collection::vec(any::<u8>(), 0..3000), at: prop::sample::Index) {
        let (a, b) = message.split_at(at.index(message.len() + 1));
        let len = b.len() as u64;
        prop_assert_eq!(crc64nvme_combine(crc64nvme(a), crc64nvme(b), len), crc64nvme(&message));
        prop_assert_eq!(crc32_combine(crc32(a), crc32(b), len), crc32(&message));
        prop_assert_eq!(crc32c_combine(crc32c(a), crc32c(b), len), crc32c(&message));
        for algorithm in ChecksumAlgorithm::ALL {
            prop_assert_eq!(hashed(algorithm, &[a, b]), hashed(algorithm, &[&message]));
        }
        let mut md5 = Md5Hasher::new();
        md5.update(a);
        md5.update(b);
        prop_assert_eq!(md5.finish(), Md5Hasher::of(&message));
    }

    #[test]
    fn combine_agrees_with_crc_fast(a: u64, b: u64, len: u64, shift in 0u32..64) {
        let len = len >> shift;
        let theirs = |algorithm, a: u64, b: u64| crc_fast::checksum_combine(algorithm, a, b, len);
        prop_assert_eq!(crc64nvme_combine(a, b, len), theirs(CrcAlgorithm::Crc64Nvme, a, b));
        let (a, b) = (a as u32, b as u32);
        let (crc32, crc32c) = (crc32_combine(a, b, len), crc32c_combine(a, b, len));
        prop_assert_eq!(u64::from(crc32), theirs(CrcAlgorithm::Crc32IsoHdlc, a.into(), b.into()));
        prop_assert_eq!(u64::from(crc32c), theirs(CrcAlgorithm::Crc32Iscsi, a.into(), b.into()));
    }
}
