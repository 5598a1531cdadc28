//! The loop that everything else is about: weighted sums of many streams, and the CRCs of all of them on the way.
//!
//! **Shape.** One pass takes a few neighbouring registers ("columns") of every source and leaves those of every
//! destination. All sums stay in registers while the sources go by, and a coefficient that was loaded serves all
//! columns. The pass is unrolled over the sources, so that *each source has a load instruction of its own*: prefetchers
//! tell streams apart by instruction address, and a loop that loads all of them with one instruction loses up to 1.7x
//! in memory. Unrolling is by macro, since LLVM declines at 20 sources. A jump enters the unrolled code where just
//! enough steps are left for the number of sources.
//!
//! **Segments.** A group of rows consists of at most one row of ones, whose sums need no products, and of weighted
//! rows. The row of ones may be stored and begun anew after some of the sources: the local parities of an LRC are that.
//! Longer runs than the unrolled code has steps are segments that store nothing. Segments use different steps, as long
//! as there are enough: sharing them, LRC(12,2,2) had half its speed with stores past the caches.
//!
//! **Rests.** Lengths that are no whole number of passes end with a pass that overlaps the one before it: writing the
//! same bytes twice is harmless (and so is reading them, except to a CRC: `fold` does the rest of these).

use crate::coefficients::{Coefficients, Group, SEGMENT_SOURCES_MAX, Segment};
use crate::crc64::State;
use crate::lanes::{Kernel, Lanes};
use crate::scalar;
use std::marker::PhantomData;
use std::ptr::null_mut;

/// Bytes of each region done for all groups of rows before going on, so that sources which a second group reads again
/// are still in cache. A multiple of every tier's pass.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How far ahead of their use sources are asked for when they come from far away. More costs a quarter.
const PREFETCH_BYTES: usize = 256;

/// The same where CRCs are folded, of all sources together: so much work is done with every byte that the CPU looks less
/// far ahead by itself. Measured from memory: 20 sources do best at 512 each (a fifth faster than at 1,024), 10 and 12 at
/// 1,024, 4 at 2,048.
const PREFETCH_FOLDING_BYTES: usize = 10 << 10;

/// Bounds of what that makes for each source.
const PREFETCH_FOLDING_BYTES_MIN: usize = 512;
const PREFETCH_FOLDING_BYTES_MAX: usize = 2048;

/// How far ahead each of so many sources is asked for where CRCs are folded.
fn folding_ahead_bytes(sources: usize) -> usize {
    let share = (PREFETCH_FOLDING_BYTES / sources.max(1)).next_multiple_of(CACHE_LINE);
    share.clamp(PREFETCH_FOLDING_BYTES_MIN, PREFETCH_FOLDING_BYTES_MAX)
}

/// What a prefetch fetches, in bytes.
const CACHE_LINE: usize = 64;

/// Of how many bytes on, sources and destinations together, a product reads ahead and stores past the caches. Smaller
/// ones stay in the second-level cache, where that would cost 40 %; in memory it gains 20 to 35 %.
pub(crate) const STREAMING_BYTES_MIN: usize = 1 << 20;

/// What streaming stores must be aligned to: the widest register, which is a cache line.
const STREAMING_ALIGNMENT: usize = 64;

/// What a sweep folds into CRC states.
const NOTHING: u8 = 0;
const DESTINATIONS: u8 = 1;
const ALL: u8 = 2;

/// Where the CRC states of a product's regions are kept between passes. No sources where these have been folded
/// already, with a group before.
#[derive(Clone, Copy)]
pub(crate) struct States {
    pub(crate) sources: *mut State,
    pub(crate) destinations: *mut State,
}

/// What the passes of one group of rows need.
pub(crate) struct Job<'a, 'b, V: Lanes> {
    group: &'a Group,
    entries: &'a [V::Entry],
    sources: &'a [&'b [u8]],
    destinations: *const &'a mut [u8],
    states: Option<States>,
    streaming: bool,
}

impl<V: Lanes> Clone for Job<'_, '_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: Lanes> Copy for Job<'_, '_, V> {}

