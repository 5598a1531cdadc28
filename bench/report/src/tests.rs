use std::path::Path;

use penstock_harness::{Contender, Order, Plan, Stop, Summary, interleave};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::compare::{Comparison, compare};
use crate::durability::{self, Event, Failures, Policy, event_loss, stripe_loss_per_year};
use crate::model::Fleet;
use crate::plot::{Axes, Bar, Group, Line, Scale, bars, lines, ticks};
use crate::{ReportError, Results, figures, page};

fn written(folder: &Path, name: &str, rows: &[Value]) -> std::path::PathBuf {
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_string(rows).unwrap()).unwrap();
    path
}

fn record() -> Results {
    Results::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../record/kernels.json")).unwrap()
}

/// The recorded run again, every figure off by noise of at most `noise`, all of the machine slower by `drift`.
fn again(noise: f64, drift: f64, seed: u64, change: impl Fn(&Value) -> f64) -> Vec<Value> {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    record()
        .rows()
        .map(|row| {
            let mut row = Value::Object(row.clone());
            let factor = (1.0 - drift) * change(&row) * (1.0 + random.random_range(-noise..=noise));
            row["gbps"] = json!(row["gbps"].as_f64().unwrap() * factor);
            row
        })
        .collect()
}

fn compared(a: &[Value], b: &[Value]) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (written(folder.path(), "a", a), written(folder.path(), "b", b));
    compare(&Results::read(&a).unwrap(), &Results::read(&b).unwrap(), None).unwrap()
}

#[test]
fn a_planted_slowdown_of_a_fifth_is_found_and_nothing_else() {
    let planted = |row: &Value| {
        let ours = row["contender"] == "penstock" && row["code"] == "RS(8,3)" && row["op"] == "encode";
        if ours { 0.8 } else { 1.0 }
    };
    // The machine is 15 % slower the second time, which is nobody's fault, and everything is off by up to 2 %.
    let comparison = compared(&again(0.02, 0.0, 1, |_| 1.0), &again(0.02, 0.15, 2, planted));
    let expected = record().rows().filter(|row| planted(&Value::Object((*row).clone())) < 1.0).count();
    assert!(expected >= 6, "the record has RS(8,3) at several sizes");
    assert_eq!(comparison.changes.len(), expected, "{:?}", comparison.changes);
    for change in &comparison.changes {
        assert!(change.figure.contains("RS(8,3) encode ") && change.gain < -0.15, "{change:?}");
    }
    assert!((comparison.drift["gbps"] + 0.15).abs() < 0.02, "{:?}", comparison.drift);
    assert!(comparison.is_worse());
}

#[test]
fn the_same_run_twice_has_no_change() {
    let comparison = compared(&again(0.02, 0.0, 3, |_| 1.0), &again(0.02, 0.0, 4, |_| 1.0));
    assert_eq!(comparison.changes, []);
    assert!(comparison.unchanged > 100 && !comparison.is_worse());
}

/// Planted in the work itself, and measured: the second run's contender does its work, and a quarter of it again, which makes
/// a fifth less throughput. Counted in work done, so that no clock can make the test fail.
#[test]
fn a_slowdown_planted_in_measured_work_is_found() {
    let run = |calls_of_ours: u32| -> Vec<Value> {
        let mut done = [0u32; 2];
        let mut contenders = vec![
            Contender::new("penstock", move |done: &mut [u32; 2]| done[0] += calls_of_ours),
            Contender::new("peer", |done: &mut [u32; 2]| done[1] += 4),
        ];
        let samples = interleave(&mut done, &mut contenders, &Plan::for_tests(), &mut Order::seeded(1), &Stop::never());
        assert!(samples.iter().all(|of_one| Summary::of(&of_one.cpu_seconds).is_some()));
        let units = |index: usize| f64::from(if index == 0 { calls_of_ours } else { 4 });
        (0..2)
            .map(|index| json!({"bench": "kernels", "op": "work", "contender": samples[index].name, "gbps": 100.0 / units(index)}))
            .collect()
    };
    let comparison = compared(&run(4), &run(5));
    assert_eq!(comparison.changes.len(), 1);
    assert!((comparison.changes[0].gain + 0.2).abs() < 1e-9, "{:?}", comparison.changes);
}

