//! Random batches, deletes, overwrites, moves, seals, encodings and drops against a model, with all rows audited after
//! every step; and the races that must have one winner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_proto::{Code, DataId, MapEpoch, NodeId};

use super::audit::{Audit, State};
use super::support::{Rng, always, begin, bucket, collect_all, faulty, fjall, mem, object_row, put};
use crate::kv::Kv;
use crate::tables::{
    BucketRow, Cause, DataRow, EtagSet, ExtentPlace, ExtentRow, ExtentState, Layout, LockRow, ManifestRow, NewBatch,
    NewWrite, NotificationRule, PackedDone, PackedObject, PackedOwnerRow, PackedRow, PackedWrite, PreconditionFailure,
    Preconditions, Rename, Renamed, StripeRow, Tables, TablesError, TargetKind, Versioning, WalkPlace,
};

const KEYS: [&str; 5] = ["a", "a/b", "b", "c", "\u{10ffff}"];
const NOW_MS: u64 = 1_700_000_000_000;

fn extent_row() -> ExtentRow {
    ExtentRow {
        opened_unix_ms: 1,
        target: Code::new(2, 1).unwrap(),
        epoch: MapEpoch(1),
        copies: Code::new(1, 2).unwrap(),
        nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
        state: ExtentState::Open { expires_unix_ms: 500 },
    }
}

/// A batch of an extent, and objects laid out in it.
struct Layer {
    extent: DataId,
    next_offset: u64,
    next_stripe: u32,
}

impl Layer {
    async fn open(tables: &Tables) -> Self {
        let extent = DataId::random();
        tables.open_extent(extent, &extent_row()).await.unwrap();
        Self { extent, next_offset: 0, next_stripe: 0 }
    }

    fn batch(&mut self, sizes: &[u32], missing: u64) -> (NewBatch, Vec<PackedRow>) {
        let start = self.next_offset;
        let mut packed = Vec::new();
        for &size_bytes in sizes {
            packed.push(PackedRow { extent: self.extent, offset: self.next_offset, size_bytes, crc64: 7 });
            self.next_offset += u64::from(size_bytes);
        }
        let chunk_bytes = (self.next_offset - start) as u32;
        let stripe = StripeRow { chunk_bytes, missing, shard_crc64s: vec![1, 2, 3] };
        let (first_stripe, nodes) = (ExtentRow::stripe_of(self.next_stripe), extent_row().nodes_of(self.next_stripe));
        let row = ManifestRow { first_stripe, nodes, stripes: vec![stripe] };
        self.next_stripe += 1;
        (NewBatch { extent: self.extent, offset: start, row }, packed)
    }
}

fn object(bucket: &BucketRow, key: &str, etag: &str, packed: PackedRow, preconditions: Preconditions) -> PackedObject {
    PackedObject {
        bucket: bucket.clone(),
        key: key.to_owned(),
        row: object_row(etag, Layout::Packed(packed)),
        preconditions,
        garbage_not_before_unix_ms: 0,
        cause: Cause::default(),
    }
}

async fn data_of(tables: &Tables, size_bytes: u64) -> DataRow {
    DataRow { size_bytes, ..begin(tables, 1, NOW_MS).await.unwrap() }
}

struct Run {
    tables: Tables,
    bucket: BucketRow,
    rng: Rng,
    open: Layer,
    /// Current objects: their ETag, and where they are if they are packed.
    objects: BTreeMap<&'static str, (String, Option<PackedRow>)>,
    etags: u32,
    versioned: bool,
}

impl Run {
    async fn new(kv: Arc<dyn Kv>, seed: u64, versioned: bool) -> Self {
        let tables = Tables::new(kv);
        let mut row = bucket(&tables, "bucket").await;
        if versioned {
            tables.set_versioning("bucket", Versioning::Enabled).await.unwrap();
            row = tables.bucket("bucket").await.unwrap().unwrap();
        }
        let open = Layer::open(&tables).await;
        Self { tables, bucket: row, rng: Rng(seed), open, objects: BTreeMap::new(), etags: 0, versioned }
    }

