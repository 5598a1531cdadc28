//! Listings: a page is a range read, a common prefix a seek past it.
//!
//! One transaction reads a page, so a page is the bucket at one moment. Values are decoded only for what the page shows,
//! and of those only the fields that it shows.

use super::keys::{self, UploadKey};
use super::rollup::{Rollup, Start};
use super::rows::{decode, decode_listed};
use super::{ListedRow, Result, Tables, TablesError, UploadRow};
use crate::kv::{RangeRead, Transaction};

/// Rows of the first read where common prefixes may follow: little is thrown away when a seek comes.
const SEEK_ROWS: usize = 16;
/// Fewest rows of the read behind a seek. It grows to twice what the last read had to show: folders of many keys cost two
/// rows each, folders of one key as little as keys do.
const SEEK_ROWS_MIN: usize = 2;
/// Rows of the longest read.
const BATCH_ROWS_MAX: usize = 512;

/// A page of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Keys and what a listing shows of them, ascending.
    pub rows: Vec<(String, ListedRow)>,
    /// Common prefixes, ascending.
    pub prefixes: Vec<String>,
    /// The last key or common prefix of this page, to go on after; `None` if nothing follows.
    pub next_after: Option<String>,
}

/// One open upload of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    /// Its key.
    pub key: String,
    /// Its id.
    pub upload_id: String,
    /// When it was begun.
    pub initiated_unix_ms: u64,
    /// `STANDARD`.
    pub storage_class: String,
    /// Algorithm of its checksums and whether the object's will be composite.
    pub checksum: Option<(u8, bool)>,
}

/// A page of open uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsPage {
    /// By key, then by when they were begun.
    pub uploads: Vec<ListedUpload>,
    /// Common prefixes, ascending.
    pub prefixes: Vec<String>,
    /// Key marker and id marker of the next page (the id is empty after a common prefix); `None` if nothing follows.
    pub next: Option<(String, String)>,
}

impl Tables {
    /// A page of a bucket's objects: of those whose keys start with `prefix`, what comes after `after` (empty: all), rolled
    /// up at the first `delimiter` (empty: none) behind the prefix. At most `max` keys and common prefixes together.
    ///
    /// If `after` is a common prefix of this listing, everything under it is skipped; if it lies inside one, the keys that
    /// follow it there still roll up to it. A page of `max` 0 is empty and the last.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_objects(
        &self,
        bucket_id: u64,
        prefix: &str,
        delimiter: &str,
        after: &str,
        max: usize,
    ) -> Result<ListPage> {
        let rollup = Rollup { prefix, delimiter };
        let Some(start) = rollup.start(after) else { return Ok(ListPage::default()) };
        let base = keys::objects(bucket_id);
        let range = Range {
            begin: match start {
                Start::At(key) => [&base, key.as_bytes()].concat(),
                Start::After(key) => keys::after(&[&base, key.as_bytes()].concat()),
                Start::Past(key) => keys::past(&[&base, key.as_bytes()].concat()),
            },
            end: keys::past(&[&base, prefix.as_bytes()].concat()),
        };
        let page = transaction!(self, |txn, range, base| {
            range
                .read(
                    txn,
                    rollup,
                    max,
                    |key| Some((String::from_utf8(key[base.len()..].to_vec()).ok()?, ())),
                    |key| keys::past(&[base.as_slice(), key.as_bytes()].concat()),
                )
                .await
        })
        .await?;
        let mut out = ListPage { next_after: page.next().map(|(key, _)| key), ..ListPage::default() };
        for item in page.items {
            match item {
                Item::CommonPrefix(prefix) => out.prefixes.push(prefix),
                Item::Row { name, value, .. } => out.rows.push((name, decode_listed(&value)?)),
            }
        }
        Ok(out)
    }

    /// A page of a bucket's open uploads, by key, then by when they were begun. As [`Tables::list_objects`]; with
    /// `id_marker`, uploads of the key `key_marker` itself follow too, if they come after that upload.
    ///
    /// An `id_marker` that can't be an upload's id counts as none.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_uploads(
        &self,
        bucket_id: u64,
        prefix: &str,
        delimiter: &str,
        key_marker: &str,
        id_marker: &str,
        max: usize,
    ) -> Result<UploadsPage> {
        let rollup = Rollup { prefix, delimiter };
        let base = keys::uploads(bucket_id);
        let name_key = |name: &str| [base.as_slice(), &keys::shifted(name.as_bytes())].concat();
        let begin = match keys::upload_key(id_marker) {
            Some(upload) if !key_marker.is_empty() && key_marker.starts_with(prefix) => {
                keys::after(&[name_key(key_marker).as_slice(), &[0], &upload].concat())
            }
            _ => match rollup.start(key_marker) {
                None => return Ok(UploadsPage::default()),
                Some(Start::At(key)) => name_key(key),
                // Past the key's own uploads, which end in 0 and an id; longer keys go on with 1 at least.
                Some(Start::After(key)) => [name_key(key).as_slice(), &[1]].concat(),
                Some(Start::Past(key)) => keys::past(&name_key(key)),
            },
        };
        let range = Range { begin, end: keys::past(&name_key(prefix)) };
        let page = transaction!(self, |txn, range, base, name_key| {
            range
                .read(txn, rollup, max, |key| keys::parse_upload(&key[base.len()..]), |key| keys::past(&name_key(key)))
                .await
        })
        .await?;
        let next =
            page.next().map(|(key, upload)| (key, upload.map(|u: UploadKey| keys::upload_id(&u)).unwrap_or_default()));
        let mut out = UploadsPage { next, ..UploadsPage::default() };
        for item in page.items {
            match item {
                Item::CommonPrefix(prefix) => out.prefixes.push(prefix),
                Item::Row { value, .. } => {
                    let row: UploadRow = decode(&value)?;
                    out.uploads.push(ListedUpload {
                        key: row.key,
                        upload_id: row.upload_id,
                        initiated_unix_ms: row.initiated_unix_ms,
                        storage_class: row.storage_class,
                        checksum: row.checksum,
                    });
                }
            }
        }
        Ok(out)
    }
}

