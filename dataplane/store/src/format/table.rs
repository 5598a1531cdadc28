//! The extent table: the state of every slot, in two copies that are written one after the other with a flush between,
//! so that a power cut tears one at most, and a rotten block in one leaves the other. The newer copy that checks wins.

use super::{BLOCK_BYTES, Epoch, VERSION, crc32c_holds, get, seal_crc32c, set, u32_at, u64_at};

/// First bytes of a table block.
const MAGIC: [u8; 8] = *b"PSTTABLE";
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 64;
/// Slots that one block describes.
pub(crate) const ENTRIES_PER_BLOCK: usize = (BLOCK_BYTES - HEADER_BYTES - 4) / ENTRY_BYTES;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SlotState {
    /// For nothing.
    #[default]
    Free,
    /// Frames are being appended.
    Open,
    /// Nothing is appended any more.
    Sealed,
}

/// One slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotEntry {
    pub(crate) state: SlotState,
    pub(crate) epoch: Epoch,
    /// Number of this use of a slot: grows over the whole device.
    pub(crate) extent: u64,
    /// Sealed: bytes of frames. Open: bytes of frames that are known to be durable (0 if nobody wrote that down).
    pub(crate) frames_bytes: u64,
    /// CRC64NVME of the last frame's head, which holds the hash of the frame before it, and so on.
    pub(crate) root: u64,
    /// Bytes of the index footer behind the frames, unpadded. 0: none was written, the frames have to be read.
    pub(crate) footer_bytes: u32,
}

/// A block of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableBlock {
    pub(crate) number: u32,
    pub(crate) generation: u64,
    pub(crate) entries: [SlotEntry; ENTRIES_PER_BLOCK],
}

impl TableBlock {
    pub(crate) fn blank(number: u32) -> Self {
        Self { number, generation: 1, entries: [SlotEntry::default(); ENTRIES_PER_BLOCK] }
    }

    pub(crate) fn encode(&self, device: [u8; 16]) -> [u8; BLOCK_BYTES] {
        let mut out = [0; BLOCK_BYTES];
        set(&mut out, 0, MAGIC);
        set(&mut out, 8, u32::from(VERSION).to_le_bytes());
        set(&mut out, 12, self.number.to_le_bytes());
        set(&mut out, 16, self.generation.to_le_bytes());
        set(&mut out, 24, device);
        for (index, entry) in self.entries.iter().enumerate() {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            out[at] = match entry.state {
                SlotState::Free => 0,
                SlotState::Open => 1,
                SlotState::Sealed => 2,
            };
            set(&mut out, at + 4, entry.footer_bytes.to_le_bytes());
            set(&mut out, at + 8, entry.epoch);
            set(&mut out, at + 24, entry.extent.to_le_bytes());
            set(&mut out, at + 32, entry.frames_bytes.to_le_bytes());
            set(&mut out, at + 40, entry.root.to_le_bytes());
        }
        seal_crc32c(&mut out);
        out
    }

    pub(crate) fn decode(block: &[u8], device: [u8; 16], number: u32) -> Option<Self> {
        let holds = block.len() == BLOCK_BYTES
            && get(block, 0) == MAGIC
            && crc32c_holds(block)
            && u32_at(block, 8) == u32::from(VERSION)
            && u32_at(block, 12) == number
            && get(block, 24) == device;
        if !holds {
            return None;
        }
        let mut out = Self::blank(number);
        out.generation = u64_at(block, 16);
        for (index, entry) in out.entries.iter_mut().enumerate() {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            *entry = SlotEntry {
                state: match block[at] {
                    0 => SlotState::Free,
                    1 => SlotState::Open,
                    2 => SlotState::Sealed,
                    _ => return None,
                },
                footer_bytes: u32_at(block, at + 4),
                epoch: get(block, at + 8),
                extent: u64_at(block, at + 24),
                frames_bytes: u64_at(block, at + 32),
                root: u64_at(block, at + 40),
            };
        }
        Some(out)
    }
}
