//! Errors of the Rust client as the exceptions of `penstock.errors`.

use std::time::Duration;

use penstock_client::{ClientError, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the client says, and of what.
    Client { what: String, error: Box<ClientError> },
    /// The caller's deadline passed.
    Timeout { what: String, after: Duration },
    /// No memory for so many bytes.
    Memory { bytes: usize },
    /// RDMA is required, and this machine has none.
    NoRdma(String),
    /// Something about this process.
    Process(String),
}

impl Failure {
    pub(crate) fn of(what: impl Into<String>) -> impl FnOnce(ClientError) -> Self {
        move |error| Self::Client { what: what.into(), error: Box::new(error) }
    }

    /// The exception's class in `penstock.errors`, and what to do that the message does not say.
    fn class(&self) -> (&'static str, &'static str) {
        let error = match self {
            Self::Client { error, .. } => error,
            Self::Timeout { .. } => return ("Timeout", "timeout=... allows more time"),
            Self::Memory { .. } => return ("OutOfMemory", "read it in ranges, or into memory that is there already"),
            Self::NoRdma(_) => return ("RdmaRequired", "transport=\"auto\" allows other ways; see `penstock doctor`"),
            Self::Process(_) => return ("PenstockError", ""),
        };
        match error.kind() {
            ErrorKind::Configuration => ("ConfigurationError", ""),
            ErrorKind::Credentials => ("AccessDenied", "access_key=..., secret_key=..., region=..."),
            ErrorKind::ExpiredCredentials => (
                "ExpiredToken",
                "make a new Client with new credentials, or let it use the AWS chain, which renews them",
            ),
            ErrorKind::AccessDenied if error.code() == Some("RequestTimeTooSkewed") => {
                ("AccessDenied", "set this machine's clock")
            }
            ErrorKind::AccessDenied => ("AccessDenied", ""),
            ErrorKind::NotFound if error.code() == Some("NoSuchBucket") => ("NotFound", "there is no such bucket"),
            ErrorKind::NotFound => ("NotFound", "a key that was there was deleted meanwhile"),
            ErrorKind::Precondition => ("PreconditionFailed", ""),
            ErrorKind::InvalidRange => ("WrongSize", "ask for less"),
            ErrorKind::Throttled => ("ServerError", ""),
            ErrorKind::Server if matches!(error.code(), Some("NotImplemented" | "RDMANotSupported")) => {
                ("ServerError", "the server does not have this: do without")
            }
            ErrorKind::Server if error.status() == Some(409) => ("PreconditionFailed", ""),
            ErrorKind::Server if error.is_retryable() => {
                ("ServerError", "try again later; if it stays, see the server's log")
            }
            ErrorKind::Server => ("ServerError", ""),
            ErrorKind::Endpoint => ("EndpointError", "endpoint=... or AWS_ENDPOINT_URL"),
            ErrorKind::Protocol => ("EndpointError", "endpoint=... is to be an S3 server's"),
            ErrorKind::Nodes => ("EndpointError", "check that this machine reaches the storage nodes"),
            ErrorKind::Timeout => ("Timeout", "timeout=... allows more time"),
            ErrorKind::Changed => ("Changed", ""),
            ErrorKind::Truncated => ("EndpointError", "try again"),
            ErrorKind::Corrupt => {
                ("Corrupt", "they were not returned; if it happens again, the network or the store changes bytes")
            }
            ErrorKind::Size => ("WrongSize", "make the destination as long as what is read"),
            ErrorKind::PlanRequired => ("RdmaRequired", "transport=\"auto\" allows other ways; see `penstock doctor`"),
            ErrorKind::Io => ("PenstockError", ""),
        }
    }

    fn message(&self) -> String {
        let message = match self {
            Self::Client { what, error } => {
                let text = error.to_string();
                if text.contains(what.as_str()) { text } else { format!("{what}: {text}") }
            }
            Self::Timeout { what, after } => format!("{what}: not done within {} s", after.as_secs_f64()),
            Self::Memory { bytes } => format!("no memory for {bytes} bytes"),
            Self::NoRdma(why) => format!("RDMA is required, and there is none on this machine: {why}"),
            Self::Process(what) => what.clone(),
        };
        match self.class().1 {
            "" => message,
            hint => format!("{message} ({hint})"),
        }
    }

    /// The exception. `code`, `status` and `retryable` are its attributes.
    pub(crate) fn into_exception(self, py: Python<'_>) -> PyErr {
        let raise = || -> PyResult<PyErr> {
            let class = py.import("penstock.errors")?.getattr(self.class().0)?;
            let exception = class.call1((self.message(),))?;
            let (code, status, retryable) = match &self {
                Self::Client { error, .. } => (error.code(), error.status(), error.is_retryable()),
                Self::Timeout { .. } => (None, None, true),
                Self::Memory { .. } | Self::NoRdma(_) | Self::Process(_) => (None, None, false),
            };
            exception.setattr("code", code)?;
            exception.setattr("status", status)?;
            exception.setattr("retryable", retryable)?;
            Ok(PyErr::from_value(exception))
        };
        // Without the package around it, the module's errors are plain ones.
        raise().unwrap_or_else(|_| PyRuntimeError::new_err(self.message()))
    }
}
