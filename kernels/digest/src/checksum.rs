//! S3's object checksums behind one type, chosen at run time by what a request says.

use crate::{
    Crc32, Crc32c, Crc64Nvme, DigestError, Md5Hasher, Sha1Hasher, Sha256Hasher, Sha512Hasher, Xxh3Hasher, Xxh64Hasher,
    Xxh128Hasher, crc32_combine, crc32c_combine, crc64nvme_combine,
};
use std::fmt;
use std::str::FromStr;

/// Length of the longest checksum value, in bytes.
pub const DIGEST_BYTES_MAX: usize = 64;

/// A checksum algorithm of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// CRC-32/ISO-HDLC.
    Crc32,
    /// CRC-32/ISCSI.
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// MD5.
    Md5,
    /// XXH64, seed 0.
    Xxhash64,
    /// XXH3 of 64 bits, seed 0.
    Xxhash3,
    /// XXH3 of 128 bits, seed 0.
    Xxhash128,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Md5,
        Self::Xxhash64,
        Self::Xxhash3,
        Self::Xxhash128,
    ];

    /// The name that S3 uses in headers' values and in XML, in upper case. In lower case it ends the names of headers
    /// (`x-amz-checksum-crc64nvme`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
            Self::Md5 => "MD5",
            Self::Xxhash64 => "XXHASH64",
            Self::Xxhash3 => "XXHASH3",
            Self::Xxhash128 => "XXHASH128",
        }
    }

    /// Length of its values, in bytes.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme | Self::Xxhash64 | Self::Xxhash3 => 8,
            Self::Md5 | Self::Xxhash128 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Whether values of parts combine into the value of the whole ([`combine_full_object`]).
    #[must_use]
    pub const fn is_crc(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChecksumAlgorithm {
    type Err = DigestError;

    /// Takes a name in upper or lower case, since S3 has it as a value in one and within header names in the other.
    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| DigestError::UnknownAlgorithm { name: name.to_owned() })
    }
}

/// A checksum: its algorithm, and its bytes in the order in which S3 sends them (CRCs big-endian).
///
/// Equal when both algorithm and bytes are. Not compared in constant time: it guards against damage, not malice.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChecksumValue {
    algorithm: ChecksumAlgorithm,
    /// Zero behind the algorithm's length, so that the derived comparison holds.
    bytes: [u8; DIGEST_BYTES_MAX],
}

impl ChecksumValue {
    /// The value that someone sent.
    ///
    /// # Errors
    /// [`DigestError::WrongLength`] unless there are [`ChecksumAlgorithm::digest_bytes`] of them.
    pub fn from_bytes(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Result<Self, DigestError> {
        if bytes.len() == algorithm.digest_bytes() {
            Ok(Self::new(algorithm, bytes))
        } else {
            Err(DigestError::WrongLength { algorithm, have_bytes: bytes.len() })
        }
    }

    /// The value of a CRC32 that was computed elsewhere.
    #[must_use]
    pub fn from_crc32(crc: u32) -> Self {
        Self::new(ChecksumAlgorithm::Crc32, &crc.to_be_bytes())
    }

    /// The value of a CRC32C that was computed elsewhere.
    #[must_use]
    pub fn from_crc32c(crc: u32) -> Self {
        Self::new(ChecksumAlgorithm::Crc32c, &crc.to_be_bytes())
    }

    /// The value of a CRC64NVME that was computed elsewhere, such as one combined from shards'.
    #[must_use]
    pub fn from_crc64nvme(crc: u64) -> Self {
        Self::new(ChecksumAlgorithm::Crc64Nvme, &crc.to_be_bytes())
    }

    fn new(algorithm: ChecksumAlgorithm, value: &[u8]) -> Self {
        let mut bytes = [0; DIGEST_BYTES_MAX];
        bytes[..value.len()].copy_from_slice(value);
        Self { algorithm, bytes }
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The bytes, [`ChecksumAlgorithm::digest_bytes`] of them; S3 sends their base64.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_bytes()]
    }

    /// The number, where it is a CRC.
    #[must_use]
    pub fn as_crc(&self) -> Option<u64> {
        let number = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        self.algorithm.is_crc().then(|| self.as_bytes().iter().fold(0, number))
    }
}

impl fmt::Debug for ChecksumValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Computes one of S3's checksums as bytes come.
///
/// ```
/// use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue};
/// let algorithm: ChecksumAlgorithm = "CRC32C".parse()?;
/// let mut hasher = ChecksumHasher::new(algorithm);
/// hasher.update(b"12345");
/// hasher.update(b"6789");
/// let value = hasher.finish();
/// assert_eq!(value.as_bytes(), [0xe3, 0x06, 0x92, 0x83]);
/// assert_eq!(value, ChecksumValue::from_bytes(algorithm, &[0xe3, 0x06, 0x92, 0x83])?);
/// # Ok::<(), penstock_digest::DigestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChecksumHasher(State);

#[derive(Clone, Debug)]
enum State {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1Hasher),
    Sha256(Sha256Hasher),
    Sha512(Sha512Hasher),
    Md5(Md5Hasher),
    Xxhash64(Xxh64Hasher),
    Xxhash3(Xxh3Hasher),
    Xxhash128(Xxh128Hasher),
}

