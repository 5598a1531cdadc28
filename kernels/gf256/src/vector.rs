//! The loops that every SIMD tier shares, generic over one vector.
//!
//! A tier implements [`Vector`] and calls these functions from a function that enables its instructions. Everything
//! here is `inline(always)`, so that it is compiled with the caller's instructions; for the same reason there are no
//! closures.
//!
//! Lengths that are no multiple of the vector: sums that overwrite ([`dot_product`]) end with a vector that overlaps
//! the one before it, since writing the same bytes twice is harmless; sums that accumulate end byte by byte. Regions
//! shorter than one vector go to the scalar reference.

use crate::coefficients::{Coefficients, Group};
use crate::field::NibbleTable;
use crate::scalar;

/// Bytes of each region done for all groups of rows before going on, so that sources which a second group reads again
/// are still in cache. A multiple of every tier's two vectors.
const BLOCK_BYTES: usize = 4096;

/// One vector of bytes and what can be done with it.
///
/// # Safety
/// All methods need the CPU instructions of the implementing tier, and are to be inlined into a function that enables
/// them. `load` and `store` need [`Vector::BYTES`] readable or writable bytes at the pointer, of any alignment.
pub(crate) trait Vector: Copy {
    /// Width.
    const BYTES: usize;
    /// A vector prepared to be multiplied by several coefficients.
    type Split: Copy;
    /// A coefficient's lookup table in registers.
    type Table: Copy;

    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn split(self) -> Self::Split;
    unsafe fn table(table: &NibbleTable) -> Self::Table;
    unsafe fn product(table: Self::Table, bytes: Self::Split) -> Self;
}

/// See [`crate::dot_product`].
///
/// # Safety
/// As [`Vector`]; all sources and destinations have one length, there is a source per column and a destination per row.
#[inline(always)]
pub(crate) unsafe fn dot_product<V: Vector>(
    coefficients: &Coefficients,
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
) {
    let bytes = sources[0].len();
    if bytes < V::BYTES {
        return scalar::dot_product(coefficients, sources, destinations);
    }
    let whole = bytes - bytes % (2 * V::BYTES);
    let mut start = 0;
    while start < whole {
        let end = whole.min(start + BLOCK_BYTES);
        // SAFETY: start and end are multiples of two vectors and at most `bytes`, the length of every region.
        unsafe { all_groups::<V>(coefficients, sources, destinations, Columns::Pairs { start, end }) };
        start = end;
    }
    if whole < bytes {
        // The last two vectors, overlapping what is done; with less than two vectors in all, they overlap each other.
        let last = bytes - V::BYTES;
        let columns = Columns::Two { first: last.saturating_sub(V::BYTES), second: last };
        // SAFETY: `bytes` is at least one vector, so both offsets leave a whole vector within every region.
        unsafe { all_groups::<V>(coefficients, sources, destinations, columns) };
    }
}

/// Which vectors of the regions to compute.
#[derive(Clone, Copy)]
enum Columns {
    /// Neighbouring pairs of vectors from `start` to `end`, a whole number of pairs.
    Pairs { start: usize, end: usize },
    /// The vectors at two offsets.
    Two { first: usize, second: usize },
}

/// # Safety
/// As [`dot_product`]; the vectors that `columns` names lie within the regions.
#[inline(always)]
unsafe fn all_groups<V: Vector>(
    coefficients: &Coefficients,
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    columns: Columns,
) {
    for &group in coefficients.groups() {
        let tables = coefficients.tables(group);
        let destinations = &mut destinations[group.first_row..group.first_row + group.rows];
        // SAFETY: the caller's contract, passed on; ROWS is the group's number of rows.
        unsafe {
            match (group.rows, group.ones_row) {
                (1, false) => one_group::<V, 1, false>(group, tables, sources, destinations, columns),
                (1, true) => one_group::<V, 1, true>(group, tables, sources, destinations, columns),
                (2, false) => one_group::<V, 2, false>(group, tables, sources, destinations, columns),
                (2, true) => one_group::<V, 2, true>(group, tables, sources, destinations, columns),
                (3, false) => one_group::<V, 3, false>(group, tables, sources, destinations, columns),
                (3, true) => one_group::<V, 3, true>(group, tables, sources, destinations, columns),
                (4, false) => one_group::<V, 4, false>(group, tables, sources, destinations, columns),
                (4, true) => one_group::<V, 4, true>(group, tables, sources, destinations, columns),
                (rows, _) => unreachable!("a group of {rows} rows"),
            }
        }
    }
}

