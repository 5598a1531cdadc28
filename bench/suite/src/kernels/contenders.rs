//! Ours and the peers', each behind one small trait: work on a stripe, so many times.
//!
//! | contender | matrix | how it is used |
//! |---|---|---|
//! | penstock | ours | `Code` |
//! | isa-l | ours | `ec_encode_data`, tables expanded beforehand; CRCs afterwards, by ISA-L or crc-fast, whichever is faster |
//! | rusty_erasure | ours | its best kernel set, tables expanded beforehand |
//! | reed-solomon-erasure | its own | `encode_sep` and `reconstruct`, which keeps inversions in a cache |
//! | reed-solomon-simd | its own | shards are added (copied), results are left where it has them |
//!
//! ISA-L and rusty_erasure compute with whatever matrix they are given, so that they are given ours, and must give the same
//! bytes. They have no planner of repairs: they get our read sets as well.

use std::hint::black_box;

use penstock_erasure::Code;
use reed_solomon_erasure::galois_8;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use smallvec::SmallVec;

use super::shape::{Op, Pattern, Role, Shape};
use super::stripes::parted;
use crate::{BenchError, isal};

/// The operation of one cell, by one contender.
pub(crate) trait Work {
    /// Does pattern number `pattern` on a stripe, `times` in a row.
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64);

    /// The CRC64NVME of all shards, as the last work has left them; empty where the operation gives none.
    fn crcs(&self) -> &[u64] {
        &[]
    }

    /// Puts into the stripe what the last work has left elsewhere.
    fn copy_out(&mut self, _pattern: usize, _stripe: &mut [&mut [u8]]) {}
}

/// A cell's codes and patterns, from which contenders make their work.
pub(crate) struct Cell<'c> {
    pub(crate) shape: Shape,
    pub(crate) op: Op,
    pub(crate) patterns: &'c [Pattern],
    pub(crate) shard_bytes: usize,
    pub(crate) crc: Crc,
}

/// Who computes the checksums of those that have none, or that are slower at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crc {
    Isal,
    CrcFast,
}

impl Crc {
    pub(crate) fn of(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Isal => isal::crc64nvme(bytes),
            Self::CrcFast => crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes),
        }
    }
}

/// What streaming stores want.
const ALIGNMENT: usize = 64;

/// Work, or why not.
pub(crate) type Made<'c> = Result<Box<dyn Work + 'c>, String>;

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Penstock,
    IsaL,
    RustyErasure,
    ReedSolomonErasure,
    ReedSolomonSimd,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Penstock, Self::IsaL, Self::RustyErasure, Self::ReedSolomonErasure, Self::ReedSolomonSimd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::IsaL => "isa-l",
            Self::RustyErasure => "rusty_erasure",
            Self::ReedSolomonErasure => "reed-solomon-erasure",
            Self::ReedSolomonSimd => "reed-solomon-simd",
        }
    }

    /// Whether it must give the same bytes as we do.
    pub(crate) fn has_our_matrix(self) -> bool {
        matches!(self, Self::Penstock | Self::IsaL | Self::RustyErasure)
    }

    pub(crate) fn make<'c>(self, cell: &'c Cell<'c>) -> Made<'c> {
        let checksums = cell.op == Op::EncodeCrc64;
        let said = |error: &dyn std::fmt::Display| error.to_string();
        match (self, cell.shape) {
            (Self::Penstock, _) => {
                let code = cell.shape.code().map_err(|error| said(&error))?;
                Ok(Box::new(Penstock { code, cell, crcs: vec![0; cell.shape.n()] }))
            }
            (Self::IsaL, _) => {
                let tables = |pattern: &Pattern| isal::Tables::new(pattern.reads.len(), &pattern.matrix);
                let tables = cell.patterns.iter().map(tables).collect();
                Ok(Box::new(IsaL { cell, tables, crcs: vec![0; if checksums { cell.shape.n() } else { 0 }] }))
            }
            (Self::RustyErasure | Self::ReedSolomonErasure | Self::ReedSolomonSimd, _) if checksums => {
                Err("computes no checksums".to_owned())
            }
            (Self::RustyErasure, _) => {
                let kernels = rusty_erasure::best_kernels();
                let tables = cell.patterns.iter().map(|pattern| (kernels.init)(&pattern.matrix)).collect();
                Ok(Box::new(RustyErasure { cell, kernels, tables }))
            }
            (_, Shape::Lrc { .. }) => Err("has no local reconstruction codes".to_owned()),
            (Self::ReedSolomonErasure, Shape::Rs { k, m }) => {
                let code = galois_8::ReedSolomon::new(k, m).map_err(|error| said(&error))?;
                Ok(Box::new(ReedSolomonErasure { cell, code }))
            }
            (Self::ReedSolomonSimd, Shape::Rs { k, m }) => {
                let encoder = ReedSolomonEncoder::new(k, m, cell.shard_bytes).map_err(|error| said(&error))?;
                let decoder = ReedSolomonDecoder::new(k, m, cell.shard_bytes).map_err(|error| said(&error))?;
                Ok(Box::new(ReedSolomonSimd { cell, k, encoder, decoder }))
            }
        }
    }
}

