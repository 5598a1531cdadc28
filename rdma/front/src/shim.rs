//! The published `x-amz-rdma-*` semantics on GetObject, PutObject and UploadPart, over connections that the RC shim's clients
//! make: we WRITE for GET and READ for PUT, and grant the client no access through our queue pair at all.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use penstock_offload::{ClientMemory, Direction, Head, Move, MoveError, Outcome, Reply, Verdict};
use penstock_rdma_wire::checksum::{Algorithm, crc64nvme_base64, crc64nvme_header};
use penstock_rdma_wire::rcv2::Checksum;
use penstock_rdma_wire::sessions::Claim;
use penstock_rdma_wire::shim::{Connect, Connected};
use penstock_rdma_wire::{EndpointToken, ObjectToken, RcToken, TRANSPORT_RC, WireError, names, shim as wire};

use crate::crc::Crc;
use crate::front::Inner;
use crate::link::{Link, within};
use crate::nic::PeerAccess;
use crate::replies::{Refusal, set, unsupported_headers};
use crate::stats::Reason;

/// Bytes of one READ: the client allows one at a time, so they are larger than WRITEs.
const READ_BYTES_MAX: u64 = 1 << 20;
/// The only library whose descriptors are known.
const AGENT: &str = "cuobj";

/// `POST /.s3rdma-rc/connect`: anonymous, so bounded by source, and good for nothing until a signed request uses it.
pub(crate) fn connect(inner: &Arc<Inner>, head: &Head<'_>) -> Result<Reply, Refusal> {
    let port = inner.nic()?.port();
    let request = Connect::parse(head.headers)?;
    inner.tables.lock().connections.check(head.peer)?;
    let claim = Claim { queue_pairs: 1, ..Claim::default() };
    let link = Link::open(inner, Some(request.peer.gid), None, claim, PeerAccess::None)?;
    link.connect(request.peer.qpn, request.psn).map_err(|error| Refusal::of_nic(&error))?;
    let endpoint =
        EndpointToken { transport: TRANSPORT_RC, qpn: link.number, gid: link.own, port, ..EndpointToken::default() };
    let connected = Connected { session: Inner::new_id(), endpoint, psn: link.psn };
    let inserted = inner.tables.lock().connections.insert(inner.now_ms(), connected.session, head.peer, link);
    if let Err((full, link)) = inserted {
        drop(link);
        return Err(full.into());
    }
    let mut reply = Reply::new(StatusCode::OK);
    reply.headers = connected.to_headers();
    Ok(reply)
}

/// `POST /.s3rdma-rc/disconnect`: 204 always.
pub(crate) fn disconnect(inner: &Arc<Inner>, head: &Head<'_>) -> Reply {
    if let Some(id) = wire::disconnect(head.headers) {
        let link = inner.tables.lock().connections.disconnect(id);
        drop(link);
    }
    Reply::new(StatusCode::NO_CONTENT)
}

/// The one value of a header, in ASCII.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.trim())),
        _ => Err(bad_token(format!("The header {name} is not ASCII, or is given more than once."))),
    }
}

fn bad_token(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Malformed, 400, "InvalidRDMAToken", message)
}

/// An object request with `x-amz-rdma-*` headers.
pub(crate) fn object(inner: &Arc<Inner>, head: &Head<'_>, direction: Direction) -> Result<Verdict, Refusal> {
    if head.headers.contains_key(names::PROTOCOL) {
        return Ok(Verdict::NotMine);
    }
    for name in head.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-rdma-")) {
        if name != names::TOKEN && name != names::AGENT {
            let message = format!("The header {name} is not understood on object requests.");
            return Err(Refusal::unsupported_object(Reason::Header, message));
        }
    }
    let Some(token) = header(head.headers, names::TOKEN)? else { return Ok(Verdict::NotMine) };
    if let Some(agent) = header(head.headers, names::AGENT)?
        && !agent.eq_ignore_ascii_case(AGENT)
    {
        let message = format!("x-amz-rdma-agent: descriptors of {AGENT} alone are understood.");
        return Err(Refusal::unsupported_object(Reason::Agent, message));
    }
    match ObjectToken::parse(token).map_err(|error| bad_token(error.to_string()))? {
        ObjectToken::V1(_) => Err(Refusal::unsupported_object(
            Reason::V1Token,
            "Tokens of hipobj v1 can't be served over real queue pairs: use hipobj-rc-v2, or S3 over HTTP.",
        )),
        ObjectToken::Dc(_) => decline(
            inner,
            direction,
            Reason::DcDescriptor,
            "Descriptors of DC transport can't be served here: use an RC client, or send the body over HTTP.",
        ),
        ObjectToken::Rc(_) if !inner.has_device() => {
            decline(inner, direction, Reason::NoDevice, "This server has no RDMA device: send the body over HTTP.")
        }
        ObjectToken::Rc(token) => take(inner, head, direction, token),
    }
}

