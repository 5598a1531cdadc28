//! The records that go between executor and node, as message headers; payload goes beside them through the transport.
//!
//! Little-endian, one version byte, one kind byte, then fixed fields (`docs/formats/node-messages.md`). Readers refuse
//! what is too short, too long or of another version: they never guess.

use bytes::{BufMut, Bytes, BytesMut};

use crate::capability::{Capability, CapabilityError};
use crate::ids::{DataId, ShardKey};
use crate::limits;
use crate::receipt::Receipt;

/// Version of every record here.
pub const VERSION: u8 = 1;

/// What an executor asks of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRequest {
    /// Store the shard that is the message's payload; answer when it is durable.
    Put {
        /// The right to.
        capability: Capability,
        /// Which shard.
        key: ShardKey,
        /// Its length, 1 to [`limits::SHARD_BYTES_MAX`].
        shard_bytes: u32,
        /// Its CRC64NVME: the node checks before it stores.
        crc64: u64,
    },
    /// Send a range of a shard as payload.
    Get {
        /// The right to.
        capability: Capability,
        /// Which shard.
        key: ShardKey,
        /// The CRC64NVME that the metadata has for the whole shard: a node that holds another answers Corrupt.
        crc64: u64,
        /// First byte.
        offset: u32,
        /// Bytes from there, at least 1.
        length: u32,
    },
    /// Delete every shard of a data id, and refuse later ones.
    Delete {
        /// The right to.
        capability: Capability,
        /// Whose shards.
        data: DataId,
    },
    /// How the node is.
    Status {
        /// The right to ask.
        capability: Capability,
    },
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeReply {
    /// The shard is durable.
    Stored,
    /// The shard is durable, and here is the node's word for it: the answer to a put whose capability wants receipts.
    Receipted(Receipt),
    /// The range is in the payload.
    Sent {
        /// CRC64NVME of the bytes sent. For a whole shard it equals the shard's.
        crc64: u64,
        /// Length of the whole shard.
        shard_bytes: u32,
    },
    /// So many shards are gone, durably.
    Deleted {
        /// Shards that there were.
        shards: u32,
    },
    /// How the node is.
    Status(NodeStatus),
    /// It can't.
    Refused {
        /// Which kind of no.
        code: NodeErrorCode,
        /// For people: what is wrong and what to do. At most 512 bytes.
        message: String,
    },
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Bytes that the device can hold.
    pub capacity_bytes: u64,
    /// Bytes that shards may still take.
    pub free_bytes: u64,
    /// Bytes of shards that live.
    pub live_bytes: u64,
    /// Shards that live.
    pub shards: u64,
    /// Extents open for appending.
    pub open_extents: u32,
    /// Whether the device has failed: reads may work, writes don't.
    pub failed: bool,
}

/// The kinds of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NodeErrorCode {
    /// The node has no such shard (it came back empty, or the shard was never stored here).
    NoSuchShard = 1,
    /// The node has it, but not with that checksum, or the device returned wrong bytes.
    Corrupt = 2,
    /// No room.
    NoSpace = 3,
    /// Too many operations at once; try again.
    Busy = 4,
    /// The capability does not allow it.
    Forbidden = 5,
    /// The request makes no sense.
    BadRequest = 6,
    /// The device failed: no writes until it is replaced.
    DeviceFailed = 7,
    /// The data was deleted; no shard of it is taken any more.
    DataDeleted = 8,
    /// Anything else; the message says what.
    Internal = 9,
}

impl NodeErrorCode {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NoSuchShard,
            2 => Self::Corrupt,
            3 => Self::NoSpace,
            4 => Self::Busy,
            5 => Self::Forbidden,
            6 => Self::BadRequest,
            7 => Self::DeviceFailed,
            8 => Self::DataDeleted,
            9 => Self::Internal,
            _ => return None,
        })
    }

    /// Whether the same request may succeed on the same node soon.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("the record ends after {0} bytes, in the middle of a field")]
    Short(usize),
    /// Bytes follow it.
    #[error("{0} bytes follow the record")]
    Long(usize),
    /// Another version.
    #[error("the record has version {0}; this program reads version {VERSION}: run the same release on every node")]
    Version(u8),
    /// An unknown kind.
    #[error("the record has the unknown kind {0}")]
    Kind(u8),
    /// A field that can't be.
    #[error("{0}")]
    Field(&'static str),
    /// The capability in it can't be read.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
}

/// Longest message of a refusal.
const REFUSAL_BYTES_MAX: usize = 512;

