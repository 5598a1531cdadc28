//! RDMA between nodes and whoever calls them (gateway, clients with plans): whether, over which ports, and what happens
//! where there is none.

use std::sync::Arc;

use penstock_proto::NodeId;
use penstock_rdma_transport::{
    Domain, RdmaDialer, RdmaMessenger, RdmaMode, RdmaNode, RdmaNodeOptions, RdmaOptions, rails,
};
use penstock_transport::{Handler, Messenger, TcpMessenger};
use serde::Deserialize;

use crate::Fatal;
use crate::config::Cluster;

/// `rdma` of `[cluster]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Use {
    /// Where both sides have a device; else TCP.
    #[default]
    Auto,
    /// TCP alone; no device is looked for.
    Off,
    /// Or nothing works: a process without a device does not start.
    Require,
}

/// Names the device of a process that has no configuration file: `none` for no RDMA; absent is every active port, if there
/// is one.
pub(crate) const DEVICE_VARIABLE: &str = "PENSTOCK_RDMA_DEVICE";

/// Queue pairs of one node of `penstock serve`: many share a process, and its pinned memory.
const SERVE_CONNECTIONS_MAX: usize = 64;
/// Memory for the messages of one connection, at its caller: 17 receives and what is sent, 16 KiB each.
const CALLER_CONNECTION_BYTES: usize = 512 << 10;
/// The same at the node: 36 receives.
const NODE_CONNECTION_BYTES: usize = 768 << 10;
/// Its messages, at most.
const SERVE_MESSAGE_POOL_BYTES: usize = 48 << 20;

/// The ports that [`DEVICE_VARIABLE`] allows; none where there is none and none is named. Call it within a tokio runtime.
///
/// # Errors
/// A device that is named and can't be used.
pub(crate) fn ports_of_machine() -> Result<Vec<Domain>, Fatal> {
    let named = std::env::var(DEVICE_VARIABLE).ok().filter(|name| !name.is_empty());
    match named.as_deref() {
        Some("none") => Ok(Vec::new()),
        Some(name) => rails(&[name.to_owned()])
            .map_err(|error| Fatal(format!("{DEVICE_VARIABLE}={name}: {error}; none is no RDMA"))),
        None => Ok(rails(&[]).unwrap_or_default()),
    }
}

/// How a client on this machine dials nodes over RDMA; where there is no device, it says so each time.
///
/// # Errors
/// When there is no memory for messages; a device that is named and can't be used.
pub(crate) fn dialer() -> Result<Arc<RdmaDialer>, Fatal> {
    let named = std::env::var(DEVICE_VARIABLE).ok().filter(|name| !name.is_empty());
    let ports = match named.as_deref() {
        Some("none") => return dialer_of(Err(penstock_verbs::VerbsError::NoDevices)),
        Some(name) => rails(&[name.to_owned()]),
        None => rails(&[]),
    };
    dialer_of(ports)
}

fn dialer_of(ports: Result<Vec<Domain>, penstock_verbs::VerbsError>) -> Result<Arc<RdmaDialer>, Fatal> {
    RdmaDialer::new(ports, RdmaOptions::default())
        .map(Arc::new)
        .map_err(|error| Fatal::doing("memory for RDMA messages", error))
}

/// The ports to use; none where there is none and none is required.
fn ports(cluster: &Cluster) -> Result<Vec<Domain>, Fatal> {
    match (rails(&cluster.rdma_devices), cluster.rdma) {
        (Ok(ports), _) => {
            for port in &ports {
                let (device, mtu) = (port.device().name(), port.port().mtu.bytes());
                tracing::info!(device, port = port.port().port, mtu, gids = ?port.gids(), "an RDMA port is used");
            }
            Ok(ports)
        }
        // Devices that are named are meant.
        (Err(error), Use::Auto) if cluster.rdma_devices.is_empty() => {
            tracing::info!(%error, "no RDMA on this machine: gateway and nodes talk over TCP");
            Ok(Vec::new())
        }
        (Err(error), _) => Err(Fatal::doing("RDMA, as rdma and rdma_devices of [cluster] ask for", error)),
    }
}

/// How the gateway calls its nodes.
pub(crate) struct Calls {
    pub(crate) messenger: Arc<dyn Messenger>,
    rdma: Option<Arc<RdmaMessenger>>,
}

