//! `penstock-bench report`, `compare` and `model`: what is made of results. The work is `penstock-report`'s.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use penstock_harness::{HarnessError, Progress};
use penstock_report::durability::Failures;
use penstock_report::model::Fleet;
use penstock_report::{Results, compare, durability, figures, page};

use crate::BenchError;

/// One self-contained page with plots of what other benchmarks wrote by --json.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArguments {
    /// A folder of results, or one file.
    pub(crate) dir: PathBuf,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub(crate) out: PathBuf,
    /// Write each plot as an SVG of its own into this folder too.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// What stands above the page.
    #[arg(long, default_value = "Penstock, measured")]
    pub(crate) title: String,
}

/// What changed between two runs, beyond the noise.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArguments {
    /// The run before: a file of results, or a folder of them (repeated runs of one benchmark show its noise).
    a: PathBuf,
    /// The run after.
    b: PathBuf,
    /// Changes up to this many percent are never worth a word; otherwise 5 for CPU time, 10 for rates, 25 for tails.
    #[arg(long, value_name = "PERCENT")]
    noise: Option<f64>,
    /// End with status 3 if something became worse.
    #[arg(long)]
    fail: bool,
}

/// What a fleet needs, on paper: every assumption is printed and can be changed.
///
/// The arithmetic is written out in docs/MODEL.md.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArguments {
    /// Storage nodes.
    #[arg(long)]
    nodes: Option<f64>,
    /// Users' data, in exabytes (10^18 bytes).
    #[arg(long)]
    stored_eb: Option<f64>,
    /// PUT requests per second.
    #[arg(long)]
    puts_per_s: Option<f64>,
    /// GET requests per second.
    #[arg(long)]
    gets_per_s: Option<f64>,
    /// Any assumption, as NAME=VALUE; they are all printed.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Take the CPU costs that `penstock bench s3 --json` wrote to this file or folder.
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// Write assumptions and answers as a JSON list to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How likely data is lost in a year, by policy: independent failures, losses of power, burnt racks.
#[derive(Debug, clap::Args)]
pub(crate) struct DurabilityArguments {
    /// Nodes.
    #[arg(long, default_value_t = Failures::default().nodes)]
    nodes: usize,
    /// Nodes of a rack.
    #[arg(long, default_value_t = Failures::default().rack_nodes)]
    rack_nodes: usize,
    /// Stripes that they hold.
    #[arg(long, default_value_t = Failures::default().stripes)]
    stripes: f64,
    /// Share of nodes that fail in a year, for good.
    #[arg(long, default_value_t = Failures::default().annual_failure_rate)]
    annual_failure_rate: f64,
    /// Hours until a failed node's shards are rebuilt.
    #[arg(long, default_value_t = Failures::default().repair_hours)]
    repair_hours: f64,
    /// Share of nodes that don't come back from a loss of power.
    #[arg(long, default_value_t = Failures::default().dead_after_power)]
    dead_after_power: f64,
    /// Losses of power of the whole site, per year.
    #[arg(long, default_value_t = Failures::default().power_losses_per_year)]
    power_losses_per_year: f64,
    /// Racks that burn, per year.
    #[arg(long, default_value_t = Failures::default().rack_losses_per_year)]
    rack_losses_per_year: f64,
    /// Events drawn for each policy and placement.
    #[arg(long, default_value_t = Failures::default().trials)]
    trials: usize,
    /// Makes draws repeatable.
    #[arg(long, default_value_t = Failures::default().seed)]
    seed: u64,
    /// A twentieth of the draws.
    #[arg(long)]
    quick: bool,
    /// Write answers as a JSON list to FILE.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    let failed =
        |error: std::io::Error| HarnessError::Write { path: path.display().to_string(), why: error.to_string() };
    Ok(std::fs::write(path, text).map_err(failed)?)
}

fn say(text: &str) {
    // Whoever closes the pipe has read enough.
    let _ignored = std::io::stdout().write_all(text.as_bytes());
}

