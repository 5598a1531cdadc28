//! `penstock doctor`: looks at the machine and says, line by line, what is well, what is not, and what to do about it.
//!
//! What the kernel tells is read below a root that tests replace by a folder of their own ([`Machine`]); what only trying can
//! tell (io_uring, O_DIRECT, fsync) is tried for real. A finding is `FAIL` only when the role that was asked about needs the
//! thing; the status is 0 unless something failed. Nothing is changed, but for a test file in the data folder that is removed.

mod machine;
mod rdma;
mod storage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::rdma::Verbs;

/// `penstock doctor`'s arguments.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// What this machine is to be.
    #[arg(long, value_enum, default_value_t = Role::Serve)]
    role: Role,
    /// The role is to use RDMA: what that lacks is a failure, not a hint.
    #[arg(long)]
    rdma: bool,
    /// The data folder to try; without it, the place where `penstock serve` would make one.
    #[arg(long, value_name = "DIR", default_value = "./penstock-data", env = "PENSTOCK_DATA")]
    data: PathBuf,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// What a machine can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Gateway and nodes in one process.
    Serve,
    /// The gateway alone.
    Gateway,
    /// A storage node.
    Node,
    /// A program that reads and writes objects.
    Client,
}

impl Role {
    /// Whether it keeps data on a disk of this machine.
    fn has_disk(self) -> bool {
        self != Role::Client
    }
}

/// How well a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// It works without, less well or with less.
    Warn,
    /// The role that was asked about needs it.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        })
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    topic: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do, with the exact command where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(topic: &'static str, found: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    /// A failure if `needed`, else a warning.
    fn lacking(topic: &'static str, needed: bool, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let verdict = if needed { Verdict::Fail } else { Verdict::Warn };
        Self { topic, verdict, found: found.into(), advice: Some(advice.into()) }
    }
}

/// What the kernel says of the machine: files below a root, `/` but in tests.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// A file's text, without white space at its ends; none where there is no such file or it can't be read.
    fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a folder, in order; none where there is no such folder.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // "10" after "9".
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The kernel's version, `6.1.0-56-amd64`.
    fn kernel(&self) -> String {
        self.text("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned())
    }
}

/// All findings, in the order in which they are printed.
fn examine(machine: &Machine, arguments: &Doctor, verbs: &Verbs) -> Vec<Finding> {
    let mut findings = machine::examine(machine);
    if arguments.role.has_disk() {
        findings.extend(storage::examine(&arguments.data));
    }
    findings.extend(rdma::examine(machine, arguments.rdma, verbs));
    findings
}

#[derive(Serialize)]
struct Report<'a> {
    role: Role,
    rdma: bool,
    kernel: String,
    ok: bool,
    findings: &'a [Finding],
}

/// Looks, prints, and says whether nothing failed.
#[allow(clippy::print_stdout, reason = "standard output is where findings are promised to be")]
pub(crate) fn run(arguments: &Doctor) -> bool {
    let machine = Machine { root: Path::new("/").to_owned() };
    let findings = examine(&machine, arguments, &rdma::ask());
    let ok = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    if arguments.json {
        let Doctor { role, rdma, .. } = *arguments;
        let report = Report { role, rdma, kernel: machine.kernel(), ok, findings: &findings };
        println!("{}", serde_json::to_string_pretty(&report).expect("strings and booleans are JSON"));
    } else {
        for finding in &findings {
            println!("{}", line(finding));
        }
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        println!("{} ok, {} to look at, {} failed", count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    }
    ok
}

fn line(finding: &Finding) -> String {
    let Finding { topic, verdict, found, advice } = finding;
    match advice {
        Some(advice) => format!("{verdict} {topic}: {found}\n       -> {advice}"),
        None => format!("{verdict} {topic}: {found}"),
    }
}
