//! The guests' kernel: the distribution's own package, fetched and unpacked, not installed; and which of its modules go
//! into the initramfs, in the order in which they can be loaded.
//!
//! The package is found through apt's own dependencies, so that no version is written down here. `apt-get download`
//! checks its signature as for any installation.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, OnPath, Result};

/// Packages that lean on the newest kernel: Debian's and Ubuntu's name.
const META_PACKAGES: &[&str] = &["linux-image-amd64", "linux-image-generic"];
/// What is unpacked: an image and, on Ubuntu, its modules in packages of their own.
const PARTS: &[&str] = &["linux-image-", "linux-modules-"];

/// Modules that the guests need, each with what it leans on. rdma_rxe asks the kernel's crypto for crc32 by name, which
/// no dependency tells: without those two first, `rdma link add` fails with "No such file or directory". Newer kernels
/// have some of these built in or merged into others, hence `required` only for those whose absence breaks the lab.
const MODULES: &[(&str, Need)] = &[
    ("virtio_pci", Need::Required),
    ("virtio_net", Need::Required),
    ("virtio_console", Need::Required),
    ("9pnet_virtio", Need::Required),
    ("9p", Need::Required),
    ("overlay", Need::Required),
    ("crc32_generic", Need::Wanted),
    ("crc32_pclmul", Need::Wanted),
    ("crc32c_generic", Need::Wanted),
    ("crc32c_intel", Need::Wanted),
    ("nvme", Need::Required),
    ("ext4", Need::Required),
    ("veth", Need::Required),
    ("sch_netem", Need::Required),
    ("ib_uverbs", Need::Required),
    ("rdma_ucm", Need::Required),
    ("rdma_rxe", Need::Required),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Wanted,
}

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The image that QEMU boots.
    pub(crate) image: PathBuf,
    /// `lib/modules/VERSION`.
    modules: PathBuf,
}

impl Kernel {
    /// Finds the kernel below `kernels`, or fetches it.
    pub(crate) fn obtain(kernels: &Path) -> Result<Kernel> {
        let packages = packages()?;
        let newest = packages.first().expect("packages() never gives none");
        let folder = kernels.join(newest);
        if !folder.exists() {
            fetch(&packages, kernels, &folder)?;
        }
        let image = only(&folder.join("boot"), "vmlinuz-")?;
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .find_map(|place| only(&folder.join(place), "").ok())
            .ok_or_else(|| LabError::Setup(format!("{} has no modules: remove it and try again", folder.display())))?;
        Ok(Kernel { image, modules })
    }

    /// The needed modules, in the order in which they can be loaded: file name and contents.
    pub(crate) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let read = |name: &str| {
            let path = self.modules.join(name);
            std::fs::read_to_string(&path).on(&path)
        };
        let order = load_order(&read("modules.dep")?, &read("modules.builtin")?)?;
        order.iter().map(|path| Ok((file_name(path), unpacked(&self.modules.join(path))?))).collect()
    }
}

/// Kernel package first, its modules' packages after it.
fn packages() -> Result<Vec<String>> {
    let known = || META_PACKAGES.iter().map(|meta| leans_on(meta)).find(|found| !found.is_empty());
    if let Some(found) = known() {
        return Ok(found);
    }
    // A fresh machine has no package lists.
    let _ = Command::new("apt-get").args(["update", "-qq"]).status();
    known().ok_or_else(|| {
        LabError::Setup(format!(
            "no kernel package found: apt knows none of {}. The lab boots Debian's or Ubuntu's own kernel; run \
             'apt-get update' as root, or run the lab where the kernel has rdma_rxe",
            META_PACKAGES.join(", ")
        ))
    })
}

/// What `package` leans on, and what that leans on, as far as it is a kernel's part with a version in its name.
fn leans_on(package: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![package.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(answer) = Command::new("apt-cache").args(["depends", "--important", &next]).output() else {
            return found;
        };
        for name in kernel_parts(&String::from_utf8_lossy(&answer.stdout)) {
            if !found.contains(&name) {
                open.push(name.clone());
                found.push(name);
            }
        }
    }
    found.sort_by_key(|name| !name.starts_with("linux-image-"));
    found
}

/// The kernel's parts in an answer of `apt-cache depends`.
fn kernel_parts(answer: &str) -> Vec<String> {
    answer
        .lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "))
        .filter(|name| {
            PARTS.iter().any(|part| {
                name.strip_prefix(part)
                    .is_some_and(|rest| rest.trim_start_matches("extra-").starts_with(|c: char| c.is_ascii_digit()))
            })
        })
        .map(str::to_owned)
        .collect()
}

