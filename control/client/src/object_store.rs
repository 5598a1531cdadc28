//! arrow-rs's [`ObjectStore`](object_store::ObjectStore) over a [`Client`], for DataFusion, Polars, Delta and whoever else takes one.
//!
//! One store is one bucket. Whole objects are read as the client reads them: by plan where the server gives one, verified. What a caller
//! asks of the trait that S3 has no word for is `NotSupported`, never ignored. `tests/client/store.rs` runs the crate's own
//! integration tests.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ::object_store as api;
use api::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use api::multipart::{MultipartStore, PartId};
use api::path::Path;
use api::{
    Attribute, Attributes, CopyMode, GetRange, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, PutMode, PutMultipartOptions, PutPayload, PutResult, UploadPart,
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use crate::object::modified_time;
use crate::{
    ByteRange, Client, ClientError, CopyOptions, CopySource, DeleteKey, ErrorKind, GetOptions, ListEntry, ListOptions,
    ObjectInfo, Part, PutOptions, UploadId,
};

/// How errors name the store.
const STORE: &str = "penstock";
/// Keys of one DeleteObjects.
const DELETE_KEYS: usize = 1000;

/// A bucket as an [`ObjectStore`](api::ObjectStore).
#[derive(Clone)]
pub struct PenstockStore {
    client: Client,
    bucket: Arc<str>,
}

impl PenstockStore {
    /// The bucket, by this client.
    pub fn new(client: Client, bucket: &str) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// The client: its statistics, and what the trait has no word for.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn list_from(&self, prefix: Option<&Path>, start_after: String) -> BoxStream<'static, api::Result<ObjectMeta>> {
        let options = ListOptions { prefix: folder(prefix), start_after, ..ListOptions::default() };
        let bucket = Arc::clone(&self.bucket);
        let entries = self.client.list(&self.bucket, options).map_err(move |error| wrong(&bucket, error));
        entries
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    // Markers of folders are no objects here.
                    ListEntry::Object { key, .. } if key.ends_with('/') => None,
                    ListEntry::Object { key, size_bytes, etag, last_modified, .. } => {
                        Some(meta(&key, size_bytes, etag, &last_modified, None)?)
                    }
                    ListEntry::Prefix(_) => None,
                })
            })
            .boxed()
    }
}

impl fmt::Display for PenstockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Penstock({})", self.bucket)
    }
}

impl fmt::Debug for PenstockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PenstockStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// The trait's word for an error.
fn wrong(path: &str, error: ClientError) -> api::Error {
    let (kind, status, path) = (error.kind(), error.status(), path.to_owned());
    let source = Box::new(error);
    match kind {
        ErrorKind::NotFound => api::Error::NotFound { path, source },
        ErrorKind::Precondition if status == Some(304) => api::Error::NotModified { path, source },
        ErrorKind::Precondition => api::Error::Precondition { path, source },
        ErrorKind::AccessDenied => api::Error::PermissionDenied { path, source },
        ErrorKind::Credentials | ErrorKind::ExpiredCredentials => api::Error::Unauthenticated { path, source },
        _ if status == Some(409) => api::Error::Precondition { path, source },
        _ => api::Error::Generic { store: STORE, source },
    }
}

/// Prefixes are whole parts of paths.
fn folder(prefix: Option<&Path>) -> String {
    prefix.map(Path::as_ref).filter(|prefix| !prefix.is_empty()).map(|prefix| format!("{prefix}/")).unwrap_or_default()
}

fn meta(key: &str, size: u64, etag: String, last_modified: &str, version: Option<String>) -> api::Result<ObjectMeta> {
    let time = modified_time(last_modified)
        .and_then(|time| DateTime::from_timestamp(time.unix_timestamp(), time.nanosecond()));
    let last_modified = time.ok_or_else(|| api::Error::Generic {
        store: STORE,
        source: format!("{key}: {last_modified:?} is no time").into(),
    })?;
    let location = Path::parse(key)?;
    Ok(ObjectMeta { location, last_modified, size, e_tag: Some(etag).filter(|etag| !etag.is_empty()), version })
}

fn meta_of(location: &Path, info: &ObjectInfo) -> api::Result<ObjectMeta> {
    let version = info.version_id.clone();
    let meta = meta(location.as_ref(), info.size_bytes, info.etag.clone(), &info.last_modified, version)?;
    Ok(ObjectMeta { location: location.clone(), ..meta })
}

