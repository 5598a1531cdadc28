//! One guest: a QEMU process, its control channel, and the commands that run in it.
//!
//! QEMU dies with this process however that ends (`setpriv --pdeathsig`), the guest switches itself off after the lab's
//! limit, and dropping a [`Guest`] kills it. A guest that dies fails the commands that run in it at once, with the end of
//! its console.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{LabError, OnPath, Result};
use crate::protocol::{self, Ending, Order, Report, Stream};
use crate::topology::Role;

/// How long a guest may take from power on until its agent reports, with other guests booting beside it on two cores.
const BOOT_MAX_S: u64 = 180;
/// How much longer the lab waits than the agent, which kills a program at its limit.
const AGENT_GRACE: Duration = Duration::from_secs(5);
/// How long an orderly switch-off may take.
const POWER_OFF_MAX: Duration = Duration::from_secs(4);
/// Lines of the console in the message about a dead guest.
const CONSOLE_LINES: usize = 15;
const POLL: Duration = Duration::from_millis(10);
/// Size of a guest's disk; the file is sparse.
const DISK_BYTES: u64 = 2 << 30;

/// What all guests of a lab have in common.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// No guest at all: the programs run on this machine's own kernel.
    pub(crate) on_host: bool,
    /// The kernel's image.
    pub(crate) image: PathBuf,
    /// The initramfs.
    pub(crate) initramfs: PathBuf,
    /// Sockets and disks.
    pub(crate) run: PathBuf,
    /// Consoles.
    pub(crate) logs: PathBuf,
    /// Memory per guest in MiB.
    pub(crate) memory_mib: u32,
    /// The same of a guest without a disk.
    pub(crate) client_memory_mib: u32,
    /// Emulated CPUs per guest.
    pub(crate) cpus: u32,
    /// A guest switches itself off after so many seconds.
    pub(crate) limit_s: u64,
    /// Names and addresses of all guests.
    pub(crate) hosts: Vec<(String, Ipv4Addr)>,
    /// The port of the switch that joins the guests; without it a guest has a veth pair of its own.
    pub(crate) switch_port: Option<u16>,
}

/// What a program said, piece by piece, and how it ended.
#[derive(Debug)]
pub(crate) enum Event {
    /// Output.
    Output(Stream, Vec<u8>),
    /// The end; nothing comes after it.
    Ended(Ending),
}

type Listeners = Arc<Mutex<HashMap<u32, Sender<Event>>>>;

/// A running guest.
pub(crate) struct Guest {
    /// Its role.
    pub(crate) role: Role,
    process: Child,
    line: Arc<Line>,
}

/// The control channel's end in the lab.
struct Line {
    name: String,
    orders: Mutex<UnixStream>,
    listeners: Listeners,
    console: PathBuf,
    next_id: AtomicU32,
}

/// A guest on its way up.
pub(crate) struct Booting {
    role: Role,
    process: Child,
    listener: UnixListener,
    console: PathBuf,
    started: Instant,
}

impl Booting {
    /// Starts QEMU. Must be called on a thread that lives as long as the guest: the guest dies with it.
    pub(crate) fn start(role: &Role, settings: &Settings) -> Result<Booting> {
        let socket = settings.run.join(format!("{}.control", role.name));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).on(&socket)?;
        listener.set_nonblocking(true).on(&socket)?;
        let console = settings.logs.join(format!("{}.console", role.name));
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"]);
        if settings.on_host {
            qemu.arg(this_program()?).arg("agent").arg(&socket);
        } else {
            qemu.arg("qemu-system-x86_64").args(arguments(role, settings, &socket, &console)?);
        }
        let errors_path = settings.logs.join(format!("{}.qemu", role.name));
        let errors = std::fs::File::create(&errors_path).on(&errors_path)?;
        let process = qemu
            .stdin(Stdio::null())
            .stdout(errors.try_clone().on(&errors_path)?)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| LabError::Setup(format!("setpriv (util-linux): {error}")))?;
        Ok(Booting { role: role.clone(), process, listener, console, started: Instant::now() })
    }

    /// Waits for the guest's agent.
    pub(crate) fn ready(mut self) -> Result<Guest> {
        let stream = self.connect().inspect_err(|_| kill(&mut self.process))?;
        Guest::new(self, stream)
    }

    fn connect(&mut self) -> Result<UnixStream> {
        let deadline = self.started + Duration::from_secs(BOOT_MAX_S);
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(self.broken(&format!("its control channel: {error}")));
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                let said = std::fs::read_to_string(self.console.with_extension("qemu")).unwrap_or_default();
                return Err(self.broken(&format!("QEMU ended at once ({status}): {}", said.trim())));
            }
            if Instant::now() > deadline {
                return Err(self.late());
            }
            std::thread::sleep(POLL);
        };
        let prepared = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(deadline.saturating_duration_since(Instant::now()) + POLL)));
        prepared.map_err(|error| self.broken(&format!("its control channel: {error}")))?;
        match protocol::read(&mut &stream) {
            Ok(Some(Report::Ready { trouble })) if trouble.is_empty() => Ok(stream),
            Ok(Some(Report::Ready { trouble })) => Err(self.broken(&trouble)),
            Ok(Some(other)) => Err(self.broken(&format!("its agent begins with {other:?}"))),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Err(self.late())
            }
            Ok(None) | Err(_) => Err(self.broken("it died while booting")),
        }
    }

    fn late(&self) -> LabError {
        eprintln!("{}", console_end(&self.console));
        LabError::TimedOut { what: format!("the boot of guest {}", self.role.name), limit_s: BOOT_MAX_S }
    }

    fn broken(&self, what: &str) -> LabError {
        LabError::Guest { name: self.role.name.clone(), what: format!("{what}\n{}", console_end(&self.console)) }
    }
}

