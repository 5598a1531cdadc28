//! A topology, booted, and what tests can do to it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{LabError, OnPath, Result};
use crate::folders::Folders;
use crate::guest::{Booting, Guest, Program, Run, Settings};
use crate::host::{self, HostDevice};
use crate::initramfs;
use crate::kernel::Kernel;
use crate::switch::Switch;
use crate::task::Task;
use crate::topology::Topology;

/// How long small commands (`tc`, `ip`) may take in a guest.
pub(crate) const SMALL_COMMAND_MAX_S: u64 = 30;

/// How big guests are, and how long they may live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Memory per guest in MiB.
    pub(crate) memory_mib: u32,
    /// The same of a guest without a disk: a cluster's client, which has whole objects in memory.
    pub(crate) client_memory_mib: u32,
    /// Emulated CPUs per guest.
    pub(crate) cpus: u32,
    /// Every guest switches itself off after so many seconds.
    pub(crate) limit_s: u64,
}

/// Where a lab runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum On {
    /// On this machine's own kernel where that can be, else in guests.
    Auto,
    /// On this machine's own kernel; topology `one` alone.
    Host,
    /// In guests.
    Guest,
}

/// Running guests. Dropping it kills them all.
pub(crate) struct Lab {
    // Guests end before the device is removed.
    guests: Vec<Guest>,
    _host_device: Option<HostDevice>,
    settings: Settings,
    switch: Option<Switch>,
    next_log: AtomicU32,
}

impl Lab {
    /// Boots all guests of a topology and waits until each has its RDMA device. Must be called on a thread that lives as
    /// long as the lab.
    pub(crate) fn boot(folders: &Folders, topology: Topology, size: Size, on: On) -> Result<Lab> {
        let roles = topology.roles();
        let on_host = match on {
            On::Guest => false,
            On::Auto => !topology.is_joined() && HostDevice::obstacle().is_none(),
            On::Host if topology.is_joined() => {
                return Err(LabError::Setup(format!("{topology} needs guests: one kernel can't be several machines")));
            }
            On::Host => true,
        };
        folders.empty_run()?;
        let (image, initramfs) = if on_host {
            eprintln!("lab: on this machine's own kernel");
            (PathBuf::new(), PathBuf::new())
        } else {
            let kernel = Kernel::obtain(&folders.kernels)?;
            let initramfs = folders.run.join("initramfs");
            std::fs::write(&initramfs, initramfs::build(&kernel)?).on(&initramfs)?;
            (kernel.image, initramfs)
        };
        let host_device = on_host.then(|| HostDevice::make(roles[0].address)).transpose()?;
        let switch = topology.is_joined().then(Switch::start).transpose()?;
        let settings = Settings {
            on_host,
            image,
            initramfs,
            run: folders.run.clone(),
            logs: folders.logs.clone(),
            memory_mib: size.memory_mib,
            client_memory_mib: size.client_memory_mib,
            cpus: size.cpus,
            limit_s: size.limit_s,
            hosts: roles.iter().map(|role| (role.name.clone(), role.address)).collect(),
            switch_port: switch.as_ref().map(Switch::port),
        };
        let booting: Vec<Booting> = roles.iter().map(|role| Booting::start(role, &settings)).collect::<Result<_>>()?;
        let guests = booting.into_iter().map(Booting::ready).collect::<Result<_>>()?;
        Ok(Lab { guests, _host_device: host_device, settings, switch, next_log: AtomicU32::new(1) })
    }

    /// The name of the RDMA device, the same in all guests.
    pub(crate) fn device(&self) -> &'static str {
        if self.settings.on_host { host::DEVICE } else { "rxe0" }
    }

    /// Where programs may write: the guests' disk.
    pub(crate) fn data_folder(&self) -> String {
        if self.settings.on_host { std::env::temp_dir().display().to_string() } else { "/data".to_owned() }
    }

    /// The guest called `name`.
    pub(crate) fn guest(&self, name: &str) -> Result<&Guest> {
        self.guests.iter().find(|guest| guest.role.name == name).ok_or_else(|| self.no_guest(name))
    }

    fn no_guest(&self, name: &str) -> LabError {
        LabError::Setup(format!("there is no guest '{name}': {}", self.names().collect::<Vec<_>>().join(", ")))
    }

    /// The names of all guests that run.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.guests.iter().map(|guest| guest.role.name.as_str())
    }

    /// A guest's address on the network between guests.
    pub(crate) fn address(&self, name: &str) -> Result<Ipv4Addr> {
        Ok(self.guest(name)?.role.address)
    }

    /// Starts a program with full control over its input and output.
    pub(crate) fn launch(&self, guest: &str, program: Program<'_>) -> Result<Run> {
        self.guest(guest)?.start(program)
    }

    /// Starts a program in the background; its output goes to a log of its own.
    pub(crate) fn start(&self, guest: &str, argv: &[&str], limit_s: u64) -> Result<Task> {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let program = Program { argv: &argv, variables: &[], folder: "/", limit_s, wants_input: false };
        let base = argv[0].rsplit('/').next().unwrap_or_default();
        let number = self.next_log.fetch_add(1, Ordering::Relaxed);
        let log = self.settings.logs.join(format!("{number:03}-{guest}-{base}.log"));
        let run = self.launch(guest, program)?;
        Task::watch(run, &format!("{guest}: {}", argv.join(" ")), &log, limit_s)
    }

    /// Runs a program to its end, which must be a good one, and gives its standard output.
    pub(crate) fn run(&self, guest: &str, argv: &[&str], limit_s: u64) -> Result<String> {
        self.start(guest, argv, limit_s)?.finish()
    }

    /// Runs a shell's command line to its end, which must be a good one, and gives its standard output.
    pub(crate) fn shell(&self, guest: &str, line: &str) -> Result<String> {
        self.run(guest, &["sh", "-c", line], SMALL_COMMAND_MAX_S)
    }

    /// Takes the power from a guest. What runs there fails; its disk keeps what was flushed.
    pub(crate) fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.guests.iter().position(|guest| guest.role.name == name).ok_or_else(|| self.no_guest(name))?;
        self.guests.remove(at).kill();
        Ok(())
    }

    /// Boots a guest that was killed, with its disk as it is.
    pub(crate) fn revive(&mut self, topology: Topology, name: &str) -> Result<()> {
        let roles = topology.roles();
        let role = roles.iter().find(|role| role.name == name).ok_or_else(|| self.no_guest(name))?;
        let guest = Booting::start(role, &self.settings)?.ready()?;
        self.guests.push(guest);
        Ok(())
    }

    /// Makes a guest's outgoing network bad, by `tc netem`: `loss 1%`, `delay 10ms`; `""` makes it good again.
    pub(crate) fn netem(&self, guest: &str, trouble: &str) -> Result<()> {
        let line = if trouble.is_empty() {
            "tc qdisc del dev lab0 root".to_owned()
        } else {
            format!("tc qdisc replace dev lab0 root netem limit 10000 {trouble}")
        };
        self.shell(guest, &line).map(drop)
    }

    /// Frames that the network between guests dropped on its own, because a guest did not keep up.
    pub(crate) fn dropped_frames(&self) -> u64 {
        self.switch.as_ref().map_or(0, Switch::dropped_frames)
    }

    /// Switches all guests off in order.
    pub(crate) fn power_off(self) {
        for guest in self.guests {
            guest.power_off();
        }
    }
}