fn fetch(packages: &[String], kernels: &Path, folder: &Path) -> Result<()> {
    eprintln!("lab: fetching {}", packages.join(" "));
    let partial = kernels.join("partial");
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial).on(&partial)?;
    run(Command::new("apt-get").args(["download", "-qq"]).args(packages).current_dir(&partial))?;
    for entry in std::fs::read_dir(&partial).on(&partial)? {
        let path = entry.on(&partial)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(&partial))?;
            std::fs::remove_file(&path).on(&path)?;
        }
    }
    // depmod looks below lib/modules.
    if !partial.join("lib").exists() && partial.join("usr/lib").exists() {
        std::os::unix::fs::symlink("usr/lib", partial.join("lib")).on(&partial)?;
    }
    let version = file_name(&only(&partial.join("lib/modules"), "")?.to_string_lossy());
    run(Command::new("/sbin/depmod").arg("-b").arg(&partial).arg(version))?;
    std::fs::rename(&partial, folder).on(folder)
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .map_err(|error| LabError::Setup(format!("{name}: {error}; './dev lab' installs what the lab needs")))?;
    if status.success() { Ok(()) } else { Err(LabError::Setup(format!("{command:?} failed: {status}"))) }
}

/// The one entry of `folder` whose name begins with `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).on(folder)?;
    let mut found = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .filter(|path| file_name(&path.to_string_lossy()).starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (none, _) => Err(LabError::Setup(format!(
            "{} holds {} {prefix}*: remove it and try again",
            folder.display(),
            if none.is_none() { "no" } else { "more than one" }
        ))),
    }
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// A module's name: modules are called with `-` or `_` for the same thing.
fn module_name(path: &str) -> String {
    let file = file_name(path);
    file.split('.').next().unwrap_or(&file).replace('-', "_")
}

/// Paths of the needed modules, each after what it leans on.
fn load_order(dependencies: &str, builtin: &str) -> Result<Vec<String>> {
    let leans_on: HashMap<&str, Vec<&str>> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, others)| (path, others.split_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, &str> = leans_on.keys().map(|path| (module_name(path), *path)).collect();
    let builtin: HashSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for (name, need) in MODULES {
        match by_name.get(*name) {
            // modules.dep gives the whole closure, what must be loaded first last.
            Some(path) => {
                for part in leans_on[path].iter().rev().chain([path]) {
                    if !order.iter().any(|have| have == part) {
                        order.push((*part).to_owned());
                    }
                }
            }
            None if *need == Need::Wanted || builtin.contains(*name) => {}
            None => {
                return Err(LabError::Setup(format!(
                    "this kernel package has no module {name}: the lab needs a kernel with it (not a 'cloud' one)"
                )));
            }
        }
    }
    Ok(order)
}

/// A module's bytes, uncompressed.
fn unpacked(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(path).on(path),
    };
    let answer = Command::new(tool).arg("-dc").arg(path).output().map_err(|error| {
        LabError::Setup(format!("{tool} is needed to unpack {}: {error}; install it by apt-get", path.display()))
    })?;
    if answer.status.success() {
        Ok(answer.stdout)
    } else {
        Err(LabError::Setup(format!("{tool} can't unpack {}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parts_are_versioned() {
        let debian = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(kernel_parts(debian), ["linux-image-6.1.0-56-amd64"]);
        let ubuntu = "linux-image-generic\n  Depends: linux-image-6.8.0-1-generic\n |Depends: linux-modules-extra-6.8.0-1-generic\n  Depends: linux-firmware\n  Depends: kmod\n";
        assert_eq!(kernel_parts(ubuntu), ["linux-image-6.8.0-1-generic", "linux-modules-extra-6.8.0-1-generic"]);
    }

    fn all_builtin_but(names: &[&str]) -> String {
        let all = MODULES.iter().filter(|(name, _)| !names.contains(name));
        all.map(|(name, _)| format!("kernel/{name}.ko\n")).collect()
    }

    #[test]
    fn what_a_module_leans_on_comes_first() {
        let dependencies = "kernel/a/rdma_rxe.ko.xz: kernel/a/ib-core.ko.xz kernel/a/udp_tunnel.ko.xz\n\
                            kernel/a/ib_uverbs.ko.xz: kernel/a/ib-core.ko.xz\nkernel/a/unused.ko.xz:\n";
        let order = load_order(dependencies, &all_builtin_but(&["rdma_rxe", "ib_uverbs"])).expect("all there");
        let names: Vec<String> = order.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["ib_core", "ib_uverbs", "udp_tunnel", "rdma_rxe"]);
    }

    #[test]
    fn a_kernel_without_rxe_is_refused() {
        let error = load_order("", &all_builtin_but(&["rdma_rxe"])).expect_err("no rdma_rxe");
        assert!(error.to_string().contains("rdma_rxe"), "{error}");
        load_order("", &all_builtin_but(&["crc32_pclmul"])).expect("newer kernels have it elsewhere");
    }
}
