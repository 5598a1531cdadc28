//! `lab bench`: what the device gives, by perftest: the figures that ours are set beside, in the same run.

use serde_json::json;

use crate::error::Result;
use crate::lab::Lab;
use crate::perftest;

/// Message sizes whose bandwidth is measured, with the number of messages.
const WRITES: &[(usize, usize)] = &[(4096, 2000), (65_536, 1000), (1 << 20, 100)];
/// Message sizes whose latency is measured, with the number of reads.
const READS: &[(usize, usize)] = &[(8, 1000), (4096, 1000)];

/// Measures within guest `name` (its device with itself), prints a table, and a JSON line if that is wanted.
pub(crate) fn run(lab: &Lab, name: &str, as_json: bool) -> Result<()> {
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
