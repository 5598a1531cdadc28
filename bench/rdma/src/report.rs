//! Rows, as `--json` promises them and as people read them.

use penstock_harness::{Machine, Table};
use serde::Serialize;

/// One figure: a bandwidth or a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// "rdma".
    pub(crate) bench: &'static str,
    /// "write" and "read" of perftest; "write" and "call" of our transport alone; "get" and "put" of S3.
    pub(crate) op: &'static str,
    /// Of one operation.
    pub(crate) bytes: u64,
    /// "perftest", "penstock-transport", "penstock-plan-rdma", "penstock-plan-tcp", "penstock-http".
    pub(crate) contender: String,
    /// Operations under way at a time.
    pub(crate) at_a_time: usize,
    /// 10^9 bytes a second, where that was measured.
    pub(crate) gbps: Option<f64>,
    /// Microseconds of one operation, the median, where that was measured.
    pub(crate) us: Option<f64>,
    /// The 99th percentile.
    pub(crate) us_p99: Option<f64>,
    /// A bandwidth as a share of ib_write_bw's at 1 MiB; a time as a multiple of ib_read_lat's at the same length (at 4 KiB
    /// where that was not measured).
    pub(crate) ratio_to_perftest: Option<f64>,
    /// CPU seconds of the whole machine for 10^9 bytes of payload.
    pub(crate) cpu_seconds_per_gb: Option<f64>,
}

/// About a run: beside its rows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) machine: Machine,
    pub(crate) device: String,
    pub(crate) mtu_bytes: u32,
    pub(crate) soft_roce: bool,
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) unoptimised: bool,
    /// The length from which a GET by plan over RDMA takes no longer than one over HTTP; `None` if none of those measured.
    pub(crate) crossover_bytes: Option<u64>,
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// The tables: bandwidths, then times.
pub(crate) fn text(rows: &[Row], about: &About) -> String {
    let mut bandwidth = Table::new(["bandwidth", "", "at a time", "MB/s", "of perftest", "CPU s/GB"]);
    let mut time = Table::new(["time", "", "us", "p99", "x perftest"]);
    for row in rows {
        let what = format!("{} {}", row.op, size(row.bytes));
        if let Some(gbps) = row.gbps {
            let share = row.ratio_to_perftest.map_or_else(String::new, |ratio| format!("{:.0} %", ratio * 100.0));
            bandwidth.row([
                what,
                row.contender.clone(),
                row.at_a_time.to_string(),
                number(Some(gbps * 1e3), 1),
                share,
                number(row.cpu_seconds_per_gb, 1),
            ]);
        } else {
            time.row([
                what,
                row.contender.clone(),
                number(row.us, 1),
                number(row.us_p99, 1),
                number(row.ratio_to_perftest, 1),
            ]);
        }
    }
    let kind = if about.soft_roce { ", soft-RoCE: the CPU makes every packet" } else { "" };
    let built = if about.unoptimised { "\nThis program was built for tests, not for speed." } else { "" };
    let crossover = match about.crossover_bytes {
        Some(bytes) => format!("From {} on a GET by plan over RDMA takes no longer than one over HTTP.", size(bytes)),
        None => "At no measured length a GET by plan over RDMA was as quick as one over HTTP.".to_owned(),
    };
    format!(
        "{} (MTU {}{kind}), {} rounds of {} s{built}\n\n{}\n{}\n{crossover}\n",
        about.device,
        about.mtu_bytes,
        about.rounds,
        about.seconds,
        bandwidth.text(),
        time.text()
    )
}

/// From which of `times` (bytes, by plan, over HTTP), in order, plans are as quick and stay so.
pub(crate) fn crossover(times: &[(u64, f64, f64)]) -> Option<u64> {
    let slower = times.iter().rposition(|(_, plan, http)| plan > http).map_or(0, |at| at + 1);
    times.get(slower).map(|(bytes, ..)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crossover_is_where_plans_are_as_quick_and_stay_so() {
        let at = |times: &[(f64, f64)]| {
            let times: Vec<_> = (1..).zip(times).map(|(bytes, (plan, http))| (bytes, *plan, *http)).collect();
            crossover(&times)
        };
        assert_eq!(at(&[(2.0, 1.0), (2.0, 2.0), (2.0, 3.0)]), Some(2));
        assert_eq!(at(&[(1.0, 2.0), (3.0, 2.0), (2.0, 3.0)]), Some(3), "one lucky length is none");
        assert_eq!(at(&[(2.0, 1.0), (2.0, 1.0)]), None);
        assert_eq!(at(&[(1.0, 2.0)]), Some(1));
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn rows_have_the_names_that_are_promised() {
        let row = Row {
            bench: "rdma",
            op: "get",
            bytes: 4096,
            contender: "penstock-plan-rdma".to_owned(),
            at_a_time: 1,
            gbps: None,
            us: Some(900.0),
            us_p99: None,
            ratio_to_perftest: Some(9.0),
            cpu_seconds_per_gb: None,
        };
        let json = serde_json::to_value(&row).unwrap();
        for name in ["bench", "op", "bytes", "contender", "gbps", "us", "ratio_to_perftest", "cpu_seconds_per_gb"] {
            assert!(json.get(name).is_some(), "{name}");
        }
        assert_eq!((size(4096), size(1 << 20), size(5000)), ("4 KiB".into(), "1 MiB".into(), "5000 B".into()));
    }
}
