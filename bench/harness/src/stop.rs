//! Ctrl-C: the first asks for an end with valid partial results, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::HarnessError;

/// Exit status when a second signal ends the program at once: the shell's for SIGINT.
const STATUS_INTERRUPTED: i32 = 130;

/// Whether someone asked for an end.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Nobody will ask.
    #[must_use]
    pub fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// SIGINT (Ctrl-C) and SIGTERM ask; whichever comes after that ends the process at once, with status 130.
    ///
    /// # Errors
    /// [`HarnessError::Signal`] where the handlers can't be installed.
    pub fn on_signals() -> Result<Self, HarnessError> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, the second one set.
            signal_hook::flag::register_conditional_shutdown(signal, STATUS_INTERRUPTED, Arc::clone(&asked))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
                .map_err(HarnessError::Signal)?;
        }
        Ok(Self(asked))
    }

    /// Whether to end.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks, as a signal would.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
