//! Facts about the machine, written beside every result file: a figure without its machine is an anecdote.
//!
//! Read from /proc and /sys. What isn't there, or reads otherwise than expected, is `None`: facts never fail a run.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Instruction sets that our kernels, or their peers, have code for.
const FEATURES_OF_INTEREST: [&str; 14] = [
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512vbmi",
    "gfni",
    "pclmulqdq",
    "vpclmulqdq",
    "vaes",
    "sha_ni",
    "asimd",
    "pmull",
    "sha2",
    "sve",
];

/// One level of cache as the first CPU sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// "L1d", "L1i", "L2", "L3".
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Which CPUs share it, as the kernel writes it ("0-3").
    pub shared_by: Option<String>,
}

/// What a run was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU's name, as it gives it.
    pub cpu: Option<String>,
    /// "family 26 model 2 stepping 1" on x86.
    pub cpu_revision: Option<String>,
    /// CPUs that this system sees.
    pub cpus: usize,
    /// Instruction sets that matter here.
    pub features: Vec<String>,
    /// Whether the CPU says that it is a virtual one.
    pub virtual_machine: bool,
    /// Caches of the first CPU.
    pub caches: Vec<Cache>,
    /// Memory of the system.
    pub memory_bytes: Option<u64>,
    /// Memory that was available at the start.
    pub memory_available_bytes: Option<u64>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Transparent huge pages: "always", "madvise" or "never".
    pub huge_pages: Option<String>,
    /// The frequency governor, where there is one.
    pub governor: Option<String>,
    /// Load averages at the start, over 1, 5 and 15 minutes: other work on the machine spoils absolute figures.
    pub load_averages: Option<String>,
    /// Version of this crate, and so of the workspace.
    pub version: String,
    /// Whether the program was built with optimisation.
    pub optimised: bool,
}

fn text(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

/// The value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Bytes of what the kernel writes as "48K", "32M" or "24000 kB".
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().ok()?;
    let scale = match text[digits.len()..].trim() {
        "" => 1,
        "K" | "kB" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(scale)
}

fn caches(root: &Path) -> Vec<Cache> {
    (0..8)
        .filter_map(|index| {
            let of = |file: &str| text(root, &format!("sys/devices/system/cpu/cpu0/cache/index{index}/{file}"));
            let suffix = match of("type")?.as_str() {
                "Data" => "d",
                "Instruction" => "i",
                _ => "",
            };
            let name = format!("L{}{suffix}", of("level")?);
            Some(Cache { name, bytes: bytes(&of("size")?)?, shared_by: of("shared_cpu_list") })
        })
        .collect()
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        Self::below(Path::new("/"))
    }

    /// As [`Machine::here`], with `root` for `/`.
    pub(crate) fn below(root: &Path) -> Self {
        let cpuinfo = text(root, "proc/cpuinfo").unwrap_or_default();
        let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features")).unwrap_or_default();
        let has = |feature: &str| flags.split_whitespace().any(|flag| flag == feature);
        let revision = || {
            let of = |name| field(&cpuinfo, name);
            Some(format!("family {} model {} stepping {}", of("cpu family")?, of("model")?, of("stepping")?))
        };
        let meminfo = text(root, "proc/meminfo").unwrap_or_default();
        let memory = |name| field(&meminfo, name).as_deref().and_then(bytes);
        let chosen = |list: String| Some(list.split_once('[')?.1.split_once(']')?.0.to_owned());
        Self {
            cpu: field(&cpuinfo, "model name"),
            cpu_revision: revision(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            features: FEATURES_OF_INTEREST.into_iter().filter(|name| has(name)).map(str::to_owned).collect(),
            virtual_machine: has("hypervisor"),
            caches: caches(root),
            memory_bytes: memory("MemTotal"),
            memory_available_bytes: memory("MemAvailable"),
            kernel: text(root, "proc/sys/kernel/osrelease"),
            huge_pages: text(root, "sys/kernel/mm/transparent_hugepage/enabled").and_then(chosen),
            governor: text(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            load_averages: text(root, "proc/loadavg")
                .map(|text| text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// Bytes of a cache by its name ("L3").
    #[must_use]
    pub fn cache_bytes(&self, name: &str) -> Option<u64> {
        self.caches.iter().find(|cache| cache.name == name).map(|cache| cache.bytes)
    }

    /// In one line, for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let caches: Vec<String> = self
            .caches
            .iter()
            .filter(|cache| cache.name != "L1i")
            .map(|cache| format!("{} {} KiB", cache.name, cache.bytes >> 10))
            .collect();
        format!(
            "{} ({}), {} CPUs{}, {}, {} GiB of memory, Linux {}, huge pages: {}, load {}",
            self.cpu.as_deref().unwrap_or("unknown CPU"),
            self.cpu_revision.as_deref().unwrap_or("unknown revision"),
            self.cpus,
            if self.virtual_machine { " of a virtual machine" } else { "" },
            caches.join(", "),
            self.memory_bytes.map_or("?".to_owned(), |bytes| (bytes >> 30).to_string()),
            self.kernel.as_deref().unwrap_or("?"),
            self.huge_pages.as_deref().unwrap_or("?"),
            self.load_averages.as_deref().unwrap_or("?"),
        )
    }
}
