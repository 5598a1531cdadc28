//! Runs a closure as a transaction until it commits, at most once in effect.
//!
//! **Idempotence.** A commit whose outcome is unknown must not be run twice and must not be forgotten. Every writing
//! transaction therefore also writes a *token row*: its key is a slot of this process's, its value says which logical
//! transaction and which attempt wrote it. After `CommitUnknown` the next attempt first reads the token row, in its own
//! transaction: if an earlier attempt's token is there, that attempt committed, and its result is the result.
//!
//! **Bounded.** A slot is reused by the next transaction once its owner's outcome is known, so there are as many token
//! rows as there ever were transactions in flight at a time, not as many as there were transactions. A slot whose
//! owner went away in doubt (its future was dropped, its tries ran out) rests for [`SLOT_REST`], which is longer than
//! any commit can still be under way. Rows of former processes are removed when an embedded engine is opened.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use penstock_proto::limits;

use super::random::SplitMix;
use super::{Kv, KvError, Transaction};

/// Under this prefix lie the token rows.
pub(crate) const TOKEN_PREFIX: &[u8] = &[0xFF, 0x01];
/// How long the slot of a transaction that ended in doubt is not used.
const SLOT_REST: Duration = Duration::from_secs(60);
/// The longest first pause before another try; it doubles from try to try.
const BACKOFF_FIRST: Duration = Duration::from_micros(250);
/// The longest pause between tries.
const BACKOFF_MAX: Duration = Duration::from_millis(50);

/// What a transaction's closure returns: its future, boxed.
pub type BodyFuture<'a, R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send + 'a>>;

/// An error that a transaction's closure may return.
pub trait TransactError: From<KvError> {
    /// The store's error, if that is what this is: a retryable one makes [`transact`] try again; anything else ends the
    /// transaction without a commit.
    fn as_kv_error(&self) -> Option<&KvError>;
}

impl TransactError for KvError {
    fn as_kv_error(&self) -> Option<&KvError> {
        Some(self)
    }
}

