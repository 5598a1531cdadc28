//! The client itself: what every operation shares. Requests are signed, sent, tried again where that is safe and may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions};
use time::OffsetDateTime;

use crate::credentials::CredentialsProvider;
use crate::error::ClientError;
use crate::http::{Broken, BrokenKind, Head, Pool, Pooled};
use crate::messenger::PlanMessenger;
use crate::options::{ClientOptions, Endpoint, Mode};
use crate::sign::{Signing, UNSIGNED_PAYLOAD, encoded_path, encoded_query, presign, sign};
use crate::stats::{ClientStats, Counters};
use crate::xml::Element;

/// The value of `x-amz-rdma-protocol` for the native dialect.
pub(crate) const PROTOCOL: &str = "penstock-native-1";
/// Longest error document.
const ERROR_BYTES_MAX: usize = 1 << 20;
/// First pause before another try; it doubles, and is jittered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause, whatever the server asks for.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);

const UNKNOWN: u8 = 0;
const NATIVE: u8 = 1;
const OTHER: u8 = 2;

/// An S3 client of one endpoint. Clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: ClientOptions,
    credentials: CredentialsProvider,
    connections: Pool,
    pub(crate) buffers: BufPool,
    pub(crate) executor: Executor,
    pub(crate) messenger: Arc<PlanMessenger>,
    pub(crate) stats: Arc<Counters>,
    /// Whether the server speaks the native dialect.
    dialect: AtomicU8,
}

/// A request to be signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<&'a [u8]>,
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) pooled: Pooled,
}

impl Client {
    /// A client of `endpoint` with these keys. Connects when it is first needed.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn new(
        endpoint: Endpoint,
        credentials: CredentialsProvider,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let wrong = |what: String| ClientError::Configuration(what);
        let pool = PoolOptions { capacity_bytes: options.pool_bytes, huge_pages: true };
        let buffers = BufPool::new(pool).map_err(|error| wrong(error.to_string()))?;
        let stats: Arc<Counters> = Arc::default();
        let messenger = Arc::new(PlanMessenger::new(&endpoint.host, &options, Arc::clone(&stats)));
        let executor = Executor::new(messenger.clone(), buffers.clone(), ExecutorOptions::default());
        let connections = Pool::new(endpoint.clone(), &options)?;
        let dialect = AtomicU8::new(if options.mode == Mode::Http { OTHER } else { UNKNOWN });
        let inner = Inner { endpoint, options, credentials, connections, buffers, executor, messenger, stats, dialect };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it has moved, how, and why not otherwise.
    pub fn stats(&self) -> ClientStats {
        self.inner.stats.snapshot()
    }

    /// A URL by which whoever has it may do `method` on the object for `expires`, up to seven days.
    ///
    /// # Errors
    /// [`ClientError::Credentials`]; [`ClientError::Configuration`] for a time out of range.
    pub async fn presign(
        &self,
        method: &'static str,
        bucket: &str,
        key: &str,
        expires: Duration,
    ) -> Result<String, ClientError> {
        let seconds = expires.as_secs();
        if !(1..=7 * 24 * 3600).contains(&seconds) {
            return Err(ClientError::Configuration(format!("{seconds} s: a URL is good for 1 s to 7 days")));
        }
        let keys = self.inner.credentials.get().await?;
        let host = self.inner.endpoint.host_header(bucket);
        let path = self.inner.path(bucket, key);
        let signing = Signing {
            method,
            host: &host,
            path: &path,
            query: &[],
            headers: &[],
            payload_hash: UNSIGNED_PAYLOAD,
            region: &self.inner.options.region,
        };
        let query = presign(&signing, &keys, seconds, OffsetDateTime::now_utc());
        let scheme = if self.inner.endpoint.tls { "https" } else { "http" };
        Ok(format!("{scheme}://{host}{}?{query}", encoded_path(&path)))
    }

    /// Runs an operation within [`ClientOptions::operation_timeout`].
    pub(crate) async fn bounded<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let after = self.inner.options.operation_timeout;
        tokio::time::timeout(after, work).await.unwrap_or_else(|_elapsed| Err(ClientError::Deadline { what, after }))
    }
}

impl Inner {
    fn path(&self, bucket: &str, key: &str) -> String {
        match (bucket, self.endpoint.virtual_host) {
            ("", _) => "/".to_owned(),
            (_, true) => format!("/{key}"),
            (_, false) if key.is_empty() => format!("/{bucket}"),
            (_, false) => format!("/{bucket}/{key}"),
        }
    }

    /// Whether to ask for plans.
    pub(crate) fn may_be_native(&self) -> bool {
        self.dialect.load(Ordering::Relaxed) != OTHER
    }

    /// Takes note of whether an answer to a request in the native dialect is in it.
    pub(crate) fn note_dialect(&self, head: &Head) -> bool {
        let native = head.header("x-amz-rdma-protocol") == Some(PROTOCOL);
        self.dialect.store(if native { NATIVE } else { OTHER }, Ordering::Relaxed);
        native
    }

