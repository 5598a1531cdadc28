//! Events: which of a bucket's go where, and whose doing an operation is. The events themselves are rows that the metadata's
//! transactions write (`penstock_meta::tables`, outbox); control/events delivers them.
//!
//! **What is checked when rules are put**, as AWS does: that every target is one that the administrator has named
//! ([`crate::GatewayOptions::event_targets`]), and that no event of no key would be told by two rules. Kinds of events that nothing
//! here ever causes (restores, replication) are refused by name: who waits for them would wait for ever.

use std::collections::HashSet;

pub use penstock_meta::tables::{Cause, NotificationRule, TargetKind, Way, cause, caused};
use penstock_meta::tables::{EventKind, NOTIFICATION_RULES_MAX, TARGET_BYTES_MAX};

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::{Gateway, no_such_bucket};

/// Longest name of a rule, prefix and suffix.
const TEXT_BYTES_MAX: usize = 1024;
/// Kinds of events that AWS has and that nothing here causes.
const NEVER_CAUSED: &[&str] = &[
    "ReducedRedundancyLostObject",
    "ObjectRestore:",
    "Replication:",
    "LifecycleTransition",
    "IntelligentTiering",
    "ObjectAcl:",
];

/// Runs `work` as the present cause does, in another way.
pub async fn in_way<F: Future>(way: Way, work: F) -> F::Output {
    caused(Cause { way, ..cause() }, work).await
}

impl Gateway {
    /// `PutBucketNotificationConfiguration`. Each target is sent a test event.
    ///
    /// # Errors
    /// NoSuchBucket; InvalidArgument for rules that make no sense or name what there is not; NotImplemented for events that
    /// nothing causes.
    pub async fn put_notifications(&self, bucket: &str, rules: &[NotificationRule]) -> Result<()> {
        let _admitted = self.inner.admit()?;
        check(rules, &self.inner.options.event_targets)?;
        let now_unix_ms = self.inner.clock.now_unix_ms();
        Ok(self.inner.tables.put_notifications(bucket, rules, now_unix_ms).await?)
    }

