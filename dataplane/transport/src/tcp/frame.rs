//! What goes over the connection, as bytes: the greeting and the head of each message. Sans I/O.
//!
//! Little-endian. Greeting, 16 bytes, once each way: magic `PENSTOCK`, version u16, node id u16, CRC32C of the 12 bytes
//! before it. Message head, 32 bytes: magic `PSTK`, version u8, kind u8, header length u16, call id u64, payload length
//! u32, landing length u32, CRC32C of the header, CRC32C of the 28 bytes before it; then the header, then the payload.

use bytes::Bytes;
use penstock_proto::{NodeId, limits};

use crate::PAYLOAD_BYTES_MAX;

pub(crate) const GREETING_BYTES: usize = 16;
pub(crate) const FRAME_BYTES: usize = 32;
/// Version of the greeting and of all that follows it.
pub(crate) const VERSION: u16 = 1;
const GREETING_MAGIC: [u8; 8] = *b"PENSTOCK";
const FRAME_MAGIC: [u8; 4] = *b"PSTK";

/// Why bytes are no greeting or no message head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the peer does not speak this protocol (wrong magic): check the port")]
    Magic,
    #[error("the peer speaks version {0} of the protocol, this program version {VERSION}: run the same release")]
    Version(u16),
    #[error("a checksum does not match: the bytes were changed on the way")]
    Checksum,
    #[error("a message of kind {0} where another is due")]
    Kind(u8),
    #[error("a header of {0} bytes is past the limit of {max} bytes", max = limits::MESSAGE_HEADER_BYTES_MAX)]
    HeaderTooLong(usize),
    #[error("a payload of {0} bytes is past the limit of {PAYLOAD_BYTES_MAX} bytes")]
    PayloadTooLong(usize),
}

/// The first bytes either way. The caller names the node it wants; the node names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: u16,
    pub(crate) node: NodeId,
}

impl Greeting {
    pub(crate) fn to(node: NodeId) -> Self {
        Self { version: VERSION, node }
    }

    pub(crate) fn encode(self) -> [u8; GREETING_BYTES] {
        let mut out = [0; GREETING_BYTES];
        out[..8].copy_from_slice(&GREETING_MAGIC);
        out[8..10].copy_from_slice(&self.version.to_le_bytes());
        out[10..12].copy_from_slice(&self.node.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..12]);
        out[12..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Does not judge the version: both sides greet before they part, so that each can say what is wrong.
    pub(crate) fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Self, FrameError> {
        if bytes[..8] != GREETING_MAGIC {
            return Err(FrameError::Magic);
        }
        if crc32c::crc32c(&bytes[..12]) != u32_at(bytes, 12) {
            return Err(FrameError::Checksum);
        }
        Ok(Self { version: u16_at(bytes, 8), node: NodeId(u16_at(bytes, 10)) })
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Request = 1,
    Reply = 2,
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) call: u64,
    pub(crate) header_bytes: usize,
    pub(crate) payload_bytes: usize,
    /// The most payload that the caller takes back. 0 in replies.
    pub(crate) landing_bytes: usize,
    pub(crate) header_crc32c: u32,
}

impl Frame {
    /// The head of a message whose lengths are within bounds.
    pub(crate) fn new(kind: Kind, call: u64, header: &Bytes, payload_bytes: usize, landing_bytes: usize) -> Self {
        let header_crc32c = crc32c::crc32c(header);
        Self { kind, call, header_bytes: header.len(), payload_bytes, landing_bytes, header_crc32c }
    }

    pub(crate) fn encode(&self) -> [u8; FRAME_BYTES] {
        let length = |bytes: usize| u32::try_from(bytes).expect("invariant: checked against PAYLOAD_BYTES_MAX");
        let header_bytes = u16::try_from(self.header_bytes).expect("invariant: checked against the header limit");
        let mut out = [0; FRAME_BYTES];
        out[..4].copy_from_slice(&FRAME_MAGIC);
        out[4] = VERSION as u8;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&header_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.call.to_le_bytes());
        out[16..20].copy_from_slice(&length(self.payload_bytes).to_le_bytes());
        out[20..24].copy_from_slice(&length(self.landing_bytes).to_le_bytes());
        out[24..28].copy_from_slice(&self.header_crc32c.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks every bound, so that what follows may be allocated for.
    pub(crate) fn decode(bytes: &[u8; FRAME_BYTES], due: Kind) -> Result<Self, FrameError> {
        if bytes[..4] != FRAME_MAGIC {
            return Err(FrameError::Magic);
        }
        if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
            return Err(FrameError::Checksum);
        }
        if u16::from(bytes[4]) != VERSION {
            return Err(FrameError::Version(bytes[4].into()));
        }
        if bytes[5] != due as u8 {
            return Err(FrameError::Kind(bytes[5]));
        }
        let header_bytes = usize::from(u16_at(bytes, 6));
        if header_bytes > limits::MESSAGE_HEADER_BYTES_MAX {
            return Err(FrameError::HeaderTooLong(header_bytes));
        }
        let payload_bytes = u32_at(bytes, 16) as usize;
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(FrameError::PayloadTooLong(payload_bytes));
        }
        Ok(Self {
            kind: due,
            call: u64::from_le_bytes(field(bytes, 8)),
            header_bytes,
            payload_bytes,
            landing_bytes: u32_at(bytes, 20) as usize,
            header_crc32c: u32_at(bytes, 24),
        })
    }

    /// Whether `header` is the one that was sent.
    pub(crate) fn check_header(&self, header: &[u8]) -> Result<(), FrameError> {
        if crc32c::crc32c(header) == self.header_crc32c { Ok(()) } else { Err(FrameError::Checksum) }
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame::new(Kind::Request, 0x0102, &Bytes::from_static(b"abc"), 0x0a0b, 0x0c)
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(Greeting::to(NodeId(7)).encode(), *b"PENSTOCK\x01\0\x07\0\xe7\x6f\x31\x23");
        // The checksums are another program's.
        let expected: [u8; FRAME_BYTES] =
            *b"PSTK\x01\x01\x03\0\x02\x01\0\0\0\0\0\0\x0b\x0a\0\0\x0c\0\0\0\xb7\x3f\x4b\x36\x3a\x6a\x43\x94";
        assert_eq!(frame().encode(), expected);
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let bytes = frame().encode();
        assert_eq!(Frame::decode(&bytes, Kind::Request), Ok(frame()));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&changed, Kind::Request).is_err(), "bit {bit}");
        }
        let bytes = Greeting::to(NodeId(7)).encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Greeting::decode(&changed).is_err(), "bit {bit}");
        }
        assert!(frame().check_header(b"abd").is_err());
    }

    #[test]
    fn bounds_are_checked_before_anything_is_allocated() {
        assert_eq!(Frame::decode(&frame().encode(), Kind::Reply), Err(FrameError::Kind(1)));
        let long = Frame { header_bytes: 4097, ..frame() };
        assert_eq!(Frame::decode(&long.encode(), Kind::Request), Err(FrameError::HeaderTooLong(4097)));
        let long = Frame { payload_bytes: PAYLOAD_BYTES_MAX + 1, ..frame() };
        assert_eq!(
            Frame::decode(&long.encode(), Kind::Request),
            Err(FrameError::PayloadTooLong(PAYLOAD_BYTES_MAX + 1))
        );
    }
}
