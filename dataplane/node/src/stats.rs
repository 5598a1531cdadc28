//! What a node counts.

use std::sync::atomic::{AtomicU64, Ordering};

use penstock_proto::wire::NodeErrorCode;

use crate::refusal::Refusal;

/// What a node did since its start, and has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Operations under way.
    pub in_flight: usize,
    /// Shards made durable (again, for a put that was repeated).
    pub puts: u64,
    /// Their bytes.
    pub put_bytes: u64,
    /// Receipts given for shards that were made durable.
    pub receipts: u64,
    /// Ranges sent.
    pub gets: u64,
    /// Their bytes.
    pub get_bytes: u64,
    /// Deletes done.
    pub deletes: u64,
    /// Status answers.
    pub statuses: u64,
    /// Requests refused for their capability.
    pub forbidden: u64,
    /// Requests refused because too many were under way, or buffers too few.
    pub busy: u64,
    /// Requests that made no sense.
    pub bad_requests: u64,
    /// Reads of shards that are not here.
    pub missing: u64,
    /// Reads of shards that are damaged.
    pub corrupt: u64,
    /// Requests refused for any other reason: no space, a failed device, deleted data, errors.
    pub failed: u64,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) puts: Counter,
    pub(crate) put_bytes: Counter,
    pub(crate) receipts: Counter,
    pub(crate) gets: Counter,
    pub(crate) get_bytes: Counter,
    pub(crate) deletes: Counter,
    pub(crate) statuses: Counter,
    forbidden: Counter,
    busy: Counter,
    bad_requests: Counter,
    missing: Counter,
    corrupt: Counter,
    failed: Counter,
}

impl Counters {
    pub(crate) fn count_refusal(&self, refusal: &Refusal) {
        let counter = match refusal.code() {
            NodeErrorCode::Forbidden => &self.forbidden,
            NodeErrorCode::Busy => &self.busy,
            NodeErrorCode::BadRequest => &self.bad_requests,
            NodeErrorCode::NoSuchShard => &self.missing,
            NodeErrorCode::Corrupt => &self.corrupt,
            NodeErrorCode::NoSpace
            | NodeErrorCode::DeviceFailed
            | NodeErrorCode::DataDeleted
            | NodeErrorCode::Internal => &self.failed,
        };
        counter.add(1);
    }

    pub(crate) fn read(&self, in_flight: usize) -> NodeStats {
        NodeStats {
            in_flight,
            puts: self.puts.get(),
            put_bytes: self.put_bytes.get(),
            receipts: self.receipts.get(),
            gets: self.gets.get(),
            get_bytes: self.get_bytes.get(),
            deletes: self.deletes.get(),
            statuses: self.statuses.get(),
            forbidden: self.forbidden.get(),
            busy: self.busy.get(),
            bad_requests: self.bad_requests.get(),
            missing: self.missing.get(),
            corrupt: self.corrupt.get(),
            failed: self.failed.get(),
        }
    }
}
