//! The key by which nodes are ranked, in integers from end to end. Changing anything here moves every shard there is:
//! the golden values in the tests say when.

use penstock_proto::{DataId, NodeId};

use crate::map::NodeEntry;

/// Fractional bits of a logarithm.
const LOG_FRACTION_BITS: u32 = 48;
/// Bits by which a logarithm is shifted up before it is divided by a 32-bit weight, so that none of it is lost.
const DIVISION_BITS: u32 = 32;

/// `-log2(u) / weight` in fixed point; ties, should there ever be one, go to the lower id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key(u128, NodeId);

impl Key {
    pub(crate) fn of(data: DataId, group: u32, entry: &NodeEntry) -> Self {
        let hash = hash(data, group, entry.id);
        Self((u128::from(minus_log2(hash)) << DIVISION_BITS) / u128::from(entry.weight), entry.id)
    }
}

/// The finaliser of splitmix64 (Stafford's variant 13): a bijection in which every input bit flips every output bit
/// with a probability near 1/2.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `mix(mix(mix(high ^ golden) ^ low) ^ (group << 16 | node) ^ golden)`: high and low are the halves of the data id.
pub(crate) fn hash(data: DataId, group: u32, node: NodeId) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let (high, low) = ((data.0 >> 64) as u64, data.0 as u64);
    let place = (u64::from(group) << 16) | u64::from(node.0);
    mix(mix(mix(high ^ GOLDEN) ^ low) ^ place ^ GOLDEN)
}

/// `-log2(hash / 2^64)`, with [`LOG_FRACTION_BITS`] fractional bits; 0 counts as 1. Bit by bit: squaring the mantissa
/// doubles its logarithm, whose integer part is the next bit.
pub(crate) fn minus_log2(hash: u64) -> u64 {
    let hash = hash.max(1);
    let shift = hash.leading_zeros();
    // One integer bit and 63 fractional bits: 1 <= mantissa < 2.
    let mut mantissa = hash << shift;
    let mut log2 = u64::from(63 - shift);
    for _ in 0..LOG_FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = (square >> 127) as u64;
        mantissa = (square >> (63 + carry)) as u64;
        log2 = (log2 << 1) | carry;
    }
    (64 << LOG_FRACTION_BITS) - log2
}
