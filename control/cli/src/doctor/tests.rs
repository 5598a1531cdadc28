//! Conditions are planted in a folder that stands for the machine's root; each must be told, with what to do about it.

use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::rdma::{Named, Verbs};
use super::{Doctor, Finding, Machine, Role, Verdict, line, machine, rdma, storage};

/// A machine of files.
struct Planted {
    folder: TempDir,
}

impl Planted {
    fn new() -> Planted {
        let planted = Planted { folder: tempfile::tempdir().expect("a folder") };
        planted
            .file("/proc/sys/kernel/osrelease", "6.1.0-56-amd64\n")
            .file("/proc/self/limits", "Limit   Soft Limit Hard Limit Units\nMax locked memory         8388608              8388608              bytes\nMax open files            1024                 1048576              files\n")
            .file("/proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n");
        planted
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        std::fs::write(path, text).expect("written");
        self
    }

    /// An rxe device as Linux 6.1 shows it.
    fn with_rxe(&self) -> &Self {
        let port = "/sys/class/infiniband/rxe0/ports/1";
        self.file("/dev/infiniband/uverbs0", "")
            .file("/dev/infiniband/rdma_cm", "")
            .file("/sys/module/ib_uverbs/version", "")
            .file(&format!("{port}/state"), "4: ACTIVE\n")
            .file(&format!("{port}/rate"), "2.5 Gb/sec (1X SDR)\n")
            .file(&format!("{port}/link_layer"), "Ethernet\n")
            .file(&format!("{port}/gids/0"), "fe80:0000:0000:0000:28a6:1fff:feba:59d2\n")
            .file(&format!("{port}/gids/1"), "0000:0000:0000:0000:0000:ffff:0a4d:000a\n")
            .file(&format!("{port}/gids/2"), "0000:0000:0000:0000:0000:0000:0000:0000\n")
            .file(&format!("{port}/gid_attrs/types/0"), "RoCE v2\n")
            .file(&format!("{port}/gid_attrs/types/1"), "RoCE v2\n")
            .file(&format!("{port}/gid_attrs/ndevs/0"), "lab0\n")
            .file("/sys/class/net/lab0/mtu", "9000\n")
    }

    fn machine(&self) -> Machine {
        Machine { root: self.folder.path().to_owned() }
    }

    /// With a libibverbs that drives rxe0.
    fn rdma(&self, needed: bool) -> Vec<Finding> {
        let rxe0 = Named { name: "rxe0".to_owned(), opened: Ok("max_msg_sz 8388608".to_owned()) };
        rdma::examine(&self.machine(), needed, &Verbs::Present(vec![rxe0]))
    }

    /// Without libibverbs.
    fn rdma_without_library(&self, needed: bool) -> Vec<Finding> {
        rdma::examine(&self.machine(), needed, &no_library())
    }
}

fn no_library() -> Verbs {
    Verbs::Absent("libibverbs.so.1: cannot open shared object file".to_owned())
}

fn topic<'a>(findings: &'a [Finding], topic: &str) -> &'a Finding {
    findings
        .iter()
        .find(|finding| finding.topic == topic)
        .unwrap_or_else(|| panic!("nothing about {topic} in {findings:?}"))
}

fn advice(finding: &Finding) -> &str {
    finding.advice.as_deref().unwrap_or_else(|| panic!("no advice in {finding:?}"))
}

#[test]
fn a_good_rdma_machine_is_good() {
    let planted = Planted::new();
    planted.with_rxe().file("/proc/self/status", "CapEff:\t000001ffffffffff\n");
    let findings = planted.rdma(true);
    for finding in &findings {
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
        assert_eq!(finding.advice, None, "{finding:?}");
    }
    assert_eq!(topic(&findings, "RDMA device").found, "rxe0 port 1: 4: ACTIVE, 2.5 Gb/sec (1X SDR), over lab0");
    let table = &topic(&findings, "GID table").found;
    assert!(table.contains("1: ::ffff:10.77.0.10 (RoCE v2)"), "{table}");
    assert!(!table.contains("; 2:"), "an empty entry is none: {table}");
    assert!(topic(&findings, "path MTU").found.contains("4096 bytes"));
}

