//! Reading an extent's frames where there is no footer to go by: extents that were open when the store stopped, and
//! sealed ones whose footer is missing or rotten.
//!
//! **Where the log ends.** A frame says how much of its extent was durable when it was written. So whatever lies below
//! the largest such number was acknowledged: a frame missing there is corruption, which is counted, and the rest is
//! read all the same. What lies above was written in the last group, which may have been cut off: its frames count up
//! to the first that is incomplete (payload included), broken in its chain, or out of place.

use penstock_buf::Buf;

use crate::disk::{Disk, STEP_BYTES};
use crate::format::footer::{Entry, lsn};
use crate::format::frame::{FrameHeader, HEADER_BYTES, decode_head};
use crate::format::record::Record;
use crate::format::{BLOCK, BLOCK_BYTES, Epoch};

/// An extent's frames.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<Entry>,
    /// Where the log ends.
    pub(crate) end: u64,
    /// Checksum of the last frame's head.
    pub(crate) root: u64,
    /// Highest sequence seen, in frames that don't count too.
    pub(crate) sequence_max: u64,
    /// Acknowledged frames, or runs of them, that are missing or broken in their heads.
    pub(crate) lost: u64,
    /// Whether the log ends in a frame that does not count.
    pub(crate) torn: bool,
}

struct Found {
    offset: u64,
    header: FrameHeader,
    checksum: u64,
    records: Vec<Record>,
}

/// Reads the frames in the first `limit` bytes of the slot at `base`. Frames below `acknowledged` are known to have
/// been acknowledged, whatever they say.
pub(crate) async fn scan(disk: &Disk, epoch: &Epoch, base: u64, limit: u64, acknowledged: u64) -> Scan {
    let mut window = Window { disk, base, limit, start: 0, bytes: None, unreadable: 0 };
    let mut found: Vec<Found> = Vec::new();
    let mut at = 0;
    while at + BLOCK <= limit {
        match frame_at(&mut window, epoch, at).await {
            Some(frame) if at + u64::from(frame.header.frame_bytes) <= limit => {
                at += u64::from(frame.header.frame_bytes);
                found.push(frame);
            }
            _ => at += BLOCK,
        }
    }
    let acknowledged = found.iter().map(|frame| frame.header.synced_bytes).fold(acknowledged, u64::max);
    let mut out = Scan {
        lost: window.unreadable,
        sequence_max: found.iter().map(|frame| frame.header.sequence).max().unwrap_or(0),
        ..Scan::default()
    };
    let mut last_sequence = 0;
    for frame in found {
        let follows = frame.offset == out.end && frame.header.previous == out.root;
        let later = frame.header.sequence > last_sequence;
        if frame.offset < acknowledged {
            if !later {
                continue;
            }
            if !follows {
                out.lost += 1;
            }
        } else if !(follows && later && payloads_hold(disk, base, &frame.records).await) {
            out.torn = true;
            break;
        }
        last_sequence = frame.header.sequence;
        out.end = frame.offset + u64::from(frame.header.frame_bytes);
        out.root = frame.checksum;
        let entries = frame.records.into_iter().enumerate();
        out.entries.extend(entries.map(|(index, record)| Entry { lsn: lsn(last_sequence, index), record }));
    }
    if out.end < acknowledged {
        out.lost += 1;
        out.end = acknowledged;
    }
    out
}

async fn frame_at(window: &mut Window<'_>, epoch: &Epoch, at: u64) -> Option<Found> {
    let base = window.base;
    let header = FrameHeader::decode(window.get(at, HEADER_BYTES).await?, epoch, base + at)?;
    let head = window.get(at, header.head_bytes as usize).await?;
    let (records, checksum) = decode_head(&header, head, at)?;
    Some(Found { offset: at, header, checksum, records })
}

/// Whether every payload is there, whole.
async fn payloads_hold(disk: &Disk, base: u64, records: &[Record]) -> bool {
    for record in records.iter().filter(|record| record.length > 0) {
        let offset = base + u64::from(record.payload_offset);
        match disk.read_span(&disk.pool, offset, record.length as usize).await {
            Ok(payload) if record.matches(&payload) => {}
            _ => return false,
        }
    }
    true
}

/// Reads ahead, so that a walk over small frames is not one device read for each.
struct Window<'a> {
    disk: &'a Disk,
    base: u64,
    limit: u64,
    start: u64,
    bytes: Option<Buf>,
    unreadable: u64,
}

impl Window<'_> {
    /// `None` when the bytes are past the limit or can't be read.
    async fn get(&mut self, at: u64, length: usize) -> Option<&[u8]> {
        if at + length as u64 > self.limit {
            return None;
        }
        let have = self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if at < self.start || at + length as u64 > self.start + have {
            let wanted = length.max(STEP_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
            let wanted = wanted.min(self.limit - at);
            self.start = at;
            self.bytes = match self.disk.read_span(&self.disk.pool, self.base + at, wanted as usize).await {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    // One bad block must not cost the window's other frames: try just what was asked for.
                    tracing::error!(offset = self.base + at, %error, "a part of an extent can't be read");
                    let exact = self.disk.read_span(&self.disk.pool, self.base + at, length).await;
                    self.unreadable += u64::from(exact.is_err());
                    exact.ok()
                }
            };
        }
        let from = (at - self.start) as usize;
        self.bytes.as_ref()?.get(from..from + length)
    }
}
