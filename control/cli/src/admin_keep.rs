//! `penstock admin status|repair|drain|undrain|scrub`: how the store is, and what keeps it, with bars while one waits.
//!
//! The gateway does it all in the background; here one asks for it and looks on. Stopping the command stops nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::Fatal;
use crate::admin::Caller;

/// How often one looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the gateway answers: a part of `penstock_gateway::upkeep::UpkeepReport`.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    nodes: Vec<Node>,
    queued: u64,
    put_off: u64,
    queued_by_spare: BTreeMap<String, u64>,
    repaired: Repaired,
    surveying: bool,
    survey_runs: u64,
    survey_runs_expected: u64,
    survey_ended_unix_ms: u64,
    survey: Survey,
}

#[derive(Clone, Debug, Deserialize)]
struct Node {
    node: u16,
    state: String,
    error: String,
    slow: bool,
    capacity_bytes: u64,
    free_bytes: u64,
    live_bytes: u64,
    shards: u64,
    broken_shards: u64,
    scrub_began_unix_ms: u64,
    scrub_bytes: u64,
    scrub_bad: u64,
    scrub_last_ended_unix_ms: u64,
    runs: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Repaired {
    done: u64,
    blocked: u64,
    shards: u64,
    reads: u64,
    read_bytes: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Survey {
    runs: u64,
    stripes: u64,
    under_replicated: BTreeMap<String, u64>,
    shards_bad: u64,
    strays: u64,
}

/// How the answer is shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Show {
    /// Print the store's answer as JSON, and don't wait.
    #[arg(long)]
    json: bool,
}

/// Whether to look on.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Look {
    #[command(flatten)]
    show: Show,
    /// Ask for it and don't wait for its end.
    #[arg(long)]
    no_wait: bool,
}

/// What is asked of the store.
#[derive(Debug)]
pub(crate) enum Keep {
    Status(Show),
    Repair(Look),
    Drain(u16, bool, Look),
    Scrub(Option<u16>, u64, Look),
}

fn read(json: &str) -> Result<Report, Fatal> {
    serde_json::from_str(json).map_err(|error| Fatal::doing("the store's answer (is it of this release?)", error))
}

async fn ask(caller: &Caller, action: &'static str, parameters: Vec<(&'static str, String)>) -> Result<String, Fatal> {
    let leaves = caller.ask(action, parameters).await?;
    let json = leaves.into_iter().find(|(name, _)| name == "Json").map(|(_, text)| text);
    json.ok_or_else(|| Fatal(format!("{action}: the answer has no report")))
}

/// Does it.
#[allow(clippy::print_stdout, reason = "standard output is where the answer is promised to be")]
pub(crate) async fn run(caller: &Caller, keep: Keep) -> Result<(), Fatal> {
    let (look, json) = match &keep {
        Keep::Status(show) => (Look { show: *show, no_wait: true }, ask(caller, "PenstockStatus", vec![]).await?),
        Keep::Repair(look) => {
            // What it was before, to tell the end of the survey that is asked for from that of an earlier one.
            let before = ask(caller, "PenstockStatus", vec![]).await?;
            let asked = ask(caller, "PenstockRepair", vec![]).await?;
            if !look.show.json && !look.no_wait {
                return watch_repair(caller, read(&before)?.survey_ended_unix_ms).await;
            }
            (*look, asked)
        }
        Keep::Drain(node, draining, look) => {
            let parameters = vec![("Node", node.to_string()), ("Draining", draining.to_string())];
            let json = ask(caller, "PenstockDrainNode", parameters).await?;
            if *draining && !look.show.json && !look.no_wait {
                return watch_drain(caller, *node).await;
            }
            (*look, json)
        }
        Keep::Scrub(node, bytes_per_s, look) => {
            let mut parameters = vec![("BytesPerSecond", bytes_per_s.to_string())];
            parameters.extend(node.map(|node| ("Node", node.to_string())));
            let began = read(&ask(caller, "PenstockStatus", vec![]).await?)?;
            let json = ask(caller, "PenstockScrub", parameters).await?;
            if !look.show.json && !look.no_wait {
                return watch_scrub(caller, *node, &began).await;
            }
            (*look, json)
        }
    };
    if look.show.json {
        println!("{json}");
    } else {
        print!("{}", table(&read(&json)?));
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0).min(100)
}

