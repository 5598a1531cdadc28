//! Random puts, overwrites, deletes, uploads, parts, completions, aborts, expiries and collections: every data id that was
//! ever begun is exactly one of pending, reachable, garbage and collected, and in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use penstock_proto::DataId;

use super::audit::{Audit, State};
use super::support::{Rng, always, begin, bucket, collect_all, faulty, fjall, mem, object_row, part_row};
use crate::kv::Kv;
use crate::tables::{
    BucketRow, CompleteUpload, EtagSet, Layout, NewUpload, PreconditionFailure, Preconditions, Tables, TablesError,
};

const KEYS: [&str; 4] = ["a", "a/b", "b", "\u{10ffff}"];
const LEASE_MS: u64 = 100;
const GRACE_MS: u64 = 50;

/// What must be true.
#[derive(Default)]
struct Model {
    objects: BTreeMap<&'static str, (String, BTreeSet<DataId>)>,
    uploads: BTreeMap<String, (&'static str, BTreeMap<u32, Option<DataId>>)>,
    /// With when they expire.
    pending: BTreeMap<DataId, u64>,
    begun: BTreeSet<DataId>,
    collected: BTreeSet<DataId>,
    now_ms: u64,
}

impl Model {
    fn reachable(&self) -> BTreeSet<DataId> {
        let objects = self.objects.values().flat_map(|(_, data)| data.iter().copied());
        let parts = self.uploads.values().flat_map(|(_, parts)| parts.values().flatten().copied());
        objects.chain(parts).collect()
    }

    async fn check(&self, tables: &Tables) {
        let states = Audit::of(tables).await.states();
        let of = |state| -> BTreeSet<DataId> {
            states.iter().filter(|(_, one)| **one == state).map(|(data, _)| *data).collect()
        };
        assert_eq!(of(State::Reachable), self.reachable());
        assert_eq!(of(State::Pending), self.pending.keys().copied().collect());
        let known: BTreeSet<DataId> = states.keys().copied().collect();
        assert!(known.is_disjoint(&self.collected), "what is collected does not come back");
        let all: BTreeSet<DataId> = known.union(&self.collected).copied().collect();
        assert_eq!(all, self.begun, "every id is accounted for");
    }
}

struct Run {
    tables: Tables,
    bucket: BucketRow,
    model: Model,
    rng: Rng,
}

impl Run {
    async fn begin(&mut self) -> crate::tables::DataRow {
        let stripes = *self.rng.pick(&[1, 2, 2, 70, 130]);
        let expires = self.model.now_ms + LEASE_MS;
        let data = begin(&self.tables, stripes, expires).await.unwrap();
        self.model.begun.insert(data.data);
        self.model.pending.insert(data.data, expires);
        data
    }

    fn conditions(&mut self, key: &str) -> (Preconditions, Option<PreconditionFailure>) {
        let etag = self.model.objects.get(key).map(|(etag, _)| etag.clone());
        match self.rng.below(4) {
            0 => {
                let failure = etag.is_some().then_some(PreconditionFailure::Failed);
                (Preconditions { if_none_match: Some(EtagSet::Any), ..always() }, failure)
            }
            1 => {
                let wanted = self.rng.pick(&["e0", "e1", "e2"]).to_string();
                let failure = match etag {
                    None => Some(PreconditionFailure::NoSuchKey),
                    Some(etag) if etag == wanted => None,
                    Some(_) => Some(PreconditionFailure::Failed),
                };
                (Preconditions { if_match: Some(EtagSet::OneOf(vec![wanted])), ..always() }, failure)
            }
            _ => (always(), None),
        }
    }