/// # Safety
/// As [`all_groups`]; the group has `ROWS` rows, and so many destinations.
#[inline(always)]
unsafe fn one_group<V: Vector, const ROWS: usize, const ONES_ROW: bool>(
    group: Group,
    tables: &[NibbleTable],
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    columns: Columns,
) {
    // SAFETY: the caller's contract, passed on.
    unsafe {
        match columns {
            Columns::Two { first, second } => {
                two_vectors::<V, ROWS, ONES_ROW>(group.ones_column, tables, sources, destinations, first, second);
            }
            Columns::Pairs { start, end } => {
                let mut at = start;
                while at < end {
                    let second = at + V::BYTES;
                    two_vectors::<V, ROWS, ONES_ROW>(group.ones_column, tables, sources, destinations, at, second);
                    at += 2 * V::BYTES;
                }
            }
        }
    }
}

/// The sums of `ROWS` rows at two offsets, held in registers while all sources go by. Two, so that a coefficient's
/// table that was loaded serves twice.
///
/// # Safety
/// As [`one_group`]; a whole vector at either offset lies within the regions.
#[inline(always)]
unsafe fn two_vectors<V: Vector, const ROWS: usize, const ONES_ROW: bool>(
    ones_column: bool,
    tables: &[NibbleTable],
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    first: usize,
    second: usize,
) {
    // SAFETY: every region is at least a vector longer than either offset, so pointers stay within it; destinations
    // are exclusive borrows, so no source overlaps one.
    unsafe {
        let start = (V::load(sources[0].as_ptr().add(first)), V::load(sources[0].as_ptr().add(second)));
        let mut sums = [start; ROWS];
        if !ones_column {
            let split = (start.0.split(), start.1.split());
            let mut row = usize::from(ONES_ROW);
            while row < ROWS {
                let table = V::table(&tables[row]);
                sums[row] = (V::product(table, split.0), V::product(table, split.1));
                row += 1;
            }
        }
        for (source, tables) in sources[1..].iter().zip(tables[ROWS..].as_chunks::<ROWS>().0) {
            let bytes = (V::load(source.as_ptr().add(first)), V::load(source.as_ptr().add(second)));
            if ONES_ROW {
                sums[0] = (sums[0].0.xor(bytes.0), sums[0].1.xor(bytes.1));
            }
            let split = (bytes.0.split(), bytes.1.split());
            let mut row = usize::from(ONES_ROW);
            while row < ROWS {
                let table = V::table(&tables[row]);
                sums[row].0 = sums[row].0.xor(V::product(table, split.0));
                sums[row].1 = sums[row].1.xor(V::product(table, split.1));
                row += 1;
            }
        }
        for (destination, sum) in destinations.iter_mut().zip(sums) {
            let to = destination.as_mut_ptr();
            sum.0.store(to.add(first));
            sum.1.store(to.add(second));
        }
    }
}

/// See [`crate::mul_add`].
///
/// # Safety
/// As [`Vector`]; both regions have one length.
#[inline(always)]
pub(crate) unsafe fn mul_add<V: Vector>(nibbles: &NibbleTable, source: &[u8], destination: &mut [u8]) {
    let whole = source.len() - source.len() % V::BYTES;
    let (from, to) = (source.as_ptr(), destination.as_mut_ptr());
    // SAFETY: `whole` is at most the length of both regions, and offsets below it leave a whole vector before it.
    unsafe {
        let table = V::table(nibbles);
        let mut at = 0;
        while at < whole {
            let product = V::product(table, V::load(from.add(at)).split());
            V::load(to.add(at)).xor(product).store(to.add(at));
            at += V::BYTES;
        }
    }
    scalar::mul_add(nibbles, &source[whole..], &mut destination[whole..]);
}

/// See [`crate::xor`].
///
/// # Safety
/// As [`mul_add`].
#[inline(always)]
pub(crate) unsafe fn xor<V: Vector>(source: &[u8], destination: &mut [u8]) {
    let whole = source.len() - source.len() % V::BYTES;
    let (from, to) = (source.as_ptr(), destination.as_mut_ptr());
    // SAFETY: as in `mul_add`.
    unsafe {
        let mut at = 0;
        while at < whole {
            V::load(to.add(at)).xor(V::load(from.add(at))).store(to.add(at));
            at += V::BYTES;
        }
    }
    scalar::xor(&source[whole..], &mut destination[whole..]);
}
