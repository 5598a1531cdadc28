//! The completion queue: one per domain, with a completion channel that tokio's reactor watches and one task that reads
//! it. Its room is reserved by the queue pairs, so it can't overflow.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OwnedSemaphorePermit;

use crate::abi::{self, wc_opcode};
use crate::error::{Status, Verb, VerbsError};
use crate::memory::Pd;
use crate::operation::{Done, Operation};
use crate::queue_pair::Inner as QueuePairInner;
use crate::shared_receive::Arrivals;

/// Entries asked for; a device may have fewer.
const CQ_ENTRIES_MAX: u32 = 1 << 15;
/// Completions taken at a time.
const POLL_BATCH: usize = 64;
/// Batches before other tasks get a turn.
const BATCHES_IN_A_ROW_MAX: u32 = 16;

/// A posted work request.
pub(crate) enum Entry {
    /// Of a queue pair.
    Own {
        /// Which queue pair's.
        owner: u64,
        queue_pair: Weak<QueuePairInner>,
        operation: Arc<Operation>,
        /// Its place in the send or receive queue.
        _permit: OwnedSemaphorePermit,
    },
    /// A receive of a shared queue.
    Shared { owner: u64, arrivals: Arc<Arrivals> },
}

impl Entry {
    fn owner(&self) -> u64 {
        match self {
            Self::Own { owner, .. } | Self::Shared { owner, .. } => *owner,
        }
    }
}

pub(crate) struct CompletionQueue {
    pd: Arc<Pd>,
    channel: NonNull<abi::CompChannel>,
    raw: NonNull<abi::Cq>,
    table: Mutex<HashMap<u64, Entry>>,
    next_id: AtomicU64,
    reserved: AtomicUsize,
    entries: usize,
}

// SAFETY: libibverbs' objects may be used from any thread, at the same time.
unsafe impl Send for CompletionQueue {}
// SAFETY: as above.
unsafe impl Sync for CompletionQueue {}

