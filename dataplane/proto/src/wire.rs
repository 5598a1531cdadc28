//! The records that go between executor and node, as message headers; payload goes beside them through the transport.
//!
//! Little-endian, one version byte, one kind byte, then fixed fields (`docs/formats/node-messages.md`). Readers refuse
//! what is too short, too long or of another version: they never guess.

use bytes::{BufMut, Bytes, BytesMut};

use crate::capability::{Capability, CapabilityError};
use crate::ids::{DataId, ShardKey};
use crate::limits;
use crate::receipt::Receipt;
use crate::upkeep::{Rebuild, Rebuilt};

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
    /// Which shards it holds, in the order of their keys; they come as payload ([`crate::upkeep::ListedShard`]).
    List {
        /// The right to ask.
        capability: Capability,
        /// From the first after this one; from the first of all.
        after: Option<ShardKey>,
        /// Those alone that a read or a scrub has found damaged.
        broken: bool,
    },
    /// Whether it holds the shards in the payload ([`crate::upkeep::ShardClaim`]); a byte for each comes back as payload.
    Check {
        /// The right to ask.
        capability: Capability,
        /// How many they are.
        shards: u32,
    },
    /// Begin a scrub of every shard now, at this speed.
    Scrub {
        /// The right to.
        capability: Capability,
        /// Bytes read a second; at least 1.
        bytes_per_s: u64,
    },
    /// For the executor beside the node: rebuild shards of a stripe.
    Rebuild {
        /// The right to, and to read and store the shards in question: it is passed on.
        capability: Capability,
        /// What.
        rebuild: Rebuild,
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
    /// So many shards are listed in the payload.
    Listed {
        /// How many.
        shards: u32,
        /// Whether there are further ones.
        more: bool,
    },
    /// The states of so many shards are in the payload.
    Checked {
        /// How many.
        shards: u32,
    },
    /// The scrub has begun.
    Scrubbing,
    /// The rebuild is done, as far as it could be.
    Rebuilt(Rebuilt),
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
    /// How long the device takes for a read of a shard or a range, in microseconds, smoothed; 0 before the first.
    pub read_us: u32,
    /// The same for a flush.
    pub flush_us: u32,
    /// Shards that live and that a read or a scrub has found damaged.
    pub broken_shards: u64,
    /// The scrub that is under way.
    pub scrub: ScrubProgress,
}

/// How far a node's scrub is: it reads every shard, and begins anew when it is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ScrubProgress {
    /// When the cycle under way began; 0 when there is no scrub.
    pub began_unix_ms: u64,
    /// Shards read in it.
    pub shards: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, the ones that were found damaged.
    pub bad: u64,
    /// When the last whole cycle ended; 0 for never.
    pub last_ended_unix_ms: u64,
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

