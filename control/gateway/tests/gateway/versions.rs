//! Versioned buckets: random S3 operations against a model that fits on a page, and the answers that S3 gives.

use std::collections::BTreeMap;

use penstock_gateway::api::{
    CompleteUpload, CompletedPart, CopyObject, CopySource, DeleteObject, Deleted, GetObject, ListVersions,
    MetadataDirective, ObjectName, PutObject, VersionPage,
};
use penstock_gateway::error::{Error, ErrorKind};
use proptest::prelude::*;

use crate::house::{BUCKET, House, NOTHING, code, get, kind, list, put, random_bytes, read};

const KEYS: [&str; 5] = ["a", "a/b", "a/c", "b", "é"];

#[derive(Clone, Debug)]
enum Op {
    Versioning {
        enabled: bool,
    },
    Put {
        key: usize,
        seed: u64,
    },
    Upload {
        key: usize,
        seed: u64,
    },
    /// Of the version at this place, counted from the newest; the current one if there is none there.
    Copy {
        from: usize,
        at: usize,
        to: usize,
    },
    Delete {
        key: usize,
    },
    DeleteVersion {
        key: usize,
        at: usize,
    },
    DeleteNull {
        key: usize,
    },
    Get {
        key: usize,
        at: usize,
    },
    Tag {
        key: usize,
        at: usize,
        tag: u8,
    },
    List {
        prefix: usize,
        rolled: bool,
        page: usize,
    },
    Collect,
}