/// For people.
fn table(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<8} {:<9} {:>10} {:>10} {:>5} {:>10} {:>8}  scrub",
        "node", "state", "stored", "free", "full", "shards", "damaged"
    );
    for node in &report.nodes {
        let scrub = match (node.scrub_began_unix_ms, node.scrub_last_ended_unix_ms) {
            (0, _) => "never seen".to_owned(),
            (_, 0) => format!("{} % of the first", percent(node.scrub_bytes, node.live_bytes)),
            _ => format!("{} % since the last", percent(node.scrub_bytes, node.live_bytes)),
        };
        let mut notes = String::new();
        if node.slow {
            notes.push_str("  SLOW DEVICE");
        }
        if !node.error.is_empty() {
            let _ = write!(notes, "  {}", node.error);
        }
        let used = node.capacity_bytes.saturating_sub(node.free_bytes);
        let _ = writeln!(
            out,
            "node-{:02}  {:<9} {:>10} {:>10} {:>3} % {:>10} {:>8}  {scrub}{notes}",
            node.node,
            node.state,
            HumanBytes(node.live_bytes).to_string(),
            HumanBytes(node.free_bytes).to_string(),
            percent(used, node.capacity_bytes),
            node.shards,
            node.broken_shards,
        );
    }
    let spares = |counts: &BTreeMap<String, u64>| {
        let mut counts: Vec<(i64, u64)> =
            counts.iter().filter_map(|(spare, count)| Some((spare.parse().ok()?, *count))).collect();
        counts.sort_unstable();
        let each = |(spare, count): (i64, u64)| match spare {
            ..0 => format!("{count} can't be read"),
            spare => format!("{count} can lose {spare} more"),
        };
        counts.into_iter().map(each).collect::<Vec<_>>().join(", ")
    };
    let survey = &report.survey;
    match report.survey_ended_unix_ms {
        0 => out.push_str("survey    none has ended yet\n"),
        _ => {
            let lacking: u64 = survey.under_replicated.values().sum();
            let _ = writeln!(
                out,
                "survey    {} runs, {} stripes; {lacking} stripes lack shards{}{}; {} damaged or missing shards; {} strays",
                survey.runs,
                survey.stripes,
                if lacking > 0 { ": " } else { "" },
                spares(&survey.under_replicated),
                survey.shards_bad,
                survey.strays,
            );
        }
    }
    if report.surveying {
        let _ = writeln!(
            out,
            "          another is under way: {} of about {} runs",
            report.survey_runs, report.survey_runs_expected
        );
    }
    let _ = writeln!(
        out,
        "repairs   {} wait, {} are put off{}{}",
        report.queued,
        report.put_off,
        if report.queued_by_spare.is_empty() { "" } else { ": " },
        spares(&report.queued_by_spare),
    );
    let Repaired { done, blocked, shards, reads, read_bytes } = report.repaired;
    let _ = writeln!(
        out,
        "          {done} done: {shards} shards stored for {reads} read ({}); {blocked} times without a node to go to",
        HumanBytes(read_bytes)
    );
    out
}

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

async fn look(caller: &Caller) -> Result<Report, Fatal> {
    tokio::time::sleep(LOOK_INTERVAL).await;
    read(&ask(caller, "PenstockStatus", vec![]).await?)
}

#[allow(clippy::print_stdout, reason = "standard output is where the answer is promised to be")]
async fn watch_repair(caller: &Caller, before_unix_ms: u64) -> Result<(), Fatal> {
    let bars = MultiProgress::new();
    let survey = bars.add(bar("survey  [{bar:40}] {pos}/{len} runs"));
    let repairs = bars.add(bar("repairs [{bar:40}] {pos}/{len} runs, {msg}"));
    let mut most = 0;
    loop {
        let report = look(caller).await?;
        let ended = report.survey_ended_unix_ms > before_unix_ms;
        survey.set_length(report.survey_runs_expected.max(report.survey_runs).max(1));
        survey.set_position(if ended && !report.surveying { survey.length().unwrap_or(1) } else { report.survey_runs });
        let left = report.queued + report.put_off;
        most = most.max(left);
        repairs.set_length(most.max(1));
        repairs.set_position(if most == 0 { u64::from(ended) } else { most - left });
        repairs.set_message(format!("{} read", HumanBytes(report.repaired.read_bytes)));
        // What is put off waits for something that an operator has to do, or that time does.
        if ended && !report.surveying && report.queued == 0 {
            survey.finish();
            repairs.finish();
            print!("{}", table(&report));
            return Ok(());
        }
    }
}

