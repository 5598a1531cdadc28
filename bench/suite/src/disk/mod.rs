//! `penstock-bench disk`: our engines beside fio on the same file or device, in the same run.
//!
//! A *cell* is an operation, a size and a queue depth. In each round of a cell every contender works for a slice of time, in
//! random order; medians over the rounds. CPU time is the process's own for our engines; for fio it is what fio says of its job.
//! Everything is O_DIRECT, at random offsets.

mod engines;
mod fio;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_harness::{Stop, Table};
use serde_json::{Value, json};

use crate::BenchError;
use crate::slices::{Contender, Medians, Run, Slice};

/// Bytes of the file, and of a quick run's.
const FILE_BYTES: u64 = 1 << 30;
const QUICK_FILE_BYTES: u64 = 256 << 20;
/// Rounds of a cell, and a contender's slice of one.
const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;
const SLICE: Duration = Duration::from_millis(700);
const QUICK_SLICE: Duration = Duration::from_millis(300);

/// What our engines and fio make of a disk: requests per second and CPU per request, by size and queue depth.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file (made, and removed at the end) or block device to work on. Put the file where the store's disk is.
    #[arg(long, value_name = "PATH", default_value = "penstock-bench-disk.tmp")]
    path: PathBuf,
    /// A block device loses everything that is on it: say so.
    #[arg(long)]
    overwrite: bool,
    /// Bytes of the file; should be more than the disk's own cache.
    #[arg(long, value_name = "BYTES")]
    file_bytes: Option<u64>,
    /// Write results as a JSON list to FILE, and what they were measured on to FILE with the extension .machine.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write results as CSV to FILE.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Under a minute: fewer queue depths, rounds and bytes.
    #[arg(long)]
    quick: bool,
}

/// What is done in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    op: Op,
    bytes: u64,
    queue_depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Read,
    Write,
    /// Every write made durable before it counts, as a small PUT must be.
    WriteFlush,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WriteFlush => "write+flush",
        }
    }
}

fn cells(quick: bool) -> Vec<Cell> {
    let depths: &[usize] = if quick { &[1, 16, 128] } else { &[1, 2, 4, 8, 16, 32, 64, 128] };
    let large: &[usize] = if quick { &[1, 16] } else { &[1, 4, 16, 64, 128] };
    let mut cells = Vec::new();
    for op in [Op::Read, Op::Write] {
        cells.extend(depths.iter().map(|&queue_depth| Cell { op, bytes: 4 << 10, queue_depth }));
        cells.extend(large.iter().map(|&queue_depth| Cell { op, bytes: 1 << 20, queue_depth }));
    }
    cells.push(Cell { op: Op::WriteFlush, bytes: 4 << 10, queue_depth: 1 });
    cells
}

/// The file is removed when the run ends, however it ends but by a kill.
struct Scratch<'a>(&'a Path, bool);

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.1 {
            let _ignored = std::fs::remove_file(self.0);
        }
    }
}

/// Whether the path may be written over.
fn checked(arguments: &Arguments) -> Result<bool, BenchError> {
    use std::os::unix::fs::FileTypeExt as _;
    let shown = arguments.path.display();
    let Ok(found) = std::fs::metadata(&arguments.path) else { return Ok(true) };
    if found.file_type().is_block_device() {
        if arguments.overwrite {
            return Ok(false);
        }
        let why = format!(
            "{shown} is a block device, and this run writes all over it: give --overwrite if nothing on it is needed"
        );
        return Err(BenchError::Setup(why));
    }
    Err(BenchError::Setup(format!(
        "{shown} exists already: give a path where there is nothing, since the file is removed at the end"
    )))
}

/// Measures and shows it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let is_file = checked(arguments)?;
    let stop = Stop::on_signals()?;
    let bytes = arguments.file_bytes.unwrap_or(if arguments.quick { QUICK_FILE_BYTES } else { FILE_BYTES });
    if bytes < 64 << 20 {
        return Err(BenchError::Setup(format!(
            "--file-bytes {bytes}: at least 64 MiB, or the disk's cache is all that is measured"
        )));
    }
    let scratch = Scratch(&arguments.path, is_file);
    let mut missing = Vec::new();
    let mut contenders: Vec<Box<dyn Contender<Cell>>> = Vec::new();
    let bytes = engines::prepare(&arguments.path, bytes, is_file)?;
    for each in engines::all(&arguments.path, bytes)? {
        match each {
            Ok(engine) => contenders.push(engine),
            Err((what, why)) => missing.push((what, why)),
        }
    }
    match fio::Fio::find(&arguments.path, bytes) {
        Ok(found) => contenders.extend(found.into_iter().map(|each| Box::new(each) as Box<dyn Contender<Cell>>)),
        Err(why) => missing.push(("fio".to_owned(), why)),
    }
    missing.push(("penstock passthrough".to_owned(), "there is no engine for NVMe passthrough yet".to_owned()));
    let (rounds, slice) = if arguments.quick { (QUICK_ROUNDS, QUICK_SLICE) } else { (ROUNDS, SLICE) };
    let run = Run {
        rounds,
        slice,
        json: arguments.json.clone(),
        csv: arguments.csv.clone(),
        quick: arguments.quick,
        missing,
    };
    let words = |cell: Cell| format!("{} {} B x {}", cell.op.name(), cell.bytes, cell.queue_depth);
    let rows = run.all(&cells(arguments.quick), &mut contenders, &stop, words, cell_rows)?;
    drop(scratch);
    let _ignored = std::io::stdout().write_all(format!("{}{}", text(&rows), run.missing_text()).as_bytes());
    Ok(())
}

fn cell_rows(cell: Cell, names: &[&str], slices: &[Vec<Slice>]) -> Vec<Value> {
    // The best of fio's ways: what the disk can do for somebody else.
    let of_fio = names.iter().zip(slices).filter(|(name, _)| name.starts_with("fio"));
    let best_of_fio = of_fio.filter_map(|(_, slices)| Medians::of(slices)).map(|each| each.ops_per_s).reduce(f64::max);
    let row = |(name, slices): (&&str, &Vec<Slice>)| {
        let medians = Medians::of(slices)?;
        Some(json!({
            "bench": "disk",
            "op": cell.op.name(),
            "bytes": cell.bytes,
            "queue_depth": cell.queue_depth,
            "contender": name,
            "iops": medians.ops_per_s,
            "mb_per_s": medians.ops_per_s * cell.bytes as f64 / 1e6,
            "cpu_us_per_op": medians.cpu_us_per_op,
            "p50_us": medians.p50_us,
            "p99_us": medians.p99_us,
            "ratio_to_fio": best_of_fio.filter(|best| *best > 0.0).map(|best| medians.ops_per_s / best),
        }))
    };
    names.iter().zip(slices).filter_map(row).collect()
}

fn text(rows: &[Value]) -> String {
    let mut table =
        Table::new(["contender", "op", "bytes", "depth", "ops/s", "MB/s", "CPU us/op", "p50 us", "p99 us", "x fio"]);
    for row in rows {
        let number = |key: &str, digits: usize| match row[key].as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let plain = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
        table.row([
            plain("contender"),
            plain("op"),
            plain("bytes"),
            plain("queue_depth"),
            number("iops", 0),
            number("mb_per_s", 1),
            number("cpu_us_per_op", 1),
            number("p50_us", 0),
            number("p99_us", 0),
            number("ratio_to_fio", 2),
        ]);
    }
    table.text()
}
