//! Bodies: the request's on its way in, the answer's on its way out.
//!
//! [`RequestBody`] sits between hyper and s3s. It notes what goes wrong below (a client that hangs up or falls silent), and
//! hands back what is left when it is dropped early, so that a client that is still sending can be let finish
//! ([`crate::respond`]). [`object_stream`] sits between s3s and the gateway and says what s3s found wrong in S3's words.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use penstock_digest::Sha256Hasher;
use penstock_gateway::api::ByteStream;
use penstock_gateway::error::{Error, ErrorKind};
use penstock_proto::limits;
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use tokio::time::Sleep;

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::options::FrontOptions;
use crate::post::FormBroken;

/// The body broke off; why is in the exchange.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off: {0}")]
pub(crate) struct BodyBroken(String);

/// A request's body, watched.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    exchange: Arc<Exchange>,
    idle_timeout: Duration,
    /// Runs while we wait for the client.
    timer: Option<Pin<Box<Sleep>>>,
    /// What came since the timer was set.
    window_bytes: u64,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, exchange: Arc<Exchange>, idle_timeout: Duration) -> Self {
        Self { incoming: Some(incoming), exchange, idle_timeout, timer: None, window_bytes: 0 }
    }

    fn broken(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        let text = failure.message.to_string();
        self.exchange.fail_body(failure);
        self.incoming = None;
        Poll::Ready(Some(Err(BodyBroken(text))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        self.exchange.ask_for_body();
        let Some(incoming) = self.incoming.as_mut() else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.exchange.count_in(bytes);
                self.window_bytes += bytes as u64;
                if self.window_bytes >= FrontOptions::BODY_WINDOW_BYTES_MIN {
                    self.window_bytes = 0;
                    self.timer = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a request's body broke off");
                self.broken(Failure::bad(
                    "IncompleteBody",
                    "You did not provide the number of bytes specified by the Content-Length HTTP header",
                ))
            }
            Poll::Ready(None) => {
                self.incoming = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle_timeout = self.idle_timeout;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
                std::task::ready!(timer.as_mut().poll(cx));
                self.broken(Failure::bad(
                    "RequestTimeout",
                    "Your socket connection to the server was not read from or written to within the timeout period. \
                     Idle connections will be closed.",
                ))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(rest) = self.incoming.take().filter(|rest| !rest.is_end_stream()) {
            self.exchange.leave(rest);
        }
    }
}

/// What s3s is shown instead of a body that it shall not read: as long, and without a byte.
pub(crate) struct StandIn(SizeHint);

impl StandIn {
    pub(crate) fn of(body: &RequestBody) -> Self {
        Self(body.size_hint())
    }
}

impl Body for StandIn {
    type Data = Bytes;
    type Error = BodyBroken;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyBroken>>> {
        Poll::Ready(Some(Err(BodyBroken("authentication read a body that is not its to read".to_owned()))))
    }

    fn size_hint(&self) -> SizeHint {
        self.0
    }
}

/// An authenticated request's body. Every way to read it verifies it, but for [`Payload::into_unverified`], which says
/// what is left to verify.
#[derive(Default)]
pub(crate) struct Payload {
    body: s3s::Body,
    /// The SHA-256 that it must have, where s3s has not seen to that.
    sha256: Option<[u8; 32]>,
}

impl Payload {
    /// A body that fails by itself when it is not what was signed.
    pub(crate) fn verified_by_s3s(body: s3s::Body) -> Self {
        Self { body, sha256: None }
    }

    /// A body that must have this SHA-256.
    pub(crate) fn to_be_verified(body: s3s::Body, sha256: Option<[u8; 32]>) -> Self {
        Self { body, sha256 }
    }

    /// The bytes, and the SHA-256 that the reader must hold them against before it believes them.
    pub(crate) fn into_unverified(self, exchange: Arc<Exchange>) -> (ByteStream, Option<[u8; 32]>) {
        (bounded(self.body, exchange), self.sha256)
    }
}

/// 400: the body is not what was signed.
fn hash_mismatch() -> Failure {
    Failure::bad(
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )
}

/// What S3 says to an error of an authenticated body.
fn failure_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    let incomplete = || {
        Failure::bad(
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        )
    };
    if let Some(error) = error.downcast_ref::<FormBroken>() {
        return error.0.clone();
    }
    if let Some(error) = error.downcast_ref::<UploadStreamError>() {
        return match error {
            UploadStreamError::Sha256Mismatch => hash_mismatch(),
            UploadStreamError::Underlying(_) | UploadStreamError::LengthMismatch | UploadStreamError::Incomplete => {
                incomplete()
            }
        };
    }
    match error.downcast_ref::<AwsChunkedStreamError>() {
        Some(AwsChunkedStreamError::SignatureMismatch) => Failure::new(
            http::StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "The signature of a chunk of the body does not match the one we calculated.",
        ),
        Some(AwsChunkedStreamError::ChunkMetaTooLarge(..) | AwsChunkedStreamError::ChunkDataTooLarge(..)) => {
            Failure::bad("EntityTooLarge", "A chunk of the body is larger than allowed; send smaller signed chunks.")
        }
        _ => incomplete(),
    }
}

/// The bytes of a body: no more than a PUT may have, and with errors that the gateway knows. The exact failure is left in
/// the exchange.
fn bounded(body: s3s::Body, exchange: Arc<Exchange>) -> ByteStream {
    let mut taken_bytes = 0_u64;
    Box::pin(body.map(move |item| match item {
        Ok(bytes) => {
            taken_bytes += bytes.len() as u64;
            if taken_bytes > limits::PUT_BYTES_MAX {
                exchange.fail_body(too_large());
                return Err(Error::new(ErrorKind::EntityTooLarge, too_large().message));
            }
            Ok(bytes)
        }
        Err(error) => {
            exchange.fail_body(failure_of(error.as_ref()));
            Err(Error::new(ErrorKind::IncompleteBody, error.to_string()))
        }
    }))
}

/// 400: larger than one PUT may be.
pub(crate) fn too_large() -> Failure {
    let mut failure = Failure::bad("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
    failure.details.push(("MaxSizeAllowed", limits::PUT_BYTES_MAX.to_string()));
    failure
}

/// All of a small body.
///
/// # Errors
/// What is wrong with it; MaxMessageLengthExceeded past [`limits::XML_BODY_BYTES_MAX`].
pub(crate) async fn small_body(payload: Payload, exchange: &Arc<Exchange>) -> Result<Vec<u8>, Failure> {
    let Payload { mut body, sha256 } = payload;
    let mut whole = Vec::new();
    while let Some(item) = body.next().await {
        let bytes = item.map_err(|error| {
            exchange.fail_body(failure_of(error.as_ref()));
            exchange.body_failure().unwrap_or_else(|| failure_of(error.as_ref()))
        })?;
        if whole.len() + bytes.len() > limits::XML_BODY_BYTES_MAX {
            let mut failure = Failure::bad("MaxMessageLengthExceeded", "Your request was too large.");
            failure.details.push(("MaxMessageLengthBytes", limits::XML_BODY_BYTES_MAX.to_string()));
            return Err(failure);
        }
        whole.extend_from_slice(&bytes);
    }
    if sha256.is_some_and(|signed| Sha256Hasher::of(&whole) != signed) {
        exchange.fail_body(hash_mismatch());
        return Err(hash_mismatch());
    }
    Ok(whole)
}
