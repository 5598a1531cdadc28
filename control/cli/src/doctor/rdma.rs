//! RDMA: modules, device files, devices with their GIDs, memory that may be locked, the library, GPUs.
//!
//! Penstock runs without any of it, over TCP; so all are hints unless RDMA was asked for.

use penstock_verbs::{Device, VerbsError};

use super::machine::soft_limit;
use super::{Finding, Machine};

/// Registered memory of a gateway and its nodes with the sizes they have by default.
const MEMLOCK_BYTES_WANTED: u64 = 512 << 20;
/// The bit of CAP_IPC_LOCK, which frees a process of the limit.
const CAP_IPC_LOCK: u32 = 14;
/// What RoCEv2 adds to a payload: IPv6, UDP, BTH, RETH and the ICRC.
const ROCE_HEAD_BYTES: u32 = 40 + 8 + 12 + 16 + 4;
/// Path MTUs that InfiniBand knows.
const PATH_MTUS: [u32; 5] = [4096, 2048, 1024, 512, 256];
/// GID table entries that are looked at per port.
const GIDS_MAX: usize = 64;
const NO_GID: &str = "0000:0000:0000:0000:0000:0000:0000:0000";

/// What libibverbs says when it is asked.
#[derive(Debug, Clone)]
pub(super) enum Verbs {
    /// It can't be loaded, or lacks something: why.
    Absent(String),
    /// Its devices.
    Present(Vec<Named>),
}

/// A device of libibverbs.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// Its name.
    pub(super) name: String,
    /// Whether it opens, and what it has: a line for people, or the reason why not.
    pub(super) opened: Result<String, String>,
}

/// Asks libibverbs.
pub(super) fn ask() -> Verbs {
    match Device::list() {
        Err(error @ VerbsError::NoLibrary { .. }) => Verbs::Absent(error.to_string()),
        // It is there; that there are no devices, or no verbs in the kernel, the kernel's own files say better.
        Err(_) => Verbs::Present(Vec::new()),
        Ok(names) => {
            let opened = |name: String| Named { opened: open(&name).map_err(|error| error.to_string()), name };
            Verbs::Present(names.into_iter().map(opened).collect())
        }
    }
}

fn open(name: &str) -> Result<String, VerbsError> {
    let device = Device::open(name)?;
    let attributes = device.attributes();
    let mut words = vec![
        format!("{} queue pairs", attributes.qp_max),
        format!("memory windows of type 2: {}", if attributes.has_window_2 { "yes" } else { "no" }),
    ];
    for number in 1..=attributes.ports {
        let port = device.port(number)?;
        let (message, mtu) = (port.message_bytes_max, port.mtu.bytes());
        words.push(format!("port {number}: max_msg_sz {message}, active MTU {mtu}"));
    }
    Ok(words.join(", "))
}

pub(super) fn examine(machine: &Machine, needed: bool, verbs: &Verbs) -> Vec<Finding> {
    let devices = machine.names("/sys/class/infiniband");
    let mut findings = vec![library(needed, verbs), uverbs(machine, needed)];
    if devices.is_empty() {
        findings.push(no_device(machine, needed));
    }
    for device in &devices {
        for port in machine.names(&format!("/sys/class/infiniband/{device}/ports")) {
            findings.extend(port_findings(machine, needed, device, &port));
        }
        findings.extend(provider(needed, device, verbs));
    }
    findings.extend([memlock(machine, needed), rdma_ucm(machine), dma_buf(machine)]);
    findings
}

fn library(needed: bool, verbs: &Verbs) -> Finding {
    let topic = "libibverbs";
    match verbs {
        Verbs::Present(_) => Finding::ok(topic, "it can be loaded"),
        Verbs::Absent(why) => Finding::lacking(
            topic,
            needed,
            why.clone(),
            "apt-get install libibverbs1 ibverbs-providers (Fedora: dnf install libibverbs)",
        ),
    }
}

/// Whether the library can drive a device that the kernel has.
fn provider(needed: bool, device: &str, verbs: &Verbs) -> Option<Finding> {
    let topic = "verbs";
    // That there is no library has been said.
    let Verbs::Present(named) = verbs else { return None };
    Some(match named.iter().find(|named| named.name == device).map(|named| &named.opened) {
        Some(Ok(what)) => Finding::ok(topic, format!("{device}: {what}")),
        Some(Err(why)) => Finding::lacking(
            topic,
            needed,
            format!("{device} can't be opened: {why}"),
            "ls -l /dev/infiniband: this user must be able to write there (group rdma)",
        ),
        None => Finding::lacking(
            topic,
            needed,
            format!("libibverbs has no provider for {device}"),
            "apt-get install ibverbs-providers",
        ),
    })
}

