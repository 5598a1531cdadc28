//! A matrix of coefficients, prepared once for many products.

use crate::field::NibbleTable;
use std::fmt;

/// Rows whose sums are held in registers together: four rows by two vectors are half of AVX2's registers, and the other
/// half holds the operands.
pub(crate) const GROUP_ROWS_MAX: usize = 4;

/// Up to [`GROUP_ROWS_MAX`] neighbouring rows that one pass over the sources computes.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// The group's first row is all ones: its sums need no products.
    pub(crate) ones_row: bool,
    /// The first column of all the group's rows is ones: the first source is where every sum starts.
    pub(crate) ones_column: bool,
}

/// A matrix over GF(2^8) with the lookup tables that the kernels need: `rows` destinations as sums of `columns`
/// sources.
///
/// 32 bytes per coefficient; make it once per matrix and keep it. Rows and columns of ones cost no products, which is
/// why codes normalise their matrices.
///
/// ```
/// use penstock_gf256::Coefficients;
/// let matrix = Coefficients::new(2, 3, &[1, 1, 1, 1, 2, 3]);
/// assert_eq!((matrix.rows(), matrix.columns(), matrix.get(1, 2)), (2, 3, 3));
/// ```
#[derive(Clone)]
pub struct Coefficients {
    columns: usize,
    /// Row-major.
    matrix: Box<[u8]>,
    /// In the order in which a pass reads them: by group, then by column, then by row within the group.
    tables: Box<[NibbleTable]>,
    groups: Box<[Group]>,
}

impl Coefficients {
    /// Prepares a matrix given row by row.
    ///
    /// # Panics
    /// When `columns` is 0 or `matrix` has another length than `rows * columns`. `rows` may be 0.
    #[must_use]
    pub fn new(rows: usize, columns: usize, matrix: &[u8]) -> Self {
        assert!(columns >= 1, "a sum of no sources has no length");
        assert_eq!(matrix.len(), rows * columns, "matrix bytes for {rows} rows of {columns}");
        let groups = groups(rows, columns, matrix);
        let mut tables = Vec::with_capacity(matrix.len());
        for group in &groups {
            for column in 0..columns {
                for row in group.first_row..group.first_row + group.rows {
                    tables.push(*NibbleTable::of(matrix[row * columns + column]));
                }
            }
        }
        Self { columns, matrix: matrix.into(), tables: tables.into(), groups: groups.into() }
    }

    /// Number of destinations.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.matrix.len() / self.columns
    }

    /// Number of sources.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One coefficient.
    ///
    /// # Panics
    /// When `row` or `column` is out of range.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> u8 {
        self.row(row)[column]
    }

    /// One row of the matrix.
    ///
    /// # Panics
    /// When `row` is out of range.
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.matrix[row * self.columns..][..self.columns]
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.matrix) + size_of_val(&*self.tables) + size_of_val(&*self.groups)
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A group's tables: for each column, one per row of the group.
    pub(crate) fn tables(&self, group: Group) -> &[NibbleTable] {
        &self.tables[group.first_row * self.columns..][..group.rows * self.columns]
    }
}

/// Spreads rows evenly over as few groups as there can be: five rows as 3 + 2, not 4 + 1.
fn groups(rows: usize, columns: usize, matrix: &[u8]) -> Vec<Group> {
    let count = rows.div_ceil(GROUP_ROWS_MAX);
    let mut groups = Vec::with_capacity(count);
    let mut first_row = 0;
    for index in 0..count {
        let rows = (rows - first_row).div_ceil(count - index);
        let of_group = &matrix[first_row * columns..][..rows * columns];
        groups.push(Group {
            first_row,
            rows,
            ones_row: of_group[..columns].iter().all(|&c| c == 1),
            ones_column: of_group.iter().step_by(columns).all(|&c| c == 1),
        });
        first_row += rows;
    }
    groups
}

impl fmt::Debug for Coefficients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.matrix.chunks_exact(self.columns)).finish()
    }
}
