//! How a row's value lies in the engine: CRC32C over the key's length, the key and the value (4 bytes, little-endian),
//! then the value. The key is part of it, so a value that turns up under another key is caught too.

use bytes::Bytes;

use crate::kv::KvError;

const CRC_BYTES: usize = size_of::<u32>();

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    // Keys have at most limits::ROW_KEY_BYTES_MAX bytes.
    let crc = crc32c::crc32c(&(key.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// The value as it is stored.
pub(super) fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(CRC_BYTES + value.len());
    stored.extend_from_slice(&checksum(key, value).to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

/// The value back, copied out so that it does not keep a whole block of the engine's in memory.
pub(super) fn open(key: &[u8], stored: &[u8]) -> Result<Bytes, KvError> {
    let Some((crc, value)) = stored.split_first_chunk::<CRC_BYTES>() else {
        return Err(KvError::Corrupt { key: key.to_vec(), what: "shorter than its checksum".into() });
    };
    if u32::from_le_bytes(*crc) != checksum(key, value) {
        return Err(KvError::Corrupt { key: key.to_vec(), what: "its checksum does not match".into() });
    }
    Ok(Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        // CRC32C of 03 00 00 00 "key" "value", from an independent bitwise implementation below.
        let stored = seal(b"key", b"value");
        assert_eq!(&stored[4..], b"value");
        assert_eq!(stored[..4], bitwise_crc32c(b"\x03\0\0\0keyvalue").to_le_bytes());
        assert_eq!(open(b"key", &stored).unwrap(), "value");
    }

    #[test]
    fn every_flipped_bit_and_a_wrong_key_are_caught() {
        let stored = seal(b"key", b"some value");
        for bit in 0..stored.len() * 8 {
            let mut rotten = stored.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(b"key", &rotten), Err(KvError::Corrupt { .. })), "bit {bit}");
        }
        assert!(open(b"kez", &stored).is_err());
        assert!(open(b"ke", &seal(b"key", b"")).is_err());
        assert!(open(b"key", b"abc").is_err());
    }

    fn bitwise_crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc: u32, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
        })
    }
}
