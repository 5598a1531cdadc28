//! The published `x-amz-rdma-*` semantics over connections of the RC shim, as they should go.

use penstock_rdma_front::{PeerAccess, Window};

use crate::client::{Reply, Request};
use crate::lab::{CLIENT_PSN, Client, Lab, assert_etag, content, empty_payload, unsigned_payload};
use crate::wire;

/// A connect, sent as the shim sends it: unsigned.
pub(crate) async fn call(lab: &Lab, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::new("POST", path).header("content-type", "application/octet-stream");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut connection = lab.house.connect().await;
    connection.write(&request.anonymous()).await;
    connection.reply("POST").await
}

pub(crate) async fn connect_call(lab: &Lab, client: &Client) -> Reply {
    let psn = format!("{CLIENT_PSN:06x}");
    call(lab, "/.s3rdma-rc/connect", &[("x-amz-rdma-token", &client.token()), ("x-amz-rdma-psn", &psn)]).await
}

/// A connected client with memory.
pub(crate) struct Shim {
    pub(crate) client: Client,
    pub(crate) connection: String,
    pub(crate) server: wire::ServerEndpoint,
}

impl Shim {
    pub(crate) async fn connect(lab: &Lab) -> Self {
        let shim = Self::half_connected(lab).await;
        shim.0.client.connect(shim.0.server.qpn, shim.0.server.gid, shim.1);
        shim.0
    }

    /// The server is connected, the client is not yet. Answers the server's PSN too.
    pub(crate) async fn half_connected(lab: &Lab) -> (Self, u32) {
        let client = lab.client(PeerAccess::ReadWrite);
        let reply = connect_call(lab, &client).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let connection = reply.header("x-amz-rdma-session").unwrap().to_owned();
        assert!(wire::is_session(&connection));
        let server = wire::server_endpoint(reply.header("x-amz-rdma-reply").unwrap());
        assert_eq!((server.rkey, server.address, server.length), (0, 0, 0), "the server offers no memory");
        let psn = wire::psn(reply.header("x-amz-rdma-psn").unwrap());
        (Self { client, connection, server }, psn)
    }

    pub(crate) fn token(&self, window: Window, bytes: usize) -> String {
        let token = wire::rc_token(&self.connection, window.address, bytes as u64, window.rkey);
        assert_eq!(token.len(), 70);
        token
    }

    /// Memory for a PUT.
    pub(crate) fn lend(&self, memory: Vec<u8>) -> String {
        self.lend_for(memory, PeerAccess::Read)
    }

    fn lend_for(&self, memory: Vec<u8>, access: PeerAccess) -> String {
        let bytes = memory.len();
        let window = self.client.pair.lend(memory, access).unwrap();
        self.token(window, bytes)
    }

    /// A PUT as clients send it.
    pub(crate) fn put(&self, path: &str, data: &[u8]) -> Request {
        put_with(path, &self.lend(data.to_vec()))
    }

    pub(crate) fn get(&self, path: &str, room: usize) -> Request {
        get_with(path, &self.lend_for(vec![0xee; room], PeerAccess::Write))
    }
}

pub(crate) fn put_with(path: &str, token: &str) -> Request {
    unsigned_payload(Request::new("PUT", path))
        .header("content-type", "application/octet-stream")
        .header("x-amz-rdma-token", token)
}

pub(crate) fn get_with(path: &str, token: &str) -> Request {
    unsigned_payload(Request::new("GET", path)).header("x-amz-rdma-token", token)
}

