//! Object checksums: what a request asks for, how they are stored in rows, and how those of parts become an object's.

use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, combine_full_object};
use penstock_meta::tables::ChecksumRow;

use crate::api::{BodyDigests, ChecksumType, ObjectChecksum};
use crate::error::{Error, ErrorKind, Result};
use crate::hashing::BodySums;

/// The algorithm of objects whose client named none: it costs nothing, because the shards have it anyway.
pub(crate) const DEFAULT: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// The number that stands for an algorithm in rows. Never changes; new algorithms get new numbers.
pub(crate) fn to_number(algorithm: ChecksumAlgorithm) -> u8 {
    match algorithm {
        ChecksumAlgorithm::Crc32 => 1,
        ChecksumAlgorithm::Crc32c => 2,
        ChecksumAlgorithm::Crc64Nvme => 3,
        ChecksumAlgorithm::Sha1 => 4,
        ChecksumAlgorithm::Sha256 => 5,
        ChecksumAlgorithm::Sha512 => 6,
        ChecksumAlgorithm::Md5 => 7,
        ChecksumAlgorithm::Xxhash64 => 8,
        ChecksumAlgorithm::Xxhash3 => 9,
        ChecksumAlgorithm::Xxhash128 => 10,
    }
}

/// The algorithm that a row's number stands for.
///
/// # Errors
/// InternalError: a newer release wrote the row.
pub(crate) fn from_number(number: u8) -> Result<ChecksumAlgorithm> {
    ChecksumAlgorithm::ALL.into_iter().find(|algorithm| to_number(*algorithm) == number).ok_or_else(|| {
        Error::new(
            ErrorKind::InternalError,
            format!("A row names checksum algorithm {number}, which this release does not know: was it downgraded?"),
        )
    })
}

/// A checksum as a row has it.
pub(crate) fn to_row(checksum: &ObjectChecksum) -> ChecksumRow {
    ChecksumRow {
        algorithm: to_number(checksum.value.algorithm()),
        bytes: checksum.value.as_bytes().to_vec(),
        composite_parts: match checksum.kind {
            ChecksumType::FullObject => None,
            ChecksumType::Composite => checksum.parts,
        },
    }
}

/// A row's checksum.
///
/// # Errors
/// InternalError when the row makes no sense.
pub(crate) fn from_row(row: &ChecksumRow) -> Result<ObjectChecksum> {
    let value = ChecksumValue::from_bytes(from_number(row.algorithm)?, &row.bytes)
        .map_err(|error| Error::new(ErrorKind::InternalError, format!("A row's checksum can't be read: {error}")))?;
    let kind = if row.composite_parts.is_some() { ChecksumType::Composite } else { ChecksumType::FullObject };
    Ok(ObjectChecksum { value, kind, parts: row.composite_parts })
}

/// A checksum of all bytes.
pub(crate) fn full(value: ChecksumValue) -> ObjectChecksum {
    ObjectChecksum { value, kind: ChecksumType::FullObject, parts: None }
}

/// Which checksum a body is to get.
///
/// # Errors
/// InvalidRequest when the request names two algorithms.
pub(crate) fn asked(digests: &BodyDigests, fallback: ChecksumAlgorithm) -> Result<ChecksumAlgorithm> {
    let mut named = [
        digests.checksum.map(|value| value.algorithm()),
        digests.trailing.as_ref().map(|trailing| trailing.algorithm),
        digests.compute,
    ]
    .into_iter()
    .flatten();
    let Some(first) = named.next() else { return Ok(fallback) };
    if named.any(|other| other != first) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ));
    }
    Ok(first)
}

