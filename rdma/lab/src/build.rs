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
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// Builds `what` as the tests are built and gives the program's path. What cargo says goes to this process's
/// error output.
pub(crate) fn program(what: What<'_>, tree: &std::path::Path) -> Result<PathBuf> {
    let attempts: &[&[&str]] = match what {
        What::Bin(package, program) => &[&["build", "-p", package, "--bin", program]],
        What::UnitTests(package) => {
            &[&["test", "--no-run", "-p", package, "--lib"], &["test", "--no-run", "-p", package, "--bins"]]
        }
        What::Test(package, test) => &[&["test", "--no-run", "-p", package, "--test", test]],
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
    let mut found: Vec<(Target, PathBuf)> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
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
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tool","kind":["bin"]},"executable":"/t/tool-1"}
{"reason":"compiler-artifact","target":{"name":"dependency","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"core","kind":["lib"]},"executable":"/t/core-1"}
{"reason":"compiler-artifact","target":{"name":"suite","kind":["test"]},"executable":"/t/suite-1"}
{"reason":"build-finished","success":true}"#;
        let path = |what| executable(what, messages).map(|path| path.display().to_string());
        assert_eq!(path(What::UnitTests("p")).as_deref(), Some("/t/core-1"));
        assert_eq!(path(What::Test("p", "suite")).as_deref(), Some("/t/suite-1"));
        assert_eq!(path(What::Bin("p", "tool")).as_deref(), Some("/t/tool-1"));
        assert_eq!(path(What::Bin("p", "other")), None);
    }
}
