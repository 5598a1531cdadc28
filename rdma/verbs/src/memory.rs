//! Memory that a device may reach: what qualifies, and its registration.
//!
//! Soundness: a type is [`Readable`] or [`Writable`] only if its bytes stay where they are until it is dropped. Whoever
//! hands such a value to this crate hands over the right to its bytes; it comes back when no device can touch them.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use penstock_buf::{Buf, BufMut, BufPool};

use crate::abi::{self, access};
use crate::device::Device;
use crate::error::{Verb, VerbsError};

/// Bytes that a device may read.
///
/// # Safety
/// `range` is a range of initialised memory that stays valid, at the same address, and is not written to by anybody but
/// through the value's own `&mut` methods, until the value is dropped; moving the value does not move it.
pub unsafe trait Readable: Send + Sync + 'static {
    /// Where its bytes are. (For a dma-buf: the addresses by which the device knows them.)
    fn range(&self) -> (*const u8, usize);

    /// The pool that they are of.
    fn pool(&self) -> Option<&BufPool> {
        None
    }

    /// The dma-buf that they are of.
    fn dmabuf(&self) -> Option<Dmabuf> {
        None
    }
}

/// Bytes that a device may write.
///
/// # Safety
/// As of [`Readable`]; and while the value is not borrowed, nobody else reads or writes the bytes.
pub unsafe trait Writable: Readable {}

// SAFETY: a piece of the pool's arena, which does not move, owned alone.
unsafe impl Readable for BufMut {
    fn range(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }

    fn pool(&self) -> Option<&BufPool> {
        Some(BufMut::pool(self))
    }
}
// SAFETY: a BufMut owns its bytes alone.
unsafe impl Writable for BufMut {}

// SAFETY: read-only memory, kept by the value; neither an arena nor what `Bytes` points to moves with the handle.
unsafe impl Readable for Buf {
    fn range(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }

    fn pool(&self) -> Option<&BufPool> {
        Buf::pool(self)
    }
}

// SAFETY: `Bytes` points to memory that is not written to and does not move with the handle.
unsafe impl Readable for Bytes {
    fn range(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}

// SAFETY: the heap block of a Vec stays where it is when the Vec is moved.
unsafe impl Readable for Vec<u8> {
    fn range(&self) -> (*const u8, usize) {
        (self.as_ptr(), self.len())
    }
}
// SAFETY: a Vec owns its bytes alone.
unsafe impl Writable for Vec<u8> {}

/// Device memory, exported by its driver as a file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmabuf {
    /// The descriptor.
    pub fd: RawFd,
    /// Where in it the bytes begin.
    pub offset: u64,
}

/// Memory of somebody else's: a Python buffer, a mapping, a GPU's.
pub struct Foreign {
    start: NonNull<u8>,
    len: usize,
    dmabuf: Option<Dmabuf>,
    _owner: Box<dyn Any + Send + Sync>,
}

impl Foreign {
    /// `len` bytes from `start`, which `owner` keeps.
    ///
    /// # Safety
    /// Until `owner` is dropped, the bytes are initialised, stay valid and where they are, and are neither read nor
    /// written by anybody while this value is with the crate (only written by nobody, if it is only ever read from).
    pub unsafe fn new(start: NonNull<u8>, len: usize, owner: Box<dyn Any + Send + Sync>) -> Self {
        Self { start, len, dmabuf: None, _owner: owner }
    }

    /// `len` bytes of a dma-buf that the device shall know by the addresses from `address` on.
    ///
    /// # Safety
    /// As of [`Foreign::new`], for the bytes of the dma-buf; the descriptor stays open until `owner` is dropped.
    pub unsafe fn dmabuf(dmabuf: Dmabuf, address: NonNull<u8>, len: usize, owner: Box<dyn Any + Send + Sync>) -> Self {
        Self { start: address, len, dmabuf: Some(dmabuf), _owner: owner }
    }
}

// SAFETY: what `Foreign::new` asks for is what is needed to use it from any thread.
unsafe impl Send for Foreign {}
// SAFETY: as above.
unsafe impl Sync for Foreign {}
// SAFETY: the contract of `Foreign::new`.
unsafe impl Readable for Foreign {
    fn range(&self) -> (*const u8, usize) {
        (self.start.as_ptr(), self.len)
    }

