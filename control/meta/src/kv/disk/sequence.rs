//! The engine's own rows, written with every batch: the running sequence number, and a ring of the last sequence
//! numbers.
//!
//! The sequence number against the [witness](super::witness) shows a lost *end*. The ring shows a hole: the log consists
//! of several files, and one of them could end early while the next goes on. Entry `sequence % RING_ENTRIES` holds
//! `sequence`; a batch that vanished leaves the number of one lap ago, or nothing. The ring is longer than the batches
//! that memtables of a bounded size can hold; what is older lies in tables with their own checksums.

use bytes::Bytes;

/// Under this key lies the sequence number of the last batch: u64, little-endian.
pub(super) const SEQUENCE_KEY: &[u8] = b"\xFF\xFFs";
/// Under this prefix, plus the entry's number (u32, big-endian), lies the ring.
const RING_PREFIX: &[u8] = b"\xFF\xFFr";
/// Length of the ring.
pub(super) const RING_ENTRIES: u64 = 1 << 18;

/// The key of the ring's entry for a sequence number.
pub(crate) fn ring_key(sequence: u64) -> Bytes {
    let mut key = RING_PREFIX.to_vec();
    key.extend_from_slice(&((sequence % RING_ENTRIES) as u32).to_be_bytes());
    Bytes::from(key)
}

/// First key of the ring, and the first after it.
pub(super) fn ring_range() -> (Vec<u8>, Vec<u8>) {
    (RING_PREFIX.to_vec(), crate::kv::prefix_end(RING_PREFIX))
}

/// A sequence number as it is stored.
pub(super) fn encode(sequence: u64) -> [u8; 8] {
    sequence.to_le_bytes()
}

/// A sequence number back; `None` if it has not 8 bytes.
pub(super) fn decode(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

/// Checks the ring of a database whose last batch is `last`, entry by entry in the order of keys.
#[derive(Debug)]
pub(super) struct RingCheck {
    last: u64,
    seen: u64,
}

impl RingCheck {
    pub(super) fn new(last: u64) -> Self {
        Self { last, seen: 0 }
    }

    /// Takes one entry; `false` if it is not what must be there.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.seen += 1;
        decode(value).is_some_and(|sequence| {
            let in_lap = sequence <= self.last && self.last - sequence < RING_ENTRIES;
            in_lap && sequence > 0 && ring_key(sequence) == key
        })
    }

    /// How many entries must have been taken, and how many were.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.last.min(RING_ENTRIES), self.seen)
    }
}
