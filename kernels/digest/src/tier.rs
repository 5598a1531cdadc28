//! Tiers: which instructions the multi-buffer hashes may use, as values that only a capable CPU hands out.

use std::fmt;
use std::sync::OnceLock;

/// Environment variable that forces a tier by name, here and in `penstock-gf256`. The names of either crate are taken:
/// `avx2_gfni` means `avx2` here and `avx512_gfni` means `avx512`, since hashes have no use for GFNI.
pub const HASH_TIER_VARIABLE: &str = "PENSTOCK_KERNEL_TIER";

/// Every tier that the hashes know, slowest first, whether or not this machine has it.
pub const HASH_TIER_NAMES: [&str; 4] = ["scalar", "neon", "avx2", "avx512"];

/// A type whose values only a capable CPU hands out.
macro_rules! proof {
    ($(#[$doc:meta])* $proof:ident, $architecture:literal, $detected:ident: $($feature:tt),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) struct $proof(());

        impl $proof {
            /// The proof, or `None` on another machine. Cheap: the standard library caches what the CPU said.
            pub(crate) fn new() -> Option<Self> {
                #[cfg(target_arch = $architecture)]
                if $(std::arch::$detected!($feature))&&* {
                    return Some(Self(()));
                }
                None
            }
        }
    };
}

proof! {
    /// Proof that this CPU (and its operating system) run AVX2.
    Avx2, "x86_64", is_x86_feature_detected: "avx2"
}

proof! {
    /// Proof that this CPU (and its operating system) run AVX-512 F and BW.
    Avx512, "x86_64", is_x86_feature_detected: "avx512f", "avx512bw"
}

proof! {
    /// Proof that this CPU runs NEON.
    Neon, "aarch64", is_aarch64_feature_detected: "neon"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instructions {
    Scalar,
    Neon(Neon),
    Avx2(Avx2),
    Avx512(Avx512),
}

/// Which implementation of the multi-buffer hashes to run. Every tier gives the same digests. A value proves that this
/// CPU has the instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashTier(pub(crate) Instructions);

impl HashTier {
    /// One stream at a time, by the md-5 and sha2 crates (the latter takes SHA instructions where there are any).
    #[must_use]
    pub const fn scalar() -> Self {
        Self(Instructions::Scalar)
    }

    /// The fastest tier that this machine has; takes no notice of [`HASH_TIER_VARIABLE`].
    #[must_use]
    pub fn detect() -> Self {
        Self::present().last().unwrap_or(Self::scalar())
    }

    /// The tiers that this machine has, slowest first. Never empty: scalar is always there.
    pub fn present() -> impl Iterator<Item = Self> {
        HASH_TIER_NAMES.into_iter().filter_map(|name| Self::from_name(name).ok())
    }

    /// The tier of a name; see [`HASH_TIER_VARIABLE`] for what `penstock-gf256`'s names mean.
    ///
    /// # Errors
    /// [`HashTierError::Unknown`] when no tier has this name (names are lower case), [`HashTierError::Absent`] when
    /// this machine lacks it.
    ///
    /// ```
    /// use penstock_digest::{HashTier, HashTierError};
    /// assert_eq!(HashTier::from_name("scalar"), Ok(HashTier::scalar()));
    /// assert!(matches!(HashTier::from_name("abacus"), Err(HashTierError::Unknown { .. })));
    /// ```
    pub fn from_name(name: &str) -> Result<Self, HashTierError> {
        let instructions = match name {
            "scalar" => Some(Instructions::Scalar),
            "neon" => Neon::new().map(Instructions::Neon),
            "avx2" | "avx2_gfni" => Avx2::new().map(Instructions::Avx2),
            "avx512" | "avx512_gfni" => Avx512::new().map(Instructions::Avx512),
            _ => return Err(HashTierError::Unknown { name: name.to_owned() }),
        };
        instructions.map(Self).ok_or_else(|| HashTierError::Absent { name: name.to_owned() })
    }

    /// The tier that [`HASH_TIER_VARIABLE`] forces, or [`HashTier::detect`] where it is not set. The variable is read
    /// once per process.
    ///
    /// # Errors
    /// As [`HashTier::from_name`]; set and empty, or not UTF-8, is [`HashTierError::Unknown`].
    pub fn from_env() -> Result<Self, HashTierError> {
        static FORCED: OnceLock<Result<HashTier, HashTierError>> = OnceLock::new();
        FORCED
            .get_or_init(|| match std::env::var_os(HASH_TIER_VARIABLE) {
                None => Ok(Self::detect()),
                Some(name) => Self::from_name(&name.to_string_lossy()),
            })
            .clone()
    }

    /// The tier's name, one of [`HASH_TIER_NAMES`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => HASH_TIER_NAMES[0],
            Instructions::Neon(_) => HASH_TIER_NAMES[1],
            Instructions::Avx2(_) => HASH_TIER_NAMES[2],
            Instructions::Avx512(_) => HASH_TIER_NAMES[3],
        }
    }
}

impl fmt::Debug for HashTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashTier({})", self.name())
    }
}

impl fmt::Display for HashTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tier was asked for that can't be had. Not retryable: neither the CPU nor the setting will change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashTierError {
    /// No tier has this name.
    #[error("no hash tier is called {name:?}; this machine has: {}", present_names())]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The tier exists, but this CPU lacks its instructions.
    #[error("hash tier {name:?} is not present on this CPU; this machine has: {}", present_names())]
    Absent {
        /// The name that was asked for.
        name: String,
    },
}

impl HashTierError {
    /// Always false: asking again gives the same answer.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}

fn present_names() -> String {
    HashTier::present().map(HashTier::name).collect::<Vec<_>>().join(", ")
}