fn attributes_of(info: &ObjectInfo) -> Attributes {
    let mut attributes = Attributes::new();
    if !info.content_type.is_empty() {
        attributes.insert(Attribute::ContentType, info.content_type.clone().into());
    }
    let named = [
        ("cache-control", Attribute::CacheControl),
        ("content-disposition", Attribute::ContentDisposition),
        ("content-encoding", Attribute::ContentEncoding),
        ("content-language", Attribute::ContentLanguage),
        ("x-amz-storage-class", Attribute::StorageClass),
    ];
    for (name, attribute) in named {
        if let Some(value) = info.header(name) {
            attributes.insert(attribute, value.to_owned().into());
        }
    }
    for (name, value) in &info.user_metadata {
        attributes.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
    }
    attributes
}

/// What an object is to have. Tags come encoded, as the header has them.
fn put_options(tags: &str, attributes: &Attributes) -> api::Result<PutOptions> {
    let mut options = PutOptions::default();
    for (attribute, value) in attributes {
        let name = match attribute {
            Attribute::ContentType => {
                options.content_type = Some(value.to_string());
                continue;
            }
            Attribute::Metadata(name) => {
                options.user_metadata.push((name.to_string(), value.to_string()));
                continue;
            }
            Attribute::CacheControl => "cache-control",
            Attribute::ContentDisposition => "content-disposition",
            Attribute::ContentEncoding => "content-encoding",
            Attribute::ContentLanguage => "content-language",
            Attribute::StorageClass => "x-amz-storage-class",
            other => {
                let source = format!("the attribute {other:?}: S3 has no header for it that this client knows").into();
                return Err(api::Error::NotSupported { source });
            }
        };
        options.headers.push((name.to_owned(), value.to_string()));
    }
    if !tags.is_empty() {
        options.headers.push(("x-amz-tagging".to_owned(), tags.to_owned()));
    }
    Ok(options)
}

fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn get_options(options: &api::GetOptions) -> GetOptions {
    let range = options.range.as_ref().map(|range| match range {
        GetRange::Bounded(range) => ByteRange::Span(range.clone()),
        GetRange::Offset(start) => ByteRange::From(*start),
        GetRange::Suffix(bytes) => ByteRange::Last(*bytes),
    });
    GetOptions {
        range,
        version_id: options.version.clone(),
        if_match: options.if_match.clone(),
        if_none_match: options.if_none_match.clone(),
        if_modified_since: options.if_modified_since.map(http_date),
        if_unmodified_since: options.if_unmodified_since.map(http_date),
    }
}

fn result(etag: String, version: Option<String>) -> PutResult {
    PutResult { e_tag: Some(etag), version, extensions: Default::default() }
}

fn pieces(payload: &PutPayload) -> Vec<&[u8]> {
    payload.iter().map(|bytes| &bytes[..]).collect()
}