#[test]
fn without_rdma_only_those_who_need_it_fail() {
    let planted = Planted::new();
    let hints = planted.rdma_without_library(false);
    assert!(hints.iter().all(|finding| finding.verdict != Verdict::Fail), "{hints:?}");
    let failures = planted.rdma_without_library(true);
    for name in ["libibverbs", "ib_uverbs", "RDMA device", "locked memory"] {
        assert_eq!(topic(&hints, name).verdict, Verdict::Warn, "{name}");
        assert_eq!(topic(&failures, name).verdict, Verdict::Fail, "{name}");
    }
    assert!(advice(topic(&failures, "libibverbs")).contains("apt-get install libibverbs1 ibverbs-providers"));
    assert!(advice(topic(&failures, "locked memory")).contains("ulimit -l unlimited"));
    assert!(topic(&failures, "locked memory").found.contains("8192 KiB"));
}

#[test]
fn modules_are_to_be_loaded_or_installed() {
    let planted = Planted::new();
    assert!(advice(topic(&planted.rdma(true), "RDMA device")).contains("./dev lab"), "a kernel without");
    planted.file("/lib/modules/6.1.0-56-amd64/modules.dep", "kernel/x/other.ko:\n").file("/etc/lsb-release", "Ubuntu");
    let extra = planted.rdma(true);
    assert!(advice(topic(&extra, "RDMA device")).contains("apt-get install linux-modules-extra-6.1.0-56-amd64"));
    planted.file(
        "/lib/modules/6.1.0-56-amd64/modules.dep",
        "kernel/x/rdma_rxe.ko: kernel/x/ib_uverbs.ko\nkernel/x/ib_uverbs.ko:\n",
    );
    let there = planted.rdma(true);
    assert!(advice(topic(&there, "RDMA device")).contains("modprobe rdma_rxe"));
    assert!(advice(topic(&there, "ib_uverbs")).contains("modprobe ib_uverbs"));
    planted
        .file("/sys/module/rdma_rxe/version", "")
        .file("/sys/class/net/lo/mtu", "65536")
        .file("/sys/class/net/ens5/mtu", "1500");
    assert!(advice(topic(&planted.rdma(true), "RDMA device")).contains("rdma link add rxe0 type rxe netdev ens5"));
}

#[test]
fn a_port_that_is_down_has_no_address_or_small_packets() {
    let planted = Planted::new();
    let port = "/sys/class/infiniband/rxe0/ports/1";
    planted.with_rxe().file(&format!("{port}/state"), "1: DOWN\n").file("/sys/class/net/lab0/mtu", "1500\n");
    planted.file(&format!("{port}/gids/1"), "0000:0000:0000:0000:0000:0000:0000:0000\n");
    let findings = planted.rdma(true);
    let device = topic(&findings, "RDMA device");
    assert_eq!((device.verdict, advice(device).contains("ip link set lab0 up")), (Verdict::Fail, true));
    let table = topic(&findings, "GID table");
    assert_eq!((table.verdict, advice(table).contains("ip address add")), (Verdict::Fail, true));
    let path = topic(&findings, "path MTU");
    assert_eq!((path.verdict, path.found.contains("1024 bytes")), (Verdict::Warn, true), "{path:?}");
}

#[test]
fn a_device_without_its_provider_is_told() {
    let planted = Planted::new();
    planted.with_rxe();
    let with = |named: Vec<Named>| rdma::examine(&planted.machine(), true, &Verbs::Present(named));
    let none = with(Vec::new());
    assert_eq!(topic(&none, "libibverbs").verdict, Verdict::Ok);
    assert_eq!(advice(topic(&none, "verbs")), "apt-get install ibverbs-providers");
    let closed = with(vec![Named { name: "rxe0".to_owned(), opened: Err("Permission denied".to_owned()) }]);
    assert_eq!(topic(&closed, "verbs").verdict, Verdict::Fail);
    assert!(topic(&closed, "verbs").found.contains("Permission denied"));
}

#[test]
fn a_v1_gid_is_none() {
    let planted = Planted::new();
    planted.with_rxe().file("/sys/class/infiniband/rxe0/ports/1/gid_attrs/types/1", "IB/RoCE v1\n");
    assert_eq!(topic(&planted.rdma(true), "GID table").verdict, Verdict::Fail);
}

