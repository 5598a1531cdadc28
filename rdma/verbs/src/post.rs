//! What a queue pair does: WRITE, READ, SEND, receives, and the work requests behind leases.

use std::any::Any;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::abi::{self, opcode};
use crate::completion::Entry;
use crate::error::{Refused, Verb, VerbsError};
use crate::lease::Bind;
use crate::memory::{Local, Readable, Writable};
use crate::operation::{Done, Finished, Operation, Receiving, Waiting};
use crate::queue_pair::QueuePair;
use crate::work::{Part, Piece, cut, length};

/// A place in the send queue.
pub(crate) struct Slot(OwnedSemaphorePermit);

/// A work request of nothing.
fn blank(opcode: i32) -> abi::SendWr {
    // SAFETY: all-zero is a value of this structure of integers and nullable pointers.
    let mut request: abi::SendWr = unsafe { std::mem::zeroed() };
    request.opcode = opcode;
    request.send_flags = abi::SEND_SIGNALED;
    request
}

impl QueuePair {
    /// Writes parts of `from` to the peer's memory, in order. `immediate` goes with the last piece, and uses up a
    /// receive of the peer's; without bytes, give one empty part.
    pub async fn write<M: Readable>(&self, from: Local<M>, parts: &[Part], immediate: Option<u32>) -> Finished<M> {
        self.transfer(opcode::RDMA_WRITE, from, parts, immediate).await
    }

    /// Reads parts of the peer's memory into `into`.
    pub async fn read<M: Writable>(&self, into: Local<M>, parts: &[Part]) -> Finished<M> {
        self.transfer(opcode::RDMA_READ, into, parts, None).await
    }

    /// Nothing but `immediate`, as a WRITE of no bytes: uses up a receive of the peer's.
    ///
    /// # Errors
    /// The operation's.
    pub async fn write_immediate(&self, immediate: u32) -> Result<Done, VerbsError> {
        let part = Part { local: 0..0, addr: 0, rkey: 0 };
        self.transfer(opcode::RDMA_WRITE, Local::nothing(), &[part], Some(immediate)).await.result
    }

    /// Sends `range` of `from` as one message into a receive of the peer's.
    pub async fn send<M: Readable>(&self, from: Local<M>, range: Range<usize>, immediate: Option<u32>) -> Finished<M> {
        if range.len() > self.domain().port().message_bytes_max as usize {
            let error = VerbsError::bounds(format!(
                "a message of {} bytes; the port takes {}",
                range.len(),
                self.domain().port().message_bytes_max
            ));
            return Finished { memory: from, result: Err(error) };
        }
        let piece = Piece { local: range, addr: 0, rkey: 0, is_last: true };
        self.run(opcode::SEND, from, vec![piece], immediate).await
    }

    /// Sends a few bytes that are copied into the work request.
    ///
    /// # Errors
    /// [`VerbsError::Bounds`] past [`QueuePair::inline_bytes`]; the operation's.
    pub async fn send_inline(&self, bytes: &[u8], immediate: Option<u32>) -> Result<Done, VerbsError> {
        if bytes.len() > self.inline_bytes() {
            let (have, max) = (bytes.len(), self.inline_bytes());
            return Err(VerbsError::bounds(format!("{have} bytes inline; the queue pair takes {max}")));
        }
        let slot = self.slot().await?;
        let operation = Operation::new(());
        let mut request = blank(if immediate.is_some() { opcode::SEND_WITH_IMM } else { opcode::SEND });
        request.imm_data = immediate.unwrap_or(0).to_be();
        request.send_flags |= abi::SEND_INLINE;
        self.post_send(slot, &operation, request, Some((bytes.as_ptr() as u64, length(bytes.len())?, 0)));
        operation.close();
        let ((), result) = Waiting::<()>::new(operation).await;
        result.map(|done| Done { bytes: bytes.len() as u64, ..done })
    }

