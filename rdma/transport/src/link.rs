//! A connected queue pair that carries messages: a ring of receives, and sends out of buffers of our own.

use std::collections::VecDeque;
use std::time::Duration;

use penstock_buf::{BufMut, BufPool};
use penstock_verbs::{QueuePair, Receiving, VerbsError};

use crate::message::{MESSAGE_BYTES_MAX, Message, MessageError};

/// How long a message waits for a buffer.
const BUFFER_WAIT: Duration = Duration::from_secs(5);

/// Why a connection ends.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Verbs(#[from] VerbsError),
    #[error("the peer breaks the protocol: {0}")]
    Message(#[from] MessageError),
    #[error("no message buffer: {0}")]
    Buffers(#[from] penstock_buf::BufError),
    #[error("{0}")]
    Ended(&'static str),
}

/// Sends `message`.
pub(crate) async fn send(pair: &QueuePair, pool: &BufPool, message: &Message) -> Result<(), LinkError> {
    let mut buffer = pool.acquire(MESSAGE_BYTES_MAX, BUFFER_WAIT).await?;
    let bytes = message.encode(&mut buffer);
    let local = pair.domain().attach(buffer).map_err(|refused| refused.error)?;
    pair.send(local, 0..bytes, None).await.ok()?;
    Ok(())
}

/// The receives of a connection. Every message has a place: each side keeps to the slots that were agreed on.
pub(crate) struct Ring {
    pair: QueuePair,
    posted: VecDeque<Receiving<BufMut>>,
}

impl Ring {
    /// Posts `count` receives.
    pub(crate) async fn post(pair: &QueuePair, pool: &BufPool, count: usize) -> Result<Self, LinkError> {
        let mut ring = Self { pair: pair.clone(), posted: VecDeque::with_capacity(count) };
        for _ in 0..count {
            let buffer = pool.acquire(MESSAGE_BYTES_MAX, BUFFER_WAIT).await?;
            let local = pair.domain().attach(buffer).map_err(|refused| refused.error)?;
            ring.posted.push_back(pair.receive(local).map_err(|refused| refused.error)?);
        }
        Ok(ring)
    }

    /// The next message. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Message, LinkError> {
        let first = self.posted.front_mut().ok_or(LinkError::Ended("it has no receives"))?;
        let finished = first.await;
        self.posted.pop_front();
        let (memory, done) = finished.ok()?;
        let bytes = usize::try_from(done.bytes).unwrap_or(usize::MAX).min(memory.len());
        let message = Message::decode(&memory[..bytes])?;
        // Before the message is acted on: its answer lets the peer send the next.
        self.posted.push_back(self.pair.receive(memory).map_err(|refused| refused.error)?);
        Ok(message)
    }
}
