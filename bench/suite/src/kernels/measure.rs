//! A run: all cells, one after the other, within the time there is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use penstock_digest::HashTier;
use penstock_erasure::Tier;
use penstock_harness::{
    Contender, Machine, Order, Plan, Progress, Recorder, Samples, Stop, Summary, interleave, median_ratio,
};

use super::contenders::{Cell, Crc, Peer, verify};
use super::machine_limits::Bounds;
use super::row::{About, NotMeasured, Row, WideRow, rounded};
use super::shape::{Op, Pattern, Shape, patterns};
use super::stripes::{Stripes, parted};
use crate::BenchError;
use crate::arena::{Arena, stride_bytes};
use crate::limits::{self, Access};

/// Least memory that cold operations go over, and the most.
const COLD_BYTES_MIN: usize = 256 << 20;
const COLD_BYTES_MAX: usize = 4 << 30;
/// How many times the largest cache that should be.
const COLD_CACHES: usize = 8;
/// Share of pages that must be huge for a state to be called that.
const HUGE_PERCENT_MIN: usize = 90;
/// Up to this size contenders show that they compute what they should; it includes both ways of storing.
const VERIFIED_BYTES_MAX: usize = 1 << 20;
/// Share of a cell's time for its rounds; the rest is for warming up.
const ROUNDS_SHARE: f64 = 0.7;
/// How far past its budget a run may go before it leaves out what is left.
const OVERTIME: f64 = 1.15;

/// The limit's loops, of which the faster one counts.
const LIMIT: &str = "limit";
const LIMIT_STREAMING: &str = "limit-streaming";

/// State of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Hot,
    Cold,
    ColdHuge,
}

impl State {
    pub(crate) const ALL: [Self; 3] = [Self::Hot, Self::Cold, Self::ColdHuge];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::ColdHuge => "cold+thp",
        }
    }
}

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What rows say that they are of: "kernels" or "digest".
    pub(crate) bench: &'static str,
    pub(crate) quick: bool,
    pub(crate) budget: Duration,
    pub(crate) cold_bytes: usize,
    pub(crate) sizes: Vec<usize>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) turn_min: Duration,
    pub(crate) rounds_min: usize,
    pub(crate) rounds_max: usize,
    pub(crate) seed: u64,
}

impl Options {
    pub(crate) fn new(quick: bool, budget: Duration, machine: &Machine) -> Self {
        let largest_cache = machine.caches.iter().map(|cache| cache.bytes as usize).max().unwrap_or(0);
        let wanted = (COLD_CACHES * largest_cache).clamp(COLD_BYTES_MIN, COLD_BYTES_MAX);
        // There are two such, and neighbours who want memory.
        let available = machine.memory_available_bytes.map_or(usize::MAX, |bytes| bytes as usize / 4);
        Self {
            bench: "kernels",
            quick,
            budget,
            cold_bytes: wanted.min(available) & !((2 << 20) - 1),
            sizes: vec![64 << 10, 1 << 20, 4 << 20, 64 << 20],
            shapes: Shape::ALL.to_vec(),
            turn_min: Duration::from_micros(if quick { 500 } else { 1000 }),
            rounds_min: if quick { 3 } else { 9 },
            rounds_max: 41,
            seed: 0x70656e73746f636b,
        }
    }
}

/// What a cell is called.
#[derive(Clone, Debug)]
pub(crate) struct CellName {
    pub(crate) code: String,
    pub(crate) bytes: usize,
    pub(crate) state: State,
    pub(crate) op: String,
}

/// A run in the making.
pub(crate) struct Run {
    pub(crate) options: Options,
    stop: Stop,
    order: Order,
    progress: Progress,
    started: Instant,
    cells_left: usize,
    rows: Recorder<Row>,
    wide: Recorder<WideRow>,
    not_measured: Vec<NotMeasured>,
    pub(crate) bounds: Bounds,
    crc: Crc,
    huge_percent: u64,
}

impl Run {
    pub(crate) fn new(
        options: Options,
        stop: Stop,
        json: Option<PathBuf>,
        csv: Option<PathBuf>,
    ) -> Result<Self, BenchError> {
        let order = Order::seeded(options.seed);
        Ok(Self {
            stop,
            order,
            progress: Progress::new(1.0),
            started: Instant::now(),
            cells_left: 0,
            rows: Recorder::new(json, None)?,
            wide: Recorder::new(None, csv)?,
            not_measured: Vec::new(),
            bounds: Bounds::default(),
            crc: Crc::CrcFast,
            huge_percent: 0,
            options,
        })
    }

