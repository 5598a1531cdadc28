//! The superblock: what a device is. Written once, when the device is formatted, in three copies; any one that checks
//! is enough. The last copy is written last, so that a device whose last copy is blank was never in use.

use super::table::ENTRIES_PER_BLOCK;
use super::{BLOCK, BLOCK_BYTES, VERSION, crc32c_holds, get, seal_crc32c, set, u32_at, u64_at};
use crate::StoreError;

/// First bytes of a superblock.
pub(crate) const MAGIC: [u8; 8] = *b"PSTSUPER";
/// Copies of the superblock.
pub(crate) const COPIES: usize = 3;
/// Where the first copy of the extent table begins.
const TABLE_OFFSET: u64 = 128 << 10;
/// Slots begin on a multiple of this.
const DATA_ALIGN: u64 = 1 << 20;
/// Smallest extent: it holds at least one frame and its footer.
pub(crate) const EXTENT_BYTES_MIN: u64 = 16 << 20;
/// Largest extent: offsets within it are 32 bits.
pub(crate) const EXTENT_BYTES_MAX: u64 = 1 << 30;
/// Largest extent chosen by itself.
const EXTENT_BYTES_DEFAULT_MAX: u64 = 256 << 20;
/// Fewest extents: one open, one kept back, one full, one being emptied.
pub(crate) const EXTENTS_MIN: u32 = 4;

/// What a device is and where its parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) generation: u64,
    pub(crate) device: [u8; 16],
    pub(crate) capacity_bytes: u64,
    pub(crate) extent_bytes: u64,
    pub(crate) extents: u32,
    pub(crate) table_offset: u64,
    /// Of one copy; the second follows the first.
    pub(crate) table_bytes: u64,
    pub(crate) data_offset: u64,
}

/// `capacity / 64`, as a power of two between 16 MiB and 256 MiB.
pub(crate) fn default_extent_bytes(capacity_bytes: u64) -> u64 {
    let wanted = (capacity_bytes / 64).clamp(EXTENT_BYTES_MIN, EXTENT_BYTES_DEFAULT_MAX);
    1 << wanted.ilog2()
}

impl Superblock {
    /// Lays out a device. `extent_bytes` 0 means [`default_extent_bytes`].
    pub(crate) fn plan(device: [u8; 16], capacity_bytes: u64, extent_bytes: u64) -> Result<Self, StoreError> {
        let extent_bytes = if extent_bytes == 0 { default_extent_bytes(capacity_bytes) } else { extent_bytes };
        if !extent_bytes.is_power_of_two() || !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&extent_bytes) {
            return Err(StoreError::format(format!(
                "an extent of {extent_bytes} bytes: it must be a power of two from {EXTENT_BYTES_MIN} to {EXTENT_BYTES_MAX}"
            )));
        }
        let at_most = capacity_bytes / extent_bytes;
        let table_bytes = at_most.div_ceil(ENTRIES_PER_BLOCK as u64) * BLOCK;
        let data_offset = (TABLE_OFFSET + 2 * table_bytes).next_multiple_of(DATA_ALIGN);
        let extents = capacity_bytes.saturating_sub(data_offset + BLOCK) / extent_bytes;
        match u32::try_from(extents) {
            Ok(extents) if extents >= EXTENTS_MIN => Ok(Self {
                generation: 1,
                device,
                capacity_bytes,
                extent_bytes,
                extents,
                table_offset: TABLE_OFFSET,
                table_bytes,
                data_offset,
            }),
            _ => Err(StoreError::format(format!(
                "a device of {capacity_bytes} bytes has room for {extents} extents of {extent_bytes} bytes: it needs {EXTENTS_MIN} at least"
            ))),
        }
    }

    /// Where the copies lie on a device of `device_bytes`.
    pub(crate) fn copy_offsets(device_bytes: u64) -> [u64; COPIES] {
        [0, 64 << 10, device_bytes.saturating_sub(BLOCK) / BLOCK * BLOCK]
    }

    /// Where slot `slot` begins.
    pub(crate) fn slot_offset(&self, slot: u32) -> u64 {
        self.data_offset + u64::from(slot) * self.extent_bytes
    }

    pub(crate) fn encode(&self, copy: usize) -> [u8; BLOCK_BYTES] {
        let mut out = [0; BLOCK_BYTES];
        set(&mut out, 0, MAGIC);
        set(&mut out, 8, u32::from(VERSION).to_le_bytes());
        set(&mut out, 12, (copy as u32).to_le_bytes());
        set(&mut out, 16, self.generation.to_le_bytes());
        set(&mut out, 24, self.device);
        set(&mut out, 40, self.capacity_bytes.to_le_bytes());
        set(&mut out, 48, self.extent_bytes.to_le_bytes());
        set(&mut out, 56, self.extents.to_le_bytes());
        set(&mut out, 64, self.table_offset.to_le_bytes());
        set(&mut out, 72, self.table_bytes.to_le_bytes());
        set(&mut out, 80, self.data_offset.to_le_bytes());
        seal_crc32c(&mut out);
        out
    }

    /// `Ok(None)` when the block does not check; an error when it checks but is of another version.
    pub(crate) fn decode(block: &[u8], copy: usize) -> Result<Option<Self>, StoreError> {
        if block.len() != BLOCK_BYTES || get(block, 0) != MAGIC || !crc32c_holds(block) {
            return Ok(None);
        }
        let version = u32_at(block, 8);
        if version != u32::from(VERSION) {
            return Err(StoreError::format(format!(
                "the device has format version {version}; this program reads version {VERSION}: use the release that wrote it"
            )));
        }
        if u32_at(block, 12) != copy as u32 {
            return Ok(None);
        }
        Ok(Some(Self {
            generation: u64_at(block, 16),
            device: get(block, 24),
            capacity_bytes: u64_at(block, 40),
            extent_bytes: u64_at(block, 48),
            extents: u32_at(block, 56),
            table_offset: u64_at(block, 64),
            table_bytes: u64_at(block, 72),
            data_offset: u64_at(block, 80),
        }))
    }
}
