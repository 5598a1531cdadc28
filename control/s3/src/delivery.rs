//! Server access logs: a bucket's requests, as objects in another bucket.
//!
//! **What.** Requests of buckets that have a logging target leave a line of S3's format ([`crate::journal::access_line`]).
//! Lines are gathered by source and target, and every [`FrontOptions::log_delivery_interval`], or once there are
//! [`BATCH_BYTES_MAX`] of them, they become an object, encrypted as the target's default says. At shutdown what is left is
//! delivered too.
//!
//! **What is promised.** As on AWS, best effort: a crash loses the lines that were not delivered. A request whose signature was bad
//! is no request of the bucket's, and leaves no line. Deliveries are no requests: they are in no log.
//!
//! **How it fails.** Nothing here holds a request up. Past [`HELD_BYTES_MAX`] lines are dropped and counted. A target that is gone
//! loses its lines; one that can't be written to is tried again with the next delivery.
//!
//! [`FrontOptions::log_delivery_interval`]: crate::FrontOptions::log_delivery_interval

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use penstock_gateway::api::{BodyDigests, BucketSetting, Conditions, Lock, ObjectHeaders, PutObject};
use penstock_gateway::error::{Error, ErrorKind};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::exchange::request_id;
use crate::ops::logging::{DateSource, LoggingTarget};
use crate::server::Front;

/// Bytes of lines that become an object at once.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of lines that are held for all targets together.
const HELD_BYTES_MAX: usize = 32 << 20;

/// Whose log a line is of, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream {
    source: String,
    owner_account: String,
    target: LoggingTarget,
    /// For dates by event time.
    day: Option<time::Date>,
}

#[derive(Default)]
struct Held {
    lines: HashMap<Stream, String>,
    bytes: usize,
}

/// The lines that wait.
#[derive(Default)]
pub(crate) struct Delivery {
    active: AtomicBool,
    held: Mutex<Held>,
    full: Notify,
    lost: AtomicU64,
}

impl Delivery {
    /// Some bucket has a target: heads of requests are kept from now on.
    pub(crate) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// Whether any bucket may have a target.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes a line of a request to `source`.
    pub(crate) fn take(&self, source: &str, owner_account: &str, target: &LoggingTarget, line: &str) {
        let day = (target.partitioned == Some(DateSource::EventTime)).then(|| OffsetDateTime::now_utc().date());
        let stream =
            Stream { source: source.to_owned(), owner_account: owner_account.to_owned(), target: target.clone(), day };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.bytes + line.len() > HELD_BYTES_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        held.bytes += line.len();
        let lines = held.lines.entry(stream).or_default();
        lines.push_str(line);
        if lines.len() >= BATCH_BYTES_MAX {
            self.full.notify_one();
        }
    }

    fn take_all(&self) -> HashMap<Stream, String> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.bytes = 0;
        std::mem::take(&mut held.lines)
    }

    fn give_back(&self, stream: Stream, lines: String) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.bytes + lines.len() > HELD_BYTES_MAX {
            self.lost.fetch_add(lines.lines().count() as u64, Ordering::Relaxed);
            return;
        }
        held.bytes += lines.len();
        let newer = held.lines.remove(&stream).unwrap_or_default();
        held.lines.insert(stream, lines + &newer);
    }
}

/// Delivers until told to stop, and then once more.
pub(crate) async fn run(front: Arc<Front>, stop: CancellationToken) {
    match front.gateway.any_bucket_has(BucketSetting::Logging).await {
        Ok(true) => front.delivery.activate(),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%error, "whether any bucket has an access log can't be read: they begin with the next change")
        }
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(front.options.log_delivery_interval) => {}
            () = front.delivery.full.notified() => {}
            () = stop.cancelled() => break,
        }
        deliver(&front).await;
    }
}

/// Delivers what there is.
pub(crate) async fn deliver(front: &Front) {
    let lost = front.delivery.lost.swap(0, Ordering::Relaxed);
    if lost > 0 {
        tracing::warn!(lost, "lines of access logs were dropped: too many waited to be delivered");
    }
    for (stream, lines) in front.delivery.take_all() {
        match put(front, &stream, &lines).await {
            Ok(()) => {}
            Err(error) if error.is_retryable() => front.delivery.give_back(stream, lines),
            Err(error) => {
                tracing::warn!(bucket = stream.source, target_bucket = stream.target.bucket, %error, "an access log can't be delivered: its lines are lost");
            }
        }
    }
}