/// See [`crate::dot_product`]. With `states`, also folds the sources and all destinations except rows of ones into
/// these, as far as whole blocks go: returns how many bytes of every region that is.
///
/// # Safety
/// The tier's instructions; all sources and destinations have one length, there is a source per column and a
/// destination per row, and a state for each.
pub(crate) unsafe fn dot_product<V: Lanes>(
    coefficients: &Coefficients,
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    states: Option<States>,
) -> usize {
    let bytes = sources[0].len();
    let pass_bytes = V::BYTES * V::COLUMNS;
    if bytes < pass_bytes {
        if bytes < V::BYTES {
            scalar::dot_product(coefficients, sources, destinations);
        } else {
            // SAFETY: the caller's contract; every region is at least a register.
            unsafe { V::run(Short::<V> { coefficients, sources, destinations, lanes: PhantomData }) };
        }
        return 0;
    }
    let groups = coefficients.groups();
    if groups.is_empty() {
        return 0;
    }
    let whole = bytes - bytes % pass_bytes;
    let far = bytes * (sources.len() + destinations.len()) >= STREAMING_BYTES_MIN;
    let aligned = destinations.iter().all(|to| to.as_ptr().addr().is_multiple_of(STREAMING_ALIGNMENT));
    let streaming = far && aligned;
    let destinations = destinations.as_ptr();
    let job = |group, states| Job::<V> {
        group,
        entries: V::entries(coefficients, group),
        sources,
        destinations,
        states,
        streaming,
    };
    let block_bytes = if groups.len() == 1 { whole } else { BLOCK_BYTES };
    let mut start = 0;
    while start < whole {
        let end = whole.min(start + block_bytes);
        for (index, group) in groups.iter().enumerate() {
            let sources = if index == 0 { states.map_or(null_mut(), |states| states.sources) } else { null_mut() };
            let states = states.map(|states| States { sources, ..states });
            // SAFETY: start and end are whole passes, and at most the length of every region; the rest is the
            // caller's contract.
            unsafe { V::sweep(job(group, states), start, end, far) };
        }
        start = end;
    }
    if whole < bytes {
        for group in groups {
            // SAFETY: one pass, which ends where the regions do; streaming stores are for aligned offsets.
            unsafe { V::sweep(Job { streaming: false, ..job(group, None) }, bytes - pass_bytes, bytes, false) };
        }
    }
    whole
}

/// Picks the loop for a group's shape, and `C` registers of each source in a pass.
///
/// # Safety
/// As [`dot_product`]; `start` to `end` are whole passes within the regions.
pub(crate) unsafe fn sweep_group<V: Lanes, const C: usize>(job: Job<'_, '_, V>, start: usize, end: usize, far: bool) {
    macro_rules! run {
        ($rows:literal, $ones:literal) => {
            match (job.states, far) {
                (None, false) => V::run(Sweep::<V, $rows, C, $ones, false, NOTHING> { job, start, end }),
                (None, true) => V::run(Sweep::<V, $rows, C, $ones, true, NOTHING> { job, start, end }),
                (Some(states), _) if $ones || !states.sources.is_null() => {
                    V::run(Sweep::<V, $rows, C, $ones, true, ALL> { job, start, end });
                }
                (Some(_), _) => V::run(Sweep::<V, $rows, C, false, true, DESTINATIONS> { job, start, end }),
            }
        };
    }
    // SAFETY: the caller's contract, passed on; the number of rows is the group's.
    unsafe {
        match (job.group.weighted.len(), job.group.ones) {
            (0, true) => run!(0, true),
            (1, true) => run!(1, true),
            (2, true) => run!(2, true),
            (3, true) => run!(3, true),
            (1, false) => run!(1, false),
            (2, false) => run!(2, false),
            (3, false) => run!(3, false),
            (4, false) => run!(4, false),
            (rows, ones) => unreachable!("a group of {rows} weighted rows, a row of ones: {ones}"),
        }
    }
}

/// The passes from `start` to `end` for one group of `ROWS` weighted rows and, with `ONES`, a row of ones. `FAR` reads
/// ahead, and stores past the caches where the job says so; `FOLD` says what goes into the job's states.
///
/// # Safety
/// As [`sweep_group`].
struct Sweep<'a, 'b, V: Lanes, const ROWS: usize, const C: usize, const ONES: bool, const FAR: bool, const FOLD: u8> {
    job: Job<'a, 'b, V>,
    start: usize,
    end: usize,
}

