//! Keys that clients send with each request (SSE-C). They are used and forgotten.

use std::sync::Arc;

use crate::derive::{self, KeyBytes};
use crate::{DataKey, Result};

const ABOUT: &[u8] = b"customer";

/// A client's key.
#[derive(Clone)]
pub struct CustomerKey(Arc<KeyBytes>);

impl CustomerKey {
    /// Wraps the 32 bytes that the client sent.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(KeyBytes::new(bytes)))
    }

    /// A data key in an envelope that this key opens.
    ///
    /// # Errors
    /// [`crate::VaultError::Random`].
    pub fn seal(&self, key: &DataKey) -> Result<Vec<u8>> {
        key.seal(&self.sealing(), ABOUT)
    }

    /// The data key in that envelope.
    ///
    /// # Errors
    /// [`crate::VaultError::Tampered`] when it is another client's.
    pub fn open(&self, sealed: &[u8]) -> Result<DataKey> {
        DataKey::open(sealed, &self.sealing(), ABOUT)
    }

    fn sealing(&self) -> KeyBytes {
        derive::derive(&self.0, &[], "penstock customer key v1")
    }
}

impl std::fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CustomerKey(..)")
    }
}
