//! Renaming: an object's row goes to another key of its bucket, in one transaction. Its data stays where it is.
//!
//! Only in buckets without versions: there a key has one row, and an object that is renamed leaves nothing behind. A row
//! `Z | bucket id | token` remembers a rename that came with a client's token, so that a repeated request does nothing.
//! Such rows are good for a quarter of an hour ([`TOKEN_LIFE_MS`]); each rename with a token removes a few that are older, so there are never many
//! more than were made in that time.

use super::rows::ROW_VERSION;
use super::{
    BucketRow, Layout, ObjectLockRow, ObjectRow, PreconditionFailure, Result, Tables, TablesError, Versioning,
};
use super::{buckets, extents, keys, outbox, read, upkeep, versions};
use crate::kv::RangeRead;

/// How long a client's token is remembered.
pub(super) const TOKEN_LIFE_MS: u64 = 15 * 60 * 1000;
/// Old tokens that one rename looks for.
const TOKENS_SWEPT: usize = 8;

/// A condition on an object as it is, asked inside the transaction.
pub type ObjectCondition<'a> = dyn Fn(Option<&ObjectRow>) -> Result<(), PreconditionFailure> + Send + Sync + 'a;

/// A client's token: what it is remembered by, and what the request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenameToken {
    /// A hash of the token.
    pub id: [u8; 16],
    /// A hash of the request's parameters.
    pub parameters: [u8; 16],
}

/// What [`Tables::rename_object`] does.
pub struct Rename<'a> {
    /// In which bucket.
    pub bucket: &'a BucketRow,
    /// From which key.
    pub source: &'a str,
    /// To which other key.
    pub destination: &'a str,
    /// What must hold of the source, which exists.
    pub source_condition: &'a ObjectCondition<'a>,
    /// What must hold of what is at the destination.
    pub destination_condition: &'a ObjectCondition<'a>,
    /// The client's token.
    pub token: Option<RenameToken>,
    /// Now.
    pub now_unix_ms: u64,
    /// For what the renamed object replaces.
    pub garbage_not_before_unix_ms: u64,
}

/// What renaming did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// The object is at its new key; what it replaced there is garbage.
    Done {
        /// It.
        object: Box<ObjectRow>,
        /// What was there.
        replaced: Option<Box<ObjectRow>>,
    },
    /// The same request was done before: nothing was done now.
    Before,
    /// The token was used for another request: nothing was done.
    OtherParameters,
    /// There is no object at the source.
    NoSource,
    /// The bucket has, or had, versions, or object lock.
    Versioned,
}

impl Tables {
    /// Renames an object.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::Precondition`], [`TablesError::Locked`],
    /// [`TablesError::KeyLength`], the store's; [`TablesError::BadRow`] when both keys are one.
    pub async fn rename_object(&self, rename: &Rename<'_>) -> Result<Renamed> {
        if rename.source == rename.destination {
            return Err(TablesError::BadRow("an object is renamed to another key"));
        }
        let from = keys::object(rename.bucket.id, rename.source)?;
        let to = keys::object(rename.bucket.id, rename.destination)?;
        transaction!(self, |txn, from, to| {
            let bucket = buckets::check(txn, rename.bucket).await?;
            if bucket.versioning != Versioning::Off || bucket.lock != ObjectLockRow::Off {
                return Ok(Renamed::Versioned);
            }
            if let Some(token) = rename.token {
                let key = keys::rename_token(bucket.id, &token.id);
                if let Some((expires_unix_ms, parameters)) = txn.get(&key).await?.and_then(|value| parse(&value))
                    && expires_unix_ms > rename.now_unix_ms
                {
                    let same = parameters == token.parameters;
                    return Ok(if same { Renamed::Before } else { Renamed::OtherParameters });
                }
            }
            let Some(mut object) = read::<ObjectRow>(txn, from).await? else { return Ok(Renamed::NoSource) };
            (rename.source_condition)(Some(&object))?;
            let there: Option<ObjectRow> = read(txn, to).await?;
            (rename.destination_condition)(there.as_ref())?;
            // A repeated Complete of its upload would look for it at its old key.
            object.upload_id = None;
            if let Layout::Packed(packed) = &object.layout {
                // Its extent knows it by its name; placing it says the new one.
                extents::unlink(txn, packed)?;
            }
            let not_before = rename.garbage_not_before_unix_ms;
            let replaced = versions::place(txn, &bucket, rename.destination, there, &mut object, not_before).await?;
            txn.clear(from)?;
            // Data has moved within a table: whoever walks through it meanwhile may have missed it (`upkeep.rs`).
            txn.atomic_add(&keys::counter(upkeep::RENAMES), 1)?;
            outbox::removed(txn, &bucket, rename.source, &object, rename.now_unix_ms).await?;
            if let Some(token) = rename.token {
                let key = keys::rename_token(bucket.id, &token.id);
                sweep(txn, &key, rename.now_unix_ms).await?;
                txn.set(&key, &value(rename.now_unix_ms.saturating_add(TOKEN_LIFE_MS), &token.parameters))?;
            }
            Ok(Renamed::Done { object: Box::new(object), replaced: replaced.map(Box::new) })
        })
        .await
    }
}

/// Removes old tokens among those that follow `key`: tokens are hashes, so every place is come by.
async fn sweep(txn: &mut dyn crate::kv::Transaction, key: &[u8], now_unix_ms: u64) -> Result<()> {
    let end = keys::past(&keys::table(keys::RENAME_TOKENS));
    let range = RangeRead { snapshot: true, ..RangeRead::between(&keys::after(key), &end).limit(TOKENS_SWEPT) };
    for (key, value) in &txn.get_range(range).await?.rows {
        if parse(value).is_none_or(|(expires_unix_ms, _)| expires_unix_ms <= now_unix_ms) {
            txn.clear(key)?;
        }
    }
    Ok(())
}

fn value(expires_unix_ms: u64, parameters: &[u8; 16]) -> Vec<u8> {
    [&[ROW_VERSION], expires_unix_ms.to_be_bytes().as_slice(), parameters].concat()
}

fn parse(value: &[u8]) -> Option<(u64, [u8; 16])> {
    let (version, rest) = value.split_first()?;
    let (expires, parameters) = rest.split_first_chunk::<8>()?;
    (*version == ROW_VERSION).then_some((u64::from_be_bytes(*expires), parameters.try_into().ok()?))
}
