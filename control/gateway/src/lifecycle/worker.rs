//! The background job: walks the buckets that have rules and expires what is due.
//!
//! It reads pages of versions and of uploads, decides by [`super::rules`], and acts through the same transactions as
//! clients' deletes: object lock holds against it, and what changed since the page was read is left for the next pass (an
//! expired object is deleted only while it is the version that was judged). One page at a time, with a pause after each,
//! so that clients hardly notice. Where it is, is kept in the metadata: a gateway that is started again goes on there.

use std::sync::Arc;
use std::time::Duration;

use penstock_meta::tables::{
    BucketRow, ListVersions, ListedRow, LockPass, Preconditions, TablesError, VersionName, VersionRow,
};
use serde::{Deserialize, Serialize};

use super::rules::{Lifecycle, Subject};
use crate::api::UnixMs;
use crate::error::{Error, Result};
use crate::events::{self, Way};
use crate::gateway::Inner;

/// Versions or uploads of one page.
const PAGE: usize = 200;
/// Pause after a page.
const PAGE_PAUSE: Duration = Duration::from_millis(20);
/// Buckets read at a time.
const BUCKETS_PAGE: usize = 100;
/// Name of the setting in which the place is kept.
const PLACE: &str = "lifecycle-place";

/// One pass at a time.
#[derive(Default)]
pub(crate) struct Worker(tokio::sync::Mutex<()>);

/// Where a pass is: after this version of this key of this bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    bucket: String,
    key: String,
    version: Option<String>,
    /// The versions are done, uploads are being walked: `version` is an upload id.
    uploads: bool,
}

/// Starts the job, if the options give it an interval.
pub(crate) fn start(inner: &Arc<Inner>) {
    let Some(interval) = inner.options.lifecycle_interval else { return };
    // It may be cut short: every action is a transaction of its own, and the place is kept, so the next pass goes on.
    inner.spawn_every(interval, |inner| async move {
        match run(&inner, PAGE_PAUSE).await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "lifecycle"),
            Err(error) => tracing::warn!(%error, "lifecycle rules can't be followed now"),
        }
    });
}

/// One whole pass, without pauses.
pub(super) async fn run_all(inner: &Arc<Inner>) -> Result<u64> {
    keep(inner, &Place::default()).await?;
    run(inner, Duration::ZERO).await
}

/// A pass, from where the last one stopped to the end. How many things expired.
async fn run(inner: &Arc<Inner>, pause: Duration) -> Result<u64> {
    let _one_at_a_time = inner.lifecycle_worker.0.lock().await;
    let mut place: Place = match inner.tables.setting(PLACE).await? {
        // What another release wrote is no place: begin anew.
        Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        None => Place::default(),
    };
    let began_at = place.clone();
    let mut expired = 0;
    // The bucket in whose middle the last pass stopped, then those after it.
    let mut after = None;
    if !place.bucket.is_empty() {
        if let Some(bucket) = inner.tables.bucket(&place.bucket).await? {
            expired += bucket_pass(inner, &bucket, &mut place, pause).await?;
        }
        after = Some(place.bucket.clone());
    }
    loop {
        let (buckets, more) = inner.tables.list_buckets("", after.as_deref(), BUCKETS_PAGE).await?;
        for bucket in &buckets {
            place = Place { bucket: bucket.name.clone(), ..Place::default() };
            expired += bucket_pass(inner, bucket, &mut place, pause).await?;
        }
        match buckets.last() {
            Some(last) if more => after = Some(last.name.clone()),
            _ => break,
        }
    }
    // A store without rules writes nothing.
    if began_at != Place::default() || inner.tables.setting(PLACE).await?.is_some() {
        keep(inner, &Place::default()).await?;
    }
    Ok(expired)
}

async fn keep(inner: &Inner, place: &Place) -> Result<()> {
    let bytes = serde_json::to_vec(place).map_err(super::unreadable)?;
    Ok(inner.tables.set_setting(PLACE, &bytes).await?)
}

