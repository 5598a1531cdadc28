//! What a transaction has written but not committed.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use penstock_proto::limits;

use super::ranges::RangeSet;
use crate::kv::{CommitVersion, KvError, RESERVED_FROM};

/// The last word on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Set(Bytes),
    Clear,
    /// Add to whatever is there when the transaction commits.
    Add(i64),
}

/// A row whose key is known only at the commit.
#[derive(Debug)]
pub(super) struct Stamped {
    pub(super) prefix: Bytes,
    pub(super) suffix: Bytes,
    pub(super) value: Bytes,
}

/// Cleared ranges first, then single keys, then versionstamped rows: in this order they give what the calls, in their
/// order, would have given.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    pub(super) cleared: RangeSet,
    pub(super) points: BTreeMap<Bytes, Pending>,
    pub(super) stamped: Vec<Stamped>,
    bytes: usize,
}

/// Reads a counter's bytes.
pub(super) fn counter(key: &[u8], value: &[u8]) -> Result<i64, KvError> {
    value.try_into().map(i64::from_le_bytes).map_err(|_| KvError::NotACounter { key: key.to_vec() })
}

/// Writes a counter's bytes.
pub(super) fn counter_bytes(value: i64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// Refuses keys that no row can have.
pub(super) fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() || key.len() > limits::ROW_KEY_BYTES_MAX {
        return Err(KvError::KeyTooLong);
    }
    if key >= RESERVED_FROM {
        return Err(KvError::KeyReserved);
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), KvError> {
    if value.len() > limits::ROW_VALUE_BYTES_MAX { Err(KvError::ValueTooLong) } else { Ok(()) }
}

impl WriteBuffer {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        check_key(key)?;
        check_value(value)?;
        self.account(key.len() + value.len())?;
        self.points.insert(Bytes::copy_from_slice(key), Pending::Set(Bytes::copy_from_slice(value)));
        Ok(())
    }

    pub(super) fn clear(&mut self, key: &[u8]) -> Result<(), KvError> {
        check_key(key)?;
        self.account(key.len())?;
        self.points.insert(Bytes::copy_from_slice(key), Pending::Clear);
        Ok(())
    }

    pub(super) fn clear_range(&mut self, begin: &[u8], end: &[u8]) -> Result<(), KvError> {
        let end = end.min(RESERVED_FROM);
        if begin >= end {
            return Ok(());
        }
        // A range's bounds need not be keys of rows, but they are as long at most (plus the 0 that makes a successor).
        if begin.len().max(end.len()) > limits::ROW_KEY_BYTES_MAX + 1 {
            return Err(KvError::KeyTooLong);
        }
        self.account(begin.len() + end.len())?;
        let covered: Vec<Bytes> = self
            .points
            .range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)))
            .map(|(k, _)| k.clone())
            .collect();
        for key in covered {
            self.points.remove(&key);
        }
        self.cleared.insert(Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end));
        Ok(())
    }

    pub(super) fn atomic_add(&mut self, key: &[u8], delta: i64) -> Result<(), KvError> {
        check_key(key)?;
        self.account(key.len() + size_of::<i64>())?;
        let next = match self.points.get(key) {
            Some(Pending::Set(value)) => Pending::Set(counter_bytes(counter(key, value)?.wrapping_add(delta))),
            Some(Pending::Add(before)) => Pending::Add(before.wrapping_add(delta)),
            Some(Pending::Clear) => Pending::Set(counter_bytes(delta)),
            None if self.cleared.contains(key) => Pending::Set(counter_bytes(delta)),
            None => Pending::Add(delta),
        };
        self.points.insert(Bytes::copy_from_slice(key), next);
        Ok(())
    }

    pub(super) fn set_versionstamped(&mut self, prefix: &[u8], suffix: &[u8], value: &[u8]) -> Result<(), KvError> {
        let key_bytes = prefix.len() + CommitVersion::BYTES + suffix.len();
        if key_bytes > limits::ROW_KEY_BYTES_MAX {
            return Err(KvError::KeyTooLong);
        }
        // An empty prefix would let the version itself reach into the reserved range after 2^63 commits: still refused.
        if prefix.is_empty() || prefix >= RESERVED_FROM {
            return Err(KvError::KeyReserved);
        }
        check_value(value)?;
        self.account(key_bytes + value.len())?;
        self.stamped.push(Stamped {
            prefix: Bytes::copy_from_slice(prefix),
            suffix: Bytes::copy_from_slice(suffix),
            value: Bytes::copy_from_slice(value),
        });
        Ok(())
    }

    /// What a read of `key` must take from here: `None` if the buffer says nothing about the key.
    pub(super) fn pending(&self, key: &[u8]) -> Option<Pending> {
        match self.points.get(key) {
            Some(pending) => Some(pending.clone()),
            None if self.cleared.contains(key) => Some(Pending::Clear),
            None => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.cleared.is_empty() && self.stamped.is_empty()
    }

    /// Operations, as the group committer counts them.
    pub(super) fn operations(&self) -> usize {
        self.points.len() + self.cleared.len() + self.stamped.len()
    }

    /// Bytes of keys and values written, overwritten ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn account(&mut self, bytes: usize) -> Result<(), KvError> {
        let size = self.bytes + bytes;
        if size > limits::TRANSACTION_BYTES_MAX {
            return Err(KvError::TooLarge { what: "bytes written", size, max: limits::TRANSACTION_BYTES_MAX });
        }
        self.bytes = size;
        Ok(())
    }
}
