//! The operations, each a future that knows nothing of Python, and what comes of them.

use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt, stream};
use penstock_client::{
    ByteRange, Client, ClientError, CopyOptions, CopySource, DeleteKey, GetOptions, ListEntry, ListOptions, ObjectInfo,
    Part, PutDone, PutOptions,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::buffer::Buffer;
use crate::errors::Failure;
use crate::memory::Region;
use crate::upload::{Begun, Upload, in_order};

/// What an operation gives.
pub(crate) enum Outcome {
    Nothing,
    Bytes(Region),
    /// In the order that was asked for.
    Many(Vec<Result<Region, Failure>>),
    /// Bytes read, by destination; -1 where there is no object.
    Lengths(Vec<i64>),
    Info(ObjectInfo),
    Put(PutDone),
    Upload(Begun),
    Entries(Vec<ListEntry>),
    Buckets(Vec<(String, String)>),
    Text(String),
}

impl Outcome {
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let object = match self {
            Self::Nothing => return Ok(py.None()),
            Self::Bytes(region) => Bound::new(py, Buffer::new(region))?.into_any(),
            Self::Many(all) => {
                let list = PyList::empty(py);
                for one in all {
                    match one {
                        Ok(region) => list.append(Bound::new(py, Buffer::new(region))?)?,
                        Err(failure) => list.append(failure.into_exception(py).into_value(py))?,
                    }
                }
                list.into_any()
            }
            Self::Lengths(lengths) => lengths.into_pyobject(py)?,
            Self::Info(info) => {
                let metadata = PyDict::new(py);
                for (name, value) in info.user_metadata {
                    metadata.set_item(name, value)?;
                }
                let (size, etag, modified) = (info.size_bytes, info.etag, info.last_modified);
                (size, etag, modified, info.content_type, metadata, info.crc64).into_pyobject(py)?.into_any()
            }
            Self::Put(done) => (done.etag, done.crc64, done.version_id).into_pyobject(py)?.into_any(),
            Self::Upload(begun) => Bound::new(py, Upload { begun: Arc::new(begun), parts: Arc::default() })?.into_any(),
            Self::Entries(entries) => {
                let list = PyList::empty(py);
                for entry in entries {
                    match entry {
                        ListEntry::Object { key, size_bytes, etag, last_modified, .. } => {
                            list.append((key, size_bytes, etag, last_modified))?;
                        }
                        ListEntry::Prefix(prefix) => list.append((prefix, py.None(), "", ""))?,
                    }
                }
                list.into_any()
            }
            Self::Buckets(buckets) => buckets.into_pyobject(py)?,
            Self::Text(text) => text.into_pyobject(py)?.into_any(),
        };
        Ok(object.unbind())
    }
}

fn place(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

/// A range as Python has it: where it begins (so many before the end when that is negative), and how long it is (to the end).
pub(crate) type Span = Option<(i64, Option<u64>)>;

fn options(span: Span) -> GetOptions {
    let range = span.map(|(start, length)| match (u64::try_from(start), length) {
        (Ok(start), Some(length)) => ByteRange::Span(start..start.saturating_add(length)),
        (Ok(start), None) => ByteRange::From(start),
        (Err(_), _) => ByteRange::Last(start.unsigned_abs()),
    });
    GetOptions { range, ..GetOptions::default() }
}

/// An object, or some bytes of it, in memory of its own.
async fn read(client: &Client, bucket: &str, key: &str, span: Span) -> Result<Region, Failure> {
    let mut none_for = None;
    let room = |_: &ObjectInfo, bytes: usize| {
        Region::new(bytes).ok_or_else(|| {
            none_for = Some(bytes);
            ClientError::Configuration("no memory".to_owned())
        })
    };
    let read = client.get_with(bucket, key, &options(span), room).await;
    match (read, none_for) {
        (Ok((_, _, region)), _) => Ok(region),
        (Err(_), Some(bytes)) => Err(Failure::Memory { bytes }),
        (Err(error), None) => Err(Failure::of(place(bucket, key))(error)),
    }
}

/// An object into memory that is as long, or bytes of it from `start` on.
async fn read_into(
    client: &Client,
    bucket: &str,
    key: &str,
    start: Option<u64>,
    into: &mut [u8],
) -> Result<i64, Failure> {
    if into.is_empty() && start.is_some() {
        return Ok(0);
    }
    let done = match start {
        Some(start) => client.get_range_into(bucket, key, start, into).await,
        None => client.get_into(bucket, key, into).await,
    };
    done.map(|_| into.len() as i64).map_err(Failure::of(place(bucket, key)))
}

pub(crate) async fn get(client: Client, bucket: String, key: String, span: Span) -> Result<Outcome, Failure> {
    read(&client, &bucket, &key, span).await.map(Outcome::Bytes)
}

/// `(bucket, key, span)` each.
pub(crate) type Wanted = (String, String, Span);

pub(crate) async fn get_many(client: Client, wanted: Vec<Wanted>, at_a_time: usize) -> Result<Outcome, Failure> {
    let reads: Vec<_> = wanted.iter().map(|(bucket, key, span)| read(&client, bucket, key, *span)).collect();
    Ok(Outcome::Many(stream::iter(reads).buffered(at_a_time).collect().await))
}

/// A place to read into: the bucket, the key, where to begin (the whole object if nowhere), the memory.
pub(crate) struct Destination {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) start: Option<u64>,
    pub(crate) into: &'static mut [u8],
}

