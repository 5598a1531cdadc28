//! Multipart uploads: begin, parts, complete, abort, and their listings.
//!
//! A part is stored as an object's body is, under a data id of its own; completing moves no byte. What a Complete is
//! decided by (which parts, how long, which digests) is read first and held against a version of the upload in the one
//! transaction that acts on it, so a part that is replaced meanwhile starts the decision over.

use penstock_digest::{ChecksumAlgorithm, ChecksumValue};
use penstock_meta::tables::{self, BucketRow, ObjectRow, PartRow, TablesError, UploadRow};
use penstock_proto::{Code, limits};

use crate::api::{
    BodyDigests, ByteStream, ChecksumType, CompleteUpload, CompletedPart, CreateUpload, ListParts, ListUploads,
    ObjectChecksum, PartInfo, PartPage, PutDone, UploadInfo, UploadPage, UploadPart,
};
use crate::encryption::{self, ObjectKey};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Gateway;
use crate::objects::lost_race;
use crate::pending::PendingData;
use crate::write::{StoredBody, store_body};
use crate::{checksums, conditions, convert, etag, names, tags, versions};

/// How often a Complete is decided again because parts changed while it was.
const COMPLETE_TRIES_MAX: u32 = 8;
/// Parts read in one go.
const PARTS_PAGE: usize = 1000;

/// An upload that was open when it was looked at.
pub(crate) struct OpenUpload {
    pub(crate) bucket: BucketRow,
    pub(crate) row: UploadRow,
    pub(crate) checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Of its class's policy.
    pub(crate) code: Code,
}

impl Gateway {
    /// `CreateMultipartUpload`. The upload's id.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidRequest for an algorithm and type that don't go together; what is wrong with key or headers.
    pub async fn create_upload(&self, request: CreateUpload) -> Result<String> {
        let _admitted = self.inner.admit()?;
        let CreateUpload { bucket, key, headers, checksum, storage_class, tags, lock, encryption } = request;
        tags::check_object_tags(&tags)?;
        names::check_key(&key)?;
        names::check_headers(&headers)?;
        if let Some((algorithm, kind)) = checksum {
            checksums::check_upload(algorithm, kind)?;
        }
        let bucket = self.inner.bucket(&bucket).await?;
        self.check_lock(&bucket, &lock)?;
        let policy = self.inner.policy(&bucket, &storage_class).await?;
        let object_key = self.inner.new_key(encryption.as_ref()).await?;
        let new = tables::NewUpload {
            encryption: object_key.map(|key| key.row),
            key,
            storage_class: policy.class,
            headers: convert::headers_to_row(headers),
            checksum: checksum
                .map(|(algorithm, kind)| (checksums::to_number(algorithm), kind == ChecksumType::Composite)),
            tags,
            lock,
        };
        Ok(self.inner.tables.create_upload(&bucket, new, self.inner.clock.now_unix_ms()).await?.upload_id)
    }

    /// `UploadPart`. Replaces a part of the same number.
    ///
    /// # Errors
    /// NoSuchUpload; InvalidRequest for another checksum algorithm than the upload's; as [`Gateway::put_object`].
    pub async fn upload_part(&self, request: UploadPart) -> Result<PartInfo> {
        let _admitted = self.inner.admit()?;
        let UploadPart { bucket, key, upload_id, part_number, body, content_bytes, digests, customer_key } = request;
        let upload = self.open_upload(&bucket, &key, &upload_id, part_number).await?;
        let part_key = self.inner.key_of_upload(upload.row.encryption.as_ref(), customer_key.as_ref()).await?;
        self.store_part(upload, part_number, body, content_bytes, &digests, part_key).await
    }

