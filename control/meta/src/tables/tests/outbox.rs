//! Events: written exactly when what they tell of is, by the rules of that moment; bounded; in the order of commits.

use std::collections::BTreeMap;

use super::support::{always, bucket, faulty, mem, object_row};
use crate::tables::{
    BucketRow, Cause, EVENTS_QUEUED_MAX, EtagSet, EventKind, EventRow, Layout, LockPass, NotificationRule,
    ObjectChange, Preconditions, Rename, Renamed, Tables, TargetKind, Versioning, Way, caused, keys,
};

const ARN: &str = "arn:aws:sqs:::q";

fn rule(id: &str, target: &str, events: &[&str], prefix: &str) -> NotificationRule {
    NotificationRule {
        id: id.to_owned(),
        kind: TargetKind::Queue,
        target: target.to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        prefix: Some(prefix.to_owned()),
        suffix: None,
    }
}

const EVERY: &[&str] = &["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:LifecycleExpiration:*"];

async fn watched(tables: &Tables) -> BucketRow {
    bucket(tables, "bucket").await;
    tables.put_notifications("bucket", &[rule("r", ARN, EVERY, "")], 1).await.unwrap();
    tables.bucket("bucket").await.unwrap().unwrap()
}

async fn waiting(tables: &Tables) -> Vec<EventRow> {
    let events = tables.events(ARN, None, 1000).await.unwrap();
    assert!(events.is_sorted_by(|a, b| a.0 < b.0));
    events.into_iter().map(|(_, row)| row).collect()
}

async fn kinds(tables: &Tables) -> Vec<(EventKind, String)> {
    waiting(tables).await.into_iter().map(|row| (row.kind().unwrap(), row.key)).collect()
}

async fn put(tables: &Tables, bucket: &BucketRow, key: &str, preconditions: &Preconditions) -> bool {
    tables.commit_object(bucket, key, object_row("e", Layout::Empty), preconditions, 0).await.is_ok()
}

fn way(way: Way) -> Cause {
    Cause { way, ..Cause::default() }
}

#[tokio::test]
async fn each_change_tells_what_it_was() {
    use EventKind as K;
    let tables = Tables::new(mem());
    let plain = watched(&tables).await;
    let pass = LockPass { now_unix_ms: 7, bypass_governance: false };
    let delete = async |bucket: &BucketRow, key: &str, version| {
        tables.delete(bucket, key, version, &always(), pass, 0).await.unwrap()
    };
    assert!(put(&tables, &plain, "a", &always()).await);
    assert!(caused(way(Way::Copy), put(&tables, &plain, "b", &always())).await);
    assert!(caused(way(Way::Form), put(&tables, &plain, "c", &always())).await);
    // What was not committed, or changed nothing, is not told.
    let absent = Preconditions { if_none_match: Some(EtagSet::Any), ..Preconditions::default() };
    assert!(!put(&tables, &plain, "a", &absent).await);
    delete(&plain, "none", None).await;
    let tags = ObjectChange::Tags(vec![("k".into(), "v".into())]);
    tables.change_object(&plain, "a", None, &tags).await.unwrap().unwrap();
    caused(way(Way::DeleteTags), tables.change_object(&plain, "a", None, &ObjectChange::Tags(vec![]))).await.unwrap();
    delete(&plain, "a", None).await;
    caused(way(Way::Lifecycle), delete(&plain, "b", None)).await;
    tables.set_versioning("bucket", Versioning::Enabled).await.unwrap();
    assert!(put(&tables, &plain, "d", &always()).await);
    let marker = delete(&plain, "d", None).await.marker.unwrap();
    caused(way(Way::Lifecycle), delete(&plain, "c", None)).await;
    let name = crate::tables::VersionName::parse(&marker.id()).unwrap();
    delete(&plain, "d", Some(name)).await;
    let want = [
        (K::Test, ""),
        (K::CreatedPut, "a"),
        (K::CreatedCopy, "b"),
        (K::CreatedPost, "c"),
        (K::TaggingPut, "a"),
        (K::TaggingDelete, "a"),
        (K::RemovedDelete, "a"),
        (K::ExpiredDelete, "b"),
        (K::CreatedPut, "d"),
        (K::RemovedMarker, "d"),
        (K::ExpiredMarker, "c"),
        (K::RemovedDelete, "d"),
    ];
    assert_eq!(kinds(&tables).await, want.map(|(kind, key)| (kind, key.to_owned())));
    let rows = waiting(&tables).await;
    assert_eq!(rows[1].version_id, None, "the bucket made no versions then");
    assert_eq!(rows.last().unwrap().version_id, Some(marker.id()));
    assert_eq!(tables.event_counts(ARN).await.unwrap(), (rows.len() as u64, 0));
}

