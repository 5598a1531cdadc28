//! What a fleet needs, on paper: from stated load and hardware, and costs that were measured.
//!
//! Every input is an [`Assumption`] with a name, a unit, a value and where the value is from; all are printed with the answer and
//! all can be changed. The arithmetic is plain division, kept in one place ([`Fleet::compute`]) and written out
//! with the same numbers in docs/MODEL.md, which a test holds it to. Nothing here is measured, and nothing knows of queues:
//! utilisations are averages, so leave head-room by `target_load`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ReportError;
use crate::results::{Results, number, text};

/// One input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assumption {
    /// Its name, for `--set NAME=VALUE`.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// Where the value is from.
    pub source: String,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// How it comes about, in words.
    pub how: &'static str,
}

/// Name, value, unit and source of every input.
const DEFAULTS: &[(&str, f64, &str, &str)] = &[
    ("nodes", 18_000.0, "storage nodes", "stated"),
    ("stored_bytes", 10e18, "bytes of users' data", "stated: 10 EB"),
    ("puts_per_s", 10e6, "PUT/s", "stated"),
    ("gets_per_s", 100e6, "GET/s", "stated"),
    ("small_share", 0.8, "of objects", "stated: the bimodal training store of docs/BENCHMARKS.md"),
    ("small_bytes", 16_384.0, "bytes", "stated"),
    ("large_bytes", 4_194_304.0, "bytes", "stated: one chunk"),
    ("code_k", 10.0, "data shards", "RS(10,4), the default"),
    ("code_m", 4.0, "parity shards", "RS(10,4), the default"),
    ("repair_reads", 10.0, "shards read per shard repaired", "RS(10,4); 6 for a data shard of LRC(12,2,2)"),
    ("fill_target", 0.85, "of the raw bytes", "stated: what is left is room for repair and growth"),
    ("target_load", 0.6, "of a resource", "stated: head-room for peaks and for lost nodes"),
    ("node_disks", 32.0, "NVMe drives per node", "stated"),
    ("disk_bytes", 30.72e12, "bytes per drive", "stated"),
    ("disk_read_bytes_per_s", 6.5e9, "bytes/s per drive", "stated: data sheets of QLC drives"),
    ("disk_write_bytes_per_s", 2.0e9, "bytes/s per drive", "stated: data sheets of QLC drives"),
    ("disk_read_iops", 500e3, "random reads/s per drive", "stated, half of data sheets"),
    ("node_nic_bytes_per_s", 50e9, "bytes/s per node, each way", "stated: two ports of 200 Gbit/s"),
    ("node_cores", 64.0, "cores per node", "stated"),
    ("node_cpu_us_per_read", 12.0, "CPU us per shard read", "measured with io_uring (engine.md, 2), rounded up"),
    (
        "node_cpu_us_per_write",
        25.0,
        "CPU us per shard written",
        "measured with io_uring and shared fsync (engine.md, 2), rounded up",
    ),
    ("gateway_cores", 64.0, "cores per gateway", "stated"),
    ("gateway_cpu_s_per_1k_puts", 0.30, "CPU s per 1,000 PUTs", "goal of s3-compat.md; --from takes what was measured"),
    ("gateway_cpu_s_per_1k_gets", 0.05, "CPU s per 1,000 GETs", "goal of s3-compat.md; --from takes what was measured"),
    (
        "gateway_cpu_s_per_gb_put",
        2.0,
        "CPU s per GB put through it",
        "goal of s3-compat.md; --from takes what was measured",
    ),
    (
        "gateway_cpu_s_per_gb_get",
        0.30,
        "CPU s per GB got through it",
        "goal of s3-compat.md; --from takes what was measured",
    ),
    ("plan_share", 0.9, "of bytes that bypass gateways", "stated: clients of ours, by plan; the rest speaks plain S3"),
    ("gateway_nic_bytes_per_s", 50e9, "bytes/s per gateway, each way", "stated"),
    ("metadata_row_bytes", 400.0, "bytes per object", "measured: key of 82 B, row, engine's overhead (engine.md, 1)"),
    ("metadata_copies", 3.0, "copies", "stated"),
    ("metadata_range_bytes", 8e9, "bytes per range", "stated"),
    ("metadata_range_writes_per_s", 25e3, "durable writes/s per range", "measured: fjall, 16 writers (engine.md, 1)"),
    ("metadata_range_reads_per_s", 150e3, "reads/s per range", "measured: fjall, per thread (engine.md, 1)"),
    ("metadata_cache_hits", 0.8, "of reads", "stated: rows cached by gateways"),
    ("metadata_ranges_per_server", 2000.0, "ranges per server", "stated: 16 TB of NVMe"),
    ("scatter_width", 260.0, "nodes that share a node's stripes", "placement sets (engine.md, 4)"),
    ("repair_share", 0.2, "of a node's network", "the default budget of repair"),
    ("node_usd", 95_000.0, "$ per node", "stated: drives at $75/TB, the rest $21,000"),
    ("gateway_usd", 20_000.0, "$ per gateway or metadata server", "stated"),
    ("network_usd_share", 0.1, "of the servers' price", "stated"),
    ("years", 5.0, "years in use", "stated"),
    ("node_watts", 900.0, "W per node", "stated"),
    ("gateway_watts", 600.0, "W per gateway or metadata server", "stated"),
    ("pue", 1.2, "W at the meter per W", "stated"),
    ("usd_per_kwh", 0.08, "$ per kWh", "stated"),
    ("egress_share", 0.001, "of bytes got that leave the site", "stated: trainers are beside the store"),
    (
        "egress_usd_per_gb",
        0.02,
        "$ per GB that leaves",
        "stated: transit, not a cloud's list price (there it is 0.05 to 0.09)",
    ),
];

