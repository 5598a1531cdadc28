//! What the user sees: a line for each thing done, on standard output; a bar while it is done, on standard error when that is a terminal.

use std::io::{IsTerminal, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::Failed;

/// Where it goes. Shared by all jobs of a command.
pub(crate) struct Report {
    json: bool,
    quiet: bool,
    bar: ProgressBar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: u64,
    bytes: u64,
    failed: u64,
    code: Option<u8>,
    /// Whoever reads standard output has gone.
    mute: bool,
}

impl Report {
    pub(crate) fn new(json: bool, quiet: bool, progress: bool) -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("{spinner} {bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta} {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let shown = progress && !json && !quiet && std::io::stderr().is_terminal();
        bar.set_draw_target(if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() });
        if shown {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self { json, quiet, bar, state: Mutex::default() }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// So many bytes more are going to be moved.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    /// So many were.
    pub(crate) fn moved(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// One thing was done, or would be with `--dry-run`.
    pub(crate) fn done(&self, action: &str, from: &str, to: Option<&str>, bytes: u64, dry: bool) {
        let mut state = self.state();
        state.done += 1;
        state.bytes += bytes;
        drop(state);
        if self.json {
            self.line(&json!({ "action": action, "from": from, "to": to, "bytes": bytes, "dry_run": dry }).to_string());
        } else if !self.quiet {
            let dry = if dry { "(dry run) " } else { "" };
            match to {
                Some(to) => self.line(&format!("{dry}{action}: {from} -> {to}")),
                None => self.line(&format!("{dry}{action}: {from}")),
            }
        }
    }

    /// One thing failed; the others go on.
    pub(crate) fn failed(&self, action: &str, from: &str, to: Option<&str>, failed: &Failed) {
        let mut state = self.state();
        state.failed += 1;
        state.code.get_or_insert(failed.code);
        drop(state);
        if self.json {
            let error =
                json!({ "action": action, "from": from, "to": to, "error": failed.message, "code": failed.code });
            self.line(&error.to_string());
        }
        self.bar.suspend(|| eprintln!("penstock: {action} {from}: {}", failed.message));
    }

    /// A value that was asked for: a line of text, or of JSON.
    pub(crate) fn value(&self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) {
        let line = if self.json { value().to_string() } else { text() };
        self.line(&line);
    }

    /// A line on standard output. When nobody reads it any more, no further ones are tried.
    fn line(&self, line: &str) {
        self.bar.suspend(|| {
            if self.state().mute {
                return;
            }
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                drop(out);
                self.state().mute = true;
            }
        });
    }

    /// Whether anybody still reads what is listed.
    pub(crate) fn is_read(&self) -> bool {
        !self.state().mute
    }

    /// The end: the code to exit with.
    pub(crate) fn end(&self) -> u8 {
        self.bar.finish_and_clear();
        let state = self.state();
        if state.failed > 0 {
            eprintln!("penstock: {} of {} failed", state.failed, state.failed + state.done);
        }
        state.code.unwrap_or(0)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
