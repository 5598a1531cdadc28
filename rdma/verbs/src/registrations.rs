//! Pools are registered piece by piece, when a buffer of theirs is first used: a registration pins its pages, so a pool
//! of which little is used costs little. A region (one buffer with an arena of its own) is registered as a whole.

use std::sync::Arc;

use parking_lot::Mutex;
use penstock_buf::{BUFFER_BYTES_MAX, BufPool, WeakPool};

use crate::error::VerbsError;
use crate::memory::{Pd, Readable, Registration, Uses};

/// Pools whose registrations are kept; past it, the dead ones are looked for.
const POOLS_MAX: usize = 256;

struct Pool {
    pool: WeakPool,
    pieces: Vec<Option<Arc<Registration>>>,
}

/// What is registered of which pool.
#[derive(Default)]
pub(crate) struct Registrations(Mutex<Vec<Pool>>);

impl Registrations {
    /// The registration for `memory`: its pool's, or one of its own.
    pub(crate) fn of<M: Readable>(
        &self,
        pd: &Arc<Pd>,
        memory: &M,
        writable: bool,
    ) -> Result<Arc<Registration>, VerbsError> {
        let (start, len) = memory.range();
        if let Some(pool) = memory.pool()
            && let Some(piece) = piece_of(pool.arena(), piece_bytes(pool), (start, len))
        {
            return self.of_pool(pd, pool, piece);
        }
        let uses = Uses { local_write: writable, ..Uses::default() };
        // SAFETY: the range of memory whose owner keeps the registration beside it, and drops the registration first.
        unsafe { Registration::new(pd, (start, len), memory.dmabuf(), uses) }.map(Arc::new)
    }

    fn of_pool(&self, pd: &Arc<Pd>, pool: &BufPool, piece: usize) -> Result<Arc<Registration>, VerbsError> {
        let mut pools = self.0.lock();
        let at = match pools.iter().position(|known| known.pool.is(pool)) {
            Some(at) => at,
            None => {
                // Registrations of pools that are gone pin pages for nothing.
                pools.retain(|known| known.pool.is_alive());
                if pools.len() >= POOLS_MAX {
                    return Err(VerbsError::Full { what: "the table of registered pools", max: POOLS_MAX });
                }
                let pieces = pool.arena().1.div_ceil(piece_bytes(pool));
                pools.push(Pool { pool: pool.downgrade(), pieces: (0..pieces).map(|_| None).collect() });
                pools.len() - 1
            }
        };
        let slot = &mut pools[at].pieces[piece];
        if let Some(registration) = slot {
            return Ok(Arc::clone(registration));
        }
        let (base, len) = pool.arena();
        let from = piece * piece_bytes(pool);
        let range = (base.wrapping_add(from), (len - from).min(piece_bytes(pool)));
        let uses = Uses { local_write: true, bind: pd.device.attributes().has_window_2, ..Uses::default() };
        // SAFETY: a part of the arena, mapped as long as any buffer of it is; only ranges of buffers that an operation
        // owns are named to the device. Registered pages stay pinned even when the arena is unmapped first.
        let registration = Arc::new(unsafe { Registration::new(pd, range, None, uses) }?);
        *slot = Some(Arc::clone(&registration));
        Ok(registration)
    }
}

/// Bytes of the pieces that a pool is registered in.
fn piece_bytes(pool: &BufPool) -> usize {
    if pool.is_region() { pool.arena().1 } else { BUFFER_BYTES_MAX }
}

/// Which piece of the arena a buffer lies in; `None` when not in one alone.
fn piece_of(
    (base, arena_bytes): (*const u8, usize),
    piece_bytes: usize,
    (start, len): (*const u8, usize),
) -> Option<usize> {
    let from = (start as usize).checked_sub(base as usize)?;
    let to = from.checked_add(len)?;
    if to > arena_bytes {
        return None;
    }
    // An empty range at the very end belongs to the piece before it.
    let piece = from.min(arena_bytes - 1) / piece_bytes;
    (to <= (piece + 1) * piece_bytes).then_some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_lies_in_one_piece_or_gets_its_own() {
        let base = 0x10_0000 as *const u8;
        let arena = (base, 3 * BUFFER_BYTES_MAX - 4096);
        let at = |from: usize, len| piece_of(arena, BUFFER_BYTES_MAX, (base.wrapping_add(from), len));
        assert_eq!(at(0, 4096), Some(0));
        assert_eq!(at(BUFFER_BYTES_MAX, BUFFER_BYTES_MAX), Some(1));
        assert_eq!(at(BUFFER_BYTES_MAX - 1, 2), None);
        assert_eq!(at(arena.1, 0), Some(2));
        assert_eq!(at(arena.1 - 1, 1), Some(2));
        assert_eq!(at(arena.1 - 1, 2), None);
        assert_eq!(piece_of(arena, BUFFER_BYTES_MAX, (0xf_ffff as *const u8, 1)), None);
        // Of a region, all is one piece.
        let in_region = |from: usize, len| piece_of(arena, arena.1, (base.wrapping_add(from), len));
        assert_eq!((in_region(BUFFER_BYTES_MAX - 1, 2), in_region(0, arena.1)), (Some(0), Some(0)));
    }
}
