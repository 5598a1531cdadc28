//! The lab on this machine's own kernel, where that has rdma_rxe: a veth pair with a device of its own, made for the time of
//! a run and removed after it. Programs run at full speed; nothing else is isolated, so only the topology `one` is offered.
//! (An rxe device's sockets live in the initial network namespace, whatever namespace its Ethernet device is in: guests that
//! can be cut off and killed need kernels of their own.)

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{LabError, Result};

/// The RDMA device's name.
pub(crate) const DEVICE: &str = "rxelab";
/// The Ethernet device that carries it.
const NETDEV: &str = "penlab0";
const PEER: &str = "penlab1";

/// The device; removed when dropped.
pub(crate) struct HostDevice(());

impl HostDevice {
    /// Whether this kernel has rdma_rxe, and this user may use it: otherwise what stands against it.
    pub(crate) fn obstacle() -> Option<String> {
        let loaded = Path::new("/sys/module/rdma_rxe").exists();
        if !loaded && !succeeds(&["modprobe", "--dry-run", "--quiet", "rdma_rxe"]) {
            return Some("this kernel has no rdma_rxe".to_owned());
        }
        (!rustix::process::geteuid().is_root()).then(|| "making an RDMA device needs root".to_owned())
    }

    /// Makes the device, with `address` on its Ethernet device.
    pub(crate) fn make(address: Ipv4Addr) -> Result<HostDevice> {
        if let Some(obstacle) = HostDevice::obstacle() {
            return Err(LabError::Setup(format!("{obstacle}: run the lab in a guest (--on guest)")));
        }
        // What an earlier lab left when it was killed.
        remove();
        let device = HostDevice(());
        let address = format!("{address}/24");
        let commands: [&[&str]; 7] = [
            &["modprobe", "--all", "rdma_rxe", "ib_uverbs"],
            &["ip", "link", "add", NETDEV, "mtu", "9000", "type", "veth", "peer", "name", PEER, "mtu", "9000"],
            &["ip", "link", "set", PEER, "up"],
            &["ip", "link", "set", NETDEV, "up"],
            &["ip", "address", "add", &address, "dev", NETDEV],
            &["rdma", "link", "add", DEVICE, "type", "rxe", "netdev", NETDEV],
            &["sh", "-c", WAIT_FOR_GID],
        ];
        for command in commands {
            if !succeeds(command) && command[0] != "modprobe" {
                return Err(LabError::Setup(format!("failed: {}", command.join(" "))));
            }
        }
        Ok(device)
    }
}

/// The GID of an IPv4 address appears a moment after the address.
const WAIT_FOR_GID: &str = "for _ in $(seq 30); do cat /sys/class/infiniband/rxelab/ports/1/gids/* 2>/dev/null | grep -q :ffff: && exit 0; \
                            sleep 0.1; done; exit 1";

impl Drop for HostDevice {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    succeeds(&["rdma", "link", "delete", DEVICE]);
    succeeds(&["ip", "link", "delete", NETDEV]);
}

fn succeeds(words: &[&str]) -> bool {
    let status = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
