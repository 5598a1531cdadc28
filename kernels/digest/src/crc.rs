//! The three CRCs that S3 knows, computed by `crc-fast` (carry-less multiplication where the CPU has it).

use crate::ring::Ring;
use crc_fast::CrcAlgorithm;

/// One CRC's type and functions. All start from all ones and end by inverting.
macro_rules! crc {
    (
        $name:literal, $algorithm:expr, $width:ty, $reflected_polynomial:literal, $ring:ident,
        $(#[$type_doc:meta])* $type:ident, $of:ident, $combine:ident, $zeros:ident
    ) => {
        static $ring: Ring = Ring::new(<$width>::BITS, $reflected_polynomial);

        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $type {
            state: $width,
        }

        impl $type {
            /// The state before the first byte.
            #[must_use]
            pub const fn new() -> Self {
                Self { state: <$width>::MAX }
            }

            /// Takes the next bytes of the message.
            pub fn update(&mut self, bytes: &[u8]) {
                // Made anew each time: what crc-fast keeps besides the state is hundreds of bytes of constants.
                let mut digest = crc_fast::Digest::new_with_init_state($algorithm, u64::from(self.state));
                digest.update(bytes);
                self.state = digest.get_state() as $width;
            }

            /// CRC of all bytes so far.
            #[must_use]
            pub const fn finish(self) -> $width {
                !self.state
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Self::new()
            }
        }

        #[doc = concat!($name, " of bytes in one piece.")]
        #[must_use]
        pub fn $of(bytes: &[u8]) -> $width {
            crc_fast::checksum($algorithm, bytes) as $width
        }

        #[doc = concat!($name, " of two messages, one after the other: `crc_a` of the first, `crc_b` of the second,")]
        /// which has `len_b` bytes. Takes about a microsecond; no data is needed.
        #[must_use]
        pub fn $combine(crc_a: $width, crc_b: $width, len_b: u64) -> $width {
            $ring.combine(crc_a.into(), crc_b.into(), len_b) as $width
        }

        #[doc = concat!($name, " of `len` zero bytes, in O(log `len`).")]
        #[must_use]
        pub fn $zeros(len: u64) -> $width {
            $ring.zeros(len) as $width
        }
    };
}

crc! {
    "CRC64NVME", CrcAlgorithm::Crc64Nvme, u64, 0x9a6c_9329_ac4b_c9b5, CRC64NVME_RING,
    /// CRC64NVME, as bytes come. S3's default checksum, and what guards shards at rest.
    ///
    /// ```
    /// use penstock_digest::Crc64Nvme;
    /// let mut crc = Crc64Nvme::new();
    /// crc.update(b"1234");
    /// crc.update(b"56789");
    /// assert_eq!(crc.finish(), 0xae8b_1486_0a79_9888);
    /// ```
    Crc64Nvme, crc64nvme, crc64nvme_combine, crc64nvme_zeros
}

crc! {
    "CRC32", CrcAlgorithm::Crc32IsoHdlc, u32, 0xedb8_8320, CRC32_RING,
    /// CRC32 (that of zip and Ethernet), as bytes come.
    ///
    /// ```
    /// use penstock_digest::Crc32;
    /// let mut crc = Crc32::new();
    /// crc.update(b"123456789");
    /// assert_eq!(crc.finish(), 0xcbf4_3926);
    /// ```
    Crc32, crc32, crc32_combine, crc32_zeros
}

crc! {
    "CRC32C", CrcAlgorithm::Crc32Iscsi, u32, 0x82f6_3b78, CRC32C_RING,
    /// CRC32C (Castagnoli's polynomial, that of iSCSI), as bytes come.
    ///
    /// ```
    /// use penstock_digest::Crc32c;
    /// let mut crc = Crc32c::new();
    /// crc.update(b"123456789");
    /// assert_eq!(crc.finish(), 0xe306_9283);
    /// ```
    Crc32c, crc32c, crc32c_combine, crc32c_zeros
}