/// Shares: between 0 and 1.
const SHARES: [&str; 8] = [
    "small_share",
    "fill_target",
    "target_load",
    "plan_share",
    "metadata_cache_hits",
    "repair_share",
    "egress_share",
    "network_usd_share",
];
/// What may be zero: everything else divides, or would make the question empty.
const ZERO_ALLOWED: [&str; 12] = [
    "puts_per_s",
    "gets_per_s",
    "small_share",
    "plan_share",
    "metadata_cache_hits",
    "egress_share",
    "egress_usd_per_gb",
    "usd_per_kwh",
    "network_usd_share",
    "node_usd",
    "gateway_usd",
    "code_m",
];
const SECONDS_PER_MONTH: f64 = 365.25 * 24.0 * 3600.0 / 12.0;
const GB: f64 = 1e9;

/// A fleet to be computed.
#[derive(Clone, Debug)]
pub struct Fleet {
    assumptions: Vec<Assumption>,
}

impl Default for Fleet {
    fn default() -> Self {
        let each = |(name, value, unit, source): &(&'static str, f64, &'static str, &str)| Assumption {
            name,
            value: *value,
            unit,
            source: (*source).to_owned(),
        };
        Self { assumptions: DEFAULTS.iter().map(each).collect() }
    }
}

impl Fleet {
    /// The inputs, in order.
    #[must_use]
    pub fn assumptions(&self) -> &[Assumption] {
        &self.assumptions
    }

    /// Changes one.
    ///
    /// # Errors
    /// [`ReportError::Assumption`]: no such name, or no sensible value.
    pub fn set(&mut self, name: &str, value: f64, source: &str) -> Result<(), ReportError> {
        let known: Vec<&str> = self.assumptions.iter().map(|each| each.name).collect();
        let Some(found) = self.assumptions.iter_mut().find(|each| each.name == name) else {
            return Err(ReportError::Assumption(format!(
                "no assumption is called {name:?}; there are {}",
                known.join(", ")
            )));
        };
        let wrong = |why: &str| Err(ReportError::Assumption(format!("{name}={value} makes no sense: {why}")));
        if !value.is_finite() || value < 0.0 {
            return wrong("give a number that is not negative");
        }
        if value == 0.0 && !ZERO_ALLOWED.contains(&name) {
            return wrong("it must be more than 0");
        }
        if SHARES.contains(&name) && value > 1.0 {
            return wrong("a share is at most 1");
        }
        found.value = value;
        found.source = source.to_owned();
        Ok(())
    }

    /// `NAME=VALUE`.
    ///
    /// # Errors
    /// [`ReportError::Assumption`].
    pub fn set_text(&mut self, text: &str) -> Result<(), ReportError> {
        let bad = || ReportError::Assumption(format!("{text:?} is no NAME=NUMBER, as in nodes=20000"));
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let value: f64 = value.trim().parse().map_err(|_| bad())?;
        self.set(name.trim(), value, "given")
    }

