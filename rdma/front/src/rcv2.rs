//! hipobj-rc-v2: PREPARE makes a queue pair (and, for PUT, staging memory), READY connects it and moves the bytes, CANCEL ends
//! it. The object operation itself is an S3 request in the client's name, which the S3 front performs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG};
use http::{HeaderMap, Method, StatusCode};
use penstock_offload::{
    ClientMemory, Direction, Head, Inner as InnerRequest, Move, MoveError, Objects, Outcome, Reply, Verdict,
};
use penstock_rdma_wire::rcv2::{self, Cancel, Final, Operation, Prepare, Prepared, Ready};
use penstock_rdma_wire::sessions::{Cancelled, Claim, Granted, Session};
use penstock_rdma_wire::{EndpointToken, SessionId, TRANSPORT_RC, checksum, names};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crc::{Crc, crc64nvme};
use crate::front::Inner;
use crate::link::{Link, before};
use crate::nic::{PeerAccess, Received};
use crate::replies::{Refusal, set};
use crate::stats::Reason;

/// How long CANCEL waits for a transfer to stop: less than the second that clients give it.
const CANCEL_WAIT: Duration = Duration::from_millis(900);

/// Tells a session that executes to stop, and is told when it has.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    done: CancellationToken,
}

fn key_of<'h>(head: &'h Head<'_>) -> Result<&'h str, Refusal> {
    head.access_key.ok_or_else(|| Refusal::new(Reason::NotYours, 403, "AccessDenied", "Access Denied"))
}

fn refused(reply: Reply) -> Refusal {
    Refusal { reason: Reason::Refused, reply: Box::new(reply) }
}

/// PREPARE.
pub(crate) async fn prepare(inner: &Arc<Inner>, head: &Head<'_>, objects: &dyn Objects) -> Result<Reply, Refusal> {
    let key = key_of(head)?;
    rcv2::check_protocol(head.headers)?;
    let message_bytes_max = inner.nic()?.message_bytes_max();
    let prepare = Prepare::parse(head.headers)?;
    let put = prepare.operation == Operation::Put;
    if put {
        check_put_size(inner, prepare.size, message_bytes_max)?;
    }
    look_at_object(&prepare, objects).await?;
    let staging_bytes = if put { prepare.size } else { 0 };
    let claim = Claim { sessions: 1, queue_pairs: 1, staging_bytes };
    let access = if put { PeerAccess::Write } else { PeerAccess::None };
    let peer_gid = prepare.peer.map(|peer| peer.gid);
    let link = Link::open(inner, peer_gid, Some(key), claim, access)?;
    let mut endpoint = EndpointToken {
        transport: TRANSPORT_RC,
        qpn: link.number,
        gid: link.own,
        port: inner.nic()?.port(),
        ..EndpointToken::default()
    };
    if put {
        let window = link
            .pair()
            .lend(vec![0; staging_bytes as usize], PeerAccess::Write)
            .and_then(|window| link.pair().expect().map(|()| window))
            .map_err(|error| Refusal::of_nic(&error))?;
        (endpoint.address, endpoint.rkey, endpoint.length) = (window.address, window.rkey, staging_bytes);
    }
    let psn = link.psn;
    let id = Inner::new_id();
    let session = Session { access_key: key.to_owned(), prepare, owns: link };
    inner.tables.lock().sessions.insert(inner.now_ms(), id, session);
    let mut reply = Reply::new(StatusCode::OK);
    reply.headers = Prepared { endpoint, session: id, psn }.to_headers();
    Ok(reply)
}

/// The client sends a PUT as one message, into memory that holds all of it.
fn check_put_size(inner: &Inner, size: u64, message_bytes_max: u64) -> Result<(), Refusal> {
    if size > message_bytes_max {
        let message = format!(
            "A PUT is one RDMA message, and those of this server's port have at most {message_bytes_max} bytes: use S3 \
             over HTTP."
        );
        return Err(Refusal::unsupported(Reason::MessageSize, message));
    }
    if !inner.books.lock().ledger.could_stage(size) {
        let message = "This server never has so much staging memory for one PUT: use a multipart upload.";
        return Err(Refusal::new(Reason::TooLarge, 413, "EntityTooLarge", message));
    }
    Ok(())
}