fn uverbs(machine: &Machine, needed: bool) -> Finding {
    let topic = "ib_uverbs";
    let files: Vec<String> =
        machine.names("/dev/infiniband").into_iter().filter(|name| name.starts_with("uverbs")).collect();
    match (machine.has("/sys/module/ib_uverbs"), files.is_empty()) {
        (_, false) => Finding::ok(topic, format!("/dev/infiniband/{}", files.join(", "))),
        (true, true) => Finding::lacking(
            topic,
            needed,
            "the module is loaded, /dev/infiniband has no uverbs file",
            "there is no RDMA device (see below), or a container hides it: docker run --device /dev/infiniband",
        ),
        (false, true) => Finding::lacking(topic, needed, "the module is not loaded", load(machine, "ib_uverbs")),
    }
}

/// How to get a module into this kernel.
fn load(machine: &Machine, module: &str) -> String {
    let kernel = machine.kernel();
    let file = format!("/{module}.ko");
    match machine.text(&format!("/lib/modules/{kernel}/modules.dep")) {
        Some(list) if list.contains(&file) => format!("modprobe {module}"),
        Some(_) if machine.has("/etc/lsb-release") => {
            format!(
                "this kernel's packages split it off: apt-get install linux-modules-extra-{kernel} && modprobe {module}"
            )
        }
        _ => format!(
            "kernel {kernel} comes without {module} (cloud kernels do): install the distribution's general kernel, or try RDMA in \
             the lab: ./dev lab shell (docs/LAB.md)"
        ),
    }
}

fn no_device(machine: &Machine, needed: bool) -> Finding {
    let topic = "RDMA device";
    let found = "none: /sys/class/infiniband is empty";
    if machine.has("/sys/module/rdma_rxe") {
        let netdev = machine.names("/sys/class/net").into_iter().find(|name| name != "lo").unwrap_or("eth0".to_owned());
        let advice = format!("rdma_rxe is loaded: rdma link add rxe0 type rxe netdev {netdev}");
        return Finding::lacking(topic, needed, found, advice);
    }
    let advice = format!("with no RDMA card, soft-RoCE over any Ethernet card: {}", load(machine, "rdma_rxe"));
    Finding::lacking(topic, needed, found, advice)
}

/// A GID with its index.
struct Gid {
    index: String,
    text: String,
    kind: String,
}

impl Gid {
    fn is_routable(&self) -> bool {
        self.kind.contains("v2") && !self.text.starts_with("fe80")
    }

    /// As people write it: an IPv4 address where it is one.
    fn shown(&self) -> String {
        let groups: Vec<u16> = self.text.split(':').filter_map(|group| u16::from_str_radix(group, 16).ok()).collect();
        let address: Option<[u16; 8]> = groups.try_into().ok();
        let text = address.map_or(self.text.clone(), |groups| std::net::Ipv6Addr::from(groups).to_string());
        format!("{}: {text} ({})", self.index, self.kind)
    }
}

fn gids(machine: &Machine, port: &str) -> Vec<Gid> {
    let indices = machine.names(&format!("{port}/gids"));
    let gid = |index: String| {
        let text = machine.text(&format!("{port}/gids/{index}")).filter(|text| text != NO_GID)?;
        let kind =
            machine.text(&format!("{port}/gid_attrs/types/{index}")).unwrap_or_else(|| "type unknown".to_owned());
        Some(Gid { index, text, kind })
    };
    indices.into_iter().take(GIDS_MAX).filter_map(gid).collect()
}