struct Reader<'a> {
    rest: &'a [u8],
    total_bytes: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<(u8, Self), WireError> {
        let mut reader = Self { rest: bytes, total_bytes: bytes.len() };
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let kind = reader.u8()?;
        Ok((kind, reader))
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short(self.total_bytes))?;
        self.rest = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(*self.take()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(*self.take()?))
    }

    fn capability(&mut self) -> Result<Capability, WireError> {
        Ok(Capability::from_bytes(self.take()?)?)
    }

    fn shard_key(&mut self) -> Result<ShardKey, WireError> {
        Ok(ShardKey::from_bytes(self.take()?))
    }

    fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Long(self.rest.len())) }
    }
}

fn start(kind: u8) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    out.put_u8(kind);
    out
}

impl NodeRequest {
    /// The header bytes of this request.
    pub fn encode(&self) -> Bytes {
        let mut out;
        match self {
            Self::Put { capability, key, shard_bytes, crc64 } => {
                out = start(1);
                out.put_slice(&capability.to_bytes());
                out.put_slice(&key.to_bytes());
                out.put_u32_le(*shard_bytes);
                out.put_u64_le(*crc64);
            }
            Self::Get { capability, key, crc64, offset, length } => {
                out = start(2);
                out.put_slice(&capability.to_bytes());
                out.put_slice(&key.to_bytes());
                out.put_u64_le(*crc64);
                out.put_u32_le(*offset);
                out.put_u32_le(*length);
            }
            Self::Delete { capability, data } => {
                out = start(3);
                out.put_slice(&capability.to_bytes());
                out.put_slice(&data.to_bytes());
            }
            Self::Status { capability } => {
                out = start(4);
                out.put_slice(&capability.to_bytes());
            }
        }
        out.freeze()
    }

    /// Reads a request and checks every bound on it.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`NodeRequest::encode`] would not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(bytes)?;
        let request = match kind {
            1 => Self::Put {
                capability: reader.capability()?,
                key: reader.shard_key()?,
                shard_bytes: reader.u32()?,
                crc64: reader.u64()?,
            },
            2 => Self::Get {
                capability: reader.capability()?,
                key: reader.shard_key()?,
                crc64: reader.u64()?,
                offset: reader.u32()?,
                length: reader.u32()?,
            },
            3 => Self::Delete { capability: reader.capability()?, data: DataId::from_bytes(*reader.take()?) },
            4 => Self::Status { capability: reader.capability()? },
            other => return Err(WireError::Kind(other)),
        };
        reader.end()?;
        match &request {
            Self::Put { shard_bytes, .. } if *shard_bytes == 0 || *shard_bytes as usize > limits::SHARD_BYTES_MAX => {
                Err(WireError::Field("a shard has 1 byte at least and SHARD_BYTES_MAX at most"))
            }
            Self::Get { offset, length, .. }
                if *length == 0
                    || offset.checked_add(*length).is_none_or(|end| end as usize > limits::SHARD_BYTES_MAX) =>
            {
                Err(WireError::Field("a read has 1 byte at least and ends within SHARD_BYTES_MAX"))
            }
            _ => Ok(request),
        }
    }

    /// The capability that comes with it.
    pub fn capability(&self) -> &Capability {
        match self {
            Self::Put { capability, .. }
            | Self::Get { capability, .. }
            | Self::Delete { capability, .. }
            | Self::Status { capability } => capability,
        }
    }
}

impl NodeReply {
    /// A refusal; `message` is cut to what fits.
    pub fn refused(code: NodeErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > REFUSAL_BYTES_MAX {
            let mut end = REFUSAL_BYTES_MAX;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        Self::Refused { code, message }
    }

    /// The header bytes of this reply.
    pub fn encode(&self) -> Bytes {
        let mut out;
        match self {
            Self::Stored => out = start(0x81),
            Self::Sent { crc64, shard_bytes } => {
                out = start(0x82);
                out.put_u64_le(*crc64);
                out.put_u32_le(*shard_bytes);
            }
            Self::Deleted { shards } => {
                out = start(0x83);
                out.put_u32_le(*shards);
            }
            Self::Status(status) => {
                out = start(0x84);
                out.put_u64_le(status.capacity_bytes);
                out.put_u64_le(status.free_bytes);
                out.put_u64_le(status.live_bytes);
                out.put_u64_le(status.shards);
                out.put_u32_le(status.open_extents);
                out.put_u8(u8::from(status.failed));
            }
            Self::Receipted(receipt) => {
                out = start(0x85);
                out.put_slice(&receipt.to_bytes());
            }
            Self::Refused { code, message } => {
                out = start(0xff);
                out.put_u8(*code as u8);
                out.put_slice(message.as_bytes());
            }
        }
        out.freeze()
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`WireError`] for anything that [`NodeReply::encode`] would not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (kind, mut reader) = Reader::new(bytes)?;
        let reply = match kind {
            0x81 => Self::Stored,
            0x82 => Self::Sent { crc64: reader.u64()?, shard_bytes: reader.u32()? },
            0x83 => Self::Deleted { shards: reader.u32()? },
            0x84 => Self::Status(NodeStatus {
                capacity_bytes: reader.u64()?,
                free_bytes: reader.u64()?,
                live_bytes: reader.u64()?,
                shards: reader.u64()?,
                open_extents: reader.u32()?,
                failed: match reader.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(WireError::Field("a flag is 0 or 1")),
                },
            }),
            0x85 => Self::Receipted(Receipt::from_bytes(reader.take()?)),
            0xff => {
                let code =
                    NodeErrorCode::from_byte(reader.u8()?).ok_or(WireError::Field("the refusal's code is unknown"))?;
                if reader.rest.len() > REFUSAL_BYTES_MAX {
                    return Err(WireError::Field("the refusal's message is too long"));
                }
                let message = std::str::from_utf8(reader.rest)
                    .map_err(|_| WireError::Field("the refusal's message is not UTF-8"))?
                    .to_owned();
                return Ok(Self::Refused { code, message });
            }
            other => return Err(WireError::Kind(other)),
        };
        reader.end()?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{ClusterKey, Rights};

