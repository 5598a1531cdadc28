//! A frame: one group commit, or a part of one. It begins with a head (header, records, CRC64NVME over both); short
//! payloads follow the head, long ones begin on blocks behind that. The records hold the payloads' CRC32Cs, so the
//! head's checksum speaks for the whole frame, and since the header holds the previous frame's, for all before it.

use super::record::Record;
use super::{BLOCK, BLOCK_BYTES, Epoch, VERSION, crc32c_holds, get, seal_crc32c, set, u32_at, u64_at};

/// First bytes of a frame.
pub(crate) const MAGIC: [u8; 8] = *b"PSTFRAME";
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 128;
/// Longest frame. The design says 1 MiB; a shard may have 4 MiB and does not span frames.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;
/// Most records of one frame: bounds the head, and the io-vectors of one write.
pub(crate) const FRAME_RECORDS_MAX: usize = 512;
/// The checksum behind the records.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) epoch: Epoch,
    /// Where on the device the frame was meant to go.
    pub(crate) device_offset: u64,
    /// Grows over the whole device, so that of two records of one key the later one is known.
    pub(crate) sequence: u64,
    pub(crate) records: u32,
    pub(crate) frame_bytes: u32,
    /// Header, records and checksum.
    pub(crate) head_bytes: u32,
    /// Bytes of this extent's frames that were durable when this frame was written: what lies below was acknowledged.
    pub(crate) synced_bytes: u64,
    /// Checksum of the previous frame's head; 0 for the first.
    pub(crate) previous: u64,
}

impl FrameHeader {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        set(&mut out, 0, MAGIC);
        set(&mut out, 8, VERSION.to_le_bytes());
        set(&mut out, 12, self.records.to_le_bytes());
        set(&mut out, 16, self.epoch);
        set(&mut out, 32, self.device_offset.to_le_bytes());
        set(&mut out, 40, self.sequence.to_le_bytes());
        set(&mut out, 48, self.frame_bytes.to_le_bytes());
        set(&mut out, 52, self.head_bytes.to_le_bytes());
        set(&mut out, 56, self.synced_bytes.to_le_bytes());
        set(&mut out, 64, self.previous.to_le_bytes());
        seal_crc32c(&mut out);
        out
    }

    /// Reads a header if it is one of this epoch and was meant for this place.
    pub(crate) fn decode(bytes: &[u8], epoch: &Epoch, device_offset: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let header = Self {
            epoch: get(bytes, 16),
            device_offset: u64_at(bytes, 32),
            sequence: u64_at(bytes, 40),
            records: u32_at(bytes, 12),
            frame_bytes: u32_at(bytes, 48),
            head_bytes: u32_at(bytes, 52),
            synced_bytes: u64_at(bytes, 56),
            previous: u64_at(bytes, 64),
        };
        let holds = get(bytes, 0) == MAGIC
            && get(bytes, 8) == VERSION.to_le_bytes()
            && header.epoch == *epoch
            && header.device_offset == device_offset
            && crc32c_holds(bytes)
            && header.frame_bytes as usize <= FRAME_BYTES_MAX
            && u64::from(header.frame_bytes) % BLOCK == 0
            && header.head_bytes <= header.frame_bytes
            && header.head_bytes as usize >= HEADER_BYTES + CHECKSUM_BYTES
            && (1..=FRAME_RECORDS_MAX as u32).contains(&header.records);
        holds.then_some(header)
    }
}

/// Encodes a head into the start of `out`, which is as long as `header.head_bytes`. Answers its checksum.
pub(crate) fn encode_head<'a>(header: &FrameHeader, records: impl Iterator<Item = &'a Record>, out: &mut [u8]) -> u64 {
    out[..HEADER_BYTES].copy_from_slice(&header.encode());
    let mut at = HEADER_BYTES;
    for record in records {
        record.encode(&mut out[at..]);
        at += record.encoded_bytes();
    }
    assert_eq!(at + CHECKSUM_BYTES, header.head_bytes as usize, "a head is as long as its header says");
    let checksum = penstock_digest::crc64nvme(&out[..at]);
    set(out, at, checksum.to_le_bytes());
    checksum
}

/// Reads the records of a head whose header was read. Payload offsets come out counted from the extent's start.
/// Answers the head's checksum with them.
pub(crate) fn decode_head(header: &FrameHeader, head: &[u8], frame_offset: u64) -> Option<(Vec<Record>, u64)> {
    let end = (header.head_bytes as usize).checked_sub(CHECKSUM_BYTES)?;
    let checksum = u64_at(head.get(..header.head_bytes as usize)?, end);
    if penstock_digest::crc64nvme(&head[..end]) != checksum {
        return None;
    }
    let mut records = Vec::with_capacity(header.records as usize);
    let mut at = HEADER_BYTES;
    for _ in 0..header.records {
        let mut record = Record::decode(&head[at..end])?;
        at += record.encoded_bytes();
        let payload_end = record.payload_offset.checked_add(record.length)?;
        if at > end || payload_end > header.frame_bytes {
            return None;
        }
        record.payload_offset = u32::try_from(frame_offset).ok()?.checked_add(record.payload_offset)?;
        records.push(record);
    }
    (at == end).then_some((records, checksum))
}

/// How a frame's parts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) head_bytes: usize,
    /// Head and packed payloads, padded to a block.
    pub(crate) front_bytes: usize,
    pub(crate) frame_bytes: usize,
    /// Where each record's payload begins.
    pub(crate) offsets: Vec<u32>,
}

/// Lays out a frame of payloads whose records are these.
pub(crate) fn layout<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Layout {
    let head_bytes = HEADER_BYTES + records.clone().map(Record::encoded_bytes).sum::<usize>() + CHECKSUM_BYTES;
    let mut front = head_bytes;
    let mut offsets: Vec<u32> = Vec::new();
    for record in records.clone() {
        if is_packed(record.length as usize) {
            front = front.next_multiple_of(super::record::PACKED_ALIGN);
            offsets.push(front as u32);
            front += record.length as usize;
        } else {
            offsets.push(0);
        }
    }
    let front_bytes = front.next_multiple_of(BLOCK_BYTES);
    let mut at = front_bytes;
    for (record, offset) in records.zip(&mut offsets) {
        if !is_packed(record.length as usize) {
            *offset = at as u32;
            at += (record.length as usize).next_multiple_of(BLOCK_BYTES);
        }
    }
    Layout { head_bytes, front_bytes, frame_bytes: at, offsets }
}

/// Whether a payload of this length stands behind the head rather than on blocks of its own.
pub(crate) fn is_packed(length: usize) -> bool {
    length < super::record::PACKED_BYTES_MAX
}
