//! Memory: blocks of our own that are used again, and memory of Python's that is read into or sent from.
//!
//! Fresh pages cost ten times what the copy into them does, so blocks that Python lets go are kept for the next read, up to
//! [`set_idle_bytes_max`]. How many are out is the caller's business, as with `bytes`.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::runtime::Call;

/// Alignment of every block, and the smallest.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Blocks from this size on are mappings of their own: their pages are taken when they are used, and given back for good.
const MAPPED_BYTES_MIN: usize = 1 << 20;
/// Blocks from this size on are asked for in huge pages.
const HUGE_BYTES_MIN: usize = 4 << 20;
/// Bytes of idle blocks that are kept, unless a client asks for more.
const IDLE_BYTES_MAX: usize = 256 << 20;

static IDLE_MAX: AtomicUsize = AtomicUsize::new(IDLE_BYTES_MAX);
static IDLE: Mutex<Option<Idle>> = Mutex::new(None);

#[derive(Default)]
struct Idle {
    blocks: HashMap<usize, Vec<Block>>,
    bytes: usize,
}

enum Block {
    Heap { pointer: NonNull<u8>, layout: Layout },
    Mapped(MmapMut),
}

// SAFETY: a heap block is owned memory, as a `Box<[u8]>` is; nothing in it is bound to a thread.
unsafe impl Send for Block {}

impl Block {
    fn new(class_bytes: usize) -> Option<Self> {
        if class_bytes >= MAPPED_BYTES_MIN {
            let map = MmapOptions::new().len(class_bytes).map_anon().ok()?;
            if class_bytes >= HUGE_BYTES_MIN {
                // A hint: a kernel without huge pages does without.
                let _ignored = map.advise(Advice::HugePage);
            }
            return Some(Self::Mapped(map));
        }
        let layout = Layout::from_size_align(class_bytes, PAGE_BYTES).ok()?;
        // SAFETY: the layout is not of zero size: a class has at least a page.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self::Heap { pointer, layout })
    }

    fn pointer(&self) -> *mut u8 {
        match self {
            Self::Heap { pointer, .. } => pointer.as_ptr(),
            Self::Mapped(map) => map.as_ptr().cast_mut(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Heap { layout, .. } => layout.size(),
            Self::Mapped(map) => map.len(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Self::Heap { pointer, layout } = self {
            // SAFETY: it was allocated by `new` with this layout, and is owned by this value alone.
            unsafe { dealloc(pointer.as_ptr(), *layout) };
        }
    }
}

/// Sizes are rounded up to four steps between powers of two, so that blocks fit again and waste is a quarter at most.
fn class_of(bytes: usize) -> Option<usize> {
    let step = (bytes.max(1).checked_next_power_of_two()? / 8).max(PAGE_BYTES);
    bytes.max(1).checked_next_multiple_of(step)
}

/// Memory of a pool block. Its contents begin as whatever its last owner left; it is initialised.
pub(crate) struct Region {
    block: Option<Block>,
    bytes: usize,
}

// SAFETY: a region is owned memory. Through `&Region` only its address can be had; who reads and writes there is Python, under
// the rules of the buffer protocol, or the one operation that has it as `&mut`.
unsafe impl Sync for Region {}

impl Region {
    /// `None` when there is no memory.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let class_bytes = class_of(bytes)?;
        let kept = {
            let mut idle = IDLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let idle = idle.get_or_insert_default();
            let kept = idle.blocks.get_mut(&class_bytes).and_then(Vec::pop);
            idle.bytes -= kept.as_ref().map_or(0, Block::bytes);
            kept
        };
        let block = match kept {
            Some(block) => block,
            None => Block::new(class_bytes)?,
        };
        Some(Self { block: Some(block), bytes })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Where it is; never null.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.block.as_ref().expect("a region has its block until it is dropped").pointer()
    }
}

impl AsMut<[u8]> for Region {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block has at least `bytes` initialised bytes, and `&mut self` is the only way to them now.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.bytes) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        let bytes = block.bytes();
        let mut idle = IDLE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let idle = idle.get_or_insert_default();
        if idle.bytes + bytes <= IDLE_MAX.load(Ordering::Relaxed) {
            idle.bytes += bytes;
            idle.blocks.entry(bytes).or_default().push(block);
        }
    }
}

