//! `penstock exercise` against `penstock serve`, without RDMA: what the lab runs over RDMA.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn penstock() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.env("PENSTOCK_RDMA_DEVICE", "none").env("PENSTOCK_LOG", "warn").stderr(Stdio::piped());
    command
}

/// A store of three nodes, and its URL.
fn serve(data: &Path) -> (Serving, String) {
    let mut command = penstock();
    command.args(["serve", "--nodes", "3", "--node-capacity", "256MiB", "--listen", "127.0.0.1:0"]);
    let serving = command.arg("--data").arg(data).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut serving = Serving(serving.expect("penstock serve starts"));
    let out = serving.0.stdout.take().expect("its output");
    let url = BufReader::new(out).lines().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("--endpoint-url ")?;
        rest.split(' ').next().map(str::to_owned)
    });
    (serving, url.expect("it says where it listens"))
}

fn exercise(url: &str, data: &Path, more: &[&str]) -> Output {
    let mut command = penstock();
    command.args(["exercise", "--endpoint", url, "--data"]).arg(data).args(more);
    command.output().expect("penstock exercise runs")
}

#[test]
fn every_way_is_the_same_and_nothing_is_copied() {
    let folder = tempfile::tempdir().expect("a folder to try in");
    let data = folder.path().join("store");
    let (_serving, url) = serve(&data);
    let done = exercise(&url, &data, &["--sizes", "1,200KiB,5242881", "--gets", "4"]);
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{errors}");
    let summary = said.lines().find(|line| line.starts_with('{')).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(summary).expect("JSON");
    assert!(summary["read_bytes"]["tcp"].as_u64() > Some(4 * 5_242_881), "{summary}");
    // On a machine that is very busy a shard may be late, and is computed instead.
    assert!(summary["copied_bytes"] == 0 || summary["decoded_stripes"] != 0, "{summary}");
    assert!(said.contains("get 4 of 4"), "{said}");
    // Each call that would have gone over RDMA says why it did not.
    let why = summary["other_ways"].as_object().expect("a table");
    assert!(why.is_empty(), "the store has no device, so its plans name none: {summary}");
    let refused = exercise(&url, &data, &["--rdma", "require"]);
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains("--rdma require: "), "{errors}");
    let elsewhere = exercise(&url, &folder.path().join("nothing"), &[]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("root-credentials.toml"));
}
