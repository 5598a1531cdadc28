//! Listings against a model that rolls up the whole bucket first and cuts the page out of it afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::support::{Rng, always, bucket, faulty, fjall, mem, object_row};
use crate::kv::Kv;
use crate::tables::{BucketRow, Layout, ListPage, NewUpload, Tables};

/// A key or a common prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Key(String),
    Prefix(String),
}

impl Line {
    fn text(&self) -> &str {
        let (Self::Key(text) | Self::Prefix(text)) = self;
        text
    }
}

/// Everything that a listing without `after` and `max` shows.
fn all_lines(keys: &BTreeSet<String>, prefix: &str, delimiter: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let line = match if delimiter.is_empty() { None } else { rest.split_once(delimiter) } {
            Some((head, _)) => Line::Prefix(format!("{prefix}{head}{delimiter}")),
            None => Line::Key(key.clone()),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The page that S3 gives: keys after `after`; common prefixes that have a key after `after`, unless `after` is the prefix.
fn model(
    keys: &BTreeSet<String>,
    prefix: &str,
    delimiter: &str,
    after: &str,
    max: usize,
) -> (Vec<Line>, Option<String>) {
    let shown = |line: &Line| match line {
        Line::Key(key) => key.as_str() > after,
        Line::Prefix(prefix) => {
            prefix != after && keys.iter().any(|key| key.starts_with(prefix) && key.as_str() > after)
        }
    };
    let lines: Vec<Line> = all_lines(keys, prefix, delimiter).into_iter().filter(shown).collect();
    let page: Vec<Line> = lines.iter().take(max).cloned().collect();
    let next = (max > 0 && lines.len() > max).then(|| page.last().unwrap().text().to_owned());
    (page, next)
}

fn lines_of(page: &ListPage) -> Vec<Line> {
    let mut lines: Vec<Line> = page.rows.iter().map(|(key, _)| Line::Key(key.clone())).collect();
    assert!(page.rows.is_sorted_by(|a, b| a.0 < b.0) && page.prefixes.is_sorted_by(|a, b| a < b));
    lines.extend(page.prefixes.iter().cloned().map(Line::Prefix));
    lines.sort_by(|a, b| a.text().as_bytes().cmp(b.text().as_bytes()));
    lines
}

/// Letters that are close to each other, to delimiters, and to the ends of what UTF-8 has.
const LETTERS: [&str; 12] =
    ["a", "b", "/", "/", "//", "ab", "\0", "\u{1}", "\u{7f}", "\u{e9}", "\u{ffff}", "\u{10ffff}"];
const DELIMITERS: [&str; 8] = ["", "/", "/", "//", "a", "ab", "\u{10ffff}", "\0"];

fn text(rng: &mut Rng, letters_max: usize) -> String {
    (0..rng.below(letters_max + 1)).map(|_| *rng.pick(&LETTERS)).collect()
}

async fn fill(tables: &Tables, bucket: &BucketRow, keys: impl IntoIterator<Item = &String>) {
    for key in keys {
        tables.commit_object(bucket, key, object_row(key, Layout::Empty), &always(), 0).await.unwrap();
    }
}

async fn against_the_model(kv: Arc<dyn Kv>, seed: u64, keys: usize, queries: usize) {
    let tables = Tables::new(kv);
    let (bucket, other) = (bucket(&tables, "one").await, bucket(&tables, "other").await);
    let mut rng = Rng(seed);
    let keys: BTreeSet<String> = (0..keys).map(|_| text(&mut rng, 6)).filter(|key| !key.is_empty()).collect();
    fill(&tables, &bucket, &keys).await;
    // What must not be seen.
    fill(&tables, &other, &["a/never".to_owned(), "\0never".to_owned(), "\u{10ffff}never".to_owned()]).await;
    for _ in 0..queries {
        let prefix = text(&mut rng, 2);
        let delimiter = *rng.pick(&DELIMITERS);
        let lines = all_lines(&keys, &prefix, delimiter);
        let after = match rng.below(4) {
            0 => String::new(),
            1 if !lines.is_empty() => rng.pick(&lines).text().to_owned(),
            2 => keys.iter().nth(rng.below(keys.len())).unwrap().clone(),
            _ => text(&mut rng, 4),
        };
        let max = *rng.pick(&[0, 1, 2, 3, 5, 20, lines.len(), 1000]);
        let page = tables.list_objects(bucket.id, &prefix, delimiter, &after, max).await.unwrap();
        let case = format!("{prefix:?} {delimiter:?} {after:?} {max}");
        assert_eq!((lines_of(&page), page.next_after.clone()), model(&keys, &prefix, delimiter, &after, max), "{case}");
        assert!(page.rows.iter().all(|(key, row)| row.etag == *key), "{case}");
    }
    for _ in 0..queries / 20 {
        let (prefix, delimiter) = (text(&mut rng, 1), *rng.pick(&DELIMITERS));
        let lines = all_lines(&keys, &prefix, delimiter);
        let max = 1 + rng.below(7);
        let (mut seen, mut pages, mut after) = (Vec::new(), 0, String::new());
        loop {
            let page = tables.list_objects(bucket.id, &prefix, delimiter, &after, max).await.unwrap();
            seen.extend(lines_of(&page));
            pages += 1;
            match page.next_after {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, lines, "pages of {max} of {prefix:?} {delimiter:?}");
        assert_eq!(pages, lines.len().div_ceil(max).max(1), "no page too many");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_listings_on_mem() {
    for seed in 0..8 {
        against_the_model(mem(), seed, 150, 300).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_listings_on_a_store_that_returns_short_ranges() {
    against_the_model(faulty(11), 11, 120, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_listings_on_fjall() {
    let (kv, _directory) = fjall();
    against_the_model(kv, 12, 100, 300).await;
}

#[tokio::test]
async fn long_runs_are_read_in_batches_and_seeked_past() {
    let tables = Tables::new(mem());
    let bucket = bucket(&tables, "one").await;
    let keys: BTreeSet<String> =
        (0..700).map(|n| format!("d{}/{n:04}", n % 3)).chain((0..700).map(|n| format!("k{n:04}"))).collect();
    fill(&tables, &bucket, &keys).await;
    for (prefix, delimiter, max) in [("", "", 1000), ("", "/", 1000), ("", "/", 3), ("d", "/", 3), ("k", "/", 700)] {
        let page = tables.list_objects(bucket.id, prefix, delimiter, "", max).await.unwrap();
        assert_eq!((lines_of(&page), page.next_after.clone()), model(&keys, prefix, delimiter, "", max));
    }
}

#[tokio::test]
async fn uploads_are_listed_by_key_then_time_and_paged_by_both_markers() {
    let tables = Tables::new(faulty(13));
    let bucket = bucket(&tables, "one").await;
    let mut rng = Rng(13);
    let mut all = Vec::new();
    for _ in 0..60 {
        let key = ["a", "a\0", "a/b", "a/c", "b", "\u{10ffff}"][rng.below(6)].to_owned();
        let initiated = 1000 + rng.below(5) as u64;
        let new = NewUpload { key: key.clone(), checksum: Some((2, true)), ..NewUpload::default() };
        all.push((key, initiated, tables.create_upload(&bucket, new, initiated).await.unwrap().upload_id));
    }
    all.sort();
    for max in [1, 2, 7, 60, 100] {
        let (mut seen, mut marker, mut pages) = (Vec::new(), (String::new(), String::new()), 0);
        loop {
            let page = tables.list_uploads(bucket.id, "", "", &marker.0, &marker.1, max).await.unwrap();
            seen.extend(page.uploads.into_iter().map(|one| (one.key, one.initiated_unix_ms, one.upload_id)));
            pages += 1;
            match page.next {
                Some(next) => marker = next,
                None => break,
            }
        }
        assert_eq!(seen, all);
        assert_eq!(pages, 60_usize.div_ceil(max));
    }
    // A key marker alone skips that key's uploads; keys that begin with it are not skipped.
    let page = tables.list_uploads(bucket.id, "", "", "a", "", 100).await.unwrap();
    let rest: Vec<_> = all.iter().filter(|(key, ..)| key.as_str() > "a").map(|(.., id)| id.clone()).collect();
    assert_eq!(page.uploads.into_iter().map(|one| one.upload_id).collect::<Vec<_>>(), rest);
    // An id that is none counts as none; one of an upload that is gone still has its place.
    let page = tables.list_uploads(bucket.id, "", "", "a", "nonsense", 100).await.unwrap();
    assert_eq!(page.uploads.len(), rest.len());
    let of_a: Vec<_> = all.iter().filter(|(key, ..)| key == "a").collect();
    tables.abort_upload(bucket.id, "a", &of_a[0].2, 0).await.unwrap();
    let page = tables.list_uploads(bucket.id, "a", "", "a", &of_a[0].2, 100).await.unwrap();
    assert_eq!(page.uploads[0].upload_id, of_a[1].2);
    // Common prefixes.
    let page = tables.list_uploads(bucket.id, "", "/", "", "", 1000).await.unwrap();
    assert_eq!(page.prefixes, ["a/"]);
    assert!(page.uploads.iter().all(|one| !one.key.contains('/') && one.checksum == Some((2, true))));
    let page = tables.list_uploads(bucket.id, "", "/", "a/", "", 1000).await.unwrap();
    assert!(page.prefixes.is_empty() && page.uploads[0].key == "b");
    assert_eq!(tables.list_uploads(bucket.id, "", "", "", "", 0).await.unwrap(), Default::default());
}

#[tokio::test]
async fn buckets_are_paged_by_name() {
    let tables = Tables::new(faulty(14));
    for name in ["ccc", "aaa", "bbb", "aab"] {
        bucket(&tables, name).await;
    }
    let names = |(rows, more): (Vec<BucketRow>, bool)| (rows.into_iter().map(|row| row.name).collect::<Vec<_>>(), more);
    let list = async |prefix, after, max| names(tables.list_buckets(prefix, after, max).await.unwrap());
    let s = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(list("", None, 10).await, (s(&["aaa", "aab", "bbb", "ccc"]), false));
    assert_eq!(list("", None, 4).await, (s(&["aaa", "aab", "bbb", "ccc"]), false));
    assert_eq!(list("", None, 3).await, (s(&["aaa", "aab", "bbb"]), true));
    assert_eq!(list("", Some("aab"), 1).await, (s(&["bbb"]), true));
    assert_eq!(list("aa", Some("a"), 10).await, (s(&["aaa", "aab"]), false));
    assert_eq!(list("aa", Some("aab"), 10).await, (s(&[]), false));
    assert_eq!(list("", None, 0).await, (s(&[]), false));
    assert_eq!(list("", None, usize::MAX).await.0.len(), 4);
}
