//! One request to one node, with what is worth retrying retried: a busy node, after a pause that grows and is jittered;
//! a connection that went away (a node that was restarted), once. All within one deadline, all bounded.

use std::time::Duration;

use penstock_buf::{Buf, BufMut};
use penstock_proto::NodeId;
use penstock_proto::wire::{NodeErrorCode, NodeReply, NodeRequest};
use penstock_transport::{Call, TransportError};
use tokio::time::Instant;

use crate::Executor;
use crate::error::{FailureKind, Trouble};

/// Tries of one request on a busy node.
pub const BUSY_TRIES_MAX: u32 = 8;
/// Pause after the first busy answer; doubles with each, and is jittered by half either way.
pub const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Connections that may go away under one request.
const CLOSED_RETRIES_MAX: u32 = 1;

/// One request, before it is sent.
pub(crate) struct Exchange<'a> {
    pub(crate) node: NodeId,
    pub(crate) request: &'a NodeRequest,
    pub(crate) outgoing: &'a [Buf],
    /// Bytes that the answer may bring.
    pub(crate) landing_bytes: usize,
    /// Where they land; when absent (or used up by a failed try), taken from the pool.
    pub(crate) landing: Option<BufMut>,
}

/// The pause before try `attempt + 1`: between half and one and a half of a doubling base. Jitter comes from `salt`,
/// which differs between shards and stripes, so that those who were refused together don't come back together.
fn busy_pause(attempt: u32, salt: u64) -> Duration {
    let mixed = (salt ^ u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let percent = 50 + (mixed >> 40) % 100;
    BUSY_PAUSE * 2u32.pow(attempt) * percent as u32 / 100
}

fn kind_of(code: NodeErrorCode) -> FailureKind {
    match code {
        NodeErrorCode::NoSuchShard => FailureKind::NoSuchShard,
        NodeErrorCode::Corrupt => FailureKind::Corrupt,
        NodeErrorCode::NoSpace => FailureKind::NoSpace,
        NodeErrorCode::Busy => FailureKind::Busy,
        NodeErrorCode::DeviceFailed => FailureKind::DeviceFailed,
        NodeErrorCode::Forbidden | NodeErrorCode::BadRequest | NodeErrorCode::DataDeleted | NodeErrorCode::Internal => {
            FailureKind::Refused
        }
    }
}

impl Executor {
    /// Does it. The reply is never a refusal.
    pub(crate) async fn exchange(
        &self,
        exchange: Exchange<'_>,
        salt: u64,
    ) -> Result<(NodeReply, Option<Buf>), Trouble> {
        let node = exchange.node;
        let outcome = self.exchange_uncounted(exchange, salt).await;
        match &outcome {
            Ok(_) => self.inner.watch.answered(node),
            Err(trouble) => self.inner.watch.failed(node, trouble.kind),
        }
        outcome
    }

    async fn exchange_uncounted(
        &self,
        mut exchange: Exchange<'_>,
        salt: u64,
    ) -> Result<(NodeReply, Option<Buf>), Trouble> {
        let deadline = Instant::now() + self.inner.options.shard_deadline;
        let header = exchange.request.encode();
        let (mut busy, mut closed) = (0, 0);
        loop {
            let landing = match exchange.landing.take() {
                Some(landing) => Some(landing),
                None if exchange.landing_bytes > 0 => Some(
                    self.inner
                        .pool
                        .acquire(exchange.landing_bytes, self.inner.options.buffer_wait)
                        .await
                        .map_err(|error| Trouble::new(FailureKind::Buffers, error.to_string()))?,
                ),
                None => None,
            };
            let call = Call {
                header: header.clone(),
                outgoing: exchange.outgoing.to_vec(),
                landing,
                deadline: deadline.saturating_duration_since(Instant::now()),
            };
            let trouble = match self.inner.messenger.call_to_read(exchange.node, call).await {
                Ok(answer) => match NodeReply::decode(&answer.header) {
                    Ok(NodeReply::Refused { code, message }) => Trouble::new(kind_of(code), message),
                    Ok(reply) => return Ok((reply, answer.bytes)),
                    Err(error) => Trouble::new(FailureKind::Refused, format!("an answer that can't be read: {error}")),
                },
                Err(TransportError::Closed { .. }) if closed < CLOSED_RETRIES_MAX => {
                    closed += 1;
                    continue;
                }
                Err(error) => error.into(),
            };
            let pause = busy_pause(busy, salt);
            busy += 1;
            if trouble.kind != FailureKind::Busy || busy >= BUSY_TRIES_MAX || Instant::now() + pause >= deadline {
                return Err(trouble);
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        for attempt in 0..BUSY_TRIES_MAX {
            let base = BUSY_PAUSE * 2u32.pow(attempt);
            let pauses: Vec<_> = (0..100).map(|salt| busy_pause(attempt, salt)).collect();
            assert!(pauses.iter().all(|pause| (base / 2..base * 3 / 2).contains(pause)));
            assert!(pauses.iter().collect::<std::collections::HashSet<_>>().len() > 20);
        }
    }
}
