//! What lets a caller touch shards: the gateway signs, the node checks. A node knows neither users nor buckets.
//!
//! Encoded (`docs/formats/capability.md`): version u8 = 1, rights u8, data id (16, big-endian), expiry in Unix
//! milliseconds u64 little-endian, then the first 16 bytes of HMAC-SHA256 over all of that with the cluster's key.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::ids::DataId;

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

    fn mac(&self, message: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(MAC_DOMAIN);
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

const MAC_BYTES: usize = 16;
const MAC_DOMAIN: &[u8] = b"penstock capability v1\0";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 1 + 16 + 8;

/// A signed right over one data id, until it expires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    rights: Rights,
    data: DataId,
    expires_unix_ms: u64,
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
    /// Signed for less.
    #[error("the capability does not allow this operation")]
    Insufficient,
    /// Not this version's layout.
    #[error("the capability has version {0}, this node reads version 1")]
    Version(u8),
}

impl Capability {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = SIGNED_BYTES + MAC_BYTES;

    /// Signs `rights` over `data` until `expires_unix_ms`.
    pub fn sign(key: &ClusterKey, rights: Rights, data: DataId, expires_unix_ms: u64) -> Self {
        let mut capability = Self { rights, data, expires_unix_ms, mac: [0; MAC_BYTES] };
        capability.mac = key.mac(&capability.signed_part());
        capability
    }

    /// Whether this lets its bearer use `wanted` on `data` now.
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
        if !bool::from(key.mac(&self.signed_part()).ct_eq(&self.mac)) {
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
        let mut mac = [0u8; MAC_BYTES];
        mac.copy_from_slice(&bytes[SIGNED_BYTES..]);
        Ok(Self {
            rights: Rights(bytes[1]),
            data: DataId::from_bytes(data),
            expires_unix_ms: u64::from_le_bytes(expires),
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
            .finish_non_exhaustive()
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
        assert_eq!(hex(&bytes[..26]), "01020000000000000000000000000000000a0403020100000000");
        assert_eq!(hex(&bytes[26..]), GOLDEN_MAC);
        assert_eq!(Capability::from_bytes(&bytes), Ok(capability));
    }
    const GOLDEN_MAC: &str = "d453d7bc75c36a20664b3d8553f23592";

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
