//! Contenders that work for a slice of time each, in rounds, in random order: for what is bound by devices and by
//! waiting, where a fixed amount of work (as `penstock_harness::interleave` gives) would take who knows how long.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use penstock_bench_load::latency_histogram;
use penstock_harness::{Machine, Order, Progress, Stop, Stopwatch, Summary, beside, write_csv, write_json};
use serde_json::{Value, json};

use crate::{BenchError, not_measured};

/// What a contender did in its slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    pub(crate) ops: u64,
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    /// Latencies: median and 99th percentile, in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Who works on cells of kind `C`.
pub(crate) trait Contender<C> {
    fn name(&self) -> &str;
    /// Works for a slice of time.
    fn work(&mut self, cell: C, slice: Duration, seed: u64) -> Result<Slice, BenchError>;
}

/// Medians over the rounds of a contender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Medians {
    pub(crate) ops_per_s: f64,
    pub(crate) cpu_us_per_op: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Medians {
    /// `None` of no rounds.
    pub(crate) fn of(slices: &[Slice]) -> Option<Self> {
        let median = |of: fn(&Slice) -> f64| {
            let values: Vec<f64> = slices.iter().map(of).collect();
            Summary::of(&values).map(|summary| summary.median)
        };
        let cpu = median(|slice| if slice.ops > 0 { slice.cpu_s * 1e6 / slice.ops as f64 } else { f64::NAN })?;
        Some(Self {
            ops_per_s: median(|slice| if slice.wall_s > 0.0 { slice.ops as f64 / slice.wall_s } else { 0.0 })?,
            cpu_us_per_op: cpu.is_finite().then_some(cpu),
            p50_us: median(|slice| slice.p50_us)?,
            p99_us: median(|slice| slice.p99_us)?,
        })
    }
}

/// How long, and where results go.
pub(crate) struct Run {
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) csv: Option<PathBuf>,
    pub(crate) quick: bool,
    /// What is not measured, and why.
    pub(crate) missing: Vec<(String, String)>,
}

impl Run {
    /// All cells. `rows` makes results of a cell's slices, contender by contender; `words` names a cell.
    pub(crate) fn all<C: Copy>(
        &self,
        cells: &[C],
        contenders: &mut [Box<dyn Contender<C>>],
        stop: &Stop,
        words: impl Fn(C) -> String,
        rows: impl Fn(C, &[&str], &[Vec<Slice>]) -> Vec<Value>,
    ) -> Result<Vec<Value>, BenchError> {
        let mut progress = Progress::new(cells.len() as f64);
        let mut order = Order::seeded(std::process::id().into());
        let mut all: Vec<Value> = Vec::new();
        let machine = Machine::here();
        let save = |rows: &[Value], interrupted: bool| self.save(rows, &machine, interrupted);
        save(&all, true)?;
        for cell in cells {
            let mut slices: Vec<Vec<Slice>> = vec![Vec::new(); contenders.len()];
            for _ in 0..self.rounds {
                for index in order.shuffled(contenders.len()) {
                    if stop.asked() {
                        break;
                    }
                    let contender = &mut contenders[index];
                    progress.doing(&format!("{}: {}", words(*cell), contender.name()));
                    slices[index].push(contender.work(*cell, self.slice, order.next_u64())?);
                }
            }
            if stop.asked() {
                save(&all, true)?;
                break;
            }
            let names: Vec<&str> = contenders.iter().map(|contender| contender.name()).collect();
            all.extend(rows(*cell, &names, &slices));
            progress.advance(1.0);
            save(&all, false)?;
        }
        progress.finish();
        Ok(all)
    }

    fn save(&self, rows: &[Value], machine: &Machine, interrupted: bool) -> Result<(), BenchError> {
        if let Some(path) = &self.csv {
            write_csv(path, rows)?;
        }
        let Some(path) = &self.json else { return Ok(()) };
        write_json(path, &rows)?;
        let about = json!({
            "machine": machine, "quick": self.quick, "interrupted": interrupted,
            "not_measured": self.missing.iter().map(|(what, why)| not_measured(what, why)).collect::<Vec<_>>(),
        });
        Ok(write_json(&beside(path, "machine"), &about)?)
    }

    /// What is not measured, for people.
    pub(crate) fn missing_text(&self) -> String {
        self.missing.iter().map(|(what, why)| format!("not measured: {what}: {why}\n")).collect()
    }
}

/// Runs `depth` tasks at once, each doing one request after the other until the time is over, and counts them.
///
/// `request` is given the number of its task and an order of its own.
pub(crate) async fn at_depth<F, R>(depth: usize, slice: Duration, seed: u64, request: F) -> Result<Slice, BenchError>
where
    F: Fn(usize, Order) -> R,
    R: Requests + Send + 'static,
{
    let watch = Stopwatch::start();
    let until = Instant::now() + slice;
    let ops = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..depth {
        let ops = Arc::clone(&ops);
        let mut requests = request(task, Order::seeded(seed.wrapping_add(task as u64)));
        tasks.spawn(async move {
            let mut latency_us = latency_histogram();
            while Instant::now() < until {
                let started = Instant::now();
                requests.one().await?;
                let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                latency_us.saturating_record(took.max(1));
                ops.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, BenchError>(latency_us)
        });
    }
    let mut latency_us = latency_histogram();
    while let Some(done) = tasks.join_next().await {
        let of_task = done.map_err(|error| BenchError::Setup(format!("a task: {error}")))??;
        latency_us.add(&of_task).map_err(|error| BenchError::Setup(format!("latencies: {error}")))?;
    }
    let elapsed = watch.elapsed();
    Ok(Slice {
        ops: ops.load(Ordering::Relaxed),
        wall_s: elapsed.wall.as_secs_f64(),
        cpu_s: elapsed.cpu.as_secs_f64(),
        p50_us: latency_us.value_at_quantile(0.5) as f64,
        p99_us: latency_us.value_at_quantile(0.99) as f64,
    })
}

/// A task's requests.
pub(crate) trait Requests {
    /// Does one.
    fn one(&mut self) -> impl Future<Output = Result<(), BenchError>> + Send;
}
