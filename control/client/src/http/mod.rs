//! HTTP/1.1 as far as S3 needs it, by hand: a request is one write, and a body is read from the socket straight to where it is
//! wanted. `httparse` (hyper's own) reads heads. Every read and write has a deadline; a connection is used again only after
//! an exchange that was whole.

mod connection;
mod pool;

use std::time::Duration;

use tokio::net::TcpStream;

pub(crate) use connection::{Connection, Head};
pub(crate) use pool::{Pool, Pooled};

/// Why an exchange failed. `unanswered`: nothing of an answer has come, so that a kept connection may have been dead before.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) kind: BrokenKind,
    pub(crate) reason: String,
    pub(crate) unanswered: bool,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenKind {
    /// The connection went away, or never came to be.
    Gone,
    /// Silence.
    Silent,
    /// What came is no HTTP.
    Protocol,
}

impl Broken {
    pub(crate) fn gone(reason: impl ToString) -> Self {
        Self { kind: BrokenKind::Gone, reason: reason.to_string(), unanswered: false }
    }

    pub(crate) fn protocol(reason: impl ToString) -> Self {
        Self { kind: BrokenKind::Protocol, reason: reason.to_string(), unanswered: false }
    }

    pub(crate) fn silent(after: Duration) -> Self {
        let reason = format!("no byte for {} s", after.as_secs_f64());
        Self { kind: BrokenKind::Silent, reason, unanswered: false }
    }
}

/// Longest answer of a credentials endpoint.
const PLAIN_BYTES_MAX: usize = 64 << 10;

/// One request over plain HTTP on a connection of its own; the answer's body, which must be a 200's.
pub(crate) async fn plain_get(
    method: &str,
    url: &str,
    headers: &[(&'static str, String)],
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| "only http:// is asked for credentials".to_owned())?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let asking = async {
        let stream = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
        let mut connection = Connection::plain(stream, timeout);
        let mut head = format!("{method} /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let text = |broken: Broken| broken.reason;
        connection.send(head.as_bytes(), &[]).await.map_err(text)?;
        let head = connection.read_head(false).await.map_err(text)?;
        if head.status != 200 {
            return Err(format!("it answers {}", head.status));
        }
        connection.read_all(PLAIN_BYTES_MAX).await.map_err(text)
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(format!("no answer within {} s", timeout.as_secs_f64())),
    }
}
