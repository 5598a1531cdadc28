//! Answers: errors as AWS's XML, the headers that all answers have, the one log line per request, and what happens to a
//! request's body that nobody read.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use http::header::{CONNECTION, CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use penstock_gateway::api::ByteStream;
use penstock_gateway::error::Error;

use crate::exchange::{Exchange, HOST_ID};
use crate::failure::Failure;
use crate::gate::{Decision, Op, Target, Verdict};
use crate::journal;
use crate::server::Front;
use crate::xml::Xml;

/// How much of a body that failed before it was read is read all the same, so that the client sees the answer and not a reset.
const LINGER_BYTES_MAX: u64 = 16 << 20;
/// And for how long.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// What is sent in answer.
pub(crate) enum AnswerBody {
    /// This.
    Whole(Bytes),
    /// Object data, and how much of it is still to come. Less or more breaks the connection off.
    Object(ByteStream, u64),
    /// XML whose length is not known yet.
    Growing(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// An operation's answer.
pub(crate) type Answer = Response<AnswerBody>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// 200 with an XML document.
pub(crate) fn xml(document: String) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(document.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

/// The error document.
pub(crate) fn error_document(failure: &Failure, resource: &str, exchange: &Exchange) -> String {
    Xml::bare_document("Error", |xml| {
        xml.text("Code", &failure.code);
        xml.text("Message", &failure.message);
        for (name, value) in &failure.details {
            xml.text(name, value);
        }
        xml.text("Resource", resource);
        xml.text("RequestId", &exchange.id);
        xml.text("HostId", &HOST_ID);
    })
}

/// A failure as an answer to `method`.
pub(crate) fn error(failure: &Failure, method: &Method, resource: &str, exchange: &Exchange) -> Answer {
    let bodiless = *method == Method::HEAD || failure.status == StatusCode::NOT_MODIFIED;
    let mut answer = if bodiless { empty(failure.status) } else { xml(error_document(failure, resource, exchange)) };
    *answer.status_mut() = failure.status;
    for (name, value) in &failure.headers {
        answer.headers_mut().insert(name.clone(), value.clone());
    }
    answer
}

/// The name of a header that is ours to write.
pub(crate) const fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// Adds what every answer has. A client that waits for `100 Continue` and gets an answer instead may or may not send its body
/// after it, so that the connection can't be used again.
pub(crate) fn finish_headers(answer: &mut HeaderMap, exchange: &Exchange, expects_continue: bool) {
    if let Ok(id) = HeaderValue::from_str(&exchange.id) {
        answer.insert(name("x-amz-request-id"), id);
    }
    if let Ok(id) = HeaderValue::from_str(&HOST_ID) {
        answer.insert(name("x-amz-id-2"), id);
    }
    answer.insert(SERVER, HeaderValue::from_static("Penstock"));
    if expects_continue && !exchange.body_asked_for() {
        answer.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// What the log says about a request; it says it when this is dropped, be the request answered or broken off.
pub(crate) struct Record {
    exchange: Arc<Exchange>,
    started: Instant,
    operation: &'static str,
    method: Method,
    bucket: String,
    /// Who signed.
    pub(crate) access_key: String,
    /// What was answered.
    status: Option<StatusCode>,
    /// How long the answer's head took.
    turnaround: Duration,
    changes_something: bool,
    /// For the journal, where one is kept.
    kept: Option<(Arc<Front>, journal::Head)>,
    /// The error's code.
    pub(crate) code: String,
    bytes_out: u64,
    complete: bool,
}

impl Record {
    pub(crate) fn new(
        exchange: Arc<Exchange>,
        method: Method,
        decision: &Decision,
        kept: Option<(Arc<Front>, journal::Head)>,
    ) -> Self {
        Self {
            exchange,
            started: Instant::now(),
            operation: match &decision.verdict {
                Verdict::Serve(op) => op.name(),
                Verdict::Form => "PostObject",
                Verdict::Refuse(_) | Verdict::Preflight | Verdict::Early(_) => "-",
            },
            method,
            // A client's text: made harmless, and no longer than a name can be.
            bucket: decision.target.bucket().unwrap_or("-").escape_debug().take(64).collect(),
            access_key: String::new(),
            status: None,
            turnaround: Duration::ZERO,
            changes_something: match &decision.verdict {
                Verdict::Serve(op) => !op.only_reads(),
                Verdict::Form => true,
                Verdict::Refuse(_) | Verdict::Preflight | Verdict::Early(_) => false,
            },
            kept,
            code: String::new(),
            bytes_out: 0,
            complete: false,
        }
    }

    /// Notes which operation a call to a path of a dialect's own turned out to be, and on what.
    pub(crate) fn performs(&mut self, op: Op, target: &Target) {
        self.operation = op.name();
        self.changes_something = !op.only_reads();
        self.bucket = target.bucket().unwrap_or("-").escape_debug().take(64).collect();
        if let Some((_, head)) = &mut self.kept {
            head.is_about(target.key());
        }
    }

    /// Notes that the answer's head is ready.
    /// What it asked for; `-` for nothing that there is.
    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.turnaround = self.started.elapsed();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some((front, head)) = &self.kept {
            let entry = journal::Entry {
                head,
                request_id: &self.exchange.id,
                host_id: &HOST_ID,
                owner: self.exchange.owner.get().map_or("", String::as_str),
                requester: &self.access_key,
                operation: self.operation,
                changes_something: self.changes_something,
                bucket: if self.bucket == "-" { "" } else { &self.bucket },
                status: self.status.map_or(0, |status| status.as_u16()),
                code: &self.code,
                bytes_in: self.exchange.bytes_in(),
                bytes_out: self.bytes_out,
                total: self.started.elapsed(),
                turnaround: self.turnaround,
            };
            front.journal.note(&entry);
            if let Some(bucket) = self.exchange.logged.get()
                && let Some(target) = &bucket.logging
            {
                let line = journal::access_line(&entry);
                front.delivery.take(&bucket.info.name, &bucket.owner_account, target, &line);
            }
        }
        let mut outcome = String::new();
        if let Some(status) = self.status {
            let _ = write!(outcome, "{}", status.as_u16());
        }
        tracing::info!(
            target: "penstock_s3::access",
            request_id = self.exchange.id,
            method = %self.method,
            operation = self.operation,
            bucket = self.bucket,
            access_key = self.access_key,
            status = outcome,
            code = self.code,
            bytes_in = self.exchange.bytes_in(),
            bytes_out = self.bytes_out,
            duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            complete = self.complete,
            "request"
        );
    }
}

/// An answer's body on its way to hyper. When hyper is through with it, the request is logged and what is left of the
/// request's body is read off.
pub(crate) struct SentBody {
    body: AnswerBody,
    record: Record,
}

impl SentBody {
    pub(crate) fn new(body: AnswerBody, record: Record) -> Self {
        Self { body, record }
    }
}

/// Why an answer was broken off in its middle: hyper closes the connection, so that the client can't take it for whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsendable {
    /// The gateway could not go on.
    #[error("{0}")]
    Gateway(Error),
    /// The gateway gave more or less than it said.
    #[error("the answer has another length than was announced")]
    Length,
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = Unsendable;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Unsendable>>> {
        let next = match &mut self.body {
            AnswerBody::Whole(bytes) if bytes.is_empty() => None,
            AnswerBody::Whole(bytes) => Some(Ok(std::mem::take(bytes))),
            AnswerBody::Object(stream, left_bytes) => match std::task::ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => match left_bytes.checked_sub(bytes.len() as u64) {
                    Some(left) => {
                        *left_bytes = left;
                        Some(Ok(bytes))
                    }
                    None => Some(Err(Unsendable::Length)),
                },
                Some(Err(error)) => Some(Err(Unsendable::Gateway(error))),
                None if *left_bytes > 0 => Some(Err(Unsendable::Length)),
                None => None,
            },
            AnswerBody::Growing(stream) => std::task::ready!(stream.as_mut().poll_next(cx)).map(Ok),
        };
        match &next {
            Some(Ok(bytes)) => {
                self.record.bytes_out += bytes.len() as u64;
                self.record.complete = self.is_end_stream();
            }
            Some(Err(error)) => {
                tracing::warn!(request_id = self.record.exchange.id, %error, "an answer was broken off in its middle");
            }
            None => self.record.complete = true,
        }
        Poll::Ready(next.map(|item| item.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            AnswerBody::Whole(bytes) => bytes.is_empty(),
            AnswerBody::Object(_, left_bytes) => *left_bytes == 0,
            AnswerBody::Growing(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            AnswerBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            AnswerBody::Object(_, left_bytes) => SizeHint::with_exact(*left_bytes),
            AnswerBody::Growing(_) => SizeHint::default(),
        }
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.record.complete |= self.is_end_stream();
        if let Some(rest) = self.record.exchange.take_leftover()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // By now the head of the answer is written: reading can't make hyper send `100 Continue` any more.
            runtime.spawn(tokio::time::timeout(LINGER_TIME_MAX, read_off(rest)));
        }
    }
}

/// Reads and forgets a body, up to a limit. When it is dropped unfinished, hyper closes the connection.
async fn read_off(mut rest: Incoming) {
    let mut bytes = 0;
    while bytes < LINGER_BYTES_MAX {
        match rest.frame().await {
            Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) | None => return,
        }
    }
}
