//! The native half of the Python package `penstock`.
//!
//! **What.** `Engine` is a client of control/client as Python calls it: every operation may be waited for (the GIL is let go
//! meanwhile) or be given a function to call when it is done. `Buffer` is memory from a pool, 4 KiB-aligned, writable, with the
//! buffer protocol and DLPack. The classes that people use are Python's, in `python/penstock`.
//!
//! **Why so.** One thread that waits also drives its own I/O (`runtime.rs`): a DataLoader's worker pays for no handing over
//! between threads, and a process that is not in the middle of a call has no thread of ours that `fork` could lose.
//!
//! **How it fails.** By the exceptions of `penstock.errors`, each saying what to do. Destinations that are read-only or of another
//! length are refused before anything is asked of the server.
//!
//! Unsafe code lives in `memory.rs` (blocks, and memory that Python owns), `engine.rs` (which takes slices of that for as long as an
//! operation has it), `buffer.rs` (buffer protocol) and `dlpack.rs`.

mod buffer;
mod dlpack;
mod engine;
mod errors;
mod memory;
mod operations;
mod runtime;
mod spec;
mod upload;

use pyo3::prelude::*;

/// What `penstock` imports.
#[pymodule]
mod _penstock {
    #[pymodule_export]
    use crate::buffer::Buffer;
    #[pymodule_export]
    use crate::engine::{Engine, Task};
    #[pymodule_export]
    use crate::runtime::{after_fork_in_child, after_fork_in_parent, before_exit, before_fork};
    #[pymodule_export]
    use crate::upload::Upload;
}
