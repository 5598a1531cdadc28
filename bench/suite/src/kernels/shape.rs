//! The codes that are measured, what is done with them, and which shards that reads and writes.

use std::fmt;

use penstock_erasure::{Code, ErasureError, Lrc, ReedSolomon};

use crate::BenchError;

/// A code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Rs { k: usize, m: usize },
    Lrc { k: usize, l: usize, g: usize },
}

impl Shape {
    pub(crate) const ALL: [Self; 5] = [
        Self::Rs { k: 10, m: 4 },
        Self::Rs { k: 4, m: 2 },
        Self::Rs { k: 8, m: 3 },
        Self::Rs { k: 20, m: 4 },
        Self::Lrc { k: 12, l: 2, g: 2 },
    ];

    pub(crate) fn k(self) -> usize {
        match self {
            Self::Rs { k, .. } | Self::Lrc { k, .. } => k,
        }
    }

    pub(crate) fn m(self) -> usize {
        match self {
            Self::Rs { m, .. } => m,
            Self::Lrc { l, g, .. } => l + g,
        }
    }

    pub(crate) fn n(self) -> usize {
        self.k() + self.m()
    }

    /// Ours.
    pub(crate) fn code(self) -> Result<Box<dyn Code>, ErasureError> {
        Ok(match self {
            Self::Rs { k, m } => Box::new(ReedSolomon::new(k, m)?),
            Self::Lrc { k, l, g } => Box::new(Lrc::new(k, l, g)?),
        })
    }

    /// Length of a shard, whole cache lines, so that all of them hold about `data_bytes`.
    pub(crate) fn shard_bytes(self, data_bytes: usize) -> usize {
        data_bytes.div_ceil(self.k()).next_multiple_of(64)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rs { k, m } => write!(f, "RS({k},{m})"),
            Self::Lrc { k, l, g } => write!(f, "LRC({k},{l},{g})"),
        }
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Parity from data.
    Encode,
    /// The same, and the CRC64NVME of every shard.
    EncodeCrc64,
    /// That many data shards back from others.
    Decode(usize),
    /// One shard back, each in turn, reading as little as can be.
    Repair,
}

impl Op {
    pub(crate) const ALL: [Self; 6] =
        [Self::Encode, Self::EncodeCrc64, Self::Decode(1), Self::Decode(2), Self::Decode(4), Self::Repair];
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode => f.write_str("encode"),
            Self::EncodeCrc64 => f.write_str("encode+crc64"),
            Self::Decode(lost) => write!(f, "decode-{lost}"),
            Self::Repair => f.write_str("repair"),
        }
    }
}

/// What becomes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    Write,
    Unused,
}

/// One product: which shards are read, which are written, and the matrix between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Ascending.
    pub(crate) reads: Vec<usize>,
    /// Ascending.
    pub(crate) writes: Vec<usize>,
    /// By shard.
    pub(crate) roles: Vec<Role>,
    /// A row for each shard written, a column for each one read.
    pub(crate) matrix: Vec<u8>,
}

impl Pattern {
    fn new(code: &dyn Code, reads: Vec<usize>, writes: Vec<usize>) -> Result<Self, ErasureError> {
        let role = |shard| match (reads.contains(&shard), writes.contains(&shard)) {
            (true, _) => Role::Read,
            (false, true) => Role::Write,
            _ => Role::Unused,
        };
        let roles = (0..code.total_shards()).map(role).collect();
        // A sum of shards of one byte, of which one is 1 and all others are 0, is a coefficient.
        let mut matrix = vec![0; reads.len() * writes.len()];
        for column in 0..reads.len() {
            let units: Vec<[u8; 1]> = (0..reads.len()).map(|at| [u8::from(at == column)]).collect();
            let present: Vec<(usize, &[u8])> =
                reads.iter().zip(&units).map(|(shard, unit)| (*shard, &unit[..])).collect();
            let mut sums = vec![[0u8; 1]; writes.len()];
            let mut wanted: Vec<(usize, &mut [u8])> =
                writes.iter().zip(&mut sums).map(|(shard, sum)| (*shard, &mut sum[..])).collect();
            code.reconstruct(&present, &mut wanted)?;
            for (row, sum) in sums.iter().enumerate() {
                matrix[row * reads.len() + column] = sum[0];
            }
        }
        Ok(Self { reads, writes, roles, matrix })
    }

    /// Coefficients that need a product: neither 0 nor 1.
    pub(crate) fn products(&self) -> usize {
        self.matrix.iter().filter(|coefficient| **coefficient > 1).count()
    }

    /// Rows that aren't just sums, and of which the CRC therefore can't be had from those of the sources.
    pub(crate) fn weighted_rows(&self) -> usize {
        self.matrix.chunks(self.reads.len()).filter(|row| row.iter().any(|coefficient| *coefficient > 1)).count()
    }
}

/// The products that an operation takes turns with, or `None` where the code can't lose so many shards.
pub(crate) fn patterns(shape: Shape, op: Op) -> Result<Option<Vec<Pattern>>, BenchError> {
    let code = shape.code().map_err(|error| BenchError::Setup(error.to_string()))?;
    let (k, n) = (shape.k(), shape.n());
    let repairing = |lost: Vec<usize>| {
        let reads = code.repair_plan(&lost, 1)?.reads;
        Pattern::new(&*code, reads, lost)
    };
    let patterns: Result<Vec<Pattern>, ErasureError> = match op {
        Op::Encode | Op::EncodeCrc64 => Pattern::new(&*code, (0..k).collect(), (k..n).collect()).map(|one| vec![one]),
        Op::Decode(lost) if lost > shape.m() || lost > k => return Ok(None),
        // Two of each group, which is the most that is always decodable.
        Op::Decode(4) if let Shape::Lrc { k, l: 2, .. } = shape => {
            repairing(vec![0, 1, k / 2, k / 2 + 1]).map(|one| vec![one])
        }
        Op::Decode(lost) => repairing((0..lost).collect()).map(|one| vec![one]),
        Op::Repair => (0..n).map(|shard| repairing(vec![shard])).collect(),
    };
    patterns.map(Some).map_err(|error| BenchError::Setup(format!("{shape} {op}: {error}")))
}