fn operations() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS.len();
    prop_oneof![
        2 => proptest::bool::weighted(0.7).prop_map(|enabled| Op::Versioning { enabled }),
        6 => (key(), any::<u64>()).prop_map(|(key, seed)| Op::Put { key, seed }),
        1 => (key(), any::<u64>()).prop_map(|(key, seed)| Op::Upload { key, seed }),
        2 => (key(), 0..4_usize, key()).prop_map(|(from, at, to)| Op::Copy { from, at, to }),
        3 => key().prop_map(|key| Op::Delete { key }),
        4 => (key(), 0..4_usize).prop_map(|(key, at)| Op::DeleteVersion { key, at }),
        1 => key().prop_map(|key| Op::DeleteNull { key }),
        4 => (key(), 0..4_usize).prop_map(|(key, at)| Op::Get { key, at }),
        2 => (key(), 0..4_usize, any::<u8>()).prop_map(|(key, at, tag)| Op::Tag { key, at, tag }),
        2 => (0..4_usize, any::<bool>(), 1..5_usize)
            .prop_map(|(prefix, rolled, page)| Op::List { prefix, rolled, page }),
        1 => Just(Op::Collect),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Version {
    id: String,
    /// None for a delete marker.
    bytes: Option<Vec<u8>>,
    tag: Option<u8>,
}

/// What should be there: versions by key, newest first.
#[derive(Default)]
struct Model {
    /// None as long as versioning was never on.
    enabled: Option<bool>,
    keys: BTreeMap<&'static str, Vec<Version>>,
}

impl Model {
    fn versions(&self, key: usize) -> &[Version] {
        self.keys.get(KEYS[key]).map_or(&[], Vec::as_slice)
    }

    fn place(&mut self, key: usize, id: Option<String>, bytes: Option<Vec<u8>>, tag: Option<u8>) {
        let told = if bytes.is_some() { self.enabled == Some(true) } else { self.enabled.is_some() };
        assert_eq!(id.is_some(), told, "of a null version only when it is a delete marker");
        let id = id.unwrap_or_else(|| "null".into());
        assert_eq!(id == "null", self.enabled != Some(true));
        let versions = self.keys.entry(KEYS[key]).or_default();
        versions.retain(|old| old.id != "null" || id != "null");
        assert!(versions.iter().all(|old| old.id != id), "ids don't come back");
        versions.insert(0, Version { id, bytes, tag });
    }

    /// What a read of the version at `at` (or of the current one) finds.
    fn find(&self, key: usize, at: usize) -> (Option<String>, Result<&Version, ErrorKind>) {
        let versions = self.versions(key);
        match versions.get(at) {
            Some(version) if version.bytes.is_some() => (Some(version.id.clone()), Ok(version)),
            Some(version) => (Some(version.id.clone()), Err(ErrorKind::MethodNotAllowed)),
            None => {
                let current = versions.first().filter(|version| version.bytes.is_some());
                (None, current.ok_or(ErrorKind::NoSuchKey))
            }
        }
    }
}

fn delete(key: usize, version_id: Option<String>) -> DeleteObject {
    DeleteObject { bucket: BUCKET.into(), key: KEYS[key].into(), version_id, ..DeleteObject::default() }
}

async fn step(house: &House, model: &mut Model, op: &Op) {
    let gateway = &house.gateway;
    match op {
        Op::Versioning { enabled } => {
            gateway.put_bucket_versioning(BUCKET, *enabled).await.unwrap();
            model.enabled = Some(*enabled);
        }
        Op::Put { key, seed } => {
            let bytes = random_bytes(*seed, (*seed % 5000) as usize);
            let done = gateway.put_object(put(KEYS[*key], &bytes)).await.unwrap();
            model.place(*key, done.version_id, Some(bytes), None);
        }
        Op::Upload { key, seed } => {
            let bytes = random_bytes(*seed, 100);
            let upload_id = house.upload(KEYS[*key]).await;
            let part = house.part(KEYS[*key], &upload_id, 1, &bytes).await.unwrap();
            let request = CompleteUpload {
                bucket: BUCKET.into(),
                key: KEYS[*key].into(),
                upload_id,
                parts: vec![CompletedPart { part_number: 1, etag: part.etag, checksum: None }],
                ..CompleteUpload::default()
            };
            let done = gateway.complete_upload(request.clone()).await.unwrap();
            assert_eq!(gateway.complete_upload(request).await.unwrap().version_id, done.version_id, "a repetition");
            model.place(*key, done.version_id, Some(bytes), None);
        }
        Op::Copy { from, at, to } => copy(house, model, (*from, *at), *to).await,
        Op::Delete { key } => {
            let done = gateway.delete_object(delete(*key, None)).await.unwrap();
            assert_eq!(done.delete_marker, model.enabled.is_some());
            if model.enabled.is_some() {
                model.place(*key, done.version_id, None, None);
            } else {
                model.keys.remove(KEYS[*key]);
            }
        }
        Op::DeleteVersion { key, at } => {
            let Some(version) = model.versions(*key).get(*at).cloned() else { return };
            let done = gateway.delete_object(delete(*key, Some(version.id.clone()))).await.unwrap();
            let told = model.enabled.map(|_| version.id);
            assert_eq!(done, Deleted { version_id: told, delete_marker: version.bytes.is_none() });
            model.keys.get_mut(KEYS[*key]).unwrap().remove(*at);
        }
        Op::DeleteNull { key } => {
            gateway.delete_object(delete(*key, Some("null".into()))).await.unwrap();
            model.keys.entry(KEYS[*key]).or_default().retain(|version| version.id != "null");
        }
        Op::Get { key, at } => {
            let (version_id, expected) = model.find(*key, *at);
            let real = async {
                let request = GetObject { version_id, ..get(KEYS[*key]) };
                assert_eq!(
                    gateway.head_object(request.clone()).await.map(|read| read.info.etag).ok(),
                    gateway.get_object(request.clone()).await.map(|read| read.info.etag).ok()
                );
                read(gateway.get_object(request).await?).await
            };
            match (real.await, expected) {
                (Ok((answer, bytes)), Ok(version)) => {
                    assert!(Some(&bytes) == version.bytes.as_ref(), "{op:?}");
                    assert_eq!(answer.info.version_id, model.enabled.map(|_| version.id.clone()));
                    assert_eq!(answer.info.tags.len(), usize::from(version.tag.is_some()));
                }
                (Err(error), Err(expected)) => {
                    assert_eq!(error.kind, expected);
                    let newest = model.versions(*key).get(*at).or(model.versions(*key).first());
                    assert_eq!(error.marker.map(|marker| marker.version_id), newest.map(|version| version.id.clone()));
                }
                (real, expected) => panic!("{op:?}: {:?}, not {expected:?}", real.map(|(_, bytes)| bytes.len())),
            }
        }
        Op::Tag { key, at, tag } => {
            let (version_id, expected) = model.find(*key, *at);
            let name = ObjectName { bucket: BUCKET.into(), key: KEYS[*key].into(), version_id };
            let tags = vec![("tag".to_owned(), tag.to_string())];
            let real = gateway.put_object_tags(&name, tags.clone()).await;
            assert_eq!(real.as_ref().err().map(|error| error.kind), expected.err());
            let Ok(told) = real else { return };
            let id = told.unwrap_or_else(|| "null".into());
            let versions = model.keys.get_mut(KEYS[*key]).unwrap();
            versions.iter_mut().find(|version| version.id == id).unwrap().tag = Some(*tag);
            assert_eq!(gateway.object_tags(&name).await.unwrap().0, tags);
        }
        Op::List { prefix, rolled, page } => {
            let (prefix, delimiter) = (["", "a", "a/", "none"][*prefix], if *rolled { "/" } else { "" });
            let real = listed(house, prefix, delimiter, *page).await;
            assert_eq!(real, expected_list(model, prefix, delimiter), "{op:?}");
        }
        Op::Collect => house.collect().await,
    }
}

async fn copy(house: &House, model: &mut Model, (from, at): (usize, usize), to: usize) {
    let (version_id, mut expected) = model.find(from, at);
    if version_id.is_none() && from == to && expected.is_ok() {
        expected = Err(ErrorKind::InvalidRequest);
    }
    if expected == Err(ErrorKind::MethodNotAllowed) {
        // Not a GET: a source that is a delete marker is a mistake in the request.
        expected = Err(ErrorKind::InvalidRequest);
    }
    let request = CopyObject {
        source: CopySource { bucket: BUCKET.into(), key: KEYS[from].into(), version_id, ..CopySource::default() },
        bucket: BUCKET.into(),
        key: KEYS[to].into(),
        metadata: MetadataDirective::Copy,
        checksum: None,
        storage_class: String::new(),
        conditions: Default::default(),
        tags: None,
        lock: Default::default(),
        encryption: None,
    };
    match (house.gateway.copy_object(request).await, expected.cloned()) {
        (Ok(done), Ok(source)) => {
            assert_eq!(done.source_version_id, model.enabled.map(|_| source.id));
            model.place(to, done.version_id, source.bytes, source.tag);
        }
        (Err(error), Err(expected)) => assert_eq!(error.kind, expected),
        (real, expected) => panic!("{real:?}, not {expected:?}"),
    }
}

/// All that a listing shows, page by page.
async fn listed(house: &House, prefix: &str, delimiter: &str, page: usize) -> Vec<String> {
    let mut request = ListVersions {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        delimiter: delimiter.into(),
        max_keys: page,
        ..ListVersions::default()
    };
    let mut out = Vec::new();
    loop {
        let VersionPage { versions, common_prefixes, next } =
            house.gateway.list_versions(request.clone()).await.unwrap();
        assert!(versions.len() + common_prefixes.len() <= page);
        let mut items: Vec<_> =
            common_prefixes.into_iter().map(|prefix| (prefix.clone(), format!("PREFIX {prefix}"))).collect();
        for version in versions {
            let text = format!(
                "{} {} {} {} {}",
                version.key, version.version_id, version.is_latest, version.delete_marker, version.size_bytes
            );
            items.push((version.key, text));
        }
        // Stable: versions of a key stay in their order.
        items.sort_by(|a, b| a.0.cmp(&b.0));
        out.extend(items.into_iter().map(|(_, text)| text));
        let Some((key, version)) = next else { return out };
        (request.key_marker, request.version_id_marker) = (key, version);
    }
}

fn expected_list(model: &Model, prefix: &str, delimiter: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (key, versions) in model.keys.iter().filter(|(key, _)| key.starts_with(prefix)) {
        if !delimiter.is_empty()
            && let Some(end) = key[prefix.len()..].find(delimiter)
        {
            let line = format!("PREFIX {}", &key[..prefix.len() + end + 1]);
            if !versions.is_empty() && out.last() != Some(&line) {
                out.push(line);
            }
            continue;
        }
        for (at, version) in versions.iter().enumerate() {
            let size = version.bytes.as_ref().map_or(0, Vec::len);
            out.push(format!("{key} {} {} {} {size}", version.id, at == 0, version.bytes.is_none()));
        }
    }
    out
}

/// Current objects are listed as ever, and when all versions are gone nothing is left.
async fn end(house: &House, model: &mut Model) {
    let current: Vec<&str> = (model.keys.iter())
        .filter(|(_, versions)| versions.first().is_some_and(|version| version.bytes.is_some()))
        .map(|(key, _)| *key)
        .collect();
    let page = house.gateway.list_objects(list("", "")).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), current);
    for (key, name) in KEYS.iter().enumerate() {
        while let Some(version) = model.versions(key).first().cloned() {
            assert_eq!(kind(house.gateway.delete_bucket(BUCKET).await), ErrorKind::BucketNotEmpty);
            step(house, model, &Op::Get { key, at: 0 }).await;
            step(house, model, &Op::Get { key, at: 9 }).await;
            house.gateway.delete_object(delete(key, Some(version.id))).await.unwrap();
            model.keys.get_mut(name).unwrap().remove(0);
        }
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
    house.gateway.delete_bucket(BUCKET).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn as_the_model_says(operations in proptest::collection::vec(operations(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let house = House::new(code(2, 1)).await;
            let mut model = Model::default();
            for op in &operations {
                step(&house, &mut model, op).await;
            }
            end(&house, &mut model).await;
        });
    }
}