    fn dmabuf(&self) -> Option<Dmabuf> {
        self.dmabuf
    }
}
// SAFETY: the contract of `Foreign::new`.
unsafe impl Writable for Foreign {}

/// No memory: an operation that carries none.
// SAFETY: no bytes.
unsafe impl Readable for () {
    fn range(&self) -> (*const u8, usize) {
        (NonNull::dangling().as_ptr(), 0)
    }
}
// SAFETY: no bytes.
unsafe impl Writable for () {}

/// What may be done to a registration, local reading apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Uses {
    pub(crate) local_write: bool,
    pub(crate) bind: bool,
    pub(crate) remote_read: bool,
    pub(crate) remote_write: bool,
}

impl Uses {
    fn flags(self) -> i32 {
        let flag = |wanted, flag| if wanted { flag } else { 0 };
        flag(self.local_write || self.remote_write, access::LOCAL_WRITE)
            | flag(self.bind, access::MW_BIND)
            | flag(self.remote_read, access::REMOTE_READ)
            | flag(self.remote_write, access::REMOTE_WRITE)
    }
}

/// A protection domain.
pub(crate) struct Pd {
    pub(crate) device: Device,
    pub(crate) raw: NonNull<abi::Pd>,
}

// SAFETY: libibverbs' objects may be used from any thread, at the same time.
unsafe impl Send for Pd {}
// SAFETY: as above.
unsafe impl Sync for Pd {}

impl Pd {
    pub(crate) fn new(device: Device) -> Result<Self, VerbsError> {
        // SAFETY: an open context.
        let raw = unsafe { (device.api().ibv_alloc_pd)(device.context()) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { device, raw }),
            None => Err(VerbsError::last(Verb::AllocPd)),
        }
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: ours, and whatever was made of it keeps this Pd, so nothing is left.
        let errno = unsafe { (self.device.api().ibv_dealloc_pd)(self.raw.as_ptr()) };
        if errno != 0 {
            tracing::error!(errno, "a protection domain could not be given back");
        }
    }
}

/// A registration. The device can't reach the memory by it once it is dropped.
pub(crate) struct Registration {
    pd: Arc<Pd>,
    raw: NonNull<abi::Mr>,
}

// SAFETY: as of Pd.
unsafe impl Send for Registration {}
// SAFETY: as of Pd.
unsafe impl Sync for Registration {}

impl Registration {
    /// Registers `len` bytes from `start`.
    ///
    /// # Safety
    /// The bytes are valid, and stay so until the registration is dropped or the device is told of no address in them
    /// any more; whoever uses the key keeps to `uses` of memory that they own.
    pub(crate) unsafe fn new(
        pd: &Arc<Pd>,
        (start, len): (*const u8, usize),
        dmabuf: Option<Dmabuf>,
        uses: Uses,
    ) -> Result<Self, VerbsError> {
        let api = pd.device.api();
        if len as u64 > pd.device.attributes().mr_bytes_max {
            return Err(VerbsError::bounds(format!(
                "{len} bytes in one registration; {} takes {}",
                pd.device.name(),
                pd.device.attributes().mr_bytes_max
            )));
        }
        let (raw, verb) = match (dmabuf, api.ibv_reg_dmabuf_mr) {
            (None, _) => {
                // SAFETY: a range that the caller vouches for.
                let raw = unsafe { (api.ibv_reg_mr)(pd.raw.as_ptr(), start.cast_mut().cast(), len, uses.flags()) };
                (raw, Verb::RegMr)
            }
            (Some(_), None) => {
                return Err(VerbsError::Unsupported {
                    what: "dma-buf: this libibverbs has no ibv_reg_dmabuf_mr; install rdma-core 34 or later".to_owned(),
                });
            }
            (Some(dmabuf), Some(register)) => {
                // SAFETY: as above, for the bytes of the dma-buf.
                let raw =
                    unsafe { register(pd.raw.as_ptr(), dmabuf.offset, len, start as u64, dmabuf.fd, uses.flags()) };
                (raw, Verb::RegDmabufMr)
            }
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { pd: Arc::clone(pd), raw }),
            None => match VerbsError::last(verb) {
                VerbsError::Call { verb: Verb::RegDmabufMr, errno: libc::EOPNOTSUPP | libc::ENOSYS } => {
                    let name = pd.device.name();
                    Err(VerbsError::Unsupported { what: format!("dma-buf on {name}: copy through host memory") })
                }
                error => Err(error),
            },
        }
    }

    pub(crate) fn local_key(&self) -> u32 {
        // SAFETY: a live registration.
        unsafe { self.raw.as_ref().lkey }
    }

    pub(crate) fn remote_key(&self) -> u32 {
        // SAFETY: a live registration.
        unsafe { self.raw.as_ref().rkey }
    }

    pub(crate) fn raw(&self) -> *mut abi::Mr {
        self.raw.as_ptr()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: ours, given back once; windows over it are gone (a Lease drops its window before its memory).
        let errno = unsafe { (self.pd.device.api().ibv_dereg_mr)(self.raw.as_ptr()) };
        if errno != 0 {
            give_up("ibv_dereg_mr", errno);
        }
    }
}

