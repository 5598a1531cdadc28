//! ISA-L, the peer that counts: what `isal-sys` builds and links, but has no declarations for.
//!
//! Declared after `include/erasure_code.h` and `include/crc64.h` of ISA-L 2.31, as bundled.

use std::ffi::c_int;

// Links the library; its bindings are only of compression.
use isal_sys as _;

unsafe extern "C" {
    fn ec_init_tables(k: c_int, rows: c_int, a: *mut u8, tables: *mut u8);
    fn ec_encode_data(len: c_int, k: c_int, rows: c_int, tables: *mut u8, data: *mut *mut u8, coding: *mut *mut u8);
    fn crc64_rocksoft_refl(seed: u64, bytes: *const u8, len: u64) -> u64;
}

/// Bytes of tables per coefficient.
const TABLE_BYTES: usize = 32;
/// Most shards on either side of a product.
const SHARDS_MAX: usize = 32;

/// What ISA-L computes sums with: tables expanded from a matrix, as `ec_encode_data` wants them.
pub(crate) struct Tables {
    columns: usize,
    rows: usize,
    tables: Vec<u8>,
}

fn int(number: usize) -> c_int {
    c_int::try_from(number).expect("invariant: shard counts and lengths fit into an int")
}

impl Tables {
    /// Tables of a matrix given row by row.
    pub(crate) fn new(columns: usize, matrix: &[u8]) -> Self {
        let rows = matrix.len() / columns;
        assert!(
            rows * columns == matrix.len() && columns <= SHARDS_MAX && rows <= SHARDS_MAX,
            "a matrix of whole rows"
        );
        let mut matrix = matrix.to_vec();
        let mut tables = vec![0; TABLE_BYTES * columns * rows];
        // SAFETY: `a` has rows x k bytes, `tables` 32 for each of these, as the header asks.
        unsafe { ec_init_tables(int(columns), int(rows), matrix.as_mut_ptr(), tables.as_mut_ptr()) };
        Self { columns, rows, tables }
    }

    /// Every destination becomes its row's sum, `repeats` times over.
    ///
    /// # Panics
    /// When shards are not as many as the matrix says, or of unequal length.
    pub(crate) fn encode(&mut self, sources: &[&[u8]], destinations: &mut [&mut [u8]], repeats: u64) {
        let bytes = sources[0].len();
        assert_eq!((sources.len(), destinations.len()), (self.columns, self.rows), "shards as the matrix has");
        assert!(sources.iter().all(|shard| shard.len() == bytes), "sources of one length");
        assert!(destinations.iter().all(|shard| shard.len() == bytes), "destinations of one length");
        let mut from = [std::ptr::null_mut(); SHARDS_MAX];
        let mut to = [std::ptr::null_mut(); SHARDS_MAX];
        from.iter_mut().zip(sources).for_each(|(from, shard)| *from = shard.as_ptr().cast_mut());
        to.iter_mut().zip(destinations).for_each(|(to, shard)| *to = shard.as_mut_ptr());
        let (len, columns, rows) = (int(bytes), int(self.columns), int(self.rows));
        for _ in 0..repeats {
            // SAFETY: k sources that are only read and `rows` destinations, all of `len` bytes; tables are of this matrix.
            unsafe {
                ec_encode_data(len, columns, rows, self.tables.as_mut_ptr(), from.as_mut_ptr(), to.as_mut_ptr());
            }
        }
    }
}

/// CRC64NVME, which ISA-L calls Rocksoft.
pub(crate) fn crc64nvme(bytes: &[u8]) -> u64 {
    // SAFETY: as many bytes as are said to be there are read.
    unsafe { crc64_rocksoft_refl(0, bytes.as_ptr(), bytes.len() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declarations_are_right() {
        assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
        let (a, b) = ([3u8; 100], [5u8; 100]);
        let (mut p, mut q) = ([0u8; 100], [0u8; 100]);
        Tables::new(2, &[1, 1, 1, 2]).encode(&[&a, &b], &mut [&mut p, &mut q], 2);
        assert_eq!((p, q), ([3 ^ 5; 100], [3 ^ 10; 100]));
    }
}
