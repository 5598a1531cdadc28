//! Reads: the request, and its body over HTTP. A body that breaks off is taken up where it did, under `If-Match`.

use std::ops::Range;

use penstock_digest::{crc64nvme, crc64nvme_combine};
use penstock_proto::limits;
use penstock_proto::plan::{ReadPlan, Record};

use crate::client::{Answer, Client, Inner, PROTOCOL, Request, retry_pause};
use crate::error::ClientError;
use crate::object::{Body, Object, ObjectInfo, read_info};
use crate::options::Mode;

/// Where read bytes go.
pub(crate) enum Sink<'a> {
    /// To memory of our own.
    Body(Body),
    /// To the caller's; how much of it is filled.
    Slice(&'a mut [u8], usize),
}

/// What came of asking for an object.
pub(crate) enum Opened {
    /// A plan.
    Plan { info: ObjectInfo, range: Range<u64>, plan: ReadPlan },
    /// The bytes follow.
    Http { info: ObjectInfo, range: Range<u64>, answer: Answer },
}

/// A body on its way, and what it takes to ask for the rest of it.
struct Rest<'a> {
    inner: &'a Inner,
    bucket: &'a str,
    key: &'a str,
    etag: String,
    /// What is still to come.
    left: Range<u64>,
    answer: Option<Answer>,
    /// Tries that brought nothing.
    idle_tries: u32,
    crc64: u64,
    taken_bytes: u64,
}

impl Client {
    pub(crate) async fn read_body(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Object, ClientError> {
        let mut sink = Sink::Body(Body::default());
        let (info, range) = self.read(bucket, key, range, &mut sink).await?;
        let Sink::Body(body) = sink else { return Err(self.inner.protocol("a body was read into a slice")) };
        Ok(Object { info, range, body })
    }

    pub(crate) async fn read_slice(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        into: &mut [u8],
    ) -> Result<ObjectInfo, ClientError> {
        let mut sink = Sink::Slice(into, 0);
        Ok(self.read(bucket, key, range, &mut sink).await?.0)
    }

    async fn read(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        sink: &mut Sink<'_>,
    ) -> Result<(ObjectInfo, Range<u64>), ClientError> {
        if range.as_ref().is_some_and(|range| range.start >= range.end) {
            return Err(ClientError::Configuration("an empty range can't be asked for".to_owned()));
        }
        match self.open(bucket, key, range, None, true).await? {
            Opened::Plan { info, range, plan } => {
                sink.check(&range)?;
                self.read_by_plan(bucket, key, &info, range.clone(), plan, sink).await?;
                Ok((info, range))
            }
            Opened::Http { info, range, answer } => {
                sink.check(&range)?;
                self.read_http(bucket, key, &info, range.clone(), Some(answer), sink).await?;
                Ok((info, range))
            }
        }
    }

    /// Asks for an object, for a plan of it with `plan`.
    pub(crate) async fn open(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
        plan: bool,
    ) -> Result<Opened, ClientError> {
        let inner = &*self.inner;
        let required = inner.options.require_plan || inner.options.require_rdma;
        let mut headers = vec![("x-amz-checksum-mode", "ENABLED".to_owned())];
        if let Some(range) = &range {
            headers.push(("range", format!("bytes={}-{}", range.start, range.end - 1)));
        }
        if let Some(etag) = if_match {
            headers.push(("if-match", format!("\"{etag}\"")));
        }
        let mut request = Request { method: "GET", bucket, key, headers, ..Request::default() };
        let native = plan && inner.may_be_native();
        if native {
            request.headers.push(("x-amz-rdma-plan", "get".to_owned()));
            request.headers.push(("x-amz-rdma-protocol", PROTOCOL.to_owned()));
        } else if plan && required {
            return Err(ClientError::PlanRequired("server"));
        }
        let answer = match inner.send(&request).await {
            Ok(answer) => answer,
            Err(ClientError::Server { status: 412, .. }) if if_match.is_some() => return Err(ClientError::Changed),
            // A server that refuses headers it does not know.
            Err(ClientError::Server { status: 400 | 501, .. }) if native && !inner.is_native(bucket).await? => {
                if required {
                    return Err(ClientError::PlanRequired("server"));
                }
                inner.stats.fallback("server");
                request.headers.retain(|(name, _)| !name.starts_with("x-amz-rdma-"));
                inner.send(&request).await?
            }
            Err(error) => return Err(error),
        };
        if native {
            let reason = match (inner.note_dialect(&answer.head), answer.head.header("x-amz-rdma-plan")) {
                (true, Some("get")) => return self.planned(answer).await,
                (true, _) => known(answer.head.header("x-amz-rdma-decline").unwrap_or_default()),
                (false, _) => "server",
            };
            if reason != "small" {
                inner.stats.fallback(reason);
                if required {
                    return Err(ClientError::PlanRequired(reason));
                }
            }
        } else if plan && inner.options.mode == Mode::Auto {
            inner.stats.fallback("server");
        }
        let Some(length) = answer.head.length else {
            return Err(inner.protocol("a GET is answered without Content-Length"));
        };
        let (info, range) = read_info(&answer.head, length).map_err(|reason| inner.protocol(reason))?;
        if range.end - range.start != length {
            return Err(inner.protocol("Content-Range and Content-Length don't agree"));
        }
        Ok(Opened::Http { info, range, answer })
    }

    async fn planned(&self, answer: Answer) -> Result<Opened, ClientError> {
        let inner = &*self.inner;
        let (head, body) = inner.whole(answer, limits::PLAN_BYTES_MAX).await?;
        let plan = ReadPlan::decode(&body).map_err(|error| inner.protocol(error))?;
        let (mut info, mut range) = read_info(&head, 0).map_err(|reason| inner.protocol(reason))?;
        if head.header("content-range").is_none() {
            // The whole object: its length is what the plan covers, or goes on beyond.
            let text = head.header("x-amz-rdma-object-bytes");
            let size = text.and_then(|text| text.parse().ok());
            info.size_bytes = size.ok_or_else(|| inner.protocol("a plan without x-amz-rdma-object-bytes"))?;
            range = 0..info.size_bytes;
        }
        Ok(Opened::Plan { info, range, plan })
    }

    /// Reads `left` of an object over HTTP, from an answer that is there or from a new one.
    pub(crate) async fn read_http(
        &self,
        bucket: &str,
        key: &str,
        info: &ObjectInfo,
        left: Range<u64>,
        answer: Option<Answer>,
        sink: &mut Sink<'_>,
    ) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let bytes = left.end - left.start;
        let whole = bytes == info.size_bytes;
        let etag = info.etag.clone();
        let mut rest =
            Rest { inner, bucket, key, etag, left, answer, idle_tries: 0, crc64: crc64nvme(&[]), taken_bytes: 0 };
        match sink {
            Sink::Slice(into, filled) => {
                rest.fill(&mut into[*filled..][..bytes as usize]).await?;
                *filled += bytes as usize;
            }
            Sink::Body(body) => {
                let piece_max = inner.buffers.buffer_bytes_max() as u64;
                let mut left = bytes;
                while left > 0 {
                    let piece = left.min(piece_max) as usize;
                    let wait = limits::BUFFER_WAIT;
                    let mut room =
                        inner.buffers.acquire(piece, wait).await.map_err(penstock_executor::ExecutorError::from)?;
                    rest.fill(&mut room).await?;
                    body.push(room.freeze());
                    left -= piece as u64;
                }
            }
        }
        if let Some(answer) = rest.answer.take() {
            inner.done(answer);
        }
        inner.stats.read("http", bytes);
        match info.crc64.filter(|expected| whole && *expected != rest.crc64) {
            Some(expected) => {
                Err(ClientError::Corrupt { what: format!("{bucket}/{key}"), computed: rest.crc64, expected })
            }
            None => Ok(()),
        }
    }
}