    async fn step(&mut self) {
        let key = *self.rng.pick(&KEYS);
        let not_before = self.model.now_ms + GRACE_MS;
        match self.rng.below(20) {
            0..5 => {
                let etag = self.rng.pick(&["e0", "e1", "e2"]).to_string();
                let (conditions, failure) = self.conditions(key);
                let data = if self.rng.below(8) == 0 { None } else { Some(self.begin().await) };
                let layout = data.clone().map_or(Layout::Empty, Layout::Single);
                let row = object_row(&etag, layout);
                let result = self.tables.commit_object(&self.bucket, key, row, &conditions, not_before).await;
                match failure {
                    Some(failure) => assert_eq!(result, Err(TablesError::Precondition(failure))),
                    None => {
                        let old = result.unwrap().replaced.map(|old| old.etag);
                        assert_eq!(old, self.model.objects.get(key).map(|(etag, _)| etag.clone()));
                        let ids: BTreeSet<DataId> = data.iter().map(|data| data.data).collect();
                        self.model.pending.retain(|id, _| !ids.contains(id));
                        self.model.objects.insert(key, (etag, ids));
                    }
                }
            }
            5..7 => {
                let (conditions, failure) = self.conditions(key);
                let result = self.tables.delete_object(&self.bucket, key, &conditions, not_before).await;
                match failure {
                    Some(failure) => assert_eq!(result, Err(TablesError::Precondition(failure))),
                    None => assert_eq!(result, Ok(self.model.objects.remove(key).is_some())),
                }
            }
            7 => {
                let new = NewUpload { key: key.into(), ..NewUpload::default() };
                let row = self.tables.create_upload(&self.bucket, new, self.model.now_ms).await.unwrap();
                self.model.uploads.insert(row.upload_id, (key, BTreeMap::new()));
            }
            8..12 => self.upload_step(not_before).await,
            12 => {
                // A writer that dies, or renews before.
                let data = self.begin().await.data;
                if self.rng.below(2) == 0 {
                    let expires = self.model.now_ms + 3 * LEASE_MS;
                    self.tables.renew_writes(&[data], expires).await.unwrap();
                    self.model.pending.insert(data, expires);
                }
            }
            13 => {
                let ids: Vec<DataId> = self.model.pending.keys().copied().filter(|_| self.rng.below(2) == 0).collect();
                // With one that was committed, which must not matter.
                let committed = self.model.reachable().into_iter().take(1);
                let all: Vec<DataId> = ids.iter().copied().chain(committed).collect();
                self.tables.abort_writes(&all, self.model.now_ms).await.unwrap();
                self.model.pending.retain(|id, _| !ids.contains(id));
            }
            14..17 => self.model.now_ms += self.rng.below(60) as u64,
            _ => self.collect().await,
        }
    }

    async fn upload_step(&mut self, not_before: u64) {
        let ids: Vec<String> = self.model.uploads.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = self.rng.pick(&ids).clone();
        let (key, parts) = self.model.uploads[&id].clone();
        match self.rng.below(6) {
            0 => {
                self.tables.abort_upload(self.bucket.id, key, &id, not_before).await.unwrap();
                self.model.uploads.remove(&id);
                let again = self.tables.abort_upload(self.bucket.id, key, &id, not_before).await;
                assert_eq!(again, Err(TablesError::NoSuchUpload));
            }
            1 if !parts.is_empty() => {
                let version = self.tables.parts(self.bucket.id, key, &id, 0, 1).await.unwrap().version;
                let mut numbers: Vec<u32> = parts.keys().copied().filter(|_| self.rng.below(3) > 0).collect();
                if numbers.is_empty() {
                    numbers = parts.keys().copied().collect();
                }
                let (conditions, failure) = self.conditions(key);
                let request = CompleteUpload {
                    bucket: &self.bucket,
                    key,
                    upload_id: &id,
                    row: object_row("e1", Layout::Empty),
                    part_numbers: &numbers,
                    parts_version: version,
                    preconditions: &conditions,
                    now_unix_ms: self.model.now_ms,
                    garbage_not_before_unix_ms: not_before,
                };
                let stale = CompleteUpload { parts_version: version + 1, ..request.clone() };
                assert_eq!(self.tables.complete_upload(stale).await, Err(TablesError::PartsChanged));
                let result = self.tables.complete_upload(request.clone()).await;
                match failure {
                    Some(failure) => assert_eq!(result, Err(TablesError::Precondition(failure))),
                    None => {
                        let done = result.unwrap();
                        assert!(!done.already && done.object.parts == Some(numbers.len() as u32));
                        let again = self.tables.complete_upload(request).await.unwrap();
                        assert!(again.already && again.object == done.object);
                        let data = numbers.iter().filter_map(|number| parts[number]).collect();
                        self.model.uploads.remove(&id);
                        self.model.objects.insert(key, ("e1".into(), data));
                    }
                }
            }
            _ => {
                let number = self.rng.below(5) as u32 + 1;
                let data = if self.rng.below(8) == 0 { None } else { Some(self.begin().await) };
                let data_id = data.as_ref().map(|data| data.data);
                let part = part_row(number, data);
                let replaced = self.tables.put_part(self.bucket.id, key, &id, &part, not_before).await.unwrap();
                assert_eq!(replaced.map(|part| part.data.map(|data| data.data)), parts.get(&number).copied());
                self.model.pending.retain(|id, _| Some(*id) != data_id);
                self.model.uploads.get_mut(&id).unwrap().1.insert(number, data_id);
            }
        }
    }

