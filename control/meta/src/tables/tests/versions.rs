//! Versions against a model that fits on a page, with every row audited after every step.

use super::audit::{Audit, State};
use super::support::{Rng, always, begin, bucket, collect_all, faulty, mem, object_row, part_row};
use crate::tables::{
    BucketRow, CompleteUpload, DefaultRetentionRow, EtagSet, Layout, ListVersions, LockPass, LockRow, NewUpload,
    ObjectChange, ObjectLockRow, ObjectRow, Preconditions, Result, RetentionRow, Tables, TablesError, VersionName,
    Versioning,
};

const KEYS: [&str; 4] = ["a", "a/b", "a/c", "b"];

/// A version as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    id: String,
    marker: bool,
    etag: String,
}

/// Versions by key, newest first.
#[derive(Default)]
struct Model {
    versioning: Versioning,
    keys: [Vec<Version>; 4],
}

impl Model {
    fn place(&mut self, key: usize, version: Version) {
        if self.versioning != Versioning::Enabled {
            self.keys[key].retain(|old| old.id != "null");
        }
        self.keys[key].insert(0, version);
    }

    fn current(&self, key: usize) -> Option<&Version> {
        self.keys[key].first().filter(|version| !version.marker)
    }

    /// What listings show, in order: key, version, latest.
    fn listed(&self) -> Vec<(String, Version, bool)> {
        let of_key = |(name, versions): (&&str, &Vec<Version>)| {
            let line = |(at, version): (usize, &Version)| ((*name).to_owned(), version.clone(), at == 0);
            versions.iter().enumerate().map(line).collect::<Vec<_>>()
        };
        KEYS.iter().zip(&self.keys).flat_map(of_key).collect()
    }
}

fn pass(now_unix_ms: u64) -> LockPass {
    LockPass { now_unix_ms, bypass_governance: false }
}

fn row(etag: &str, now_unix_ms: u64, layout: Layout) -> ObjectRow {
    ObjectRow { modified_unix_ms: now_unix_ms, ..object_row(etag, layout) }
}

async fn put(tables: &Tables, bucket: &BucketRow, key: &str, etag: &str, now_unix_ms: u64) -> Result<String> {
    let data = begin(tables, 1, u64::MAX).await?;
    let row = row(etag, now_unix_ms, Layout::Single(data));
    Ok(tables.commit_object(bucket, key, row, &always(), 0).await?.version.id())
}

async fn complete(tables: &Tables, bucket: &BucketRow, key: &str, etag: &str, now_unix_ms: u64) -> String {
    let new = NewUpload { key: key.into(), ..NewUpload::default() };
    let upload = tables.create_upload(bucket, new, now_unix_ms).await.unwrap();
    let part = part_row(1, Some(begin(tables, 1, u64::MAX).await.unwrap()));
    tables.put_part(bucket.id, key, &upload.upload_id, &part, 0).await.unwrap();
    let parts = tables.parts(bucket.id, key, &upload.upload_id, 0, 10).await.unwrap();
    let preconditions = always();
    let completed = tables.complete_upload(CompleteUpload {
        bucket,
        key,
        upload_id: &upload.upload_id,
        row: row(etag, now_unix_ms, Layout::Empty),
        part_numbers: &[1],
        parts_version: parts.version,
        preconditions: &preconditions,
        now_unix_ms,
        garbage_not_before_unix_ms: 0,
    });
    completed.await.unwrap().object.version.id()
}

/// All versions, in pages of `max`.
async fn list(tables: &Tables, bucket: &BucketRow, max: usize) -> Vec<(String, Version, bool)> {
    let (mut out, mut key_marker, mut after) = (Vec::new(), String::new(), None);
    loop {
        let request = ListVersions { key_marker: &key_marker, after_version: after, max, ..ListVersions::default() };
        let page = tables.list_versions(bucket.id, request).await.unwrap();
        for (key, row) in page.rows {
            let version = Version { id: row.version.id(), marker: row.version.marker, etag: row.etag };
            out.push((key, version, row.version.superseded_unix_ms == 0));
        }
        match page.next {
            None => return out,
            Some((key, version)) => {
                (key_marker, after) = (key, version.and_then(|text| VersionName::parse(&text)));
            }
        }
    }
}

