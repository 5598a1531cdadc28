//! The three ways to run: everything in one process, the gateway alone, one node alone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_events::worker::Store;
use penstock_events::{Events, EventsConfig};
use penstock_gateway::Gateway;
use penstock_identity::{Identities, RootAccount, Secret};
use penstock_meta::tables::Tables;
use penstock_placement::{ClusterMap, NodeEntry};
use penstock_proto::{MapEpoch, NodeId, SystemClock};
use penstock_s3::{FrontOptions, RequestCounts, TlsFiles};
use penstock_transport::{MemTransport, TcpMessenger, TcpOptions, TcpServerOptions, serve_tcp};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Fatal;
use crate::arguments::{GatewayArguments, Guard, NodeArguments, Serve};
use crate::assemble::{self, DEVICE_FILE, GatewayParts, META_FOLDER, OpenNode};
use crate::config::{Config, code_for};
use crate::direct::Direct;
use crate::identity::{
    IDENTITY_KEY_FILE, RootCredentials, read_cluster_key, read_or_make_cluster_key, read_or_make_identity_key,
};
use crate::keep::Beside;
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::rails;
use crate::rdma;
use crate::rdma_limits::RdmaLimits;

/// How long blocking work may take once everything else has ended.
pub(crate) const SHUTDOWN_BLOCKING_WAIT: Duration = Duration::from_secs(5);

const CLUSTER_KEY_FILE: &str = "cluster.key";
const NODE_CAPACITY_BYTES_MIN: u64 = 256 << 20;

