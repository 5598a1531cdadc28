//! Plans: where an operation's bytes are, or are to go, instead of the bytes. The client's own executor moves them; the
//! gateway decides before, and commits after (`docs/protocol/native.md`).
//!
//! **What.** [`Gateway::plan_get`] is GetObject with a plan for a body. [`Gateway::plan_put`] is the first half of a
//! PutObject or UploadPart: everything is checked that can be, and a data id is registered as for any body. Then
//! [`Gateway::commit_planned_object`] and [`Gateway::commit_planned_part`] do what the end of the normal operation does,
//! conditions included, on the nodes' receipts.
//!
//! **What is promised.** As without plans: an object is visible if and only if its row is committed; what is not committed
//! becomes garbage; nothing that a plan names is collected before the plan's time has run out.
//!
//! **How it fails.** A plan that makes no sense here is declined with a reason, and the caller goes the normal way. A ticket or
//! receipt that does not hold is [`PlanFailure::Refused`], counted, and nothing is committed.

use std::ops::Range;

use penstock_digest::{ChecksumAlgorithm, ChecksumValue};
use penstock_meta::tables::{DataRow, Layout, ObjectRow};
use penstock_proto::plan::{
    Crc64, GROUP_STRIPES, NodeAddress, PlanGroup, PlanNode, PlanRun, PlanStripe, ReadPlan, Record, WritePlan,
    WriteTicket,
};
use penstock_proto::{Capability, Code, MapEpoch, NodeId, Rights, Scope, limits};

use crate::api::{BodyDigests, Conditions, GetObject, Lock, ObjectHeaders, ObjectInfo, ObjectRead, PartInfo, PutDone};
use crate::convert::object_info;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Gateway;
use crate::hashing::BodySums;
use crate::multipart::{OpenUpload, part_info, put_done, type_mismatch};
use crate::objects::{LOOKUPS_MAX, NewBytes, NewObject};
use crate::pending::{PendingData, is_one_group};
use crate::plan_commit::{Expected, Verified, stripes_of, verify};
use crate::read::{Cursor, StripeRead};
use crate::tags::{self, Tags};
use crate::write::keep_manifest;
use crate::{checksums, names};

/// Commits of more receipts than this are verified on a thread for blocking work.
const VERIFY_INLINE_STRIPES_MAX: u64 = 16;

/// Why no plan is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// So few bytes that they go quicker with the answer.
    Small,
    /// Clients can't reach the nodes of this cluster: it was not told where they listen.
    NoAddresses,
    /// The request wants a digest that can't be computed from shards' checksums.
    Digest,
    /// The object is encrypted, or to be: nodes have ciphertext, and clients have no key.
    Encrypted,
    /// The object shares an extent with others: a right to read its shards would be one to read theirs.
    Packed,
}

impl Declined {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::Small, Self::NoAddresses, Self::Digest, Self::Encrypted, Self::Packed];

    /// One word for the wire and for statistics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::NoAddresses => "no-addresses",
            Self::Digest => "digest",
            Self::Encrypted => "encrypted",
            Self::Packed => "packed",
        }
    }
}

/// The answer to a GetObject that asked for a plan.
pub struct PlannedGet {
    /// As without a plan; its body is absent when there is a plan.
    pub read: ObjectRead,
    /// The encoded [`ReadPlan`], or why there is none.
    pub plan: std::result::Result<Vec<u8>, Declined>,
}

/// A body that is to be stored by plan.
#[derive(Clone)]
pub struct PlanPut {
    /// Who asks: the commit must come from the same.
    pub access_key: String,
    /// Where.
    pub bucket: String,
    /// Under which key.
    pub key: String,
    /// For a part, its upload and number.
    pub part: Option<(String, u32)>,
    /// As in [`crate::api::PutObject`]; none for parts.
    pub headers: ObjectHeaders,
    /// As in [`crate::api::PutObject`].
    pub storage_class: String,
    /// As in [`crate::api::PutObject`]; none for parts.
    pub conditions: Conditions,
    /// What the bytes must hash to.
    pub digests: BodyDigests,
    /// As in [`crate::api::PutObject`]; none for parts.
    pub tags: Tags,
    /// As in [`crate::api::PutObject`]; none for parts.
    pub lock: Lock,
    /// Whether the object (for parts: the part, by a key of the request) is to be encrypted, which no plan can do.
    pub encrypted: bool,
}

/// Why a commit failed.
#[derive(Debug)]
pub enum PlanFailure {
    /// The ticket or a receipt does not hold. Nothing was committed, nor forgotten.
    Refused(String),
    /// As the operation without a plan.
    Failed(Error),
}

