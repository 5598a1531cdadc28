//! `RenameObject`: an object under another key of its bucket, in one metadata transaction.
//!
//! AWS has it for directory buckets, which have no versions; here it is for every bucket that has none and no object lock.
//! In the others it is NotImplemented: a version that moves to another key would leave its history behind.

use penstock_digest::Sha256Hasher;
use penstock_meta::tables::{ObjectRow, PreconditionFailure, Rename, RenameToken, Renamed};

use crate::api::{Conditions, EtagCondition, RenameObject};
use crate::conditions::{self, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, no_such_key};
use crate::names;
use crate::objects::lost_race;

/// Longest client token, by the API reference.
const TOKEN_BYTES_MAX: usize = 64;

impl Gateway {
    /// `RenameObject`. With a token, a request that succeeded and is repeated within a quarter of an hour succeeds again and
    /// does nothing.
    ///
    /// # Errors
    /// NoSuchKey of the source; PreconditionFailed of either side; InvalidRequest for keys that end in `/` and for both keys the
    /// same; InvalidArgument for a bad token; IdempotencyParameterMismatch; NotImplemented where there are versions.
    pub async fn rename_object(&self, request: RenameObject) -> Result<()> {
        let _admitted = self.inner.admit()?;
        let RenameObject { bucket, source, key, conditions, source_conditions, token } = &request;
        for key in [source, key] {
            names::check_key(key)?;
        }
        if source.ends_with('/') || key.ends_with('/') {
            return Err(Error::new(ErrorKind::InvalidRequest, "Keys that end in / can't be renamed, nor renamed to."));
        }
        if source == key {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "The source and the destination of a rename are the same key.",
            ));
        }
        let token = token.as_deref().map(|token| remembered(token, &request)).transpose()?;
        let bucket = self.inner.bucket(bucket).await?;
        let of_source = |row: Option<&ObjectRow>| check(source_conditions, row);
        let of_destination = |row: Option<&ObjectRow>| check(conditions, row);
        let rename = Rename {
            bucket: &bucket,
            source,
            destination: key,
            source_condition: &of_source,
            destination_condition: &of_destination,
            token,
            now_unix_ms: self.inner.clock.now_unix_ms(),
            garbage_not_before_unix_ms: self.inner.garbage_not_before(),
        };
        match self.inner.tables.rename_object(&rename).await.map_err(|error| lost_race(error, conditions))? {
            Renamed::Done { .. } | Renamed::Before => Ok(()),
            Renamed::NoSource => Err(no_such_key(source)),
            Renamed::OtherParameters => Err(Error::new(
                ErrorKind::IdempotencyParameterMismatch,
                "Parameters on this idempotent request are inconsistent with parameters used in previous request(s).",
            )),
            Renamed::Versioned => Err(Error::new(
                ErrorKind::NotImplemented,
                "RenameObject is not implemented for buckets with versioning or object lock: copy the object, then delete it.",
            )),
        }
    }
}

/// Whether the conditions hold of the object that is there.
fn check(conditions: &Conditions, row: Option<&ObjectRow>) -> std::result::Result<(), PreconditionFailure> {
    let Some(row) = row else {
        let wants_object = conditions.if_match.is_some() || conditions.if_modified_since.is_some();
        return if wants_object { Err(PreconditionFailure::Failed) } else { Ok(()) };
    };
    match conditions::judge_read(conditions, &row.etag, row.modified_unix_ms) {
        Verdict::Hold => Ok(()),
        Verdict::NotModified | Verdict::Failed => Err(PreconditionFailure::Failed),
    }
}

/// What of a token is kept.
fn remembered(token: &str, request: &RenameObject) -> Result<RenameToken> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| (33..=126).contains(&byte)) {
        let message = "A client token has 1 to 64 ASCII characters from 33 to 126.";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let etags = |condition: &Option<EtagCondition>| format!("{condition:?}");
    let of = |conditions: &Conditions| {
        let times = (conditions.if_modified_since, conditions.if_unmodified_since);
        format!("{}\0{}\0{times:?}", etags(&conditions.if_match), etags(&conditions.if_none_match))
    };
    let parameters =
        [request.source.clone(), request.key.clone(), of(&request.conditions), of(&request.source_conditions)]
            .join("\0\0");
    Ok(RenameToken { id: short_hash(token.as_bytes()), parameters: short_hash(parameters.as_bytes()) })
}

fn short_hash(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256Hasher::of(bytes)[..16]);
    short
}