    /// `GetBucketNotificationConfiguration`.
    ///
    /// # Errors
    /// NoSuchBucket.
    pub async fn notifications(&self, bucket: &str) -> Result<Vec<NotificationRule>> {
        let _admitted = self.inner.admit()?;
        self.inner.tables.notifications(bucket).await?.ok_or_else(|| no_such_bucket(bucket))
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Whether `rules` may be a bucket's, where there are these targets.
///
/// # Errors
/// InvalidArgument, NotImplemented.
fn check(rules: &[NotificationRule], targets: &[String]) -> Result<()> {
    if rules.len() > NOTIFICATION_RULES_MAX {
        return Err(invalid(format!("A bucket has at most {NOTIFICATION_RULES_MAX} notification configurations.")));
    }
    let mut ids = HashSet::new();
    for (at, rule) in rules.iter().enumerate() {
        if !ids.insert(rule.id.as_str()) {
            return Err(invalid("Same ID used for multiple configurations. IDs must be unique"));
        }
        let texts = [Some(&rule.id), rule.prefix.as_ref(), rule.suffix.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(invalid(format!("IDs, prefixes and suffixes have at most {TEXT_BYTES_MAX} bytes.")));
        }
        rule.events.iter().try_for_each(|event| check_event(event))?;
        check_target(rule, targets)?;
        if let Some(other) = rules[..at].iter().find(|other| overlap(rule, other)) {
            return Err(invalid(match (&rule.prefix, &rule.suffix, &other.prefix, &other.suffix) {
                (None, None, None, None) => {
                    "Configurations overlap. Configurations on the same bucket cannot share a common event type."
                }
                _ => {
                    "Configuration is ambiguously defined. Cannot have overlapping suffixes in two rules if the prefixes \
                     are overlapping for the same event type."
                }
            }));
        }
    }
    Ok(())
}

fn check_event(event: &str) -> Result<()> {
    let asked = |kind: &&EventKind| **kind != EventKind::Test && kind.is_meant_by(event);
    if EventKind::ALL.iter().any(|kind| asked(&kind)) {
        return Ok(());
    }
    let name = event.strip_prefix("s3:").unwrap_or_default();
    if NEVER_CAUSED.iter().any(|known| name.starts_with(known)) {
        return Err(Error::new(ErrorKind::NotImplemented, format!("Events of the kind {event} are not implemented.")));
    }
    Err(invalid(format!("A specified event is not supported for notifications: {event}")))
}

fn check_target(rule: &NotificationRule, targets: &[String]) -> Result<()> {
    let service = match rule.kind {
        TargetKind::Topic => "sns",
        TargetKind::Queue => "sqs",
        TargetKind::Function => "lambda",
    };
    let mut fields = rule.target.split(':');
    let arn = fields.next() == Some("arn") && fields.next().is_some_and(|partition| partition.starts_with("aws"));
    if !arn || fields.next() != Some(service) || rule.target.len() > TARGET_BYTES_MAX {
        return Err(invalid(format!("The ARN is not well formed: {:?} is none of {service}.", rule.target)));
    }
    if targets.contains(&rule.target) {
        return Ok(());
    }
    Err(invalid(format!(
        "Unable to validate the following destination configurations: {} is none that this store's administrator has set up.",
        rule.target
    )))
}

/// Whether an event of some key would be told by both.
fn overlap(one: &NotificationRule, other: &NotificationRule) -> bool {
    let asks = |rule: &NotificationRule, kind: EventKind| rule.events.iter().any(|event| kind.is_meant_by(event));
    let (prefix, suffix) = (
        |rule: &NotificationRule| rule.prefix.clone().unwrap_or_default(),
        |rule: &NotificationRule| rule.suffix.clone().unwrap_or_default(),
    );
    let (a, b, y, z) = (prefix(one), prefix(other), suffix(one), suffix(other));
    EventKind::ALL.iter().any(|kind| asks(one, *kind) && asks(other, *kind))
        && (a.starts_with(&b) || b.starts_with(&a))
        && (y.ends_with(&z) || z.ends_with(&y))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:one";

    fn rule(id: &str, events: &[&str], prefix: &str, suffix: &str) -> NotificationRule {
        NotificationRule {
            id: id.to_owned(),
            kind: TargetKind::Queue,
            target: QUEUE.to_owned(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            suffix: (!suffix.is_empty()).then(|| suffix.to_owned()),
        }
    }

    fn outcome(rules: &[NotificationRule]) -> Option<(ErrorKind, String)> {
        check(rules, &[QUEUE.to_owned()]).err().map(|error| (error.kind, error.message.into_owned()))
    }

    #[test]
    fn an_event_is_told_once() {
        let all = &["s3:ObjectCreated:*"];
        for (a, b, good) in [
            (rule("1", all, "", ""), rule("2", &["s3:ObjectRemoved:*"], "", ""), true),
            (rule("1", all, "", ""), rule("2", &["s3:ObjectCreated:Copy"], "", ""), false),
            (rule("1", all, "a", ""), rule("2", all, "b", ""), true),
            (rule("1", all, "a", ""), rule("2", all, "ab", ""), false),
            (rule("1", all, "a", ".x"), rule("2", all, "ab", ".y"), true),
            (rule("1", all, "a", "x"), rule("2", all, "ab", ".x"), false),
            (rule("1", all, "a", "x"), rule("1", all, "b", "x"), false),
        ] {
            assert_eq!(outcome(&[a.clone(), b.clone()]).is_none(), good, "{a:?} {b:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        assert_eq!(outcome(&[rule("1", &["s3:ObjectTagging:Put", "s3:LifecycleExpiration:*"], "", "")]), None);
        for (event, kind) in [
            ("s3:ObjectRestore:*", ErrorKind::NotImplemented),
            ("s3:Replication:OperationFailedReplication", ErrorKind::NotImplemented),
            ("s3:TestEvent", ErrorKind::InvalidArgument),
            ("s3:ObjectCreated", ErrorKind::InvalidArgument),
            ("s3:*", ErrorKind::InvalidArgument),
            ("ObjectCreated:Put", ErrorKind::InvalidArgument),
        ] {
            let (got, message) = outcome(&[rule("1", &[event], "", "")]).unwrap();
            assert_eq!(got, kind, "{event}");
            assert!(message.contains(event), "{message}");
        }
        let unknown = NotificationRule { target: format!("{QUEUE}s"), ..rule("1", &["s3:ObjectCreated:*"], "", "") };
        assert!(outcome(&[unknown]).unwrap().1.contains("Unable to validate"));
        let topic = NotificationRule { kind: TargetKind::Topic, ..rule("1", &["s3:ObjectCreated:*"], "", "") };
        assert!(outcome(&[topic]).unwrap().1.contains("not well formed"));
        let many: Vec<_> =
            (0..101).map(|n| rule(&n.to_string(), &["s3:ObjectCreated:*"], &n.to_string(), "")).collect();
        assert_eq!(outcome(&many).unwrap().0, ErrorKind::InvalidArgument);
    }
}