async fn step(tables: &Tables, bucket: &BucketRow, model: &mut Model, rng: &mut Rng, now_unix_ms: u64) {
    let key = rng.below(KEYS.len());
    let name = KEYS[key];
    let etag = format!("e{}", rng.next());
    let made = |id: String, marker| Version { id, marker, etag: if marker { String::new() } else { etag.clone() } };
    match rng.below(12) {
        0 => {
            let versioning = *rng.pick(&[Versioning::Enabled, Versioning::Enabled, Versioning::Suspended]);
            tables.set_versioning(&bucket.name, versioning).await.unwrap();
            model.versioning = versioning;
        }
        1..=3 => {
            let id = put(tables, bucket, name, &etag, now_unix_ms).await.unwrap();
            assert_eq!(id == "null", model.versioning != Versioning::Enabled);
            model.place(key, made(id, false));
        }
        4 => {
            let id = complete(tables, bucket, name, &etag, now_unix_ms).await;
            model.place(key, made(id, false));
        }
        5 | 6 => {
            let deleted = tables.delete(bucket, name, None, &always(), pass(now_unix_ms), 0).await.unwrap();
            assert_eq!(deleted.marker.is_some(), model.versioning != Versioning::Off);
            match deleted.marker {
                Some(marker) => model.place(key, made(marker.id(), true)),
                None => model.keys[key].clear(),
            }
        }
        7..=9 => {
            // One that is there, mostly.
            let id = match model.keys[key].len() {
                0 => "null".to_owned(),
                count => rng.pick(&[&model.keys[key][rng.0 as usize % count].id, "null"]).to_string(),
            };
            let named = VersionName::parse(&id);
            let deleted = tables.delete(bucket, name, named, &always(), pass(now_unix_ms), 0).await.unwrap();
            let removed = model.keys[key].iter().position(|version| version.id == id);
            assert_eq!(deleted.removed.map(|row| row.etag), removed.map(|at| model.keys[key].remove(at).etag));
        }
        10 => {
            let tags = vec![("k".to_owned(), etag.clone())];
            let named = model.keys[key].last().and_then(|version| VersionName::parse(&version.id));
            let changed = tables.change_object(bucket, name, named, &ObjectChange::Tags(tags.clone())).await.unwrap();
            match model.keys[key].last() {
                None => assert_eq!(changed, None),
                Some(version) if version.marker => assert!(changed.unwrap().version.marker),
                Some(_) => {
                    assert_eq!(tables.version(bucket.id, name, named.unwrap()).await.unwrap().unwrap().tags, tags)
                }
            }
        }
        _ => {
            // A condition is of the current version, whatever is below it.
            let preconditions = Preconditions { if_none_match: Some(EtagSet::Any), ..Preconditions::default() };
            let new = row(&etag, now_unix_ms, Layout::Empty);
            let done = tables.commit_object(bucket, name, new, &preconditions, 0).await;
            assert_eq!(done.is_ok(), model.current(key).is_none());
            if let Ok(done) = done {
                model.place(key, made(done.version.id(), false));
            }
        }
    }
}

async fn check(tables: &Tables, bucket: &BucketRow, model: &Model) {
    for (name, versions) in KEYS.iter().zip(&model.keys) {
        let current = tables.object(bucket.id, name).await.unwrap().map(|row| row.etag);
        assert_eq!(current, versions.first().filter(|v| !v.marker).map(|v| v.etag.clone()), "{name}");
        let marker = tables.current_marker(bucket.id, name).await.unwrap().map(|row| row.version.id());
        if current.is_none() {
            assert_eq!(marker, versions.first().map(|v| v.id.clone()), "{name}");
        }
        for version in versions {
            let named = VersionName::parse(&version.id).unwrap();
            let row = tables.version(bucket.id, name, named).await.unwrap().unwrap();
            assert_eq!((row.etag, row.version.marker), (version.etag.clone(), version.marker));
        }
    }
    for max in [1, 3, 1000] {
        assert_eq!(list(tables, bucket, max).await, model.listed(), "pages of {max}");
    }
    let listed = tables.list_objects(bucket.id, "", "", "", 1000).await.unwrap();
    let current: Vec<&str> = (0..KEYS.len()).filter(|key| model.current(*key).is_some()).map(|key| KEYS[key]).collect();
    assert_eq!(listed.rows.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), current);
}

