//! One connection: a request out, its answer in.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::Broken;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 512;
/// Read at a time while a head is looked for: what of the body comes with it is copied once more.
const HEAD_READ_BYTES: usize = 8 << 10;
/// Longest line of a chunked body's framing.
const CHUNK_LINE_BYTES_MAX: usize = 4096;

enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What of the answer's body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Within a chunk so many; 0: a chunk's head is next. `begun`: the line break of the chunk before is.
    Chunked {
        left: u64,
        begun: bool,
    },
    UntilClose,
}

/// An answer's head.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// The body's length, where it is said.
    pub(crate) length: Option<u64>,
}

impl Head {
    /// A header's value; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Headers whose names begin so, without it.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.headers.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: Stream,
    /// What was read past what was wanted.
    ahead: BytesMut,
    left: Left,
    keep: bool,
    silence: Duration,
}

impl Connection {
    pub(crate) fn plain(stream: TcpStream, silence: Duration) -> Self {
        Self::over(Stream::Tcp(stream), silence)
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, silence: Duration) -> Self {
        Self::over(Stream::Tls(Box::new(stream)), silence)
    }

    fn over(stream: Stream, silence: Duration) -> Self {
        Self { stream, ahead: BytesMut::new(), left: Left::Bytes(0), keep: true, silence }
    }

