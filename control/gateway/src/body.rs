//! A request body as it comes in: counted, bounded and timed.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::StreamExt;

use crate::api::ByteStream;
use crate::error::{Error, ErrorKind, Result};

/// Reads a body piece by piece. An error means that nothing of the body may be kept.
pub(crate) struct BodyReader {
    stream: ByteStream,
    /// What has come and was not taken yet.
    ahead: Bytes,
    ended: bool,
    declared_bytes: Option<u64>,
    bytes_max: u64,
    idle: Duration,
    received_bytes: u64,
    taken_bytes: u64,
}

impl BodyReader {
    /// A body that must be `declared_bytes` long, if that is known, and `bytes_max` at most.
    ///
    /// # Errors
    /// EntityTooLarge when it declares more than that.
    pub(crate) fn new(stream: ByteStream, declared_bytes: Option<u64>, bytes_max: u64, idle: Duration) -> Result<Self> {
        if declared_bytes.is_some_and(|declared| declared > bytes_max) {
            return Err(too_large(bytes_max));
        }
        Ok(Self {
            stream,
            ahead: Bytes::new(),
            ended: false,
            declared_bytes,
            bytes_max,
            idle,
            received_bytes: 0,
            taken_bytes: 0,
        })
    }

    /// Whether another byte follows. Waits for it.
    ///
    /// # Errors
    /// What the stream says; RequestTimeout when it is silent; IncompleteBody, InvalidRequest (too long) or
    /// EntityTooLarge when the length is wrong.
    pub(crate) async fn has_more(&mut self) -> Result<bool> {
        while self.ahead.is_empty() {
            if self.ended {
                return Ok(false);
            }
            let next = tokio::time::timeout(self.idle, self.stream.next()).await.map_err(|_elapsed| {
                Error::new(
                    ErrorKind::RequestTimeout,
                    format!("No byte of the body came for {} seconds.", self.idle.as_secs()),
                )
            })?;
            match next {
                Some(piece) => {
                    self.ahead = piece?;
                    self.received_bytes += self.ahead.len() as u64;
                    self.check_not_too_long()?;
                }
                None => {
                    self.ended = true;
                    if let Some(declared) = self.declared_bytes.filter(|declared| *declared != self.received_bytes) {
                        return Err(Error::new(
                            ErrorKind::IncompleteBody,
                            format!("{declared} bytes were declared, {} came.", self.received_bytes),
                        ));
                    }
                }
            }
        }
        Ok(true)
    }

    fn check_not_too_long(&self) -> Result<()> {
        match self.declared_bytes {
            Some(declared) if self.received_bytes > declared => Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("The body is longer than the {declared} bytes that were declared."),
            )),
            None if self.received_bytes > self.bytes_max => Err(too_large(self.bytes_max)),
            _ => Ok(()),
        }
    }

    /// At most `bytes_max` of the bytes that have come; empty when none has ([`BodyReader::has_more`] first).
    pub(crate) fn take(&mut self, bytes_max: usize) -> Bytes {
        let piece = self.ahead.copy_to_bytes(bytes_max.min(self.ahead.len()));
        self.taken_bytes += piece.len() as u64;
        piece
    }

    /// Bytes taken so far.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// The most that can still be taken, where the length was declared.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        self.declared_bytes.map(|declared| declared.saturating_sub(self.taken_bytes))
    }
}

fn too_large(bytes_max: u64) -> Error {
    Error::new(
        ErrorKind::EntityTooLarge,
        format!("Your proposed upload exceeds the maximum allowed size of {bytes_max} bytes; use a multipart upload."),
    )
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn body(pieces: &[&'static [u8]]) -> ByteStream {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
        Box::pin(stream::iter(pieces))
    }

    async fn read(stream: ByteStream, declared: Option<u64>, max: u64) -> Result<Vec<u8>> {
        let mut reader = BodyReader::new(stream, declared, max, IDLE)?;
        let mut all = Vec::new();
        while reader.has_more().await? {
            let piece = reader.take(3);
            assert!(!piece.is_empty() && piece.len() <= 3);
            all.extend_from_slice(&piece);
        }
        assert_eq!(reader.taken_bytes(), all.len() as u64);
        Ok(all)
    }

    async fn kind(stream: ByteStream, declared: Option<u64>, max: u64) -> ErrorKind {
        read(stream, declared, max).await.unwrap_err().kind
    }

    #[tokio::test]
    async fn lengths() {
        let pieces: &[&'static [u8]] = &[b"", b"hello", b"", b" world"];
        assert_eq!(read(body(pieces), Some(11), 100).await.unwrap(), b"hello world");
        assert_eq!(read(body(pieces), None, 11).await.unwrap(), b"hello world");
        assert_eq!(read(body(&[]), Some(0), 100).await.unwrap(), b"");
        assert_eq!(kind(body(pieces), Some(12), 100).await, ErrorKind::IncompleteBody);
        assert_eq!(kind(body(pieces), Some(10), 100).await, ErrorKind::InvalidRequest);
        assert_eq!(kind(body(pieces), Some(0), 100).await, ErrorKind::InvalidRequest);
        assert_eq!(kind(body(pieces), None, 10).await, ErrorKind::EntityTooLarge);
        assert_eq!(kind(body(pieces), Some(11), 10).await, ErrorKind::EntityTooLarge);
    }

    #[tokio::test]
    async fn an_error_of_the_stream_is_the_errors_of_the_read() {
        let broken: ByteStream = Box::pin(stream::iter([
            Ok(Bytes::from_static(b"hello")),
            Err(Error::new(ErrorKind::InvalidRequest, "a chunk's signature is wrong")),
        ]));
        assert_eq!(kind(broken, Some(11), 100).await, ErrorKind::InvalidRequest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let silent: ByteStream = Box::pin(stream::iter([Ok(Bytes::from_static(b"x"))]).chain(stream::pending()));
        assert_eq!(kind(silent, Some(11), 100).await, ErrorKind::RequestTimeout);
    }
}