async fn run(tables: Tables, seed: u64, steps: u64) {
    let (bucket, mut rng, mut model) = (bucket(&tables, "b").await, Rng(seed), Model::default());
    for at in 0..steps {
        // The clock stands still now and then, and goes back.
        step(&tables, &bucket, &mut model, &mut rng, 1000 + at / 3 - at % 2).await;
        check(&tables, &bucket, &model).await;
        Audit::of(&tables).await.states();
    }
    assert_eq!(
        tables.delete_bucket("b").await.is_err(),
        model.keys.iter().any(|versions| !versions.is_empty()),
        "a bucket with versions or markers stays"
    );
    for (name, versions) in KEYS.iter().zip(&model.keys) {
        for version in versions {
            tables.delete(&bucket, name, VersionName::parse(&version.id), &always(), pass(0), 0).await.unwrap();
        }
    }
    collect_all(&tables, u64::MAX - 1).await;
    assert!(Audit::of(&tables).await.states().values().all(|state| *state != State::Reachable));
    if tables.bucket("b").await.unwrap().is_some() {
        tables.delete_bucket("b").await.unwrap();
    }
    assert_eq!(Audit::of(&tables).await.letters().trim_end_matches('W'), "C", "nothing is left");
}

#[tokio::test]
async fn as_the_model_says() {
    for seed in 0..12 {
        run(Tables::new(mem()), seed, 60).await;
    }
}

#[tokio::test]
async fn as_the_model_says_with_faults() {
    for seed in 0..3 {
        run(Tables::new(faulty(seed)), 100 + seed, 30).await;
    }
}

#[tokio::test]
async fn listings_roll_up_and_begin_anywhere() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "b").await;
    tables.set_versioning("b", Versioning::Enabled).await.unwrap();
    let mut of_ab = Vec::new();
    for (at, key) in (1..).zip(["a", "a/b", "a/b", "a/b", "a/c", "b", "b/d/e", "b/d/e", "c"]) {
        let id = put(&tables, &bucket, key, "e", at).await.unwrap();
        if key == "a/b" {
            of_ab.insert(0, id);
        }
    }
    let page = async |request: ListVersions<'_>| {
        let page = tables.list_versions(bucket.id, ListVersions { max: request.max.max(1), ..request }).await.unwrap();
        let rows: Vec<String> = page.rows.into_iter().map(|(key, _)| key).collect();
        (rows.join(" "), page.prefixes.join(" "), page.next.map(|(key, _)| key))
    };
    let all = ListVersions { max: 100, ..ListVersions::default() };
    let rolled = ListVersions { delimiter: "/", ..all };
    assert_eq!(page(rolled).await, ("a b c".into(), "a/ b/".into(), None));
    assert_eq!(page(ListVersions { max: 2, ..rolled }).await, ("a".into(), "a/".into(), Some("a/".into())));
    assert_eq!(page(ListVersions { key_marker: "a/", ..rolled }).await, ("b c".into(), "b/".into(), None));
    assert_eq!(page(ListVersions { key_marker: "a/b", ..all }).await.0, "a/c b b/d/e b/d/e c");
    assert_eq!(page(ListVersions { prefix: "b/", delimiter: "/", ..all }).await, ("".into(), "b/d/".into(), None));
    assert_eq!(page(ListVersions { prefix: "b/d/", delimiter: "/", ..all }).await.0, "b/d/e b/d/e");
    for (at, id) in of_ab.iter().enumerate() {
        let after = ListVersions { key_marker: "a/b", after_version: VersionName::parse(id), prefix: "a/", ..all };
        assert_eq!(page(after).await.0.matches("a/b").count(), 2 - at, "after version {at}");
    }
    assert_eq!(page(ListVersions { key_marker: "z", ..all }).await, (String::new(), String::new(), None));
}