    async fn collect(&mut self) {
        let now = self.model.now_ms;
        let batch = self.tables.next_garbage(now, 1 + self.rng.below(20)).await.unwrap();
        self.model.pending.retain(|_, expires| *expires > now);
        let reachable = self.model.reachable();
        for (token, row) in batch {
            assert!(self.model.begun.contains(&row.data) && row.not_before_unix_ms <= now);
            assert!(!reachable.contains(&row.data) && !self.model.pending.contains_key(&row.data));
            assert!(!row.nodes.is_empty());
            if self.rng.below(4) > 0 {
                self.tables.finish_garbage(&token).await.unwrap();
                self.tables.finish_garbage(&token).await.unwrap();
                assert!(self.model.collected.insert(row.data), "collected once");
            }
        }
    }
}

async fn random_operations(kv: Arc<dyn Kv>, seed: u64, steps: usize) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "model").await;
    let mut run = Run { tables, bucket, model: Model::default(), rng: Rng(seed) };
    for step in 0..steps {
        run.step().await;
        if step % 10 == 9 {
            run.model.check(&run.tables).await;
        }
    }
    // And then all goes, and nothing is left.
    for key in KEYS {
        run.tables.delete_object(&run.bucket, key, &always(), 0).await.unwrap();
    }
    for (id, (key, _)) in std::mem::take(&mut run.model.uploads) {
        run.tables.abort_upload(run.bucket.id, key, &id, 0).await.unwrap();
    }
    let rest = collect_all(&run.tables, u64::MAX - 1).await;
    for data in rest {
        assert!(run.model.collected.insert(data), "collected once");
    }
    assert_eq!(run.model.collected, run.model.begun);
    run.tables.delete_bucket("model").await.unwrap();
    assert_eq!(Audit::of(&run.tables).await.letters(), "C", "only counters are left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_on_mem() {
    for seed in 0..12 {
        random_operations(mem(), seed, 300).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_on_a_store_with_faults() {
    for seed in 100..108 {
        random_operations(faulty(seed), seed, 250).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_operations_on_fjall() {
    let (kv, _directory) = fjall();
    random_operations(kv, 200, 200).await;
}

/// Data registered and counted; `None` if its lease ran out before its manifest was there.
async fn begin_counted(
    tables: &Tables,
    stripes: usize,
    expires_unix_ms: u64,
    begun: &Mutex<BTreeSet<DataId>>,
) -> Option<crate::tables::DataRow> {
    match begin(tables, stripes, expires_unix_ms).await {
        Ok(row) => {
            begun.lock().insert(row.data);
            Some(row)
        }
        Err(TablesError::WriteExpired { data }) => {
            begun.lock().insert(data);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The same operations from many tasks at once, with collectors among them: nobody knows what must be where, but every
/// audit finds each id in one place, and all of it comes out in the end.
async fn concurrent_operations(kv: Arc<dyn Kv>, seed: u64) {
    let tables = Tables::new(kv);
    let bucket = bucket(&tables, "model").await;
    let now = Arc::new(AtomicU64::new(0));
    let (begun, collected) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(BTreeSet::new())));
    let uploads: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut tasks = Vec::new();
    for worker in 0..8 {
        let (tables, bucket, now) = (tables.clone(), bucket.clone(), Arc::clone(&now));
        let (begun, collected, uploads) = (Arc::clone(&begun), Arc::clone(&collected), Arc::clone(&uploads));
        tasks.push(tokio::spawn(async move {
            let mut rng = Rng(seed * 100 + worker);
            for _ in 0..60 {
                let at = now.load(Ordering::SeqCst);
                let key = *rng.pick(&KEYS[..2]);
                let known = uploads.lock().clone();
                let upload = if known.is_empty() { None } else { Some(rng.pick(&known).clone()) };
                match (rng.below(12), upload) {
                    (0..3, _) => {
                        let Some(data) = begin_counted(&tables, *rng.pick(&[1, 70]), at + 5, &begun).await else {
                            continue;
                        };
                        let id = data.data;
                        let row = object_row("e", Layout::Single(data));
                        match tables.commit_object(&bucket, key, row, &always(), at).await {
                            Ok(_) => {}
                            Err(error) => assert_eq!(error, TablesError::WriteExpired { data: id }),
                        }
                    }
                    (3, _) => drop(tables.delete_object(&bucket, key, &always(), at).await.unwrap()),
                    (4, _) => {
                        let new = NewUpload { key: "up".into(), ..NewUpload::default() };
                        let row = tables.create_upload(&bucket, new, at).await.unwrap();
                        uploads.lock().push(row.upload_id);
                    }
                    (5..8, Some(upload)) => {
                        let Some(data) = begin_counted(&tables, 1, at + 5, &begun).await else { continue };
                        let part = part_row(rng.below(3) as u32 + 1, Some(data));
                        match tables.put_part(bucket.id, "up", &upload, &part, at).await {
                            Ok(_) | Err(TablesError::NoSuchUpload | TablesError::WriteExpired { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    (8, Some(upload)) => {
                        let Ok(page) = tables.parts(bucket.id, "up", &upload, 0, 100).await else { continue };
                        let numbers: Vec<u32> = page.parts.iter().map(|part| part.number).take(2).collect();
                        if numbers.is_empty() {
                            continue;
                        }
                        let request = CompleteUpload {
                            bucket: &bucket,
                            key: "up",
                            upload_id: &upload,
                            row: object_row("u", Layout::Empty),
                            part_numbers: &numbers,
                            parts_version: page.version,
                            preconditions: &always(),
                            now_unix_ms: at,
                            garbage_not_before_unix_ms: at,
                        };
                        match tables.complete_upload(request).await {
                            Ok(_) | Err(TablesError::PartsChanged | TablesError::NoSuchUpload) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    (9, Some(upload)) => match tables.abort_upload(bucket.id, "up", &upload, at).await {
                        Ok(()) | Err(TablesError::NoSuchUpload) => {}
                        Err(error) => panic!("{error}"),
                    },
                    _ => {
                        now.fetch_add(1, Ordering::SeqCst);
                        for (token, row) in tables.next_garbage(at, 5).await.unwrap() {
                            tables.finish_garbage(&token).await.unwrap();
                            collected.lock().insert(row.data);
                        }
                        Audit::of(&tables).await.states();
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut all = collected.lock().clone();
    let states = Audit::of(&tables).await.states();
    assert!(states.keys().all(|data| !all.contains(data)), "what is collected does not come back");
    all.extend(states.keys());
    assert_eq!(all, *begun.lock());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_on_mem() {
    for seed in 0..4 {
        concurrent_operations(mem(), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_on_a_store_with_faults() {
    concurrent_operations(faulty(7), 7).await;
}
