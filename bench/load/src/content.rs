//! What objects hold: bytes that are known from the object's number, so that every answer can be checked and nothing is
//! remembered.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// Random bytes that all objects are cut from, in a ring. A prime, so that no object size fits it.
const RING_BYTES: usize = (4 << 20) - 3;
/// Objects that differ begin at so many different places.
const STARTS: u64 = 251;

/// The ring, and the hashes of objects in it that were asked for.
pub(crate) struct Content {
    ring: Bytes,
    hashes: Mutex<HashMap<(usize, u64), [u8; 32]>>,
}

impl Content {
    pub(crate) fn new() -> Self {
        let mut ring = vec![0; RING_BYTES];
        rand::rngs::SmallRng::seed_from_u64(0x50_45_4e_53).fill_bytes(&mut ring);
        Self { ring: ring.into(), hashes: Mutex::default() }
    }

    fn start(&self, index: u64) -> usize {
        (index % STARTS) as usize * (RING_BYTES / STARTS as usize)
    }

    /// At most `limit` bytes of object `index`, from `offset` on: as many as lie in one piece.
    pub(crate) fn piece(&self, index: u64, offset: u64, limit: u64) -> Bytes {
        let at = (self.start(index) as u64 + offset) as usize % RING_BYTES;
        let len = ((RING_BYTES - at) as u64).min(limit) as usize;
        self.ring.slice(at..at + len)
    }

    /// Whether `bytes` are those of object `index` from `offset` on.
    pub(crate) fn is(&self, index: u64, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.piece(index, offset, bytes.len() as u64);
            if bytes[..piece.len()] != piece[..] {
                return false;
            }
            bytes = &bytes[piece.len()..];
            offset += piece.len() as u64;
        }
        true
    }

    /// SHA-256 of `len` bytes of object `index` from `offset` on, computed once for each that differs.
    pub(crate) fn sha256(&self, index: u64, offset: u64, len: u64) -> [u8; 32] {
        let place = ((self.start(index) as u64 + offset) as usize % RING_BYTES, len);
        if let Some(known) = self.hashes.lock().get(&place) {
            return *known;
        }
        let mut hasher = Sha256::new();
        let mut done = 0;
        while done < len {
            let piece = self.piece(index, offset + done, len - done);
            hasher.update(&piece);
            done += piece.len() as u64;
        }
        let hash = hasher.finalize().into();
        self.hashes.lock().insert(place, hash);
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_object_and_nothing_else_does() {
        let content = Content::new();
        let len = 2 * RING_BYTES as u64 + 17;
        let mut whole = Vec::new();
        while (whole.len() as u64) < len {
            whole.extend_from_slice(&content.piece(5, whole.len() as u64, len - whole.len() as u64));
        }
        assert!(content.is(5, 0, &whole) && !content.is(6, 0, &whole) && !content.is(5, 1, &whole));
        assert!(content.is(5, 1000, &whole[1000..]));
        assert_eq!(content.sha256(5, 0, len), <[u8; 32]>::from(Sha256::digest(&whole)));
        assert_eq!(content.sha256(5, 9, 100), <[u8; 32]>::from(Sha256::digest(&whole[9..109])));
        whole[RING_BYTES + 1] ^= 1;
        assert!(!content.is(5, 0, &whole));
    }
}
