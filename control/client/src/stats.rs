//! What a client has moved, how, and why not otherwise.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Counts since the client was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Requests sent, retries included.
    pub requests: u64,
    /// Of those, the ones that were sent again.
    pub retries: u64,
    /// Bodies taken up again in their middle.
    pub resumed: u64,
    /// Connections made to the server.
    pub connections: u64,
    /// Payload bytes read, by transport: `http`, or that by which nodes were reached (`tcp`, `rdma`).
    pub read_bytes: BTreeMap<&'static str, u64>,
    /// Payload bytes written, by transport.
    pub written_bytes: BTreeMap<&'static str, u64>,
    /// Payload bytes copied in this process after they had landed (reads) or before they were sent (writes).
    pub copied_bytes: u64,
    /// Stripes that were read around missing or wrong shards.
    pub decoded_stripes: u64,
    /// Reads and bodies carried out by plan.
    pub by_plan: u64,
    /// Those that went over HTTP, by the reason.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// Calls to nodes that went another way than the best that this client has, by that and the reason: `rdma: it declines:
    /// this node has no RDMA device in use`.
    pub other_ways: BTreeMap<String, u64>,
    /// Requests that were sent a second time because the first was slow, and those of them whose answer was taken.
    pub hedges: u64,
    /// See `hedges`.
    pub hedges_won: u64,
    /// Bodies whose checksum did not hold: each was read again, or is an error.
    pub corrupt: u64,
    /// Large objects that were read in parallel shares.
    pub split_reads: u64,
    /// Payload bytes that found no room in the pool and landed in memory of their own.
    pub heap_bytes: u64,
}

/// Different reasons in [`ClientStats::other_ways`]; what is past them is counted as `more`.
const OTHER_WAYS_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Counters(Mutex<ClientStats>);

impl Counters {
    pub(crate) fn count(&self, change: impl FnOnce(&mut ClientStats)) {
        change(&mut self.0.lock());
    }

    pub(crate) fn read(&self, transport: &'static str, bytes: u64) {
        self.count(|stats| *stats.read_bytes.entry(transport).or_default() += bytes);
    }

    pub(crate) fn written(&self, transport: &'static str, bytes: u64) {
        self.count(|stats| *stats.written_bytes.entry(transport).or_default() += bytes);
    }

    pub(crate) fn fallback(&self, reason: &'static str) {
        self.count(|stats| *stats.fallbacks.entry(reason).or_default() += 1);
    }

    pub(crate) fn other_way(&self, transport: &'static str, reason: &str) {
        self.count(|stats| {
            let mut why = format!("{transport}: {reason}");
            if !stats.other_ways.contains_key(&why) {
                if stats.other_ways.len() < OTHER_WAYS_MAX {
                    tracing::warn!(transport, reason, "calls to nodes go another way");
                } else {
                    why = "more".to_owned();
                }
            }
            *stats.other_ways.entry(why).or_default() += 1;
        });
    }

    pub(crate) fn snapshot(&self) -> ClientStats {
        self.0.lock().clone()
    }
}