    /// The upload that a part is for.
    pub(crate) async fn open_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
    ) -> Result<OpenUpload> {
        names::check_key(key)?;
        names::check_part_number(number)?;
        let bucket = self.inner.bucket(bucket).await?;
        let row = self.inner.tables.upload(bucket.id, key, upload_id).await?.ok_or_else(no_such_upload)?;
        let checksum = upload_checksum(row.checksum)?;
        let code = self.inner.policy(&bucket, &row.storage_class).await?.code;
        Ok(OpenUpload { bucket, row, checksum, code })
    }

    /// Stores a part's body and puts the part into its upload.
    pub(crate) async fn store_part(
        &self,
        upload: OpenUpload,
        number: u32,
        body: ByteStream,
        content_bytes: Option<u64>,
        digests: &BodyDigests,
        key: Option<ObjectKey>,
    ) -> Result<PartInfo> {
        let uploads = upload.checksum.map(|(algorithm, _)| algorithm);
        let asked = checksums::asked(digests, uploads.unwrap_or(checksums::DEFAULT))?;
        if let Some(expected) = uploads.filter(|expected| *expected != asked) {
            return Err(type_mismatch(expected, asked));
        }
        let code = upload.code;
        let stored = store_body(&self.inner, body, content_bytes, digests, asked, code, key.as_ref()).await?;
        let StoredBody { size_bytes, etag_md5, checksum, data, .. } = stored;
        let data = data.map(|(data, pending)| (data, Some(pending)));
        self.commit_part(upload, number, etag_md5, size_bytes, checksum, data).await
    }

    /// Puts a part into its upload. Data without a guard of ours is pending all the same.
    pub(crate) async fn commit_part(
        &self,
        upload: OpenUpload,
        number: u32,
        md5: [u8; 16],
        size_bytes: u64,
        checksum: ChecksumValue,
        data: Option<(tables::DataRow, Option<PendingData>)>,
    ) -> Result<PartInfo> {
        let (data, pending) = data.map_or((None, None), |(data, pending)| (Some(data), pending));
        let part = PartRow {
            number,
            size_bytes,
            md5,
            modified_unix_ms: self.inner.clock.now_unix_ms(),
            checksum: Some(checksums::to_row(&checksums::full(checksum))),
            data,
        };
        let not_before = self.inner.garbage_not_before();
        let OpenUpload { bucket, row, .. } = upload;
        self.inner.tables.put_part(bucket.id, &row.key, &row.upload_id, &part, not_before).await?;
        if let Some(pending) = pending {
            pending.committed();
        }
        let encryption = row.encryption.as_ref().map(encryption::info);
        Ok(PartInfo { encryption, ..part_info(&part)? })
    }

    /// `CompleteMultipartUpload`. Repeating it after it succeeded answers the same, as long as its object is there.
    ///
    /// # Errors
    /// NoSuchUpload, InvalidPart, InvalidPartOrder, EntityTooSmall, EntityTooLarge; BadDigest when the object's checksum
    /// is not the one that was sent; InvalidRequest when its size is not; PreconditionFailed. The upload stays open.
    pub async fn complete_upload(&self, request: CompleteUpload) -> Result<PutDone> {
        let _admitted = self.inner.admit()?;
        names::check_key(&request.key)?;
        check_part_list(&request.parts)?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let numbers: Vec<u32> = request.parts.iter().map(|part| part.part_number).collect();
        let preconditions = conditions::write_preconditions(&request.conditions);
        for _ in 0..COMPLETE_TRIES_MAX {
            let Some((upload, parts, version)) = self.parts_of(&bucket, &request).await? else {
                return self.completed_before(&bucket, &request).await;
            };
            if request.customer_key.is_some() {
                self.inner.key_of_upload(upload.encryption.as_ref(), request.customer_key.as_ref()).await?;
            }
            let row = self.decide(&request, upload, &parts)?;
            let completed = self.inner.tables.complete_upload(tables::CompleteUpload {
                bucket: &bucket,
                key: &request.key,
                upload_id: &request.upload_id,
                row,
                part_numbers: &numbers,
                parts_version: version,
                preconditions: &preconditions,
                now_unix_ms: self.inner.clock.now_unix_ms(),
                garbage_not_before_unix_ms: self.inner.garbage_not_before(),
            });
            match completed.await {
                Ok(completed) => {
                    let expiration = self.inner.expiration_of(&bucket, &request.key, &completed.object).await?;
                    return Ok(PutDone { expiration, ..put_done(completed.object)? });
                }
                Err(TablesError::PartsChanged) => {}
                Err(TablesError::NoSuchUpload) => return self.completed_before(&bucket, &request).await,
                Err(error) => return Err(lost_race(error, &request.conditions)),
            }
        }
        Err(Error::new(
            ErrorKind::ConditionalRequestConflict,
            "Parts of the upload are being replaced while it is completed; complete it when no part is under way.",
        ))
    }

    /// The upload, the parts that the request names, and the version of the upload that they are of. `None` when there is
    /// no such upload (any more).
    async fn parts_of(
        &self,
        bucket: &BucketRow,
        request: &CompleteUpload,
    ) -> Result<Option<(UploadRow, Vec<PartRow>, u64)>> {
        let mut first: Option<(UploadRow, u64)> = None;
        let mut found = Vec::with_capacity(request.parts.len());
        let mut named = request.parts.iter().peekable();
        let mut after = 0;
        loop {
            let tables = &self.inner.tables;
            let page = match tables.parts(bucket.id, &request.key, &request.upload_id, after, PARTS_PAGE).await {
                Ok(page) => page,
                Err(TablesError::NoSuchUpload) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let (upload, version) = first.take().unwrap_or((page.upload, page.version));
            for row in page.parts {
                after = row.number;
                if let Some(part) = named.next_if(|part| part.part_number == row.number) {
                    check_named(part, &row)?;
                    found.push(row);
                } else if named.peek().is_some_and(|part| part.part_number < row.number) {
                    return Err(invalid_part());
                }
            }
            if !page.more || named.peek().is_none() {
                return if named.peek().is_some() { Err(invalid_part()) } else { Ok(Some((upload, found, version))) };
            }
            first = Some((upload, version));
        }
    }

    /// The object that these parts make, if they may.
    fn decide(&self, request: &CompleteUpload, upload: UploadRow, parts: &[PartRow]) -> Result<ObjectRow> {
        let size_bytes = check_sizes(parts)?;
        if let Some(promised) = request.object_bytes.filter(|promised| *promised != size_bytes) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "The provided 'x-amz-mp-object-size' header value {promised} does not match what was computed: {size_bytes}"
                ),
            ));
        }
        let checksum = object_checksum(upload_checksum(upload.checksum)?, parts)?;
        if let Some(promised) = request.checksum {
            check_promised(promised, &checksum, parts)?;
        }
        let md5s: Vec<[u8; 16]> = parts.iter().map(|part| part.md5).collect();
        Ok(ObjectRow {
            size_bytes,
            etag: etag::of_parts(&md5s),
            modified_unix_ms: self.inner.clock.now_unix_ms(),
            storage_class: upload.storage_class,
            checksum: Some(checksums::to_row(&checksum)),
            version: tables::VersionRow::default(),
            parts: None,
            headers: upload.headers,
            tags: upload.tags,
            lock: upload.lock,
            encryption: upload.encryption,
            upload_id: None,
            layout: tables::Layout::Empty,
        })
    }

    /// The answer to a Complete of an upload that is not open: that of the first, if the object is still what it made.
    async fn completed_before(&self, bucket: &BucketRow, request: &CompleteUpload) -> Result<PutDone> {
        let object = self.inner.tables.object(bucket.id, &request.key).await?;
        match object {
            Some(object) if object.upload_id.as_deref() == Some(request.upload_id.as_str()) => {
                let md5s: Option<Vec<[u8; 16]>> = request.parts.iter().map(|part| parse_md5(&part.etag)).collect();
                if md5s.is_some_and(|md5s| etag::of_parts(&md5s) == object.etag) {
                    put_done(object)
                } else {
                    Err(invalid_part())
                }
            }
            _ => Err(no_such_upload()),
        }
    }

    /// `AbortMultipartUpload`.
    ///
    /// # Errors
    /// NoSuchUpload.
    pub async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<()> {
        let _admitted = self.inner.admit()?;
        names::check_key(key)?;
        let bucket = self.inner.bucket(bucket).await?;
        // Nothing reads parts: no grace.
        let not_before = self.inner.clock.now_unix_ms();
        self.inner.tables.abort_upload(bucket.id, key, upload_id, not_before).await.map_err(upload_error)
    }

    /// `ListParts`.
    ///
    /// # Errors
    /// NoSuchUpload.
    pub async fn list_parts(&self, request: ListParts) -> Result<PartPage> {
        let _admitted = self.inner.admit()?;
        names::check_key(&request.key)?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let max = request.max_parts.min(limits::LIST_KEYS_MAX);
        let page = self.inner.tables.parts(bucket.id, &request.key, &request.upload_id, request.after, max).await;
        let page = page.map_err(upload_error)?;
        Ok(PartPage {
            parts: page.parts.iter().map(part_info).collect::<Result<_>>()?,
            more: page.more,
            checksum: upload_checksum(page.upload.checksum)?,
            storage_class: page.upload.storage_class,
        })
    }

    /// `ListMultipartUploads`.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn list_uploads(&self, request: ListUploads) -> Result<UploadPage> {
        let _admitted = self.inner.admit()?;
        let bucket = self.inner.bucket(&request.bucket).await?;
        let ListUploads { prefix, delimiter, key_marker, upload_id_marker, max_uploads, .. } = &request;
        let max = (*max_uploads).min(limits::LIST_KEYS_MAX);
        let tables = &self.inner.tables;
        let page = tables.list_uploads(bucket.id, prefix, delimiter, key_marker, upload_id_marker, max).await?;
        let mut uploads = Vec::with_capacity(page.uploads.len());
        for upload in page.uploads {
            uploads.push(UploadInfo {
                key: upload.key,
                upload_id: upload.upload_id,
                initiated_unix_ms: upload.initiated_unix_ms,
                storage_class: upload.storage_class,
                checksum: upload_checksum(upload.checksum)?,
            });
        }
        Ok(UploadPage { uploads, common_prefixes: page.prefixes, next: page.next })
    }
}

