//! `penstock bench`: runs the benchmarks, which are a program of their own.
//!
//! Nobody leans on bench, and a store that serves has no use for its peers' libraries. So the program is looked for beside
//! this one; where it isn't, but the source tree that this one was built from is, it is built there. Either way this process
//! becomes that program, with all its arguments: signals, output and exit status are its own.
//!
//! **How it fails.** [`Fatal`], saying where it was looked for and what to do.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fatal;

/// The program's name, and its package's.
const PROGRAM: &str = "penstock-bench";
/// From the root of the source tree.
const SUITE: &str = "bench/suite/Cargo.toml";

/// Where the benchmarks are.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The program itself.
    Program(PathBuf),
    /// The root of the source tree.
    Source(PathBuf),
    Nowhere,
}

fn find(beside: &Path, source: &Path) -> Found {
    let program = beside.join(PROGRAM);
    if program.is_file() {
        Found::Program(program)
    } else if source.join(SUITE).is_file() {
        Found::Source(source.to_owned())
    } else {
        Found::Nowhere
    }
}

/// Becomes the benchmarks. Returns only when that fails.
pub(crate) fn run(arguments: &[OsString]) -> Fatal {
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(why) => return Fatal::doing("finding out where this program is", why),
    };
    let beside = exe.parent().unwrap_or(Path::new("/"));
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let program = match find(beside, source) {
        Found::Program(program) => program,
        Found::Source(root) => match built(&root) {
            Ok(program) => program,
            Err(fatal) => return fatal,
        },
        Found::Nowhere => {
            return Fatal(format!(
                "the benchmarks are a program of their own, {PROGRAM}, which is not in {}, and neither is the source tree \
                 in {}: put the program there, or run `./dev bench` in the source tree",
                beside.display(),
                source.display()
            ));
        }
    };
    let why = Command::new(&program).args(arguments).exec();
    Fatal::doing(format!("running {}", program.display()), why)
}

/// The program, built in the source tree.
fn built(root: &Path) -> Result<PathBuf, Fatal> {
    eprintln!("penstock: {PROGRAM} is not beside this program: building it in {}", root.display());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // In the tree, because the compiler is chosen by where cargo runs.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--package", PROGRAM, "--target-dir"])
        .arg(std::path::absolute(&target).unwrap_or(target.clone()))
        .current_dir(root)
        .status()
        .map_err(|why| Fatal::doing("running cargo (install Rust, or run `./dev bench`, which does)", why))?;
    if !status.success() {
        return Err(Fatal(format!(
            "{PROGRAM} could not be built in {} ({status}): `./dev bench` installs what it needs (nasm, autoconf, \
             automake, libtool)",
            root.display()
        )));
    }
    Ok(target.join("release").join(PROGRAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_first_then_the_source_then_nowhere() {
        let (beside, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let looked = || find(beside.path(), source.path());
        assert_eq!(looked(), Found::Nowhere);
        std::fs::create_dir_all(source.path().join("bench/suite")).unwrap();
        assert_eq!(looked(), Found::Nowhere, "a folder without the crate is no source tree");
        std::fs::write(source.path().join(SUITE), "").unwrap();
        assert_eq!(looked(), Found::Source(source.path().to_owned()));
        std::fs::create_dir(beside.path().join(PROGRAM)).unwrap();
        assert_eq!(looked(), Found::Source(source.path().to_owned()), "a folder is no program");
        std::fs::remove_dir(beside.path().join(PROGRAM)).unwrap();
        std::fs::write(beside.path().join(PROGRAM), "").unwrap();
        assert_eq!(looked(), Found::Program(beside.path().join(PROGRAM)));
    }

    #[test]
    fn the_source_tree_that_this_was_built_from_has_the_benchmarks() {
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        assert_eq!(find(Path::new("/nowhere"), source), Found::Source(source.to_owned()));
    }
}
