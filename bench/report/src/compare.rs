//! What changed between two runs, beyond the noise.
//!
//! Rows are the same *figure* when everything but their measures is equal. Several files of one folder may hold the same
//! figure: they are repeated runs, and their spread is noise that was seen. The machine's own drift is taken out by
//! the *controls*: contenders that are not ours, and so did not change between two versions of us. If ISA-L became 6 % slower
//! from A to B, so did the machine.
//!
//! A change counts when it is larger than all of: the floor of its kind of measure, three times the controls' own scatter
//! (median absolute deviation, scaled to a standard deviation), and the spread of repeated runs.

use std::collections::BTreeMap;

use penstock_harness::Summary;
use serde_json::Value;

use crate::ReportError;
use crate::results::{Results, Row, number};

/// Whose change counts as ours. Everyone else is a control.
const OURS: &str = "penstock";
/// From a median absolute deviation to a standard deviation, for normal noise.
const MAD_TO_SIGMA: f64 = 1.4826;
/// Standard deviations that noise is not expected to reach.
const SIGMAS: f64 = 3.0;
/// Controls below which their scatter says nothing.
const CONTROLS_MIN: usize = 5;

/// A kind of measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Costs and latencies.
    Less,
}

/// What a field measures: which way is better, and the change below which it is never worth a word.
///
/// `None`: the field says what was measured, not what came out. CPU time repeats best, rates of a whole server worse, and
/// tails of latencies worst.
pub fn measure(field: &str) -> Option<(Better, f64)> {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| field.ends_with(suffix));
    if field.starts_with("p99") || field.starts_with("max_") || field == "us_p99" {
        return Some((Better::Less, 0.25));
    }
    if ["cpu_s_per", "cpu_us_per", "cpu_seconds_per"].iter().any(|part| field.contains(part)) {
        return Some((Better::Less, 0.05));
    }
    if field == "gbps" {
        return Some((Better::More, 0.05));
    }
    if ends(&["_per_s"]) || field == "iops" {
        return Some((Better::More, 0.10));
    }
    if ends(&["_us", "_ms"]) || field == "us" {
        return Some((Better::Less, 0.10));
    }
    None
}

/// Fields that follow from others, or differ from run to run without meaning anything.
fn ignored(field: &str) -> bool {
    const FIELDS: [&str; 11] = [
        "seconds",
        "ops",
        "errors",
        "not_sent",
        "partial",
        "server_cpu_s",
        "client_cpu_s",
        "rounds",
        "calls_per_round",
        "wall_s",
        "samples",
    ];
    field.starts_with("ratio_to_")
        || field.ends_with("_lower")
        || field.ends_with("_upper")
        || field.ends_with("_wall")
        || FIELDS.contains(&field)
}

/// One measure of one figure in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What was measured: "kernels RS(10,4) encode 1048576 cold penstock".
    pub figure: String,
    /// Which measure: "gbps".
    pub measure: String,
    /// Its median in A.
    pub a: f64,
    /// Its median in B.
    pub b: f64,
    /// How much better B is: 0.25 is a quarter more of a rate, or four fifths of a cost. The drift is taken out.
    pub gain: f64,
    /// Gains up to this are noise.
    pub noise: f64,
}

impl Change {
    /// Whether it is beyond the noise.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.gain.abs() > self.noise
    }
}

/// What [`compare`] found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Changes beyond the noise, the worst first.
    pub changes: Vec<Change>,
    /// Measures that stayed within it.
    pub unchanged: usize,
    /// By kind of measure: how much better the controls became, and so the machine. Empty where there are none.
    pub drift: BTreeMap<String, f64>,
    /// Figures that only A has.
    pub only_a: Vec<String>,
    /// Figures that only B has.
    pub only_b: Vec<String>,
}

impl Comparison {
    /// Whether anything of ours became worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.changes.iter().any(|change| change.gain < 0.0)
    }
}

/// A figure: everything of a row but its measures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Figure {
    words: String,
    ours: bool,
}

fn figure(row: &Row) -> Figure {
    // A row without a contender is a server's or a store's: ours.
    let contender = row.get("contender").and_then(Value::as_str);
    let ours = contender.is_none_or(|name| name.starts_with(OURS));
    let mut words: Vec<String> = Vec::new();
    for first in ["bench", "code", "op", "workload", "bytes", "state"] {
        words.extend(crate::results::text(row, first));
    }
    let known = ["bench", "code", "op", "workload", "bytes", "state", "contender"];
    for (field, value) in row {
        if known.contains(&field.as_str()) || measure(field).is_some() || ignored(field) || value.is_null() {
            continue;
        }
        words.push(format!("{field}={}", crate::results::text(row, field).unwrap_or_default()));
    }
    words.extend(contender.map(str::to_owned));
    Figure { words: words.join(" "), ours }
}

type Samples = BTreeMap<Figure, BTreeMap<String, Vec<f64>>>;

