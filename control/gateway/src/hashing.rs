//! The hashes of one body, computed beside the encoding and storing of its chunks, from the same memory.
//!
//! MD5 (every ETag) and SHA-256 (signed payloads, `x-amz-checksum-sha256`) go through the process's [`HashScheduler`],
//! which fills SIMD lanes from all bodies in flight: one body at a time hashes at 0.8 GB/s per core whatever one does,
//! sixteen of them together many times that. A chunk is only lent to it (a shared, sealed piece of memory); it holds one
//! chunk at work and one queued at most, and [`BodyHashes::update`] waits where that is full, so that a body's memory
//! stays bounded. CRC64NVME comes out of the encoding; other checksums are computed here, off the async threads where
//! that pays.
//!
//! How it fails: hashing can't. A hash worker that panicked is a bug, and panics in the body's next call. A body that is
//! given up drops its streams, and the workers let go of its chunks at their next step.

use bytes::Bytes;
use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, HashScheduler, Md5Stream, Sha256Stream};

use crate::error::{Error, ErrorKind, Result};

/// Pieces up to this long are hashed where they are, by what is not the scheduler's: handing them to another thread costs
/// as much.
const HERE_BYTES_MAX: usize = 64 << 10;

/// What is being computed.
pub(crate) struct BodyHashes {
    algorithm: ChecksumAlgorithm,
    md5: Md5Stream,
    sha256: Option<Sha256Stream>,
    /// For checksums that neither the stripes nor the scheduler have. None only while it is away on another thread.
    other: Option<ChecksumHasher>,
}

/// What came out.
pub(crate) struct BodySums {
    pub(crate) md5: [u8; 16],
    /// Where it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
    /// In the algorithm that was asked for.
    pub(crate) checksum: ChecksumValue,
}

impl BodyHashes {
    /// `payload_signed`: the SHA-256 is wanted whatever the algorithm.
    pub(crate) fn new(scheduler: &HashScheduler, algorithm: ChecksumAlgorithm, payload_signed: bool) -> Self {
        let with_sha256 = payload_signed || algorithm == ChecksumAlgorithm::Sha256;
        let elsewhere = matches!(algorithm, ChecksumAlgorithm::Crc64Nvme | ChecksumAlgorithm::Sha256);
        Self {
            algorithm,
            md5: scheduler.md5_stream(),
            sha256: with_sha256.then(|| scheduler.sha256_stream()),
            other: (!elsewhere).then(|| ChecksumHasher::new(algorithm)),
        }
    }

    /// Takes the next bytes of the body. Returns before they are hashed, as a rule: they stay lent until then.
    ///
    /// # Errors
    /// InternalError when a thread for blocking work stopped.
    pub(crate) async fn update(&mut self, bytes: Bytes) -> Result<()> {
        self.md5.update(bytes.clone()).await;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes.clone()).await;
        }
        let Some(mut other) = self.other.take() else { return Ok(()) };
        if bytes.len() <= HERE_BYTES_MAX {
            other.update(&bytes);
        } else {
            let work = move || {
                other.update(&bytes);
                other
            };
            other = tokio::task::spawn_blocking(work).await.map_err(|stopped| {
                Error::new(ErrorKind::InternalError, format!("a hashing thread stopped: {stopped}"))
            })?;
        }
        self.other = Some(other);
        Ok(())
    }

    /// The hashes of all bytes taken. `crc64` is their CRC64NVME, which the stripes have.
    pub(crate) async fn finish(self, crc64: u64) -> Result<BodySums> {
        let md5 = self.md5.finish().await;
        let sha256 = match self.sha256 {
            Some(stream) => Some(stream.finish().await),
            None => None,
        };
        let checksum = match (self.algorithm, self.other) {
            (_, Some(other)) => other.finish(),
            (ChecksumAlgorithm::Sha256, None) => ChecksumValue::from_bytes(self.algorithm, &sha256.unwrap_or_default())
                .map_err(|error| Error::new(ErrorKind::InternalError, error.to_string()))?,
            (_, None) => ChecksumValue::from_crc64nvme(crc64),
        };
        Ok(BodySums { md5, sha256, checksum })
    }
}
