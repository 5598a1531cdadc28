//! A bad network around any messenger: what a seed says is lost, delayed or sent twice, and nodes are cut off at will.
//!
//! The faults that the layers above must survive: a request that never arrives; a request that is executed while its
//! reply is lost; messages that overtake each other (by delays); a message that arrives twice, the second time perhaps
//! much later; a node that can't be reached, can't answer, or both. Bytes are never changed here: CRC64s guard payload,
//! and a transport that changes a header is broken, not unlucky.
//!
//! What a call suffers depends only on the seed and on how many calls came before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use penstock_proto::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

use crate::{Answer, Call, Messenger, TransportError};

/// Late duplicates that are under way at a time; past it, none are made.
const LATE_DUPLICATES_MAX: usize = 64;

/// How bad. Probabilities are per call, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct FaultOptions {
    /// Where the randomness comes from.
    pub seed: u64,
    /// The request is lost.
    pub lose_request: f64,
    /// The request is executed, its reply is lost.
    pub lose_reply: f64,
    /// The request is executed twice: the other time before, or up to `delay_max` after. Calls with a landing buffer
    /// (reads) are not duplicated, because a buffer can't land twice.
    pub duplicate: f64,
    /// The request is held back for a while.
    pub delay: f64,
    /// At most so long.
    pub delay_max: Duration,
    /// Whether a loss shows only when the deadline passes, as on a real network, or at once, as a closed connection.
    pub silent: bool,
}

impl FaultOptions {
    /// No faults: partitions only.
    pub fn none(seed: u64) -> Self {
        Self {
            seed,
            lose_request: 0.0,
            lose_reply: 0.0,
            duplicate: 0.0,
            delay: 0.0,
            delay_max: Duration::ZERO,
            silent: false,
        }
    }
}

/// Which way a node is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Requests don't reach it.
    Requests,
    /// It executes requests, but its replies don't reach us.
    Replies,
    /// Neither arrives.
    Both,
}

/// What was done to calls so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Calls seen.
    pub calls: u64,
    /// Requests lost, by chance or partition.
    pub requests_lost: u64,
    /// Replies lost, by chance or partition.
    pub replies_lost: u64,
    /// Requests executed twice.
    pub duplicated: u64,
    /// Requests held back.
    pub delayed: u64,
}

/// Passes calls on, badly.
pub struct Faulty<M> {
    inner: Arc<M>,
    options: FaultOptions,
    state: Mutex<State>,
    late: Arc<Semaphore>,
}

struct State {
    rng: StdRng,
    partitions: HashMap<NodeId, Partition>,
    counts: FaultCounts,
}

/// What one call suffers.
#[derive(Debug)]
struct Fate {
    hold: Duration,
    lose_request: bool,
    lose_reply: bool,
    duplicate: Option<Duplicate>,
}

#[derive(Debug)]
enum Duplicate {
    Before,
    After(Duration),
}

impl<M: Messenger> Faulty<M> {
    /// Around `inner`.
    ///
    /// # Panics
    /// For a probability outside 0 to 1.
    pub fn new(inner: M, options: FaultOptions) -> Self {
        for p in [options.lose_request, options.lose_reply, options.duplicate, options.delay] {
            assert!((0.0..=1.0).contains(&p), "{p} is no probability");
        }
        let state = State {
            rng: StdRng::seed_from_u64(options.seed),
            partitions: HashMap::new(),
            counts: FaultCounts::default(),
        };
        Self {
            inner: Arc::new(inner),
            options,
            state: Mutex::new(state),
            late: Arc::new(Semaphore::new(LATE_DUPLICATES_MAX)),
        }
    }

    /// Cuts `node` off from now on.
    pub fn cut(&self, node: NodeId, how: Partition) {
        self.state.lock().partitions.insert(node, how);
    }

    /// Ends the partition of `node`.
    pub fn heal(&self, node: NodeId) {
        self.state.lock().partitions.remove(&node);
    }

    /// What was done so far.
    pub fn counts(&self) -> FaultCounts {
        self.state.lock().counts
    }

    /// Waits until no late duplicate is under way any more: what comes after is not disturbed by what came before.
    pub async fn settle(&self) {
        let all = u32::try_from(LATE_DUPLICATES_MAX).expect("invariant: a small constant");
        let _all = self.late.acquire_many(all).await;
    }

    /// Draws as often for every call, so that one call's fate does not depend on another's.
    fn fate(&self, node: NodeId, has_landing: bool) -> Fate {
        let mut state = self.state.lock();
        let options = &self.options;
        let part = |rng: &mut StdRng| options.delay_max.mul_f64(rng.random::<f64>());
        let rng = &mut state.rng;
        let (lose_request, lose_reply) = (rng.random_bool(options.lose_request), rng.random_bool(options.lose_reply));
        let (delay, held) = (rng.random_bool(options.delay), part(rng));
        let (duplicate, before, later) = (rng.random_bool(options.duplicate), rng.random_bool(0.5), part(rng));
        let partition = state.partitions.get(&node).copied();
        let fate = Fate {
            hold: if delay { held } else { Duration::ZERO },
            lose_request: lose_request || matches!(partition, Some(Partition::Requests | Partition::Both)),
            lose_reply: lose_reply || partition == Some(Partition::Replies),
            duplicate: (duplicate && !has_landing && partition.is_none()).then_some(if before {
                Duplicate::Before
            } else {
                Duplicate::After(later)
            }),
        };
        let counts = &mut state.counts;
        counts.calls += 1;
        counts.delayed += u64::from(delay);
        counts.requests_lost += u64::from(fate.lose_request);
        counts.replies_lost += u64::from(fate.lose_reply && !fate.lose_request);
        counts.duplicated += u64::from(fate.duplicate.is_some() && !fate.lose_request);
        fate
    }

    async fn suffer(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        let fate = self.fate(node, call.landing.is_some());
        if !fate.hold.is_zero() {
            tokio::time::sleep(fate.hold).await;
        }
        if fate.lose_request {
            return self.lost("the request").await;
        }
        let copy = || Call {
            header: call.header.clone(),
            outgoing: call.outgoing.clone(),
            landing: None,
            deadline: call.deadline,
        };
        match fate.duplicate {
            Some(Duplicate::Before) => drop(self.inner.call(node, copy()).await),
            Some(Duplicate::After(later)) => {
                if let Ok(place) = Arc::clone(&self.late).try_acquire_owned() {
                    let (inner, copy) = (Arc::clone(&self.inner), copy());
                    tokio::spawn(async move {
                        tokio::time::sleep(later).await;
                        drop(inner.call(node, copy).await);
                        drop(place);
                    });
                }
            }
            None => {}
        }
        let answer = self.inner.call(node, call).await?;
        if fate.lose_reply {
            drop(answer);
            return self.lost("the reply").await;
        }
        Ok(answer)
    }

    async fn lost(&self, what: &str) -> Result<Answer, TransportError> {
        if self.options.silent {
            // Until the deadline, which is around this.
            std::future::pending::<()>().await;
        }
        Err(TransportError::closed(format!("{what} was lost (planted fault)")))
    }
}

#[async_trait]
impl<M: Messenger> Messenger for Faulty<M> {
    async fn call(&self, node: NodeId, call: Call) -> Result<Answer, TransportError> {
        call.check()?;
        let deadline = call.deadline;
        match tokio::time::timeout(deadline, self.suffer(node, call)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(TransportError::Deadline { node, after: deadline }),
        }
    }
}
