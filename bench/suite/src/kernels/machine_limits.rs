//! The machine's own limits, as rows of their own (code "machine"), and as bounds for the codes.
//!
//! Figures of memory are of traffic: bytes read and bytes written. Those of products are of bytes multiplied or folded.

use penstock_harness::{Contender, Summary};

use super::measure::{CellName, Run, State};
use super::shape::{Pattern, Shape};
use crate::BenchError;
use crate::arena::Arena;
use crate::limits::{self, Access};

/// In the caches, half of a first-level cache of 32 KiB.
const HOT_BYTES: usize = 16 << 10;
/// In memory, per call.
const COLD_CALL_BYTES: usize = 4 << 20;
/// States with three cells each, and products.
pub(crate) const CELLS: usize = 3 * 3 + 2;

/// What computing allows, in GB/s of bytes multiplied and of bytes folded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    affine_gbps: Option<f64>,
    fold_gbps: Option<f64>,
}

impl Bounds {
    /// GB/s of a stripe's data; infinite where nothing is computed, or where the machine could not be asked.
    pub(crate) fn of(&self, shape: Shape, patterns: &[Pattern], folding: bool) -> f64 {
        let (k, count) = (shape.k() as f64, patterns.len() as f64);
        let products: usize = patterns.iter().map(Pattern::products).sum();
        let of = |gbps: Option<f64>, per_call: f64| match gbps {
            Some(gbps) if per_call > 0.0 => gbps * k / per_call,
            _ => f64::INFINITY,
        };
        let affine = of(self.affine_gbps, products as f64 / count);
        if !folding {
            return affine;
        }
        // A row that is a plain sum has the sum of CRCs.
        let folds: usize = patterns.iter().map(|pattern| pattern.reads.len() + pattern.weighted_rows()).sum();
        let fold = of(self.fold_gbps, folds as f64 / count);
        // Both kinds of products go through the same two ports.
        1.0 / (1.0 / affine + 1.0 / fold)
    }
}

/// Memory to read, or to copy, a piece at a time.
struct Pieces<'a> {
    pieces: Vec<Vec<&'a mut [u8]>>,
    next: usize,
}

impl Pieces<'_> {
    fn one(&mut self, work: impl FnOnce(&mut [&mut [u8]]) -> bool) {
        let index = self.next % self.pieces.len();
        self.next = self.next.wrapping_add(1);
        assert!(work(&mut self.pieces[index]), "invariant: the machine was found to have these loops");
    }
}

/// Measures them.
pub(crate) fn measure(run: &mut Run, small: &mut Arena, huge: Option<&mut Arena>) -> Result<(), BenchError> {
    if limits::register_bytes() == 0 {
        run.leave_out("limit", "the machine's limits are measured on x86-64 with AVX2 or AVX-512 alone");
        (0..CELLS).for_each(|_| run.pass_cell());
        return Ok(());
    }
    products(run)?;
    memory(run, small, State::Hot)?;
    memory(run, small, State::Cold)?;
    match huge {
        Some(arena) => memory(run, arena, State::ColdHuge)?,
        None => (0..3).for_each(|_| run.pass_cell()),
    }
    Ok(())
}

fn products(run: &mut Run) -> Result<(), BenchError> {
    type Loop = fn() -> bool;
    let loops: [(&str, Loop); 2] = [("affine", limits::affine), ("crc64-fold", limits::fold)];
    let bytes = limits::PRODUCTS as usize * limits::register_bytes();
    for (op, work) in loops {
        if !work() {
            run.leave_out(&format!("limit: {op}"), "the CPU lacks GFNI or VPCLMULQDQ");
            run.pass_cell();
            continue;
        }
        let name = CellName { code: "machine".to_owned(), bytes, state: State::Hot, op: op.to_owned() };
        let mut contenders = [Contender::new("limit", |(): &mut ()| {
            work();
        })];
        let samples = run.samples(&name, &mut (), &mut contenders);
        let seconds = samples.first().and_then(|one| Summary::of(&one.cpu_seconds));
        // The fastest round: a bound that noise has lowered is none.
        let gbps = seconds.map(|seconds| bytes as f64 / seconds.min / 1e9);
        match op {
            "affine" => run.bounds.affine_gbps = gbps,
            _ => run.bounds.fold_gbps = gbps,
        }
        run.record(&name, &samples, bytes, Some(f64::INFINITY))?;
    }
    Ok(())
}

fn memory(run: &mut Run, arena: &mut Arena, state: State) -> Result<(), BenchError> {
    let far = state != State::Hot;
    let bytes = if far { COLD_CALL_BYTES } else { HOT_BYTES };
    let (cached, streaming) = (if far { Access::Far } else { Access::Near }, Access::FarStreaming);
    let mut pieces = Pieces { pieces: arena.stripes(2, bytes / 2, if far { usize::MAX } else { 1 }), next: 0 };
    if pieces.pieces.is_empty() {
        run.leave_out(&format!("limit: memory, {}", state.name()), "too little memory");
        (0..3).for_each(|_| run.pass_cell());
        return Ok(());
    }
    let copying = |access| {
        move |pieces: &mut Pieces<'_>| {
            pieces.one(|halves| {
                let (from, to) = halves.split_at_mut(1);
                limits::copy(access, from[0], to[0])
            });
        }
    };
    let reading = |pieces: &mut Pieces<'_>| {
        pieces.one(|halves| halves.iter().all(|half| limits::read(half)));
    };
    let mut all = [
        ("read", Contender::new("limit", reading)),
        ("copy", Contender::new("limit", copying(cached))),
        ("copy-nt", Contender::new("limit", copying(streaming))),
    ];
    for (op, contender) in &mut all {
        let name = CellName { code: "machine".to_owned(), bytes, state, op: (*op).to_owned() };
        let samples = run.samples(&name, &mut pieces, std::slice::from_mut(contender));
        run.record(&name, &samples, bytes, Some(f64::INFINITY))?;
    }
    Ok(())
}
