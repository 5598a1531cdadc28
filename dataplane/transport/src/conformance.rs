//! What every transport must do, as a suite that each one runs. It reports instead of panicking, so that a test can also
//! plant misbehaviour and see that it is found.
//!
//! ```ignore
//! assert_eq!(penstock_transport::conformance::run_all(&MyFixture).await, []);
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use penstock_buf::{Buf, BufMut, BufPool, PoolOptions};
use penstock_proto::{NodeId, limits};
use tokio::sync::Semaphore;

use crate::{Answer, Call, Handler, Messenger, OneSided, PAYLOAD_BYTES_MAX, TransportError};

/// How a transport is set up for the suite.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A messenger by which `handlers` are reachable, and no other node.
    async fn connect(&self, handlers: Vec<(NodeId, Arc<dyn Handler>)>) -> Arc<dyn Messenger>;
}

/// A rule that the transport breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which check found it.
    pub check: &'static str,
    /// What it saw.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// Far more than any call here takes.
const PLENTY: Duration = Duration::from_secs(30);
/// A check that takes longer hangs.
const CHECK_MAX: Duration = Duration::from_secs(120);
/// The deadline of calls that are meant to miss it.
const SHORT: Duration = Duration::from_millis(100);
/// Looks at the pool until everything is back, and how long between two.
const LOOKS_MAX: u32 = 1000;
const LOOK_EVERY: Duration = Duration::from_millis(10);
const POOL_BYTES: usize = 64 << 20;
/// The pool of the handlers' side.
const BUFFER_WAIT: Duration = Duration::from_secs(30);

const NODE: NodeId = NodeId(3);
const OTHER: NodeId = NodeId(4);
const NOBODY: NodeId = NodeId(5);

type Verdict = Result<(), String>;

/// Runs every check, each with nodes of its own. Empty when the transport conforms.
pub async fn run_all(fixture: &dyn Fixture) -> Vec<Broken> {
    let mut broken = Vec::new();
    macro_rules! check {
        ($($name:ident),* $(,)?) => {$(
            let bench = Bench::new(fixture).await;
            let verdict = match tokio::time::timeout(CHECK_MAX, $name(&bench)).await {
                Ok(Ok(())) => bench.all_returned().await,
                Ok(Err(what)) => Err(what),
                Err(_elapsed) => Err("it hangs".to_owned()),
            };
            bench.script.gate.close();
            if let Err(what) = verdict {
                broken.push(Broken { check: stringify!($name), what });
            }
        )*};
    }
    check!(
        headers_of_every_length_come_back,
        payloads_arrive_whole_and_in_order,
        answers_land_in_the_callers_own_buffer,
        what_is_only_read_is_what_was_sent,
        pushes_follow_one_another,
        nothing_lands_past_the_room_for_it,
        payload_may_be_left_alone,
        wrong_pulls_are_refused_and_harm_nothing,
        concurrent_calls_get_their_own_answers,
        each_node_has_its_own_handler,
        an_unknown_node_is_unreachable,
        what_is_out_of_bounds_is_not_sent,
        a_deadline_ends_a_call_and_the_next_one_works,
        a_cancelled_call_returns_its_buffers,
        a_panic_in_a_handler_is_an_error_and_no_more,
        a_reply_that_is_too_long_is_an_error,
    );
    broken
}

/// What the handler of the suite does, by the first byte of the header.
mod op {
    pub(super) const ECHO: u8 = b'e';
    pub(super) const CHECKSUM: u8 = b'c';
    pub(super) const IGNORE: u8 = b'i';
    pub(super) const TWO_PUSHES: u8 = b't';
    pub(super) const OVERFLOW: u8 = b'o';
    pub(super) const WRONG_PULLS: u8 = b'w';
    pub(super) const GATE: u8 = b'g';
    pub(super) const PANIC: u8 = b'p';
    pub(super) const LONG_REPLY: u8 = b'l';
    pub(super) const NAME: u8 = b'n';
}

struct Script {
    node: NodeId,
    pool: BufPool,
    handled: AtomicU64,
    /// Closed when waiting handlers may go.
    gate: Arc<Semaphore>,
}

