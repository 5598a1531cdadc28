//! A matrix of coefficients, prepared once for many products.

use crate::field::{NibbleTable, affine};
use std::fmt;

/// Weighted rows whose sums are held in registers together, besides a row of ones: four by two registers are half of
/// AVX2's registers, and the other half holds the operands.
pub(crate) const GROUP_ROWS_MAX: usize = 4;

/// Sources for which the loop is unrolled; more are several segments.
pub(crate) const SEGMENT_SOURCES_MAX: usize = 32;

/// A run of neighbouring sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// How many, without the group's first source (which starts the sums).
    pub(crate) sources: usize,
    /// Steps of two sources that the unrolled code keeps for the segments after this one, so that each source has a
    /// load instruction of its own; 0 where these don't fit.
    pub(crate) steps_after: usize,
    /// The row of ones that ends here, if one does: the plain sum of all sources since the last that did.
    pub(crate) ones_row: Option<usize>,
}

/// Rows that one pass over the sources computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Rows that need products, at most [`GROUP_ROWS_MAX`] together with the row of ones.
    pub(crate) weighted: Box<[usize]>,
    /// Whether there is a row of ones, or several that take turns.
    pub(crate) ones: bool,
    /// The first coefficient of all weighted rows is 1: every sum starts with the first source as it is.
    pub(crate) ones_column: bool,
    pub(crate) segments: Box<[Segment]>,
    /// Where the group's entries start in the tables.
    first_entry: usize,
}

/// A matrix over GF(2^8) with the lookup tables that the kernels need: `rows` destinations as sums of `columns`
/// sources.
///
/// 41 bytes per coefficient; make it once per matrix and keep it. Rows and columns of ones cost no products, which is
/// why codes normalise their matrices; so do rows of ones and zeros whose ones are neighbours and which together have
/// one in every column (the local parities of an LRC).
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
    /// Weighted coefficients in the order in which a pass reads them: by group, then by column, then by row within the
    /// group. Once as tables of nibbles, once as bit matrices.
    nibbles: Box<[NibbleTable]>,
    affine: Box<[u64]>,
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
        let mut ordered = Vec::with_capacity(matrix.len());
        for group in &groups {
            for column in 0..columns {
                ordered.extend(group.weighted.iter().map(|row| matrix[row * columns + column]));
            }
        }
        Self {
            columns,
            matrix: matrix.into(),
            nibbles: ordered.iter().map(|&c| *NibbleTable::of(c)).collect(),
            affine: ordered.iter().map(|&c| *affine(c)).collect(),
            groups: groups.into(),
        }
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
        let of_group = |group: &Group| size_of_val(&*group.weighted) + size_of_val(&*group.segments);
        size_of_val(&*self.matrix)
            + size_of_val(&*self.nibbles)
            + size_of_val(&*self.affine)
            + size_of_val(&*self.groups)
            + self.groups.iter().map(of_group).sum::<usize>()
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// A group's tables of nibbles: for each column, one per weighted row.
    pub(crate) fn nibbles(&self, group: &Group) -> &[NibbleTable] {
        &self.nibbles[group.first_entry..][..group.weighted.len() * self.columns]
    }

    /// A group's bit matrices, in the same order.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86 has the instruction"))]
    pub(crate) fn affine(&self, group: &Group) -> &[u64] {
        &self.affine[group.first_entry..][..group.weighted.len() * self.columns]
    }
}

/// Finds the rows of ones, and spreads the other rows evenly over as few groups as there can be: five rows as 3 + 2,
/// not 4 + 1.
fn groups(rows: usize, columns: usize, matrix: &[u8]) -> Vec<Group> {
    let ones = ones_rows(rows, columns, matrix);
    let is_ones = |row: &usize| ones.iter().any(|&(of, _)| of == *row);
    let weighted: Vec<usize> = (0..rows).filter(|row| !is_ones(row)).collect();
    let mut rest = &weighted[..];
    let with_ones = usize::from(!ones.is_empty());
    let count = (rest.len() + with_ones).div_ceil(GROUP_ROWS_MAX);
    let mut groups = Vec::with_capacity(count);
    let mut first_entry = 0;
    for index in 0..count {
        let ones_here = if index == 0 { &ones[..] } else { &[] };
        let share = (rest.len() + usize::from(!ones_here.is_empty())).div_ceil(count - index);
        let (weighted, others) = rest.split_at(share - usize::from(!ones_here.is_empty()));
        rest = others;
        groups.push(Group {
            weighted: weighted.into(),
            ones: !ones_here.is_empty(),
            ones_column: weighted.iter().all(|row| matrix[row * columns] == 1),
            segments: segments(columns, ones_here).into(),
            first_entry,
        });
        first_entry += weighted.len() * columns;
    }
    groups
}

/// Rows of zeros and ones that together have exactly one 1 in every column, each of them in neighbouring columns; with
/// the column after the last of these, in ascending order. Empty where there are none such.
fn ones_rows(rows: usize, columns: usize, matrix: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < columns {
        // A row whose ones start here, and which is zero elsewhere.
        let next = (0..rows).find_map(|row| {
            let row_bytes = &matrix[row * columns..][..columns];
            let run = row_bytes[start..].iter().take_while(|&&c| c == 1).count();
            let zeros = row_bytes.iter().filter(|&&c| c == 0).count();
            (run > 0 && run + zeros == columns).then_some((row, start + run))
        });
        let Some((row, end)) = next else { return Vec::new() };
        found.push((row, end));
        start = end;
    }
    found
}

/// Cuts the columns after the first where a row of ones ends, and where a run would be too long.
fn segments(columns: usize, ones: &[(usize, usize)]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut start = 1;
    let ends = ones.iter().map(|&(row, end)| (Some(row), end));
    let last = if ones.is_empty() { Some((None, columns)) } else { None };
    for (ones_row, end) in ends.chain(last) {
        while end - start > SEGMENT_SOURCES_MAX {
            segments.push(Segment { sources: SEGMENT_SOURCES_MAX, steps_after: 0, ones_row: None });
            start += SEGMENT_SOURCES_MAX;
        }
        segments.push(Segment { sources: end - start, steps_after: 0, ones_row });
        start = end;
    }
    let mut steps = 0;
    for segment in segments.iter_mut().rev() {
        let after = steps;
        steps += segment.sources / 2;
        if steps > SEGMENT_SOURCES_MAX / 2 {
            break;
        }
        segment.steps_after = after;
    }
    segments
}

impl fmt::Debug for Coefficients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.matrix.chunks_exact(self.columns)).finish()
    }
}
