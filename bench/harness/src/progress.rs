//! How far a run is, and how long it will take, on standard error: one line that changes, or, where that isn't a
//! terminal, a line every few seconds.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between lines on something that isn't a terminal.
const LINES_EVERY: Duration = Duration::from_secs(15);
/// Between changes of the line on a terminal.
const CHANGES_EVERY: Duration = Duration::from_millis(100);

/// A run of known weight.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    shown: Option<Instant>,
    total: f64,
    done: f64,
    terminal: bool,
}

impl Progress {
    /// A run whose steps weigh `total` together, in whatever unit.
    #[must_use]
    pub fn new(total: f64) -> Self {
        Self { started: Instant::now(), shown: None, total, done: 0.0, terminal: std::io::stderr().is_terminal() }
    }

    /// Says what is being done now.
    pub fn doing(&mut self, what: &str) {
        let every = if self.terminal { CHANGES_EVERY } else { LINES_EVERY };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = line(self.done / self.total.max(f64::MIN_POSITIVE), self.started.elapsed(), what);
        let mut to = std::io::stderr().lock();
        // Nobody to read it is no reason to stop measuring.
        let _ignored = if self.terminal { write!(to, "\r\x1b[2K{line}") } else { writeln!(to, "{line}") };
        let _ignored = to.flush();
    }

    /// Counts a step as done.
    pub fn advance(&mut self, weight: f64) {
        self.done += weight;
    }

    /// Ends the line.
    pub fn finish(self) {
        if self.terminal && self.shown.is_some() {
            let _ignored = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

/// "[ 42 %, 1:03 left] what".
pub(crate) fn line(share: f64, elapsed: Duration, what: &str) -> String {
    let share = share.clamp(0.0, 1.0);
    // Before a fiftieth is done, anything said about the rest would be a guess.
    let left = if share < 0.02 {
        "time left unknown".to_owned()
    } else {
        let seconds = (elapsed.as_secs_f64() * (1.0 - share) / share).round() as u64;
        format!("{}:{:02} left", seconds / 60, seconds % 60)
    };
    format!("[{:3.0} %, {left}] {what}", share * 100.0)
}
