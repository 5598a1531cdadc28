//! Reads, as callers have them: into pool memory, into theirs, one object or many, whole or in ranges, or as a stream.

use std::ops::Range;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use penstock_buf::{Buf, BufMut};
use penstock_proto::limits;

use crate::client::{Client, Request, name_of};
use crate::error::ClientError;
use crate::landing::Landing;
use crate::object::{Body, ByteRange, GetOptions, Object, ObjectInfo, read_info};
use crate::plain::{Opened, Sink, Target};
use crate::rest::Rest;

/// Reads of one object until its bytes are those that were stored.
const READS_MAX: u32 = 3;
/// Bytes that a stream over plans asks for at a time.
const WINDOW_BYTES: u64 = 16 << 20;

impl Client {
    /// The object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Object, ClientError> {
        self.get_opts(bucket, key, &GetOptions::default()).await
    }

    /// Some bytes of the object: less when it ends before.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::InvalidRange`] when it ends before the first.
    pub async fn get_range(&self, bucket: &str, key: &str, range: Range<u64>) -> Result<Object, ClientError> {
        self.get_opts(bucket, key, &GetOptions::range(range)).await
    }

    /// The object, or a range or version of it, under conditions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_opts(&self, bucket: &str, key: &str, options: &GetOptions) -> Result<Object, ClientError> {
        let target = Target::new(bucket, key, options);
        self.bounded("a GET", async {
            let mut reads = 0;
            loop {
                let opened = self.open(target, options).await?;
                let mut body = Body::default();
                match self.read_opened(target, opened, &mut Sink::Body(&mut body)).await {
                    Ok((info, range)) => return Ok(Object { info, range, body }),
                    Err(error) => self.read_again(error, &mut reads)?,
                }
            }
        })
        .await
    }

    /// The object, or a range or version of it, into memory that `make` gives once the length is known. After an error its
    /// contents are unspecified; `make` may be asked again when what came was not what was stored.
    ///
    /// # Errors
    /// [`ClientError`]; what `make` says; [`ClientError::Size`] when its memory has another length.
    pub async fn get_with<D: AsMut<[u8]>>(
        &self,
        bucket: &str,
        key: &str,
        options: &GetOptions,
        mut make: impl FnMut(&ObjectInfo, usize) -> Result<D, ClientError>,
    ) -> Result<(ObjectInfo, Range<u64>, D), ClientError> {
        let target = Target::new(bucket, key, options);
        self.bounded("a GET", async {
            let mut reads = 0;
            loop {
                let opened = self.open(target, options).await?;
                let mut into = make(opened.info(), opened.len() as usize)?;
                match self.read_opened(target, opened, &mut Sink::Slice(into.as_mut(), 0)).await {
                    Ok((info, range)) => return Ok((info, range, into)),
                    Err(error) => self.read_again(error, &mut reads)?,
                }
            }
        })
        .await
    }

    /// The object, into memory that is exactly as long. After an error its contents are unspecified.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Size`] when it has another length.
    pub async fn get_into(&self, bucket: &str, key: &str, into: &mut [u8]) -> Result<ObjectInfo, ClientError> {
        self.get_opts_into(bucket, key, &GetOptions::default(), into).await
    }

    /// Some bytes of the object, into memory that is exactly as long as they are.
    ///
    /// # Errors
    /// As [`Client::get_into`].
    pub async fn get_range_into(
        &self,
        bucket: &str,
        key: &str,
        start: u64,
        into: &mut [u8],
    ) -> Result<ObjectInfo, ClientError> {
        let options = GetOptions::range(start..start + into.len() as u64);
        self.get_opts_into(bucket, key, &options, into).await
    }

    /// The object, or a range or version of it, into memory that is exactly as long.
    ///
    /// # Errors
    /// As [`Client::get_into`].
    pub async fn get_opts_into(
        &self,
        bucket: &str,
        key: &str,
        options: &GetOptions,
        into: &mut [u8],
    ) -> Result<ObjectInfo, ClientError> {
        let target = Target::new(bucket, key, options);
        self.bounded("a GET", async {
            let mut reads = 0;
            loop {
                let opened = self.open(target, options).await?;
                match self.read_opened(target, opened, &mut Sink::Slice(into, 0)).await {
                    Ok((info, _)) => return Ok(info),
                    Err(error) => self.read_again(error, &mut reads)?,
                }
            }
        })
        .await
    }

    /// Memory of the pool, 4 KiB-aligned, registered with whatever moves payload: for [`Client::get_into_buffer`]. At most 8 MiB;
    /// waits its turn.
    ///
    /// # Errors
    /// [`ClientError::Nodes`] when none comes free in time.
    pub async fn buffer(&self, bytes: usize) -> Result<BufMut, ClientError> {
        let buffer = self.inner.buffers.acquire(bytes, limits::BUFFER_WAIT).await;
        Ok(buffer.map_err(penstock_executor::ExecutorError::from)?)
    }

    /// Many ranges of one object, each into its own memory, [`crate::ClientOptions::parallel_max`] at a time.
    ///
    /// # Errors
    /// The first that occurs.
    pub async fn get_ranges_into(
        &self,
        bucket: &str,
        key: &str,
        ranges: Vec<(u64, &mut [u8])>,
    ) -> Result<(), ClientError> {
        let reads: Vec<_> = ranges
            .into_iter()
            .map(|(start, into)| async move { self.get_range_into(bucket, key, start, into).await.map(drop) })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(self.inner.options.parallel_max.max(1));
        while let Some(read) = reads.next().await {
            read?;
        }
        Ok(())
    }

    /// Many ranges of one object, [`crate::ClientOptions::parallel_max`] at a time; results in the order of `ranges`.
    pub async fn get_ranges(&self, bucket: &str, key: &str, ranges: &[Range<u64>]) -> Vec<Result<Object, ClientError>> {
        let reads: Vec<_> = ranges.iter().map(|range| self.get_range(bucket, key, range.clone())).collect();
        stream::iter(reads).buffered(self.inner.options.parallel_max.max(1)).collect().await
    }

    /// Many objects, `at_a_time` at a time; results in the order of `keys`.
    pub async fn get_many(&self, bucket: &str, keys: &[String], at_a_time: usize) -> Vec<Result<Object, ClientError>> {
        let reads: Vec<_> = keys.iter().map(|key| self.get(bucket, key)).collect();
        stream::iter(reads).buffered(at_a_time.max(1)).collect().await
    }

    /// Many objects, each into memory that is exactly as long, `at_a_time` at a time; results in the order of `keys`.
    pub async fn get_many_into(
        &self,
        bucket: &str,
        keys: Vec<(&str, &mut [u8])>,
        at_a_time: usize,
    ) -> Vec<Result<ObjectInfo, ClientError>> {
        let reads: Vec<_> =
            keys.into_iter().map(|(key, into)| async move { self.get_into(bucket, key, into).await }).collect();
        stream::iter(reads).buffered(at_a_time.max(1)).collect().await
    }

    /// The object, or a range or version of it, piece by piece as they are taken: pieces of up to 8 MiB. Its checksum is compared
    /// at the end: the stream ends in an error when it does not hold, and whoever has taken the pieces must not believe
    /// them then. The deadline is each piece's.
    ///
    /// # Errors
    /// [`ClientError`] of the request; those of the body come by the stream.
    pub async fn get_stream(
        &self,
        bucket: &str,
        key: &str,
        options: &GetOptions,
    ) -> Result<(ObjectInfo, Range<u64>, impl Stream<Item = Result<Buf, ClientError>> + Send + use<>), ClientError>
    {
        let target = Target::new(bucket, key, options);
        let opened = self.bounded("a GET", self.open(target, options)).await?;
        let (info, range) = (opened.info().clone(), opened.range());
        let pieces = match opened {
            Opened::Http { answer, .. } => {
                let expected = crate::checks::chosen(&info.checksums, self.inner.options.verify)
                    .filter(|_| range.end - range.start == info.size_bytes);
                let hasher = expected.map(|value| penstock_digest::ChecksumHasher::new(value.algorithm()));
                let rest = Rest::new(self, target, &info.etag, range.clone(), Some(answer), hasher);
                self.stream_http(rest, target.name(), expected).left_stream()
            }
            // What is short is read at once.
            opened if opened.len() <= WINDOW_BYTES => {
                let mut body = Body::default();
                self.bounded("a GET", self.read_opened(target, opened, &mut Sink::Body(&mut body))).await?;
                stream::iter(body.into_pieces().into_iter().map(Ok)).left_stream().right_stream()
            }
            // Each window by a plan of its own, two ahead of who takes them.
            Opened::Plan { .. } => {
                let begins = (range.start..range.end).step_by(WINDOW_BYTES as usize);
                let windows: Vec<_> = begins.map(|begin| begin..(begin + WINDOW_BYTES).min(range.end)).collect();
                let names: Arc<(String, String)> = Arc::new((bucket.to_owned(), key.to_owned()));
                let (client, options, etag) = (self.clone(), options.clone(), info.etag.clone());
                let reads = windows.into_iter().map(move |window| {
                    let (client, names) = (client.clone(), Arc::clone(&names));
                    let options = GetOptions {
                        range: Some(ByteRange::Span(window)),
                        if_match: Some(etag.clone()),
                        version_id: options.version_id.clone(),
                        ..GetOptions::default()
                    };
                    async move {
                        match client.get_opts(&names.0, &names.1, &options).await {
                            Err(ClientError::Precondition(_)) => {
                                Err(ClientError::Changed { what: name_of(&names.0, &names.1) })
                            }
                            object => object,
                        }
                    }
                });
                let pieces = |object: Result<Object, ClientError>| match object {
                    Ok(object) => stream::iter(object.body.into_pieces().into_iter().map(Ok)).left_stream(),
                    Err(error) => stream::iter([Err(error)]).right_stream(),
                };
                stream::iter(reads).buffered(2).flat_map(pieces).right_stream().right_stream()
            }
        };
        Ok((info, range, Box::pin(pieces)))
    }

    fn stream_http(
        &self,
        rest: Rest,
        name: String,
        expected: Option<penstock_digest::ChecksumValue>,
    ) -> impl Stream<Item = Result<Buf, ClientError>> + Send + use<> {
        let client = self.clone();
        stream::try_unfold(Some(rest), move |rest| {
            let (client, name) = (client.clone(), name.clone());
            async move {
                let Some(mut rest) = rest else { return Ok(None) };
                if rest.left_bytes() == 0 {
                    return match (expected, rest.finish()) {
                        (Some(expected), Some(computed)) if expected != computed => {
                            client.inner.stats.count(|stats| stats.corrupt += 1);
                            Err(crate::checks::corrupt(name, &computed, &expected))
                        }
                        _ => Ok(None),
                    };
                }
                let bytes = rest.left_bytes().min(client.inner.buffers.buffer_bytes_max() as u64) as usize;
                let mut landing = Landing::new(&client.inner, bytes).await;
                client.bounded("a GET", rest.fill(&mut landing)).await?;
                client.inner.stats.read("http", bytes as u64);
                Ok(Some((landing.into(), Some(rest))))
            }
        })
    }

    /// Whether to read again: the bytes were not those that were stored, or no longer are.
    fn read_again(&self, error: ClientError, reads: &mut u32) -> Result<(), ClientError> {
        *reads += 1;
        let may_pass = matches!(error, ClientError::Corrupt { .. } | ClientError::Changed { .. });
        if !may_pass || *reads >= READS_MAX {
            return Err(error);
        }
        tracing::warn!(%error, "read again");
        self.inner.stats.count(|stats| stats.retries += 1);
        Ok(())
    }

    /// What the server says of the object.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, ClientError> {
        self.head_opts(bucket, key, &GetOptions::default()).await
    }

    /// What the server says of the object, or of a version of it, under conditions. A range is not looked at.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn head_opts(&self, bucket: &str, key: &str, options: &GetOptions) -> Result<ObjectInfo, ClientError> {
        let options = GetOptions { range: None, ..options.clone() };
        let (headers, query) = (options.headers()?, Target::new(bucket, key, &options).query());
        let request = Request { method: "HEAD", bucket, key, query, headers, ..Request::default() };
        self.bounded("a HEAD", async {
            let answer = self.inner.send_read(&request).await?;
            let length = answer.head.length.unwrap_or_default();
            let info = read_info(&answer.head, length).map_err(|reason| self.inner.protocol(reason));
            self.inner.done(answer);
            Ok(info?.0)
        })
        .await
    }
}
