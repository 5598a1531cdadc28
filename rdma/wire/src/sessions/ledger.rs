//! What each access key holds: sessions, queue pairs, staging bytes. One key can't take all.

use std::collections::HashMap;

use crate::error::WireError;

/// Limits of one key, and of all together.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Sessions of hipobj-rc-v2 of one key.
    pub key_sessions_max: usize,
    /// Queue pairs of one key, those of its sessions included.
    pub key_queue_pairs_max: usize,
    /// Staging memory of one key, in bytes.
    pub key_staging_bytes_max: u64,
    /// Sessions of all keys.
    pub sessions_max: usize,
    /// Queue pairs of all keys and of connections that are nobody's yet.
    pub queue_pairs_max: usize,
    /// Staging memory of all keys, in bytes.
    pub staging_bytes_max: u64,
}

/// Something held, or to be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Sessions.
    pub sessions: usize,
    /// Queue pairs.
    pub queue_pairs: usize,
    /// Staging memory, in bytes.
    pub staging_bytes: u64,
}

impl Claim {
    fn plus(self, other: Self) -> Self {
        Self {
            sessions: self.sessions.saturating_add(other.sessions),
            queue_pairs: self.queue_pairs.saturating_add(other.queue_pairs),
            staging_bytes: self.staging_bytes.saturating_add(other.staging_bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            sessions: self.sessions.saturating_sub(other.sessions),
            queue_pairs: self.queue_pairs.saturating_sub(other.queue_pairs),
            staging_bytes: self.staging_bytes.saturating_sub(other.staging_bytes),
        }
    }

    fn within(self, sessions: usize, queue_pairs: usize, staging_bytes: u64) -> Result<(), WireError> {
        let full = |what| Err(WireError::Full { what });
        if self.sessions > sessions {
            return full("sessions");
        }
        if self.queue_pairs > queue_pairs {
            return full("queue pairs");
        }
        if self.staging_bytes > staging_bytes {
            return full("bytes of staging memory");
        }
        Ok(())
    }
}

/// Counts claims. What is taken is given back, by whoever took it.
#[derive(Debug)]
pub struct Ledger {
    caps: Caps,
    all: Claim,
    /// Only keys that hold something.
    by_key: HashMap<String, Claim>,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, all: Claim::default(), by_key: HashMap::new() }
    }

    /// Whether a key could ever hold so much staging memory.
    #[must_use]
    pub fn could_stage(&self, bytes: u64) -> bool {
        bytes <= self.caps.key_staging_bytes_max.min(self.caps.staging_bytes_max)
    }

    /// Takes `claim` for `key`; none is nobody's (an anonymous connection), which counts toward the whole alone.
    ///
    /// # Errors
    /// [`WireError::Full`]; then nothing is taken.
    pub fn take(&mut self, key: Option<&str>, claim: Claim) -> Result<(), WireError> {
        let all = self.all.plus(claim);
        all.within(self.caps.sessions_max, self.caps.queue_pairs_max, self.caps.staging_bytes_max)?;
        if let Some(key) = key {
            self.take_for(key, claim)?;
        }
        self.all = all;
        Ok(())
    }

    fn take_for(&mut self, key: &str, claim: Claim) -> Result<(), WireError> {
        let own = self.by_key.get(key).copied().unwrap_or_default().plus(claim);
        own.within(self.caps.key_sessions_max, self.caps.key_queue_pairs_max, self.caps.key_staging_bytes_max)?;
        self.by_key.insert(key.to_owned(), own);
        Ok(())
    }

    /// What was nobody's becomes `key`'s.
    ///
    /// # Errors
    /// [`WireError::Full`]; then it stays nobody's.
    pub fn bind(&mut self, key: &str, claim: Claim) -> Result<(), WireError> {
        self.take_for(key, claim)
    }

    /// The reverse of [`Ledger::take`] (and [`Ledger::bind`]).
    pub fn give_back(&mut self, key: Option<&str>, claim: Claim) {
        self.all = self.all.minus(claim);
        let Some(key) = key else { return };
        if let Some(own) = self.by_key.get_mut(key) {
            *own = own.minus(claim);
            if *own == Claim::default() {
                self.by_key.remove(key);
            }
        }
    }

    /// What all hold together.
    #[must_use]
    pub fn held(&self) -> Claim {
        self.all
    }

    /// What `key` holds.
    #[must_use]
    pub fn held_by(&self, key: &str) -> Claim {
        self.by_key.get(key).copied().unwrap_or_default()
    }
}
