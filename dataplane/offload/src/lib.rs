//! What the S3 front and whoever speaks S3-over-RDMA dialects say to each other.
//!
//! **What.** The front parses HTTP and checks signatures; it knows nothing of queue pairs. An implementation of
//! [`Dialects`] is shown requests whose signature is good and decides: not for me, answer this, serve it over HTTP all the
//! same, or *move*: the object's bytes go between a [`ClientMemory`] and the operation instead of the HTTP connection.
//!
//! **Why so.** control/s3 must not name rdma, and rdma may lean on dataplane alone. A dialect that works in several round
//! trips (prepare, ready) asks for an object operation of its own by handing the front a whole request ([`Inner`]): it passes the
//! same gate, authorisation and operation as one that came over HTTP, so that no rule of S3's has a second implementation.
//!
//! **How it fails.** Whatever an implementation answers goes to the client as it is. What it calls [`Verdict::NotMine`]
//! though the request carries `x-amz-rdma-*` headers is refused by the front with 501: such a request never falls
//! through to an operation on the HTTP body, which would be empty.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

/// What is known of a request before its body: it has no body when a dialect speaks.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as on the request line, not decoded.
    pub path: &'a str,
    /// All headers. Those named `x-amz-*` were signed when `access_key` is there.
    pub headers: &'a HeaderMap,
    /// Who signed it; none for calls to [`Access::Anonymous`] paths.
    pub access_key: Option<&'a str>,
    /// Who connected.
    pub peer: IpAddr,
}

/// Whether a path of a dialect's own wants a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As any S3 request.
    Signed,
    /// Not looked for.
    Anonymous,
}

/// Which way an object's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the client: GetObject.
    Get,
    /// From the client: PutObject, UploadPart.
    Put,
}

/// What to do with a request.
pub enum Verdict {
    /// Another dialect may look at it.
    NotMine,
    /// This is the answer.
    Answer(Reply),
    /// Serve it over HTTP, and add these headers to the answer. Only for [`Direction::Get`].
    OverHttp(HeaderMap),
    /// Do it, with the client's memory in the place of the HTTP body.
    Move(Move),
}

/// An operation whose bytes go another way than HTTP.
pub struct Move {
    /// The other end.
    pub memory: Box<dyn ClientMemory>,
    /// The operation, when it is not the request itself.
    pub inner: Option<Inner>,
}

/// A request for an object that a dialect makes in its client's name, to be treated as if the same key had signed it.
#[derive(Clone, Debug)]
pub struct Inner {
    /// `GET` or `PUT`.
    pub method: Method,
    /// Path and query as on a request line, path style.
    pub target: String,
    /// Its headers; `Host` and `Content-Length` are the front's.
    pub headers: HeaderMap,
}

/// An answer without object data.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What the XML says, for errors.
    pub error: Option<ReplyError>,
}

/// `Code` and `Message` of an S3 error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyError {
    /// `Code`.
    pub code: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Reply {
    /// An empty answer.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), error: None }
    }

    /// An error.
    #[must_use]
    pub fn error(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        let error = ReplyError { code: code.into(), message: message.into() };
        Self { status, headers: HeaderMap::new(), error: Some(error) }
    }
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was done: the answer that HTTP would have had, `Content-Length` included.
    Done {
        /// 200, 204 or 206.
        status: StatusCode,
        /// Its headers.
        headers: HeaderMap,
    },
    /// It was not: the error that HTTP would have had.
    Failed(Reply),
}

/// Why bytes did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// The client's memory can't be reached any more. Nothing more is written to it.
    #[error("the transfer failed: {0}")]
    Failed(String),
    /// It took too long. Nothing more is written to the client's memory.
    #[error("the transfer took too long: {0}")]
    TimedOut(String),
}

impl MoveError {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::TimedOut(_))
    }
}

/// The client's end of one operation. Every method ends within a deadline of the implementation's. One that is dropped
/// unfinished (the HTTP client went away) sees to it that nothing more is written to the client's memory.
#[async_trait]
pub trait ClientMemory: Send {
    /// Which way its bytes go.
    fn direction(&self) -> Direction;

    /// PUT: the bytes that the client has for us. GET: the most it takes.
    fn bytes(&self) -> u64;

    /// PUT: the next piece, in order; none after the last. All pieces together are [`ClientMemory::bytes`] long.
    ///
    /// # Errors
    /// [`MoveError`]; then nothing of what was pulled may be kept.
    async fn pull(&mut self) -> Result<Option<Bytes>, MoveError>;

    /// GET: how many bytes the operation has. Answers how many will be pushed: the first so many of them.
    ///
    /// # Errors
    /// [`MoveError`] when the dialect insists on another number.
    fn expect(&mut self, operation_bytes: u64) -> Result<u64, MoveError>;

    /// GET: places the next piece, in order. It is sure to be in the client's memory once [`ClientMemory::finish`] has
    /// answered a success.
    ///
    /// # Errors
    /// [`MoveError`].
    async fn push(&mut self, piece: Bytes) -> Result<(), MoveError>;

    /// Ends the operation: waits for what was pushed, and makes of the operation's outcome and its own the answer. When the
    /// answer is a failure, nothing is written to the client's memory after this returns.
    async fn finish(self: Box<Self>, outcome: Outcome) -> Reply;
}

/// What a dialect may ask about objects in the name of the client whose request it looks at.
#[async_trait]
pub trait Objects: Send + Sync {
    /// HEAD of `target` (path and query as on a request line, path style).
    ///
    /// # Errors
    /// The error that HTTP would have had.
    async fn head(&self, target: &str) -> Result<HeaderMap, Reply>;
}

/// Something that speaks dialects of S3 over RDMA.
#[async_trait]
pub trait Dialects: Send + Sync + 'static {
    /// Whether `path` (as on the request line) is one of the dialect's own, and who may call it. Such paths start with a dot,
    /// as no bucket's name does.
    fn endpoint(&self, path: &str) -> Option<Access>;

    /// A call to a path that [`Dialects::endpoint`] claims.
    async fn call(&self, head: &Head<'_>, objects: &dyn Objects) -> Verdict;

    /// A GetObject, PutObject or UploadPart with `x-amz-rdma-*` headers. It has an empty body.
    async fn object(&self, head: &Head<'_>, direction: Direction) -> Verdict;
}

/// All that the front knows of dialects: none by default. Asked in order.
#[derive(Clone, Default)]
pub struct DialectSet(Vec<Arc<dyn Dialects>>);

impl DialectSet {
    /// These.
    #[must_use]
    pub fn new(dialects: Vec<Arc<dyn Dialects>>) -> Self {
        Self(dialects)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who claims `path`.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<(Arc<dyn Dialects>, Access)> {
        self.0.iter().find_map(|dialects| Some((dialects.clone(), dialects.endpoint(path)?)))
    }

    /// What the first of them that feels addressed says.
    pub async fn object(&self, head: &Head<'_>, direction: Direction) -> Verdict {
        for dialects in &self.0 {
            match dialects.object(head, direction).await {
                Verdict::NotMine => {}
                verdict => return verdict,
            }
        }
        Verdict::NotMine
    }
}

impl fmt::Debug for DialectSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DialectSet({})", self.0.len())
    }
}
