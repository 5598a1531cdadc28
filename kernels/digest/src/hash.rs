//! Cryptographic hashes as bytes come: thin names over the RustCrypto crates, so that nobody above depends on these.
//!
//! One stream each. Several requests' streams at once, in SIMD lanes, are [`crate::HashScheduler`]'s.

use std::hash::Hasher as _;

use md5::Digest as _;

macro_rules! hasher {
    ($(#[$doc:meta])* $type:ident, $inner:ty, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $type($inner);

        impl $type {
            /// The state before the first byte.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Takes the next bytes of the message.
            pub fn update(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }

            /// Hash of all bytes taken.
            #[must_use]
            pub fn finish(self) -> [u8; $bytes] {
                self.0.finalize().into()
            }

            /// Hash of bytes in one piece.
            #[must_use]
            pub fn of(bytes: &[u8]) -> [u8; $bytes] {
                <$inner>::digest(bytes).into()
            }
        }
    };
}

hasher! {
    /// MD5: S3's ETag and Content-MD5. Not secure, and not used for security.
    ///
    /// ```
    /// use penstock_digest::Md5Hasher;
    /// let mut md5 = Md5Hasher::new();
    /// md5.update(b"a");
    /// md5.update(b"bc");
    /// assert_eq!(md5.finish()[..4], [0x90, 0x01, 0x50, 0x98]);
    /// ```
    Md5Hasher, md5::Md5, 16
}

hasher! {
    /// SHA-1: one of S3's checksums. Not used for security.
    Sha1Hasher, sha1::Sha1, 20
}

hasher! {
    /// SHA-256: one of S3's checksums, and what signed payloads are hashed with.
    ///
    /// ```
    /// use penstock_digest::Sha256Hasher;
    /// assert_eq!(Sha256Hasher::of(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    /// ```
    Sha256Hasher, sha2::Sha256, 32
}

hasher! {
    /// SHA-512: one of S3's checksums.
    Sha512Hasher, sha2::Sha512, 64
}

macro_rules! xxhash {
    ($(#[$doc:meta])* $type:ident, $inner:ty, $number:ty, $finish:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(Box<$inner>);

        impl $type {
            /// The state before the first byte, with seed 0.
            #[must_use]
            pub fn new() -> Self {
                Self(Box::default())
            }

            /// Takes the next bytes of the message.
            pub fn update(&mut self, bytes: &[u8]) {
                self.0.write(bytes);
            }

            /// Hash of all bytes taken, in the canonical (big-endian) order of the xxHash specification.
            #[must_use]
            pub fn finish(self) -> [u8; $bytes] {
                let number: $number = xxhash!(@$finish self.0);
                number.to_be_bytes()
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::new()
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($type))
            }
        }
    };
    (@short $state:expr) => { $state.finish() };
    (@long $state:expr) => { $state.finish_128() };
}

xxhash! {
    /// XXH64: one of S3's checksums (`XXHASH64`).
    Xxh64Hasher, twox_hash::XxHash64, u64, short, 8
}

xxhash! {
    /// XXH3 of 64 bits: one of S3's checksums (`XXHASH3`).
    Xxh3Hasher, twox_hash::XxHash3_64, u64, short, 8
}

xxhash! {
    /// XXH3 of 128 bits: one of S3's checksums (`XXHASH128`).
    Xxh128Hasher, twox_hash::XxHash3_128, u128, long, 16
}
