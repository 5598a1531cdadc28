//! Every name keeps the rules, and a scrape is what Prometheus reads.

use std::collections::BTreeMap;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use penstock_buf::{BufPool, PoolOptions};
use penstock_executor::{Executor, ExecutorOptions, Rebuilder};
use penstock_gateway::{Gateway, GatewayOptions};
use penstock_meta::kv::MemKv;
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::{ClusterKey, Code, MapEpoch, NodeId, SystemClock};
use penstock_store::{ShardStore, StoreOptions};
use penstock_transport::MemTransport;

use super::*;

const AREAS: [&str; 13] = [
    "process", "s3", "gateway", "executor", "cluster", "repair", "survey", "garbage", "node", "store", "scrub",
    "rebuild", "rdma",
];
const UNITS: [&str; 21] = [
    "info",
    "bytes",
    "seconds",
    "requests",
    "shards",
    "ranges",
    "stripes",
    "runs",
    "nodes",
    "devices",
    "extents",
    "errors",
    "reads",
    "calls",
    "connections",
    "frames",
    "plans",
    "commits",
    "streams",
    "strays",
    "groups",
];
const MORE_UNITS: [&str; 2] = ["bodies", "writes"];
const LABELS: [&str; 6] = ["operation", "status", "node", "reason", "state", "spare"];

async fn house() -> (Metrics, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pool = BufPool::new(PoolOptions { capacity_bytes: 32 << 20, huge_pages: false }).unwrap();
    let key = ClusterKey::random();
    let options = StoreOptions {
        path: folder.path().join("device"),
        capacity_bytes: 256 << 20,
        extent_bytes: 16 << 20,
        direct: false,
        ..StoreOptions::default()
    };
    let store = ShardStore::open(options, pool.clone()).await.unwrap();
    let clock = Arc::new(SystemClock);
    let node = StorageNode::new(NodeId(0), store, key.clone(), clock.clone(), pool.clone(), NodeOptions::default());
    let node = Arc::new(node);
    let transport = MemTransport::new();
    let executor = Executor::new(Arc::new(transport.clone()), pool.clone(), ExecutorOptions::default());
    let rebuilder = Arc::new(Rebuilder::new(NodeId(0), executor.clone(), key.clone(), clock.clone(), node.clone()));
    transport.attach(NodeId(0), rebuilder.clone());
    let map =
        ClusterMap { epoch: MapEpoch(1), nodes: vec![NodeEntry { id: NodeId(0), weight: 1, domain: Vec::new() }] };
    let mut options = GatewayOptions { buffers: Some(pool), ..GatewayOptions::new(Code::ONE_COPY, map, key) };
    options.upkeep.interval = None;
    let gateway = Gateway::new(Arc::new(MemKv::new()), executor, clock, options);
    gateway.look_at_nodes_now().await;
    let requests = Arc::new(RequestCounts::default());
    requests.count("GetObject", 404);
    let metrics = Metrics {
        gateway: Some(gateway),
        requests: Some(requests),
        nodes: vec![node],
        rebuilders: vec![rebuilder],
        ..Metrics::default()
    };
    (metrics, folder)
}

#[tokio::test]
async fn every_name_is_area_what_unit_and_every_label_is_bounded() {
    let (metrics, _folder) = house().await;
    let samples = metrics.collect();
    assert!(samples.len() > 80, "{}", samples.len());
    let mut kinds = BTreeMap::new();
    for Sample { name, help, kind, labels, .. } in &samples {
        let words: Vec<&str> = name.split('_').collect();
        assert!(words.len() >= 3 && words[0] == "penstock", "{name}");
        assert!(AREAS.contains(&words[1]), "{name}: {} is no area", words[1]);
        let unit = words.last().unwrap();
        assert!(UNITS.contains(unit) || MORE_UNITS.contains(unit), "{name}: {unit} is no unit");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(!name.ends_with("_total"), "{name}: counters get that by themselves");
        assert!(help.ends_with('.') && help.len() > 5, "{name}: {help:?}");
        assert_eq!(*kinds.entry(name).or_insert((*kind, *help)), (*kind, *help), "{name}: two kinds or helps");
        for (label, value) in labels {
            assert!(LABELS.contains(label), "{name}: the label {label} is not one of those that are bounded");
            assert!(value.len() < 40, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn every_alarm_names_a_metric_that_there_is_and_a_page_that_there_is() {
    let (metrics, _folder) = house().await;
    let samples = metrics.collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook");
    let alerts = std::fs::read_to_string(root.join("alerts.yml")).unwrap();
    let mut alarms = 0;
    for line in alerts.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alarms += 1;
            let page = root.join(format!("{name}.md"));
            assert!(page.exists(), "{} is missing", page.display());
        }
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        for word in line.split(|c: char| !is_name(c)).filter(|word| word.starts_with("penstock_")) {
            // RDMA's are there where there is RDMA.
            let known = |sample: &Sample| {
                let counter = sample.kind == Kind::Counter;
                word == if counter { format!("{}_total", sample.name) } else { sample.name.to_owned() }
            };
            assert!(word.starts_with("penstock_rdma_") || samples.iter().any(known), "{word} is no metric");
        }
    }
    assert!(alarms >= 10, "{alarms} alarms");
}

#[tokio::test]
async fn a_scrape_over_http() {
    let (metrics, _folder) = house().await;
    let serving = metrics.serve(Some(([127, 0, 0, 1], 0).into())).await.unwrap();
    let address = serving.address.unwrap();
    let get = async |method: &str, path: &str| {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header("host", "metrics");
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let (status, body) = get("GET", "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "# TYPE penstock_store_capacity_bytes gauge",
        "penstock_s3_requests_total{operation=\"GetObject\",status=\"4xx\"} 1.0",
        "penstock_cluster_nodes{state=\"up\"} 1.0",
        "penstock_node_put_shards_total{node=\"0\"} 0.0",
        "penstock_gateway_payload_in_bytes_total 0.0",
        "penstock_process_info 1.0",
        "# EOF",
    ] {
        assert!(body.lines().any(|found| found == line), "{line:?} is not in {body}");
    }
    assert_eq!(get("GET", "/").await.0, 404);
    assert_eq!(get("POST", "/metrics").await.0, 405);
}
