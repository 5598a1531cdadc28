//! One slab of aligned buffers that every payload byte lives in, from the socket to the device and back.
//!
//! **What.** [`BufPool`] maps one arena at start and hands out [`BufMut`]s: owned, 4 KiB aligned, returned when dropped.
//! A `BufMut` can be cut into consecutive pieces and put together again without a copy, so that k shards land in their
//! places of one stripe buffer; [`BufMut::freeze`] makes it a [`Buf`], which is cheap to clone, slice and hand to hyper
//! as [`bytes::Bytes`].
//!
//! [`BufPool::region`] is one buffer of any length with an arena of its own, for a whole object in one piece;
//! [`BufMut::claimed`] tells when all pieces of a buffer are gone, those that a device still has included, and gives it back.
//!
//! **Why.** One arena can be registered once with a network card and with `io_uring` alike, is aligned for `O_DIRECT`,
//! bounds the memory of a process by construction, and its pages are touched only when used: resident memory follows
//! the most that was in use at a time, because low addresses are handed out first.
//!
//! **How it fails.** [`BufPool::try_acquire`] answers `None`; [`BufPool::acquire`] waits its turn (first come, first
//! served, at most [`WAITERS_MAX`] waiters, at most as long as the caller says) and then answers
//! [`BufError::Exhausted`] with the numbers. Contents of a fresh buffer are whatever the last owner left: initialised
//! memory, but not zeros. Callers that read must first have written.
//!
//! Unsafe code lives in `arena.rs` (the mapping) and `piece.rs` (a range of it as a slice); `buddy.rs` and `pool.rs`
//! decide who has which range, in safe code.

mod arena;
mod buddy;
mod piece;
mod pool;

#[cfg(test)]
mod tests;

pub use piece::{Buf, BufMut, Claim};
pub use pool::{BufError, BufPool, PoolOptions, PoolStats, WAITERS_MAX, WeakPool};

/// Smallest unit that is handed out, and the alignment of every buffer.
pub const PAGE_BYTES: usize = 4096;
/// Largest buffer.
pub const BUFFER_BYTES_MAX: usize = PAGE_BYTES << buddy::ORDER_MAX;