/// One line of a page.
enum Item<I> {
    Row { name: String, id: I, value: bytes::Bytes },
    CommonPrefix(String),
}

struct Page<I> {
    items: Vec<Item<I>>,
    more: bool,
}

impl<I: Copy> Page<I> {
    /// What the next page comes after.
    fn next(&self) -> Option<(String, Option<I>)> {
        match self.items.last() {
            Some(Item::Row { name, id, .. }) if self.more => Some((name.clone(), Some(*id))),
            Some(Item::CommonPrefix(prefix)) if self.more => Some((prefix.clone(), None)),
            _ => None,
        }
    }
}

/// The rows of one table that a listing may show.
struct Range {
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl Range {
    /// Reads a page of at most `max` items. `parse` takes a row's key apart into the object key and what else identifies
    /// it; `past` is the first row key behind all object keys that start with its argument.
    ///
    /// Ends when the page is full and one more item is known to follow, or the range is done. Each read yields at least
    /// one row and each seek is behind a new common prefix, so there are at most `max + 1` seeks.
    async fn read<I>(
        &self,
        txn: &mut dyn Transaction,
        rollup: Rollup<'_>,
        max: usize,
        parse: impl Fn(&[u8]) -> Option<(String, I)>,
        past: impl Fn(&str) -> Vec<u8>,
    ) -> Result<Page<I>> {
        let mut page = Page { items: Vec::new(), more: false };
        let first_rows =
            if rollup.delimiter.is_empty() { max.saturating_add(1).min(BATCH_ROWS_MAX) } else { SEEK_ROWS };
        let (mut begin, mut batch_rows) = (self.begin.clone(), first_rows);
        while max > 0 && begin < self.end {
            let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &self.end).limit(batch_rows) };
            let read = txn.get_range(range).await?;
            // Rows below this roll up to the common prefix that was shown last.
            let mut skip_below: Vec<u8> = Vec::new();
            let shown_before = page.items.len();
            for (key, value) in &read.rows {
                if key.as_ref() < skip_below.as_slice() {
                    continue;
                }
                if page.items.len() == max {
                    page.more = true;
                    return Ok(page);
                }
                let (name, id) = parse(key).ok_or_else(|| TablesError::Unreadable {
                    row: "listed",
                    why: format!("its key is none: {}", key.escape_ascii()),
                })?;
                match rollup.common_prefix(&name) {
                    Some(prefix) => {
                        skip_below = past(prefix);
                        page.items.push(Item::CommonPrefix(prefix.to_owned()));
                    }
                    None => page.items.push(Item::Row { name, id, value: value.clone() }),
                }
            }
            let Some((last, _)) = read.rows.last() else { break };
            if !read.more {
                break;
            }
            let next = keys::after(last);
            if next < skip_below {
                let shown = page.items.len() - shown_before;
                (begin, batch_rows) = (skip_below, (2 * shown).clamp(SEEK_ROWS_MIN, BATCH_ROWS_MAX));
            } else {
                (begin, batch_rows) = (next, (batch_rows * 2).min(BATCH_ROWS_MAX));
            }
        }
        Ok(page)
    }
}
