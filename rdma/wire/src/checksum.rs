//! Checksums in headers: canonical base64 of the big-endian bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What stands before the value in `x-amz-rdma-checksum`.
const CRC64NVME: &str = "CRC64NVME";

/// Which checksum a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 64 bits, polynomial 0xad93d23594c93659.
    #[default]
    Crc64Nvme,
    /// 32 bits, Castagnoli.
    Crc32c,
}

/// 12 characters, the last of them `=`.
#[must_use]
pub fn crc64nvme_base64(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

/// 8 characters.
#[must_use]
pub fn crc32c_base64(crc: u32) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

/// The CRC of canonical base64: eleven characters and `=`, no bits set that stand for nothing.
#[must_use]
pub fn crc64nvme_from_base64(text: &str) -> Option<u64> {
    Some(u64::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

/// The value of `x-amz-rdma-checksum`: `CRC64NVME rosUhgp5mIg=`.
#[must_use]
pub fn crc64nvme_header(crc: u64) -> String {
    format!("{CRC64NVME} {}", crc64nvme_base64(crc))
}

/// The reverse of [`crc64nvme_header`].
#[must_use]
pub fn crc64nvme_from_header(text: &str) -> Option<u64> {
    crc64nvme_from_base64(text.strip_prefix(CRC64NVME)?.strip_prefix(' ')?)
}
