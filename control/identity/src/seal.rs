//! Sealing: AES-256-GCM under keys derived from the store's identity key, which is a file beside the metadata and not in it.
//!
//! `01 | nonce, 12 bytes | ciphertext and tag`. Nonces are random: after 2^32 seals under one key two would share one with a
//! chance of 2^-33 (NIST SP 800-38D, 8.3), and this seals one secret or token at a time. What is sealed is bound to what it
//! is for (the associated data), so that one key's secret can't be put in another's place.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::error::{ErrorKind, IdentityError};
use crate::secret::Secret;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

/// The 32 bytes from which all keys of this room are derived.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps the bytes of the key file.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn derive(&self, label: &str) -> [u8; 32] {
        mac(&self.0, label.as_bytes())
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| IdentityError::new(ErrorKind::Internal, format!("the system's random source: {error}")))?;
    Ok(bytes)
}

/// One derived key.
pub(crate) struct Sealer(Aes256Gcm);

impl Sealer {
    pub(crate) fn new(key: &MasterKey, label: &str) -> Self {
        Self(Aes256Gcm::new(&key.derive(label).into()))
    }

    pub(crate) fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let nonce = random::<NONCE_BYTES>()?;
        let sealed = self
            .0
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: about })
            .map_err(|_| IdentityError::new(ErrorKind::Internal, "sealing failed"))?;
        Ok([&[VERSION], nonce.as_slice(), &sealed].concat())
    }

    /// What was sealed about this; none for anything else.
    pub(crate) fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = sealed.split_first()?;
        let (nonce, text) = rest.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        if *version != VERSION {
            return None;
        }
        self.0.decrypt(&Nonce::from(nonce), Payload { msg: text, aad: about }).ok()
    }
}

/// Derives the secrets of temporary access keys.
pub(crate) struct Deriver([u8; 32]);

impl Deriver {
    pub(crate) fn new(key: &MasterKey) -> Self {
        Self(key.derive("penstock temporary secrets v1"))
    }

    pub(crate) fn secret_of(&self, access_key: &str) -> Secret {
        use base64::Engine;
        // 30 bytes make the 40 characters that SDKs expect.
        Secret::new(base64::engine::general_purpose::STANDARD.encode(&mac(&self.0, access_key.as_bytes())[..30]))
    }
}
