//! Requests whose object data goes another way than HTTP: between the dialects ([`penstock_offload`]) and the operations.
//!
//! A request comes here when its path is a dialect's own, or when it is an object request with an `x-amz-rdma-token`. By then
//! the gate has understood the rest of it and, but for paths that are anonymous, its signature is good; that every `x-amz-*`
//! header was signed is part of that. What no dialect takes is refused with 501: it must not become an operation on the
//! HTTP body, which is empty.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use penstock_identity::Principal;
use penstock_offload::{
    Access, ClientMemory, Dialects, Direction, Head, Inner, Move, MoveError, Objects, Outcome, Reply, ReplyError,
    Verdict,
};
use tokio::sync::Mutex;

use crate::access;
use crate::auth::Authenticated;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::gate::{self, Op, Target};
use crate::ops::{self, Call};
use crate::peer::Peer;
use crate::respond::{self, Answer, AnswerBody, Record};
use crate::server::Front;
use crate::streams::{self, Payload, RequestBody};

/// The header that makes an object request a dialect's.
pub(crate) const TOKEN: &str = "x-amz-rdma-token";
/// Where requests that dialects make are sent: an address, so that it names no bucket.
const INNER_HOST: HeaderValue = HeaderValue::from_static("127.0.0.1");

/// Who claims this path. Dialects' paths begin with a dot, in the place of a bucket: a bucket named by the `Host` may have
/// such keys.
pub(crate) fn endpoint(front: &Front, path: &str, target: &Target) -> Option<(Arc<dyn Dialects>, Access)> {
    target.bucket().filter(|bucket| bucket.starts_with('.'))?;
    front.options.dialects.endpoint(path)
}

/// The direction of a request that dialects are asked about.
pub(crate) fn direction(op: Op, headers: &HeaderMap) -> Option<Direction> {
    headers.contains_key(TOKEN).then_some(match op {
        Op::GetObject => Direction::Get,
        Op::PutObject | Op::UploadPart => Direction::Put,
        _ => return None,
    })
}

/// A call to a path of a dialect's own that needs no signature.
pub(crate) async fn anonymous(
    dialects: &dyn Dialects,
    head: &http::request::Parts,
    body: &RequestBody,
    peer: Peer,
) -> Result<Answer, Failure> {
    if !body.is_end_stream() {
        return Err(body_not_empty());
    }
    let head =
        Head { method: &head.method, path: head.uri.path(), headers: &head.headers, access_key: None, peer: peer.ip() };
    match dialects.call(&head, &NoObjects).await {
        Verdict::Answer(reply) => answer_of(reply),
        // Without a key there is no object to move.
        Verdict::Move(_) | Verdict::OverHttp(_) | Verdict::NotMine => Err(Failure::access_denied("Access Denied")),
    }
}

/// What an authenticated request is performed with.
pub(crate) struct Performer {
    pub(crate) front: Arc<Front>,
    pub(crate) peer: Peer,
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) access_key: String,
    pub(crate) principal: Option<Principal>,
}

impl Performer {
    /// A signed call to a path of a dialect's own.
    pub(crate) async fn call(
        &self,
        dialects: &dyn Dialects,
        method: &Method,
        path: &str,
        authenticated: Authenticated,
        record: &mut Record,
    ) -> Result<Answer, Failure> {
        self.empty(authenticated.body, authenticated.trailers.is_some()).await?;
        let head = Head {
            method,
            path,
            headers: &authenticated.headers,
            access_key: Some(&self.access_key),
            peer: self.peer.ip(),
        };
        match dialects.call(&head, self).await {
            Verdict::Answer(reply) => answer_of(reply),
            Verdict::Move(Move { memory, inner: Some(inner) }) => match self.inner(inner) {
                Ok((op, call)) => {
                    record.performs(op, &call.target);
                    carry(op, call, memory).await
                }
                Err(failure) => settle(memory, Err(failure)).await,
            },
            Verdict::Move(_) | Verdict::OverHttp(_) | Verdict::NotMine => Err(Failure::header_not_implemented(TOKEN)),
        }
    }

