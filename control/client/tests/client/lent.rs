//! Memory that nodes are lent, and ways to nodes beside TCP. The other transport is TCP in disguise: what is tested is which
//! way calls go, not how.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use penstock_client::{ClientError, ClientOptions, Dialer, GetOptions, PutOptions};
use penstock_proto::NodeId;
use penstock_transport::{Answer, Call, Messenger, NotReady, TcpDialer, TransportError, Way};

use crate::house::{BUCKET, House, MIB, by_plan, bytes, over_http};

/// Calls itself `rdma`. Says that it can't go while `declines`; loses landing buffers for a while when `keeps` is set.
#[derive(Default)]
struct Other {
    declines: AtomicBool,
    keeps: AtomicBool,
    dialed: AtomicU64,
}

struct Disguise(Arc<Other>);

struct OtherWay {
    other: Arc<Other>,
    tcp: Arc<dyn Way>,
}

impl Dialer for Disguise {
    fn transport(&self) -> &'static str {
        "rdma"
    }

    fn dial(&self, node: NodeId, address: &str) -> Arc<dyn Way> {
        self.0.dialed.fetch_add(1, Ordering::Relaxed);
        Arc::new(OtherWay { other: Arc::clone(&self.0), tcp: TcpDialer::default().dial(node, address) })
    }
}

#[async_trait]
impl Messenger for OtherWay {
    async fn call(&self, node: NodeId, mut call: Call) -> Result<Answer, TransportError> {
        if self.other.keeps.load(Ordering::Relaxed) && node == NodeId(0) {
            // As a node that has died with memory that it was lent: it comes back when the transport has fenced it.
            let landing = call.landing.take();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(700)).await;
                drop(landing);
            });
            return Err(TransportError::Closed { reason: "it died".to_owned() });
        }
        self.tcp.call(node, call).await
    }
}

#[async_trait]
impl Way for OtherWay {
    async fn ready(&self) -> Result<(), NotReady> {
        match self.other.declines.load(Ordering::Relaxed) {
            true => Err(NotReady::Declined("it has no device".to_owned())),
            false => Ok(()),
        }
    }
}

fn with(other: &Arc<Other>, options: ClientOptions) -> ClientOptions {
    // Nothing is late here, however busy the machine is.
    let hedge_delay = Some(Duration::from_secs(60));
    ClientOptions { dialers: vec![Arc::new(Disguise(Arc::clone(other)))], hedge_delay, ..options }
}

const LENGTHS: [usize; 7] = [1, 65, 128 << 10, 4 * MIB - 1, 4 * MIB, 9 * MIB + 7, 21 * MIB];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lent_memory_is_read_and_written_in_place() {
    let house = House::new(0, true).await;
    let other = Arc::<Other>::default();
    let client = house.client(with(&other, by_plan()));
    for length in LENGTHS {
        let key = format!("{length}");
        let body = bytes(length, length as u64);
        let mut source = client.region(length).unwrap();
        source.copy_from_slice(&body);
        let source = source.freeze();
        client.put_buffer(BUCKET, &key, &source, PutOptions::default()).await.unwrap();
        // A piece of a longer buffer, as loaders have it.
        let mut whole = client.region(length + 200).unwrap();
        let mut into = whole.split_off(100);
        let behind = into.split_off(length);
        let (info, into) = client.get_into_buffer(BUCKET, &key, &GetOptions::default(), into).await.unwrap();
        assert!(into[..] == body[..] && info.size_bytes == length as u64, "{length}");
        let whole = whole.rejoin(into).unwrap().rejoin(behind).unwrap();
        assert!(whole[..100].iter().chain(&whole[length + 100..]).all(|&byte| byte == 0), "nothing beside it");
        // Whole again, and as good as new.
        let (_, plain) = house
            .client(over_http())
            .get_into_buffer(BUCKET, &key, &GetOptions::default(), first(whole, length))
            .await
            .unwrap();
        assert!(plain[..] == body[..]);
    }
    let stats = client.stats();
    let total: usize = LENGTHS.iter().sum();
    assert_eq!(stats.copied_bytes, 0, "{stats:?}");
    assert_eq!(stats.read_bytes.get("rdma"), Some(&(total as u64)));
    assert_eq!(stats.read_bytes.keys().chain(stats.written_bytes.keys()).find(|name| **name != "rdma"), None);
    assert!(stats.other_ways.is_empty() && stats.fallbacks.is_empty());
    assert_eq!(other.dialed.load(Ordering::Relaxed), 3, "each node once");
    assert_eq!(house.gateway.stats().payload_in_bytes, 0);
}

