//! What lies on the device, byte by byte: pure encoding and decoding, no I/O. The page is `docs/formats/extent.md`; the
//! golden bytes are in `tests.rs`.
//!
//! Everything is little-endian but for keys, which sort as their bytes do. Every structure carries a magic number, a
//! version, and a checksum over all of itself; whatever does not check is answered with `None`, and the caller decides
//! whether that is an end or a loss.

pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod record;
pub(crate) mod superblock;
pub(crate) mod table;
#[cfg(test)]
mod tests;

/// The unit of everything on the device.
pub(crate) const BLOCK_BYTES: usize = penstock_proto::limits::BLOCK_BYTES;
/// As [`BLOCK_BYTES`], for offsets.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Version of every structure here.
pub(crate) const VERSION: u16 = 1;
/// Bytes of shard data that one CRC32C covers.
pub(crate) const CRC_BLOCK_BYTES: usize = 64 << 10;

/// The name of one use of a slot: 128 random bits, new at each reuse, so that stale bytes can't parse.
pub(crate) type Epoch = [u8; 16];

/// 128 random bits.
pub(crate) fn random_id() -> Result<[u8; 16], crate::StoreError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| crate::StoreError::Io {
        operation: "asking the system for random bytes",
        reason: error.to_string(),
    })?;
    Ok(id)
}

fn set<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    out[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// Writes the CRC32C of all that precedes into the last four bytes.
fn seal_crc32c(block: &mut [u8]) {
    let at = block.len() - 4;
    let crc = penstock_digest::crc32c(&block[..at]);
    set(block, at, crc.to_le_bytes());
}

fn crc32c_holds(block: &[u8]) -> bool {
    let at = block.len() - 4;
    penstock_digest::crc32c(&block[..at]) == u32_at(block, at)
}
