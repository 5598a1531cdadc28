//! The HTTP server: connections in, requests to the gate, answers out. Everything a client can make us wait for is bounded.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use penstock_gateway::Gateway;
use penstock_gateway::events::{self, Way};
use penstock_identity::Identities;
use penstock_offload::Access as DialectAccess;
use penstock_proto::limits;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{self, Access, FactsCache};
use crate::auth::{Authenticated, Authenticator};
use crate::cors;
use crate::delivery::{self, Delivery};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::gate::{self, Decision, Op, Target, Verdict};
use crate::journal::{self, Journal};
use crate::offload;
use crate::ops;
use crate::options::FrontOptions;
use crate::peer::{Peer, TlsVersion};
use crate::post;
use crate::query;
use crate::rate::RateLimits;
use crate::respond::{self, Answer, Record, SentBody};
use crate::streams::RequestBody;
use crate::tls::ReloadingTls;

/// hyper's read buffer. Heads between [`limits::REQUEST_HEAD_BYTES_MAX`] and this get S3's error, larger ones hyper's 431.
const READ_BUFFER_BYTES_MAX: usize = 256 << 10;
/// Most headers of one request: user metadata alone may be a few hundred.
const HEADERS_MAX: usize = 512;
/// First and longest pause after `accept` failed (no more file descriptors, say).
const ACCEPT_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);
/// Connections past the limit that are being told so at a time; those past this are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// How long telling them may take.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
pub(crate) struct Front {
    pub(crate) gateway: Gateway,
    pub(crate) options: FrontOptions,
    pub(crate) identities: Arc<Identities>,
    pub(crate) facts: FactsCache,
    authenticator: Authenticator,
    pub(crate) journal: Journal,
    pub(crate) delivery: Delivery,
    pub(crate) rates: Option<RateLimits>,
}

/// Takes `address` without listening yet, so that a taken one is noticed before anything else is opened and nobody can
/// connect before there is somebody to answer.
///
/// # Errors
/// The operating system's, in words that name the address and say what to do.
pub fn take_address(address: SocketAddr) -> io::Result<TcpSocket> {
    let take = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A store that is started again at once finds connections of the one before that are still ending.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    take().map_err(|error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": another program listens there (another penstock?); stop it or choose another address"
            }
            io::ErrorKind::PermissionDenied => ": ports below 1024 need privileges; choose a higher one",
            io::ErrorKind::AddrNotAvailable => ": no interface of this machine has that address",
            _ => "",
        };
        io::Error::new(error.kind(), format!("can't listen on {address}: {error}{hint}"))
    })
}

/// Serves S3 on `listener` until `shutdown` is cancelled; then finishes requests in flight, for
/// [`FrontOptions::drain_timeout`] at most, and returns.
///
/// # Errors
/// Options that make no sense. A failing `accept` is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    identities: Arc<Identities>,
    options: FrontOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let authenticator = Authenticator::new(identities.clone(), &options)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let drain_timeout = options.drain_timeout;
    let journal = Journal::open(options.access_log.as_deref(), options.audit_log.as_deref())?;
    let rates = options.requests_per_second_max.map(RateLimits::new);
    let tls = options.tls.clone().map(ReloadingTls::open).transpose()?;
    let acceptor = tls.as_ref().map(ReloadingTls::acceptor);
    // Dropped, and with it cancelled, on every way out of here.
    let following = shutdown.child_token();
    let _following = following.clone().drop_guard();
    if let Some(tls) = tls {
        tokio::spawn(tls.follow(following));
    }
    let connections = Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS)));
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let (facts, delivery) = (FactsCache::default(), Delivery::default());
    let front = Arc::new(Front { gateway, identities, facts, options, authenticator, journal, delivery, rates });
    let delivering = tokio::spawn(delivery::run(front.clone(), shutdown.clone()));
    let tasks = TaskTracker::new();
    // Cancelled when draining took too long.
    let abort = CancellationToken::new();
    let mut pause = *ACCEPT_PAUSE.start();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_about_one_connection(&error) => continue,
            Err(error) => {
                tracing::error!(%error, pause_ms = pause.as_millis(), "can't accept connections; trying again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => break,
                }
                pause = (pause * 2).min(*ACCEPT_PAUSE.end());
                continue;
            }
        };
        pause = *ACCEPT_PAUSE.start();
        match connections.clone().try_acquire_owned() {
            Ok(permit) => {
                let (front, shutdown, abort) = (front.clone(), shutdown.clone(), abort.clone());
                let acceptor = acceptor.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = accepted_connection(stream, address, acceptor, front, shutdown) => {}
                        () = abort.cancelled() => {}
                    }
                    drop(permit);
                });
            }
            Err(_) => {
                tracing::warn!(limit = front.options.connections_max, "too many connections: one is turned away");
                if let Ok(permit) = turned_away.clone().try_acquire_owned() {
                    tasks.spawn(async move {
                        let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, turn_away(stream)).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(drain_timeout, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests still in flight are broken off");
        abort.cancel();
        tasks.wait().await;
    }
    if let Err(error) = delivering.await {
        tracing::error!(%error, "the delivery of access logs stopped");
    }
    delivery::deliver(&front).await;
    Ok(())
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionRefused | K::ConnectionAborted | K::ConnectionReset | K::Interrupted)
}

/// Says 503 to a connection that is one too many, without reading what it asks.
async fn turn_away(mut stream: TcpStream) {
    let failure = Failure::slow_down();
    let exchange = Exchange::new();
    let document = respond::error_document(&failure, "/", &exchange);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: {}\r\nx-amz-request-id: {}\r\ncontent-type: application/xml\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        limits::RETRY_AFTER.as_secs().max(1),
        exchange.id,
        document.len(),
    );
    let _ = stream.write_all(format!("{head}{document}").as_bytes()).await;
    let _ = stream.shutdown().await;
    // To close with bytes unread would reset the connection, and the client might never see the answer.
    let mut sink = [0; 4096];
    while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await, Ok(1..)) {}
}

