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
use penstock_gateway::api::ByteStream;
use penstock_gateway::error::{Error, ErrorKind};
use penstock_proto::limits;
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;
use tokio::time::Sleep;

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::options::FrontOptions;

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

/// What S3 says to an error of an authenticated body.
fn failure_of(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    let incomplete = || {
        Failure::bad(
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        )
    };
    if let Some(error) = error.downcast_ref::<UploadStreamError>() {
        return match error {
            UploadStreamError::Sha256Mismatch => Failure::bad(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
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

/// The bytes of an authenticated body for the gateway: no more than a PUT may have, and with errors that the gateway knows.
/// The exact failure is left in the exchange.
pub(crate) fn object_stream(body: s3s::Body, exchange: Arc<Exchange>) -> ByteStream {
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
pub(crate) async fn small_body(mut body: s3s::Body, exchange: &Arc<Exchange>) -> Result<Vec<u8>, Failure> {
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
    Ok(whole)
}
