//! `penstock-bench kernels`: erasure codes, checksums and hashes on one core.
//!
//! Every *cell* (a code, an operation, a size, a state of the memory) is measured with all contenders in it, interleaved,
//! beside a loop that only reads and writes what the operation must. Before that each contender has shown, once per code
//! and operation and size, that it computes what it should.

mod contenders;
mod goals;
mod hashes;
mod machine_limits;
mod measure;
mod report;
mod row;
mod shape;
mod stripes;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_harness::{HarnessError, Machine, Stop, beside, write_json};

use crate::BenchError;
use measure::{Options, Run};
use row::{About, Row};

/// Time for a whole run.
const FULL_BUDGET: Duration = Duration::from_secs(600);
/// The same for `--quick`.
const QUICK_BUDGET: Duration = Duration::from_secs(42);
/// One in how many parts of that time hashes alone are given.
const DIGESTS_SHARE: u32 = 8;

/// Erasure codes, checksums and hashes: one core, in memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write results as a JSON list to FILE, and what they were measured on to FILE with the extension .machine.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write results with their spread as CSV to FILE.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the tables as Markdown to FILE.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Under a minute instead of ten: fewer rounds, and peers other than ISA-L in encoding alone.
    #[arg(long)]
    quick: bool,
    /// Measure nothing: make the tables from the JSON of an earlier run.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "csv", "quick"])]
    from: Option<PathBuf>,
}

/// What of it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Codes, checksums and hashes: `penstock bench kernels`.
    All,
    /// Hashes and the machine's limits: `penstock bench digest`.
    Digests,
}

/// Measures, or reads what was measured, and shows it.
pub(crate) fn run(arguments: &Arguments, part: Part) -> Result<(), BenchError> {
    let (rows, about) = match &arguments.from {
        Some(path) => recorded(path)?,
        None => measured(arguments, part)?,
    };
    if let Some(path) = &arguments.markdown {
        let text = report::markdown(&rows, &about);
        std::fs::write(path, text)
            .map_err(|error| HarnessError::Write { path: path.display().to_string(), why: error.to_string() })?;
    }
    // Whoever closes the pipe has read enough.
    let _ignored = std::io::stdout().write_all(report::text(&rows, &about).as_bytes());
    Ok(())
}

fn measured(arguments: &Arguments, part: Part) -> Result<(Vec<Row>, About), BenchError> {
    let stop = Stop::on_signals()?;
    let budget = if arguments.quick { QUICK_BUDGET } else { FULL_BUDGET };
    let mut options = Options::new(arguments.quick, budget, &Machine::here());
    if part == Part::Digests {
        options.bench = "digest";
        options.budget /= DIGESTS_SHARE;
        options.shapes.clear();
    }
    let mut run = Run::new(options, stop, arguments.json.clone(), arguments.csv.clone())?;
    run.all()?;
    let (rows, about) = run.finish()?;
    if let Some(path) = &arguments.json {
        write_json(&beside(path, "machine"), &about)?;
    }
    Ok((rows, about))
}

fn recorded(path: &Path) -> Result<(Vec<Row>, About), BenchError> {
    let failed = |path: &Path, why: &dyn std::fmt::Display| HarnessError::Read {
        path: path.display().to_string(),
        why: why.to_string(),
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    let rows = serde_json::from_str(&text).map_err(|error| failed(path, &error))?;
    let about_path = beside(path, "machine");
    let about = std::fs::read_to_string(&about_path).map_err(|error| failed(&about_path, &error))?;
    let about = serde_json::from_str(&about).map_err(|error| failed(&about_path, &error))?;
    Ok((rows, about))
}