/// Runs `$step!(i)` for i from `$enter` - 1 down to `$leave`, unrolled: nested blocks, entered by leaving the right one.
macro_rules! unrolled {
    ($enter:expr, $leave:expr, $step:ident) => {
        unrolled!(@list $enter, $leave, $step,
            'p16 16 15, 'p15 15 14, 'p14 14 13, 'p13 13 12, 'p12 12 11, 'p11 11 10, 'p10 10 9, 'p9 9 8,
            'p8 8 7, 'p7 7 6, 'p6 6 5, 'p5 5 4, 'p4 4 3, 'p3 3 2, 'p2 2 1, 'p1 1 0)
    };
    (@list $enter:expr, $leave:expr, $step:ident, $($label:lifetime $number:literal $index:literal),*) => {
        'end: {
            let leave = $leave;
            unrolled!(
                @nest $step leave 'end { match $enter { $($number => break $label,)* _ => break 'end } }
                $($label $index)*
            )
        }
    };
    (@nest $step:ident $leave:ident $end:lifetime { $($inner:tt)* }) => {{ $($inner)* }};
    (@nest $step:ident $leave:ident $end:lifetime { $($inner:tt)* } $label:lifetime $index:literal $($rest:tt)*) => {
        unrolled!(
            @nest $step $leave $end { $label: { $($inner)* } $step!($index); if $leave == $index { break $end; } }
            $($rest)*
        )
    };
}
const _: () = assert!(SEGMENT_SOURCES_MAX == 32, "the unrolled code has 16 steps of two sources");

impl<V: Lanes, const ROWS: usize, const C: usize, const ONES: bool, const FAR: bool, const FOLD: u8> Kernel
    for Sweep<'_, '_, V, ROWS, C, ONES, FAR, FOLD>
{
    type Output = ();

    #[inline(always)]
    unsafe fn call(self) {
        let Self { job, start, end } = self;
        // SAFETY: a destination per row; offsets from `start` to `end` lie within every region; destinations are
        // exclusive borrows, so no source overlaps one; segments add up to the number of sources, of which there are
        // entries and states.
        unsafe {
            let mut to = [null_mut(); ROWS];
            let mut row = 0;
            while row < ROWS {
                to[row] = destination(job.destinations, job.group.weighted[row]);
                row += 1;
            }
            let constants = V::fold_constants();
            let ahead = if FOLD == ALL { folding_ahead_bytes(job.sources.len()) } else { PREFETCH_BYTES };
            let segments = job.group.segments.as_ptr_range();
            let mut at = start;
            while at < end {
                let mut pass = Pass::<V, ROWS, C, ONES, FAR, FOLD> {
                    ones: [V::zero(); C],
                    sums: [[V::zero(); C]; ROWS],
                    at,
                    streaming: job.streaming,
                    ahead,
                    constants,
                };
                let mut source = job.sources.as_ptr();
                let mut entry = job.entries.as_ptr();
                let mut state = job.states.map_or(null_mut(), |states| states.sources);
                pass.first(source, entry, state, job.group.ones_column);
                (source, entry, state) = (source.add(1), entry.add(ROWS), state.wrapping_add(1));
                let mut segment = segments.start;
                while segment < segments.end {
                    let sources = (*segment).sources;
                    if sources % 2 == 1 {
                        pass.one(source, entry, state);
                        (source, entry, state) = (source.add(1), entry.add(ROWS), state.wrapping_add(1));
                    }
                    // Steps are counted from the group's last source, so that every segment has steps of its own.
                    let (pairs, leave) = (sources / 2, (*segment).steps_after);
                    let (source_0, entry_0) = (source.wrapping_sub(2 * leave), entry.wrapping_sub(2 * leave * ROWS));
                    let state_0 = state.wrapping_sub(2 * leave);
                    macro_rules! step {
                        ($pair:literal) => {
                            pass.two(
                                source_0.wrapping_add(2 * $pair),
                                entry_0.wrapping_add(2 * $pair * ROWS),
                                state_0.wrapping_add(2 * $pair),
                            )
                        };
                    }
                    if pairs > 0 {
                        unrolled!(pairs + leave, leave, step);
                    }
                    source = source.add(2 * pairs);
                    entry = entry.add(2 * pairs * ROWS);
                    state = state.wrapping_add(2 * pairs);
                    if ONES {
                        pass.end_of_segment(&*segment, job.destinations);
                    }
                    segment = segment.add(1);
                }
                let mut row = 0;
                while row < ROWS {
                    pass.store(pass.sums[row], to[row]);
                    if FOLD != NOTHING
                        && let Some(states) = job.states
                    {
                        pass.fold(states.destinations.add(job.group.weighted[row]), pass.sums[row]);
                    }
                    row += 1;
                }
                at += C * V::BYTES;
            }
            if FAR && job.streaming {
                V::fence();
            }
        }
    }
}

/// # Safety
/// `row` is one of the destinations.
#[inline(always)]
unsafe fn destination(destinations: *const &mut [u8], row: usize) -> *mut u8 {
    // SAFETY: the caller's contract. Only the pointer is read; the exclusive borrow behind it is the caller's.
    unsafe { (*destinations.add(row)).as_ptr().cast_mut() }
}

