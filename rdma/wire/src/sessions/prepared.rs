//! hipobj-rc-v2's sessions: prepared, then ready once, then over.
//!
//! ```text
//!            ready (right key, cookie)              ended
//! prepared ────────────────────────────► executing ───────► gone
//!     │ expired, cancelled                   │ cancelled: told so, still executing until it has ended
//!     └──────────────────► gone ◄────────────┘
//! ```
//!
//! `T` is what a session owns before it is ready (its queue pair, its staging memory): whoever ends the session gets it
//! back, to destroy it. `C` is how one that executes is told to stop.

use std::collections::HashMap;

use crate::error::WireError;
use crate::rc_token::SessionId;
use crate::rcv2::{Operation, Prepare, Ready};

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct PreparedOptions {
    /// From PREPARE to READY.
    pub prepare_ms_max: u64,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session<T> {
    /// Who prepared it.
    pub access_key: String,
    /// What was asked.
    pub prepare: Prepare,
    /// What it owns.
    pub owns: T,
}

enum State<T, C> {
    Prepared { session: Session<T>, since_ms: u64 },
    Executing { access_key: String, cookie: u32, stop: C },
}

/// The table.
pub struct Prepared<T, C> {
    options: PreparedOptions,
    sessions: HashMap<SessionId, State<T, C>>,
}

/// A READY that may go ahead.
#[derive(Debug)]
pub struct Granted<T>(pub Session<T>);

/// What a CANCEL did.
#[derive(Debug)]
pub enum Cancelled<T, C> {
    /// Nothing: there is no such session, or not of this key and cookie.
    Nothing,
    /// The session is gone; this was its.
    Prepared(Session<T>),
    /// It executes: it is to be told so, and ends by itself.
    Executing(C),
}

impl<T, C: Clone> Prepared<T, C> {
    /// An empty table.
    #[must_use]
    pub fn new(options: PreparedOptions) -> Self {
        Self { options, sessions: HashMap::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether `id` is taken.
    #[must_use]
    pub fn contains(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Keeps a session that was just prepared under an id that is not taken.
    pub fn insert(&mut self, now_ms: u64, id: SessionId, session: Session<T>) {
        self.sessions.insert(id, State::Prepared { session, since_ms: now_ms });
    }

    fn expired(&self, now_ms: u64, since_ms: u64) -> bool {
        now_ms.saturating_sub(since_ms) >= self.options.prepare_ms_max
    }

    /// READY: the session executes from now on, until [`Prepared::ended`].
    ///
    /// # Errors
    /// [`WireError::UnknownSession`], [`WireError::Expired`], [`WireError::AlreadyReady`]; [`WireError::OtherCredential`],
    /// [`WireError::CookieMismatch`], [`WireError::Malformed`] (a GET without memory), after which the session is as it was.
    pub fn ready(&mut self, now_ms: u64, access_key: &str, ready: &Ready, stop: C) -> Result<Granted<T>, WireError> {
        let (since_ms, get) = match self.sessions.get(&ready.session) {
            None => return Err(WireError::UnknownSession),
            Some(State::Executing { access_key: owner, .. }) if owner != access_key => {
                return Err(WireError::OtherCredential);
            }
            Some(State::Executing { .. }) => return Err(WireError::AlreadyReady),
            Some(State::Prepared { session, .. }) if session.access_key != access_key => {
                return Err(WireError::OtherCredential);
            }
            Some(State::Prepared { session, .. }) if session.prepare.cookie != ready.cookie => {
                return Err(WireError::CookieMismatch);
            }
            Some(State::Prepared { session, since_ms }) => (*since_ms, session.prepare.operation == Operation::Get),
        };
        if self.expired(now_ms, since_ms) {
            // Left for `sweep`, which gives back what it owns.
            return Err(WireError::Expired);
        }
        if get && ready.memory.is_none() {
            return Err(WireError::malformed(
                crate::names::MR_ADDR,
                "a GET needs the address and rkey of the client's memory, neither of them zero",
            ));
        }
        let executing = State::Executing { access_key: access_key.to_owned(), cookie: ready.cookie, stop };
        match self.sessions.insert(ready.session, executing) {
            Some(State::Prepared { session, .. }) => Ok(Granted(session)),
            _ => Err(WireError::UnknownSession),
        }
    }

    /// A session that executed has ended.
    pub fn ended(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// CANCEL.
    pub fn cancel(&mut self, access_key: &str, id: SessionId, cookie: Option<u32>) -> Cancelled<T, C> {
        let fits = |owner: &str, known: u32| owner == access_key && cookie.is_none_or(|cookie| cookie == known);
        match self.sessions.get(&id) {
            Some(State::Executing { access_key, cookie, stop }) if fits(access_key, *cookie) => {
                Cancelled::Executing(stop.clone())
            }
            Some(State::Prepared { session, .. }) if fits(&session.access_key, session.prepare.cookie) => {
                match self.sessions.remove(&id) {
                    Some(State::Prepared { session, .. }) => Cancelled::Prepared(session),
                    _ => Cancelled::Nothing,
                }
            }
            _ => Cancelled::Nothing,
        }
    }

    /// Ends what has expired, and gives back what that owned.
    pub fn sweep(&mut self, now_ms: u64) -> Vec<Session<T>> {
        let old: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, state)| matches!(state, State::Prepared { since_ms, .. } if self.expired(now_ms, *since_ms)))
            .map(|(id, _)| *id)
            .collect();
        let ended = old.into_iter().filter_map(|id| self.sessions.remove(&id));
        ended
            .filter_map(|state| match state {
                State::Prepared { session, .. } => Some(session),
                State::Executing { .. } => None,
            })
            .collect()
    }
}
