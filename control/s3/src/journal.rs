//! The access log and the audit log: one line a request, to files.
//!
//! **Access log**: Amazon S3's server access log format, every request
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html>), so that what reads AWS's reads ours.
//! **Audit log**: one JSON object a line, for every request that changes something or is refused for want of a right:
//! who, from where, what, and how it ended. Neither has secrets: signatures in query strings are blotted out.
//!
//! **How.** Lines go through a queue of [`LINES_QUEUED_MAX`] to a thread of its own, which appends them; a file that was
//! renamed or removed (logrotate) is made anew within [`ROTATION_CHECK`].
//!
//! **How it fails.** A file that can't be opened at the start is an error that names it. Later the log never holds up a
//! request: lines that find the queue full, or that can't be written, are counted, and the count is logged.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::peer::Peer;

/// Lines that wait to be written.
const LINES_QUEUED_MAX: usize = 16 << 10;
/// How often it is checked that the file is still the one at its path.
const ROTATION_CHECK: Duration = Duration::from_secs(1);
/// Longest request line, referrer or user agent in a line.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// What is known of a request when it ends.
pub(crate) struct Entry<'a> {
    pub(crate) head: &'a Head,
    pub(crate) request_id: &'a str,
    pub(crate) host_id: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) requester: &'a str,
    pub(crate) operation: &'a str,
    pub(crate) changes_something: bool,
    pub(crate) bucket: &'a str,
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) total: Duration,
    pub(crate) turnaround: Duration,
}

/// What is kept of a request's head for the logs.
pub(crate) struct Head {
    peer: Peer,
    at: OffsetDateTime,
    method: String,
    uri: String,
    key: String,
    resource: String,
    version_id: String,
    referer: String,
    user_agent: String,
    host: String,
    signature: &'static str,
    authentication: &'static str,
}

impl Head {
    /// The object that the request turned out to be about.
    pub(crate) fn is_about(&mut self, key: Option<&str>) {
        self.key = key.map_or_else(|| "-".to_owned(), |key| cut(percent(key)));
    }