/// Checksums are computed over what has just come, while it is in the cache.
const CHECK_BYTES: usize = 256 << 10;

impl Rest<'_> {
    async fn fill(&mut self, into: &mut [u8]) -> Result<(), ClientError> {
        let (mut filled, mut checked) = (0, 0);
        while filled < into.len() {
            let Some(answer) = &mut self.answer else {
                self.open_again().await?;
                continue;
            };
            match answer.pooled.connection.read(&mut into[filled..]).await {
                Ok(got) if got > 0 => {
                    filled += got;
                    self.left.start += got as u64;
                    self.idle_tries = 0;
                    if filled - checked >= CHECK_BYTES {
                        self.check(&into[checked..filled]);
                        checked = filled;
                    }
                }
                broken => {
                    // The connection is of no use any more; what has come of the body is.
                    self.answer = None;
                    self.idle_tries += 1;
                    if self.idle_tries >= self.inner.options.tries_max {
                        return Err(match broken {
                            Err(broken) => self.inner.broken(broken),
                            Ok(_) => self.inner.protocol("a body ends before its length"),
                        });
                    }
                }
            }
        }
        self.check(&into[checked..filled]);
        Ok(())
    }

    fn check(&mut self, bytes: &[u8]) {
        self.crc64 = match self.taken_bytes {
            0 => crc64nvme(bytes),
            _ => crc64nvme_combine(self.crc64, crc64nvme(bytes), bytes.len() as u64),
        };
        self.taken_bytes += bytes.len() as u64;
    }

    async fn open_again(&mut self) -> Result<(), ClientError> {
        if self.idle_tries > 0 {
            tokio::time::sleep(retry_pause(self.idle_tries)).await;
        }
        self.inner.stats.count(|stats| stats.resumed += 1);
        let headers = vec![
            ("if-match", format!("\"{}\"", self.etag)),
            ("range", format!("bytes={}-{}", self.left.start, self.left.end - 1)),
        ];
        let request = Request { method: "GET", bucket: self.bucket, key: self.key, headers, ..Request::default() };
        let answer = match self.inner.send(&request).await {
            Err(ClientError::Server { status: 412, .. }) => return Err(ClientError::Changed),
            answer => answer?,
        };
        let length = answer.head.length.unwrap_or_default();
        let (_, range) = read_info(&answer.head, length).map_err(|reason| self.inner.protocol(reason))?;
        if range != self.left || length != range.end - range.start {
            return Err(self.inner.protocol(format!("bytes {:?} were asked for, {range:?} came", self.left)));
        }
        self.answer = Some(answer);
        Ok(())
    }
}

impl Sink<'_> {
    /// Whether the range fits it exactly.
    fn check(&self, range: &Range<u64>) -> Result<(), ClientError> {
        let object_bytes = range.end - range.start;
        match self {
            Self::Slice(into, _) if into.len() as u64 != object_bytes => {
                Err(ClientError::Size { destination_bytes: into.len() as u64, object_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// A server's reason for declining, as one that statistics know.
pub(crate) fn known(reason: &str) -> &'static str {
    match reason {
        "small" => "small",
        "no-addresses" => "no-addresses",
        "digest" => "digest",
        _ => "declined",
    }
}
