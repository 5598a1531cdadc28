//! Messages on a connection, as bytes (docs/formats/rdma-transport.md). Sans I/O.

use bytes::Bytes;
use penstock_proto::limits;
use penstock_transport::PAYLOAD_BYTES_MAX;
use penstock_verbs::Remote;

/// Version of the messages and of the bootstrap.
pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"PSRM";
pub(crate) const HEAD_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 16;
/// Pieces of a request's payload that the node READs one by one; what has more is put together first.
pub(crate) const SOURCES_MAX: usize = 8;
/// Payload that travels inside a message: cheaper than a lease and a READ or WRITE.
pub(crate) const INLINE_BYTES_MAX: usize = 8 << 10;
/// Longest message; every receive has room for it.
pub(crate) const MESSAGE_BYTES_MAX: usize =
    HEAD_BYTES + (SOURCES_MAX + 1) * SEGMENT_BYTES + limits::MESSAGE_HEADER_BYTES_MAX + INLINE_BYTES_MAX;

const FLAG_INLINE: u8 = 1;
const FLAG_LANDING: u8 = 2;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call.
    Request,
    /// Its answer. Payload that is not inside was written before.
    Reply,
    /// The caller has given up: nothing need be written for it any more. The reply is still due.
    Cancel,
    /// The caller closes the connection.
    Bye,
    /// The call could not be answered; the header says why, as text.
    Failed,
    /// Nothing: the caller wants to know whether the node is still there, which the device's acknowledgement tells.
    Ping,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Cancel => 3,
            Self::Bye => 4,
            Self::Failed => 5,
            Self::Ping => 6,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Request, Self::Reply, Self::Cancel, Self::Bye, Self::Failed, Self::Ping]
            .into_iter()
            .find(|k| k.number() == number)
    }
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message of {0} bytes is cut short")]
    Short(usize),
    #[error("a message with a wrong magic")]
    Magic,
    #[error("a message of version {0}; this program speaks {VERSION}: run the same release")]
    Version(u8),
    #[error("a message of kind {0}")]
    Kind(u8),
    #[error("a message whose checksum does not match: the bytes were changed on the way")]
    Checksum,
    #[error("a message whose {0} is out of bounds")]
    Bounds(&'static str),
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) call: u64,
    /// Of a request: all that the caller has to send. Of a reply: all that landed.
    pub(crate) payload_bytes: usize,
    /// Of a request: the most that may land.
    pub(crate) landing_bytes: usize,
    /// Where the request's payload can be READ, in order. Empty when it is inside, or there is none.
    pub(crate) sources: Vec<Remote>,
    /// Where the answer's payload can be WRITTEN. `None` when it must come inside the reply.
    pub(crate) landing: Option<Remote>,
    pub(crate) header: Bytes,
    /// Payload inside the message: all of it, or none.
    pub(crate) inline: Bytes,
}

impl Message {
    pub(crate) fn new(kind: Kind, call: u64, header: Bytes) -> Self {
        Self {
            kind,
            call,
            payload_bytes: 0,
            landing_bytes: 0,
            sources: Vec::new(),
            landing: None,
            header,
            inline: Bytes::new(),
        }
    }

