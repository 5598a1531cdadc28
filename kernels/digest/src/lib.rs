//! Checksums and hashes of object data: CRC32, CRC32C and CRC64NVME that combine, MD5, SHA-1 and SHA-256.
//!
//! **What.** Each CRC has an incremental type ([`Crc64Nvme`]), a function for bytes in one piece ([`crc64nvme`]), one
//! that combines the CRCs of two pieces into the CRC of both ([`crc64nvme_combine`]) and one for a run of zeros
//! ([`crc64nvme_zeros`]); the latter two touch no data and take about a microsecond, whatever the length.
//! [`ChecksumHasher`] computes whichever of S3's checksums a request asks for, [`Md5Hasher`] its ETag.
//!
//! **Why combine.** Shards and parts are checksummed where they are; the object's checksum is combined from theirs
//! ([`combine_full_object`]), so that no byte is read twice.
//!
//! **Byte order.** A CRC is a number here. S3 sends it as the base64 of its big-endian bytes:
//! [`ChecksumValue::as_bytes`] gives these, as does `to_be_bytes` of the number; the base64 is the caller's.
//!
//! **How it fails.** Computing a checksum can't fail; only names and lengths that come from outside can be wrong, which
//! is a [`DigestError`].
//!
//! ```
//! use penstock_digest::{crc64nvme, crc64nvme_combine};
//! let whole = crc64nvme(b"123456789");
//! assert_eq!(whole, 0xae8b_1486_0a79_9888);
//! assert_eq!(crc64nvme_combine(crc64nvme(b"1234"), crc64nvme(b"56789"), 5), whole);
//! ```

#![forbid(unsafe_code)]

mod checksum;
mod crc;
mod error;
mod hash;
mod ring;

#[cfg(test)]
mod tests;

pub use checksum::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, DIGEST_BYTES_MAX, combine_full_object};
pub use crc::{
    Crc32, Crc32c, Crc64Nvme, crc32, crc32_combine, crc32_zeros, crc32c, crc32c_combine, crc32c_zeros, crc64nvme,
    crc64nvme_combine, crc64nvme_zeros,
};
pub use error::DigestError;
pub use hash::{Md5Hasher, Sha1Hasher, Sha256Hasher};
