//! The key under which all keys are sealed that are not the client's own.

use std::sync::Arc;

use crate::derive::{self, KeyBytes};

/// 32 bytes that stand in a file beside the metadata and not in it. Without them nothing that was encrypted by SSE-S3 or
/// SSE-KMS can be read again.
#[derive(Clone)]
pub struct MasterKey(Arc<KeyBytes>);

impl MasterKey {
    /// Wraps the bytes of the key file.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(KeyBytes::new(bytes)))
    }

    /// The key for one purpose.
    pub(crate) fn for_purpose(&self, purpose: &str) -> KeyBytes {
        derive::derive(&self.0, &[], purpose)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}
