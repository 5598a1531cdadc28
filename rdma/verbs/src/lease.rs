//! Leases: a peer's right to one range of our memory, in one direction, for one purpose. The memory comes back only when
//! the right has ended, however that comes about: revoked, dropped, or with its queue pair gone.
//!
//! By a type-2 window where the device has them: bound by a work request, good for one queue pair alone, ended by
//! `LOCAL_INV` and used again; or ended by giving the window back, which is a system call that does not need the queue
//! pair. Where the device does not enforce a window's range (soft-RoCE), the window is bound to a registration of just
//! that range. Without windows, by a registration alone.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use crate::abi::{self, access};
use crate::domain::given;
use crate::error::{Refused, Verb, VerbsError};
use crate::memory::{Local, Pd, Readable, Registration, Uses, Writable, give_up};
use crate::queue_pair::{Inner as QueuePairInner, QueuePair};

/// What the peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// READ.
    Read,
    /// WRITE.
    Write,
}

impl Rights {
    fn uses(self) -> Uses {
        match self {
            Self::Read => Uses { remote_read: true, ..Uses::default() },
            Self::Write => Uses { remote_write: true, ..Uses::default() },
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Read => access::REMOTE_READ as u32,
            Self::Write => access::REMOTE_WRITE as u32,
        }
    }
}

/// What the peer needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it begins.
    pub addr: u64,
    /// The key.
    pub rkey: u32,
    /// Bytes.
    pub len: u64,
}

/// A type-2 memory window.
pub(crate) struct Window {
    pd: Arc<Pd>,
    raw: NonNull<abi::Mw>,
}

// SAFETY: libibverbs' objects may be used from any thread, at the same time.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    pub(crate) fn new(pd: &Arc<Pd>) -> Result<Self, VerbsError> {
        let alloc = pd.device.ops().alloc_mw;
        let alloc = alloc.ok_or_else(|| VerbsError::Unsupported { what: "the driver has no ibv_alloc_mw".into() })?;
        // SAFETY: a live protection domain.
        let raw = given(unsafe { alloc(pd.raw.as_ptr(), abi::MW_TYPE_2) }, Verb::AllocMw)?;
        Ok(Self { pd: Arc::clone(pd), raw })
    }

    pub(crate) fn raw(&self) -> *mut abi::Mw {
        self.raw.as_ptr()
    }

    fn key(&self) -> u32 {
        // SAFETY: a live window; its key is only changed through `&mut self`.
        unsafe { self.raw.as_ref().rkey }
    }

    /// The key that its next binding has: the owner's byte counts up, so that the last one's is worth nothing.
    fn next_key(&self) -> u32 {
        next_key(self.key())
    }

    /// Notes the key that it was bound with; the driver looks for it there at the next binding.
    pub(crate) fn set_key(&mut self, key: u32) {
        // SAFETY: a live window; `&mut self` makes us the only one to touch it.
        unsafe { self.raw.as_mut().rkey = key };
    }
}

fn next_key(key: u32) -> u32 {
    (key & !0xff) | (key.wrapping_add(1) & 0xff)
}

impl Drop for Window {
    fn drop(&mut self) {
        let Some(dealloc) = self.pd.device.ops().dealloc_mw else { give_up("ibv_dealloc_mw", libc::ENOSYS) };
        // SAFETY: ours, given back once; the memory that it may still be bound to is kept until after this.
        let errno = unsafe { dealloc(self.raw.as_ptr()) };
        if errno != 0 {
            give_up("ibv_dealloc_mw", errno);
        }
    }
}

enum Grant {
    // Dropped in this order.
    Window { window: Window, _own: Option<Registration>, queue_pair: Weak<QueuePairInner> },
    Registration { _own: Registration },
}

/// A peer's right to `T`'s memory. Ends when revoked or dropped, before the memory is anybody's again.
pub struct Lease<T> {
    // Dropped in this order.
    grant: Option<Grant>,
    held: Option<T>,
    remote: Remote,
}

impl<M: Readable> Lease<M> {
    pub(crate) fn registered(pd: &Arc<Pd>, memory: M, rights: Rights) -> Result<Self, Refused<M>> {
        // SAFETY: the lease keeps the memory, and drops the registration first; a peer that may write has it alone,
        // for `lease_write` asks for a `Writable`.
        match unsafe { Registration::new(pd, memory.range(), memory.dmabuf(), rights.uses()) } {
            Ok(registration) => {
                let (start, len) = memory.range();
                let remote = Remote { addr: start as u64, rkey: registration.remote_key(), len: len as u64 };
                Ok(Self { grant: Some(Grant::Registration { _own: registration }), held: Some(memory), remote })
            }
            Err(error) => Err(Refused { error, memory }),
        }
    }
}

impl<T> Lease<T> {
    /// What the peer needs to know.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// Whether it is by a window, which no other queue pair can use.
    pub fn is_window(&self) -> bool {
        matches!(self.grant, Some(Grant::Window { .. }))
    }

    /// Ends the right at once, by a system call, and gives the memory back.
    pub fn revoke_now(mut self) -> T {
        self.grant = None;
        self.held.take().expect("invariant: only a revoked lease is empty")
    }
}

