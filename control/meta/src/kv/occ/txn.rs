//! One optimistic transaction: reads from a snapshot merged with its own writes.

use std::collections::btree_map;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::buffer::{Pending, WriteBuffer, check_key, counter, counter_bytes};
use super::committer::{CommitRequest, Message};
use super::resolver::ReadSet;
use super::{Shared, outcome};
use crate::kv::engine::{Engine, EngineSnapshot};
use crate::kv::{
    CommitVersion, KvError, RANGE_PAGE_BYTES_MAX, READ_CONFLICTS_MAX, RESERVED_FROM, RangePage, RangeRead, Transaction,
};

/// A transaction under way.
pub(super) struct OccTransaction<E: Engine> {
    shared: Arc<Shared<E>>,
    queue: Sender<Message>,
    snapshot: E::Snapshot,
    read_version: u64,
    began: Instant,
    reads: ReadSet,
    writes: WriteBuffer,
    makes_room: bool,
}

impl<E: Engine> OccTransaction<E> {
    pub(super) fn new(
        shared: Arc<Shared<E>>,
        queue: Sender<Message>,
        snapshot: E::Snapshot,
        read_version: u64,
        began: Instant,
    ) -> Self {
        let (reads, writes) = (ReadSet::default(), WriteBuffer::default());
        Self { shared, queue, snapshot, read_version, began, reads, writes, makes_room: false }
    }

    fn check_age(&self) -> Result<(), KvError> {
        if self.began.elapsed() > self.shared.lifetime { Err(KvError::TooOld) } else { Ok(()) }
    }

    fn check_reads(&self) -> Result<(), KvError> {
        let size = self.reads.points.len() + self.reads.ranges.len();
        if size >= READ_CONFLICTS_MAX {
            return Err(KvError::TooLarge { what: "keys and ranges read", size: size + 1, max: READ_CONFLICTS_MAX });
        }
        Ok(())
    }

    /// Fills a page from the snapshot merged with the buffer.
    fn read_page(&self, begin: &[u8], end: &[u8], limit: usize, reverse: bool) -> Result<RangePage, KvError> {
        let mut page = PageBuilder { page: RangePage::default(), bytes: 0, limit };
        let mut own = OwnRows {
            range: self.writes.points.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end))),
            next: None,
            reverse,
        };
        own.advance();
        let mut failure = None;
        self.snapshot.scan(begin, end, reverse, &mut |key, value| {
            // Own rows that come before the stored one are new; one with the same key replaces it.
            while let Some((own_key, pending)) = own.next
                && (if reverse { *own_key > key } else { *own_key < key })
            {
                own.advance();
                page.push(own_key.clone(), pending.over(own_key, None, &mut failure))?;
            }
            match own.next {
                Some((own_key, pending)) if *own_key == key => {
                    own.advance();
                    page.push(key, pending.over(own_key, Some(value), &mut failure))?;
                }
                _ if self.writes.cleared.contains(&key) => {}
                _ => page.push(key, Some(value))?,
            }
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        while let Some((own_key, pending)) = own.next
            && failure.is_none()
            && !page.page.more
        {
            own.advance();
            if page.push(own_key.clone(), pending.over(own_key, None, &mut failure)).is_break() {
                break;
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(page.page),
        }
    }
}

/// The buffer's rows in a range, one ahead.
struct OwnRows<'a> {
    range: btree_map::Range<'a, Bytes, Pending>,
    next: Option<(&'a Bytes, &'a Pending)>,
    reverse: bool,
}

impl OwnRows<'_> {
    fn advance(&mut self) {
        self.next = if self.reverse { self.range.next_back() } else { self.range.next() };
    }
}