    /// Writes it to the start of `out`, which has [`MESSAGE_BYTES_MAX`] bytes; how many it has.
    pub(crate) fn encode(&self, out: &mut [u8]) -> usize {
        assert!(
            self.sources.len() <= SOURCES_MAX
                && self.header.len() <= limits::MESSAGE_HEADER_BYTES_MAX
                && self.inline.len() <= INLINE_BYTES_MAX,
            "invariant: callers keep the bounds of a message"
        );
        let narrow = |bytes: usize| u32::try_from(bytes).expect("invariant: far below 4 GiB").to_le_bytes();
        let mut flags = 0;
        if !self.inline.is_empty() {
            flags |= FLAG_INLINE;
        }
        if self.landing.is_some() {
            flags |= FLAG_LANDING;
        }
        out[..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind.number();
        out[6..8].copy_from_slice(&(self.header.len() as u16).to_le_bytes());
        out[8..16].copy_from_slice(&self.call.to_le_bytes());
        out[16..20].copy_from_slice(&narrow(self.payload_bytes));
        out[20..24].copy_from_slice(&narrow(self.landing_bytes));
        out[24] = self.sources.len() as u8;
        out[25] = flags;
        out[26..32].fill(0);
        let mut at = HEAD_BYTES;
        for segment in self.sources.iter().chain(&self.landing) {
            out[at..at + 8].copy_from_slice(&segment.addr.to_le_bytes());
            out[at + 8..at + 12].copy_from_slice(&segment.rkey.to_le_bytes());
            let len = u32::try_from(segment.len).expect("invariant: a segment is within a buffer");
            out[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
            at += SEGMENT_BYTES;
        }
        for part in [&self.header, &self.inline] {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let crc = crc32c::crc32c(&out[..at]);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        at
    }

    /// From what was received.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let total = bytes.len();
        let short = || MessageError::Short(total);
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or_else(short)?;
        if head[..4] != MAGIC {
            return Err(MessageError::Magic);
        }
        if head[4] != VERSION {
            return Err(MessageError::Version(head[4]));
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut zeroed = *head;
        zeroed[28..32].fill(0);
        if crc32c::crc32c_append(crc32c::crc32c(&zeroed), &bytes[HEAD_BYTES..]) != word(28) {
            return Err(MessageError::Checksum);
        }
        let kind = Kind::from_number(head[5]).ok_or(MessageError::Kind(head[5]))?;
        let header_bytes = usize::from(u16::from_le_bytes([head[6], head[7]]));
        let (payload_bytes, landing_bytes) = (word(16) as usize, word(20) as usize);
        let (sources, flags) = (usize::from(head[24]), head[25]);
        if header_bytes > limits::MESSAGE_HEADER_BYTES_MAX {
            return Err(MessageError::Bounds("header"));
        }
        if payload_bytes > PAYLOAD_BYTES_MAX || landing_bytes > PAYLOAD_BYTES_MAX {
            return Err(MessageError::Bounds("payload"));
        }
        if sources > SOURCES_MAX || flags & !(FLAG_INLINE | FLAG_LANDING) != 0 || head[26..28] != [0; 2] {
            return Err(MessageError::Bounds("head"));
        }
        let mut rest = &bytes[HEAD_BYTES..];
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count).ok_or(MessageError::Short(total))?;
            rest = left;
            Ok::<&[u8], MessageError>(taken)
        };
        let mut segment = || {
            let bytes = take(SEGMENT_BYTES)?;
            let of = |range: std::ops::Range<usize>| {
                bytes[range].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
            };
            Ok::<Remote, MessageError>(Remote { addr: of(0..8), rkey: of(8..12) as u32, len: of(12..16) })
        };
        let sources: Vec<Remote> = (0..sources).map(|_| segment()).collect::<Result<_, _>>()?;
        let landing = if flags & FLAG_LANDING != 0 { Some(segment()?) } else { None };
        let header = Bytes::copy_from_slice(take(header_bytes)?);
        let inline = Bytes::copy_from_slice(rest);
        let read_bytes: u64 = sources.iter().map(|source| source.len).sum();
        let inline_is_right = if flags & FLAG_INLINE != 0 {
            sources.is_empty()
                && inline.len() == payload_bytes
                && inline.len() <= INLINE_BYTES_MAX
                && !inline.is_empty()
        } else {
            inline.is_empty()
        };
        // A reply's payload that is not inside has been written before; a request's must be somewhere.
        let sources_are_right = match kind {
            Kind::Request if flags & FLAG_INLINE == 0 => read_bytes == payload_bytes as u64,
            _ => sources.is_empty(),
        };
        if !inline_is_right || !sources_are_right {
            return Err(MessageError::Bounds("payload's place"));
        }
        if landing.is_some_and(|landing| landing.len != landing_bytes as u64 || kind != Kind::Request) {
            return Err(MessageError::Bounds("landing"));
        }
        Ok(Self {
            kind,
            call: u64::from_le_bytes(head[8..16].try_into().expect("invariant: 8 bytes")),
            payload_bytes,
            landing_bytes,
            sources,
            landing,
            header,
            inline,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut out = vec![0xaa; MESSAGE_BYTES_MAX];
        let bytes = message.encode(&mut out);
        out.truncate(bytes);
        out
    }

    fn request() -> Message {
        Message {
            payload_bytes: 0x3000,
            landing_bytes: 0x10_0000,
            sources: vec![
                Remote { addr: 0x7f00_1122_3000, rkey: 0x0a0b_0c0d, len: 0x1000 },
                Remote { addr: 0x7f00_1122_8000, rkey: 0x0a0b_0c0e, len: 0x2000 },
            ],
            landing: Some(Remote { addr: 0x7f00_4455_0000, rkey: 0x0102_0304, len: 0x10_0000 }),
            ..Message::new(Kind::Request, 0x102, Bytes::from_static(b"abc"))
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// docs/formats/rdma-transport.md.
    #[test]
    fn golden_bytes() {
        assert_eq!(
            hex(&encoded(&request())),
            "5053524d01010300020100000000000000300000000010000202000064ba9a5000302211007f00000d0c0b0a0010000000802211007f00000e0c0b0a0020000000005544007f00000403020100001000616263"
        );
        let reply = Message {
            payload_bytes: 3,
            inline: Bytes::from_static(b"xyz"),
            ..Message::new(Kind::Reply, 7, Bytes::from_static(b"ok"))
        };
        assert_eq!(hex(&encoded(&reply)), "5053524d010202000700000000000000030000000000000000010000119a1c716f6b78797a");
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut messages = vec![
            request(),
            Message::new(Kind::Cancel, 9, Bytes::new()),
            Message::new(Kind::Bye, 0, Bytes::new()),
            Message::new(Kind::Ping, 0, Bytes::new()),
            Message::new(Kind::Failed, 1, Bytes::from_static(b"why")),
            Message { payload_bytes: 4 << 20, ..Message::new(Kind::Reply, 3, Bytes::new()) },
        ];
        let full = Bytes::from(vec![7; INLINE_BYTES_MAX]);
        let header = Bytes::from(vec![1; limits::MESSAGE_HEADER_BYTES_MAX]);
        let landing = request().landing;
        messages.push(Message {
            payload_bytes: full.len(),
            inline: full,
            landing,
            landing_bytes: 0x10_0000,
            ..Message::new(Kind::Request, 4, header)
        });
        for message in messages {
            assert_eq!(Message::decode(&encoded(&message)), Ok(message));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = encoded(&request());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(Message::decode(&bad).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(Message::decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[28..32].fill(0);
        let crc = crc32c::crc32c(&bytes);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn lies_with_a_right_checksum_are_refused() {
        let change = |at: usize, to: &[u8]| {
            let mut bytes = encoded(&request());
            bytes[at..at + to.len()].copy_from_slice(to);
            Message::decode(&resealed(bytes)).expect_err("a lie")
        };
        assert_eq!(change(5, &[9]), MessageError::Kind(9));
        assert_eq!(change(4, &[2]), MessageError::Version(2));
        assert_eq!(change(16, &[1]), MessageError::Bounds("payload's place"));
        assert_eq!(change(16, &[0xff; 4]), MessageError::Bounds("payload"));
        assert_eq!(change(20, &[1]), MessageError::Bounds("landing"));
        assert_eq!(change(24, &[9]), MessageError::Bounds("head"));
        assert_eq!(change(24, &[8]), MessageError::Short(83));
        assert_eq!(change(25, &[0x83]), MessageError::Bounds("head"));
        assert_eq!(change(6, &[0xff, 0xff]), MessageError::Bounds("header"));
        assert_eq!(change(6, &[4, 0]), MessageError::Short(83));
        // Less header than there is: the rest would be payload, which a request with sources has none of inside.
        assert_eq!(change(6, &[2, 0]), MessageError::Bounds("payload's place"));
        assert_eq!(change(5, &[2]), MessageError::Bounds("payload's place"));
    }
}
