//! Records of the store's upkeep: what a node is asked about the shards that it holds, and what the executor beside a
//! node is told to rebuild. They travel in the messages of [`crate::wire`] (`docs/formats/node-messages.md`).

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::ids::{DataId, NodeId, ShardKey};
use crate::limits;
use crate::plan::Crc64;
use crate::wire::WireError;

/// A shard that the metadata says a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardClaim {
    /// Which.
    pub key: ShardKey,
    /// Its CRC64NVME.
    pub crc64: u64,
}

/// What a node says of a [`ShardClaim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ShardState {
    /// It is here, and nothing wrong is known of it.
    Sound = 0,
    /// It is not.
    Missing = 1,
    /// It is, and a read or a scrub has found it damaged.
    Broken = 2,
    /// There is a shard of that key, with other bytes.
    Other = 3,
}

/// A shard that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedShard {
    /// Which.
    pub key: ShardKey,
    /// Its CRC64NVME, as it was stored.
    pub crc64: u64,
    /// A read or a scrub has found it damaged.
    pub broken: bool,
}

impl ShardClaim {
    /// Bytes of the encoded form: shard key, CRC64NVME (little-endian).
    pub const ENCODED_BYTES: usize = ShardKey::ENCODED_BYTES + 8;

    /// The encoded form of several, one after the other.
    pub fn encode_all(claims: &[Self]) -> Vec<u8> {
        claims.iter().flat_map(|claim| encode(claim.key, claim.crc64)).collect()
    }

    /// Reads what [`ShardClaim::encode_all`] wrote.
    ///
    /// # Errors
    /// [`WireError::Field`] for another length, and past [`limits::UPKEEP_SHARDS_MAX`].
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, WireError> {
        let all = records::<{ Self::ENCODED_BYTES }>(bytes)?;
        Ok(all.iter().map(|record| decode(record)).map(|(key, crc64)| Self { key, crc64 }).collect())
    }
}

impl ListedShard {
    /// Bytes of the encoded form: shard key, CRC64NVME (little-endian), whether it is broken (0 or 1).
    pub const ENCODED_BYTES: usize = ShardClaim::ENCODED_BYTES + 1;

    /// The encoded form of several, one after the other.
    pub fn encode_all(shards: &[Self]) -> Vec<u8> {
        shards.iter().flat_map(|s| encode(s.key, s.crc64).into_iter().chain([u8::from(s.broken)])).collect()
    }

    /// Reads what [`ListedShard::encode_all`] wrote.
    ///
    /// # Errors
    /// [`WireError::Field`] for another length, a flag that is none, and past [`limits::UPKEEP_SHARDS_MAX`].
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, WireError> {
        let all = records::<{ Self::ENCODED_BYTES }>(bytes)?;
        all.iter()
            .map(|record| {
                let (key, crc64) = decode(record);
                match record[ShardClaim::ENCODED_BYTES] {
                    flag @ 0..=1 => Ok(Self { key, crc64, broken: flag == 1 }),
                    _ => Err(WireError::Field("a flag is 0 or 1")),
                }
            })
            .collect()
    }
}

impl ShardState {
    /// The inverse of `as u8`.
    ///
    /// # Errors
    /// [`WireError::Field`] for a byte that is none.
    pub fn from_byte(byte: u8) -> Result<Self, WireError> {
        Ok(match byte {
            0 => Self::Sound,
            1 => Self::Missing,
            2 => Self::Broken,
            3 => Self::Other,
            _ => return Err(WireError::Field("a shard's state is 0 to 3")),
        })
    }
}

fn encode(key: ShardKey, crc64: u64) -> [u8; ShardClaim::ENCODED_BYTES] {
    let mut out = [0; ShardClaim::ENCODED_BYTES];
    out[..ShardKey::ENCODED_BYTES].copy_from_slice(&key.to_bytes());
    out[ShardKey::ENCODED_BYTES..].copy_from_slice(&crc64.to_le_bytes());
    out
}

fn decode(record: &[u8]) -> (ShardKey, u64) {
    let (mut key, mut crc64) = ([0; ShardKey::ENCODED_BYTES], [0; 8]);
    key.copy_from_slice(&record[..ShardKey::ENCODED_BYTES]);
    crc64.copy_from_slice(&record[ShardKey::ENCODED_BYTES..ShardClaim::ENCODED_BYTES]);
    (ShardKey::from_bytes(&key), u64::from_le_bytes(crc64))
}