/// Runs `body` in a transaction and commits it; again, with jittered pauses and at most
/// `limits::TRANSACTION_TRIES_MAX` times, while that fails for a reason that trying again may mend.
///
/// `body` may run several times, each time from a fresh snapshot, so it must have no effects outside its transaction; it
/// takes effect at most once. Its own errors end the transaction without a commit.
///
/// Fails with `body`'s error; with the store's error if that is final; with the last retryable error when the tries are
/// used up; and with [`KvError::CommitUnknown`] if it could not be found out whether an attempt had committed.
///
/// ```
/// # use penstock_meta::kv::{Kv, KvError, MemKv, transact};
/// # async fn example(kv: &dyn Kv, name: &str) -> Result<bool, KvError> {
/// transact(kv, |txn| {
///     Box::pin(async move {
///         let free = txn.get(name.as_bytes()).await?.is_none();
///         if free {
///             txn.set(name.as_bytes(), b"taken")?;
///         }
///         Ok(free)
///     })
/// })
/// .await
/// # }
/// ```
///
/// The closure captures references (`async move` copies them; write `let name = &name;` where a value is owned). Its
/// future is boxed because the futures of async closures (`AsyncFnMut`) can't be required to be `Send` in rustc 1.99,
/// and without that no spawned task could call this. `'scope` only ties the captured references to the transaction's
/// lifetime; callers never name it.
pub async fn transact<'scope, R, E, F>(kv: &dyn Kv, mut body: F) -> Result<R, E>
where
    E: TransactError,
    F: for<'a> FnMut(&'a mut (dyn Transaction + 'scope)) -> BodyFuture<'a, R, E>,
{
    let mut token = Token::take();
    // Attempts whose outcome is unknown, with what they would have returned. At most TRANSACTION_TRIES_MAX.
    let mut unknown: Vec<(u32, R)> = Vec::new();
    let mut last = KvError::Conflict;
    for attempt in 0..limits::TRANSACTION_TRIES_MAX {
        if attempt > 0 {
            pause(attempt).await;
        }
        let error = match kv.begin().await {
            Err(error) => error,
            Ok(mut txn) => match find_committed(&mut *txn, &token, &mut unknown).await {
                Err(error) => error,
                Ok(Some(result)) => {
                    token.in_doubt = false;
                    return Ok(result);
                }
                Ok(None) => match body(&mut *txn).await {
                    Err(error) => match error.as_kv_error() {
                        Some(kv_error) => kv_error.clone(),
                        None => return Err(error),
                    },
                    Ok(result) if txn.is_read_only() => return Ok(result),
                    Ok(result) => match txn.set(&token.key(), &token.value(attempt)) {
                        Err(error) => error,
                        Ok(()) => {
                            token.in_doubt = true;
                            match txn.commit().await {
                                Ok(_) => {
                                    token.in_doubt = false;
                                    return Ok(result);
                                }
                                Err(error) => {
                                    if error.may_have_committed() {
                                        unknown.push((attempt, result));
                                    }
                                    error
                                }
                            }
                        }
                    },
                },
            },
        };
        token.in_doubt = !unknown.is_empty();
        let is_final = !error.is_retryable();
        last = error;
        if is_final {
            break;
        }
    }
    Err(E::from(if unknown.is_empty() { last } else { KvError::CommitUnknown }))
}

/// If one of the attempts in doubt turns out to have committed: its result.
async fn find_committed<R>(
    txn: &mut dyn Transaction,
    token: &Token,
    unknown: &mut Vec<(u32, R)>,
) -> Result<Option<R>, KvError> {
    if unknown.is_empty() {
        return Ok(None);
    }
    // A conflicting read: if an attempt in doubt commits only now, this attempt can't.
    let Some(row) = txn.get(&token.key()).await? else { return Ok(None) };
    let position = unknown.iter().position(|(attempt, _)| row == token.value(*attempt).as_slice());
    Ok(position.map(|at| unknown.swap_remove(at).1))
}

/// Waits a random time, longer from try to try.
async fn pause(attempt: u32) {
    static JITTER: AtomicU64 = AtomicU64::new(0);
    let longest = BACKOFF_FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(BACKOFF_MAX);
    let seed = JITTER.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    let micros = SplitMix::new(seed).below(longest.as_micros() as u64 + 1);
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// The slots of this process, over all its stores.
#[derive(Debug)]
struct Slots {
    free: Vec<u32>,
    /// Slots of transactions that ended in doubt, with when.
    resting: VecDeque<(Instant, u32)>,
    next_slot: u32,
    next_number: u64,
}

static SLOTS: Mutex<Slots> =
    Mutex::new(Slots { free: Vec::new(), resting: VecDeque::new(), next_slot: 0, next_number: 0 });

/// One logical transaction's place for its token row.
#[derive(Debug)]
struct Token {
    slot: u32,
    /// Which logical transaction of this process.
    number: u64,
    /// Whether a commit of it may still be under way.
    in_doubt: bool,
}

impl Token {
    fn take() -> Self {
        let mut slots = SLOTS.lock();
        if slots.resting.front().is_some_and(|(since, _)| since.elapsed() > SLOT_REST)
            && let Some((_, slot)) = slots.resting.pop_front()
        {
            slots.free.push(slot);
        }
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.next_slot += 1;
            slots.next_slot
        });
        slots.next_number += 1;
        Self { slot, number: slots.next_number, in_doubt: false }
    }

    fn key(&self) -> Vec<u8> {
        let mut key = TOKEN_PREFIX.to_vec();
        key.extend_from_slice(process_id());
        key.extend_from_slice(&self.slot.to_be_bytes());
        key
    }

    fn value(&self, attempt: u32) -> [u8; 12] {
        let mut value = [0; 12];
        value[..8].copy_from_slice(&self.number.to_be_bytes());
        value[8..].copy_from_slice(&attempt.to_be_bytes());
        value
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut slots = SLOTS.lock();
        if self.in_doubt {
            slots.resting.push_back((Instant::now(), self.slot));
        } else {
            slots.free.push(self.slot);
        }
    }
}

/// Random bytes that tell this process from all others that use the store.
fn process_id() -> &'static [u8; 16] {
    static ID: OnceLock<[u8; 16]> = OnceLock::new();
    ID.get_or_init(|| {
        let mut id = [0; 16];
        for half in id.as_chunks_mut::<8>().0 {
            // std seeds the state of every thread's hashers from the operating system's random numbers.
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_u128(Instant::now().elapsed().as_nanos());
            hasher.write_u32(std::process::id());
            *half = hasher.finish().to_be_bytes();
        }
        id
    })
}
