//! The document's vectors, the lenient rules, and properties of every token and header.

use std::net::Ipv4Addr;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::rcv2::{self, Cancel, Operation, Prepare, Ready};
use crate::shim::Connect;
use crate::{DcDescriptor, EndpointToken, Family, Gid, ObjectToken, RcToken, SessionId, WireError, checksum, names};

const V1: &str = "011201000000000000000000000000ffffc000020a0d0c0b0a00302211007f00000000400000000000010000";
const DC: &str = "00007f0011223000:00400000:0a0b0c0d:0000:000112:1:00000000000000000000ffffc000020a";

fn gid() -> Gid {
    Gid::from_ipv4(Ipv4Addr::new(192, 0, 2, 10))
}

fn endpoint() -> EndpointToken {
    EndpointToken {
        transport: 1,
        qpn: 0x112,
        gid: gid(),
        rkey: 0x0a0b_0c0d,
        address: 0x7f00_1122_3000,
        length: 0x40_0000,
        port: 1,
        lid: 0,
    }
}

#[test]
fn the_documents_endpoint() {
    assert_eq!(EndpointToken::parse(V1).unwrap(), endpoint());
    assert_eq!(endpoint().to_string(), V1);
    assert_eq!(EndpointToken::parse(&V1.to_uppercase()).unwrap(), endpoint());
    let with = |suffix: &str| EndpointToken::parse(&format!("{V1}{suffix}"));
    let moved = with(":00007f0000000000:0000000000001000").unwrap();
    assert_eq!((moved.address, moved.length), (0x7f00_0000_0000, 0x1000));
    // Zero overrides nothing; fewer digits do.
    assert_eq!(with(":0000000000000000:0000000000000000").unwrap(), endpoint());
    assert_eq!(with(":1:2").unwrap(), EndpointToken { address: 1, length: 2, ..endpoint() });
    for bad in [":", ":1", ":1:", "::1", ":1:2:3", ":g:1", ":11111111111111111:1", ":+1:1", " :1:1"] {
        assert!(with(bad).is_err(), "{bad}");
    }
    for bad in ["", &V1[1..], &format!("{V1}0"), &V1.replace('f', "g"), &"ü".repeat(44)] {
        assert!(EndpointToken::parse(bad).is_err(), "{bad}");
    }
    assert!(EndpointToken::parse(&"0".repeat(88)).unwrap().is_zero());
}

