//! Lifecycle rules against a model: random histories, random rules, and what a pass must leave.

use std::collections::BTreeMap;

use penstock_gateway::api::{CreateUpload, DeleteObject, ListUploads, ListVersions, ObjectName, PutObject, UnixMs};
use penstock_gateway::lifecycle::Lifecycle;
use penstock_gateway::lifecycle::rules::{Expiration, Filter, FilterForm, NoncurrentExpiration, Rule};
use penstock_proto::Clock;
use proptest::prelude::*;

use crate::house::{BUCKET, House, code, get, put};

const DAY_MS: u64 = 86_400_000;
const KEYS: [&str; 4] = ["a", "a/b", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Versioning { enabled: bool },
    Put { key: usize, size: usize, tagged: bool },
    Delete { key: usize },
    Upload { key: usize },
    Hours { hours: u64 },
    Rules { rules: Vec<Rule> },
    Pass,
}

fn rule() -> impl Strategy<Value = Rule> {
    let filter = prop_oneof![
        3 => Just(Filter { form: FilterForm::RulePrefix, prefix: Some(String::new()), ..Filter::default() }),
        2 => Just(Filter { prefix: Some("a".into()), ..Filter::default() }),
        1 => Just(Filter { tags: vec![("t".into(), "1".into())], ..Filter::default() }),
        1 => Just(Filter { greater_than_bytes: Some(10), ..Filter::default() }),
        1 => Just(Filter { form: FilterForm::And, prefix: Some("b".into()), less_than_bytes: Some(10), ..Filter::default() }),
    ];
    let expiration = prop_oneof![
        3 => (1..4_u32).prop_map(Expiration::Days),
        1 => (0..5_u64).prop_map(|days| Expiration::Date((1_800_000_000_000 / DAY_MS + days) * DAY_MS)),
        1 => any::<bool>().prop_map(Expiration::DeleteMarkers),
    ];
    let noncurrent =
        (1..4_u32, proptest::option::of(1..3_u32)).prop_map(|(days, newer)| NoncurrentExpiration { days, newer });
    let option = proptest::option::of::<BoxedStrategy<Expiration>>;
    (
        any::<bool>(),
        filter,
        option(expiration.boxed()),
        proptest::option::of(noncurrent),
        proptest::option::of(1..4_u32),
    )
        .prop_map(|(enabled, filter, expiration, noncurrent, abort_days)| Rule {
            id: String::new(),
            enabled,
            filter,
            expiration,
            noncurrent,
            abort_days,
        })
}

