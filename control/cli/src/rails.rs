//! RDMA between gateway and nodes: whether, over which ports, and what happens where there is none.

use std::sync::Arc;

use penstock_proto::NodeId;
use penstock_rdma_transport::{Domain, RdmaMessenger, RdmaMode, RdmaNode, RdmaNodeOptions, RdmaOptions, rails};
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
        let options = RdmaOptions { mode, ..RdmaOptions::default() };
        let rdma = RdmaMessenger::new(tcp, nodes, ports, options)
            .map_err(|error| Fatal::doing("memory for RDMA messages", error))?;
        let rdma = Arc::new(rdma);
        Ok(Self { messenger: Arc::clone(&rdma) as _, rdma: Some(rdma) })
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
        let node = RdmaNode::new(handler, ports(cluster)?, RdmaNodeOptions::new(id))
            .map_err(|error| Fatal::doing("memory for RDMA messages", error))?;
        Ok(Self::Rdma(Arc::new(node)))
    }

    /// What TCP serves.
    pub(crate) fn handler(&self) -> Arc<dyn Handler> {
        match self {
            Self::Plain(handler) => Arc::clone(handler),
            Self::Rdma(node) => Arc::clone(node) as _,
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