#[test]
fn repeated_runs_show_their_noise() {
    let row = |rate: f64| json!({"bench": "s3", "op": "GET", "bytes": "4096", "connections": 16, "ops_per_s": rate});
    let folder = tempfile::tempdir().unwrap();
    let runs = |name: &str, rates: &[f64]| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for (index, rate) in rates.iter().enumerate() {
            written(&folder, &index.to_string(), &[row(*rate)]);
        }
        Results::read(&folder).unwrap()
    };
    // A loss of 15 % is more than the floor for rates, and less than these runs' own spread.
    let (noisy, slower) = (runs("a", &[700.0, 1000.0, 1300.0]), runs("b", &[650.0, 850.0, 1100.0]));
    assert_eq!(compare(&noisy, &slower, None).unwrap().changes, []);
    let (steady, slower) = (runs("c", &[990.0, 1000.0, 1010.0]), runs("d", &[845.0, 850.0, 855.0]));
    assert_eq!(compare(&steady, &slower, None).unwrap().changes.len(), 1);
}

#[test]
fn costs_and_latencies_are_better_when_they_are_less() {
    let row = |cpu: f64, p99: u64| json!({"bench": "s3", "op": "GET", "bytes": "4096", "server_cpu_s_per_1k": cpu, "p99_us": p99, "seconds": cpu});
    let comparison = compared(&[row(0.050, 1000)], &[row(0.040, 2000)]);
    let gains: Vec<(&str, bool)> =
        comparison.changes.iter().map(|each| (each.measure.as_str(), each.gain > 0.0)).collect();
    assert_eq!(gains, [("p99_us", false), ("server_cpu_s_per_1k", true)]);
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Results::read(&folder.path().join("absent")), Err(ReportError::Read { .. })));
    assert!(matches!(Results::read(folder.path()), Err(ReportError::Empty(_))));
    let path = folder.path().join("x.json");
    std::fs::write(&path, "{\"not\": \"a list\"}").unwrap();
    let error = Results::read(&path).unwrap_err().to_string();
    assert!(error.contains("x.json") && error.contains("no JSON list of rows"), "{error}");
    let a = written(folder.path(), "a", &[json!({"bench": "s3", "op": "GET", "ops_per_s": 1.0})]);
    let b = written(folder.path(), "b", &[json!({"bench": "disk", "op": "read", "iops": 1.0})]);
    let nothing = compare(&Results::read(&a).unwrap(), &Results::read(&b).unwrap(), None);
    assert!(matches!(nothing, Err(ReportError::NothingInCommon { .. })));
}

/// Parses it, which finds what is not closed; gives the text of its elements' attributes and of itself.
fn parsed(text: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error} at {}", reader.buffer_position())) {
            quick_xml::events::Event::Eof => break,
            quick_xml::events::Event::Start(tag) | quick_xml::events::Event::Empty(tag) => {
                found.extend(tag.attributes().map(|attribute| {
                    let attribute = attribute.unwrap();
                    format!("{}={}", attribute.key.as_ref(), attribute.value)
                }));
            }
            _ => {}
        }
    }
    found
}

