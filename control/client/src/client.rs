//! The client itself: what every operation shares. Requests are signed, sent, tried again where that is safe and may help.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions};
use time::OffsetDateTime;

use crate::credentials::{Credentials, CredentialsProvider};
use crate::error::{ClientError, Refusal};
use crate::hedge::Hedger;
use crate::http::{Broken, BrokenKind, Head, Pool, Pooled};
use crate::messenger::PlanMessenger;
use crate::options::{ClientOptions, Endpoint, Mode, region_from_environment};
use crate::sign::{Signer, ToSign, UNSIGNED_PAYLOAD, encoded_path, encoded_query};
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

/// An S3 client of one endpoint. Clones share everything but their deadline.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    deadline: Duration,
}

pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: ClientOptions,
    credentials: CredentialsProvider,
    signer: Signer,
    pub(crate) connections: Pool,
    pub(crate) buffers: BufPool,
    pub(crate) executor: Executor,
    pub(crate) messenger: Arc<PlanMessenger>,
    pub(crate) stats: Arc<Counters>,
    pub(crate) hedger: Option<Hedger>,
    begun: Instant,
    /// Whether the server speaks the native dialect.
    dialect: AtomicU8,
    /// Whether it has refused uploads with CRC64NVME.
    pub(crate) no_crc64_uploads: AtomicBool,
}

/// A request to be signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Headers whose names are not known before: user metadata.
    pub(crate) named: Vec<(String, String)>,
    pub(crate) body: Vec<&'a [u8]>,
}

