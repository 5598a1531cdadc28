//! What can go wrong, and what to do about it.

use std::fmt;
use std::sync::Arc;

use crate::gid::Gid;
use crate::state::QpState;

/// Why verbs could not do what they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerbsError {
    /// No libibverbs on this machine.
    #[error(
        "libibverbs can't be loaded ({reason}): install rdma-core (Debian, Ubuntu: apt-get install ibverbs-providers)"
    )]
    NoLibrary {
        /// What the dynamic linker said.
        reason: String,
    },
    /// The library sees no device.
    #[error(
        "there is no RDMA device: load the card's driver, or make a soft-RoCE device: \
         modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0"
    )]
    NoDevices,
    /// Not by this name.
    #[error("there is no RDMA device {name}; there is: {have}")]
    NoSuchDevice {
        /// What was asked for.
        name: String,
        /// What there is.
        have: String,
    },
    /// The port can't carry anything.
    #[error("port {port} of {device} is {state}: bring its network interface up, check the cable")]
    PortDown {
        /// Which device.
        device: String,
        /// Which port, from 1.
        port: u8,
        /// Its state, in words.
        state: String,
    },
    /// No address of ours reaches the peer's.
    #[error(
        "no GID of ours is of the same kind as the peer's {peer} ({family}); ours are: {have}. Give the interface an \
         address of that family, or let the peer choose another GID index"
    )]
    NoGid {
        /// The peer's.
        peer: Gid,
        /// Its family, in words.
        family: &'static str,
        /// What we have.
        have: String,
    },
    /// A verb was refused by the library or the kernel.
    #[error("{verb}: {error} ({advice})", error = std::io::Error::from_raw_os_error(*errno), advice = advice(*verb, *errno))]
    Call {
        /// Which.
        verb: Verb,
        /// With what.
        errno: i32,
    },
    /// A work request failed.
    #[error("{status} (vendor code {vendor:#x}): {advice}", advice = status.advice())]
    Completion {
        /// How.
        status: Status,
        /// The device's own code.
        vendor: u32,
    },
    /// The queue pair was in ERR, or was destroyed, before the work request was done.
    #[error("the queue pair was closed before the work request was done: {cause}")]
    Flushed {
        /// What closed it.
        cause: Arc<str>,
    },
    /// The queue pair takes nothing any more.
    #[error("the queue pair is closed: {cause}")]
    Fenced {
        /// What closed it.
        cause: Arc<str>,
    },
    /// Not from this state.
    #[error("a queue pair in {from} can't go to {to}")]
    State {
        /// Where it is.
        from: QpState,
        /// Where it should go.
        to: QpState,
    },
    /// A transition without one of its attributes.
    #[error("going from {from} to {to} needs {attribute}, which is not given or out of range")]
    Attribute {
        /// Where it is.
        from: QpState,
        /// Where it should go.
        to: QpState,
        /// What is missing.
        attribute: &'static str,
    },
    /// A range or a size that does not fit.
    #[error("out of bounds: {what}")]
    Bounds {
        /// What is where it must not be.
        what: String,
    },
    /// A queue or a table has no room.
    #[error("{what} is full ({max} entries): wait for completions, or lower the load")]
    Full {
        /// Which.
        what: &'static str,
        /// Its bound.
        max: usize,
    },
    /// The device or the library has no such thing.
    #[error("not supported: {what}")]
    Unsupported {
        /// What, and what would have it.
        what: String,
    },
}

impl VerbsError {
    /// Whether the same may succeed later, or on a fresh queue pair.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Completion { status, .. } => status.is_retryable(),
            Self::Call { errno, .. } => matches!(*errno, libc::EAGAIN | libc::EINTR | libc::EBUSY | libc::ETIMEDOUT),
            Self::PortDown { .. } | Self::Flushed { .. } | Self::Fenced { .. } | Self::Full { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn call(verb: Verb, errno: i32) -> Self {
        Self::Call { verb, errno }
    }

    /// From a verb that answers null and sets errno.
    pub(crate) fn last(verb: Verb) -> Self {
        Self::call(verb, std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    pub(crate) fn bounds(what: impl Into<String>) -> Self {
        Self::Bounds { what: what.into() }
    }
}

/// A verb, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are libibverbs'")]
pub enum Verb {
    GetDeviceList,
    OpenDevice,
    QueryDevice,
    QueryPort,
    ReadGids,
    AllocPd,
    RegMr,
    RegDmabufMr,
    AllocMw,
    CreateCompChannel,
    CreateCq,
    ReqNotifyCq,
    PollCq,
    CreateQp,
    ModifyQp,
    CreateSrq,
    PostSend,
    PostRecv,
    PostSrqRecv,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GetDeviceList => "ibv_get_device_list",
            Self::OpenDevice => "ibv_open_device",
            Self::QueryDevice => "ibv_query_device",
            Self::QueryPort => "ibv_query_port",
            Self::ReadGids => "reading the GID table",
            Self::AllocPd => "ibv_alloc_pd",
            Self::RegMr => "ibv_reg_mr",
            Self::RegDmabufMr => "ibv_reg_dmabuf_mr",
            Self::AllocMw => "ibv_alloc_mw",
            Self::CreateCompChannel => "ibv_create_comp_channel",
            Self::CreateCq => "ibv_create_cq",
            Self::ReqNotifyCq => "ibv_req_notify_cq",
            Self::PollCq => "ibv_poll_cq",
            Self::CreateQp => "ibv_create_qp",
            Self::ModifyQp => "ibv_modify_qp",
            Self::CreateSrq => "ibv_create_srq",
            Self::PostSend => "ibv_post_send",
            Self::PostRecv => "ibv_post_recv",
            Self::PostSrqRecv => "ibv_post_srq_recv",
        })
    }
}