impl Script {
    async fn pull(&self, memory: &mut dyn OneSided) -> Result<BufMut, TransportError> {
        let mut buffer = self
            .pool
            .acquire(memory.outgoing_bytes(), BUFFER_WAIT)
            .await
            .map_err(|error| TransportError::protocol(error.to_string()))?;
        memory.pull(&mut buffer).await?;
        Ok(buffer)
    }

    async fn wrong_pulls(&self, memory: &mut dyn OneSided) -> Result<Bytes, TransportError> {
        let bytes = memory.outgoing_bytes();
        let (Some(mut long), Some(mut short)) =
            (self.pool.try_acquire(bytes + 1), self.pool.try_acquire(bytes.saturating_sub(1)))
        else {
            return Err(TransportError::protocol("no buffer"));
        };
        let long = memory.pull(&mut long).await;
        let short = memory.pull(&mut short).await;
        let mut right = self.pull(memory).await?;
        let again = memory.pull(&mut right).await;
        let refused = [long, short, again].iter().filter(|r| matches!(r, Err(TransportError::Protocol { .. }))).count();
        let mut reply = vec![refused as u8];
        reply.extend(crc32c::crc32c(&right).to_le_bytes());
        Ok(reply.into())
    }

    async fn act(&self, header: &Bytes, memory: &mut dyn OneSided) -> Result<Bytes, TransportError> {
        match header.first().copied() {
            Some(op::ECHO) => {
                let buffer = self.pull(memory).await?;
                memory.push(buffer.freeze()).await?;
                Ok(header.clone())
            }
            Some(op::CHECKSUM) => Ok(crc32c::crc32c(&self.pull(memory).await?).to_le_bytes().to_vec().into()),
            Some(op::TWO_PUSHES) => {
                memory.push(pattern(1000, 1).into()).await?;
                memory.push(Buf::new()).await?;
                memory.push(pattern(77, 2).into()).await?;
                Ok(memory.landing_bytes().to_le_bytes().to_vec().into())
            }
            Some(op::OVERFLOW) => {
                let long = pattern(memory.landing_bytes() + 1, 1).into();
                let refused = matches!(memory.push(long).await, Err(TransportError::Protocol { .. }));
                memory.push(pattern(5, 9).into()).await?;
                Ok(vec![u8::from(refused)].into())
            }
            Some(op::WRONG_PULLS) => self.wrong_pulls(memory).await,
            Some(op::GATE) => {
                let _closed = self.gate.acquire().await;
                Ok(header.clone())
            }
            Some(op::PANIC) => panic!("planted by the conformance suite"),
            Some(op::LONG_REPLY) => Ok(vec![0; limits::MESSAGE_HEADER_BYTES_MAX + 1].into()),
            Some(op::NAME) => Ok(self.node.0.to_le_bytes().to_vec().into()),
            _ => Ok(header.clone()),
        }
    }
}

#[async_trait]
impl Handler for Script {
    async fn handle(&self, header: Bytes, memory: &mut dyn OneSided) -> Bytes {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match self.act(&header, memory).await {
            Ok(reply) => reply,
            Err(error) => format!("!{error}").into_bytes().into(),
        }
    }
}

struct Bench {
    script: Arc<Script>,
    messenger: Arc<dyn Messenger>,
    /// The caller's memory.
    pool: BufPool,
}

impl Bench {
    async fn new(fixture: &dyn Fixture) -> Self {
        let new_pool = || {
            BufPool::new(PoolOptions { capacity_bytes: POOL_BYTES, huge_pages: false })
                .expect("the machine has address space")
        };
        let gate = Arc::new(Semaphore::new(0));
        let handlers = new_pool();
        let script = |node| {
            let (pool, gate) = (handlers.clone(), Arc::clone(&gate));
            Arc::new(Script { node, pool, handled: AtomicU64::new(0), gate })
        };
        let ours = script(NODE);
        let messenger = fixture.connect(vec![(NODE, Arc::clone(&ours) as _), (OTHER, script(OTHER) as _)]).await;
        Self { script: ours, messenger, pool: new_pool() }
    }

    fn landing(&self, bytes: usize) -> Result<BufMut, String> {
        let mut buffer = self.pool.try_acquire(bytes).ok_or("the suite's pool is empty: buffers leak")?;
        buffer.fill(0xee);
        Ok(buffer)
    }