#[allow(clippy::print_stdout, reason = "standard output is where the answer is promised to be")]
async fn watch_drain(caller: &Caller, node: u16) -> Result<(), Fatal> {
    let bar = bar("draining [{bar:40}] {pos}/{len} runs moved, {msg}");
    let (mut most, mut first_unix_ms) = (0, None);
    loop {
        let report = look(caller).await?;
        let first = *first_unix_ms.get_or_insert(report.survey_ended_unix_ms);
        let Some(found) = report.nodes.iter().find(|found| found.node == node) else {
            return Err(Fatal(format!("node {node} is no longer in the cluster's map")));
        };
        most = most.max(found.runs);
        bar.set_length(most.max(1));
        bar.set_position(most - found.runs);
        bar.set_message(format!("{} wait for their turn", report.queued + report.put_off));
        if found.state != "draining" && found.state != "lost" {
            return Err(Fatal(format!("node {node} is {}: nobody drains it any more", found.state)));
        }
        if found.runs == 0 && report.survey_ended_unix_ms > first {
            bar.finish();
            println!("node-{node:02} is empty: it can be taken out of the configuration and switched off");
            return Ok(());
        }
    }
}

#[allow(clippy::print_stdout, reason = "standard output is where the answer is promised to be")]
async fn watch_scrub(caller: &Caller, only: Option<u16>, before: &Report) -> Result<(), Fatal> {
    let bars = MultiProgress::new();
    let wanted =
        |node: &&Node| only.is_none_or(|only| only == node.node) && node.state != "down" && node.state != "lost";
    let mut left: BTreeMap<u16, (u64, ProgressBar)> = before
        .nodes
        .iter()
        .filter(wanted)
        .map(|node| {
            let bar = bars.add(bar("{prefix} [{bar:40}] {bytes}/{total_bytes}, {msg}"));
            bar.set_prefix(format!("node-{:02}", node.node));
            (node.node, (node.scrub_last_ended_unix_ms, bar))
        })
        .collect();
    loop {
        let report = look(caller).await?;
        for node in &report.nodes {
            let Some((ended, bar)) = left.get(&node.node) else { continue };
            bar.set_length(node.live_bytes.max(1));
            bar.set_position(node.scrub_bytes.min(node.live_bytes));
            bar.set_message(format!("{} damaged", node.scrub_bad));
            if node.scrub_last_ended_unix_ms > *ended || node.state == "down" || node.state == "lost" {
                bar.set_position(node.live_bytes.max(1));
                bar.finish();
                left.remove(&node.node);
            }
        }
        if left.is_empty() {
            print!("{}", table(&report));
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_reports_is_read_and_shown() {
        let json = r#"{"nodes":[{"node":3,"state":"draining","down_since_unix_ms":null,"error":"","slow":true,
            "capacity_bytes":1000000,"free_bytes":250000,"live_bytes":500000,"shards":9,"broken_shards":2,"read_us":1,"flush_us":1,
            "scrub_began_unix_ms":5,"scrub_shards":4,"scrub_bytes":250000,"scrub_bad":2,"scrub_last_ended_unix_ms":0,"runs":7}],
            "queued":1,"put_off":2,"queued_by_spare":{"-1":1,"0":2},
            "repaired":{"done":4,"gone":0,"put_off":1,"blocked":0,"shards":4,"reads":40,"read_bytes":4096,"written_bytes":1},
            "surveying":true,"survey_runs":5,"survey_runs_expected":10,"survey_ended_unix_ms":77,
            "survey":{"runs":10,"stripes":12,"under_replicated":{"1":3},"shards_bad":3,"strays":0,"strays_deleted":0,"strays_deleted_shards":0},
            "strays_deleted":0}"#;
        let text = table(&read(json).unwrap());
        for part in [
            "node-03  draining",
            "75 %",
            "50 % of the first",
            "SLOW DEVICE",
            "3 stripes lack shards: 3 can lose 1 more",
            "1 can't be read, 2 can lose 0 more",
            "5 of about 10 runs",
            "4 shards stored for 40 read",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(read("{}").unwrap_err().to_string().contains("release"));
    }
}
