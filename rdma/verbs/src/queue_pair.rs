//! RC queue pairs: made in INIT, connected by numbers that both sides exchanged by other means, and fenced.
//!
//! A queue pair fails as a whole. Whatever fails first takes it to ERR *before* anybody is told, so "failed" means
//! "nothing more will be read or written through it". The device then flushes what was posted; if it does not within
//! [`FLUSH_WAIT`], the queue pair is destroyed, after which the device has nothing of it either.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::abi;
use crate::completion::Entry;
use crate::device::Mtu;
use crate::domain::{Domain, given};
use crate::error::{Status, Verb, VerbsError};
use crate::gid::Gid;
use crate::operation::Done;
use crate::shared_receive::SharedReceiveHandle;
use crate::state::{Attribute, QpState, transition};

/// How long the device has to flush a queue pair in ERR before it is destroyed.
pub const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// Routers that a packet may pass.
const HOP_LIMIT: u8 = 64;
/// Numbers of queue pairs and of packets have 24 bits.
const NUMBER_MAX: u32 = 0xff_ffff;

/// What the peer may do through a queue pair, to memory that it was given a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Access {
    /// READ.
    pub read: bool,
    /// WRITE.
    pub write: bool,
}

impl Access {
    fn flags(self) -> u32 {
        let flag = |wanted, flag: i32| if wanted { flag as u32 } else { 0 };
        flag(self.read, abi::access::REMOTE_READ) | flag(self.write, abi::access::REMOTE_WRITE)
    }
}

/// How a queue pair is made.
#[derive(Clone, Default)]
pub struct QpOptions {
    /// Work requests of the send queue at a time; 0 is 128.
    pub send_max: u32,
    /// Work requests of the receive queue at a time; 0 is 64.
    pub recv_max: u32,
    /// Bytes that a SEND may carry inside its work request; the device may give more, and less is an error.
    pub inline_bytes: u32,
    /// What the peer may do; nothing by default.
    pub access: Access,
    /// Where receives come from, if not from a queue of its own.
    pub shared_receive: Option<SharedReceiveHandle>,
}

/// Waits and retries; all finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An unanswered packet is sent again after 4.096 us x 2^timeout; 1 to 31.
    pub timeout: u8,
    /// How often; 0 to 6 (soft-RoCE takes 7 to mean for ever, so it is refused).
    pub retry: u8,
    /// How often when the peer has no receive posted; 0 to 6 (7 would be for ever, and is refused).
    pub rnr_retry: u8,
    /// How long a peer that finds no receive posted shall wait; the specification's code, 0 to 31 (12: 0.64 ms).
    pub min_rnr_timer: u8,
}

impl Default for Timing {
    fn default() -> Self {
        Self { timeout: 14, retry: 6, rnr_retry: 6, min_rnr_timer: 12 }
    }
}

/// The peer, and how to talk to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Its queue pair's number.
    pub peer_number: u32,
    /// Its address.
    pub peer_gid: Gid,
    /// Its local identifier; 0 on Ethernet.
    pub peer_lid: u16,
    /// The place of our address in the port's table ([`Domain::gid_for`]).
    pub gid_index: u8,
    /// The number of its first packet.
    pub receive_psn: u32,
    /// The number of ours.
    pub send_psn: u32,
    /// The path's MTU: the smaller of both sides'.
    pub mtu: Mtu,
    /// READs that we send at a time; at most what the peer serves.
    pub read_depth: u8,
    /// READs that we serve at a time.
    pub read_depth_peer: u8,
    /// Waits and retries.
    pub timing: Timing,
}

impl Connect {
    /// With the depths that every device has, and the usual waits.
    pub fn new(peer_number: u32, peer_gid: Gid, gid_index: u8, receive_psn: u32, send_psn: u32, mtu: Mtu) -> Self {
        Self {
            peer_number,
            peer_gid,
            peer_lid: 0,
            gid_index,
            receive_psn,
            send_psn,
            mtu,
            read_depth: 1,
            read_depth_peer: 1,
            timing: Timing::default(),
        }
    }

