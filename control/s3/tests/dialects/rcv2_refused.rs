//! hipobj-rc-v2, as it should be refused, cut short and cleaned up.

use std::time::Duration;

use bytes::Bytes;
use penstock_rdma_front::{PeerAccess, RdmaOptions, Reason};

use crate::client::Request;
use crate::lab::{Client, Lab, content, link_local, other_key};
use crate::rcv2::{COOKIE, Session, changed, get, post, prepare, put, ready, session};

async fn lab_with(change: impl FnOnce(&mut RdmaOptions)) -> Lab {
    let mut options = RdmaOptions::default();
    change(&mut options);
    Lab::with(options).await
}

/// A session for a GET of `/bucket/k`, and its client with memory and a receive.
async fn get_session(lab: &Lab, size: usize) -> (Session, Client, (u64, u32)) {
    let client = lab.client(PeerAccess::Write);
    let window = client.pair.lend(vec![0xee; size], PeerAccess::Write).unwrap();
    client.pair.expect().unwrap();
    let session = session(&lab.house.send(prepare(&client, "GET", "/bucket/k", size)).await);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    (session, client, (window.address, window.rkey))
}

async fn put_session(lab: &Lab, size: usize) -> (Session, Client) {
    let client = lab.client(PeerAccess::None);
    let session = session(&lab.house.send(prepare(&client, "PUT", "/bucket/k", size)).await);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    (session, client)
}