/// The published decline: a GET is answered over HTTP, a PUT is refused and stores nothing.
fn decline(inner: &Inner, direction: Direction, reason: Reason, message: &str) -> Result<Verdict, Refusal> {
    if direction == Direction::Put {
        return Err(Refusal::unsupported_object(reason, message));
    }
    inner.stats.count(reason);
    tracing::info!(target: "penstock_rdma_front", reason = reason.name(), "an RDMA GET is served over HTTP");
    Ok(Verdict::OverHttp(unsupported_headers(reason, true)))
}

fn take(inner: &Arc<Inner>, head: &Head<'_>, direction: Direction, token: RcToken) -> Result<Verdict, Refusal> {
    let denied = || Refusal::new(Reason::NotYours, 403, "AccessDenied", "Access Denied");
    let key = head.access_key.ok_or_else(denied)?;
    let taken = inner.tables.lock().connections.take(token.connection, key);
    let (mut link, new) = taken.map_err(|error| match error {
        WireError::OtherCredential => denied(),
        error => Refusal::new(Reason::NoSession, 500, "RDMATransferFailed", error.to_string()).with_reply(500),
    })?;
    if new && let Err(full) = link.held.bind(key) {
        let doomed = inner.tables.lock().connections.put_back_unowned(token.connection, link);
        drop(doomed);
        return Err(full);
    }
    let memory = ShimMemory {
        inner: inner.clone(),
        link: Some(link),
        token,
        direction,
        moved: 0,
        expected: u64::from(token.size),
        under_way: false,
        crc: Crc::new(Algorithm::Crc64Nvme),
        failure: None,
    };
    Ok(Verdict::Move(Move { memory: Box::new(memory), inner: None }))
}

/// One window of a connected client's memory.
struct ShimMemory {
    inner: Arc<Inner>,
    /// None once it is back in the table.
    link: Option<Link>,
    token: RcToken,
    direction: Direction,
    moved: u64,
    expected: u64,
    /// Whether something may be under way: then the link can't be used again.
    under_way: bool,
    crc: Crc,
    failure: Option<MoveError>,
}

impl ShimMemory {
    async fn read(&mut self) -> Result<Bytes, MoveError> {
        let bytes = (u64::from(self.token.size) - self.moved).min(READ_BYTES_MAX);
        let address = self.token.address + self.moved;
        let link = self.link.as_ref().expect("a transfer has its link until it is finished");
        let reading = link.pair().read(address, self.token.rkey, bytes as usize);
        within(self.inner.options.transfer_timeout, "reading the client's memory", reading).await
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), MoveError> {
        let address = self.token.address + self.moved;
        let link = self.link.as_mut().expect("a transfer has its link until it is finished");
        let writing = link.write(piece, address, self.token.rkey);
        within(self.inner.options.transfer_timeout, "writing to the client's memory", writing).await
    }

    async fn flush(&mut self) -> Result<(), MoveError> {
        let link = self.link.as_mut().expect("a transfer has its link until it is finished");
        within(self.inner.options.transfer_timeout, "writing to the client's memory", link.flush()).await
    }

