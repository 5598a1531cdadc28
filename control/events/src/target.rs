//! What events are sent to.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// How long a target may take to confirm one event, connecting included.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// An event on its way.
#[derive(Clone, Debug)]
pub struct Message {
    /// The same whenever it is sent again, and no other's: targets that know of duplicates find them by it.
    pub id: String,
    /// AWS's JSON.
    pub body: Bytes,
}

/// Why an event was not confirmed. All of it may be different a little later, so all of it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The target can't be reached, or went away.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It did not confirm in time.
    #[error("it did not confirm within {} s", SEND_TIMEOUT.as_secs())]
    Timeout,
    /// It answered, and not with a confirmation.
    #[error("it refused: {0}")]
    Refused(String),
}

impl SendError {
    /// Whether the same event may be taken a little later.
    pub const fn is_retryable(&self) -> bool {
        true
    }
}

/// Something that takes events.
#[async_trait]
pub trait Target: Send + Sync {
    /// Sends an event, and returns once it is confirmed. Bounded by the caller ([`SEND_TIMEOUT`]); may be dropped at any time.
    ///
    /// # Errors
    /// [`SendError`]: whether the target has the event is not known then.
    async fn send(&self, message: &Message) -> Result<(), SendError>;
}
