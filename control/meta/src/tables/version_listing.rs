//! The listing of all versions: the rows at `O` and those at `N`, merged in the order of S3: by key, then newest first.

use std::collections::VecDeque;

use bytes::Bytes;

use super::keys::{self, VersionKey};
use super::rollup::{Rollup, Start};
use super::rows::decode_listed;
use super::{ListedRow, Result, Tables, TablesError, VersionName};
use crate::kv::{RangeRead, Transaction};

/// Rows of a read where common prefixes may follow.
const SEEK_ROWS: usize = 16;
/// Rows of the longest read.
const BATCH_ROWS_MAX: usize = 512;

/// A page of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsPage {
    /// Keys and versions, by key, then newest first. The current one has no `superseded_unix_ms`.
    pub rows: Vec<(String, ListedRow)>,
    /// Common prefixes, ascending.
    pub prefixes: Vec<String>,
    /// Key marker and version marker of the next page (no version after a common prefix); `None` if nothing follows.
    pub next: Option<(String, Option<String>)>,
}

/// Which page of a bucket's versions.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListVersions<'a> {
    /// Only keys that start so.
    pub prefix: &'a str,
    /// Rolled up to the first of these after the prefix; empty for none.
    pub delimiter: &'a str,
    /// Only keys after this one, and with `after_version` what comes after that version of it.
    pub key_marker: &'a str,
    /// A version of `key_marker`.
    pub after_version: Option<VersionName>,
    /// At most so many versions and common prefixes.
    pub max: usize,
}

impl Tables {
    /// A page of a bucket's versions and delete markers.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_versions(&self, bucket_id: u64, request: ListVersions<'_>) -> Result<VersionsPage> {
        transaction!(self, |txn| read_page(txn, bucket_id, request).await).await
    }
}

/// Rows of one table, read a batch at a time.
struct Cursor {
    begin: Vec<u8>,
    end: Vec<u8>,
    rows: VecDeque<(Bytes, Bytes)>,
    more: bool,
    first_rows: usize,
    batch_rows: usize,
}

impl Cursor {
    fn new(begin: Vec<u8>, end: Vec<u8>, first_rows: usize) -> Self {
        Self { begin, end, rows: VecDeque::new(), more: true, first_rows, batch_rows: first_rows }
    }

    async fn peek(&mut self, txn: &mut dyn Transaction) -> Result<Option<&(Bytes, Bytes)>> {
        while self.rows.is_empty() && self.more && self.begin < self.end {
            let range = RangeRead::between(&self.begin, &self.end).limit(self.batch_rows);
            let page = txn.get_range(RangeRead { snapshot: true, ..range }).await?;
            self.more = page.more;
            if let Some((last, _)) = page.rows.last() {
                self.begin = keys::after(last);
            }
            self.rows = page.rows.into();
            self.batch_rows = (self.batch_rows * 2).min(BATCH_ROWS_MAX);
        }
        Ok(self.rows.front())
    }

    /// Leaves out what is below `key`.
    fn seek(&mut self, key: Vec<u8>) {
        while self.rows.front().is_some_and(|(at, _)| at.as_ref() < key.as_slice()) {
            self.rows.pop_front();
        }
        if self.rows.is_empty() && self.begin < key {
            (self.begin, self.batch_rows) = (key, self.first_rows);
        }
    }
}

/// The two tables, each a run of its own in the order of keys.
struct Merge {
    objects: Cursor,
    noncurrent: Cursor,
    object_base: Vec<u8>,
    noncurrent_base: Vec<u8>,
}

impl Merge {
    /// Where keys that start with `name` end, in both tables.
    fn past(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let object = [self.object_base.as_slice(), name.as_bytes()].concat();
        let noncurrent = [self.noncurrent_base.as_slice(), &keys::shifted(name.as_bytes())].concat();
        (keys::past(&object), keys::past(&noncurrent))
    }

    /// The next key, and whether its row is in `objects`.
    async fn peek(&mut self, txn: &mut dyn Transaction) -> Result<Option<(String, bool)>> {
        let unreadable = |key: &[u8]| TablesError::Unreadable {
            row: "listed",
            why: format!("its key is none: {}", key.escape_ascii()),
        };
        let base_bytes = self.object_base.len();
        let object = match self.objects.peek(txn).await? {
            None => None,
            Some((key, _)) => Some(String::from_utf8(key[base_bytes..].to_vec()).map_err(|_not_text| unreadable(key))?),
        };
        let old = match self.noncurrent.peek(txn).await? {
            None => None,
            Some((key, _)) => {
                Some(keys::parse_noncurrent(&key[self.noncurrent_base.len()..]).ok_or_else(|| unreadable(key))?.0)
            }
        };
        Ok(match (object, old) {
            (Some(object), Some(old)) if old < object => Some((old, false)),
            (Some(object), _) => Some((object, true)),
            (None, Some(old)) => Some((old, false)),
            (None, None) => None,
        })
    }
}

