//! `penstock-bench all`: every benchmark, one after the other, then the page. Each is a process of its own, so that one that
//! can't run, or breaks, takes no other with it: what it said stands in the report in its place.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use penstock_harness::{Machine, Stop, beside, write_json};
use serde_json::{Value, json};

use crate::report::{self, ReportArguments};
use crate::{BenchError, not_measured};

/// For the store that is started to be measured.
const START_WAIT: Duration = Duration::from_secs(60);

/// Every benchmark, and the page.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder for results and report.html; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "penstock-bench")]
    out: PathBuf,
    /// A few minutes in all: each benchmark's own --quick.
    #[arg(long)]
    quick: bool,
}

/// Runs them.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| BenchError::Setup(format!("{what}: {error}"));
    let stop = Stop::on_signals()?;
    std::fs::create_dir_all(&arguments.out).map_err(|error| failed(&arguments.out.display().to_string(), &error))?;
    let out =
        std::fs::canonicalize(&arguments.out).map_err(|error| failed(&arguments.out.display().to_string(), &error))?;
    let this = std::env::current_exe().map_err(|error| failed("finding this program", &error))?;
    for bench in ["kernels", "disk", "node", "s3", "rdma", "loader", "durability", "model"] {
        if stop.asked() {
            break;
        }
        eprintln!("== {bench}");
        let json = out.join(format!("{bench}.json"));
        let outcome = match bench {
            "s3" => s3(&this, &out, &json, arguments.quick, &stop),
            // The program has these only if it was built with them: whoever has no such subcommand says so.
            _ => started(&this, bench, &out, &json, arguments.quick, &stop),
        };
        if let Err(why) = outcome {
            eprintln!("   not measured: {why}");
            write_json(&json, &Vec::<Value>::new())?;
            write_json(
                &beside(&json, "machine"),
                &json!({"machine": Machine::here(), "not_measured": [not_measured(bench, &why)]}),
            )?;
        }
    }
    let page = out.join("report.html");
    report::report(&ReportArguments { dir: out, out: page, svg: None, title: "Penstock, measured".to_owned() })
}

fn started(this: &Path, bench: &str, out: &Path, json: &Path, quick: bool, stop: &Stop) -> Result<(), String> {
    let mut command = Command::new(this);
    command.arg(bench).arg("--json").arg(json);
    if bench == "disk" {
        command.arg("--path").arg(out.join("disk.tmp"));
    }
    if bench == "node" {
        command.arg("--path").arg(out);
    }
    if quick && bench != "model" {
        command.arg("--quick");
    }
    watched(&mut command, out, bench, stop)
}

/// Runs a command to its end, its output in a log; what it complained of last is the error.
fn watched(command: &mut Command, out: &Path, name: &str, stop: &Stop) -> Result<(), String> {
    let log = out.join(format!("{name}.log"));
    let file = std::fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
    let mut child =
        command.stdout(file).stderr(errors).stdin(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if stop.asked() {
            // Ctrl-C from a terminal meets the child as well: it ends with valid partial results.
            break child.wait().map_err(|error| error.to_string())?;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let last = said
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| line.contains("error:") || line.contains("penstock bench"))
        .map(str::to_owned);
    Err(last.unwrap_or_else(|| format!("it ended with {status}; see {}", log.display())))
}

/// A store that is stopped and removed in the end.
struct Store {
    child: Child,
    folder: PathBuf,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ignored = self.child.kill();
        let _ignored = self.child.wait();
        let _ignored = std::fs::remove_dir_all(&self.folder);
    }
}

/// The root keys that a new store shows on standard output.
fn root_keys(said: &str) -> Option<(String, String)> {
    let of = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    // The line after them begins as the first does, and has spaces.
    Some((of("AWS_ACCESS_KEY_ID").filter(|key| !key.contains(' '))?, of("AWS_SECRET_ACCESS_KEY")?))
}

fn s3(this: &Path, out: &Path, json: &Path, quick: bool, stop: &Stop) -> Result<(), String> {
    let penstock = this.with_file_name("penstock");
    let folder = out.join("store.tmp");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = listener.map_err(|error| error.to_string())?;
    let log = std::fs::File::create(out.join("serve.log")).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let child = Command::new(&penstock)
        .args(["serve", "--listen", &address.to_string(), "--data"])
        .arg(&folder)
        .stdout(log)
        .stderr(errors)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!(
                "{} can't be started ({error}): build it by `cargo build --release -p penstock`",
                penstock.display()
            )
        })?;
    let mut store = Store { child, folder };
    let until = Instant::now() + START_WAIT;
    let said = out.join("serve.log");
    // A new store shows its root keys once, and then listens.
    let mut keys = None;
    while keys.is_none() || std::net::TcpStream::connect(address).is_err() {
        keys = root_keys(&std::fs::read_to_string(&said).unwrap_or_default());
        if let Ok(Some(status)) = store.child.try_wait() {
            return Err(format!("penstock serve ended with {status}; see {}", said.display()));
        }
        if Instant::now() > until || stop.asked() {
            return Err("penstock serve did not answer in time".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (access_key, secret_key) = keys.ok_or("penstock serve showed no keys")?;
    let mut command = Command::new(this);
    command.args([
        "s3",
        "--endpoint",
        &format!("http://{address}"),
        "--server-pid",
        &store.child.id().to_string(),
        "--json",
    ]);
    command.arg(json).env("AWS_ACCESS_KEY_ID", access_key).env("AWS_SECRET_ACCESS_KEY", secret_key);
    if quick {
        command.arg("--quick");
    }
    watched(&mut command, out, "s3", stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_new_store_are_found() {
        let said = "AWS_ACCESS_KEY_ID=A\nAWS_SECRET_ACCESS_KEY=s/+\nAWS_ACCESS_KEY_ID=A AWS_SECRET_ACCESS_KEY=s aws\n";
        assert_eq!(root_keys(said), Some(("A".to_owned(), "s/+".to_owned())));
        assert_eq!(root_keys("AWS_ACCESS_KEY_ID=A\n"), None);
    }

    #[test]
    fn what_a_benchmark_complained_of_is_the_reason_that_it_was_not_measured() {
        let folder = tempfile::tempdir().unwrap();
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo 'penstock bench: no device' >&2; exit 1"]);
        let why = watched(&mut failing, folder.path(), "x", &Stop::never()).unwrap_err();
        assert_eq!(why, "penstock bench: no device");
        let mut silent = Command::new("false");
        assert!(watched(&mut silent, folder.path(), "y", &Stop::never()).unwrap_err().contains("y.log"));
        assert!(watched(&mut Command::new("true"), folder.path(), "z", &Stop::never()).is_ok());
    }
}
