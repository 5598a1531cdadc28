//! The tail of reads with one slow node, in virtual time: the executor as it is, over the mem transport.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use penstock_transport::{Answer, Call, ThrottleOptions, Throttled, TransportError};

use super::*;

/// Every node takes a millisecond or two, one answer in a hundred ten; and one node as much more as it is told.
struct Slowed {
    inner: MemTransport,
    draws: AtomicU64,
    slow: NodeId,
    more: parking_lot::Mutex<Duration>,
}

impl Slowed {
    fn takes(&self, node: NodeId) -> Duration {
        let mut draw = self.draws.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        draw ^= draw >> 29;
        draw = draw.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20;
        let usual = Duration::from_micros(1000 + draw % 1000);
        let usual = if (draw / 1000).is_multiple_of(100) { 10 * usual } else { usual };
        usual + if node == self.slow { *self.more.lock() } else { Duration::ZERO }
    }
}

#[async_trait]
impl Messenger for Slowed {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        let deadline = call.deadline;
        let slowly = async {
            tokio::time::sleep(self.takes(node)).await;
            self.inner.call(node, call).await
        };
        let late = |_elapsed| Err(TransportError::Deadline { node, after: deadline });
        tokio::time::timeout(deadline, slowly).await.unwrap_or_else(late)
    }
}

struct Figures {
    healthy_p99: Duration,
    slow_p99: Duration,
    /// Asks past those that the range needs, of all, in percent, while the node was slow.
    extra_percent: f64,
    stats: ExecutorStats,
}

const READS: usize = 1500;
const CHUNK: usize = 20_000;

async fn figures(hedging: bool) -> Figures {
    let slowed = Arc::new(parking_lot::Mutex::new(None));
    let options = ExecutorOptions { hedging, ..ExecutorOptions::default() };
    let cluster = Cluster::over(14, options, |inner| {
        let more = parking_lot::Mutex::new(Duration::ZERO);
        let made = Arc::new(Slowed { inner, draws: AtomicU64::new(1), slow: NodeId(3), more });
        *slowed.lock() = Some(Arc::clone(&made));
        // A link of 25 Gbit/s as well.
        let link = ThrottleOptions { bytes_per_second: 3 << 30, latency: Duration::ZERO };
        Arc::new(Throttled::new(made, link))
    });
    let slowed = slowed.lock().take().unwrap();
    let data = bytes(CHUNK);
    let mut stripes = Vec::new();
    for stripe in 0..14u32 {
        // Every node has every shard of some stripe.
        let nodes = (0..14).map(|shard| NodeId(((shard + stripe) % 14) as u16)).collect();
        let target = StripeTarget { stripe, nodes, ..target(code(10, 4)) };
        let stored = cluster.store(&target, &data).await;
        stripes.push((target, stored));
    }
    let mut p99s = Vec::new();
    let mut asks = 0;
    for more in [Duration::ZERO, Duration::from_millis(50)] {
        *slowed.more.lock() = more;
        asks = cluster.executor.stats().asks;
        let mut took = Vec::with_capacity(READS);
        for i in 0..READS {
            let (target, stored) = &stripes[i % stripes.len()];
            let began = tokio::time::Instant::now();
            assert!(cluster.read(target, stored, 0..CHUNK).await.unwrap() == data);
            took.push(began.elapsed());
        }
        took.sort_unstable();
        p99s.push(took[READS * 99 / 100]);
    }
    let stats = cluster.executor.stats();
    let needed = (READS * 10) as f64;
    let extra_percent = ((stats.asks - asks) as f64 - needed) / needed * 100.0;
    Figures { healthy_p99: p99s[0], slow_p99: p99s[1], extra_percent, stats }
}

#[tokio::test(start_paused = true)]
async fn one_node_50_ms_slow() {
    let (with, without) = (figures(true).await, figures(false).await);
    for (name, figures) in [("with hedging", &with), ("without", &without)] {
        println!(
            "{name}: p99 {:?} healthy, {:?} with a node 50 ms slow; {:.2} % extra reads; {} hedged shards, {} reads won, \
             {} refused by the budget, {} by overload",
            figures.healthy_p99,
            figures.slow_p99,
            figures.extra_percent,
            figures.stats.hedges_asked,
            figures.stats.hedges_won,
            figures.stats.hedges_refused_budget,
            figures.stats.hedges_refused_overload
        );
    }
    assert!(with.slow_p99 <= 2 * with.healthy_p99);
    assert!(with.extra_percent <= 5.0);
    assert!(with.stats.hedges_won > 0 && with.stats.slow_nodes == [NodeId(3)]);
    assert!(without.slow_p99 >= Duration::from_millis(50) && without.stats.hedges_asked == 0);
}