fn samples(results: &Results) -> Samples {
    let mut all = Samples::new();
    for row in results.rows() {
        let measures = all.entry(figure(row)).or_default();
        for field in row.keys().filter(|field| measure(field).is_some()) {
            if let Some(value) = number(row, field).filter(|value| *value > 0.0) {
                measures.entry(field.clone()).or_default().push(value);
            }
        }
    }
    all
}

/// How much better `b` is than `a`: a rate's ratio less one, or a cost's inverse ratio less one.
fn gain(better: Better, a: f64, b: f64) -> f64 {
    match better {
        Better::More => b / a - 1.0,
        Better::Less => a / b - 1.0,
    }
}

/// Compares two runs. `floor` replaces the least change that counts, for all kinds of measures.
///
/// # Errors
/// [`ReportError::NothingInCommon`].
pub fn compare(a: &Results, b: &Results, floor: Option<f64>) -> Result<Comparison, ReportError> {
    let (of_a, of_b) = (samples(a), samples(b));
    let mut comparison = Comparison {
        only_a: of_a.keys().filter(|each| !of_b.contains_key(each)).map(|each| each.words.clone()).collect(),
        only_b: of_b.keys().filter(|each| !of_a.contains_key(each)).map(|each| each.words.clone()).collect(),
        ..Comparison::default()
    };
    let mut pairs = Vec::new();
    for (figure, measures) in &of_a {
        let Some(others) = of_b.get(figure) else { continue };
        for (field, before) in measures {
            let Some((better, least)) = measure(field) else { continue };
            let both = others.get(field).and_then(|after| Some((Summary::of(before)?, Summary::of(after)?)));
            let Some((before, after)) = both else { continue };
            pairs.push((
                figure,
                field,
                before,
                after,
                gain(better, before.median, after.median),
                floor.unwrap_or(least),
            ));
        }
    }
    if pairs.is_empty() {
        return Err(ReportError::NothingInCommon { a: a.path.clone(), b: b.path.clone() });
    }
    let mut scatter: BTreeMap<&str, f64> = BTreeMap::new();
    let fields: std::collections::BTreeSet<&str> = pairs.iter().map(|pair| pair.1.as_str()).collect();
    for field in fields {
        let controls: Vec<f64> =
            pairs.iter().filter(|pair| !pair.0.ours && pair.1 == field).map(|pair| pair.4).collect();
        if controls.len() < CONTROLS_MIN {
            continue;
        }
        let drift = median(&controls);
        let deviations: Vec<f64> = controls.iter().map(|gain| (gain - drift).abs()).collect();
        comparison.drift.insert(field.to_owned(), drift);
        scatter.insert(field, MAD_TO_SIGMA * median(&deviations));
    }
    for (figure, field, before, after, raw, least) in pairs.iter().filter(|pair| pair.0.ours) {
        let drift = comparison.drift.get(*field).copied().unwrap_or(0.0);
        let seen = scatter.get(field.as_str()).copied().unwrap_or(0.0);
        let change = Change {
            figure: figure.words.clone(),
            measure: (*field).clone(),
            a: before.median,
            b: after.median,
            gain: (1.0 + raw) / (1.0 + drift) - 1.0,
            noise: least.max(SIGMAS * seen).max(before.spread() + after.spread()),
        };
        if change.is_real() {
            comparison.changes.push(change);
        } else {
            comparison.unchanged += 1;
        }
    }
    comparison.changes.sort_by(|one, other| one.gain.total_cmp(&other.gain));
    Ok(comparison)
}

fn median(values: &[f64]) -> f64 {
    Summary::of(values).map_or(0.0, |summary| summary.median)
}

/// The comparison as text for a terminal.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut out = String::new();
    for (field, drift) in &comparison.drift {
        out.push_str(&format!("the machine: controls' {field} {}; taken out of what follows\n", percent(*drift)));
    }
    if comparison.changes.is_empty() {
        out.push_str(&format!("no change beyond the noise in {} measures\n", comparison.unchanged));
    } else {
        let mut table = penstock_harness::Table::new(["figure", "measure", "A", "B", "better by", "noise"]);
        for change in &comparison.changes {
            table.row([
                change.figure.clone(),
                change.measure.clone(),
                short(change.a),
                short(change.b),
                percent(change.gain),
                format!("{:.0} %", change.noise * 100.0),
            ]);
        }
        out.push_str(&table.text());
        let worse = comparison.changes.iter().filter(|change| change.gain < 0.0).count();
        out.push_str(&format!(
            "{worse} worse, {} better, {} unchanged\n",
            comparison.changes.len() - worse,
            comparison.unchanged
        ));
    }
    for (name, only) in [("A", &comparison.only_a), ("B", &comparison.only_b)] {
        if !only.is_empty() {
            out.push_str(&format!("only in {name}: {} figures, such as {:?}\n", only.len(), only[0]));
        }
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// Four significant digits.
pub(crate) fn short(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let digits = (3 - number.abs().log10().floor() as i32).clamp(0, 6) as usize;
    format!("{number:.digits$}")
}
