//! Segments: the unit in which a run of data is encrypted and authenticated.
//!
//! **Where they lie.** Data is stored in chunks of equal length (but for the last). A chunk is a row of segments, each
//! [`SEGMENT_BYTES`] of plaintext (encrypted: as many) with its tag of [`TAG_BYTES`] behind it; the last of a full chunk
//! is shorter, so that the chunk is filled to the byte. So no segment lies in two chunks, and where a byte of plaintext
//! is stored is arithmetic ([`Geometry`]).
//!
//! **What is authenticated.** Segment `i` of a run has nonce `00 00 00 | last | i, u64 big-endian` under a key that is
//! derived from the object's data key and the run's data id. So a segment is good in its own place alone: not elsewhere
//! in its run, not in another run. `last` is 1 for the run's last segment alone, whose associated data has the run's
//! length besides: a run that was cut off, or made longer, ends in a segment that does not open (the STREAM construction:
//! Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015).

use std::ops::Range;

use penstock_proto::DataId;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, Tag};

use crate::{DataKey, Result, VaultError, derive};

/// Plaintext of a segment, but for the last of a chunk and of a run.
pub const SEGMENT_BYTES: usize = 64 << 10;
/// What each segment is longer by.
pub const TAG_BYTES: usize = 16;

const VERSION: u8 = 1;
const PLAIN: u64 = SEGMENT_BYTES as u64;
const TAG: u64 = TAG_BYTES as u64;
const STORED: u64 = PLAIN + TAG;

/// How segments lie in chunks of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    chunk_bytes: u64,
    /// Segments of a full chunk.
    segments: u64,
    /// Plaintext of a full chunk.
    plain_bytes: u64,
}

/// One segment of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number within the run.
    pub index: u64,
    /// Its plaintext, within the run's.
    pub plain: Range<u64>,
    /// Where it is stored, tag included, within the run.
    pub stored: Range<u64>,
    /// Whether it is the run's last.
    pub last: bool,
}

impl Geometry {
    /// Segments in chunks of `chunk_bytes`. `None` for a length at which a full chunk's last segment would be empty.
    #[must_use]
    pub fn new(chunk_bytes: u32) -> Option<Self> {
        let chunk_bytes = u64::from(chunk_bytes);
        let segments = chunk_bytes.div_ceil(STORED);
        let rest = chunk_bytes - segments.saturating_sub(1) * STORED;
        (rest > TAG).then(|| Self { chunk_bytes, segments, plain_bytes: chunk_bytes - segments * TAG })
    }

    /// Plaintext of a full chunk.
    #[must_use]
    pub fn plain_chunk_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// How long `plain_bytes` of plaintext are when they are stored.
    #[must_use]
    pub fn stored_bytes(&self, plain_bytes: u64) -> u64 {
        let (chunks, rest) = (plain_bytes / self.plain_bytes, plain_bytes % self.plain_bytes);
        chunks * self.chunk_bytes + rest + rest.div_ceil(PLAIN) * TAG
    }

    /// The inverse of [`Geometry::stored_bytes`]; `None` for a length that no plaintext has.
    #[must_use]
    pub fn plain_of_stored(&self, stored_bytes: u64) -> Option<u64> {
        let (chunks, rest) = (stored_bytes / self.chunk_bytes, stored_bytes % self.chunk_bytes);
        let plain = chunks * self.plain_bytes + rest.checked_sub(rest.div_ceil(STORED) * TAG)?;
        (self.stored_bytes(plain) == stored_bytes).then_some(plain)
    }

    /// The segment that holds byte `at` of a run of `total` bytes of plaintext; `at` is less than `total`.
    #[must_use]
    pub fn place(&self, at: u64, total: u64) -> Place {
        let (chunk, within) = (at / self.plain_bytes, at % self.plain_bytes);
        let number = within / PLAIN;
        let start = chunk * self.plain_bytes + number * PLAIN;
        let end = (start + PLAIN).min((chunk + 1) * self.plain_bytes).min(total);
        let stored = chunk * self.chunk_bytes + number * STORED;
        Place {
            index: chunk * self.segments + number,
            plain: start..end,
            stored: stored..stored + (end - start) + TAG,
            last: end == total,
        }
    }

    /// What is stored of the segments that `plain`, which is not empty and within `total`, touches.
    #[must_use]
    pub fn cover(&self, plain: &Range<u64>, total: u64) -> Range<u64> {
        self.place(plain.start, total).stored.start..self.place(plain.end - 1, total).stored.end
    }

    /// The plaintext of which byte `stored`, the first of a segment, is the first.
    #[must_use]
    pub fn plain_at(&self, stored: u64) -> u64 {
        let (chunk, within) = (stored / self.chunk_bytes, stored % self.chunk_bytes);
        chunk * self.plain_bytes + within / STORED * PLAIN
    }
}

/// What encrypts and decrypts the segments of one run of data.
pub struct SegmentKey {
    cipher: LessSafeKey,
    geometry: Geometry,
}

impl std::fmt::Debug for SegmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SegmentKey(..)")
    }
}

impl SegmentKey {
    /// The key of the run `data` of an object, stored in chunks of `chunk_bytes`. `None` as [`Geometry::new`].
    #[must_use]
    pub fn new(key: &DataKey, data: DataId, chunk_bytes: u32) -> Option<Self> {
        let geometry = Geometry::new(chunk_bytes)?;
        let derived = derive::derive(key.bytes(), &data.to_bytes(), "penstock segments v1");
        Some(Self { cipher: derive::cipher(&derived), geometry })
    }

    /// How its segments lie.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Encrypts segment `index` where it stands, and gives its tag. `total`: the run's length, for its last segment alone.
    ///
    /// A segment is encrypted once: to do it again with other bytes under the same index would give both away.
    #[must_use]
    pub fn seal(&self, index: u64, total: Option<u64>, segment: &mut [u8]) -> [u8; TAG_BYTES] {
        let aad = Aad::from(self.about(total));
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(index, total.is_some()), aad, segment)
            .expect("AES-GCM seals up to 64 GiB at a time");
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Decrypts segment `index` where it stands.
    ///
    /// # Errors
    /// [`VaultError::Tampered`]; `segment` holds nothing of use then.
    pub fn open(&self, index: u64, total: Option<u64>, segment: &mut [u8], tag: [u8; TAG_BYTES]) -> Result<()> {
        let aad = Aad::from(self.about(total));
        self.cipher
            .open_in_place_separate_tag(nonce(index, total.is_some()), aad, Tag::from(tag), segment, 0..)
            .map(drop)
            .map_err(|_| VaultError::Tampered)
    }

    fn about(&self, total: Option<u64>) -> [u8; 13] {
        let mut about = [0; 13];
        about[0] = VERSION;
        about[1..5].copy_from_slice(&(self.geometry.chunk_bytes as u32).to_be_bytes());
        about[5..].copy_from_slice(&total.unwrap_or(0).to_be_bytes());
        about
    }
}

fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[3] = u8::from(last);
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
