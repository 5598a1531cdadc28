//! Ids as newtypes, so that a shard index can't be taken for a stripe index.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A storage node: its place in the cluster map. `node-07` on disk and in logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{:02}", self.0)
    }
}
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes of one PUT body or of one uploaded part: a run of stripes written together, deleted together and never
/// changed. 128 random bits; an id is never used again, so a late message about dead data can't touch live data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataId(pub u128);

impl DataId {
    /// A fresh id from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no randomness to give, which Linux does not report after boot.
    pub fn random() -> Self {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).expect("the operating system's random source answers");
        Self(u128::from_be_bytes(bytes))
    }

    /// Big-endian, so that keys sort as ids do.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`DataId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}
impl fmt::Display for DataId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
impl fmt::Debug for DataId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One shard: shard `shard` of stripe `stripe` of `data`. Data shards are `0..k`, parity shards `k..k+m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// Whose bytes.
    pub data: DataId,
    /// Which stripe (chunk) of them, from 0.
    pub stripe: u32,
    /// Which shard of the stripe.
    pub shard: u8,
}

impl ShardKey {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = 21;

    /// `data` (16, big-endian), `stripe` (4, big-endian), `shard` (1): sorts as the tuple does.
    pub fn to_bytes(self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0u8; Self::ENCODED_BYTES];
        out[..16].copy_from_slice(&self.data.to_bytes());
        out[16..20].copy_from_slice(&self.stripe.to_be_bytes());
        out[20] = self.shard;
        out
    }

    /// The inverse of [`ShardKey::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::ENCODED_BYTES]) -> Self {
        let mut data = [0u8; 16];
        data.copy_from_slice(&bytes[..16]);
        let mut stripe = [0u8; 4];
        stripe.copy_from_slice(&bytes[16..20]);
        Self { data: DataId::from_bytes(data), stripe: u32::from_be_bytes(stripe), shard: bytes[20] }
    }
}
impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.data, self.stripe, self.shard)
    }
}
impl fmt::Debug for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The version of a cluster map. Grows by one at each change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MapEpoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_key_has_golden_bytes_and_sorts_as_its_parts() {
        let key =
            ShardKey { data: DataId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), stripe: 0x1122_3344, shard: 0x55 };
        let bytes = key.to_bytes();
        assert_eq!(bytes, *b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x22\x33\x44\x55");
        assert_eq!(ShardKey::from_bytes(&bytes), key);
        let next = ShardKey { stripe: key.stripe + 1, shard: 0, ..key };
        assert!(next > key && next.to_bytes() > bytes);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(DataId::random(), DataId::random());
    }
}