#[tokio::test]
async fn rules_choose_and_end() {
    let tables = Tables::new(mem());
    let made = bucket(&tables, "bucket").await;
    put(&tables, &made, "x/before", &always()).await;
    let rules = [rule("1", ARN, &["s3:ObjectCreated:Put"], "x/"), rule("2", "arn:2", &["s3:ObjectCreated:*"], "y/")];
    tables.put_notifications("bucket", &rules, 1).await.unwrap();
    assert_eq!(tables.notifications("bucket").await.unwrap().unwrap(), rules);
    for key in ["x/a", "y/a", "z/a"] {
        put(&tables, &made, key, &always()).await;
    }
    caused(way(Way::Copy), put(&tables, &made, "x/copy", &always())).await;
    assert_eq!(kinds(&tables).await[1..], [(EventKind::CreatedPut, "x/a".to_owned())]);
    assert_eq!(tables.events("arn:2", None, 10).await.unwrap()[1].1.rule_id, "2");
    tables.put_notifications("bucket", &[], 1).await.unwrap();
    put(&tables, &made, "x/b", &always()).await;
    assert_eq!(kinds(&tables).await.len(), 2);
    assert_eq!(tables.notifications("bucket").await.unwrap().unwrap(), []);
    // They are removed by their places, and counted.
    let places: Vec<_> = tables.events(ARN, None, 10).await.unwrap().into_iter().map(|(place, _)| place).collect();
    tables.finish_events(ARN, &places[..1], &places[1..]).await.unwrap();
    assert_eq!((kinds(&tables).await.len(), tables.event_counts(ARN).await.unwrap()), (0, (0, 1)));
}

#[tokio::test]
async fn a_full_queue_stops_no_write() {
    let tables = Tables::new(mem());
    let watched = watched(&tables).await;
    let counter = keys::events_queued(ARN);
    transaction!(&tables, |txn, counter| Ok(txn.set(counter, &(EVENTS_QUEUED_MAX - 1).to_le_bytes())?)).await.unwrap();
    for key in ["fits", "dropped", "dropped too"] {
        assert!(put(&tables, &watched, key, &always()).await);
    }
    assert_eq!(kinds(&tables).await.last().unwrap().1, "fits");
    assert_eq!(tables.event_counts(ARN).await.unwrap(), (EVENTS_QUEUED_MAX, 2));
}

/// Commits that conflict, whose outcome is unknown, that are run again: what is there was told once.
#[tokio::test]
async fn every_commit_is_told_once_under_faults() {
    for seed in 0..20 {
        let tables = Tables::new(faulty(seed));
        let watched = loop {
            if tables.create_bucket("bucket", "", 1).await.is_ok()
                || tables.bucket("bucket").await.is_ok_and(|b| b.is_some())
            {
                while tables.put_notifications("bucket", &[rule("r", ARN, EVERY, "")], 1).await.is_err() {}
                if let Ok(Some(bucket)) = tables.bucket("bucket").await {
                    break bucket;
                }
            }
        };
        let mut done = Vec::new();
        for number in 0..30 {
            let key = format!("k{number}");
            match tables.commit_object(&watched, &key, object_row("e", Layout::Empty), &always(), 0).await {
                Ok(_) => done.push(key),
                Err(error) => assert!(error.is_retryable() || error.may_have_committed(), "{error}"),
            }
        }
        // Pages may be short: on from the last that came, until nothing else does.
        let mut events: BTreeMap<_, _> = BTreeMap::new();
        loop {
            let from = events.last_key_value().map(|(place, _)| *place);
            let Ok(page) = tables.events(ARN, from, 1000).await else { continue };
            let before = events.len();
            events.extend(page);
            if events.len() == before {
                break;
            }
        }
        let told: Vec<String> = events.into_values().map(|row| row.key).filter(|key| !key.is_empty()).collect();
        for key in &done {
            assert_eq!(told.iter().filter(|told| *told == key).count(), 1, "{key} of seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_rename_tells_both_keys() {
    let tables = Tables::new(mem());
    let watched = watched(&tables).await;
    put(&tables, &watched, "from", &always()).await;
    let rename = Rename {
        bucket: &watched,
        source: "from",
        destination: "to",
        source_condition: &|_| Ok(()),
        destination_condition: &|_| Ok(()),
        token: None,
        now_unix_ms: 9,
        garbage_not_before_unix_ms: 0,
    };
    assert!(matches!(tables.rename_object(&rename).await.unwrap(), Renamed::Done { .. }));
    let told = kinds(&tables).await;
    let want = [(EventKind::CreatedPut, "to".to_owned()), (EventKind::RemovedDelete, "from".to_owned())];
    assert_eq!(told[2..], want);
}
