//! What can go wrong in the lab, told so that the reader knows what to do.

use std::path::Path;

/// The lab's error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    /// The machine lacks something, or refuses it: the text says what to install or to change.
    #[error("{0}")]
    Setup(String),
    /// A guest could not start, died, or broke the control protocol.
    #[error("guest {name}: {what}")]
    Guest {
        /// The guest's name in its topology.
        name: String,
        /// What happened, and where the log is.
        what: String,
    },
    /// A command, a boot or the whole lab took longer than it may.
    #[error("{what} took longer than {limit_s} s")]
    TimedOut {
        /// What took too long.
        what: String,
        /// Its limit in seconds.
        limit_s: u64,
    },
    /// A test saw what it must not see.
    #[error("{0}")]
    Test(String),
}

pub(crate) type Result<T, E = LabError> = std::result::Result<T, E>;

impl LabError {
    /// Whether the same call may succeed a moment later: only for what the machine's load can cause.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, LabError::TimedOut { .. })
    }
}

/// Names the file in an I/O error.
pub(crate) trait OnPath<T> {
    /// Turns the error into a [`LabError::Setup`] that names `path`.
    fn on(self, path: &Path) -> Result<T>;
}

impl<T> OnPath<T> for std::io::Result<T> {
    fn on(self, path: &Path) -> Result<T> {
        self.map_err(|error| LabError::Setup(format!("{}: {error}", path.display())))
    }
}
