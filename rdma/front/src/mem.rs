//! Queue pairs and remote memory in this process: what a NIC does, as far as two sides of a connection can tell.
//!
//! It checks what hardware checks (both sides connected to each other with packet numbers that agree, a receive posted,
//! keys, bounds and access rights), and fails as hardware does: both queue pairs are in their error state after an access that
//! is not allowed, the one that asked is after the other side has gone. Tests can make a queue pair die after so many
//! operations on it, as if its process had been killed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use penstock_rdma_wire::Gid;
use tokio::sync::Notify;

use crate::nic::{Nic, NicError, Peer, PeerAccess, QueuePair, Received, Transfer, Window};

/// How long a side that is not connected, or has posted no receive, is tried again: finite, as every retry is.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(2);
/// Addresses of lent memory begin here; each piece has this much room.
const ADDRESS_STEP: u64 = 1 << 40;

/// The state of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemState {
    /// Made.
    Init,
    /// Connected.
    Rts,
    /// Fenced, or failed.
    Err,
}

/// A network of memory NICs.
#[derive(Clone, Default)]
pub struct MemFabric {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    last: u32,
    pairs: HashMap<u32, Pair>,
    regions: HashMap<u32, Region>,
}

struct Pair {
    state: MemState,
    access: PeerAccess,
    gids: Vec<Gid>,
    peer: Option<Peer>,
    receives: usize,
    arrived: VecDeque<Received>,
    news: Arc<Notify>,
    window: Option<u32>,
    /// Operations that it will still survive.
    lives: Option<u32>,
}

struct Region {
    owner: u32,
    access: PeerAccess,
    address: u64,
    memory: Vec<u8>,
}

/// One port on a [`MemFabric`].
#[derive(Clone)]
pub struct MemNic {
    fabric: MemFabric,
    gids: Vec<Gid>,
    message_bytes_max: u64,
}

impl MemFabric {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A NIC with these GIDs.
    #[must_use]
    pub fn nic(&self, gids: Vec<Gid>, message_bytes_max: u64) -> MemNic {
        MemNic { fabric: self.clone(), gids, message_bytes_max }
    }

    /// The state of a queue pair; none when it was destroyed.
    #[must_use]
    pub fn state(&self, number: u32) -> Option<MemState> {
        self.shared.lock().pairs.get(&number).map(|pair| pair.state)
    }

    /// The other side of a queue pair, once it is connected.
    #[must_use]
    pub fn peer_of(&self, number: u32) -> Option<u32> {
        self.shared.lock().pairs.get(&number).and_then(|pair| pair.peer).map(|peer| peer.number)
    }

    /// How many queue pairs there are.
    #[must_use]
    pub fn queue_pairs(&self) -> usize {
        self.shared.lock().pairs.len()
    }

    /// What a queue pair allows its other side.
    #[must_use]
    pub fn access(&self, number: u32) -> Option<PeerAccess> {
        self.shared.lock().pairs.get(&number).map(|pair| pair.access)
    }

    /// Lent memory as it is now.
    #[must_use]
    pub fn peek(&self, number: u32) -> Option<Vec<u8>> {
        let shared = self.shared.lock();
        let window = shared.pairs.get(&number)?.window?;
        shared.regions.get(&window).map(|region| region.memory.clone())
    }

    /// The queue pair dies, as if its process were killed, when it is used for the operation after `operations` more.
    pub fn kill_after(&self, number: u32, operations: u32) {
        if let Some(pair) = self.shared.lock().pairs.get_mut(&number) {
            pair.lives = Some(operations);
        }
    }
}

