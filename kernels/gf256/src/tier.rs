//! Tiers: which instructions a kernel may use, as values that only a capable CPU hands out.
//!
//! A later tier is one more capability type, one more variant, and one more name in [`TIER_NAMES`].

use std::fmt;
use std::sync::OnceLock;

/// Environment variable that forces a tier by name: one of [`TIER_NAMES`].
pub const TIER_VARIABLE: &str = "PENSTOCK_KERNEL_TIER";

/// Every tier this crate knows, slowest first, whether or not this machine has it.
pub const TIER_NAMES: [&str; 2] = ["scalar", "avx2"];

/// Proof that this CPU (and its operating system) run AVX2.
///
/// ```
/// use penstock_gf256::{Avx2, Tier};
/// if let Some(avx2) = Avx2::new() {
///     assert_eq!(Tier::from(avx2).name(), "avx2");
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, or `None` on a machine without AVX2. Cheap: the standard library caches what the CPU said.
    #[must_use]
    pub fn new() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Some(Self(()));
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instructions {
    Scalar,
    Avx2(Avx2),
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
        match name {
            "scalar" => Ok(Self::scalar()),
            "avx2" => Avx2::new().map(Self::from).ok_or_else(|| TierError::Absent { name: name.to_owned() }),
            _ => Err(TierError::Unknown { name: name.to_owned() }),
        }
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
            Instructions::Avx2(_) => TIER_NAMES[1],
        }
    }
}

impl From<Avx2> for Tier {
    fn from(proof: Avx2) -> Self {
        Self(Instructions::Avx2(proof))
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
