//! Unsafe code has an address: every other crate forbids it, in its root file, where the compiler reads it.

use std::path::Path;

use crate::Room;

/// The rooms where unsafe code may live.
const UNSAFE_ROOMS: &[&str] = &[
    "kernels/gf256",
    "kernels/digest",
    "dataplane/buf",
    "dataplane/store",
    "rdma/verbs",
    "control/python",
    "bench/suite",
];

/// What may stand at the top level of the tree, beside dot-files.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "bench",
    "clippy.toml",
    "control",
    "dataplane",
    "deny.toml",
    "dev",
    "docs",
    "kernels",
    "rdma",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "target",
];

/// What is wrong with the rooms.
pub(crate) fn complaints(root: &Path, rooms: &[Room]) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    for room in rooms {
        let crate_root = ["src/lib.rs", "src/main.rs"]
            .iter()
            .map(|file| root.join(&room.folder).join(file))
            .find(|path| path.exists())
            .ok_or_else(|| format!("rooms: {} has neither src/lib.rs nor src/main.rs", room.folder))?;
        let text =
            std::fs::read_to_string(&crate_root).map_err(|error| format!("{}: {error}", crate_root.display()))?;
        let forbids = text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
        if !forbids && !UNSAFE_ROOMS.contains(&room.folder.as_str()) {
            complaints.push(format!(
                "rooms: {} does not forbid unsafe code: put #![forbid(unsafe_code)] into {}",
                room.folder,
                crate_root.display()
            ));
        }
    }
    let entries = std::fs::read_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    for entry in entries {
        let name = entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) && name != "penstock-data" {
            complaints.push(format!("rooms: {name} has no place at the top level of the tree"));
        }
    }
    Ok(complaints)
}
