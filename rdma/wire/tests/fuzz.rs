//! Whatever is thrown at the parsers, they answer and don't panic; and what they accept, they write back so that it is
//! accepted again as the same. A bounded number of cases in the ordinary test run; for long runs:
//!
//! ```text
//! PROPTEST_CASES=100000000 cargo test --release -p penstock-rdma-wire --test fuzz
//! ```

use http::{HeaderMap, HeaderName, HeaderValue};
use penstock_rdma_wire::rcv2::{Cancel, Prepare, Ready};
use penstock_rdma_wire::shim::{self, Connect};
use penstock_rdma_wire::{DcDescriptor, EndpointToken, ObjectToken, RcToken, checksum, names};
use proptest::prelude::*;

/// A good token, broken in a place or two.
fn nearly() -> impl Strategy<Value = String> {
    let good = prop_oneof![
        Just("011201000000000000000000000000ffffc000020a0d0c0b0a00302211007f00000000400000000000010000".to_owned()),
        Just("00007f0011223000:00400000:0a0b0c0d:0000:000112:1:00000000000000000000ffffc000020a".to_owned()),
        Just(format!("rc:{}:00007f0011223000:00400000:0a0b0c0d", "0123456789abcdef".repeat(2))),
        Just("0".repeat(88)),
    ];
    let edit = (any::<prop::sample::Index>(), prop_oneof![Just("".to_owned()), "[0-9a-fA-F:;g ]", ".{0,3}"]);
    (good, proptest::collection::vec(edit, 0..3), "(:[0-9a-f]{0,17}){0,3}").prop_map(|(mut text, edits, tail)| {
        for (at, with) in edits {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if let Some(at) = (!boundaries.is_empty()).then(|| boundaries[at.index(boundaries.len())]) {
                let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
                text.replace_range(at..end, &with);
            }
        }
        text + &tail
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![nearly(), "\\PC{0,120}", "[0-9a-f:]{0,130}", "[0-9]{0,25}"]
}

const NAMES: [&str; 13] = [
    names::TOKEN,
    names::PROTOCOL,
    names::PSN,
    names::COOKIE,
    names::OP,
    names::TARGET,
    names::SIZE,
    names::OFFSET,
    names::SESSION,
    names::QPN,
    names::MR_ADDR,
    names::MR_RKEY,
    names::CHECKSUM_ALGORITHM,
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just("GET"),
        Just("PUT"),
        Just("hipobj-rc-v2"),
        Just("/b/k"),
        Just("4096"),
        Just("00ab12"),
        Just("deadbeef"),
        Just("00112233445566778899aabbccddeeff"),
        Just("0"),
        Just("2147483648"),
        Just("CRC32C"),
    ];
    prop_oneof![
        4 => words.prop_map(|word| word.as_bytes().to_vec()),
        2 => text().prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    proptest::collection::vec((prop::sample::select(NAMES.to_vec()), value()), 0..16).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(HeaderName::from_static(name), value);
            }
        }
        map
    })
}

proptest! {
    #[test]
    fn tokens(text in text()) {
        if let Ok(token) = EndpointToken::parse(&text) {
            prop_assert_eq!(EndpointToken::parse(&token.to_string()), Ok(token));
        }
        if let Ok(descriptor) = DcDescriptor::parse(&text) {
            prop_assert_eq!(DcDescriptor::parse(&descriptor.to_string()), Ok(descriptor));
        }
        if let Ok(token) = RcToken::parse(&text) {
            prop_assert_eq!(token.to_string(), text.to_lowercase());
        }
        if let Ok(token) = ObjectToken::parse(&text) {
            let again = match token {
                ObjectToken::Rc(token) => token.to_string(),
                ObjectToken::Dc(descriptor) => descriptor.to_string(),
                ObjectToken::V1(token) => token.to_string(),
            };
            prop_assert_eq!(ObjectToken::parse(&again), Ok(token));
        }
        if let Some(crc) = checksum::crc64nvme_from_base64(&text) {
            prop_assert_eq!(checksum::crc64nvme_base64(crc), text);
        }
    }

    #[test]
    fn requests(headers in header_map()) {
        if let Ok(prepare) = Prepare::parse(&headers) {
            prop_assert_eq!(Prepare::parse(&prepare.to_headers()), Ok(prepare));
        }
        if let Ok(ready) = Ready::parse(&headers) {
            prop_assert_eq!(Ready::parse(&ready.to_headers()), Ok(ready));
        }
        if let Ok(cancel) = Cancel::parse(&headers) {
            prop_assert_eq!(Cancel::parse(&cancel.to_headers()), Ok(cancel));
        }
        if let Ok(connect) = Connect::parse(&headers) {
            prop_assert_eq!(Connect::parse(&connect.to_headers()), Ok(connect));
        }
        let _session = shim::disconnect(&headers);
    }
}
