//! What can be wrong with a run, and with a single request of it.

use std::fmt;

/// Why a run was not done.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The specification makes no sense; the text says what to change.
    #[error("{0}")]
    Spec(String),
    /// What the run needs could not be put there.
    #[error("{what} failed: {failure}; is the endpoint {endpoint} up, and do the keys fit?")]
    Prepare {
        /// What was being done.
        what: String,
        /// How it failed.
        failure: FailureKind,
        /// Where.
        endpoint: String,
    },
    /// A process whose CPU time is wanted is not there.
    #[error("the CPU time of process {pid} can't be read: {reason}; give the id of a process on this machine")]
    Cpu {
        /// Which.
        pid: u32,
        /// Why not.
        reason: String,
    },
}

impl LoadError {
    /// Whether the same run may be possible a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Prepare { .. })
    }
}

/// How one request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// No connection could be made.
    Refused,
    /// Nothing moved for longer than the specification allows.
    Stalled,
    /// The connection ended, or the answer did, before all of the body had come.
    ShortBody,
    /// Another status than the operation has when it succeeds.
    Status(u16),
    /// All came, and it was not what was put.
    WrongData,
    /// The connection broke off before an answer, or the answer is no HTTP.
    Broken,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Stalled => f.write_str("stalled"),
            Self::ShortBody => f.write_str("short_body"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::WrongData => f.write_str("wrong_data"),
            Self::Broken => f.write_str("broken"),
        }
    }
}