    /// What is out of range for the step to `to`.
    fn wrong(&self, to: QpState) -> Option<Attribute> {
        let in_range = |fine: bool, attribute| (!fine).then_some(attribute);
        let timing = &self.timing;
        match to {
            QpState::Rtr => in_range((1..=NUMBER_MAX).contains(&self.peer_number), Attribute::PeerNumber)
                .or(in_range(self.receive_psn <= NUMBER_MAX, Attribute::ReceivePsn))
                .or(in_range(!self.peer_gid.is_zero() || self.peer_lid != 0, Attribute::AddressVector))
                .or(in_range(timing.min_rnr_timer <= 31, Attribute::MinRnrTimer)),
            QpState::Rts => in_range(self.send_psn <= NUMBER_MAX, Attribute::SendPsn)
                .or(in_range((1..=31).contains(&timing.timeout), Attribute::Timeout))
                .or(in_range(timing.retry <= 6, Attribute::RetryCount))
                .or(in_range(timing.rnr_retry <= 6, Attribute::RnrRetry)),
            _ => None,
        }
    }
}

/// A number for our first packet: 1 to 0xffffff, from the system's source of randomness.
pub fn random_psn() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness a clock will do: it only has to differ from the last one's.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.subsec_nanos().to_le_bytes();
    }
    (u32::from_le_bytes(bytes) & NUMBER_MAX).max(1)
}

/// An RC queue pair. Clones share it; it is destroyed when the last is dropped.
#[derive(Clone)]
pub struct QueuePair(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) domain: Domain,
    /// `None` once it is destroyed. Locked while posting, so that it is not destroyed meanwhile.
    handle: Mutex<Handle>,
    number: u32,
    pub(crate) id: u64,
    pub(crate) send_slots: Arc<Semaphore>,
    pub(crate) recv_slots: Arc<Semaphore>,
    pub(crate) recv_max: usize,
    reserved: usize,
    inline_bytes: usize,
    /// What took it to ERR.
    failure: watch::Sender<Option<VerbsError>>,
    /// Receives come from there; it must outlive the queue pair.
    pub(crate) shared_receive: Option<SharedReceiveHandle>,
}

struct Handle {
    raw: Option<NonNull<abi::Qp>>,
    state: QpState,
}

// SAFETY: libibverbs' objects may be used from any thread, at the same time.
unsafe impl Send for Handle {}