#[async_trait]
impl api::ObjectStore for PenstockStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: api::PutOptions) -> api::Result<PutResult> {
        let mut put = put_options(options.tags.encoded(), &options.attributes)?;
        match &options.mode {
            PutMode::Overwrite => {}
            PutMode::Create => put.if_none_match = true,
            PutMode::Update(version) => {
                let source = || "an update needs the ETag of what it replaces".into();
                put.if_match =
                    Some(version.e_tag.clone().ok_or_else(|| api::Error::Generic { store: STORE, source: source() })?);
            }
        }
        let path = location.as_ref();
        match self.client.put_pieces(&self.bucket, path, &pieces(&payload), put).await {
            Ok(done) => Ok(result(done.etag, done.version_id)),
            Err(error) => Err(match (wrong(path, error), &options.mode) {
                (api::Error::Precondition { path, source }, PutMode::Create) => {
                    api::Error::AlreadyExists { path, source }
                }
                // What is to be replaced is not there at all.
                (api::Error::NotFound { path, source }, PutMode::Update(_)) => {
                    api::Error::Precondition { path, source }
                }
                (error, _) => error,
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> api::Result<Box<dyn MultipartUpload>> {
        let put = put_options(options.tags.encoded(), &options.attributes)?;
        let upload = self.client.create_upload(&self.bucket, location.as_ref(), &put).await;
        let upload = upload.map_err(|error| wrong(location.as_ref(), error))?;
        let parts = Arc::new(Mutex::new(Vec::new()));
        Ok(Box::new(Writing { store: self.clone(), path: location.as_ref().into(), upload, count: 0, parts }))
    }

    async fn get_opts(&self, location: &Path, options: api::GetOptions) -> api::Result<GetResult> {
        let path = location.as_ref();
        let failed = |error| wrong(path, error);
        let get = get_options(&options);
        if options.head {
            let info = self.client.head_opts(&self.bucket, path, &get).await.map_err(failed)?;
            let (meta, attributes) = (meta_of(location, &info)?, attributes_of(&info));
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            let range = 0..info.size_bytes;
            return Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() });
        }
        let (info, range, pieces) = self.client.get_stream(&self.bucket, path, &get).await.map_err(failed)?;
        let (meta, attributes) = (meta_of(location, &info)?, attributes_of(&info));
        let name = path.to_owned();
        let pieces = pieces.map_ok(|piece| piece.into_bytes()).map_err(move |error| wrong(&name, error));
        let payload = GetResultPayload::Stream(pieces.boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> api::Result<Vec<Bytes>> {
        // Near ones in one request.
        api::coalesce_ranges(
            ranges,
            |range| async move {
                let object = self.client.get_range(&self.bucket, location.as_ref(), range).await;
                let object = object.map_err(|error| wrong(location.as_ref(), error))?;
                let mut pieces = object.body.into_pieces();
                Ok(match pieces.len() {
                    1 => pieces.remove(0).into_bytes(),
                    _ => pieces
                        .iter()
                        .fold(Vec::new(), |mut all, piece| {
                            all.extend_from_slice(piece);
                            all
                        })
                        .into(),
                })
            },
            api::OBJECT_STORE_COALESCE_DEFAULT,
        )
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, api::Result<Path>>) -> BoxStream<'static, api::Result<Path>> {
        let store = self.clone();
        locations
            .try_chunks(DELETE_KEYS)
            .map(move |chunk| {
                let store = store.clone();
                async move {
                    let (paths, late) = match chunk {
                        Ok(paths) => (paths, None),
                        Err(error) => (error.0, Some(Err(error.1))),
                    };
                    let mut outcomes = store.delete_paths(paths).await;
                    outcomes.extend(late);
                    stream::iter(outcomes)
                }
            })
            .buffered(4)
            .flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, api::Result<ObjectMeta>> {
        self.list_from(prefix, String::new())
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, api::Result<ObjectMeta>> {
        self.list_from(prefix, offset.to_string())
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> api::Result<ListResult> {
        let options = ListOptions { prefix: folder(prefix), delimiter: "/".to_owned(), ..ListOptions::default() };
        let failed = |error| wrong(&self.bucket, error);
        let entries: Vec<ListEntry> = self.client.list(&self.bucket, options).map_err(failed).try_collect().await?;
        listed(entries)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: api::CopyOptions) -> api::Result<()> {
        let source = CopySource::new(&*self.bucket, from.as_ref());
        let create = options.mode == CopyMode::Create;
        let copying = CopyOptions { if_none_match: create, ..CopyOptions::default() };
        match self.client.copy(&source, &self.bucket, to.as_ref(), &copying).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match wrong(from.as_ref(), error) {
                api::Error::Precondition { source, .. } if create => {
                    api::Error::AlreadyExists { path: to.to_string(), source }
                }
                error => error,
            }),
        }
    }
}

fn listed(entries: Vec<ListEntry>) -> api::Result<ListResult> {
    let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
    for entry in entries {
        match entry {
            ListEntry::Prefix(prefix) => result.common_prefixes.push(Path::parse(prefix.trim_end_matches('/'))?),
            ListEntry::Object { key, .. } if key.ends_with('/') => {}
            ListEntry::Object { key, size_bytes, etag, last_modified, .. } => {
                result.objects.push(meta(&key, size_bytes, etag, &last_modified, None)?);
            }
        }
    }
    Ok(result)
}

impl PenstockStore {
    async fn delete_paths(&self, paths: Vec<Path>) -> Vec<api::Result<Path>> {
        // One by one costs less for one.
        if let [only] = paths.as_slice() {
            let deleted = self.client.delete(&self.bucket, only.as_ref()).await;
            return vec![deleted.map(|()| only.clone()).map_err(|error| wrong(only.as_ref(), error))];
        }
        let keys: Vec<DeleteKey> = paths.iter().map(|path| DeleteKey::from(path.as_ref())).collect();
        match self.client.delete_many(&self.bucket, &keys).await {
            Ok(outcomes) => paths
                .into_iter()
                .zip(outcomes)
                .map(|(path, outcome)| match outcome.outcome {
                    Ok(()) => Ok(path),
                    Err(error) => Err(wrong(path.as_ref(), error)),
                })
                .collect(),
            Err(error) => vec![Err(wrong(&self.bucket, error))],
        }
    }

    async fn complete(&self, path: &str, upload: &UploadId, mut parts: Vec<Part>) -> api::Result<PutResult> {
        let failed = |error| wrong(path, error);
        if parts.is_empty() {
            // An upload must have a part.
            parts.push(self.client.upload_part(&self.bucket, path, upload, 1, &[]).await.map_err(failed)?);
        }
        parts.sort_by_key(|part| part.number);
        let options = PutOptions::default();
        let done = self.client.complete_upload(&self.bucket, path, upload, &parts, &options).await.map_err(failed)?;
        Ok(result(done.etag, done.version_id))
    }
}

/// An upload whose parts come in order and are sent as the caller drives them.
#[derive(Debug)]
struct Writing {
    store: PenstockStore,
    path: Arc<str>,
    upload: UploadId,
    count: u32,
    parts: Arc<Mutex<Vec<Part>>>,
}

#[async_trait]
impl MultipartUpload for Writing {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.count += 1;
        let (store, path, upload, number) =
            (self.store.clone(), Arc::clone(&self.path), self.upload.clone(), self.count);
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let part = store.client.upload_part(&store.bucket, &path, &upload, number, &pieces(&data)).await;
            parts.lock().push(part.map_err(|error| wrong(&path, error))?);
            Ok(())
        })
    }