fn this_program() -> Result<PathBuf> {
    std::env::current_exe().on(Path::new("/proc/self/exe"))
}

fn arguments(role: &Role, settings: &Settings, socket: &Path, console: &Path) -> Result<Vec<String>> {
    let agent = this_program()?;
    let hosts: Vec<String> = settings.hosts.iter().map(|(name, address)| format!("{address}={name}")).collect();
    let network = if settings.switch_port.is_some() { "switch" } else { "veth" };
    let words = [
        "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on mitigations=off audit=0 apparmor=0 nowatchdog \
         rcupdate.rcu_expedited=1"
            .to_owned(),
        format!("lab.name={} lab.network={network} lab.address={}", role.name, role.address),
        format!("lab.disk={} lab.limit_s={}", u8::from(role.has_disk), settings.limit_s),
        format!("lab.agent={} lab.hosts={}", agent.display(), hosts.join(",")),
    ];
    let mut list: Vec<String> = "-nodefaults -no-user-config -no-reboot -display none -accel tcg,thread=multi -cpu max"
        .split(' ')
        .map(str::to_owned)
        .collect();
    let mut add = |option: &str, value: String| list.extend([option.to_owned(), value]);
    let memory_mib = if role.has_disk { settings.memory_mib } else { settings.client_memory_mib };
    add("-m", memory_mib.to_string());
    add("-smp", settings.cpus.to_string());
    add("-kernel", settings.image.display().to_string());
    add("-initrd", settings.initramfs.display().to_string());
    add("-append", words.join(" "));
    add("-serial", format!("file:{}", console.display()));
    add("-device", "virtio-serial-pci".to_owned());
    add("-chardev", format!("socket,id=control,path={}", socket.display()));
    add("-device", "virtserialport,chardev=control,name=penstock".to_owned());
    add("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap".to_owned());
    if let Some(port) = settings.switch_port {
        add("-netdev", format!("socket,id=net,connect=127.0.0.1:{port}"));
        let last = role.address.octets()[3];
        add("-device", format!("virtio-net-pci,netdev=net,host_mtu=9000,mac=52:54:00:77:00:{last:02x},romfile="));
    }
    if role.has_disk {
        let disk = settings.run.join(format!("{}.disk", role.name));
        if !disk.exists() {
            make_disk(&disk)?;
        }
        add("-drive", format!("file={},if=none,id=disk,format=raw", disk.display()));
        add("-device", format!("nvme,drive=disk,serial={}", role.name));
    }
    Ok(list)
}

fn make_disk(path: &Path) -> Result<()> {
    let file = std::fs::File::create(path).on(path)?;
    file.set_len(DISK_BYTES).on(path)?;
    let options = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    let status = Command::new("/sbin/mke2fs").args(options).arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(LabError::Setup(format!("mke2fs {}: {status}", path.display()))),
        Err(error) => Err(LabError::Setup(format!("/sbin/mke2fs: {error}; run: apt-get install e2fsprogs"))),
    }
}

fn console_end(console: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
    format!("the end of {}:\n{last}", console.display())
}

