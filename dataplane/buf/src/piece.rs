//! A range of the arena as an owned, exclusive buffer ([`BufMut`]) or a shared, read-only one ([`Buf`]).
//!
//! Soundness: the allocator gives each page to one block at a time; `BufPool` makes one `BufMut` over each block;
//! `BufMut` is only ever cut into disjoint pieces, which keep the block alive together. So at any time a byte of the
//! arena belongs to one `BufMut`, or to `Buf`s that only read; or, between those and the next, to a [`Claim`], which becomes a
//! `BufMut` when no piece is left. `Buf::try_into_mut` goes back from the second to the first when the last piece of a block
//! is alone.

use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

use crate::pool::{Block, BufPool};

/// An exclusive buffer, or one piece of one. Goes back to the pool when the last piece of its block is dropped.
pub struct BufMut {
    block: Arc<Block>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a BufMut owns its bytes alone, as a Box<[u8]> does.
unsafe impl Send for BufMut {}
// SAFETY: `&BufMut` only reads.
unsafe impl Sync for BufMut {}

impl BufMut {
    /// The first `len` bytes of a block that the allocator has just given out.
    pub(crate) fn whole(block: Block, len: usize) -> Self {
        let start = block.address(len);
        Self { block: Arc::new(block), start, len }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pool that it goes back to.
    pub fn pool(&self) -> &BufPool {
        self.block.pool()
    }

    /// Forgets what is past `len`; no effect when it is not that long. The memory stays with the block.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Cuts: `self` keeps `..at`, the answer has `at..`. No copy; both keep the block.
    ///
    /// # Panics
    /// When `at` is past the end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.len, "split_off({at}) of a buffer of {} bytes", self.len);
        // SAFETY: at <= len, so the address is within the piece or one past its end.
        let start = unsafe { self.start.add(at) };
        let tail = Self { block: Arc::clone(&self.block), start, len: self.len - at };
        self.len = at;
        tail
    }

    /// The inverse of [`BufMut::split_off`]: `other` must be the piece of the same block that starts where `self` ends.
    ///
    /// # Errors
    /// Both, unchanged, when they are not such neighbours.
    pub fn rejoin(mut self, other: Self) -> Result<Self, (Self, Self)> {
        // wrapping: an address to compare, not to read.
        let end = self.start.as_ptr().wrapping_add(self.len);
        if Arc::ptr_eq(&self.block, &other.block) && end == other.start.as_ptr() {
            self.len += other.len;
            Ok(self)
        } else {
            Err((self, other))
        }
    }

    /// The same bytes, with a claim on them: whatever becomes of the answer (cut up, frozen, lent to a device, given
    /// up by a call), the claim can tell when nothing of it is left, and has the bytes back then.
    pub fn claimed(self) -> (Self, Claim) {
        let Self { block, start, len } = self;
        let part = Arc::new(block.part());
        (Self { block: Arc::clone(&part), start, len }, Claim { part, block, start, len })
    }

    /// Gives up the right to write, for the right to share.
    pub fn freeze(self) -> Buf {
        Buf(Owner::Pool(Shared { _block: self.block, start: self.start, len: self.len }))
    }
}

impl Deref for BufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: [start, start + len) is within the block, which `self` keeps; it is initialised (anonymous memory
        // starts as zeros), and nobody writes to it while `self` is borrowed, for `self` owns it alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for BufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference to bytes that `self` alone owns.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for BufMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
impl AsMut<[u8]> for BufMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}
impl fmt::Debug for BufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufMut({} bytes)", self.len)
    }
}

/// A claim on a buffer that somebody else has: see [`BufMut::claimed`].
pub struct Claim {
    /// What the buffer's pieces keep.
    part: Arc<Block>,
    /// What the buffer was of.
    block: Arc<Block>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a Claim touches no bytes until it has become the BufMut that alone owns them.
unsafe impl Send for Claim {}
// SAFETY: as above.
unsafe impl Sync for Claim {}

impl Claim {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `piece` is the claimed bytes from `offset` on, and not a copy of them.
    pub fn has_in_place(&self, offset: usize, piece: &[u8]) -> bool {
        // wrapping: an address to compare, not to read.
        offset.checked_add(piece.len()).is_some_and(|end| end <= self.len)
            && std::ptr::eq(self.start.as_ptr().wrapping_add(offset), piece.as_ptr())
    }

