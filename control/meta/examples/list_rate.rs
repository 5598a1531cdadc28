//! What listing costs at scale: `list_rate [KEYS] [FOLDER]` fills a bucket with KEYS keys (10,000,000 unless told) in
//! 1,000 folders, on fjall, and lists it: page after page, and by common prefixes. CPU time is this process's.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::sync::Arc;
use std::time::Instant;

use penstock_meta::kv::FjallKv;
use penstock_meta::tables::{HeadersRow, Layout, LockRow, ObjectRow, Preconditions, Tables, VersionRow};

const FOLDERS: usize = 1000;
const WRITERS: usize = 512;
/// Listings by common prefix of one round: CPU time is counted in hundredths of a second.
const LISTINGS: usize = 20;

fn row() -> ObjectRow {
    ObjectRow {
        size_bytes: 4096,
        etag: "900150983cd24fb0d6963f7d28e17f72".to_owned(),
        modified_unix_ms: 1_700_000_000_000,
        storage_class: "STANDARD".to_owned(),
        checksum: None,
        parts: None,
        version: VersionRow::default(),
        headers: HeadersRow::default(),
        tags: Vec::new(),
        lock: LockRow::default(),
        encryption: None,
        upload_id: None,
        layout: Layout::Empty,
    }
}

fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let keys: usize = arguments.next().map_or(10_000_000, |text| text.parse().expect("a number of keys"));
    let kept = arguments.next();
    let made = tempfile::tempdir().unwrap();
    let folder = kept.as_ref().map_or_else(|| made.path().to_owned(), Into::into);
    let tables = Arc::new(Tables::new(Arc::new(FjallKv::open(&folder).unwrap())));
    let bucket = match tables.bucket("bucket").await.unwrap() {
        Some(bucket) => bucket,
        None => {
            let bucket = tables.create_bucket("bucket", "", 1).await.unwrap();
            let started = Instant::now();
            let writers = (0..WRITERS).map(|writer| {
                let (tables, bucket) = (tables.clone(), bucket.clone());
                tokio::spawn(async move {
                    for number in (writer..keys).step_by(WRITERS) {
                        let key = format!("data/{:04}/{:08}.jpg", number % FOLDERS, number / FOLDERS);
                        tables.commit_object(&bucket, &key, row(), &Preconditions::default(), 0).await.unwrap();
                    }
                })
            });
            for writer in writers.collect::<Vec<_>>() {
                writer.await.unwrap();
            }
            println!("{keys} keys put, {:.0} a second", keys as f64 / started.elapsed().as_secs_f64());
            bucket
        }
    };
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let (mut after, mut listed) = (String::new(), 0);
    loop {
        let page = tables.list_objects(bucket.id, "data/", "", &after, 1000).await.unwrap();
        listed += page.rows.len();
        match page.next_after {
            Some(next) if listed < 2_000_000 => after = next,
            _ => break,
        }
    }
    let (seconds, used) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{listed} keys listed, {:.0} a second, {:.3} CPU s per million",
        listed as f64 / seconds,
        used / listed as f64 * 1e6
    );
    for round in 0..3 {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut prefixes = 0;
        for _ in 0..LISTINGS {
            prefixes += tables.list_objects(bucket.id, "data/", "/", "", 1000).await.unwrap().prefixes.len();
        }
        let (micros, used) = (started.elapsed().as_micros(), cpu_seconds() - cpu);
        println!(
            "{} common prefixes in {} us, {:.1} CPU us each (round {round})",
            prefixes / LISTINGS,
            micros / LISTINGS as u128,
            used / prefixes as f64 * 1e6
        );
    }
}
