//! What can be done with any of the codes, and what a repair reads.

use crate::{ErasureError, Tier};
use std::fmt;

/// What rebuilding some shards takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// Indices of the shards to read, ascending. Giving exactly these to [`Code::reconstruct`] is enough.
    pub reads: Vec<usize>,
    /// What that is in bytes.
    pub bytes: u64,
}

/// A systematic erasure code: k data shards, stored as they are, and m parity shards.
///
/// Data shards have the indices 0 to k - 1, parity shards k to k + m - 1. All shards of a stripe have one length, any
/// from 1 byte up. A code works byte by byte, so that all methods may also be used on a part of the shards, at the same
/// offsets in all: long shards can be streamed in chunks.
///
/// Make one and share it: it holds the prepared matrix and a bounded cache of decode matrices.
///
/// # Errors
/// All methods: [`ErasureError::WrongShardCount`], [`ErasureError::UnequalLengths`], [`ErasureError::ZeroLength`],
/// [`ErasureError::BadIndex`] and [`ErasureError::DuplicateShard`] for arguments that make no sense, before a byte is
/// written.
pub trait Code: fmt::Debug + Send + Sync {
    /// Number of data shards, k.
    fn data_shards(&self) -> usize;

    /// Number of parity shards, m.
    fn parity_shards(&self) -> usize;

    /// The tier whose kernels run.
    fn tier(&self) -> Tier;

    /// Number of all shards, k + m.
    fn total_shards(&self) -> usize {
        self.data_shards() + self.parity_shards()
    }

    /// Computes all parity shards from all data shards, each in order of index. Old contents of `parity` don't matter.
    ///
    /// # Errors
    /// See [`Code`].
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError>;

    /// As [`Code::encode`], and in the same pass the CRC64NVME of all k + m shards.
    ///
    /// `crcs` has one per shard, in order of index. They are running CRCs: **zero to start with**, or what this method
    /// gave for the chunk before.
    ///
    /// # Errors
    /// See [`Code`].
    fn encode_with_crc64(&self, data: &[&[u8]], parity: &mut [&mut [u8]], crcs: &mut [u64])
    -> Result<(), ErasureError>;

    /// Whether the parity shards are those of the data shards. Says that something is wrong, not which shard.
    ///
    /// # Errors
    /// See [`Code`].
    fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ErasureError>;

    /// As [`Code::verify`], and in the same pass the CRC64NVME of all shards (as [`Code::encode_with_crc64`]); these
    /// stay as they are when the answer is false.
    ///
    /// # Errors
    /// See [`Code`].
    fn verify_with_crc64(&self, data: &[&[u8]], parity: &[&[u8]], crcs: &mut [u64]) -> Result<bool, ErasureError>;

    /// Rebuilds the shards `wanted`, data or parity, from the shards `present`; both list shards with their indices,
    /// in any order. A wanted shard that is present is copied. What is present is believed: verify checksums first, or
    /// use [`Code::reconstruct_with_crc64`].
    ///
    /// # Errors
    /// See [`Code`]; [`ErasureError::TooFewShards`] or [`ErasureError::Undecodable`] when what is present is not
    /// enough.
    fn reconstruct(&self, present: &[(usize, &[u8])], wanted: &mut [(usize, &mut [u8])]) -> Result<(), ErasureError>;

    /// As [`Code::reconstruct`] of shards none of which is present, and in the same pass the CRC64NVME of what it read
    /// and what it wrote. Returns the indices of the shards that were read: compare their CRCs with what they should
    /// be, before using what was rebuilt from them.
    ///
    /// `crcs` has one per shard of the stripe, k + m, running as those of [`Code::encode_with_crc64`]; those of shards
    /// neither read nor written stay as they are.
    ///
    /// # Errors
    /// As [`Code::reconstruct`]; [`ErasureError::DuplicateShard`] when a wanted shard is present.
    fn reconstruct_with_crc64(
        &self,
        present: &[(usize, &[u8])],
        wanted: &mut [(usize, &mut [u8])],
        crcs: &mut [u64],
    ) -> Result<Vec<usize>, ErasureError>;

    /// Brings all parity shards up to date when data shard `shard_index` changes: `delta` is its old contents XOR its
    /// new ones (XOR is [`penstock_gf256::xor`]).
    ///
    /// # Errors
    /// See [`Code`]; [`ErasureError::BadIndex`] unless the shard is a data shard.
    fn update_parity(&self, shard_index: usize, delta: &[u8], parity: &mut [&mut [u8]]) -> Result<(), ErasureError>;

    /// The fewest shards from which all of `lost` can be rebuilt at once when all others are there, for shards of
    /// `shard_bytes`.
    ///
    /// # Errors
    /// See [`Code`]; [`ErasureError::TooFewShards`] or [`ErasureError::Undecodable`] when too many are lost.
    fn repair_plan(&self, lost: &[usize], shard_bytes: u64) -> Result<RepairPlan, ErasureError>;
}
