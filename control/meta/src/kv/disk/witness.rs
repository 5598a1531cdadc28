//! The witness: a small file beside the database that holds the sequence number of the last acknowledged batch.
//!
//! The engine's log ends where it stops making sense, so damage in its middle can look like its end and take
//! acknowledged commits with it in silence. The witness is written after a batch's fsync and before anybody hears of it;
//! at open, a database that is behind its witness has lost acknowledged commits and is refused. The witness is not
//! synced: after a power cut it may be older than the database, which is harmless, while it can never be newer.
//!
//! Two slots of 24 bytes, at offsets 0 and 512, written in turn by the parity of the sequence: magic `PSTKWIT1`,
//! sequence (u64, little-endian), CRC32C of the two (u32, little-endian), four zero bytes. A damaged slot leaves the
//! other, one batch older; with both damaged the witness is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"PSTKWIT1";
const SLOT_BYTES: usize = 24;
const SLOT_OFFSETS: [u64; 2] = [0, 512];

/// An open witness file.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

/// What a witness file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Testimony {
    /// There is no file.
    Missing,
    /// The file is there, but neither slot is whole.
    Damaged,
    /// The last acknowledged sequence number, or the one before if one slot is damaged.
    Sequence(u64),
}

fn encode(sequence: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..16]);
    slot[16..20].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<u64> {
    let sequence = u64::from_le_bytes(slot[8..16].try_into().ok()?);
    (*slot == encode(sequence)).then_some(sequence)
}

impl Witness {
    /// Reads the file, if there is one.
    pub(super) fn read(path: &Path) -> io::Result<Testimony> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Testimony::Missing),
            Err(error) => return Err(error),
        };
        let mut best = None;
        for offset in SLOT_OFFSETS {
            let mut slot = [0; SLOT_BYTES];
            match file.read_exact_at(&mut slot, offset) {
                Ok(()) => best = best.max(decode(&slot)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        Ok(best.map_or(Testimony::Damaged, Testimony::Sequence))
    }

    /// Opens the file for writing, makes both slots say `sequence`, and syncs it and its directory.
    pub(super) fn establish(path: &Path, sequence: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let witness = Self { file };
        for offset in SLOT_OFFSETS {
            witness.file.write_all_at(&encode(sequence), offset)?;
        }
        witness.file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(witness)
    }

    /// Notes that `sequence` is about to be acknowledged.
    pub(super) fn note(&self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(sequence), SLOT_OFFSETS[(sequence % 2) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("witness");
        assert_eq!(Witness::read(&path).unwrap(), Testimony::Missing);
        let witness = Witness::establish(&path, 5).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Testimony::Sequence(5));
        witness.note(6).unwrap();
        witness.note(7).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Testimony::Sequence(7));
        let whole = std::fs::read(&path).unwrap();
        for bit in (0..SLOT_BYTES * 8).chain(510 * 8..whole.len() * 8) {
            let mut rotten = whole.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &rotten).unwrap();
            let newest_is_hit = (512..512 + SLOT_BYTES).contains(&(bit / 8));
            let expected = Testimony::Sequence(if newest_is_hit { 6 } else { 7 });
            assert_eq!(Witness::read(&path).unwrap(), expected, "bit {bit}");
        }
        std::fs::write(&path, [0; 600]).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Testimony::Damaged);
        std::fs::write(&path, []).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Testimony::Damaged);
    }
}
