//! The same clients against a gateway on another machine, with the device of this one: the lab runs it in a cluster's client
//! guest, `./dev lab test "end to end"`. The gateway is `PENSTOCK_REMOTE` (address:port), the keys are AWS's variables.

#![allow(clippy::print_stdout, reason = "the lab counts what was moved")]

use std::net::SocketAddr;

use bytes::Bytes;
use penstock_rdma_front::{Nic, PeerAccess, VerbsNic, Window};

use crate::client::{Connection, Reply, Request};
use crate::lab::{CLIENT_PSN, Client, content, real_nic};
use crate::published::{assert_moved, get_with, put_with};
use crate::rcv2::{COOKIE, assert_final, prepare, ready, session};
use crate::wire;

/// A PUT of hipobj-rc-v2 is one message, which the client's library here cuts at 1 MiB.
const ONE_MESSAGE_BYTES: usize = 1 << 20;
const SIZES: [usize; 6] = [1, 4096, 65_537, 1 << 20, (5 << 20) + 3, 16 << 20];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this is run by the lab"))
}

struct Remote {
    address: SocketAddr,
    nic: VerbsNic,
}

impl Remote {
    fn signed(&self, request: Request) -> Request {
        request.signer(|signer| {
            signer.access_key = variable("AWS_ACCESS_KEY_ID");
            signer.secret_key = variable("AWS_SECRET_ACCESS_KEY");
        })
    }

    async fn send(&self, request: Request) -> Reply {
        let request = self.signed(request);
        let mut connection = Connection::open(self.address).await;
        connection.write(&request.signed()).await;
        connection.reply(&request.method).await
    }

    async fn over_tcp(&self, path: &str) -> Vec<u8> {
        let reply = self.send(Request::new("GET", path)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.body
    }

    /// A call of the shim's, which is not signed.
    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::new("POST", path).header("content-type", "application/octet-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut connection = Connection::open(self.address).await;
        connection.write(&request.anonymous()).await;
        connection.reply("POST").await
    }

    /// `rc:` tokens over a connection of the shim.
    async fn published(&self) {
        let client = Client::of(&self.nic as &dyn Nic, PeerAccess::ReadWrite);
        let psn = format!("{CLIENT_PSN:06x}");
        let headers = [("x-amz-rdma-token", client.token()), ("x-amz-rdma-psn", psn)];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = self.call("/.s3rdma-rc/connect", &headers).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let connection = reply.header("x-amz-rdma-session").unwrap().to_owned();
        let server = wire::server_endpoint(reply.header("x-amz-rdma-reply").unwrap());
        client.connect(server.qpn, server.gid, wire::psn(reply.header("x-amz-rdma-psn").unwrap()));
        let token =
            |window: Window, bytes: usize| wire::rc_token(&connection, window.address, bytes as u64, window.rkey);
        for (seed, size) in SIZES.into_iter().enumerate() {
            let (data, path) = (content(size, seed as u64), format!("/dialects/shim-{size}"));
            let window = client.pair.lend(data.clone(), PeerAccess::Read).unwrap();
            let put = self.send(put_with(&path, &token(window, size))).await;
            assert_moved(&put, 200, &data);
            assert!(client.pair.take_back().unwrap() == data);
            assert!(self.over_tcp(&path).await == data, "{size} over TCP");
            let window = client.pair.lend(vec![0xee; size], PeerAccess::Write).unwrap();
            let get = self.send(get_with(&path, &token(window, size))).await;
            assert_moved(&get, 200, &data);
            assert!(client.pair.take_back().unwrap() == data, "{size} over RDMA");
            println!("rc: {size} B, x-amz-rdma-bytes-transferred {:?}", get.header("x-amz-rdma-bytes-transferred"));
        }
        let gone = self.call("/.s3rdma-rc/disconnect", &[("x-amz-rdma-session", &connection)]).await;
        assert_eq!(gone.status, 204);
    }

    /// hipobj-rc-v2.
    async fn rcv2(&self) {
        for (seed, size) in SIZES.into_iter().enumerate() {
            let (data, target) = (content(size, 100 + seed as u64), format!("/dialects/rcv2-{size}"));
            if size <= ONE_MESSAGE_BYTES {
                let client = Client::of(&self.nic, PeerAccess::ReadWrite);
                let session = session(&self.send(prepare(&client, "PUT", &target, size)).await);
                let (address, rkey) = session.memory.expect("staging memory");
                client.connect(session.server.qpn, session.server.gid, session.psn);
                let answering = self.send(ready(&session, &client, Some((1, 1))));
                let writing = async {
                    // The server must be ready to receive: hipObject waits as long.
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                    client.pair.write(Bytes::from(data.clone()), address, rkey, Some(COOKIE)).await.unwrap();
                };
                let (reply, ()) = tokio::join!(answering, writing);
                assert_final(&reply, &data);
            } else {
                let put = self.send(Request::put(&target, data.clone())).await;
                assert_eq!(put.status, 200, "{}", put.text());
            }
            assert!(self.over_tcp(&target).await == data, "{size} over TCP");
            let client = Client::of(&self.nic, PeerAccess::ReadWrite);
            let window = client.pair.lend(vec![0xee; size], PeerAccess::Write).unwrap();
            client.pair.expect().unwrap();
            let session = session(&self.send(prepare(&client, "GET", &target, size)).await);
            client.connect(session.server.qpn, session.server.gid, session.psn);
            let reply = self.send(ready(&session, &client, Some((window.address, window.rkey)))).await;
            assert_final(&reply, &data);
            assert_eq!(client.pair.received().await.unwrap().immediate, Some(COOKIE));
            assert!(client.pair.take_back().unwrap() == data, "{size} over RDMA");
            println!(
                "hipobj-rc-v2: {size} B, x-amz-rdma-bytes-transferred {:?}",
                reply.header("x-amz-rdma-bytes-transferred")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a gateway on another machine: ./dev lab test"]
async fn dialects_from_another_machine() {
    let address = variable("PENSTOCK_REMOTE").parse().expect("address:port");
    let remote = Remote { address, nic: real_nic(&variable("PENSTOCK_RDMA_DEVICE")) };
    let made = remote.send(Request::new("PUT", "/dialects")).await;
    assert_eq!(made.status, 200, "{}", made.text());
    remote.published().await;
    remote.rcv2().await;
}