/// A token that SIGTERM and SIGINT cancel.
fn until_told_to_stop() -> Result<CancellationToken, Fatal> {
    let token = CancellationToken::new();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| Fatal::doing("listening for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Fatal::doing("listening for SIGINT", error))?;
    let told = token.clone();
    tokio::spawn(async move {
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        signalled().await;
        tracing::info!("stopping: requests in flight are finished first; once more to stop at once");
        told.cancel();
        signalled().await;
        std::process::exit(130);
    });
    Ok(token)
}

/// Connections that the kernel keeps for us while all hands are busy.
const ACCEPT_BACKLOG: u32 = 1024;

fn take_address(address: SocketAddr) -> Result<TcpSocket, Fatal> {
    penstock_s3::take_address(address).map_err(|error| Fatal(error.to_string()))
}

fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, Fatal> {
    socket.listen(ACCEPT_BACKLOG).map_err(|error| Fatal::doing(format!("listening on {address}"), error))
}

/// The address that `text` (`host:port`) names on this machine.
async fn resolve(text: &str) -> Result<SocketAddr, Fatal> {
    let mut addresses =
        tokio::net::lookup_host(text).await.map_err(|error| Fatal::doing(format!("the address {text}"), error))?;
    addresses.next().ok_or_else(|| Fatal(format!("the address {text} names nothing")))
}

/// Shows a new root key pair, once, in a form to paste.
#[allow(clippy::print_stdout, reason = "standard output is where the new key pair is promised to be")]
fn show_new_credentials(credentials: &RootCredentials, scheme: &str, address: SocketAddr) {
    println!("AWS_ACCESS_KEY_ID={}", credentials.access_key_id);
    println!("AWS_SECRET_ACCESS_KEY={}", credentials.secret_access_key);
    println!(
        "AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_DEFAULT_REGION=us-east-1 aws --endpoint-url {scheme}://{address} s3 mb s3://first",
        credentials.access_key_id, credentials.secret_access_key
    );
}

/// How the front is to behave.
fn front_options(domains: Vec<String>, guard: Guard, limits: &RdmaLimits) -> Result<FrontOptions, Fatal> {
    let tls = match (guard.tls_certificate, guard.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        _ => return Err(Fatal("tls_certificate and tls_key go together: name both, or neither".to_owned())),
    };
    let defaults = FrontOptions::default();
    Ok(FrontOptions {
        base_domains: domains,
        tls,
        access_log: guard.access_log,
        audit_log: guard.audit_log,
        requests_per_second_max: guard.requests_per_second,
        customer_keys_without_tls: guard.sse_c_without_tls,
        log_delivery_interval: guard
            .log_delivery_seconds
            .map_or(defaults.log_delivery_interval, |seconds| Duration::from_secs(seconds.get().into())),
        dialects: rdma::dialects(limits)?,
        ..defaults
    })
}

/// Prints what passed through the gateway and which events wait, whenever SIGUSR1 asks.
#[allow(clippy::print_stdout, reason = "standard output is where it is asked for")]
fn print_traffic(gateway: Gateway, events: Arc<Events>) -> Result<tokio::task::JoinHandle<()>, Fatal> {
    let mut asked =
        signal(SignalKind::user_defined1()).map_err(|error| Fatal::doing("listening for SIGUSR1", error))?;
    Ok(tokio::spawn(async move {
        while asked.recv().await.is_some() {
            println!("{}", gateway.stats());
            match events.counts().await {
                Ok(counts) => {
                    for (arn, queued, dropped) in counts {
                        println!("events for {arn}: {queued} wait, {dropped} dropped");
                    }
                }
                Err(error) => tracing::warn!(%error, "which events wait can't be read"),
            }
        }
    }))
}

/// The region of buckets that were made without one.
const REGION: &str = "us-east-1";

/// The file of events' targets; none without one.
fn read_events(path: Option<&Path>) -> Result<EventsConfig, Fatal> {
    let read =
        path.map(EventsConfig::read).transpose().map_err(|error| Fatal::doing("the targets of events", error))?;
    Ok(read.unwrap_or_default())
}

/// Begins to deliver what waits.
fn start_events(tables: &Tables, config: &EventsConfig, root: &RootAccount) -> Result<Events, Fatal> {
    let store = Store { region: REGION.to_owned(), account: root.account_id.clone() };
    Events::start(tables, config, &store, Arc::new(SystemClock))
        .map_err(|error| Fatal::doing("the targets of events", error))
}

/// Serves S3 until told to stop, then ends the gateway.
async fn serve_front(
    socket: TcpSocket,
    (gateway, tables): (Gateway, Tables),
    folder: &Path,
    domains: Vec<String>,
    (guard, limits): (Guard, RdmaLimits),
    (events, requests): (&EventsConfig, Arc<RequestCounts>),
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let options = FrontOptions { requests, ..front_options(domains, guard, &limits)? };
    let address = socket.local_addr().map_err(|error| Fatal::doing("the S3 address", error))?;
    let (credentials, new) = RootCredentials::read_or_make(folder)?;
    if new {
        show_new_credentials(&credentials, if options.tls.is_some() { "https" } else { "http" }, address);
    }
    let identity_key = read_or_make_identity_key(&folder.join(IDENTITY_KEY_FILE))?;
    let root = RootAccount::new(&credentials.access_key_id, Secret::new(&credentials.secret_access_key));
    let events = Arc::new(start_events(&tables, events, &root)?);
    let identities = Identities::open(tables, root, &identity_key)
        .await
        .map_err(|error| Fatal::doing("opening the accounts and keys", error))?;
    let listener = listen(socket, address)?;
    tracing::info!(%address, access_key_id = %credentials.access_key_id, "S3 is served");
    let printing = print_traffic(gateway.clone(), Arc::clone(&events))?;
    let served = penstock_s3::serve(listener, gateway.clone(), identities, options, stop).await;
    gateway.shutdown().await;
    events.shutdown().await;
    printing.abort();
    tracing::info!(payload_bytes = gateway.stats().payload_bytes(), "the gateway has ended");
    served.map_err(|error| Fatal::doing("serving S3", error))
}

/// `penstock serve`.
pub(crate) async fn serve(arguments: Serve) -> Result<(), Fatal> {
    let nodes = usize::from(arguments.nodes);
    let code = code_for(arguments.code, nodes)?;
    let stop = until_told_to_stop()?;
    let events = read_events(arguments.events.as_deref())?;
    let _lock = assemble::take_folder(&arguments.data)?;
    refuse_fewer_nodes(&arguments.data, arguments.nodes)?;
    let socket = take_address(arguments.listen)?;
    let cluster_key = read_or_make_cluster_key(&arguments.data.join(CLUSTER_KEY_FILE))?;
    let capacity_bytes = match arguments.node_capacity {
        Some(size) => size.0,
        None => (assemble::file_system_bytes(&arguments.data)? / nodes as u64).max(NODE_CAPACITY_BYTES_MIN),
    };
    let engine = assemble::engine(&arguments.tuning.engine)?;
    let pool = assemble::pool(arguments.tuning.node_buffers.0, "the nodes' buffers")?;

    let existing = arguments.data.join(META_FOLDER).exists();
    let opening = (0..arguments.nodes).map(|number| {
        let id = NodeId(number);
        let folder = arguments.data.join(id.to_string());
        if existing && !folder.join(DEVICE_FILE).exists() {
            tracing::warn!(node = %id, folder = %folder.display(), "this node's data is gone: it starts empty; what it held is read from the others");
        }
        assemble::open_node(id, folder, capacity_bytes, engine, cluster_key.clone(), pool.clone())
    });
    let mut open: Vec<OpenNode> = Vec::new();
    let transport = MemTransport::new();
    for (number, node) in (0u16..).zip(futures_in_order(opening).await) {
        match node {
            Ok(node) => {
                transport.attach(NodeId(number), node.handler.clone());
                open.push(node);
            }
            Err(error) => tracing::error!(%error, "this node is left out: its shards are read from the others"),
        }
    }
    if open.len() < code.k() {
        return Err(Fatal(format!(
            "{} of {nodes} nodes could be opened, and {code} needs {} to read anything: the errors above say why",
            open.len(),
            code.k()
        )));
    }
    let cluster_map = ClusterMap {
        epoch: MapEpoch(1),
        nodes: (0..arguments.nodes).map(|id| NodeEntry { id: NodeId(id), weight: 100, domain: Vec::new() }).collect(),
    };
    tracing::info!(nodes, %code, data = %arguments.data.display(), "the store is open");
    let kept = Beside::start(&open, &transport, &cluster_key, arguments.keep.scrub()?)?;
    let direct = match arguments.direct {
        true => Direct::start(&open, arguments.listen, arguments.node_port)?,
        false => Direct::default(),
    };
    let gateway = assemble::open_gateway(GatewayParts {
        folder: arguments.data.clone(),
        code,
        placement: Placement::default(),
        cluster_map,
        cluster_key,
        messenger: Arc::new(transport),
        buffers_bytes: arguments.tuning.gateway_buffers.0,
        garbage_grace_seconds: arguments.tuning.garbage_grace_seconds,
        packing: arguments.tuning.packing.options()?,
        node_addresses: direct.addresses.clone(),
        lifecycle_day_seconds: arguments.tuning.lifecycle_day_seconds,
        event_targets: events.arns(),
        plan_inline_bytes_max: arguments.tuning.plan_inline.bytes(),
        upkeep: arguments.keep.upkeep()?,
        encryption_key_file: arguments.front.guard.encryption_key_file.clone(),
    })
    .await?;
    let requests: Arc<RequestCounts> = Arc::default();
    let metrics = Metrics {
        gateway: Some(gateway.0.clone()),
        requests: Some(requests.clone()),
        nodes: open.iter().map(|node| node.handler.clone()).collect(),
        rebuilders: kept.rebuilders.clone(),
        ..Metrics::default()
    };
    let _metrics = metrics.serve(arguments.metrics).await?;
    let guards = (arguments.front.guard, arguments.front.rdma);
    let counted = (&events, requests);
    let served = serve_front(socket, gateway, &arguments.data, arguments.front.domains, guards, counted, stop).await;
    drop(kept);
    direct.stop().await;
    for node in open {
        node.store.close().await;
    }
    served
}

/// Awaits all, concurrently, and gives their results in order.
async fn futures_in_order<F: Future<Output = T> + Send + 'static, T: Send + 'static>(
    futures: impl Iterator<Item = F>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.expect("opening a node does not panic"));
    }
    results
}

