//! What lets a caller touch shards: the gateway signs, the node checks. A node knows neither users nor buckets.
//!
//! Encoded (`docs/formats/capability.md`): version u8 = 2, rights u8, data id (16, big-endian), expiry in Unix
//! milliseconds u64, first stripe u32, end of the stripes u32 (all little-endian), shards u8, then the first 16 bytes of
//! HMAC-SHA256 over all of that with the cluster's key.
//!
//! A data id names the bytes of one PUT, so a capability is for one version of an object. Those that leave the house, in
//! plans for clients, are further narrowed to the [`Scope`] of shards that the plan is about.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::ids::{DataId, ShardKey};

/// What a capability allows. A set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights(u8);

impl Rights {
    /// Store shards.
    pub const PUT: Self = Self(1);
    /// Read shards.
    pub const GET: Self = Self(2);
    /// Delete every shard of the data id.
    pub const DELETE: Self = Self(4);
    /// Ask a node how it is. Carries data id 0.
    pub const STATUS: Self = Self(8);
    /// Have puts answered with a [receipt](crate::receipt::Receipt).
    pub const RECEIPT: Self = Self(16);
    /// Ask a node which shards it holds, and have it scrub them. Carries data id 0.
    pub const UPKEEP: Self = Self(32);
    /// Have the executor beside a node rebuild shards.
    pub const REBUILD: Self = Self(64);

    /// Whether every right of `wanted` is in `self`.
    pub fn allow(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The key that gateway and nodes share. Never printed.
#[derive(Clone)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// From 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key from the operating system's random source.
    ///
    /// # Panics
    /// When the operating system has no randomness to give, which Linux does not report after boot.
    pub fn random() -> Self {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the operating system's random source answers");
        Self(bytes)
    }

    /// The first 16 bytes of HMAC-SHA256 over `domain` and `message`. Each kind of record has a domain of its own, so that
    /// none can be taken for another.
    pub(crate) fn mac(&self, domain: &[u8], message: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(domain);
        mac.update(message);
        let full = mac.finalize().into_bytes();
        let mut out = [0u8; MAC_BYTES];
        out.copy_from_slice(&full[..MAC_BYTES]);
        out
    }
}
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// Bytes of every MAC here.
pub(crate) const MAC_BYTES: usize = 16;
const MAC_DOMAIN: &[u8] = b"penstock capability v2\0";
const VERSION: u8 = 2;
const SIGNED_BYTES: usize = 1 + 1 + 16 + 8 + 4 + 4 + 1;

/// Which shards of its data id a capability is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The first stripe.
    pub first_stripe: u32,
    /// The stripe after the last.
    pub end_stripe: u32,
    /// Of each stripe the shards below this number.
    pub shards: u8,
}

impl Scope {
    /// Every shard.
    pub const ALL: Self = Self { first_stripe: 0, end_stripe: u32::MAX, shards: u8::MAX };

    /// Whether the shard is in it.
    pub fn has(&self, key: ShardKey) -> bool {
        (self.first_stripe..self.end_stripe).contains(&key.stripe) && key.shard < self.shards
    }
}

/// A signed right over one data id, until it expires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    rights: Rights,
    data: DataId,
    expires_unix_ms: u64,
    scope: Scope,
    mac: [u8; MAC_BYTES],
}

/// Why a node refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Not signed with this cluster's key, or changed on the way.
    #[error("the capability is not signed with this cluster's key")]
    Forged,
    /// Past its time.
    #[error("the capability has expired; check that the clocks of gateway and node agree")]
    Expired,
    /// Signed for other data.
    #[error("the capability is for other data")]
    OtherData,
    /// Signed for other shards of the data.
    #[error("the capability is for other shards of the data")]
    OtherShard,
    /// Signed for less.
    #[error("the capability does not allow this operation")]
    Insufficient,
    /// Not this version's layout.
    #[error("the capability has version {0}, this program reads version 2")]
    Version(u8),
}

impl Capability {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

    /// Signs `rights` over all of `data` until `expires_unix_ms`.
    pub fn sign(key: &ClusterKey, rights: Rights, data: DataId, expires_unix_ms: u64) -> Self {
        Self::sign_scoped(key, rights, data, Scope::ALL, expires_unix_ms)
    }