    /// Posts a receive, now: from INIT on. The answer is ready when a message, or a WRITE WITH IMMEDIATE, has used it.
    ///
    /// # Errors
    /// [`VerbsError::Full`] past the queue's depth; when the queue pair is closed. The memory comes back.
    pub fn receive<M: Writable>(&self, into: Local<M>) -> Result<Receiving<M>, Refused<Local<M>>> {
        let piece = match into.piece(&(0..into.len())).and_then(|(addr, len)| Ok((addr, length(len)?))) {
            Ok((addr, len)) => into.registration().map(|registration| (addr, len, registration.local_key())),
            Err(error) => return Err(Refused { error, memory: into }),
        };
        if self.0.shared_receive.is_some() {
            let error =
                VerbsError::Unsupported { what: "receives of its own on a shared queue: post them there".into() };
            return Err(Refused { error, memory: into });
        }
        let Ok(permit) = Arc::clone(&self.0.recv_slots).try_acquire_owned() else {
            let error = match self.failure() {
                Some(_) => self.0.closed(),
                None => VerbsError::Full { what: "the receive queue", max: self.0.recv_max },
            };
            return Err(Refused { error, memory: into });
        };
        let operation = Operation::new(into);
        self.post_receive(permit, &operation, piece);
        operation.close();
        Ok(Receiving(Waiting::new(operation)))
    }

    /// Posts a receive without memory, for the peer's WRITE WITH IMMEDIATE.
    ///
    /// # Errors
    /// As of [`QueuePair::receive`].
    pub fn receive_nothing(&self) -> Result<Receiving<()>, VerbsError> {
        Ok(self.receive(Local::nothing())?)
    }

    /// Waits for a place in the send queue.
    pub(crate) async fn slot(&self) -> Result<Slot, VerbsError> {
        match Arc::clone(&self.0.send_slots).acquire_owned().await {
            Ok(permit) => Ok(Slot(permit)),
            Err(_closed) => Err(self.0.closed()),
        }
    }

    async fn transfer<M: Readable>(
        &self,
        opcode: i32,
        memory: Local<M>,
        parts: &[Part],
        immediate: Option<u32>,
    ) -> Finished<M> {
        let pieces = cut(parts, self.domain().piece_bytes_max());
        // An empty READ moves nothing, and some devices refuse it.
        if opcode == opcode::RDMA_READ && pieces.iter().all(|piece| piece.local.is_empty()) {
            return Finished { memory, result: Ok(Done::default()) };
        }
        self.run(opcode, memory, pieces, immediate).await
    }

