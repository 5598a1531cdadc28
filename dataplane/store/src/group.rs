//! What is asked of the committer, and which of it needs a record: the decisions of a group commit, without I/O.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_buf::Buf;
use penstock_proto::{DataId, ShardKey};
use tokio::sync::oneshot;

use crate::StoreError;
use crate::format::BLOCK_BYTES;
use crate::format::footer::entry_bytes;
use crate::format::frame::{self, CHECKSUM_BYTES, FRAME_BYTES_MAX, FRAME_RECORDS_MAX, HEADER_BYTES};
use crate::format::record::{PACKED_ALIGN, Record, RecordKind};
use crate::state::{Location, State};

/// The answer to an operation: for a delete, how many shards it killed; else 0.
pub(crate) type Reply = oneshot::Sender<Result<u32, StoreError>>;

/// What is asked of the committer.
pub(crate) enum Op {
    /// Store this shard. The record's checksums were computed by the caller.
    Put { record: Record, payload: Buf, reply: Reply },
    /// Kill all shards of this data.
    Delete { data: DataId, reply: Reply },
    /// Store this copy, if the shard still lives where the copy was taken from.
    Move { from: Arc<Location>, payload: Buf, reply: Reply },
    /// Write this tombstone again, if it is still needed and still in that extent.
    Carry { data: DataId, home: u64, reply: Reply },
    /// Write down how far the log is durable, let go of the device, and end.
    Close { reply: oneshot::Sender<()> },
}

impl Op {
    /// Bytes that it will take in a frame, at most.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { payload, .. } | Self::Move { payload, .. } => payload.len(),
            _ => 0,
        }
    }
}

/// An operation that needs a record.
pub(crate) struct Pending {
    pub(crate) record: Record,
    pub(crate) payload: Option<Buf>,
    /// A put that a client asked for: it may not use the room kept for deletes and compaction.
    pub(crate) client_put: bool,
    pub(crate) replies: Vec<Reply>,
}

impl Pending {
    pub(crate) fn answer(self, result: &Result<u32, StoreError>) {
        for reply in self.replies {
            // Nobody may be waiting any more: the operation is done all the same.
            let _ = reply.send(result.clone());
        }
    }
}

/// Answers what needs no record, and gives back the rest in order.
pub(crate) fn admit(state: &State, ops: Vec<Op>) -> Vec<Pending> {
    let mut group = Group { state, pending: Vec::new(), puts: HashMap::new(), deletes: HashMap::new() };
    for op in ops {
        group.add(op);
    }
    group.pending
}

struct Group<'a> {
    state: &'a State,
    pending: Vec<Pending>,
    puts: HashMap<ShardKey, usize>,
    deletes: HashMap<DataId, usize>,
}

impl Group<'_> {
    fn add(&mut self, op: Op) {
        match op {
            Op::Put { record, payload, reply } => self.put(record, payload, reply),
            Op::Delete { data, reply } => self.delete(data, reply),
            Op::Move { from, payload, reply } => {
                let key = from.record.key;
                let lives = self.state.get(&key).is_some_and(|now| Arc::ptr_eq(now, &from));
                if lives && !self.deletes.contains_key(&key.data) && !self.puts.contains_key(&key) {
                    self.push(from.record.clone(), Some(payload), false, reply);
                } else {
                    let _ = reply.send(Ok(0));
                }
            }
            Op::Carry { data, home, reply } => {
                if self.state.tombstone_is_in(data, home) {
                    self.push(Record::tombstone(data), None, false, reply);
                } else {
                    let _ = reply.send(Ok(0));
                }
            }
            // The committer looks for it before it asks here.
            Op::Close { reply } => drop(reply),
        }
    }

    fn put(&mut self, record: Record, payload: Buf, reply: Reply) {
        let key = record.key;
        let same = |known: &Record| known.crc64 == record.crc64 && known.length == record.length;
        let verdict = if self.state.is_deleted(&key.data) || self.deletes.contains_key(&key.data) {
            Err(StoreError::DataDeleted)
        } else if let Some(&earlier) = self.puts.get(&key) {
            if same(&self.pending[earlier].record) {
                self.pending[earlier].replies.push(reply);
                return;
            }
            Err(StoreError::Conflict)
        } else {
            match self.state.get(&key) {
                Some(stored) if !same(&stored.record) => Err(StoreError::Conflict),
                Some(stored) if !stored.is_broken() => Ok(0),
                _ => {
                    self.puts.insert(key, self.pending.len());
                    self.push(record, Some(payload), true, reply);
                    return;
                }
            }
        };
        let _ = reply.send(verdict);
    }

    fn delete(&mut self, data: DataId, reply: Reply) {
        if let Some(&earlier) = self.deletes.get(&data) {
            self.pending[earlier].replies.push(reply);
        } else if self.state.is_deleted(&data) {
            let _ = reply.send(Ok(0));
        } else {
            self.deletes.insert(data, self.pending.len());
            self.push(Record::tombstone(data), None, false, reply);
        }
    }

    fn push(&mut self, record: Record, payload: Option<Buf>, client_put: bool, reply: Reply) {
        self.pending.push(Pending { record, payload, client_put, replies: vec![reply] });
    }
}

/// How many of these, from the first on, fit a frame of at most `room_bytes`. At least one: an extent without room for
/// it is full.
pub(crate) fn frame_len<'a>(pending: impl Iterator<Item = &'a Pending>, room_bytes: usize) -> usize {
    let room_bytes = room_bytes.min(FRAME_BYTES_MAX);
    let mut bytes = HEADER_BYTES + CHECKSUM_BYTES + BLOCK_BYTES;
    let mut count = 0;
    for one in pending.take(FRAME_RECORDS_MAX) {
        let length = one.record.length as usize;
        // Packed payloads may lose some bytes to alignment, long ones most of a block. The index footer grows, too.
        let align = if frame::is_packed(length) { PACKED_ALIGN } else { BLOCK_BYTES };
        bytes += one.record.encoded_bytes() + entry_bytes(&one.record) + length.next_multiple_of(align) + PACKED_ALIGN;
        if bytes > room_bytes && count > 0 {
            break;
        }
        count += 1;
    }
    count
}

/// Whether these may use the room that is kept back.
pub(crate) fn privileged(pending: &[Pending]) -> bool {
    !pending.iter().any(|one| one.client_put && one.record.kind == RecordKind::Put)
}