/// Data on `node-05` can't be reached by a store of three nodes: say so instead of losing sight of it.
fn refuse_fewer_nodes(data: &Path, nodes: u16) -> Result<(), Fatal> {
    let entries = std::fs::read_dir(data).map_err(|error| Fatal::doing(data.display(), error))?;
    let highest =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("node-")?.parse::<u16>().ok()).max();
    match highest {
        Some(highest) if highest >= nodes => Err(Fatal(format!(
            "{} has data of {} nodes and --nodes says {nodes}: start with --nodes {}",
            data.display(),
            highest + 1,
            highest + 1
        ))),
        _ => Ok(()),
    }
}

/// `penstock gateway`.
pub(crate) async fn gateway(arguments: GatewayArguments) -> Result<(), Fatal> {
    let config = Config::read(&arguments.config)?;
    let code = config.code()?;
    let events = read_events(config.gateway.events.as_deref())?;
    let stop = until_told_to_stop()?;
    let _lock = assemble::take_folder(&config.gateway.data)?;
    let cluster_key = read_cluster_key(&config.cluster.key_file)?;
    let socket = take_address(config.gateway.listen)?;
    let peers: HashMap<NodeId, String> =
        config.nodes.iter().map(|node| (NodeId(node.id), node.address.clone())).collect();
    let cluster_map = ClusterMap {
        epoch: MapEpoch(1),
        nodes: config
            .nodes
            .iter()
            .map(|node| NodeEntry { id: NodeId(node.id), weight: node.weight, domain: node.domain.clone() })
            .collect(),
    };
    let nodes = config.nodes.iter().map(|node| NodeId(node.id)).collect();
    let calls = rails::Calls::new(&config.cluster, nodes, TcpMessenger::new(peers, TcpOptions::default()))?;
    let gateway = assemble::open_gateway(GatewayParts {
        folder: config.gateway.data.clone(),
        code,
        placement: Placement::of(&config.cluster),
        cluster_map,
        cluster_key,
        messenger: Arc::clone(&calls.messenger),
        buffers_bytes: config.gateway.buffers.0,
        garbage_grace_seconds: config.gateway.garbage_grace_seconds,
        packing: config.gateway.packing.options()?,
        node_addresses: config.node_addresses(),
        lifecycle_day_seconds: config.gateway.lifecycle_day_seconds,
        event_targets: events.arns(),
        plan_inline_bytes_max: config.gateway.plan_inline.bytes(),
        upkeep: config.keep.upkeep()?,
        encryption_key_file: config.gateway.guard.encryption_key_file.clone(),
    })
    .await?;
    let requests: Arc<RequestCounts> = Arc::default();
    let metrics = Metrics {
        gateway: Some(gateway.0.clone()),
        requests: Some(requests.clone()),
        calls: calls.rdma(),
        ..Metrics::default()
    };
    let _metrics = metrics.serve(config.gateway.metrics).await?;
    let guards = (config.gateway.guard, config.gateway.rdma);
    let counted = (&events, requests);
    let served =
        serve_front(socket, gateway, &config.gateway.data, config.gateway.domains, guards, counted, stop).await;
    calls.log_counts();
    served
}

