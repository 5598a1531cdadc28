//! Whose threads do the work, and what `fork` means for them.
//!
//! A process has one runtime without threads, which whoever waits for an operation drives, and one with threads, made when the
//! first operation is to go on in the background. `fork` leaves a child with the forking thread alone: neither runtime, nor any
//! connection, is of use there. So both belong to an [`Epoch`]; what was made in another epoch is never touched again, not even
//! to be dropped, and everything starts afresh on first use.
//!
//! A lock that another thread holds while `fork` happens is locked for ever in the child. [`before_fork`] therefore waits until no
//! thread is inside of a step of our work ([`Gated`], bounded by [`FORK_WAIT_MAX`]) and lets none begin one until the fork is done.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

/// How long a fork waits for steps under way; they take microseconds.
const FORK_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long the interpreter's end waits for calls into Python under way; they take microseconds.
const EXIT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Threads of work that goes on in the background.
const BACKGROUND_THREADS: usize = 2;
/// Threads for what blocks: coding of long stripes, names that are looked up.
const BLOCKING_THREADS_MAX: usize = 8;

/// One process between two forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pid: u32,
    forks: u64,
}

static FORKS: AtomicU64 = AtomicU64::new(0);
static GATE: RwLock<()> = RwLock::new(());
static PROCESS: RwLock<Option<&'static Process>> = RwLock::new(None);

thread_local! {
    /// The gate, held closed by the thread that forks.
    static CLOSED: RefCell<Option<RwLockWriteGuard<'static, ()>>> = const { RefCell::new(None) };
}

impl Epoch {
    /// This one. The process id is compared too, for forks that Python did not hear of.
    pub(crate) fn now() -> Self {
        Self { pid: std::process::id(), forks: FORKS.load(Ordering::Relaxed) }
    }
}

/// What a process has.
pub(crate) struct Process {
    epoch: Epoch,
    waiting: Runtime,
    background: OnceLock<Runtime>,
}

impl Process {
    /// The runtime that whoever waits drives; or the one that goes on by itself.
    pub(crate) fn runtime(&self, background: bool) -> &Runtime {
        if !background {
            return &self.waiting;
        }
        self.background.get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(BACKGROUND_THREADS)
                .max_blocking_threads(BLOCKING_THREADS_MAX)
                .thread_name("penstock")
                .enable_all()
                .build()
                .expect("the kernel gives threads and an epoll descriptor")
        })
    }
}

/// Passes when no fork is under way, and holds off the next one.
pub(crate) fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// This process's. What an earlier epoch had is left where it is.
///
/// # Errors
/// The kernel gives no epoll descriptor.
pub(crate) fn process() -> std::io::Result<&'static Process> {
    let _gate = gate();
    let epoch = Epoch::now();
    if let Some(process) = *PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner())
        && process.epoch == epoch
    {
        return Ok(process);
    }
    let mut current = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(process) = *current
        && process.epoch == epoch
    {
        return Ok(process);
    }
    let waiting = Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()?;
    let process: &'static Process = Box::leak(Box::new(Process { epoch, waiting, background: OnceLock::new() }));
    *current = Some(process);
    Ok(process)
}

/// Work whose steps are taken with the gate open alone. No step may wait for the GIL: who forks holds it.
pub(crate) struct Gated<F>(pub(crate) Pin<Box<F>>);

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _gate = gate();
        self.0.as_mut().poll(cx)
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);
static CLOSING: AtomicBool = AtomicBool::new(false);

/// A call into Python from a thread that Python does not know of. None begins once the interpreter is ending: a thread that
/// holds the GIL, or waits for it, at that time takes the process down.
pub(crate) struct Call(());

impl Call {
    pub(crate) fn begin() -> Option<Self> {
        CALLS.fetch_add(1, Ordering::SeqCst);
        let call = Self(());
        if CLOSING.load(Ordering::SeqCst) { None } else { Some(call) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// For `atexit`.
#[pyfunction]
pub(crate) fn before_exit(py: Python<'_>) {
    CLOSING.store(true, Ordering::SeqCst);
    py.detach(|| {
        let deadline = Instant::now() + EXIT_WAIT_MAX;
        while CALLS.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
    });
}

/// For `os.register_at_fork(before=...)`.
#[pyfunction]
pub(crate) fn before_fork() {
    let deadline = Instant::now() + FORK_WAIT_MAX;
    loop {
        match GATE.try_write() {
            Ok(closed) => return CLOSED.set(Some(closed)),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => return CLOSED.set(Some(poisoned.into_inner())),
            // Better a fork with a small risk than one that never happens.
            Err(std::sync::TryLockError::WouldBlock) if Instant::now() >= deadline => return,
            Err(std::sync::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// For `os.register_at_fork(after_in_parent=...)`.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    CLOSED.set(None);
}

/// For `os.register_at_fork(after_in_child=...)`.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    // Whoever was in a call is not in the child.
    CALLS.store(0, Ordering::SeqCst);
    CLOSED.set(None);
}
