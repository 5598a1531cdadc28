//! What can be wrong with a call.

use crate::SHARDS_MAX;
use penstock_gf256::TierError;

/// Why a code could not be made, or could not be applied to the shards given. Nothing has been written when one is
/// returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// k is 0, or k + m exceeds [`SHARDS_MAX`].
    #[error("no code with k = {k} data and m = {m} parity shards: k must be at least 1, k + m at most {SHARDS_MAX}")]
    OutOfRange {
        /// Data shards asked for.
        k: usize,
        /// Parity shards asked for.
        m: usize,
    },
    /// Fewer shards are present than there are data shards: nothing can be rebuilt, unless more shards turn up.
    #[error("{have} shards are present, {need} are needed")]
    TooFewShards {
        /// Shards present.
        have: usize,
        /// Shards needed, which is k.
        need: usize,
    },
    /// No such LRC: a group would be empty, or there are too many shards.
    #[error(
        "no LRC with k = {k} data shards, l = {l} groups, g = {g} global parities: l must be 1 to k, and k + l + g at most {SHARDS_MAX}"
    )]
    LrcOutOfRange {
        /// Data shards asked for.
        k: usize,
        /// Local groups asked for.
        l: usize,
        /// Global parities asked for.
        g: usize,
    },
    /// The shards present don't determine those wanted: nothing can be rebuilt, unless more shards turn up.
    #[error("{wanted} shards can't be rebuilt from the {have} that are present")]
    Undecodable {
        /// Shards to rebuild.
        wanted: usize,
        /// Shards present.
        have: usize,
    },
    /// Not exactly k data shards or m parity shards, or k + m CRCs, where all of them are wanted.
    #[error("{have} of role {role} were given, the code has {need}")]
    WrongShardCount {
        /// `"data"`, `"parity"` or `"CRC"`.
        role: &'static str,
        /// Shards given.
        have: usize,
        /// Shards that the code has.
        need: usize,
    },
    /// Two shards of one stripe differ in length.
    #[error("a shard has {have_bytes} bytes where another has {need_bytes}")]
    UnequalLengths {
        /// Length of the shard that differs from the first.
        have_bytes: usize,
        /// Length of the first shard.
        need_bytes: usize,
    },
    /// The shards have no bytes.
    #[error("shards of no bytes")]
    ZeroLength,
    /// A shard was given, or asked for, twice.
    #[error("shard {index} occurs twice")]
    DuplicateShard {
        /// Its index.
        index: usize,
    },
    /// No shard has this index.
    #[error("no shard has the index {index}: valid ones are below {limit}")]
    BadIndex {
        /// The index.
        index: usize,
        /// The lowest index that is too high.
        limit: usize,
    },
    /// The environment forces a kernel tier that can't be had.
    #[error(transparent)]
    Tier(#[from] TierError),
}

impl ErasureError {
    /// Whether the same call may succeed later: only where more shards may turn up.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::TooFewShards { .. } | Self::Undecodable { .. })
    }
}