    fn etag(&mut self) -> String {
        self.etags += 1;
        format!("e{}", self.etags)
    }

    async fn put_batch(&mut self) {
        let sizes: Vec<u32> = (0..=self.rng.below(6)).map(|_| 1 + self.rng.below(1000) as u32).collect();
        let missing = if self.rng.below(4) == 0 { 0b10 } else { 0 };
        let (batch, packed) = self.open.batch(&sizes, missing);
        let (mut writes, mut expected) = (Vec::new(), Vec::new());
        for packed in packed {
            let key = *self.rng.pick(&KEYS);
            let etag = self.etag();
            let mut preconditions = always();
            let mut one = None;
            match self.rng.below(8) {
                0 => {
                    preconditions = Preconditions { if_none_match: Some(EtagSet::Any), ..always() };
                    one = self.objects.get(key).map(|_| TablesError::Precondition(PreconditionFailure::Failed));
                }
                1 => one = Some(TablesError::NoObjectLock),
                2 => one = Some(TablesError::NoSuchBucket),
                _ => {}
            }
            let mut object = object(&self.bucket, key, &etag, packed, preconditions);
            match &one {
                Some(TablesError::NoObjectLock) => {
                    object.row.lock = LockRow { legal_hold: Some(true), ..LockRow::default() };
                }
                Some(TablesError::NoSuchBucket) => object.bucket.id += 1,
                _ => {}
            }
            if one.is_none() {
                self.objects.insert(key, (etag, Some(packed)));
            }
            writes.push(PackedWrite::Object(Box::new(object)));
            expected.push(one);
        }
        let outcomes = self.tables.commit_packed(&batch, &writes).await;
        for (outcome, expected) in outcomes.into_iter().zip(expected) {
            match (outcome, expected) {
                (Ok(PackedDone::Object(_)), None) => {}
                (Err(error), Some(expected)) => assert_eq!(error, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn relocate(&mut self) {
        let Some((extent, _)) = self.some_extent().await else { return };
        let page = self.tables.packed_in(extent, 0, 100).await.unwrap();
        if page.is_empty() {
            return;
        }
        let (offset, owner) = self.rng.pick(&page).clone();
        let from = self.tables.packed_row(&owner).await.unwrap().unwrap();
        assert_eq!((from.extent, from.offset), (extent, offset));
        let (batch, to) = self.open.batch(&[from.size_bytes, from.size_bytes], 0);
        let wrong = PackedRow { offset: from.offset + 1, ..from };
        let nobody = PackedOwnerRow { key: "nobody".into(), ..owner.clone() };
        let writes = [
            PackedWrite::Move { owner: owner.clone(), from: wrong, to: to[1] },
            PackedWrite::Move { owner: nobody, from, to: to[1] },
            PackedWrite::Move { owner: owner.clone(), from, to: to[0] },
            PackedWrite::Move { owner, from, to: to[1] },
        ];
        let outcomes = self.tables.commit_packed(&batch, &writes).await;
        let moved: Vec<bool> =
            outcomes.into_iter().map(|outcome| matches!(outcome.unwrap(), PackedDone::Moved(true))).collect();
        assert_eq!(moved, [false, false, true, false]);
        for (_, at) in self.objects.values_mut().filter(|(_, at)| *at == Some(from)) {
            *at = Some(to[0]);
        }
    }

    async fn some_extent(&mut self) -> Option<(DataId, ExtentRow)> {
        let all = self.tables.extents(None, 100).await.unwrap();
        (!all.is_empty()).then(|| self.rng.pick(&all).clone())
    }

    async fn encode(&mut self) {
        let Some((extent, row)) = self.some_extent().await else { return };
        let size_bytes = match row.state {
            ExtentState::Sealed { length_bytes } => length_bytes,
            _ => 77,
        };
        let data = data_of(&self.tables, size_bytes).await;
        let is_sealed = matches!(row.state, ExtentState::Sealed { .. });
        assert_eq!(self.tables.encode_extent(extent, &data, 0).await.unwrap(), is_sealed);
        if !is_sealed {
            self.tables.abort_writes(&[data.data], 0).await.unwrap();
        }
    }

    async fn step(&mut self) {
        match self.rng.below(12) {
            0..4 => self.put_batch().await,
            4 => {
                let key = *self.rng.pick(&KEYS);
                let there = self.objects.remove(key).is_some();
                if self.versioned {
                    let pass = crate::tables::LockPass { now_unix_ms: NOW_MS, bypass_governance: false };
                    self.tables.delete(&self.bucket, key, None, &always(), pass, 0).await.unwrap();
                } else {
                    assert_eq!(self.tables.delete_object(&self.bucket, key, &always(), 0).await.unwrap(), there);
                }
            }
            5 => {
                let (key, etag) = (*self.rng.pick(&KEYS), self.etag());
                put(&self.tables, &self.bucket, key, &etag).await;
                self.objects.insert(key, (etag, None));
            }
            6 => self.relocate().await,
            7 => {
                let length_bytes = self.open.next_offset;
                assert!(!self.tables.seal_extent(self.open.extent, Some(499)).await.unwrap(), "its time runs on");
                assert!(self.tables.seal_extent(self.open.extent, Some(500)).await.unwrap());
                assert!(!self.tables.seal_extent(self.open.extent, None).await.unwrap());
                let row = self.tables.extent(self.open.extent).await.unwrap().unwrap();
                match row.state {
                    ExtentState::Sealed { length_bytes: sealed } => assert!(sealed <= length_bytes),
                    other => panic!("{other:?}"),
                }
                let (batch, packed) = self.open.batch(&[5], 0);
                let object = object(&self.bucket, "late", "e", packed[0], always());
                let late = self.tables.commit_packed(&batch, &[PackedWrite::Object(Box::new(object))]).await;
                assert_eq!(late, [Err(TablesError::WriteExpired { data: self.open.extent })]);
                self.open = Layer::open(&self.tables).await;
            }
            8 => self.encode().await,
            9 => {
                let Some((extent, row)) = self.some_extent().await else { return };
                let empty = self.tables.packed_in(extent, 0, 1).await.unwrap().is_empty();
                let can = empty && !matches!(row.state, ExtentState::Open { .. });
                assert_eq!(self.tables.drop_extent(extent, 0).await.unwrap(), can);
            }
            10 => {
                collect_all(&self.tables, NOW_MS - 1).await;
            }
            _ => {
                let Some((extent, _)) = self.some_extent().await else { return };
                if let Some((offset, _)) = self.tables.extent_batches(extent, 0, 1).await.unwrap().first() {
                    self.tables.batch_is_missing(extent, *offset, 0b100).await.unwrap();
                    let batches = self.tables.extent_batches(extent, *offset, 1).await.unwrap();
                    assert_ne!(batches[0].1.stripes[0].missing & 0b100, 0);
                }
            }
        }
    }

    async fn check(&self) {
        let states = Audit::of(&self.tables).await.states();
        for key in KEYS {
            let row = self.tables.object(self.bucket.id, key).await.unwrap();
            let expected = self.objects.get(key);
            assert_eq!(row.as_ref().map(|row| &row.etag), expected.map(|(etag, _)| etag));
            let Some((_, Some(packed))) = expected else { continue };
            assert_eq!(row.unwrap().layout, Layout::Packed(*packed));
            let place = self.tables.extent_place(packed).await.unwrap().unwrap();
            let data = match &place {
                ExtentPlace::Encoded(data) => data.data,
                ExtentPlace::Batch { offset, batch, .. } => {
                    let end = offset + batch.bytes();
                    assert!(*offset <= packed.offset && packed.end() <= end);
                    packed.extent
                }
            };
            assert_eq!(states[&data], State::Reachable);
        }
    }

    /// Deletes everything; nothing is left.
    async fn end(mut self) {
        for key in KEYS {
            self.objects.remove(key);
            self.tables.delete_object(&self.bucket, key, &always(), 0).await.unwrap();
        }
        self.check().await;
        self.tables.seal_extent(self.open.extent, None).await.unwrap();
        for (extent, _) in self.tables.extents(None, 1000).await.unwrap() {
            assert_eq!(self.tables.extent_live_bytes(extent).await.unwrap(), 0);
            assert!(self.tables.drop_extent(extent, 0).await.unwrap());
        }
        collect_all(&self.tables, NOW_MS).await;
        assert_eq!(Audit::of(&self.tables).await.letters(), "BC");
    }
}

async fn random(kv: Arc<dyn Kv>, seed: u64, steps: usize, versioned: bool) {
    let mut run = Run::new(kv, seed, versioned).await;
    for _ in 0..steps {
        run.step().await;
        run.check().await;
    }
    if !versioned {
        run.end().await;
    }
}

#[tokio::test]
async fn as_the_model_says() {
    for seed in 0..12 {
        random(mem(), seed, 60, false).await;
        random(mem(), 100 + seed, 60, true).await;
    }
}

#[tokio::test]
async fn as_the_model_says_whatever_the_store_does() {
    for seed in 0..6 {
        random(faulty(seed), seed, 40, false).await;
        random(faulty(100 + seed), 100 + seed, 40, true).await;
    }
}

#[tokio::test]
async fn as_the_model_says_on_disk() {
    let (kv, _directory) = fjall();
    random(kv, 7, 80, false).await;
}

/// A bucket with rules: each object tells its event, of its own cause, though they share a batch; also when the rules are
/// newer than what the writers saw of the bucket.
#[tokio::test]
async fn every_object_of_a_batch_tells_its_event() {
    let tables = Tables::new(mem());
    let before = bucket(&tables, "bucket").await;
    let rule = NotificationRule {
        id: "r".into(),
        kind: TargetKind::Queue,
        target: "arn".into(),
        events: vec!["s3:ObjectCreated:*".into()],
        prefix: None,
        suffix: None,
    };
    tables.put_notifications("bucket", &[rule], 1).await.unwrap();
    let after = tables.bucket("bucket").await.unwrap().unwrap();
    let mut open = Layer::open(&tables).await;
    for bucket in [before, after] {
        let (batch, packed) = open.batch(&[1; 7], 0);
        let write = |(i, packed): (usize, &PackedRow)| {
            let mut object = object(&bucket, &format!("k{i}"), "e", *packed, always());
            object.cause.principal = format!("p{i}");
            PackedWrite::Object(Box::new(object))
        };
        let writes: Vec<_> = packed.iter().enumerate().map(write).collect();
        assert!(tables.commit_packed(&batch, &writes).await.iter().all(Result::is_ok));
        let told = tables.events("arn", None, 100).await.unwrap();
        let told: BTreeSet<_> =
            told.into_iter().filter(|(_, row)| !row.key.is_empty()).map(|(_, row)| (row.key, row.principal)).collect();
        assert_eq!(told, (0..7).map(|i| (format!("k{i}"), format!("p{i}"))).collect());
    }
    assert_eq!(tables.events("arn", None, 100).await.unwrap().len(), 15, "and one that says that there are rules");
    Audit::of(&tables).await.states();
}

#[tokio::test]
async fn a_renamed_object_is_known_by_its_new_name() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "bucket").await;
    let mut open = Layer::open(&tables).await;
    let (batch, packed) = open.batch(&[5, 6], 0);
    let writes = ["old", "new"]
        .iter()
        .zip(&packed)
        .map(|(key, packed)| PackedWrite::Object(Box::new(object(&bucket, key, "e", *packed, always()))));
    let writes: Vec<_> = writes.collect();
    assert!(tables.commit_packed(&batch, &writes).await.iter().all(Result::is_ok));
    let rename = Rename {
        bucket: &bucket,
        source: "old",
        destination: "new",
        source_condition: &|_| Ok(()),
        destination_condition: &|_| Ok(()),
        token: None,
        now_unix_ms: 1,
        garbage_not_before_unix_ms: 0,
    };
    assert!(matches!(tables.rename_object(&rename).await.unwrap(), Renamed::Done { .. }));
    Audit::of(&tables).await.states();
    assert_eq!(tables.extent_live_bytes(open.extent).await.unwrap(), 5);
    let owners = tables.packed_in(open.extent, 0, 10).await.unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(tables.packed_row(&owners[0].1).await.unwrap(), Some(packed[0]));
    assert_eq!(owners[0].1.key, "new");
}

/// Whoever keeps what is stored meets an extent's batches, or the run that took their place, and may move their shards.
#[tokio::test]
async fn extents_are_walked_and_their_shards_moved() {
    let tables = Tables::new(faulty(4));
    let bucket = bucket(&tables, "bucket").await;
    let mut open = Layer::open(&tables).await;
    for i in 0..3 {
        let (batch, packed) = open.batch(&[5], 0b1);
        let object = object(&bucket, &format!("k{i}"), "e", packed[0], always());
        assert!(tables.commit_packed(&batch, &[PackedWrite::Object(Box::new(object))]).await[0].is_ok());
    }
    let walk = async || {
        let (mut runs, mut pending, mut place) = (Vec::new(), Vec::new(), Some(WalkPlace::default()));
        while let Some(at) = place {
            let page = tables.walk(&at).await.unwrap();
            runs.extend(page.runs);
            pending.extend(page.pending);
            place = page.next;
        }
        (runs, pending)
    };
    let (runs, pending) = walk().await;
    assert_eq!((runs.len(), pending), (3, vec![open.extent]));
    assert_eq!(tables.repair_queue(10).await.unwrap().len(), 3);
    for run in &runs {
        assert_eq!((run.data, run.code), (open.extent, Code::new(1, 2).unwrap()));
        let now = tables.run_now(&run.owner, run.data, run.code, run.manifest.first_stripe).await.unwrap();
        assert_eq!(now.as_ref(), Some(run));
        let mut manifest = run.manifest.clone();
        manifest.nodes[0] = NodeId(9);
        manifest.stripes[0].missing = 0;
        assert!(tables.change_run(run, &manifest).await.unwrap());
        assert!(!tables.change_run(run, &manifest).await.unwrap());
    }
    assert_eq!(tables.repair_queue(10).await.unwrap(), []);
    assert!(tables.extent(open.extent).await.unwrap().unwrap().nodes.contains(&NodeId(9)));
    tables.seal_extent(open.extent, None).await.unwrap();
    let data = data_of(&tables, 15).await;
    assert!(tables.encode_extent(open.extent, &data, 0).await.unwrap());
    let (runs, pending) = walk().await;
    assert_eq!((runs.len(), pending), (1, vec![]));
    assert_eq!(runs[0].data, data.data);
    let mut manifest = runs[0].manifest.clone();
    manifest.nodes[0] = NodeId(8);
    assert!(tables.change_run(&runs[0], &manifest).await.unwrap());
    let now = tables.run_now(&runs[0].owner, data.data, data.code, 0).await.unwrap().unwrap();
    assert_eq!(now.manifest, manifest);
    assert_eq!(tables.has_unknown_tables().await.unwrap(), None);
    // Its garbage is where its shards were brought, too.
    let garbage = tables.next_garbage(NOW_MS, 10).await.unwrap();
    assert!(garbage.iter().any(|(_, row)| row.data == open.extent && row.nodes.contains(&NodeId(9))));
    Audit::of(&tables).await.states();
}

#[tokio::test]
async fn a_group_that_is_too_large_for_one_transaction_is_several() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "bucket").await;
    let mut open = Layer::open(&tables).await;
    let (batch, packed) = open.batch(&[1; 64], 0);
    let writes: Vec<PackedWrite> = packed
        .iter()
        .enumerate()
        .map(|(i, packed)| {
            let mut object = object(&bucket, &format!("k{i}"), "e", *packed, always());
            let metadata = if i == 40 { 70 << 10 } else { 50 << 10 };
            object.row.headers.user_metadata = vec![("n".into(), "v".repeat(metadata))];
            PackedWrite::Object(Box::new(object))
        })
        .collect();
    let outcomes = tables.commit_packed(&batch, &writes).await;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(_) => assert_ne!(i, 40),
            Err(error) => assert!(matches!(error, TablesError::RowTooLarge { .. }) && i == 40, "{i}: {error}"),
        }
    }
    Audit::of(&tables).await.states();
    assert_eq!(tables.packed_in(open.extent, 0, 1000).await.unwrap().len(), 63);
}

