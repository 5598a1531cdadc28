//! `penstock-bench s3`: load on any S3 endpoint. The generator is `penstock-bench-load`; here is what is run when nobody
//! says what: the operations and sizes of the cost table in docs/BENCHMARKS.md, one after the other.

use std::io::Write as _;
use std::path::PathBuf;

use penstock_bench_load::{LoadArguments, Report};
use penstock_harness::{Machine, Table, beside, write_json};
use serde_json::Value;

use crate::BenchError;

/// What is run without `--mix`: name of the operation, bytes of an object, objects.
const TABLE: [(&str, u64, u64); 6] = [
    ("put", 4 << 10, 1000),
    ("get", 4 << 10, 1000),
    ("put", 1 << 20, 100),
    ("get", 1 << 20, 100),
    ("get", 64 << 20, 4),
    ("list", 1, 5000),
];
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
    for load in loads(arguments) {
        let report: Report = runtime.block_on(load.run()).map_err(|error| BenchError::Setup(error.to_string()))?;
        rows.extend(report.rows());
        if let Some(path) = &arguments.json {
            write_json(path, &rows)?;
            write_json(&beside(path, "machine"), &Machine::here())?;
        }
        if report.partial {
            break;
        }
    }
    // Whoever closes the pipe has read enough.
    let _ignored = std::io::stdout().write_all(text(&rows).as_bytes());
    Ok(())
}

/// What to run, in order.
fn loads(arguments: &Arguments) -> Vec<LoadArguments> {
    let mut load = arguments.load.clone();
    if arguments.quick {
        load.seconds = QUICK_SECONDS;
    }
    if load.mix.is_some() {
        return vec![load];
    }
    let set = |(mix, size, objects): (&str, u64, u64)| LoadArguments {
        mix: Some(mix.to_owned()),
        size,
        large_size: None,
        objects,
        // Listings expect no others below theirs.
        prefix: format!("{}{mix}-{size}/", load.prefix),
        ..load.clone()
    };
    TABLE.into_iter().map(set).collect()
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
        let all = loads(&parsed(&["--quick"]));
        assert_eq!(all.len(), TABLE.len());
        let prefixes: std::collections::HashSet<_> = all.iter().map(|load| load.prefix.clone()).collect();
        assert_eq!(prefixes.len(), all.len(), "no run lists another's keys");
        assert!(all.iter().all(|load| load.seconds == QUICK_SECONDS && load.spec().is_ok()));
        let one = loads(&parsed(&["--mix", "put=1,get=3"]));
        assert_eq!((one.len(), one[0].size), (1, 4096));
    }

    #[test]
    fn an_endpoint_that_is_not_there_is_a_sentence() {
        let error = run(&parsed(&["--mix", "get", "--seconds", "1"])).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
