//! Tiers: which instructions a kernel may use, as values that only a capable CPU hands out.
//!
//! A later tier is one more capability type, one more variant, and one more name in [`TIER_NAMES`].
//!
//! Where a tier's name says less than it asks for: all of x86 includes PCLMULQDQ (older than AVX2 in every CPU that has
//! that), and those with GFNI its wider forms (which every CPU with AVX and GFNI has), for the CRCs.

use std::fmt;
use std::sync::OnceLock;

/// Environment variable that forces a tier by name: one of [`TIER_NAMES`].
pub const TIER_VARIABLE: &str = "PENSTOCK_KERNEL_TIER";

/// Every tier this crate knows, slowest first, whether or not this machine has it.
pub const TIER_NAMES: [&str; 5] = ["scalar", "neon", "avx2", "avx2_gfni", "avx512_gfni"];

/// A type whose values only a capable CPU hands out.
macro_rules! proof {
    ($(#[$doc:meta])* $proof:ident, $architecture:literal, $detected:ident: $($feature:tt),*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $proof(());

        impl $proof {
            /// The proof, or `None` on another machine. Cheap: the standard library caches what the CPU said.
            #[must_use]
            pub fn new() -> Option<Self> {
                #[cfg(target_arch = $architecture)]
                if $(std::arch::$detected!($feature))&&* {
                    return Some(Self(()));
                }
                None
            }
        }

        impl From<$proof> for Tier {
            fn from(proof: $proof) -> Self {
                Self(Instructions::$proof(proof))
            }
        }
    };
}

proof! {
    /// Proof that this CPU (and its operating system) run AVX2, and PCLMULQDQ.
    ///
    /// ```
    /// use penstock_gf256::{Avx2, Tier};
    /// if let Some(avx2) = Avx2::new() {
    ///     assert_eq!(Tier::from(avx2).name(), "avx2");
    /// }
    /// ```
    Avx2, "x86_64", is_x86_feature_detected: "avx2", "pclmulqdq"
}

proof! {
    /// Proof that this CPU (and its operating system) run AVX2, GFNI and VPCLMULQDQ.
    Avx2Gfni, "x86_64", is_x86_feature_detected: "avx2", "pclmulqdq", "gfni", "vpclmulqdq"
}

proof! {
    /// Proof that this CPU (and its operating system) run AVX-512 (F, BW, VL), GFNI and VPCLMULQDQ.
    Avx512Gfni, "x86_64", is_x86_feature_detected:
    "avx512f", "avx512bw", "avx512vl", "avx2", "pclmulqdq", "gfni", "vpclmulqdq"
}

proof! {
    /// Proof that this CPU runs NEON and PMULL.
    Neon, "aarch64", is_aarch64_feature_detected: "neon", "aes"
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instructions {
    Scalar,
    Neon(Neon),
    Avx2(Avx2),
    Avx2Gfni(Avx2Gfni),
    Avx512Gfni(Avx512Gfni),
}

/// Which implementation of the kernels to run. Every tier gives the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tier(pub(crate) Instructions);

impl Tier {
    /// Portable code without SIMD: the reference that every other tier is tested against.
    #[must_use]
    pub const fn scalar() -> Self {
        Self(Instructions::Scalar)
    }

    /// The fastest tier that this machine has. Asked of the CPU once per process; takes no notice of
    /// [`TIER_VARIABLE`] (see [`Tier::from_env`]).
    #[must_use]
    pub fn detect() -> Self {
        static FASTEST: OnceLock<Tier> = OnceLock::new();
        *FASTEST.get_or_init(|| Self::present().last().unwrap_or(Self::scalar()))
    }

    /// The tiers that this machine has, slowest first. Never empty: scalar is always there.
    pub fn present() -> impl Iterator<Item = Self> {
        TIER_NAMES.into_iter().filter_map(|name| Self::from_name(name).ok())
    }

    /// The tier of a name.
    ///
    /// # Errors
    /// [`TierError::Unknown`] when no tier has this name (names are lower case), [`TierError::Absent`] when this
    /// machine lacks it.
    ///
    /// ```
    /// use penstock_gf256::{Tier, TierError};
    /// assert_eq!(Tier::from_name("scalar"), Ok(Tier::scalar()));
    /// assert!(matches!(Tier::from_name("abacus"), Err(TierError::Unknown { .. })));
    /// ```
    pub fn from_name(name: &str) -> Result<Self, TierError> {
        let tier = match name {
            "scalar" => Some(Self::scalar()),
            "neon" => Neon::new().map(Self::from),
            "avx2" => Avx2::new().map(Self::from),
            "avx2_gfni" => Avx2Gfni::new().map(Self::from),
            "avx512_gfni" => Avx512Gfni::new().map(Self::from),
            _ => return Err(TierError::Unknown { name: name.to_owned() }),
        };
        tier.ok_or_else(|| TierError::Absent { name: name.to_owned() })
    }

    /// The tier that [`TIER_VARIABLE`] forces, or [`Tier::detect`] where it is not set.
    ///
    /// Read once per process: later changes of the environment have no effect.
    ///
    /// # Errors
    /// As [`Tier::from_name`]. A variable that is set and empty, or not UTF-8, is [`TierError::Unknown`]: a setting
    /// that can't be honoured is refused, not ignored.
    pub fn from_env() -> Result<Self, TierError> {
        static FORCED: OnceLock<Result<Tier, TierError>> = OnceLock::new();
        FORCED
            .get_or_init(|| match std::env::var_os(TIER_VARIABLE) {
                None => Ok(Self::detect()),
                Some(name) => Self::from_name(&name.to_string_lossy()),
            })
            .clone()
    }

    /// The tier's name, one of [`TIER_NAMES`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => TIER_NAMES[0],
            Instructions::Neon(_) => TIER_NAMES[1],
            Instructions::Avx2(_) => TIER_NAMES[2],
            Instructions::Avx2Gfni(_) => TIER_NAMES[3],
            Instructions::Avx512Gfni(_) => TIER_NAMES[4],
        }
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tier({})", self.name())
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tier was asked for that can't be had. Not retryable: neither the CPU nor the setting will change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// No tier has this name.
    #[error("no kernel tier is called {name:?}; this machine has: {}", present_names())]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The tier exists, but this CPU lacks its instructions.
    #[error("kernel tier {name:?} is not present on this CPU; this machine has: {}", present_names())]
    Absent {
        /// The name that was asked for.
        name: String,
    },
}

impl TierError {
    /// Always false: asking again gives the same answer.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        false
    }
}

fn present_names() -> String {
    Tier::present().map(Tier::name).collect::<Vec<_>>().join(", ")
}
