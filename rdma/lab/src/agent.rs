//! The program in a guest that does what the lab orders: it runs programs and reports what they say and how they end.
//! It is process 1 there. When the control channel closes, the lab is gone, and the agent switches the power off. On the
//! host's own kernel (host.rs) it is a process like others, and just ends.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::protocol::{self, Command, Ending, OUTPUT_BYTES_MAX, Order, Report, Stream};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long output may trickle in after a program's end from what it left running.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Where `init` writes what went wrong.
const TROUBLE: &str = "/run/lab/trouble";

/// A program that runs.
struct Running {
    group: Pid,
    input: Option<ChildStdin>,
}

type Shared<T> = Arc<Mutex<T>>;

/// Where reports go.
type Sink = Box<dyn Write + Send>;

/// Serves orders from `channel`, a device or a socket, until it closes.
pub(crate) fn serve(channel: &Path) -> std::io::Result<()> {
    if std::fs::metadata(channel)?.file_type().is_socket() {
        let orders = UnixStream::connect(channel)?;
        let reports = orders.try_clone()?;
        obey(orders, Box::new(reports))
    } else {
        let orders = OpenOptions::new().read(true).write(true).open(channel)?;
        let reports = orders.try_clone()?;
        obey(orders, Box::new(reports))
    }
}

fn obey(mut orders: impl Read, reports: Sink) -> std::io::Result<()> {
    let reports = Arc::new(Mutex::new(reports));
    let running: Shared<HashMap<u32, Running>> = Shared::default();
    let trouble =
        if std::process::id() == 1 { std::fs::read_to_string(TROUBLE).unwrap_or_default() } else { String::new() };
    report(&reports, &Report::Ready { trouble: trouble.trim().to_owned() });
    while let Some(order) = protocol::read(&mut orders)? {
        match order {
            Order::Start(command) => start(command, &running, &reports),
            Order::Input(id, bytes) => feed(&running, id, &bytes),
            Order::Signal(id, number) => {
                if let (Some(program), Some(signal)) = (lock(&running).get(&id), Signal::from_named_raw(number)) {
                    let _ = kill_process_group(program.group, signal);
                }
            }
            Order::PowerOff => break,
        }
    }
    for program in lock(&running).values() {
        let _ = kill_process_group(program.group, Signal::KILL);
    }
    power_off();
    Ok(())
}

/// Ends what this agent lives in, if that is a guest: flushes the disks and switches off through the kernel's SysRq, which needs no program in the guest.
pub(crate) fn power_off() {
    if std::process::id() != 1 {
        return;
    }
    rustix::fs::sync();
    let _ = std::fs::write("/proc/sysrq-trigger", "u");
    let _ = std::fs::write("/proc/sysrq-trigger", "o");
    // The kernel does it in the background; process 1 must not end before.
    std::thread::sleep(Duration::from_secs(5));
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(to: &Mutex<Sink>, message: &Report) {
    // A lab that no longer listens has closed the channel: the reading side notices.
    let _ = protocol::write(&mut *lock(to), message);
}

fn feed(running: &Mutex<HashMap<u32, Running>>, id: u32, bytes: &[u8]) {
    let mut running = lock(running);
    let Some(program) = running.get_mut(&id) else { return };
    if bytes.is_empty() {
        program.input = None;
    } else if let Some(input) = &mut program.input
        && input.write_all(bytes).and_then(|()| input.flush()).is_err()
    {
        program.input = None;
    }
}

fn start(command: Command, running: &Shared<HashMap<u32, Running>>, reports: &Shared<Sink>) {
    let id = command.id;
    let mut child = match spawn(&command) {
        Ok(child) => child,
        Err(error) => {
            let program = command.argv.first().map_or("", String::as_str);
            report(reports, &Report::Ended(id, Ending::NotStarted(format!("{program}: {error}"))));
            return;
        }
    };
    let group = Pid::from_child(&child);
    let input = child.stdin.take();
    lock(running).insert(id, Running { group, input });
    let outputs = [
        child.stdout.take().map(|out| copy(out, id, Stream::Out, reports)),
        child.stderr.take().map(|err| copy(err, id, Stream::Err, reports)),
    ];
    let (running, reports) = (Arc::clone(running), Arc::clone(reports));
    std::thread::spawn(move || {
        let ending = wait(&mut child, group, Duration::from_secs(command.limit_s));
        lock(&running).remove(&id);
        let deadline = Instant::now() + DRAIN_MAX;
        while outputs.iter().flatten().any(|copier| !copier.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        report(&reports, &Report::Ended(id, ending));
    });
}

fn spawn(command: &Command) -> std::io::Result<Child> {
    let [program, arguments @ ..] = command.argv.as_slice() else {
        return Err(std::io::Error::other("no program given"));
    };
    std::process::Command::new(program)
        .args(arguments)
        .envs(command.variables.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.folder)
        .stdin(if command.wants_input { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

fn copy(
    mut from: impl Read + Send + 'static,
    id: u32,
    stream: Stream,
    reports: &Shared<Sink>,
) -> std::thread::JoinHandle<()> {
    let reports = Arc::clone(reports);
    std::thread::spawn(move || {
        let mut piece = vec![0; OUTPUT_BYTES_MAX];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            report(&reports, &Report::Output(id, stream, piece[..count].to_vec()));
        }
    })
}

fn wait(child: &mut Child, group: Pid, limit: Duration) -> Ending {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return ending(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) => {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                return Ending::TimedOut;
            }
            Err(error) => return Ending::NotStarted(error.to_string()),
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Exit(255),
    }
}
