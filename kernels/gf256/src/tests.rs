//! Every tier, against the field's definition: lengths, alignments, margins, guard pages.

use crate::field::mul_by_definition;
use crate::{
    Avx2, Coefficients, TIER_NAMES, Tier, TierError, div, dot_product, dot_product_crc64, inv, mul, mul_add, xor,
};
use penstock_digest::{crc64nvme, crc64nvme_combine};
use proptest::prelude::*;

/// Comma-separated names of tiers whose absence is a failure.
const REQUIRE_VARIABLE: &str = "PENSTOCK_REQUIRE_TIERS";
/// What margins are filled with, to see that they stay untouched.
const MARGIN: u8 = 0xa5;

/// The tiers to test. One that the machine lacks is reported as not run, and fails where it is required.
fn tiers() -> Vec<Tier> {
    let required = std::env::var(REQUIRE_VARIABLE).unwrap_or_default();
    for name in required.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        Tier::from_name(name).unwrap_or_else(|error| panic!("{REQUIRE_VARIABLE}: {error}"));
    }
    for name in TIER_NAMES {
        if let Err(error) = Tier::from_name(name) {
            eprintln!("tier {name}: not run ({error})");
        }
    }
    Tier::present().collect()
}

/// Reproducible bytes (splitmix64).
fn random_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
        })
        .collect()
}

/// The sums by the definition of the field, using nothing of the kernels.
fn expected(rows: usize, matrix: &[u8], sources: &[&[u8]]) -> Vec<Vec<u8>> {
    let columns = sources.len();
    (0..rows)
        .map(|row| {
            (0..sources[0].len())
                .map(|at| {
                    (0..columns).fold(0, |sum, i| sum ^ mul_by_definition(matrix[row * columns + i], sources[i][at]))
                })
                .collect()
        })
        .collect()
}

/// One product with every region at its own offset in a larger buffer, checked to the byte, margins included: first
/// alone, then with the CRCs.
fn check_dot_product(tier: Tier, rows: usize, matrix: &[u8], sources: &[Vec<u8>], offset: usize) {
    check_product(tier, rows, matrix, sources, offset, false);
    check_product(tier, rows, matrix, sources, offset, true);
}

fn check_product(tier: Tier, rows: usize, matrix: &[u8], sources: &[Vec<u8>], offset: usize, fused: bool) {
    let bytes = sources[0].len();
    let shifted: Vec<Vec<u8>> =
        sources.iter().enumerate().map(|(i, source)| [&vec![0; (offset + i) % 64][..], source].concat()).collect();
    let regions: Vec<&[u8]> = shifted.iter().map(|buffer| &buffer[buffer.len() - bytes..]).collect();
    let mut buffers = vec![vec![MARGIN; bytes + 160]; rows];
    let at = |row: usize| 64 + (offset + 3 * row) % 32;
    let mut destinations: Vec<&mut [u8]> =
        buffers.iter_mut().enumerate().map(|(row, buffer)| &mut buffer[at(row)..at(row) + bytes]).collect();
    let coefficients = Coefficients::new(rows, regions.len(), matrix);
    let sums = expected(rows, matrix, &regions);
    if fused {
        // Running CRCs, some of them of nothing so far.
        let before: Vec<u64> =
            (0..regions.len() + rows).map(|i| if i % 3 == 2 { crc64nvme(&[7, 9]) } else { 0 }).collect();
        let mut crcs = before.clone();
        dot_product_crc64(tier, &coefficients, &regions, &mut destinations, &mut crcs);
        for (i, region) in regions.iter().copied().chain(sums.iter().map(Vec::as_slice)).enumerate() {
            let crc = crc64nvme_combine(before[i], crc64nvme(region), bytes as u64);
            assert_eq!(crcs[i], crc, "{tier}: CRC of region {i} of {} + {rows}, {bytes} bytes", regions.len());
        }
    } else {
        dot_product(tier, &coefficients, &regions, &mut destinations);
    }
    for (row, sum) in sums.into_iter().enumerate() {
        let (before, rest) = buffers[row].split_at(at(row));
        let (found, after) = rest.split_at(bytes);
        assert!(found == sum, "{tier}: row {row} of {rows}, {bytes} bytes, offset {offset}");
        assert!(before.iter().chain(after).all(|&b| b == MARGIN), "{tier}: margins of row {row}, {bytes} bytes");
    }
}