/// A try that failed.
struct Attempt {
    error: ClientError,
    /// A kept connection turned out to be dead.
    dead: bool,
    /// The pause that the server asks for.
    pause: Option<Duration>,
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
        let mut moving = ExecutorOptions::default();
        moving.hedge_delay = options.hedge_delay.unwrap_or(moving.hedge_delay);
        let executor = Executor::new(messenger.clone(), buffers.clone(), moving);
        let connections = Pool::new(endpoint.clone(), &options)?;
        let dialect = AtomicU8::new(if options.mode == Mode::Http { OTHER } else { UNKNOWN });
        let deadline = options.operation_timeout;
        let inner = Inner {
            signer: Signer::new(options.region.clone(), "s3"),
            hedger: options.hedge.map(Hedger::new),
            begun: Instant::now(),
            no_crc64_uploads: AtomicBool::new(false),
            endpoint,
            options,
            credentials,
            connections,
            buffers,
            executor,
            messenger,
            stats,
            dialect,
        };
        Ok(Self { inner: Arc::new(inner), deadline })
    }

    /// A client as the environment says: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION, the profile files, and keys by
    /// the AWS chain. `options.region` is replaced by the environment's.
    ///
    /// # Errors
    /// [`ClientError::Configuration`].
    pub fn from_environment(options: ClientOptions) -> Result<Self, ClientError> {
        let region = region_from_environment();
        let endpoint = Endpoint::from_environment(&region)?;
        Self::new(endpoint, CredentialsProvider::aws_chain(), ClientOptions { region, ..options })
    }

    /// The same client, whose operations may take so long, retries included, instead of
    /// [`ClientOptions::operation_timeout`].
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), deadline }
    }

    /// Whom it asks.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// How it was made.
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// What it has moved, how, and why not otherwise.
    pub fn stats(&self) -> ClientStats {
        let decoded_stripes = self.inner.executor.stats().stripes_decoded;
        ClientStats { decoded_stripes, ..self.inner.stats.snapshot() }
    }

    /// The memory that payload lands in: registered once with whatever moves it.
    pub fn pool(&self) -> &BufPool {
        &self.inner.buffers
    }

    /// A URL by which whoever has it may do `method` on the object for `expires`, up to seven days. `query` is what the
    /// request has besides: `versionId`, `response-content-type`, `partNumber` and such.
    ///
    /// # Errors
    /// [`ClientError::Credentials`]; [`ClientError::Configuration`] for a time out of range.
    pub async fn presign_with(
        &self,
        method: &str,
        bucket: &str,
        key: &str,
        expires: Duration,
        query: &[(&str, String)],
    ) -> Result<String, ClientError> {
        let seconds = expires.as_secs();
        if !(1..=7 * 24 * 3600).contains(&seconds) {
            return Err(ClientError::Configuration(format!("{seconds} s: a URL is good for 1 s to 7 days")));
        }
        let keys = self.inner.credentials.get().await?;
        let host = self.inner.endpoint.host_header(bucket);
        let path = encoded_path(&self.inner.path(bucket, key));
        let request =
            ToSign { method, host: &host, path: &path, query: "", headers: &[], payload_hash: UNSIGNED_PAYLOAD };
        let query = self.inner.signer.presign(&request, query, &keys, seconds, OffsetDateTime::now_utc());
        let scheme = if self.inner.endpoint.tls { "https" } else { "http" };
        Ok(format!("{scheme}://{host}{path}?{query}"))
    }

    /// As [`Client::presign_with`], of the object as it is.
    ///
    /// # Errors
    /// As [`Client::presign_with`].
    pub async fn presign(
        &self,
        method: &str,
        bucket: &str,
        key: &str,
        expires: Duration,
    ) -> Result<String, ClientError> {
        self.presign_with(method, bucket, key, expires, &[]).await
    }

    /// Runs an operation within the deadline.
    pub(crate) async fn bounded<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let after = self.deadline;
        let late = || ClientError::Timeout { what: format!("{what} was not done"), after };
        tokio::time::timeout(after, work).await.unwrap_or_else(|_elapsed| Err(late()))
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
            Err(error) if matches!(error.status(), Some(400 | 405 | 501)) => {
                self.dialect.store(OTHER, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Inner::send`], for reads: asked a second time when the answer does not begin, within the budget for that. Whoever
    /// answers first wins; the other attempt is dropped with its connection, and has read nothing of a body.
    pub(crate) async fn send_read(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        let Some(hedger) = &self.hedger else { return self.send(request).await };
        let begun = Instant::now();
        let answer = self.send_hedged(request, hedger).await?;
        hedger.seen(begun.elapsed(), self.begun.elapsed());
        Ok(answer)
    }

    async fn send_hedged(&self, request: &Request<'_>, hedger: &Hedger) -> Result<Answer, ClientError> {
        let mut first = pin!(self.send(request));
        let Some(delay) = hedger.request() else { return first.await };
        if let Ok(answer) = tokio::time::timeout(delay, first.as_mut()).await {
            return answer;
        }
        if !self.connections.has_room() || !hedger.spend() {
            return first.await;
        }
        self.stats.count(|stats| stats.hedges += 1);
        let won = |answer: Answer| {
            self.stats.count(|stats| stats.hedges_won += 1);
            answer
        };
        match select(first, pin!(self.send(request))).await {
            Either::Left((Err(error), second)) if error.is_retryable() => {
                second.await.map(won).map_err(|_second_to_fail| error)
            }
            Either::Left((answer, _)) => answer,
            Either::Right((Ok(answer), _)) => Ok(won(answer)),
            Either::Right((Err(_), first)) => first.await,
        }
    }

    /// Sends a request and reads the head of its answer, which is a good one: 2xx. Tries again what may pass.
    ///
    /// # Errors
    /// What the last try said.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        let (mut tries, mut fresh, mut renewed) = (0, false, false);
        loop {
            let (error, pause) = match self.send_once(request, fresh).await {
                Ok(answer) => return Ok(answer),
                // A kept connection that had died: not the server's trouble, and no try.
                Err(attempt) if attempt.dead && !fresh => {
                    fresh = true;
                    continue;
                }
                Err(attempt) => {
                    // Keys that have expired under us: fetched anew, once.
                    let expired = matches!(attempt.error, ClientError::ExpiredCredentials(_));
                    if expired && !renewed && self.credentials.forget().await {
                        renewed = true;
                        continue;
                    }
                    (attempt.error, attempt.pause)
                }
            };
            tries += 1;
            if tries >= self.options.tries_max || !error.is_retryable() {
                return Err(error);
            }
            self.stats.count(|stats| stats.retries += 1);
            tokio::time::sleep(pause.unwrap_or_else(|| retry_pause(tries)).min(RETRY_PAUSE_MAX)).await;
        }
    }

    /// One try.
    async fn send_once(&self, request: &Request<'_>, fresh: bool) -> Result<Answer, Box<Attempt>> {
        let plain = |error: ClientError| Box::new(Attempt { error, dead: false, pause: None });
        let keys = self.credentials.get().await.map_err(|error| plain(error.into()))?;
        let head = self.head_of(request, &keys).map_err(plain)?;
        let host = self.endpoint.host_for(request.bucket);
        let broken = |broken: Broken, kept: bool| {
            let dead = kept && broken.unanswered && broken.kind == BrokenKind::Gone;
            Box::new(Attempt { error: self.broken(broken), dead, pause: None })
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
        Err(Box::new(Attempt { error: self.refusal(request, answer).await, dead: false, pause }))
    }

    fn head_of(&self, request: &Request<'_>, keys: &Credentials) -> Result<String, ClientError> {
        let host = self.endpoint.host_header(request.bucket);
        let path = encoded_path(&self.path(request.bucket, request.key));
        let query = encoded_query(&request.query);
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(request.headers.len() + request.named.len());
        headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        headers.extend(request.named.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for (name, value) in &headers {
            check_header(name, value)?;
        }
        let signing = ToSign {
            method: request.method,
            host: &host,
            path: &path,
            query: &query,
            headers: &headers,
            payload_hash: UNSIGNED_PAYLOAD,
        };
        let signed = self.signer.sign(&signing, keys, OffsetDateTime::now_utc());
        let separator = if query.is_empty() { "" } else { "?" };
        let length: usize = request.body.iter().map(|piece| piece.len()).sum();
        let mut head = String::with_capacity(1024);
        for text in [request.method, " ", &path, separator, &query, " HTTP/1.1\r\nhost: ", &host, "\r\n"] {
            head.push_str(text);
        }
        let signed = signed.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in headers.iter().copied().chain(signed) {
            for text in [name, ": ", value, "\r\n"] {
                head.push_str(text);
            }
        }
        if length > 0 || matches!(request.method, "PUT" | "POST") {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        Ok(head)
    }

    /// The error that a bad answer is.
    async fn refusal(&self, request: &Request<'_>, answer: Answer) -> ClientError {
        let Answer { head, mut pooled } = answer;
        let body = pooled.connection.read_all(ERROR_BYTES_MAX).await.unwrap_or_default();
        self.connections.give_back(pooled);
        let document = Element::parse(&body).unwrap_or_default();
        let text = |name: &str| document.child_text(name).unwrap_or_default().to_owned();
        let (mut code, message) = (text("Code"), text("Message"));
        if let Some(reason) = head.header("x-amz-rdma-decline") {
            code = format!("Declined:{reason}");
        }
        let request_id = head.header("x-amz-request-id").unwrap_or_default().to_owned();
        let request = format!("{} {}", request.method, name_of(request.bucket, request.key));
        ClientError::refused(Refusal { status: head.status, code, message, request, request_id })
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

    /// The document that an answer is. One that says in its body that it failed is the error that it says.
    pub(crate) async fn document(
        &self,
        request: &Request<'_>,
        bytes_max: usize,
    ) -> Result<(Head, Element), ClientError> {
        let answer = self.send(request).await?;
        let (head, body) = self.whole(answer, bytes_max).await?;
        let document = Element::parse(&body).map_err(|reason| self.protocol(reason))?;
        if document.name == "Error" {
            let text = |name: &str| document.child_text(name).unwrap_or_default().to_owned();
            let request = format!("{} {}", request.method, name_of(request.bucket, request.key));
            let request_id = text("RequestId");
            let (code, message) = (text("Code"), text("Message"));
            return Err(ClientError::refused(Refusal { status: 500, code, message, request, request_id }));
        }
        Ok((head, document))
    }

    pub(crate) fn broken(&self, broken: Broken) -> ClientError {
        let host = self.endpoint.host_header("");
        match broken.kind {
            BrokenKind::Gone => ClientError::Endpoint { host, reason: broken.reason },
            BrokenKind::Silent => {
                let after = self.options.silence_timeout;
                ClientError::Timeout { what: format!("{host}: no byte came"), after }
            }
            BrokenKind::Protocol => ClientError::Protocol { host, reason: broken.reason },
        }
    }

    pub(crate) fn protocol(&self, reason: impl ToString) -> ClientError {
        ClientError::Protocol { host: self.endpoint.host_header(""), reason: reason.to_string() }
    }
}

/// How messages name an object.
pub(crate) fn name_of(bucket: &str, key: &str) -> String {
    match (bucket, key) {
        ("", _) => "the list of buckets".to_owned(),
        (_, "") => format!("s3://{bucket}"),
        _ => format!("s3://{bucket}/{key}"),
    }
}

/// A header that would break out of its line, or that S3 would not give back as it was, is refused here.
fn check_header(name: &str, value: &str) -> Result<(), ClientError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(ClientError::Configuration(format!("{name:?} can't be the name of a header")));
    }
    if value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
        return Err(ClientError::Configuration(format!("{name}: {value:?} has control characters")));
    }
    Ok(())
}

/// The pause before another try: doubling, and jittered by half either way, so that those who failed together don't come back
/// together.
pub(crate) fn retry_pause(tries: u32) -> Duration {
    let noise = u64::from(OffsetDateTime::now_utc().nanosecond()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    RETRY_PAUSE * 2u32.saturating_pow(tries.min(8)) * (50 + (noise % 100) as u32) / 100
}
