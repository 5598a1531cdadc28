//! Results: what is in a row, and what is said about all of them.

use penstock_harness::Machine;
use serde::{Deserialize, Serialize};

/// One figure. These names are what `--json` promises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// "kernels", or "digest" where hashes alone were measured.
    pub(crate) bench: String,
    /// "RS(10,4)", "LRC(12,2,2)"; "x16" for hashes of 16 streams; "machine" for its limits.
    pub(crate) code: String,
    /// Data per call, in bytes.
    pub(crate) bytes: u64,
    /// "hot", "cold" or "cold+thp".
    pub(crate) state: String,
    /// "encode", "encode+crc64", "decode-1", "decode-2", "decode-4", "repair", "md5", "sha256"; "read", "copy", "copy-nt",
    /// "affine", "crc64-fold" for the machine.
    pub(crate) op: String,
    /// "penstock", "isa-l", another peer, or "limit".
    pub(crate) contender: String,
    /// GB/s (10^9 bytes) of data, per CPU second.
    pub(crate) gbps: f64,
    /// How many times faster than ISA-L in the same cell.
    pub(crate) ratio_to_isal: Option<f64>,
    /// Which part of what the machine could do at most.
    pub(crate) ratio_to_limit: Option<f64>,
}

/// The same with its spread, for CSV.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WideRow {
    pub(crate) bench: String,
    pub(crate) code: String,
    pub(crate) bytes: u64,
    pub(crate) state: String,
    pub(crate) op: String,
    pub(crate) contender: String,
    pub(crate) gbps: f64,
    pub(crate) ratio_to_isal: Option<f64>,
    pub(crate) ratio_to_limit: Option<f64>,
    /// Quartiles of the rounds, and the median over wall time.
    pub(crate) gbps_lower: f64,
    pub(crate) gbps_upper: f64,
    pub(crate) gbps_wall: f64,
    pub(crate) rounds: usize,
    pub(crate) calls_per_round: u64,
}

/// Something that was not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotMeasured {
    /// Who or what.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
}

/// About a run: beside its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// What it was measured on.
    pub(crate) machine: Machine,
    /// Our kernels' tiers.
    pub(crate) kernel_tier: String,
    pub(crate) hash_tier: String,
    /// What ISA-L is.
    pub(crate) isal: String,
    /// Whose CRC ISA-L was given.
    pub(crate) isal_crc: String,
    /// What rusty_erasure chose.
    pub(crate) rusty_erasure_kernels: String,
    /// Of the memory with huge pages, how much had them, in percent.
    pub(crate) huge_pages_percent: u64,
    /// Memory that cold operations go over, in bytes.
    pub(crate) cold_bytes: u64,
    /// Seed of the order.
    pub(crate) seed: u64,
    /// Whether this was a quick run.
    pub(crate) quick: bool,
    /// Whether it ended before everything was measured.
    pub(crate) interrupted: bool,
    /// What was not measured.
    pub(crate) not_measured: Vec<NotMeasured>,
}

/// Four significant digits: what is past them is noise.
pub(crate) fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let digits = 3 - number.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits);
    (number * scale).round() / scale
}