fn kill(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

impl Line {
    fn order(&self, order: &Order) -> Result<()> {
        protocol::write(&mut *lock(&self.orders), order).map_err(|_| self.died())
    }

    fn died(&self) -> LabError {
        LabError::Guest { name: self.name.clone(), what: format!("it died\n{}", console_end(&self.console)) }
    }
}

impl Guest {
    fn new(booting: Booting, stream: UnixStream) -> Result<Guest> {
        let Booting { role, process, console, .. } = booting;
        let listeners = Listeners::default();
        let orders = stream.try_clone().on(Path::new("the control channel"))?;
        stream.set_read_timeout(None).on(Path::new("the control channel"))?;
        let of_thread = Arc::clone(&listeners);
        std::thread::spawn(move || distribute(stream, &of_thread));
        let line = Line {
            name: role.name.clone(),
            orders: Mutex::new(orders),
            listeners,
            console,
            next_id: AtomicU32::new(1),
        };
        Ok(Guest { role, process, line: Arc::new(line) })
    }

    /// Starts a program.
    pub(crate) fn start(&self, program: Program<'_>) -> Result<Run> {
        let Program { argv, variables, folder, limit_s, wants_input } = program;
        let id = self.line.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = channel();
        lock(&self.line.listeners).insert(id, sender);
        let (argv, variables, folder) = (argv.to_vec(), variables.to_vec(), folder.to_owned());
        let command = protocol::Command { id, argv, variables, folder, limit_s, wants_input };
        let deadline = Instant::now() + Duration::from_secs(limit_s) + AGENT_GRACE;
        let what = command.argv.first().cloned().unwrap_or_default();
        self.line.order(&Order::Start(command))?;
        Ok(Run { control: Control { line: Arc::clone(&self.line), id }, events, deadline, limit_s, what })
    }

    /// The power goes: nothing is flushed, nobody is told.
    pub(crate) fn kill(&mut self) {
        kill(&mut self.process);
    }

    /// Flushes disks and switches off; kills what does not listen.
    pub(crate) fn power_off(mut self) {
        if self.line.order(&Order::PowerOff).is_ok() {
            let deadline = Instant::now() + POWER_OFF_MAX;
            while Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands a guest's reports to those who wait for them; ends with the guest, and then nobody waits any longer.
fn distribute(mut stream: UnixStream, listeners: &Listeners) {
    while let Ok(Some(report)) = protocol::read(&mut stream) {
        let mut listeners = lock(listeners);
        match report {
            Report::Output(id, which, bytes) => {
                if let Some(listener) = listeners.get(&id) {
                    let _ = listener.send(Event::Output(which, bytes));
                }
            }
            Report::Ended(id, ending) => {
                if let Some(listener) = listeners.remove(&id) {
                    let _ = listener.send(Event::Ended(ending));
                }
            }
            Report::Ready { .. } => break,
        }
    }
    lock(listeners).clear();
}

/// A program to run in a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a> {
    /// Program and arguments.
    pub(crate) argv: &'a [String],
    /// Variables for it.
    pub(crate) variables: &'a [(String, String)],
    /// Folder to run in.
    pub(crate) folder: &'a str,
    /// Killed after so many seconds.
    pub(crate) limit_s: u64,
    /// Whether it will be given input.
    pub(crate) wants_input: bool,
}

/// Input and signals for a program that runs.
#[derive(Clone)]
pub(crate) struct Control {
    line: Arc<Line>,
    id: u32,
}

impl Control {
    /// Gives the program input; nothing ends it.
    pub(crate) fn input(&self, bytes: &[u8]) -> Result<()> {
        self.line.order(&Order::Input(self.id, bytes.to_vec()))
    }

    /// Sends a signal to the program and to what it has started.
    pub(crate) fn signal(&self, number: i32) -> Result<()> {
        self.line.order(&Order::Signal(self.id, number))
    }
}

/// A program that runs in a guest.
pub(crate) struct Run {
    /// Its input and signals.
    pub(crate) control: Control,
    events: Receiver<Event>,
    deadline: Instant,
    limit_s: u64,
    what: String,
}

impl Run {
    /// The next thing the program says. After [`Event::Ended`] this must not be called again.
    pub(crate) fn next(&self) -> Result<Event> {
        let line = &self.control.line;
        match self.events.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Ok(event),
            Err(RecvTimeoutError::Disconnected) => Err(line.died()),
            Err(RecvTimeoutError::Timeout) => {
                let what = format!("{} in {} (which no longer answers)", self.what, line.name);
                Err(LabError::TimedOut { what, limit_s: self.limit_s })
            }
        }
    }

    /// Waits for the end, with the output going where this process's goes.
    pub(crate) fn stream(&self) -> Result<Ending> {
        loop {
            match self.next()? {
                Event::Output(stream, bytes) => show(stream, &bytes),
                Event::Ended(ending) => return Ok(ending),
            }
        }
    }
}

/// Writes a program's output where this process's goes. A reader that has gone is no reason to end.
pub(crate) fn show(stream: Stream, bytes: &[u8]) {
    let _ = match stream {
        Stream::Out => {
            let mut out = std::io::stdout();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Err => std::io::stderr().write_all(bytes),
    };
}