/// A part has another checksum algorithm than its upload.
pub(crate) fn type_mismatch(expected: ChecksumAlgorithm, asked: ChecksumAlgorithm) -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        format!("Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {asked}"),
    )
}

fn upload_checksum(row: Option<(u8, bool)>) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>> {
    let kind = |composite| if composite { ChecksumType::Composite } else { ChecksumType::FullObject };
    row.map(|(number, composite)| Ok((checksums::from_number(number)?, kind(composite)))).transpose()
}

pub(crate) fn part_info(part: &PartRow) -> Result<PartInfo> {
    Ok(PartInfo {
        part_number: part.number,
        etag: etag::of_md5(part.md5),
        size_bytes: part.size_bytes,
        modified_unix_ms: part.modified_unix_ms,
        checksum: part_checksum(part)?,
        source_version_id: None,
        encryption: None,
    })
}

fn part_checksum(part: &PartRow) -> Result<Option<ChecksumValue>> {
    part.checksum.as_ref().map(|row| Ok(checksums::from_row(row)?.value)).transpose()
}

pub(crate) fn put_done(object: ObjectRow) -> Result<PutDone> {
    Ok(PutDone {
        version_id: versions::made_version(&object.version),
        source_version_id: None,
        expiration: None,
        encryption: object.encryption.as_ref().map(encryption::info),
        checksum: object.checksum.as_ref().map(checksums::from_row).transpose()?,
        etag: object.etag,
        size_bytes: object.size_bytes,
        modified_unix_ms: object.modified_unix_ms,
    })
}

