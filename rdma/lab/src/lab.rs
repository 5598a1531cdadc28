//! A topology, booted.

use crate::error::{LabError, OnPath, Result};
use crate::folders::Folders;
use crate::guest::{Booting, Guest, Settings};
use crate::initramfs;
use crate::kernel::Kernel;
use crate::topology::Topology;

/// How big guests are, and how long they may live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Memory per guest in MiB.
    pub(crate) memory_mib: u32,
    /// Emulated CPUs per guest.
    pub(crate) cpus: u32,
    /// Every guest switches itself off after so many seconds.
    pub(crate) limit_s: u64,
}

/// Running guests. Dropping it kills them all.
pub(crate) struct Lab {
    guests: Vec<Guest>,
}

impl Lab {
    /// Boots all guests of a topology and waits until each has its RDMA device. Must be called on a thread that lives as
    /// long as the lab.
    pub(crate) fn boot(folders: &Folders, topology: Topology, size: Size) -> Result<Lab> {
        let kernel = Kernel::obtain(&folders.kernels)?;
        let initramfs = folders.run.join("initramfs");
        std::fs::write(&initramfs, initramfs::build(&kernel)?).on(&initramfs)?;
        let roles = topology.roles();
        let settings = Settings {
            image: kernel.image,
            initramfs,
            run: folders.run.clone(),
            logs: folders.logs.clone(),
            memory_mib: size.memory_mib,
            cpus: size.cpus,
            limit_s: size.limit_s,
            hosts: roles.iter().map(|role| (role.name.clone(), role.address)).collect(),
            switch_port: None,
        };
        let booting: Vec<Booting> = roles.iter().map(|role| Booting::start(role, &settings)).collect::<Result<_>>()?;
        let guests = booting.into_iter().map(Booting::ready).collect::<Result<_>>()?;
        Ok(Lab { guests })
    }

    /// The guest called `name`.
    pub(crate) fn guest(&self, name: &str) -> Result<&Guest> {
        self.guests.iter().find(|guest| guest.role.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.guests.iter().map(|guest| guest.role.name.as_str()).collect();
            LabError::Setup(format!("there is no guest '{name}': {}", names.join(", ")))
        })
    }
}