    /// Measures everything.
    pub(crate) fn all(&mut self) -> Result<(), BenchError> {
        if cfg!(debug_assertions) {
            eprintln!("penstock bench: built without optimisation; these figures mean nothing");
        }
        let mut cells = Vec::new();
        for &shape in &self.options.shapes {
            for op in Op::ALL {
                if let Some(patterns) = patterns(shape, op)? {
                    cells.push((shape, op, patterns));
                }
            }
        }
        let sizes = self.options.sizes.clone();
        let wanted = |op: Op, bytes: usize| {
            !self.options.quick || bytes <= 4 << 20 || matches!(op, Op::Encode | Op::EncodeCrc64)
        };
        let count: usize =
            cells.iter().map(|(_, op, _)| sizes.iter().filter(|bytes| wanted(*op, **bytes)).count()).sum();
        let todo: Vec<(Shape, Op, Vec<Pattern>, Vec<usize>)> = cells
            .into_iter()
            .map(|(shape, op, patterns)| {
                let sizes = sizes.iter().copied().filter(|bytes| wanted(op, *bytes)).collect();
                (shape, op, patterns, sizes)
            })
            .collect();
        self.cells_left = count * State::ALL.len() + super::hashes::CELLS + super::machine_limits::CELLS;
        self.progress = Progress::new(self.cells_left as f64);
        self.progress.doing("filling memory");
        let mut small = Arena::new(self.options.cold_bytes, false, &mut self.order)?;
        let mut huge = Arena::new(self.options.cold_bytes, true, &mut self.order)?;
        self.huge_percent = (huge.huge_bytes() * 100 / self.options.cold_bytes.max(1)).min(100) as u64;
        let has_huge = self.huge_percent as usize >= HUGE_PERCENT_MIN;
        if !has_huge {
            let why = format!("only {} % of the memory could be had on huge pages", self.huge_percent);
            self.leave_out("state cold+thp", &why);
        }
        self.leave_out(
            "isa-l: md5, sha256",
            "its multi-buffer hashes are in isa-l_crypto, which isal-sys doesn't bundle",
        );
        self.choose_crc(&mut small);
        super::machine_limits::measure(self, &mut small, has_huge.then_some(&mut huge))?;
        super::hashes::measure(self)?;
        for (shape, op, patterns, sizes) in &todo {
            for &bytes in sizes {
                for state in State::ALL {
                    let arena = if state == State::ColdHuge { &mut huge } else { &mut small };
                    if state == State::ColdHuge && !has_huge {
                        self.pass_cell();
                        continue;
                    }
                    self.cell(*shape, *op, patterns, bytes, state, arena)?;
                }
            }
        }
        Ok(())
    }

    /// The rows, and what is to be said about them.
    pub(crate) fn finish(mut self) -> Result<(Vec<Row>, About), BenchError> {
        self.progress.finish();
        self.rows.save()?;
        self.wide.save()?;
        let about = About {
            machine: Machine::here(),
            kernel_tier: Tier::from_env().map_or_else(|error| error.to_string(), |tier| tier.to_string()),
            hash_tier: HashTier::from_env().map_or_else(|error| error.to_string(), |tier| tier.to_string()),
            isal: "ISA-L 2.31, as bundled by isal-sys 0.5.3".to_owned(),
            isal_crc: match self.crc {
                Crc::Isal => "its own".to_owned(),
                Crc::CrcFast => "crc-fast".to_owned(),
            },
            rusty_erasure_kernels: rusty_erasure::best_kernels().name.to_owned(),
            huge_pages_percent: self.huge_percent,
            cold_bytes: self.options.cold_bytes as u64,
            seed: self.options.seed,
            quick: self.options.quick,
            interrupted: self.stop.asked(),
            not_measured: self.not_measured,
        };
        Ok((self.rows.rows().to_vec(), about))
    }

    pub(crate) fn leave_out(&mut self, what: &str, why: &str) {
        let note = NotMeasured { what: what.to_owned(), why: why.to_owned() };
        if !self.not_measured.contains(&note) {
            self.not_measured.push(note);
        }
    }