    /// Signs `rights` over the shards of `data` that are in `scope` until `expires_unix_ms`.
    pub fn sign_scoped(key: &ClusterKey, rights: Rights, data: DataId, scope: Scope, expires_unix_ms: u64) -> Self {
        let mut capability = Self { rights, data, expires_unix_ms, scope, mac: [0; MAC_BYTES] };
        capability.mac = key.mac(MAC_DOMAIN, &capability.signed_part());
        capability
    }

    /// Whether the rights in it (which only [`Capability::check`] makes true) ask for receipts.
    pub fn wants_receipts(&self) -> bool {
        self.rights.allow(Rights::RECEIPT)
    }

    /// Whether this lets its bearer use `wanted` on one shard now.
    ///
    /// # Errors
    /// As [`Capability::check`]; [`CapabilityError::OtherShard`] for shards outside its scope.
    pub fn check_shard(
        &self,
        key: &ClusterKey,
        wanted: Rights,
        shard: ShardKey,
        clock: &dyn Clock,
    ) -> Result<(), CapabilityError> {
        self.check_signed(key, wanted, shard.data, clock)?;
        if self.scope.has(shard) { Ok(()) } else { Err(CapabilityError::OtherShard) }
    }

    /// Whether this lets its bearer use `wanted` on all of `data` now.
    ///
    /// # Errors
    /// The first reason that it does not; forgery is looked at first, in constant time.
    pub fn check(
        &self,
        key: &ClusterKey,
        wanted: Rights,
        data: DataId,
        clock: &dyn Clock,
    ) -> Result<(), CapabilityError> {
        self.check_signed(key, wanted, data, clock)?;
        if self.scope == Scope::ALL { Ok(()) } else { Err(CapabilityError::OtherShard) }
    }

    fn check_signed(
        &self,
        key: &ClusterKey,
        wanted: Rights,
        data: DataId,
        clock: &dyn Clock,
    ) -> Result<(), CapabilityError> {
        if !bool::from(key.mac(MAC_DOMAIN, &self.signed_part()).ct_eq(&self.mac)) {
            return Err(CapabilityError::Forged);
        }
        if clock.now_unix_ms() >= self.expires_unix_ms {
            return Err(CapabilityError::Expired);
        }
        if data != self.data {
            return Err(CapabilityError::OtherData);
        }
        if !self.rights.allow(wanted) {
            return Err(CapabilityError::Insufficient);
        }
        Ok(())
    }

    fn signed_part(&self) -> [u8; SIGNED_BYTES] {
        let mut out = [0u8; SIGNED_BYTES];
        out[0] = VERSION;
        out[1] = self.rights.0;
        out[2..18].copy_from_slice(&self.data.to_bytes());
        out[18..26].copy_from_slice(&self.expires_unix_ms.to_le_bytes());
        out[26..30].copy_from_slice(&self.scope.first_stripe.to_le_bytes());
        out[30..34].copy_from_slice(&self.scope.end_stripe.to_le_bytes());
        out[34] = self.scope.shards;
        out
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_BYTES] {
        let mut out = [0u8; Self::ENCODED_BYTES];
        out[..SIGNED_BYTES].copy_from_slice(&self.signed_part());
        out[SIGNED_BYTES..].copy_from_slice(&self.mac);
        out
    }

    /// Reads the encoded form. Says nothing of whether it is genuine: [`Capability::check`] does.
    ///
    /// # Errors
    /// [`CapabilityError::Version`] for another layout.
    pub fn from_bytes(bytes: &[u8; Self::ENCODED_BYTES]) -> Result<Self, CapabilityError> {
        if bytes[0] != VERSION {
            return Err(CapabilityError::Version(bytes[0]));
        }
        let mut data = [0u8; 16];
        data.copy_from_slice(&bytes[2..18]);
        let mut expires = [0u8; 8];
        expires.copy_from_slice(&bytes[18..26]);
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut mac = [0u8; MAC_BYTES];
        mac.copy_from_slice(&bytes[SIGNED_BYTES..]);
        Ok(Self {
            rights: Rights(bytes[1]),
            data: DataId::from_bytes(data),
            expires_unix_ms: u64::from_le_bytes(expires),
            scope: Scope { first_stripe: number(26), end_stripe: number(30), shards: bytes[34] },
            mac,
        })
    }
}
impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capability")
            .field("rights", &self.rights)
            .field("data", &self.data)
            .field("expires_unix_ms", &self.expires_unix_ms)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// As a string of its encoded bytes, in records that are serialised.
impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().as_slice().serialize(serializer)
    }
}
impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let bytes = bytes.as_slice().try_into().map_err(|_| D::Error::custom("a capability has another length"))?;
        Self::from_bytes(bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn key() -> ClusterKey {
        ClusterKey::new([7; 32])
    }

    #[test]
    fn golden_bytes() {
        let capability = Capability::sign(&key(), Rights::GET, DataId(0x0a), 0x0102_0304);
        let bytes = capability.to_bytes();
        assert_eq!(hex(&bytes[..26]), "02020000000000000000000000000000000a0403020100000000");
        assert_eq!(hex(&bytes[26..35]), "00000000ffffffffff");
        assert_eq!(hex(&bytes[35..]), GOLDEN_MAC);
        assert_eq!(Capability::from_bytes(&bytes), Ok(capability));
    }
    const GOLDEN_MAC: &str = "464b623f7ed79b745cbd7fe796ef411d";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn allows_what_it_says_and_nothing_else() {
        let clock = ManualClock::at(1_000);
        let data = DataId(5);
        let capability = Capability::sign(&key(), Rights::GET.and(Rights::PUT), data, 2_000);
        assert_eq!(capability.check(&key(), Rights::GET, data, &clock), Ok(()));
        assert_eq!(capability.check(&key(), Rights::PUT, data, &clock), Ok(()));
        assert_eq!(capability.check(&key(), Rights::DELETE, data, &clock), Err(CapabilityError::Insufficient));
        assert_eq!(capability.check(&key(), Rights::GET, DataId(6), &clock), Err(CapabilityError::OtherData));
        assert_eq!(
            capability.check(&ClusterKey::new([8; 32]), Rights::GET, data, &clock),
            Err(CapabilityError::Forged)
        );
        clock.advance_ms(1_000);
        assert_eq!(capability.check(&key(), Rights::GET, data, &clock), Err(CapabilityError::Expired));
    }

    #[test]
    fn a_narrow_one_is_for_its_shards_alone() {
        let clock = ManualClock::at(0);
        let data = DataId(5);
        let scope = Scope { first_stripe: 2, end_stripe: 4, shards: 3 };
        let narrow = Capability::sign_scoped(&key(), Rights::GET, data, scope, 2_000);
        let check =
            |data, stripe, shard| narrow.check_shard(&key(), Rights::GET, ShardKey { data, stripe, shard }, &clock);
        assert_eq!(check(data, 2, 0), Ok(()));
        assert_eq!(check(data, 3, 2), Ok(()));
        for (stripe, shard) in [(1, 0), (4, 0), (2, 3)] {
            assert_eq!(check(data, stripe, shard), Err(CapabilityError::OtherShard));
        }
        assert_eq!(check(DataId(6), 2, 0), Err(CapabilityError::OtherData));
        assert_eq!(narrow.check(&key(), Rights::GET, data, &clock), Err(CapabilityError::OtherShard));
        let wide = Capability::sign(&key(), Rights::GET, data, 2_000);
        let far = ShardKey { data, stripe: u32::MAX - 1, shard: 47 };
        assert_eq!(wide.check_shard(&key(), Rights::GET, far, &clock), Ok(()));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        let clock = ManualClock::at(0);
        let bytes = Capability::sign(&key(), Rights::GET, DataId(5), 2_000).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdict =
                Capability::from_bytes(&changed).and_then(|c| c.check(&key(), Rights::GET, DataId(5), &clock));
            assert!(verdict.is_err(), "bit {bit} can be changed unnoticed");
        }
    }
}
