//! What the gateway holds for plans that are out: a read plan's lease keeps its shards from the collector, a write plan's
//! guard turns its data into garbage unless it is committed. Both until the plan's time has run out, whatever the client
//! does; a gateway that ends before leaves the garbage grace and the write's lease in the metadata to do the same, later.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use penstock_proto::{DataId, limits};

use crate::error::{Error, ErrorKind, Result};
use crate::gateway::Inner;
use crate::leases::Lease;
use crate::pending::PendingData;

/// How often holds whose time has run out are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Plans(Mutex<State>);

/// When it ends, and a number of its own.
type Place = (u64, u64);

#[derive(Default)]
struct State {
    holds: BTreeMap<Place, Hold>,
    writes: HashMap<DataId, Place>,
    next: u64,
}

enum Hold {
    Read { _lease: Arc<Lease> },
    Write(PendingData),
}

impl Plans {
    /// Holds a lease until `expires_unix_ms`.
    ///
    /// # Errors
    /// SlowDown when [`limits::PLANS_OPEN_MAX`] are held.
    pub(crate) fn hold_read(&self, lease: Arc<Lease>, now_unix_ms: u64, expires_unix_ms: u64) -> Result<()> {
        self.hold(Hold::Read { _lease: lease }, now_unix_ms, expires_unix_ms)
    }

    /// Holds pending data until `expires_unix_ms`, or until it is taken.
    ///
    /// # Errors
    /// As [`Plans::hold_read`]; the data is garbage then.
    pub(crate) fn hold_write(&self, pending: PendingData, now_unix_ms: u64, expires_unix_ms: u64) -> Result<()> {
        self.hold(Hold::Write(pending), now_unix_ms, expires_unix_ms)
    }

    fn hold(&self, hold: Hold, now_unix_ms: u64, expires_unix_ms: u64) -> Result<()> {
        self.sweep(now_unix_ms);
        let mut state = self.0.lock();
        if state.holds.len() >= limits::PLANS_OPEN_MAX {
            drop(state);
            let max = limits::PLANS_OPEN_MAX;
            return Err(Error::new(ErrorKind::SlowDown, format!("{max} plans are out; try again in a moment.")));
        }
        let place = (expires_unix_ms, state.next);
        state.next += 1;
        if let Hold::Write(pending) = &hold {
            state.writes.insert(pending.data(), place);
        }
        state.holds.insert(place, hold);
        Ok(())
    }

    /// The guard of a write plan that is held.
    pub(crate) fn take_write(&self, data: DataId) -> Option<PendingData> {
        let mut state = self.0.lock();
        let place = state.writes.remove(&data)?;
        match state.holds.remove(&place) {
            Some(Hold::Write(pending)) => Some(pending),
            _ => None,
        }
    }

    /// Lets go of what has run out.
    pub(crate) fn sweep(&self, now_unix_ms: u64) {
        let mut gone = Vec::new();
        let mut state = self.0.lock();
        while let Some(first) = state.holds.first_entry()
            && first.key().0 <= now_unix_ms
        {
            let hold = first.remove();
            if let Hold::Write(pending) = &hold {
                state.writes.remove(&pending.data());
            }
            gone.push(hold);
        }
        drop(state);
        drop(gone);
    }

    /// Plans that are held.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().holds.len()
    }
}

/// Starts the sweeper.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner.spawn_every(SWEEP_INTERVAL, |inner| async move { inner.plans.sweep(inner.clock.now_unix_ms()) });
}