    /// Takes costs that `penstock bench s3` measured, where the results have them: PUT and GET of 4 KiB, and of 1 MiB.
    ///
    /// # Errors
    /// [`ReportError::Assumption`] where they have none of them.
    pub fn take_measured(&mut self, results: &Results) -> Result<usize, ReportError> {
        const TAKEN: [(&str, &str, &str, &str); 4] = [
            ("PUT", "4096", "server_cpu_s_per_1k", "gateway_cpu_s_per_1k_puts"),
            ("GET", "4096", "server_cpu_s_per_1k", "gateway_cpu_s_per_1k_gets"),
            ("PUT", "1048576", "server_cpu_s_per_gb", "gateway_cpu_s_per_gb_put"),
            ("GET", "1048576", "server_cpu_s_per_gb", "gateway_cpu_s_per_gb_get"),
        ];
        let mut taken = 0;
        for (op, bytes, field, name) in TAKEN {
            let fits = |row: &&crate::Row| {
                let is = |key: &str, value: &str| text(row, key).as_deref() == Some(value);
                let ours = text(row, "contender").is_none_or(|name| name.starts_with("penstock"));
                is("bench", "s3") && is("op", op) && is("bytes", bytes) && ours
            };
            if let Some(value) = results.rows().filter(fits).find_map(|row| number(row, field)) {
                self.set(name, value, &format!("measured: {}", results.path))?;
                taken += 1;
            }
        }
        if taken == 0 {
            let why = format!(
                "{} has no CPU cost of an S3 server: run `penstock bench s3 --endpoint ... --server-pid PID --json FILE`",
                results.path
            );
            return Err(ReportError::Assumption(why));
        }
        Ok(taken)
    }

    /// The answers.
    #[must_use]
    pub fn compute(&self) -> Vec<Answer> {
        let values: BTreeMap<&str, f64> = self.assumptions.iter().map(|each| (each.name, each.value)).collect();
        let v = |name: &str| values[name];
        let mut answers = Vec::new();
        let mut say = |name, value, unit, how| {
            answers.push(Answer { name, value, unit, how });
            value
        };

        let object_bytes = v("small_share") * v("small_bytes") + (1.0 - v("small_share")) * v("large_bytes");
        say("object_bytes", object_bytes, "bytes", "mean of small and large objects by their shares");
        let objects = say("objects", v("stored_bytes") / object_bytes, "objects", "stored bytes / mean object");
        let expansion = (v("code_k") + v("code_m")) / v("code_k");
        let raw = say("raw_bytes", v("stored_bytes") * expansion, "bytes", "stored x (k + m) / k");
        let put_bytes = say("put_bytes_per_s", v("puts_per_s") * object_bytes, "bytes/s", "PUT/s x mean object");
        let get_bytes = say("get_bytes_per_s", v("gets_per_s") * object_bytes, "bytes/s", "GET/s x mean object");

        // Small objects are packed: one shard is read, and a write is its share of a batch on three replicas. Large ones
        // are k shards read, k + m written.
        let reads = v("gets_per_s") * (v("small_share") + (1.0 - v("small_share")) * v("code_k"));
        let writes =
            v("puts_per_s") * (v("small_share") * 3.0 + (1.0 - v("small_share")) * (v("code_k") + v("code_m")));
        say("shard_reads_per_s", reads, "reads/s", "small: 1, large: k");
        say("shard_writes_per_s", writes, "writes/s", "small: 3 replicas in a batch, large: k + m");
        let load = v("target_load");
        let node_bytes = v("node_disks") * v("disk_bytes");
        let by_capacity =
            say("nodes_by_capacity", raw / v("fill_target") / node_bytes, "nodes", "raw / fill target / node");
        // Small objects are written thrice and re-encoded once: read back, then written with parity.
        let small_put = v("puts_per_s") * v("small_share") * v("small_bytes");
        let large_put = put_bytes - small_put;
        let disk_written = small_put * (3.0 + expansion) + large_put * expansion;
        let disk_read = get_bytes + small_put;
        let disks_by_rate = disk_written / v("disk_write_bytes_per_s") + disk_read / v("disk_read_bytes_per_s");
        let by_disk = disks_by_rate.max(reads / v("disk_read_iops")) / v("node_disks") / load;
        say("nodes_by_disk", by_disk, "nodes", "drives' time for bytes written and read (or reads/s) / target load");
        let by_network = get_bytes.max(disk_written) / v("node_nic_bytes_per_s") / load;
        say("nodes_by_network", by_network, "nodes", "the larger way / port / target load");
        let node_cpu = (reads * v("node_cpu_us_per_read") + writes * v("node_cpu_us_per_write")) / 1e6;
        let by_cpu = say(
            "nodes_by_cpu",
            node_cpu / v("node_cores") / load,
            "nodes",
            "CPU of shard reads and writes / cores / target load",
        );
        let needed = by_capacity.max(by_disk).max(by_network).max(by_cpu).ceil();
        say("nodes_needed", needed, "nodes", "the largest of these");
        let nodes = v("nodes");
        say("fill", raw / (nodes * node_bytes), "of the raw bytes", "raw / what the given nodes have");
        say(
            "node_network_load",
            get_bytes.max(disk_written) / nodes / v("node_nic_bytes_per_s"),
            "of the port",
            "at the given nodes",
        );
        say("node_cpu_load", node_cpu / nodes / v("node_cores"), "of the cores", "at the given nodes");

        let through = 1.0 - v("plan_share");
        let gateway_cpu = v("puts_per_s") / 1e3 * v("gateway_cpu_s_per_1k_puts")
            + v("gets_per_s") / 1e3 * v("gateway_cpu_s_per_1k_gets")
            + through
                * (put_bytes / GB * v("gateway_cpu_s_per_gb_put") + get_bytes / GB * v("gateway_cpu_s_per_gb_get"));
        say("gateway_cpu", gateway_cpu, "CPU s/s", "per request for all, per byte for what bypasses no gateway");
        let gateway_network = through * get_bytes.max(put_bytes * expansion) / v("gateway_nic_bytes_per_s");
        let gateways = (gateway_cpu / v("gateway_cores")).max(gateway_network) / load;
        let gateways = say("gateways", gateways.ceil(), "gateways", "the larger of CPU and network / target load");

        let metadata_bytes =
            say("metadata_bytes", objects * v("metadata_row_bytes"), "bytes, one copy", "objects x row");
        let metadata_reads = v("gets_per_s") * (1.0 - v("metadata_cache_hits"));
        let ranges = (metadata_bytes / v("metadata_range_bytes"))
            .max(v("puts_per_s") / v("metadata_range_writes_per_s") / load)
            .max(metadata_reads / v("metadata_range_reads_per_s") / load)
            .ceil();
        say("metadata_ranges", ranges, "ranges", "the largest of bytes, writes and reads that miss the cache");
        let servers = (ranges * v("metadata_copies") / v("metadata_ranges_per_server")).ceil();
        let servers = say("metadata_servers", servers, "servers", "ranges x copies / ranges per server");

        let node_raw = raw / nodes;
        say("node_stored_bytes", node_raw, "bytes", "what a lost node held");
        let helpers = v("scatter_width").min((nodes - 1.0).max(1.0));
        let repair_rate = helpers * v("repair_share") * v("node_nic_bytes_per_s");
        let recovery = node_raw * v("repair_reads") / repair_rate;
        say(
            "recovery_s",
            recovery,
            "s",
            "shards read to rebuild a node / the repair share of its scatter width's ports",
        );
        say("recovery_hours", recovery / 3600.0, "h", "the same");

        let others = gateways + servers;
        let hardware = (nodes * v("node_usd") + others * v("gateway_usd")) * (1.0 + v("network_usd_share"));
        say("hardware_usd", hardware, "$", "nodes, gateways, metadata servers, and the network's share");
        let month_hardware = hardware / (v("years") * 12.0);
        let kilowatts = (nodes * v("node_watts") + others * v("gateway_watts")) / 1e3 * v("pue");
        say("power_kw", kilowatts, "kW", "servers x PUE");
        let month_power = kilowatts * SECONDS_PER_MONTH / 3600.0 * v("usd_per_kwh");
        let month_egress = get_bytes * v("egress_share") * SECONDS_PER_MONTH / GB * v("egress_usd_per_gb");
        say("hardware_usd_per_month", month_hardware, "$/month", "over its years in use");
        say("power_usd_per_month", month_power, "$/month", "at the meter");
        say("egress_usd_per_month", month_egress, "$/month", "what leaves the site");
        let month = month_hardware + month_power + month_egress;
        say("usd_per_month", month, "$/month", "all three");
        say("usd_per_tb_month", month / (v("stored_bytes") / 1e12), "$/TB/month", "per 10^12 bytes of users' data");
        answers
    }