impl CompletionQueue {
    pub(crate) fn new(pd: Arc<Pd>) -> Result<Self, VerbsError> {
        let api = pd.device.api();
        // SAFETY: an open context.
        let channel = unsafe { (api.ibv_create_comp_channel)(pd.device.context()) };
        let Some(channel) = NonNull::new(channel) else { return Err(VerbsError::last(Verb::CreateCompChannel)) };
        let destroy_channel = |error| {
            // SAFETY: made above, without a queue.
            unsafe { (api.ibv_destroy_comp_channel)(channel.as_ptr()) };
            Err(error)
        };
        // SAFETY: a live channel.
        let fd = unsafe { channel.as_ref().fd };
        // SAFETY: plain fcntl on a descriptor that is ours.
        let flagged = unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
        };
        if !flagged {
            return destroy_channel(VerbsError::last(Verb::CreateCompChannel));
        }
        let entries = CQ_ENTRIES_MAX.min(pd.device.attributes().cqe_max);
        let count = i32::try_from(entries).expect("invariant: far below 2^31");
        // SAFETY: a live context and channel; vector 0 always exists.
        let raw = unsafe { (api.ibv_create_cq)(pd.device.context(), count, std::ptr::null_mut(), channel.as_ptr(), 0) };
        let Some(raw) = NonNull::new(raw) else { return destroy_channel(VerbsError::last(Verb::CreateCq)) };
        Ok(Self {
            pd,
            channel,
            raw,
            table: Mutex::default(),
            next_id: AtomicU64::new(1),
            reserved: AtomicUsize::new(0),
            entries: entries as usize,
        })
    }

    pub(crate) fn raw(&self) -> *mut abi::Cq {
        self.raw.as_ptr()
    }

    /// Room for the completions of so many work requests. Given back with [`CompletionQueue::release`].
    pub(crate) fn reserve(&self, work_requests: usize) -> Result<(), VerbsError> {
        self.reserved
            .try_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
                reserved.checked_add(work_requests).filter(|total| *total <= self.entries)
            })
            .map(|_| ())
            .map_err(|_| VerbsError::Full { what: "the completion queue", max: self.entries })
    }

    pub(crate) fn release(&self, work_requests: usize) {
        self.reserved.fetch_sub(work_requests, Ordering::AcqRel);
    }

    /// A number for a queue pair or a work request that was never used before.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Enters a work request that is about to be posted.
    pub(crate) fn enter(&self, entry: Entry) -> u64 {
        let id = self.fresh_id();
        self.table.lock().insert(id, entry);
        id
    }

    /// Takes out what has not been posted after all.
    pub(crate) fn withdraw(&self, id: u64) -> Option<Entry> {
        self.table.lock().remove(&id)
    }

    /// Takes out everything of a queue pair that is no more: its completions, should any come, are ignored.
    pub(crate) fn withdraw_all(&self, owner: u64) -> Vec<Entry> {
        let mut table = self.table.lock();
        table.extract_if(|_, entry| entry.owner() == owner).map(|(_, entry)| entry).collect()
    }

    /// Whether the device has work requests of this queue pair.
    pub(crate) fn has_any(&self, owner: u64) -> bool {
        self.table.lock().values().any(|entry| entry.owner() == owner)
    }

    /// Asks for an event at the next completion.
    fn arm(&self) -> Result<(), VerbsError> {
        let arm = self.pd.device.ops().req_notify_cq.ok_or_else(|| unsupported("ibv_req_notify_cq"))?;
        // SAFETY: a live queue.
        match unsafe { arm(self.raw(), 0) } {
            0 => Ok(()),
            errno => Err(VerbsError::call(Verb::ReqNotifyCq, errno.abs())),
        }
    }

    /// Takes the events that wait in the channel.
    fn take_events(&self) {
        let api = self.pd.device.api();
        loop {
            let (mut queue, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: a live, non-blocking channel; both are written before they are used.
            let outcome = unsafe { (api.ibv_get_cq_event)(self.channel.as_ptr(), &raw mut queue, &raw mut context) };
            if outcome != 0 {
                return;
            }
            // SAFETY: the queue that the event is of: ours, the only one of this channel.
            unsafe { (api.ibv_ack_cq_events)(queue, 1) };
        }
    }

    /// Takes completions and hands them to whom they belong. Whether there were as many as fit in a batch.
    fn poll(&self) -> Result<bool, VerbsError> {
        let poll = self.pd.device.ops().poll_cq.ok_or_else(|| unsupported("ibv_poll_cq"))?;
        let mut batch = [abi::Wc::default(); POLL_BATCH];
        // SAFETY: a live queue, and room for as many completions as are asked for.
        let count = unsafe { poll(self.raw(), POLL_BATCH as i32, batch.as_mut_ptr()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(VerbsError::call(Verb::PollCq, count.abs()));
        };
        for completion in &batch[..count] {
            self.dispatch(completion);
        }
        Ok(count == POLL_BATCH)
    }

    fn dispatch(&self, completion: &abi::Wc) {
        // Work requests of a queue pair that was destroyed are not in the table any more.
        let Some(entry) = self.withdraw(completion.wr_id) else { return };
        let result = outcome(completion);
        match entry {
            Entry::Own { queue_pair, operation, _permit, .. } => {
                let result = match queue_pair.upgrade() {
                    Some(queue_pair) => queue_pair.judge(result),
                    None => result,
                };
                operation.end_one(result);
            }
            Entry::Shared { arrivals, .. } => arrivals.arrived(completion.wr_id, completion.qp_num, result),
        }
    }
}

fn unsupported(what: &str) -> VerbsError {
    VerbsError::Unsupported { what: format!("the driver has no {what}") }
}

/// What a completion says.
fn outcome(completion: &abi::Wc) -> Result<Done, VerbsError> {
    if completion.status != 0 {
        let status = Status::from_number(completion.status);
        return Err(VerbsError::Completion { status, vendor: completion.vendor_err });
    }
    let received = completion.opcode & wc_opcode::RECV != 0;
    let by_write = completion.opcode == wc_opcode::RECV_RDMA_WITH_IMM;
    let immediate =
        (received && completion.wc_flags & abi::WC_WITH_IMM != 0).then(|| u32::from_be(completion.imm_data));
    // The length of what was sent is not filled in by every device; who sent it knows.
    let bytes = if received { u64::from(completion.byte_len) } else { 0 };
    Ok(Done { bytes, immediate, by_write })
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        let api = self.pd.device.api();
        // SAFETY: every queue pair keeps the domain, and so this, so none is left; events are all acknowledged; the
        // channel goes after its queue.
        let errno = unsafe {
            let errno = (api.ibv_destroy_cq)(self.raw.as_ptr());
            (api.ibv_destroy_comp_channel)(self.channel.as_ptr());
            errno
        };
        if errno != 0 {
            tracing::error!(errno, "a completion queue could not be given back");
        }
    }
}

