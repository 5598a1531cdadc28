//! A shared receive queue: one stock of buffers for many queue pairs.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use penstock_buf::BufMut;
use tokio::sync::{Semaphore, mpsc};

use crate::abi;
use crate::completion::{CompletionQueue, Entry};
use crate::domain::Domain;
use crate::error::{Refused, Verb, VerbsError};
use crate::memory::Local;
use crate::operation::Done;

/// What came for one of the queue pairs.
pub struct Arrival {
    /// Whose it is: its number.
    pub queue_pair: u32,
    /// The buffer that was taken for it.
    pub memory: Local<BufMut>,
    /// How it went.
    pub result: Result<Done, VerbsError>,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arrival({:#x}, {:?})", self.queue_pair, self.result)
    }
}

/// Where completions of the queue go. The buffers are here until then.
pub(crate) struct Arrivals {
    buffers: Mutex<HashMap<u64, Box<dyn Any + Send + Sync>>>,
    queue: mpsc::UnboundedSender<Arrival>,
    places: Semaphore,
}

impl Arrivals {
    pub(crate) fn arrived(&self, id: u64, queue_pair: u32, result: Result<Done, VerbsError>) {
        let Some(memory) = self.buffers.lock().remove(&id) else { return };
        self.places.add_permits(1);
        let Ok(memory) = memory.downcast::<Local<BufMut>>() else { return };
        // Nobody takes arrivals any more: the buffer goes back to its pool.
        drop(self.queue.send(Arrival { queue_pair, memory: *memory, result }));
    }
}

pub(crate) struct Inner {
    domain: Domain,
    raw: NonNull<abi::Srq>,
    owner: u64,
    depth: usize,
    arrivals: Arc<Arrivals>,
}

// SAFETY: libibverbs' objects may be used from any thread, at the same time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Inner {
    pub(crate) fn raw(&self) -> *mut abi::Srq {
        self.raw.as_ptr()
    }

    fn completions(&self) -> &CompletionQueue {
        self.domain.completions()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once; queue pairs that use it keep it, so none is left.
        let errno = unsafe { (self.domain.device().api().ibv_destroy_srq)(self.raw.as_ptr()) };
        if errno != 0 {
            crate::memory::give_up("ibv_destroy_srq", errno);
        }
        drop(self.completions().withdraw_all(self.owner));
        self.completions().release(self.depth);
        // The device has given the buffers up with the queue.
        self.arrivals.buffers.lock().clear();
    }
}

/// A shared receive queue. Queue pairs made with its [`SharedReceive::handle`] take their receives from it.
pub struct SharedReceive {
    inner: Arc<Inner>,
    arrived: mpsc::UnboundedReceiver<Arrival>,
}

/// What a queue pair needs of it. Clones share it.
#[derive(Clone)]
pub struct SharedReceiveHandle(pub(crate) Arc<Inner>);

impl SharedReceive {
    pub(crate) fn new(domain: &Domain, depth: u32) -> Result<Self, VerbsError> {
        let device = domain.device();
        let depth = depth.clamp(1, device.attributes().srq_wr_max.max(1));
        domain.completions().reserve(depth as usize)?;
        let mut wanted =
            abi::SrqInitAttr { srq_context: std::ptr::null_mut(), max_wr: depth, max_sge: 1, srq_limit: 0 };
        // SAFETY: a live protection domain; the structure is read and its limits are written back.
        let raw = unsafe { (device.api().ibv_create_srq)(domain.pd().raw.as_ptr(), &raw mut wanted) };
        let Some(raw) = NonNull::new(raw) else {
            let error = VerbsError::last(Verb::CreateSrq);
            domain.completions().release(depth as usize);
            return Err(error);
        };
        let (queue, arrived) = mpsc::unbounded_channel();
        let arrivals = Arc::new(Arrivals { buffers: Mutex::default(), queue, places: Semaphore::new(depth as usize) });
        let owner = domain.completions().fresh_id();
        let inner = Inner { domain: domain.clone(), raw, owner, depth: depth as usize, arrivals };
        Ok(Self { inner: Arc::new(inner), arrived })
    }

    /// For [`crate::QpOptions::shared_receive`].
    pub fn handle(&self) -> SharedReceiveHandle {
        SharedReceiveHandle(Arc::clone(&self.inner))
    }

    /// Adds a buffer.
    ///
    /// # Errors
    /// [`VerbsError::Full`] past the depth; what the driver says. The buffer comes back.
    pub fn post(&self, memory: Local<BufMut>) -> Result<(), Refused<Local<BufMut>>> {
        let inner = &self.inner;
        let refused = |error, memory| Err(Refused { error, memory });
        let Ok(place) = inner.arrivals.places.try_acquire() else {
            return refused(VerbsError::Full { what: "the shared receive queue", max: inner.depth }, memory);
        };
        let Some(post) = inner.domain.device().ops().post_srq_recv else {
            return refused(VerbsError::Unsupported { what: "the driver has no ibv_post_srq_recv".into() }, memory);
        };
        let piece = memory.piece(&(0..memory.len()));
        let (address, length) = match piece.and_then(|(a, l)| Ok((a, crate::work::length(l)?))) {
            Ok(piece) => piece,
            Err(error) => return refused(error, memory),
        };
        let lkey = memory.registration().map_or(0, |registration| registration.local_key());
        let mut sge = abi::Sge { addr: address, length, lkey };
        // In both tables before the device knows of it: it may complete at once.
        let id = {
            let mut buffers = inner.arrivals.buffers.lock();
            let entry = Entry::Shared { owner: inner.owner, arrivals: Arc::clone(&inner.arrivals) };
            let id = inner.completions().enter(entry);
            buffers.insert(id, Box::new(memory));
            id
        };
        let mut request = abi::RecvWr { wr_id: id, next: std::ptr::null_mut(), sg_list: &raw mut sge, num_sge: 1 };
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live queue; the request and its piece are read before this returns; the memory is kept in the table
        // until the completion or the queue's end.
        let errno = unsafe { post(inner.raw(), &raw mut request, &raw mut bad) };
        if errno == 0 {
            place.forget();
            return Ok(());
        }
        drop(inner.completions().withdraw(id));
        let memory = inner.arrivals.buffers.lock().remove(&id);
        let memory = memory.and_then(|memory| memory.downcast().ok()).expect("invariant: inserted above, not posted");
        refused(VerbsError::call(Verb::PostSrqRecv, errno.abs()), *memory)
    }

    /// The next message.
    pub async fn next(&mut self) -> Arrival {
        self.arrived.recv().await.expect("invariant: the sender is in `inner`")
    }
}
