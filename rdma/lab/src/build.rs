//! Builds programs and test programs with cargo, and finds where they are.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

use crate::error::{LabError, Result};

/// What to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What<'a> {
    /// A package's program: (package, program).
    Bin(&'a str, &'a str),
    /// A package's unit tests (those of its library, or of its program where it has none): (package).
    UnitTests(&'a str),
    /// One of a package's integration tests: (package, file name in tests/ without `.rs`).
    Test(&'a str, &'a str),
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds `what` as `./dev test` builds it (the same features of the same dependencies: nothing is compiled twice) and
/// gives the program's path. What cargo says goes to this process's error output.
pub(crate) fn program(what: What<'_>, tree: &std::path::Path) -> Result<PathBuf> {
    let attempts: &[&[&str]] = match what {
        What::Bin(_, program) => &[&["build", "--bin", program]],
        What::UnitTests(package) => {
            &[&["test", "--no-run", "-p", package, "--lib"], &["test", "--no-run", "-p", package, "--bins"]]
        }
        What::Test(_, test) => &[&["test", "--no-run", "--workspace", "--test", test]],
    };
    for arguments in attempts {
        let answer = Command::new("cargo")
            .args(*arguments)
            .args(["--quiet", "--locked", "--message-format", "json-render-diagnostics"])
            .current_dir(tree)
            .output()
            .map_err(|error| LabError::Setup(format!("cargo: {error}")))?;
        let said = String::from_utf8_lossy(&answer.stderr);
        if !answer.status.success() && said.contains("no library targets found") {
            continue;
        }
        eprint!("{said}");
        if !answer.status.success() {
            return Err(LabError::Setup(format!("cargo could not build {what:?}: see above")));
        }
        return executable(what, &String::from_utf8_lossy(&answer.stdout))
            .ok_or_else(|| LabError::Setup(format!("cargo built no program for {what:?}: is it named rightly?")));
    }
    Err(LabError::Setup(format!("{what:?}: the package has neither a library nor a program")))
}

/// The program for `what` in cargo's messages.
fn executable(what: What<'_>, messages: &str) -> Option<PathBuf> {
    let package = match what {
        What::Bin(package, _) | What::UnitTests(package) | What::Test(package, _) => package,
    };
    // `path+file:///tree/rdma/verbs#penstock-verbs@0.1.0`, or without the name where the folder is called so.
    let of_package = |id: &str| id.contains(&format!("#{package}@")) || id.contains(&format!("/{package}#"));
    let mut found: Vec<(Target, PathBuf)> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && of_package(&message.package_id))
        .filter_map(|message| Some((message.target?, message.executable?)))
        .collect();
    // A library's tests before those of a program beside it.
    found.sort_by_key(|(target, _)| !target.kind.iter().any(|kind| kind == "lib"));
    let is_it = |target: &Target| match what {
        What::Bin(_, name) | What::Test(_, name) => target.name == name,
        What::UnitTests(_) => true,
    };
    found.into_iter().find(|(target, _)| is_it(target)).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_program_is_found() {
        let artifact = |id: &str, name: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///tree/{id}","target":{{"name":"{name}","kind":["{kind}"]}},"executable":{executable}}}"#
            )
        };
        let messages = [
            artifact("rdma/p#0.1.0", "tool", "bin", r#""/t/tool-1""#),
            artifact("p2#0.1.0", "dependency", "lib", "null"),
            artifact("rdma/p#0.1.0", "core", "lib", r#""/t/core-1""#),
            artifact("q#other@0.1.0", "suite", "test", r#""/t/suite-2""#),
            artifact("q#p@0.1.0", "suite", "test", r#""/t/suite-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let path = |what| executable(what, &messages).map(|path| path.display().to_string());
        assert_eq!(path(What::UnitTests("p")).as_deref(), Some("/t/core-1"));
        assert_eq!(path(What::Test("p", "suite")).as_deref(), Some("/t/suite-1"));
        assert_eq!(path(What::Bin("p", "tool")).as_deref(), Some("/t/tool-1"));
        assert_eq!(path(What::Bin("p", "other")), None);
    }
}
