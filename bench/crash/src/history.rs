//! What a key may hold: the model that the store is held against.
//!
//! Each key has one writer, whose operations follow each other. A write whose answer came decides what the key holds. A write whose answer never
//! came may have happened or not, and, as long as the gateway that it went to may still be working on it, may yet happen. So a
//! key has a set of states that it may be in; an answer, or a look at the quiet store, narrows it to one.

use std::collections::HashMap;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// What a key holds: the digest of its bytes and their number, or nothing.
pub(crate) type State = Option<([u8; 32], u64)>;

/// The state of a key that holds `bytes`.
pub(crate) fn state_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> State {
    let (mut digest, mut length) = (Sha256::new(), 0);
    for piece in pieces {
        digest.update(piece);
        length += piece.len() as u64;
    }
    Some((digest.finalize().into(), length))
}

/// For people.
pub(crate) fn words(state: &State) -> String {
    match state {
        None => "nothing".to_owned(),
        Some((digest, length)) => {
            format!("{length} bytes {:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
        }
    }
}

#[derive(Clone, Debug)]
struct Key {
    may_be: Vec<State>,
    /// Every state that was ever begun, in order: what a read that overlaps writes may show.
    begun: Vec<State>,
}

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct History {
    keys: Mutex<HashMap<String, Key>>,
}

/// What a read may show, as of its beginning.
#[derive(Clone, Debug)]
pub(crate) struct Glance {
    may_be: Vec<State>,
    begun: usize,
}

impl History {
    /// A write begins: from now on the key may hold `state`.
    pub(crate) fn begin(&self, key: &str, state: State) {
        let mut keys = self.keys.lock();
        let each = keys.entry(key.to_owned()).or_insert_with(|| Key { may_be: vec![None], begun: Vec::new() });
        each.begun.push(state);
        if !each.may_be.contains(&state) {
            each.may_be.push(state);
        }
    }

    /// The write was acknowledged: the key holds `state` and nothing else.
    pub(crate) fn acknowledge(&self, key: &str, state: State) {
        if let Some(each) = self.keys.lock().get_mut(key) {
            each.may_be = vec![state];
        }
    }

    /// What a read that begins now may show, together with what begins until its end. `None`: the key was never written.
    pub(crate) fn glance(&self, key: &str) -> Option<Glance> {
        self.keys.lock().get(key).map(|each| Glance { may_be: each.may_be.clone(), begun: each.begun.len() })
    }

    /// Judges a read that began at `glance` and showed `state`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn judge(&self, key: &str, glance: &Glance, state: State) -> Result<(), String> {
        let keys = self.keys.lock();
        let since = keys.get(key).map_or(&[] as &[State], |each| &each.begun[glance.begun..]);
        if glance.may_be.contains(&state) || since.contains(&state) {
            return Ok(());
        }
        let ever = keys.get(key).is_some_and(|each| each.begun.contains(&state));
        let may: Vec<String> = glance.may_be.iter().chain(since).map(words).collect();
        Err(format!(
            "{key} holds {}{}; it may hold {}",
            words(&state),
            if ever {
                " (an older state came back)"
            } else if state.is_none() {
                ""
            } else {
                " (nobody ever wrote that)"
            },
            may.join(" or ")
        ))
    }

    /// A look at the quiet store settles what the key holds.
    pub(crate) fn settle(&self, key: &str, state: State) {
        self.acknowledge(key, state);
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.keys.lock().keys().cloned().collect();
        keys.sort();
        keys
    }
}
