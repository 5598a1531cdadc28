//! The harness on made-up contenders, files and machines. Nothing here asserts a time.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::machine::Machine;
use crate::{Contender, HarnessError, Order, Plan, Recorder, Stop, Summary, Table, beside, interleave, median_ratio};

#[derive(Debug, Serialize)]
struct Row {
    op: &'static str,
    gbps: f64,
    ratio: Option<f64>,
}

#[test]
fn every_round_has_every_contender_once_in_changing_order() {
    let turns = RefCell::new(Vec::new());
    let turns_of = |name: &'static str| {
        let turns = &turns;
        Contender::new(name, move |(): &mut ()| turns.borrow_mut().push(name))
    };
    let mut contenders = [turns_of("a"), turns_of("b"), turns_of("c"), turns_of("d")];
    let plan = Plan { rounds_min: 12, rounds_max: 12, ..Plan::for_tests() };
    let samples = interleave(&mut (), &mut contenders, &plan, &mut Order::seeded(7), &Stop::never());
    assert!(samples.iter().all(|one| one.cpu_seconds.len() == 12 && one.wall_seconds.len() == 12 && one.calls == 1));

    let turns = turns.borrow();
    // Two calls each to warm up and to calibrate, then the rounds.
    assert_eq!(turns[..8], ["a", "a", "b", "b", "c", "c", "d", "d"]);
    let rounds: Vec<&[&str]> = turns[8..].chunks(4).collect();
    for round in &rounds {
        let mut sorted = round.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, ["a", "b", "c", "d"]);
    }
    assert!(rounds.iter().any(|round| *round != rounds[0]), "the order never changed");
}

#[test]
fn calls_are_repeated_until_a_turn_takes_long_enough() {
    let plan = Plan { turn_min: Duration::from_micros(200), ..Plan::for_tests() };
    let mut contenders = [Contender::new("quick", |n: &mut u64| *n = std::hint::black_box(*n + 1))];
    let mut calls = 0;
    let samples = interleave(&mut calls, &mut contenders, &plan, &mut Order::seeded(1), &Stop::never());
    assert!(samples[0].calls > 1);
    assert!(calls >= samples[0].calls * 3, "three rounds of {} calls, {calls} in all", samples[0].calls);
}

#[test]
fn a_stop_in_the_middle_of_a_round_leaves_whole_rounds_only() {
    let stop = Stop::never();
    let mut turns = 0;
    let asking = stop.clone();
    let mut contenders = [
        Contender::new("a", |(): &mut ()| {}),
        Contender::new("b", move |(): &mut ()| {
            turns += 1;
            // Warm-up, calibration, two rounds, and then in the third.
            if turns == 5 {
                asking.ask();
            }
        }),
    ];
    let plan = Plan { rounds_min: 9, rounds_max: 9, ..Plan::for_tests() };
    let samples = interleave(&mut (), &mut contenders, &plan, &mut Order::seeded(3), &stop);
    let rounds: Vec<usize> = samples.iter().map(|one| one.cpu_seconds.len()).collect();
    assert!(rounds == [2, 2] || rounds == [3, 3], "{rounds:?}: b was the last of its round, or not");
}

