//! The mapping itself: anonymous memory, mapped once, unmapped when the last buffer and the pool are gone.

use std::io;
use std::ptr::NonNull;

/// The arena's base is aligned to this: one huge page.
const ARENA_ALIGN_BYTES: usize = 2 << 20;

/// A range of anonymous, private, zero-filled memory.
pub(crate) struct Arena {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    base: NonNull<u8>,
    len: usize,
}

impl Arena {
    /// Maps `len` bytes. No page is touched.
    ///
    /// # Errors
    /// What `mmap` says. `madvise` is advice: its failure is not an error.
    pub(crate) fn map(len: usize, huge_pages: bool) -> io::Result<Self> {
        let mapped_bytes =
            len.checked_add(ARENA_ALIGN_BYTES).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = NonNull::new(address.cast::<u8>()).expect("invariant: mmap without a hint never maps page 0");
        let shift = mapped.as_ptr().addr().next_multiple_of(ARENA_ALIGN_BYTES) - mapped.as_ptr().addr();
        // SAFETY: shift < ARENA_ALIGN_BYTES, and the mapping is `len + ARENA_ALIGN_BYTES` long.
        let base = unsafe { mapped.add(shift) };
        let advice = if huge_pages { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: [base, base + len) lies within the mapping just made; the advice changes no contents.
        let _ignored = unsafe { libc::madvise(base.as_ptr().cast(), len, advice) };
        // SAFETY: as above. A child process has no use for payload, and copy-on-write would break registered memory.
        let _ignored = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTFORK) };
        Ok(Self { mapped, mapped_bytes, base, len })
    }

    /// Address of byte `offset`.
    ///
    /// # Panics
    /// When `offset..offset + len` is not within the arena: an error in the allocator.
    pub(crate) fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "invariant: the range is in the arena");
        // SAFETY: offset <= self.len, and the mapping covers [base, base + self.len).
        unsafe { self.base.add(offset) }
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the range is exactly what `mmap` returned; every buffer holds the pool that holds this arena, so none
        // is left.
        unsafe { libc::munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
    }
}

// SAFETY: the arena is plain memory that any thread may touch; who may touch which range is the allocator's business.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives addresses, not references.
unsafe impl Sync for Arena {}
