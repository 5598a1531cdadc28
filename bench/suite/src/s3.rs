//! `penstock-bench s3`: load on any S3 endpoint. The generator is `penstock-bench-load`; here is what is run when nobody
//! says what: the operations and sizes of the cost table in docs/BENCHMARKS.md, one after the other.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use penstock_bench_load::{LoadArguments, Report};
use penstock_harness::{HarnessError, Machine, Table, beside, write_csv, write_json};
use serde::Deserialize;
use serde_json::Value;

use crate::BenchError;

/// What is run without `--mix`, and the goals.
const DEFINITIONS: &str = include_str!("s3.toml");

/// `s3.toml`, where each field is explained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    run: Vec<Definition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Definition {
    op: String,
    bytes: u64,
    objects: u64,
    #[serde(default)]
    at_most: BTreeMap<String, f64>,
    #[serde(default)]
    at_least: BTreeMap<String, f64>,
}

/// Who goals are for.
const OURS: &str = "penstock";
/// Seconds of each of these with `--quick`.
const QUICK_SECONDS: f64 = 3.0;

/// Load on any S3 endpoint: ours, AWS, RGW, MinIO. Failures are counted by kind, and never as throughput.
///
/// Without --mix, runs PUT, GET and LIST of several sizes one after the other.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    load: LoadArguments,
    /// Write results as a JSON list to FILE, and what they were measured on to FILE with the extension .machine.json.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write results as CSV to FILE.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// The server's name in results, for a report with several: "nginx", "minio". Goals are ours alone.
    #[arg(long, value_name = "NAME", default_value = OURS)]
    contender: String,
    /// Other runs than those of bench/suite/src/s3.toml: a file like it.
    #[arg(long, value_name = "FILE", conflicts_with = "mix")]
    definitions: Option<PathBuf>,
    /// Three seconds of each, instead of --seconds.
    #[arg(long)]
    quick: bool,
}

/// Runs it and shows it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| BenchError::Setup(format!("no threads can be started: {error}")))?;
    let mut rows: Vec<Value> = Vec::new();
    for load in loads(arguments)? {
        let report: Report = runtime.block_on(load.run()).map_err(|error| BenchError::Setup(error.to_string()))?;
        rows.extend(report.rows().into_iter().map(|mut row| {
            row["contender"] = Value::String(arguments.contender.clone());
            row
        }));
        if let Some(path) = &arguments.csv {
            write_csv(path, &rows)?;
        }
        if let Some(path) = &arguments.json {
            write_json(path, &rows)?;
            write_json(&beside(path, "machine"), &Machine::here())?;
        }
        if report.partial {
            break;
        }
    }
    // Whoever closes the pipe has read enough.
    let goals = if arguments.contender == OURS { goals(&definitions(arguments)?, &rows) } else { String::new() };
    let _ignored = std::io::stdout().write_all(format!("{}{goals}", text(&rows)).as_bytes());
    Ok(())
}

fn definitions(arguments: &Arguments) -> Result<Vec<Definition>, BenchError> {
    let (name, text) = match &arguments.definitions {
        Some(path) => {
            let failed =
                |error: std::io::Error| HarnessError::Read { path: path.display().to_string(), why: error.to_string() };
            (path.display().to_string(), std::fs::read_to_string(path).map_err(failed)?)
        }
        None => ("s3.toml".to_owned(), DEFINITIONS.to_owned()),
    };
    let read: Definitions =
        toml::from_str(&text).map_err(|error| HarnessError::Read { path: name, why: error.to_string() })?;
    Ok(read.run)
}

/// Which goals were reached, a line each; none of what was not measured, or measured without --server-pid.
fn goals(definitions: &[Definition], rows: &[Value]) -> String {
    let mut lines = String::new();
    for definition in definitions {
        let fits = |row: &&Value| {
            row["op"].as_str().is_some_and(|op| op.eq_ignore_ascii_case(&definition.op))
                && row["bytes"].as_str() == Some(&definition.bytes.to_string())
        };
        let Some(row) = rows.iter().find(fits) else { continue };
        let most = definition.at_most.iter().map(|(field, goal)| (field, goal, true));
        let least = definition.at_least.iter().map(|(field, goal)| (field, goal, false));
        for (field, goal, at_most) in most.chain(least) {
            let Some(value) = row[field].as_f64() else { continue };
            let reached = if at_most { value <= *goal } else { value >= *goal };
            lines.push_str(&format!(
                "{} {} {field}: {value:.3}, goal at {} {goal}: {}\n",
                row["op"].as_str().unwrap_or_default(),
                definition.bytes,
                if at_most { "most" } else { "least" },
                if reached { "reached" } else { "not reached" }
            ));
        }
    }
    lines
}

