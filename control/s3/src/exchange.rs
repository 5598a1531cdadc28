//! One request and its answer: what the doors between hyper and the operations tell each other about it.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use hyper::body::Incoming;

use crate::access::BucketFacts;
use crate::auth::Authenticated;
use crate::failure::Failure;

/// What is shared about one request. Locks are held for moves only, never across an await.
pub(crate) struct Exchange {
    /// `x-amz-request-id`: 16 hex digits.
    pub(crate) id: String,
    /// Bytes of the body as they came over the wire.
    bytes_in: AtomicU64,
    /// Whether the body was asked for (hyper then answers `Expect: 100-continue`).
    body_asked_for: AtomicBool,
    /// The first thing that was wrong with the body. More exact than what the gateway makes of it.
    body_failure: Mutex<Option<Failure>>,
    /// The body, when it was let go of before its end.
    leftover: Mutex<Option<Incoming>>,
    /// The canonical id of the bucket's owner, once it is known.
    pub(crate) owner: OnceLock<String>,
    /// The bucket, where its access log goes to another.
    pub(crate) logged: OnceLock<Arc<BucketFacts>>,
    /// Where authentication puts what it found good.
    authenticated: Mutex<Option<Authenticated>>,
}

impl Exchange {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: request_id(),
            bytes_in: AtomicU64::new(0),
            body_asked_for: AtomicBool::new(false),
            body_failure: Mutex::default(),
            leftover: Mutex::default(),
            owner: OnceLock::new(),
            logged: OnceLock::new(),
            authenticated: Mutex::default(),
        })
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub(crate) fn ask_for_body(&self) {
        self.body_asked_for.store(true, Ordering::Relaxed);
    }

    pub(crate) fn body_asked_for(&self) -> bool {
        self.body_asked_for.load(Ordering::Relaxed)
    }

    /// Notes what is wrong with the body, unless something already was.
    pub(crate) fn fail_body(&self, failure: Failure) {
        lock(&self.body_failure).get_or_insert(failure);
    }

    /// What was wrong with the body.
    pub(crate) fn body_failure(&self) -> Option<Failure> {
        lock(&self.body_failure).clone()
    }

    pub(crate) fn leave(&self, rest: Incoming) {
        *lock(&self.leftover) = Some(rest);
    }

    pub(crate) fn take_leftover(&self) -> Option<Incoming> {
        lock(&self.leftover).take()
    }

    pub(crate) fn admit(&self, authenticated: Authenticated) {
        *lock(&self.authenticated) = Some(authenticated);
    }

    pub(crate) fn take_authenticated(&self) -> Option<Authenticated> {
        lock(&self.authenticated).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which process answered: the same for its whole life, another after a restart.
pub(crate) static HOST_ID: LazyLock<String> = LazyLock::new(|| format!("{:016X}", random_seed()));

fn random_seed() -> u64 {
    // The standard library's only source of randomness; good enough for ids that nobody must guess or not guess.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// An id that no other request of this process has, and that looks unlike the one before it.
pub(crate) fn request_id() -> String {
    static SEED: LazyLock<u64> = LazyLock::new(random_seed);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Odd multipliers and shifts are bijections (splitmix64's finisher): distinct counts give distinct ids.
    let mut id = SEED.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016X}", id ^ (id >> 31))
}