struct Penstock<'c> {
    code: Box<dyn Code>,
    cell: &'c Cell<'c>,
    crcs: Vec<u64>,
}

impl Work for Penstock<'_> {
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64) {
        let pattern = &self.cell.patterns[pattern];
        let (sources, mut destinations) = parted(pattern, stripe);
        let done = "invariant: the cell's shapes are sound";
        match self.cell.op {
            Op::Encode => {
                for _ in 0..times {
                    self.code.encode(&sources, &mut destinations).expect(done);
                }
            }
            Op::EncodeCrc64 => {
                for _ in 0..times {
                    self.crcs.fill(0);
                    self.code.encode_with_crc64(&sources, &mut destinations, &mut self.crcs).expect(done);
                }
            }
            Op::Decode(_) | Op::Repair => {
                let present: SmallVec<[(usize, &[u8]); 32]> = pattern.reads.iter().copied().zip(sources).collect();
                let mut wanted: SmallVec<[(usize, &mut [u8]); 8]> =
                    pattern.writes.iter().copied().zip(destinations).collect();
                for _ in 0..times {
                    self.code.reconstruct(&present, &mut wanted).expect(done);
                }
            }
        }
    }

    fn crcs(&self) -> &[u64] {
        if self.cell.op == Op::EncodeCrc64 { &self.crcs } else { &[] }
    }
}

struct IsaL<'c> {
    cell: &'c Cell<'c>,
    tables: Vec<isal::Tables>,
    /// Empty where no checksums are wanted.
    crcs: Vec<u64>,
}

impl Work for IsaL<'_> {
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64) {
        let tables = &mut self.tables[pattern];
        let (sources, mut destinations) = parted(&self.cell.patterns[pattern], stripe);
        if self.crcs.is_empty() {
            return tables.encode(&sources, &mut destinations, times);
        }
        for _ in 0..times {
            tables.encode(&sources, &mut destinations, 1);
            let shards = sources.iter().copied().chain(destinations.iter().map(|shard| &**shard));
            self.crcs.iter_mut().zip(shards).for_each(|(crc, shard)| *crc = self.cell.crc.of(shard));
        }
    }

    fn crcs(&self) -> &[u64] {
        &self.crcs
    }
}

struct RustyErasure<'c> {
    cell: &'c Cell<'c>,
    kernels: rusty_erasure::kernel::Kernels,
    tables: Vec<Vec<u8>>,
}

impl Work for RustyErasure<'_> {
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64) {
        let (sources, mut destinations) = parted(&self.cell.patterns[pattern], stripe);
        for _ in 0..times {
            (self.kernels.encode)(&self.tables[pattern], &sources, &mut destinations);
        }
    }
}

struct ReedSolomonErasure<'c> {
    cell: &'c Cell<'c>,
    code: galois_8::ReedSolomon,
}

impl Work for ReedSolomonErasure<'_> {
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64) {
        let pattern = &self.cell.patterns[pattern];
        let done = "invariant: the cell's shapes are sound";
        if self.cell.op == Op::Encode {
            let (sources, mut destinations) = parted(pattern, stripe);
            for _ in 0..times {
                self.code.encode_sep(&sources, &mut destinations).expect(done);
            }
            return;
        }
        // What is not to be rebuilt is there: it would rebuild everything that isn't.
        let mut shards: SmallVec<[(&mut [u8], bool); 32]> =
            stripe.iter_mut().map(|shard| (&mut **shard, false)).collect();
        for _ in 0..times {
            shards.iter_mut().zip(&pattern.roles).for_each(|(shard, role)| shard.1 = *role != Role::Write);
            self.code.reconstruct(&mut shards).expect(done);
        }
    }
}

struct ReedSolomonSimd<'c> {
    cell: &'c Cell<'c>,
    k: usize,
    encoder: ReedSolomonEncoder,
    decoder: ReedSolomonDecoder,
}

