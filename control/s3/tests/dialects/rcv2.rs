//! hipobj-rc-v2, as it should go.

use std::time::Duration;

use bytes::Bytes;
use penstock_rdma_front::{PeerAccess, RdmaOptions};
use penstock_s3::FrontOptions;

use crate::client::{Reply, Request};
use crate::lab::{CLIENT_PSN, Client, Lab, assert_etag, content, empty_payload, unsigned_payload};
use crate::wire;

pub(crate) const COOKIE: u32 = 0xdead_beef;

pub(crate) fn post(call: &str) -> Request {
    unsigned_payload(Request::new("POST", &format!("/.hipobj-rc/{call}"))).header("x-amz-rdma-protocol", "hipobj-rc-v2")
}

/// A PREPARE as clients send it.
pub(crate) fn prepare(client: &Client, op: &str, target: &str, size: usize) -> Request {
    post("prepare")
        .header("x-amz-rdma-token", &client.token())
        .header("x-amz-rdma-psn", &format!("{CLIENT_PSN:06x}"))
        .header("x-amz-rdma-cookie", &format!("{COOKIE:08x}"))
        .header("x-amz-rdma-op", op)
        .header("x-amz-rdma-target", target)
        .header("x-amz-rdma-size", &size.to_string())
        .header("x-amz-rdma-qpn", &format!("{:x}", client.pair.number()))
}

/// The request with another value of a header, or without it.
pub(crate) fn changed(mut request: Request, name: &str, value: Option<&str>) -> Request {
    request.headers.retain(|(known, _)| known != name);
    match value {
        Some(value) => request.header(name, value),
        None => request,
    }
}

/// What a 200 to PREPARE says.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) server: wire::ServerEndpoint,
    pub(crate) psn: u32,
    /// Staging memory.
    pub(crate) memory: Option<(u64, u32)>,
}

#[track_caller]
pub(crate) fn session(reply: &Reply) -> Session {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let header = |name: &str| reply.header(name).unwrap_or_else(|| panic!("no {name}")).to_owned();
    assert_eq!(header("x-amz-rdma-protocol"), "hipobj-rc-v2");
    let server = wire::server_endpoint(&header("x-amz-rdma-reply"));
    let id = header("x-amz-rdma-session");
    assert!(wire::is_session(&id), "{id}");
    assert_eq!(wire::bare(&header("x-amz-rdma-qpn")), u64::from(server.qpn));
    let memory = reply.header("x-amz-rdma-mr-addr").map(|address| {
        let rkey = wire::bare(&header("x-amz-rdma-mr-rkey"));
        (wire::bare(address), u32::try_from(rkey).unwrap())
    });
    Session { id, server, psn: wire::psn(&header("x-amz-rdma-psn")), memory }
}

pub(crate) fn ready(session: &Session, client: &Client, memory: Option<(u64, u32)>) -> Request {
    let request = post("ready")
        .header("x-amz-rdma-session", &session.id)
        .header("x-amz-rdma-cookie", &format!("{COOKIE:08x}"))
        .header("x-amz-rdma-qpn", &format!("{:x}", client.pair.number()));
    match memory {
        Some((address, rkey)) => request
            .header("x-amz-rdma-mr-addr", &format!("{address:x}"))
            .header("x-amz-rdma-mr-rkey", &format!("{rkey:x}")),
        None => request,
    }
}

#[track_caller]
pub(crate) fn assert_final(reply: &Reply, data: &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.body.is_empty());
    assert_eq!(reply.header("content-length"), Some("0"));
    assert_eq!(reply.header("x-amz-rdma-protocol"), Some("hipobj-rc-v2"));
    assert_eq!(reply.header("x-amz-rdma-cookie"), Some(format!("{COOKIE:08x}").as_str()));
    assert_eq!(reply.header("x-amz-rdma-bytes-transferred"), Some(data.len().to_string().as_str()));
    assert_etag(reply, "x-amz-rdma-etag");
    let crc = wire::crc64_base64(data);
    assert_eq!(reply.header("x-amz-rdma-checksum"), Some(format!("CRC64NVME {crc}").as_str()));
    assert_eq!(reply.header("x-amz-rdma-checksum-crc64nvme"), Some(crc.as_str()));
}

