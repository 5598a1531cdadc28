//! What the tests share: stores, rows that make sense, random numbers from a seed.

use std::sync::Arc;

use penstock_proto::{Code, DataId, MapEpoch, NodeId};

use crate::kv::{FaultPlan, FaultyKv, FjallKv, Kv, MemKv};
use crate::tables::{
    BucketRow, DataRow, HeadersRow, Layout, LockRow, MANIFEST_STRIPES_MAX, ManifestPlace, ManifestRow, NewWrite,
    ObjectRow, PartRow, Preconditions, Result, StripeRow, Tables, VersionRow,
};

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

pub(super) fn mem() -> Arc<dyn Kv> {
    Arc::new(MemKv::new())
}

pub(super) fn faulty(seed: u64) -> Arc<dyn Kv> {
    Arc::new(FaultyKv::new(mem(), FaultPlan::lively(seed)))
}

/// A store on disk and its directory, which goes with it.
pub(super) fn fjall() -> (Arc<dyn Kv>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Arc::new(FjallKv::open(directory.path()).unwrap()), directory)
}

pub(super) fn always() -> Preconditions {
    Preconditions::default()
}

/// A manifest of `stripes` stripes from `first_stripe` on three nodes; stripe 1 lacks shard 2.
pub(super) fn manifest(first_stripe: usize, stripes: usize) -> ManifestRow {
    let stripe = |at: usize| StripeRow {
        chunk_bytes: 4 << 20,
        missing: if at == 1 { 0b100 } else { 0 },
        shard_crc64s: vec![0x0102_0304_0506_0708; 3],
    };
    ManifestRow {
        first_stripe: first_stripe as u32,
        nodes: vec![NodeId(3), NodeId(1), NodeId(2)],
        stripes: (first_stripe..first_stripe + stripes).map(stripe).collect(),
    }
}

/// Data of `stripes` stripes: inline if they fit one row, else with the rows to put.
pub(super) fn data_row(data: DataId, stripes: usize) -> (DataRow, Vec<ManifestRow>) {
    let rows: Vec<ManifestRow> = (0..stripes)
        .step_by(MANIFEST_STRIPES_MAX)
        .map(|first| manifest(first, (stripes - first).min(MANIFEST_STRIPES_MAX)))
        .collect();
    let (manifest, rows) = match rows.len() {
        1 => (ManifestPlace::Inline(rows[0].clone()), Vec::new()),
        count => (ManifestPlace::Rows { count: count as u32 }, rows),
    };
    let row = DataRow {
        data,
        size_bytes: (stripes as u64) << 22,
        chunk_bytes: 4 << 20,
        code: Code::new(2, 1).unwrap(),
        epoch: MapEpoch(1),
        crc64: 0x1122_3344_5566_7788,
        manifest,
    };
    (row, rows)
}

pub(super) fn object_row(etag: &str, layout: Layout) -> ObjectRow {
    ObjectRow {
        size_bytes: match &layout {
            Layout::Single(data) => data.size_bytes,
            Layout::Packed(packed) => u64::from(packed.size_bytes),
            _ => 0,
        },
        etag: etag.to_owned(),
        modified_unix_ms: 1_700_000_000_000,
        storage_class: "STANDARD".into(),
        checksum: None,
        parts: None,
        version: VersionRow::default(),
        headers: HeadersRow::default(),
        tags: Vec::new(),
        lock: LockRow::default(),
        encryption: None,
        upload_id: None,
        layout,
    }
}

pub(super) fn part_row(number: u32, data: Option<DataRow>) -> PartRow {
    PartRow {
        number,
        size_bytes: data.as_ref().map_or(0, |data| data.size_bytes),
        md5: [number as u8; 16],
        modified_unix_ms: 1_700_000_000_000,
        checksum: None,
        data,
    }
}

pub(super) async fn bucket(tables: &Tables, name: &str) -> BucketRow {
    tables.create_bucket(name, "", 1).await.unwrap()
}

/// Registers fresh data and writes its manifest rows.
pub(super) async fn begin(tables: &Tables, stripes: usize, expires_unix_ms: u64) -> Result<DataRow> {
    let data = DataId::random();
    tables.begin_writes(&[NewWrite { data, nodes: vec![NodeId(1)], expires_unix_ms }]).await?;
    let (row, manifests) = data_row(data, stripes);
    tables.put_manifests(data, row.code, &manifests).await?;
    Ok(row)
}

/// Puts an object of one stripe.
pub(super) async fn put(tables: &Tables, bucket: &BucketRow, key: &str, etag: &str) -> DataId {
    let data = begin(tables, 1, 1000).await.unwrap();
    let id = data.data;
    tables.commit_object(bucket, key, object_row(etag, Layout::Single(data)), &always(), 0).await.unwrap();
    id
}

/// Collects until nothing comes; what was collected.
pub(super) async fn collect_all(tables: &Tables, now_unix_ms: u64) -> Vec<DataId> {
    let mut out = Vec::new();
    for _ in 0..10_000 {
        let batch = tables.next_garbage(now_unix_ms, 100).await.unwrap();
        if batch.is_empty() {
            return out;
        }
        for (token, row) in batch {
            tables.finish_garbage(&token).await.unwrap();
            out.push(row.data);
        }
    }
    panic!("garbage does not end");
}