/// Why an operation can't be done now, or ever.
enum Refused {
    Retry(&'static str),
    Never { why: &'static str, both: bool },
}

enum What<'a> {
    Write { from: &'a [u8], immediate: Option<u32> },
    Read { into: &'a mut Vec<u8>, bytes: usize },
}

impl Shared {
    /// One RC operation, all or nothing.
    fn operate(&mut self, from: u32, address: u64, rkey: u32, what: &mut What<'_>) -> Result<(), Refused> {
        let never = |why| Err(Refused::Never { why, both: false });
        let denied = |why| Err(Refused::Never { why, both: true });
        let Some(own) = self.pairs.get(&from) else { return never("the queue pair is gone") };
        if own.state != MemState::Rts {
            return never("the queue pair is not in RTS");
        }
        let Some(peer) = own.peer else { return never("the queue pair is not connected") };
        let own_gid = own.gids.get(peer.own_gid).copied().unwrap_or_default();
        if let Some(other) = self.pairs.get_mut(&peer.number)
            && let Some(lives) = &mut other.lives
        {
            match lives.checked_sub(1) {
                Some(left) => *lives = left,
                None => self.destroy(peer.number),
            }
        }
        let Some(other) = self.pairs.get(&peer.number) else {
            return Err(Refused::Retry("transport retry counter exceeded: nobody answers"));
        };
        if other.state == MemState::Err {
            return never("transport retry counter exceeded: the other side is in its error state");
        }
        let agreed = other.peer.is_some_and(|back| {
            back.number == from
                && back.receive_psn == peer.send_psn
                && peer.receive_psn == back.send_psn
                && back.gid == own_gid
        });
        if other.state != MemState::Rts || !agreed {
            return Err(Refused::Retry("transport retry counter exceeded: the other side is not connected to us"));
        }
        let bytes = match &*what {
            What::Write { from, .. } => from.len(),
            What::Read { bytes, .. } => *bytes,
        };
        let allowed = match &*what {
            What::Write { .. } => other.access.writes(),
            What::Read { .. } => other.access.reads(),
        };
        if let What::Write { immediate: Some(_), .. } = &*what
            && other.receives == 0
        {
            return Err(Refused::Retry("RNR retry counter exceeded: no receive is posted"));
        }
        if bytes > 0 && !allowed {
            return denied("remote access error: the queue pair does not allow it");
        }
        if bytes > 0 {
            let Some(region) = self.regions.get_mut(&rkey).filter(|region| region.owner == peer.number) else {
                return denied("remote access error: no such rkey");
            };
            let granted = match &*what {
                What::Write { .. } => region.access.writes(),
                What::Read { .. } => region.access.reads(),
            };
            if !granted {
                return denied("remote access error: the memory is not lent for that");
            }
            let within = address.checked_sub(region.address).and_then(|at| {
                let at = usize::try_from(at).ok()?;
                region.memory.get_mut(at..at.checked_add(bytes)?)
            });
            let Some(memory) = within else { return denied("remote access error: out of bounds") };
            match what {
                What::Write { from, .. } => memory.copy_from_slice(from),
                What::Read { into, .. } => into.extend_from_slice(memory),
            }
        }
        if let What::Write { immediate: Some(immediate), .. } = &*what
            && let Some(other) = self.pairs.get_mut(&peer.number)
        {
            other.receives -= 1;
            other.arrived.push_back(Received { bytes: bytes as u64, immediate: Some(*immediate) });
            other.news.notify_one();
        }
        Ok(())
    }

    fn fail(&mut self, number: u32) {
        if let Some(pair) = self.pairs.get_mut(&number) {
            pair.state = MemState::Err;
            pair.news.notify_one();
        }
    }

    fn destroy(&mut self, number: u32) {
        if let Some(pair) = self.pairs.remove(&number) {
            pair.news.notify_one();
            if let Some(window) = pair.window {
                self.regions.remove(&window);
            }
        }
    }
}

impl Nic for MemNic {
    fn gids(&self) -> Vec<Gid> {
        self.gids.clone()
    }

    fn port(&self) -> u8 {
        1
    }

    fn message_bytes_max(&self) -> u64 {
        self.message_bytes_max
    }

    fn queue_pair(&self, access: PeerAccess) -> Result<Box<dyn QueuePair>, NicError> {
        let mut shared = self.fabric.shared.lock();
        shared.last += 1;
        let number = shared.last + 16;
        let news = Arc::new(Notify::new());
        let pair = Pair {
            state: MemState::Init,
            access,
            gids: self.gids.clone(),
            peer: None,
            receives: 0,
            arrived: VecDeque::new(),
            news: news.clone(),
            window: None,
            lives: None,
        };
        shared.pairs.insert(number, pair);
        Ok(Box::new(MemPair { fabric: self.fabric.clone(), number, news }))
    }
}

struct MemPair {
    fabric: MemFabric,
    number: u32,
    news: Arc<Notify>,
}

impl MemPair {
    fn with<T>(&self, action: impl FnOnce(&mut Shared) -> T) -> T {
        action(&mut self.fabric.shared.lock())
    }
}

/// Tries an operation until it is done, or can't be, or has been tried for long enough.
async fn operate(fabric: MemFabric, number: u32, address: u64, rkey: u32, mut what: What<'_>) -> Result<(), NicError> {
    let give_up = tokio::time::Instant::now() + RETRY_WAIT_MAX;
    loop {
        let refused = {
            let mut shared = fabric.shared.lock();
            match shared.operate(number, address, rkey, &mut what) {
                Ok(()) => return Ok(()),
                Err(Refused::Retry(why)) if tokio::time::Instant::now() < give_up => Some(why),
                Err(Refused::Retry(why) | Refused::Never { why, both: false }) => {
                    shared.fail(number);
                    return Err(NicError::Transfer(why.to_owned()));
                }
                Err(Refused::Never { why, both: true }) => {
                    if let Some(peer) = shared.pairs.get(&number).and_then(|pair| pair.peer) {
                        shared.fail(peer.number);
                    }
                    shared.fail(number);
                    return Err(NicError::Transfer(why.to_owned()));
                }
            }
        };
        if refused.is_some() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

impl QueuePair for MemPair {
    fn number(&self) -> u32 {
        self.number
    }

    fn connect(&self, peer: &Peer) -> Result<(), NicError> {
        self.with(|shared| match shared.pairs.get_mut(&self.number) {
            Some(pair) if pair.state == MemState::Init => {
                pair.peer = Some(*peer);
                pair.state = MemState::Rts;
                Ok(())
            }
            _ => Err(NicError::Fenced),
        })
    }

    fn lend(&self, memory: Vec<u8>, access: PeerAccess) -> Result<Window, NicError> {
        self.with(|shared| {
            let _before = take_back(shared, self.number);
            shared.last += 1;
            let window =
                Window { address: u64::from(shared.last) * ADDRESS_STEP, rkey: shared.last.rotate_left(8) | 1 };
            let pair = shared.pairs.get_mut(&self.number).ok_or(NicError::Fenced)?;
            pair.window = Some(window.rkey);
            shared.regions.insert(window.rkey, Region { owner: self.number, access, address: window.address, memory });
            Ok(window)
        })
    }

    fn take_back(&self) -> Option<Vec<u8>> {
        self.with(|shared| take_back(shared, self.number))
    }

    fn expect(&self) -> Result<(), NicError> {
        self.with(|shared| {
            let pair = shared.pairs.get_mut(&self.number).ok_or(NicError::Fenced)?;
            pair.receives += 1;
            Ok(())
        })
    }

    fn received(&self) -> Transfer<Received> {
        let (fabric, number, news) = (self.fabric.clone(), self.number, self.news.clone());
        Box::pin(async move {
            loop {
                {
                    let mut shared = fabric.shared.lock();
                    let pair = shared.pairs.get_mut(&number).ok_or(NicError::Fenced)?;
                    if let Some(received) = pair.arrived.pop_front() {
                        return Ok(received);
                    }
                    if pair.state == MemState::Err {
                        return Err(NicError::Fenced);
                    }
                }
                news.notified().await;
            }
        })
    }

    fn write(&self, from: Bytes, address: u64, rkey: u32, immediate: Option<u32>) -> Transfer<()> {
        let (fabric, number) = (self.fabric.clone(), self.number);
        Box::pin(async move { operate(fabric, number, address, rkey, What::Write { from: &from, immediate }).await })
    }

    fn read(&self, address: u64, rkey: u32, bytes: usize) -> Transfer<Bytes> {
        let (fabric, number) = (self.fabric.clone(), self.number);
        Box::pin(async move {
            let mut into = Vec::with_capacity(bytes);
            operate(fabric, number, address, rkey, What::Read { into: &mut into, bytes }).await?;
            Ok(into.into())
        })
    }

    fn fence(&self) {
        self.with(|shared| shared.fail(self.number));
    }
}

impl Drop for MemPair {
    fn drop(&mut self) {
        self.with(|shared| shared.destroy(self.number));
    }
}

fn take_back(shared: &mut Shared, number: u32) -> Option<Vec<u8>> {
    let window = shared.pairs.get_mut(&number)?.window.take()?;
    shared.regions.remove(&window).map(|region| region.memory)
}
