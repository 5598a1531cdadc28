//! Events: rows that say what happened to which object, and whom to tell, written by the transaction in which it happened.
//!
//! **A transactional outbox.** Every version that becomes current or goes away does so in [`super::versions`], which calls
//! [`placed`] and [`removed`]; tags change in `change_object`, which calls [`tagged`]. These read the bucket's rules *in that
//! transaction* and write a row for each one that matches: an event exists if and only if what it tells of was committed, and
//! by the rules of that moment. Buckets without rules (a bit of their row) pay nothing.
//!
//! **Order.** A row's key is `Q | target | 0 | commit version | index`: the order of commits, which the key-value store gives out
//! without conflicts, so that writers of different keys never wait for each other. It is also what AWS calls the sequencer
//! ([`EventPlace::sequencer`]): of two events of one key the later one has the larger.
//!
//! **Bounds.** A target that is not reached must not fill the disk: past [`EVENTS_QUEUED_MAX`] rows further events of it are not
//! written, and counted. The count is read without a conflict, so that the bound may be passed by what is being committed.
//!
//! **Whose doing.** What an event tells of the request (who, from where) and what no row shows (that an object was a copy)
//! comes from [`caused`], a task-local around the whole operation: the many ways in which an object can be written need not
//! hand it down, and a new one can't forget to. Without one the event is told all the same, of nobody.

use serde::{Deserialize, Serialize};

use super::bucket_settings::{read_document, write_document};
use super::rows::{ROW_VERSION, decode, encode};
use super::{BucketRow, BucketSetting, ObjectRow, Result, Tables, TablesError, Versioning, counter, keys, read, write};
use crate::kv::{CommitVersion, RangeRead, Transaction};

/// Events that wait for one target; past it they are dropped and counted.
pub const EVENTS_QUEUED_MAX: u64 = 1_000_000;
/// Most rules of one bucket, as AWS has it.
pub const NOTIFICATION_RULES_MAX: usize = 100;
/// Longest name (ARN) of a target.
pub const TARGET_BYTES_MAX: usize = 512;

macro_rules! kinds {
    ($($(#[$doc:meta])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// What happened. Numbers are stored: they never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum EventKind { $($(#[$doc])+ $name = $number,)+ }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// AWS's name, without `s3:`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

kinds! {
    /// Events were configured: says that they arrive. Not one that can be asked for.
    Test = 0, "TestEvent";
    /// An object was put.
    CreatedPut = 1, "ObjectCreated:Put";
    /// An object was uploaded by an HTML form.
    CreatedPost = 2, "ObjectCreated:Post";
    /// An object was copied.
    CreatedCopy = 3, "ObjectCreated:Copy";
    /// A multipart upload was completed.
    CreatedComplete = 4, "ObjectCreated:CompleteMultipartUpload";
    /// An object, or a version for good, was deleted.
    RemovedDelete = 5, "ObjectRemoved:Delete";
    /// A delete marker was made.
    RemovedMarker = 6, "ObjectRemoved:DeleteMarkerCreated";
    /// Tags were put.
    TaggingPut = 7, "ObjectTagging:Put";
    /// Tags were deleted.
    TaggingDelete = 8, "ObjectTagging:Delete";
    /// A lifecycle rule deleted an object, or a version for good.
    ExpiredDelete = 9, "LifecycleExpiration:Delete";
    /// A lifecycle rule made a delete marker.
    ExpiredMarker = 10, "LifecycleExpiration:DeleteMarkerCreated";
}

impl EventKind {
    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }

    /// Whether `pattern`, as a configuration has it (`s3:ObjectCreated:*`), means it.
    pub fn is_meant_by(self, pattern: &str) -> bool {
        let Some(pattern) = pattern.strip_prefix("s3:") else { return false };
        match pattern.strip_suffix('*') {
            Some(start) => start.ends_with(':') && self.name().starts_with(start),
            None => self.name() == pattern,
        }
    }
}

/// What AWS calls the place that events go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// An SNS topic.
    Topic,
    /// An SQS queue.
    Queue,
    /// A Lambda function.
    Function,
}

/// Which events of a bucket go where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRule {
    /// Its name.
    pub id: String,
    /// As what its target was configured.
    pub kind: TargetKind,
    /// Its target's ARN.
    pub target: String,
    /// Which events, as configured: `s3:ObjectCreated:*`.
    pub events: Vec<String>,
    /// Of which keys: those that start so. None: it was not said.
    pub prefix: Option<String>,
    /// Of which keys: those that end so.
    pub suffix: Option<String>,
}

impl NotificationRule {
    fn matches(&self, kind: EventKind, key: &str) -> bool {
        key.starts_with(self.prefix.as_deref().unwrap_or_default())
            && key.ends_with(self.suffix.as_deref().unwrap_or_default())
            && self.events.iter().any(|pattern| kind.is_meant_by(pattern))
    }
}

/// Who or what is at work, for the events of what it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// What no row shows of it.
    pub way: Way,
    /// Who: `AWS:` and the user's id.
    pub principal: String,
    /// From where.
    pub source_ip: String,
    /// The request.
    pub request_id: String,
    /// When, for what has no time of its own.
    pub time_unix_ms: u64,
}

