//! Which erasure code protects a run of data. The code itself is kernels/erasure; this is its name, and the arithmetic of
//! which shards are enough.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Most local groups of an LRC: with more, the kernels' code is not maximally recoverable ([`Code::rank`] would lie).
pub const LRC_GROUPS_MAX: usize = 17;
/// Most data shards of one local group, for the same reason.
pub const LRC_GROUP_SHARDS_MAX: usize = 15;
/// Most global parities of an LRC, for the same reason.
pub const LRC_GLOBALS_MAX: usize = 2;

/// A systematic code of `k` data and `m` parity shards.
///
/// - `RS(k,m)`: any k shards give back all others.
/// - `nx`, which is RS(1, n - 1): n copies. `1x` is one checksummed copy.
/// - `LRC(k,l,g)`: the data shards are in l groups of neighbours (of equal size, or the first k mod l one larger), each
///   with a local parity, and there are g global parities; m = l + g. Shards are ordered data, local parities, global
///   parities. A single loss comes back from its group; any g + 1 losses, and every other pattern that a code of this
///   shape can decode at all, from everything.
///
/// Serialised as three bytes: k, m, l (0 for RS).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Code {
    k: u8,
    m: u8,
    /// Local groups; 0 for RS.
    l: u8,
}

/// What is serialised.
#[derive(Serialize, Deserialize)]
struct Parts(u8, u8, u8);

impl From<Code> for Parts {
    fn from(code: Code) -> Self {
        Self(code.k, code.m, code.l)
    }
}

impl TryFrom<Parts> for Code {
    type Error = CodeError;

    fn try_from(Parts(k, m, l): Parts) -> Result<Self, CodeError> {
        let (k, m, l) = (usize::from(k), usize::from(m), usize::from(l));
        match l {
            0 => Self::new(k, m),
            _ => Self::lrc(k, l, m.saturating_sub(l)),
        }
    }
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
    /// An LRC outside what is maximally recoverable here.
    #[error(
        "LRC({k},{l},{g}) is out of range: there must be 1 to {LRC_GROUPS_MAX} groups of at most {LRC_GROUP_SHARDS_MAX} data \
         shards, 1 or {LRC_GLOBALS_MAX} global parities, and at most {max} shards in all, for example LRC(12,2,2)",
        max = limits::SHARDS_PER_STRIPE_MAX
    )]
    LrcOutOfRange {
        /// Data shards asked for.
        k: usize,
        /// Local groups asked for.
        l: usize,
        /// Global parities asked for.
        g: usize,
    },
    /// Of no form that is known.
    #[error(
        "{0:?} is no code: write RS(k,m), for example RS(10,4), LRC(k,l,g), for example LRC(12,2,2), or copies, for example 3x"
    )]
    Unreadable(String),
}

impl Code {
    /// `1x`: one copy.
    pub const ONE_COPY: Self = Self { k: 1, m: 0, l: 0 };

    /// RS(k,m).
    ///
    /// # Errors
    /// [`CodeError::OutOfRange`] for `k == 0` or `k + m` past [`limits::SHARDS_PER_STRIPE_MAX`].
    pub fn new(k: usize, m: usize) -> Result<Self, CodeError> {
        match (u8::try_from(k), u8::try_from(m)) {
            (Ok(k8), Ok(m8)) if k >= 1 && k + m <= limits::SHARDS_PER_STRIPE_MAX => Ok(Self { k: k8, m: m8, l: 0 }),
            _ => Err(CodeError::OutOfRange { k, m }),
        }
    }

    /// `copies` copies: RS(1, copies - 1).
    ///
    /// # Errors
    /// As [`Code::new`]; for no copies too.
    pub fn replicas(copies: usize) -> Result<Self, CodeError> {
        match copies.checked_sub(1) {
            Some(m) => Self::new(1, m),
            None => Err(CodeError::OutOfRange { k: 0, m: 0 }),
        }
    }