/// One pass: the sums at offset `at`, in registers.
struct Pass<V: Lanes, const ROWS: usize, const C: usize, const ONES: bool, const FAR: bool, const FOLD: u8> {
    ones: [V; C],
    sums: [[V; C]; ROWS],
    at: usize,
    streaming: bool,
    /// How far ahead of their use sources are asked for, in bytes.
    ahead: usize,
    constants: V::Fold,
}

/// # Safety
/// All methods: the pointers are to the source, its first coefficient and its state, and what [`Sweep`] asks for.
impl<V: Lanes, const ROWS: usize, const C: usize, const ONES: bool, const FAR: bool, const FOLD: u8>
    Pass<V, ROWS, C, ONES, FAR, FOLD>
{
    #[inline(always)]
    unsafe fn load(&self, source: *const &[u8], state: *mut State) -> [V; C] {
        // SAFETY: the type's contract; a prefetch may be of any address.
        unsafe {
            let from = (*source).as_ptr().add(self.at);
            if FAR {
                let mut line = 0;
                while line < C * V::BYTES {
                    V::prefetch(from.wrapping_add(self.ahead + line));
                    line += CACHE_LINE;
                }
            }
            let mut bytes = [V::zero(); C];
            let mut column = 0;
            while column < C {
                bytes[column] = V::load(from.add(column * V::BYTES));
                column += 1;
            }
            if FOLD == ALL {
                self.fold(state, bytes);
            }
            bytes
        }
    }

    #[inline(always)]
    unsafe fn fold(&self, state: *mut State, bytes: [V; C]) {
        // SAFETY: a state holds the widest register.
        unsafe {
            let state = state.cast::<u8>();
            let mut folded = V::load(state);
            let mut column = 0;
            while column < C {
                folded = folded.fold(self.constants, bytes[column]);
                column += 1;
            }
            folded.store(state);
        }
    }

    /// The first source starts the sums.
    #[inline(always)]
    unsafe fn first(&mut self, source: *const &[u8], entry: *const V::Entry, state: *mut State, ones_column: bool) {
        // SAFETY: the type's contract.
        unsafe {
            if ones_column {
                let bytes = self.load(source, state);
                self.ones = bytes;
                self.sums = [bytes; ROWS];
            } else {
                self.one(source, entry, state);
            }
        }
    }

    #[inline(always)]
    unsafe fn one(&mut self, source: *const &[u8], entry: *const V::Entry, state: *mut State) {
        // SAFETY: the type's contract.
        unsafe {
            let bytes = self.load(source, state);
            let mut column = 0;
            while ONES && column < C {
                self.ones[column] = self.ones[column].xor(bytes[column]);
                column += 1;
            }
            let operands = operands(bytes);
            let mut row = 0;
            while row < ROWS {
                self.sums[row] = V::add_row(self.sums[row], entry.add(row), operands);
                row += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn two(&mut self, source: *const &[u8], entry: *const V::Entry, state: *mut State) {
        // SAFETY: the type's contract, of this source and the next.
        unsafe {
            if !V::PAIRS {
                self.one(source, entry, state);
                return self.one(source.add(1), entry.add(ROWS), state.wrapping_add(1));
            }
            let a = self.load(source, state);
            let b = self.load(source.add(1), state.wrapping_add(1));
            let mut column = 0;
            while ONES && column < C {
                self.ones[column] = self.ones[column].xor(a[column]).xor(b[column]);
                column += 1;
            }
            let (a, b) = (operands(a), operands(b));
            let mut row = 0;
            while row < ROWS {
                let (f, g) = (V::factor(entry.add(row)), V::factor(entry.add(ROWS + row)));
                let mut column = 0;
                while column < C {
                    self.sums[row][column] = self.sums[row][column].add_products((f, a[column]), (g, b[column]));
                    column += 1;
                }
                row += 1;
            }
        }
    }

    /// Stores the sum of ones where the segment wants it, and begins it anew.
    #[inline(always)]
    unsafe fn end_of_segment(&mut self, segment: &Segment, destinations: *const &mut [u8]) {
        if let Some(row) = segment.ones_row {
            // SAFETY: the type's contract.
            unsafe {
                self.store(self.ones, destination(destinations, row));
                self.ones = [V::zero(); C];
            }
        }
    }

    #[inline(always)]
    unsafe fn store(&self, sum: [V; C], to: *mut u8) {
        // SAFETY: the type's contract; streaming says that destinations are aligned, and passes keep that.
        unsafe {
            let to = to.add(self.at);
            let mut column = 0;
            while column < C {
                let to = to.add(column * V::BYTES);
                if FAR && self.streaming {
                    sum[column].store_streaming(to);
                } else {
                    sum[column].store(to);
                }
                column += 1;
            }
        }
    }
}

/// # Safety
/// The tier's instructions.
#[inline(always)]
unsafe fn operands<V: Lanes, const C: usize>(bytes: [V; C]) -> [V::Operand; C] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut operands = [bytes[0].operand(); C];
        let mut column = 1;
        while column < C {
            operands[column] = bytes[column].operand();
            column += 1;
        }
        operands
    }
}

/// Sums of regions that are at least a register and shorter than a pass: rolled, since nothing that short is fast.
///
/// # Safety
/// As [`dot_product`]; regions are at least [`Lanes::BYTES`].
struct Short<'a, 'b, 'c, 'd, V: Lanes> {
    coefficients: &'a Coefficients,
    sources: &'a [&'b [u8]],
    destinations: &'a mut [&'c mut [u8]],
    lanes: PhantomData<&'d V>,
}