    /// Inputs and answers as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut inputs = penstock_harness::Table::new(["assumption", "value", "unit", "from"]);
        for each in &self.assumptions {
            inputs.row([each.name, &grouped(each.value), each.unit, &each.source]);
        }
        let mut answers = penstock_harness::Table::new(["answer", "value", "unit", "how"]);
        for each in self.compute() {
            answers.row([each.name, &grouped(each.value), each.unit, each.how]);
        }
        format!("Assumptions (change one by --set NAME=VALUE)\n{}\nAnswers\n{}", inputs.text(), answers.text())
    }

    /// Inputs and answers as rows, for a report.
    #[must_use]
    pub fn rows(&self) -> Vec<serde_json::Value> {
        let input = |each: &Assumption| serde_json::json!({"bench": "model", "op": "assumption", "code": each.name, "value": each.value, "unit": each.unit, "source": each.source});
        let answer = |each: &Answer| serde_json::json!({"bench": "model", "op": "answer", "code": each.name, "value": each.value, "unit": each.unit, "source": each.how});
        self.compute().iter().map(answer).chain(self.assumptions.iter().map(input)).collect()
    }
}

/// A number for people: digits in groups of three, large ones as powers of ten.
fn grouped(number: f64) -> String {
    if number.abs() >= 1e12 {
        return format!("{number:.3e}");
    }
    if number.abs() < 100.0 {
        let text = format!("{number:.4}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