    /// Whether the server speaks the native dialect: asks it, once. To a server that does not, a PUT in the dialect would be a
    /// PUT of nothing.
    pub(crate) async fn is_native(&self, bucket: &str) -> Result<bool, ClientError> {
        match self.dialect.load(Ordering::Relaxed) {
            NATIVE => return Ok(true),
            OTHER => return Ok(false),
            _ => {}
        }
        let headers = vec![("x-amz-rdma-protocol", PROTOCOL.to_owned())];
        let request = Request { method: "HEAD", bucket, headers, ..Request::default() };
        match self.send(&request).await {
            Ok(answer) => {
                let native = self.note_dialect(&answer.head);
                self.done(answer);
                Ok(native)
            }
            Err(ClientError::Server { status: 400 | 405 | 501, .. }) => {
                self.dialect.store(OTHER, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads the head of its answer, which is a good one: 2xx. Tries again what may pass.
    ///
    /// # Errors
    /// What the last try said.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        let (mut tries, mut fresh) = (0, false);
        loop {
            let (error, pause) = match self.send_once(request, fresh).await {
                Ok(answer) => return Ok(answer),
                // A kept connection that had died: not the server's trouble, and no try.
                Err((_, true, _)) if !fresh => {
                    fresh = true;
                    continue;
                }
                Err((error, _, pause)) => (error, pause),
            };
            tries += 1;
            if tries >= self.options.tries_max || !error.is_retryable() {
                return Err(error);
            }
            self.stats.count(|stats| stats.retries += 1);
            tokio::time::sleep(pause.unwrap_or_else(|| retry_pause(tries)).min(RETRY_PAUSE_MAX)).await;
        }
    }

    /// One try: the error, whether a kept connection turned out to be dead, and what pause the server asks for.
    async fn send_once(
        &self,
        request: &Request<'_>,
        fresh: bool,
    ) -> Result<Answer, (ClientError, bool, Option<Duration>)> {
        let plain = |error: ClientError| (error, false, None);
        let keys = self.credentials.get().await.map_err(|error| plain(error.into()))?;
        let head = self.head_of(request, &keys);
        let host = self.endpoint.host_for(request.bucket);
        let broken = |broken: Broken, kept: bool| {
            let dead = kept && broken.unanswered && broken.kind == BrokenKind::Gone;
            (self.broken(broken), dead, None)
        };
        self.stats.count(|stats| stats.requests += 1);
        let mut pooled = self.connections.take(&host, fresh).await.map_err(|error| broken(error, false))?;
        let kept = pooled.kept;
        if !kept {
            self.stats.count(|stats| stats.connections += 1);
        }
        if let Err(error) = pooled.connection.send(head.as_bytes(), &request.body).await
            && !(error.kind == BrokenKind::Gone && !request.body.is_empty() && !kept)
        {
            return Err(broken(error, kept));
        }
        // A server that has seen enough of a body answers and closes: what it says is worth more than that it closed.
        let head = pooled.connection.read_head(request.method == "HEAD").await.map_err(|error| broken(error, kept))?;
        let answer = Answer { head, pooled };
        if (200..300).contains(&answer.head.status) {
            return Ok(answer);
        }
        let pause = answer.head.header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        Err((self.refusal(answer).await, false, pause))
    }

    fn head_of(&self, request: &Request<'_>, keys: &crate::credentials::Credentials) -> String {
        let host = self.endpoint.host_header(request.bucket);
        let path = self.path(request.bucket, request.key);
        let signing = Signing {
            method: request.method,
            host: &host,
            path: &path,
            query: &request.query,
            headers: &request.headers,
            payload_hash: UNSIGNED_PAYLOAD,
            region: &self.options.region,
        };
        let signed = sign(&signing, keys, OffsetDateTime::now_utc());
        let query = encoded_query(&request.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let length: usize = request.body.iter().map(|piece| piece.len()).sum();
        let mut head = String::with_capacity(1024);
        head.push_str(&format!(
            "{} {}{separator}{query} HTTP/1.1\r\nhost: {host}\r\n",
            request.method,
            encoded_path(&path)
        ));
        for (name, value) in request.headers.iter().chain(&signed) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if length > 0 || matches!(request.method, "PUT" | "POST") {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        head
    }

    /// The error that a bad answer is.
    async fn refusal(&self, answer: Answer) -> ClientError {
        let Answer { head, mut pooled } = answer;
        let body = pooled.connection.read_all(ERROR_BYTES_MAX).await.unwrap_or_default();
        self.connections.give_back(pooled);
        let document = Element::parse(&body).unwrap_or_default();
        let text = |name: &str| document.child_text(name).unwrap_or_default().to_owned();
        let (mut code, message) = (text("Code"), text("Message"));
        if let Some(reason) = head.header("x-amz-rdma-decline") {
            code = format!("Declined:{reason}");
        }
        ClientError::Server { status: head.status, code, message }
    }

    /// An answer whose body was read, or has none.
    pub(crate) fn done(&self, answer: Answer) {
        self.connections.give_back(answer.pooled);
    }

    /// The body of an answer as a whole.
    pub(crate) async fn whole(&self, mut answer: Answer, bytes_max: usize) -> Result<(Head, Vec<u8>), ClientError> {
        let body = answer.pooled.connection.read_all(bytes_max).await.map_err(|error| self.broken(error))?;
        self.connections.give_back(answer.pooled);
        Ok((answer.head, body))
    }

    pub(crate) fn broken(&self, broken: Broken) -> ClientError {
        let host = self.endpoint.host_header("");
        match broken.kind {
            BrokenKind::Gone | BrokenKind::Silent => ClientError::Connection { host, reason: broken.reason },
            BrokenKind::Protocol => ClientError::Protocol { host, reason: broken.reason },
        }
    }
}

/// The pause before another try: doubling, and jittered by half either way, so that those who failed together don't come back
/// together.
pub(crate) fn retry_pause(tries: u32) -> Duration {
    let noise = u64::from(OffsetDateTime::now_utc().nanosecond()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    RETRY_PAUSE * 2u32.saturating_pow(tries.min(8)) * (50 + (noise % 100) as u32) / 100
}