impl<V: Lanes> Kernel for Short<'_, '_, '_, '_, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn call(self) {
        let last = self.sources[0].len() - V::BYTES;
        for at in (0..last).step_by(V::BYTES).chain([last]) {
            for (row, destination) in self.destinations.iter_mut().enumerate() {
                // SAFETY: offsets up to `last` leave a whole register within every region.
                unsafe {
                    let mut sum = V::zero();
                    for (source, &coefficient) in self.sources.iter().zip(self.coefficients.row(row)) {
                        let operand = V::load(source.as_ptr().add(at)).operand();
                        sum = sum.add_product(V::factor(V::entry(coefficient)), operand);
                    }
                    sum.store(destination.as_mut_ptr().add(at));
                }
            }
        }
    }
}

/// See [`crate::mul_add`].
///
/// # Safety
/// The tier's instructions; both regions have one length.
pub(crate) struct MulAdd<'a, V: Lanes> {
    pub(crate) entry: &'a V::Entry,
    pub(crate) source: &'a [u8],
    pub(crate) destination: &'a mut [u8],
}

impl<V: Lanes> Kernel for MulAdd<'_, V> {
    /// How many bytes are done: the rest is shorter than a register.
    type Output = usize;

    #[inline(always)]
    unsafe fn call(self) -> usize {
        let bytes = self.source.len();
        let (from, to) = (self.source.as_ptr(), self.destination.as_mut_ptr());
        // SAFETY: offsets leave as many registers before the end of both regions as are read and written there.
        unsafe {
            let factor = V::factor(self.entry);
            let mut at = 0;
            while at + 4 * V::BYTES <= bytes {
                let mut column = 0;
                while column < 4 {
                    let (from, to) = (from.add(at + column * V::BYTES), to.add(at + column * V::BYTES));
                    V::load(to).add_product(factor, V::load(from).operand()).store(to);
                    column += 1;
                }
                at += 4 * V::BYTES;
            }
            while at + V::BYTES <= bytes {
                V::load(to.add(at)).add_product(factor, V::load(from.add(at)).operand()).store(to.add(at));
                at += V::BYTES;
            }
            at
        }
    }
}

/// See [`crate::xor`].
///
/// # Safety
/// As [`MulAdd`].
pub(crate) struct Xor<'a, V: Lanes> {
    pub(crate) source: &'a [u8],
    pub(crate) destination: &'a mut [u8],
    pub(crate) lanes: PhantomData<V>,
}

impl<V: Lanes> Kernel for Xor<'_, V> {
    /// As [`MulAdd`]'s.
    type Output = usize;

    #[inline(always)]
    unsafe fn call(self) -> usize {
        let bytes = self.source.len();
        let (from, to) = (self.source.as_ptr(), self.destination.as_mut_ptr());
        // SAFETY: as in `MulAdd`.
        unsafe {
            let mut at = 0;
            while at + 4 * V::BYTES <= bytes {
                let mut column = 0;
                while column < 4 {
                    let (from, to) = (from.add(at + column * V::BYTES), to.add(at + column * V::BYTES));
                    V::load(to).xor(V::load(from)).store(to);
                    column += 1;
                }
                at += 4 * V::BYTES;
            }
            while at + V::BYTES <= bytes {
                V::load(to.add(at)).xor(V::load(from.add(at))).store(to.add(at));
                at += V::BYTES;
            }
            at
        }
    }
}
