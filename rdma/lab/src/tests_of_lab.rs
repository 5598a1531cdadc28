//! The lab's tests of itself: what the other tests stand on.

use std::time::Instant;

use crate::error::{LabError, Result};
use crate::lab::{Lab, SMALL_COMMAND_MAX_S};
use crate::perftest;
use crate::protocol::Ending;
use crate::suite::Programs;
use crate::topology::Topology;

fn must(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(LabError::Test(what())) }
}

fn has(text: &str, wanted: &str) -> Result<()> {
    must(text.contains(wanted), || format!("'{wanted}' is not in:\n{text}"))
}

/// The device is up, with a GID for the guest's IPv4 address, a path MTU of 4096 and memory windows; the disk is a disk.
pub(crate) fn guest_is_complete(lab: &mut Lab, _: &Programs) -> Result<()> {
    let port = "/sys/class/infiniband/rxe0/ports/1";
    has(&lab.shell("one", &format!("cat {port}/state"))?, "ACTIVE")?;
    let gids = lab.shell("one", &format!("cat {port}/gids/* 2>/dev/null; true"))?;
    let [a, b, c, d] = lab.address("one")?.octets();
    has(&gids, &format!("ffff:{a:02x}{b:02x}:{c:02x}{d:02x}"))?;
    let device = lab.shell("one", "ibv_devinfo -v -d rxe0")?;
    has(&device, "active_mtu:\t\t4096")?;
    has(&device, "MEM_WINDOW_TYPE_2B")?;
    has(&lab.shell("one", "ls /dev/infiniband")?, "rdma_cm")?;
    has(
        &lab.shell("one", "dd if=/dev/zero of=/data/x bs=4096 count=16 oflag=direct,sync 2>&1 && rm /data/x")?,
        "65536 bytes",
    )?;
    // What is written beside it stays in the guest.
    let place = std::env::temp_dir().join(format!("lab-must-not-be-here-{}", std::process::id()));
    lab.shell("one", &format!("echo x > '{0}' && cat '{0}'", place.display()))?;
    must(!place.exists(), || format!("the guest wrote {} on the host", place.display()))
}

/// A canary: programs that fail, hang, crash or don't exist are seen as such.
pub(crate) fn failures_are_seen(lab: &mut Lab, _: &Programs) -> Result<()> {
    type Case = (&'static [&'static str], u64, fn(&Ending) -> bool);
    let cases: [Case; 5] = [
        (&["sh", "-c", "exit 3"], 30, |ending| *ending == Ending::Exit(3)),
        (&["sh", "-c", "kill -SEGV $$"], 30, |ending| *ending == Ending::Signal(11)),
        (&["sleep", "100"], 1, |ending| *ending == Ending::TimedOut),
        (&["sh", "-c", "sleep 100 & sleep 100"], 1, |ending| *ending == Ending::TimedOut),
        (&["/no/such/program"], 30, |ending| matches!(ending, Ending::NotStarted(_))),
    ];
    for (argv, limit_s, is_right) in cases {
        let ending = lab.start("one", argv, limit_s)?.ending()?;
        must(is_right(&ending), || format!("{argv:?} ended with {ending:?}"))?;
    }
    let task = lab.start("one", &["sh", "-c", "echo up; sleep 100"], 60)?;
    task.wait_for("up", SMALL_COMMAND_MAX_S)?;
    must(task.stop()? == Ending::Signal(15), || "a stopped program ends by SIGTERM".to_owned())?;
    let task = lab.start("one", &["true"], 30)?;
    must(task.wait_for("up", SMALL_COMMAND_MAX_S).is_err(), || "it never said so".to_owned())
}

/// perftest's bandwidth and latency, on the device with itself.
pub(crate) fn perftest_runs(lab: &mut Lab, _: &Programs) -> Result<()> {
    let bandwidth = perftest::write_bandwidth(lab, ("one", "one"), 65_536, 100)?;
    let latency = perftest::read_latency(lab, ("one", "one"), 4096, 100)?;
    must(bandwidth.average_mb_s > 0.0 && latency.typical_us > 0.0, || format!("{bandwidth:?} {latency:?}"))
}

