//! The checksum of what passes.

use crc_fast::{CrcAlgorithm, Digest};
use penstock_rdma_wire::checksum::Algorithm;
use penstock_rdma_wire::rcv2::Checksum;

/// A running checksum.
pub(crate) struct Crc {
    algorithm: Algorithm,
    digest: Digest,
}

impl Crc {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let digest = Digest::new(match algorithm {
            Algorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
            Algorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
        });
        Self { algorithm, digest }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    pub(crate) fn finish(&self) -> Checksum {
        let value = self.digest.finalize();
        match self.algorithm {
            Algorithm::Crc64Nvme => Checksum::Crc64Nvme(value),
            Algorithm::Crc32c => Checksum::Crc32c(value as u32),
        }
    }
}

/// CRC64NVME of `bytes`.
pub(crate) fn crc64nvme(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(bytes);
    digest.finalize()
}
