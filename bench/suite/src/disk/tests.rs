use std::time::Duration;

use super::*;

fn arguments(path: &Path) -> Arguments {
    Arguments {
        path: path.to_owned(),
        overwrite: false,
        file_bytes: Some(64 << 20),
        json: None,
        csv: None,
        quick: true,
    }
}

#[test]
fn a_file_that_exists_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine");
    std::fs::write(&path, "precious").unwrap();
    let error = run(&arguments(&path)).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_file_that_the_cache_would_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let error = run(&Arguments { file_bytes: Some(1 << 20), ..arguments(&path) }).unwrap_err().to_string();
    assert!(error.contains("64 MiB"), "{error}");
    assert!(!path.exists());
}

#[test]
fn our_engines_do_what_the_cell_says_and_count_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let bytes = engines::prepare(&path, 8 << 20, true).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    let before = std::fs::read(&path).unwrap();
    for found in engines::all(&path, bytes).unwrap() {
        // A kernel without io_uring has one engine less, and that is said.
        let mut engine = match found {
            Ok(engine) => engine,
            Err((what, why)) => {
                assert!(what.contains("io_uring") && !why.is_empty());
                continue;
            }
        };
        let read = Cell { op: Op::Read, bytes: 4096, queue_depth: 4 };
        let slice = engine.work(read, Duration::from_millis(20), 1).unwrap();
        assert!(slice.ops > 0 && slice.wall_s > 0.0 && slice.p50_us <= slice.p99_us, "{slice:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "reading changes nothing");
    }
    let mut engine = engines::all(&path, bytes).unwrap().into_iter().find_map(Result::ok).unwrap();
    let write = Cell { op: Op::WriteFlush, bytes: 4096, queue_depth: 1 };
    assert!(engine.work(write, Duration::from_millis(20), 1).unwrap().ops > 0);
    assert_ne!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn what_fio_says_is_understood() {
    let said = r#"note: something
    {"jobs": [{"usr_cpu": 10.0, "sys_cpu": 30.0,
      "read": {"runtime": 500, "total_ios": 1000, "clat_ns": {"percentile": {"50.000000": 90000, "99.000000": 400000}}},
      "write": {"runtime": 0, "total_ios": 0}, "sync": {}}]}"#;
    let slice = fio::parsed(said, Op::Read).unwrap();
    assert_eq!((slice.ops, slice.wall_s, slice.cpu_s), (1000, 0.5, 0.2));
    assert_eq!((slice.p50_us, slice.p99_us), (90.0, 400.0));
    assert!(fio::parsed("fio: no such engine", Op::Read).is_none());
}

#[test]
fn a_cell_names_the_best_of_fio_and_compares_with_it() {
    let names = ["penstock io_uring", "fio io_uring", "fio libaio"];
    let slices = |ops| vec![Slice { ops, wall_s: 1.0, cpu_s: 0.5, p50_us: 1.0, p99_us: 2.0 }; 3];
    let cell = Cell { op: Op::Read, bytes: 4096, queue_depth: 8 };
    let rows = cell_rows(cell, &names, &[slices(900), slices(1000), slices(800)]);
    assert_eq!(rows[0]["ratio_to_fio"], 0.9);
    assert_eq!(rows[2]["iops"], 800.0);
    assert_eq!(rows[0]["cpu_us_per_op"].as_f64().unwrap().round(), 556.0);
}
