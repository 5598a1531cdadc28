//! The checks are themselves checked: the tree as it is passes, and planted faults are seen.

use std::fs;
use std::path::Path;

use crate::{Arrow, complaints, layers};

fn arrow(from: &str, to: &str, tests_only: bool) -> Arrow {
    Arrow { from: from.into(), to: to.into(), tests_only }
}

#[test]
fn every_forbidden_arrow_is_seen_and_every_drawn_one_passes() {
    for (from, to) in [
        ("kernels/gf256", "dataplane/proto"),
        ("dataplane/proto", "kernels/digest"),
        ("dataplane/proto", "dataplane/buf"),
        ("dataplane/store", "control/meta"),
        ("dataplane/executor", "dataplane/node"),
        ("dataplane/executor", "dataplane/store"),
        ("dataplane/node", "dataplane/placement"),
        ("control/s3", "control/meta"),
        ("control/s3", "dataplane/executor"),
        ("control/gateway", "rdma/transport"),
        ("rdma/verbs", "control/gateway"),
        ("rdma/wire", "kernels/gf256"),
        ("control/cli", "bench/harness"),
    ] {
        assert_eq!(layers::complaints(&[arrow(from, to, false)]).len(), 1, "{from} -> {to}");
    }
    for (from, to) in [
        ("kernels/erasure", "kernels/gf256"),
        ("dataplane/executor", "kernels/erasure"),
        ("dataplane/node", "dataplane/store"),
        ("control/gateway", "dataplane/executor"),
        ("control/s3", "control/gateway"),
        ("control/cli", "rdma/transport"),
        ("rdma/transport", "dataplane/transport"),
        ("bench/harness", "control/gateway"),
    ] {
        assert!(layers::complaints(&[arrow(from, to, false)]).is_empty(), "{from} -> {to}");
    }
    assert!(layers::complaints(&[arrow("dataplane/executor", "dataplane/node", true)]).is_empty());
    assert_eq!(layers::complaints(&[arrow("control/meta", "bench/harness", true)]).len(), 1);
}

/// A workspace of two crates, the first depending on the second.
fn plant(root: &Path, from: &str, to: &str, forbid: bool) {
    fs::write(root.join("Cargo.toml"), format!("[workspace]\nresolver = \"3\"\nmembers = [{from:?}, {to:?}]\n"))
        .unwrap();
    let head = if forbid { "#![forbid(unsafe_code)]\n" } else { "" };
    for (folder, dependency) in [(from, Some(to)), (to, None)] {
        fs::create_dir_all(root.join(folder).join("src")).unwrap();
        let name = folder.replace('/', "-");
        let mut manifest =
            format!("[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n");
        if let Some(to) = dependency {
            manifest += &format!("{} = {{ path = \"../../{to}\" }}\n", to.replace('/', "-"));
        }
        fs::write(root.join(folder).join("Cargo.toml"), manifest).unwrap();
        fs::write(root.join(folder).join("src/lib.rs"), head).unwrap();
    }
}

#[test]
fn a_planted_arrow_in_a_real_workspace_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), "dataplane/executor", "dataplane/node", true);
    let found = complaints(folder.path()).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("dataplane/executor -> dataplane/node"), "{found:?}");
}

#[test]
fn a_crate_that_allows_unsafe_and_a_dead_link_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), "control/gateway", "dataplane/executor", false);
    fs::write(folder.path().join("README.md"), "[gone](docs/nowhere.md)").unwrap();
    let found = complaints(folder.path()).unwrap();
    assert_eq!(found.iter().filter(|c| c.contains("forbid")).count(), 2, "{found:?}");
    assert_eq!(found.iter().filter(|c| c.contains("nowhere.md")).count(), 1, "{found:?}");
}
