//! The io_uring engine: one ring thread per device.
//!
//! Async code sends work over a channel (bounded by permits: [`IN_FLIGHT_MAX`] operations, queued and flying together)
//! and awaits a one-shot; the ring thread turns work into submissions and completions into answers. The thread alone
//! touches the ring, so that the kernel's SINGLE_ISSUER and DEFER_TASKRUN modes fit (used where the kernel has them:
//! 6.1). It sleeps in `submit_and_wait`; an eventfd read that is always in flight wakes it, and a flag saves the
//! eventfd write while it is awake anyway.
//!
//! Memory safety rests on one rule: what the kernel may touch (buffers, io-vectors, the eventfd counter) belongs to the
//! thread's slab until the completion is seen. The thread leaves only when nothing is in flight; should it panic with
//! operations in flight, the process is aborted, for freeing those buffers would let the kernel write into memory
//! that is somebody else's by then.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use parking_lot::Mutex;
use penstock_buf::{Buf, BufMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::file::DeviceFile;
use super::{Device, DeviceError, Geometry};

/// Operations of one device, queued and flying together.
const IN_FLIGHT_MAX: usize = 256;
/// Submission entries: every operation has one at a time, and the wake-up one more.
const RING_ENTRIES: u32 = 512;
/// The completion that says "there is work", not "work is done".
const WAKE: u64 = u64::MAX;
/// The device's place in the ring's table of registered files.
const DEVICE: types::Fixed = types::Fixed(0);
/// Most io-vectors of one submission (UIO_MAXIOV).
const IOVECS_MAX: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, DeviceError>>;

enum Work {
    Read { offset: u64, buffer: BufMut, reply: Reply<BufMut> },
    Write { offset: u64, pieces: Vec<Buf>, bytes: usize, reply: Reply<()> },
    Flush { reply: Reply<()> },
    Allocate { mode: i32, offset: u64, bytes: u64, reply: Reply<()> },
}

struct Message {
    work: Work,
    permit: OwnedSemaphorePermit,
}

/// What the two sides of the channel share to wake the thread.
struct Waker {
    eventfd: File,
    sleeping: AtomicBool,
}

impl Waker {
    fn wake(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake_always();
        }
    }

    fn wake_always(&self) {
        if let Err(error) = (&self.eventfd).write_all(&1u64.to_ne_bytes()) {
            tracing::error!(%error, "the ring thread can't be woken");
        }
    }
}

pub(super) struct UringDevice {
    file: Arc<DeviceFile>,
    permits: Arc<Semaphore>,
    sender: Mutex<Option<Sender<Message>>>,
    waker: Arc<Waker>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl UringDevice {
    /// Starts the ring thread.
    pub(super) fn start(file: Arc<DeviceFile>) -> io::Result<Self> {
        // SAFETY: eventfd takes plain numbers; the result is checked before it becomes an owned file.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, valid and nobody else's.
        let eventfd = unsafe { File::from_raw_fd(eventfd) };
        let waker = Arc::new(Waker { eventfd, sleeping: AtomicBool::new(false) });
        let (sender, receiver) = crossbeam_channel::bounded(IN_FLIGHT_MAX);
        let (ready, started) = std::sync::mpsc::channel();
        let thread = {
            let (file, waker) = (Arc::clone(&file), Arc::clone(&waker));
            std::thread::Builder::new().name("penstock-ring".into()).spawn(move || {
                // The ring is made here, for SINGLE_ISSUER binds it to the thread that makes it.
                match make_ring(&file) {
                    Ok(ring) => {
                        let _ = ready.send(Ok(()));
                        Ring::new(ring, receiver, waker, file).run();
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?
        };
        started.recv().map_err(|_| io::Error::other("the ring thread died while starting"))??;
        Ok(Self {
            file,
            permits: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            sender: Mutex::new(Some(sender)),
            waker,
            thread: Mutex::new(Some(thread)),
        })
    }

    async fn send<T>(&self, make: impl FnOnce(Reply<T>) -> Work) -> Result<T, DeviceError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| DeviceError::Closed)?;
        let (reply, answer) = oneshot::channel();
        {
            let sender = self.sender.lock();
            let sender = sender.as_ref().ok_or(DeviceError::Closed)?;
            // The permits keep the channel from ever being full, so this does not block.
            sender.send(Message { work: make(reply), permit }).map_err(|_| DeviceError::Closed)?;
        }
        self.waker.wake();
        answer.await.map_err(|_| DeviceError::Closed)?
    }

    /// Ends the channel; the thread leaves once everything in flight is done.
    fn stop(&self) -> Option<JoinHandle<()>> {
        drop(self.sender.lock().take());
        let thread = self.thread.lock().take();
        if thread.is_some() {
            self.waker.wake_always();
        }
        thread
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        // Not joined: a drop must not block, and the thread owns all that it still needs.
        drop(self.stop());
    }
}

#[async_trait]
impl Device for UringDevice {
    fn geometry(&self) -> Geometry {
        self.file.geometry("io_uring")
    }

    async fn read(&self, offset: u64, buffer: BufMut) -> Result<BufMut, DeviceError> {
        self.send(|reply| Work::Read { offset, buffer, reply }).await
    }

    async fn write(&self, offset: u64, pieces: Vec<Buf>) -> Result<(), DeviceError> {
        let bytes = pieces.iter().map(Buf::len).sum();
        self.send(|reply| Work::Write { offset, pieces, bytes, reply }).await
    }

    async fn flush(&self) -> Result<(), DeviceError> {
        self.send(|reply| Work::Flush { reply }).await
    }

    async fn allocate(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        self.send(|reply| Work::Allocate { mode: 0, offset, bytes, reply }).await
    }

    async fn discard(&self, offset: u64, bytes: u64) -> Result<(), DeviceError> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        self.send(|reply| Work::Allocate { mode, offset, bytes, reply }).await
    }

    async fn close(&self) {
        if let Some(thread) = self.stop() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            self.file.unlock();
        }
    }
}

/// A ring with the device registered, in the leanest mode that this kernel has.
fn make_ring(file: &DeviceFile) -> io::Result<IoUring> {
    let lean = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(RING_ENTRIES);
    let ring = match lean {
        Ok(ring) => ring,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(RING_ENTRIES)?,
        Err(error) => return Err(error),
    };
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        (opcode::Read::CODE, "READ"),
        (opcode::Writev::CODE, "WRITEV"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::Fallocate::CODE, "FALLOCATE"),
    ];
    if let Some((_, name)) = needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring has no {name}")));
    }
    ring.submitter().register_files(&[file.file.as_raw_fd()])?;
    Ok(ring)
}