    /// The buffer, of the block that it was of, so that it can be rejoined with its neighbours.
    ///
    /// # Errors
    /// The claim, unchanged, when there is a piece of it somewhere.
    pub fn try_take(mut self) -> Result<BufMut, Self> {
        // Exclusive, and ordered after whatever was done through the pieces that were dropped. Sound: every BufMut and
        // Buf over these bytes holds `part`; there is none, and only a piece could make another.
        if Arc::get_mut(&mut self.part).is_none() {
            return Err(self);
        }
        Ok(BufMut { block: self.block, start: self.start, len: self.len })
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} bytes)", self.len)
    }
}

/// A shared, read-only range of a pool buffer or of foreign memory. Cheap to clone and slice.
#[derive(Clone)]
pub struct Buf(Owner);

#[derive(Clone)]
enum Owner {
    Pool(Shared),
    Foreign(Bytes),
}

/// A range of a block that nobody writes to any more.
#[derive(Clone)]
struct Shared {
    _block: Arc<Block>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a Shared reads bytes that nobody writes to, and keeps them alive.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range is within the block, which `self` keeps; it came from a BufMut that owned it alone and was
        // given up in `freeze`, so nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Buf {
    /// No bytes.
    pub const fn new() -> Self {
        Self(Owner::Foreign(Bytes::new()))
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Owner::Pool(shared) => shared.len,
            Owner::Foreign(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of it, sharing the memory.
    ///
    /// # Panics
    /// When the range ends past the end or before it starts.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let from = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&at) => at + 1,
            Bound::Excluded(&at) => at,
            Bound::Unbounded => self.len(),
        };
        assert!(from <= to && to <= self.len(), "slice {from}..{to} of a buffer of {} bytes", self.len());
        match &self.0 {
            Owner::Pool(shared) => {
                // SAFETY: from <= len, so the address is within the range or one past its end.
                let start = unsafe { shared.start.add(from) };
                Self(Owner::Pool(Shared { _block: Arc::clone(&shared._block), start, len: to - from }))
            }
            Owner::Foreign(bytes) => Self(Owner::Foreign(bytes.slice(from..to))),
        }
    }

    /// `self` and `other` in one, when they are pool memory and `other` begins where `self` ends: no copy.
    ///
    /// # Errors
    /// Both, unchanged, when they are not such neighbours.
    pub fn rejoin(self, other: Self) -> Result<Self, (Self, Self)> {
        match (self.0, other.0) {
            (Owner::Pool(mut first), Owner::Pool(second))
                if Arc::ptr_eq(&first._block, &second._block)
                    // wrapping: an address to compare, not to read.
                    && first.start.as_ptr().wrapping_add(first.len) == second.start.as_ptr() =>
            {
                first.len += second.len;
                Ok(Self(Owner::Pool(first)))
            }
            (first, second) => Err((Self(first), Self(second))),
        }
    }

    /// The right to write again, when this is pool memory of whose block nobody else holds any part.
    ///
    /// # Errors
    /// Itself, unchanged, when others hold some of it, or it is foreign memory.
    pub fn try_into_mut(self) -> Result<BufMut, Self> {
        let Owner::Pool(mut shared) = self.0 else { return Err(self) };
        match Arc::get_mut(&mut shared._block) {
            Some(_alone) => Ok(BufMut { block: shared._block, start: shared.start, len: shared.len }),
            None => Err(Self(Owner::Pool(shared))),
        }
    }

    /// The pool that it goes back to; `None` for foreign memory.
    pub fn pool(&self) -> Option<&BufPool> {
        match &self.0 {
            Owner::Pool(shared) => Some(shared._block.pool()),
            Owner::Foreign(_) => None,
        }
    }

    /// The same memory as `Bytes`: no copy; the block goes back to the pool when the last clone is dropped.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Owner::Pool(shared) => Bytes::from_owner(shared),
            Owner::Foreign(bytes) => bytes,
        }
    }
}

impl Default for Buf {
    fn default() -> Self {
        Self::new()
    }
}
impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Owner::Pool(shared) => shared.as_ref(),
            Owner::Foreign(bytes) => bytes,
        }
    }
}
impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}
impl From<BufMut> for Buf {
    fn from(buffer: BufMut) -> Self {
        buffer.freeze()
    }
}
impl From<Bytes> for Buf {
    fn from(bytes: Bytes) -> Self {
        Self(Owner::Foreign(bytes))
    }
}
impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Owner::Foreign(bytes.into()))
    }
}
impl From<&'static [u8]> for Buf {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Owner::Foreign(Bytes::from_static(bytes)))
    }
}
impl From<Buf> for Bytes {
    fn from(buffer: Buf) -> Self {
        buffer.into_bytes()
    }
}
impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}
