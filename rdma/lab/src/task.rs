//! A program in a guest as tests see it: it writes a log, can be waited for, watched and stopped.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{LabError, OnPath, Result};
use crate::guest::{Control, Event, Run};
use crate::protocol::{Ending, Stream};

/// Bytes of standard output that are kept for the test to read; the log has all of it.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Lines of a failed program's log in the test's message.
const LOG_LINES: usize = 25;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// How long a stopped program may take to end before it is killed.
const STOP_MAX_S: u64 = 10;

#[derive(Default)]
struct State {
    out: Vec<u8>,
    end: Option<Result<Ending>>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A program that runs, or ran.
pub(crate) struct Task {
    name: String,
    log: PathBuf,
    control: Control,
    shared: Shared,
    limit_s: u64,
}

impl Task {
    /// Watches over `run`, which is called `name`, and writes what it says to `log`.
    pub(crate) fn watch(run: Run, name: &str, log: &Path, limit_s: u64) -> Result<Task> {
        let mut file = File::create(log).on(log)?;
        let shared = Shared::default();
        let control = run.control.clone();
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            loop {
                let event = run.next();
                let (state, changed) = &*of_thread;
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Output(stream, bytes)) => {
                        let _ = file.write_all(&bytes);
                        if stream == Stream::Out && state.out.len() < KEPT_BYTES_MAX {
                            state.out.extend_from_slice(&bytes);
                        }
                    }
                    Ok(Event::Ended(ending)) => state.end = Some(Ok(ending)),
                    Err(error) => state.end = Some(Err(error)),
                }
                changed.notify_all();
                if state.end.is_some() {
                    break;
                }
            }
        });
        Ok(Task { name: name.to_owned(), log: log.to_owned(), control, shared, limit_s })
    }

    /// Waits until `wanted` finds something, the program ends, or time is up.
    fn wait_until<T>(&self, limit_s: u64, wanted: impl Fn(&mut State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + Duration::from_secs(limit_s);
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = wanted(&mut state) {
                return Ok(found);
            }
            if state.end.is_some() {
                return Err(self.failed("it ended too early"));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                eprintln!("{}", self.log_end());
                return Err(LabError::TimedOut { what: self.name.clone(), limit_s });
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the program has written `text` to its standard output.
    pub(crate) fn wait_for(&self, text: &str, limit_s: u64) -> Result<()> {
        self.wait_until(limit_s, |state| String::from_utf8_lossy(&state.out).contains(text).then_some(()))
    }

    /// What it has written to its standard output so far.
    pub(crate) fn said(&self) -> String {
        let (state, _) = &*self.shared;
        String::from_utf8_lossy(&state.lock().unwrap_or_else(PoisonError::into_inner).out).into_owned()
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, number: i32) -> Result<()> {
        self.control.signal(number)
    }

    /// Waits for the end.
    pub(crate) fn ending(&self) -> Result<Ending> {
        self.wait_until(self.limit_s + 10, |state| state.end.take())?
    }

    /// Waits for the end, which must be a good one, and gives what the program wrote to its standard output.
    pub(crate) fn finish(&self) -> Result<String> {
        let (out, end) = self.wait_until(self.limit_s + 10, |state| {
            let end = state.end.take()?;
            Some((String::from_utf8_lossy(&state.out).into_owned(), end))
        })?;
        match end? {
            Ending::Exit(0) => Ok(out),
            Ending::TimedOut => Err(self.failed(&format!("it ran past {} s and was killed", self.limit_s))),
            ending => Err(self.failed(&format!("it ended with {ending:?}"))),
        }
    }

    /// Stops the program: SIGTERM, then SIGKILL. How it ended is its own affair.
    pub(crate) fn stop(&self) -> Result<Ending> {
        let end = |state: &mut State| state.end.take();
        self.control.signal(SIGTERM)?;
        match self.wait_until(STOP_MAX_S, end) {
            Ok(ending) => ending,
            Err(_) => {
                self.control.signal(SIGKILL)?;
                self.wait_until(STOP_MAX_S, end)?
            }
        }
    }

    fn failed(&self, what: &str) -> LabError {
        LabError::Test(format!("{}: {what}\n{}", self.name, self.log_end()))
    }

    fn log_end(&self) -> String {
        let text = String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
        format!("    {last}\n    (all of it: {})", self.log.display())
    }
}
