//! The key of one object, and its envelope.
//!
//! `01 | salt, 32 random bytes | ciphertext, 32 bytes | tag, 16 bytes`: AES-256-GCM under a key that HKDF derives from the
//! sealing key and the salt, for this one use, with nonce 0. What the key is for is the associated data: one object's
//! key can't be passed off as sealed in another way.

use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::hmac;
use zeroize::Zeroizing;

use crate::derive::{self, KeyBytes};
use crate::{Result, VaultError};

/// Length of a sealed key.
pub const SEALED_KEY_BYTES: usize = 1 + SALT_BYTES + 32 + 16;

const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
const PURPOSE: &str = "penstock data key envelope v1";

/// The key of one object's bytes.
#[derive(Clone)]
pub struct DataKey(KeyBytes);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// A new one.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn random() -> Result<Self> {
        derive::random().map(Self)
    }

    #[cfg(test)]
    pub(crate) fn new(bytes: KeyBytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key in an envelope that `under` opens, for what is `about` the same.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, under: &[u8; 32], about: &[u8]) -> Result<Vec<u8>> {
        Ok(self.seal_with_salt(under, about, &*derive::random()?))
    }

    pub(crate) fn seal_with_salt(&self, under: &[u8; 32], about: &[u8], salt: &[u8; SALT_BYTES]) -> Vec<u8> {
        let cipher = derive::cipher(&derive::derive(under, salt, PURPOSE));
        let mut text = Zeroizing::new(*self.0);
        let tag = cipher
            .seal_in_place_separate_tag(nonce_zero(), Aad::from(about), &mut *text)
            .expect("AES-GCM seals 32 bytes");
        [&[VERSION], salt.as_slice(), text.as_slice(), tag.as_ref()].concat()
    }

    /// The key in this envelope.
    ///
    /// # Errors
    /// [`VaultError::Tampered`] for another key, another `about`, or bytes that were changed.
    pub fn open(sealed: &[u8], under: &[u8; 32], about: &[u8]) -> Result<Self> {
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(VaultError::Tampered) };
        let Some((salt, text)) = rest.split_at_checked(SALT_BYTES) else { return Err(VaultError::Tampered) };
        let cipher = derive::cipher(&derive::derive(under, salt, PURPOSE));
        let mut text = Zeroizing::new(text.to_vec());
        let opened =
            cipher.open_in_place(nonce_zero(), Aad::from(about), &mut text).map_err(|_| VaultError::Tampered)?;
        let key: [u8; 32] = (&*opened).try_into().map_err(|_wrong_length| VaultError::Tampered)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// 16 bytes that stand for bytes with this MD5 under this key: an ETag that tells nobody the MD5.
    #[must_use]
    pub fn opaque_etag(&self, md5: [u8; 16]) -> [u8; 16] {
        let key = derive::derive(&self.0, &[], "penstock etag v1");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), &md5);
        let mut etag = [0; 16];
        etag.copy_from_slice(&tag.as_ref()[..16]);
        etag
    }
}

fn nonce_zero() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