    /// An object request with a token.
    pub(crate) async fn object(
        &self,
        method: &Method,
        path: &str,
        direction: Direction,
        op: Op,
        mut call: Call,
    ) -> Result<Answer, Failure> {
        let head =
            Head { method, path, headers: &call.headers, access_key: Some(&self.access_key), peer: self.peer.ip() };
        let verdict = self.front.options.dialects.object(&head, direction).await;
        match verdict {
            Verdict::Answer(reply) => answer_of(reply),
            Verdict::OverHttp(headers) if direction == Direction::Get => {
                let mut answer = ops::run(op, without_token(call)).await?;
                answer.headers_mut().extend(headers);
                Ok(answer)
            }
            Verdict::Move(Move { memory, inner: None }) => {
                self.empty(std::mem::take(&mut call.body), call.trailers.is_some()).await?;
                carry(op, without_token(call), memory).await
            }
            Verdict::Move(_) | Verdict::OverHttp(_) | Verdict::NotMine => Err(Failure::header_not_implemented(TOKEN)),
        }
    }

    /// The body must be empty, and must be what was signed.
    async fn empty(&self, body: Payload, chunked: bool) -> Result<(), Failure> {
        if chunked || !streams::small_body(body, &self.exchange).await?.is_empty() {
            return Err(body_not_empty());
        }
        Ok(())
    }

    /// A request that a dialect makes in its client's name, through the gate.
    fn inner(&self, inner: Inner) -> Result<(Op, Call), Failure> {
        let mut request = http::Request::new(());
        *request.method_mut() = inner.method;
        *request.uri_mut() =
            inner.target.parse().map_err(|_| Failure::bad("InvalidURI", "Couldn't parse the specified URI."))?;
        *request.headers_mut() = inner.headers;
        request.headers_mut().insert(HOST, INNER_HOST);
        let (parts, ()) = request.into_parts();
        let decision = gate::decide(&parts, &self.front.options);
        let op = match decision.verdict {
            gate::Verdict::Serve(
                op @ (Op::GetObject | Op::HeadObject | Op::HeadBucket | Op::PutObject | Op::UploadPart),
            ) => op,
            gate::Verdict::Preflight | gate::Verdict::Form | gate::Verdict::Serve(_) => {
                return Err(Failure::request("The target is not an object."));
            }
            gate::Verdict::Refuse(failure) | gate::Verdict::Early(failure) => return Err(failure),
        };
        let call = Call {
            front: self.front.clone(),
            peer: self.peer,
            target: decision.target,
            query: decision.query,
            headers: parts.headers,
            body: Payload::default(),
            trailers: None,
            exchange: self.exchange.clone(),
            access_key: self.access_key.clone(),
            access: Arc::new(access::Access::of(self.principal.clone())),
        };
        Ok((op, call))
    }
}

#[async_trait::async_trait]
impl Objects for Performer {
    async fn head(&self, target: &str) -> Result<HeaderMap, Reply> {
        let inner = Inner { method: Method::HEAD, target: target.to_owned(), headers: HeaderMap::new() };
        let looked = match self.inner(inner) {
            Ok((op, call)) => ops::run(op, call).await,
            Err(failure) => Err(failure),
        };
        looked.map(|answer| answer.into_parts().0.headers).map_err(|failure| reply_of(&failure))
    }
}

/// Strangers see nothing.
struct NoObjects;

#[async_trait::async_trait]
impl Objects for NoObjects {
    async fn head(&self, _target: &str) -> Result<HeaderMap, Reply> {
        Err(reply_of(&Failure::access_denied("Access Denied")))
    }
}

fn body_not_empty() -> Failure {
    Failure::request("A request whose data moves over RDMA has an empty body (Content-Length: 0, not aws-chunked).")
}

fn without_token(mut call: Call) -> Call {
    let ours: Vec<_> = call.headers.keys().filter(|name| name.as_str().starts_with("x-amz-rdma-")).cloned().collect();
    for name in ours {
        call.headers.remove(name);
    }
    call
}