/// The ways of an operation that its rows don't show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As the rows say: a put, a completed upload, a deletion.
    #[default]
    Plain,
    /// By an HTML form.
    Form,
    /// An object was copied.
    Copy,
    /// A lifecycle rule.
    Lifecycle,
    /// Tags are deleted, not put.
    DeleteTags,
}

tokio::task_local! {
    static CAUSE: Cause;
}

/// Runs `work` as caused by `cause`.
pub async fn caused<F: Future>(cause: Cause, work: F) -> F::Output {
    CAUSE.scope(cause, work).await
}

/// What the task is doing this for, as [`caused`] was told.
pub fn cause() -> Cause {
    CAUSE.try_with(Cause::clone).unwrap_or_default()
}

/// An event that waits. At `Q | target | 0 | commit version, 10 bytes | index, u16`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// What: an [`EventKind`]'s number.
    pub kind: u8,
    /// When.
    pub time_unix_ms: u64,
    /// The bucket.
    pub bucket: String,
    /// Its owner's account; empty for the store's own.
    pub bucket_owner: String,
    /// The object; empty for a test.
    pub key: String,
    /// Its size, where there is an object.
    pub size_bytes: Option<u64>,
    /// Its ETag, likewise.
    pub etag: Option<String>,
    /// Its version, in a bucket that has or had versions.
    pub version_id: Option<String>,
    /// The rule that asked for it.
    pub rule_id: String,
    /// Who did it, as [`Cause`] has it.
    pub principal: String,
    /// From where.
    pub source_ip: String,
    /// In which request.
    pub request_id: String,
}

impl EventRow {
    /// What happened.
    ///
    /// # Errors
    /// [`TablesError::Unreadable`] for what another release wrote.
    pub fn kind(&self) -> Result<EventKind> {
        EventKind::from_number(self.kind)
            .ok_or_else(|| TablesError::Unreadable { row: "event", why: format!("it is of kind {}", self.kind) })
    }
}

/// Where an event stands among those of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPlace([u8; EventPlace::BYTES]);

impl EventPlace {
    pub(super) const BYTES: usize = CommitVersion::BYTES + 2;

    /// The sequencer: hex digits, of one length, in the order of commits.
    pub fn sequencer(&self) -> String {
        keys::hex(&self.0[..CommitVersion::BYTES]).to_ascii_uppercase()
    }

    /// No other event's of the same target.
    pub fn id(&self) -> String {
        keys::hex(&self.0)
    }
}

impl Tables {
    /// A bucket's rules, in their order.
    ///
    /// # Errors
    /// The store's. `None` if there is no such bucket.
    pub async fn notifications(&self, name: &str) -> Result<Option<Vec<NotificationRule>>> {
        transaction!(self, |txn| {
            let Some(row) = read::<BucketRow>(txn, &keys::bucket(name)).await? else { return Ok(None) };
            rules(txn, &row).await.map(Some)
        })
        .await
    }