fn records<const N: usize>(bytes: &[u8]) -> Result<&[[u8; N]], WireError> {
    let (records, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(WireError::Field("the payload is no whole number of records"));
    }
    if records.len() > limits::UPKEEP_SHARDS_MAX {
        return Err(WireError::Field("a message is about UPKEEP_SHARDS_MAX shards at most"));
    }
    Ok(records)
}

/// One shard of a stripe to be rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebuildShard {
    /// Where it can be read; none where it is lost, broken or out of reach.
    pub from: Option<NodeId>,
    /// Where it is to be stored; none where it stays as it is.
    pub to: Option<NodeId>,
    /// Its CRC64NVME.
    pub crc64: Crc64,
}

/// What the executor beside a node is told: read what it takes of this stripe straight from the nodes that have it,
/// compute what is lost, and store that where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Whose stripe.
    pub data: DataId,
    /// Which.
    pub stripe: u32,
    /// How it is coded.
    pub code: Code,
    /// Bytes of the chunk, pad excluded; at least 1.
    pub chunk_bytes: u32,
    /// Every shard, in order.
    pub shards: Vec<RebuildShard>,
}

/// What came of a [`Rebuild`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Shards that are durable where they were to go, as a bitmap.
    pub stored: u64,
    /// Shards that were read from nodes.
    pub reads: u32,
    /// Their bytes.
    pub read_bytes: u64,
    /// Bytes of the shards that were stored.
    pub written_bytes: u64,
}

impl Rebuild {
    /// Whether it can be done at all.
    ///
    /// # Errors
    /// [`WireError::Field`] that says what is wrong.
    pub fn check(&self) -> Result<(), WireError> {
        if self.code.k() == 0 || self.shards.len() != self.code.n() {
            return Err(WireError::Field("a rebuild names every shard of its stripe"));
        }
        if self.chunk_bytes == 0 || self.chunk_bytes as usize > limits::CHUNK_BYTES {
            return Err(WireError::Field("a chunk has 1 byte at least and CHUNK_BYTES at most"));
        }
        if self.shards.iter().all(|shard| shard.to.is_none()) {
            return Err(WireError::Field("a rebuild stores one shard at least"));
        }
        Ok(())
    }

    /// The shards to be stored.
    pub fn wanted(&self) -> impl Iterator<Item = (usize, NodeId)> {
        self.shards.iter().enumerate().filter_map(|(shard, each)| Some((shard, each.to?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stripe: u32) -> ShardKey {
        ShardKey { data: DataId(7), stripe, shard: 3 }
    }

    #[test]
    fn lists_come_back_and_nonsense_is_refused() {
        let claims: Vec<_> = (0..5).map(|i| ShardClaim { key: key(i), crc64: u64::from(i) << 40 }).collect();
        let bytes = ShardClaim::encode_all(&claims);
        assert_eq!(bytes.len(), 5 * 29);
        assert_eq!(bytes[21..29], [0; 8]);
        assert_eq!(ShardClaim::decode_all(&bytes), Ok(claims));
        assert!(ShardClaim::decode_all(&bytes[1..]).is_err());
        assert!(ShardClaim::decode_all(&vec![0; 29 * (limits::UPKEEP_SHARDS_MAX + 1)]).is_err());

        let listed =
            [ListedShard { key: key(1), crc64: 5, broken: true }, ListedShard { key: key(2), crc64: 6, broken: false }];
        let mut bytes = ListedShard::encode_all(&listed);
        assert_eq!(ListedShard::decode_all(&bytes).unwrap(), listed);
        bytes[29] = 2;
        assert!(ListedShard::decode_all(&bytes).is_err());

        for state in [ShardState::Sound, ShardState::Missing, ShardState::Broken, ShardState::Other] {
            assert_eq!(ShardState::from_byte(state as u8), Ok(state));
        }
        assert!(ShardState::from_byte(4).is_err());
    }

    #[test]
    fn a_rebuild_names_every_shard_and_stores_one() {
        let code = Code::new(2, 1).expect("a code");
        let shard = RebuildShard { from: Some(NodeId(1)), to: None, crc64: Crc64(9) };
        let mut rebuild = Rebuild { data: DataId(1), stripe: 0, code, chunk_bytes: 100, shards: vec![shard; 3] };
        assert!(rebuild.check().is_err(), "nothing to store");
        rebuild.shards[2].to = Some(NodeId(8));
        assert_eq!(rebuild.check(), Ok(()));
        assert_eq!(rebuild.wanted().collect::<Vec<_>>(), [(2, NodeId(8))]);
        rebuild.chunk_bytes = 0;
        assert!(rebuild.check().is_err());
        rebuild.chunk_bytes = 1;
        rebuild.shards.pop();
        assert!(rebuild.check().is_err());
    }
}