/// Performs `op` with `memory` in the place of the HTTP body.
async fn carry(op: Op, call: Call, memory: Box<dyn ClientMemory>) -> Result<Answer, Failure> {
    match memory.direction() {
        Direction::Get => carry_out(op, call, memory).await,
        Direction::Put => carry_in(op, call, memory).await,
    }
}

async fn carry_out(op: Op, call: Call, mut memory: Box<dyn ClientMemory>) -> Result<Answer, Failure> {
    let answered = match ops::run(op, call).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            push(body, &mut *memory).await.map(|()| Answer::from_parts(head, AnswerBody::Whole(Bytes::new())))
        }
        Err(failure) => Err(failure),
    };
    settle(memory, answered).await
}

/// Pushes an answer's body, as much of it as the client takes.
async fn push(body: AnswerBody, memory: &mut dyn ClientMemory) -> Result<(), Failure> {
    let (mut stream, length) = match body {
        AnswerBody::Object(stream, length) => (stream, length),
        AnswerBody::Whole(bytes) if bytes.is_empty() => (Box::pin(stream::empty()) as _, 0),
        AnswerBody::Whole(_) | AnswerBody::Growing(_) => {
            return Err(Failure::internal("An answer without object data can't be moved over RDMA."));
        }
    };
    let mut left = memory.expect(length).map_err(not_moved)?;
    while left > 0 {
        let Some(piece) = stream.next().await else {
            return Err(Failure::internal("The object ended before its length."));
        };
        let mut piece: Bytes = piece?;
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        left -= piece.len() as u64;
        memory.push(piece).await.map_err(not_moved)?;
    }
    Ok(())
}

/// The dialect has its own words for this.
fn not_moved(error: MoveError) -> Failure {
    Failure::internal(error.to_string())
}

/// The memory as a stream, and again as itself when the stream is gone.
type Shared = Arc<Mutex<Option<Box<dyn ClientMemory>>>>;

async fn carry_in(op: Op, mut call: Call, memory: Box<dyn ClientMemory>) -> Result<Answer, Failure> {
    let bytes = memory.bytes();
    let shared: Shared = Arc::new(Mutex::new(Some(memory)));
    let pieces = stream::unfold(Some(shared.clone()), |shared| async move {
        let shared = shared?;
        let pulled = match shared.lock().await.as_mut() {
            Some(memory) => memory.pull().await,
            None => return None,
        };
        match pulled {
            Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some(shared))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    call.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    call.body = Payload::verified_by_s3s(s3s::Body::http_body_unsync(StreamBody::new(pieces)));
    let answered = ops::run(op, call).await;
    let memory = shared.lock().await.take();
    match memory {
        Some(memory) => settle(memory, answered).await,
        None => Err(Failure::internal("The client's memory is gone.")),
    }
}

/// Lets the dialect say how it ended. An S3 error that it passes on keeps its details.
async fn settle(memory: Box<dyn ClientMemory>, answered: Result<Answer, Failure>) -> Result<Answer, Failure> {
    let (outcome, failure) = match answered {
        Ok(answer) => {
            let (head, _) = answer.into_parts();
            (Outcome::Done { status: head.status, headers: head.headers }, None)
        }
        Err(failure) => (Outcome::Failed(reply_of(&failure)), Some(failure)),
    };
    let reply = memory.finish(outcome).await;
    match (failure, &reply.error) {
        (Some(failure), Some(error)) if failure.code == error.code && failure.status == reply.status => Err(failure),
        _ => answer_of(reply),
    }
}

fn reply_of(failure: &Failure) -> Reply {
    let mut headers = HeaderMap::new();
    headers.extend(failure.headers.iter().cloned());
    let error = ReplyError { code: failure.code.to_string(), message: failure.message.to_string() };
    Reply { status: failure.status, headers, error: Some(error) }
}

fn answer_of(reply: Reply) -> Result<Answer, Failure> {
    let Reply { status, headers, error } = reply;
    if let Some(error) = error {
        let mut failure = Failure::new(status, error.code, error.message);
        failure.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        return Err(failure);
    }
    let mut answer = respond::empty(status);
    answer.headers_mut().extend(headers);
    Ok(answer)
}