/// Shakes hands, where that is asked for, and serves the connection.
async fn accepted_connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    front: Arc<Front>,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY can't be set");
    }
    let Some(acceptor) = acceptor else {
        return connection(stream, Peer::plain(address), front, shutdown).await;
    };
    // A handshake counts as part of the first head: a client may take no longer for it.
    let handshake = tokio::time::timeout(front.options.head_read_timeout, acceptor.accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = shutdown.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            let version = match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
                _ => TlsVersion::V1_2,
            };
            connection(stream, Peer { address, tls: Some(version) }, front, shutdown).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
    }
}

async fn connection<S>(stream: S, peer: Peer, front: Arc<Front>, shutdown: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let guarded = crate::stall::StallGuard::new(stream, front.options.write_stall_timeout);
    let head_read_timeout = front.options.head_read_timeout;
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(answer(front, peer, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_read_timeout)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false)
        .keep_alive(true)
        .serve_connection(TokioIo::new(guarded), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// One request, from head to answer.
async fn answer(front: Arc<Front>, peer: Peer, request: Request<Incoming>) -> Response<SentBody> {
    let (mut head, incoming) = request.into_parts();
    let exchange = Exchange::new();
    let method = head.method.clone();
    let resource: String = head.uri.path().chars().take(limits::KEY_BYTES_MAX * 4).collect();
    let expects_continue = head.headers.contains_key("expect");
    let decision = gate::decide(&head, &front.options);
    let kept = (front.journal.is_kept() || front.delivery.is_active())
        .then(|| (front.clone(), journal::Head::of(&head, peer, decision.target.key(), decision.target.bucket())));
    let mut record = Record::new(exchange.clone(), method.clone(), &decision, kept);
    head.extensions.clear();
    let body = RequestBody::new(incoming, exchange.clone(), front.options.body_idle_timeout);
    let origin = head.headers.get("origin").and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let bucket = decision.target.bucket().map(str::to_owned);
    // A bug in one request's code is that request's 500, not the end of the connection and of those behind it.
    let outcome =
        AssertUnwindSafe(perform(&front, peer, head, body, decision, &exchange, &mut record)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| {
        tracing::error!(
            request_id = exchange.id,
            "a request's code panicked: this is a bug; the panic is on standard error"
        );
        Err(Failure::internal("We encountered an internal error. Please try again."))
    });
    let mut answer = outcome.unwrap_or_else(|failure| {
        record.code = failure.code.clone().into_owned();
        if failure.status.is_server_error() && failure.status != StatusCode::NOT_IMPLEMENTED {
            tracing::warn!(request_id = exchange.id, code = %failure.code, message = %failure.message, "a request failed");
        }
        respond::error(&failure, &method, &resource, &exchange)
    });
    if let (Some(origin), Some(bucket)) = (&origin, &bucket)
        && method != Method::OPTIONS
    {
        cors::decorate(&front, bucket, origin, method.as_str(), answer.headers_mut()).await;
    }
    respond::finish_headers(answer.headers_mut(), &exchange, expects_continue);
    record.answered(answer.status());
    front.options.requests.count(record.operation(), answer.status().as_u16());
    answer.map(|body| SentBody::new(body, record))
}

async fn perform(
    front: &Arc<Front>,
    peer: Peer,
    head: http::request::Parts,
    body: RequestBody,
    decision: Decision,
    exchange: &Arc<Exchange>,
    record: &mut Record,
) -> Result<Answer, Failure> {
    if let Verdict::Early(failure) = decision.verdict {
        return Err(failure);
    }
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let dialects = offload::endpoint(front, &path, &decision.target);
    if let Some((dialects, DialectAccess::Anonymous)) = &dialects {
        return offload::anonymous(&**dialects, &head, &body, peer).await;
    }
    if let Verdict::Preflight = decision.verdict {
        return cors::preflight(front, decision.target.bucket(), &head.headers).await;
    }
    if query::is_query_call(&head, decision.target == Target::Root) {
        let (answer, access_key, code) = query::answer(front, peer, &head, body, exchange).await;
        record.access_key = access_key;
        record.code = code.unwrap_or_default().to_owned();
        return Ok(answer);
    }
    // A form is turned into the PutObject that it asks for; from there on it is one.
    let (mut target, mut form, host) = (decision.target, None, host_of(&head.headers).to_owned());
    let (token, authenticated) = if let (Verdict::Form, Some(bucket)) = (&decision.verdict, target.bucket()) {
        let upload = post::open(bucket, &head, body, |key| front.identities.secret_of(key)).await;
        let upload = upload.map_err(|failure| exchange.body_failure().unwrap_or(failure))?;
        target = Target::Object(bucket.to_owned(), upload.key.clone());
        gate::check_form(&target, &upload.headers, &front.options)?;
        form = Some(upload.reply);
        let (access_key, headers, body) = (upload.access_key, upload.headers, upload.body);
        (upload.token, Authenticated { access_key, headers, body, trailers: None })
    } else {
        let token = session_token(&head.headers, &decision.query)?;
        (token, front.authenticator.authenticate(head, body, exchange).await?)
    };
    record.access_key.clone_from(&authenticated.access_key);
    if front.rates.as_ref().is_some_and(|rates| !rates.admit(&authenticated.access_key)) {
        return Err(Failure::slow_down());
    }
    let principal = match authenticated.access_key.as_str() {
        "" => None,
        key => Some(access::principal(&front.identities, key, token.as_deref(), access::now_unix_s())?),
    };
    let performer = offload::Performer {
        front: front.clone(),
        peer,
        exchange: exchange.clone(),
        access_key: authenticated.access_key.clone(),
        principal: principal.clone(),
    };
    if let Some((dialects, _)) = dialects {
        // Memory is lent to those who have said who they are.
        if principal.is_none() {
            return Err(Failure::access_denied("Access Denied"));
        }
        return performer.call(&*dialects, &method, &path, authenticated, record).await;
    }
    let op = match decision.verdict {
        Verdict::Serve(op) => op,
        Verdict::Form => Op::PutObject,
        // Strangers learn nothing of what there is and is not.
        Verdict::Refuse(_) | Verdict::Preflight if principal.is_none() => {
            return Err(Failure::access_denied("Access Denied"));
        }
        Verdict::Refuse(failure) | Verdict::Early(failure) => return Err(failure),
        Verdict::Preflight => return Err(Failure::internal("A preflight is answered before.")),
    };
    let call = ops::Call {
        front: front.clone(),
        peer,
        target: target.clone(),
        query: decision.query,
        headers: authenticated.headers,
        body: authenticated.body,
        trailers: authenticated.trailers,
        exchange: exchange.clone(),
        access_key: authenticated.access_key,
        access: Arc::new(Access::of(principal)),
    };
    if let Some(direction) = offload::direction(op, &call.headers) {
        if call.access.principal.is_none() {
            return Err(Failure::access_denied("Access Denied"));
        }
        return performer.object(&method, &path, direction, op, call).await;
    }
    let way = if form.is_some() { Way::Form } else { Way::Plain };
    let result = events::in_way(way, ops::run(op, call)).await;
    // What was wrong with the body is the cause of whatever the gateway then says.
    let answer = result.map_err(|failure| exchange.body_failure().unwrap_or(failure))?;
    Ok(match (form, target) {
        (Some(reply), Target::Object(bucket, key)) => {
            let location = format!("{}://{host}/{bucket}/{}", peer.scheme(), crate::wire::url_encoded(&key));
            post::answer(answer, &reply, &location, &bucket, &key)
        }
        _ => answer,
    })
}

/// The session token of a request, in its header or, presigned, in its query.
fn session_token(headers: &HeaderMap, query: &gate::Query) -> Result<Option<String>, Failure> {
    let header = crate::wire::header(headers, "x-amz-security-token")?;
    Ok(header.or_else(|| query.get_hoisted("x-amz-security-token")).map(str::to_owned))
}

/// The host that a request was sent to, for `Location` in answers.
pub(crate) fn host_of(headers: &HeaderMap) -> &str {
    headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost")
}
