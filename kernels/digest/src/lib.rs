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
//! **Many at once.** One stream of MD5 runs at 0.8 GB/s on a core, however it is written, and one of SHA-256 at 2; over
//! independent messages in the lanes of SIMD registers, the same core does many times that. [`md5_many`] and
//! [`sha256_many`] take whole messages; a [`HashScheduler`] takes streams of many requests as their chunks come. A server
//! makes one ([`HashScheduler::from_env`]), and for each object to be hashed a stream ([`HashScheduler::md5_stream`]):
//! `stream.update(chunk).await` for each chunk of the body before it goes on to be encoded (it takes [`bytes::Bytes`]
//! without copying, and hashes on while the caller encodes), `stream.finish().await` for the ETag. Dropping a stream
//! gives it up. [`HashTier`] says which instructions there are.
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

#![deny(unsafe_op_in_unsafe_fn)]

mod algorithm;
mod checksum;
mod crc;
mod error;
mod hash;
mod lanes;
mod many;
mod ring;
mod scheduler;
mod tier;

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod tests;

pub use algorithm::{LaneHash, Md5, Sha256};
pub use checksum::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, DIGEST_BYTES_MAX, combine_full_object};
pub use crc::{
    Crc32, Crc32c, Crc64Nvme, crc32, crc32_combine, crc32_zeros, crc32c, crc32c_combine, crc32c_zeros, crc64nvme,
    crc64nvme_combine, crc64nvme_zeros,
};
pub use error::DigestError;
pub use hash::{Md5Hasher, Sha1Hasher, Sha256Hasher, Sha512Hasher, Xxh3Hasher, Xxh64Hasher, Xxh128Hasher};
pub use many::{md5_many, sha256_many};
pub use scheduler::{
    CHUNKS_QUEUED_MAX, COMPANY_WAIT_US_MAX, HashCounts, HashScheduler, HashStream, INLINE_BYTES_MAX, Md5Stream,
    STEP_BLOCKS_MAX, STREAM_BYTES_MAX, STREAM_CHUNKS_MAX, Sha256Stream, WORKERS_MAX,
};
pub use tier::{HASH_TIER_NAMES, HASH_TIER_VARIABLE, HashTier, HashTierError};
