//! Operations: what was handed to the device, and who waits for it.
//!
//! An operation holds its memory until every one of its work requests has completed, or the queue pair is destroyed. The
//! table of posted work requests holds the operation; the caller's future only looks at it. So dropping the future
//! frees nothing that the device may still touch.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::VerbsError;
use crate::memory::Local;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Done {
    /// Bytes moved. Of a receive: of the message, or of the peer's WRITE that came with it.
    pub bytes: u64,
    /// The immediate data that came with a receive, in this machine's order.
    pub immediate: Option<u32>,
    /// Whether a receive was used up by a WRITE WITH IMMEDIATE, and not by a SEND.
    pub by_write: bool,
}

/// An operation that is over, well or not, and its memory.
pub struct Finished<M> {
    /// The device does not touch it any more.
    pub memory: Local<M>,
    /// How it went. Of a failure: the queue pair is in ERR.
    pub result: Result<Done, VerbsError>,
}

impl<M> Finished<M> {
    /// The memory if all is well.
    ///
    /// # Errors
    /// The operation's.
    pub fn ok(self) -> Result<(Local<M>, Done), VerbsError> {
        self.result.map(|done| (self.memory, done))
    }
}

impl<M> fmt::Debug for Finished<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finished({:?})", self.result)
    }
}

/// The shared part of an operation.
pub(crate) struct Operation(Mutex<State>);

struct State {
    /// Work requests with the device.
    posted: u32,
    /// Whether more will be posted.
    open: bool,
    error: Option<VerbsError>,
    done: Done,
    memory: Option<Box<dyn Any + Send + Sync>>,
    waker: Option<Waker>,
}

impl Operation {
    pub(crate) fn new<T: Any + Send + Sync>(memory: T) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            posted: 0,
            open: true,
            error: None,
            done: Done::default(),
            memory: Some(Box::new(memory)),
            waker: None,
        })))
    }

    /// One more work request is about to be posted.
    pub(crate) fn posting(&self) {
        self.0.lock().posted += 1;
    }

    /// It has not been posted after all.
    pub(crate) fn not_posted(&self, error: VerbsError) {
        self.end_one(Err(error));
    }

    /// Something is wrong beside the work requests.
    pub(crate) fn fail(&self, error: VerbsError) {
        let mut state = self.0.lock();
        keep_first(&mut state.error, error);
    }

    /// No more will be posted.
    pub(crate) fn close(&self) {
        let waker = {
            let mut state = self.0.lock();
            state.open = false;
            if state.posted == 0 { state.waker.take() } else { None }
        };
        wake(waker);
    }

    /// One work request has completed.
    pub(crate) fn end_one(&self, result: Result<Done, VerbsError>) {
        let waker = {
            let mut state = self.0.lock();
            state.posted = state.posted.checked_sub(1).expect("invariant: a work request completes once");
            match result {
                Ok(done) => {
                    state.done.bytes += done.bytes;
                    state.done.immediate = state.done.immediate.or(done.immediate);
                    state.done.by_write |= done.by_write;
                }
                Err(error) => keep_first(&mut state.error, error),
            }
            if state.posted == 0 && !state.open { state.waker.take() } else { None }
        };
        wake(waker);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The first error says why; what was flushed after it only says that.
fn keep_first(slot: &mut Option<VerbsError>, error: VerbsError) {
    match slot {
        None => *slot = Some(error),
        Some(VerbsError::Flushed { .. }) if !matches!(error, VerbsError::Flushed { .. }) => *slot = Some(error),
        Some(_) => {}
    }
}

/// Waits for an operation whose memory is a `T`.
pub(crate) struct Waiting<T> {
    operation: Arc<Operation>,
    memory: PhantomData<fn() -> T>,
}

impl<T: Any + Send + Sync> Waiting<T> {
    pub(crate) fn new(operation: Arc<Operation>) -> Self {
        Self { operation, memory: PhantomData }
    }
}

impl<T: Any + Send + Sync> Future for Waiting<T> {
    type Output = (T, Result<Done, VerbsError>);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.operation.0.lock();
        if state.posted > 0 || state.open {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let memory = state.memory.take().expect("invariant: a future is not polled after it was ready");
        let memory = *memory.downcast::<T>().expect("invariant: an operation is waited for as what it was made of");
        let result = match state.error.take() {
            None => Ok(state.done),
            Some(error) => Err(error),
        };
        Poll::Ready((memory, result))
    }
}

/// A posted receive. Dropping it leaves the buffer with the queue pair.
pub struct Receiving<M>(pub(crate) Waiting<Local<M>>);

impl<M> fmt::Debug for Receiving<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiving")
    }
}

impl<M: Send + Sync + 'static> Future for Receiving<M> {
    type Output = Finished<M>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finished<M>> {
        Pin::new(&mut self.0).poll(context).map(|(memory, result)| Finished { memory, result })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::error::Status;

    fn memory() -> (Arc<u8>, Weak<u8>) {
        let memory = Arc::new(7);
        let weak = Arc::downgrade(&memory);
        (memory, weak)
    }

    #[tokio::test]
    async fn memory_comes_back_when_the_last_work_request_is_done() {
        let (memory, weak) = memory();
        let operation = Operation::new(memory);
        for _ in 0..3 {
            operation.posting();
        }
        operation.close();
        let mut waiting = Waiting::<Arc<u8>>::new(Arc::clone(&operation));
        for bytes in [1, 2] {
            operation.end_one(Ok(Done { bytes, ..Done::default() }));
            assert!(futures_poll(&mut waiting).is_none());
        }
        operation.end_one(Ok(Done { bytes: 4, immediate: Some(9), by_write: true }));
        let (memory, result) = waiting.await;
        assert_eq!(result, Ok(Done { bytes: 7, immediate: Some(9), by_write: true }));
        drop(memory);
        assert_eq!(weak.strong_count(), 0);
    }

    #[test]
    fn a_dropped_future_leaves_the_memory_until_completion() {
        let (memory, weak) = memory();
        let operation = Operation::new(memory);
        operation.posting();
        operation.close();
        let table = Arc::clone(&operation);
        drop(Waiting::<Arc<u8>>::new(operation));
        assert_eq!(weak.strong_count(), 1, "the device still has it");
        table.end_one(Ok(Done::default()));
        drop(table);
        assert_eq!(weak.strong_count(), 0);
    }

    #[tokio::test]
    async fn the_cause_is_told_not_the_flush() {
        let flushed = || VerbsError::Flushed { cause: "x".into() };
        let cause = VerbsError::Completion { status: Status::RetryExceeded, vendor: 0 };
        let operation = Operation::new(());
        for _ in 0..3 {
            operation.posting();
        }
        operation.close();
        for error in [flushed(), cause.clone(), flushed()] {
            operation.end_one(Err(error));
        }
        assert_eq!(Waiting::<()>::new(operation).await.1, Err(cause));
    }

    #[test]
    fn an_operation_that_is_still_posting_is_not_over() {
        let operation = Operation::new(());
        operation.posting();
        operation.end_one(Ok(Done::default()));
        let mut waiting = Waiting::<()>::new(Arc::clone(&operation));
        assert!(futures_poll(&mut waiting).is_none());
        operation.close();
        assert!(futures_poll(&mut waiting).is_some());
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