    async fn run<M: Readable>(
        &self,
        opcode: i32,
        memory: Local<M>,
        pieces: Vec<Piece>,
        immediate: Option<u32>,
    ) -> Finished<M> {
        let mut addresses = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            match memory.piece(&piece.local).and_then(|(addr, len)| Ok((addr, length(len)?))) {
                Ok(address) => addresses.push(address),
                Err(error) => return Finished { memory, result: Err(error) },
            }
        }
        let lkey = memory.registration().map_or(0, |registration| registration.local_key());
        let bytes = addresses.iter().map(|(_, len)| u64::from(*len)).sum();
        let operation = Operation::new(memory);
        for (piece, (addr, len)) in pieces.iter().zip(addresses) {
            let slot = match self.slot().await {
                Ok(slot) => slot,
                Err(error) => {
                    operation.fail(error);
                    break;
                }
            };
            let mut request = blank(opcode);
            request.rdma_remote_addr = piece.addr;
            request.rdma_rkey = piece.rkey;
            if let Some(immediate) = immediate.filter(|_| piece.is_last) {
                request.opcode = with_immediate(opcode);
                request.imm_data = immediate.to_be();
            }
            if !self.post_send(slot, &operation, request, (len > 0).then_some((addr, len, lkey))) {
                break;
            }
        }
        operation.close();
        let (memory, result) = Waiting::new(operation).await;
        Finished { memory, result: result.map(|done| Done { bytes, ..done }) }
    }

    /// Binds a window. `lease` is kept until the device has done so.
    pub(crate) async fn bind<T: Any + Send + Sync>(
        &self,
        slot: Slot,
        lease: T,
        bind: &Bind,
    ) -> (T, Result<Done, VerbsError>) {
        let operation = Operation::new(lease);
        let mut request = blank(opcode::BIND_MW);
        request.bind_mw = bind.window;
        request.bind_rkey = bind.key;
        request.bind_mr = bind.registration;
        request.bind_addr = bind.addr;
        request.bind_length = bind.len;
        request.bind_access = bind.access;
        self.post_send(slot, &operation, request, None);
        operation.close();
        Waiting::new(operation).await
    }

    /// Ends a window's binding. `lease` is kept until the device has done so.
    pub(crate) async fn local_invalidate<T: Any + Send + Sync>(
        &self,
        lease: T,
        key: u32,
    ) -> (T, Result<Done, VerbsError>) {
        let operation = Operation::new(lease);
        match self.slot().await {
            Ok(slot) => {
                let mut request = blank(opcode::LOCAL_INV);
                request.imm_data = key;
                // After every READ of ours before it: what the specification asks for.
                request.send_flags |= abi::SEND_FENCE;
                self.post_send(slot, &operation, request, None);
            }
            Err(error) => operation.fail(error),
        }
        operation.close();
        Waiting::new(operation).await
    }

    /// Posts one work request; whether it was. If not, the operation knows why.
    fn post_send(
        &self,
        slot: Slot,
        operation: &Arc<Operation>,
        mut request: abi::SendWr,
        piece: Option<(u64, u32, u32)>,
    ) -> bool {
        let mut sge = piece.map(|(addr, length, lkey)| abi::Sge { addr, length, lkey });
        if let Some(sge) = &mut sge {
            request.sg_list = sge;
            request.num_sge = 1;
        }
        let post = self.domain().device().ops().post_send;
        self.posted(slot.0, operation, false, |raw, id| {
            let post =
                post.ok_or_else(|| VerbsError::Unsupported { what: "the driver has no ibv_post_send".into() })?;
            request.wr_id = id;
            let mut bad = null_mut();
            // SAFETY: a live queue pair, kept so by the caller's lock. The request and its piece are read before this
            // returns; the memory, window and registration that it names are kept by the operation, which is in the
            // table until its completion or the queue pair's end.
            match unsafe { post(raw, &raw mut request, &raw mut bad) } {
                0 => Ok(()),
                errno => Err(VerbsError::call(Verb::PostSend, errno.abs())),
            }
        })
    }

    fn post_receive(&self, permit: OwnedSemaphorePermit, operation: &Arc<Operation>, piece: Option<(u64, u32, u32)>) {
        let mut sge = piece.map(|(addr, length, lkey)| abi::Sge { addr, length, lkey });
        let post = self.domain().device().ops().post_recv;
        self.posted(permit, operation, true, |raw, id| {
            let post =
                post.ok_or_else(|| VerbsError::Unsupported { what: "the driver has no ibv_post_recv".into() })?;
            let (sg_list, num_sge) = match &mut sge {
                Some(sge) => (&raw mut *sge, 1),
                None => (null_mut(), 0),
            };
            let mut request = abi::RecvWr { wr_id: id, next: null_mut(), sg_list, num_sge };
            let mut bad = null_mut();
            // SAFETY: as of `post_send`.
            match unsafe { post(raw, &raw mut request, &raw mut bad) } {
                0 => Ok(()),
                errno => Err(VerbsError::call(Verb::PostRecv, errno.abs())),
            }
        });
    }

    fn posted(
        &self,
        permit: OwnedSemaphorePermit,
        operation: &Arc<Operation>,
        receives: bool,
        post: impl FnOnce(*mut abi::Qp, u64) -> Result<(), VerbsError>,
    ) -> bool {
        operation.posting();
        let outcome = self.0.with_raw(receives, |raw| {
            // In the table before the device knows of it: it may complete at once.
            let id = self.domain().completions().enter(Entry::Own {
                owner: self.0.id,
                queue_pair: Arc::downgrade(&self.0),
                operation: Arc::clone(operation),
                _permit: permit,
            });
            post(raw, id).inspect_err(|_| drop(self.domain().completions().withdraw(id)))
        });
        match outcome {
            Ok(()) => true,
            Err(error) => {
                // Half a transfer may be with the device: nobody is told before it can't go on.
                if matches!(error, VerbsError::Call { .. }) {
                    self.0.fence(&error);
                }
                operation.not_posted(error);
                false
            }
        }
    }
}

fn with_immediate(opcode: i32) -> i32 {
    match opcode {
        opcode::SEND => opcode::SEND_WITH_IMM,
        _ => opcode::RDMA_WRITE_WITH_IMM,
    }
}