/// Writes the page, and the plots.
pub(crate) fn report(arguments: &ReportArguments) -> Result<(), BenchError> {
    let results = Results::read(&arguments.dir)?;
    write(&arguments.out, &page::page(&results, &arguments.title)?)?;
    say(&format!("{}: {} files of results\n", arguments.out.display(), results.files.len()));
    let Some(folder) = &arguments.svg else { return Ok(()) };
    std::fs::create_dir_all(folder)
        .map_err(|error| HarnessError::Write { path: folder.display().to_string(), why: error.to_string() })?;
    for figure in figures::figures(&results)? {
        for (name, svg) in &figure.panels {
            let path = folder.join(format!("{}.svg", file_name(&figure.id, name)));
            write(&path, &svg.standalone())?;
            say(&format!("{}\n", path.display()));
        }
    }
    Ok(())
}

/// "kernels-encode-cold-thp" of "kernels-encode" and "cold+thp".
fn file_name(id: &str, panel: &str) -> String {
    let panel: String =
        panel.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    if panel.is_empty() { id.to_owned() } else { format!("{id}-{panel}") }
}

/// Shows what changed; gives whether that is a failure.
pub(crate) fn compare(arguments: &CompareArguments) -> Result<bool, BenchError> {
    let floor = match arguments.noise {
        Some(percent) if !(0.0..=1000.0).contains(&percent) => {
            return Err(BenchError::Setup(format!("--noise {percent}: give percent, from 0")));
        }
        other => other.map(|percent| percent / 100.0),
    };
    let comparison = compare::compare(&Results::read(&arguments.a)?, &Results::read(&arguments.b)?, floor)?;
    say(&compare::text(&comparison));
    Ok(arguments.fail && comparison.is_worse())
}

/// Computes and shows a fleet.
pub(crate) fn model(arguments: &ModelArguments) -> Result<(), BenchError> {
    let mut fleet = Fleet::default();
    if let Some(path) = &arguments.from {
        fleet.take_measured(&Results::read(path)?)?;
    }
    for text in &arguments.set {
        fleet.set_text(text)?;
    }
    let given = [
        ("nodes", arguments.nodes),
        ("stored_bytes", arguments.stored_eb.map(|exabytes| exabytes * 1e18)),
        ("puts_per_s", arguments.puts_per_s),
        ("gets_per_s", arguments.gets_per_s),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            fleet.set(name, value, "given")?;
        }
    }
    if let Some(path) = &arguments.json {
        penstock_harness::write_json(path, &fleet.rows())?;
    }
    say(&fleet.text());
    Ok(())
}

/// Draws failures, and shows what they lost.
pub(crate) fn durability(arguments: &DurabilityArguments) -> Result<(), BenchError> {
    let failures = Failures {
        nodes: arguments.nodes,
        rack_nodes: arguments.rack_nodes,
        stripes: arguments.stripes,
        annual_failure_rate: arguments.annual_failure_rate,
        repair_hours: arguments.repair_hours,
        dead_after_power: arguments.dead_after_power,
        power_losses_per_year: arguments.power_losses_per_year,
        rack_losses_per_year: arguments.rack_losses_per_year,
        trials: if arguments.quick { arguments.trials.div_ceil(20) } else { arguments.trials },
        seed: arguments.seed,
    };
    let mut progress = Progress::new(1.0);
    let mut told = 0.0;
    let answers = durability::table(&failures, |what, share| {
        progress.advance(share - told);
        told = share;
        progress.doing(what);
    })?;
    progress.finish();
    if let Some(path) = &arguments.json {
        penstock_harness::write_json(path, &answers)?;
    }
    say(&durability::text(&failures, &answers));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_have_file_names_without_odd_characters() {
        assert_eq!(file_name("kernels-encode", "cold+thp"), "kernels-encode-cold-thp");
        assert_eq!(file_name("rdma-cpu", ""), "rdma-cpu");
    }

    #[test]
    fn a_page_and_its_plots_are_written_from_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../record");
        let (out, svg) = (folder.path().join("r.html"), folder.path().join("svg"));
        report(&ReportArguments { dir: record, out: out.clone(), svg: Some(svg.clone()), title: "t".to_owned() })
            .unwrap();
        assert!(std::fs::read_to_string(&out).unwrap().contains("kernels-encode"));
        assert!(svg.join("kernels-encode-hot.svg").exists());
    }
}
