//! `lab up`: guests that stay, for work by hand; `lab shell`, `lab run` and `lab down` find them by a socket.
//!
//! The process that is up owns the guests and relays: a client sends one [`Request`], then input for its program; it gets the
//! program's reports. A client that goes away has its program killed.

use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{LabError, OnPath, Result};
use crate::folders::Folders;
use crate::guest::{Control, Event, Program, Run};
use crate::lab::Lab;
use crate::protocol::{self, Ending, Order, Report};

/// Limit of a shell's life.
const SHELL_MAX_S: u64 = 24 * 3600;
const SIGKILL: i32 = 9;
/// Bytes of typing in one frame at most.
const TYPED_BYTES_MAX: usize = 4096;
/// One program per connection: its number says nothing.
const ID_ON_SOCKET: u32 = 0;

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// A program run in a guest (the first guest, if none is named).
    Start { guest: Option<String>, command: protocol::Command },
    /// All guests switched off, and the end of `lab up`.
    Down,
}

fn socket(folders: &Folders) -> PathBuf {
    folders.logs.with_file_name("up.socket")
}

/// A connection to the lab that is up, if one is.
pub(crate) fn connect(folders: &Folders) -> Option<UnixStream> {
    UnixStream::connect(socket(folders)).ok()
}

/// Serves clients until one says [`Request::Down`].
pub(crate) fn serve(lab: Lab, folders: &Folders) -> Result<()> {
    let path = socket(folders);
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).on(&path)?;
    for client in listener.incoming().filter_map(std::result::Result::ok) {
        match protocol::read::<Request>(&mut &client) {
            Ok(Some(Request::Down)) => {
                std::fs::remove_file(&path).on(&path)?;
                lab.power_off();
                return Ok(());
            }
            Ok(Some(Request::Start { guest, command })) => {
                if let Err(error) = start(&lab, guest.as_deref(), &command, &client) {
                    let refusal = Report::Ended(ID_ON_SOCKET, Ending::NotStarted(error.to_string()));
                    let _ = protocol::write(&mut &client, &refusal);
                }
            }
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}

fn start(lab: &Lab, guest: Option<&str>, command: &protocol::Command, client: &UnixStream) -> Result<()> {
    let protocol::Command { argv, variables, folder, limit_s, wants_input, .. } = command;
    let program = Program { argv, variables, folder, limit_s: *limit_s, wants_input: *wants_input };
    let first = lab.names().next().unwrap_or_default();
    let run = lab.launch(guest.unwrap_or(first), program)?;
    let mut from_client = client.try_clone().on(Path::new("a client"))?;
    let mut to_client = client.try_clone().on(Path::new("a client"))?;
    let control = run.control.clone();
    std::thread::spawn(move || {
        while let Ok(Some(Order::Input(_, bytes))) = protocol::read(&mut from_client) {
            let _ = control.input(&bytes);
        }
        let _ = control.signal(SIGKILL);
    });
    std::thread::spawn(move || {
        loop {
            let (report, is_end) = match run.next() {
                Ok(Event::Output(stream, bytes)) => (Report::Output(ID_ON_SOCKET, stream, bytes), false),
                Ok(Event::Ended(ending)) => (Report::Ended(ID_ON_SOCKET, ending), true),
                Err(error) => (Report::Ended(ID_ON_SOCKET, Ending::NotStarted(error.to_string())), true),
            };
            if protocol::write(&mut to_client, &report).is_err() || is_end {
                let _ = to_client.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    });
    Ok(())
}

/// Runs a program in the lab that is up; its output goes where this process's goes.
pub(crate) fn run_in(mut lab: UnixStream, guest: Option<&str>, program: Program<'_>) -> Result<Ending> {
    let Program { argv, variables, folder, limit_s, wants_input } = program;
    let command = protocol::Command {
        id: ID_ON_SOCKET,
        argv: argv.to_vec(),
        variables: variables.to_vec(),
        folder: folder.to_owned(),
        limit_s,
        wants_input,
    };
    let gone = |_| LabError::Setup("the lab that was up has gone".to_owned());
    protocol::write(&mut lab, &Request::Start { guest: guest.map(str::to_owned), command }).map_err(gone)?;
    if wants_input {
        let mut to_lab = lab.try_clone().on(Path::new("the lab that is up"))?;
        type_into(move |bytes| protocol::write(&mut to_lab, &Order::Input(ID_ON_SOCKET, bytes)).is_ok());
    }
    loop {
        match protocol::read(&mut lab).map_err(gone)? {
            Some(Report::Output(_, stream, bytes)) => crate::guest::show(stream, &bytes),
            Some(Report::Ended(_, ending)) => return Ok(ending),
            Some(Report::Ready { .. }) => {}
            None => return Err(LabError::Setup("the lab that was up has gone".to_owned())),
        }
    }
}

/// Ends the lab that is up.
pub(crate) fn down(folders: &Folders) -> Result<()> {
    let Some(mut lab) = connect(folders) else {
        eprintln!("lab: none is up");
        return Ok(());
    };
    protocol::write(&mut lab, &Request::Down).on(&socket(folders))?;
    // The other end closes when it is done.
    let _ = lab.read(&mut [0]);
    Ok(())
}

/// Passes what is typed here to `take`, on a thread, until it takes no more.
fn type_into(mut take: impl FnMut(Vec<u8>) -> bool + Send + 'static) {
    std::thread::spawn(move || {
        let mut typed = [0; TYPED_BYTES_MAX];
        loop {
            match std::io::stdin().read(&mut typed) {
                Ok(count) if take(typed[..count].to_vec()) && count > 0 => {}
                _ => break,
            }
        }
    });
}

/// What runs a shell with a terminal in a guest.
pub(crate) fn shell_argv() -> Vec<String> {
    ["script", "-qefc", "exec bash -i", "/dev/null"].map(str::to_owned).to_vec()
}

/// Limits of a shell.
pub(crate) fn shell_program<'a>(argv: &'a [String], variables: &'a [(String, String)], folder: &'a str) -> Program<'a> {
    Program { argv, variables, folder, limit_s: SHELL_MAX_S, wants_input: true }
}

/// Joins this process's standard input to a program's.
pub(crate) fn type_into_run(run: &Run) {
    let control: Control = run.control.clone();
    type_into(move |bytes| control.input(&bytes).is_ok());
}

/// The terminal passes every key on at once while this lives.
pub(crate) struct RawTerminal(bool);

impl RawTerminal {
    /// Changes the terminal, if there is one.
    pub(crate) fn enter() -> RawTerminal {
        use std::io::IsTerminal as _;
        let is_terminal = std::io::stdin().is_terminal();
        if is_terminal {
            stty(&["raw", "-echo"]);
        }
        RawTerminal(is_terminal)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if self.0 {
            stty(&["sane"]);
        }
    }
}

fn stty(arguments: &[&str]) {
    let _ = Command::new("stty").args(arguments).stdin(Stdio::inherit()).status();
}
