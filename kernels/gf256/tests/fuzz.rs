//! Every tier against scalar, on whatever shapes, offsets and bytes a fuzzer comes up with. A bounded number of inputs in the
//! ordinary test run; docs/TESTING.md says how to run it for hours, guided by coverage.

use bolero::TypeGenerator;
use penstock_gf256::{Coefficients, Tier, dot_product, dot_product_crc64, mul_add, xor};

/// Inputs in the ordinary run.
const INPUTS: usize = 2_000;
const MARGIN_BYTES: usize = 64;
const MARGIN: u8 = 0xa5;

#[derive(Debug, TypeGenerator)]
struct Product {
    rows: u8,
    columns: u8,
    bytes: u16,
    /// Of each region, taken in turn.
    offsets: [u8; 7],
    /// Taken in turn; a first row and a first column of ones where `normalised`.
    matrix: Vec<u8>,
    normalised: bool,
    /// Taken in turn by all regions.
    content: Vec<u8>,
    crcs: [u64; 3],
}

/// The bytes of a list, again and again, in another place for each `stream`.
fn turns(list: &[u8], stream: usize, bytes: usize) -> Vec<u8> {
    let spread = |at: usize| (at.wrapping_mul(31).wrapping_add(stream.wrapping_mul(0x9e37)) >> 3) as u8;
    (0..bytes)
        .map(|at| if list.is_empty() { spread(at) } else { list[(at + stream) % list.len()] ^ spread(at) })
        .collect()
}

impl Product {
    fn shape(&self) -> (usize, usize, usize) {
        // Mostly shapes that codes have, now and then what no kernel is unrolled for.
        let columns = 1 + usize::from(self.columns) % if self.columns > 250 { 120 } else { 34 };
        (usize::from(self.rows) % 17, columns, usize::from(self.bytes) % if columns > 34 { 300 } else { 2_100 })
    }

    fn matrix(&self) -> Vec<u8> {
        let (rows, columns, _) = self.shape();
        let mut matrix = turns(&self.matrix, 1, rows * columns);
        if self.normalised {
            matrix
                .iter_mut()
                .enumerate()
                .filter(|(at, _)| *at < columns || at % columns == 0)
                .for_each(|(_, c)| *c = 1);
        }
        matrix
    }

    /// Destinations and CRCs on a tier, margins included.
    fn on(&self, tier: Tier, fused: bool) -> (Vec<Vec<u8>>, Vec<u64>) {
        let (rows, columns, bytes) = self.shape();
        let offset = |stream: usize| usize::from(self.offsets[stream % self.offsets.len()]) % MARGIN_BYTES;
        let sources: Vec<Vec<u8>> =
            (0..columns).map(|i| [vec![0; offset(i)], turns(&self.content, i, bytes)].concat()).collect();
        let sources: Vec<&[u8]> = sources.iter().enumerate().map(|(i, source)| &source[offset(i)..]).collect();
        let mut room = vec![vec![MARGIN; bytes + 2 * MARGIN_BYTES]; rows];
        let mut destinations: Vec<&mut [u8]> =
            room.iter_mut().enumerate().map(|(row, room)| &mut room[offset(row + 3)..][..bytes]).collect();
        let coefficients = Coefficients::new(rows, columns, &self.matrix());
        let mut crcs: Vec<u64> = (0..columns + rows).map(|i| self.crcs[i % self.crcs.len()]).collect();
        if fused {
            dot_product_crc64(tier, &coefficients, &sources, &mut destinations, &mut crcs);
        } else {
            dot_product(tier, &coefficients, &sources, &mut destinations);
        }
        (room, crcs)
    }
}

#[test]
fn products_of_all_tiers_are_scalars() {
    bolero::check!().with_iterations(INPUTS).with_type::<Product>().for_each(|product| {
        for fused in [false, true] {
            let expected = product.on(Tier::scalar(), fused);
            for tier in Tier::present() {
                assert!(product.on(tier, fused) == expected, "{tier}, {:?}, fused: {fused}", product.shape());
            }
        }
    });
}

#[test]
fn sums_in_place_of_all_tiers_are_scalars() {
    bolero::check!().with_iterations(INPUTS).with_type::<(u8, u16, u8, u8, Vec<u8>)>().for_each(
        |(coefficient, bytes, from, to, content)| {
            let (bytes, from, to) = (usize::from(*bytes) % 3_000, usize::from(*from) % 64, usize::from(*to) % 64);
            let source = turns(content, 1, from + bytes);
            let on = |tier: Tier| {
                let mut room = turns(content, 2, bytes + 2 * MARGIN_BYTES);
                mul_add(tier, *coefficient, &source[from..], &mut room[to..][..bytes]);
                xor(tier, &source[from..], &mut room[to..][..bytes]);
                room
            };
            let expected = on(Tier::scalar());
            for tier in Tier::present() {
                assert!(on(tier) == expected, "{tier}: {coefficient} times {bytes} bytes");
            }
        },
    );
}