/// Waits until the READY that was sent before is under way. The one that asks has a wrong cookie, so that it can't be taken for
/// the first: 403 while the session is prepared, 409 once it executes.
async fn until_executing(lab: &Lab, ready: &Request) {
    let wrong = changed(ready.clone(), "x-amz-rdma-cookie", Some("00000001"));
    for _ in 0..10_000 {
        match lab.house.send(wrong.clone()).await.status {
            403 => tokio::time::sleep(Duration::from_millis(1)).await,
            409 => return,
            status => panic!("{status}"),
        }
    }
    panic!("READY is never under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_prepares() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let client = lab.client(PeerAccess::Write);
    let base = prepare(&client, "GET", "/bucket/k", 5);
    let token = client.token();
    let transport_0 = format!("00{}", &token[2..]);
    let no_gid = format!("{}{}{}", &token[..10], "0".repeat(32), &token[42..]);
    let cases: &[(&str, Option<&str>, u16)] = &[
        ("x-amz-rdma-psn", Some("000000"), 400),
        ("x-amz-rdma-psn", Some("1000000"), 400),
        ("x-amz-rdma-psn", Some("xyz"), 400),
        ("x-amz-rdma-psn", None, 400),
        ("x-amz-rdma-cookie", None, 400),
        ("x-amz-rdma-cookie", Some("12"), 400),
        ("x-amz-rdma-token", None, 400),
        ("x-amz-rdma-token", Some("0101"), 400),
        ("x-amz-rdma-token", Some(&transport_0), 400),
        ("x-amz-rdma-token", Some(&no_gid), 400),
        ("x-amz-rdma-op", Some("DELETE"), 400),
        ("x-amz-rdma-op", None, 400),
        ("x-amz-rdma-size", Some("0"), 400),
        ("x-amz-rdma-size", Some("-5"), 400),
        ("x-amz-rdma-size", Some("five"), 400),
        ("x-amz-rdma-size", None, 400),
        ("x-amz-rdma-size", Some("2147483648"), 413),
        ("x-amz-rdma-size", Some("99999999999999999999"), 413),
        ("x-amz-rdma-offset", Some("x"), 400),
        ("x-amz-rdma-target", None, 400),
        ("x-amz-rdma-target", Some("/bucket"), 400),
        ("x-amz-rdma-target", Some("bucket/k"), 400),
        ("x-amz-rdma-target", Some("/bucket/nothing"), 404),
        ("x-amz-rdma-target", Some("/nowhere/k"), 404),
        // What S3 does not do over HTTP it does not do here.
        ("x-amz-rdma-target", Some("/bucket/k?acl"), 501),
        ("x-amz-rdma-size", Some("6"), 416),
        ("x-amz-rdma-offset", Some("1"), 416),
        ("x-amz-rdma-offset", Some("5"), 416),
    ];
    for (name, value, status) in cases {
        let reply = lab.house.send(changed(base.clone(), name, *value)).await;
        assert_eq!(reply.status, *status, "{name}: {value:?}: {}", reply.text());
        assert_eq!(reply.header("x-amz-rdma-session"), None);
        assert_eq!(reply.header("x-amz-rdma-reply"), None, "no reply header beside an error of these calls");
    }
    let put_with_offset = changed(base.clone(), "x-amz-rdma-op", Some("PUT")).header("x-amz-rdma-offset", "1");
    lab.house.expect(put_with_offset, 400).await;
    let nowhere = changed(changed(base.clone(), "x-amz-rdma-op", Some("PUT")), "x-amz-rdma-target", Some("/nowhere/k"));
    lab.house.refused(nowhere, 404, "NoSuchBucket").await;
    // Only once (nobody can say which was signed), and a POST without a body.
    assert!(lab.house.send(base.clone().header("x-amz-rdma-size", "5")).await.status >= 400);
    lab.house.expect(base.clone().body("x"), 400).await;
    let mut request = base;
    request.method = "PUT".to_owned();
    lab.house.expect(request, 405).await;
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_told_to_use_http() {
    let lab = Lab::new().await;
    let client = lab.client(PeerAccess::Write);
    for call in ["prepare", "ready", "cancel"] {
        for protocol in [None, Some("hipobj-rc-v1"), Some("penstock")] {
            let mut request = prepare(&client, "GET", "/bucket/k", 5);
            request.path = format!("/.hipobj-rc/{call}");
            let reply = lab.house.send(changed(request, "x-amz-rdma-protocol", protocol)).await;
            assert_eq!(reply.status, 501, "{}", reply.text());
            assert_eq!(reply.header("x-amz-rdma-protocol-status"), Some("unsupported"));
            assert_eq!(reply.header("x-amz-rdma-reply"), None);
        }
    }
    assert_eq!(lab.front.stats().declined(Reason::Protocol), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_calls_unsigned_or_with_a_header_that_is_not() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let client = lab.client(PeerAccess::Write);
    for call in ["prepare", "ready", "cancel"] {
        let mut request = prepare(&client, "GET", "/bucket/k", 5);
        request.path = format!("/.hipobj-rc/{call}");
        let mut connection = lab.house.connect().await;
        connection.write(&request.anonymous()).await;
        assert_eq!(connection.reply("POST").await.status, 403);
        lab.house.expect(request.clone().signer(|signer| signer.secret_key = "guess".to_owned()), 403).await;
        // Each header in turn is sent and not signed.
        for (name, value) in request.headers.clone() {
            let reply = lab.house.send(changed(request.clone(), &name, None).unsigned(&name, &value)).await;
            assert_eq!(reply.status, 403, "{call} {name}: {}", reply.text());
        }
    }
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_that_does_not_fit_leaves_the_session() {
    let lab = Lab::new().await;
    let data = content(5000, 1);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    let (session, client, memory) = get_session(&lab, 5000).await;
    let good = ready(&session, &client, Some(memory));
    lab.house.expect(changed(good.clone(), "x-amz-rdma-cookie", Some("00000001")), 403).await;
    lab.house.expect(other_key(good.clone()), 403).await;
    lab.house.expect(changed(good.clone(), "x-amz-rdma-qpn", None), 400).await;
    lab.house.expect(changed(good.clone(), "x-amz-rdma-qpn", Some("0")), 400).await;
    lab.house.expect(ready(&session, &client, None), 400).await;
    lab.house.expect(ready(&session, &client, Some((memory.0, 0))), 400).await;
    lab.house.expect(changed(good.clone(), "x-amz-rdma-session", Some(&"0".repeat(32))), 409).await;
    lab.house.expect(changed(good.clone(), "x-amz-rdma-session", Some("0")), 400).await;
    let cancel = post("cancel").header("x-amz-rdma-session", &session.id);
    lab.house.expect(other_key(cancel.clone()), 204).await;
    lab.house.expect(cancel.header("x-amz-rdma-cookie", "00000001"), 204).await;
    lab.house.expect(good.clone(), 200).await;
    assert!(client.pair.take_back().unwrap() == data);
    // And once only.
    lab.house.expect(good, 409).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_twice_at_once() {
    let lab = Lab::new().await;
    let data = content(1000, 2);
    let (session, client) = put_session(&lab, 1000).await;
    let (address, rkey) = session.memory.unwrap();
    let request = ready(&session, &client, None);
    let mut first = lab.house.connect().await;
    first.write(&request.signed()).await;
    // The first is under way when the second is refused: it waits for data that comes after that.
    until_executing(&lab, &request).await;
    lab.house.refused(request, 409, "InvalidSession").await;
    client.pair.write(Bytes::from(data.clone()), address, rkey, Some(COOKIE)).await.unwrap();
    let reply = first.reply("POST").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(lab.over_tcp("k").await == data);
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_expire() {
    let lab = lab_with(|options| options.prepare_timeout = Duration::from_millis(50)).await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let (session, client, memory) = get_session(&lab, 5).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    lab.house.refused(ready(&session, &client, Some(memory)), 409, "InvalidSession").await;
    // What it held is given back without anybody asking.
    lab.assert_held(0, 0, 0).await;
    assert_eq!(client.pair.take_back().unwrap(), [0xee; 5]);
    lab.house.refused(ready(&session, &client, Some(memory)), 409, "InvalidSession").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling() {
    let lab = Lab::new().await;
    let cancel = |id: &str| post("cancel").header("x-amz-rdma-session", id);
    lab.house.expect(cancel(&"ab".repeat(16)), 204).await;
    lab.house.expect(cancel("ab"), 400).await;
    // Prepared.
    let (session, client) = put_session(&lab, 100).await;
    lab.assert_held(1, 0, 1).await;
    lab.house.expect(cancel(&session.id).header("x-amz-rdma-cookie", "00000000"), 204).await;
    lab.assert_held(0, 0, 0).await;
    lab.house.expect(ready(&session, &client, None), 409).await;
    // Executing.
    let (session, client) = put_session(&lab, 100).await;
    let mut executing = lab.house.connect().await;
    executing.write(&ready(&session, &client, None).signed()).await;
    until_executing(&lab, &ready(&session, &client, None)).await;
    lab.house.expect(cancel(&session.id), 204).await;
    // The answer says that nothing is held and nothing more can be written.
    assert_eq!(lab.front.held(), (0, 0, 0));
    let (address, rkey) = session.memory.unwrap();
    let late = client.pair.write(Bytes::from(vec![1; 100]), address, rkey, Some(COOKIE));
    assert!(!matches!(tokio::time::timeout(Duration::from_secs(1), late).await, Ok(Ok(()))), "written after CANCEL");
    assert_eq!(executing.reply("POST").await.status, 409);
    lab.assert_absent("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_is_what_was_announced() {
    let lab = Lab::new().await;
    for (bytes, cookie) in [(99, COOKIE), (0, COOKIE), (100, COOKIE + 1)] {
        let (session, client) = put_session(&lab, 100).await;
        let (address, rkey) = session.memory.unwrap();
        let answering = lab.house.send(ready(&session, &client, None));
        let writing = client.pair.write(Bytes::from(vec![7; bytes]), address, rkey, Some(cookie));
        let (reply, _written) = tokio::join!(answering, writing);
        assert_eq!((reply.status, reply.code().as_str()), (500, "RDMATransferFailed"), "{}", reply.text());
        lab.assert_absent("k").await;
    }
    // More than the staging memory holds: our NIC refuses it.
    let (session, client) = put_session(&lab, 100).await;
    let (address, rkey) = session.memory.unwrap();
    let answering = lab.house.send(ready(&session, &client, None));
    let writing = client.pair.write(Bytes::from(vec![7; 101]), address, rkey, Some(COOKIE));
    let (reply, written) = tokio::join!(answering, writing);
    assert!(written.is_err());
    assert_eq!(reply.status, 500, "{}", reply.text());
    lab.assert_absent("k").await;
    assert_eq!(lab.front.stats().declined(Reason::Mismatch), 3);
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_writes_is_not_waited_for() {
    let lab = lab_with(|options| options.transfer_timeout = Duration::from_millis(300)).await;
    let (session, client) = put_session(&lab, 100).await;
    lab.house.refused(ready(&session, &client, None), 408, "RequestTimeout").await;
    lab.assert_absent("k").await;
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_http_connection_ends_is_forgotten() {
    let lab = Lab::new().await;
    let (session, client) = put_session(&lab, 100).await;
    let mut executing = lab.house.connect().await;
    executing.write(&ready(&session, &client, None).signed()).await;
    until_executing(&lab, &ready(&session, &client, None)).await;
    drop(executing);
    lab.assert_held(0, 0, 0).await;
    lab.assert_absent("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dies_in_the_middle_of_a_get() {
    let lab = lab_with(|options| options.transfer_timeout = Duration::from_secs(10)).await;
    let data = content(4 << 20, 5);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    // Its queue pair is gone before READY is answered.
    let (session, client, memory) = get_session(&lab, 4 << 20).await;
    let request = ready(&session, &client, Some(memory));
    if let Some(fabric) = &lab.fabric {
        // In memory, after the first piece has been written.
        fabric.kill_after(client.pair.number(), 1);
    } else {
        drop(client);
    }
    // Soft-RoCE's retries to a queue pair that is gone may never end (Linux 6.1): then it is our deadline that does.
    let reply = lab.house.send(request).await;
    assert!([408, 500].contains(&reply.status), "{} {}", reply.status, reply.text());
    lab.assert_held(0, 0, 0).await;
    // Its memory is smaller than it says: the last pieces fail.
    let (session, client, memory) = get_session(&lab, 4 << 20).await;
    let smaller = client.pair.lend(vec![0; 3 << 20], PeerAccess::Write).unwrap();
    assert_ne!(smaller.rkey, memory.1);
    let reply = lab.house.send(ready(&session, &client, Some((smaller.address, smaller.rkey)))).await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "RDMATransferFailed"), "{}", reply.text());
    // Our queue pair was in its error state when we said so: what is in the memory stays as it is.
    lab.assert_held(0, 0, 0).await;
    if let Some(fabric) = &lab.fabric {
        assert_eq!(fabric.state(session.server.qpn), None);
    }
    let then = client.pair.take_back().unwrap();
    assert!(then.iter().zip(&data).all(|(got, sent)| got == sent || *got == 0), "what came is the object's");
    assert!(get(&lab, "/bucket/k", 4 << 20, None).await == data, "the store is none the worse");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_nothing_is_written_any_more() {
    let lab = lab_with(|options| options.transfer_timeout = Duration::from_millis(400)).await;
    lab.house.expect(Request::put("/bucket/k", content(2 << 20, 6)), 200).await;
    let client = lab.client(PeerAccess::Write);
    let window = client.pair.lend(vec![0xee; 2 << 20], PeerAccess::Write).unwrap();
    // No receive is posted, so that the last WRITE, which carries the cookie, can't end.
    let session = session(&lab.house.send(prepare(&client, "GET", "/bucket/k", 2 << 20)).await);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    let reply = lab.house.send(ready(&session, &client, Some((window.address, window.rkey)))).await;
    assert!([408, 500].contains(&reply.status), "{} {}", reply.status, reply.text());
    // The failure is told. A receive now would let a WRITE that is still tried go through.
    let before = lab.fabric.as_ref().map(|fabric| fabric.peek(client.pair.number()).unwrap());
    let _posted = client.pair.expect();
    let late = tokio::time::timeout(Duration::from_secs(1), client.pair.received()).await;
    assert!(!matches!(late, Ok(Ok(_))), "a WRITE came after the failure was told");
    if let Some(fabric) = &lab.fabric {
        assert!(fabric.peek(client.pair.number()) == before);
        assert_eq!(fabric.state(session.server.qpn), None);
    }
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_queue_pairs_grant_no_more_than_the_dialect_needs() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let (session, client, _) = get_session(&lab, 5).await;
    if let Some(fabric) = &lab.fabric {
        assert_eq!(fabric.access(session.server.qpn), Some(PeerAccess::None));
    }
    assert_eq!(session.memory, None, "a GET stages nothing that a client could reach");
    drop(client);
    let (session, client) = put_session(&lab, 100).await;
    if let Some(fabric) = &lab.fabric {
        assert_eq!(fabric.access(session.server.qpn), Some(PeerAccess::Write));
    }
    // Staging memory can't be read.
    let (address, rkey) = session.memory.unwrap();
    let answering = lab.house.send(ready(&session, &client, None));
    let (reply, read) = tokio::join!(answering, client.pair.read(address, rkey, 100));
    assert!(read.is_err(), "a client has read staging memory");
    assert!(reply.status >= 400, "{}", reply.text());
    lab.assert_absent("other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_key() {
    let lab = lab_with(|options| {
        options.caps.key_sessions_max = 2;
        options.caps.key_staging_bytes_max = 1000;
    })
    .await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let client = lab.client(PeerAccess::None);
    let get = || prepare(&client, "GET", "/bucket/k", 5);
    let put = |size| prepare(&client, "PUT", "/bucket/k", size);
    // Never, whatever is free.
    lab.house.refused(put(1001), 413, "EntityTooLarge").await;
    let first = session(&lab.house.send(put(600)).await);
    let busy = lab.house.refused(put(600), 503, "SlowDown").await;
    assert!(busy.header("retry-after").is_some());
    session(&lab.house.send(get()).await);
    let busy = lab.house.refused(get(), 503, "SlowDown").await;
    assert!(busy.header("retry-after").is_some());
    // Another key has its own.
    session(&lab.house.send(other_key(put(600))).await);
    lab.house.expect(post("cancel").header("x-amz-rdma-session", &first.id), 204).await;
    session(&lab.house.send(put(1000)).await);
    assert_eq!(lab.front.stats().declined(Reason::Busy), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn larger_than_a_message_is_for_http() {
    let lab = Lab::new().await;
    let client = lab.client(PeerAccess::None);
    let message_bytes_max = usize::try_from(lab.message_bytes_max()).unwrap();
    let reply = lab.house.send(prepare(&client, "PUT", "/bucket/k", message_bytes_max + 1)).await;
    assert_eq!(reply.status, 501, "a message has {message_bytes_max} bytes: {}", reply.text());
    assert_eq!(reply.header("x-amz-rdma-protocol-status"), Some("unsupported"));
    assert_eq!(reply.header("x-amz-rdma-reply"), None);
    // A GET is written in as many messages as it takes.
    let data = content((8 << 20) + 1, 8);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    assert!(get(&lab, "/bucket/k", data.len(), None).await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gids_of_a_family() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let client = lab.client(PeerAccess::Write);
    let with = |gid| {
        let token = crate::wire::endpoint(1, client.pair.number(), gid);
        changed(prepare(&client, "GET", "/bucket/k", 5), "x-amz-rdma-token", Some(&token))
    };
    let of_link = session(&lab.house.send(with(link_local())).await);
    assert_eq!(of_link.server.gid.0[..2], [0xfe, 0x80]);
    let of_v4 = session(&lab.house.send(with(client.gid)).await);
    assert_eq!(of_v4.server.gid.0[10..12], [0xff, 0xff]);
    let mut global = link_local();
    global.0[0] = 0x20;
    global.0[1] = 0x01;
    let reply = lab.house.send(with(global)).await;
    assert_eq!((reply.status, reply.header("x-amz-rdma-protocol-status")), (501, Some("unsupported")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_changes_between_prepare_and_ready() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", content(5000, 1)), 200).await;
    let (session, client, memory) = get_session(&lab, 5000).await;
    lab.house.expect(Request::put("/bucket/k", "short"), 200).await;
    lab.house.refused(ready(&session, &client, Some(memory)), 416, "InvalidRange").await;
    assert_eq!(client.pair.take_back().unwrap(), vec![0xee; 5000]);
    let (session, client, memory) = get_session(&lab, 5).await;
    lab.house.expect(Request::new("DELETE", "/bucket/k"), 204).await;
    lab.house.refused(ready(&session, &client, Some(memory)), 404, "NoSuchKey").await;
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_device_everything_is_declined() {
    let lab = Lab::new().await;
    let bare = Lab::bare().await;
    let client = lab.client(PeerAccess::Write);
    for call in ["prepare", "ready", "cancel"] {
        let mut request = prepare(&client, "PUT", "/bucket/k", 5);
        request.path = format!("/.hipobj-rc/{call}");
        let reply = bare.send(request).await;
        assert_eq!(reply.status, 501, "{}", reply.text());
        assert_eq!(reply.header("x-amz-rdma-protocol-status"), Some("unsupported"));
        assert_eq!(reply.header("x-amz-rdma-reply"), None);
    }
    bare.assert_empty().await;
    // And the other way round: what is PUT through one front is there.
    let data = content(10, 1);
    assert_eq!(put(&lab, "/bucket/k", &data).await.status, 200);
}
