//! Bit rot in the files of a closed store: opened again, it either refuses or returns what is right. It never returns a
//! wrong value, never drops an acknowledged row in silence, never brings a deleted one back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::read_all;
use crate::kv::random::SplitMix;
use crate::kv::{FjallKv, Kv, KvError, RangeRead, transact};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A file of the store: the rest up to `bytes_total` is zeros (fjall preallocates its log).
struct File {
    path: PathBuf,
    content: Vec<u8>,
    bytes_total: u64,
}

fn load(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            load(root, &path, files);
        } else {
            let mut content = std::fs::read(&path).unwrap();
            let bytes_total = content.len() as u64;
            content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            files.push(File { path: path.strip_prefix(root).unwrap().to_owned(), content, bytes_total });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
}

fn restore(root: &Path, files: &[File]) {
    for file in files {
        let path = root.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &file.content).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(file.bytes_total).unwrap();
    }
}

/// A small store with rows in tables, in the log and in both; overwritten and deleted ones among them.
async fn build(directory: &Path) -> Rows {
    let kv = FjallKv::open(directory).unwrap();
    let mut model = Rows::new();
    let mut random = SplitMix::new(11);
    for batch in 0..60u64 {
        let mut writes: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for _ in 0..8 {
            let key = format!("row/{:03}", random.below(200)).into_bytes();
            let value = (random.below(4) > 0).then(|| vec![random.next() as u8; 20 + random.below(300) as usize]);
            writes.push((key, value));
        }
        let writes = &writes;
        transact::<_, KvError, _>(&kv, |txn| {
            Box::pin(async move {
                writes.iter().try_for_each(|(key, value)| match value {
                    Some(value) => txn.set(key, value),
                    None => txn.clear(key),
                })
            })
        })
        .await
        .unwrap();
        for (key, value) in writes.clone() {
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        if batch == 25 || batch == 40 {
            kv.flush_to_tables();
        }
    }
    kv.close().await.unwrap();
    model
}

#[derive(Debug, Default, PartialEq)]
struct Tally {
    refused: u32,
    corrupt_row_named: u32,
    unharmed: u32,
}

/// Reads everything there is in every way there is. Panics on a wrong answer.
async fn examine(directory: &Path, model: &Rows, what: &str) -> &'static str {
    let kv = match FjallKv::open(directory) {
        Ok(kv) => kv,
        Err(KvError::Engine(_) | KvError::Corrupt { .. }) => return "refused",
        Err(other) => panic!("{what}: {other}"),
    };
    let mut verdict = "unharmed";
    let mut txn = kv.begin().await.unwrap();
    for row in 0..200 {
        let key = format!("row/{row:03}").into_bytes();
        match txn.get(&key).await {
            Ok(value) => assert_eq!(value.as_deref(), model.get(&key).map(Vec::as_slice), "{what}: row {row}"),
            Err(KvError::Corrupt { key: named, .. }) => {
                assert_eq!(named, key);
                verdict = "corrupt";
            }
            Err(other) => panic!("{what}: row {row}: {other}"),
        }
    }
    for range in [RangeRead::prefix(b"row/"), RangeRead::prefix(b"row/").reversed()] {
        let reverse = range.reverse;
        match read_all(&mut *txn, range).await {
            Ok(mut rows) => {
                if reverse {
                    rows.reverse();
                }
                assert!(rows.into_iter().eq(model.clone()), "{what}: a scan went wrong in silence");
            }
            Err(KvError::Corrupt { .. }) => verdict = "corrupt",
            Err(other) => panic!("{what}: scan: {other}"),
        }
    }
    verdict
}

async fn flips(seed: u64, count: u32) -> Tally {
    let directory = tempfile::tempdir().unwrap();
    let pristine = directory.path().join("pristine");
    let model = build(&pristine).await;
    assert!(model.len() > 100);
    let mut files = Vec::new();
    load(&pristine, &pristine, &mut files);
    assert!(files.iter().filter(|file| file.path.to_string_lossy().contains("tables")).count() >= 2, "rows in tables");
    let sound = directory.path().join("sound");
    restore(&sound, &files);
    assert_eq!(examine(&sound, &model, "no flip").await, "unharmed");
    let mut random = SplitMix::new(seed);
    let mut tally = Tally::default();
    let candidates: Vec<usize> = (0..files.len()).filter(|at| !files[*at].content.is_empty()).collect();
    for flip in 0..count {
        let file = candidates[random.below(candidates.len() as u64) as usize];
        let bit = random.below(files[file].content.len() as u64 * 8) as usize;
        let rotten = directory.path().join("rotten");
        files[file].content[bit / 8] ^= 1 << (bit % 8);
        restore(&rotten, &files);
        files[file].content[bit / 8] ^= 1 << (bit % 8);
        let what = format!("seed {seed}, flip {flip}: bit {bit} of {}", files[file].path.display());
        match examine(&rotten, &model, &what).await {
            "refused" => tally.refused += 1,
            "corrupt" => tally.corrupt_row_named += 1,
            _ => tally.unharmed += 1,
        }
        std::fs::remove_dir_all(&rotten).unwrap();
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_never_served_and_never_lose_rows_in_silence() {
    let tally = flips(5, 60).await;
    println!("{tally:?}");
    assert!(tally.refused > 0, "some damage is found at open: {tally:?}");
    assert_eq!(tally.refused + tally.corrupt_row_named + tally.unharmed, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: cargo test -- --ignored many_flipped_bits"]
async fn many_flipped_bits() {
    println!("{:?}", flips(6, 1500).await);
}