/// What to run, in order.
fn loads(arguments: &Arguments) -> Result<Vec<LoadArguments>, BenchError> {
    let mut load = arguments.load.clone();
    if arguments.quick {
        load.seconds = QUICK_SECONDS;
    }
    if load.mix.is_some() {
        return Ok(vec![load]);
    }
    let set = |definition: Definition| LoadArguments {
        size: definition.bytes,
        large_size: None,
        objects: definition.objects,
        // Listings expect no others below theirs.
        prefix: format!("{}{}-{}/", load.prefix, definition.op, definition.bytes),
        mix: Some(definition.op),
        ..load.clone()
    };
    Ok(definitions(arguments)?.into_iter().map(set).collect())
}

fn text(rows: &[Value]) -> String {
    let mut table = Table::new([
        "op", "bytes", "conns", "ops/s", "MB/s", "keys/s", "CPU s/1k", "CPU s/GB", "p50 us", "p99 us", "p999 us",
        "errors",
    ]);
    for row in rows {
        let number = |key: &str, digits: usize| match row[key].as_f64() {
            Some(value) => format!("{value:.digits$}"),
            None => "-".to_owned(),
        };
        let plain = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
        table.row([
            plain("op"),
            plain("bytes"),
            plain("connections"),
            number("ops_per_s", 0),
            number("mb_per_s", 1),
            number("keys_per_s", 0),
            number("server_cpu_s_per_1k", 4),
            number("server_cpu_s_per_gb", 3),
            plain("p50_us"),
            plain("p99_us"),
            plain("p999_us"),
            plain("errors"),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Arguments as All, Command};

    fn parsed(more: &[&str]) -> Arguments {
        let line = ["penstock-bench", "s3", "--endpoint", "http://127.0.0.1:1"];
        match All::parse_from(line.iter().chain(more)).command {
            Command::S3(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_mix_the_table_is_run_and_with_one_it_alone() {
        let all = loads(&parsed(&["--quick"])).unwrap();
        assert!(all.len() >= 6);
        let prefixes: std::collections::HashSet<_> = all.iter().map(|load| load.prefix.clone()).collect();
        assert_eq!(prefixes.len(), all.len(), "no run lists another's keys");
        assert!(all.iter().all(|load| load.seconds == QUICK_SECONDS && load.spec().is_ok()));
        let one = loads(&parsed(&["--mix", "put=1,get=3"])).unwrap();
        assert_eq!((one.len(), one[0].size), (1, 4096));
    }

    #[test]
    fn goals_are_said_of_what_was_measured() {
        let definitions = definitions(&parsed(&[])).unwrap();
        let row = |op: &str, bytes: &str, cpu: Option<f64>| serde_json::json!({"op": op, "bytes": bytes, "server_cpu_s_per_1k": cpu});
        let said = goals(
            &definitions,
            &[row("PUT", "4096", Some(0.2)), row("GET", "4096", Some(0.06)), row("GET", "1048576", None)],
        );
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("PUT 4096 server_cpu_s_per_1k: 0.200, goal at most 0.3: reached"), "{said}");
        assert!(said.contains("goal at most 0.05: not reached"), "{said}");
    }

    #[test]
    fn definitions_with_an_unknown_field_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.toml");
        std::fs::write(&path, "[[run]]\nop = 'get'\nbytes = 1\nobjects = 1\nspeed = 3\n").unwrap();
        let error = loads(&parsed(&["--definitions", path.to_str().unwrap()])).unwrap_err().to_string();
        assert!(error.contains("my.toml") && error.contains("speed"), "{error}");
    }

    #[test]
    fn an_endpoint_that_is_not_there_is_a_sentence() {
        let error = run(&parsed(&["--mix", "get", "--seconds", "1"])).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