/// What READY would fail with is said now, when the client can still use HTTP.
async fn look_at_object(prepare: &Prepare, objects: &dyn Objects) -> Result<(), Refusal> {
    if prepare.operation == Operation::Put {
        let path = prepare.target.split('?').next().unwrap_or_default();
        let bucket = path.split('/').nth(1).unwrap_or_default();
        return match objects.head(&format!("/{bucket}")).await {
            // Who may write but not list is no stranger here; READY asks again, for the write itself.
            Err(reply) if reply.status == StatusCode::NOT_FOUND => Err(refused(reply)),
            _ => Ok(()),
        };
    }
    let headers = objects.head(&prepare.target).await.map_err(refused)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    match length {
        Some(length) if prepare.offset + prepare.size <= length => Ok(()),
        Some(length) => Err(out_of_range(length)),
        None => Err(Refusal::new(Reason::Refused, 500, "InternalError", "The object's length is not known.")),
    }
}

fn out_of_range(length: u64) -> Refusal {
    let message = format!("The requested range is not satisfiable: the object has {length} bytes.");
    Refusal::new(Reason::Refused, 416, "InvalidRange", message)
}

/// A session that executes; it is over when this is dropped.
struct Executing {
    inner: Arc<Inner>,
    id: SessionId,
    stop: Stop,
    /// Dropped, and so fenced and destroyed, before the session is said to be over.
    link: Option<Link>,
}

impl Drop for Executing {
    fn drop(&mut self) {
        drop(self.link.take());
        self.inner.tables.lock().sessions.ended(self.id);
        self.stop.done.cancel();
    }
}

/// READY.
pub(crate) async fn ready(inner: &Arc<Inner>, head: &Head<'_>) -> Result<Verdict, Refusal> {
    let key = key_of(head)?;
    rcv2::check_protocol(head.headers)?;
    inner.nic()?;
    let ready = Ready::parse(head.headers)?;
    let stop = Stop::default();
    let granted = inner.tables.lock().sessions.ready(inner.now_ms(), key, &ready, stop.clone());
    let Granted(Session { prepare, owns: link, .. }) = granted?;
    let deadline = Instant::now() + inner.options.transfer_timeout;
    let connected = link.connect(ready.qpn, prepare.psn);
    let executing = Executing { inner: inner.clone(), id: ready.session, stop, link: Some(link) };
    connected.map_err(|error| Refusal::new(Reason::Transfer, 500, "RDMATransferFailed", error.to_string()))?;
    match (prepare.operation, ready.memory) {
        (Operation::Get, Some((address, rkey))) => Ok(get(executing, prepare, address, rkey, deadline)),
        // The table refuses such a READY.
        (Operation::Get, None) => Err(Refusal::new(Reason::Malformed, 400, "InvalidArgument", "A GET needs memory.")),
        (Operation::Put, _) => put(executing, prepare, deadline).await,
    }
}

fn get(executing: Executing, prepare: Prepare, address: u64, rkey: u32, deadline: Instant) -> Verdict {
    let mut headers = HeaderMap::new();
    let last = prepare.offset + prepare.size - 1;
    set(&mut headers, "range", &format!("bytes={}-{last}", prepare.offset));
    let inner = InnerRequest { method: Method::GET, target: prepare.target.clone(), headers };
    let crc = Crc::new(prepare.checksum);
    let memory = GetMemory { executing, prepare, address, rkey, deadline, moved: 0, crc, failure: None };
    Verdict::Move(Move { memory: Box::new(memory), inner: Some(inner) })
}

const CHECKSUM_NAME: &str = "x-amz-checksum-crc64nvme";