/// A matrix with a first row and a first column of ones, a zero, and random elements otherwise.
fn normalised(rows: usize, columns: usize) -> Vec<u8> {
    let mut matrix = random_bytes(77, rows * columns);
    for (at, coefficient) in matrix.iter_mut().enumerate() {
        if at < columns || at % columns == 0 {
            *coefficient = 1;
        }
    }
    if rows > 1 && columns > 1 {
        matrix[rows * columns - 1] = 0;
    }
    matrix
}

#[test]
fn field_matches_its_definition() {
    for a in 0..=255u8 {
        for b in 0..=255u8 {
            assert_eq!(mul(a, b), mul_by_definition(a, b), "{a} * {b}");
            if b != 0 {
                assert_eq!(mul(div(a, b), b), a, "{a} / {b}");
            }
        }
    }
    assert_eq!(mul(0x53, inv(0x53)), 1);
    // Two products from ISA-L's field, so that the polynomial can't drift together with the definition.
    assert_eq!((mul(2, 0x80), mul(0x8e, 2)), (0x1d, 1));
}

#[test]
#[should_panic(expected = "0 has no inverse")]
fn zero_has_no_inverse() {
    let _ = inv(0);
}

#[test]
fn every_coefficient_times_every_byte() {
    let all: Vec<u8> = (0..=255).collect();
    for tier in tiers() {
        for coefficient in 0..=255u8 {
            let products: Vec<u8> = all.iter().map(|&b| mul_by_definition(coefficient, b)).collect();
            let mut sum = vec![0; 256];
            mul_add(tier, coefficient, &all, &mut sum);
            assert_eq!(sum, products, "{tier}: mul_add by {coefficient}");
            let mut product = vec![MARGIN; 256];
            dot_product(tier, &Coefficients::new(1, 1, &[coefficient]), &[&all], &mut [&mut product]);
            assert_eq!(product, products, "{tier}: dot_product by {coefficient}");
        }
    }
}

/// Few enough for an interpreter (Miri; see the crate's documentation), which also looks for undefined behaviour.
#[test]
fn small_products() {
    for tier in tiers() {
        for bytes in [0, 1, 9, 33] {
            let sources: Vec<Vec<u8>> = (0..3).map(|i| random_bytes(i, bytes)).collect();
            check_dot_product(tier, 2, &normalised(2, 3), &sources, 3);
            let mut sum = sources[0].clone();
            mul_add(tier, 7, &sources[1], &mut sum);
            xor(tier, &sources[0], &mut sum);
            let products: Vec<u8> = sources[1].iter().map(|&b| mul_by_definition(7, b)).collect();
            assert_eq!(sum, products, "{tier}");
        }
    }
}

#[test]
fn dot_product_at_every_length_and_offset() {
    for tier in tiers() {
        for bytes in 0..600 {
            let sources: Vec<Vec<u8>> = (0..5).map(|i| random_bytes(i, bytes)).collect();
            for offset in [0, 1, 31, 63] {
                check_dot_product(tier, 4, &normalised(4, 5), &sources, offset);
                check_dot_product(tier, 3, &random_bytes(9, 15), &sources, offset);
            }
        }
    }
}

#[test]
fn dot_product_of_every_shape() {
    for tier in tiers() {
        for rows in (0..=10).chain([16]) {
            for columns in (1..=36).chain([65, 100]) {
                for bytes in [1, 45, 64, 270] {
                    if columns > 12 && (rows > 5 || bytes == 45) {
                        continue; // what is left out is covered by smaller shapes
                    }
                    let sources: Vec<Vec<u8>> = (0..columns).map(|i| random_bytes(i as u64, bytes)).collect();
                    check_dot_product(tier, rows, &normalised(rows, columns), &sources, 5);
                    check_dot_product(tier, rows, &random_bytes(3, rows * columns), &sources, 5);
                }
            }
        }
    }
}

