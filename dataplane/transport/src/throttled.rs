//! A slow network around any messenger: bytes per second each way, and latency.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_buf::BufMut;
use penstock_proto::NodeId;
use tokio::time::Instant;

use crate::{Answer, Call, Messenger, TransportError};

/// How slow.
#[derive(Clone, Copy, Debug)]
pub struct ThrottleOptions {
    /// Bytes per second, each way, over all nodes: the caller's own link. At least 1.
    pub bytes_per_second: u64,
    /// Added to each message, each way.
    pub latency: Duration,
}

/// Passes calls on, no faster than [`ThrottleOptions`] says. Deadlines hold: time spent here counts.
pub struct Throttled<M> {
    inner: M,
    options: ThrottleOptions,
    sending: Link,
    receiving: Link,
}

impl<M> Throttled<M> {
    /// Around `inner`.
    pub fn new(inner: M, options: ThrottleOptions) -> Self {
        Self { inner, options, sending: Link::default(), receiving: Link::default() }
    }

    async fn pass(&self, link: &Link, bytes: usize) {
        let rate = self.options.bytes_per_second.max(1) as f64;
        tokio::time::sleep_until(link.reserve(Duration::from_secs_f64(bytes as f64 / rate)) + self.options.latency)
            .await;
    }
}

/// One direction: messages follow one another. A call that is given up has used its share all the same.
#[derive(Default)]
struct Link {
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    /// When a message that takes `time` is through.
    fn reserve(&self, time: Duration) -> Instant {
        let now = Instant::now();
        let mut free_at = self.free_at.lock();
        let done = free_at.map_or(now, |at| at.max(now)) + time;
        *free_at = Some(done);
        done
    }
}

#[async_trait]
impl<M: Messenger> Messenger for Throttled<M> {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        call.check()?;
        let deadline = call.deadline;
        let work = async {
            self.pass(&self.sending, call.header.len() + call.outgoing_bytes()).await;
            let answer = self.inner.call(node, call).await?;
            let landed = answer.landed.as_ref().map_or(0, BufMut::len);
            self.pass(&self.receiving, answer.header.len() + landed).await;
            Ok(answer)
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}
