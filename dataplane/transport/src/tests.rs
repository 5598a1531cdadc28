use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{BufPool, PoolOptions};
use penstock_proto::NodeId;

use crate::conformance::{self, Fixture};
use crate::{
    Answer, Beside, Call, FaultOptions, Faulty, Handler, MemTransport, Messenger, OneSided, Partition, ThrottleOptions,
    Throttled, TransportError,
};

fn attached(handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> MemTransport {
    let transport = MemTransport::new();
    for (node, handler) in handlers {
        transport.attach(node, handler);
    }
    transport
}

/// In memory, through whatever `0` wraps around it.
struct Mem(fn(MemTransport) -> Arc<dyn Messenger>);

#[async_trait]
impl Fixture for Mem {
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger> {
        (self.0)(attached(handlers))
    }
}

#[tokio::test]
async fn mem_conforms() {
    assert_eq!(conformance::run_all(&Mem(|mem| Arc::new(mem))).await, []);
}

/// The first of the nodes near, all others far.
struct NearAndFar;

#[async_trait]
impl Fixture for NearAndFar {
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger> {
        let (node, handler) = handlers[0].clone();
        Arc::new(Beside::new(node, handler, Arc::new(attached(handlers[1..].to_vec()))))
    }
}

#[tokio::test]
async fn beside_a_node_conforms() {
    assert_eq!(conformance::run_all(&NearAndFar).await, []);
}

#[tokio::test]
async fn throttled_conforms() {
    let wrap = |mem| -> Arc<dyn Messenger> {
        let options = ThrottleOptions { bytes_per_second: 4 << 30, latency: Duration::from_micros(100) };
        Arc::new(Throttled::new(mem, options))
    };
    assert_eq!(conformance::run_all(&Mem(wrap)).await, []);
}

#[tokio::test]
async fn faulty_without_faults_conforms() {
    let wrap = |mem| -> Arc<dyn Messenger> { Arc::new(Faulty::new(mem, FaultOptions::none(1))) };
    assert_eq!(conformance::run_all(&Mem(wrap)).await, []);
}

/// A transport that breaks one rule.
struct Planted {
    inner: MemTransport,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    FlipsALandedBit,
    LosesTheLastLandedByte,
    SwapsThePieces,
    DropsALargePayload,
    AnswersWithAnotherBuffer,
    ForgetsTheDeadline,
    SendsAnyLength,
    LeaksOnCancel,
    MixesUpNodes,
}

#[async_trait]
impl Messenger for Planted {
    async fn call(&self, node: NodeId, mut call: Call) -> Result<Answer, TransportError> {
        let scratch =
            || BufPool::new(PoolOptions { capacity_bytes: 16 << 20, huge_pages: false }).unwrap().try_acquire(8 << 20);
        match self.rule {
            Rule::SwapsThePieces => call.outgoing.reverse(),
            Rule::DropsALargePayload if call.outgoing_bytes() > 4 << 20 => call.outgoing.clear(),
            Rule::ForgetsTheDeadline => call.deadline = Duration::from_secs(3600),
            Rule::SendsAnyLength => call.header = call.header.slice(..call.header.len().min(4096)),
            #[expect(clippy::mem_forget, reason = "the leak is what is planted")]
            Rule::LeaksOnCancel => std::mem::forget(call.outgoing.clone()),
            _ => {}
        }
        let node = if matches!(self.rule, Rule::MixesUpNodes) && node == NodeId(4) { NodeId(3) } else { node };
        let mut answer = self.inner.call(node, call).await?;
        if let Some(landed) = &mut answer.landed {
            match self.rule {
                Rule::FlipsALandedBit if landed.len() == 4097 => landed[4096] ^= 1,
                Rule::LosesTheLastLandedByte => landed.truncate(landed.len().saturating_sub(1)),
                Rule::AnswersWithAnotherBuffer => {
                    let mut other = scratch().unwrap();
                    other.truncate(landed.len());
                    other.copy_from_slice(landed);
                    *landed = other;
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

struct PlantedFixture(Rule);

#[async_trait]
impl Fixture for PlantedFixture {
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger> {
        Arc::new(Planted { inner: attached(handlers), rule: self.0 })
    }
}

#[tokio::test(start_paused = true)]
async fn planted_misbehaviour_is_found() {
    for (rule, check) in [
        (Rule::FlipsALandedBit, "answers_land_in_the_callers_own_buffer"),
        (Rule::LosesTheLastLandedByte, "pushes_follow_one_another"),
        (Rule::SwapsThePieces, "payloads_arrive_whole_and_in_order"),
        (Rule::DropsALargePayload, "payloads_arrive_whole_and_in_order"),
        (Rule::AnswersWithAnotherBuffer, "answers_land_in_the_callers_own_buffer"),
        (Rule::ForgetsTheDeadline, "a_deadline_ends_a_call_and_the_next_one_works"),
        (Rule::SendsAnyLength, "what_is_out_of_bounds_is_not_sent"),
        (Rule::LeaksOnCancel, "a_cancelled_call_returns_its_buffers"),
        (Rule::MixesUpNodes, "each_node_has_its_own_handler"),
    ] {
        let found = conformance::run_all(&PlantedFixture(rule)).await;
        assert!(found.iter().any(|broken| broken.check == check), "{rule:?} was not found by {check}: {found:?}");
    }
}

/// Counts what it executes.
#[derive(Default)]
struct Counter(AtomicU64);

#[async_trait]
impl Handler for Counter {
    async fn handle(&self, header: Bytes, _memory: &mut dyn OneSided) -> Bytes {
        self.0.fetch_add(1, Ordering::SeqCst);
        header
    }
}

const NODE: NodeId = NodeId(1);

fn faulty(options: FaultOptions) -> (Arc<Counter>, Faulty<MemTransport>) {
    let counter = Arc::new(Counter::default());
    (Arc::clone(&counter), Faulty::new(attached(vec![(NODE, counter as _)]), options))
}

async fn send(messenger: &dyn Messenger) -> Result<Answer, TransportError> {
    messenger.call(NODE, Call::new(Bytes::from_static(b"x"), Duration::from_secs(10))).await
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_not_executed_and_a_lost_reply_is() {
    let (counter, lossy) = faulty(FaultOptions { lose_request: 1.0, ..FaultOptions::none(1) });
    assert!(matches!(send(&lossy).await, Err(TransportError::Closed { .. })));
    assert_eq!(counter.0.load(Ordering::SeqCst), 0);

    let (counter, lossy) = faulty(FaultOptions { lose_reply: 1.0, silent: true, ..FaultOptions::none(1) });
    assert!(matches!(send(&lossy).await, Err(TransportError::Deadline { node: NODE, .. })));
    assert_eq!(counter.0.load(Ordering::SeqCst), 1);
    assert_eq!(lossy.counts().replies_lost, 1);
}

#[tokio::test(start_paused = true)]
async fn partitions_cut_one_way_or_both_and_heal() {
    let (counter, net) = faulty(FaultOptions::none(1));
    for (how, executed) in [(Partition::Requests, 0), (Partition::Both, 0), (Partition::Replies, 1)] {
        net.cut(NODE, how);
        assert!(send(&net).await.is_err());
        assert_eq!(counter.0.swap(0, Ordering::SeqCst), executed, "{how:?}");
        net.heal(NODE);
        assert!(send(&net).await.is_ok());
        assert_eq!(counter.0.swap(0, Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn duplicates_are_executed_twice_and_late_ones_arrive_later() {
    let delay_max = Duration::from_secs(5);
    let (counter, net) = faulty(FaultOptions { duplicate: 1.0, delay_max, ..FaultOptions::none(7) });
    for _ in 0..20 {
        assert!(send(&net).await.is_ok());
    }
    let at_once = counter.0.load(Ordering::SeqCst);
    assert!((21..40).contains(&at_once), "{at_once}: some duplicates come before, some after");
    net.settle().await;
    assert_eq!(counter.0.load(Ordering::SeqCst), 40);
    assert_eq!(net.counts().duplicated, 20);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_does_the_same() {
    let story = |seed| async move {
        let options = FaultOptions {
            lose_request: 0.2,
            lose_reply: 0.2,
            duplicate: 0.2,
            delay: 0.5,
            delay_max: Duration::from_secs(1),
            ..FaultOptions::none(seed)
        };
        let (_counter, net) = faulty(options);
        let mut fates = Vec::new();
        for _ in 0..50 {
            fates.push(send(&net).await.is_ok());
        }
        (fates, net.counts())
    };
    let (fates, counts) = story(1).await;
    assert_eq!((fates.clone(), counts), story(1).await);
    assert_ne!(fates, story(2).await.0);
    assert!(counts.requests_lost > 0 && counts.replies_lost > 0 && counts.duplicated > 0 && counts.delayed > 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_takes_the_time_that_the_bytes_take() {
    let mem = attached(vec![(NODE, Arc::new(Counter::default()) as _)]);
    let latency = Duration::from_millis(10);
    let net = Throttled::new(mem, ThrottleOptions { bytes_per_second: 1000, latency });
    let start = tokio::time::Instant::now();
    // The clock is paused: only the throttle moves it.
    let call = |bytes: usize, deadline| {
        let outgoing = vec![vec![0; bytes - 1].into()];
        net.call(NODE, Call { header: Bytes::from_static(b"x"), outgoing, landing: None, deadline })
    };
    let minute = Duration::from_secs(60);
    let (one, two) = futures::join!(call(1000, minute), call(2000, minute));
    assert!(one.is_ok() && two.is_ok());
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(3100), "{took:?}");
    let late = call(1000, Duration::from_millis(500)).await;
    assert!(matches!(late, Err(TransportError::Deadline { .. })));
}

#[tokio::test]
async fn a_detached_node_is_unreachable() {
    let mem = attached(vec![(NODE, Arc::new(Counter::default()) as _)]);
    assert!(send(&mem).await.is_ok());
    mem.detach(NODE);
    let error = send(&mem).await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable { node: NODE, .. }) && error.is_retryable());
}