/// Rows of ones that take turns, as an LRC's local parities do, at any place among the others.
#[test]
fn dot_product_with_local_rows() {
    for tier in tiers() {
        for groups in [vec![2, 1], vec![1, 1, 1], vec![6, 6], vec![3, 4, 5], vec![40, 2], vec![1, 33, 70]] {
            let columns = groups.iter().sum();
            for weighted in [0, 1, 2, 3, 4, 9] {
                let (mut rows, mut start) = (Vec::new(), 0);
                for group in &groups {
                    rows.push((0..columns).map(|c| u8::from((start..start + group).contains(&c))).collect::<Vec<u8>>());
                    start += group;
                }
                for i in 0..weighted {
                    rows.insert((i * 7) % (rows.len() + 1), random_bytes(i as u64, columns));
                }
                let matrix = rows.concat();
                for bytes in [40, 130, 300] {
                    let sources: Vec<Vec<u8>> = (0..columns).map(|i| random_bytes(i as u64, bytes)).collect();
                    check_dot_product(tier, rows.len(), &matrix, &sources, 3);
                }
            }
        }
    }
}

/// Large enough for stores past the caches, with aligned destinations and with others.
#[test]
fn dot_product_past_the_caches() {
    const BYTES: usize = (1 << 18) + 97;
    let sources: Vec<Vec<u8>> = (0..3).map(|i| random_bytes(i, BYTES)).collect();
    let regions: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
    for rows in [3, 6] {
        let matrix = normalised(rows, 3);
        let sums = expected(rows, &matrix, &regions);
        let crcs: Vec<u64> = regions.iter().copied().chain(sums.iter().map(Vec::as_slice)).map(crc64nvme).collect();
        for tier in tiers() {
            for (offset, fused) in [(0, false), (0, true), (8, false), (8, true)] {
                let mut buffers = vec![vec![MARGIN; BYTES + 200]; rows];
                let starts: Vec<usize> = buffers.iter().map(|b| 64 + b.as_ptr().align_offset(64) + offset).collect();
                let mut destinations: Vec<&mut [u8]> =
                    buffers.iter_mut().zip(&starts).map(|(buffer, &start)| &mut buffer[start..start + BYTES]).collect();
                let coefficients = Coefficients::new(rows, 3, &matrix);
                if fused {
                    let mut found = vec![0; 3 + rows];
                    dot_product_crc64(tier, &coefficients, &regions, &mut destinations, &mut found);
                    assert_eq!(found, crcs, "{tier}: CRCs at offset {offset}");
                } else {
                    dot_product(tier, &coefficients, &regions, &mut destinations);
                }
                for ((buffer, start), sum) in buffers.iter().zip(starts).zip(&sums) {
                    assert!(buffer[start..start + BYTES] == **sum, "{tier}: offset {offset}, fused: {fused}");
                    let margins = buffer[..start].iter().chain(&buffer[start + BYTES..]);
                    assert!(margins.copied().all(|b| b == MARGIN), "{tier}: margins at offset {offset}");
                }
            }
        }
    }
}

#[test]
fn running_crcs_over_pieces_are_those_of_the_whole() {
    let sources: Vec<Vec<u8>> = (0..4).map(|i| random_bytes(i, 3001)).collect();
    let coefficients = Coefficients::new(3, 4, &normalised(3, 4));
    for tier in tiers() {
        let mut crcs = vec![0; 7];
        let mut parity = vec![vec![0; 3001]; 3];
        let mut start = 0;
        for bytes in [0, 1, 1023, 64, 1500, 413] {
            let regions: Vec<&[u8]> = sources.iter().map(|source| &source[start..start + bytes]).collect();
            let mut to: Vec<&mut [u8]> = parity.iter_mut().map(|parity| &mut parity[start..start + bytes]).collect();
            dot_product_crc64(tier, &coefficients, &regions, &mut to, &mut crcs);
            start += bytes;
        }
        assert_eq!(start, 3001);
        let whole: Vec<u64> = sources.iter().chain(&parity).map(|region| crc64nvme(region)).collect();
        assert_eq!(crcs, whole, "{tier}");
    }
}

#[test]
fn dot_product_of_long_regions() {
    // Around the block size, where the loop starts again, with more than one group of rows.
    for tier in tiers() {
        for bytes in [4095, 4096, 4097, 4096 + 31, 4096 + 33, 2 * 4096, 3 * 4096 + 65, 100_003] {
            let sources: Vec<Vec<u8>> = (0..3).map(|i| random_bytes(i, bytes)).collect();
            check_dot_product(tier, 6, &normalised(6, 3), &sources, 11);
        }
    }
}

#[test]
fn all_zero_sources_give_zero() {
    for tier in tiers() {
        let source = vec![0; 333];
        let (mut a, mut b) = (vec![MARGIN; 333], vec![MARGIN; 333]);
        let coefficients = Coefficients::new(2, 2, &[1, 1, 1, 9]);
        dot_product(tier, &coefficients, &[&source, &source], &mut [&mut a, &mut b]);
        assert!(a.iter().chain(&b).all(|&byte| byte == 0), "{tier}");
    }
}