/// The lab on its own kernel, tried where there is one with rdma_rxe: in a guest. It makes a device and removes it.
pub(crate) fn host_kernel_works(lab: &mut Lab, programs: &Programs) -> Result<()> {
    let this = programs.path(0)?;
    let out = lab.run("one", &[this, "run", "--on", "host", "--", "ibv_devinfo", "-d", "rxelab"], 60)?;
    has(&out, "PORT_ACTIVE")?;
    let refused = lab.run("one", &[this, "run", "--on", "host", "--topology", "pair", "--", "true"], 60);
    must(refused.is_err(), || "one kernel is not two machines".to_owned())?;
    let devices = lab.shell("one", "ls /sys/class/infiniband /sys/class/net")?;
    must(!devices.contains("rxelab") && !devices.contains("penlab"), || format!("something stayed behind: {devices}"))
}

/// `penstock doctor` finds the guest's device well, and says so of nothing that is not there.
pub(crate) fn doctor_sees_the_device(lab: &mut Lab, programs: &Programs) -> Result<()> {
    let doctor = programs.path(0)?;
    let out = lab.run("one", &[doctor, "doctor", "--rdma", "--data", "/data", "--json"], 60)?;
    let report: serde_json::Value =
        serde_json::from_str(&out).map_err(|error| LabError::Test(format!("no JSON: {error}\n{out}")))?;
    must(report["ok"] == true, || format!("not well: {out}"))?;
    for topic in [
        "libibverbs",
        "ib_uverbs",
        "RDMA device",
        "GID table",
        "path MTU",
        "locked memory",
        "rdma_ucm",
        "io_uring",
        "O_DIRECT",
    ] {
        let found = report["findings"].as_array().into_iter().flatten().find(|finding| finding["topic"] == topic);
        must(found.is_some_and(|finding| finding["verdict"] == "ok"), || format!("{topic} is not ok: {out}"))?;
    }
    lab.shell("one", "ip link set lab0 down")?;
    let without = lab.run("one", &[doctor, "doctor", "--rdma", "--data", "/data"], 60);
    lab.shell("one", "ip link set lab0 up")?;
    must(without.is_err(), || "the doctor finds a port well that is down".to_owned())
}

/// Every guest resolves and reaches every other, also with frames of the largest size; RDMA works between two.
pub(crate) fn cluster_is_joined(lab: &mut Lab, _: &Programs) -> Result<()> {
    let names: Vec<String> = lab.names().map(str::to_owned).collect();
    for name in names.iter().filter(|name| *name != "client") {
        has(&lab.shell("client", &format!("getent hosts {name}"))?, &lab.address(name)?.to_string())?;
    }
    for (from, to) in [("client", "gateway"), ("gateway", "node1"), ("node3", "client")] {
        perftest::write_bandwidth(lab, (from, to), 65_536, 50)?;
    }
    Ok(())
}

/// One packet of a hundred is lost, both ways; everything arrives.
pub(crate) fn loss_is_survived(lab: &mut Lab, _: &Programs) -> Result<()> {
    for guest in ["client", "gateway"] {
        lab.netem(guest, "loss 1%")?;
    }
    let result = perftest::write_bandwidth(lab, ("client", "gateway"), 65_536, 50);
    let lost = lab.shell("client", "tc -s qdisc show dev lab0")?;
    for guest in ["client", "gateway"] {
        lab.netem(guest, "")?;
    }
    result?;
    let dropped = lost.split("dropped ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("0");
    must(dropped != "0", || format!("netem lost nothing, so nothing was survived:\n{lost}"))
}

/// The power goes in one node: its programs fail at once, the others go on, what was flushed is there after its return.
pub(crate) fn guest_dies(lab: &mut Lab, _: &Programs) -> Result<()> {
    lab.shell("node1", "echo flushed > /data/kept && sync /data/kept && echo lost > /data/unflushed")?;
    let busy = lab.start("node1", &["sleep", "1000"], 1000)?;
    let before = Instant::now();
    lab.kill("node1")?;
    must(busy.ending().is_err(), || "a program in a dead guest has not ended well".to_owned())?;
    must(before.elapsed().as_secs() < 900, || "it was noticed by its limit alone".to_owned())?;
    perftest::write_bandwidth(lab, ("client", "node2"), 65_536, 20)?;
    lab.revive(Topology::Cluster { nodes: 3 }, "node1")?;
    has(&lab.shell("node1", "cat /data/kept")?, "flushed")?;
    perftest::write_bandwidth(lab, ("client", "node1"), 65_536, 20).map(drop)
}