    /// Sets a bucket's rules, and puts an event that says so on the way to each of their targets. None: it has none any more.
    ///
    /// # Errors
    /// [`TablesError::NoSuchBucket`], [`TablesError::SettingTooLarge`], the store's. [`TablesError::BadRow`] for more than
    /// [`NOTIFICATION_RULES_MAX`] or a target's name that is none.
    pub async fn put_notifications(&self, name: &str, rules: &[NotificationRule], now_unix_ms: u64) -> Result<()> {
        let named = |rule: &NotificationRule| is_target(&rule.target);
        if rules.len() > NOTIFICATION_RULES_MAX || !rules.iter().all(named) {
            return Err(TablesError::BadRow("a bucket has so many rules at most, with ARNs as targets"));
        }
        let document = postcard::to_stdvec(rules)
            .map_err(|error| TablesError::Unreadable { row: "notifications", why: error.to_string() })?;
        transaction!(self, |txn, document| {
            let key = keys::bucket(name);
            let mut row: BucketRow = read(txn, &key).await?.ok_or(TablesError::NoSuchBucket)?;
            let document = (!rules.is_empty()).then_some(document.as_slice());
            write_document(txn, &mut row, BucketSetting::Notification, document)?;
            write(txn, &key, &row)?;
            let mut told: Vec<&str> = Vec::new();
            for rule in rules {
                if told.contains(&rule.target.as_str()) {
                    continue;
                }
                let event = EventRow { rule_id: String::new(), ..event(&row, EventKind::Test, "", now_unix_ms) };
                queue(txn, &rule.target, told.len(), &event).await?;
                told.push(&rule.target);
            }
            Ok(())
        })
        .await
    }

    /// At most `max` of a target's events, in order, from `from` on (from the first without it).
    ///
    /// # Errors
    /// The store's.
    pub async fn events(
        &self,
        target: &str,
        from: Option<EventPlace>,
        max: usize,
    ) -> Result<Vec<(EventPlace, EventRow)>> {
        let prefix = keys::events(target);
        let begin = from.map_or(prefix.clone(), |place| [prefix.as_slice(), &place.0].concat());
        let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &keys::past(&prefix)).limit(max) };
        let page = self.page(&range).await?;
        let place = |key: &[u8]| {
            let place = key.get(prefix.len()..).and_then(|place| place.try_into().ok());
            place.map(EventPlace).ok_or_else(|| TablesError::Unreadable {
                row: "event",
                why: format!("its key is none: {}", key.escape_ascii()),
            })
        };
        page.rows.iter().map(|(key, value)| Ok((place(key)?, decode(value)?))).collect()
    }

    /// Takes these events of a target away: they were delivered, or (`dropped`) given up, and then counted. Each must be there.
    ///
    /// # Errors
    /// The store's.
    pub async fn finish_events(&self, target: &str, delivered: &[EventPlace], dropped: &[EventPlace]) -> Result<()> {
        let count = |places: &[EventPlace]| places.len() as i64;
        transaction!(self, |txn| {
            txn.makes_room();
            let prefix = keys::events(target);
            for place in delivered.iter().chain(dropped) {
                txn.clear(&[prefix.as_slice(), &place.0].concat())?;
            }
            txn.atomic_add(&keys::events_queued(target), -(count(delivered) + count(dropped)))?;
            if !dropped.is_empty() {
                txn.atomic_add(&keys::events_dropped(target), count(dropped))?;
            }
            Ok(())
        })
        .await
    }

    /// How many events wait for a target, and how many were ever dropped.
    ///
    /// # Errors
    /// The store's.
    pub async fn event_counts(&self, target: &str) -> Result<(u64, u64)> {
        transaction!(self, |txn| {
            let queued = counter(txn, &keys::events_queued(target)).await?;
            Ok((queued, counter(txn, &keys::events_dropped(target)).await?))
        })
        .await
    }
}

/// Whether a target may be called so: it stands in keys, before a zero.
fn is_target(name: &str) -> bool {
    (1..=TARGET_BYTES_MAX).contains(&name.len()) && !name.contains('\0')
}

/// The bucket's rules, as of this transaction.
async fn rules(txn: &mut dyn Transaction, bucket: &BucketRow) -> Result<Vec<NotificationRule>> {
    let Some(document) = read_document(txn, bucket, BucketSetting::Notification).await? else { return Ok(Vec::new()) };
    postcard::from_bytes(&document)
        .map_err(|error| TablesError::Unreadable { row: "notifications", why: error.to_string() })
}