impl ReedSolomonSimd<'_> {
    /// Hands each shard that comes out to `take`, with its index in the stripe. Lost parity is encoded anew, which is all
    /// that this peer offers for it.
    fn once(&mut self, pattern: usize, stripe: &mut [&mut [u8]], mut take: impl FnMut(&mut [u8], &[u8])) {
        let pattern = &self.cell.patterns[pattern];
        let done = "invariant: the cell's shapes are sound";
        if pattern.writes.iter().all(|shard| *shard >= self.k) {
            let (data, parity) = stripe.split_at_mut(self.k);
            for shard in data {
                self.encoder.add_original_shard(&**shard).expect(done);
            }
            let result = self.encoder.encode().expect(done);
            for &shard in &pattern.writes {
                take(parity[shard - self.k], result.recovery(shard - self.k).expect(done));
            }
            return;
        }
        for &shard in &pattern.reads {
            if shard < self.k {
                self.decoder.add_original_shard(shard, &*stripe[shard]).expect(done);
            } else {
                self.decoder.add_recovery_shard(shard - self.k, &*stripe[shard]).expect(done);
            }
        }
        let result = self.decoder.decode().expect(done);
        for &shard in &pattern.writes {
            take(stripe[shard], result.restored_original(shard).expect(done));
        }
    }
}

impl Work for ReedSolomonSimd<'_> {
    fn work(&mut self, pattern: usize, stripe: &mut [&mut [u8]], times: u64) {
        for _ in 0..times {
            self.once(pattern, stripe, |_, result| {
                black_box(result);
            });
        }
    }

    fn copy_out(&mut self, pattern: usize, stripe: &mut [&mut [u8]]) {
        self.once(pattern, stripe, |shard, result| shard.copy_from_slice(result));
    }
}

/// Sees that a contender computes what it should, on a stripe of its own: its parity gives lost shards back, and is ours
/// where it has our matrix; CRCs are the shards'.
///
/// # Errors
/// [`BenchError::Wrong`].
pub(crate) fn verify(peer: Peer, cell: &Cell<'_>) -> Result<(), BenchError> {
    let wrong = |what: &str| {
        BenchError::Wrong(format!(
            "{} of {} in {} {}, shards of {}",
            what,
            peer.name(),
            cell.shape,
            cell.op,
            cell.shard_bytes
        ))
    };
    let (shape, shard_bytes) = (cell.shape, cell.shard_bytes);
    let mut order = penstock_harness::Order::seeded(11);
    let mut room = vec![0; shape.n() * shard_bytes + ALIGNMENT];
    // Aligned, as shards are when they are measured: otherwise stores past the caches would not be tried.
    let start = room.as_ptr().align_offset(ALIGNMENT);
    let memory = &mut room[start..start + shape.n() * shard_bytes];
    order.fill(&mut memory[..shape.k() * shard_bytes]);
    // Its own parity.
    let encoding = super::shape::patterns(shape, Op::Encode)?.expect("invariant: every code encodes");
    let encode = Cell { shape, op: Op::Encode, patterns: &encoding, shard_bytes, crc: cell.crc };
    let by = |peer: Peer, memory: &mut [u8]| -> Result<(), BenchError> {
        let mut work = peer.make(&encode).map_err(|why| wrong(&why))?;
        let mut stripe: Vec<&mut [u8]> = memory.chunks_exact_mut(shard_bytes).collect();
        work.work(0, &mut stripe, 1);
        work.copy_out(0, &mut stripe);
        Ok(())
    };
    by(peer, memory)?;
    if peer.has_our_matrix() {
        let mut ours = memory.to_vec();
        ours[shape.k() * shard_bytes..].fill(0);
        by(Peer::Penstock, &mut ours)?;
        if ours != *memory {
            return Err(wrong("parity"));
        }
    }
    let whole = memory.to_vec();
    let mut work = peer.make(cell).map_err(|why| wrong(&why))?;
    for (index, pattern) in cell.patterns.iter().enumerate() {
        for &shard in &pattern.writes {
            memory[shard * shard_bytes..][..shard_bytes].fill(0xa5);
        }
        let mut stripe: Vec<&mut [u8]> = memory.chunks_exact_mut(shard_bytes).collect();
        work.work(index, &mut stripe, 2);
        work.copy_out(index, &mut stripe);
        if *memory != whole {
            return Err(wrong("shards rebuilt"));
        }
        let crcs = work.crcs();
        if !crcs.is_empty() && !memory.chunks(shard_bytes).map(|shard| Crc::CrcFast.of(shard)).eq(crcs.iter().copied())
        {
            return Err(wrong("CRCs"));
        }
    }
    Ok(())
}