/// A whole GET; answers the bytes.
pub(crate) async fn get(lab: &Lab, target: &str, size: usize, offset: Option<u64>) -> Vec<u8> {
    const GUARD: usize = 64;
    let client = lab.client(PeerAccess::ReadWrite);
    let window = client.pair.lend(vec![0xee; size + GUARD], PeerAccess::Write).unwrap();
    client.pair.expect().unwrap();
    let mut request = prepare(&client, "GET", target, size);
    if let Some(offset) = offset {
        request = request.header("x-amz-rdma-offset", &offset.to_string());
    }
    let session = session(&lab.house.send(request).await);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    let reply = lab.house.send(ready(&session, &client, Some((window.address, window.rkey)))).await;
    let received = client.pair.received().await.unwrap();
    assert_eq!(received.immediate, Some(COOKIE));
    let mut memory = client.pair.take_back().unwrap();
    assert!(memory[size..].iter().all(|byte| *byte == 0xee), "nothing is written past the end");
    memory.truncate(size);
    assert_final(&reply, &memory);
    memory
}

/// A whole PUT.
pub(crate) async fn put(lab: &Lab, target: &str, data: &[u8]) -> Reply {
    let client = lab.client(PeerAccess::ReadWrite);
    let session = session(&lab.house.send(prepare(&client, "PUT", target, data.len())).await);
    let (address, rkey) = session.memory.expect("staging memory");
    assert!(address != 0 && rkey != 0);
    assert_eq!((session.server.address, session.server.rkey), (address, rkey));
    assert_eq!(session.server.length, data.len() as u64);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    let answering = lab.house.send(ready(&session, &client, Some((1, 1))));
    let writing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.pair.write(Bytes::copy_from_slice(data), address, rkey, Some(COOKIE)).await.unwrap();
    };
    let (reply, ()) = tokio::join!(answering, writing);
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_go_there_and_back() {
    let lab = Lab::new().await;
    let sizes: &[usize] = &[1, 7, 4096, 65_537, 1 << 20, 5 << 20, (8 << 20) - 1];
    // On a real device the client's library cuts messages at 1 MiB, and a PUT is one message.
    let one_message = if lab.fabric.is_some() { usize::MAX } else { 1 << 20 };
    for (seed, size) in sizes.iter().copied().enumerate() {
        let data = content(size, seed as u64);
        let target = format!("/bucket/rcv2-{size}");
        if size <= one_message {
            assert_final(&put(&lab, &target, &data).await, &data);
        } else {
            lab.house.expect(Request::put(&target, data.clone()), 200).await;
        }
        assert!(lab.over_tcp(&format!("rcv2-{size}")).await == data, "{size} over TCP");
        assert!(get(&lab, &target, size, None).await == data, "{size} over RDMA");
    }
    let (gets, puts) = (lab.front.stats().gets(), lab.front.stats().puts());
    assert_eq!(gets.0, sizes.len() as u64);
    assert_eq!(gets.1, sizes.iter().sum::<usize>() as u64);
    assert_eq!(puts.1, sizes.iter().filter(|size| **size <= one_message).sum::<usize>() as u64);
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tcp_wrote_rdma_reads_in_parts() {
    let lab = Lab::new().await;
    let data = content(3 << 20, 9);
    lab.house.expect(Request::put("/bucket/a key+ü", data.clone()), 200).await;
    let target = "/bucket/a%20key%2B%C3%BC";
    for (offset, size) in [(0, 1), (1, 1 << 20), ((3 << 20) - 1, 1), (12_345, 2_000_001)] {
        let got = get(&lab, target, size, Some(offset)).await;
        assert!(got == data[offset as usize..offset as usize + size], "{offset} {size}");
    }
    assert!(get(&lab, &format!("{target}?versionId=null"), data.len(), None).await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_payload_hash_is_good_and_the_cookie_may_be_zero() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "hello"), 200).await;
    let client = lab.client(PeerAccess::Write);
    let request = prepare(&client, "GET", "/bucket/k", 5);
    let fields = [
        ("x-amz-rdma-cookie", "00000000"),
        ("x-amz-rdma-psn", "ABC"),
        ("x-amz-rdma-op", "get"),
        ("x-amz-rdma-token", &format!("{}:0:0", client.token().to_uppercase())),
    ];
    for (name, value) in fields {
        session(&lab.house.send(empty_payload(changed(request.clone(), name, Some(value)))).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_zeros_is_a_client_on_this_hca() {
    let lab = Lab::new().await;
    let data = content(70_000, 3);
    lab.house.expect(Request::put("/bucket/k", data.clone()), 200).await;
    // In memory, a client with the server's own GID.
    let own = lab.fabric.as_ref().map(|fabric| fabric.nic(vec![crate::lab::v4(1)], u64::MAX));
    let client = match own {
        Some(nic) => Lab { nic: std::sync::Arc::new(nic), ..lab },
        None => lab,
    };
    let (lab, client) = (&client, client.client(PeerAccess::Write));
    let window = client.pair.lend(vec![0; data.len()], PeerAccess::Write).unwrap();
    client.pair.expect().unwrap();
    let zeros = "0".repeat(88);
    let request = changed(prepare(&client, "GET", "/bucket/k", data.len()), "x-amz-rdma-token", Some(&zeros));
    let session = session(&lab.house.send(request).await);
    assert_eq!(session.server.gid, client.gid);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    let reply = lab.house.send(ready(&session, &client, Some((window.address, window.rkey)))).await;
    assert_final(&reply, &data);
    assert!(client.pair.take_back().unwrap() == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_an_upload() {
    let lab = Lab::new().await;
    let created = lab.house.expect(Request::new("POST", "/bucket/multi").query("uploads", ""), 200).await;
    let id = created.element("UploadId").unwrap();
    let data = content(1 << 20, 4);
    let target = format!("/bucket/multi?partNumber=1&uploadId={id}");
    let reply = put(&lab, &target, &data).await;
    assert_final(&reply, &data);
    let etag = reply.header("x-amz-rdma-etag").unwrap();
    let xml = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    lab.house.expect(Request::new("POST", "/bucket/multi").query("uploadId", &id).body(xml), 200).await;
    assert!(lab.over_tcp("multi").await == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crc32c_is_given_to_those_who_ask() {
    let lab = Lab::new().await;
    lab.house.expect(Request::put("/bucket/k", "123456789"), 200).await;
    let client = lab.client(PeerAccess::Write);
    let window = client.pair.lend(vec![0; 9], PeerAccess::Write).unwrap();
    client.pair.expect().unwrap();
    let request = prepare(&client, "GET", "/bucket/k", 9).header("x-amz-rdma-checksum-algorithm", "CRC32C");
    let session = session(&lab.house.send(request).await);
    client.connect(session.server.qpn, session.server.gid, session.psn);
    let reply = lab.house.send(ready(&session, &client, Some((window.address, window.rkey)))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    // 0xe3069283.
    assert_eq!(reply.header("x-amz-rdma-checksum-crc32c"), Some("4waSgw=="));
    assert_eq!(reply.header("x-amz-rdma-checksum"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_in_the_audit_log_under_its_own_name() {
    let folder = tempfile::TempDir::new().unwrap();
    let audit = folder.path().join("audit.log");
    let front_options = FrontOptions { audit_log: Some(audit.clone()), ..FrontOptions::default() };
    let lab = Lab::with_front(RdmaOptions::default(), front_options).await;
    let data = content(1000, 1);
    assert_final(&put(&lab, "/bucket/audited", &data).await, &data);
    assert!(get(&lab, "/bucket/audited", 1000, None).await == data);
    lab.house.shutdown.cancel();
    lab.house.serving.await.unwrap().unwrap();
    let lines = std::fs::read_to_string(&audit).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("\"PutObject\"") && lines.contains("audited"), "{lines}");
}