fn check_part_list(parts: &[CompletedPart]) -> Result<()> {
    if parts.is_empty() {
        return Err(Error::new(ErrorKind::InvalidRequest, "You must specify at least one part."));
    }
    for part in parts {
        names::check_part_number(part.part_number)?;
    }
    if !parts.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(Error::new(
            ErrorKind::InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number.",
        ));
    }
    Ok(())
}

/// Whether a part is the one that the request means.
fn check_named(named: &CompletedPart, row: &PartRow) -> Result<()> {
    let checksum = part_checksum(row)?;
    if named.etag != etag::of_md5(row.md5) || named.checksum.is_some_and(|value| Some(value) != checksum) {
        return Err(invalid_part());
    }
    Ok(())
}

/// The parts' sizes together, if each is as long as it must be.
fn check_sizes(parts: &[PartRow]) -> Result<u64> {
    let all_but_last = &parts[..parts.len().saturating_sub(1)];
    if let Some(small) = all_but_last.iter().find(|part| part.size_bytes < limits::PART_BYTES_MIN) {
        return Err(Error::new(
            ErrorKind::EntityTooSmall,
            format!(
                "Your proposed upload is smaller than the minimum allowed size: part {} has {} bytes of at least {}.",
                small.number,
                small.size_bytes,
                limits::PART_BYTES_MIN
            ),
        ));
    }
    let size_bytes: u64 = parts.iter().map(|part| part.size_bytes).sum();
    if size_bytes > limits::OBJECT_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::EntityTooLarge,
            format!(
                "Your proposed upload exceeds the maximum allowed object size of {} bytes.",
                limits::OBJECT_BYTES_MAX
            ),
        ));
    }
    Ok(size_bytes)
}