/// What to do about `errno` of `verb`.
fn advice(verb: Verb, errno: i32) -> &'static str {
    match (verb, errno) {
        (Verb::GetDeviceList, libc::ENOSYS | libc::ENOENT | libc::ENODEV) => {
            "the kernel has no RDMA: modprobe ib_uverbs; on a cloud kernel install linux-modules-extra first"
        }
        (Verb::OpenDevice, libc::EPERM | libc::EACCES) => {
            "no right to /dev/infiniband/uverbs*: run as root, or give the user the rdma group, or pass the device into the container"
        }
        (Verb::OpenDevice, libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "/dev/infiniband/uverbs* is missing: modprobe ib_uverbs, and pass /dev/infiniband into the container"
        }
        (Verb::RegMr | Verb::CreateCq | Verb::CreateQp | Verb::CreateSrq, libc::ENOMEM | libc::EAGAIN) => {
            "memory can't be locked: raise the memlock limit (ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; \
             docker: --ulimit memlock=-1), or lower the number of buffers"
        }
        (Verb::RegMr, libc::EPERM) => "memory can't be locked without CAP_IPC_LOCK: raise the memlock limit",
        (Verb::RegMr, libc::EFAULT) => "the memory is not mapped, or not writable where writing is asked for",
        (Verb::RegMr, libc::EINVAL) => "the device takes no such range or access",
        (Verb::RegDmabufMr, libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT) => {
            "the device or kernel (5.12 at least) takes no dma-buf: copy through host memory"
        }
        (Verb::RegDmabufMr, libc::EBADF | libc::EINVAL) => "the descriptor is no dma-buf that this device can reach",
        (Verb::AllocMw, libc::ENOMEM | libc::EOPNOTSUPP | libc::ENOSYS) => {
            "the device has no memory windows left: registrations are used instead"
        }
        (Verb::ModifyQp, libc::EINVAL | libc::ENODATA | libc::ENOENT) => {
            "an attribute is wrong for this state: look at the GID index, the MTU and the peer's number"
        }
        (Verb::ModifyQp, libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EADDRNOTAVAIL) => {
            "the peer's address does not resolve: check the route, and that both sides use GIDs of one network"
        }
        (Verb::CreateQp | Verb::CreateCq, libc::EINVAL) => "more entries than the device has",
        (Verb::PostSend | Verb::PostRecv | Verb::PostSrqRecv, libc::ENOMEM) => "the queue is full",
        (_, libc::ENODEV | libc::EIO) => "the device has gone: look at dmesg",
        (_, libc::ENOMEM) => "no memory, or the device is out of such objects",
        (_, libc::EPERM | libc::EACCES) => "no right to: run as root or give the rights of the rdma group",
        _ => "look at dmesg, and at `penstock doctor`",
    }
}

macro_rules! statuses {
    ($($number:literal $name:ident $retryable:literal $what:literal $advice:literal;)*) => {
        /// How a work request ended, other than well (`enum ibv_wc_status`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the texts below say what each is")]
        pub enum Status {
            $($name,)*
            /// A number that this crate does not know.
            Other(i32),
        }

        impl Status {
            /// From the library's number.
            pub fn from_number(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// What to do about it.
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$name => $advice,)*
                    Self::Other(_) => "look at the device's documentation",
                }
            }

            /// Whether a fresh queue pair may have better luck with the same request.
            pub fn is_retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)*
                    Self::Other(_) => false,
                }
            }
        }

        impl fmt::Display for Status {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($what),)*
                    Self::Other(number) => write!(f, "completion status {number}"),
                }
            }
        }
    };
}