fn many_benches() -> Results {
    let folder = tempfile::tempdir().unwrap();
    let s3 = |op: &str, bytes: &str, connections: u64| {
        json!({"bench": "s3", "op": op, "bytes": bytes, "connections": connections, "ops_per_s": 1e4 * connections as f64,
          "mb_per_s": 40.0, "server_cpu_s_per_1k": 0.05, "server_cpu_s_per_gb": 3.0, "p50_us": 100, "p90_us": 200, "p99_us": 900, "p999_us": 4000,
          "errors": {"status_503": 3}})
    };
    let rows = [s3("GET", "4096", 1), s3("GET", "4096", 16), s3("PUT", "1048576", 16)];
    written(folder.path(), "s3", &rows);
    let disk = |contender: &str, depth: u64| json!({"bench": "disk", "op": "read", "bytes": 4096, "queue_depth": depth, "contender": contender, "iops": 1e4, "mb_per_s": 40.0, "cpu_us_per_op": 4.0});
    written(
        folder.path(),
        "disk",
        &[
            disk("penstock io_uring", 1),
            disk("penstock io_uring", 16),
            disk("fio io_uring", 1),
            disk("fio io_uring", 16),
        ],
    );
    let loader = |contender: &str| json!({"bench": "loader", "workload": "random-110k", "contender": contender, "client_cpu_s_per_gb": 0.3, "mb_per_s": 300.0, "p50_ms": 1.0, "p99_ms": 4.0});
    written(folder.path(), "loader", &[loader("penstock"), loader("boto3 <1>")]);
    written(folder.path(), "rdma", &[]);
    std::fs::write(
        folder.path().join("rdma.machine.json"),
        json!({"machine": penstock_harness::Machine::here(), "not_measured": [{"what": "rdma", "why": "no RDMA device & no lab"}]}).to_string(),
    )
    .unwrap();
    written(folder.path(), "model", &Fleet::default().rows().into_iter().collect::<Vec<_>>());
    Results::read(folder.path()).unwrap()
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_but_itself() {
    for results in [record(), many_benches()] {
        let html = page::page(&results, "A <title> & more").unwrap();
        let (body, script) = html.split_once("<script>").unwrap();
        let script_ends = script.split_once("</script>").unwrap().1;
        let attributes = parsed(&format!("{}{script_ends}", body.trim_start_matches("<!doctype html>")));
        for attribute in attributes {
            let (name, value) = attribute.split_once('=').unwrap();
            assert!(
                name != "src" && (name != "href" || value.starts_with('#')),
                "the page reaches outside: {attribute}"
            );
        }
        assert!(!html.contains("url(") && !html.contains("@import"));
        assert!(html.contains("A &lt;title&gt; &amp; more"));
    }
}

#[test]
fn what_was_not_measured_and_what_failed_stand_on_the_page() {
    let html = page::page(&many_benches(), "t").unwrap();
    assert!(html.contains("no RDMA device &amp; no lab"));
    assert!(html.contains("9 requests failed"), "three rows of three failures");
    assert!(html.contains("boto3 &lt;1&gt;"));
    assert!(html.contains("<b>not recorded</b>"), "files without facts say so");
}

#[test]
fn every_benchmark_has_its_figures() {
    let ids = |results: &Results| -> Vec<String> {
        figures::figures(results).unwrap().into_iter().map(|figure| figure.id).collect()
    };
    let kernels = ids(&record());
    for id in ["kernels-encode", "kernels-codes", "kernels-fused", "kernels-limit", "kernels-hashes"] {
        assert!(kernels.contains(&id.to_owned()), "{id} of {kernels:?}");
    }
    let others = ids(&many_benches());
    for id in
        ["s3-rate", "s3-cpu", "s3-latency", "s3-connections", "disk-iops", "disk-cpu", "loader-cpu", "loader-latency"]
    {
        assert!(others.contains(&id.to_owned()), "{id} of {others:?}");
    }
    assert!(!others.iter().any(|id| id.starts_with("rdma")), "nothing is drawn of what was not measured");
}

#[test]
fn plots_stand_alone_as_files() {
    for figure in figures::figures(&record()).unwrap() {
        for (name, svg) in figure.panels {
            let text = svg.standalone();
            assert!(!parsed(&text).is_empty() && text.contains("prefers-color-scheme:dark"), "{} {name}", figure.id);
            assert!(!text.contains("NaN") && !text.contains("inf\""), "{} {name}: {text}", figure.id);
        }
    }
}

#[test]
fn a_bar_is_as_long_as_its_value_and_a_point_as_high() {
    let bar = |value| Bar { name: "penstock".to_owned(), color: 0, value };
    let svg = bars("b", "x", None, &[Group { name: "g".to_owned(), bars: vec![bar(1.0), bar(2.0)] }]);
    let widths: Vec<f64> =
        parsed(&svg.inline()).iter().filter_map(|each| each.strip_prefix("width=")?.parse().ok()).collect();
    assert!((widths[1] / widths[0] - 2.0).abs() < 0.01, "{widths:?}");
    let axes = Axes { x: "x", y: "y", x_scale: Scale::Log, y_scale: Scale::Linear, x_words: |x| x.to_string() };
    let line = Line {
        name: "penstock".to_owned(),
        color: 0,
        ours: true,
        aim: false,
        points: vec![(1.0, 0.0), (10.0, 5.0), (100.0, 10.0)],
    };
    let svg = lines("l", &axes, &[line]);
    let of = |name: &str| -> Vec<f64> {
        parsed(&svg.inline()).iter().filter_map(|each| each.strip_prefix(name)?.parse().ok()).collect()
    };
    let (x, y) = (of("cx="), of("cy="));
    assert!((x[1] * 2.0 - x[0] - x[2]).abs() < 0.2, "equal ratios are equal distances: {x:?}");
    assert!((y[1] * 2.0 - y[0] - y[2]).abs() < 0.2 && y[0] > y[2], "{y:?}");
}

#[test]
fn ticks_are_round_and_inside() {
    assert_eq!(ticks(Scale::Linear, 0.0, 97.0), [0.0, 20.0, 40.0, 60.0, 80.0]);
    assert_eq!(ticks(Scale::Log, 1.0, 1e6).len(), 7);
    assert_eq!(ticks(Scale::Log, 3.0, 40.0), [5.0, 10.0, 20.0]);
    assert!(ticks(Scale::Linear, 0.0, 1e-9).len() > 2);
}

/// The arithmetic of docs/MODEL.md, with its numbers.
#[test]
fn the_model_computes_what_its_page_writes_out() {
    let fleet = Fleet::default();
    let answer = |name: &str| fleet.compute().into_iter().find(|each| each.name == name).unwrap().value;
    let close = |name: &str, expected: f64| {
        let found = answer(name);
        assert!((found / expected - 1.0).abs() < 0.005, "{name}: {found} instead of {expected}");
    };
    // 0.8 x 16,384 + 0.2 x 4,194,304
    close("object_bytes", 851_968.0);
    close("objects", 1.1738e13);
    close("raw_bytes", 14e18);
    // 10^7 and 10^8 times that
    close("put_bytes_per_s", 8.5197e12);
    close("get_bytes_per_s", 8.5197e13);
    // 14e18 / 0.85 / (32 x 30.72e12)
    close("nodes_by_capacity", 16_754.0);
    // 8.5197e13 / 50e9 / 0.6
    close("nodes_by_network", 2840.0);
    // (10^8 x (0.8 + 0.2 x 10) x 12 us + 10^7 x (0.8 x 3 + 0.2 x 14) x 25 us) / 64 / 0.6
    close("nodes_by_cpu", 121.4);
    close("fill", 14e18 / (18_000.0 * 983.04e12));
    // 10^4 x 0.3 + 10^5 x 0.05 + 0.1 x (8519.7 x 2.0 + 85197 x 0.3)
    close("gateway_cpu", 12_260.0);
    close("gateways", 320.0);
    // 1.1738e13 x 400 / 8e9
    close("metadata_ranges", 586_892.0);
    // 14e18 / 18000 x 10 / (260 x 0.2 x 50e9)
    close("recovery_s", 2991.0);
    assert!(answer("recovery_hours") < 6.0, "the repair time that engine.md's durability is computed for");
    assert_eq!(answer("nodes_needed"), answer("nodes_by_capacity").ceil());
    let sum = answer("hardware_usd_per_month") + answer("power_usd_per_month") + answer("egress_usd_per_month");
    close("usd_per_month", sum);
}

#[test]
fn assumptions_can_be_changed_and_nonsense_is_refused() {
    let mut fleet = Fleet::default();
    let answer = |fleet: &Fleet, name: &str| fleet.compute().into_iter().find(|each| each.name == name).unwrap().value;
    let before = answer(&fleet, "nodes_by_capacity");
    fleet.set_text("stored_bytes=20e18").unwrap();
    assert!((answer(&fleet, "nodes_by_capacity") / before - 2.0).abs() < 1e-9);
    for (text, complaint) in [
        ("nods=3", "no assumption is called"),
        ("nodes", "NAME=NUMBER"),
        ("nodes=0", "more than 0"),
        ("nodes=-1", "not negative"),
        ("plan_share=1.5", "at most 1"),
        ("nodes=inf", "not negative"),
    ] {
        let error = fleet.set_text(text).unwrap_err().to_string();
        assert!(error.contains(complaint), "{text}: {error}");
    }
    for assumption in Fleet::default().assumptions() {
        assert!(fleet.text().contains(assumption.name), "every assumption is printed");
    }
}

#[test]
fn measured_costs_take_the_place_of_goals() {
    let mut fleet = Fleet::default();
    let folder = tempfile::tempdir().unwrap();
    let rows = [json!({"bench": "s3", "op": "PUT", "bytes": "4096", "server_cpu_s_per_1k": 0.17})];
    let results = Results::read(&written(folder.path(), "s3", &rows)).unwrap();
    assert_eq!(fleet.take_measured(&results).unwrap(), 1);
    let taken = fleet.assumptions().iter().find(|each| each.name == "gateway_cpu_s_per_1k_puts").unwrap();
    assert!(taken.value == 0.17 && taken.source.starts_with("measured"));
    assert!(fleet.take_measured(&record()).unwrap_err().to_string().contains("--server-pid"));
}

fn policy(name: &str) -> Policy {
    Policy::all().unwrap().into_iter().find(|each| each.name == name).unwrap()
}

/// engine.md, 4: "nines per stripe and year at 2 % AFR and 6 h repair: 3x 10.9, RS(10,4) 17.2, LRC(12,2,2) 13.3".
#[test]
fn independent_failures_give_the_nines_of_the_paper() {
    for (name, nines) in [("3 replicas", 10.9), ("RS(10,4)", 17.2), ("LRC(12,2,2)", 13.3)] {
        let found = -stripe_loss_per_year(&policy(name), &Failures::default()).log10();
        assert!((found - nines).abs() < 0.15, "{name}: {found:.2} instead of {nines}");
    }
}

/// The same place: 1 % of 10,000 nodes never come back; RS(10,4) loses something with probability 1.2e-2 in 100 sets a node, and
/// 1.2e-3 in 10.
#[test]
fn few_sets_lose_rarely_as_in_the_paper() {
    let failures = Failures { trials: 20_000, ..Failures::default() };
    let (with_10, drawn) = event_loss(&policy("RS(10,4)"), &failures, 10, Event::Power);
    // 24 are expected; the seed makes it always the same.
    assert!((8..=50).contains(&drawn), "{with_10}");
    let (with_100, _) = event_loss(&policy("RS(10,4)"), &Failures { trials: 5_000, ..failures }, 100, Event::Power);
    assert!((0.007..0.02).contains(&with_100), "{with_100}");
}

#[test]
fn a_burnt_rack_loses_nothing_where_racks_are_heeded() {
    let failures = Failures { nodes: 1000, rack_nodes: 50, trials: 500, ..Failures::default() };
    let policy = policy("RS(4,2)");
    assert_eq!(event_loss(&policy, &failures, 10, Event::RackHeeded).1, 0);
    assert!(event_loss(&policy, &failures, 10, Event::RackUnheeded).1 > 0);
}

#[test]
fn which_patterns_lose_is_asked_of_the_codes() {
    let lrc = policy("LRC(12,2,2)");
    assert_eq!((lrc.lost_share(3), lrc.lost_share(5)), (0.0, 1.0));
    assert!((0.05..0.3).contains(&lrc.lost_share(4)));
    assert_eq!((lrc.repair_reads, policy("RS(10,4)").repair_reads), (6, 10));
}

#[test]
fn the_table_of_durability_is_whole_and_its_inputs_are_checked() {
    let failures = Failures { nodes: 500, trials: 50, ..Failures::default() };
    let mut told = 0;
    let answers = durability::table(&failures, |_, share| {
        assert!((0.0..1.0).contains(&share));
        told += 1;
    });
    let answers = answers.unwrap();
    assert_eq!((answers.len(), told), (5 * (1 + 2 * 4), 5 * 2 * 3));
    assert!(durability::text(&failures, &answers).contains("annual_failure_rate"));
    for bad in [
        Failures { nodes: 3, ..Failures::default() },
        Failures { repair_hours: 0.0, ..Failures::default() },
        Failures { dead_after_power: 2.0, ..Failures::default() },
        Failures { trials: 0, ..Failures::default() },
    ] {
        assert!(durability::table(&bad, |_, _| ()).is_err(), "{bad:?}");
    }
}