/// The device keeps a right to memory that is about to be used for something else. Going on could corrupt data.
pub(crate) fn give_up(verb: &str, errno: i32) -> ! {
    tracing::error!(verb, errno, "the device does not give memory back: stopping before it is overwritten");
    std::process::abort();
}

/// Memory together with the registration by which our own work requests name it.
pub struct Local<M> {
    // Dropped in this order: first the device loses the memory, then it goes back to its owner.
    registration: Option<Arc<Registration>>,
    memory: M,
}

impl<M: Readable> Local<M> {
    pub(crate) fn new(registration: Arc<Registration>, memory: M) -> Self {
        Self { registration: Some(registration), memory }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.memory.range().1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory alone. A registration of its own ends.
    pub fn into_inner(self) -> M {
        let Self { registration, memory } = self;
        drop(registration);
        memory
    }

    /// The memory, to write to.
    pub fn get_mut(&mut self) -> &mut M
    where
        M: Writable,
    {
        &mut self.memory
    }

    pub(crate) fn registration(&self) -> Option<&Arc<Registration>> {
        self.registration.as_ref()
    }

    /// Address and length of `range` of it.
    pub(crate) fn piece(&self, range: &Range<usize>) -> Result<(u64, usize), VerbsError> {
        let (start, len) = self.memory.range();
        if range.start > range.end || range.end > len {
            return Err(VerbsError::bounds(format!("{range:?} of a buffer of {len} bytes")));
        }
        Ok((start as u64 + range.start as u64, range.end - range.start))
    }
}

impl Local<()> {
    /// No memory.
    pub(crate) fn nothing() -> Self {
        Self { registration: None, memory: () }
    }
}

impl<M> Deref for Local<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.memory
    }
}

impl<M: Readable> fmt::Debug for Local<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_become_the_librarys_flags() {
        let flags = |local_write, bind, remote_read, remote_write| {
            Uses { local_write, bind, remote_read, remote_write }.flags()
        };
        assert_eq!(flags(false, false, false, false), 0);
        assert_eq!(flags(true, true, false, false), 1 | 1 << 4);
        assert_eq!(flags(false, false, true, false), 1 << 2);
        // The device refuses remote writing without local writing.
        assert_eq!(flags(false, false, false, true), 1 | 1 << 1);
    }

    #[test]
    fn ranges_outside_of_a_buffer_are_refused() {
        let local = Local { registration: None, memory: vec![0u8; 10] };
        assert_eq!(local.piece(&(2..10)).map(|(_, len)| len), Ok(8));
        assert_eq!(local.piece(&(10..10)).map(|(_, len)| len), Ok(0));
        #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
        for wrong in [0..11, 11..11, 5..4] {
            assert!(matches!(local.piece(&wrong), Err(VerbsError::Bounds { .. })), "{wrong:?}");
        }
        assert_eq!(Local::nothing().len(), 0);
    }
}
