//! The reference: one byte at a time, no `unsafe`, short enough to be read as the definition.
//!
//! Also used for regions shorter than a vector. Callers have checked counts and lengths.

use crate::coefficients::Coefficients;
use crate::field::NibbleTable;

/// See [`crate::dot_product`].
pub(crate) fn dot_product(coefficients: &Coefficients, sources: &[&[u8]], destinations: &mut [&mut [u8]]) {
    for (row, destination) in destinations.iter_mut().enumerate() {
        destination.fill(0);
        for (source, &coefficient) in sources.iter().zip(coefficients.row(row)) {
            mul_add(NibbleTable::of(coefficient), source, destination);
        }
    }
}

/// See [`crate::mul_add`].
pub(crate) fn mul_add(table: &NibbleTable, source: &[u8], destination: &mut [u8]) {
    for (sum, &byte) in destination.iter_mut().zip(source) {
        *sum ^= table.product(byte);
    }
}

/// See [`crate::xor`].
pub(crate) fn xor(source: &[u8], destination: &mut [u8]) {
    for (sum, &byte) in destination.iter_mut().zip(source) {
        *sum ^= byte;
    }
}