impl From<Error> for PlanFailure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Gateway {
    /// `GetObject`, with a plan for a body where that makes sense.
    ///
    /// # Errors
    /// As [`Gateway::get_object`].
    pub async fn plan_get(&self, request: GetObject) -> Result<PlannedGet> {
        let admitted = self.inner.admit()?;
        for _ in 0..LOOKUPS_MAX {
            let (bucket, row, range, partial) = self.resolve(&request).await?;
            let object_key = self.inner.key_of(row.encryption.as_ref(), request.customer_key.as_ref()).await?;
            let opened = Cursor::open(&self.inner, &row, object_key.as_ref(), range.clone()).await?;
            let Ok(cursor) = opened else { continue };
            let packed = matches!(row.layout, Layout::Packed(_));
            let (body, plan) = match self.declines(range.end - range.start, object_key.is_some(), packed) {
                Some(reason) => {
                    let guard = (admitted, self.inner.count_stream());
                    (Some(cursor.into_stream(guard).await?), Err(reason))
                }
                None => (None, Ok(self.read_plan(cursor, range.clone()).await?)),
            };
            let expiration = self.inner.expiration_of(&bucket, &request.key, &row).await?;
            let info = ObjectInfo { expiration, ..object_info(&bucket, request.key, row)? };
            return Ok(PlannedGet { read: ObjectRead { info, range, partial, body }, plan });
        }
        Err(Error::new(ErrorKind::SlowDown, "The object is being replaced again and again; try again in a moment."))
    }

    /// Whether a plan for so many bytes is declined, which is counted.
    fn declines(&self, bytes: u64, encrypted: bool, packed: bool) -> Option<Declined> {
        let options = &self.inner.options;
        let reason = if encrypted {
            Declined::Encrypted
        } else if bytes <= options.plan_inline_bytes_max {
            Declined::Small
        } else if options.node_addresses.is_empty() {
            Declined::NoAddresses
        } else if packed {
            Declined::Packed
        } else {
            return None;
        };
        self.inner.traffic.declined(reason);
        Some(reason)
    }

    async fn read_plan(&self, mut cursor: Cursor, range: Range<u64>) -> Result<Vec<u8>> {
        let now_unix_ms = self.inner.clock.now_unix_ms();
        let lifetime_ms = limits::PLAN_READ_LIFETIME.as_millis() as u64;
        let expires_unix_ms = now_unix_ms + lifetime_ms;
        let (mut runs, mut end, mut stripes) = (Vec::new(), range.start, 0);
        while stripes < limits::PLAN_STRIPES_MAX {
            let Some(stripe) = cursor.next_stripe().await? else { break };
            let bytes = u64::from(stripe.range.end - stripe.range.start);
            self.add_stripe(&mut runs, stripe, end, expires_unix_ms);
            end += bytes;
            stripes += 1;
        }
        for run in &mut runs {
            self.sign_run(run, expires_unix_ms);
        }
        let nodes = self.plan_nodes(runs.iter().flat_map(|run| run.groups.iter().flat_map(|group| &group.nodes)));
        let plan = ReadPlan { lifetime_ms, start: range.start, end, runs, nodes }.encode().map_err(internal)?;
        self.inner.plans.hold_read(cursor.lease(), now_unix_ms, expires_unix_ms)?;
        self.inner.traffic.read_planned(end - range.start);
        Ok(plan)
    }

    /// Adds what is read of a stripe, whose first byte of interest is byte `at` of the object.
    fn add_stripe(&self, runs: &mut Vec<PlanRun>, read: StripeRead, at: u64, expires_unix_ms: u64) {
        let StripeRead { target, stored, range, chunk_bytes, .. } = read;
        if runs.last().is_none_or(|run| run.data != target.data) {
            let offset = at - u64::from(range.start) - u64::from(target.stripe) * u64::from(chunk_bytes);
            let key = &self.inner.options.cluster_key;
            runs.push(PlanRun {
                data: target.data,
                code: target.code,
                chunk_bytes,
                offset,
                capability: Capability::sign(key, Rights::GET, target.data, expires_unix_ms),
                groups: Vec::new(),
            });
        }
        let Some(run) = runs.last_mut() else { return };
        let first_stripe = target.stripe;
        if run.groups.last().is_none_or(|group| group.nodes != target.nodes) {
            run.groups.push(PlanGroup { first_stripe, nodes: target.nodes, stripes: Vec::new() });
        }
        let Some(group) = run.groups.last_mut() else { return };
        group.stripes.push(PlanStripe {
            chunk_bytes: stored.chunk_bytes,
            missing: stored.missing,
            shard_crc64s: stored.shard_crc64s.into_iter().map(Crc64).collect(),
        });
    }