#[test]
fn accumulating_kernels_at_every_length_and_offset() {
    for tier in tiers() {
        for bytes in (0..300).chain([4097, 65_541]) {
            for offset in [0, 1, 15, 31] {
                let source = random_bytes(1, bytes + offset);
                for coefficient in [0, 1, 2, 0x8e, 255] {
                    let before = random_bytes(2, bytes);
                    let mut buffer = [&[MARGIN; 37][..], &before, &[MARGIN; 37]].concat();
                    mul_add(tier, coefficient, &source[offset..], &mut buffer[37..37 + bytes]);
                    let sums: Vec<u8> = before
                        .iter()
                        .zip(&source[offset..])
                        .map(|(a, &b)| a ^ mul_by_definition(coefficient, b))
                        .collect();
                    assert!(buffer[37..37 + bytes] == sums, "{tier}: mul_add {coefficient}, {bytes} bytes");
                    assert!(buffer[..37].iter().chain(&buffer[37 + bytes..]).all(|&b| b == MARGIN), "{tier}: margins");
                    if coefficient == 1 {
                        let mut sum = before.clone();
                        xor(tier, &source[offset..], &mut sum);
                        assert!(sum == sums, "{tier}: xor, {bytes} bytes");
                    }
                }
            }
        }
    }
}

/// A readable and writable buffer between two pages that fault when touched.
#[cfg(target_os = "linux")]
struct Guarded {
    map: *mut u8,
    page_bytes: usize,
    pages: usize,
}

#[cfg(target_os = "linux")]
impl Guarded {
    fn new(pages: usize) -> Self {
        // SAFETY: sysconf has no preconditions.
        let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), (pages + 2) * page_bytes, protection, flags, -1, 0) };
        assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let map = map.cast::<u8>();
        // SAFETY: the pages between the first and the last of the mapping just made, which nobody uses yet.
        let opened = unsafe {
            libc::mprotect(map.add(page_bytes).cast(), pages * page_bytes, libc::PROT_READ | libc::PROT_WRITE)
        };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        Self { map, page_bytes, pages }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: these pages are mapped readable and writable while self lives, zeroed, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.map.add(self.page_bytes), self.pages * self.page_bytes) }
    }

    /// The last `bytes` before the guard page, or the first ones after the other.
    fn region(&mut self, bytes: usize, at_end: bool) -> &mut [u8] {
        let all = self.bytes();
        let start = if at_end { all.len() - bytes } else { 0 };
        &mut all[start..start + bytes]
    }
}

#[cfg(target_os = "linux")]
impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows from it any more.
        let rc = unsafe { libc::munmap(self.map.cast(), (self.pages + 2) * self.page_bytes) };
        assert_eq!(rc, 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn kernels_touch_nothing_beyond_their_regions() {
    let matrix = normalised(5, 3);
    let coefficients = Coefficients::new(5, 3, &matrix);
    let mut sources: Vec<Guarded> = (0..3).map(|_| Guarded::new(2)).collect();
    let mut destinations: Vec<Guarded> = (0..5).map(|_| Guarded::new(2)).collect();
    for tier in tiers() {
        for bytes in (1..300).chain([4095, 4096, 4097, 8191, 8192]) {
            for at_end in [true, false] {
                for (i, source) in sources.iter_mut().enumerate() {
                    source.region(bytes, at_end).copy_from_slice(&random_bytes(i as u64, bytes));
                }
                let from: Vec<&[u8]> = sources.iter_mut().map(|s| &*s.region(bytes, at_end)).collect();
                let mut to: Vec<&mut [u8]> = destinations.iter_mut().map(|d| d.region(bytes, at_end)).collect();
                dot_product(tier, &coefficients, &from, &mut to);
                let sums = expected(5, &matrix, &from);
                for (found, sum) in to.iter().zip(&sums) {
                    assert!(**found == **sum, "{tier}: {bytes} bytes");
                }
                dot_product_crc64(tier, &coefficients, &from, &mut to, &mut [0; 8]);
                for (found, sum) in to.iter().zip(&sums) {
                    assert!(**found == **sum, "{tier}: {bytes} bytes, with CRCs");
                }
                let before = to[0].to_vec();
                mul_add(tier, 0x1f, from[0], to[0]);
                xor(tier, from[1], to[0]);
                for (at, &found) in to[0].iter().enumerate() {
                    let sum = before[at] ^ mul_by_definition(0x1f, from[0][at]) ^ from[1][at];
                    assert_eq!(found, sum, "{tier}: byte {at} of {bytes}");
                }
            }
        }
    }
}

/// The canary of the test above: a child that reads one byte too far must die of it.
#[cfg(target_os = "linux")]
#[test]
fn guard_pages_guard() {
    for at_end in [true, false] {
        let mut guarded = Guarded::new(1);
        let region = guarded.region(16, at_end).as_ptr();
        // SAFETY: the child only reads one byte, by design of a guard page, and leaves without running anything else.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the address is mapped (without access); the signal is the point, and its default action is set
            // because Rust's own handler would print, which a forked child must not.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                let beyond = if at_end { region.add(16) } else { region.wrapping_sub(1) };
                std::ptr::read_volatile(beyond);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: waits for the child just made; `status` outlives the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "status {status:#x}");
    }
}