impl Pending {
    /// What a reader sees where the store has `stored`.
    fn over(&self, key: &Bytes, stored: Option<Bytes>, failure: &mut Option<KvError>) -> Option<Bytes> {
        match self {
            Self::Set(value) => Some(value.clone()),
            Self::Clear => None,
            Self::Add(delta) => match stored.map_or(Ok(0), |value| counter(key, &value)) {
                Ok(before) => Some(counter_bytes(before.wrapping_add(*delta))),
                Err(error) => {
                    *failure = Some(error);
                    None
                }
            },
        }
    }
}

/// A page that fills up. The row after the last that fits only sets `more`.
struct PageBuilder {
    page: RangePage,
    bytes: usize,
    limit: usize,
}

impl PageBuilder {
    fn push(&mut self, key: Bytes, value: Option<Bytes>) -> ControlFlow<()> {
        let Some(value) = value else { return ControlFlow::Continue(()) };
        let bytes = self.bytes + key.len() + value.len();
        let full = self.page.rows.len() >= self.limit || (bytes > RANGE_PAGE_BYTES_MAX && !self.page.rows.is_empty());
        if full {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.bytes = bytes;
        self.page.rows.push((key, value));
        ControlFlow::Continue(())
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

#[async_trait]
impl<E: Engine> Transaction for OccTransaction<E> {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.check_age()?;
        check_key(key)?;
        let pending = self.writes.pending(key);
        match &pending {
            // What the transaction itself decided does not depend on anybody else.
            Some(Pending::Set(value)) => return Ok(Some(value.clone())),
            Some(Pending::Clear) => return Ok(None),
            Some(Pending::Add(_)) | None => {}
        }
        if !self.reads.points.contains(key) && !self.reads.ranges.contains(key) {
            self.check_reads()?;
            self.reads.points.insert(Bytes::copy_from_slice(key));
        }
        let stored = self.snapshot.get(key)?;
        match pending {
            Some(Pending::Add(delta)) => {
                let before = stored.map_or(Ok(0), |value| counter(key, &value))?;
                Ok(Some(counter_bytes(before.wrapping_add(delta))))
            }
            _ => Ok(stored),
        }
    }

    async fn get_range(&mut self, range: RangeRead) -> Result<RangePage, KvError> {
        self.check_age()?;
        let RangeRead { begin, mut end, limit, reverse, snapshot } = range;
        if end.as_slice() > RESERVED_FROM {
            end = RESERVED_FROM.to_vec();
        }
        if begin >= end {
            return Ok(RangePage::default());
        }
        if !snapshot {
            self.check_reads()?;
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = self.read_page(&begin, &end, limit, reverse)?;
        if !snapshot {
            // Only what was looked at: what lies behind the last row returned is the next page's to defend.
            let (mut from, mut to) = (Bytes::from(begin), Bytes::from(end));
            if page.more
                && let Some((last, _)) = page.rows.last()
            {
                if reverse {
                    from = last.clone();
                } else {
                    to = successor(last);
                }
            }
            self.reads.ranges.insert(from, to);
        }
        Ok(page)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.writes.set(key, value)
    }

    fn clear(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.writes.clear(key)
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) -> Result<(), KvError> {
        self.writes.clear_range(begin, end)
    }

    fn atomic_add(&mut self, key: &[u8], delta: i64) -> Result<(), KvError> {
        self.writes.atomic_add(key, delta)
    }

    fn set_versionstamped(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.writes.set_versionstamped(prefix, suffix, value)
    }

    fn makes_room(&mut self) {
        self.makes_room = true;
    }

    fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    async fn commit(self: Box<Self>) -> Result<CommitVersion, KvError> {
        let Self { shared, queue, snapshot, read_version, began, reads, writes, makes_room } = *self;
        // The engine need not keep this version any longer.
        drop(snapshot);
        if writes.is_empty() {
            return Ok(CommitVersion { version: read_version, order: 0 });
        }
        let (reply, committed) = oneshot::channel();
        shared.submit(&queue, Box::new(CommitRequest { read_version, began, reads, writes, makes_room, reply }))?;
        outcome(committed).await
    }
}
