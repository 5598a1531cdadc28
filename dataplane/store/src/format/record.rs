//! A record: one put or one tombstone, as it stands in a frame's head and in an index footer.

use std::sync::Arc;

use penstock_proto::limits::SHARD_BYTES_MAX;
use penstock_proto::{DataId, ShardKey};

use super::{CRC_BLOCK_BYTES, get, set, u32_at, u64_at};

/// Bytes of a record without its block checksums.
const FIXED_BYTES: usize = 40;
/// Records begin on a multiple of this.
const ALIGN: usize = 8;
/// Payloads shorter than this are copied behind the frame's head, one after the other; longer ones are written from
/// where they are, and begin on a block.
pub(crate) const PACKED_BYTES_MAX: usize = 32 << 10;
/// Packed payloads begin on a multiple of this.
pub(crate) const PACKED_ALIGN: usize = 64;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// This shard is here.
    Put,
    /// All shards of this data that were stored before are gone.
    Tombstone,
}

/// One put or one tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) key: ShardKey,
    /// Bytes of the shard; 0 for a tombstone.
    pub(crate) length: u32,
    /// Where the payload begins: from the frame's start in a frame, from the extent's start everywhere else.
    pub(crate) payload_offset: u32,
    /// CRC64NVME of the shard.
    pub(crate) crc64: u64,
    /// CRC32C of every [`CRC_BLOCK_BYTES`] of the shard.
    pub(crate) blocks: Arc<[u32]>,
}

impl Record {
    /// The record of a shard that is not placed yet. Costs a pass over the data.
    pub(crate) fn put(key: ShardKey, data: &[u8], crc64: u64) -> Self {
        let blocks = data.chunks(CRC_BLOCK_BYTES).map(penstock_digest::crc32c).collect();
        Self { kind: RecordKind::Put, key, length: data.len() as u32, payload_offset: 0, crc64, blocks }
    }

    pub(crate) fn tombstone(data: DataId) -> Self {
        let key = ShardKey { data, stripe: 0, shard: 0 };
        Self { kind: RecordKind::Tombstone, key, length: 0, payload_offset: 0, crc64: 0, blocks: Arc::new([]) }
    }

    /// Bytes of the encoded record.
    pub(crate) fn encoded_bytes(&self) -> usize {
        (FIXED_BYTES + 4 * self.blocks.len()).next_multiple_of(ALIGN)
    }

    /// Bytes that the record and its payload take in a frame, packed as well as they can be.
    pub(crate) fn footprint_bytes(&self) -> u64 {
        let length = self.length as usize;
        let align = if length < PACKED_BYTES_MAX { PACKED_ALIGN } else { super::BLOCK_BYTES };
        (self.encoded_bytes() + length.next_multiple_of(align)) as u64
    }

    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[..self.encoded_bytes()].fill(0);
        out[0] = match self.kind {
            RecordKind::Put => 1,
            RecordKind::Tombstone => 2,
        };
        set(out, 3, self.key.to_bytes());
        set(out, 24, self.length.to_le_bytes());
        set(out, 28, self.payload_offset.to_le_bytes());
        set(out, 32, self.crc64.to_le_bytes());
        for (index, crc) in self.blocks.iter().enumerate() {
            set(out, FIXED_BYTES + 4 * index, crc.to_le_bytes());
        }
    }

    /// Reads a record from the start of `bytes`, which was checksummed before.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FIXED_BYTES {
            return None;
        }
        let length = u32_at(bytes, 24);
        let kind = match bytes[0] {
            1 if length > 0 && length as usize <= SHARD_BYTES_MAX => RecordKind::Put,
            2 if length == 0 => RecordKind::Tombstone,
            _ => return None,
        };
        let blocks = (length as usize).div_ceil(CRC_BLOCK_BYTES);
        if bytes.len() < FIXED_BYTES + 4 * blocks {
            return None;
        }
        Some(Self {
            kind,
            key: ShardKey::from_bytes(&get(bytes, 3)),
            length,
            payload_offset: u32_at(bytes, 28),
            crc64: u64_at(bytes, 32),
            blocks: (0..blocks).map(|index| u32_at(bytes, FIXED_BYTES + 4 * index)).collect(),
        })
    }

    /// Whether `payload` is what this record was made from, by its CRC32Cs.
    pub(crate) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.length as usize
            && payload.chunks(CRC_BLOCK_BYTES).map(penstock_digest::crc32c).eq(self.blocks.iter().copied())
    }
}
