//! `penstock bench`, with a stand-in for the program that it becomes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// A folder with the real `penstock` and a `penstock-bench` of `script`.
fn folder(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder to try in");
    let penstock = Path::new(env!("CARGO_BIN_EXE_penstock"));
    fs::hard_link(penstock, folder.path().join("penstock"))
        .or_else(|_| fs::copy(penstock, folder.path().join("penstock")).map(drop))
        .expect("a folder to try in");
    let bench = folder.path().join("penstock-bench");
    fs::write(&bench, script).expect("a folder to try in");
    fs::set_permissions(&bench, fs::Permissions::from_mode(0o755)).expect("a folder to try in");
    folder
}

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(folder.join("penstock")).arg("bench").args(arguments).output().expect("penstock runs")
}

#[test]
fn arguments_output_and_status_are_passed_through() {
    let folder = folder("#!/bin/sh\nfor a in \"$@\"; do echo \"[$a]\"; done\necho trouble >&2\nexit 7\n");
    let output = bench(folder.path(), &["kernels", "--quick", "--json", "a file", "--help", "--version", "--", "-x"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "[kernels]\n[--quick]\n[--json]\n[a file]\n[--help]\n[--version]\n[--]\n[-x]\n"
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "trouble\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn help_is_that_of_the_benchmarks() {
    let folder = folder("#!/bin/sh\necho \"$#:$1\"\n");
    assert_eq!(bench(folder.path(), &["--help"]).stdout, b"1:--help\n");
    assert_eq!(bench(folder.path(), &[]).stdout, b"0:\n");
}

#[test]
fn a_program_that_cannot_run_is_a_clear_error() {
    let folder = folder("#!/nowhere/at/all\n");
    let output = bench(folder.path(), &["kernels"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("penstock: running ") && said.contains("penstock-bench: "), "{said}");
}
