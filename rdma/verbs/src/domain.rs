//! A domain: everything that goes with one port of one device. Protection domain, completion queue with its task,
//! registrations, windows.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::completion::{self, CompletionQueue};
use crate::device::{Device, PortAttributes};
use crate::error::{Refused, VerbsError};
use crate::gid::{Gid, GidEntry, choose_gid};
use crate::lease::{Lease, Rights, Window};
use crate::memory::{Local, Pd, Readable, Writable};
use crate::queue_pair::{QpOptions, QueuePair};
use crate::registrations::Registrations;
use crate::shared_receive::SharedReceive;
use crate::work::PIECE_BYTES_MAX;

/// Windows kept for the next lease.
const WINDOWS_KEPT_MAX: usize = 1024;

/// One port of one device, in use. Clones share it.
#[derive(Clone)]
pub struct Domain(Arc<Inner>);

struct Inner {
    // Dropped in this order: the device knows of windows and registrations as long as the protection domain is there.
    windows: Mutex<Vec<Window>>,
    registrations: Registrations,
    completions: Arc<CompletionQueue>,
    stop: Arc<Notify>,
    port: PortAttributes,
    gids: Vec<GidEntry>,
    runtime: Handle,
    pd: Arc<Pd>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

impl Domain {
    /// Takes `port` (from 1) of `device` into use. Must be called inside a tokio runtime, which must have its I/O
    /// driver; the domain's task runs there.
    ///
    /// # Errors
    /// [`VerbsError::PortDown`]; what the kernel refuses.
    pub fn open(device: &Device, port: u8) -> Result<Self, VerbsError> {
        let attributes = device.port(port)?;
        if !attributes.active {
            return Err(VerbsError::PortDown {
                device: device.name().to_owned(),
                port,
                state: attributes.state.to_owned(),
            });
        }
        let gids = device.gids(port)?;
        let runtime = Handle::try_current()
            .map_err(|_| VerbsError::Unsupported { what: "opening a domain outside of a tokio runtime".to_owned() })?;
        let pd = Arc::new(Pd::new(device.clone())?);
        let completions = Arc::new(CompletionQueue::new(Arc::clone(&pd))?);
        let stop = Arc::new(Notify::new());
        completion::start(Arc::clone(&completions), Arc::clone(&stop))?;
        Ok(Self(Arc::new(Inner {
            windows: Mutex::default(),
            registrations: Registrations::default(),
            completions,
            stop,
            port: attributes,
            gids,
            runtime,
            pd,
        })))
    }

    /// The first port that is active, of the first device that has one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn first() -> Result<Self, VerbsError> {
        let mut why = VerbsError::NoDevices;
        for name in Device::list()? {
            match Self::first_of(&name) {
                Ok(domain) => return Ok(domain),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The first port of the device `name` that is active.
    ///
    /// # Errors
    /// Why there is none.
    pub fn first_of(name: &str) -> Result<Self, VerbsError> {
        let device = Device::open(name)?;
        let mut why = VerbsError::NoDevices;
        for port in 1..=device.attributes().ports {
            match Self::open(&device, port) {
                Ok(domain) => return Ok(domain),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.0.pd.device
    }

    /// The port, as it was when the domain was opened.
    pub fn port(&self) -> &PortAttributes {
        &self.0.port
    }

    /// The port's addresses, as they were when the domain was opened.
    pub fn gids(&self) -> &[GidEntry] {
        &self.0.gids
    }

    /// The address of ours that reaches `peer`; see [`choose_gid`].
    ///
    /// # Errors
    /// [`VerbsError::NoGid`].
    pub fn gid_for(&self, peer: Gid) -> Result<GidEntry, VerbsError> {
        choose_gid(&self.0.gids, peer)
    }

    /// Makes memory usable in operations. Buffers of a pool use the pool's registration, which is made when the pool is
    /// first seen; other memory is registered by itself, for as long as the answer lives.
    ///
    /// # Errors
    /// When it can't be registered; the memory comes back.
    pub fn attach<M: Writable>(&self, memory: M) -> Result<Local<M>, Refused<M>> {
        self.attach_any(memory, true)
    }

    /// As [`Domain::attach`], for memory that will only be read from.
    ///
    /// # Errors
    /// As of [`Domain::attach`].
    pub fn attach_read_only<M: Readable>(&self, memory: M) -> Result<Local<M>, Refused<M>> {
        self.attach_any(memory, false)
    }

    fn attach_any<M: Readable>(&self, memory: M, writable: bool) -> Result<Local<M>, Refused<M>> {
        match self.0.registrations.of(&self.0.pd, &memory, writable) {
            Ok(registration) => Ok(Local::new(registration, memory)),
            Err(error) => Err(Refused { error, memory }),
        }
    }

    /// Lets every peer with a queue pair of this domain that allows it read `memory`, until the lease ends.
    ///
    /// # Errors
    /// When it can't be registered; the memory comes back.
    pub fn lease_read<M: Readable>(&self, memory: M) -> Result<Lease<M>, Refused<M>> {
        Lease::registered(&self.0.pd, memory, Rights::Read)
    }

    /// Lets every peer with a queue pair of this domain that allows it write `memory`, until the lease ends.
    ///
    /// # Errors
    /// When it can't be registered; the memory comes back.
    pub fn lease_write<M: Writable>(&self, memory: M) -> Result<Lease<M>, Refused<M>> {
        Lease::registered(&self.0.pd, memory, Rights::Write)
    }

    /// A queue pair, in INIT: receives can be posted.
    ///
    /// # Errors
    /// [`VerbsError::Full`] when the completion queue has no room for its work requests; what the kernel refuses.
    pub fn queue_pair(&self, options: &QpOptions) -> Result<QueuePair, VerbsError> {
        QueuePair::new(self, options)
    }

    /// A shared receive queue for `depth` buffers.
    ///
    /// # Errors
    /// As of [`Domain::queue_pair`].
    pub fn shared_receive(&self, depth: u32) -> Result<SharedReceive, VerbsError> {
        SharedReceive::new(self, depth)
    }

    /// Longest piece of a transfer: what the port takes, and [`PIECE_BYTES_MAX`].
    pub fn piece_bytes_max(&self) -> usize {
        self.0.port.message_bytes_max.clamp(1, PIECE_BYTES_MAX) as usize
    }

    pub(crate) fn pd(&self) -> &Arc<Pd> {
        &self.0.pd
    }

    pub(crate) fn completions(&self) -> &CompletionQueue {
        &self.0.completions
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// A window that is bound to nothing.
    pub(crate) fn take_window(&self) -> Result<Window, VerbsError> {
        let kept = self.0.windows.lock().pop();
        match kept {
            Some(window) => Ok(window),
            None => Window::new(&self.0.pd),
        }
    }

    /// Keeps a window that is bound to nothing any more.
    pub(crate) fn keep_window(&self, window: Window) {
        let mut windows = self.0.windows.lock();
        if windows.len() < WINDOWS_KEPT_MAX {
            windows.push(window);
        }
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({}, port {})", self.device().name(), self.0.port.port)
    }
}

#[allow(dead_code, reason = "a check at compile time")]
fn is_shared_between_threads(domain: &Domain) -> &(dyn Send + Sync) {
    domain
}

/// A pointer that the library gave, or what it says of why it did not.
pub(crate) fn given<T>(raw: *mut T, verb: crate::error::Verb) -> Result<NonNull<T>, VerbsError> {
    NonNull::new(raw).ok_or_else(|| VerbsError::last(verb))
}
