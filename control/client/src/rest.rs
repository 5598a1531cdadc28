//! A body on its way, and what it takes to get the rest of it when it breaks off or stands still.

use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use penstock_digest::{ChecksumHasher, ChecksumValue};

use crate::client::{Answer, Client, Request, name_of, retry_pause};
use crate::error::ClientError;
use crate::http::{Broken, BrokenKind};
use crate::object::{quoted, read_info};
use crate::plain::Target;

/// Checksums are computed over what has just come, while it is in the cache.
const CHECK_BYTES: usize = 256 << 10;

/// A body on its way.
pub(crate) struct Rest {
    client: Client,
    bucket: String,
    key: String,
    version_id: Option<String>,
    etag: String,
    /// What is still to come.
    left: Range<u64>,
    /// How many bytes there were to come in the beginning.
    expected_bytes: u64,
    answer: Option<Answer>,
    /// Tries that brought nothing.
    idle_tries: u32,
    hasher: Option<ChecksumHasher>,
}

impl Rest {
    pub(crate) fn new(
        client: &Client,
        target: Target<'_>,
        etag: &str,
        left: Range<u64>,
        answer: Option<Answer>,
        hasher: Option<ChecksumHasher>,
    ) -> Self {
        Self {
            client: client.clone(),
            bucket: target.bucket.to_owned(),
            key: target.key.to_owned(),
            version_id: target.version_id.map(str::to_owned),
            etag: etag.to_owned(),
            expected_bytes: left.end - left.start,
            left,
            answer,
            idle_tries: 0,
            hasher,
        }
    }

    pub(crate) fn left_bytes(&self) -> u64 {
        self.left.end - self.left.start
    }

    /// The connection goes back when all of it was read; the checksum of what was.
    pub(crate) fn finish(mut self) -> Option<ChecksumValue> {
        if let Some(answer) = self.answer.take() {
            self.client.inner.done(answer);
        }
        self.hasher.map(ChecksumHasher::finish)
    }

    /// Reads as much as fits `into`, which is no more than is left.
    pub(crate) async fn fill(&mut self, into: &mut [u8]) -> Result<(), ClientError> {
        let (mut filled, mut checked) = (0, 0);
        while filled < into.len() {
            let Some(answer) = self.answer.take() else {
                self.answer = Some(self.open_again().await?);
                continue;
            };
            match self.read_some(answer, &mut into[filled..]).await {
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
                    if self.idle_tries >= self.client.inner.options.tries_max {
                        return Err(self.given_up(broken.err()));
                    }
                }
            }
        }
        self.check(&into[checked..filled]);
        Ok(())
    }

    fn given_up(&self, broken: Option<Broken>) -> ClientError {
        match broken {
            Some(broken) if broken.kind != BrokenKind::Gone => self.client.inner.broken(broken),
            gone => ClientError::Truncated {
                what: name_of(&self.bucket, &self.key),
                received_bytes: self.expected_bytes - self.left_bytes(),
                expected_bytes: self.expected_bytes,
                reason: gone.map_or_else(|| "the body ended before its length".to_owned(), |broken| broken.reason),
            },
        }
    }

    /// Some bytes. When none come for too long, and there is budget, the rest is asked for on another connection as well: from
    /// whichever moves first they are taken, and the other is dropped. Both are sockets that this task reads, one at a time, so
    /// that no two attempts write to `room`.
    async fn read_some(&mut self, mut answer: Answer, room: &mut [u8]) -> Result<usize, Broken> {
        let inner = self.client.inner.clone();
        let stall = inner.hedger.as_ref().and_then(|hedger| Some((hedger, hedger.stall()?)));
        let Some((hedger, delay)) = stall else {
            let got = answer.pooled.connection.read(room).await;
            self.answer = Some(answer);
            return got;
        };
        if let Ok(got) = tokio::time::timeout(delay, answer.pooled.connection.read(room)).await {
            self.answer = Some(answer);
            return got;
        }
        if !inner.connections.has_room() || !hedger.spend() {
            let got = answer.pooled.connection.read(room).await;
            self.answer = Some(answer);
            return got;
        }
        inner.stats.count(|stats| stats.hedges += 1);
        let better = {
            let reading = pin!(answer.pooled.connection.read(room));
            let asking = pin!(self.ask());
            match select(reading, asking).await {
                Either::Left((got, _)) => Either::Left(got),
                Either::Right((Ok(better), _)) => Either::Right(better),
                Either::Right((Err(_), reading)) => Either::Left(reading.await),
            }
        };
        match better {
            Either::Left(got) => {
                self.answer = Some(answer);
                got
            }
            Either::Right(mut better) => {
                inner.stats.count(|stats| stats.hedges_won += 1);
                drop(answer);
                let got = better.pooled.connection.read(room).await;
                self.answer = Some(better);
                got
            }
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
    }

    async fn open_again(&mut self) -> Result<Answer, ClientError> {
        if self.idle_tries > 0 {
            let pause: Duration = retry_pause(self.idle_tries);
            tokio::time::sleep(pause).await;
        }
        if self.left_bytes() < self.expected_bytes || self.idle_tries > 0 {
            self.client.inner.stats.count(|stats| stats.resumed += 1);
        }
        self.ask().await
    }

    /// Asks for what is left, of the same object.
    async fn ask(&self) -> Result<Answer, ClientError> {
        let inner = &*self.client.inner;
        let mut headers = vec![("range", format!("bytes={}-{}", self.left.start, self.left.end - 1))];
        if !self.etag.is_empty() {
            headers.push(("if-match", quoted(&self.etag)));
        }
        let query = self.version_id.iter().map(|id| ("versionId", id.clone())).collect();
        let request =
            Request { method: "GET", bucket: &self.bucket, key: &self.key, query, headers, ..Request::default() };
        let answer = match inner.send(&request).await {
            Err(ClientError::Precondition(_)) => {
                return Err(ClientError::Changed { what: name_of(&self.bucket, &self.key) });
            }
            answer => answer?,
        };
        let length = answer.head.length.unwrap_or_default();
        let (_, range) = read_info(&answer.head, length).map_err(|reason| inner.protocol(reason))?;
        if range != self.left || length != range.end - range.start {
            return Err(inner.protocol(format!("bytes {:?} were asked for, {range:?} came", self.left)));
        }
        Ok(answer)
    }
}