/// `penstock node`.
pub(crate) async fn node(arguments: NodeArguments) -> Result<(), Fatal> {
    let config = Config::read(&arguments.config)?;
    let id = NodeId(arguments.id);
    let Some(node) = config.nodes.iter().find(|node| node.id == arguments.id) else {
        return Err(Fatal(format!("{} has no node with id {}", arguments.config.display(), arguments.id)));
    };
    let stop = until_told_to_stop()?;
    let cluster_key = read_cluster_key(&config.cluster.key_file)?;
    let address = resolve(node.listen.as_ref().unwrap_or(&node.address)).await?;
    let socket = take_address(address)?;
    let capacity_bytes = match node.capacity {
        Some(size) => size.0,
        None => assemble::file_system_bytes(&node.data)?,
    };
    let pool = assemble::pool(node.buffers.0, "the node's buffers")?;
    let engine = assemble::engine(&node.engine)?;
    let open = assemble::open_node(id, node.data.clone(), capacity_bytes, engine, cluster_key.clone(), pool).await?;
    let peers: HashMap<NodeId, String> =
        config.nodes.iter().map(|node| (NodeId(node.id), node.address.clone())).collect();
    let calls = rails::Calls::new(
        &config.cluster,
        peers.keys().copied().collect(),
        TcpMessenger::new(peers, TcpOptions::default()),
    )?;
    let kept = Beside::of_process(&open, Arc::clone(&calls.messenger), &cluster_key, config.keep.scrub()?)?;
    let listener = listen(socket, address)?;
    tracing::info!(node = %id, %address, "the node is open");
    let behind = rails::Served::new(&config.cluster, id, kept.rebuilders[0].clone())?;
    let metrics = Metrics {
        nodes: vec![open.handler.clone()],
        rebuilders: kept.rebuilders.clone(),
        calls: calls.rdma(),
        served: behind.rdma(),
        ..Metrics::default()
    };
    let _metrics = metrics.serve(node.metrics).await?;
    let served = serve_tcp(listener, behind.handler(), stop, TcpServerOptions::new(id)).await;
    behind.shutdown().await;
    drop(kept);
    open.store.close().await;
    served.map_err(|error| Fatal::doing(format!("serving {id}"), error))
}