/// The kind of [`NodeRequest::Rebuild`].
const REBUILD_KIND: u8 = 0x13;
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

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Field("a flag is 0 or 1")),
        }
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
            Self::List { capability, after, broken } => {
                out = start(0x10);
                out.put_slice(&capability.to_bytes());
                out.put_u8(u8::from(after.is_some()) | u8::from(*broken) << 1);
                out.put_slice(&after.map_or([0; ShardKey::ENCODED_BYTES], ShardKey::to_bytes));
            }
            Self::Check { capability, shards } => {
                out = start(0x11);
                out.put_slice(&capability.to_bytes());
                out.put_u32_le(*shards);
            }
            Self::Scrub { capability, bytes_per_s } => {
                out = start(0x12);
                out.put_slice(&capability.to_bytes());
                out.put_u64_le(*bytes_per_s);
            }
            Self::Rebuild { capability, rebuild } => {
                out = start(REBUILD_KIND);
                out.put_slice(&capability.to_bytes());
                out.put_slice(&postcard::to_stdvec(rebuild).expect("a struct of numbers has a postcard form"));
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
            0x10 => {
                let capability = reader.capability()?;
                let flags = reader.u8()?;
                let after = reader.shard_key()?;
                if flags > 3 {
                    return Err(WireError::Field("a list has two flags"));
                }
                Self::List { capability, after: (flags & 1 == 1).then_some(after), broken: flags & 2 == 2 }
            }
            0x11 => Self::Check { capability: reader.capability()?, shards: reader.u32()? },
            0x12 => Self::Scrub { capability: reader.capability()?, bytes_per_s: reader.u64()? },
            REBUILD_KIND => {
                let capability = reader.capability()?;
                let (rebuild, rest) = postcard::take_from_bytes::<Rebuild>(reader.rest)
                    .map_err(|_| WireError::Field("the rebuild can't be read"))?;
                reader.rest = rest;
                Self::Rebuild { capability, rebuild }
            }
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
            Self::Check { shards, .. } if *shards == 0 || *shards as usize > limits::UPKEEP_SHARDS_MAX => {
                Err(WireError::Field("a check is about 1 shard at least and UPKEEP_SHARDS_MAX at most"))
            }
            Self::Scrub { bytes_per_s: 0, .. } => Err(WireError::Field("a scrub reads 1 byte a second at least")),
            Self::Rebuild { rebuild, .. } => rebuild.check().map(|()| request),
            _ => Ok(request),
        }
    }

    /// Whether these are the header bytes of a [`NodeRequest::Rebuild`], which is not for the node but for the executor
    /// beside it.
    pub fn is_rebuild(header: &[u8]) -> bool {
        header.get(..2) == Some(&[VERSION, REBUILD_KIND])
    }

    /// The capability that comes with it.
    pub fn capability(&self) -> &Capability {
        match self {
            Self::Put { capability, .. }
            | Self::Get { capability, .. }
            | Self::Delete { capability, .. }
            | Self::Status { capability }
            | Self::List { capability, .. }
            | Self::Check { capability, .. }
            | Self::Scrub { capability, .. }
            | Self::Rebuild { capability, .. } => capability,
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
                out.put_u32_le(status.read_us);
                out.put_u32_le(status.flush_us);
                out.put_u64_le(status.broken_shards);
                let ScrubProgress { began_unix_ms, shards, bytes, bad, last_ended_unix_ms } = status.scrub;
                for number in [began_unix_ms, shards, bytes, bad, last_ended_unix_ms] {
                    out.put_u64_le(number);
                }
            }
            Self::Listed { shards, more } => {
                out = start(0x90);
                out.put_u32_le(*shards);
                out.put_u8(u8::from(*more));
            }
            Self::Checked { shards } => {
                out = start(0x91);
                out.put_u32_le(*shards);
            }
            Self::Scrubbing => out = start(0x92),
            Self::Rebuilt(rebuilt) => {
                out = start(0x93);
                out.put_u64_le(rebuilt.stored);
                out.put_u32_le(rebuilt.reads);
                out.put_u64_le(rebuilt.read_bytes);
                out.put_u64_le(rebuilt.written_bytes);
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
                failed: reader.flag()?,
                read_us: reader.u32()?,
                flush_us: reader.u32()?,
                broken_shards: reader.u64()?,
                scrub: ScrubProgress {
                    began_unix_ms: reader.u64()?,
                    shards: reader.u64()?,
                    bytes: reader.u64()?,
                    bad: reader.u64()?,
                    last_ended_unix_ms: reader.u64()?,
                },
            }),
            0x90 => Self::Listed { shards: reader.u32()?, more: reader.flag()? },
            0x91 => Self::Checked { shards: reader.u32()? },
            0x92 => Self::Scrubbing,
            0x93 => Self::Rebuilt(Rebuilt {
                stored: reader.u64()?,
                reads: reader.u32()?,
                read_bytes: reader.u64()?,
                written_bytes: reader.u64()?,
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
    use crate::ids::NodeId;
    use crate::plan::Crc64;
    use crate::upkeep::RebuildShard;

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
            NodeRequest::List { capability, after: Some(key), broken: true },
            NodeRequest::List { capability, after: None, broken: false },
            NodeRequest::Check { capability, shards: 9 },
            NodeRequest::Scrub { capability, bytes_per_s: 1 << 20 },
            NodeRequest::Rebuild { capability, rebuild: rebuild() },
        ]
    }

    fn rebuild() -> Rebuild {
        let shard = |from, to| RebuildShard { from, to, crc64: Crc64(0x0102_0304_0506_0708) };
        let shards = vec![shard(Some(NodeId(1)), None), shard(Some(NodeId(2)), None), shard(None, Some(NodeId(300)))];
        let code = crate::code::Code::new(2, 1).expect("a code");
        Rebuild { data: DataId(1), stripe: 2, code, chunk_bytes: 1000, shards }
    }

    fn replies() -> Vec<NodeReply> {
        vec![
            NodeReply::Stored,
            NodeReply::Sent { crc64: 1, shard_bytes: 2 },
            NodeReply::Deleted { shards: 3 },
            NodeReply::Status(NodeStatus { capacity_bytes: 9, shards: 1, failed: true, ..NodeStatus::default() }),
            NodeReply::refused(NodeErrorCode::NoSpace, "the device is full"),
            NodeReply::Receipted(Receipt::from_bytes(&[3; Receipt::ENCODED_BYTES])),
            NodeReply::Listed { shards: 3, more: true },
            NodeReply::Checked { shards: 3 },
            NodeReply::Scrubbing,
            NodeReply::Rebuilt(Rebuilt { stored: 1 << 40, reads: 10, read_bytes: 11, written_bytes: 12 }),
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
        assert_eq!(
            requests()[4].encode()[2 + Capability::ENCODED_BYTES..],
            *b"\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\x02\x03"
        );
        assert_eq!(replies()[6].encode()[..], *b"\x01\x90\x03\0\0\0\x01");
        assert_eq!(replies()[9].encode()[..10], *b"\x01\x93\0\0\0\0\0\x01\0\0");
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
            NodeRequest::Check { capability, shards: 0 },
            NodeRequest::Check { capability, shards: u32::MAX },
            NodeRequest::Scrub { capability, bytes_per_s: 0 },
            NodeRequest::Rebuild { capability, rebuild: Rebuild { shards: Vec::new(), ..rebuild() } },
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