fn port_findings(machine: &Machine, needed: bool, device: &str, port: &str) -> Vec<Finding> {
    let name = format!("{device} port {port}");
    let folder = format!("/sys/class/infiniband/{device}/ports/{port}");
    let state = machine.text(&format!("{folder}/state")).unwrap_or_else(|| "unknown".to_owned());
    let netdev = machine.text(&format!("{folder}/gid_attrs/ndevs/0"));
    let link = if state.contains("ACTIVE") {
        let rate = machine.text(&format!("{folder}/rate")).unwrap_or_else(|| "rate unknown".to_owned());
        let over = netdev.as_ref().map(|netdev| format!(", over {netdev}")).unwrap_or_default();
        Finding::ok("RDMA device", format!("{name}: {state}, {rate}{over}"))
    } else {
        let advice = match &netdev {
            Some(netdev) => format!("ip link set {netdev} up; then: rdma link show {device}/{port}"),
            None => format!("plug the cable in; then: rdma link show {device}/{port}"),
        };
        Finding::lacking("RDMA device", needed, format!("{name}: {state}"), advice)
    };
    let mut findings = vec![link];
    let link_layer = machine.text(&format!("{folder}/link_layer")).unwrap_or_default();
    if link_layer == "InfiniBand" {
        return findings;
    }
    let gids = gids(machine, &folder);
    let shown: Vec<String> = gids.iter().map(Gid::shown).collect();
    let netdev_name = netdev.clone().unwrap_or_else(|| "the Ethernet device".to_owned());
    if gids.iter().any(Gid::is_routable) {
        findings.push(Finding::ok("GID table", format!("{name}: {}", shown.join("; "))));
    } else {
        let found = format!("{name}: no RoCE v2 GID of a routable address ({})", shown.join("; "));
        let advice = format!("give the Ethernet device an address: ip address add ADDRESS/24 dev {netdev_name}");
        findings.push(Finding::lacking("GID table", needed, found, advice));
    }
    let mtu = netdev.and_then(|netdev| machine.text(&format!("/sys/class/net/{netdev}/mtu"))?.parse().ok());
    if let Some(mtu) = mtu {
        findings.push(path_mtu(&name, &netdev_name, mtu));
    }
    findings
}

fn path_mtu(name: &str, netdev: &str, mtu: u32) -> Finding {
    let topic = "path MTU";
    let path = PATH_MTUS.into_iter().find(|path| path + ROCE_HEAD_BYTES <= mtu).unwrap_or(0);
    let found = format!("{name}: {path} bytes, by an MTU of {mtu} on {netdev}");
    if path == PATH_MTUS[0] {
        Finding::ok(topic, found)
    } else {
        Finding::warn(
            topic,
            found,
            format!("larger packets cost less: ip link set {netdev} mtu 9000 (on both ends and between)"),
        )
    }
}

fn memlock(machine: &Machine, needed: bool) -> Finding {
    let topic = "locked memory";
    let capabilities = machine.text("/proc/self/status").and_then(|status| {
        let word = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim().to_owned();
        u64::from_str_radix(&word, 16).ok()
    });
    if capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1) {
        return Finding::ok(topic, "not limited for this user (CAP_IPC_LOCK)");
    }
    match soft_limit(machine, "Max locked memory") {
        Some(u64::MAX) => Finding::ok(topic, "unlimited"),
        Some(limit) if limit >= MEMLOCK_BYTES_WANTED => Finding::ok(topic, format!("{} MiB", limit >> 20)),
        limit => {
            let found =
                limit.map_or("the limit can't be read".to_owned(), |limit| format!("{} KiB at most", limit >> 10));
            let advice = "registered memory counts: ulimit -l unlimited, LimitMEMLOCK=infinity in the service's unit, or \
                          '* - memlock unlimited' in /etc/security/limits.conf and a new login";
            Finding::lacking(topic, needed, found, advice)
        }
    }
}

fn rdma_ucm(machine: &Machine) -> Finding {
    if machine.has("/dev/infiniband/rdma_cm") {
        Finding::ok("rdma_ucm", "/dev/infiniband/rdma_cm")
    } else {
        // Never a failure: our queue pairs are joined without the connection manager.
        Finding::warn(
            "rdma_ucm",
            "no /dev/infiniband/rdma_cm",
            "penstock does without; perftest's -R and NVMe-oF tools need: modprobe rdma_ucm",
        )
    }
}

/// The first kernel whose verbs take a dma-buf.
const DMA_BUF_KERNEL: (u32, u32) = (5, 12);

fn dma_buf(machine: &Machine) -> Finding {
    let topic = "GPU memory";
    let kernel = machine.kernel();
    let mut numbers = kernel.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let gpu = machine.text("/sys/module/nvidia/version");
    let peer = machine.has("/sys/module/nvidia_peermem");
    match (gpu, version >= DMA_BUF_KERNEL) {
        (None, true) => Finding::ok(topic, "no NVIDIA driver here; the kernel's verbs take dma-bufs (5.12 and later)"),
        (None, false) => Finding::warn(
            topic,
            format!("kernel {kernel} has no dma-buf in verbs"),
            "for GPU memory a kernel of 5.12 or later is needed",
        ),
        (Some(driver), true) => Finding::ok(
            topic,
            format!("NVIDIA driver {driver}, kernel with dma-buf{}", if peer { ", nvidia_peermem loaded" } else { "" }),
        ),
        (Some(driver), false) if peer => Finding::ok(topic, format!("NVIDIA driver {driver} by nvidia_peermem")),
        (Some(driver), false) => {
            Finding::warn(topic, format!("NVIDIA driver {driver}, a kernel before 5.12"), "modprobe nvidia_peermem")
        }
    }
}
