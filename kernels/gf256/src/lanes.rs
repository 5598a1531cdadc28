//! What a tier must be able to do with one register of bytes. The loops in `sweep` and `fold` are written once, over
//! this trait; a tier implements it in about a hundred lines.
//!
//! Everything that a tier implements is `inline(always)`, and so is every loop, so that all of it is compiled with the
//! instructions that [`Lanes::run`] enables; for the same reason there are no closures.

use crate::coefficients::{Coefficients, Group};
use crate::crc64::State;
use crate::sweep::Job;

/// A loop, handed to [`Lanes::run`] with its arguments in its fields.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Runs it. `inline(always)` in every implementation.
    ///
    /// # Safety
    /// What the kernel's own documentation asks for, and the instructions of the tier that it is generic over.
    unsafe fn call(self) -> Self::Output;
}

/// One register of bytes.
///
/// # Safety
/// All methods need the CPU instructions of the implementing tier, and all but `run` are to be inlined into a
/// [`Kernel`] that `run` runs. Loads and stores need [`Lanes::BYTES`] readable or writable bytes at the pointer, of any
/// alignment except where it says otherwise.
pub(crate) trait Lanes: Copy {
    /// Width.
    const BYTES: usize;
    /// Registers of each source that one pass takes.
    const COLUMNS: usize;
    /// Whether a sum takes the products of two streams in one instruction, and registers are plenty.
    const PAIRS: bool;
    /// A register prepared to be multiplied by several coefficients.
    type Operand: Copy;
    /// A coefficient in registers.
    type Factor: Copy;
    /// A coefficient in memory.
    type Entry: 'static;
    /// The constants of [`Lanes::fold`] in registers.
    type Fold: Copy;

    /// Calls the kernel from a function in which the tier's instructions are enabled.
    unsafe fn run<K: Kernel>(kernel: K) -> K::Output;
    /// The group's coefficients: for each column, one entry per weighted row.
    fn entries<'a>(coefficients: &'a Coefficients, group: &Group) -> &'a [Self::Entry];
    /// One coefficient's entry.
    fn entry(coefficient: u8) -> &'static Self::Entry;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// A store past the caches; `to` is a multiple of [`Lanes::BYTES`], and [`Lanes::fence`] comes before the kernel
    /// returns.
    unsafe fn store_streaming(self, to: *mut u8);
    /// Orders streaming stores before whatever follows.
    unsafe fn fence();
    /// Asks for the cache line at `from`, which may be any address.
    unsafe fn prefetch(from: *const u8);
    unsafe fn xor(self, other: Self) -> Self;
    /// Runs the sweep that takes [`Lanes::COLUMNS`].
    unsafe fn sweep(job: Job<'_, '_, Self>, start: usize, end: usize, far: bool);
    unsafe fn operand(self) -> Self::Operand;
    /// A coefficient from memory.
    unsafe fn factor(entry: *const Self::Entry) -> Self::Factor;
    /// `self + factor * operand`.
    unsafe fn add_product(self, factor: Self::Factor, operand: Self::Operand) -> Self;
    /// `sums + entry * operands`: the same for some registers that share a coefficient.
    #[inline(always)]
    unsafe fn add_row<const C: usize>(
        sums: [Self; C],
        entry: *const Self::Entry,
        operands: [Self::Operand; C],
    ) -> [Self; C] {
        let mut sums = sums;
        // SAFETY: the trait's contract.
        unsafe {
            let factor = Self::factor(entry);
            let mut column = 0;
            while column < C {
                sums[column] = sums[column].add_product(factor, operands[column]);
                column += 1;
            }
        }
        sums
    }
    /// `self + a.0 * a.1 + b.0 * b.1`.
    unsafe fn add_products(self, a: (Self::Factor, Self::Operand), b: (Self::Factor, Self::Operand)) -> Self;

    unsafe fn fold_constants() -> Self::Fold;
    /// The state of a CRC64NVME (see `crc64`) after one more register of bytes.
    unsafe fn fold(self, constants: Self::Fold, bytes: Self) -> Self;
    /// The remainder of a state and the bytes after it.
    unsafe fn remainder(state: &State, rest: &[u8]) -> u64;
    /// A product modulo the CRC's polynomial.
    unsafe fn multiply(a: u64, b: u64) -> u64;
}