/// What NIXL, the strictest client, and minio-cpp ask of a success.
#[track_caller]
pub(crate) fn assert_moved(reply: &Reply, status: u16, data: &[u8]) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("x-amz-rdma-reply"), Some(status.to_string().as_str()));
    assert_eq!(reply.header("content-length"), Some("0"));
    assert!(reply.body.is_empty(), "payload on the HTTP connection");
    assert_eq!(reply.header("x-amz-rdma-bytes-transferred"), Some(data.len().to_string().as_str()));
    assert_etag(reply, "etag");
    let crc = wire::crc64_base64(data);
    assert_eq!(reply.header("x-amz-rdma-checksum-crc64nvme"), Some(crc.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_go_there_and_back() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    for (seed, size) in [1, 9, 4096, 65_537, 1 << 20, (1 << 20) + 1, (5 << 20) + 3].into_iter().enumerate() {
        let (data, path) = (content(size, seed as u64), format!("/bucket/shim-{size}"));
        let reply = lab.house.send(shim.put(&path, &data)).await;
        assert_moved(&reply, 200, &data);
        assert_eq!(reply.header("x-amz-checksum-crc64nvme"), Some(wire::crc64_base64(&data).as_str()));
        assert!(lab.over_tcp(&format!("shim-{size}")).await == data, "{size} over TCP");
        let reply = lab.house.send(shim.get(&path, size)).await;
        assert_moved(&reply, 200, &data);
        assert!(reply.header("last-modified").is_some() && reply.header("content-range").is_none());
        assert!(shim.client.pair.take_back().unwrap() == data, "{size} over RDMA");
        // And what TCP wrote, over RDMA.
        lab.house.expect(Request::put(&path, data.clone()), 200).await;
        assert_moved(&lab.house.send(empty_payload(shim.get(&path, size))).await, 200, &data);
        assert!(shim.client.pair.take_back().unwrap() == data);
    }
    lab.assert_held(0, 1, 1).await;
    assert_eq!(call(&lab, "/.s3rdma-rc/disconnect", &[("x-amz-rdma-session", &shim.connection)]).await.status, 204);
    lab.assert_held(0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_206_and_206() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    let data = content(3 << 20, 2);
    lab.house.expect(Request::put("/bucket/k", data.clone()).header("x-amz-meta-a", "b"), 200).await;
    for (first, last) in [(0, 0), (0, data.len() - 1), (1, 100), (1 << 20, (2 << 20) + 5)] {
        let size = last - first + 1;
        let request = shim.get("/bucket/k", size).header("range", &format!("bytes={first}-{last}"));
        let reply = lab.house.send(request).await;
        assert_moved(&reply, 206, &data[first..=last]);
        let range = format!("bytes {first}-{last}/{}", data.len());
        assert_eq!(reply.header("content-range"), Some(range.as_str()));
        assert_eq!(reply.header("x-amz-meta-a"), Some("b"));
        assert!(shim.client.pair.take_back().unwrap() == data[first..=last]);
    }
    // More is asked for than the window holds: so much is moved, and said.
    let reply = lab.house.send(shim.get("/bucket/k", 1000).header("range", "bytes=10-5000")).await;
    assert_moved(&reply, 206, &data[10..1010]);
    assert_eq!(reply.header("content-range"), Some(format!("bytes 10-1009/{}", data.len()).as_str()));
    // And less than it holds: the rest stays as it is.
    let reply = lab.house.send(shim.get("/bucket/k", 1000).header("range", "bytes=0-9")).await;
    assert_moved(&reply, 206, &data[..10]);
    let memory = shim.client.pair.take_back().unwrap();
    assert!(memory[..10] == data[..10] && memory[10..].iter().all(|byte| *byte == 0xee));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_object_moves_nothing() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    lab.house.expect(Request::put("/bucket/empty", ""), 200).await;
    let reply = lab.house.send(shim.get("/bucket/empty", 10)).await;
    assert_moved(&reply, 200, b"");
    assert_eq!(shim.client.pair.take_back().unwrap(), [0xee; 10]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_one_upload_over_rdma_and_tcp() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    let created = lab.house.expect(Request::new("POST", "/bucket/multi").query("uploads", ""), 200).await;
    let id = created.element("UploadId").unwrap();
    let parts = [content(5 << 20, 1), content(5 << 20, 2), content(12_345, 3)];
    let mut xml = String::from("<CompleteMultipartUpload>");
    for (number, data) in (1..).zip(&parts) {
        let with = |request: Request| request.query("partNumber", &number.to_string()).query("uploadId", &id);
        let reply = if number == 2 {
            lab.house.expect(with(Request::put("/bucket/multi", data.clone())), 200).await
        } else {
            let reply = lab.house.send(with(shim.put("/bucket/multi", data))).await;
            assert_moved(&reply, 200, data);
            reply
        };
        xml += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", reply.header("etag").unwrap());
    }
    xml += "</CompleteMultipartUpload>";
    lab.house.expect(Request::new("POST", "/bucket/multi").query("uploadId", &id).body(xml), 200).await;
    let whole = parts.concat();
    assert!(lab.over_tcp("multi").await == whole);
    let reply = lab.house.send(shim.get("/bucket/multi", 12_345).query("partNumber", "3")).await;
    assert_eq!((reply.status, reply.header("x-amz-rdma-reply")), (206, Some("206")), "{}", reply.text());
    assert_eq!(reply.header("x-amz-rdma-bytes-transferred"), Some("12345"));
    assert!(shim.client.pair.take_back().unwrap() == parts[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checksum_covers_the_bytes_that_moved() {
    let lab = Lab::new().await;
    let shim = Shim::connect(&lab).await;
    let data = content(100_000, 7);
    let good = wire::crc64_base64(&data);
    let reply = lab.house.send(shim.put("/bucket/k", &data).header("x-amz-checksum-crc64nvme", &good)).await;
    assert_moved(&reply, 200, &data);
    let bad = wire::crc64_base64(b"else");
    let request = shim.put("/bucket/other", &data).header("x-amz-checksum-crc64nvme", &bad);
    lab.house.refused(request, 400, "BadDigest").await;
    lab.assert_absent("other").await;
    // READs were all done: the connection is as good as before.
    let reply = lab.house.send(shim.get("/bucket/k", data.len())).await;
    assert_moved(&reply, 200, &data);
}