    /// Narrows a run's capability to the stripes that are in it.
    fn sign_run(&self, run: &mut PlanRun, expires_unix_ms: u64) {
        let first_stripe = run.groups.first().map_or(0, |group| group.first_stripe);
        let end_stripe = run.groups.last().map_or(0, |group| group.first_stripe + group.stripes.len() as u32);
        let scope = Scope { first_stripe, end_stripe, shards: run.code.n() as u8 };
        let key = &self.inner.options.cluster_key;
        run.capability = Capability::sign_scoped(key, Rights::GET, run.data, scope, expires_unix_ms);
    }

    /// Each of these nodes once, with its addresses.
    fn plan_nodes<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> Vec<PlanNode> {
        let mut nodes: Vec<NodeId> = nodes.copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let known = &self.inner.options.node_addresses;
        let addresses = |node| known.get(&node).cloned().unwrap_or_default();
        nodes.into_iter().map(|node| PlanNode { node, addresses: addresses(node) }).collect()
    }

    /// The first half of a PutObject or UploadPart of `size_bytes`: the encoded [`WritePlan`], or why there is none. In
    /// either case nothing is visible.
    ///
    /// # Errors
    /// As [`Gateway::put_object`] and [`Gateway::upload_part`], as far as they don't depend on the bytes.
    pub async fn plan_put(&self, request: PlanPut, size_bytes: u64) -> Result<std::result::Result<Vec<u8>, Declined>> {
        let _admitted = self.inner.admit()?;
        if size_bytes > limits::PUT_BYTES_MAX {
            let max = limits::PUT_BYTES_MAX;
            return Err(Error::new(
                ErrorKind::EntityTooLarge,
                format!(
                    "Your proposed upload exceeds the maximum allowed size of {max} bytes; use a multipart upload."
                ),
            ));
        }
        let (target, algorithm) = self.put_target(&request).await?;
        if algorithm != ChecksumAlgorithm::Crc64Nvme || request.digests.md5.is_some() {
            self.inner.traffic.declined(Declined::Digest);
            return Ok(Err(Declined::Digest));
        }
        if let PutTarget::Object(new) = &target {
            self.check_early(new).await?;
        }
        if let Some(reason) = self.declines(size_bytes, request.encrypted || target.is_encrypted(), false) {
            return Ok(Err(reason));
        }
        let inner = &self.inner;
        let pending = inner.pending.begin(&inner.registry(target.code()), is_one_group(Some(size_bytes))).await?;
        let plan = self.write_plan(&request, &target, &pending, size_bytes)?;
        let now_unix_ms = inner.clock.now_unix_ms();
        inner.plans.hold_write(pending, now_unix_ms, ticket_end(now_unix_ms))?;
        inner.traffic.write_planned();
        Ok(Ok(plan))
    }

    fn write_plan(
        &self,
        request: &PlanPut,
        target: &PutTarget,
        pending: &PendingData,
        size_bytes: u64,
    ) -> Result<Vec<u8>> {
        let options = &self.inner.options;
        let (data, code) = (pending.data(), target.code());
        let stripes = u32::try_from(stripes_of(size_bytes)).map_err(internal)?;
        let groups: Vec<_> = (0..stripes.div_ceil(GROUP_STRIPES)).map(|group| pending.nodes(group)).collect();
        let now_unix_ms = self.inner.clock.now_unix_ms();
        let lifetime_ms = limits::PLAN_WRITE_LIFETIME.as_millis() as u64;
        let ticket = WriteTicket {
            data,
            size_bytes,
            code,
            epoch: pending.epoch().0,
            groups: groups.clone(),
            expires_unix_ms: ticket_end(now_unix_ms),
            access_key: request.access_key.clone(),
            bucket_id: target.bucket_id(),
            key: request.key.clone(),
            part: request.part.clone(),
        };
        let scope = Scope { first_stripe: 0, end_stripe: stripes, shards: code.n() as u8 };
        let rights = Rights::PUT.and(Rights::RECEIPT);
        let key = &options.cluster_key;
        let plan = WritePlan {
            lifetime_ms,
            data,
            size_bytes,
            code,
            chunk_bytes: limits::CHUNK_BYTES as u32,
            capability: Capability::sign_scoped(key, rights, data, scope, now_unix_ms + lifetime_ms),
            nodes: self.plan_nodes(groups.iter().flatten()),
            groups,
            ticket: ticket.seal(key).map_err(internal)?,
        };
        plan.encode().map_err(internal)
    }