/// Whether the body's digests are those that the request promised. Asks the trailer for its value.
///
/// # Errors
/// ContentSha256Mismatch, BadDigest, or the trailer's own error.
pub(crate) fn verify(digests: &BodyDigests, sums: &BodySums) -> Result<()> {
    let BodySums { md5, sha256, checksum: computed } = *sums;
    // A hash that was promised and not computed is a mismatch, too.
    if digests.payload_sha256.is_some() && digests.payload_sha256 != sha256 {
        return Err(Error::new(
            ErrorKind::ContentSha256Mismatch,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ));
    }
    if digests.md5.is_some_and(|promised| promised != md5) {
        return Err(Error::new(ErrorKind::BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    let trailing = digests.trailing.as_ref().map(|trailing| (trailing.value)()).transpose()?;
    for promised in [digests.checksum, trailing].into_iter().flatten() {
        if promised != computed {
            return Err(mismatch(promised.algorithm()));
        }
    }
    Ok(())
}

/// BadDigest for a checksum header.
pub(crate) fn mismatch(algorithm: ChecksumAlgorithm) -> Error {
    Error::new(ErrorKind::BadDigest, format!("The {algorithm} you specified did not match the calculated checksum."))
}

/// Whether an upload may be begun with this algorithm and type.
///
/// # Errors
/// InvalidRequest: hashes don't combine into a full-object checksum, and CRC64NVME is only ever one.
pub(crate) fn check_upload(algorithm: ChecksumAlgorithm, kind: ChecksumType) -> Result<()> {
    let name = match kind {
        ChecksumType::FullObject if !algorithm.is_crc() => "FULL_OBJECT",
        ChecksumType::Composite if algorithm == ChecksumAlgorithm::Crc64Nvme => "COMPOSITE",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("The {name} checksum type cannot be used with the {algorithm} checksum algorithm."),
    ))
}

/// The composite checksum of parts: the algorithm over their checksums' bytes.
pub(crate) fn composite(algorithm: ChecksumAlgorithm, parts: &[ChecksumValue]) -> ObjectChecksum {
    let mut hasher = ChecksumHasher::new(algorithm);
    for part in parts {
        hasher.update(part.as_bytes());
    }
    ObjectChecksum { value: hasher.finish(), kind: ChecksumType::Composite, parts: u32::try_from(parts.len()).ok() }
}

/// The full object's checksum from those of its parts and their lengths.
///
/// # Errors
/// InternalError when a part's is of another algorithm, which `upload_part` does not let happen.
pub(crate) fn combined(algorithm: ChecksumAlgorithm, parts: &[(ChecksumValue, u64)]) -> Result<ObjectChecksum> {
    combine_full_object(algorithm, parts).map(full).ok_or_else(|| {
        Error::new(ErrorKind::InternalError, format!("The parts' checksums don't combine into a {algorithm}."))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::TrailingChecksum;

    fn value(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> ChecksumValue {
        let mut hasher = ChecksumHasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn numbers_in_rows_are_fixed() {
        let numbers: Vec<u8> = ChecksumAlgorithm::ALL.into_iter().map(to_number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(from_number(0).is_err() && from_number(11).is_err());
        for algorithm in ChecksumAlgorithm::ALL {
            for checksum in [full(value(algorithm, b"x")), composite(algorithm, &[value(algorithm, b"x")])] {
                assert_eq!(from_row(&to_row(&checksum)).unwrap(), checksum);
            }
        }
    }

    #[test]
    fn one_algorithm_per_request() {
        let sha = value(ChecksumAlgorithm::Sha256, b"x");
        let nothing = BodyDigests::default();
        assert_eq!(asked(&nothing, DEFAULT).unwrap(), ChecksumAlgorithm::Crc64Nvme);
        let same = BodyDigests { checksum: Some(sha), compute: Some(ChecksumAlgorithm::Sha256), ..nothing.clone() };
        assert_eq!(asked(&same, DEFAULT).unwrap(), ChecksumAlgorithm::Sha256);
        let two = BodyDigests { checksum: Some(sha), compute: Some(ChecksumAlgorithm::Crc32), ..nothing };
        assert_eq!(asked(&two, DEFAULT).unwrap_err().kind, ErrorKind::InvalidRequest);
    }

    #[test]
    fn what_was_promised_is_verified() {
        let (good, bad) = (value(ChecksumAlgorithm::Crc32, b"x"), value(ChecksumAlgorithm::Crc32, b"y"));
        let trailing = |result: Result<ChecksumValue>| {
            Some(TrailingChecksum { algorithm: ChecksumAlgorithm::Crc32, value: Arc::new(move || result.clone()) })
        };
        let sums = |sha256| BodySums { md5: [1; 16], sha256, checksum: good };
        let kind = |digests: BodyDigests| verify(&digests, &sums(Some([3; 32]))).map_err(|error| error.kind);
        assert_eq!(kind(BodyDigests::default()), Ok(()));
        assert_eq!(kind(BodyDigests { md5: Some([1; 16]), checksum: Some(good), ..Default::default() }), Ok(()));
        assert_eq!(kind(BodyDigests { md5: Some([2; 16]), ..Default::default() }), Err(ErrorKind::BadDigest));
        assert_eq!(kind(BodyDigests { checksum: Some(bad), ..Default::default() }), Err(ErrorKind::BadDigest));
        assert_eq!(kind(BodyDigests { trailing: trailing(Ok(good)), ..Default::default() }), Ok(()));
        assert_eq!(kind(BodyDigests { trailing: trailing(Ok(bad)), ..Default::default() }), Err(ErrorKind::BadDigest));
        let signed = |sha256| BodyDigests { payload_sha256: Some(sha256), ..Default::default() };
        assert_eq!(kind(signed([3; 32])), Ok(()));
        assert_eq!(kind(signed([4; 32])), Err(ErrorKind::ContentSha256Mismatch));
        assert_eq!(verify(&signed([3; 32]), &sums(None)).unwrap_err().kind, ErrorKind::ContentSha256Mismatch);
        let missing = Err(Error::new(ErrorKind::InvalidRequest, "no trailer"));
        let got = kind(BodyDigests { trailing: trailing(missing), ..Default::default() });
        assert_eq!(got, Err(ErrorKind::InvalidRequest));
    }

    #[test]
    fn parts_become_an_object() {
        let parts: [&[u8]; 3] = [b"hello ", b"", b"world"];
        for algorithm in ChecksumAlgorithm::ALL {
            let values: Vec<_> = parts.iter().map(|part| (value(algorithm, part), part.len() as u64)).collect();
            let joined: Vec<u8> = values.iter().flat_map(|(value, _)| value.as_bytes().to_vec()).collect();
            let only: Vec<_> = values.iter().map(|(value, _)| *value).collect();
            let composed = composite(algorithm, &only);
            assert_eq!((composed.value, composed.parts), (value(algorithm, &joined), Some(3)));
            let combined = combined(algorithm, &values);
            if algorithm.is_crc() {
                assert_eq!(combined.unwrap().value, value(algorithm, b"hello world"));
            } else {
                assert_eq!(combined.unwrap_err().kind, ErrorKind::InternalError);
            }
        }
    }

    #[test]
    fn types_and_algorithms_that_do_not_go_together() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        assert!(check_upload(Crc32, ChecksumType::FullObject).is_ok());
        assert!(check_upload(Crc32, ChecksumType::Composite).is_ok());
        assert!(check_upload(Sha256, ChecksumType::Composite).is_ok());
        assert!(check_upload(Sha256, ChecksumType::FullObject).is_err());
        assert!(check_upload(Crc64Nvme, ChecksumType::Composite).is_err());
    }
}