/// An operation that the kernel may be working on. Its buffers must not go before its completion is seen.
struct Flying {
    work: Work,
    /// Bytes that earlier, short completions moved.
    done: usize,
    iovecs: Vec<libc::iovec>,
    _permit: OwnedSemaphorePermit,
}

/// Operations in flight by number. Aborts rather than free memory that the kernel may still write to.
struct Slab {
    places: Vec<Option<Flying>>,
    free: Vec<usize>,
    flying: usize,
}

impl Slab {
    fn insert(&mut self, flying: Flying) -> usize {
        self.flying += 1;
        if let Some(place) = self.free.pop() {
            self.places[place] = Some(flying);
            place
        } else {
            self.places.push(Some(flying));
            self.places.len() - 1
        }
    }

    fn take(&mut self, place: usize) -> Flying {
        self.flying -= 1;
        self.free.push(place);
        self.places[place].take().expect("invariant: a completion belongs to an operation in flight")
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.flying > 0 {
            tracing::error!(flying = self.flying, "the ring thread died with operations in flight");
            std::process::abort();
        }
    }
}

struct Ring {
    // Before the slab: the ring is closed before the memory of its operations could go.
    ring: IoUring,
    receiver: Receiver<Message>,
    waker: Arc<Waker>,
    slab: Slab,
    /// Where the kernel puts the eventfd's counter; boxed, for its address must not change.
    counter: Box<[u8; 8]>,
    armed: bool,
    stopping: bool,
    completions: Vec<(u64, i32)>,
    /// Keeps the descriptor open that is registered with the ring.
    _file: Arc<DeviceFile>,
}

impl Ring {
    fn new(ring: IoUring, receiver: Receiver<Message>, waker: Arc<Waker>, file: Arc<DeviceFile>) -> Self {
        Self {
            ring,
            receiver,
            waker,
            slab: Slab { places: Vec::new(), free: Vec::new(), flying: 0 },
            counter: Box::new([0; 8]),
            armed: false,
            stopping: false,
            completions: Vec::new(),
            _file: file,
        }
    }

    fn run(mut self) {
        loop {
            self.take_work();
            if !self.armed && !self.stopping {
                self.arm();
            }
            if self.stopping && self.slab.flying == 0 && !self.armed {
                return;
            }
            self.wait();
            self.finish_completed();
        }
    }