/// Follows a bucket's rules from `place` on.
async fn bucket_pass(inner: &Arc<Inner>, bucket: &BucketRow, place: &mut Place, pause: Duration) -> Result<u64> {
    let Some(lifecycle) = inner.lifecycle_of(bucket).await? else { return Ok(0) };
    if lifecycle.enabled().next().is_none() {
        return Ok(0);
    }
    let mut expired = 0;
    let mut walk = Walk::default();
    while !place.uploads {
        let request = ListVersions {
            key_marker: &place.key,
            after_version: place.version.as_deref().and_then(VersionName::parse),
            max: PAGE,
            ..ListVersions::default()
        };
        let page = inner.tables.list_versions(bucket.id, request).await?;
        let mut rows = page.rows.iter().peekable();
        while let Some((key, row)) = rows.next() {
            let alone_so_far = rows.peek().is_none_or(|(next, _)| next != key);
            expired += u64::from(judge(inner, bucket, &lifecycle, &mut walk, key, row, alone_so_far).await?);
        }
        match page.next {
            Some((key, version)) => (place.key, place.version) = (key, version),
            None => *place = Place { bucket: place.bucket.clone(), uploads: true, ..Place::default() },
        }
        keep(inner, place).await?;
        tokio::time::sleep(pause).await;
    }
    if !lifecycle.enabled().any(|rule| rule.abort_days.is_some()) {
        return Ok(expired);
    }
    loop {
        let marker = place.version.clone().unwrap_or_default();
        let page = inner.tables.list_uploads(bucket.id, "", "", &place.key, &marker, PAGE).await?;
        let (now_unix_ms, day_ms) = (inner.clock.now_unix_ms(), inner.day_ms());
        for upload in &page.uploads {
            let due =
                |rule: &super::rules::Rule| rule.aborts(&upload.key, upload.initiated_unix_ms, now_unix_ms, day_ms);
            if lifecycle.enabled().any(due) {
                match inner.tables.abort_upload(bucket.id, &upload.key, &upload.upload_id, now_unix_ms).await {
                    Ok(()) => expired += 1,
                    // Completed or aborted meanwhile.
                    Err(TablesError::NoSuchUpload) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let Some((key, upload_id)) = page.next else { return Ok(expired) };
        (place.key, place.version) = (key, Some(upload_id));
        keep(inner, place).await?;
        tokio::time::sleep(pause).await;
    }
}

/// What a walk over versions remembers from one to the next.
#[derive(Default)]
struct Walk {
    key: String,
    /// Noncurrent versions of the key that were seen, and stay.
    noncurrent: u64,
}

/// Expires a version if a rule says so. A walk that begins in the middle of a key has seen fewer of its versions than there
/// are, and keeps more than it need.
async fn judge(
    inner: &Arc<Inner>,
    bucket: &BucketRow,
    lifecycle: &Lifecycle,
    walk: &mut Walk,
    key: &str,
    row: &ListedRow,
    alone_so_far: bool,
) -> Result<bool> {
    let first = walk.key != key;
    if first {
        *walk = Walk { key: key.to_owned(), noncurrent: 0 };
    }
    if !lifecycle.enabled().any(|rule| rule.filter.matches_key(key)) {
        return Ok(false);
    }
    let version = &row.version;
    let name = VersionName::parse(&version.id());
    let tags = if lifecycle.looks_at_tags() && !version.marker {
        match name {
            Some(name) => inner.tables.version(bucket.id, key, name).await?.map(|row| row.tags).unwrap_or_default(),
            None => Vec::new(),
        }
    } else {
        Vec::new()
    };
    let subject = Subject { key, size_bytes: row.size_bytes, tags: &tags };
    let (now_unix_ms, day_ms) = (inner.clock.now_unix_ms(), inner.day_ms());
    if version.superseded_unix_ms != 0 {
        let newer = walk.noncurrent;
        let due = |rule: &super::rules::Rule| {
            rule.expires_noncurrent(subject, version.marker, version.superseded_unix_ms, newer, now_unix_ms, day_ms)
        };
        let gone = lifecycle.enabled().any(due) && delete(inner, bucket, key, name, version, now_unix_ms).await?;
        walk.noncurrent += 1;
        return Ok(gone);
    }
    if version.marker {
        let due = lifecycle.enabled().any(|rule| rule.expires_marker(key, row.modified_unix_ms, now_unix_ms, day_ms));
        return Ok(due
            && alone_so_far
            && is_alone(inner, bucket, key).await?
            && delete(inner, bucket, key, name, version, now_unix_ms).await?);
    }
    match lifecycle.expiry(subject, row.modified_unix_ms, day_ms) {
        Some((at, _)) if at <= now_unix_ms => delete(inner, bucket, key, None, version, now_unix_ms).await,
        _ => Ok(false),
    }
}

/// Whether the key has one version only. The page that was read may have ended behind it.
async fn is_alone(inner: &Inner, bucket: &BucketRow, key: &str) -> Result<bool> {
    let request = ListVersions { prefix: key, max: 2, ..ListVersions::default() };
    let page = inner.tables.list_versions(bucket.id, request).await?;
    Ok(page.rows.iter().filter(|(other, _)| other == key).count() == 1)
}

/// Deletes what was judged: the named version for good, or the current one as a client would. False if it may not be, or is
/// not what it was any more.
async fn delete(
    inner: &Inner,
    bucket: &BucketRow,
    key: &str,
    name: Option<VersionName>,
    version: &VersionRow,
    now_unix_ms: UnixMs,
) -> Result<bool> {
    let preconditions =
        Preconditions { if_match_version: name.is_none().then(|| version.place()), ..Preconditions::default() };
    let pass = LockPass { now_unix_ms, bypass_governance: false };
    let not_before = inner.garbage_not_before();
    let deleted = inner.tables.delete(bucket, key, name, &preconditions, pass, not_before);
    match events::in_way(Way::Lifecycle, deleted).await {
        Ok(_) => Ok(true),
        Err(TablesError::Locked | TablesError::Precondition(_) | TablesError::NoSuchBucket) => Ok(false),
        Err(error) => Err(Error::from(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_to_the_letter() {
        let place = Place { bucket: "b".into(), key: "k\u{1}é".into(), version: Some("null".into()), uploads: true };
        let bytes = serde_json::to_vec(&place).unwrap();
        assert_eq!(serde_json::from_slice::<Place>(&bytes).unwrap(), place);
        assert!(serde_json::from_slice::<Place>(b"other").is_err());
    }
}