#[test]
fn memory_of_gpus() {
    let planted = Planted::new();
    planted.file("/sys/module/nvidia/version", "550.1\n");
    assert_eq!(topic(&planted.rdma(false), "GPU memory").verdict, Verdict::Ok);
    planted.file("/proc/sys/kernel/osrelease", "5.4.0-1\n");
    let old = planted.rdma(false);
    assert_eq!(advice(topic(&old, "GPU memory")), "modprobe nvidia_peermem");
    planted.file("/sys/module/nvidia_peermem/version", "1");
    assert_eq!(topic(&planted.rdma(false), "GPU memory").verdict, Verdict::Ok);
}

#[test]
fn limits_pages_and_clocks() {
    use machine::{clock, huge_pages, io_uring, open_files};
    let planted = Planted::new();
    let files = open_files(&planted.machine());
    assert_eq!((files.verdict, advice(&files).contains("ulimit -n 8192")), (Verdict::Warn, true));
    planted.file("/proc/self/limits", "Max open files            unlimited unlimited files\n");
    assert_eq!(open_files(&planted.machine()).verdict, Verdict::Ok);

    assert_eq!(huge_pages(&planted.machine()).verdict, Verdict::Warn);
    planted.file("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    assert!(advice(&huge_pages(&planted.machine())).starts_with("echo madvise > /sys"));
    planted.file("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    assert_eq!(huge_pages(&planted.machine()).verdict, Verdict::Ok);

    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    planted.file(source, "hpet\n");
    assert!(advice(&clock(&planted.machine())).contains("dmesg"));
    planted.file(source, "tsc\n");
    assert_eq!(clock(&planted.machine()).verdict, Verdict::Warn);
    planted.file("/run/chrony/chronyd.pid", "1");
    assert_eq!(clock(&planted.machine()).found, "source tsc, kept by chrony");

    let refused = || io_uring(&planted.machine(), Err("Operation not permitted".to_owned()));
    assert!(advice(&refused()).contains("seccomp"));
    planted.file("/proc/sys/kernel/io_uring_disabled", "2\n");
    assert_eq!(advice(&refused()), "it is switched off: sysctl -w kernel.io_uring_disabled=0");
    assert_eq!(io_uring(&planted.machine(), Ok(())).verdict, Verdict::Ok);
}

#[test]
fn disks_are_tried_and_left_clean() {
    let folder = tempfile::tempdir().expect("a folder");
    let findings = storage::examine(&folder.path().join("not/yet/there"));
    assert!(findings.iter().all(|finding| finding.verdict != Verdict::Fail), "{findings:?}");
    assert!(topic(&findings, "fdatasync").found.contains(" us "), "{findings:?}");
    assert!(topic(&findings, "disk").found.contains(&folder.path().display().to_string()));
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0, "nothing stays behind");
    // A folder in /proc can't be written, by root neither.
    let refused = storage::examine(Path::new("/proc/self"));
    assert_eq!(topic(&refused, "data folder").verdict, Verdict::Fail);
    assert!(advice(topic(&refused, "data folder")).contains("--data"));

    let direct = storage::direct(Err(io::Error::from_raw_os_error(22)));
    assert_eq!(direct.verdict, Verdict::Warn);
    assert_eq!(storage::flush(&mut [30_000; 9]).verdict, Verdict::Warn);
    assert_eq!(storage::flush(&mut [50, 90_000, 60]).found, "60 us in the median of 9");
}

#[test]
fn a_client_needs_no_disk() {
    let planted = Planted::new();
    let asked = |role| Doctor { role, rdma: false, data: "/proc/self".into(), json: false };
    let client = super::examine(&planted.machine(), &asked(Role::Client), &no_library());
    assert!(client.iter().all(|finding| finding.verdict != Verdict::Fail), "{client:?}");
    let node = super::examine(&planted.machine(), &asked(Role::Node), &no_library());
    assert_eq!(topic(&node, "data folder").verdict, Verdict::Fail);
}

#[test]
fn lines_say_what_to_do() {
    assert_eq!(line(&Finding::ok("kernel", "6.1")), "ok   kernel: 6.1");
    assert_eq!(line(&Finding::lacking("x", true, "none", "get one")), "FAIL x: none\n       -> get one");
    assert_eq!(line(&Finding::lacking("x", false, "none", "get one")), "warn x: none\n       -> get one");
}