/// The CRC64NVME of all bytes, which the parts' data has whatever was asked for.
fn whole_crc64(parts: &[PartRow]) -> Result<ObjectChecksum> {
    let crc64 = |part: &PartRow| part.data.as_ref().map_or(0, |data| data.crc64);
    let values: Vec<_> =
        parts.iter().map(|part| (ChecksumValue::from_crc64nvme(crc64(part)), part.size_bytes)).collect();
    checksums::combined(ChecksumAlgorithm::Crc64Nvme, &values)
}

/// The object's checksum: what the upload was begun with, else the CRC64NVME of all bytes.
fn object_checksum(upload: Option<(ChecksumAlgorithm, ChecksumType)>, parts: &[PartRow]) -> Result<ObjectChecksum> {
    let (algorithm, kind) = match upload {
        None | Some((ChecksumAlgorithm::Crc64Nvme, _)) => return whole_crc64(parts),
        Some(upload) => upload,
    };
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        let value = part_checksum(part)?.filter(|value| value.algorithm() == algorithm);
        values.push(value.ok_or_else(|| {
            Error::new(ErrorKind::InternalError, format!("Part {} has no {algorithm} checksum.", part.number))
        })?);
    }
    match kind {
        ChecksumType::Composite => Ok(checksums::composite(algorithm, &values)),
        ChecksumType::FullObject => {
            let sized: Vec<_> = values.into_iter().zip(parts).map(|(value, part)| (value, part.size_bytes)).collect();
            checksums::combined(algorithm, &sized)
        }
    }
}

/// Whether the checksum that came with Complete is the object's.
fn check_promised(promised: ChecksumValue, checksum: &ObjectChecksum, parts: &[PartRow]) -> Result<()> {
    let computed = if promised.algorithm() == checksum.value.algorithm() {
        checksum.value
    } else if promised.algorithm() == ChecksumAlgorithm::Crc64Nvme {
        whole_crc64(parts)?.value
    } else {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                checksum.value.algorithm(),
                promised.algorithm()
            ),
        ));
    };
    if promised == computed { Ok(()) } else { Err(checksums::mismatch(promised.algorithm())) }
}

fn parse_md5(etag: &str) -> Option<[u8; 16]> {
    hex::decode(etag).ok()?.try_into().ok()
}

fn invalid_part() -> Error {
    Error::new(
        ErrorKind::InvalidPart,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified \
         entity tag may not match the part's entity tag.",
    )
}

fn no_such_upload() -> Error {
    Error::new(
        ErrorKind::NoSuchUpload,
        "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted \
         or completed.",
    )
}

fn upload_error(error: TablesError) -> Error {
    match error {
        TablesError::NoSuchUpload => no_such_upload(),
        other => other.into(),
    }
}