/// Waits for the client's one message. The queue pair is fenced before a byte of it is looked at, so that it can't change
/// any more.
async fn put(mut executing: Executing, prepare: Prepare, deadline: Instant) -> Result<Verdict, Refusal> {
    let link = executing.link.as_mut().expect("a session that executes has its link");
    let received = tokio::select! {
        received = before(deadline, "waiting for the client's data", link.pair().received()) => received,
        () = executing.stop.asked.cancelled() => Err(MoveError::Failed("the client cancelled".to_owned())),
    };
    link.fence();
    let staged = link.pair().take_back();
    let received = received.map_err(|error| refusal_of(&error, &executing.stop))?;
    check_received(received, &prepare)?;
    let staged =
        staged.ok_or_else(|| Refusal::new(Reason::Device, 500, "InternalError", "The staging memory is gone."))?;
    let mut crc = Crc::new(prepare.checksum);
    crc.update(&staged);
    let mut headers = HeaderMap::new();
    // From here to the disk the object is held to what has arrived.
    set(&mut headers, CHECKSUM_NAME, &checksum::crc64nvme_base64(crc64nvme(&staged)));
    let inner = InnerRequest { method: Method::PUT, target: prepare.target.clone(), headers };
    let memory = PutMemory { executing, prepare, staged: Some(staged), crc };
    Ok(Verdict::Move(Move { memory: Box::new(memory), inner: Some(inner) }))
}

fn check_received(received: Received, prepare: &Prepare) -> Result<(), Refusal> {
    let mismatch = |message| Err(Refusal::new(Reason::Mismatch, 500, "RDMATransferFailed", message));
    match received.immediate {
        None => return mismatch("The client's message is not a WRITE with immediate data.".to_owned()),
        Some(cookie) if cookie != prepare.cookie => {
            return mismatch("The immediate data is not the session's cookie.".to_owned());
        }
        Some(_) => {}
    }
    if received.bytes != prepare.size {
        return mismatch(format!("{} bytes were announced, {} came.", prepare.size, received.bytes));
    }
    Ok(())
}

fn refusal_of(error: &MoveError, stop: &Stop) -> Refusal {
    if stop.asked.is_cancelled() {
        return Refusal::new(Reason::Cancelled, 409, "InvalidSession", "The session was cancelled.");
    }
    match error {
        MoveError::TimedOut(_) => Refusal::new(Reason::TimedOut, 408, "RequestTimeout", error.to_string()),
        MoveError::Failed(_) => Refusal::new(Reason::Transfer, 500, "RDMATransferFailed", error.to_string()),
    }
}

/// The answer to a READY that went well.
fn final_reply(prepare: &Prepare, bytes: u64, crc: &Crc, headers: &HeaderMap) -> Reply {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let done = Final {
        cookie: prepare.cookie,
        bytes,
        etag: text(ETAG.as_str()),
        version_id: text(names::S3_VERSION_ID),
        checksum: crc.finish(),
    };
    let mut reply = Reply::new(StatusCode::OK);
    reply.headers = done.to_headers();
    reply
}

/// The memory of a GET: WRITEs, the last of them with the cookie as immediate data.
struct GetMemory {
    executing: Executing,
    prepare: Prepare,
    address: u64,
    rkey: u32,
    deadline: Instant,
    moved: u64,
    crc: Crc,
    failure: Option<Refusal>,
}

impl GetMemory {
    async fn write(&mut self, piece: Bytes) -> Result<(), MoveError> {
        let size = self.prepare.size;
        let address = self.address.wrapping_add(self.moved);
        self.moved += piece.len() as u64;
        let (last, cookie) = (self.moved == size, self.prepare.cookie);
        let (rkey, deadline) = (self.rkey, self.deadline);
        let link = self.executing.link.as_mut().expect("a session that executes has its link");
        let writing = async {
            if !last {
                return link.write(piece, address, rkey).await;
            }
            // All else is there before the client is told so.
            link.flush().await?;
            link.pair().write(piece, address, rkey, Some(cookie)).await
        };
        tokio::select! {
            written = before(deadline, "writing to the client's memory", writing) => written,
            () = self.executing.stop.asked.cancelled() => Err(MoveError::Failed("the client cancelled".to_owned())),
        }
    }

    fn fence(&mut self) {
        if let Some(link) = &mut self.executing.link {
            link.fence();
        }
    }
}

#[async_trait]
impl ClientMemory for GetMemory {
    fn direction(&self) -> Direction {
        Direction::Get
    }