#[test]
fn medians_quartiles_and_ratios() {
    let summary = Summary::of(&[5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
    assert_eq!((summary.min, summary.lower, summary.median, summary.upper, summary.max), (1.0, 2.0, 3.0, 4.0, 5.0));
    assert_eq!(Summary::of(&[1.0, 2.0]).unwrap().median, 1.5);
    assert!((summary.spread() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(Summary::of(&[]), None);
    // Round by round: twice as fast in each, though the machine slowed down meanwhile.
    assert_eq!(median_ratio(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0]), Some(2.0));
    assert_eq!(median_ratio(&[], &[1.0]), None);
}

#[test]
fn a_shuffle_has_every_number_and_its_seed_gives_it_again() {
    let once = Order::seeded(42).shuffled(100);
    assert_eq!(once, Order::seeded(42).shuffled(100));
    assert_ne!(once, Order::seeded(43).shuffled(100));
    let mut sorted = once.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    assert_eq!(Order::seeded(1).shuffled(0), Vec::<usize>::new());
}

#[test]
fn results_are_valid_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let (json, csv) = (folder.path().join("r.json"), folder.path().join("r.csv"));
    let mut recorder = Recorder::new(Some(json.clone()), Some(csv.clone())).unwrap();
    let parsed = || serde_json::from_slice::<serde_json::Value>(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(parsed(), serde_json::json!([]));
    recorder.push([Row { op: "encode", gbps: 1.5, ratio: None }]).unwrap();
    recorder.push([Row { op: "decode, twice", gbps: 2.0, ratio: Some(0.5) }]).unwrap();
    recorder.save().unwrap();
    assert_eq!(
        parsed(),
        serde_json::json!([
            {"op": "encode", "gbps": 1.5, "ratio": null},
            {"op": "decode, twice", "gbps": 2.0, "ratio": 0.5}
        ])
    );
    assert_eq!(fs::read_to_string(&csv).unwrap(), "op,gbps,ratio\nencode,1.5,\n\"decode, twice\",2.0,0.5\n");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file stays behind: {names:?}");
    assert_eq!(beside(&json, "machine"), folder.path().join("r.machine.json"));
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_the_start() {
    let refused = Recorder::<Row>::new(Some("/nowhere/at/all.json".into()), None);
    let Err(error @ HarnessError::Write { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("/nowhere/at/all.json"), "{error}");
    assert!(!error.is_retryable());
}

#[test]
fn facts_of_a_made_up_machine() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put(
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Abacus 3000\ncpu family\t: 26\nmodel\t\t: 2\nstepping\t: 1\nflags\t\t: fpu avx2 gfni hypervisor\n\nprocessor\t: 1\n",
    );
    put("proc/meminfo", "MemTotal:       24000 kB\nMemAvailable:   12000 kB\n");
    put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    for (index, level, kind, size) in [(0, 1, "Data", "48K"), (1, 1, "Instruction", "32K"), (2, 3, "Unified", "32M")] {
        let folder = format!("sys/devices/system/cpu/cpu0/cache/index{index}");
        put(&format!("{folder}/level"), &level.to_string());
        put(&format!("{folder}/type"), kind);
        put(&format!("{folder}/size"), size);
    }
    let machine = Machine::below(root.path());
    assert_eq!(machine.cpu.as_deref(), Some("Abacus 3000"));
    assert_eq!(machine.cpu_revision.as_deref(), Some("family 26 model 2 stepping 1"));
    assert_eq!((machine.cpus, machine.virtual_machine), (2, true));
    assert_eq!(machine.features, ["avx2", "gfni"]);
    assert_eq!(machine.memory_bytes, Some(24_000 << 10));
    assert_eq!(machine.huge_pages.as_deref(), Some("madvise"));
    assert_eq!((machine.cache_bytes("L1d"), machine.cache_bytes("L3")), (Some(48 << 10), Some(32 << 20)));
    assert!(machine.in_words().contains("L1d 48 KiB, L3 32768 KiB"), "{}", machine.in_words());
    // A machine that says nothing is no failure.
    let silent = Machine::below(Path::new("/nowhere"));
    assert_eq!((silent.cpu, silent.cpus, silent.caches), (None, 0, vec![]));
}

#[test]
fn time_left() {
    use crate::progress::line;
    assert_eq!(line(0.0, Duration::from_secs(9), "x"), "[  0 %, time left unknown] x");
    assert_eq!(line(0.25, Duration::from_secs(30), "decode"), "[ 25 %, 1:30 left] decode");
    assert_eq!(line(7.0, Duration::from_secs(30), "x"), "[100 %, 0:00 left] x");
}

#[test]
fn tables_for_terminals_and_documents() {
    let mut table = Table::new(["code", "GB/s"]);
    table.row(["RS(10,4)", "9.5"]);
    table.row(["x"]);
    assert_eq!(table.text(), "code      GB/s\nRS(10,4)   9.5\nx\n");
    assert_eq!(table.markdown(), "| code | GB/s |\n| --- | ---: |\n| RS(10,4) | 9.5 |\n| x |  |\n");
}

#[test]
fn a_signal_asks_for_an_end() {
    let stop = Stop::on_signals().unwrap();
    assert!(!stop.asked());
    signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
    assert!(stop.asked());
}

#[test]
fn rows_of_different_fields_make_one_csv() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.csv");
    let rows =
        [serde_json::json!({"op": "a,b", "rate": 1.5}), serde_json::json!({"errors": {"refused": 1}, "op": null})];
    crate::write_csv(&path, &rows).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "op,rate,errors\n\"a,b\",1.5,\n,,\"{\"\"refused\"\":1}\"\n");
    crate::write_csv(&path, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
}
