//! Checksums of what is read: which of those that a server sends are verified, and what it means when one does not hold.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use penstock_digest::{ChecksumAlgorithm, ChecksumValue};

use crate::error::ClientError;
use crate::http::Head;

/// Which checksums of whole objects are verified when bodies come over HTTP. Bytes that come by plan always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Those that cost little beside moving the bytes: CRC64NVME, CRC32C, CRC32, and the XXHASH family.
    #[default]
    Fast,
    /// SHA-1, SHA-256, SHA-512 and MD5 too, where the server has nothing faster: up to 1.7 CPU-seconds a GB.
    All,
    /// None.
    Off,
}

/// In the order in which they are preferred: the cheapest first.
const PREFERRED: [ChecksumAlgorithm; 10] = [
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Xxhash3,
    ChecksumAlgorithm::Xxhash128,
    ChecksumAlgorithm::Xxhash64,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
    ChecksumAlgorithm::Sha512,
    ChecksumAlgorithm::Md5,
];
/// How many of these are fast.
const FAST: usize = 6;

/// The checksums of the whole object that an answer names. One of a multipart object that is computed over its parts' is none.
pub(crate) fn checksums_of(head: &Head) -> Vec<ChecksumValue> {
    if head.header("x-amz-checksum-type").is_some_and(|kind| kind != "FULL_OBJECT") {
        return Vec::new();
    }
    let value = |(name, text): (&str, &str)| {
        let algorithm: ChecksumAlgorithm = name.parse().ok()?;
        // A composite one ends in `-N`, which is no base64.
        ChecksumValue::from_bytes(algorithm, &STANDARD.decode(text).ok()?).ok()
    };
    head.with_prefix("x-amz-checksum-").filter_map(value).collect()
}

/// The one to verify.
pub(crate) fn chosen(of: &[ChecksumValue], verify: Verify) -> Option<ChecksumValue> {
    let considered = match verify {
        Verify::Off => 0,
        Verify::Fast => FAST,
        Verify::All => PREFERRED.len(),
    };
    PREFERRED[..considered].iter().find_map(|wanted| of.iter().find(|value| value.algorithm() == *wanted).copied())
}

/// Bytes that are not those that were stored.
pub(crate) fn corrupt(what: String, computed: &ChecksumValue, expected: &ChecksumValue) -> ClientError {
    let hexadecimal = |value: &ChecksumValue| {
        value.as_bytes().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    ClientError::Corrupt {
        what,
        algorithm: expected.algorithm().name().to_owned(),
        computed: hexadecimal(computed),
        expected: hexadecimal(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_is_chosen_and_slow_ones_when_asked_for() {
        let crc32 = ChecksumValue::from_crc32(7);
        let crc64 = ChecksumValue::from_crc64nvme(9);
        let sha256 = ChecksumValue::from_bytes(ChecksumAlgorithm::Sha256, &[1; 32]).unwrap();
        assert_eq!(chosen(&[sha256, crc32, crc64], Verify::Fast), Some(crc64));
        assert_eq!(chosen(&[sha256, crc32], Verify::All), Some(crc32));
        assert_eq!(chosen(&[sha256], Verify::Fast), None);
        assert_eq!(chosen(&[sha256], Verify::All), Some(sha256));
        assert_eq!(chosen(&[crc64], Verify::Off), None);
    }
}
