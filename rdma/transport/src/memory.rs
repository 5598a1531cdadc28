//! The caller's memory, as the node reaches it: READ and WRITE.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use penstock_buf::{Buf, BufMut};
use penstock_transport::{OneSided, TransportError};
use penstock_verbs::{Part, QueuePair, Remote, VerbsError};

use crate::message::{INLINE_BYTES_MAX, Message};

pub(crate) fn closed(reason: impl Into<String>) -> TransportError {
    TransportError::Closed { reason: reason.into() }
}

pub(crate) fn protocol(reason: impl Into<String>) -> TransportError {
    TransportError::Protocol { reason: reason.into() }
}

/// Bytes that went each way.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

/// One call's.
pub(crate) struct Memory {
    pair: QueuePair,
    moved: Arc<Moved>,
    /// The caller has given up: what it lent will be taken back, nothing need be written.
    cancelled: Arc<AtomicBool>,
    outgoing_bytes: usize,
    inline: Bytes,
    sources: Vec<Remote>,
    pulled: bool,
    landing: Option<Remote>,
    landing_bytes: usize,
    /// Pushed, and small enough to travel in the reply.
    held: Vec<Buf>,
    held_bytes: usize,
    written_bytes: usize,
    /// Why the call can't be answered properly any more.
    pub(crate) broken: Option<String>,
}

impl Memory {
    pub(crate) fn new(pair: QueuePair, moved: Arc<Moved>, cancelled: Arc<AtomicBool>, request: &Message) -> Self {
        Self {
            pair,
            moved,
            cancelled,
            outgoing_bytes: request.payload_bytes,
            inline: request.inline.clone(),
            sources: request.sources.clone(),
            pulled: false,
            landing: request.landing,
            landing_bytes: request.landing_bytes,
            held: Vec::new(),
            held_bytes: 0,
            written_bytes: 0,
            broken: None,
        }
    }

    /// All that was pushed: how much, and what of it travels in the reply.
    pub(crate) fn landed(&self) -> (usize, Bytes) {
        let mut inline = BytesMut::with_capacity(self.held_bytes);
        for piece in &self.held {
            inline.extend_from_slice(piece);
        }
        (self.held_bytes + self.written_bytes, inline.freeze())
    }

    fn fails(&mut self, what: &str, error: &VerbsError) -> TransportError {
        let reason = format!("{what} failed: {error}");
        self.broken = Some(reason.clone());
        closed(reason)
    }

    async fn write(&mut self, from: Buf) -> Result<(), TransportError> {
        let Some(landing) = self.landing else {
            return Err(protocol("the caller has lent no memory for so long an answer"));
        };
        let bytes = from.len();
        let local = match self.pair.domain().attach_read_only(from) {
            Ok(local) => local,
            Err(refused) => return Err(self.fails("registering an answer", &refused.error)),
        };
        let addr = landing.addr + self.written_bytes as u64;
        let part = Part { local: 0..bytes, addr, rkey: landing.rkey };
        match self.pair.write(local, &[part], None).await.result {
            Ok(_) => {
                self.written_bytes += bytes;
                self.moved.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(self.fails("WRITE", &error)),
        }
    }

    async fn read(&mut self, into: &mut BufMut) -> Result<(), TransportError> {
        let mut at = 0;
        let parts: Vec<Part> = self
            .sources
            .iter()
            .map(|source| {
                let from = at;
                at += source.len as usize;
                Part { local: from..at, addr: source.addr, rkey: source.rkey }
            })
            .collect();
        // The operation owns the memory while the device has it; an empty piece stays behind.
        let whole = into.split_off(0);
        let local = match self.pair.domain().attach(whole) {
            Ok(local) => local,
            Err(refused) => {
                *into = refused.memory;
                return Err(self.fails("registering a buffer", &refused.error));
            }
        };
        let finished = self.pair.read(local, &parts).await;
        *into = finished.memory.into_inner();
        match finished.result {
            Ok(_) => {
                self.moved.read_bytes.fetch_add(at as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(self.fails("READ", &error)),
        }
    }
}

#[async_trait]
impl OneSided for Memory {
    fn outgoing_bytes(&self) -> usize {
        self.outgoing_bytes
    }

    fn landing_bytes(&self) -> usize {
        self.landing_bytes - self.held_bytes - self.written_bytes
    }

    async fn pull(&mut self, into: &mut BufMut) -> Result<(), TransportError> {
        if self.pulled {
            return Err(protocol("the payload was pulled before"));
        }
        if into.len() != self.outgoing_bytes {
            return Err(protocol(format!(
                "a payload of {} bytes can't be pulled into a buffer of {} bytes",
                self.outgoing_bytes,
                into.len()
            )));
        }
        self.pulled = true;
        if self.sources.is_empty() {
            into.copy_from_slice(&self.inline);
            return Ok(());
        }
        if self.cancelled.load(Ordering::Acquire) {
            return Err(closed("the caller has given up"));
        }
        self.read(into).await
    }

    async fn push(&mut self, from: Buf) -> Result<(), TransportError> {
        let room = self.landing_bytes();
        if from.len() > room {
            return Err(protocol(format!(
                "{} bytes don't fit in the {room} bytes that the caller has room for",
                from.len()
            )));
        }
        if self.cancelled.load(Ordering::Acquire) {
            return Err(closed("the caller has given up"));
        }
        if from.is_empty() {
            return Ok(());
        }
        if self.written_bytes == 0 && self.held_bytes + from.len() <= INLINE_BYTES_MAX {
            self.held_bytes += from.len();
            self.held.push(from);
            return Ok(());
        }
        // In order: what was held back goes first.
        for held in std::mem::take(&mut self.held) {
            self.held_bytes -= held.len();
            self.write(held).await?;
        }
        self.write(from).await
    }
}