impl<T: Any + Send + Sync> Lease<T> {
    /// Ends the right and gives the memory back. A window is kept for the next lease.
    pub async fn revoke(mut self) -> T {
        let pair = match &self.grant {
            Some(Grant::Window { queue_pair, .. }) => queue_pair.upgrade().map(QueuePair),
            _ => None,
        };
        let Some(pair) = pair else { return self.revoke_now() };
        let key = self.remote.rkey;
        let (lease, result) = pair.local_invalidate(self, key).await;
        self = lease;
        if result.is_ok()
            && let Some(Grant::Window { window, _own, .. }) = self.grant.take()
        {
            pair.domain().keep_window(window);
            drop(_own);
        }
        // Of a failure: the window is given back, which ends the right too.
        self.revoke_now()
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?}, window: {})", self.remote, self.is_window())
    }
}

impl QueuePair {
    /// Lets the peer read `range` of `local`, until the lease ends.
    ///
    /// # Errors
    /// When it can't be bound or registered; the memory comes back.
    pub async fn lease_read<M: Readable>(
        &self,
        local: Local<M>,
        range: Range<usize>,
    ) -> Result<Lease<Local<M>>, Refused<Local<M>>> {
        self.lease(local, range, Rights::Read).await
    }

    /// Lets the peer write `range` of `local`, until the lease ends.
    ///
    /// # Errors
    /// When it can't be bound or registered; the memory comes back.
    pub async fn lease_write<M: Writable>(
        &self,
        local: Local<M>,
        range: Range<usize>,
    ) -> Result<Lease<Local<M>>, Refused<Local<M>>> {
        self.lease(local, range, Rights::Write).await
    }

    async fn lease<M: Readable>(
        &self,
        local: Local<M>,
        range: Range<usize>,
        rights: Rights,
    ) -> Result<Lease<Local<M>>, Refused<Local<M>>> {
        let (addr, len) = match local.piece(&range) {
            Ok((_, 0)) => return Err(Refused { error: VerbsError::bounds("a lease of no bytes"), memory: local }),
            Ok(piece) => piece,
            Err(error) => return Err(Refused { error, memory: local }),
        };
        // Only pools are registered so that windows can be bound to them.
        let can_bind = local.pool().is_some() && self.domain().device().attributes().has_window_2;
        let window = if can_bind { self.domain().take_window().ok() } else { None };
        let (Some(window), Some(pools)) = (window, local.registration().cloned()) else {
            return self.lease_registered(local, (addr, len), rights);
        };
        let own = if self.domain().device().attributes().windows_keep_bounds {
            None
        } else {
            let uses = Uses { bind: true, local_write: true, ..Uses::default() };
            // SAFETY: a range of memory that the lease keeps, and drops after the registration.
            match unsafe { Registration::new(self.domain().pd(), (addr as *const u8, len), None, uses) } {
                Ok(own) => Some(own),
                Err(error) => {
                    self.domain().keep_window(window);
                    return Err(Refused { error, memory: local });
                }
            }
        };
        let key = window.next_key();
        let bind = Bind {
            window: window.raw(),
            key,
            registration: own.as_ref().map_or_else(|| pools.raw(), Registration::raw),
            addr,
            len: len as u64,
            access: rights.flags(),
        };
        let remote = Remote { addr, rkey: key, len: len as u64 };
        let posted = self.slot().await;
        let grant = Grant::Window { window, _own: own, queue_pair: Arc::downgrade(&self.0) };
        let lease = Lease { grant: Some(grant), held: Some(local), remote };
        let slot = match posted {
            Ok(slot) => slot,
            Err(error) => return Err(Refused { error, memory: lease.revoke_now() }),
        };
        let (mut lease, result) = self.bind(slot, lease, &bind).await;
        match result {
            Ok(_) => {
                if let Some(Grant::Window { window, .. }) = &mut lease.grant {
                    window.set_key(key);
                }
                Ok(lease)
            }
            Err(error) => Err(Refused { error, memory: lease.revoke_now() }),
        }
    }

    fn lease_registered<M: Readable>(
        &self,
        local: Local<M>,
        (addr, len): (u64, usize),
        rights: Rights,
    ) -> Result<Lease<Local<M>>, Refused<Local<M>>> {
        let pd = self.domain().pd();
        // SAFETY: a range of memory that the lease keeps, and drops after the registration; a dma-buf's addresses are
        // those of its own registration, from its start on.
        let registration = unsafe {
            let dmabuf = local.dmabuf().map(|mut dmabuf| {
                dmabuf.offset += addr - local.range().0 as u64;
                dmabuf
            });
            Registration::new(pd, (addr as *const u8, len), dmabuf, rights.uses())
        };
        match registration {
            Ok(registration) => {
                let remote = Remote { addr, rkey: registration.remote_key(), len: len as u64 };
                Ok(Lease { grant: Some(Grant::Registration { _own: registration }), held: Some(local), remote })
            }
            Err(error) => Err(Refused { error, memory: local }),
        }
    }
}

/// What a binding says.
pub(crate) struct Bind {
    pub(crate) window: *mut abi::Mw,
    pub(crate) key: u32,
    pub(crate) registration: *mut abi::Mr,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) access: u32,
}

// SAFETY: pointers to objects that the lease which is bound keeps; libibverbs' objects may be used from any thread.
unsafe impl Send for Bind {}
// SAFETY: as above.
unsafe impl Sync for Bind {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_count_up_in_their_last_byte_alone() {
        assert_eq!(next_key(0x1234_5600), 0x1234_5601);
        assert_eq!(next_key(0x1234_56ff), 0x1234_5600);
    }

    #[test]
    fn rights_are_one_direction() {
        assert_eq!(Rights::Read.flags(), 4);
        assert_eq!(Rights::Write.flags(), 2);
        assert!(!Rights::Read.uses().remote_write && !Rights::Write.uses().remote_read);
    }
}
