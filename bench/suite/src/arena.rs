//! Memory to measure in: one mapping, filled with random bytes, cut into stripes of staggered shards.
//!
//! Shards start at multiples of a cache line, an odd number of lines apart: with shards a power of two apart all of them
//! would fall into the same few sets of a cache, and that, not the kernels, would be measured.

use std::fs;

use memmap2::{Advice, MmapMut, MmapOptions};
use penstock_harness::Order;

use crate::BenchError;

/// A huge page on x86-64, and on aarch64 with small pages of 4 KiB.
const HUGE_PAGE_BYTES: usize = 2 << 20;
const CACHE_LINE_BYTES: usize = 64;

/// Distance between neighbouring shards: an odd number of cache lines.
pub(crate) fn stride_bytes(shard_bytes: usize) -> usize {
    (shard_bytes.div_ceil(CACHE_LINE_BYTES) | 1) * CACHE_LINE_BYTES
}

/// Random bytes, aligned to a huge page.
pub(crate) struct Arena {
    map: MmapMut,
    start: usize,
    bytes: usize,
}

impl Arena {
    /// Maps and fills, on huge pages or expressly without them.
    pub(crate) fn new(bytes: usize, huge_pages: bool, order: &mut Order) -> Result<Self, BenchError> {
        let mut map = MmapOptions::new()
            .len(bytes + HUGE_PAGE_BYTES)
            .map_anon()
            .map_err(|error| BenchError::Setup(format!("{} MiB can't be mapped: {error}", bytes >> 20)))?;
        let start = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // Advice: a kernel without huge pages refuses it, and `huge_bytes` tells.
        let _ignored = map.advise(if huge_pages { Advice::HugePage } else { Advice::NoHugePage });
        order.fill(&mut map[start..start + bytes]);
        Ok(Self { map, start, bytes })
    }

    /// How many bytes really lie on huge pages now.
    pub(crate) fn huge_bytes(&self) -> usize {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let base = self.map.as_ptr().addr();
        huge_bytes(&smaps, base..base + self.map.len())
    }

    /// As many stripes of `shards` shards as fit, but `stripes_max` at most.
    pub(crate) fn stripes(&mut self, shards: usize, shard_bytes: usize, stripes_max: usize) -> Vec<Vec<&mut [u8]>> {
        let stride = stride_bytes(shard_bytes);
        let stripe_bytes = shards * stride;
        let memory = &mut self.map[self.start..self.start + self.bytes];
        memory
            .chunks_exact_mut(stripe_bytes)
            .take(stripes_max)
            .map(|stripe| stripe.chunks_exact_mut(stride).map(|shard| &mut shard[..shard_bytes]).collect())
            .collect()
    }
}

/// Sum of AnonHugePages of the mappings that overlap a range of addresses.
fn huge_bytes(smaps: &str, range: std::ops::Range<usize>) -> usize {
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-')
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = from < range.end && range.start < to;
        } else if inside && let Some(rest) = line.strip_prefix("AnonHugePages:") {
            let kib: usize = rest.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0);
            sum += kib << 10;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_staggered_and_aligned() {
        for shard_bytes in [1, 64, 65, 4096, 6592, 1 << 20] {
            let stride = stride_bytes(shard_bytes);
            assert!(
                stride >= shard_bytes && stride.is_multiple_of(64) && (stride / 64) % 2 == 1,
                "{shard_bytes}: {stride}"
            );
        }
        let mut arena = Arena::new(1 << 20, false, &mut Order::seeded(1)).unwrap();
        let stripes = arena.stripes(14, 6592, 3);
        assert_eq!((stripes.len(), stripes[0].len(), stripes[0][0].len()), (3, 14, 6592));
        assert!(stripes.iter().flatten().all(|shard| shard.as_ptr().addr().is_multiple_of(64)));
        assert!(stripes[2][13].iter().any(|byte| *byte != 0), "filled to the end");
    }

    #[test]
    fn huge_pages_of_the_mapping_alone_are_counted() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0\nRss: 4 kB\nAnonHugePages:      2048 kB\n\
                     3000-5000 rw-p 00000000 00:00 0\nAnonHugePages:      4096 kB\n\
                     9000-a000 rw-p 00000000 00:00 0\nAnonHugePages:      8192 kB\n";
        assert_eq!(huge_bytes(smaps, 0x2000..0x4000), 6144 << 10);
        assert_eq!(huge_bytes(smaps, 0x3000..0x4000), 4096 << 10);
        assert_eq!(huge_bytes("nonsense", 0..1), 0);
    }
}
