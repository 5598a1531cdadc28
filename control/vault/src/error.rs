//! What can go wrong with keys and ciphertext. No message holds key material.

use penstock_meta::tables::TablesError;

/// A failure of the vault.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Authentication failed: the bytes are not those that were encrypted, or the key is another.
    #[error("it was changed, or encrypted under another key")]
    Tampered,
    /// There is no key of that name.
    #[error("there is no key {0}: `penstock admin kms create` makes one")]
    NoSuchKey(String),
    /// The key is there and turned off.
    #[error("the key {0} is disabled")]
    Disabled(String),
    /// A key of that name is there already.
    #[error("there is a key {0} already")]
    KeyExists(String),
    /// The name can't be one.
    #[error("{0:?} is no key's name: use 1 to 256 letters, digits and / _ . : -")]
    BadName(String),
    /// Too many keys, or too many versions of one.
    #[error("there are {0} of them, which is the most")]
    TooMany(usize),
    /// The master key is not the one that the stored keys were sealed under.
    #[error(
        "the encryption key is not the one that this store's keys were sealed under: restore the file that was there before"
    )]
    WrongMasterKey,
    /// A stored key that makes no sense.
    #[error("the stored key {name} can't be read: {why}")]
    Unreadable {
        /// Which.
        name: String,
        /// Why not.
        why: String,
    },
    /// The operating system has no random bytes.
    #[error("the operating system's random source failed")]
    Random,
    /// The metadata.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

impl VaultError {
    /// Whether the same may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Random => true,
            Self::Tables(error) => error.is_retryable(),
            _ => false,
        }
    }
}