#[test]
fn the_documents_descriptor() {
    assert_eq!(DC.len(), 81);
    let want = DcDescriptor {
        address: 0x7f00_1122_3000,
        size: 0x40_0000,
        rkey: 0x0a0b_0c0d,
        lid: 0,
        dct: 0x112,
        gid: Some(gid()),
    };
    assert_eq!(DcDescriptor::parse(DC).unwrap(), want);
    assert_eq!(want.to_string(), DC);
    for good in [format!("{DC};"), format!("{DC}\0"), DC.to_uppercase()] {
        assert_eq!(DcDescriptor::parse(&good).unwrap(), want, "{good}");
    }
    let appended = DcDescriptor::parse(&format!("{DC}:0000000000000010:0000000000000020")).unwrap();
    assert_eq!((appended.address, appended.size), (0x10, 0x20));
    for bad in [
        &DC[1..],
        &format!("{DC}:0000000000000010"),
        &format!("{DC}:0000000000000010:0000000100000000"),
        &format!("{DC}:10:20"),
        &DC.replace(":1:", ":2:"),
        &DC.replace(':', ";"),
        &format!("{DC}:1:2:3:4:5:6"),
        "::::::",
    ] {
        assert!(DcDescriptor::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn shim_tokens() {
    let text = format!("rc:{}:00007f0011223000:00400000:0a0b0c0d", "0123456789abcdef".repeat(2));
    assert_eq!(text.len(), 70);
    let token = RcToken::parse(&text).unwrap();
    assert_eq!(token.to_string(), text);
    assert_eq!((token.address, token.size, token.rkey), (0x7f00_1122_3000, 0x40_0000, 0x0a0b_0c0d));
    assert_eq!(ObjectToken::parse(&text), Ok(ObjectToken::Rc(token)));
    for bad in [
        text.replace("rc:", "RC:"),
        text.replace(":00400000:", ":00000000:"),
        text.replace("00007f0011223000", "ffffffffffffffff"),
        format!("{text}0"),
        format!("{text}:"),
        text[..69].to_owned(),
        "rc:".to_owned(),
        "rc:::::".to_owned(),
    ] {
        assert!(ObjectToken::parse(&bad).is_err(), "{bad}");
    }
}

#[test]
fn tokens_are_told_by_their_shape() {
    assert_eq!(ObjectToken::parse(V1), Ok(ObjectToken::V1(endpoint())));
    assert!(matches!(ObjectToken::parse(DC), Ok(ObjectToken::Dc(_))));
    for bad in ["", "x", "501", &"a".repeat(10_000), &V1[..87], "true"] {
        assert!(matches!(ObjectToken::parse(bad), Err(WireError::Malformed { .. })), "{bad}");
    }
}

#[test]
fn checksums_are_canonical() {
    assert_eq!(checksum::crc64nvme_base64(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
    assert_eq!(checksum::crc64nvme_base64(0), "AAAAAAAAAAA=");
    assert_eq!(checksum::crc64nvme_header(0xae8b_1486_0a79_9888), "CRC64NVME rosUhgp5mIg=");
    assert_eq!(checksum::crc64nvme_from_header("CRC64NVME rosUhgp5mIg="), Some(0xae8b_1486_0a79_9888));
    // A pad bit that is set, no padding, too short, too long.
    for bad in ["rosUhgp5mIh=", "rosUhgp5mIg", "rosUhgp5mA==", "rosUhgp5mIiI", "", "rosUhgp5 mIg="] {
        assert_eq!(checksum::crc64nvme_from_base64(bad), None, "{bad}");
    }
}

#[test]
fn gids_answer_their_own_family() {
    let v4 = gid();
    let other_v4 = Gid::from_ipv4(Ipv4Addr::new(10, 0, 0, 1));
    let mut link_local = Gid([0; 16]);
    (link_local.0[0], link_local.0[1], link_local.0[15]) = (0xfe, 0x80, 7);
    let mut global = Gid([0; 16]);
    (global.0[0], global.0[1], global.0[15]) = (0x20, 0x01, 9);
    assert_eq!([v4, link_local, global].map(|gid| gid.family()), [Family::Ipv4Mapped, Family::LinkLocal, Family::Ipv6]);
    let ours = [Gid::default(), link_local, other_v4, v4];
    // The same one first, for a client on our own port; else the first of the family.
    assert_eq!(v4.match_from(&ours), Some(3));
    assert_eq!(Gid::from_ipv4(Ipv4Addr::new(10, 0, 0, 2)).match_from(&ours), Some(2));
    assert_eq!(link_local.match_from(&ours), Some(1));
    assert_eq!(global.match_from(&ours), None);
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn prepare_headers(change: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = headers(&[
        (names::PROTOCOL, "hipobj-rc-v2"),
        (names::TOKEN, V1),
        (names::PSN, "00ab12"),
        (names::COOKIE, "deadbeef"),
        (names::OP, "GET"),
        (names::TARGET, "/bucket/a%20key?versionId=null"),
        (names::SIZE, "4096"),
    ]);
    for (name, value) in change {
        map.remove(*name);
        if !value.is_empty() {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
    }
    map
}

fn prepare(change: &[(&'static str, &str)]) -> Result<Prepare, WireError> {
    Prepare::parse(&prepare_headers(change))
}

#[test]
fn prepare_is_lenient_where_peers_differ() {
    let base = prepare(&[]).unwrap();
    assert_eq!((base.psn, base.cookie, base.size, base.offset), (0xab12, 0xdead_beef, 4096, 0));
    assert_eq!(base.operation, Operation::Get);
    assert_eq!(base.target, "/bucket/a%20key?versionId=null");
    let zeros = "0".repeat(88);
    let suffixed = format!("{zeros}:0:0");
    let good: &[&[(&'static str, &str)]] = &[
        &[(names::PSN, "1")],
        &[(names::PSN, "00FFFFFF")],
        &[(names::OP, "put")],
        &[(names::COOKIE, "00000000")],
        &[(names::OFFSET, "17")],
        &[(names::OFFSET, "0"), (names::OP, "PUT")],
        &[(names::TOKEN, &suffixed)],
        &[(names::QPN, "112"), (names::MR_ADDR, "7f00"), (names::MR_RKEY, "0")],
        &[(names::CHECKSUM_ALGORITHM, "crc32c")],
        &[(names::SIZE, "2147483647")],
    ];
    for change in good {
        assert!(prepare(change).is_ok(), "{change:?}: {:?}", prepare(change));
    }
    assert_eq!(prepare(&[(names::TOKEN, &zeros)]).unwrap().peer, None);
    for too_large in ["2147483648", "99999999999999999999999999"] {
        assert_eq!(prepare(&[(names::SIZE, too_large)]), Err(WireError::TooLarge { max: rcv2::SIZE_BYTES_MAX }));
    }
}

#[test]
fn prepare_refuses_what_it_must() {
    let dc = format!("00{}", &V1[2..]);
    let no_gid = format!("{}{}{}", &V1[..10], "0".repeat(32), &V1[42..]);
    let bad: &[&[(&'static str, &str)]] = &[
        &[(names::TOKEN, "")],
        &[(names::TOKEN, &V1[1..])],
        &[(names::TOKEN, &dc)],
        &[(names::TOKEN, &no_gid)],
        &[(names::PSN, "")],
        &[(names::PSN, "000000")],
        &[(names::PSN, "01000000")],
        &[(names::PSN, "000000001")],
        &[(names::COOKIE, "")],
        &[(names::COOKIE, "1")],
        &[(names::COOKIE, "123456789")],
        &[(names::OP, "HEAD")],
        &[(names::OP, "")],
        &[(names::SIZE, "0")],
        &[(names::SIZE, "-1")],
        &[(names::SIZE, "0x10")],
        &[(names::SIZE, "")],
        &[(names::OFFSET, "1"), (names::OP, "PUT")],
        &[(names::OFFSET, "x")],
        &[(names::OFFSET, "18446744073709551615")],
        &[(names::TARGET, "")],
        &[(names::TARGET, "/bucket")],
        &[(names::TARGET, "/bucket/")],
        &[(names::TARGET, "bucket/key")],
        &[(names::TARGET, "//key")],
        &[(names::TARGET, "/.hipobj-rc/prepare")],
        &[(names::TARGET, "/bucket/a key")],
        &[(names::TARGET, "/bucket/key#x")],
        &[(names::CHECKSUM_ALGORITHM, "MD5")],
    ];
    for change in bad {
        assert!(matches!(prepare(change), Err(WireError::Malformed { .. })), "{change:?}: {:?}", prepare(change));
    }
    let mut twice = prepare_headers(&[]);
    twice.append(names::SIZE, HeaderValue::from_static("4096"));
    assert!(Prepare::parse(&twice).is_err());
}

#[test]
fn the_protocol_is_ours_or_nothing() {
    assert!(rcv2::check_protocol(&rcv2::with_protocol()).is_ok());
    for other in ["hipobj-rc-v1", "HIPOBJ-RC-V2", "x"] {
        let refused = rcv2::check_protocol(&headers(&[(names::PROTOCOL, other)]));
        assert_eq!(refused, Err(WireError::Protocol { spoken: rcv2::PROTOCOL }));
    }
    assert!(rcv2::check_protocol(&HeaderMap::new()).is_err());
}

#[test]
fn ready_and_cancel() {
    let session = "00112233445566778899aabbccddeeff";
    let ready = |pairs: &[(&'static str, &str)]| {
        let mut all = vec![(names::SESSION, session), (names::COOKIE, "00000007"), (names::QPN, "1a")];
        all.retain(|(name, _)| !pairs.iter().any(|(other, _)| other == name));
        all.extend(pairs.iter().filter(|(_, value)| !value.is_empty()));
        Ready::parse(&headers(&all))
    };
    assert_eq!(ready(&[]).unwrap().memory, None);
    assert_eq!(ready(&[(names::MR_ADDR, "7f00"), (names::MR_RKEY, "0b")]).unwrap().memory, Some((0x7f00, 0xb)));
    // One of them zero is as if neither were there.
    assert_eq!(ready(&[(names::MR_ADDR, "7f00"), (names::MR_RKEY, "0")]).unwrap().memory, None);
    for bad in [
        (names::QPN, ""),
        (names::QPN, "0"),
        (names::QPN, "1000000"),
        (names::SESSION, "00112233"),
        (names::COOKIE, "7"),
        (names::MR_ADDR, "12345678123456781"),
        (names::MR_RKEY, "123456781"),
    ] {
        assert!(ready(&[bad]).is_err(), "{bad:?}");
    }
    let cancel = |cookie: &[(&'static str, &str)]| {
        let mut all = vec![(names::SESSION, session)];
        all.extend(cookie);
        Cancel::parse(&headers(&all)).map(|cancel| cancel.cookie)
    };
    assert_eq!(cancel(&[]), Ok(None));
    assert_eq!(cancel(&[(names::COOKIE, "00000000")]), Ok(None));
    assert_eq!(cancel(&[(names::COOKIE, "00000007")]), Ok(Some(7)));
    assert!(cancel(&[(names::COOKIE, "seven")]).is_err());
}

#[test]
fn answers_are_in_the_form_that_all_clients_read() {
    let prepared = rcv2::Prepared { endpoint: endpoint(), session: SessionId(7), psn: 0xab };
    let headers = prepared.to_headers();
    let get = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(get(names::PROTOCOL), "hipobj-rc-v2");
    assert_eq!(get(names::REPLY), format!("200:{V1}"));
    assert_eq!(get(names::SESSION), format!("{:032x}", 7));
    assert_eq!(get(names::PSN), "0000ab");
    assert_eq!(get(names::QPN), "112");
    assert_eq!(get(names::MR_ADDR), "7f0011223000");
    assert_eq!(get(names::MR_RKEY), "a0b0c0d");
    let bare = rcv2::Prepared { endpoint: EndpointToken { length: 0, ..endpoint() }, ..prepared }.to_headers();
    assert!(!bare.contains_key(names::MR_ADDR) && !bare.contains_key(names::MR_RKEY));
    let done = rcv2::Final {
        cookie: 0x0abc,
        bytes: 4096,
        etag: Some("\"e\"".to_owned()),
        version_id: Some("v".to_owned()),
        checksum: rcv2::Checksum::Crc64Nvme(0xae8b_1486_0a79_9888),
    };
    let headers = done.to_headers();
    let get = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(get(names::COOKIE), "00000abc");
    assert_eq!(get(names::BYTES_TRANSFERRED), "4096");
    assert_eq!(get(names::CHECKSUM), "CRC64NVME rosUhgp5mIg=");
    assert_eq!(get(names::CHECKSUM_CRC64NVME), "rosUhgp5mIg=");
    assert_eq!((get(names::VERSION_ID), get(names::S3_VERSION_ID)), ("v".to_owned(), "v".to_owned()));
    assert_eq!(get(names::ETAG), "\"e\"");
}

#[test]
fn connects() {
    let connect = |token: &str, psn: &str| Connect::parse(&headers(&[(names::TOKEN, token), (names::PSN, psn)]));
    assert_eq!(connect(V1, "000001").unwrap(), Connect { peer: endpoint(), psn: 1 });
    let no_qpn = format!("01{}{}", "0".repeat(8), &V1[10..]);
    for (token, psn) in [(V1, "000000"), (V1, "1"), (V1, "0000001"), (&"0".repeat(88), "000001"), (&no_qpn, "000001")] {
        assert!(connect(token, psn).is_err(), "{token} {psn}");
    }
    assert_eq!(
        crate::shim::disconnect(&headers(&[(names::SESSION, &"0f".repeat(16))])),
        Some(SessionId(u128::from_be_bytes([0x0f; 16])))
    );
    assert_eq!(crate::shim::disconnect(&headers(&[(names::SESSION, "x")])), None);
    assert_eq!(crate::shim::disconnect(&HeaderMap::new()), None);
}

prop_compose! {
    fn any_endpoint()(
        transport in any::<u8>(), qpn in any::<u32>(), gid in any::<[u8; 16]>(), rkey in any::<u32>(),
        address in any::<u64>(), length in any::<u64>(), port in any::<u8>(), lid in any::<u16>(),
    ) -> EndpointToken {
        EndpointToken { transport, qpn, gid: Gid(gid), rkey, address, length, port, lid }
    }
}

prop_compose! {
    fn any_prepare()(
        mut peer in proptest::option::of(any_endpoint()), psn in 1..=0xff_ffff_u32, cookie in any::<u32>(),
        get in any::<bool>(), key in "[a-z0-9._~%/-]{1,40}", query in "(\\?[a-zA-Z0-9=&%]{0,20})?",
        size in 1..=rcv2::SIZE_BYTES_MAX, offset in 0..u64::MAX / 2, crc32c in any::<bool>(),
    ) -> Prepare {
        if let Some(peer) = &mut peer {
            peer.transport = 1;
            peer.gid.0[0] |= 1;
        }
        Prepare {
            peer, psn, cookie, size,
            operation: if get { Operation::Get } else { Operation::Put },
            target: format!("/bucket/{key}{query}"),
            offset: if get { offset } else { 0 },
            checksum: if crc32c { checksum::Algorithm::Crc32c } else { checksum::Algorithm::Crc64Nvme },
        }
    }
}

proptest! {
    #[test]
    fn endpoints_come_back(endpoint in any_endpoint()) {
        let text = endpoint.to_string();
        prop_assert_eq!(text.len(), 88);
        prop_assert_eq!(EndpointToken::parse(&text).unwrap(), endpoint);
        prop_assert_eq!(ObjectToken::parse(&text), Ok(ObjectToken::V1(endpoint)));
    }

    #[test]
    fn descriptors_come_back(
        address in any::<u64>(), size in any::<u32>(), rkey in any::<u32>(), lid in any::<u16>(), dct in 0..=0xff_ffff_u32,
        gid in proptest::option::of(any::<[u8; 16]>()),
    ) {
        let descriptor = DcDescriptor { address, size, rkey, lid, dct, gid: gid.map(Gid) };
        let text = descriptor.to_string();
        prop_assert_eq!(text.len(), 81);
        prop_assert_eq!(ObjectToken::parse(&text), Ok(ObjectToken::Dc(descriptor)));
    }

    #[test]
    fn shim_tokens_come_back(
        connection in any::<u128>(), address in 0..u64::MAX / 2, size in 1..=u32::MAX, rkey in any::<u32>(),
    ) {
        let token = RcToken { connection: SessionId(connection), address, size, rkey };
        prop_assert_eq!(ObjectToken::parse(&token.to_string()), Ok(ObjectToken::Rc(token)));
    }

    #[test]
    fn prepares_come_back(prepare in any_prepare()) {
        prop_assert_eq!(Prepare::parse(&prepare.to_headers()), Ok(prepare));
    }

    #[test]
    fn readies_and_cancels_come_back(
        session in any::<u128>(), cookie in any::<u32>(), qpn in 1..=0xff_ffff_u32,
        memory in proptest::option::of((1..=u64::MAX, 1..=u32::MAX)),
    ) {
        let session = SessionId(session);
        let ready = Ready { session, cookie, qpn, memory };
        prop_assert_eq!(Ready::parse(&ready.to_headers()), Ok(ready));
        let cancel = Cancel { session, cookie: (cookie != 0).then_some(cookie) };
        prop_assert_eq!(Cancel::parse(&cancel.to_headers()), Ok(cancel));
    }

    #[test]
    fn checksums_come_back(crc in any::<u64>()) {
        let text = checksum::crc64nvme_base64(crc);
        prop_assert!(text.len() == 12 && text.ends_with('='));
        prop_assert_eq!(checksum::crc64nvme_from_header(&checksum::crc64nvme_header(crc)), Some(crc));
    }
}