    pub(crate) fn pass_cell(&mut self) {
        self.cells_left = self.cells_left.saturating_sub(1);
        self.progress.advance(1.0);
    }

    /// Finds out who is faster at CRCs.
    fn choose_crc(&mut self, arena: &mut Arena) {
        let mut stripes = arena.stripes(1, 1 << 20, 1);
        let Some(memory) = stripes.pop().and_then(|mut stripe| stripe.pop()) else { return };
        let by = |crc: Crc| {
            Contender::new(format!("{crc:?}"), move |memory: &mut &mut [u8]| {
                std::hint::black_box(crc.of(memory));
            })
        };
        let plan = Plan {
            turn_min: self.options.turn_min,
            budget: Duration::ZERO,
            rounds_min: self.options.rounds_min,
            rounds_max: self.options.rounds_min,
        };
        let mut memory = memory;
        let mut contenders = [by(Crc::Isal), by(Crc::CrcFast)];
        let samples = interleave(&mut memory, &mut contenders, &plan, &mut self.order, &self.stop);
        let isal_is_faster =
            median_ratio(&samples[0].cpu_seconds, &samples[1].cpu_seconds).is_some_and(|ratio| ratio > 1.0);
        self.crc = if isal_is_faster { Crc::Isal } else { Crc::CrcFast };
    }

