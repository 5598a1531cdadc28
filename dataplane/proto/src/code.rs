//! Which erasure code protects a run of data. The code itself is kernels/erasure; this is its name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A systematic Reed-Solomon code: `k` data shards, `m` parity shards. `RS(1,0)` is one checksummed copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Code {
    k: u8,
    m: u8,
}

/// A code outside what the kernels and the nodes can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// `k` is 0, or `k + m` is past the limit.
    #[error("RS({k},{m}) is out of range: k must be at least 1 and k + m at most {max}", max = limits::SHARDS_PER_STRIPE_MAX)]
    OutOfRange {
        /// Data shards asked for.
        k: usize,
        /// Parity shards asked for.
        m: usize,
    },
    /// Not of the form `RS(k,m)` or `k+m`.
    #[error("{0:?} is no code: write RS(k,m), for example RS(10,4)")]
    Unreadable(String),
}

impl Code {
    /// `RS(1,0)`: one copy.
    pub const ONE_COPY: Self = Self { k: 1, m: 0 };

    /// A code of `k` data and `m` parity shards.
    ///
    /// # Errors
    /// [`CodeError::OutOfRange`] for `k == 0` or `k + m` past [`limits::SHARDS_PER_STRIPE_MAX`].
    pub fn new(k: usize, m: usize) -> Result<Self, CodeError> {
        match (u8::try_from(k), u8::try_from(m)) {
            (Ok(k8), Ok(m8)) if k >= 1 && k + m <= limits::SHARDS_PER_STRIPE_MAX => Ok(Self { k: k8, m: m8 }),
            _ => Err(CodeError::OutOfRange { k, m }),
        }
    }

    /// The widest code the house offers by default for `nodes` nodes: 14 or more RS(10,4), 6 or more RS(4,2), 3 or
    /// more RS(2,1), else one copy.
    pub fn default_for_nodes(nodes: usize) -> Self {
        match nodes {
            0..3 => Self::ONE_COPY,
            3..6 => Self { k: 2, m: 1 },
            6..14 => Self { k: 4, m: 2 },
            _ => Self { k: 10, m: 4 },
        }
    }

    /// Data shards.
    pub fn k(self) -> usize {
        usize::from(self.k)
    }

    /// Parity shards.
    pub fn m(self) -> usize {
        usize::from(self.m)
    }

    /// All shards of a stripe.
    pub fn n(self) -> usize {
        self.k() + self.m()
    }

    /// Shards that must be durable before a write is acknowledged: one more than is needed to read, where the code
    /// has that many.
    pub fn write_quorum(self) -> usize {
        (self.k() + 1).min(self.n())
    }

    /// Bytes of each shard of a stripe that holds `chunk_bytes` of data: `ceil(chunk / k)` rounded up to a cache line,
    /// so that every shard of a stripe is equally long. Data past the chunk's end is zeros.
    pub fn shard_bytes(self, chunk_bytes: usize) -> usize {
        chunk_bytes.div_ceil(self.k()).next_multiple_of(limits::SHARD_ALIGN_BYTES)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RS({},{})", self.k, self.m)
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let unreadable = || CodeError::Unreadable(text.to_owned());
        let trimmed = text.trim();
        let inner = trimmed
            .strip_prefix("RS(")
            .or_else(|| trimmed.strip_prefix("rs("))
            .and_then(|rest| rest.strip_suffix(')'))
            .map(|rest| rest.split_once(','))
            .unwrap_or_else(|| trimmed.split_once('+'));
        let (k, m) = inner.ok_or_else(unreadable)?;
        let k = k.trim().parse::<usize>().map_err(|_| unreadable())?;
        let m = m.trim().parse::<usize>().map_err(|_| unreadable())?;
        Self::new(k, m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_by_node_count() {
        let of = |n| Code::default_for_nodes(n).to_string();
        assert_eq!(
            [of(1), of(2), of(3), of(6), of(13), of(14)],
            ["RS(1,0)", "RS(1,0)", "RS(2,1)", "RS(4,2)", "RS(4,2)", "RS(10,4)"]
        );
    }

    #[test]
    fn quorum_is_one_more_than_needed_to_read() {
        assert_eq!(Code::ONE_COPY.write_quorum(), 1);
        assert_eq!(Code::new(2, 1).unwrap().write_quorum(), 3);
        assert_eq!(Code::new(10, 4).unwrap().write_quorum(), 11);
    }

    #[test]
    fn shards_are_cache_line_multiples_that_hold_the_chunk() {
        let code = Code::new(10, 4).unwrap();
        for chunk in [1, 63, 64, 640, 641, 4 << 20] {
            let shard = code.shard_bytes(chunk);
            assert_eq!(shard % 64, 0);
            assert!(shard * code.k() >= chunk);
            assert!(shard * code.k() < chunk + 64 * (code.k() + 1));
        }
    }

    #[test]
    fn names_parse_and_nonsense_is_refused() {
        assert_eq!("RS(10,4)".parse::<Code>(), Code::new(10, 4));
        assert_eq!("4+2".parse::<Code>(), Code::new(4, 2));
        assert!("RS(0,2)".parse::<Code>().is_err());
        assert!("RS(200,100)".parse::<Code>().is_err());
        assert!("ten and four".parse::<Code>().is_err());
    }
}