fn operations() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS.len();
    prop_oneof![
        1 => proptest::bool::weighted(0.7).prop_map(|enabled| Op::Versioning { enabled }),
        6 => (key(), prop_oneof![Just(5_usize), Just(50)], any::<bool>())
            .prop_map(|(key, size, tagged)| Op::Put { key, size, tagged }),
        3 => key().prop_map(|key| Op::Delete { key }),
        1 => key().prop_map(|key| Op::Upload { key }),
        5 => (1..40_u64).prop_map(|hours| Op::Hours { hours }),
        2 => proptest::collection::vec(rule(), 1..4).prop_map(|rules| Op::Rules { rules }),
        4 => Just(Op::Pass),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Version {
    null: bool,
    marker: bool,
    modified: UnixMs,
    superseded: Option<UnixMs>,
    size: u64,
    tagged: bool,
}

/// Versions by key, newest first; open uploads by key.
#[derive(Default)]
struct Model {
    enabled: Option<bool>,
    keys: BTreeMap<&'static str, Vec<Version>>,
    uploads: Vec<(&'static str, UnixMs)>,
    rules: Vec<Rule>,
}

/// The first midnight that is at least so many days later.
fn midnight(from: UnixMs, days: u32) -> UnixMs {
    let mut at = from / DAY_MS * DAY_MS;
    while at < from + u64::from(days) * DAY_MS {
        at += DAY_MS;
    }
    at
}

impl Model {
    fn place(&mut self, key: &'static str, size: Option<u64>, tagged: bool, now: UnixMs) {
        let null = self.enabled != Some(true);
        let versions = self.keys.entry(key).or_default();
        if let Some(first) = versions.first_mut() {
            first.superseded = Some(now);
        }
        versions.retain(|version| !(null && version.null));
        let marker = size.is_none();
        let size = size.unwrap_or_default();
        versions.insert(0, Version { null, marker, modified: now, superseded: None, size, tagged });
    }

    fn delete(&mut self, key: &'static str, now: UnixMs) {
        match self.enabled {
            None => drop(self.keys.remove(key)),
            Some(_) => self.place(key, None, false, now),
        }
    }

    fn matches(rule: &Rule, key: &str, version: Option<&Version>) -> bool {
        let filter = &rule.filter;
        let of_keys = filter.tags.is_empty() && filter.greater_than_bytes.is_none() && filter.less_than_bytes.is_none();
        key.starts_with(filter.prefix.as_deref().unwrap_or_default())
            && match version {
                Some(version) if !version.marker => {
                    (filter.tags.is_empty() || version.tagged)
                        && filter.greater_than_bytes.is_none_or(|bytes| version.size > bytes)
                        && filter.less_than_bytes.is_none_or(|bytes| version.size < bytes)
                }
                _ => of_keys,
            }
    }

    fn pass(&mut self, now: UnixMs) {
        let rules: Vec<Rule> = self.rules.iter().filter(|rule| rule.enabled).cloned().collect();
        for key in KEYS {
            let before = self.keys.get(key).cloned().unwrap_or_default();
            let Some(first) = before.first() else { continue };
            let timed = |rule: &Rule| match rule.expiration {
                Some(Expiration::Days(days)) => midnight(first.modified, days) <= now,
                Some(Expiration::Date(at)) => at <= now,
                Some(Expiration::DeleteMarkers(all)) => all && first.marker,
                None => false,
            };
            let due = rules.iter().any(|rule| Self::matches(rule, key, Some(first)) && timed(rule));
            let mut gone = Vec::new();
            for (newer, (at, version)) in (0..).zip(before.iter().enumerate().skip(1)) {
                let expires = |rule: &Rule| {
                    rule.noncurrent.is_some_and(|noncurrent| {
                        midnight(version.superseded.unwrap(), noncurrent.days) <= now
                            && noncurrent.newer.is_none_or(|keep| newer >= keep)
                    }) && Self::matches(rule, key, Some(version))
                };
                if rules.iter().any(expires) {
                    gone.push(at);
                }
            }
            let versions = self.keys.get_mut(key).unwrap();
            for at in gone.into_iter().rev() {
                versions.remove(at);
            }
            match (due, first.marker) {
                (true, false) => self.delete(key, now),
                (true, true) if before.len() == 1 => drop(self.keys.remove(key)),
                _ => {}
            }
        }
        let aborts = |rule: &Rule, key: &str, begun: UnixMs| {
            rule.abort_days.is_some_and(|days| midnight(begun, days) <= now) && Self::matches(rule, key, None)
        };
        self.uploads.retain(|(key, begun)| !rules.iter().any(|rule| aborts(rule, key, *begun)));
    }
}

async fn check(house: &House, model: &Model) {
    let request = ListVersions { bucket: BUCKET.into(), max_keys: 1000, ..ListVersions::default() };
    let real: Vec<_> = (house.gateway.list_versions(request).await.unwrap().versions.into_iter())
        .map(|version| (version.key, version.version_id == "null", version.delete_marker, version.modified_unix_ms))
        .collect();
    let expected: Vec<_> = (model.keys.iter())
        .flat_map(|(key, versions)| versions.iter().map(move |version| (key, version)))
        .map(|(key, version)| ((*key).to_owned(), version.null, version.marker, version.modified))
        .collect();
    assert_eq!(real, expected);
    let request = ListUploads { bucket: BUCKET.into(), max_uploads: 1000, ..ListUploads::default() };
    let mut real: Vec<_> = (house.gateway.list_uploads(request).await.unwrap().uploads.into_iter())
        .map(|upload| (upload.key, upload.initiated_unix_ms))
        .collect();
    let mut expected: Vec<_> = model.uploads.iter().map(|(key, begun)| ((*key).to_owned(), *begun)).collect();
    real.sort();
    expected.sort();
    assert_eq!(real, expected);
}

async fn step(house: &House, model: &mut Model, op: &Op) {
    let now = house.clock.now_unix_ms();
    let gateway = &house.gateway;
    match op {
        Op::Versioning { enabled } => {
            gateway.put_bucket_versioning(BUCKET, *enabled).await.unwrap();
            model.enabled = Some(*enabled);
        }
        Op::Put { key, size, tagged } => {
            let tags = if *tagged { vec![("t".to_owned(), "1".to_owned())] } else { Vec::new() };
            let done = gateway.put_object(PutObject { tags, ..put(KEYS[*key], &vec![7; *size]) }).await.unwrap();
            model.place(KEYS[*key], Some(*size as u64), *tagged, now);
            // What is announced is what will be.
            let version = model.keys[KEYS[*key]][0].clone();
            let dates =
                model.rules.iter().filter(|rule| rule.enabled && Model::matches(rule, KEYS[*key], Some(&version)));
            let earliest = dates.filter_map(|rule| match rule.expiration? {
                Expiration::Days(days) => Some(midnight(now, days)),
                Expiration::Date(at) => Some(at),
                Expiration::DeleteMarkers(_) => None,
            });
            assert_eq!(done.expiration.as_ref().map(|(at, _)| *at), earliest.min());
            assert_eq!(gateway.head_object(get(KEYS[*key])).await.unwrap().info.expiration, done.expiration);
        }
        Op::Delete { key } => {
            let request = DeleteObject { bucket: BUCKET.into(), key: KEYS[*key].into(), ..DeleteObject::default() };
            gateway.delete_object(request).await.unwrap();
            model.delete(KEYS[*key], now);
        }
        Op::Upload { key } => {
            let request = CreateUpload { bucket: BUCKET.into(), key: KEYS[*key].into(), ..CreateUpload::default() };
            gateway.create_upload(request).await.unwrap();
            model.uploads.push((KEYS[*key], now));
        }
        Op::Hours { hours } => house.clock.advance_ms(hours * 3_600_000),
        Op::Rules { rules } => {
            let mut lifecycle = Lifecycle { rules: rules.clone() };
            for (at, rule) in lifecycle.rules.iter_mut().enumerate() {
                rule.id = at.to_string();
            }
            // What may not be is refused, and changes nothing.
            if gateway.put_lifecycle(BUCKET, &lifecycle).await.is_ok() {
                assert_eq!(*gateway.lifecycle(BUCKET).await.unwrap().unwrap(), lifecycle);
                model.rules = lifecycle.rules;
            } else {
                assert!(lifecycle.check().is_err());
            }
        }
        Op::Pass => {
            gateway.run_lifecycle_now().await.unwrap();
            model.pass(now);
            check(house, model).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn as_the_model_says(operations in proptest::collection::vec(operations(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let house = House::new(code(2, 1)).await;
            let mut model = Model::default();
            for op in &operations {
                step(&house, &mut model, op).await;
            }
            check(&house, &model).await;
        });
    }
}

#[tokio::test]
async fn locks_hold_against_rules() {
    use penstock_gateway::api::{CreateBucket, Lock, Retention};
    let house = House::new(code(2, 1)).await;
    let gateway = &house.gateway;
    let create = CreateBucket { name: "locked".into(), object_lock: true, ..CreateBucket::default() };
    gateway.create_bucket_with(create).await.unwrap();
    let rule = Rule {
        id: "r".into(),
        enabled: true,
        filter: Filter::default(),
        expiration: Some(Expiration::Days(1)),
        noncurrent: Some(NoncurrentExpiration { days: 1, newer: None }),
        abort_days: None,
    };
    gateway.put_lifecycle("locked", &Lifecycle { rules: vec![rule] }).await.unwrap();
    let until_unix_ms = house.clock.now_unix_ms() + 10 * DAY_MS;
    let lock = Lock { retention: Some(Retention { compliance: false, until_unix_ms }), legal_hold: None };
    let done = gateway.put_object(PutObject { bucket: "locked".into(), lock, ..put("k", b"x") }).await.unwrap();
    house.clock.advance_ms(2 * DAY_MS);
    assert_eq!(gateway.run_lifecycle_now().await.unwrap(), 1, "hidden by a delete marker");
    house.clock.advance_ms(2 * DAY_MS);
    assert_eq!(gateway.run_lifecycle_now().await.unwrap(), 0, "but not gone");
    let name = ObjectName { bucket: "locked".into(), key: "k".into(), version_id: done.version_id };
    assert_eq!(gateway.lock_of(&name).await.unwrap(), lock);
    house.clock.advance_ms(10 * DAY_MS);
    assert_eq!(gateway.run_lifecycle_now().await.unwrap(), 1, "now it is");
    assert_eq!(gateway.run_lifecycle_now().await.unwrap(), 1, "and then the marker");
    gateway.delete_bucket("locked").await.unwrap();
}
