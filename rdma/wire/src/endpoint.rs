//! The 44-byte endpoint token of hipobj v1, which hipobj-rc-v2 and the RC shim use too: 88 hex digits.

use crate::error::WireError;
use crate::gid::Gid;
use crate::hex;
use crate::names;

/// Bytes of a token.
const TOKEN_BYTES: usize = 44;
/// Hex digits of a token.
const TOKEN_DIGITS: usize = 2 * TOKEN_BYTES;
/// `transport` of dynamically connected transport.
pub const TRANSPORT_DC: u8 = 0;
/// `transport` of reliable connections.
pub const TRANSPORT_RC: u8 = 1;

/// Where a queue pair is and which memory it offers. Integers are little-endian on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointToken {
    /// [`TRANSPORT_DC`] or [`TRANSPORT_RC`]; others decode too.
    pub transport: u8,
    /// The queue pair's number; 24 bits have a meaning.
    pub qpn: u32,
    /// Its GID.
    pub gid: Gid,
    /// Remote key of the memory.
    pub rkey: u32,
    /// Address of the memory.
    pub address: u64,
    /// Bytes of the memory.
    pub length: u64,
    /// The HCA's port, from 1.
    pub port: u8,
    /// Its LID; 0 on RoCE.
    pub lid: u16,
}

impl EndpointToken {
    /// The token in its 88 digits, or followed by `:address:size` (1 to 16 hex digits each, ordinary numbers), which are taken
    /// instead of the token's own where they are not zero.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let bad = |why| WireError::malformed(names::TOKEN, why);
        let mut parts = text.split(':');
        let digits = parts.next().unwrap_or_default();
        let bytes: [u8; TOKEN_BYTES] = hex::bytes(digits).ok_or(bad("an endpoint is 88 hex digits"))?;
        let mut token = Self::decode(&bytes);
        let Some(address) = parts.next() else { return Ok(token) };
        let size = parts.next().ok_or(bad("an endpoint is followed by :address:size or by nothing"))?;
        if parts.next().is_some() {
            return Err(bad("an endpoint is followed by :address:size or by nothing"));
        }
        let address = hex::up_to(address, 16).ok_or(bad("the address is 1 to 16 hex digits"))?;
        let size = hex::up_to(size, 16).ok_or(bad("the size is 1 to 16 hex digits"))?;
        if address != 0 {
            token.address = address;
        }
        if size != 0 {
            token.length = size;
        }
        Ok(token)
    }

    /// Whether `text` has the shape of an endpoint, good or not.
    pub(crate) fn looks_like(text: &str) -> bool {
        let digits = text.split(':').next().unwrap_or_default();
        digits.len() == TOKEN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    fn decode(bytes: &[u8; TOKEN_BYTES]) -> Self {
        let field = |at: usize, len: usize| {
            bytes[at..at + len].iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
        };
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[5..21]);
        Self {
            transport: bytes[0],
            qpn: field(1, 4) as u32,
            gid: Gid(gid),
            rkey: field(21, 4) as u32,
            address: field(25, 8),
            length: field(33, 8),
            port: bytes[41],
            lid: field(42, 2) as u16,
        }
    }

    /// All bits zero: hipobj-rc-v2's way of saying "on the same HCA as you".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl std::fmt::Display for EndpointToken {
    /// 88 lower-case digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = [0; TOKEN_BYTES];
        bytes[0] = self.transport;
        bytes[1..5].copy_from_slice(&self.qpn.to_le_bytes());
        bytes[5..21].copy_from_slice(&self.gid.0);
        bytes[21..25].copy_from_slice(&self.rkey.to_le_bytes());
        bytes[25..33].copy_from_slice(&self.address.to_le_bytes());
        bytes[33..41].copy_from_slice(&self.length.to_le_bytes());
        bytes[41] = self.port;
        bytes[42..44].copy_from_slice(&self.lid.to_le_bytes());
        f.write_str(&hex::text(&bytes))
    }
}