    fn capability() -> Capability {
        Capability::sign(&ClusterKey::new([7; 32]), Rights::PUT, DataId(1), 99)
    }

    fn requests() -> Vec<NodeRequest> {
        let capability = capability();
        let key = ShardKey { data: DataId(1), stripe: 2, shard: 3 };
        vec![
            NodeRequest::Put { capability, key, shard_bytes: 64, crc64: 5 },
            NodeRequest::Get { capability, key, crc64: 5, offset: 6, length: 7 },
            NodeRequest::Delete { capability, data: DataId(1) },
            NodeRequest::Status { capability },
        ]
    }

    fn replies() -> Vec<NodeReply> {
        vec![
            NodeReply::Stored,
            NodeReply::Sent { crc64: 1, shard_bytes: 2 },
            NodeReply::Deleted { shards: 3 },
            NodeReply::Status(NodeStatus { capacity_bytes: 9, shards: 1, failed: true, ..NodeStatus::default() }),
            NodeReply::refused(NodeErrorCode::NoSpace, "the device is full"),
            NodeReply::Receipted(Receipt::from_bytes(&[3; Receipt::ENCODED_BYTES])),
        ]
    }

    #[test]
    fn every_record_comes_back_and_no_prefix_or_suffix_passes() {
        for request in requests() {
            let bytes = request.encode();
            assert_eq!(NodeRequest::decode(&bytes), Ok(request));
            for end in 0..bytes.len() {
                assert!(NodeRequest::decode(&bytes[..end]).is_err());
            }
            assert!(NodeRequest::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
        for reply in replies() {
            let bytes = reply.encode();
            assert!(bytes.len() <= limits::MESSAGE_HEADER_BYTES_MAX);
            assert_eq!(NodeReply::decode(&bytes), Ok(reply));
        }
    }

    #[test]
    fn golden_bytes() {
        let get = &requests()[1].encode();
        assert_eq!(get[..2], [1, 2]);
        assert_eq!(
            get[2 + Capability::ENCODED_BYTES..],
            *b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02\x03\x05\0\0\0\0\0\0\0\x06\0\0\0\x07\0\0\0"
        );
        assert_eq!(replies()[1].encode()[..], *b"\x01\x82\x01\0\0\0\0\0\0\0\x02\0\0\0");
        assert_eq!(replies()[4].encode()[..], *b"\x01\xff\x03the device is full");
    }

    #[test]
    fn bounds_are_checked_on_arrival() {
        let capability = capability();
        let key = ShardKey { data: DataId(1), stripe: 0, shard: 0 };
        for bad in [
            NodeRequest::Put { capability, key, shard_bytes: 0, crc64: 0 },
            NodeRequest::Put { capability, key, shard_bytes: u32::MAX, crc64: 0 },
            NodeRequest::Get { capability, key, crc64: 0, offset: u32::MAX, length: 1 },
            NodeRequest::Get { capability, key, crc64: 0, offset: 0, length: 0 },
        ] {
            assert!(matches!(NodeRequest::decode(&bad.encode()), Err(WireError::Field(_))));
        }
    }

    #[test]
    fn a_long_refusal_is_cut_at_a_character() {
        let NodeReply::Refused { message, .. } = NodeReply::refused(NodeErrorCode::Internal, "é".repeat(400)) else {
            panic!("a refusal")
        };
        assert_eq!(message.len(), 512);
    }
}
