//! The index footer of a sealed extent: every record of its frames with the sequence it had, so that a start reads a
//! few blocks of an extent instead of all its frames.

use super::record::Record;
use super::{Epoch, VERSION, crc32c_holds, get, seal_crc32c, set, u32_at, u64_at};

/// First bytes of a footer.
const MAGIC: [u8; 8] = *b"PSTINDEX";
const HEADER_BYTES: usize = 128;
const SEQUENCE_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of a footer without entries.
pub(crate) const EMPTY_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// A record and its place in the device's order of events: frame sequence and number within the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) lsn: u64,
    pub(crate) record: Record,
}

/// The place in the device's order of events of record `index` of frame `sequence`.
pub(crate) fn lsn(sequence: u64, index: usize) -> u64 {
    (sequence << 16) | index as u64
}

/// Bytes that an entry takes.
pub(crate) fn entry_bytes(record: &Record) -> usize {
    SEQUENCE_BYTES + record.encoded_bytes()
}

/// What a footer says of its extent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FooterHeader {
    pub(crate) epoch: Epoch,
    pub(crate) device_offset: u64,
    pub(crate) frames_bytes: u64,
    pub(crate) root: u64,
}

/// The footer, unpadded.
pub(crate) fn encode(header: &FooterHeader, entries: &[Entry]) -> Vec<u8> {
    let body = entries.iter().map(|entry| entry_bytes(&entry.record)).sum::<usize>();
    let mut out = vec![0; EMPTY_BYTES + body];
    let total = out.len();
    set(&mut out, 0, MAGIC);
    set(&mut out, 8, VERSION.to_le_bytes());
    set(&mut out, 12, (entries.len() as u32).to_le_bytes());
    set(&mut out, 16, header.epoch);
    set(&mut out, 32, header.device_offset.to_le_bytes());
    set(&mut out, 40, header.frames_bytes.to_le_bytes());
    set(&mut out, 48, header.root.to_le_bytes());
    set(&mut out, 56, (total as u64).to_le_bytes());
    seal_crc32c(&mut out[..HEADER_BYTES]);
    let mut at = HEADER_BYTES;
    for entry in entries {
        set(&mut out, at, entry.lsn.to_le_bytes());
        entry.record.encode(&mut out[at + SEQUENCE_BYTES..]);
        at += entry_bytes(&entry.record);
    }
    let checksum = penstock_digest::crc64nvme(&out[..at]);
    set(&mut out, at, checksum.to_le_bytes());
    out
}

/// Reads a footer that was written for exactly this extent.
pub(crate) fn decode(expected: &FooterHeader, bytes: &[u8]) -> Option<Vec<Entry>> {
    if bytes.len() < EMPTY_BYTES || !crc32c_holds(&bytes[..HEADER_BYTES]) {
        return None;
    }
    let header = FooterHeader {
        epoch: get(bytes, 16),
        device_offset: u64_at(bytes, 32),
        frames_bytes: u64_at(bytes, 40),
        root: u64_at(bytes, 48),
    };
    let end = bytes.len() - CHECKSUM_BYTES;
    let holds = get(bytes, 0) == MAGIC
        && get(bytes, 8) == VERSION.to_le_bytes()
        && header == *expected
        && u64_at(bytes, 56) == bytes.len() as u64
        && penstock_digest::crc64nvme(&bytes[..end]) == u64_at(bytes, end);
    if !holds {
        return None;
    }
    let mut entries = Vec::new();
    let mut at = HEADER_BYTES;
    for _ in 0..u32_at(bytes, 12) {
        let lsn = u64_at(bytes.get(at..at + SEQUENCE_BYTES)?, 0);
        let record = Record::decode(bytes.get(at + SEQUENCE_BYTES..end)?)?;
        at += entry_bytes(&record);
        let payload_end = u64::from(record.payload_offset) + u64::from(record.length);
        if payload_end > header.frames_bytes {
            return None;
        }
        entries.push(Entry { lsn, record });
    }
    (at == end).then_some(entries)
}