    fn take_work(&mut self) {
        loop {
            match self.receiver.try_recv() {
                Ok(Message { work, permit }) => {
                    let place = self.slab.insert(Flying { work, done: 0, iovecs: Vec::new(), _permit: permit });
                    self.submit(place);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    // Whoever hangs up writes to the eventfd afterwards, so the armed read comes back.
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    fn arm(&mut self) {
        let fd = types::Fd(self.waker.eventfd.as_raw_fd());
        let entry = opcode::Read::new(fd, self.counter.as_mut_ptr(), 8).build().user_data(WAKE);
        self.armed = true;
        // SAFETY: the counter is boxed and lives until the thread ends, which `armed` keeps from happening early.
        unsafe { self.push(&entry) };
    }

    fn submit(&mut self, place: usize) {
        let flying = self.slab.places[place].as_mut().expect("invariant: the place was just filled");
        let done = flying.done;
        let entry = match &mut flying.work {
            Work::Read { offset, buffer, .. } => {
                let rest = &mut buffer[done..];
                let length = u32::try_from(rest.len()).expect("invariant: a pool's buffers are shorter than 4 GiB");
                opcode::Read::new(DEVICE, rest.as_mut_ptr(), length).offset(*offset + done as u64).build()
            }
            Work::Write { offset, pieces, .. } => {
                flying.iovecs = iovecs(pieces, done);
                opcode::Writev::new(DEVICE, flying.iovecs.as_ptr(), flying.iovecs.len() as u32)
                    .offset(*offset + done as u64)
                    .build()
            }
            Work::Flush { .. } => opcode::Fsync::new(DEVICE).flags(types::FsyncFlags::DATASYNC).build(),
            Work::Allocate { mode, offset, bytes, .. } => {
                opcode::Fallocate::new(DEVICE, *bytes).offset(*offset).mode(*mode).build()
            }
        };
        let entry = entry.user_data(place as u64);
        // SAFETY: buffers and io-vectors are on the heap or in the pool's arena, owned by the slab's place until the
        // completion with this number is seen; moving the place does not move them.
        unsafe { self.push(&entry) };
    }

    /// # Safety
    /// What `entry` points at must stay until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: handed on to our caller.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.enter(0);
        }
    }

    fn wait(&mut self) {
        self.waker.sleeping.store(true, Ordering::SeqCst);
        // Work sent before the flag was up did not wake us: look again before sleeping.
        let want = usize::from(self.receiver.is_empty());
        self.enter(want);
        self.waker.sleeping.store(false, Ordering::SeqCst);
    }

    fn enter(&mut self, want: usize) {
        match self.ring.submit_and_wait(want) {
            Ok(_) => {}
            // A signal, or completions to be collected first: the caller's loop comes round again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(error) => panic!("invariant: a ring that was set up can be entered: {error}"),
        }
    }

    fn finish_completed(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for (place, result) in completions.drain(..) {
            if place == WAKE {
                self.armed = false;
            } else {
                self.complete(place as usize, result);
            }
        }
        self.completions = completions;
    }

    fn complete(&mut self, place: usize, result: i32) {
        if result == -libc::EINTR || result == -libc::EAGAIN {
            return self.submit(place);
        }
        let moved = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let flying = self.slab.places[place].as_mut().expect("invariant: a completion belongs to a flying operation");
        let total = match &flying.work {
            Work::Read { buffer, .. } => buffer.len(),
            Work::Write { bytes, .. } => *bytes,
            Work::Flush { .. } | Work::Allocate { .. } => 0,
        };
        if let Ok(moved) = moved {
            flying.done += moved;
            if moved > 0 && flying.done < total {
                return self.submit(place);
            }
        }
        let flying = self.slab.take(place);
        let whole = moved.and_then(|_| {
            if flying.done >= total { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
        });
        answer(flying.work, whole);
    }
}

fn answer(work: Work, result: io::Result<()>) {
    // A receiver that is gone was dropped by its caller: nobody to tell.
    match work {
        Work::Read { buffer, reply, .. } => {
            let result = result.map(|()| buffer).map_err(|e| DeviceError::from_io("reading the device", &e));
            drop(reply.send(result));
        }
        Work::Write { reply, .. } => {
            drop(reply.send(result.map_err(|e| DeviceError::from_io("writing the device", &e))));
        }
        Work::Flush { reply } => {
            drop(reply.send(result.map_err(|e| DeviceError::from_io("flushing the device", &e))));
        }
        Work::Allocate { reply, .. } => {
            let result = match result {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV)) => Ok(()),
                other => other,
            };
            drop(reply.send(result.map_err(|e| DeviceError::from_io("allocating on the device", &e))));
        }
    }
}

/// The pieces but for their first `done` bytes, as the kernel wants them.
fn iovecs(pieces: &[Buf], done: usize) -> Vec<libc::iovec> {
    let mut skip = done;
    let mut out = Vec::with_capacity(pieces.len().min(IOVECS_MAX));
    for piece in pieces {
        if skip >= piece.len() {
            skip -= piece.len();
            continue;
        }
        let rest = &piece[skip..];
        skip = 0;
        out.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        if out.len() == IOVECS_MAX {
            break;
        }
    }
    out
}