impl QueuePair {
    pub(crate) fn new(domain: &Domain, options: &QpOptions) -> Result<Self, VerbsError> {
        let device = domain.device();
        let wr_max = device.attributes().qp_wr_max.max(1);
        let or = |given: u32, default| if given == 0 { default } else { given };
        let send_max = or(options.send_max, 128).min(wr_max);
        let recv_max = or(options.recv_max, 64).min(wr_max);
        let reserved = send_max as usize + if options.shared_receive.is_some() { 0 } else { recv_max as usize };
        domain.completions().reserve(reserved)?;
        let mut wanted = abi::QpInitAttr {
            qp_context: std::ptr::null_mut(),
            send_cq: domain.completions().raw(),
            recv_cq: domain.completions().raw(),
            srq: options.shared_receive.as_ref().map_or(std::ptr::null_mut(), |shared| shared.0.raw()),
            cap: abi::QpCap {
                max_send_wr: send_max,
                max_recv_wr: if options.shared_receive.is_some() { 0 } else { recv_max },
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: options.inline_bytes,
            },
            qp_type: abi::QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: live objects of one context; the structure is read, and what was given is written back.
        let raw = unsafe { (device.api().ibv_create_qp)(domain.pd().raw.as_ptr(), &raw mut wanted) };
        let raw = given(raw, Verb::CreateQp).inspect_err(|_| domain.completions().release(reserved))?;
        // SAFETY: a live queue pair.
        let number = unsafe { raw.as_ref().qp_num };
        let pair = Self(Arc::new(Inner {
            domain: domain.clone(),
            handle: Mutex::new(Handle { raw: Some(raw), state: QpState::Reset }),
            number,
            id: domain.completions().fresh_id(),
            send_slots: Arc::new(Semaphore::new(send_max as usize)),
            recv_slots: Arc::new(Semaphore::new(recv_max as usize)),
            recv_max: recv_max as usize,
            reserved,
            inline_bytes: wanted.cap.max_inline_data as usize,
            failure: watch::Sender::new(None),
            shared_receive: options.shared_receive.clone(),
        }));
        let mut attributes = abi::QpAttr {
            qp_access_flags: options.access.flags(),
            port_num: domain.port().port,
            ..abi::QpAttr::default()
        };
        pair.0.step(QpState::Init, &mut attributes)?;
        Ok(pair)
    }

    /// Its number, which the peer needs.
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// Where it is, as far as we took it. The device may have gone to ERR a moment ago.
    pub fn state(&self) -> QpState {
        self.0.handle.lock().state
    }

    /// Bytes that a SEND may carry inside its work request.
    pub fn inline_bytes(&self) -> usize {
        self.0.inline_bytes
    }

    /// Its domain.
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// INIT to RTR: the peer's requests are served from now on.
    ///
    /// # Errors
    /// [`VerbsError::Attribute`] for what is out of range, [`VerbsError::State`]; what the kernel says.
    pub fn ready_to_receive(&self, connect: &Connect) -> Result<(), VerbsError> {
        self.check(connect, QpState::Rtr)?;
        let half = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("invariant: half of a GID"));
        let serves = self.0.domain.device().attributes().read_depth_peer_max;
        let mut attributes = abi::QpAttr {
            path_mtu: connect.mtu.number(),
            dest_qp_num: connect.peer_number,
            rq_psn: connect.receive_psn,
            max_dest_rd_atomic: depth(connect.read_depth_peer, serves),
            min_rnr_timer: connect.timing.min_rnr_timer,
            ah_attr: abi::AhAttr {
                grh: abi::GlobalRoute {
                    dgid: [half(&connect.peer_gid.0[..8]), half(&connect.peer_gid.0[8..])],
                    sgid_index: connect.gid_index,
                    hop_limit: HOP_LIMIT,
                    ..abi::GlobalRoute::default()
                },
                dlid: connect.peer_lid,
                is_global: u8::from(!connect.peer_gid.is_zero()),
                port_num: self.0.domain.port().port,
                ..abi::AhAttr::default()
            },
            ..abi::QpAttr::default()
        };
        self.0.step(QpState::Rtr, &mut attributes)
    }

    /// RTR to RTS: operations can be posted.
    ///
    /// # Errors
    /// As of [`QueuePair::ready_to_receive`].
    pub fn ready_to_send(&self, connect: &Connect) -> Result<(), VerbsError> {
        self.check(connect, QpState::Rts)?;
        let sends = self.0.domain.device().attributes().read_depth_max;
        let mut attributes = abi::QpAttr {
            sq_psn: connect.send_psn,
            timeout: connect.timing.timeout,
            retry_cnt: connect.timing.retry,
            rnr_retry: connect.timing.rnr_retry,
            max_rd_atomic: depth(connect.read_depth, sends),
            ..abi::QpAttr::default()
        };
        self.0.step(QpState::Rts, &mut attributes)
    }

    /// Both steps.
    ///
    /// # Errors
    /// As of [`QueuePair::ready_to_receive`].
    pub fn connect(&self, connect: &Connect) -> Result<(), VerbsError> {
        self.ready_to_receive(connect)?;
        self.ready_to_send(connect)
    }

    fn check(&self, connect: &Connect, to: QpState) -> Result<(), VerbsError> {
        match connect.wrong(to) {
            None => Ok(()),
            Some(attribute) => Err(VerbsError::Attribute { from: self.state(), to, attribute: attribute.text() }),
        }
    }

    /// Takes it to ERR: from when this returns, nothing is written or read through it any more, but for packets that
    /// the device is in the middle of; [`QueuePair::destroy`] waits for those too. What was posted ends with an error.
    pub fn fence(&self) {
        self.0.fence(&VerbsError::Fenced { cause: "it was fenced by its owner".into() });
    }

