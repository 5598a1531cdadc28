//! Small runs of the real thing: what is computed is right, and what is written is what is promised. No speed is asserted.

use std::time::Duration;

use clap::Parser as _;
use penstock_harness::{Machine, Stop};

use super::contenders::{Cell, Crc, Peer, verify};
use super::goals::{GOALS, ratio_to_best_other};
use super::measure::{Options, Run};
use super::row::{Row, rounded};
use super::shape::{Op, Role, Shape, patterns};
use crate::BenchError;

/// Every contender, on every code and operation it can do, at a length that is no whole number of any register.
#[test]
fn every_contender_computes_what_it_should() {
    for shape in Shape::ALL {
        for op in Op::ALL {
            let Some(patterns) = patterns(shape, op).unwrap() else {
                assert!(matches!(op, Op::Decode(4)) && shape.m() < 4, "{shape} can {op}");
                continue;
            };
            for shard_bytes in [64, 1026] {
                for crc in [Crc::Isal, Crc::CrcFast] {
                    let cell = Cell { shape, op, patterns: &patterns, shard_bytes, crc };
                    for peer in Peer::ALL {
                        match peer.make(&cell) {
                            Ok(_) => verify(peer, &cell).unwrap(),
                            Err(why) => assert!(
                                !matches!(peer, Peer::Penstock | Peer::IsaL),
                                "{} {shape} {op}: {why}",
                                peer.name()
                            ),
                        }
                    }
                }
            }
        }
    }
}

/// The check that everything rests on finds a wrong matrix.
#[test]
fn a_contender_that_computes_something_else_is_found() {
    let shape = Shape::Rs { k: 4, m: 2 };
    let mut wrong = patterns(shape, Op::Decode(2)).unwrap().unwrap();
    wrong[0].matrix[3] ^= 1;
    let cell = Cell { shape, op: Op::Decode(2), patterns: &wrong, shard_bytes: 128, crc: Crc::CrcFast };
    let error = verify(Peer::IsaL, &cell).unwrap_err();
    assert!(matches!(&error, BenchError::Wrong(why) if why.contains("isa-l")), "{error}");
    verify(Peer::Penstock, &cell).unwrap();
}

#[test]
fn patterns_are_the_codes() {
    let encode = &patterns(Shape::Rs { k: 10, m: 4 }, Op::Encode).unwrap().unwrap()[0];
    assert_eq!((encode.reads.len(), encode.writes.as_slice()), (10, &[10, 11, 12, 13][..]));
    assert_eq!(encode.products(), 9 * 3, "a first row and a first column of ones");
    assert_eq!(encode.weighted_rows(), 3);
    let repair = patterns(Shape::Lrc { k: 12, l: 2, g: 2 }, Op::Repair).unwrap().unwrap();
    let reads: Vec<usize> = repair.iter().map(|pattern| pattern.reads.len()).collect();
    assert_eq!(reads, [6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 12, 12]);
    assert_eq!(repair[3].roles[3], Role::Write);
    assert_eq!(repair[3].roles[11], Role::Unused);
    assert_eq!(repair[3].products(), 0, "a local group is a plain sum");
}

fn small_options() -> Options {
    Options {
        cold_bytes: 16 << 20,
        sizes: vec![64 << 10],
        shapes: vec![Shape::Rs { k: 4, m: 2 }, Shape::Lrc { k: 12, l: 2, g: 2 }],
        turn_min: Duration::ZERO,
        rounds_min: 2,
        rounds_max: 2,
        ..Options::new(false, Duration::from_secs(3600), &Machine::here())
    }
}