/// Commits, moves, an encoding, a seal and a drop at the same time: whatever the order, nothing dangles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn races_have_one_winner() {
    for round in 0..40 {
        let tables = Tables::new(mem());
        let bucket = bucket(&tables, "bucket").await;
        let (mut old, mut new) = (Layer::open(&tables).await, Layer::open(&tables).await);
        let (batch, packed) = old.batch(&[10, 10], 0);
        let first = object(&bucket, "a", "e1", packed[0], always());
        let done = tables.commit_packed(&batch, &[PackedWrite::Object(Box::new(first))]).await;
        assert!(done[0].is_ok());
        let owner = tables.packed_in(old.extent, 0, 1).await.unwrap()[0].1.clone();
        let (moved, to) = new.batch(&[10], 0);
        let writes = vec![PackedWrite::Move { owner, from: packed[0], to: to[0] }];
        let (late, late_packed) = old.batch(&[10], 0);
        let late_object = object(&bucket, "b", "e2", late_packed[0], always());
        let data = DataId::random();
        tables.begin_writes(&[NewWrite { data, nodes: vec![], expires_unix_ms: 500 }]).await.unwrap();
        let run = |at: usize| {
            let (tables, bucket) = (tables.clone(), bucket.clone());
            let (moved, writes, late, extent) = (moved.clone(), writes.clone(), late.clone(), old.extent);
            let late_object = late_object.clone();
            tokio::spawn(async move {
                match at {
                    0 => drop(tables.commit_packed(&moved, &writes).await),
                    1 => {
                        let out = tables.commit_packed(&late, &[PackedWrite::Object(Box::new(late_object))]).await;
                        assert!(matches!(&out[0], Ok(_) | Err(TablesError::WriteExpired { .. })), "{out:?}");
                    }
                    2 => assert!(tables.seal_extent(extent, None).await.unwrap()),
                    3 => drop(tables.drop_extent(extent, 0).await.unwrap()),
                    _ => drop(tables.delete_object(&bucket, "a", &always(), 0).await.unwrap()),
                }
            })
        };
        let mut order: Vec<usize> = (0..5).collect();
        order.rotate_left(round % 5);
        let tasks: Vec<_> = order.into_iter().map(run).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let states = Audit::of(&tables).await.states();
        assert!(tables.object(bucket.id, "a").await.unwrap().is_none());
        let live: BTreeSet<State> = states.values().copied().collect();
        assert!(live.contains(&State::Reachable));
        while tables.drop_extent(old.extent, 0).await.unwrap() {}
        if let Some(row) = tables.object(bucket.id, "b").await.unwrap() {
            let Layout::Packed(packed) = row.layout else { panic!("{row:?}") };
            assert!(tables.extent_place(&packed).await.unwrap().is_some(), "an object whose extent was dropped");
        }
        Audit::of(&tables).await.states();
    }
}