    /// What a planned body is for, checked, and the checksum that it is to have.
    async fn put_target(&self, request: &PlanPut) -> Result<(PutTarget, ChecksumAlgorithm)> {
        let Some((upload_id, number)) = &request.part else {
            names::check_key(&request.key)?;
            names::check_headers(&request.headers)?;
            tags::check_object_tags(&request.tags)?;
            let bucket = self.inner.bucket(&request.bucket).await?;
            self.check_lock(&bucket, &request.lock)?;
            let (key, headers) = (request.key.clone(), request.headers.clone());
            let (tags, lock) = (request.tags.clone(), request.lock);
            let policy = self.inner.policy(&bucket, &request.storage_class).await?;
            let conditions = request.conditions.clone();
            let new = NewObject { bucket, key, headers, conditions, tags, lock, encryption: None, policy };
            let algorithm = checksums::asked(&request.digests, checksums::DEFAULT)?;
            return Ok((PutTarget::Object(Box::new(new)), algorithm));
        };
        let upload = self.open_upload(&request.bucket, &request.key, upload_id, *number).await?;
        let uploads = upload.checksum.map(|(algorithm, _)| algorithm);
        let asked = checksums::asked(&request.digests, uploads.unwrap_or(checksums::DEFAULT))?;
        if let Some(expected) = uploads.filter(|expected| *expected != asked) {
            return Err(type_mismatch(expected, asked));
        }
        Ok((PutTarget::Part(Box::new(upload), *number), asked))
    }

    /// The second half of a PutObject: makes a body that was stored by plan visible, as [`Gateway::put_object`] does one
    /// that came with the request. Repeating it after it succeeded answers the same, while the object is still the one it
    /// made. Its ETag is of the form `…-1`: it is no MD5, which nobody has computed.
    ///
    /// # Errors
    /// As [`Gateway::put_object`]: nothing is visible then, and what was stored is garbage. [`PlanFailure::Refused`].
    pub async fn commit_planned_object(
        &self,
        request: PlanPut,
        commit: Vec<u8>,
    ) -> std::result::Result<PutDone, PlanFailure> {
        let _admitted = self.inner.admit()?;
        let (target, _) = self.put_target(&request).await?;
        let Verified { ticket, stripes, crc64 } = self.verified(&request, &target, commit).await?;
        let PutTarget::Object(new) = target else {
            return Err(internal("a part is committed as an object").into());
        };
        let pending = self.inner.plans.take_write(ticket.data);
        if pending.is_none()
            && let Some(row) = self.inner.tables.object(new.bucket.id, &new.key).await.map_err(Error::from)?
            && is_of(&row, &ticket)
        {
            return Ok(put_done(row)?);
        }
        let etag = format!("{}-1", ticket.data);
        let (size_bytes, checksum) = (ticket.size_bytes, ChecksumValue::from_crc64nvme(crc64));
        // Nobody has an MD5 of it: a request with one was declined, and none matches here.
        checksums::verify(&request.digests, &BodySums { md5: [0; 16], sha256: None, checksum })?;
        let data = self.data_row(&ticket, stripes, crc64).await?;
        let done = self.commit_as(*new, etag, size_bytes, checksum, NewBytes::Run(Box::new(data), pending)).await?;
        self.inner.traffic.plan_committed(size_bytes);
        Ok(done)
    }

