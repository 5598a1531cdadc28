//! A store, a front over a device, and a client with a device of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use penstock_offload::DialectSet;
use penstock_rdma_front::{MemFabric, Nic, Peer, PeerAccess, QueuePair, RdmaFront, RdmaOptions, VerbsNic};
use penstock_rdma_wire::Gid;
use penstock_s3::FrontOptions;

use crate::client::{OTHER_ACCESS_KEY, Reply, Request, sha256_hex};
use crate::house::House;
use crate::wire;

/// What rxe in Debian 12's kernel says of itself.
const MESSAGE_BYTES_MAX: u64 = 8 << 20;
pub(crate) const CLIENT_PSN: u32 = 0xabc;

pub(crate) struct Lab {
    pub(crate) house: House,
    pub(crate) front: RdmaFront,
    pub(crate) nic: Arc<dyn Nic>,
    /// None on a real device.
    pub(crate) fabric: Option<MemFabric>,
}

pub(crate) fn link_local() -> Gid {
    let mut gid = Gid([0; 16]);
    (gid.0[0], gid.0[1], gid.0[15]) = (0xfe, 0x80, 1);
    gid
}

pub(crate) fn v4(last: u8) -> Gid {
    Gid::from_ipv4(Ipv4Addr::new(10, 0, 0, last))
}

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(RdmaOptions::default()).await
    }

    pub(crate) async fn with(options: RdmaOptions) -> Self {
        Self::with_front(options, FrontOptions::default()).await
    }

    pub(crate) async fn with_front(options: RdmaOptions, front_options: FrontOptions) -> Self {
        let (server, nic, fabric): (Arc<dyn Nic>, Arc<dyn Nic>, _) = match std::env::var("PENSTOCK_RDMA_DEVICE") {
            Ok(name) => {
                let nic = Arc::new(real_nic(&name));
                (nic.clone(), nic, None)
            }
            Err(_) => {
                let fabric = MemFabric::new();
                let server = fabric.nic(vec![Gid::default(), link_local(), v4(1)], MESSAGE_BYTES_MAX);
                (Arc::new(server), Arc::new(fabric.nic(vec![v4(2)], u64::MAX)), Some(fabric))
            }
        };
        let front = RdmaFront::new(Some(server), options);
        let house = house(&front, front_options).await;
        Self { house, front, nic, fabric }
    }

    /// A front without a device.
    pub(crate) async fn bare() -> House {
        house(&RdmaFront::new(None, RdmaOptions::default()), FrontOptions::default()).await
    }

    /// Longest message of the server's port.
    pub(crate) fn message_bytes_max(&self) -> u64 {
        if self.fabric.is_some() { MESSAGE_BYTES_MAX } else { self.nic.message_bytes_max() }
    }

    /// A client's queue pair.
    pub(crate) fn client(&self, access: PeerAccess) -> Client {
        Client::of(&*self.nic, access)
    }

    /// The whole object, over TCP.
    pub(crate) async fn over_tcp(&self, key: &str) -> Vec<u8> {
        self.house.expect(Request::new("GET", &format!("/bucket/{key}")), 200).await.body
    }

    /// Nothing is stored under `key`.
    pub(crate) async fn assert_absent(&self, key: &str) {
        self.house.refused(Request::new("GET", &format!("/bucket/{key}")), 404, "NoSuchKey").await;
    }

    /// Waits until the front holds so many sessions, connections and queue pairs.
    pub(crate) async fn assert_held(&self, sessions: usize, connections: usize, queue_pairs: usize) {
        for _ in 0..1000 {
            if self.front.held() == (sessions, connections, queue_pairs) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.front.held(), (sessions, connections, queue_pairs));
    }
}

pub(crate) fn real_nic(name: &str) -> VerbsNic {
    VerbsNic::open(Some(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

async fn house(front: &RdmaFront, options: FrontOptions) -> House {
    let dialects = DialectSet::new(vec![Arc::new(front.clone())]);
    House::with(FrontOptions { dialects, ..options }).await
}

/// A client's end.
pub(crate) struct Client {
    pub(crate) pair: Box<dyn QueuePair>,
    pub(crate) gid: Gid,
    own_gid: usize,
}

impl Client {
    pub(crate) fn of(nic: &dyn Nic, access: PeerAccess) -> Self {
        let gids = nic.gids();
        let own_gid = gids.iter().position(|gid| gid.0[10] == 0xff && gid.0[0] == 0).expect("an IPv4 GID");
        let pair = nic.queue_pair(access).unwrap();
        Self { pair, gid: gids[own_gid], own_gid }
    }

    pub(crate) fn token(&self) -> String {
        wire::endpoint(1, self.pair.number(), self.gid)
    }

    pub(crate) fn connect(&self, number: u32, gid: Gid, server_psn: u32) {
        let peer = Peer { number, gid, own_gid: self.own_gid, receive_psn: server_psn, send_psn: CLIENT_PSN };
        self.pair.connect(&peer).unwrap();
    }
}

/// Bytes that are nobody else's.
pub(crate) fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

/// As the MinIO bridge signs.
pub(crate) fn unsigned_payload(request: Request) -> Request {
    request.payload("UNSIGNED-PAYLOAD")
}

/// As versitygw's client signs.
pub(crate) fn empty_payload(request: Request) -> Request {
    let hash = sha256_hex(b"");
    request.payload(&hash)
}

pub(crate) fn other_key(request: Request) -> Request {
    request.signer(|signer| signer.access_key = OTHER_ACCESS_KEY.to_owned())
}

/// The object's ETag, which is its MD5 in quotes when it was written in one piece.
#[track_caller]
pub(crate) fn assert_etag(reply: &Reply, name: &str) {
    let etag = reply.header(name).expect("an ETag");
    assert!(etag.len() == 34 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
}