    /// LRC(k,l,g).
    ///
    /// # Errors
    /// [`CodeError::LrcOutOfRange`] for shapes past [`LRC_GROUPS_MAX`], [`LRC_GROUP_SHARDS_MAX`], [`LRC_GLOBALS_MAX`] or
    /// [`limits::SHARDS_PER_STRIPE_MAX`], and for no groups or no global parity.
    pub fn lrc(k: usize, l: usize, g: usize) -> Result<Self, CodeError> {
        let total = k.saturating_add(l).saturating_add(g);
        let fits = (1..=LRC_GROUPS_MAX.min(k)).contains(&l)
            && (1..=LRC_GLOBALS_MAX).contains(&g)
            && total <= limits::SHARDS_PER_STRIPE_MAX
            && k.div_ceil(l.max(1)) <= LRC_GROUP_SHARDS_MAX;
        match (u8::try_from(k), u8::try_from(l), u8::try_from(g)) {
            (Ok(k8), Ok(l8), Ok(g8)) if fits => Ok(Self { k: k8, m: l8 + g8, l: l8 }),
            _ => Err(CodeError::LrcOutOfRange { k, l, g }),
        }
    }

    /// The widest code the house offers by default for `nodes` nodes: 14 or more RS(10,4), 6 or more RS(4,2), 3 or
    /// more RS(2,1), else one copy.
    pub fn default_for_nodes(nodes: usize) -> Self {
        match nodes {
            0..3 => Self::ONE_COPY,
            3..6 => Self { k: 2, m: 1, l: 0 },
            6..14 => Self { k: 4, m: 2, l: 0 },
            _ => Self { k: 10, m: 4, l: 0 },
        }
    }

    /// Data shards.
    pub fn k(self) -> usize {
        usize::from(self.k)
    }

    /// Parity shards, local and global ones.
    pub fn m(self) -> usize {
        usize::from(self.m)
    }

    /// All shards of a stripe.
    pub fn n(self) -> usize {
        self.k() + self.m()
    }

    /// Local groups: 0 but for an LRC.
    pub fn groups(self) -> usize {
        usize::from(self.l)
    }

    /// Global parities of an LRC, all parities of another code.
    pub fn globals(self) -> usize {
        self.m() - self.groups()
    }

    /// Every shard of a stripe, as a bitmap.
    pub fn all(self) -> u64 {
        bits(0..self.n())
    }

    /// Losses that a stripe survives whichever shards they are: m for RS, g + 1 for an LRC.
    pub fn losses_survived(self) -> usize {
        if self.l == 0 { self.m() } else { self.globals() + 1 }
    }

    /// Shards that must be durable before a write is acknowledged: one more than are always enough to read, where the
    /// code has that many. k + 1 for RS, k + l for an LRC.
    pub fn write_quorum(self) -> usize {
        (self.n() - self.losses_survived() + 1).min(self.n())
    }

    /// Bytes of each shard of a stripe that holds `chunk_bytes` of data: `ceil(chunk / k)` rounded up to a cache line,
    /// so that every shard of a stripe is equally long. Data past the chunk's end is zeros.
    pub fn shard_bytes(self, chunk_bytes: usize) -> usize {
        chunk_bytes.div_ceil(self.k()).next_multiple_of(limits::SHARD_ALIGN_BYTES)
    }