    /// Gives the connection back, or ends it.
    fn let_go(&mut self, whole: bool) {
        let Some(mut link) = self.link.take() else { return };
        let doomed = if whole {
            self.inner.tables.lock().connections.put_back(self.inner.now_ms(), self.token.connection, link)
        } else {
            link.fence();
            self.inner.tables.lock().connections.broken(self.token.connection);
            Some(link)
        };
        drop(doomed);
    }

    fn done(&self, status: StatusCode, mut headers: HeaderMap) -> Reply {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        if self.direction == Direction::Get {
            narrow(&mut headers, self.moved);
        }
        set(&mut headers, names::REPLY, status.as_str());
        set(&mut headers, names::BYTES_TRANSFERRED, &self.moved.to_string());
        if let Checksum::Crc64Nvme(crc) = self.crc.finish() {
            set(&mut headers, names::CHECKSUM, &crc64nvme_header(crc));
            set(&mut headers, names::CHECKSUM_CRC64NVME, &crc64nvme_base64(crc));
        }
        Reply { status, headers, error: None }
    }
}

/// `Content-Range` says what was moved: the client's window may be shorter than the range that it asked for.
fn narrow(headers: &mut HeaderMap, moved: u64) {
    let Some(text) = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()) else { return };
    let parsed = text.strip_prefix("bytes ").and_then(|text| text.split_once('-')).and_then(|(first, rest)| {
        let (_, length) = rest.split_once('/')?;
        Some((first.parse::<u64>().ok()?, length.to_owned()))
    });
    if let Some((first, length)) = parsed.filter(|_| moved > 0) {
        set(headers, "content-range", &format!("bytes {first}-{}/{length}", first + moved - 1));
    }
}

#[async_trait]
impl ClientMemory for ShimMemory {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn bytes(&self) -> u64 {
        u64::from(self.token.size)
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, MoveError> {
        if self.moved == u64::from(self.token.size) {
            return Ok(None);
        }
        self.under_way = true;
        let read = self.read().await;
        self.under_way = read.is_err();
        match read {
            Ok(piece) => {
                self.moved += piece.len() as u64;
                self.crc.update(&piece);
                Ok(Some(piece))
            }
            Err(error) => {
                self.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    fn expect(&mut self, operation_bytes: u64) -> Result<u64, MoveError> {
        self.expected = operation_bytes.min(u64::from(self.token.size));
        Ok(self.expected)
    }

    async fn push(&mut self, piece: Bytes) -> Result<(), MoveError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.under_way = true;
        self.crc.update(&piece);
        let bytes = piece.len() as u64;
        let written = self.write(piece).await;
        self.moved += bytes;
        if let Err(error) = &written {
            self.failure = Some(error.clone());
        }
        written
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Reply {
        let outcome = match outcome {
            Outcome::Done { status, headers } => {
                if self.failure.is_none()
                    && self.direction == Direction::Get
                    && let Err(error) = self.flush().await
                {
                    self.failure = Some(error);
                }
                if self.failure.is_none() && self.moved == self.expected {
                    self.under_way = false;
                    self.let_go(true);
                    match self.direction {
                        Direction::Get => self.inner.stats.count_get(self.moved),
                        Direction::Put => self.inner.stats.count_put(self.moved),
                    }
                    return self.done(status, headers);
                }
                None
            }
            Outcome::Failed(reply) => Some(reply),
        };
        // Fenced before the failure is told, unless nothing can be under way.
        let whole = !self.under_way && self.failure.is_none();
        self.let_go(whole);
        let refusal = match (self.failure.take(), outcome) {
            (None, Some(reply)) => Refusal { reason: Reason::Refused, reply: Box::new(reply) },
            (Some(error @ MoveError::TimedOut(_)), _) => Refusal::transfer_failed(Reason::TimedOut, error.to_string()),
            (Some(error), _) => Refusal::transfer_failed(Reason::Transfer, error.to_string()),
            (None, None) => Refusal::transfer_failed(Reason::Mismatch, "Not all bytes were moved."),
        };
        self.inner.refuse(refusal)
    }
}

impl Drop for ShimMemory {
    fn drop(&mut self) {
        // Broken off: what was under way may have been cut.
        self.let_go(!self.under_way && self.failure.is_none());
    }
}
