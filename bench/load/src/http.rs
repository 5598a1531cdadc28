//! One HTTP/1.1 connection, and what can go wrong with it: nothing is believed and nothing is waited for without bound.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::FailureKind;

/// What is read at a time, and the longest head of an answer.
const BUFFER_BYTES: usize = 256 << 10;
const HEADERS_MAX: usize = 96;
/// A request this long, with its body, is sent in one piece.
const TOGETHER_BYTES_MAX: usize = 16 << 10;
/// Most of a body that is kept as text: listings and documents.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// What has come and was not taken yet.
    begin: usize,
    end: usize,
    stall: Duration,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    /// The length that was announced.
    pub(crate) length: Option<u64>,
    framing: Framing,
    /// Whether the connection may be used again.
    pub(crate) keep: bool,
}

impl Connection {
    pub(crate) async fn open(authority: &str, stall: Duration) -> Result<Self, FailureKind> {
        let stream = match timeout(stall, TcpStream::connect(authority)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) | Err(_) => return Err(FailureKind::Refused),
        };
        stream.set_nodelay(true).map_err(|_| FailureKind::Broken)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES].into(), begin: 0, end: 0, stall })
    }

    /// Sends a request. What the server says in the middle of it is read by [`Connection::head`] all the same.
    pub(crate) async fn send(&mut self, head: &str, mut body: impl Iterator<Item = Bytes>) -> Result<(), FailureKind> {
        let first = body.next().unwrap_or_default();
        if head.len() + first.len() <= TOGETHER_BYTES_MAX {
            let mut together = Vec::with_capacity(head.len() + first.len());
            together.extend_from_slice(head.as_bytes());
            together.extend_from_slice(&first);
            self.write(&together).await?;
        } else {
            self.write(head.as_bytes()).await?;
            self.write(&first).await?;
        }
        for piece in body {
            self.write(&piece).await?;
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), FailureKind> {
        while !bytes.is_empty() {
            match timeout(self.stall, self.stream.write(bytes)).await {
                Err(_elapsed) => return Err(FailureKind::Stalled),
                Ok(Ok(0) | Err(_)) => return Err(FailureKind::Broken),
                Ok(Ok(written)) => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// More bytes into the buffer; how many, and 0 at the end of the connection.
    async fn fill(&mut self) -> Result<usize, FailureKind> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.end == self.buffer.len() {
            return Err(FailureKind::Broken); // a head or a chunk's line longer than any server sends
        }
        match timeout(self.stall, self.stream.read(&mut self.buffer[self.end..])).await {
            Err(_elapsed) => Err(FailureKind::Stalled),
            Ok(Err(_)) => Ok(0),
            Ok(Ok(bytes)) => {
                self.end += bytes;
                Ok(bytes)
            }
        }
    }

    /// The head of the answer, past any `100 Continue`.
    pub(crate) async fn head(&mut self, to_head: bool) -> Result<Head, FailureKind> {
        loop {
            match parse(&self.buffer[self.begin..self.end], to_head)? {
                Some((head, bytes)) => {
                    self.begin += bytes;
                    if head.status >= 200 {
                        return Ok(head);
                    }
                }
                None => {
                    if self.fill().await? == 0 {
                        return Err(FailureKind::Broken);
                    }
                }
            }
        }
    }

    /// The body, piece by piece, with the place of each; false from `take` stops at once.
    ///
    /// # Errors
    /// ShortBody when it ends early, WrongData when `take` says so.
    pub(crate) async fn body(
        &mut self,
        head: &Head,
        mut take: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<u64, FailureKind> {
        let mut done = 0;
        match head.framing {
            Framing::Length(length) => {
                self.exactly(length, &mut done, &mut take).await?;
            }
            Framing::Chunked => loop {
                let length = self.chunk_length().await?;
                if length == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                self.exactly(length, &mut done, &mut take).await?;
                if !self.line().await?.is_empty() {
                    return Err(FailureKind::Broken);
                }
            },
            Framing::UntilClose => loop {
                if self.begin == self.end && self.fill().await? == 0 {
                    break;
                }
                self.deliver(u64::MAX, &mut done, &mut take)?;
            },
        }
        Ok(done)
    }

    async fn exactly(
        &mut self,
        length: u64,
        done: &mut u64,
        take: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), FailureKind> {
        let end = *done + length;
        while *done < end {
            if self.begin == self.end && self.fill().await? == 0 {
                return Err(FailureKind::ShortBody);
            }
            self.deliver(end - *done, done, take)?;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        limit: u64,
        done: &mut u64,
        take: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), FailureKind> {
        let bytes = ((self.end - self.begin) as u64).min(limit) as usize;
        let good = take(*done, &self.buffer[self.begin..self.begin + bytes]);
        self.begin += bytes;
        *done += bytes as u64;
        if good { Ok(()) } else { Err(FailureKind::WrongData) }
    }

    /// One line of chunked framing, without its end.
    async fn line(&mut self) -> Result<String, FailureKind> {
        loop {
            let come = &self.buffer[self.begin..self.end];
            if let Some(at) = come.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&come[..at]).into_owned();
                self.begin += at + 2;
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(FailureKind::ShortBody);
            }
        }
    }

    async fn chunk_length(&mut self) -> Result<u64, FailureKind> {
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(digits, 16).map_err(|_| FailureKind::Broken)
    }

    /// The body as text; what is past the limit is read and forgotten.
    pub(crate) async fn text(&mut self, head: &Head) -> Result<String, FailureKind> {
        let mut text = Vec::new();
        self.body(head, |_, piece| {
            let room = TEXT_BYTES_MAX.saturating_sub(text.len()).min(piece.len());
            text.extend_from_slice(&piece[..room]);
            true
        })
        .await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The head at the beginning of `bytes`, and how long it is.
fn parse(bytes: &[u8], to_head: bool) -> Result<Option<(Head, usize)>, FailureKind> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|_| FailureKind::Broken)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(FailureKind::Broken)?;
    let mut head =
        Head { status, etag: None, length: None, framing: Framing::UntilClose, keep: response.version == Some(1) };
    let mut chunked = false;
    for header in response.headers.iter() {
        let text = || std::str::from_utf8(header.value).map(str::trim).map_err(|_| FailureKind::Broken);
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = Some(text()?.parse().map_err(|_| FailureKind::Broken)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = text()?.eq_ignore_ascii_case("chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.keep &= !text()?.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("etag") {
            head.etag = Some(text()?.to_owned());
        }
    }
    head.framing = match head.length {
        _ if to_head || status < 200 || status == 204 || status == 304 => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => {
            head.keep = false;
            Framing::UntilClose
        }
    };
    Ok(Some((head, length)))
}