async fn put(front: &Front, stream: &Stream, lines: &str) -> Result<(), Error> {
    let facts = front.facts.of(front, &stream.target.bucket).await.map_err(|failure| {
        let kind = if failure.code == "NoSuchBucket" { ErrorKind::NoSuchBucket } else { ErrorKind::ServiceUnavailable };
        Error::new(kind, failure.message)
    })?;
    let body = Bytes::copy_from_slice(lines.as_bytes());
    let request = PutObject {
        bucket: stream.target.bucket.clone(),
        key: key(stream, &front.options.region, OffsetDateTime::now_utc()),
        content_bytes: Some(body.len() as u64),
        body: Box::pin(futures::stream::iter([Ok(body)])),
        digests: BodyDigests::default(),
        headers: ObjectHeaders { content_type: Some("text/plain".to_owned()), ..ObjectHeaders::default() },
        storage_class: "STANDARD".to_owned(),
        conditions: Conditions::default(),
        tags: Vec::new(),
        lock: Lock::default(),
        encryption: facts.encryption.as_ref().and_then(|encryption| encryption.by_default()),
    };
    front.gateway.put_object(request).await.map(drop)
}

/// `PREFIX2026-01-31-12-00-00-UNIQUE`, or with account, region, bucket and date before that.
fn key(stream: &Stream, region: &str, now: OffsetDateTime) -> String {
    let unique = request_id();
    let time = now.format(format_description!("[year]-[month]-[day]-[hour]-[minute]-[second]")).unwrap_or_default();
    let Stream { source, owner_account, target, day } = stream;
    let prefix = &target.prefix;
    let by_event =
        |day: &time::Date| day.format(format_description!("[year]-[month]-[day]-00-00-00")).unwrap_or_default();
    match target.partitioned {
        None => format!("{prefix}{time}-{unique}"),
        Some(_) => {
            let time = day.as_ref().map_or(time, by_event);
            let date = time.get(..10).unwrap_or_default().replace('-', "/");
            format!("{prefix}{owner_account}/{region}/{source}/{date}/{time}-{unique}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(json: &str) -> LoggingTarget {
        LoggingTarget::stored(json.as_bytes()).unwrap()
    }

    #[test]
    fn keys_are_those_of_aws() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let stream = |partitioned: &str, day| Stream {
            source: "b".into(),
            owner_account: "000000000000".into(),
            target: target(&format!(r#"{{"bucket":"t","prefix":"p/","partitioned":{partitioned},"simple":false}}"#)),
            day,
        };
        assert!(key(&stream("null", None), "us-east-1", now).starts_with("p/2027-01-15-08-00-00-"));
        let partitioned = "p/000000000000/us-east-1/b/2027/01/15/2027-01-15-";
        let by_delivery = key(&stream("\"DeliveryTime\"", None), "us-east-1", now);
        assert!(by_delivery.starts_with(&format!("{partitioned}08-00-00-")), "{by_delivery}");
        let by_event = key(&stream("\"EventTime\"", Some(now.date())), "us-east-1", now);
        assert!(by_event.starts_with(&format!("{partitioned}00-00-00-")), "{by_event}");
    }

    #[test]
    fn lines_are_bounded_and_given_back_in_order() {
        let delivery = Delivery::default();
        let to = target(r#"{"bucket":"t","prefix":"","partitioned":null,"simple":false}"#);
        delivery.take("b", "0", &to, "one\n");
        let (stream, lines) = delivery.take_all().into_iter().next().unwrap();
        delivery.take("b", "0", &to, "two\n");
        delivery.give_back(stream.clone(), lines);
        assert_eq!(delivery.take_all().remove(&stream).as_deref(), Some("one\ntwo\n"));
        let line = "x".repeat(1 << 20);
        for _ in 0..40 {
            delivery.take("b", "0", &to, &line);
        }
        assert_eq!(delivery.lost.load(Ordering::Relaxed), 8);
        assert_eq!(delivery.take_all().remove(&stream).map(|lines| lines.len()), Some(HELD_BYTES_MAX));
    }
}
