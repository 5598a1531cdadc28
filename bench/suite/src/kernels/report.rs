//! Tables for people, from rows: on the terminal, and as Markdown for docs/BENCHMARKS.md.

use std::fmt::Write;

use penstock_harness::Table;

use super::goals::{GOALS, ratio_to_best_other, same_cell};
use super::measure::size_in_words;
use super::row::{About, Row};

const STATES: [&str; 3] = ["hot", "cold", "cold+thp"];

/// A number of at most three digits that matter.
fn short(number: f64) -> String {
    match number {
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

fn or_dash(number: Option<f64>, show: impl Fn(f64) -> String) -> String {
    number.map_or("-".to_owned(), show)
}

/// Values in the order in which they first appear.
fn distinct<'r>(rows: &'r [Row], of: impl Fn(&'r Row) -> &'r str) -> Vec<&'r str> {
    let mut seen = Vec::new();
    for row in rows {
        if !seen.contains(&of(row)) {
            seen.push(of(row));
        }
    }
    seen
}

struct Section {
    title: String,
    note: &'static str,
    table: Table,
}

fn is_hash(row: &Row) -> bool {
    row.code.starts_with('x')
}

/// Rows of codes.
fn of_codes(rows: &[Row]) -> Vec<Row> {
    rows.iter().filter(|row| !is_hash(row) && row.code != "machine").cloned().collect()
}

fn goals(rows: &[Row]) -> Section {
    let mut table = Table::new(["goal", "against", "at least", "reached", ""]);
    for goal in GOALS {
        let reached = goal.reached(rows);
        let (least, most) = (reached.iter().copied().reduce(f64::min), reached.iter().copied().reduce(f64::max));
        let (shown, verdict) = match (least, most) {
            (Some(least), Some(most)) if most > least => (
                format!("{} to {}", short(least), short(most)),
                match (least >= goal.at_least, most >= goal.at_least) {
                    (true, _) => "yes",
                    (false, true) => "in part",
                    (false, false) => "no",
                },
            ),
            (Some(only), _) => (short(only), if only >= goal.at_least { "yes" } else { "no" }),
            (None, _) => ("not measured".to_owned(), "-"),
        };
        table.row([goal.what, goal.against.name(), &short(goal.at_least), &shown, verdict]);
    }
    Section {
        title: "Goals".to_owned(),
        note: "Ratios of speed. Several sizes or codes: the least and the most.",
        table,
    }
}

/// One operation: ours, and how it compares, by state.
fn operation(rows: &[Row], op: &str) -> Section {
    let mut head = vec!["code and data".to_owned()];
    for state in STATES {
        head.extend([format!("{state}: GB/s"), "x isa-l".to_owned(), "x other".to_owned(), "% of limit".to_owned()]);
    }
    let mut table = Table::new(head);
    for code in distinct(rows, |row| &row.code) {
        let of_code: Vec<&Row> =
            rows.iter().filter(|row| row.code == code && row.op == op && row.contender == "penstock").collect();
        let mut sizes: Vec<u64> = of_code.iter().map(|row| row.bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for bytes in sizes {
            let mut cells = vec![format!("{code}, {}", size_in_words(bytes as usize))];
            for state in STATES {
                let row = of_code.iter().find(|row| row.bytes == bytes && row.state == state);
                cells.push(or_dash(row.map(|row| row.gbps), short));
                cells.push(or_dash(row.and_then(|row| row.ratio_to_isal), short));
                cells.push(or_dash(row.and_then(|row| ratio_to_best_other(row, rows)), short));
                cells.push(or_dash(row.and_then(|row| row.ratio_to_limit), |ratio| format!("{:.0}", 100.0 * ratio)));
            }
            table.row(cells);
        }
    }
    Section { title: format!("penstock: {op}"), note: "", table }
}

/// All contenders' figures of one operation.
fn contenders(rows: &[Row], op: &str) -> Section {
    let of_op: Vec<Row> = rows.iter().filter(|row| row.op == op).cloned().collect();
    let names = distinct(&of_op, |row| &row.contender);
    let mut table = Table::new(std::iter::once("code, data, state").chain(names.iter().copied()));
    for ours in of_op.iter().filter(|row| row.contender == "penstock") {
        let mut cells = vec![format!("{}, {}, {}", ours.code, size_in_words(ours.bytes as usize), ours.state)];
        for name in &names {
            let row = of_op.iter().find(|row| same_cell(row, ours) && row.contender == *name);
            cells.push(row.map_or("can't".to_owned(), |row| short(row.gbps)));
        }
        table.row(cells);
    }
    Section { title: format!("All contenders: {op}, GB/s of data"), note: "", table }
}

fn hashes(rows: &[Row]) -> Section {
    let mut table = Table::new(["streams", "MD5: penstock", "md-5", "x", "SHA-256: penstock", "sha2", "x"]);
    let hashes: Vec<Row> = rows.iter().filter(|row| is_hash(row)).cloned().collect();
    for code in distinct(&hashes, |row| &row.code) {
        let mut cells = vec![code.trim_start_matches('x').to_owned()];
        for (op, peer) in [("md5", "md-5"), ("sha256", "sha2")] {
            let of = |name: &str| {
                hashes.iter().find(|row| row.code == code && row.op == op && row.contender == name).map(|row| row.gbps)
            };
            let (ours, theirs) = (of("penstock"), of(peer));
            cells.extend([or_dash(ours, short), or_dash(theirs, short)]);
            cells.push(or_dash(ours.zip(theirs).map(|(ours, theirs)| ours / theirs), short));
        }
        table.row(cells);
    }
    Section { title: "Hashes of several streams, GB/s of all of them".to_owned(), note: "", table }
}

fn machine(rows: &[Row]) -> Section {
    let mut table = Table::new(["what the machine can do", "GB/s"]);
    for row in rows.iter().filter(|row| row.code == "machine") {
        table.row([format!("{}, {}", row.op, row.state), short(row.gbps)]);
    }
    let note = "Reading and copying: bytes read plus bytes written. Products: bytes multiplied, or folded.";
    Section { title: "The machine's limits".to_owned(), note, table }
}

fn sections(rows: &[Row]) -> Vec<Section> {
    let codes = of_codes(rows);
    let mut sections = vec![machine(rows)];
    sections.extend(distinct(&codes, |row| &row.op).into_iter().map(|op| operation(&codes, op)));
    if codes.iter().any(|row| row.op == "encode") {
        sections.push(contenders(&codes, "encode"));
    }
    if codes.iter().any(|row| row.op == "decode-4") {
        sections.push(contenders(&codes, "decode-4"));
    }
    sections.push(hashes(rows));
    sections.push(goals(rows));
    sections.retain(|section| !section.table.is_empty());
    sections
}

/// What holds for the whole run, a sentence each.
fn remarks(about: &About) -> Vec<String> {
    let mut remarks = vec![
        format!("Measured on {}.", about.machine.in_words()),
        format!(
            "Penstock's tiers: {} and, for hashes, {}. {}; CRCs beside it: {}. rusty_erasure: {}.",
            about.kernel_tier, about.hash_tier, about.isal, about.isal_crc, about.rusty_erasure_kernels
        ),
        format!(
            "GB/s (10^9 bytes) of data per CPU second, medians; cold: over {} MiB in turn; huge pages: {} % of these.",
            about.cold_bytes >> 20,
            about.huge_pages_percent
        ),
    ];
    if !about.machine.optimised {
        remarks.push("Built without optimisation: these figures mean nothing.".to_owned());
    }
    if about.quick {
        remarks.push("A quick run: few rounds; ratios may be off by ten percent.".to_owned());
    }
    if about.interrupted {
        remarks.push("Interrupted: what is missing was not measured.".to_owned());
    }
    remarks
}

/// For a terminal.
pub(crate) fn text(rows: &[Row], about: &About) -> String {
    let mut text = String::new();
    for section in sections(rows) {
        let note = if section.note.is_empty() { String::new() } else { format!("{}\n", section.note) };
        let _infallible = write!(text, "\n== {}\n{note}{}", section.title, section.table.text());
    }
    if !about.not_measured.is_empty() {
        text.push_str("\n== Can't, or not measured\n");
        for note in &about.not_measured {
            let _infallible = writeln!(text, "{}: {}", note.what, note.why);
        }
    }
    text.push('\n');
    for remark in remarks(about) {
        let _infallible = writeln!(text, "{remark}");
    }
    text
}

/// For a document: goals first.
pub(crate) fn markdown(rows: &[Row], about: &About) -> String {
    let mut text = String::new();
    for remark in remarks(about) {
        let _infallible = writeln!(text, "- {remark}");
    }
    let mut sections = sections(rows);
    sections.rotate_right(1);
    for section in sections {
        let note = if section.note.is_empty() { String::new() } else { format!("{}\n\n", section.note) };
        let _infallible = write!(text, "\n#### {}\n{note}{}", section.title, section.table.markdown());
    }
    if !about.not_measured.is_empty() {
        text.push_str("\n#### Can't, or not measured\n");
        for note in &about.not_measured {
            let _infallible = writeln!(text, "- {}: {}", note.what, note.why);
        }
    }
    text
}