    /// Measures one cell on stripes from an arena.
    fn cell(
        &mut self,
        shape: Shape,
        op: Op,
        patterns: &[Pattern],
        bytes: usize,
        state: State,
        arena: &mut Arena,
    ) -> Result<(), BenchError> {
        let name = CellName { code: shape.to_string(), bytes, state, op: op.to_string() };
        let shard_bytes = shape.shard_bytes(bytes);
        if self.stop.asked() {
            return Ok(());
        }
        let stripe_bytes = shape.n() * stride_bytes(shard_bytes);
        if stripe_bytes > self.options.cold_bytes / 2 {
            let why = format!("{} MiB of memory hold no two stripes", self.options.cold_bytes >> 20);
            self.leave_out(&format!("{shape} at {} MiB", bytes >> 20), &why);
            self.pass_cell();
            return Ok(());
        }
        let cell = Cell { shape, op, patterns, shard_bytes, crc: self.crc };
        let mut works = Vec::new();
        for peer in Peer::ALL {
            if self.options.quick && op != Op::Encode && !matches!(peer, Peer::Penstock | Peer::IsaL) {
                continue;
            }
            match peer.make(&cell) {
                Ok(work) => {
                    if bytes <= VERIFIED_BYTES_MAX && state == State::Hot {
                        verify(peer, &cell)?;
                    }
                    works.push((peer.name(), work));
                }
                Err(why) => self.leave_out(&format!("{}: {}{op}", peer.name(), lrc_only(shape)), &why),
            }
        }
        let stripes = arena.stripes(shape.n(), shard_bytes, if state == State::Hot { 1 } else { usize::MAX });
        let mut stripes = Stripes::new(stripes, patterns.len());
        let mut contenders: Vec<Contender<'_, Stripes<'_>>> = works
            .iter_mut()
            .map(|(peer, work)| {
                Contender::looping(*peer, |stripes: &mut Stripes<'_>, calls| {
                    stripes.each(calls, |pattern, stripe, times| work.work(pattern, stripe, times));
                })
            })
            .collect();
        let far = if state == State::Hot { Access::Near } else { Access::Far };
        for (name, access) in [(LIMIT, far), (LIMIT_STREAMING, Access::FarStreaming)] {
            contenders.push(Contender::looping(name, move |stripes: &mut Stripes<'_>, calls| {
                let mut refused = false;
                stripes.each(calls, |pattern, stripe, times| {
                    let (sources, mut destinations) = parted(&patterns[pattern], stripe);
                    for _ in 0..times {
                        refused |= !limits::read_write(access, &sources, &mut destinations);
                    }
                });
                stripes.refused |= refused;
            }));
        }
        let samples = self.samples(&name, &mut stripes, &mut contenders);
        let refused = stripes.refused;
        if refused {
            self.leave_out(&format!("limit: {shape} {op}"), "no loop of this shape on this machine");
        }
        let bound = self.bounds.of(shape, patterns, op == Op::EncodeCrc64);
        let data_bytes = shape.k() * shard_bytes;
        self.record(&name, &samples, data_bytes, if refused { None } else { Some(bound) })
    }

    /// The samples of one cell, within its share of the time that is left.
    pub(crate) fn samples<C>(
        &mut self,
        name: &CellName,
        context: &mut C,
        contenders: &mut [Contender<'_, C>],
    ) -> Vec<Samples> {
        self.progress.doing(&format!("{} {} {} {}", name.code, name.op, size_in_words(name.bytes), name.state.name()));
        let left = self.options.budget.saturating_sub(self.started.elapsed());
        let share = left.div_f64(self.cells_left.max(1) as f64);
        self.pass_cell();
        let over = self.options.budget.mul_f64(OVERTIME);
        if self.started.elapsed() > over {
            self.leave_out(
                &format!("{} {} {} {}", name.code, name.op, size_in_words(name.bytes), name.state.name()),
                "the run's time was used up: the machine is slow or busy",
            );
            return Vec::new();
        }
        let plan = Plan {
            turn_min: self.options.turn_min,
            budget: share.mul_f64(ROUNDS_SHARE),
            rounds_min: self.options.rounds_min,
            rounds_max: self.options.rounds_max,
        };
        interleave(context, contenders, &plan, &mut self.order, &self.stop)
    }

    /// Makes rows of samples. `bound` is what computing allows, beside the loops among the samples that are called limits;
    /// without it no ratio to a limit is given.
    pub(crate) fn record(
        &mut self,
        name: &CellName,
        samples: &[Samples],
        data_bytes: usize,
        bound: Option<f64>,
    ) -> Result<(), BenchError> {
        let gbps = |seconds: f64| data_bytes as f64 / seconds / 1e9;
        let isal = samples.iter().find(|one| one.name == "isa-l");
        let rate = |one: &Samples| Summary::of(&one.cpu_seconds).map(|summary| gbps(summary.median));
        let is_limit = |one: &Samples| one.name == LIMIT || one.name == LIMIT_STREAMING;
        let fastest = samples.iter().filter(|one| is_limit(one)).max_by(|a, b| {
            let (a, b) = (rate(a).unwrap_or(0.0), rate(b).unwrap_or(0.0));
            a.total_cmp(&b)
        });
        let limit = bound.and_then(|bound| Some(rate(fastest?)?.min(bound)));
        for one in samples {
            let limiting = is_limit(one);
            if limiting && (bound.is_none() || fastest.is_none_or(|fastest| fastest.name != one.name)) {
                continue;
            }
            let (Some(cpu), Some(wall)) = (Summary::of(&one.cpu_seconds), Summary::of(&one.wall_seconds)) else {
                continue;
            };
            let rate = gbps(cpu.median);
            let row = Row {
                bench: self.options.bench.to_owned(),
                code: name.code.clone(),
                bytes: name.bytes as u64,
                state: name.state.name().to_owned(),
                op: name.op.clone(),
                contender: if limiting { LIMIT.to_owned() } else { one.name.clone() },
                gbps: rounded(rate),
                ratio_to_isal: isal.and_then(|isal| median_ratio(&one.cpu_seconds, &isal.cpu_seconds)).map(rounded),
                ratio_to_limit: limit.map(|limit| rounded(rate / limit)),
            };
            self.wide.push([WideRow {
                bench: row.bench.clone(),
                code: row.code.clone(),
                bytes: row.bytes,
                state: row.state.clone(),
                op: row.op.clone(),
                contender: row.contender.clone(),
                gbps: row.gbps,
                ratio_to_isal: row.ratio_to_isal,
                ratio_to_limit: row.ratio_to_limit,
                gbps_lower: rounded(gbps(cpu.upper)),
                gbps_upper: rounded(gbps(cpu.lower)),
                gbps_wall: rounded(gbps(wall.median)),
                rounds: cpu.count,
                calls_per_round: one.calls,
            }])?;
            self.rows.push([row])?;
        }
        Ok(())
    }
}

/// Notes name LRC apart; all others lack an operation for every code.
fn lrc_only(shape: Shape) -> String {
    match shape {
        Shape::Lrc { .. } => format!("{shape} "),
        Shape::Rs { .. } => String::new(),
    }
}

/// "64 KiB", "4 MiB".
pub(crate) fn size_in_words(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}