impl ChecksumHasher {
    /// The state before the first byte.
    #[must_use]
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::Crc32 => State::Crc32(Crc32::new()),
            ChecksumAlgorithm::Crc32c => State::Crc32c(Crc32c::new()),
            ChecksumAlgorithm::Crc64Nvme => State::Crc64Nvme(Crc64Nvme::new()),
            ChecksumAlgorithm::Sha1 => State::Sha1(Sha1Hasher::new()),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256Hasher::new()),
            ChecksumAlgorithm::Sha512 => State::Sha512(Sha512Hasher::new()),
            ChecksumAlgorithm::Md5 => State::Md5(Md5Hasher::new()),
            ChecksumAlgorithm::Xxhash64 => State::Xxhash64(Xxh64Hasher::new()),
            ChecksumAlgorithm::Xxhash3 => State::Xxhash3(Xxh3Hasher::new()),
            ChecksumAlgorithm::Xxhash128 => State::Xxhash128(Xxh128Hasher::new()),
        })
    }

    /// The algorithm it was made for.
    #[must_use]
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        match self.0 {
            State::Crc32(_) => ChecksumAlgorithm::Crc32,
            State::Crc32c(_) => ChecksumAlgorithm::Crc32c,
            State::Crc64Nvme(_) => ChecksumAlgorithm::Crc64Nvme,
            State::Sha1(_) => ChecksumAlgorithm::Sha1,
            State::Sha256(_) => ChecksumAlgorithm::Sha256,
            State::Sha512(_) => ChecksumAlgorithm::Sha512,
            State::Md5(_) => ChecksumAlgorithm::Md5,
            State::Xxhash64(_) => ChecksumAlgorithm::Xxhash64,
            State::Xxhash3(_) => ChecksumAlgorithm::Xxhash3,
            State::Xxhash128(_) => ChecksumAlgorithm::Xxhash128,
        }
    }

    /// Takes the next bytes of the message.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32(crc) => crc.update(bytes),
            State::Crc32c(crc) => crc.update(bytes),
            State::Crc64Nvme(crc) => crc.update(bytes),
            State::Sha1(hash) => hash.update(bytes),
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
            State::Md5(hash) => hash.update(bytes),
            State::Xxhash64(hash) => hash.update(bytes),
            State::Xxhash3(hash) => hash.update(bytes),
            State::Xxhash128(hash) => hash.update(bytes),
        }
    }

    /// The checksum of all bytes taken.
    #[must_use]
    pub fn finish(self) -> ChecksumValue {
        match self.0 {
            State::Crc32(crc) => ChecksumValue::from_crc32(crc.finish()),
            State::Crc32c(crc) => ChecksumValue::from_crc32c(crc.finish()),
            State::Crc64Nvme(crc) => ChecksumValue::from_crc64nvme(crc.finish()),
            State::Sha1(hash) => ChecksumValue::new(ChecksumAlgorithm::Sha1, &hash.finish()),
            State::Sha256(hash) => ChecksumValue::new(ChecksumAlgorithm::Sha256, &hash.finish()),
            State::Sha512(hash) => ChecksumValue::new(ChecksumAlgorithm::Sha512, &hash.finish()),
            State::Md5(hash) => ChecksumValue::new(ChecksumAlgorithm::Md5, &hash.finish()),
            State::Xxhash64(hash) => ChecksumValue::new(ChecksumAlgorithm::Xxhash64, &hash.finish()),
            State::Xxhash3(hash) => ChecksumValue::new(ChecksumAlgorithm::Xxhash3, &hash.finish()),
            State::Xxhash128(hash) => ChecksumValue::new(ChecksumAlgorithm::Xxhash128, &hash.finish()),
        }
    }
}

/// The checksum of a whole object from those of its parts, in order, each with its length in bytes.
///
/// `None` when `algorithm` is no CRC (hashes don't combine) or a part's checksum is of another algorithm. Of no parts,
/// it is the checksum of nothing.
///
/// ```
/// use penstock_digest::{ChecksumAlgorithm, ChecksumValue, combine_full_object, crc64nvme};
/// let part = |bytes: &[u8]| (ChecksumValue::from_crc64nvme(crc64nvme(bytes)), bytes.len() as u64);
/// let whole = combine_full_object(ChecksumAlgorithm::Crc64Nvme, &[part(b"123"), part(b"456"), part(b"789")]);
/// assert_eq!(whole, Some(ChecksumValue::from_crc64nvme(0xae8b_1486_0a79_9888)));
/// ```
#[must_use]
pub fn combine_full_object(algorithm: ChecksumAlgorithm, parts: &[(ChecksumValue, u64)]) -> Option<ChecksumValue> {
    let combine: fn(u64, u64, u64) -> u64 = match algorithm {
        ChecksumAlgorithm::Crc32 => |a, b, len| crc32_combine(a as u32, b as u32, len).into(),
        ChecksumAlgorithm::Crc32c => |a, b, len| crc32c_combine(a as u32, b as u32, len).into(),
        ChecksumAlgorithm::Crc64Nvme => crc64nvme_combine,
        _ => return None,
    };
    let mut whole = 0; // the CRC of no bytes, of all three
    for (value, len) in parts {
        if value.algorithm != algorithm {
            return None;
        }
        whole = combine(whole, value.as_crc()?, *len);
    }
    let bytes = whole.to_be_bytes();
    Some(ChecksumValue::new(algorithm, &bytes[bytes.len() - algorithm.digest_bytes()..]))
}
