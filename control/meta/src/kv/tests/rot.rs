//! Bit rot in the files of a closed store: opened again, it either refuses or returns what is right. It never returns a
//! wrong value, never drops an acknowledged row in silence, never brings a deleted one back.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Leaves what must be there beside the damaged store, for the child.
fn save_model(directory: &Path, model: &Rows) {
    let lines = model.iter().map(|(key, value)| format!("{} {} {}\n", key.escape_ascii(), value.len(), value[0]));
    std::fs::write(directory.with_extension("model"), lines.collect::<String>()).unwrap();
}

/// The values of [`build`] are one byte, repeated.
fn load_model(directory: &Path) -> Rows {
    let lines = std::fs::read_to_string(directory.with_extension("model")).unwrap();
    lines
        .lines()
        .map(|line| {
            let [key, length, byte] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            (key.as_bytes().to_vec(), vec![byte.parse().unwrap(); length.parse().unwrap()])
        })
        .collect()
}

/// What became of the flips.
#[derive(Debug, Default)]
struct Tally {
    /// The open failed with an error.
    refused: u32,
    /// The open ended the process: some of fjall's assertions about its manifest panic, and then panic again while
    /// cleaning up, which aborts. Loud, hence no wrong answer, but no error either.
    aborted: u32,
    /// A read named the damaged row.
    corrupt: u32,
    /// Every answer was right.
    unharmed: u32,
}

/// Reads everything there is in every way there is. Panics on a wrong answer.
async fn examine(directory: &Path, model: &Rows) -> &'static str {
    let kv = match FjallKv::open(directory) {
        Ok(kv) => kv,
        Err(KvError::Engine(_) | KvError::Corrupt { .. }) => return "refused",
        Err(other) => panic!("{other}"),
    };
    let mut verdict = "unharmed";
    let mut txn = kv.begin().await.unwrap();
    for row in 0..200 {
        let key = format!("row/{row:03}").into_bytes();
        match txn.get(&key).await {
            Ok(value) => assert_eq!(value.as_deref(), model.get(&key).map(Vec::as_slice), "row {row}"),
            Err(KvError::Corrupt { key: named, .. }) => {
                assert_eq!(named, key);
                verdict = "corrupt";
            }
            Err(other) => panic!("row {row}: {other}"),
        }
    }
    for range in [RangeRead::prefix(b"row/"), RangeRead::prefix(b"row/").reversed()] {
        let reverse = range.reverse;
        match read_all(&mut *txn, range).await {
            Ok(mut rows) => {
                if reverse {
                    rows.reverse();
                }
                assert!(rows.into_iter().eq(model.clone()), "a scan went wrong in silence");
            }
            Err(KvError::Corrupt { .. }) => verdict = "corrupt",
            Err(other) => panic!("scan: {other}"),
        }
    }
    verdict
}

const CHILD_DIRECTORY: &str = "PENSTOCK_TEST_KV_ROT_DIRECTORY";

/// Examines one damaged store in a process of its own, which may abort. Run by the tests below only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of the tests below"]
async fn child_examines() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    println!("\nverdict {}", examine(directory, &load_model(directory)).await);
}

fn examine_in_child(directory: &Path) -> Result<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kv::tests::rot::child_examines", "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(verdict) = stdout.lines().find_map(|line| line.strip_prefix("verdict ")) {
        return Ok(verdict.into());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let aborted = output.status.signal() == Some(SIGABRT) && stderr.contains("/fjall-");
    if aborted { Ok("aborted".into()) } else { Err(format!("{stdout}{stderr}")) }
}

/// Signal 6 on every Linux.
const SIGABRT: i32 = 6;

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
    save_model(&sound, &model);
    assert_eq!(load_model(&sound), model);
    assert_eq!(examine_in_child(&sound).unwrap(), "unharmed");
    let mut random = SplitMix::new(seed);
    let mut tally = Tally::default();
    save_model(&directory.path().join("rotten"), &model);
    let candidates: Vec<usize> = (0..files.len()).filter(|at| !files[*at].content.is_empty()).collect();
    for flip in 0..count {
        let file = candidates[random.below(candidates.len() as u64) as usize];
        let bit = random.below(files[file].content.len() as u64 * 8) as usize;
        let rotten = directory.path().join("rotten");
        files[file].content[bit / 8] ^= 1 << (bit % 8);
        restore(&rotten, &files);
        files[file].content[bit / 8] ^= 1 << (bit % 8);
        let what = format!("seed {seed}, flip {flip}: bit {bit} of {}", files[file].path.display());
        match examine_in_child(&rotten) {
            Ok(verdict) => match verdict.as_str() {
                "refused" => tally.refused += 1,
                "aborted" => tally.aborted += 1,
                "corrupt" => tally.corrupt += 1,
                _ => tally.unharmed += 1,
            },
            Err(wrong) => panic!("{what}: {wrong}"),
        }
        std::fs::remove_dir_all(&rotten).unwrap();
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_never_served_and_never_lose_rows_in_silence() {
    let tally = flips(5, 60).await;
    println!("{tally:?}");
    assert!(tally.refused > 0 && tally.unharmed > 0, "the flips hit something and not everything: {tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: cargo test many_flipped_bits -- --ignored"]
async fn many_flipped_bits() {
    println!("{:?}", flips(6, 1500).await);
}

/// Changes one raw entry of a closed store behind our back.
fn tamper(directory: &Path, change: impl FnOnce(&fjall::Keyspace)) {
    let database = fjall::Database::builder(directory.join("rows")).open().unwrap();
    change(&database.keyspace("rows", fjall::KeyspaceCreateOptions::default).unwrap());
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

#[tokio::test]
async fn canary_what_fjall_would_return_in_good_faith_is_caught_by_the_rows_own_checksum() {
    let directory = tempfile::tempdir().unwrap();
    build(directory.path()).await;
    tamper(directory.path(), |rows| {
        let one = rows.get("row/001").unwrap().unwrap();
        rows.insert("row/000", one).unwrap(); // a sound value under another key
    });
    let kv = FjallKv::open(directory.path()).unwrap();
    let mut txn = kv.begin().await.unwrap();
    let named = |error| matches!(error, KvError::Corrupt { key, .. } if key == b"row/000");
    assert!(named(txn.get(b"row/000").await.unwrap_err()));
    assert!(named(txn.get_range(RangeRead::prefix(b"row/")).await.unwrap_err()));
    assert!(txn.get(b"row/001").await.unwrap().is_some(), "the others can be read");
}

#[tokio::test]
async fn a_hole_in_the_sequence_of_batches_is_refused() {
    for hole in [1u64, 30, 59] {
        let directory = tempfile::tempdir().unwrap();
        build(directory.path()).await;
        drop(FjallKv::open(directory.path()).unwrap());
        tamper(directory.path(), |rows| rows.remove(crate::kv::disk::ring_key(hole).as_ref()).unwrap());
        let refused = FjallKv::open(directory.path()).err().unwrap().to_string();
        assert!(refused.contains("acknowledged commits are lost"), "{refused}");
    }
}
