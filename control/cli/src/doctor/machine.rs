//! Kernel, CPU, memory, limits, clock: what every role leans on.

use io_uring::IoUring;
use penstock_digest::HashTier;
use penstock_gf256::Tier;

use super::{Finding, Machine};

/// Open files that a gateway under load needs: connections, devices, metadata.
const OPEN_FILES_WANTED: u64 = 8192;
/// Entries of the ring that is set up for a try.
const RING_ENTRIES: u32 = 8;
/// Clock sources that cost a system call, or a trip to a device, per look at the clock.
const SLOW_CLOCKS: &[&str] = &["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
/// Files that one of the usual keepers of the time has while it runs, or once it has set the clock.
const CLOCK_KEEPERS: &[(&str, &str)] = &[
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
    ("/var/run/ntpd.pid", "ntpd"),
];

pub(super) fn examine(machine: &Machine) -> Vec<Finding> {
    let ring = IoUring::new(RING_ENTRIES).map(drop).map_err(|error| error.to_string());
    vec![
        Finding::ok("kernel", machine.kernel()),
        cpu(),
        io_uring(machine, ring),
        huge_pages(machine),
        open_files(machine),
        clock(machine),
    ]
}

fn cpu() -> Finding {
    let coding: Vec<&str> = Tier::present().map(|tier| tier.name()).collect();
    let hashing: Vec<&str> = HashTier::present().map(|tier| tier.name()).collect();
    let found = format!(
        "erasure coding by {} (of {}), hashing by {} (of {})",
        Tier::detect().name(),
        coding.join(", "),
        HashTier::detect().name(),
        hashing.join(", ")
    );
    if coding.len() > 1 {
        Finding::ok("CPU", found)
    } else {
        Finding::warn(
            "CPU",
            found,
            "this CPU, or the emulator, offers no vector instructions: coding is 10 to 50 times slower",
        )
    }
}

pub(super) fn io_uring(machine: &Machine, ring: Result<(), String>) -> Finding {
    let topic = "io_uring";
    let Err(error) = ring else { return Finding::ok(topic, "a ring was set up") };
    let advice = match machine.text("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("2") => "it is switched off: sysctl -w kernel.io_uring_disabled=0".to_owned(),
        Some("1") => "it is for privileged processes alone: sysctl -w kernel.io_uring_disabled=0, or run as a member of kernel.io_uring_group".to_owned(),
        _ => "a container's seccomp profile may forbid it (docker run --security-opt seccomp=unconfined); devices are served by blocking calls meanwhile".to_owned(),
    };
    Finding::warn(topic, format!("no ring can be set up: {error}"), advice)
}

pub(super) fn huge_pages(machine: &Machine) -> Finding {
    let topic = "huge pages";
    let folder = "/sys/kernel/mm/transparent_hugepage";
    let Some(enabled) = machine.text(&format!("{folder}/enabled")) else {
        return Finding::warn(
            topic,
            "this kernel has no transparent huge pages",
            "buffers use pages of 4 KiB; RDMA registers each of them",
        );
    };
    if enabled.contains("[never]") {
        let advice = format!("echo madvise > {folder}/enabled");
        return Finding::warn(topic, format!("transparent huge pages are off ({enabled})"), advice);
    }
    Finding::ok(topic, format!("transparent huge pages: {enabled}"))
}

/// The soft limit of a row of /proc/self/limits; `None` where it can't be read. `u64::MAX` stands for "unlimited".
pub(super) fn soft_limit(machine: &Machine, row: &str) -> Option<u64> {
    let limits = machine.text("/proc/self/limits")?;
    let values = limits.lines().find_map(|line| line.strip_prefix(row))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

pub(super) fn open_files(machine: &Machine) -> Finding {
    let topic = "open files";
    match soft_limit(machine, "Max open files") {
        Some(limit) if limit >= OPEN_FILES_WANTED => Finding::ok(topic, format!("{limit} are allowed")),
        Some(limit) => {
            let advice =
                format!("ulimit -n {OPEN_FILES_WANTED}, or LimitNOFILE={OPEN_FILES_WANTED} in the service's unit");
            Finding::warn(topic, format!("{limit} are allowed: a busy gateway needs more"), advice)
        }
        None => Finding::warn(topic, "the limit can't be read from /proc/self/limits", "mount /proc"),
    }
}

pub(super) fn clock(machine: &Machine) -> Finding {
    let topic = "clock";
    let source = machine
        .text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".to_owned());
    if SLOW_CLOCKS.contains(&source.as_str()) {
        let advice = "every look at the clock is slow; see why tsc was given up: dmesg | grep -i clocksource";
        return Finding::warn(topic, format!("source {source}"), advice);
    }
    match CLOCK_KEEPERS.iter().find(|(file, _)| machine.has(file)) {
        Some((_, keeper)) => Finding::ok(topic, format!("source {source}, kept by {keeper}")),
        None => Finding::warn(
            topic,
            format!("source {source}; nothing seen that keeps it right"),
            "S3 refuses requests that are 15 minutes off, and capabilities expire: apt-get install systemd-timesyncd (unless the \
             host of this machine sets its clock)",
        ),
    }
}
