//! Reads: the request, and its body over HTTP. A body that breaks off, or stands still, is taken up where it did, under
//! `If-Match`.

use std::ops::Range;

use futures::future::try_join_all;
use penstock_buf::BufMut;
use penstock_digest::{ChecksumHasher, ChecksumValue, combine_full_object};
use penstock_proto::limits;
use penstock_proto::plan::{ReadPlan, Record};

use crate::checks::{chosen, corrupt};
use crate::client::{Answer, Client, PROTOCOL, Request, name_of};
use crate::error::ClientError;
use crate::landing::Landing;
use crate::lent::Lent;
use crate::object::{Body, ByteRange, GetOptions, ObjectInfo, read_info};
use crate::options::Mode;
use crate::rest::Rest;

/// Which object, or which version of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
    pub(crate) version_id: Option<&'a str>,
}

/// Where read bytes go.
pub(crate) enum Sink<'a> {
    /// To memory of our own.
    Body(&'a mut Body),
    /// To the caller's; how much of it is filled.
    Slice(&'a mut [u8], usize),
    /// To memory of the caller's that nodes may be lent.
    Buffer(&'a mut Lent),
}

/// What came of asking for an object.
pub(crate) enum Opened {
    /// A plan.
    Plan { info: ObjectInfo, range: Range<u64>, plan: ReadPlan },
    /// The bytes follow.
    Http { info: ObjectInfo, range: Range<u64>, answer: Answer },
}

/// Memory of one share of a body.
enum Room<'a> {
    Own,
    Slice(&'a mut [u8]),
    Buffer(BufMut),
}

/// What came of one share.
struct Share {
    body: Body,
    buffer: Option<BufMut>,
    checksum: Option<ChecksumValue>,
    bytes: u64,
}

impl<'a> Target<'a> {
    pub(crate) fn new(bucket: &'a str, key: &'a str, options: &'a GetOptions) -> Self {
        Self { bucket, key, version_id: options.version_id.as_deref() }
    }

    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        self.version_id.iter().map(|id| ("versionId", (*id).to_owned())).collect()
    }

    pub(crate) fn name(&self) -> String {
        name_of(self.bucket, self.key)
    }
}

impl Opened {
    pub(crate) fn info(&self) -> &ObjectInfo {
        match self {
            Self::Plan { info, .. } | Self::Http { info, .. } => info,
        }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        match self {
            Self::Plan { range, .. } | Self::Http { range, .. } => range.clone(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }
}

impl Client {
    /// Reads what was opened.
    pub(crate) async fn read_opened(
        &self,
        target: Target<'_>,
        opened: Opened,
        sink: &mut Sink<'_>,
    ) -> Result<(ObjectInfo, Range<u64>), ClientError> {
        sink.check(opened.len())?;
        match opened {
            Opened::Plan { info, range, plan } => {
                self.read_by_plan(target, &info, range.clone(), plan, sink).await?;
                Ok((info, range))
            }
            Opened::Http { info, range, answer } => {
                self.read_http(target, &info, range.clone(), Some(answer), sink).await?;
                Ok((info, range))
            }
        }
    }

    /// Asks for the rest of an object that was begun.
    pub(crate) async fn open_rest(
        &self,
        target: Target<'_>,
        left: Range<u64>,
        etag: &str,
    ) -> Result<Opened, ClientError> {
        let options =
            GetOptions { range: Some(ByteRange::Span(left)), if_match: Some(etag.to_owned()), ..GetOptions::default() };
        match self.open(target, &options).await {
            Err(ClientError::Precondition(_)) => Err(ClientError::Changed { what: target.name() }),
            opened => opened,
        }
    }

    /// Asks for an object, for a plan of it where there may be one.
    pub(crate) async fn open(&self, target: Target<'_>, options: &GetOptions) -> Result<Opened, ClientError> {
        let inner = &*self.inner;
        let Target { bucket, key, .. } = target;
        let required = inner.options.require_plan || inner.options.require_rdma;
        let (headers, query) = (options.headers()?, target.query());
        let mut request = Request { method: "GET", bucket, key, query, headers, ..Request::default() };
        let native = inner.may_be_native();
        if native {
            request.headers.push(("x-amz-rdma-plan", "get".to_owned()));
            request.headers.push(("x-amz-rdma-protocol", PROTOCOL.to_owned()));
        } else if required {
            return Err(ClientError::PlanRequired("server"));
        }
        let answer = match inner.send_read(&request).await {
            Ok(answer) => answer,
            // A server that refuses headers it does not know.
            Err(error) if native && matches!(error.status(), Some(400 | 501)) && !inner.is_native(bucket).await? => {
                if required {
                    return Err(ClientError::PlanRequired("server"));
                }
                inner.stats.fallback("server");
                request.headers.retain(|(name, _)| !name.starts_with("x-amz-rdma-"));
                inner.send_read(&request).await?
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
        } else if inner.options.mode == Mode::Auto {
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

    /// Reads `left` of an object over HTTP, from an answer that is there or from a new one; in parallel shares when it is long and
    /// connections are idle.
    pub(crate) async fn read_http(
        &self,
        target: Target<'_>,
        info: &ObjectInfo,
        left: Range<u64>,
        answer: Option<Answer>,
        sink: &mut Sink<'_>,
    ) -> Result<(), ClientError> {
        let inner = &*self.inner;
        let bytes = left.end - left.start;
        let whole = bytes == info.size_bytes;
        let expected = if whole { chosen(&info.checksums, inner.options.verify) } else { None };
        let algorithm = expected.map(|value| value.algorithm());
        let count = match algorithm {
            // What does not combine is computed from the first byte to the last.
            Some(algorithm) if !algorithm.is_crc() => 1,
            _ => self.share_count(target, info, bytes),
        };
        let mut answer = answer;
        let ranges = cut(left, count);
        let rooms = sink.rooms(&ranges);
        let shares: Vec<_> = ranges
            .into_iter()
            .zip(rooms)
            .map(|(range, room)| {
                let bytes = range.end - range.start;
                let hasher = algorithm.map(ChecksumHasher::new);
                let rest = Rest::new(self, target, &info.etag, range, answer.take(), hasher);
                async move {
                    let (body, buffer, checksum) = self.read_share(rest, room).await?;
                    Ok::<_, ClientError>(Share { body, buffer, checksum, bytes })
                }
            })
            .collect();
        let shares = try_join_all(shares).await?;
        let parts: Vec<_> = shares.iter().filter_map(|share| Some((share.checksum?, share.bytes))).collect();
        for share in shares {
            sink.landed(share);
        }
        if let Sink::Slice(_, filled) = sink {
            *filled += bytes as usize;
        }
        inner.stats.count(|stats| {
            stats.split_reads += u64::from(count > 1);
            *stats.read_bytes.entry("http").or_default() += bytes;
        });
        let computed = match (algorithm, parts.as_slice()) {
            (None, _) => None,
            (Some(_), [(only, _)]) => Some(*only),
            (Some(algorithm), parts) => combine_full_object(algorithm, parts),
        };
        match (expected, computed) {
            (Some(expected), Some(computed)) if expected != computed => {
                inner.stats.count(|stats| stats.corrupt += 1);
                Err(corrupt(target.name(), &computed, &expected))
            }
            _ => Ok(()),
        }
    }

    /// One more than there are idle connections, as long as each has something to do: a split that has to connect first, or to wait
    /// for others, gains nothing.
    fn share_count(&self, target: Target<'_>, info: &ObjectInfo, bytes: u64) -> u64 {
        let options = &self.inner.options;
        let most = (bytes / options.split_bytes_min.max(1)).min(options.parallel_max as u64);
        if most < 2 || info.etag.is_empty() {
            return 1;
        }
        let idle = self.inner.connections.idle(&self.inner.endpoint.host_for(target.bucket));
        most.min(1 + idle as u64)
    }

    async fn read_share(
        &self,
        mut rest: Rest,
        room: Room<'_>,
    ) -> Result<(Body, Option<BufMut>, Option<ChecksumValue>), ClientError> {
        let (mut body, mut filled) = (Body::default(), None);
        match room {
            Room::Slice(into) => rest.fill(into).await?,
            Room::Buffer(mut buffer) => {
                rest.fill(&mut buffer).await?;
                filled = Some(buffer);
            }
            Room::Own => {
                let piece_max = self.inner.buffers.buffer_bytes_max() as u64;
                while rest.left_bytes() > 0 {
                    let mut landing = Landing::new(&self.inner, rest.left_bytes().min(piece_max) as usize).await;
                    rest.fill(&mut landing).await?;
                    body.push(landing.into());
                }
            }
        }
        Ok((body, filled, rest.finish()))
    }
}

/// `count` ranges of about the same length, on page boundaries.
fn cut(range: Range<u64>, count: u64) -> Vec<Range<u64>> {
    let bytes = range.end - range.start;
    let each = bytes.div_ceil(count.max(1)).next_multiple_of(4096).max(1);
    let begins = (0..count.max(1)).map(|share| range.start + share * each);
    let mut ranges: Vec<Range<u64>> =
        begins.filter(|begin| *begin < range.end).map(|begin| begin..(begin + each).min(range.end)).collect();
    if ranges.is_empty() {
        ranges.push(range);
    }
    ranges
}

impl Sink<'_> {
    /// Whether so many bytes fit it exactly.
    pub(crate) fn check(&self, object_bytes: u64) -> Result<(), ClientError> {
        let room = match self {
            Self::Body(_) => return Ok(()),
            Self::Slice(into, filled) => into.len() - filled,
            Self::Buffer(lent) => lent.left_bytes(),
        };
        if room as u64 == object_bytes {
            return Ok(());
        }
        Err(ClientError::Size { destination_bytes: room as u64, object_bytes })
    }

    /// Room for each share, side by side.
    fn rooms(&mut self, ranges: &[Range<u64>]) -> Vec<Room<'_>> {
        let bytes = ranges.iter().map(|range| (range.end - range.start) as usize);
        match self {
            Self::Body(_) => bytes.map(|_| Room::Own).collect(),
            Self::Buffer(lent) => bytes.map(|bytes| Room::Buffer(lent.split(bytes))).collect(),
            Self::Slice(into, filled) => {
                let mut left = &mut into[*filled..];
                let room = |bytes| {
                    let (room, rest) = std::mem::take(&mut left).split_at_mut(bytes);
                    left = rest;
                    Room::Slice(room)
                };
                bytes.map(room).collect()
            }
        }
    }

    /// Takes in what came of a share, in order.
    fn landed(&mut self, share: Share) {
        match self {
            Self::Body(body) => share.body.into_pieces().into_iter().for_each(|piece| body.push(piece)),
            Self::Buffer(lent) => share.buffer.into_iter().for_each(|buffer| lent.fill(buffer)),
            Self::Slice(..) => {}
        }
    }
}

/// A server's reason for declining, as one that statistics know.
pub(crate) fn known(reason: &str) -> &'static str {
    match reason {
        "small" => "small",
        "no-addresses" => "no-addresses",
        "digest" => "digest",
        "encrypted" => "encrypted",
        _ => "declined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_the_range_without_a_gap() {
        for (range, count) in [(0..1, 1), (0..0, 1), (5..100_000_005, 3), (0..4097, 4), (7..8, 4)] {
            let shares = cut(range.clone(), count);
            assert_eq!((shares[0].start, shares.last().unwrap().end), (range.start, range.end));
            assert!(shares.windows(2).all(|two| two[0].end == two[1].start), "{shares:?}");
            assert!(shares.len() as u64 <= count);
        }
    }
}
