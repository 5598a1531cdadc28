//! Checks of the tree itself: `cargo run -p penstock-devtasks -- check`.
//!
//! - layers: every arrow between our crates goes the way docs/ARCHITECTURE.md says;
//! - rooms: a crate forbids unsafe code unless it is one of the rooms named there;
//! - documents: every relative link leads somewhere, and every format named in a crate has its page.
//!
//! Each prints what is wrong, where, and what to do, and the program ends with status 1 if anything is.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program for people: it prints")]

mod documents;
mod layers;
mod rooms;

use std::path::Path;
use std::process::ExitCode;

use cargo_metadata::MetadataCommand;

/// One of our crates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Package name.
    pub(crate) name: String,
    /// Folder below the root, with forward slashes: `dataplane/store`.
    pub(crate) folder: String,
}

/// A dependency of one of our crates on another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrow {
    /// Folder of the crate that depends.
    pub(crate) from: String,
    /// Folder of the crate that it depends on.
    pub(crate) to: String,
    /// Only its tests do.
    pub(crate) tests_only: bool,
}

fn house(root: &Path) -> Result<(Vec<Room>, Vec<Arrow>), String> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let folder_of = |manifest: &Path| -> Option<String> {
        let folder = manifest.parent()?.strip_prefix(metadata.workspace_root.as_std_path()).ok()?;
        Some(folder.to_string_lossy().replace('\\', "/"))
    };
    let mut rooms = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = folder_of(package.manifest_path.as_std_path())
            .ok_or_else(|| format!("{} lies outside the workspace", package.name))?;
        rooms.push(Room { name: package.name.to_string(), folder });
    }
    let mut arrows = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(from) = rooms.iter().find(|room| *room.name == *package.name) else { continue };
        for dependency in &package.dependencies {
            if let Some(to) = rooms.iter().find(|room| room.name == dependency.name) {
                arrows.push(Arrow {
                    from: from.folder.clone(),
                    to: to.folder.clone(),
                    tests_only: dependency.kind == cargo_metadata::DependencyKind::Development,
                });
            }
        }
    }
    Ok((rooms, arrows))
}

/// Every complaint about the tree at `root`.
pub(crate) fn complaints(root: &Path) -> Result<Vec<String>, String> {
    let (rooms, arrows) = house(root)?;
    let mut complaints = layers::complaints(&arrows);
    complaints.extend(rooms::complaints(root, &rooms)?);
    complaints.extend(documents::complaints(root)?);
    Ok(complaints)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("check") || arguments.next().is_some() {
        eprintln!("usage: penstock-devtasks check   (from the root of the tree)");
        return ExitCode::from(2);
    }
    match complaints(Path::new(".")) {
        Ok(complaints) if complaints.is_empty() => {
            println!("layers, rooms and documents: in order");
            ExitCode::SUCCESS
        }
        Ok(complaints) => {
            for complaint in &complaints {
                eprintln!("{complaint}");
            }
            eprintln!("{} complaints", complaints.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