#[test]
#[should_panic(expected = "sources of equal length")]
fn unequal_sources_panic() {
    dot_product(Tier::scalar(), &Coefficients::new(1, 2, &[1, 1]), &[&[1, 2], &[1]], &mut [&mut [0, 0]]);
}

#[test]
#[should_panic(expected = "destinations as long as the sources")]
fn short_destination_panics() {
    dot_product(Tier::detect(), &Coefficients::new(1, 1, &[1]), &[&[1, 2]], &mut [&mut [0]]);
}

#[test]
#[should_panic(expected = "one destination per row")]
fn missing_destination_panics() {
    dot_product(Tier::detect(), &Coefficients::new(1, 1, &[1]), &[&[1, 2]], &mut []);
}

#[test]
#[should_panic(expected = "regions of equal length")]
fn unequal_mul_add_panics() {
    mul_add(Tier::detect(), 3, &[1, 2], &mut [0]);
}

#[test]
fn tiers_by_name() {
    assert_eq!(Tier::present().next(), Some(Tier::scalar()));
    assert_eq!(Tier::present().last(), Some(Tier::detect()));
    for tier in tiers() {
        assert_eq!(Tier::from_name(tier.name()), Ok(tier));
    }
    assert_eq!(Avx2::new().map(Tier::from), Tier::from_name("avx2").ok());
    for name in ["", "AVX2", "avx512", "scalar ", "avx2-gfni"] {
        let error = Tier::from_name(name).unwrap_err();
        assert_eq!(error, TierError::Unknown { name: name.to_owned() });
        assert!(!error.is_retryable());
        for tier in Tier::present() {
            assert!(error.to_string().contains(tier.name()), "{error}");
        }
    }
}

/// Runs this test binary again with the variable set, since the environment is read once per process.
#[test]
fn variable_forces_a_tier_and_refuses_nonsense() {
    let report = |value: Option<&str>| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "tests::report_tier_from_env", "--ignored", "--nocapture"]);
        match value {
            Some(value) => child.env(crate::TIER_VARIABLE, value),
            None => child.env_remove(crate::TIER_VARIABLE),
        };
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(report(None).contains(&format!("{:?}", Ok::<_, TierError>(Tier::detect()))));
    for tier in Tier::present() {
        assert!(report(Some(tier.name())).contains(&format!("{:?}", Ok::<_, TierError>(tier))));
    }
    assert!(report(Some("abacus")).contains("Unknown { name: \"abacus\" }"));
    assert!(report(Some("")).contains("Unknown { name: \"\" }"));
}

#[test]
#[ignore = "run by variable_forces_a_tier_and_refuses_nonsense, in a process of its own"]
fn report_tier_from_env() {
    println!("{:?}", Tier::from_env());
}

proptest! {
    #[test]
    fn tiers_agree_with_the_definition(
        rows in 1usize..9, columns in 1usize..24, bytes in 1usize..700, offset in 0usize..64, seed: u64, ones: bool,
    ) {
        let matrix = if ones { normalised(rows, columns) } else { random_bytes(seed, rows * columns) };
        let sources: Vec<Vec<u8>> = (0..columns).map(|i| random_bytes(seed ^ i as u64, bytes)).collect();
        for tier in tiers() {
            check_dot_product(tier, rows, &matrix, &sources, offset);
        }
    }
}
