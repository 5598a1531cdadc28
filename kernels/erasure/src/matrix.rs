//! The parity matrix and its inverses. The construction, and the proof that it decodes, are in the crate's docs.

use penstock_gf256::{Coefficients, div, inv, mul};

/// Most shards of a stripe, data and parity together.
pub const SHARDS_MAX: usize = 255;

/// b(row, column): what a parity row multiplies a data shard with. Part of the storage format.
///
/// Callers keep `row + column` below [`SHARDS_MAX`].
pub(crate) fn parity_coefficient(row: usize, column: usize) -> u8 {
    let x = |row: usize| u8::try_from(SHARDS_MAX - row).expect("invariant: SHARDS_MAX fits a byte");
    let y = |column: usize| u8::try_from(column).expect("invariant: columns are below SHARDS_MAX");
    let product = mul(x(0) ^ y(column), x(row) ^ y(0));
    div(product, mul(x(row) ^ y(column), x(0) ^ y(0)))
}

/// All parity rows of a code.
pub(crate) fn parity_matrix(k: usize, m: usize) -> Coefficients {
    let matrix: Vec<u8> = (0..m).flat_map(|row| (0..k).map(move |column| parity_coefficient(row, column))).collect();
    Coefficients::new(m, k, &matrix)
}

/// Coefficients by which the shards `wanted` are sums of the k shards `chosen`, columns in the order of `chosen`.
///
/// Both are ascending shard indices, below k for data and from k on for parity; no shard is in both.
pub(crate) fn decode_matrix(k: usize, chosen: &[u8], wanted: &[u8]) -> Coefficients {
    debug_assert_eq!(chosen.len(), k);
    let chosen_data: Vec<usize> = chosen.iter().map(|&shard| usize::from(shard)).filter(|&shard| shard < k).collect();
    let lost: Vec<usize> = (0..k).filter(|shard| chosen_data.binary_search(shard).is_err()).collect();
    let parities: Vec<usize> = chosen[chosen_data.len()..].iter().map(|&shard| usize::from(shard) - k).collect();
    let lost_rows = lost_data_rows(k, &chosen_data, &lost, &parities);
    let mut matrix = Vec::with_capacity(wanted.len() * k);
    for &shard in wanted {
        let shard = usize::from(shard);
        if let Ok(at) = lost.binary_search(&shard) {
            matrix.extend_from_slice(&lost_rows[at]);
            continue;
        }
        // A parity: its own sum over the data, with every lost data shard replaced by what gives it.
        let parity = shard - k;
        let mut row = vec![0; k];
        for (sum, &data) in row.iter_mut().zip(&chosen_data) {
            *sum = parity_coefficient(parity, data);
        }
        for (lost_row, &data) in lost_rows.iter().zip(&lost) {
            add_scaled(&mut row, parity_coefficient(parity, data), lost_row);
        }
        matrix.extend_from_slice(&row);
    }
    Coefficients::new(wanted.len(), k, &matrix)
}

/// For each lost data shard, the row by which it is a sum of the chosen shards (data first, then parities).
fn lost_data_rows(k: usize, chosen_data: &[usize], lost: &[usize], parities: &[usize]) -> Vec<Vec<u8>> {
    let square = parities.iter().map(|&q| lost.iter().map(|&e| parity_coefficient(q, e)).collect()).collect();
    inverse(square)
        .into_iter()
        .map(|weights: Vec<u8>| {
            let mut row = vec![0; k];
            for (&weight, &parity) in weights.iter().zip(parities) {
                for (sum, &data) in row.iter_mut().zip(chosen_data) {
                    *sum ^= mul(weight, parity_coefficient(parity, data));
                }
            }
            row[chosen_data.len()..].copy_from_slice(&weights);
            row
        })
        .collect()
}

/// Inverse by Gauss-Jordan elimination, of a matrix all of whose leading submatrices are nonsingular (so that there is
/// no zero pivot, and no need to swap rows).
fn inverse(mut left: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = left.len();
    let unit = |at: usize| (0..size).map(|column| u8::from(column == at)).collect();
    let mut right: Vec<Vec<u8>> = (0..size).map(unit).collect();
    for pivot in 0..size {
        let scale = inv(left[pivot][pivot]);
        for row in [&mut left[pivot], &mut right[pivot]] {
            for element in row.iter_mut() {
                *element = mul(*element, scale);
            }
        }
        let (pivot_left, pivot_right) = (left[pivot].clone(), right[pivot].clone());
        for other in (0..size).filter(|&other| other != pivot) {
            let factor = left[other][pivot];
            add_scaled(&mut left[other], factor, &pivot_left);
            add_scaled(&mut right[other], factor, &pivot_right);
        }
    }
    right
}

pub(crate) fn add_scaled(row: &mut [u8], factor: u8, other: &[u8]) {
    for (sum, &element) in row.iter_mut().zip(other) {
        *sum ^= mul(factor, element);
    }
}