statuses! {
    1 LocalLength false "a message longer than its buffer" "the receive buffer is too small for what the peer sent, or the message is past the port's max_msg_sz";
    2 LocalQpOperation false "a malformed work request" "a bug of ours, or of the driver";
    3 LocalEec false "an end-to-end context error" "not used by RC: a bug of the driver";
    4 LocalProtection false "memory that is not registered for this" "a buffer is outside of its registration: a bug of ours";
    5 Flushed true "flushed" "the queue pair was in ERR: look at the first error";
    6 WindowBind false "binding a memory window failed" "the registration does not allow windows, or the window is already bound";
    7 BadResponse true "a malformed answer of the peer" "check the firmware and drivers of both sides";
    8 LocalAccess false "the peer wrote where it may not" "its WRITE WITH IMMEDIATE named memory that it has no right to";
    9 RemoteInvalidRequest false "the peer refuses the request" "the message is longer than its receive buffer, or it does not allow this operation on its queue pair";
    10 RemoteAccess false "remote access error" "the rkey is wrong, has been taken back, or the range is outside of what the peer granted";
    11 RemoteOperation true "the peer could not carry it out" "look at the peer's log";
    12 RetryExceeded true "retry exceeded: the peer does not answer" "it died, or the network drops RoCE packets (UDP 4791): check firewall, MTU along the path, and that the GID index is the right one";
    13 RnrRetryExceeded true "receiver not ready, retries exceeded" "the peer has no receive posted: it is overloaded or does not follow the credits";
    14 LocalRdd false "a reliable datagram domain error" "not used by RC: a bug of the driver";
    15 RemoteInvalidRdRequest false "the peer refuses a READ" "it allows fewer READs at a time than were sent: lower read_depth";
    16 RemoteAborted true "the peer aborted it" "look at the peer's log";
    17 InvalidEecNumber false "an invalid context number" "not used by RC: a bug of the driver";
    18 InvalidEecState false "an invalid context state" "not used by RC: a bug of the driver";
    19 Fatal false "a fatal error of the device" "look at dmesg; the driver may have to be reloaded";
    20 ResponseTimeout true "no response in time" "the peer or the network is overloaded";
    21 General false "a transport error" "look at dmesg";
    22 TagMatching false "a tag matching error" "not used: a bug of the driver";
    23 TagRendezvous false "an incomplete rendezvous" "not used: a bug of the driver";
}

/// An error together with the memory that was handed in.
pub struct Refused<M> {
    /// Why.
    pub error: VerbsError,
    /// Untouched.
    pub memory: M,
}

impl<M> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({:?})", self.error)
    }
}
impl<M> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
impl<M> std::error::Error for Refused<M> {}
impl<M> From<Refused<M>> for VerbsError {
    fn from(refused: Refused<M>) -> Self {
        refused.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_says_what_to_do() {
        for number in 1..24 {
            let status = Status::from_number(number);
            assert!(!matches!(status, Status::Other(_)), "{number}");
            let text = VerbsError::Completion { status, vendor: 0x32 }.to_string();
            assert!(text.contains("0x32") && text.len() > 40, "{text}");
        }
        assert_eq!(Status::from_number(24), Status::Other(24));
    }

    #[test]
    fn what_operators_meet_most_is_spelled_out() {
        let text = |verb, errno| VerbsError::call(verb, errno).to_string();
        assert!(text(Verb::RegMr, libc::ENOMEM).contains("memlock"));
        assert!(text(Verb::OpenDevice, libc::EACCES).contains("/dev/infiniband"));
        assert!(text(Verb::GetDeviceList, libc::ENOSYS).contains("modprobe ib_uverbs"));
        assert!(text(Verb::ModifyQp, libc::ENODATA).contains("GID index"));
        assert!(text(Verb::ModifyQp, libc::EINVAL).contains("GID index"));
        assert!(text(Verb::RegDmabufMr, libc::EOPNOTSUPP).contains("dma-buf"));
        assert!(Status::RetryExceeded.advice().contains("4791"));
        assert!(Status::RemoteAccess.advice().contains("rkey"));
        assert!(VerbsError::NoDevices.to_string().contains("rdma link add"));
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        let failed = |status| VerbsError::Completion { status, vendor: 0 }.is_retryable();
        assert!(failed(Status::RetryExceeded) && failed(Status::RnrRetryExceeded) && failed(Status::Flushed));
        assert!(!failed(Status::RemoteAccess) && !failed(Status::LocalProtection) && !failed(Status::Other(99)));
        assert!(VerbsError::call(Verb::RegMr, libc::EAGAIN).is_retryable());
        assert!(!VerbsError::call(Verb::RegMr, libc::ENOMEM).is_retryable());
        assert!(!VerbsError::NoLibrary { reason: String::new() }.is_retryable());
    }
}
