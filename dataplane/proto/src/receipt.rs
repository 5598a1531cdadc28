//! A node's word that a shard is durable: the caller that put it carries it to the gateway, which commits on it.
//!
//! Encoded (`docs/formats/receipt.md`): node u16, expiry in Unix milliseconds u64 (both little-endian), then the first
//! 16 bytes of HMAC-SHA256 with the cluster's key over the domain, the shard key, its length, its CRC64NVME, the node and the
//! expiry. What it says about the shard is not repeated in it: who checks it says what it should be, and any other shard,
//! length, checksum or node does not match.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

use crate::capability::{ClusterKey, MAC_BYTES};
use crate::clock::Clock;
use crate::ids::{NodeId, ShardKey};

const MAC_DOMAIN: &[u8] = b"penstock receipt v1\0";
const SIGNED_BYTES: usize = ShardKey::ENCODED_BYTES + 4 + 8 + 2 + 8;

/// What a node has stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredShard {
    /// Which shard.
    pub key: ShardKey,
    /// Its length.
    pub shard_bytes: u32,
    /// Its CRC64NVME.
    pub crc64: u64,
}

/// A node's signature under a [`StoredShard`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    node: NodeId,
    expires_unix_ms: u64,
    mac: [u8; MAC_BYTES],
}

/// Why a receipt is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not signed with this cluster's key, or for another shard, length, checksum or node.
    #[error("the receipt is not a node's word for this shard")]
    Forged,
    /// Past its time.
    #[error("the receipt has expired; check that the clocks of gateway and node agree")]
    Expired,
}

impl Receipt {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = 2 + 8 + MAC_BYTES;

    /// Signs for a shard.
    pub fn sign(key: &ClusterKey, stored: &StoredShard, node: NodeId, expires_unix_ms: u64) -> Self {
        let mac = key.mac(MAC_DOMAIN, &signed_part(stored, node, expires_unix_ms));
        Self { node, expires_unix_ms, mac }
    }

    /// Whether it is the word of `node` for `stored`, and still good.
    ///
    /// # Errors
    /// The first reason that it is not; forgery is looked at first, in constant time.
    pub fn check(
        &self,
        key: &ClusterKey,
        stored: &StoredShard,
        node: NodeId,
        clock: &dyn Clock,
    ) -> Result<(), ReceiptError> {
        let mac = key.mac(MAC_DOMAIN, &signed_part(stored, node, self.expires_unix_ms));
        if !bool::from(mac.ct_eq(&self.mac)) || self.node != node {
            return Err(ReceiptError::Forged);
        }
        if clock.now_unix_ms() >= self.expires_unix_ms { Err(ReceiptError::Expired) } else { Ok(()) }
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0; Self::ENCODED_BYTES];
        out[..2].copy_from_slice(&self.node.0.to_le_bytes());
        out[2..10].copy_from_slice(&self.expires_unix_ms.to_le_bytes());
        out[10..].copy_from_slice(&self.mac);
        out
    }

    /// Reads the encoded form. Says nothing of whether it is genuine: [`Receipt::check`] does.
    pub fn from_bytes(bytes: &[u8; Self::ENCODED_BYTES]) -> Self {
        let (mut expires, mut mac) = ([0; 8], [0; MAC_BYTES]);
        expires.copy_from_slice(&bytes[2..10]);
        mac.copy_from_slice(&bytes[10..]);
        let node = NodeId(u16::from_le_bytes([bytes[0], bytes[1]]));
        Self { node, expires_unix_ms: u64::from_le_bytes(expires), mac }
    }
}

fn signed_part(stored: &StoredShard, node: NodeId, expires_unix_ms: u64) -> [u8; SIGNED_BYTES] {
    let mut out = [0; SIGNED_BYTES];
    let at = ShardKey::ENCODED_BYTES;
    out[..at].copy_from_slice(&stored.key.to_bytes());
    out[at..at + 4].copy_from_slice(&stored.shard_bytes.to_le_bytes());
    out[at + 4..at + 12].copy_from_slice(&stored.crc64.to_le_bytes());
    out[at + 12..at + 14].copy_from_slice(&node.0.to_le_bytes());
    out[at + 14..].copy_from_slice(&expires_unix_ms.to_le_bytes());
    out
}

/// As a string of its encoded bytes, in records that are serialised.
impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().as_slice().serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Receipt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| D::Error::custom("a receipt has another length"))?;
        Ok(Self::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::ids::DataId;

    const NODE: NodeId = NodeId(3);

    fn key() -> ClusterKey {
        ClusterKey::new([7; 32])
    }

    fn stored() -> StoredShard {
        StoredShard { key: ShardKey { data: DataId(0x0a), stripe: 2, shard: 1 }, shard_bytes: 64, crc64: 5 }
    }

    #[test]
    fn golden_bytes() {
        let receipt = Receipt::sign(&key(), &stored(), NODE, 0x0102_0304);
        let bytes = receipt.to_bytes();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "03000403020100000000617c432694f20f8dd580d721fee16e8d");
        assert_eq!(Receipt::from_bytes(&bytes), receipt);
    }

    #[test]
    fn it_is_for_one_shard_of_one_node_and_nothing_else() {
        let clock = ManualClock::at(1_000);
        let receipt = Receipt::sign(&key(), &stored(), NODE, 2_000);
        assert_eq!(receipt.check(&key(), &stored(), NODE, &clock), Ok(()));
        let others = [
            StoredShard { key: ShardKey { shard: 2, ..stored().key }, ..stored() },
            StoredShard { key: ShardKey { stripe: 3, ..stored().key }, ..stored() },
            StoredShard { key: ShardKey { data: DataId(0x0b), ..stored().key }, ..stored() },
            StoredShard { shard_bytes: 128, ..stored() },
            StoredShard { crc64: 6, ..stored() },
        ];
        for other in others {
            assert_eq!(receipt.check(&key(), &other, NODE, &clock), Err(ReceiptError::Forged), "{other:?}");
        }
        assert_eq!(receipt.check(&key(), &stored(), NodeId(4), &clock), Err(ReceiptError::Forged));
        assert_eq!(receipt.check(&ClusterKey::new([8; 32]), &stored(), NODE, &clock), Err(ReceiptError::Forged));
        clock.advance_ms(1_000);
        assert_eq!(receipt.check(&key(), &stored(), NODE, &clock), Err(ReceiptError::Expired));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let clock = ManualClock::at(0);
        let bytes = Receipt::sign(&key(), &stored(), NODE, 2_000).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdict = Receipt::from_bytes(&changed).check(&key(), &stored(), NODE, &clock);
            assert!(verdict.is_err(), "bit {bit} can be changed unnoticed");
        }
    }
}
