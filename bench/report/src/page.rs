//! One self-contained page: plots, how to read them, the machine, what was not measured, and every figure as a table.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compare::short;
use crate::figures::{Figure, figures};
use crate::plot::{STYLE, escaped};
use crate::results::{ResultFile, Results, Row};
use crate::{ReportError, results};

/// Rows of a table beyond which the page says how many more there are: they are in the JSON.
const TABLE_ROWS_MAX: usize = 400;

/// What each benchmark is, for the page's sections, in their order.
const SECTIONS: [(&str, &str, &str); 9] = [
    ("kernels", "Kernels", "Erasure codes, checksums and hashes on one core, in memory."),
    ("digest", "Digests", "Checksums and hashes on one core, in memory."),
    ("disk", "Disk", "What the engines get out of a device, beside fio."),
    ("node", "Storage node", "Shards through a transport to a node and its disk."),
    ("rdma", "RDMA", "S3 over RDMA beside perftest on the same device."),
    ("s3", "S3 endpoint", "Load by real requests over HTTP, every byte of every answer checked."),
    ("loader", "Training loaders", "Our client library beside the others, on the same server."),
    ("durability", "Durability, on paper", "How likely data is lost, by independent and by correlated failures."),
    ("model", "At scale, on paper", "What a fleet needs, computed from measured costs and stated hardware."),
];

const PAGE_STYLE: &str = "\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:800px;margin:0 auto;padding:24px 20px 80px}h1{font-size:2rem;line-height:1.2;margin:.6em 0 .2em}h2{margin-top:2.4em;padding-bottom:.2em;border-bottom:1px solid var(--rule)}
h3{margin:1.8em 0 .2em}h4{margin:1em 0 .2em;color:var(--soft);font-weight:600}p{margin:.5em 0}.soft{color:var(--soft)}figure{margin:1em 0}svg{width:100%;height:auto;display:block}
nav a{margin-right:1em}a{color:var(--s0)}.facts{font-size:.88rem}.warn{border-left:4px solid var(--s1);padding:.2em .9em;margin:.8em 0}
.heads{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:1.4em 0}.head{border:1px solid var(--rule);border-radius:8px;padding:12px 14px}
.head b{display:block;font-size:1.7rem;line-height:1.2}.head span{color:var(--soft);font-size:.86rem}
details{margin:.8em 0}summary{cursor:pointer;color:var(--soft)}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.8rem;white-space:nowrap}
th,td{text-align:right;padding:2px 10px;border-bottom:1px solid var(--rule)}th:first-child,td:first-child{text-align:left}
button{float:right;font:inherit;color:var(--soft);background:none;border:1px solid var(--rule);border-radius:6px;padding:2px 10px;cursor:pointer}
@media print{button{display:none}}
";
/// All the script there is: without it the page follows the system's theme.
const THEME_SCRIPT: &str = "\
const root=document.documentElement,dark=()=>root.dataset.theme?root.dataset.theme==='dark':matchMedia('(prefers-color-scheme: dark)').matches;\
document.getElementById('theme').onclick=()=>{root.dataset.theme=dark()?'light':'dark'};";

/// The page.
///
/// # Errors
/// [`ReportError::Figures`].
pub fn page(results: &Results, title: &str) -> Result<String, ReportError> {
    let figures = figures(results)?;
    let mut benches: Vec<&str> = SECTIONS.iter().map(|(bench, ..)| *bench).collect();
    let others: BTreeSet<&str> = results.rows().filter_map(bench_of).filter(|bench| !benches.contains(bench)).collect();
    benches.extend(others);
    let present: Vec<&str> = benches.into_iter().filter(|bench| !files_of(results, bench).is_empty()).collect();

    let mut out = String::new();
    out.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>");
    out.push_str(&format!("<title>{}</title><style>{STYLE}{PAGE_STYLE}</style></head><body><main>", escaped(title)));
    out.push_str("<button id=\"theme\" type=\"button\">light / dark</button>");
    out.push_str(&format!("<h1>{}</h1>", escaped(title)));
    out.push_str(
        "<p>Penstock is an S3-compatible object store that moves payloads over RDMA and keeps them by erasure coding. \
         This page shows how fast its parts are <em>beside their peers and beside what the machine can do at all</em>, all of a plot measured \
         in one run, taking turns. Compare lines within a plot; absolute figures belong to the machine named below.</p>",
    );
    out.push_str(&headlines(results));
    out.push_str("<nav>");
    for bench in &present {
        out.push_str(&format!("<a href=\"#{0}\">{1}</a>", escaped(bench), escaped(section(bench).0)));
    }
    out.push_str("</nav>");
    for bench in present {
        put_section(&mut out, results, bench, &figures);
    }
    out.push_str(&format!("</main><script>{THEME_SCRIPT}</script></body></html>\n"));
    Ok(out)
}