    pub(crate) fn of(parts: &http::request::Parts, peer: Peer, key: Option<&str>, bucket: Option<&str>) -> Self {
        let header = |name: &str| {
            let value = parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            value.filter(|value| !value.is_empty()).map_or_else(|| "-".to_owned(), cut)
        };
        let query = parts.uri.query().unwrap_or_default();
        let value_of = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, value)| value)
        };
        let by_header = parts.headers.contains_key("authorization");
        let by_query = value_of("X-Amz-Signature").is_some();
        Self {
            peer,
            at: OffsetDateTime::now_utc(),
            method: parts.method.as_str().to_owned(),
            uri: cut(format!("{} {} {:?}", parts.method, without_secrets(&parts.uri.to_string()), parts.version)),
            key: key.map_or_else(|| "-".to_owned(), |key| cut(percent(key))),
            resource: resource_of(parts.method.as_str(), query, key.is_some(), bucket.is_some()),
            version_id: value_of("versionId").map_or_else(|| "-".to_owned(), |id| cut(id.to_owned())),
            referer: header("referer"),
            user_agent: header("user-agent"),
            host: header("host"),
            signature: if by_header || by_query { "SigV4" } else { "-" },
            authentication: if by_header {
                "AuthHeader"
            } else if by_query {
                "QueryString"
            } else {
                "-"
            },
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Keys in logs are percent-encoded, so that spaces and quotes can't break a line.
fn percent(key: &str) -> String {
    const LEFT_ALONE: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
    percent_encoding::utf8_percent_encode(key, LEFT_ALONE).to_string()
}

/// The URI, its signature and session token blotted out: the log must not be good for replaying a presigned URL.
fn without_secrets(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else { return uri.to_owned() };
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((name, _))
            if name.eq_ignore_ascii_case("X-Amz-Signature") || name.eq_ignore_ascii_case("X-Amz-Security-Token") =>
        {
            format!("{name}=REDACTED")
        }
        _ => pair.to_owned(),
    };
    format!("{path}?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
}

/// The last word of `REST.GET.OBJECT`.
fn resource_of(method: &str, query: &str, object: bool, bucket: bool) -> String {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    if has("uploadId") {
        return if method == "PUT" { "PART".to_owned() } else { "UPLOAD".to_owned() };
    }
    const TELLING: [(&str, &str); 22] = [
        ("uploads", "UPLOADS"),
        ("delete", "MULTI_OBJECT_DELETE"),
        ("versions", "BUCKETVERSIONS"),
        ("versioning", "VERSIONING"),
        ("acl", "ACL"),
        ("policy", "BUCKETPOLICY"),
        ("policyStatus", "POLICY_STATUS"),
        ("cors", "CORS"),
        ("lifecycle", "LIFECYCLE"),
        ("location", "LOCATION"),
        ("encryption", "ENCRYPTION"),
        ("notification", "NOTIFICATION"),
        ("object-lock", "OBJECT_LOCK_CONFIGURATION"),
        ("retention", "OBJECT_LOCK_RETENTION"),
        ("legal-hold", "OBJECT_LOCK_LEGALHOLD"),
        ("publicAccessBlock", "PUBLIC_ACCESS_BLOCK"),
        ("ownershipControls", "OWNERSHIP_CONTROLS"),
        ("attributes", "OBJECT_ATTRIBUTES"),
        ("logging", "LOGGING_STATUS"),
        ("replication", "REPLICATION"),
        ("requestPayment", "REQUEST_PAYMENT"),
        ("accelerate", "ACCELERATE"),
    ];
    if let Some((_, name)) = TELLING.iter().find(|(name, _)| has(name)) {
        return (*name).to_owned();
    }
    if has("tagging") {
        return if object { "OBJECT_TAGGING".to_owned() } else { "TAGGING".to_owned() };
    }
    if object {
        "OBJECT".to_owned()
    } else if bucket {
        "BUCKET".to_owned()
    } else {
        "SERVICE".to_owned()
    }
}

/// Text between quotes: quotes and control characters can't end it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("%22"),
            c if c.is_control() => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A line of S3's server access log.
pub(crate) fn access_line(entry: &Entry<'_>) -> String {
    let Entry { head, .. } = entry;
    let at = head
        .at
        .format(format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000"))
        .unwrap_or_default();
    let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
    // `-` where we keep no such thing: object size, cipher suite, access point, whether an ACL was required.
    format!(
        "{owner} {bucket} [{at}] {ip} {requester} {id} REST.{method}.{resource} {key} {uri} {status} {code} {sent} - {total} {turn} \
         {referer} {agent} {version} {host_id} {signature} - {authentication} {host} {tls} - -\n",
        owner = or_dash(entry.owner),
        bucket = or_dash(entry.bucket),
        ip = head.peer.ip(),
        requester = or_dash(entry.requester),
        id = entry.request_id,
        method = head.method,
        resource = head.resource,
        key = head.key,
        uri = quoted(&head.uri),
        status = entry.status,
        code = or_dash(entry.code),
        sent = number(entry.bytes_out),
        total = entry.total.as_millis(),
        turn = entry.turnaround.as_millis(),
        referer = quoted(&head.referer),
        agent = quoted(&head.user_agent),
        version = head.version_id,
        host_id = entry.host_id,
        signature = head.signature,
        authentication = head.authentication,
        host = head.host,
        tls = head.peer.tls.map_or("-", |version| version.name()),
    )
}

/// A line of the audit log, or none for a request that neither changed anything nor was refused.
pub(crate) fn audit_line(entry: &Entry<'_>) -> Option<String> {
    let refused = entry.status == 401 || entry.status == 403;
    if !entry.changes_something && !refused {
        return None;
    }
    let head = entry.head;
    let at = head.at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let mut line = serde_json::json!({
        "time": at,
        "request_id": entry.request_id,
        "operation": entry.operation,
        "method": head.method,
        "bucket": entry.bucket,
        "key": head.key,
        "version_id": head.version_id,
        "access_key": entry.requester,
        "source_ip": head.peer.ip().to_string(),
        "tls": head.peer.tls.map(|version| version.name()),
        "user_agent": head.user_agent,
        "status": entry.status,
        "error": entry.code,
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
    })
    .to_string();
    line.push('\n');
    Some(line)
}

/// The logs that are kept.
#[derive(Default)]
pub(crate) struct Journal {
    access: Option<Sink>,
    audit: Option<Sink>,
}

impl Journal {
    /// Opens the files.
    ///
    /// # Errors
    /// Which one can't be opened, and why.
    pub(crate) fn open(access: Option<&Path>, audit: Option<&Path>) -> io::Result<Self> {
        Ok(Self { access: access.map(Sink::open).transpose()?, audit: audit.map(Sink::open).transpose()? })
    }

    /// Whether anyone wants to know.
    pub(crate) fn is_kept(&self) -> bool {
        self.access.is_some() || self.audit.is_some()
    }

    pub(crate) fn note(&self, entry: &Entry<'_>) {
        if let Some(sink) = &self.access {
            sink.send(access_line(entry));
        }
        if let Some(sink) = &self.audit
            && let Some(line) = audit_line(entry)
        {
            sink.send(line);
        }
    }
}

struct Sink {
    lines: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)
            .map_err(|error| io::Error::new(error.kind(), format!("the log {}: {error}", path.display())))?;
        let (lines, queue) = sync_channel(LINES_QUEUED_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: path.to_owned(), file: BufWriter::new(file), lost: lost.clone() };
        let writer = std::thread::Builder::new().name("request-log".to_owned()).spawn(move || writer.run(&queue))?;
        Ok(Self { lines: Some(lines), lost, writer: Some(writer) })
    }

    fn send(&self, line: String) {
        if self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<String>) {
        let mut checked = Instant::now();
        loop {
            let line = match queue.try_recv() {
                Ok(line) => Some(line),
                // Nothing more at hand: what is buffered goes out before anyone waits.
                Err(_) => {
                    self.report_loss();
                    if self.file.flush().is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    match queue.recv_timeout(ROTATION_CHECK) {
                        Ok(line) => Some(line),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            if checked.elapsed() >= ROTATION_CHECK {
                self.follow_rotation();
                checked = Instant::now();
            }
            if let Some(line) = line
                && self.file.write_all(line.as_bytes()).is_err()
            {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        let _ = self.file.flush();
    }

    fn report_loss(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(path = %self.path.display(), lost, "lines of this log were lost: is its disk full or slow?");
        }
    }

    /// Opens the file anew when the one at the path is another.
    fn follow_rotation(&mut self) {
        let same = match (std::fs::metadata(&self.path), self.file.get_ref().metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        if !same && let Ok(file) = append_to(&self.path) {
            let _ = self.file.flush();
            self.file = BufWriter::new(file);
        }
    }
}

#[cfg(test)]
mod tests;