/// Reads into all of them; the first failure ends it, but for objects that are not there with `missing_is_minus_one`.
pub(crate) async fn get_into(
    client: Client,
    destinations: Vec<Destination>,
    at_a_time: usize,
    missing_is_minus_one: bool,
) -> Result<Outcome, Failure> {
    let read = |destination: Destination| {
        let client = &client;
        async move {
            let Destination { bucket, key, start, into } = destination;
            match read_into(client, &bucket, &key, start, into).await {
                Err(Failure::Client { error, .. }) if missing_is_minus_one && error.code() == Some("NoSuchKey") => {
                    Ok(-1)
                }
                done => done,
            }
        }
    };
    let reads: Vec<_> = destinations.into_iter().map(read).collect();
    stream::iter(reads).buffered(at_a_time).try_collect().await.map(Outcome::Lengths)
}

/// Memory in pieces that are one body.
pub(crate) type Pieces = Vec<&'static [u8]>;

pub(crate) async fn put(
    client: Client,
    bucket: String,
    key: String,
    data: Pieces,
    options: PutOptions,
) -> Result<Outcome, Failure> {
    let done = client.put_pieces(&bucket, &key, &data, options).await;
    done.map(Outcome::Put).map_err(Failure::of(place(&bucket, &key)))
}

pub(crate) async fn create_upload(
    client: Client,
    bucket: String,
    key: String,
    options: PutOptions,
) -> Result<Outcome, Failure> {
    let id = client.create_upload(&bucket, &key, &options).await.map_err(Failure::of(place(&bucket, &key)))?;
    Ok(Outcome::Upload(Begun { bucket, key, id, options }))
}

pub(crate) async fn upload_part(
    client: Client,
    upload: Arc<Begun>,
    parts: Arc<Mutex<Vec<Part>>>,
    number: u32,
    data: Pieces,
) -> Result<Outcome, Failure> {
    let Begun { bucket, key, id, .. } = &*upload;
    let part = client.upload_part(bucket, key, id, number, &data).await.map_err(Failure::of(place(bucket, key)))?;
    parts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(part);
    Ok(Outcome::Nothing)
}

pub(crate) async fn complete_upload(
    client: Client,
    upload: Arc<Begun>,
    parts: Arc<Mutex<Vec<Part>>>,
) -> Result<Outcome, Failure> {
    let Begun { bucket, key, id, options } = &*upload;
    let done = client.complete_upload(bucket, key, id, &in_order(&parts), options).await;
    done.map(Outcome::Put).map_err(Failure::of(place(bucket, key)))
}

pub(crate) async fn abort_upload(client: Client, upload: Arc<Begun>) -> Result<Outcome, Failure> {
    let Begun { bucket, key, id, .. } = &*upload;
    client.abort_upload(bucket, key, id).await.map_err(Failure::of(place(bucket, key)))?;
    Ok(Outcome::Nothing)
}

/// From bucket and key to bucket and key.
pub(crate) async fn copy(client: Client, from: (String, String), to: (String, String)) -> Result<Outcome, Failure> {
    let source = CopySource::new(from.0, from.1);
    let done = client.copy(&source, &to.0, &to.1, &CopyOptions::default()).await;
    done.map(Outcome::Put).map_err(Failure::of(place(&source.bucket, &source.key)))
}

pub(crate) async fn delete_many(client: Client, bucket: String, keys: Vec<String>) -> Result<Outcome, Failure> {
    let keys: Vec<DeleteKey> = keys.into_iter().map(DeleteKey::from).collect();
    let outcomes = client.delete_many(&bucket, &keys).await.map_err(Failure::of(place(&bucket, "")))?;
    for deleted in outcomes {
        deleted.outcome.map_err(Failure::of(place(&bucket, &deleted.key)))?;
    }
    Ok(Outcome::Nothing)
}

pub(crate) async fn delete_bucket(client: Client, bucket: String) -> Result<Outcome, Failure> {
    client.delete_bucket(&bucket).await.map_err(Failure::of(place(&bucket, "")))?;
    Ok(Outcome::Nothing)
}

/// Names, each with when it was created.
pub(crate) async fn list_buckets(client: Client) -> Result<Outcome, Failure> {
    let buckets = client.list_buckets().await.map_err(Failure::of("the list of buckets"))?;
    Ok(Outcome::Buckets(buckets.into_iter().map(|bucket| (bucket.name, bucket.created)).collect()))
}

pub(crate) async fn head(client: Client, bucket: String, key: String) -> Result<Outcome, Failure> {
    client.head(&bucket, &key).await.map(Outcome::Info).map_err(Failure::of(place(&bucket, &key)))
}

pub(crate) async fn delete(client: Client, bucket: String, key: String) -> Result<Outcome, Failure> {
    client.delete(&bucket, &key).await.map_err(Failure::of(place(&bucket, &key)))?;
    Ok(Outcome::Nothing)
}

pub(crate) async fn create_bucket(client: Client, bucket: String) -> Result<Outcome, Failure> {
    client.create_bucket(&bucket).await.map_err(Failure::of(place(&bucket, "")))?;
    Ok(Outcome::Nothing)
}

/// At most `entries_max` entries; fewer are the last.
pub(crate) async fn list(
    client: Client,
    bucket: String,
    options: ListOptions,
    entries_max: usize,
) -> Result<Outcome, Failure> {
    let entries = client.list(&bucket, options).take(entries_max).try_collect().await;
    entries.map(Outcome::Entries).map_err(Failure::of(place(&bucket, "")))
}

pub(crate) async fn presign(
    client: Client,
    method: &'static str,
    bucket: String,
    key: String,
    expires: std::time::Duration,
) -> Result<Outcome, Failure> {
    let url = client.presign(method, &bucket, &key, expires).await;
    url.map(Outcome::Text).map_err(Failure::of(place(&bucket, &key)))
}
