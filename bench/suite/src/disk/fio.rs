//! fio, the peer: the same operation on the same file, told apart from ours by nothing but who does it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Cell, Op};
use crate::BenchError;
use crate::slices::{Contender, Slice};

/// Names of what is measured, and fio's engines for them.
const WAYS: [(&str, &str); 2] = [("fio io_uring", "io_uring"), ("fio libaio", "libaio")];

/// fio with one of its engines.
pub(super) struct Fio {
    name: &'static str,
    engine: &'static str,
    path: PathBuf,
    bytes: u64,
}

impl Fio {
    /// fio, if it is installed.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(super) fn find(path: &Path, bytes: u64) -> Result<Vec<Self>, String> {
        match Command::new("fio").arg("--version").output() {
            Ok(output) if output.status.success() => {
                Ok(WAYS.iter().map(|&(name, engine)| Self { name, engine, path: path.to_owned(), bytes }).collect())
            }
            Ok(output) => Err(format!("fio --version ended with {}", output.status)),
            Err(error) => Err(format!("fio can't be started ({error}): install it, on Debian by `apt install fio`")),
        }
    }

    fn arguments(&self, cell: Cell, slice: Duration, seed: u64) -> Vec<String> {
        let mut arguments = vec![
            "--name=penstock".to_owned(),
            "--output-format=json".to_owned(),
            format!("--filename={}", self.path.display()),
            format!("--size={}", self.bytes),
            format!("--ioengine={}", self.engine),
            "--direct=1".to_owned(),
            "--time_based=1".to_owned(),
            format!("--runtime={}ms", slice.as_millis()),
            format!("--bs={}", cell.bytes),
            format!("--iodepth={}", cell.queue_depth),
            format!("--randseed={}", seed >> 1),
            // What we do: any place may come again, and every write has the same bytes.
            "--norandommap=1".to_owned(),
            format!("--rw={}", if cell.op == Op::Read { "randread" } else { "randwrite" }),
        ];
        if cell.op == Op::WriteFlush {
            arguments.push("--fdatasync=1".to_owned());
        }
        arguments
    }
}

impl Contender<Cell> for Fio {
    fn name(&self) -> &str {
        self.name
    }

    fn work(&mut self, cell: Cell, slice: Duration, seed: u64) -> Result<Slice, BenchError> {
        let output = Command::new("fio")
            .args(self.arguments(cell, slice, seed))
            .output()
            .map_err(|error| BenchError::Setup(format!("fio can't be started: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::Setup(format!("{}: {}", self.name, said.trim())));
        }
        parsed(&String::from_utf8_lossy(&output.stdout), cell.op)
            .ok_or_else(|| BenchError::Setup(format!("{} answered something else than its JSON", self.name)))
    }
}

/// What fio's JSON says of the job.
pub(super) fn parsed(text: &str, op: Op) -> Option<Slice> {
    // Notes may stand before the JSON.
    let json: Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let job = json["jobs"].get(0)?;
    let side = &job[if op == Op::Read { "read" } else { "write" }];
    let wall_s = side["runtime"].as_f64()? / 1e3;
    let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    let percentile = |key: &str| side["clat_ns"]["percentile"][key].as_f64().unwrap_or(0.0) / 1e3;
    let mut p50_us = percentile("50.000000");
    let mut p99_us = percentile("99.000000");
    if op == Op::WriteFlush {
        // The flush counts for ours: its medians are added, which is close where one of them dominates, as here.
        let sync = |key: &str| job["sync"]["lat_ns"]["percentile"][key].as_f64().unwrap_or(0.0) / 1e3;
        p50_us += sync("50.000000");
        p99_us += sync("99.000000");
    }
    Some(Slice { ops: side["total_ios"].as_u64()?, wall_s, cpu_s: wall_s * percent / 100.0, p50_us, p99_us })
}
