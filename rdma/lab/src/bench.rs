//! `lab bench`: `penstock bench rdma` in a guest, where perftest and ours have turns on the same device; or what the device
//! gives, by perftest alone.

use serde_json::json;

use crate::build::{self, What};
use crate::error::{LabError, Result};
use crate::folders::Folders;
use crate::lab::Lab;
use crate::perftest;

/// How long the benchmark may take.
pub(crate) const RUN_MAX_S: u64 = 3600;
/// Memory of its guest: a store, and its clients.
pub(crate) const MEMORY_MIB_MIN: u32 = 1024;

/// What the benchmark runs.
pub(crate) struct Programs {
    bench: String,
    penstock: String,
}

impl Programs {
    /// Builds them, as the tests' programs are built.
    pub(crate) fn build(folders: &Folders) -> Result<Self> {
        let path = |what| build::program(what, &folders.tree).map(|path| path.display().to_string());
        Ok(Self {
            penstock: path(What::Bin("penstock", "penstock"))?,
            bench: path(What::Bin("penstock-bench-rdma", "penstock-bench-rdma"))?,
        })
    }
}

/// Runs the benchmark within guest `name`, and prints its tables, and its rows as a JSON line if that is wanted.
pub(crate) fn store(lab: &Lab, name: &str, programs: &Programs, as_json: bool, arguments: &[String]) -> Result<()> {
    let folder = lab.data_folder();
    let json = format!("{folder}/lab-bench.json");
    let mut words = vec![programs.bench.as_str(), "--penstock", &programs.penstock, "--device", lab.device()];
    words.extend(["--data", &folder, "--json", &json]);
    words.extend(arguments.iter().map(String::as_str));
    print!("{}", lab.run(name, &words, RUN_MAX_S)?);
    if as_json {
        let rows = lab.shell(name, &format!("cat '{json}'"))?;
        let rows: serde_json::Value =
            serde_json::from_str(&rows).map_err(|error| LabError::Test(format!("no JSON: {error}\n{rows}")))?;
        println!("{rows}");
    }
    Ok(())
}

/// Message sizes whose bandwidth is measured, with the number of messages.
const WRITES: &[(usize, usize)] = &[(4096, 2000), (65_536, 1000), (1 << 20, 100)];
/// Message sizes whose latency is measured, with the number of reads.
const READS: &[(usize, usize)] = &[(8, 1000), (4096, 1000)];

/// Measures within guest `name` (its device with itself), prints a table, and a JSON line if that is wanted.
pub(crate) fn device(lab: &Lab, name: &str, as_json: bool) -> Result<()> {
    let kernel = lab.shell(name, "uname -r; grep -m1 'model name' /proc/cpuinfo; nproc; ls /sys/class/infiniband")?;
    let machine = kernel
        .lines()
        .map(|line| line.trim_start_matches("model name").trim_matches(['\t', ':', ' ']))
        .collect::<Vec<_>>()
        .join(", ");
    println!("{machine}");
    let mut results = Vec::new();
    for (bytes, count) in WRITES.iter().copied() {
        let average = perftest::write_bandwidth(lab, (name, name), bytes, count)?.average_mb_s;
        println!("ib_write_bw {bytes:>8} B  {average:10.1} MB/s");
        results.push(json!({"program": "ib_write_bw", "bytes": bytes, "average_mb_s": average}));
    }
    for (bytes, count) in READS.iter().copied() {
        let latency = perftest::read_latency(lab, (name, name), bytes, count)?;
        println!("ib_read_lat {bytes:>8} B  {:10.1} us, p99 {:.1} us", latency.typical_us, latency.p99_us);
        results.push(json!({"program": "ib_read_lat", "bytes": bytes, "typical_us": latency.typical_us, "p99_us": latency.p99_us}));
    }
    if as_json {
        println!("{}", json!({"bench": "lab", "machine": machine, "results": results}));
    }
    Ok(())
}