fn first(mut whole: penstock_client::BufMut, bytes: usize) -> penstock_client::BufMut {
    whole.truncate(bytes);
    whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_parts_of_lent_memory() {
    let house = House::new(0, true).await;
    let client = house.client(with(&Arc::default(), ClientOptions { part_bytes: 5 << 20, ..by_plan() }));
    let body = bytes(13 * MIB + 5, 3);
    let mut source = client.region(body.len()).unwrap();
    source.copy_from_slice(&body);
    client.put_buffer(BUCKET, "parts", &source.freeze(), PutOptions::default()).await.unwrap();
    assert_eq!(client.stats().copied_bytes, 0);
    for (start, end) in [(0, 1), (4 * MIB + 1, 10 * MIB), (13 * MIB, 13 * MIB + 5)] {
        let into = client.region(end - start).unwrap();
        let (_, into) =
            client.get_into_buffer(BUCKET, "parts", &GetOptions::range(start as u64..end as u64), into).await.unwrap();
        assert!(into[..] == body[start..end], "{start}..{end}");
    }
    let wrong =
        client.get_into_buffer(BUCKET, "parts", &GetOptions::default(), client.region(7).unwrap()).await.unwrap_err();
    assert!(matches!(wrong, ClientError::Size { destination_bytes: 7, .. }), "{wrong}");
    let missing =
        client.get_into_buffer(BUCKET, "none", &GetOptions::default(), client.region(7).unwrap()).await.unwrap_err();
    assert!(missing.is_not_found());
    assert!(client.region(0).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_with_lent_memory_is_decoded_around_once_the_memory_is_back() {
    let house = House::new(0, true).await;
    let other = Arc::<Other>::default();
    let client = house.client(with(&other, by_plan()));
    let body = bytes(9 * MIB, 9);
    client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    let copied_before = client.stats().copied_bytes;
    other.keeps.store(true, Ordering::Relaxed);
    let (_, into) =
        client.get_into_buffer(BUCKET, "k", &GetOptions::default(), client.region(body.len()).unwrap()).await.unwrap();
    assert!(into[..] == body[..]);
    let stats = client.stats();
    assert!(stats.decoded_stripes >= 1, "{stats:?}");
    // Of each stripe what was decoded was copied, and no more.
    let copied = stats.copied_bytes - copied_before;
    assert!(copied > 0 && copied < body.len() as u64, "{copied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_side_has_no_device_calls_go_over_tcp_and_it_is_said_why() {
    let house = House::new(0, true).await;
    let other = Arc::<Other>::default();
    let client = house.client(with(&other, by_plan()));
    let body = bytes(MIB, 1);
    other.declines.store(true, Ordering::Relaxed);
    client.put(BUCKET, "k", &body, PutOptions::default()).await.unwrap();
    let stats = client.stats();
    assert_eq!(stats.written_bytes.keys().collect::<Vec<_>>(), [&"tcp"]);
    assert_eq!(stats.other_ways.get("rdma: it has no device"), Some(&3), "{stats:?}");
    assert_eq!(stats.by_plan, 1, "still by plan");
    // It is asked again each time.
    other.declines.store(false, Ordering::Relaxed);
    assert_eq!(client.get(BUCKET, "k").await.unwrap().body.to_vec(), body);
    assert_eq!(client.stats().read_bytes.keys().collect::<Vec<_>>(), [&"rdma"]);
    // Required, it is an error, and nothing is stored.
    let strict = house.client(with(&other, ClientOptions { require_rdma: true, ..by_plan() }));
    strict.put(BUCKET, "strict", &body, PutOptions::default()).await.unwrap();
    assert_eq!(strict.stats().written_bytes.keys().collect::<Vec<_>>(), [&"rdma"]);
    let without = house.client(ClientOptions { require_rdma: true, ..by_plan() });
    let error = without.put(BUCKET, "none", &body, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Nodes(_)), "{error}");
    assert!(without.head(BUCKET, "none").await.unwrap_err().is_not_found());
}