/// An object became its key's current version, or (a marker) its key's end.
pub(super) async fn placed(txn: &mut dyn Transaction, bucket: &BucketRow, key: &str, row: &ObjectRow) -> Result<()> {
    if !bucket.has_setting(BucketSetting::Notification) {
        return Ok(());
    }
    let cause = cause();
    let kind = match cause.way {
        Way::Lifecycle if row.version.marker => EventKind::ExpiredMarker,
        _ if row.version.marker => EventKind::RemovedMarker,
        Way::Copy => EventKind::CreatedCopy,
        Way::Form => EventKind::CreatedPost,
        _ if row.upload_id.is_some() => EventKind::CreatedComplete,
        _ => EventKind::CreatedPut,
    };
    let object = !row.version.marker;
    let event = EventRow {
        size_bytes: object.then_some(row.size_bytes),
        etag: object.then(|| row.etag.clone()),
        // Of the null version AWS tells none: the write made no version.
        version_id: (!row.version.null).then(|| row.version.id()),
        ..event(bucket, kind, key, row.modified_unix_ms)
    };
    tell(txn, bucket, kind, event, 0).await
}

/// A version is gone for good.
pub(super) async fn removed(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    key: &str,
    row: &ObjectRow,
    now_unix_ms: u64,
) -> Result<()> {
    if !bucket.has_setting(BucketSetting::Notification) {
        return Ok(());
    }
    let kind = match cause().way {
        Way::Lifecycle => EventKind::ExpiredDelete,
        _ => EventKind::RemovedDelete,
    };
    let version_id = (bucket.versioning != Versioning::Off).then(|| row.version.id());
    let event = EventRow { version_id, ..event(bucket, kind, key, now_unix_ms) };
    // A rename places and removes in one transaction.
    tell(txn, bucket, kind, event, NOTIFICATION_RULES_MAX).await
}

/// A version has other tags.
pub(super) async fn tagged(txn: &mut dyn Transaction, bucket: &BucketRow, key: &str, row: &ObjectRow) -> Result<()> {
    if !bucket.has_setting(BucketSetting::Notification) {
        return Ok(());
    }
    let cause = cause();
    let kind = match cause.way {
        Way::DeleteTags => EventKind::TaggingDelete,
        _ => EventKind::TaggingPut,
    };
    let event = EventRow {
        etag: Some(row.etag.clone()),
        version_id: (bucket.versioning != Versioning::Off).then(|| row.version.id()),
        ..event(bucket, kind, key, cause.time_unix_ms)
    };
    tell(txn, bucket, kind, event, 0).await
}

/// An event of which no more is known than every event tells.
fn event(bucket: &BucketRow, kind: EventKind, key: &str, time_unix_ms: u64) -> EventRow {
    let Cause { principal, source_ip, request_id, way: _, time_unix_ms: _ } = cause();
    EventRow {
        kind: kind as u8,
        time_unix_ms,
        bucket: bucket.name.clone(),
        bucket_owner: bucket.owner.clone(),
        key: key.to_owned(),
        size_bytes: None,
        etag: None,
        version_id: None,
        rule_id: String::new(),
        principal,
        source_ip,
        request_id,
    }
}

/// Puts an event on the way to whom the bucket's rules say, as number `first` and following of its transaction's.
async fn tell(
    txn: &mut dyn Transaction,
    bucket: &BucketRow,
    kind: EventKind,
    event: EventRow,
    first: usize,
) -> Result<()> {
    let rules = rules(txn, bucket).await?;
    for (index, rule) in (first..).zip(rules.iter().filter(|rule| rule.matches(kind, &event.key))) {
        queue(txn, &rule.target, index, &EventRow { rule_id: rule.id.clone(), ..event.clone() }).await?;
    }
    Ok(())
}

/// Writes an event's row, `index`th of the transaction, unless as many as may wait already do.
async fn queue(txn: &mut dyn Transaction, target: &str, index: usize, event: &EventRow) -> Result<()> {
    // Read without a conflict: else every writer would conflict with every other.
    let counter = keys::events_queued(target);
    let range = RangeRead { snapshot: true, ..RangeRead::between(&counter, &keys::after(&counter)).limit(1) };
    let queued = match txn.get_range(range).await?.rows.first() {
        Some((_, value)) => value.as_ref().try_into().map_or(0, u64::from_le_bytes),
        None => 0,
    };
    if queued >= EVENTS_QUEUED_MAX {
        return Ok(txn.atomic_add(&keys::events_dropped(target), 1)?);
    }
    let index = u16::try_from(index).expect("a transaction tells no more than twice NOTIFICATION_RULES_MAX");
    txn.set_versionstamped(&keys::events(target), &index.to_be_bytes(), &encode(event)?)?;
    Ok(txn.atomic_add(&counter, 1)?)
}

const _: () = assert!(ROW_VERSION == 1, "docs/formats/metadata.md describes event rows of version 1");