fn section(bench: &str) -> (&str, &str) {
    SECTIONS.iter().find(|(each, ..)| *each == bench).map_or((bench, ""), |(_, name, what)| (name, what))
}

fn bench_of(row: &Row) -> Option<&str> {
    row.get("bench").and_then(Value::as_str)
}

/// Files with rows of the benchmark, or named after it and without any: a benchmark that could not run.
fn files_of<'a>(results: &'a Results, bench: &str) -> Vec<&'a ResultFile> {
    let of_bench = |file: &&ResultFile| {
        if file.rows.is_empty() {
            return !file.not_measured.is_empty()
                && (file.name == bench || file.name.starts_with(&format!("{bench}-")));
        }
        file.rows.iter().any(|row| bench_of(row) == Some(bench))
    };
    results.files.iter().filter(of_bench).collect()
}

fn put_section(out: &mut String, results: &Results, bench: &str, all: &[Figure]) {
    let (name, what) = section(bench);
    out.push_str(&format!(
        "<section id=\"{0}\"><h2>{1}</h2><p class=\"soft\">{2}</p>",
        escaped(bench),
        escaped(name),
        escaped(what)
    ));
    let files = files_of(results, bench);
    for file in &files {
        put_facts(out, file);
    }
    for figure in all.iter().filter(|figure| figure.bench == bench) {
        out.push_str(&format!(
            "<h3 id=\"{}\">{}</h3><p>{}</p>",
            figure.id,
            escaped(&figure.title),
            marked_up(&figure.caption)
        ));
        for (name, svg) in &figure.panels {
            if !name.is_empty() {
                out.push_str(&format!("<h4>{}</h4>", escaped(name)));
            }
            out.push_str(&format!("<figure>{}</figure>", svg.inline()));
        }
    }
    for file in files.iter().filter(|file| !file.rows.is_empty()) {
        put_table(out, file, bench);
    }
    out.push_str("</section>");
}

fn put_facts(out: &mut String, file: &ResultFile) {
    let machine = file.machine.as_ref().map_or_else(
        || "<b>not recorded</b>: the file with the machine's facts is missing".to_owned(),
        |machine| escaped(&machine.in_words()),
    );
    out.push_str(&format!("<p class=\"facts soft\">{}: measured on {machine}.</p>", escaped(&file.name)));
    let mut remarks = Vec::new();
    if file.machine.as_ref().is_some_and(|machine| !machine.optimised) {
        remarks.push("The program was built without optimisation: these figures say nothing.".to_owned());
    }
    if file.quick {
        remarks.push("A quick run: few rounds, ratios may be off by a tenth.".to_owned());
    }
    if file.partial {
        remarks.push("The run was ended early: what is missing was not measured.".to_owned());
    }
    let failures: u64 = file.rows.iter().map(errors).sum();
    if failures > 0 {
        remarks.push(format!(
            "{failures} requests failed; they are in no rate and no latency. The table says of which kind."
        ));
    }
    for remark in remarks {
        out.push_str(&format!("<p class=\"warn\">{}</p>", escaped(&remark)));
    }
    if !file.not_measured.is_empty() {
        let summary = format!("{} things were not measured, and why", file.not_measured.len());
        let open = if file.rows.is_empty() { " open=\"\"" } else { "" };
        out.push_str(&format!("<details{open}><summary>{summary}</summary><ul>"));
        for each in &file.not_measured {
            out.push_str(&format!("<li><b>{}</b>: {}</li>", escaped(&each.what), escaped(&each.why)));
        }
        out.push_str("</ul></details>");
    }
}

/// Failures that a row counts.
fn errors(row: &Row) -> u64 {
    let Some(Value::Object(kinds)) = row.get("errors") else { return 0 };
    // The row of all operations together would count them twice.
    if row.get("op").and_then(Value::as_str) == Some("ALL") {
        return 0;
    }
    kinds.values().filter_map(Value::as_u64).sum()
}