#[tokio::test]
async fn names_of_versions_that_are_none() {
    let house = House::new(code(2, 1)).await;
    house.put("k", b"x").await.unwrap();
    let of = |version_id: &str| GetObject { version_id: Some(version_id.into()), ..get("k") };
    let get = async |version_id: &str| house.gateway.get_object(of(version_id)).await.map(|read| read.info.version_id);
    assert_eq!(get("null").await, Ok(None), "a bucket without versions tells none");
    let unknown = "00000000000000000000000000000000";
    assert_eq!(kind(get(unknown).await), ErrorKind::NoSuchVersion);
    for bad in ["", "x", "Null", &unknown[1..]] {
        assert_eq!(kind(get(bad).await), ErrorKind::InvalidArgument, "{bad}");
    }
    let delete = |version_id: &str| DeleteObject {
        bucket: BUCKET.into(),
        key: "k".into(),
        version_id: Some(version_id.into()),
        ..DeleteObject::default()
    };
    assert_eq!(house.gateway.delete_object(delete(unknown)).await, Ok(Deleted::default()));
    assert_eq!(kind(house.gateway.delete_object(delete("x")).await), ErrorKind::InvalidArgument);
    let marker = ListVersions { bucket: BUCKET.into(), version_id_marker: Some(unknown.into()), ..Default::default() };
    assert_eq!(kind(house.gateway.list_versions(marker).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn locks() {
    use penstock_gateway::api::{CreateBucket, DefaultRetention, Lock, Retention};
    let house = House::new(code(2, 1)).await;
    let gateway = &house.gateway;
    let now = 1_800_000_000_000;
    let hour_ms = 3_600_000;
    let retention = |until_unix_ms| Some(Retention { compliance: false, until_unix_ms });
    let with = |lock| PutObject { lock, bucket: "locked".into(), ..put("k", b"x") };
    let held = Lock { retention: None, legal_hold: Some(true) };
    assert_eq!(
        kind(gateway.put_object(PutObject { bucket: BUCKET.into(), ..with(held) }).await),
        ErrorKind::InvalidRequest
    );
    assert_eq!(kind(gateway.put_object_lock(BUCKET, None).await), ErrorKind::InvalidBucketState);
    assert_eq!(kind(gateway.object_lock(BUCKET).await), ErrorKind::ObjectLockConfigurationNotFoundError);
    let create = CreateBucket { name: "locked".into(), object_lock: true, ..CreateBucket::default() };
    gateway.create_bucket_with(create).await.unwrap();
    assert_eq!(kind(gateway.put_bucket_versioning("locked", false).await), ErrorKind::InvalidBucketState);
    for (years, count) in [(false, 0), (false, 36_501), (true, 101)] {
        let default = Some(DefaultRetention { compliance: true, years, count });
        assert_eq!(kind(gateway.put_object_lock("locked", default).await), ErrorKind::InvalidRetentionPeriod);
    }
    let past = Lock { retention: retention(now - 1), legal_hold: None };
    assert_eq!(kind(gateway.put_object(with(past)).await), ErrorKind::InvalidArgument);
    let lock = Lock { retention: retention(now + hour_ms), legal_hold: Some(true) };
    let done = gateway.put_object(with(lock)).await.unwrap();
    let name = ObjectName { bucket: "locked".into(), key: "k".into(), version_id: done.version_id.clone() };
    assert_eq!(gateway.lock_of(&name).await.unwrap(), lock);
    let delete = |bypass_governance| DeleteObject {
        bucket: "locked".into(),
        key: "k".into(),
        version_id: done.version_id.clone(),
        bypass_governance,
        ..DeleteObject::default()
    };
    // Overwriting and simple deletes take nothing away.
    gateway.put_object(with(Lock::default())).await.unwrap();
    gateway.delete_object(DeleteObject { version_id: None, ..delete(true) }).await.unwrap();
    assert_eq!(kind(gateway.delete_object(delete(true)).await), ErrorKind::AccessDenied);
    let each = gateway.delete_objects("locked", vec![delete(true), delete(false)]).await.unwrap();
    assert!(each.into_iter().all(|result: Result<_, Error>| kind(result) == ErrorKind::AccessDenied));
    gateway.put_object_legal_hold(&name, false).await.unwrap();
    assert_eq!(kind(gateway.delete_object(delete(false)).await), ErrorKind::AccessDenied);
    assert_eq!(kind(gateway.put_object_retention(&name, None, false).await), ErrorKind::AccessDenied);
    gateway.delete_object(delete(true)).await.unwrap();
    assert_eq!(kind(gateway.lock_of(&name).await), ErrorKind::NoSuchVersion);
}