impl Calls {
    /// Over RDMA where it is wanted and there, over `tcp` otherwise.
    pub(crate) fn new(cluster: &Cluster, nodes: Vec<NodeId>, tcp: TcpMessenger) -> Result<Self, Fatal> {
        let tcp = Arc::new(tcp);
        let ports = if cluster.rdma == Use::Off { Vec::new() } else { ports(cluster)? };
        if ports.is_empty() {
            return Ok(Self { messenger: tcp, rdma: None });
        }
        let mode = if cluster.rdma == Use::Require { RdmaMode::Require } else { RdmaMode::Auto };
        let mut options = RdmaOptions { mode, ..RdmaOptions::default() };
        if let Some(max) = cluster.rdma_connections_per_node_max {
            options.connections_per_node_max = max.get();
            let all = max.get().saturating_mul(nodes.len()).saturating_mul(CALLER_CONNECTION_BYTES);
            options.message_pool_bytes = options.message_pool_bytes.max(all);
        }
        let rdma = RdmaMessenger::new(tcp, nodes, ports, options)
            .map_err(|error| Fatal::doing("memory for RDMA messages", error))?;
        let rdma = Arc::new(rdma);
        Ok(Self { messenger: Arc::clone(&rdma) as _, rdma: Some(rdma) })
    }

    /// What counts calls over RDMA, where there is RDMA.
    pub(crate) fn rdma(&self) -> Option<Arc<RdmaMessenger>> {
        self.rdma.clone()
    }

    /// Says what went which way.
    pub(crate) fn log_counts(&self) {
        if let Some(rdma) = &self.rdma {
            tracing::info!(counts = ?rdma.counts(), "calls to the nodes over RDMA");
        }
    }
}

/// A node's handler, with RDMA in front of it where that is wanted.
pub(crate) enum Served {
    Plain(Arc<dyn Handler>),
    Rdma(Arc<RdmaNode>),
}

impl Served {
    pub(crate) fn new(cluster: &Cluster, id: NodeId, handler: Arc<dyn Handler>) -> Result<Self, Fatal> {
        if cluster.rdma == Use::Off {
            return Ok(Self::Plain(handler));
        }
        let mut options = RdmaNodeOptions::new(id);
        if let Some(max) = cluster.rdma_node_connections_max {
            options.connections_max = max.get();
            options.message_pool_bytes =
                options.message_pool_bytes.max(max.get().saturating_mul(NODE_CONNECTION_BYTES));
        }
        let node = RdmaNode::new(handler, ports(cluster)?, options)
            .map_err(|error| Fatal::doing("memory for RDMA messages", error))?;
        Ok(Self::Rdma(Arc::new(node)))
    }

    /// A node of `penstock serve`, over ports that all nodes share.
    pub(crate) fn of_serve(ports: &[Domain], id: NodeId, handler: Arc<dyn Handler>) -> Result<Self, Fatal> {
        if ports.is_empty() {
            return Ok(Self::Plain(handler));
        }
        let options = RdmaNodeOptions {
            connections_max: SERVE_CONNECTIONS_MAX,
            message_pool_bytes: SERVE_MESSAGE_POOL_BYTES,
            ..RdmaNodeOptions::new(id)
        };
        let node = RdmaNode::new(handler, ports.to_vec(), options)
            .map_err(|error| Fatal::doing("memory for RDMA messages", error))?;
        Ok(Self::Rdma(Arc::new(node)))
    }

    /// By which transports it is reached, best first.
    pub(crate) fn transports(&self) -> &'static [&'static str] {
        match self {
            Self::Plain(_) => &["tcp"],
            Self::Rdma(_) => &["rdma", "tcp"],
        }
    }

    /// What TCP serves.
    pub(crate) fn handler(&self) -> Arc<dyn Handler> {
        match self {
            Self::Plain(handler) => Arc::clone(handler),
            Self::Rdma(node) => Arc::clone(node) as _,
        }
    }

    /// What counts calls over RDMA, where there is RDMA.
    pub(crate) fn rdma(&self) -> Option<Arc<RdmaNode>> {
        match self {
            Self::Plain(_) => None,
            Self::Rdma(node) => Some(Arc::clone(node)),
        }
    }

    /// Ends calls and connections.
    pub(crate) async fn shutdown(&self) {
        if let Self::Rdma(node) = self {
            node.shutdown().await;
            tracing::info!(counts = ?node.counts(), "RDMA connections are closed");
        }
    }
}
