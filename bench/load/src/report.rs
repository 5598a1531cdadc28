//! What came out of a run. Rates, bytes and latencies are of successes alone.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{FailureKind, Operation, Pace, Spec};

/// How many requests failed, by kind.
pub type Failures = BTreeMap<FailureKind, u64>;

/// One operation's part of a run.
#[derive(Clone, Debug)]
pub struct OpReport {
    /// Which.
    pub operation: Operation,
    /// How many succeeded.
    pub ops: u64,
    /// Bytes of object data (of XML, for listings) that these moved.
    pub bytes: u64,
    /// Keys that listings gave.
    pub keys: u64,
    /// Latency of the successes, in microseconds: from when the request was due (open loop) or sent (closed loop) to the
    /// last byte of its answer.
    pub latency_us: Histogram<u64>,
    /// The others.
    pub failures: Failures,
}

/// A run's outcome.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub spec: Spec,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// CPU seconds of [`Spec::server_pids`] in that time.
    pub server_cpu_s: Option<f64>,
    /// By operation; those of the mix.
    pub operations: Vec<OpReport>,
    /// Requests of an open loop that were due and never sent, because all connections were waiting.
    pub not_sent: u64,
    /// Whether it was stopped before its time.
    pub partial: bool,
}

impl Report {
    /// Successes of all operations.
    pub fn ops(&self) -> u64 {
        self.operations.iter().map(|each| each.ops).sum()
    }

    /// Failures of all operations.
    pub fn failures(&self) -> Failures {
        let mut all = Failures::new();
        for (kind, count) in self.operations.iter().flat_map(|each| &each.failures) {
            *all.entry(*kind).or_default() += count;
        }
        all
    }

    /// One row for each operation, and one for all together where there are several. The server's CPU time can't be told
    /// apart by operation: it is in the row that stands for all.
    pub fn rows(&self) -> Vec<Value> {
        let alone = self.operations.len() == 1;
        let mut rows: Vec<Value> =
            self.operations.iter().map(|each| self.row(each, each.operation.name(), alone)).collect();
        if !alone {
            let mut all = OpReport {
                operation: Operation::Get,
                ops: 0,
                bytes: 0,
                keys: 0,
                latency_us: latency_histogram(),
                failures: self.failures(),
            };
            for each in &self.operations {
                all.ops += each.ops;
                all.bytes += each.bytes;
                all.keys += each.keys;
                all.latency_us.add(&each.latency_us).expect("invariant: all histograms have the same bounds");
            }
            rows.push(self.row(&all, "ALL", true));
        }
        rows
    }

    fn row(&self, each: &OpReport, name: &str, with_cpu: bool) -> Value {
        let spec = &self.spec;
        let cpu = self.server_cpu_s.filter(|_| with_cpu);
        let per = |amount: f64| cpu.filter(|_| amount > 0.0).map(|cpu| cpu / amount);
        let errors: serde_json::Map<String, Value> =
            each.failures.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
        let quantile = |q: f64| each.latency_us.value_at_quantile(q);
        let (pace, rate) = match spec.pace {
            Pace::Closed => ("closed", None),
            Pace::Open { per_second } => ("open", Some(per_second)),
        };
        json!({
            "bench": "s3",
            "op": name,
            "bytes": spec.range_bytes.filter(|_| each.operation == Operation::Get).map_or_else(|| spec.sizes.to_string(), |range| range.to_string()),
            "connections": spec.connections,
            "loop": pace,
            "rate": rate,
            "signed_payloads": spec.signed_payloads,
            "part_bytes": spec.part_bytes,
            "seconds": self.seconds,
            "ops": each.ops,
            "ops_per_s": each.ops as f64 / self.seconds,
            "mb_per_s": each.bytes as f64 / 1e6 / self.seconds,
            "keys_per_s": (each.keys > 0).then(|| each.keys as f64 / self.seconds),
            "server_cpu_s": cpu,
            "server_cpu_s_per_1k": per(each.ops as f64 / 1e3),
            "server_cpu_s_per_gb": per(each.bytes as f64 / 1e9),
            "server_cpu_s_per_1m_keys": per(each.keys as f64 / 1e6),
            "p50_us": quantile(0.5),
            "p90_us": quantile(0.9),
            "p99_us": quantile(0.99),
            "p999_us": quantile(0.999),
            "max_us": each.latency_us.max(),
            "errors": errors,
            "not_sent": self.not_sent,
            "partial": self.partial,
        })
    }
}

/// Up to an hour, in microseconds, to three digits.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("invariant: these bounds are valid")
}