    /// The second half of an UploadPart, as [`Gateway::commit_planned_object`] is of a PutObject. The part's ETag is the
    /// data's id.
    ///
    /// # Errors
    /// As [`Gateway::upload_part`]; [`PlanFailure::Refused`].
    pub async fn commit_planned_part(
        &self,
        request: PlanPut,
        commit: Vec<u8>,
    ) -> std::result::Result<PartInfo, PlanFailure> {
        let _admitted = self.inner.admit()?;
        let (target, _) = self.put_target(&request).await?;
        let Verified { ticket, stripes, crc64 } = self.verified(&request, &target, commit).await?;
        let PutTarget::Part(upload, number) = target else {
            return Err(internal("an object is committed as a part").into());
        };
        let pending = self.inner.plans.take_write(ticket.data);
        if pending.is_none() {
            let tables = &self.inner.tables;
            let row = &upload.row;
            let page = tables.parts(upload.bucket.id, &row.key, &row.upload_id, number - 1, 1).await;
            let found = page.map_err(Error::from)?.parts.into_iter().next();
            if let Some(part) = found.filter(|part| part.data.as_ref().is_some_and(|data| data.data == ticket.data)) {
                return Ok(part_info(&part)?);
            }
        }
        let (size_bytes, checksum) = (ticket.size_bytes, ChecksumValue::from_crc64nvme(crc64));
        // Nobody has an MD5 of it: a request with one was declined, and none matches here.
        checksums::verify(&request.digests, &BodySums { md5: [0; 16], sha256: None, checksum })?;
        let data = self.data_row(&ticket, stripes, crc64).await?;
        let md5 = ticket.data.to_bytes();
        let done = self.commit_part(*upload, number, md5, size_bytes, checksum, Some((data, pending))).await?;
        self.inner.traffic.plan_committed(size_bytes);
        Ok(done)
    }

    async fn verified(
        &self,
        request: &PlanPut,
        target: &PutTarget,
        commit: Vec<u8>,
    ) -> std::result::Result<Verified, PlanFailure> {
        if request.encrypted || target.is_encrypted() {
            // The bucket's default has changed since the plan was given.
            return Err(PlanFailure::Refused("What is to be encrypted can't be stored by plan.".to_owned()));
        }
        let bucket_id = target.bucket_id();
        let (access_key, key, part) = (request.access_key.clone(), request.key.clone(), request.part.clone());
        let (cluster_key, clock) = (self.inner.options.cluster_key.clone(), self.inner.clock.clone());
        let long = commit.len() as u64 > VERIFY_INLINE_STRIPES_MAX * 1024;
        let work = move || {
            let part = part.as_ref().map(|(upload, number)| (upload.as_str(), *number));
            let expected = Expected { access_key: &access_key, bucket_id, key: &key, part };
            verify(&commit, &expected, &cluster_key, &*clock)
        };
        let verified = if long { tokio::task::spawn_blocking(work).await.map_err(internal)? } else { work() };
        verified.map_err(|refusal| {
            self.inner.traffic.commit_refused();
            tracing::warn!(bucket = request.bucket, refusal, "a plan's commit was refused");
            PlanFailure::Refused(refusal)
        })
    }

    async fn data_row(
        &self,
        ticket: &WriteTicket,
        stripes: Vec<penstock_meta::tables::StripeRow>,
        crc64: u64,
    ) -> Result<DataRow> {
        let groups: Vec<_> = ticket.groups.iter().map(|nodes| nodes.clone().into()).collect();
        let manifest = keep_manifest(&self.inner, ticket.data, ticket.code, &groups, stripes).await?;
        Ok(DataRow {
            data: ticket.data,
            size_bytes: ticket.size_bytes,
            chunk_bytes: limits::CHUNK_BYTES as u32,
            code: ticket.code,
            epoch: MapEpoch(ticket.epoch),
            crc64,
            manifest,
        })
    }

    /// Where clients reach the nodes.
    pub fn node_addresses(&self) -> &std::collections::HashMap<NodeId, Vec<NodeAddress>> {
        &self.inner.options.node_addresses
    }
}

enum PutTarget {
    Object(Box<NewObject>),
    Part(Box<OpenUpload>, u32),
}

impl PutTarget {
    fn code(&self) -> Code {
        match self {
            Self::Object(new) => new.policy.code,
            Self::Part(upload, _) => upload.code,
        }
    }

    /// Whether the upload's object is to be encrypted. Of objects the request says so.
    fn is_encrypted(&self) -> bool {
        matches!(self, Self::Part(upload, _) if upload.row.encryption.is_some())
    }

    fn bucket_id(&self) -> u64 {
        match self {
            Self::Object(new) => new.bucket.id,
            Self::Part(upload, _) => upload.bucket.id,
        }
    }
}

/// When a ticket that is made now can't be committed any more: a little after what the client is told, for a commit that is on
/// its way.
fn ticket_end(now_unix_ms: u64) -> u64 {
    now_unix_ms + limits::PLAN_WRITE_LIFETIME.as_millis() as u64 + COMMIT_GRACE_MS
}

/// See [`ticket_end`].
const COMMIT_GRACE_MS: u64 = 30_000;

fn is_of(row: &ObjectRow, ticket: &WriteTicket) -> bool {
    matches!(&row.layout, Layout::Single(data) if data.data == ticket.data)
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InternalError, error.to_string())
}