    fn bytes(&self) -> u64 {
        self.prepare.size
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, MoveError> {
        Err(MoveError::Failed("a GET has nothing to pull".to_owned()))
    }

    fn expect(&mut self, operation_bytes: u64) -> Result<u64, MoveError> {
        if operation_bytes == self.prepare.size {
            return Ok(operation_bytes);
        }
        // It was there when PREPARE looked: it has been replaced by a shorter one.
        self.failure = Some(out_of_range(self.prepare.offset + operation_bytes));
        Err(MoveError::Failed("the object has become shorter".to_owned()))
    }

    async fn push(&mut self, piece: Bytes) -> Result<(), MoveError> {
        if piece.is_empty() {
            return Ok(());
        }
        self.crc.update(&piece);
        let written = self.write(piece).await;
        if let Err(error) = &written {
            self.fence();
            self.failure = Some(refusal_of(error, &self.executing.stop));
        }
        written
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Reply {
        let inner = self.executing.inner.clone();
        match (self.failure.take(), outcome) {
            (None, Outcome::Done { headers, .. }) if self.moved == self.prepare.size => {
                inner.stats.count_get(self.moved);
                final_reply(&self.prepare, self.moved, &self.crc, &headers)
            }
            (failure, outcome) => {
                self.fence();
                let refusal = failure.unwrap_or_else(|| match outcome {
                    Outcome::Failed(reply) => refused(reply),
                    Outcome::Done { .. } => {
                        Refusal::new(Reason::Transfer, 500, "RDMATransferFailed", "Not all bytes were moved.")
                    }
                });
                inner.refuse(refusal)
            }
        }
    }
}

/// The memory of a PUT, whose bytes have all arrived.
struct PutMemory {
    executing: Executing,
    prepare: Prepare,
    staged: Option<Vec<u8>>,
    crc: Crc,
}

#[async_trait]
impl ClientMemory for PutMemory {
    fn direction(&self) -> Direction {
        Direction::Put
    }

    fn bytes(&self) -> u64 {
        self.prepare.size
    }

    async fn pull(&mut self) -> Result<Option<Bytes>, MoveError> {
        if self.executing.stop.asked.is_cancelled() {
            return Err(MoveError::Failed("the client cancelled".to_owned()));
        }
        Ok(self.staged.take().map(Bytes::from))
    }

    fn expect(&mut self, _operation_bytes: u64) -> Result<u64, MoveError> {
        Err(MoveError::Failed("a PUT takes no bytes".to_owned()))
    }

    async fn push(&mut self, _piece: Bytes) -> Result<(), MoveError> {
        Err(MoveError::Failed("a PUT takes no bytes".to_owned()))
    }

    async fn finish(self: Box<Self>, outcome: Outcome) -> Reply {
        let inner = self.executing.inner.clone();
        match outcome {
            Outcome::Done { headers, .. } => {
                inner.stats.count_put(self.prepare.size);
                final_reply(&self.prepare, self.prepare.size, &self.crc, &headers)
            }
            Outcome::Failed(_) if self.executing.stop.asked.is_cancelled() => {
                inner.refuse(refusal_of(&MoveError::Failed(String::new()), &self.executing.stop))
            }
            Outcome::Failed(reply) => inner.refuse(refused(reply)),
        }
    }
}

/// CANCEL: 204 whatever it finds. When it finds the caller's session executing, it waits until that has stopped.
pub(crate) async fn cancel(inner: &Arc<Inner>, head: &Head<'_>) -> Result<Reply, Refusal> {
    let key = key_of(head)?;
    rcv2::check_protocol(head.headers)?;
    inner.nic()?;
    let cancel = Cancel::parse(head.headers)?;
    let cancelled = inner.tables.lock().sessions.cancel(key, cancel.session, cancel.cookie);
    match cancelled {
        Cancelled::Nothing => {}
        Cancelled::Prepared(session) => drop(session),
        Cancelled::Executing(stop) => {
            stop.asked.cancel();
            // Too slow to stop is not the client's concern: nothing can be done about it here.
            let _stopped = tokio::time::timeout(CANCEL_WAIT, stop.done.cancelled()).await;
        }
    }
    let mut reply = Reply::new(StatusCode::NO_CONTENT);
    reply.headers = rcv2::with_protocol();
    Ok(reply)
}