fn put_table(out: &mut String, file: &ResultFile, bench: &str) {
    let rows: Vec<&Row> = file.rows.iter().filter(|row| bench_of(row) == Some(bench)).collect();
    let mut columns: Vec<&str> = Vec::new();
    for first in ["code", "workload", "op", "bytes", "state", "queue_depth", "connections", "contender"] {
        if rows.iter().any(|row| results::text(row, first).is_some()) {
            columns.push(first);
        }
    }
    for row in &rows {
        for field in row.keys() {
            if field != "bench"
                && !columns.contains(&field.as_str())
                && rows.iter().any(|row| shown(row, field).is_some())
            {
                columns.push(field);
            }
        }
    }
    out.push_str(&format!(
        "<details><summary>All {} rows of {}</summary><div class=\"wide\"><table><tr>",
        rows.len(),
        escaped(&file.name)
    ));
    for column in &columns {
        out.push_str(&format!("<th>{}</th>", escaped(column)));
    }
    out.push_str("</tr>");
    for row in rows.iter().take(TABLE_ROWS_MAX) {
        out.push_str("<tr>");
        for column in &columns {
            out.push_str(&format!("<td>{}</td>", escaped(&shown(row, column).unwrap_or_default())));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>");
    if rows.len() > TABLE_ROWS_MAX {
        out.push_str(&format!("<p class=\"soft\">{} more rows are in the JSON.</p>", rows.len() - TABLE_ROWS_MAX));
    }
    out.push_str("</details>");
}

/// A field in a table: numbers to four digits, `None` where there is nothing to show.
fn shown(row: &Row, field: &str) -> Option<String> {
    match row.get(field)? {
        Value::Object(map) if map.is_empty() => None,
        Value::Number(number) if number.is_f64() => number.as_f64().map(short),
        _ => results::text(row, field),
    }
}

/// The few figures that people remember.
fn headlines(results: &Results) -> String {
    let mut heads: Vec<(String, String)> = Vec::new();
    let find = |wanted: &[(&str, &str)], field: &str| {
        let fits = |row: &&Row| wanted.iter().all(|(key, value)| results::text(row, key).as_deref() == Some(*value));
        results.rows().filter(fits).find_map(|row| results::number(row, field))
    };
    let kernel = [
        ("bench", "kernels"),
        ("code", "RS(10,4)"),
        ("bytes", "4194304"),
        ("state", "cold"),
        ("contender", "penstock"),
    ];
    let with = |op| kernel.iter().copied().chain([("op", op)]).collect::<Vec<_>>();
    if let Some(ratio) = find(&with("encode"), "ratio_to_isal") {
        heads.push((format!("{ratio:.1} x ISA-L"), "RS(10,4) encode from memory".to_owned()));
    }
    if let Some(ratio) = find(&with("encode+crc64"), "ratio_to_isal") {
        heads.push((format!("{ratio:.1} x ISA-L"), "encode and CRC64 of all shards".to_owned()));
    }
    let s3 = |op| vec![("bench", "s3"), ("op", op), ("bytes", "4096")];
    for (op, name) in [("GET", "a thousand GETs of 4 KiB"), ("PUT", "a thousand durable PUTs of 4 KiB")] {
        if let Some(cpu) = find(&s3(op), "server_cpu_s_per_1k") {
            heads.push((format!("{cpu:.3} CPU s"), name.to_owned()));
        }
    }
    let loader = [("bench", "loader"), ("workload", "random-110k"), ("contender", "penstock")];
    if let Some(cpu) = find(&loader, "client_cpu_s_per_gb") {
        heads.push((format!("{cpu:.2} CPU s/GB"), "our client, random samples of 110 KB".to_owned()));
    }
    if heads.is_empty() {
        return String::new();
    }
    let cards: String = heads
        .iter()
        .map(|(figure, what)| {
            format!("<div class=\"head\"><b>{}</b><span>{}</span></div>", escaped(figure), escaped(what))
        })
        .collect();
    format!("<div class=\"heads\">{cards}</div>")
}

/// `*word*` as emphasis.
fn marked_up(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in escaped(text).split('*').enumerate() {
        if index % 2 == 1 {
            out.push_str(&format!("<em>{part}</em>"));
        } else {
            out.push_str(part);
        }
    }
    out
}