    fn outgoing(&self, bytes: usize, seed: u64) -> Result<Buf, String> {
        let mut buffer = self.landing(bytes)?;
        buffer.copy_from_slice(&pattern(bytes, seed));
        Ok(buffer.freeze())
    }

    async fn call(
        &self,
        header: impl Into<Bytes>,
        outgoing: Vec<Buf>,
        landing: Option<BufMut>,
    ) -> Result<Answer, String> {
        let call = Call { header: header.into(), outgoing, landing, deadline: PLENTY };
        self.messenger.call(NODE, call).await.map_err(|error| error.to_string())
    }

    /// The transport works: a message with payload both ways.
    async fn works(&self) -> Verdict {
        let answer = self.call(vec![op::ECHO], vec![self.outgoing(100, 5)?], Some(self.landing(100)?)).await?;
        expect_landed(&answer, &pattern(100, 5))
    }

    /// Nothing is leaked, on either side.
    async fn all_returned(&self) -> Verdict {
        self.script.gate.close();
        for _ in 0..LOOKS_MAX {
            if self.pool.stats().buffers_out == 0 && self.script.pool.stats().buffers_out == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(format!("buffers leak: caller {:?}, handler {:?}", self.pool.stats(), self.script.pool.stats()))
    }
}

/// Bytes that tell their place and `seed`.
fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

fn expect_landed(answer: &Answer, expected: &[u8]) -> Verdict {
    let Some(landed) = &answer.landed else { return Err("no landing buffer came back".to_owned()) };
    if landed.len() != expected.len() {
        return Err(format!("{} bytes landed, {} were sent: {:?}", landed.len(), expected.len(), answer.header));
    }
    match landed.iter().zip(expected).position(|(a, b)| a != b) {
        Some(at) => Err(format!("byte {at} of {} landed wrong", expected.len())),
        None => Ok(()),
    }
}

fn expect(fine: bool, what: &str) -> Verdict {
    if fine { Ok(()) } else { Err(what.to_owned()) }
}

/// Lengths around every boundary that an implementation may have.
const LENGTHS: [usize; 14] =
    [0, 1, 31, 63, 64, 65, 4095, 4096, 4097, 65_536, 419_456, (1 << 20) + 7, 4 << 20, PAYLOAD_BYTES_MAX];

async fn headers_of_every_length_come_back(bench: &Bench) -> Verdict {
    for length in (0..70).chain([1000, 4095, limits::MESSAGE_HEADER_BYTES_MAX]) {
        let mut header = pattern(length, length as u64);
        if let Some(first) = header.first_mut() {
            *first = 0;
        }
        let answer = bench.call(header.clone(), vec![], None).await?;
        expect(answer.header == header, "another header came back")?;
        expect(answer.landed.is_none(), "a landing buffer came from nowhere")?;
    }
    Ok(())
}

async fn payloads_arrive_whole_and_in_order(bench: &Bench) -> Verdict {
    for length in LENGTHS {
        let whole = bench.outgoing(length, 7)?;
        let crc = crc32c::crc32c(&whole);
        let (a, b) = (length / 3, length / 2);
        let pieces = vec![whole.slice(..a), whole.slice(a..b), Buf::new(), whole.slice(b..)];
        for outgoing in [vec![whole], pieces] {
            let answer = bench.call(vec![op::CHECKSUM], outgoing, None).await?;
            let what = || format!("{length} bytes arrived changed: {:?}", answer.header);
            expect(answer.header[..] == crc.to_le_bytes(), &what())?;
        }
    }
    Ok(())
}

async fn answers_land_in_the_callers_own_buffer(bench: &Bench) -> Verdict {
    for length in LENGTHS {
        let room = (length + 33).min(PAYLOAD_BYTES_MAX);
        let landing = bench.landing(room)?;
        let address = landing.as_ptr();
        let answer = bench.call(vec![op::ECHO], vec![bench.outgoing(length, 11)?], Some(landing)).await?;
        expect_landed(&answer, &pattern(length, 11))?;
        expect(answer.landed.is_some_and(|l| l.as_ptr() == address), "it landed in another buffer")?;
    }
    Ok(())
}

async fn what_is_only_read_is_what_was_sent(bench: &Bench) -> Verdict {
    let read = async |header: Vec<u8>, outgoing: Vec<Buf>, landing: Option<BufMut>| {
        let call = Call { header: header.into(), outgoing, landing, deadline: PLENTY };
        bench.messenger.call_to_read(NODE, call).await.map_err(|error| error.to_string())
    };
    for length in LENGTHS {
        let landing = bench.landing((length + 33).min(PAYLOAD_BYTES_MAX))?;
        let answer = read(vec![op::ECHO], vec![bench.outgoing(length, 12)?], Some(landing)).await?;
        expect(answer.bytes.is_some_and(|bytes| bytes[..] == pattern(length, 12)), &format!("{length} bytes differ"))?;
    }
    let answer = read(vec![op::TWO_PUSHES], vec![], Some(bench.landing(2000)?)).await?;
    let both = [pattern(1000, 1), pattern(77, 2)].concat();
    expect(answer.bytes.is_some_and(|bytes| bytes[..] == both), "two pushes came as something else")?;
    expect(answer.header == (2000usize - 1077).to_le_bytes().to_vec(), "the handler sees the wrong room left")?;
    let answer = read(vec![op::OVERFLOW], vec![], Some(bench.landing(100)?)).await?;
    expect(answer.header[..] == [1], "what has no room was not refused")?;
    expect(answer.bytes.is_some_and(|bytes| bytes[..] == pattern(5, 9)), "what was refused came all the same")?;
    let answer = read(vec![op::NAME], vec![], None).await?;
    expect(answer.bytes.is_none(), "bytes came from nowhere")
}

async fn pushes_follow_one_another(bench: &Bench) -> Verdict {
    let answer = bench.call(vec![op::TWO_PUSHES], vec![], Some(bench.landing(2000)?)).await?;
    expect_landed(&answer, &[pattern(1000, 1), pattern(77, 2)].concat())?;
    expect(answer.header == (2000usize - 1077).to_le_bytes().to_vec(), "the handler sees the wrong room left")
}

async fn nothing_lands_past_the_room_for_it(bench: &Bench) -> Verdict {
    // A piece of a larger buffer, as in a stripe: what is next to it must stay.
    let mut landing = bench.landing(300)?;
    let mut middle = landing.split_off(100);
    let end = middle.split_off(100);
    let answer = bench.call(vec![op::OVERFLOW], vec![], Some(middle)).await?;
    expect(answer.header[..] == [1], &format!("the handler was not refused: {:?}", answer.header))?;
    expect_landed(&answer, &pattern(5, 9))?;
    expect(landing.iter().chain(&end[..]).all(|&b| b == 0xee), "bytes landed outside of the buffer")?;
    bench.works().await
}

async fn payload_may_be_left_alone(bench: &Bench) -> Verdict {
    for length in [1, 4096, PAYLOAD_BYTES_MAX] {
        let answer = bench.call(vec![op::IGNORE], vec![bench.outgoing(length, 3)?], Some(bench.landing(64)?)).await?;
        expect(answer.header[..] == [op::IGNORE], "another header came back")?;
        expect_landed(&answer, &[])?;
        bench.works().await?;
    }
    Ok(())
}

async fn wrong_pulls_are_refused_and_harm_nothing(bench: &Bench) -> Verdict {
    let payload = bench.outgoing(70_000, 13)?;
    let crc = crc32c::crc32c(&payload);
    let answer = bench.call(vec![op::WRONG_PULLS], vec![payload], None).await?;
    expect(answer.header.len() == 5, &format!("the right pull failed: {:?}", answer.header))?;
    expect(answer.header[0] == 3, &format!("{} of 3 wrong pulls were refused", answer.header[0]))?;
    expect(answer.header[1..] == crc.to_le_bytes(), "the right pull got other bytes")
}

async fn concurrent_calls_get_their_own_answers(bench: &Bench) -> Verdict {
    let calls = (0..150u64).map(|seed| async move {
        let length = (seed as usize * 1009) % 90_000;
        let mut header = vec![op::ECHO];
        header.extend(seed.to_le_bytes());
        let landing = Some(bench.landing(length)?);
        let answer = bench.call(header.clone(), vec![bench.outgoing(length, seed)?], landing).await?;
        expect(answer.header == header, "the header of another call came")?;
        expect_landed(&answer, &pattern(length, seed))
    });
    futures::future::try_join_all(calls).await.map(|_| ())
}

async fn each_node_has_its_own_handler(bench: &Bench) -> Verdict {
    for node in [NODE, OTHER, NODE] {
        let call = Call::new(vec![op::NAME].into(), PLENTY);
        let answer = bench.messenger.call(node, call).await.map_err(|error| error.to_string())?;
        expect(answer.header == node.0.to_le_bytes().to_vec(), "another node answered")?;
    }
    Ok(())
}

async fn an_unknown_node_is_unreachable(bench: &Bench) -> Verdict {
    let call = Call { landing: Some(bench.landing(10)?), ..Call::new(vec![op::IGNORE].into(), PLENTY) };
    match bench.messenger.call(NOBODY, call).await {
        Err(TransportError::Unreachable { node: NOBODY, .. }) => bench.works().await,
        other => Err(format!("{other:?}")),
    }
}

async fn what_is_out_of_bounds_is_not_sent(bench: &Bench) -> Verdict {
    let before = bench.script.handled.load(Ordering::SeqCst);
    let long_header = vec![op::IGNORE; limits::MESSAGE_HEADER_BYTES_MAX + 1];
    let halves = vec![bench.outgoing(PAYLOAD_BYTES_MAX, 1)?, bench.outgoing(1, 1)?];
    for (header, outgoing) in [(long_header, vec![]), (vec![op::IGNORE], halves)] {
        let call = Call { header: header.into(), outgoing, landing: None, deadline: PLENTY };
        match bench.messenger.call(NODE, call).await {
            Err(error @ TransportError::Protocol { .. }) if !error.is_retryable() => {}
            other => return Err(format!("{other:?}")),
        }
    }
    expect(bench.script.handled.load(Ordering::SeqCst) == before, "the handler saw it")
}

async fn a_deadline_ends_a_call_and_the_next_one_works(bench: &Bench) -> Verdict {
    let call = Call {
        header: vec![op::GATE].into(),
        outgoing: vec![bench.outgoing(100_000, 1)?],
        landing: Some(bench.landing(100)?),
        deadline: SHORT,
    };
    match tokio::time::timeout(PLENTY, bench.messenger.call(NODE, call)).await {
        Ok(Err(error @ TransportError::Deadline { node: NODE, .. })) if error.is_retryable() => bench.works().await,
        Ok(other) => Err(format!("{other:?}")),
        Err(_elapsed) => Err(format!("a call with a deadline of {SHORT:?} has not ended in {PLENTY:?}")),
    }
}

async fn a_cancelled_call_returns_its_buffers(bench: &Bench) -> Verdict {
    for length in [0, 100, PAYLOAD_BYTES_MAX] {
        let before = bench.script.handled.load(Ordering::SeqCst);
        let call = bench.call(vec![op::GATE], vec![bench.outgoing(length, 1)?], Some(bench.landing(length)?));
        tokio::select! {
            answer = call => return Err(format!("an answer came through a closed gate: {answer:?}")),
            arrived = arrived(bench, before) => arrived?,
        }
        bench.works().await?;
    }
    // `run_all` opens the gate and looks that every buffer is back.
    Ok(())
}

/// Waits until the handler has seen one more call.
async fn arrived(bench: &Bench, before: u64) -> Verdict {
    for _ in 0..LOOKS_MAX {
        if bench.script.handled.load(Ordering::SeqCst) > before {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("the call never arrived".to_owned())
}

async fn a_panic_in_a_handler_is_an_error_and_no_more(bench: &Bench) -> Verdict {
    let call = Call { landing: Some(bench.landing(10)?), ..Call::new(vec![op::PANIC].into(), PLENTY) };
    match bench.messenger.call(NODE, call).await {
        Err(TransportError::Closed { .. }) => bench.works().await,
        other => Err(format!("{other:?}")),
    }
}

async fn a_reply_that_is_too_long_is_an_error(bench: &Bench) -> Verdict {
    match bench.messenger.call(NODE, Call::new(vec![op::LONG_REPLY].into(), PLENTY)).await {
        Err(_) => bench.works().await,
        Ok(answer) => Err(format!("a header of {} bytes came", answer.header.len())),
    }
}