    /// Whether another exchange may follow.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep && self.left == Left::Bytes(0) && self.ahead.is_empty()
    }

    /// Writes a request, from where its parts lie. Each write of some of it has its own deadline.
    pub(crate) async fn send(&mut self, head: &[u8], body: &[&[u8]]) -> Result<(), Broken> {
        self.keep = false;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(1 + body.len());
        slices.push(IoSlice::new(head));
        slices.extend(body.iter().map(|piece| IoSlice::new(piece)));
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match timeout(self.silence, self.stream.write_vectored(rest)).await {
                Ok(Ok(0)) => return Err(Broken::gone("the connection was closed")),
                Ok(Ok(written)) => IoSlice::advance_slices(&mut rest, written),
                Ok(Err(error)) => return Err(Broken { unanswered: true, ..Broken::gone(error) }),
                Err(_elapsed) => return Err(Broken::silent(self.silence)),
            }
        }
        match timeout(self.silence, self.stream.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Broken { unanswered: true, ..Broken::gone(error) }),
            Err(_elapsed) => Err(Broken::silent(self.silence)),
        }
    }

    /// Reads the answer's head. `bodiless`: the request was a HEAD.
    pub(crate) async fn read_head(&mut self, bodiless: bool) -> Result<Head, Broken> {
        loop {
            let (mut status, mut used, mut headers) = (0, 0, Vec::new());
            {
                let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
                let mut answer = httparse::Response::new(&mut room);
                if !self.ahead.is_empty() {
                    match answer.parse(&self.ahead) {
                        Ok(httparse::Status::Complete(bytes)) => {
                            used = bytes;
                            status = answer.code.unwrap_or_default();
                            let lossy = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
                            headers = answer
                                .headers
                                .iter()
                                .map(|header| (header.name.to_ascii_lowercase(), lossy(header.value)))
                                .collect();
                            self.keep = answer.version == Some(1);
                        }
                        Ok(httparse::Status::Partial) => {}
                        Err(error) => return Err(Broken::protocol(error)),
                    }
                }
            }
            if used > 0 {
                self.ahead.advance(used);
                if (100..200).contains(&status) {
                    continue;
                }
                return self.begin_body(Head { status, headers, length: None }, bodiless);
            }
            if self.ahead.len() > HEAD_BYTES_MAX {
                return Err(Broken::protocol("the head of the answer is too long"));
            }
            let unanswered = self.ahead.is_empty();
            self.fill(HEAD_READ_BYTES).await.map_err(|broken| Broken { unanswered, ..broken })?;
        }
    }

    fn begin_body(&mut self, mut head: Head, bodiless: bool) -> Result<Head, Broken> {
        if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.keep = false;
        }
        let length = match head.header("content-length") {
            Some(text) => Some(text.parse::<u64>().map_err(|_| Broken::protocol(format!("Content-Length {text:?}")))?),
            None => None,
        };
        let chunked =
            head.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        self.left = if bodiless || matches!(head.status, 204 | 304) {
            Left::Bytes(0)
        } else if chunked {
            Left::Chunked { left: 0, begun: false }
        } else if let Some(length) = length {
            Left::Bytes(length)
        } else {
            self.keep = false;
            Left::UntilClose
        };
        head.length = if chunked { None } else { length };
        Ok(head)
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), Broken> {
        self.ahead.reserve(bytes);
        match timeout(self.silence, self.stream.read_buf(&mut self.ahead)).await {
            Ok(Ok(0)) => Err(Broken::gone("the connection was closed in the middle of an answer")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Broken::gone(error)),
            Err(_elapsed) => Err(Broken::silent(self.silence)),
        }
    }

    /// Some bytes of the body, straight into `room`, which is not empty; 0 at its end.
    pub(crate) async fn read(&mut self, room: &mut [u8]) -> Result<usize, Broken> {
        let want = match self.left {
            Left::Bytes(left) => left,
            Left::UntilClose => u64::MAX,
            Left::Chunked { left: 0, begun } => match self.chunk_head(begun).await? {
                0 => return Ok(0),
                left => left,
            },
            Left::Chunked { left, .. } => left,
        };
        let want = (room.len() as u64).min(want) as usize;
        if want == 0 {
            return Ok(0);
        }
        let room = &mut room[..want];
        let got = if self.ahead.is_empty() {
            match timeout(self.silence, self.stream.read(room)).await {
                Ok(Ok(0)) if self.left == Left::UntilClose => {
                    self.left = Left::Bytes(0);
                    return Ok(0);
                }
                Ok(Ok(0)) => return Err(Broken::gone("the connection was closed in the middle of a body")),
                Ok(Ok(got)) => got,
                Ok(Err(error)) => return Err(Broken::gone(error)),
                Err(_elapsed) => return Err(Broken::silent(self.silence)),
            }
        } else {
            let got = room.len().min(self.ahead.len());
            self.ahead.copy_to_slice(&mut room[..got]);
            got
        };
        match &mut self.left {
            Left::Bytes(left) | Left::Chunked { left, .. } => *left -= got as u64,
            Left::UntilClose => {}
        }
        Ok(got)
    }

    /// The length of the next chunk; 0 at the body's end, trailers read.
    async fn chunk_head(&mut self, begun: bool) -> Result<u64, Broken> {
        if begun && !self.line().await?.is_empty() {
            return Err(Broken::protocol("a chunk does not end where it should"));
        }
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let left =
            u64::from_str_radix(digits, 16).map_err(|_| Broken::protocol(format!("a chunk of {line:?} bytes")))?;
        if left > 0 {
            self.left = Left::Chunked { left, begun: true };
            return Ok(left);
        }
        while !self.line().await?.is_empty() {}
        self.left = Left::Bytes(0);
        Ok(0)
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.advance(end + 2);
                return Ok(line);
            }
            if self.ahead.len() > CHUNK_LINE_BYTES_MAX {
                return Err(Broken::protocol("a line of the body's framing is too long"));
            }
            self.fill(CHUNK_LINE_BYTES_MAX).await?;
        }
    }

    /// All of a short body.
    pub(crate) async fn read_all(&mut self, bytes_max: usize) -> Result<Vec<u8>, Broken> {
        let mut all = Vec::new();
        let mut room = vec![0; 16 << 10];
        loop {
            let got = self.read(&mut room).await?;
            if got == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&room[..got]);
            if all.len() > bytes_max {
                return Err(Broken::protocol(format!("an answer of more than {bytes_max} bytes")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(bytes: &'static [u8]) -> Result<(Head, Vec<u8>, bool), Broken> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // In pieces, so that nothing depends on how they come.
            for piece in bytes.chunks(7) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut connection = Connection::plain(TcpStream::connect(address).await.unwrap(), Duration::from_secs(30));
        let head = connection.read_head(false).await;
        let head = head?;
        let body = connection.read_all(1000).await?;
        serving.await.unwrap();
        Ok((head, body, connection.is_reusable()))
    }

    #[tokio::test]
    async fn bodies_end_where_they_say() {
        let (head, body, reusable) =
            answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\nhello")
                .await
                .unwrap();
        assert_eq!((head.status, head.header("etag"), &body[..], reusable), (200, Some("\"x\""), &b"hello"[..], true));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nt: 1\r\n\r\n";
        let (_, body, reusable) = answer(chunked).await.unwrap();
        assert_eq!((&body[..], reusable), (&b"hello"[..], true));
        let (_, body, reusable) = answer(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        assert_eq!((&body[..], reusable), (&b"hello"[..], false));
        let (_, _, reusable) = answer(b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(!reusable);
    }

    #[tokio::test]
    async fn what_is_broken_is_an_error_and_never_short_data() {
        for (bytes, kind) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"[..], super::super::BrokenKind::Gone),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", super::super::BrokenKind::Protocol),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", super::super::BrokenKind::Protocol),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel", super::super::BrokenKind::Gone),
            (b"SSH-2.0-OpenSSH\r\n\r\n", super::super::BrokenKind::Protocol),
        ] {
            assert_eq!(answer(bytes).await.unwrap_err().kind, kind, "{}", String::from_utf8_lossy(bytes));
        }
        let broken = answer(b"").await.unwrap_err();
        assert!(broken.unanswered);
    }
}