    async fn complete(&mut self) -> api::Result<PutResult> {
        let parts = self.parts.lock().clone();
        if parts.len() != self.count as usize {
            let source = format!("{} of {} parts were uploaded", parts.len(), self.count).into();
            return Err(api::Error::Generic { store: STORE, source });
        }
        self.store.complete(&self.path, &self.upload, parts).await
    }

    async fn abort(&mut self) -> api::Result<()> {
        let aborted = self.store.client.abort_upload(&self.store.bucket, &self.path, &self.upload).await;
        aborted.map_err(|error| wrong(&self.path, error))
    }
}

/// What a part's id tells: the trait hands back no more than this of it.
fn part_id(part: &Part) -> PartId {
    let crc64 = part.crc64.map(|crc64| format!("{crc64:016x}")).unwrap_or_default();
    PartId { content_id: format!("{};{crc64};{}", part.etag, part.size_bytes) }
}

fn part_of(number: u32, id: &PartId) -> Option<Part> {
    let mut fields = id.content_id.rsplitn(3, ';');
    let size_bytes = fields.next()?.parse().ok()?;
    let crc64 = match fields.next()? {
        "" => None,
        text => Some(u64::from_str_radix(text, 16).ok()?),
    };
    Some(Part { number, etag: fields.next()?.to_owned(), crc64, size_bytes })
}

#[async_trait]
impl MultipartStore for PenstockStore {
    async fn create_multipart(&self, path: &Path) -> api::Result<MultipartId> {
        self.create_multipart_opts(path, PutMultipartOptions::default()).await
    }

    async fn create_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> api::Result<MultipartId> {
        let put = put_options(options.tags.encoded(), &options.attributes)?;
        let upload = self.client.create_upload(&self.bucket, path.as_ref(), &put).await;
        upload.map(|upload| upload.to_string()).map_err(|error| wrong(path.as_ref(), error))
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> api::Result<PartId> {
        let number = u32::try_from(part_idx + 1).unwrap_or(u32::MAX);
        let upload = UploadId::from(id.as_str());
        let part = self.client.upload_part(&self.bucket, path.as_ref(), &upload, number, &pieces(&data)).await;
        part.map(|part| part_id(&part)).map_err(|error| wrong(path.as_ref(), error))
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> api::Result<PutResult> {
        let parts: Option<Vec<Part>> = parts.iter().zip(1u32..).map(|(id, number)| part_of(number, id)).collect();
        let source = || "a part's id that is not one of this store's".into();
        let parts = parts.ok_or_else(|| api::Error::Generic { store: STORE, source: source() })?;
        self.complete(path.as_ref(), &UploadId::from(id.as_str()), parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> api::Result<()> {
        let aborted = self.client.abort_upload(&self.bucket, path.as_ref(), &UploadId::from(id.as_str())).await;
        aborted.map_err(|error| wrong(path.as_ref(), error))
    }
}

#[async_trait]
impl PaginatedListStore for PenstockStore {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> api::Result<PaginatedListResult> {
        let list = ListOptions {
            prefix: prefix.unwrap_or_default().to_owned(),
            delimiter: options.delimiter.as_deref().unwrap_or_default().to_owned(),
            start_after: options.offset.clone().unwrap_or_default(),
            page_entries: options.max_keys.unwrap_or_default(),
        };
        let page = self.client.list_page(&self.bucket, &list, options.page_token.as_deref()).await;
        let page = page.map_err(|error| wrong(&self.bucket, error))?;
        Ok(PaginatedListResult { result: listed(page.entries)?, page_token: page.next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_id_says_all_there_is_to_know_of_it() {
        for crc64 in [Some(0xfedc_ba98_7654_3210), None] {
            let part = Part { number: 3, etag: "a;b".to_owned(), crc64, size_bytes: 77 };
            assert_eq!(part_of(3, &part_id(&part)), Some(part));
        }
        assert_eq!(part_of(1, &PartId { content_id: "abc".to_owned() }), None);
    }
}