    /// The shards of a local group as a bitmap: its data shards and its local parity.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn group(self, group: usize) -> u64 {
        assert!(group < self.groups(), "group {group} of {self}");
        let (size, larger) = (self.k() / self.groups(), self.k() % self.groups());
        let start = |group: usize| group * size + group.min(larger);
        bits(start(group)..start(group + 1)) | 1 << (self.k() + group)
    }

    /// The local group of a shard; none for a global parity, and for every shard of another code.
    pub fn group_of(self, shard: usize) -> Option<usize> {
        (0..self.groups()).find(|&group| self.group(group) >> shard & 1 == 1)
    }

    /// How much of the k data shards' worth the shards `have` (a bitmap) tell: k is everything, whichever they are. A
    /// group of s data shards tells no more than s, with its local parity or without.
    pub fn rank(self, have: u64) -> usize {
        let mut rank = count(have & self.all());
        for group in 0..self.groups() {
            let members = self.group(group);
            rank -= usize::from(have & members == members);
        }
        rank.min(self.k())
    }

    /// Whether the shards `wanted` can be computed from the shards `have`: from everything, or each from its group.
    pub fn recovers(self, have: u64, wanted: u64) -> bool {
        self.rank(have) == self.k() || {
            let mut out_of_reach = wanted & !have;
            for group in 0..self.groups() {
                let members = self.group(group);
                if count(members & !have) <= 1 {
                    out_of_reach &= !members;
                }
            }
            out_of_reach == 0
        }
    }

    /// How many further losses a stripe that has the shards `have` survives, whichever they are; `None` when it can't be
    /// read in full any more.
    pub fn spare(self, have: u64) -> Option<usize> {
        let have = have & self.all();
        if self.rank(have) < self.k() {
            return None;
        }
        if self.l == 0 {
            return Some(count(have) - self.k());
        }
        // Each further loss of a group that has lost one already, or of a global parity, takes one of these.
        let lost_beyond_local: usize =
            (0..self.groups()).map(|group| count(self.group(group) & !have).saturating_sub(1)).sum();
        let globals = self.all() & !bits(0..self.k() + self.groups());
        let left = self.globals() - lost_beyond_local - count(globals & !have);
        let groups_whole = (0..self.groups()).all(|group| self.group(group) & !have == 0);
        Some(left + usize::from(groups_whole))
    }

    /// The fewest of `candidates` (asked for in this order, where there is a choice) that together with `have` give all
    /// of `wanted`; `None` when all of them don't. One lost shard of an LRC takes the rest of its group.
    pub fn choose(self, have: u64, candidates: &[usize], wanted: u64) -> Option<Vec<usize>> {
        if self.recovers(have, wanted) {
            return Some(Vec::new());
        }
        let offered = candidates.iter().fold(0, |set, &shard| set | 1 << shard);
        let wanted = wanted & !have;
        let mut local = 0;
        let mut is_local = self.groups() > 0;
        for shard in (0..self.n()).filter(|shard| wanted >> shard & 1 == 1) {
            let members = self.group_of(shard).map_or(0, |group| self.group(group) & !(1 << shard));
            is_local &= members != 0 && members & !(have | offered) == 0 && members & wanted == 0;
            local |= members & !have;
        }
        let mut set = have;
        let mut rank = self.rank(set);
        let mut chosen = Vec::new();
        for &shard in candidates {
            if rank == self.k() {
                break;
            }
            let with = self.rank(set | 1 << shard);
            if with > rank {
                (set, rank) = (set | 1 << shard, with);
                chosen.push(shard);
            }
        }
        if is_local && (rank < self.k() || count(local) <= chosen.len()) {
            return Some(candidates.iter().copied().filter(|shard| local >> shard & 1 == 1).collect());
        }
        (rank == self.k()).then_some(chosen)
    }
}

fn bits(range: Range<usize>) -> u64 {
    range.fold(0, |set, shard| set | 1 << shard)
}

fn count(set: u64) -> usize {
    set.count_ones() as usize
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.k, self.l) {
            (1, 0) => write!(f, "{}x", self.n()),
            (k, 0) => write!(f, "RS({k},{})", self.m),
            (k, l) => write!(f, "LRC({k},{l},{})", self.globals()),
        }
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let unreadable = || CodeError::Unreadable(text.to_owned());
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
        let numbers = |list: &str, separator: char| -> Option<Vec<usize>> {
            list.split(separator).map(|number| number.parse::<usize>().ok()).collect()
        };
        let within = |name: &str| plain.strip_prefix(name).and_then(|rest| rest.strip_suffix(')'));
        if let Some(copies) = plain.strip_suffix('x') {
            return Self::replicas(copies.parse().map_err(|_| unreadable())?);
        }
        if let Some(list) = within("lrc(") {
            return match numbers(list, ',').as_deref() {
                Some(&[k, l, g]) => Self::lrc(k, l, g),
                _ => Err(unreadable()),
            };
        }
        let list = match within("rs(") {
            Some(list) => numbers(list, ','),
            None => numbers(&plain, '+'),
        };
        match list.as_deref() {
            Some(&[k, m]) => Self::new(k, m),
            _ => Err(unreadable()),
        }
    }
}

#[cfg(test)]
mod tests;