#[tokio::test]
async fn locks_hold_on_every_path() {
    let tables = Tables::new(mem());
    let lock = ObjectLockRow::On { default: Some(DefaultRetentionRow { compliance: false, years: false, count: 1 }) };
    assert_eq!(tables.set_object_lock("b", lock).await, Err(TablesError::NoSuchBucket));
    let bucket = bucket(&tables, "b").await;
    assert_eq!(tables.set_object_lock("b", lock).await, Err(TablesError::BucketLocked));
    // The null version of a time before.
    put(&tables, &bucket, "k", "old", 1).await.unwrap();
    tables.set_versioning("b", Versioning::Enabled).await.unwrap();
    let locked = ObjectRow { lock: LockRow { retention: None, legal_hold: Some(true) }, ..row("e", 1, Layout::Empty) };
    let refused = tables.commit_object(&bucket, "k", locked.clone(), &always(), 0).await;
    assert_eq!(refused.map(drop), Err(TablesError::NoObjectLock));
    tables.set_object_lock("b", lock).await.unwrap();
    assert_eq!(tables.set_versioning("b", Versioning::Suspended).await, Err(TablesError::BucketLocked));
    let day_ms = 86_400_000;
    let made = tables.commit_object(&bucket, "k", locked, &always(), 0).await.unwrap();
    let by_default = tables.object(bucket.id, "k").await.unwrap().unwrap().lock;
    let until = RetentionRow { compliance: false, until_unix_ms: 1 + day_ms };
    assert_eq!(by_default, LockRow { retention: Some(until), legal_hold: Some(true) });
    let named = VersionName::parse(&made.version.id());
    let delete = async |now_unix_ms, bypass_governance| {
        let pass = LockPass { now_unix_ms, bypass_governance };
        tables.delete(&bucket, "k", named, &always(), pass, 0).await.map(|deleted| deleted.removed.is_some())
    };
    // A simple delete hides it, and only that.
    tables.delete(&bucket, "k", None, &always(), pass(5), 0).await.unwrap();
    for (now, bypass) in [(5, false), (5, true), (2 * day_ms, false)] {
        assert_eq!(delete(now, bypass).await, Err(TablesError::Locked), "held");
    }
    let change = async |change| tables.change_object(&bucket, "k", named, &change).await.map(drop);
    change(ObjectChange::LegalHold(false)).await.unwrap();
    assert_eq!(delete(5, false).await, Err(TablesError::Locked));
    let retain = |compliance, until_unix_ms, bypass_governance| {
        let pass = LockPass { now_unix_ms: 5, bypass_governance };
        ObjectChange::Retention(Some(RetentionRow { compliance, until_unix_ms }), pass)
    };
    assert_eq!(change(ObjectChange::Retention(None, pass(5))).await, Err(TablesError::Locked));
    assert_eq!(change(retain(false, day_ms, false)).await, Err(TablesError::Locked), "shorter");
    assert_eq!(change(retain(true, 3 * day_ms, false)).await, Err(TablesError::Locked), "another mode");
    change(retain(false, 2 * day_ms, false)).await.unwrap();
    change(retain(false, day_ms, true)).await.unwrap();
    change(retain(true, 3 * day_ms, true)).await.unwrap();
    for bypass in [false, true] {
        assert_eq!(change(retain(true, 2 * day_ms, bypass)).await, Err(TablesError::Locked), "compliance");
        assert_eq!(change(retain(false, 4 * day_ms, bypass)).await, Err(TablesError::Locked), "compliance");
        assert_eq!(delete(5, bypass).await, Err(TablesError::Locked), "compliance");
    }
    change(retain(true, 4 * day_ms, false)).await.unwrap();
    assert_eq!(delete(4 * day_ms, false).await, Ok(true), "its time is over");
    assert_eq!(delete(4 * day_ms, false).await, Ok(false));
    let audit = Audit::of(&tables).await;
    assert!(audit.states().values().any(|state| *state == State::Reachable), "the null version is still there");
}