async fn read_page(txn: &mut dyn Transaction, bucket_id: u64, request: ListVersions<'_>) -> Result<VersionsPage> {
    let ListVersions { prefix, delimiter, key_marker, after_version, max } = request;
    let mut page = VersionsPage::default();
    let rollup = Rollup { prefix, delimiter };
    let (object_base, noncurrent_base) = (keys::objects(bucket_id), keys::noncurrents(bucket_id));
    let first_rows = if delimiter.is_empty() { max.saturating_add(1).min(BATCH_ROWS_MAX) } else { SEEK_ROWS };
    let cursor = |base: &[u8]| Cursor::new(base.to_vec(), keys::past(base), first_rows);
    let (objects, noncurrent) = (cursor(&object_base), cursor(&noncurrent_base));
    let mut merge = Merge { objects, noncurrent, object_base, noncurrent_base };
    let (object_end, noncurrent_end) = merge.past(prefix);
    (merge.objects.end, merge.noncurrent.end) = (object_end, noncurrent_end);
    // Versions of the key marker up to this place were shown before.
    let mut shown: Option<VersionKey> = None;
    let after = match after_version {
        Some(version) if key_marker.starts_with(prefix) => place_of(txn, bucket_id, key_marker, version).await?,
        _ => None,
    };
    if let Some(after) = after {
        merge.objects.begin = keys::object(bucket_id, key_marker)?;
        merge.noncurrent.begin = keys::after(&keys::noncurrent(bucket_id, key_marker, &after));
        shown = Some(after);
    } else {
        let at = |name: &str| {
            let object = [merge.object_base.as_slice(), name.as_bytes()].concat();
            (object, [merge.noncurrent_base.as_slice(), &keys::shifted(name.as_bytes())].concat())
        };
        (merge.objects.begin, merge.noncurrent.begin) = match rollup.start(key_marker) {
            None => return Ok(page),
            Some(Start::At(name)) => at(name),
            Some(Start::After(name)) => {
                let (object, noncurrent) = at(name);
                // Past the key's own versions, which go on with 0; longer keys go on with 1 at least.
                (keys::after(&object), [noncurrent.as_slice(), &[1]].concat())
            }
            Some(Start::Past(name)) => merge.past(name),
        };
    }
    let mut items = 0;
    let mut last: Option<(String, Option<String>)> = None;
    if max == 0 {
        return Ok(page);
    }
    loop {
        let Some((name, is_object)) = merge.peek(txn).await? else { return Ok(page) };
        if is_object
            && let Some(shown) = shown
            && name == key_marker
            && let Some((_, value)) = merge.objects.rows.front()
            && decode_listed(value)?.version.key() <= shown
        {
            merge.objects.rows.pop_front();
            continue;
        }
        if items == max {
            page.next = last;
            return Ok(page);
        }
        items += 1;
        if let Some(common) = rollup.common_prefix(&name) {
            let (object, noncurrent) = merge.past(common);
            merge.objects.seek(object);
            merge.noncurrent.seek(noncurrent);
            last = Some((common.to_owned(), None));
            page.prefixes.push(common.to_owned());
            continue;
        }
        let cursor = if is_object { &mut merge.objects } else { &mut merge.noncurrent };
        let Some((_, value)) = cursor.rows.pop_front() else { return Ok(page) };
        let row = decode_listed(&value)?;
        last = Some((name.clone(), Some(row.version.place())));
        page.rows.push((name, row));
    }
}

/// Where the version of that name stands; `None` for a null version that is not there.
async fn place_of(
    txn: &mut dyn Transaction,
    bucket_id: u64,
    name: &str,
    version: VersionName,
) -> Result<Option<VersionKey>> {
    match version {
        VersionName::Id(key) => Ok(Some(key)),
        VersionName::Null => {
            Ok(super::versions::find(txn, bucket_id, name, version).await?.map(|(_, row)| row.version.key()))
        }
    }
}
