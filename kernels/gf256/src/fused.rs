//! Products and the CRC64NVME of every region in one pass.
//!
//! The sweep leaves a partial remainder (a [`State`]) per region for the bytes of its whole passes; here these become
//! CRCs, together with the few bytes after. The remainder of a row of ones is the sum of its sources' remainders, so
//! these rows are never folded at all.

use crate::coefficients::{Coefficients, Group};
use crate::crc64::{self, State};
use crate::lanes::{Kernel, Lanes};
use crate::sweep::{self, States};
use std::marker::PhantomData;

/// Regions whose states are kept on the stack.
const STATES_INLINE: usize = 32;

/// See [`crate::dot_product_crc64`].
///
/// # Safety
/// The tier's instructions; all sources and destinations have one length, there is a source per column, a destination
/// per row, and a CRC per region.
pub(crate) unsafe fn dot_product<V: Lanes>(
    coefficients: &Coefficients,
    sources: &[&[u8]],
    destinations: &mut [&mut [u8]],
    crcs: &mut [u64],
) {
    let mut inline = [State::ZERO; STATES_INLINE];
    let mut spilled;
    let states = if crcs.len() <= STATES_INLINE {
        &mut inline[..crcs.len()]
    } else {
        spilled = vec![State::ZERO; crcs.len()];
        &mut spilled[..]
    };
    let (of_sources, of_destinations) = states.split_at_mut(sources.len());
    let pointers = States { sources: of_sources.as_mut_ptr(), destinations: of_destinations.as_mut_ptr() };
    // SAFETY: the caller's contract, and a state per region.
    unsafe {
        let done = sweep::dot_product::<V>(coefficients, sources, destinations, Some(pointers));
        V::run(Finish::<V> { coefficients, sources, destinations, states, done, crcs, lanes: PhantomData });
    }
}

/// Makes running CRCs of states.
///
/// # Safety
/// As [`dot_product`].
struct Finish<'a, 'b, 'c, V: Lanes> {
    coefficients: &'a Coefficients,
    sources: &'a [&'b [u8]],
    destinations: &'a [&'c mut [u8]],
    /// Used up: a region's first eight bytes become its remainder.
    states: &'a mut [State],
    /// Bytes of each region that the states cover.
    done: usize,
    crcs: &'a mut [u64],
    lanes: PhantomData<V>,
}

impl<V: Lanes> Kernel for Finish<'_, '_, '_, V> {
    type Output = ();

    #[inline(always)]
    unsafe fn call(self) {
        let Self { coefficients, sources, destinations, states, done, crcs, .. } = self;
        let (of_sources, of_destinations) = states.split_at_mut(sources.len());
        // SAFETY: the caller's contract; a state per region.
        unsafe {
            for (state, source) in of_sources.iter_mut().zip(sources) {
                finish::<V>(state, &source[done..]);
            }
            for group in coefficients.groups() {
                for &row in &group.weighted {
                    finish::<V>(&mut of_destinations[row], &destinations[row][done..]);
                }
                sum_ones_rows(group, of_sources, of_destinations);
            }
            // Most often all regions have the same CRC so far, that of nothing: one product serves all.
            let shift = shift_by::<V>(sources[0].len());
            let mut before = 0;
            let mut shifted = V::multiply(!before, shift);
            for (crc, state) in crcs.iter_mut().zip(of_sources.iter().chain(of_destinations.iter())) {
                if *crc != before {
                    before = *crc;
                    shifted = V::multiply(!before, shift);
                }
                *crc = !(shifted ^ state.get_remainder());
            }
        }
    }
}

/// Makes a state the remainder of itself and what follows: whole registers first.
///
/// # Safety
/// The tier's instructions.
#[inline(always)]
unsafe fn finish<V: Lanes>(state: &mut State, rest: &[u8]) {
    let whole = rest.len() - rest.len() % V::BYTES;
    // SAFETY: a state holds the widest register; offsets below `whole` leave a whole register before it.
    unsafe {
        if whole > 0 {
            let constants = V::fold_constants();
            let mut sum = V::load(state.0.as_ptr());
            let mut at = 0;
            while at < whole {
                sum = sum.fold(constants, V::load(rest.as_ptr().add(at)));
                at += V::BYTES;
            }
            sum.store(state.0.as_mut_ptr());
        }
        let remainder = V::remainder(state, &rest[whole..]);
        state.set_remainder(remainder);
    }
}

/// The remainders of a group's rows of ones, from those of the sources.
#[inline(always)]
fn sum_ones_rows(group: &Group, sources: &[State], destinations: &mut [State]) {
    let (mut sum, mut next) = (sources[0].get_remainder(), 1);
    for segment in &group.segments {
        for source in &sources[next..next + segment.sources] {
            sum ^= source.get_remainder();
        }
        next += segment.sources;
        if let Some(row) = segment.ones_row {
            destinations[row].set_remainder(sum);
            sum = 0;
        }
    }
}

/// x^(8 bytes) modulo the CRC's polynomial.
///
/// # Safety
/// The tier's instructions.
#[inline(always)]
unsafe fn shift_by<V: Lanes>(bytes: usize) -> u64 {
    let (mut shift, mut power, mut left) = (crc64::ONE, 0, bytes);
    while left != 0 {
        if left & 1 == 1 {
            // SAFETY: the caller's contract.
            shift = unsafe { V::multiply(shift, crc64::POWERS[power]) };
        }
        left >>= 1;
        power += 1;
    }
    shift
}

/// Brings running CRCs up to date without SIMD: those of the sources, then those of the destinations.
pub(crate) fn update_portably(sources: &[&[u8]], destinations: &[&mut [u8]], crcs: &mut [u64]) {
    let regions = sources.iter().copied().chain(destinations.iter().map(|destination| &**destination));
    for (crc, region) in crcs.iter_mut().zip(regions) {
        *crc = !crc64::update(!*crc, region);
    }
}