#[test]
fn a_whole_run_writes_what_is_promised() {
    let folder = tempfile::tempdir().unwrap();
    let (json, csv) = (folder.path().join("r.json"), folder.path().join("r.csv"));
    let mut run = Run::new(small_options(), Stop::never(), Some(json.clone()), Some(csv.clone())).unwrap();
    run.all().unwrap();
    let (rows, about) = run.finish().unwrap();

    let listed: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(listed.len(), rows.len());
    let mut names: Vec<&str> = listed[0].as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut promised =
        ["bench", "code", "bytes", "state", "op", "contender", "gbps", "ratio_to_isal", "ratio_to_limit"];
    promised.sort_unstable();
    assert_eq!(names, promised);

    let find = |code: &str, state: &str, op: &str, contender: &str| {
        rows.iter().find(|row| row.code == code && row.state == state && row.op == op && row.contender == contender)
    };
    for (code, ops) in [
        ("RS(4,2)", &["encode", "encode+crc64", "decode-1", "decode-2", "repair"][..]),
        ("LRC(12,2,2)", &["encode", "encode+crc64", "decode-1", "decode-2", "decode-4", "repair"][..]),
    ] {
        for op in ops {
            for state in ["hot", "cold"] {
                for contender in ["penstock", "isa-l"] {
                    let row =
                        find(code, state, op, contender).unwrap_or_else(|| panic!("{code} {state} {op} {contender}"));
                    assert!(row.gbps > 0.0 && row.ratio_to_isal.is_some() && row.bytes == 64 << 10, "{row:?}");
                }
                assert_eq!(find(code, state, op, "isa-l").unwrap().ratio_to_isal, Some(1.0));
            }
        }
    }
    assert!(find("RS(4,2)", "cold", "encode", "reed-solomon-simd").is_some());
    assert!(find("LRC(12,2,2)", "cold", "encode", "reed-solomon-simd").is_none());
    assert!(about.not_measured.iter().any(|note| note.what.contains("reed-solomon-simd") && note.what.contains("LRC")));
    for streams in ["x1", "x64"] {
        assert!(find(streams, "hot", "md5", "penstock").is_some() && find(streams, "hot", "sha256", "sha2").is_some());
    }
    if crate::limits::register_bytes() > 0 {
        assert!(find("machine", "cold", "copy-nt", "limit").is_some());
        let row = find("RS(4,2)", "cold", "encode", "limit").unwrap();
        assert!(row.ratio_to_limit.is_some_and(|ratio| ratio >= 1.0), "{row:?}");
    }
    let text = super::report::text(&rows, &about);
    assert!(text.contains("== Goals") && text.contains("can't") && text.contains("LRC(12,2,2), 64 KiB"), "{text}");
    let lines = std::fs::read_to_string(&csv).unwrap();
    assert!(lines.starts_with("bench,code,bytes,state,op,contender,gbps,ratio_to_isal,ratio_to_limit,gbps_lower,"));
    assert_eq!(lines.lines().count(), rows.len() + 1);

    // The tables can be made again from the files.
    let about_path = penstock_harness::beside(&json, "machine");
    penstock_harness::write_json(&about_path, &about).unwrap();
    assert_eq!(super::recorded(&json).unwrap(), (rows.clone(), about.clone()));
    let markdown = super::report::markdown(&rows, &about);
    assert!(markdown.contains("#### Goals\n") && markdown.contains("| RS(4,2), 64 KiB |"), "{markdown}");
}

#[test]
fn a_run_that_is_stopped_has_valid_results() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("r.json");
    let stop = Stop::never();
    let mut run = Run::new(small_options(), stop.clone(), Some(json.clone()), None).unwrap();
    stop.ask();
    run.all().unwrap();
    let (rows, about) = run.finish().unwrap();
    assert!(rows.is_empty() && about.interrupted);
    assert_eq!(std::fs::read_to_string(&json).unwrap(), "[]\n");
    assert!(super::report::text(&rows, &about).contains("Interrupted"));
}

#[test]
fn a_run_without_time_says_what_it_left_out() {
    let mut run = Run::new(Options { budget: Duration::ZERO, ..small_options() }, Stop::never(), None, None).unwrap();
    run.all().unwrap();
    let (rows, about) = run.finish().unwrap();
    assert!(rows.is_empty());
    assert!(about.not_measured.iter().any(|note| note.why.contains("time was used up")), "{about:?}");
}

fn row(contender: &str, gbps: f64, ratio_to_isal: f64) -> Row {
    Row {
        bench: "kernels".to_owned(),
        code: "RS(10,4)".to_owned(),
        bytes: 64 << 10,
        state: "hot".to_owned(),
        op: "encode".to_owned(),
        contender: contender.to_owned(),
        gbps,
        ratio_to_isal: Some(ratio_to_isal),
        ratio_to_limit: None,
    }
}

#[test]
fn goals_are_judged_by_every_cell_they_are_about() {
    let rows = [
        row("penstock", 100.0, 2.0),
        row("isa-l", 50.0, 1.0),
        row("rusty_erasure", 80.0, 1.6),
        row("limit", 200.0, 4.0),
    ];
    assert_eq!(ratio_to_best_other(&rows[0], &rows), Some(1.25));
    assert_eq!(GOALS[0].reached(&rows), [2.0]);
    assert_eq!(GOALS[1].reached(&rows), [1.25]);
    assert!(GOALS[2].reached(&rows).is_empty(), "another size");
    assert!(GOALS.iter().all(|goal| goal.at_least > 0.0 && !goal.what.is_empty()));
}

#[test]
fn numbers_keep_four_digits() {
    assert_eq!([rounded(1234.56), rounded(0.123_456), rounded(12.3456), rounded(0.0)], [1235.0, 0.1235, 12.35, 0.0]);
}

#[test]
fn the_command_line_refuses_what_makes_no_sense() {
    let parse = |arguments: &[&str]| crate::Arguments::try_parse_from([&["penstock-bench"], arguments].concat());
    assert!(parse(&["kernels", "--quick", "--json", "x"]).is_ok());
    assert!(parse(&["kernels", "--from", "x", "--markdown", "y"]).is_ok());
    assert!(parse(&["kernels", "--from", "x", "--quick"]).is_err());
    assert!(parse(&["nonsense"]).is_err());
    assert!(parse(&[]).is_err());
}
