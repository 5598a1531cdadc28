//! Keys from keys, and random bytes.

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{Result, VaultError};

/// 32 bytes that are wiped when dropped.
pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// The length of every key here, for ring.
struct Len32;

impl hkdf::KeyType for Len32 {
    fn len(&self) -> usize {
        32
    }
}

/// HKDF-SHA256 (RFC 5869): a key of `key` for one purpose and one salt.
pub(crate) fn derive(key: &[u8; 32], salt: &[u8], purpose: &str) -> KeyBytes {
    let mut out = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(&[purpose.as_bytes()], Len32)
        .and_then(|okm| okm.fill(&mut *out))
        .expect("HKDF-SHA256 gives up to 8,160 bytes");
    out
}

/// AES-256-GCM under this key.
pub(crate) fn cipher(key: &KeyBytes) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**key).expect("a key of AES-256 has 32 bytes"))
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut *bytes).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}