/// The channel's descriptor, for the reactor. Closed by the library.
struct Channel(RawFd);

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// What the task owns.
struct Reader {
    watched: AsyncFd<Channel>,
    queue: Arc<CompletionQueue>,
}

/// Reads the queue until `queue` is wanted by nobody else. Must be spawned inside a runtime.
///
/// # Errors
/// When the reactor does not take the channel's descriptor.
pub(crate) fn start(queue: Arc<CompletionQueue>, stop: Arc<tokio::sync::Notify>) -> Result<(), VerbsError> {
    // SAFETY: a live channel.
    let fd = unsafe { queue.channel.as_ref().fd };
    // SAFETY: the descriptor is open, and stays the same, until the channel is destroyed with `queue`, which the task
    // below drops after `watched`.
    let watched = unsafe { AsyncFd::register_with_interest(Channel(fd), Interest::READABLE) }.map_err(|error| {
        VerbsError::call(Verb::CreateCompChannel, std::io::Error::from(error).raw_os_error().unwrap_or(libc::EIO))
    })?;
    tokio::spawn(async move {
        // Dropped in this order, also when the runtime drops the task: `queue` closes the descriptor.
        let Reader { watched, queue } = Reader { watched, queue };
        let read = async {
            loop {
                queue.arm()?;
                let mut batches = 0;
                while queue.poll()? {
                    batches += 1;
                    if batches == BATCHES_IN_A_ROW_MAX {
                        batches = 0;
                        tokio::task::yield_now().await;
                    }
                }
                let Ok(mut ready) = watched.readable().await else { return Ok(()) };
                queue.take_events();
                ready.clear_ready();
            }
        };
        tokio::select! {
            () = stop.notified() => {}
            ended = read => {
                let ended: Result<(), VerbsError> = ended;
                if let Err(error) = ended {
                    tracing::error!(%error, "the completion queue can't be read any more: operations of its queue pairs end when those are destroyed");
                }
            }
        }
        drop(watched);
        drop(queue);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(status: i32, opcode: i32, flags: u32) -> abi::Wc {
        abi::Wc {
            status,
            opcode,
            wc_flags: flags,
            byte_len: 10,
            imm_data: 0x0102_0304_u32.to_be(),
            vendor_err: 5,
            ..abi::Wc::default()
        }
    }

    #[test]
    fn completions_are_read_as_the_header_says() {
        let sent = outcome(&completion(0, 0, 0));
        assert_eq!(sent, Ok(Done::default()));
        let received = outcome(&completion(0, wc_opcode::RECV, abi::WC_WITH_IMM));
        assert_eq!(received, Ok(Done { bytes: 10, immediate: Some(0x0102_0304), by_write: false }));
        let written = outcome(&completion(0, wc_opcode::RECV_RDMA_WITH_IMM, abi::WC_WITH_IMM));
        assert_eq!(written, Ok(Done { bytes: 10, immediate: Some(0x0102_0304), by_write: true }));
        let plain = outcome(&completion(0, wc_opcode::RECV, 0));
        assert_eq!(plain, Ok(Done { bytes: 10, immediate: None, by_write: false }));
        let failed = outcome(&completion(12, 0, 0));
        assert_eq!(failed, Err(VerbsError::Completion { status: Status::RetryExceeded, vendor: 5 }));
    }
}
