//! The published `x-amz-rdma-*` semantics, as they should be declined, refused and cut short.

use std::time::Duration;

use penstock_rdma_front::{PeerAccess, RdmaOptions, Reason};

use crate::client::{Reply, Request};
use crate::lab::{CLIENT_PSN, Lab, content, other_key};
use crate::published::{Shim, assert_moved, call, connect_call, get_with, put_with};
use crate::wire;

const DC: &str = "00007f0011223000:00400000:0a0b0c0d:0000:000112:1:00000000000000000000ffffc000020a";
const V1: &str = "011201000000000000000000000000ffffc000020a0d0c0b0a00302211007f00000000400000000000010000";

#[track_caller]
fn assert_declined(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("x-amz-rdma-reply"), Some("501"));
    assert_eq!(reply.header("x-amz-rdma-protocol-status"), Some("unsupported"));
    assert_eq!(reply.header("x-amz-rdma-bytes-transferred"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dc_descriptors_are_declined() {
    let lab = Lab::new().await;
    let data = content(100_000, 1);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    for token in [DC.to_owned(), format!("{DC};"), format!("{DC}:00007f0011223000:0000000000400000"), DC.to_uppercase()]
    {
        // A GET is an ordinary one.
        let reply = lab.house.send(get_with("/bucket/k", &token).header("x-amz-rdma-agent", "cuobj")).await;
        assert_declined(&reply, 200);
        assert!(reply.body == data);
        let reply = lab.house.send(get_with("/bucket/k", &token).header("range", "bytes=5-9")).await;
        assert_declined(&reply, 206);
        assert_eq!(reply.body, data[5..=9]);
        // A PUT stores nothing, not even nothing.
        let reply = lab.house.send(put_with("/bucket/new", &token)).await;
        assert_declined(&reply, 501);
        assert_eq!(reply.code(), "RDMANotSupported");
        let reply = lab.house.send(put_with("/bucket/k", &token)).await;
        assert_declined(&reply, 501);
    }
    lab.assert_absent("new").await;
    assert!(lab.over_tcp("k").await == data, "the object is as it was");
    lab.house.refused(get_with("/bucket/nothing", DC), 404, "NoSuchKey").await;
    assert_eq!(lab.front.stats().declined(Reason::DcDescriptor), 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_tokens_are_declined() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    for token in [V1.to_owned(), format!("{V1}:00007f0011223000:0000000000400000")] {
        for request in [get_with("/bucket/k", &token), put_with("/bucket/new", &token)] {
            let reply = lab.house.send(request).await;
            assert_declined(&reply, 501);
            assert_eq!(reply.code(), "RDMANotSupported");
        }
    }
    lab.assert_absent("new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_tokens_create_nothing() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let shim = Shim::connect(&lab).await;
    let good = shim.lend(vec![1; 100]);
    let zero = wire::rc_token(&shim.connection, 0x1000, 0, 1);
    let past = wire::rc_token(&shim.connection, u64::MAX, 16, 1);
    let broken = [
        "x",
        "501",
        "true",
        "rc:",
        &DC[1..],
        &V1[1..],
        &good[..69],
        &zero,
        &past,
        &format!("{good}0"),
        &good.replace("rc:", "rd:"),
        &DC.replace(":1:", ":7:"),
        &format!("{V1}:1"),
        &"a".repeat(300),
        &"0".repeat(81),
    ];
    for token in broken {
        for request in [put_with("/bucket/new", token), get_with("/bucket/k", token)] {
            let reply = lab.house.refused(request, 400, "InvalidRDMAToken").await;
            assert_eq!(reply.header("x-amz-rdma-reply"), None);
        }
    }
    // Given twice: nobody can say which was signed.
    assert!(lab.house.send(put_with("/bucket/new", &good).header("x-amz-rdma-token", &good)).await.status >= 400);
    // An empty value is a token all the same, not an ordinary PUT.
    assert!(lab.house.send(put_with("/bucket/new", "")).await.status >= 400);
    lab.assert_absent("new").await;
    assert_moved(&lab.house.send(put_with("/bucket/k", &good)).await, 200, &[1; 100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_signed() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    let token = shim.lend(vec![1; 100]);
    for request in [Request::new("PUT", "/bucket/new"), Request::new("GET", "/bucket/new")] {
        let mut connection = lab.house.connect().await;
        connection.write(&request.clone().unsigned("x-amz-rdma-token", &token).signed()).await;
        let reply = connection.reply(&request.method).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "AccessDenied"), "{}", reply.text());
        let mut connection = lab.house.connect().await;
        connection.write(&request.clone().unsigned("x-amz-rdma-token", &token).presigned(60)).await;
        assert_eq!(connection.reply(&request.method).await.status, 403);
        let mut connection = lab.house.connect().await;
        connection.write(&request.clone().header("x-amz-rdma-token", &token).anonymous()).await;
        assert_eq!(connection.reply(&request.method).await.status, 403);
    }
    lab.assert_absent("new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_not_done() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let shim = Shim::connect(&lab).await;
    let token = shim.lend(vec![1; 100]);
    let put = || put_with("/bucket/new", &token);
    for (name, value) in [
        ("x-amz-rdma-agent", "another"),
        ("x-amz-rdma-bytes", "100"),
        ("x-amz-rdma-offset", "1"),
        ("x-amz-rdma-protocol", "hipobj-rc-v2"),
        ("x-amz-rdma-protocol", "future-1"),
    ] {
        assert_declined(&lab.house.send(put().header(name, value)).await, 501);
        assert_declined(&lab.house.send(get_with("/bucket/k", &token).header(name, value)).await, 501);
    }
    // Other operations know no tokens.
    for request in [
        Request::new("HEAD", "/bucket/k"),
        Request::new("DELETE", "/bucket/k"),
        Request::new("GET", "/bucket"),
        Request::new("PUT", "/bucket/new").header("x-amz-copy-source", "/bucket/k"),
        Request::new("POST", "/bucket/new").query("uploads", ""),
    ] {
        lab.house.expect(request.header("x-amz-rdma-token", &token), 501).await;
    }
    // A body in two places.
    lab.house.refused(put().body("hello").payload("UNSIGNED-PAYLOAD"), 400, "InvalidRequest").await;
    // Other vendors' ways to say that the body comes over RDMA.
    for (name, value) in [("x-rdma-info", "a"), ("x-scal-rdma", "a"), ("x-amz-meta-rdma-token", DC)] {
        lab.house.refused(Request::new("PUT", "/bucket/new").header(name, value), 501, "NotImplemented").await;
    }
    lab.assert_absent("new").await;
    lab.house.expect(Request::put("/bucket/meta", "x").header("x-amz-meta-rdma-token", "mine"), 200).await;
    // The connection has seen none of it.
    assert_moved(&lab.house.send(put()).await, 200, &[1; 100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_past_the_clients_memory_fail_and_store_nothing() {
    let lab = Lab::new().await;
    for (lent, claimed) in [(100, 101), (1 << 20, 3 << 20)] {
        let shim = Shim::connect(&lab).await;
        let window = shim.client.pair.lend(vec![1; lent], PeerAccess::Read).unwrap();
        let request = put_with("/bucket/new", &shim.token(window, claimed));
        let reply = lab.house.refused(request, 500, "RDMATransferFailed").await;
        assert_eq!(reply.header("x-amz-rdma-reply"), Some("500"));
        lab.assert_absent("new").await;
        // The connection is gone.
        let reply = lab.house.refused(shim.put("/bucket/new", &[1]), 500, "RDMATransferFailed").await;
        assert_eq!(reply.header("x-amz-rdma-reply"), Some("500"));
    }
    lab.assert_held(0, 0, 0).await;
    assert_eq!(lab.front.stats().declined(Reason::Transfer), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dies_in_the_middle() {
    let lab = Lab::new().await;
    let data = content(6 << 20, 3);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    for put in [true, false] {
        let shim = Shim::connect(&lab).await;
        let request = if put { shim.put("/bucket/new", &data) } else { shim.get("/bucket/k", data.len()) };
        match &lab.fabric {
            Some(fabric) => fabric.kill_after(shim.client.pair.number(), 2),
            None => drop(shim),
        }
        let reply = lab.house.refused(request, 500, "RDMATransferFailed").await;
        assert_eq!(reply.header("x-amz-rdma-reply"), Some("500"));
        lab.assert_held(0, 0, 0).await;
    }
    lab.assert_absent("new").await;
    assert!(lab.over_tcp("k").await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failure_nothing_is_written_any_more() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", content(4 << 20, 3)), 200).await;
    let shim = Shim::connect(&lab).await;
    // A window that ends in the middle of the object, said to be larger.
    let window = shim.client.pair.lend(vec![0xee; 2 << 20], PeerAccess::Write).unwrap();
    lab.house.refused(get_with("/bucket/k", &shim.token(window, 4 << 20)), 500, "RDMATransferFailed").await;
    lab.assert_held(0, 0, 0).await;
    if let Some(fabric) = &lab.fabric {
        let then = fabric.peek(shim.client.pair.number());
        assert_eq!(fabric.state(shim.server.qpn), None, "our queue pair is gone");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(fabric.peek(shim.client.pair.number()) == then);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_client_hangs_up_takes_its_connection_along() {
    let lab = Lab::new().await;
    // The client's side is not connected, so that our READ is tried for a while.
    let (shim, _) = Shim::half_connected(&lab).await;
    let mut http = lab.house.connect().await;
    http.write(&shim.put("/bucket/new", &[1; 100]).signed()).await;
    while lab.house.send(put_with("/bucket/new", &shim.lend(vec![1]))).await.status != 500 {}
    drop(http);
    lab.assert_held(0, 0, 0).await;
    lab.assert_absent("new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_at_a_time_and_one_key() {
    let lab = Lab::new().await;
    let (shim, psn) = Shim::half_connected(&lab).await;
    let data = content(100, 1);
    let request = shim.put("/bucket/new", &data);
    let mut first = lab.house.connect().await;
    first.write(&request.signed()).await;
    // Until the client is connected the first one's READ is tried again; meanwhile the connection is busy. (A real device
    // gives up after half a second, which may pass before a slow guest has asked all this.)
    if lab.fabric.is_some() {
        lab.assert_taken(&shim).await;
        let reply = lab.house.refused(request.clone(), 500, "RDMATransferFailed").await;
        assert_eq!(reply.header("x-amz-rdma-reply"), Some("500"));
    }
    shim.client.connect(shim.server.qpn, shim.server.gid, psn);
    assert_moved(&first.reply("PUT").await, 200, &data);
    // The first key to use it owns it.
    lab.house.refused(other_key(request.clone()), 403, "AccessDenied").await;
    assert_moved(&lab.house.send(request).await, 200, &data);
}

impl Lab {
    /// Waits until a request uses the connection.
    async fn assert_taken(&self, shim: &Shim) {
        let absent = wire::rc_token(&shim.connection, 1, 1, 1);
        for _ in 0..1000 {
            // Another key is refused as a stranger once the connection is somebody's.
            if self.house.send(other_key(get_with("/bucket/nothing", &absent))).await.status == 403 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no request uses the connection");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting() {
    let lab = Lab::new().await;
    let client = lab.client(PeerAccess::ReadWrite);
    let psn = format!("{CLIENT_PSN:06x}");
    let token = client.token();
    let transport_0 = format!("00{}", &token[2..]);
    let no_qpn = format!("0100000000{}", &token[10..]);
    for (token, psn) in [
        ("", psn.as_str()),
        ("0101", &psn),
        (&transport_0, &psn),
        (&no_qpn, &psn),
        (&"0".repeat(88), &psn),
        (&token, ""),
        (&token, "000000"),
        (&token, "1"),
        (DC, &psn),
    ] {
        let reply = call(&lab, "/.s3rdma-rc/connect", &[("x-amz-rdma-token", token), ("x-amz-rdma-psn", psn)]).await;
        assert_eq!(reply.status, 400, "{token} {psn}: {}", reply.text());
    }
    lab.assert_held(0, 0, 0).await;
    let shim = Shim::connect(&lab).await;
    if let Some(fabric) = &lab.fabric {
        assert_eq!(fabric.access(shim.server.qpn), Some(PeerAccess::None));
    }
    // Signed is as good as not.
    let signed = Request::new("POST", "/.s3rdma-rc/disconnect").header("x-amz-rdma-session", &shim.connection);
    lab.house.expect(signed, 204).await;
    for headers in [&[("x-amz-rdma-session", shim.connection.as_str())][..], &[("x-amz-rdma-session", "x")], &[]] {
        assert_eq!(call(&lab, "/.s3rdma-rc/disconnect", headers).await.status, 204);
    }
    let reply = lab.house.refused(shim.put("/bucket/new", &[1]), 500, "RDMATransferFailed").await;
    assert_eq!(reply.header("x-amz-rdma-reply"), Some("500"));
    let elsewhere = call(&lab, "/.s3rdma-rc/else", &[]).await;
    assert_eq!(elsewhere.status, 403);
    lab.assert_absent("new").await;
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_end_and_there_are_only_so_many() {
    let mut options =
        RdmaOptions { source_connections_max: 2, connection_idle: Duration::from_secs(2), ..RdmaOptions::default() };
    options.caps.key_queue_pairs_max = 1;
    let lab = Lab::with(options).await;
    let (first, second) = (Shim::connect(&lab).await, Shim::connect(&lab).await);
    let reply = connect_call(&lab, &lab.client(PeerAccess::ReadWrite)).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "SlowDown"));
    assert!(reply.header("retry-after").is_some());
    // A key may hold one: the second stays nobody's.
    assert_moved(&lab.house.send(first.put("/bucket/a", &[1; 10])).await, 200, &[1; 10]);
    lab.house.refused(second.put("/bucket/b", &[2; 10]), 503, "SlowDown").await;
    assert_moved(&lab.house.send(other_key(second.put("/bucket/b", &[2; 10]))).await, 200, &[2; 10]);
    lab.assert_held(0, 0, 0).await;
    lab.house.refused(first.put("/bucket/c", &[1; 10]), 500, "RDMATransferFailed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_s3_are_errors_of_s3() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let cases = [
        (shim.get("/bucket/nothing", 10), 404, "NoSuchKey"),
        (shim.get("/nowhere/k", 10), 404, "NoSuchBucket"),
        (shim.get("/bucket/k", 10).header("if-match", "\"other\""), 412, "PreconditionFailed"),
        (shim.get("/bucket/k", 10).header("range", "bytes=5-9"), 416, "InvalidRange"),
        (shim.put("/bucket/k", &[1; 10]).header("if-none-match", "*"), 412, "PreconditionFailed"),
        (shim.put("/nowhere/k", &[1; 10]), 404, "NoSuchBucket"),
        (shim.put("/bucket/k", &[1; 10]).query("torrent", ""), 501, "NotImplemented"),
    ];
    for (request, status, code) in cases {
        let token = shim.lend(vec![1; 10]);
        let reply =
            lab.house.refused(crate::rcv2::changed(request, "x-amz-rdma-token", Some(&token)), status, code).await;
        assert_eq!(reply.header("x-amz-rdma-reply"), None);
        assert_eq!(reply.header("x-amz-rdma-bytes-transferred"), None);
    }
    // After all of them the connection is as good as new.
    assert_moved(&lab.house.send(shim.get("/bucket/k", 10)).await, 200, b"hello");
    assert_eq!(lab.over_tcp("k").await, b"hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_device_everything_is_declined() {
    let lab = Lab::new().await;
    let bare = Lab::bare().await;
    let shim = Shim::connect(&lab).await;
    bare.expect(Request::put("/bucket/k", "hello"), 200).await;
    for token in [shim.lend(vec![1; 10]), DC.to_owned()] {
        let reply = bare.send(get_with("/bucket/k", &token)).await;
        assert_declined(&reply, 200);
        assert_eq!(reply.body, b"hello");
        assert_declined(&bare.send(put_with("/bucket/new", &token)).await, 501);
    }
    assert_declined(&bare.send(put_with("/bucket/new", V1)).await, 501);
    bare.refused(put_with("/bucket/new", "x"), 400, "InvalidRDMAToken").await;
    let request = Request::new("POST", "/.s3rdma-rc/connect").header("x-amz-rdma-token", &shim.client.token());
    let mut connection = bare.connect().await;
    connection.write(&request.header("x-amz-rdma-psn", "000001").anonymous()).await;
    let reply = connection.reply("POST").await;
    assert_eq!((reply.status, reply.header("x-amz-rdma-protocol-status")), (501, Some("unsupported")));
    bare.refused(Request::new("GET", "/bucket/new"), 404, "NoSuchKey").await;
}
