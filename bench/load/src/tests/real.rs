//! The real server, in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions};
use penstock_gateway::{Gateway, GatewayOptions};
use penstock_identity::{Identities, MasterKey, RootAccount, Secret};
use penstock_meta::kv::MemKv;
use penstock_meta::tables::Tables;
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::{ClusterKey, Code, MapEpoch, NodeId, SystemClock};
use penstock_s3::{FrontOptions, serve};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::MemTransport;
use tokio_util::sync::CancellationToken;

use super::spec;
use crate::{Keys, Load, Mix, Operation, Pace, Report, Sizes, Spec};

pub(super) const ACCESS_KEY: &str = "AKIDLOADTEST";
pub(super) const SECRET_KEY: &str = "load/test/secret";

struct House {
    address: SocketAddr,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let (code, key) = (Code::new(1, 0).unwrap(), ClusterKey::random());
        let pool = || BufPool::new(PoolOptions { capacity_bytes: 128 << 20, huge_pages: false }).unwrap();
        let node_pool = pool();
        let options = StoreOptions {
            path: directory.path().join("device"),
            capacity_bytes: 2 << 30,
            extent_bytes: 64 << 20,
            direct: false,
            ..StoreOptions::default()
        };
        let store = ShardStore::open(options, node_pool.clone()).await.unwrap();
        let node = StorageNode::new(NodeId(0), store, key.clone(), clock.clone(), node_pool, NodeOptions::default());
        let transport = MemTransport::new();
        transport.attach(NodeId(0), Arc::new(node));
        let executor = Executor::new(Arc::new(transport), pool(), ExecutorOptions::default());
        let entry = NodeEntry { id: NodeId(0), weight: 1, domain: Vec::new() };
        let map = ClusterMap { epoch: MapEpoch(1), nodes: vec![entry] };
        let kv = Arc::new(MemKv::new());
        let root = RootAccount::new(ACCESS_KEY, Secret::new(SECRET_KEY));
        let identities = Identities::open(Tables::new(kv.clone()), root, &MasterKey::new([7; 32])).await.unwrap();
        let gateway = Gateway::new(kv, executor, clock, GatewayOptions::new(code, map, key));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, gateway, identities, FrontOptions::default(), shutdown.clone()));
        Self { address, shutdown, _directory: directory }
    }

    async fn run(&self, change: impl FnOnce(&mut Spec)) -> Report {
        let mut spec = spec(self.address);
        change(&mut spec);
        let load = Load::new(spec).unwrap();
        load.prepare().await.unwrap();
        load.run(&CancellationToken::new()).await.unwrap()
    }
}

fn good(report: &Report, operation: Operation) {
    assert_eq!(report.failures(), BTreeMap::new());
    let part = report.operations.iter().find(|each| each.operation == operation).unwrap();
    assert!(part.ops > 0 && part.latency_us.len() == part.ops, "{operation:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_works_and_is_verified() {
    let house = House::new().await;
    for operation in Operation::ALL {
        for signed in [true, false] {
            let report = house.run(|spec| (spec.mix, spec.signed_payloads) = (Mix::only(operation), signed)).await;
            good(&report, operation);
        }
    }
    let listing = house.run(|spec| (spec.mix, spec.list_keys) = (Mix::only(Operation::List), 7)).await;
    assert_eq!(listing.operations[0].keys, 7 * listing.operations[0].ops, "20 objects, and never from the last 7 on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixes_sizes_parts_and_ranges() {
    let house = House::new().await;
    let report = house
        .run(|spec| {
            spec.mix = "put=2,get=4,head=1,list=1,delete=2".parse().unwrap();
            spec.sizes = Sizes::Bimodal { small: 1000, large: 70_000, small_percent: 80 };
            spec.server_pids = vec![std::process::id()];
            spec.duration = Duration::from_millis(600);
        })
        .await;
    for operation in Operation::ALL {
        good(&report, operation);
    }
    let rows = report.rows();
    assert_eq!(rows.len(), 6);
    assert_eq!((&rows[5]["op"], &rows[5]["ops"]), (&"ALL".into(), &report.ops().into()));
    assert!(rows[5]["server_cpu_s_per_1k"].as_f64().unwrap() > 0.0 && rows[0]["server_cpu_s_per_1k"].is_null());

    let parts = |spec: &mut Spec| {
        spec.mix = "put=1,get=1".parse().unwrap();
        (spec.sizes, spec.part_bytes) = (Sizes::Fixed((11 << 20) + 5), Some(5 << 20));
        (spec.objects, spec.connections) = (2, 2);
    };
    let report = house.run(parts).await;
    good(&report, Operation::Put);
    good(&report, Operation::Get);
    let range = |spec: &mut Spec| {
        (spec.sizes, spec.range_bytes) = (Sizes::Fixed(5 << 20), Some(100_000));
        spec.prefix = "ranges/".to_owned();
    };
    let report = house.run(range).await;
    good(&report, Operation::Get);
    assert_eq!(report.operations[0].bytes, 100_000 * report.operations[0].ops);
    let few = |spec: &mut Spec| {
        (spec.mix, spec.objects) = (Mix::only(Operation::List), 3);
        spec.prefix = "few/".to_owned();
    };
    let listed = house.run(few).await;
    good(&listed, Operation::List);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_early_stops() {
    let house = House::new().await;
    let mut wrong = spec(house.address);
    wrong.keys = Some(Keys { access: ACCESS_KEY.to_owned(), secret: "guessed".to_owned() });
    let error = Load::new(wrong).unwrap().prepare().await.unwrap_err();
    assert!(error.to_string().contains("status_403"), "{error}");

    let load = Load::new(Spec { duration: Duration::from_secs(3600), ..spec(house.address) }).unwrap();
    load.prepare().await.unwrap();
    let stop = CancellationToken::new();
    let running = load.run(&stop);
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => panic!("it ends an hour from now"),
        () = tokio::time::sleep(Duration::from_millis(200)) => stop.cancel(),
    }
    let report = running.await.unwrap();
    assert!(report.partial && report.ops() > 0);
    assert_eq!(report.rows()[0]["partial"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_sends_what_is_due() {
    let house = House::new().await;
    let report = house
        .run(|spec| {
            spec.pace = Pace::Open { per_second: 100.0 };
            spec.duration = Duration::from_secs(1);
        })
        .await;
    good(&report, Operation::Get);
    // 100 were due, give or take the ends; on a machine however slow, none is forgotten.
    let due = report.ops() + report.not_sent;
    assert!((90..=102).contains(&due), "{due}");
}