/// Keeps at least so many bytes of idle blocks from now on.
pub(crate) fn set_idle_bytes_max(bytes: usize) {
    IDLE_MAX.fetch_max(bytes, Ordering::Relaxed);
}

/// All memory of an operation. It may be dropped on any thread: once the interpreter is ending it is left where it is.
pub(crate) struct Held(pub(crate) Vec<Foreign>);

impl Drop for Held {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        if memory.is_empty() {
            return;
        }
        let call = Call::begin();
        let memory = ManuallyDrop::new(memory);
        if call.is_some() {
            drop(ManuallyDrop::into_inner(memory));
        }
    }
}

/// Memory that Python has handed to an operation, kept alive until this is dropped: drop it with no gate held.
pub(crate) struct Foreign {
    address: usize,
    bytes: usize,
    _view: Option<PyBuffer<u8>>,
    _owner: Option<Py<PyAny>>,
}

impl Foreign {
    /// Memory to be written: a writable contiguous buffer of bytes, or `(address, length[, owner])`.
    pub(crate) fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of(object, true)
    }

    /// Memory to be read.
    pub(crate) fn readable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of(object, false)
    }

    fn of(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<Self> {
        if let Ok(tuple) = object.cast::<PyTuple>() {
            let (address, bytes): (usize, usize) = (tuple.get_item(0)?.extract()?, tuple.get_item(1)?.extract()?);
            if address == 0 && bytes > 0 {
                return Err(PyValueError::new_err("the address is null: pass the tensor's data_ptr()"));
            }
            if bytes > isize::MAX as usize || address.checked_add(bytes).is_none() {
                return Err(PyValueError::new_err("the length goes past the end of memory"));
            }
            let owner = if tuple.len() > 2 { Some(tuple.get_item(2)?.unbind()) } else { None };
            return Ok(Self { address, bytes, _view: None, _owner: owner });
        }
        let view =
            PyBuffer::<u8>::get(object).map_err(|error| match error.is_instance_of::<PyBufferError>(object.py()) {
                true => PyValueError::new_err(format!("{error}: pass contiguous memory")),
                false => PyTypeError::new_err(format!(
                    "{error}; pass bytes, bytearray, memoryview, a numpy array, a tensor or (address, length)"
                )),
            })?;
        if writable && view.readonly() {
            return Err(PyValueError::new_err(
                "the destination is read-only: pass a bytearray, a writable array or a tensor",
            ));
        }
        if !view.is_c_contiguous() {
            return Err(PyValueError::new_err(
                "the memory is not contiguous: pass contiguous memory, such as x.contiguous()",
            ));
        }
        let (address, bytes) = (view.buf_ptr() as usize, view.len_bytes());
        Ok(Self { address, bytes, _view: Some(view), _owner: None })
    }

    fn pointer(&self) -> *mut u8 {
        if self.bytes == 0 { NonNull::dangling().as_ptr() } else { self.address as *mut u8 }
    }

    /// The memory, for as long as the caller keeps `self`.
    ///
    /// # Safety
    /// `self` outlives the slice, and no other slice of the same memory is alive. That a raw address is good is what whoever
    /// passed it vouches for.
    pub(crate) unsafe fn slice_mut(&self) -> &'static mut [u8] {
        // SAFETY: the view is exported, or the address vouched for, until `self` is dropped; the caller keeps it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.bytes) }
    }

    /// As [`Self::slice_mut`], to be read.
    ///
    /// # Safety
    /// `self` outlives the slice.
    pub(crate) unsafe fn slice(&self) -> &'static [u8] {
        // SAFETY: as in `slice_mut`.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.bytes) }
    }
}