    /// Takes it to ERR and destroys it. What was posted ends with an error, and its memory is free when this returns.
    pub fn destroy(&self) {
        self.fence();
        self.0.destroy();
    }

    /// What took it to ERR, if it is there.
    pub fn failure(&self) -> Option<VerbsError> {
        self.0.failure.borrow().clone()
    }

    /// Waits until it is in ERR, and says why.
    pub async fn fenced(&self) -> VerbsError {
        let mut failure = self.0.failure.subscribe();
        let seen = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        seen.unwrap_or_else(|| VerbsError::Fenced { cause: "it is gone".into() })
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuePair({:#x}, {})", self.0.number, self.state())
    }
}

/// A depth within what the device has.
fn depth(wanted: u8, device_max: u32) -> u8 {
    u8::try_from(u32::from(wanted).min(device_max)).unwrap_or(u8::MAX)
}

impl Inner {
    /// One step of the state machine.
    fn step(&self, to: QpState, attributes: &mut abi::QpAttr) -> Result<(), VerbsError> {
        let mut handle = self.handle.lock();
        let from = handle.state;
        let Some(needs) = transition(from, to) else { return Err(VerbsError::State { from, to }) };
        let Some(raw) = handle.raw else { return Err(self.closed()) };
        attributes.qp_state = to.number();
        // SAFETY: a live queue pair, kept so by the lock; the mask names fields that the caller has filled in.
        let errno =
            unsafe { (self.domain.device().api().ibv_modify_qp)(raw.as_ptr(), &raw mut *attributes, needs.mask()) };
        if errno != 0 {
            return Err(VerbsError::call(Verb::ModifyQp, errno.abs()));
        }
        handle.state = to;
        Ok(())
    }

    /// Does something with the live queue pair, in a state in which it may be posted to.
    pub(crate) fn with_raw<T>(
        &self,
        receives: bool,
        work: impl FnOnce(*mut abi::Qp) -> Result<T, VerbsError>,
    ) -> Result<T, VerbsError> {
        let handle = self.handle.lock();
        let ready = match handle.state {
            QpState::Init | QpState::Rtr => receives,
            QpState::Rts => true,
            _ => return Err(self.closed()),
        };
        if !ready {
            return Err(VerbsError::State { from: handle.state, to: QpState::Rts });
        }
        match handle.raw {
            Some(raw) => work(raw.as_ptr()),
            None => Err(self.closed()),
        }
    }

    /// That nothing can be posted, and why.
    pub(crate) fn closed(&self) -> VerbsError {
        VerbsError::Fenced { cause: self.cause() }
    }

    fn cause(&self) -> Arc<str> {
        match &*self.failure.borrow() {
            Some(VerbsError::Fenced { cause }) => Arc::clone(cause),
            Some(error) => error.to_string().into(),
            None => "it was destroyed".into(),
        }
    }

    /// Looks at a result before whoever waits for it does: of a failure, the queue pair goes to ERR first.
    pub(crate) fn judge(self: &Arc<Self>, result: Result<Done, VerbsError>) -> Result<Done, VerbsError> {
        match result {
            Err(VerbsError::Completion { status: Status::Flushed, .. }) => {
                // If nothing of ours failed before, the peer did something that it may not, or the device gave up.
                self.fence(&VerbsError::Fenced {
                    cause: "the device took it to ERR: the peer broke a rule, or reached for memory it has no right to"
                        .into(),
                });
                Err(VerbsError::Flushed { cause: self.cause() })
            }
            Err(error) => {
                self.fence(&error);
                Err(error)
            }
            done => done,
        }
    }

    /// To ERR, once.
    pub(crate) fn fence(self: &Arc<Self>, why: &VerbsError) {
        {
            let mut handle = self.handle.lock();
            if handle.state == QpState::Err {
                return;
            }
            // Before the device is told: the flushed work requests want to know.
            self.failure.send_if_modified(|failure| {
                let first = failure.is_none();
                failure.get_or_insert_with(|| why.clone());
                first
            });
            handle.state = QpState::Err;
            if let Some(raw) = handle.raw {
                let mut attributes = abi::QpAttr { qp_state: QpState::Err.number(), ..abi::QpAttr::default() };
                // SAFETY: a live queue pair, kept so by the lock; only its state is changed.
                let errno = unsafe { (self.domain.device().api().ibv_modify_qp)(raw.as_ptr(), &raw mut attributes, 1) };
                if errno != 0 {
                    tracing::warn!(number = self.number, errno, "a queue pair can't be taken to ERR: it is destroyed");
                    drop(handle);
                    self.destroy();
                }
            }
        }
        // Whoever waits for a place gets the error.
        self.send_slots.close();
        self.recv_slots.close();
        let weak: Weak<Self> = Arc::downgrade(self);
        self.domain.runtime().spawn(async move {
            tokio::time::sleep(FLUSH_WAIT).await;
            if let Some(pair) = weak.upgrade()
                && pair.domain.completions().has_any(pair.id)
            {
                tracing::warn!(number = pair.number, "the device has not flushed a queue pair: it is destroyed");
                pair.destroy();
            }
        });
    }

    /// Destroys it; then the device has nothing of it any more, and what was posted ends.
    pub(crate) fn destroy(&self) {
        let raw = {
            let mut handle = self.handle.lock();
            handle.state = QpState::Err;
            handle.raw.take()
        };
        let Some(raw) = raw else { return };
        self.send_slots.close();
        self.recv_slots.close();
        // SAFETY: ours, taken out of its place, so destroyed once and used by nobody any more.
        let errno = unsafe { (self.domain.device().api().ibv_destroy_qp)(raw.as_ptr()) };
        if errno != 0 {
            crate::memory::give_up("ibv_destroy_qp", errno);
        }
        let cause = self.cause();
        for entry in self.domain.completions().withdraw_all(self.id) {
            if let Entry::Own { operation, .. } = entry {
                operation.end_one(Err(VerbsError::Flushed { cause: Arc::clone(&cause) }));
            }
        }
        self.domain.completions().release(self.reserved);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.destroy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect() -> Connect {
        Connect::new(0x112, Gid::from(std::net::Ipv4Addr::LOCALHOST), 1, 5, 6, Mtu::M1024)
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert_eq!(connect().wrong(QpState::Rtr), None);
        assert_eq!(connect().wrong(QpState::Rts), None);
        let timing = |change: fn(&mut Timing)| {
            let mut connect = connect();
            change(&mut connect.timing);
            connect.wrong(QpState::Rts)
        };
        assert_eq!(timing(|t| t.rnr_retry = 7), Some(Attribute::RnrRetry), "for ever is refused");
        assert_eq!(timing(|t| t.timeout = 0), Some(Attribute::Timeout), "for ever is refused");
        assert_eq!(timing(|t| t.retry = 7), Some(Attribute::RetryCount), "for ever on soft-RoCE");
        let of = |change: fn(&mut Connect), to| {
            let mut connect = connect();
            change(&mut connect);
            connect.wrong(to)
        };
        assert_eq!(of(|c| c.peer_number = 0, QpState::Rtr), Some(Attribute::PeerNumber));
        assert_eq!(of(|c| c.peer_number = 1 << 24, QpState::Rtr), Some(Attribute::PeerNumber));
        assert_eq!(of(|c| c.receive_psn = 1 << 24, QpState::Rtr), Some(Attribute::ReceivePsn));
        assert_eq!(of(|c| c.send_psn = 1 << 24, QpState::Rts), Some(Attribute::SendPsn));
        assert_eq!(of(|c| c.peer_gid = Gid::default(), QpState::Rtr), Some(Attribute::AddressVector));
    }

    #[test]
    fn numbers_of_first_packets_differ_and_are_in_range() {
        let numbers: std::collections::HashSet<u32> = (0..100).map(|_| random_psn()).collect();
        assert!(numbers.len() > 90);
        assert!(numbers.iter().all(|n| (1..=NUMBER_MAX).contains(n)));
    }

    #[test]
    fn depths_are_the_smaller_of_wanted_and_had() {
        assert_eq!((depth(16, 128), depth(16, 4), depth(255, 1000), depth(1, 0)), (16, 4, 255, 0));
    }
}
